"""Forwards the steps of a session to a recorder, and prints where its results are."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Literal

import torch
from omegaconf import DictConfig

from scenes.io.atomic_files import replacing
from scenes.store.world_store import MANIFEST, WorldStore
from viz.recorder import ChunkEvent, NullRecorder, Recorder, StartEvent, UndoEvent
from worldwarp.arguments import pasted
from worldwarp.config import check_viewer
from worldwarp.plan import Plan
from worldwarp.session import VIDEO, Session
from worldwarp.state import Step

RECORDINGS = "recording*.rrd"  # of a world, in its folder


def open_viewer(viewer: DictConfig, folder: Path | None) -> Recorder:
    """The recorder that ``viewer=...`` asks for, recording into ``folder``.

    Raises:
        ValueError: an invalid setting, a port in use, or a viewer of another version.
    """
    check_viewer(viewer)
    if viewer.mode == "none":
        return NullRecorder()
    from viz.rerun_recorder import new_recording_path, open_recorder

    if folder is not None:
        _rebuild_if_missing(folder)  # otherwise the recording would lack the chunks before this session
    recording = None if folder is None else new_recording_path(folder)
    return open_recorder(viewer.mode, recording, port=viewer.port, url=viewer.url, browser=viewer.open)


def record_start(recorder: Recorder, session: Session, plan: Plan | None = None) -> None:
    """Send a recorder the world before the first chunk."""
    settings = session.settings
    image = (settings.image or "").encode("utf-8", "backslashreplace").decode()  # Rerun accepts only valid UTF-8
    text = "\n".join([f"- image `{image}`", f"- path `{settings.path}`", f"- seed {settings.seed}"])
    markdown = "\n\n".join([text, *([] if plan is None else plan.lines())])
    cache = session.state.view.cache
    recorder.begin(
        StartEvent(
            photo=session.photo,
            picture=session.state.view.texture.full_res,
            added=cache.snapshot(),
            ids=cache.ids(),
            planned=session.cameras,
            settings_markdown=markdown,
        )
    )


def record_step(recorder: Recorder, step: Step) -> None:
    """Send a recorder the result of a chunk."""
    change = step.integration.change
    recorder.chunk(
        ChunkEvent(
            index=step.chunk.index,
            first_frame=step.first_frame,
            frames=step.chunk.frames,
            guide=step.guide,
            prior_rgb=step.prior.rgb,
            sigma=step.sigma,
            added=step.added,
            # Ids below `first` existed before: they were updated, not added.
            ids=change.index[change.index >= step.integration.first],
            removed=change.removed,
            timings_s=step.timings_s,
            gauges=step.gauges,
        )
    )
    recorder.text(
        f"chunk {step.chunk.index}: {step.gauges['hole_ratio']:.1%} new, {step.integration.added} primitives added, "
        f"{sum(step.timings_s.values()):.2f} s"
    )


def record_undo(recorder: Recorder, session: Session, chunks: int, frames: int) -> None:
    """Send a recorder the undo of the last of ``chunks`` chunks, which ended at frame count ``frames``."""
    state, cache = session.state, session.state.view.cache
    here = session.cameras[state.frames - 1]
    recorder.undo(UndoEvent(chunks - 1, state.frames, frames - state.frames, here, cache.snapshot(), cache.ids()))
    recorder.text(f"chunk {chunks - 1}: taken back")


def open_world(
    folder: Path, mode: Literal["native", "web"] | None = None, port: int | None = None
) -> tuple[subprocess.Popen[bytes], str]:
    """Show a world's recordings, or a ``.rrd`` file; without a recording, one is made from the stored world.

    Args:
        folder: of the world, or a file.
        mode: a window, which outlives this program, or a page, which ends with it; None is a window if possible.
        port: see `viz.open_recording.open_recording`.

    Returns:
        The viewer process, and a text with the window or the address.

    Raises:
        ValueError: neither a world nor a recording, or no viewer that can show it.
    """
    from viz.open_recording import open_recording
    from viz.viewer_process import has_display

    # A world made with viewer=none, or from Python, has no recording.
    _rebuild_if_missing(folder)
    return open_recording(folder, mode or ("native" if has_display() else "web"), port)


def _rebuild_if_missing(folder: Path) -> None:
    if (folder / MANIFEST).exists() and not any(folder.glob(RECORDINGS)):
        rebuild_recording(WorldStore.load(folder))


def rebuild_recording(world: WorldStore) -> Path:
    """Record a stored world: frames, depth, cameras, metrics, and the present primitives.

    Guides, priors and noise maps are not stored with a world, so the recording has none.
    """
    from viz.rerun_recorder import RerunRecorder, new_recording_path

    path, primitives = new_recording_path(world.folder), world.primitives
    ids, none = torch.arange(len(primitives)), torch.zeros(0, dtype=torch.int64)
    # An interrupted rebuild must not look like a recording.
    with replacing(path) as partial:
        recorder = RerunRecorder(partial)
        of_photo = primitives.chunk == 0
        settings = f"- seed {world.manifest.seed}\n- made from the stored world"
        photo = world.chunk(0).frames
        recorder.begin(StartEvent(photo, world.photo, primitives[of_photo], ids[of_photo], world.path, settings))
        for record in world.chunks[1:]:
            in_chunk = primitives.chunk == record.index
            gauges = {name: value for name, value in record.gauges.items() if value is not None}
            recorder.chunk(
                ChunkEvent(
                    index=record.index,
                    first_frame=record.first_frame,
                    frames=world.chunk(record.index).frames,
                    guide=None,
                    prior_rgb=None,
                    sigma=None,
                    added=primitives[in_chunk],
                    ids=ids[in_chunk],
                    removed=none,
                    gauges=gauges,
                )
            )
        recorder.close()
    return path


def summary(session: Session) -> list[str]:
    """Lines that tell where the results of a session are, with the next commands."""
    state, total = session.state, len(session.cameras)
    if session.world is None:
        return [f"{state.frames} of {total} frames; nothing was stored"]
    folder = session.world.folder
    lines = [
        f"{'stopped and saved' if session.remaining else 'done'}: {state.frames} of {total} frames, "
        f"{len(session.state.view.cache)} primitives, in {folder}",
        f"  video      {folder / VIDEO}",
        f"  look       worldwarp {pasted('view', folder)}",
        f"  take away  worldwarp {pasted('export', folder)}",
    ]
    if session.remaining:
        lines.append(f"  finish     worldwarp {pasted('explore', folder)}")
    return lines
