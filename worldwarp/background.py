"""Work beside the loop: one thread, in order; its errors are raised in the thread that waits for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait


class Background:
    """Runs jobs one after another on one thread; what it runs may not need the result of a later job.

    Packing, encoding and hashing release the interpreter lock, so that they overlap with the next chunk.
    """

    def __init__(self) -> None:
        """Start idle; the thread begins with the first job."""
        self._thread: ThreadPoolExecutor | None = None
        self._jobs: deque[Future[object]] = deque()
        self._failed = False

    def put(self, job: Callable[[], object]) -> None:
        """Run a job after those before it; dropped if one of them fails, as `flush` then tells."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="worldwarp-store")
        self._jobs.append(self._thread.submit(self._run, job))

    def flush(self) -> None:
        """Wait until every job is done.

        Raises:
            Exception: the error of the first job that failed; again at every later call, as the jobs after it are lost.
        """
        while self._jobs:
            self._jobs[0].result()
            self._jobs.popleft()

    def settle(self) -> None:
        """Wait until every job is done or dropped, without raising their errors."""
        wait(self._jobs)

    def _run(self, job: Callable[[], object]) -> None:
        if self._failed:
            return
        try:
            job()
        except BaseException:
            self._failed = True
            raise
