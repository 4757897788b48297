"""Console output: text in any encoding, and progress."""

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

# ASCII replacements for the other characters of our texts, for consoles with a smaller encoding.
ASCII = dict(zip("▁▂▃▄▅▆▇█…°·", [*"12345678", "...", " deg", "-"], strict=True))
EVERY_S = 15.0  # seconds between two lines of progress in a log


def open_console() -> None:
    """Make stdout and stderr accept any text: characters outside their encoding are replaced, see `ASCII`."""
    codecs.register_error("worldwarp", _in_ascii)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="worldwarp", line_buffering=True)


def _in_ascii(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    if "\udc80" <= character <= "\udcff":  # a byte of a file name that is not UTF-8 is written unchanged
        return bytes([ord(character) - 0xDC00]), error.start + 1
    return ASCII.get(character, "?"), error.start + 1


@contextmanager
def waiting(text: str) -> Iterator[None]:
    """Show a text during a wait: in a terminal with the elapsed time, cleared at the end; elsewhere as a line."""
    from tqdm import tqdm

    if not sys.stderr.isatty():
        sys.stderr.write(f"{text} …\n")
        yield
        return
    # A line that wraps cannot be cleared by a carriage return.
    columns = shutil.get_terminal_size().columns - len(" … 00:00 ")
    text = textwrap.shorten(text, max(columns, 1), placeholder="") or text[: max(columns, 1)]
    over = threading.Event()
    with tqdm(total=1, desc=text, bar_format="{desc} … {elapsed}", leave=False, ascii=None) as bar:

        def tick() -> None:
            while not over.wait(1.0):
                bar.refresh()

        # The body is one long call, during which nobody else would redraw the clock.
        clock = threading.Thread(target=tick, daemon=True)
        clock.start()
        try:
            yield
        finally:
            over.set()
            clock.join()


class _Lines:
    """A stream for tqdm that writes each non-empty drawing of the bar as a line."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.encoding = stream.encoding

    def write(self, text: str) -> None:
        if text := text.strip("\r\n "):
            self._stream.write(f"{text}\n")

    def flush(self) -> None:
        self._stream.flush()


class Progress:
    """Finished frames: a bar in a terminal, a line every `EVERY_S` seconds elsewhere; a context manager.

    Args:
        frames: total number; None if unknown.
    """

    def __init__(self, frames: int | None) -> None:
        from tqdm import tqdm

        self._in_terminal = sys.stderr.isatty()
        self._bar = (
            tqdm(total=frames, unit="frame", smoothing=0.2, dynamic_ncols=True)
            if self._in_terminal
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
        """Show that ``frames`` are finished; ``text`` describes the last ones."""
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update(frames - self._bar.n)
        if self._in_terminal:
            self._bar.refresh()  # tqdm leaves out what follows its last drawing soon, as a quick chunk after a key does
