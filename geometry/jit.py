"""Numba compilation for this room: cached on disk where that is possible, threads of our own instead of Numba's.

Kernels release the GIL and are run over fixed blocks by a thread pool. Compared with Numba's parallel backends this has
nothing to spin, survives `fork`, may be called from several threads at once, and cannot change a result: the blocks do
not depend on the number of threads.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import torch

# No `nnan`/`ninf`: skipping non-finite primitives relies on comparisons with NaN.
_FASTMATH = {"reassoc", "contract", "arcp", "nsz"}

_pools: dict[int, ThreadPoolExecutor] = {}
os.register_at_fork(after_in_child=_pools.clear)  # the threads of a pool do not follow into a child


def compiled(function: Callable[..., Any]) -> Any:
    """Decorate a kernel: nopython, without the GIL, cached between runs where a cache can be written.

    Numba refuses `cache=True` when neither the package nor the home folder is writable and `NUMBA_CACHE_DIR` is not
    set; such an install compiles anew in every process instead of failing at import.
    """
    function = inspect.unwrap(function)  # shape checkers wrap every function in tests; Numba wants the bare one
    try:
        return numba.njit(function, nogil=True, cache=True, fastmath=_FASTMATH, error_model="numpy")
    except RuntimeError:
        return numba.njit(function, nogil=True, fastmath=_FASTMATH, error_model="numpy")


def for_blocks(count: int, block: int, body: Callable[[int, int], None]) -> None:
    """Call ``body(start, stop)`` on consecutive blocks of ``range(count)``, on as many threads as torch uses."""
    starts = range(0, count, block)
    threads = min(torch.get_num_threads(), len(starts))
    if threads <= 1:
        for start in starts:
            body(start, min(start + block, count))
        return
    pool = _pools.get(threads)
    if pool is None:
        pool = _pools.setdefault(threads, ThreadPoolExecutor(threads, thread_name_prefix="splat"))
    list(pool.map(lambda start: body(start, min(start + block, count)), starts))
