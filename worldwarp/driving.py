"""Driving a walk with live keys: reads keys, answers them, and makes a chunk for each that means a move."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, closing

from scenes.io.atomic_files import WorldError
from viz.recorder import Recorder
from worldwarp import keyboard as steering
from worldwarp.loop import Step
from worldwarp.recording import show_undo
from worldwarp.session import Exploration

HINT = "no such key; ? lists them"


def drive(
    exploration: Exploration,
    keys: Generator[str, None, None],
    recorder: Recorder,
    tell: Callable[[str], None],
    working: Callable[[str], AbstractContextManager[None]],
) -> Iterator[Step]:
    """Walk by keys; yields a step per key that moved, and ends with `steering.ENDS` or with the keys.

    Args:
        exploration: where to go on from; what it planned beyond its last finished frame is dropped.
        keys: as `steering.typed` names them; closed at the end, so that a terminal is left as it was.
        recorder: is told of chunks that are taken back; the caller tells it of the steps.
        tell: answers the user.
        working: shows a text for as long as something is being made.
    """
    steps, hinted = 0, False
    with closing(keys):
        for key in keys:
            if key in steering.ENDS:
                return
            if key in steering.IGNORED:
                continue
            here = exploration.cameras[exploration.walk.frames - 1]
            cameras = steering.move(key, here, exploration.settings.chunk, steps)
            is_unknown = False
            if cameras is not None:
                with working(steering.move_name(key)):
                    step = exploration.go(cameras)
                yield step
            elif key in (*steering.WIDER, *steering.NARROWER):
                low, high = steering.STEP_LIMITS
                steps = min(max(steps + (1 if key in steering.WIDER else -1), low), high)
                tell(f"step size {steering.STEP_RATIO**steps:.2g}")
            elif key == steering.HELP_KEY:
                tell(steering.HELP)
            elif key == steering.UNDO:
                _undo(exploration, recorder, tell, working)
            else:
                is_unknown = True
                if not hinted:  # once, however many such keys follow each other
                    tell("pasted text is no key; ? lists the keys" if key == steering.PASTE else HINT)
            hinted = is_unknown


def _undo(
    exploration: Exploration,
    recorder: Recorder,
    tell: Callable[[str], None],
    working: Callable[[str], AbstractContextManager[None]],
) -> None:
    chunks, frames = exploration.walk.chunks, exploration.walk.frames
    try:
        with working("taking back the last chunk"):
            exploration.undo()
    except ValueError as error:
        if isinstance(error, WorldError):  # of the disk: the walk no longer knows where it stands
            raise
        tell(str(error))
        return
    show_undo(recorder, exploration, chunks, frames)
    what = "chunk" if exploration.walk.chunks < chunks else "forget"
    tell(f"took back the last {what}; {exploration.walk.frames} frames are left")
