"""From the loop to whoever looks on: recorders, and the closing words of a walk."""

from __future__ import annotations

import hashlib
from pathlib import Path

from omegaconf import DictConfig

from viz.recorder import ChunkEvent, NullRecorder, Recorder
from worldwarp.exploration import VIDEO, Exploration
from worldwarp.loop import Step
from worldwarp.plan import Plan


def open_viewer(viewer: DictConfig, folder: Path | None) -> Recorder:
    """The recorder that ``viewer=...`` asks for, recording into ``folder``.

    Raises:
        ValueError: a port in use, or a viewer of another version.
    """
    if viewer.mode == "none":
        return NullRecorder()
    from viz.rerun_recorder import new_recording_path, open_recorder

    recording = None if folder is None else new_recording_path(folder)
    identity = hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    return open_recorder(viewer.mode, recording, recording_id=identity, port=viewer.port, url=viewer.url)


def introduce(recorder: Recorder, exploration: Exploration, plan: Plan) -> None:
    """Tell a recorder what there is before the first chunk."""
    settings = exploration.settings
    text = "\n".join([f"- image `{settings.image}`", f"- path `{settings.path}`", f"- seed {settings.seed}"])
    markdown = "\n\n".join([text, *plan.lines()])
    cache = exploration.parts.cache
    recorder.begin(exploration.photo, cache.snapshot(), cache.names(), exploration.cameras, markdown)


def show(recorder: Recorder, step: Step) -> None:
    """Tell a recorder what a chunk produced."""
    frames, change = step.chunk.frames, step.integration.change
    recorder.chunk(
        ChunkEvent(
            index=step.chunk.index,
            first_frame=step.first_frame,
            frames=frames,
            guide=step.guide,
            prior_rgb=step.prior.rgb,
            sigma=step.sigma,
            added=step.added,
            names=change.index[change.index >= step.integration.first],
            removed=change.removed,
            timings_s=step.timings_s,
            gauges=step.gauges,
        )
    )
    recorder.text(
        f"chunk {step.chunk.index}: {step.gauges['hole_ratio']:.1%} new, {step.integration.added} primitives added, "
        f"{sum(step.timings_s.values()):.2f} s"
    )


def after(exploration: Exploration) -> list[str]:
    """Where everything is after a walk, and what to type next."""
    walk, total = exploration.walk, len(exploration.cameras)
    if exploration.world is None:
        return [f"{walk.frames} of {total} frames; nothing was stored"]
    folder = exploration.world.folder
    lines = [
        f"{'stopped and saved' if exploration.remaining else 'done'}: {walk.frames} of {total} frames, "
        f"{len(exploration.parts.cache)} primitives, in {folder}",
        f"  video      {folder / VIDEO}",
        f"  look       worldwarp view {folder}",
        f"  take away  worldwarp export {folder} formats=[gaussians_ply,points_ply,glb,colmap,nerfstudio,mp4]",
    ]
    if exploration.remaining:
        lines.append(f"  finish     worldwarp explore resume={folder}")
    return lines
