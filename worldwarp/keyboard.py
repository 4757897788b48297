"""Keyboard control: each key is a small move from the last camera, and each move is one chunk."""

from __future__ import annotations

import codecs
import contextlib
import os
import select
import sys
import time
from collections.abc import Callable, Generator, Iterator
from io import TextIOBase
from typing import NamedTuple

from geometry.camera import Camera
from geometry.trajectory.expressions import parse_path_expression
from worldwarp.plan import Plan

ENDS = ("x", "\x04")  # x, Ctrl-D
UNDO, HELP_KEY, PROMPT = "u", "?", "p"
ENTER, ERASE = ("\n", "\r"), ("\x7f", "\x08")
WIDER, NARROWER = ("+", "="), ("-", "_")
IGNORED = (" ", "\n", "\r")
UNKNOWN = "unknown"  # a key whose sequence has no meaning here
PASTE = "paste:"  # before pasted text
STRINGS = "]P_^X"  # after ESC: OSC, DCS, APC, PM, SOS

STEP_RATIO = 1.5  # ratio of consecutive step sizes
STEP_LIMITS = (-4, 4)  # exponents of STEP_RATIO: a fifth to five times


class Move(NamedTuple):
    """Move of a key: a preset of `worldwarp paths`, the parameter that is set, its value, a display name."""

    preset: str
    parameter: str
    value: float
    name: str


MOVES = {
    "w": Move("forward", "distance", 0.15, "forward"),
    "s": Move("back", "distance", 0.15, "back"),
    "a": Move("left", "distance", 0.12, "left"),
    "d": Move("right", "distance", 0.12, "right"),
    "r": Move("up", "distance", 0.1, "up"),
    "f": Move("down", "distance", 0.1, "down"),
    "q": Move("pan", "angle_deg", -10.0, "turn left"),
    "e": Move("pan", "angle_deg", 10.0, "turn right"),
    "t": Move("tilt", "angle_deg", 6.0, "look up"),
    "g": Move("tilt", "angle_deg", -6.0, "look down"),
    "o": Move("orbit", "angle_deg", 15.0, "orbit"),
}
ARROWS = {"up": "w", "down": "s", "left": "a", "right": "d"}
HELP = (
    "w a s d or arrows move · r f up, down · q e turn · t g tilt · o orbit · + - step size · u undo · p prompt · "
    "? help · x end"
)


def move(key: str, here: Camera, chunk: int, steps: int = 0) -> Camera | None:
    """The cameras ``[chunk]`` of a key's move; None for a key without a move.

    Args:
        key: from `typed`.
        here: the last camera, no batch axis.
        chunk: cameras per move.
        steps: exponent of `STEP_RATIO` on the value in `MOVES`.
    """
    wanted = MOVES.get(ARROWS.get(key, key.lower()))
    if wanted is None:
        return None
    text = f"{wanted.preset}:{wanted.parameter}={wanted.value * STEP_RATIO**steps:.6f}"
    return parse_path_expression(text, size=here.size, start=here, frames=chunk + 1)[1:]


def move_name(key: str) -> str:
    """Display name of a key's move."""
    return MOVES[ARROWS.get(key, key.lower())].name


def introduction(plan: Plan, chunk: int) -> list[str]:
    """Lines to print before the first key."""
    height, width = plan.size
    return [
        f"plan     a key makes {chunk} frames of {width}x{height} in about {plan.seconds_per_chunk:.1f} s",
        f"keys     {HELP}",
    ]


def entered(keys: Iterator[str]) -> str:
    """A line of text that is typed or pasted next, up to the Enter key."""
    text = ""
    for key in keys:
        if key in ENTER:
            break
        if key in ERASE:
            text = text[:-1]
        elif key.startswith(PASTE):
            text += key.removeprefix(PASTE)
        elif len(key) == 1:
            text += key
    return text.strip()


class KeyParser:
    """Parses terminal input to keys: characters, and escape sequences that may arrive in pieces.

    The sequences are those of ECMA-48 and xterm's "ctlseqs": CSI (``ESC [ ... letter``) and SS3 (``ESC O letter``, what
    terminals in application mode send) for arrows, with numbers in between for Shift, Alt and Ctrl; ``ESC [ 200 ~``
    and ``201 ~`` around pasted text; strings (OSC and the like) in answers of the terminal.
    """

    def __init__(self) -> None:
        self._pending = ""  # a sequence that is not complete yet
        self._pasting = False
        self._pasted = ""

    @property
    def is_waiting(self) -> bool:
        """Whether an incomplete sequence is pending; it may be the Escape key alone."""
        return bool(self._pending)

    def feed(self, text: str) -> list[str]:
        """The keys that ``text`` completes: single characters, arrows by name, `PASTE` with a text, or `UNKNOWN`."""
        keys = []
        for character in text:
            self._pending += character
            key = self._key()
            if key is None:
                continue
            self._pending = ""
            if key == "paste begins":
                self._pasting, self._pasted = True, ""
            elif key == "paste ends":
                self._pasting = False
                keys.append(f"{PASTE}{self._pasted}")
            elif self._pasting:
                self._pasted += key if len(key) == 1 else ""
            elif key:
                keys.append(key)
        return keys

    def flush(self) -> list[str]:
        """The keys of a pending sequence after a timeout: `UNKNOWN` for the Escape key alone."""
        pending, self._pending = self._pending, ""
        return [UNKNOWN] if pending and not self._pasting else []

    def _key(self) -> str | None:
        """The key of the pending characters; None for an incomplete sequence, empty for one that is no key."""
        text = self._pending
        if text[0] != "\x1b":
            return text
        if len(text) == 1:
            return None
        kind = text[1]
        if text[-1] == "\x1b" and kind not in STRINGS:  # Escape twice, or Alt with a sequence: the last Escape counts
            self._pending = "\x1b"
            return None
        if kind in STRINGS:  # a string, up to BEL or ESC \
            return "" if text.endswith(("\x07", "\x1b\\")) and len(text) > 2 else None
        if kind not in "[O":
            return UNKNOWN  # Alt and a character
        if len(text) == 2 or text[-1] in "0123456789;:<=>? !\"#$%&'()*+,-./" or text == "\x1b[[":
            return None  # the Linux console sends ESC [ [ and a letter for F1 to F5
        if text.startswith("\x1b[["):
            return UNKNOWN
        if text == "\x1b[200~":
            return "paste begins"
        if text == "\x1b[201~":
            return "paste ends"
        return dict(zip("ABCD", ("up", "down", "right", "left"), strict=True)).get(text[-1].upper(), UNKNOWN)


def typed(stream: TextIOBase, stopped: Callable[[], bool]) -> Generator[str, None, None]:
    """Keys as they are typed in a terminal, or those of a file or pipe, until ``stopped``; see `KeyParser`."""
    if not stream.isatty():
        pieces = _piped(stream)
    elif sys.platform == "win32":
        import msvcrt

        pieces = console_pieces(msvcrt.kbhit, msvcrt.getwch)
    else:
        pieces = _terminal_pieces(stream)
    parser, since = KeyParser(), time.monotonic()
    with contextlib.closing(pieces):
        # `stopped` is asked before each read, since reading a pipe blocks.
        while not stopped() and (piece := next(pieces, None)) is not None:
            if not parser.is_waiting:
                since = time.monotonic()
            yield from parser.feed(piece)
            escape_s = 0.5  # timeout after which ESC is the Escape key; long, for arrows over slow connections
            if not piece and parser.is_waiting and time.monotonic() - since > escape_s:
                yield from parser.flush()
        yield from parser.flush() if not stopped() else []


ESCAPE_S = 0.5  # timeout after which ESC is the Escape key; long, for arrows over slow connections
POLL_S = 0.1  # interval of checking for input and for a stop


def _piped(stream: TextIOBase) -> Generator[str, None, None]:
    while character := stream.read(1):
        yield character


def _terminal_pieces(stream: TextIOBase) -> Generator[str, None, None]:
    """Input since the last poll, may be empty; ends when the terminal closes."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    with _unbuffered(stream):
        while True:
            if not select.select([stream], [], [], POLL_S)[0]:
                yield ""
                continue
            try:
                # Unbuffered, since keys in the stream's buffer are invisible to `select`.
                data = os.read(stream.fileno(), 1024)
            except OSError:
                return
            if not data:
                return
            yield decoder.decode(data)


def console_pieces(is_hit: Callable[[], bool], get: Callable[[], str]) -> Generator[str, None, None]:
    """Input of a Windows console as terminal sequences; arrows and function keys are a prefix and a code."""
    codes = {"H": "\x1b[A", "P": "\x1b[B", "M": "\x1b[C", "K": "\x1b[D"}
    while True:
        if not is_hit():
            time.sleep(POLL_S)
            yield ""
            continue
        character = get()
        if character == "\x03":
            raise KeyboardInterrupt
        # The prefix is also the letter à, which no code follows.
        yield codes.get(get(), "\x1b[Z") if character == "\x00" or (character == "\xe0" and is_hit()) else character


@contextlib.contextmanager
def _unbuffered(stream: TextIOBase) -> Iterator[None]:
    """Set a terminal to send each key at once and to bracket pasted text; restored at the end."""
    import termios
    import tty

    before = termios.tcgetattr(stream)
    tty.setcbreak(stream.fileno(), termios.TCSADRAIN)  # TCSADRAIN keeps what was typed before
    _send_to_terminal("\x1b[?2004h")
    try:
        yield
    finally:
        _send_to_terminal("\x1b[?2004l")
        with contextlib.suppress(termios.error):  # the terminal may be closed
            termios.tcsetattr(stream, termios.TCSADRAIN, before)


def _send_to_terminal(sequence: str) -> None:
    if sys.stdout.isatty():
        with contextlib.suppress(OSError):
            sys.stdout.write(sequence)
            sys.stdout.flush()
