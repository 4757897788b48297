"""What a command shows: text that any console can take, and lines that say how far it is."""

from __future__ import annotations

import codecs
import shutil
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from typing import Any

# What our own texts hold beyond ASCII, for consoles that know less.
ASCII = dict(zip("▁▂▃▄▅▆▇█…°·", [*"12345678", "...", " deg", "-"], strict=True))
EVERY_S = 15.0  # between two lines of progress in a log


def open_console() -> None:
    """Let stdout and stderr take any text: what their encoding does not know is written with what it does."""
    codecs.register_error("worldwarp", _in_ascii)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="worldwarp", line_buffering=True)


def _in_ascii(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    if "\udc80" <= character <= "\udcff":  # a byte of a file name that is not UTF-8: as it is
        return bytes([ord(character) - 0xDC00]), error.start + 1
    return ASCII.get(character, "?"), error.start + 1


@contextmanager
def waiting(text: str) -> Iterator[None]:
    """Say what is being waited for: in a terminal with the time gone, cleared after; elsewhere on a line of its own."""
    from tqdm import tqdm

    if not sys.stderr.isatty():
        sys.stderr.write(f"{text} …\n")
        yield
        return
    room = shutil.get_terminal_size().columns - len(" … 00:00 ")
    text = textwrap.shorten(text, max(room, 1), placeholder="") or text[: max(room, 1)]
    over = threading.Event()
    with tqdm(total=1, desc=text, bar_format="{desc} … {elapsed}", leave=False, ascii=None) as bar:

        def tick() -> None:
            while not over.wait(1.0):
                bar.refresh()

        clock = threading.Thread(target=tick, daemon=True)
        clock.start()
        try:
            yield
        finally:
            over.set()
            clock.join()


class _Lines:
    """A log that takes what tqdm draws over and over as lines, one for each drawing that shows something."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.encoding = stream.encoding

    def write(self, text: str) -> None:
        if text := text.strip("\r\n "):
            self._stream.write(f"{text}\n")

    def flush(self) -> None:
        self._stream.flush()


class Progress:
    """Frames done: a bar in a terminal, now and then a line elsewhere; use it in a ``with``.

    Args:
        frames: how many there will be; None where nobody knows.
    """

    def __init__(self, frames: int | None) -> None:
        from tqdm import tqdm

        self._bar = (
            tqdm(total=frames, unit="frame", smoothing=0.2, dynamic_ncols=True)
            if sys.stderr.isatty()
            else tqdm(
                total=frames,
                file=_Lines(sys.stderr),
                mininterval=EVERY_S,
                maxinterval=EVERY_S,
                bar_format="{n_fmt} of {total_fmt} frames, {elapsed} gone, {remaining} left{postfix}",
            )
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def reach(self, frames: int, text: str) -> None:
        """So many ``frames`` are done; ``text`` says what the last ones were."""
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update(frames - self._bar.n)
