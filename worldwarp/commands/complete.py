"""`worldwarp complete`: closes what a world lacks when it is looked at from aside."""

from __future__ import annotations

from typing import Any

from omegaconf import OmegaConf
from tqdm import tqdm

from worldwarp.arguments import BY_ITSELF, check_world, folder_and_settings, pasted
from worldwarp.config import check_choice, check_number, check_whole, compose_config
from worldwarp.console import Progress, waiting


def complete_command(words: list[str]) -> int:
    """`worldwarp complete DIR [radius=0.3] [angle_deg=25]`: make what is unknown around the photo's camera."""
    folder, settings = folder_and_settings("complete", words)
    config = compose_config("complete", settings)
    check_number(config, "radius", 0.0, 10.0)
    check_number(config, "angle_deg", 0.0, 180.0)
    check_number(config, "enough", 0.0, 1.0)
    check_whole(config, "frames", 1, 1_000_000)
    check_choice(config, "device", ("cpu", "cuda"))
    check_world("complete", folder)

    from worldwarp.commands.explore import stop_after_chunk
    from worldwarp.recording import open_viewer, record_start, record_step
    from worldwarp.resume import resume
    from worldwarp.surroundings import JUDGES, all_around, hidden, small_size, unknown_share

    with waiting("opening the world"):
        session = resume(folder, config.device, tell=tqdm.write)
    size = session.photo.camera.size
    small = small_size(size, min(192, max(size)))
    views = 200
    around = session.surroundings(float(config.radius), float(config.angle_deg)).views(views, skip=JUDGES, size=small)
    with waiting("looking around (the first run compiles its kernels)"):
        before = float(unknown_share(session.state.view, around).mean())
    what = f"of {views} views within {config.radius:g} median depths and {config.angle_deg:g}° of the photo's"
    if before <= config.enough:
        print(f"nothing to complete: {before:.1%} {what} is unknown")
        return 0
    print(f"before   {before:.1%} {what} is unknown")
    by_itself = compose_config("explore", [f"path={BY_ITSELF}", "auto=complete", "viewer=file"])
    auto: Any = OmegaConf.to_container(by_itself.auto)
    given = {name: float(config[name]) for name in ("radius", "angle_deg", "enough")}
    dropped = len(session.cameras) - session.state.frames
    session.go_on_by_itself(auto | given, config.frames)
    if dropped:
        print(f"path     {dropped} planned frames that were not made are dropped")
    first = session.state.frames
    recorder = open_viewer(by_itself.viewer, folder)
    try:
        record_start(recorder, session)
        with stop_after_chunk() as asked_to_stop, Progress(None) as progress:
            for step in session.steps():
                record_step(recorder, step)
                unknown = "" if session.unknown is None else f"{session.unknown:.1%} unknown"
                progress.reach(session.state.frames - first, f"chunk {step.chunk.index}, {unknown}")
                if asked_to_stop():
                    break
    finally:
        recorder.close()
    with waiting("writing the video"):
        session.write_video()
    with waiting("looking around"):
        seen = all_around(session.state.view, session.photo.camera)
        free = ~hidden(around.position, seen, 0.0)
        after = float(unknown_share(session.state.view, around[free]).mean())
    print(f"after    {after:.1%}, with {session.state.frames - first} more frames in {folder}")
    if not free.all():
        print(
            f"         without {int((~free).sum())} views from places that are under the ground, or behind things, now"
        )
    print(f"  look       worldwarp {pasted('view', folder)}")
    print(f"  take away  worldwarp {pasted('export', folder)}")
    interrupted = 130
    return interrupted if session.remaining else 0
