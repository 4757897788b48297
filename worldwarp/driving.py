"""Drives a session with the keyboard: each key of a move makes one chunk."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, closing

from scenes.io.atomic_files import WorldError
from viz.recorder import Recorder
from worldwarp import keyboard
from worldwarp.recording import record_undo
from worldwarp.resume import undo
from worldwarp.session import Session
from worldwarp.state import Step

HINT = "no such key; ? lists them"


def drive(
    session: Session,
    keys: Generator[str, None, None],
    recorder: Recorder,
    tell: Callable[[str], None],
    working: Callable[[str], AbstractContextManager[None]],
) -> Iterator[Step]:
    """Explore by keys; yields a step per move, and ends at a key of `keyboard.ENDS` or after the last key.

    Args:
        session: continued from its last finished frame; its planned path is dropped.
        keys: from `keyboard.typed`; closed at the end, which restores the terminal.
        recorder: receives undone chunks; the caller records the steps.
        tell: prints a line for the user.
        working: context manager that shows a text while a chunk is made.
    """
    steps, hinted = 0, False
    with closing(keys):
        for key in keys:
            command = key.lower()  # a typed prompt keeps its capitals
            if command in keyboard.ENDS:
                return
            if key in keyboard.IGNORED:
                continue
            # From the last finished frame, also after an undo.
            here = session.cameras[session.state.frames - 1]
            cameras = keyboard.move(key, here, session.chunk, steps)
            is_unknown = False
            if cameras is not None:
                with working(keyboard.move_name(key)):
                    step = session.go(cameras)
                yield step
            elif key in (*keyboard.WIDER, *keyboard.NARROWER):
                low, high = keyboard.STEP_LIMITS
                steps = min(max(steps + (1 if key in keyboard.WIDER else -1), low), high)
                tell(f"step size {keyboard.STEP_RATIO**steps:.2g}")
            elif key == keyboard.HELP_KEY:
                tell(keyboard.HELP)
            elif command == keyboard.UNDO:
                _undo(session, recorder, tell, working)
            elif command == keyboard.PROMPT:
                _prompt(session, keys, tell, working)
            else:
                is_unknown = True
                if not hinted:  # once per series of unknown keys
                    tell("pasted text is no key; ? lists the keys" if key.startswith(keyboard.PASTE) else HINT)
            hinted = is_unknown


def _prompt(
    session: Session,
    keys: Iterator[str],
    tell: Callable[[str], None],
    working: Callable[[str], AbstractContextManager[None]],
) -> None:
    """Read a text up to Enter, and let it describe the chunks that come."""
    if not session.takes_prompts:
        tell("this generator takes no text; generator=wan does")
        return
    tell("prompt: type or paste a text, Enter ends it (an empty one changes nothing)")
    text = keyboard.entered(keys)
    if not text:
        return
    try:
        with working("encoding the prompt"):
            session.prompt(text)
    except ValueError as error:
        if isinstance(error, WorldError):
            raise
        tell(str(error))
        return
    tell(f"prompt from the next chunk on: {text}")


def _undo(
    session: Session,
    recorder: Recorder,
    tell: Callable[[str], None],
    working: Callable[[str], AbstractContextManager[None]],
) -> None:
    chunks, frames = session.state.chunks, session.state.frames
    try:
        with working("taking back the last chunk"):
            undo(session)
    except ValueError as error:
        if isinstance(error, WorldError):  # reading or writing failed: the state of the session is undefined
            raise
        tell(str(error))
        return
    # Only after it succeeded: the recorder must show what the world holds.
    record_undo(recorder, session, chunks, frames)
    what = "chunk" if session.state.chunks < chunks else "forget"
    tell(f"took back the last {what}; {session.state.frames} frames are left")
