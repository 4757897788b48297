"""`worldwarp explore`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import TextIOBase
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig
from tqdm import tqdm

from worldwarp.arguments import (
    LIVE,
    MANIFEST,
    ConfigError,
    check_world,
    command_words,
    default_folder,
    pasted,
    user_path,
)
from worldwarp.commands.signals import handled_signals
from worldwarp.config import check_explore, compose_config, onward
from worldwarp.console import Progress, waiting


def explore_command(words: list[str]) -> int:
    """`worldwarp explore PHOTO PATH`, or a world's folder: plan, explore, store, record."""
    words = command_words(words)
    config = compose_config("explore", words)
    check_explore(config)
    changes: dict[str, Any] = {}
    if config.resume is None:
        folder = user_path("out", config.out or default_folder(config.video or config.image))
        _check_free(folder)
    else:
        folder = user_path("resume", config.resume)
        changes = onward(words, config)
        check_world("resume", folder)

    from worldwarp.first_run import kernels_beside

    with kernels_beside(tqdm.write):
        return _explore(config, folder, changes)


def _explore(config: DictConfig, folder: Path, changes: dict[str, Any]) -> int:
    """Prepare or resume, then explore; returns the exit code."""
    from worldwarp.driving import drive
    from worldwarp.keyboard import introduction, typed
    from worldwarp.prepare import prepare
    from worldwarp.recording import open_viewer, record_start, record_step, summary
    from worldwarp.resume import resume

    if config.resume is None:
        with waiting("reading the photo and estimating its depth"):
            session = prepare(config, out=folder, tell=tqdm.write)
    else:
        with waiting("opening the world"):
            session = resume(folder, config.device, changes, tell=tqdm.write)
    by_keys = session.settings.path == LIVE
    if not session.remaining and not by_keys:
        print(f"already finished: {session.state.frames} frames in {folder}")
        print(f"  look       worldwarp {pasted('view', folder)}")
        print(f"  take away  worldwarp {pasted('export', folder)}")
        print(f"  go on      worldwarp {pasted('explore', folder, 'up,orbit')}")
        return 0
    with waiting("looking along the path"):
        plan = session.plan()
    for line in introduction(plan, session.chunk) if by_keys else plan.lines():
        print(line)
    # After all refusals: a refused session leaves no window and no recording behind.
    recorder = open_viewer(config.viewer, folder)
    try:
        if session.world is None:
            session.store_in(folder)
        record_start(recorder, session, plan)
        print(f"viewer   {recorder.how_to_look}")
        total, begun = None if by_keys else plan.frames or None, session.state.frames
        with stop_after_chunk() as asked_to_stop, Progress(total) as progress:
            steps = session.steps()
            if by_keys:
                keys = typed(cast(TextIOBase, sys.stdin), asked_to_stop)
                steps = drive(session, keys, recorder, tqdm.write, waiting)
            for step in steps:
                record_step(recorder, step)
                new = f"chunk {step.chunk.index}, {step.gauges['hole_ratio']:.0%} new"
                progress.reach(session.state.frames - begun, new)  # an undo by key lowers the number
                if asked_to_stop():
                    break
        with waiting("writing the video"):
            session.write_video()
    finally:
        recorder.close()
    for line in summary(session):
        print(line)
    interrupted = 130
    return interrupted if session.remaining else 0


@contextmanager
def stop_after_chunk() -> Iterator[Callable[[], bool]]:
    """First Ctrl-C: finish the chunk and save. Second: stop at once; stored chunks are kept."""
    asked = False

    def on_interrupt(_signal: int, _frame: object) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        tqdm.write("stopping after this chunk (Ctrl-C again stops at once)", file=sys.stderr)

    with handled_signals(on_interrupt, "SIGINT", "SIGTERM", "SIGHUP"):
        yield lambda: asked


def _check_free(folder: Path) -> None:
    """Refuse an output folder that is not empty, before any work (`WorldStore.create` checks again)."""
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        there = (folder / MANIFEST).is_file()
        others = f", or go on with `worldwarp {pasted('explore', folder)}`" if there else ""
        raise ConfigError(f"out: {folder} is not empty; choose another with out={others}")
