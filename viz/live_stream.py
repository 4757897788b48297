"""A thread between the walk and a viewer, so that no viewer can ever hold the walk up."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence

import rerun as rr

from viz.log_entries import LogEntry

log = logging.getLogger(__name__)

_CAPACITY = 16  # a few hundred MB at most, and enough for the seconds that a window takes to open
_FLUSH_S = 4.0


def within(timeout_s: float, call: Callable[[], None]) -> None:
    """Call what may never return; gives up on it after a while.

    Raises:
        TimeoutError: it did not return in time.
        Exception: what it raised.
    """
    raised: list[Exception] = []

    def run() -> None:
        try:
            call()
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=run, name="recorder", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if thread.is_alive():
        # Rerun's own hook at exit would wait for the same thing.
        rr.unregister_shutdown()
        raise TimeoutError(f"no answer within {timeout_s:g} s")
    if raised:
        raise raised[0]


class LiveStream:
    """Writes rows to a stream from its own thread; drops what does not fit a small queue.

    Writing to a Rerun stream blocks when its viewer is frozen (for 20 s and more), and a write that has begun cannot
    be taken back. So the thread is a daemon, and closing gives up on it after a while.
    """

    def __init__(self, connect: Callable[[], rr.RecordingStream], capacity: int = _CAPACITY) -> None:
        """Start the thread.

        Args:
            connect: makes the stream that rows go to; called in the thread, for it may block as well.
            capacity: updates that may wait; beyond that they are dropped.
        """
        self.dropped = 0
        self._connect = connect
        self._queue: queue.Queue[Sequence[LogEntry]] = queue.Queue(capacity)
        self._closing = threading.Event()
        self._failed = False
        self._thread = threading.Thread(target=self._run, name="live-viewer", daemon=True)
        self._thread.start()

    def offer(self, rows: Sequence[LogEntry]) -> bool:
        """Hand over an update; returns at once, False when it was dropped."""
        if self._failed or self._closing.is_set():
            return False
        try:
            self._queue.put_nowait(rows)
        except queue.Full:
            if self.dropped == 0:
                log.warning("viewer: too slow for the walk; it skips updates, the recording keeps them all")
            self.dropped += 1
            return False
        return True

    def close(self, timeout_s: float = 5.0) -> bool:
        """Write what waits, then disconnect; returns False when the viewer did not take it in time."""
        self._closing.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            stream = self._connect()
            while not (self._closing.is_set() and self._queue.empty()):
                try:
                    rows = self._queue.get(timeout=0.05)
                except queue.Empty:
                    continue
                for row in rows:
                    row.log_to(stream)
            stream.flush(timeout_sec=_FLUSH_S)
            stream.disconnect()
        except Exception as error:  # whatever a viewer does, the walk goes on
            self._failed = True
            log.warning("viewer: the live view stopped (%s); the walk goes on", error)
