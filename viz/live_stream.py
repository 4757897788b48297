"""Sends log entries to a viewer from a thread, so that a slow or frozen viewer never blocks the session."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence

import rerun as rr

from viz.log_entries import LogEntry

log = logging.getLogger(__name__)


def within(timeout_s: float, call: Callable[[], None]) -> None:
    """Run ``call`` in a thread and wait for it for at most ``timeout_s`` seconds.

    Raises:
        TimeoutError: ``call`` did not return in time.
        Exception: what ``call`` raised.
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
        # Rerun's own exit hook would block on the same call.
        rr.unregister_shutdown()
        raise TimeoutError(f"no answer within {timeout_s:g} s")
    if raised:
        raise raised[0]


class LiveStream:
    """Writes entries to a stream from its own thread; drops updates that do not fit into a small queue.

    Writing to a Rerun stream blocks while its viewer is frozen (20 s and more) and cannot be canceled. So the thread is
    a daemon, and `close` waits for it only for a limited time.
    """

    def __init__(self, connect: Callable[[], rr.RecordingStream], capacity: int = 16) -> None:
        """Start the thread.

        Args:
            connect: opens the stream; called in the thread, since it may block as well.
            capacity: length of the queue, updates; further ones are dropped. The default is a few hundred MB at most,
                enough for the seconds that a window takes to open.
        """
        self.dropped = 0
        self._connect = connect
        self._queue: queue.Queue[Sequence[LogEntry]] = queue.Queue(capacity)
        self._closing = threading.Event()
        self._failed = False
        self._thread = threading.Thread(target=self._run, name="live-viewer", daemon=True)
        self._thread.start()

    def offer(self, entries: Sequence[LogEntry]) -> bool:
        """Queue an update without blocking; False when it was dropped."""
        if self._failed or self._closing.is_set():
            return False
        try:
            self._queue.put_nowait(entries)
        except queue.Full:
            if self.dropped == 0:
                log.warning("viewer: too slow for the session; it skips updates, the recording keeps them all")
            self.dropped += 1
            return False
        return True

    def close(self, timeout_s: float = 5.0) -> bool:
        """Write the queued entries, then disconnect; False when this took longer than ``timeout_s``."""
        self._closing.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            stream = self._connect()
            # What is queued when closing begins is still written.
            while not (self._closing.is_set() and self._queue.empty()):
                try:
                    entries = self._queue.get(timeout=0.05)
                except queue.Empty:
                    continue
                for entry in entries:
                    entry.log_to(stream)
            stream.flush(timeout_sec=4.0)
            stream.disconnect()
        except Exception as error:  # a failing viewer must not end the session
            self._failed = True
            log.warning("viewer: the live view stopped (%s); exploration goes on", error)
