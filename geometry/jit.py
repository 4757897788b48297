"""Numba compilation for all packages, and a thread pool for kernels over blocks of an index range, and for tasks.

Kernels release the GIL. `for_blocks` calls them from its own thread pool instead of one of Numba's parallel backends:
idle threads do not spin, the pool survives ``fork``, several threads may use it at once, and results never depend on
the number of threads, because the blocks do not.
"""

from __future__ import annotations

import inspect
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, Literal, TypeVar

import numba
import torch

# No `nnan` and `ninf`: the kernels skip non-finite primitives by comparisons with NaN.
KEEP_NAN = frozenset({"reassoc", "contract", "arcp", "nsz"})

T = TypeVar("T")
R = TypeVar("R")

_pools: dict[int, ThreadPoolExecutor] = {}
_task = threading.local()  # `running`: whether this thread runs a task of `for_each`
os.register_at_fork(after_in_child=_pools.clear)  # threads do not exist in a forked child


def compiled(
    function: Callable[..., Any] | None = None,
    *,
    fastmath: frozenset[str] | bool = KEEP_NAN,
    error_model: Literal["numpy", "python"] = "numpy",
) -> Any:
    """Compile a kernel in nopython mode, without the GIL, cached on disk where possible.

    Numba raises at decoration time when neither the folder of the source file nor the home folder is writable and
    `NUMBA_CACHE_DIR` is not set. Such an install (a read-only container) compiles anew in every process instead.

    Args:
        function: the kernel; None when used as ``@compiled(fastmath=False)``. Run-time type checkers wrap every
            function in tests; Numba gets the unwrapped one.
        fastmath: LLVM's fast-math flags; False keeps IEEE arithmetic.
        error_model: what a division by zero does: infinity or NaN (`numpy`), or an exception (`python`).

    Returns:
        Numba's dispatcher, or a decorator that makes one.

    Example:
        >>> @compiled
        ... def add(start, stop, a, b, out):
        ...     for i in range(start, stop):
        ...         out[i] = a[i] + b[i]
    """
    if function is None:
        return lambda kernel: compiled(kernel, fastmath=fastmath, error_model=error_model)
    kernel = inspect.unwrap(function)
    flags = set(fastmath) if isinstance(fastmath, frozenset) else fastmath
    try:
        return numba.njit(kernel, nogil=True, cache=True, fastmath=flags, error_model=error_model)
    except RuntimeError:
        return numba.njit(kernel, nogil=True, fastmath=flags, error_model=error_model)


def for_blocks(count: int, block: int, body: Callable[[int, int], None]) -> None:
    """Call ``body(start, stop)`` on consecutive blocks of ``range(count)``, on as many threads as torch uses."""
    starts = range(0, count, block)
    threads = _threads(len(starts))
    if threads <= 1:
        for start in starts:
            body(start, min(start + block, count))
        return
    list(_pool(threads).map(lambda start: body(start, min(start + block, count)), starts))


def for_each(items: Sequence[T], task: Callable[[T], R]) -> list[R]:
    """``task`` of each item, in order, on as many threads as torch uses.

    For tasks that do not depend on each other, such as the views of a chunk: what a task does between its kernels runs
    in parallel too. Kernels inside a task run on its thread. An error is raised when all tasks have ended.
    """
    threads = _threads(len(items))
    if threads <= 1:
        return [task(item) for item in items]
    running = [_pool(threads).submit(_run, task, item) for item in items]
    wait(running)
    return [one.result() for one in running]


def _run(task: Callable[[T], R], item: T) -> R:
    _task.running = True
    try:
        return task(item)
    finally:
        _task.running = False


def _threads(count: int) -> int:
    """Threads for ``count`` calls; 1 inside a task, whose thread could wait for itself."""
    return 1 if getattr(_task, "running", False) else min(torch.get_num_threads(), count)


def _pool(threads: int) -> ThreadPoolExecutor:
    pool = _pools.get(threads)
    if pool is None:
        pool = _pools.setdefault(threads, ThreadPoolExecutor(threads, thread_name_prefix="kernels"))
    return pool
