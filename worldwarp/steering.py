"""Live keys: each key is a small move from where the walk stands, and each move is one chunk."""

from __future__ import annotations

import contextlib
import os
import select
import sys
from collections.abc import Callable, Iterable, Iterator
from io import TextIOBase

from geometry.camera import Camera
from geometry.presets import parse_path_expression

LIVE = "keys"  # what `path=` says
END = "x"
MOVES = {
    "w": "forward:distance=0.15",
    "s": "back:distance=0.15",
    "a": "left:distance=0.12",
    "d": "right:distance=0.12",
    "r": "up:distance=0.1",
    "f": "down:distance=0.1",
    "q": "pan:angle_deg=-10",
    "e": "pan:angle_deg=10",
    "t": "tilt:angle_deg=6",
    "g": "tilt:angle_deg=-6",
    "o": "orbit:angle_deg=15",
}
HELP = "w a s d move · r f up and down · q e turn · t g tilt · o orbit · x ends"


def moves(keys: Iterable[str], last: Callable[[], Camera], chunk: int) -> Iterator[Camera]:
    """Chunks of cameras ``[chunk]``, one per key that means a move; ends at `END` or with the keys.

    Args:
        keys: single characters; those without a meaning are passed over.
        last: the camera (no batch axis) where the walk stands.
        chunk: cameras per move.
    """
    for key in keys:
        if key == END:
            return
        if key in MOVES:
            here = last()
            yield parse_path_expression(MOVES[key], size=here.size, start=here, frames=chunk + 1)[1:]


def typed(stream: TextIOBase, stopped: Callable[[], bool]) -> Iterator[str]:
    """Single characters as they are typed in a terminal, or those of a file or pipe, until ``stopped``."""
    if not stream.isatty() or sys.platform == "win32":
        while not stopped() and (key := stream.read(1)):
            yield key.lower()
        return
    with _unbuffered(stream):
        while not stopped():
            if select.select([stream], [], [], 0.2)[0]:
                # Not through the stream's own buffer, which would hide further keys from the question above.
                yield os.read(stream.fileno(), 1).decode("utf-8", "ignore").lower()


@contextlib.contextmanager
def _unbuffered(stream: TextIOBase) -> Iterator[None]:
    """Let a terminal hand over each key without waiting for Enter."""
    import termios
    import tty

    before = termios.tcgetattr(stream)
    tty.setcbreak(stream.fileno())
    try:
        yield
    finally:
        termios.tcsetattr(stream, termios.TCSADRAIN, before)
