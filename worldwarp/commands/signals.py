"""Signal handlers for the duration of a command."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def handled_signals(handler: Callable[[int, object], None], *names: str) -> Iterator[None]:
    """Handle signals, except those that the system lacks or that are ignored (``nohup``); restored at the end."""
    numbers = [signal.Signals[name] for name in names if name in signal.Signals.__members__]
    before = {number: signal.getsignal(number) for number in numbers}
    # `nohup` ignores SIGHUP on purpose.
    before = {number: handled for number, handled in before.items() if handled is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, handled in before.items():
            signal.signal(number, handled)
