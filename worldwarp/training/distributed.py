"""Processes of a training: single-threaded ones on a CPU, or one per GPU.

Each rank gets its device here and passes it to the `Trainer`, which moves the network and every batch there. All other
code uses the device of its input tensors.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

CPU = torch.device("cpu")


def check_machine(device: str, ranks: int) -> None:
    """Check that this machine has the device and enough GPUs.

    Args:
        device: ``cpu`` or ``cuda``.
        ranks: number of processes; ``cuda`` needs one GPU for each.

    Raises:
        ValueError: an unknown device, fewer than one rank, no CUDA, or fewer GPUs than ranks.
    """
    if device not in ("cpu", "cuda"):
        raise ValueError(f"device: want cpu or cuda, got '{device}'; do say which GPUs with CUDA_VISIBLE_DEVICES")
    if ranks < 1:
        raise ValueError(f"ranks: want at least 1, got {ranks}; do give ranks=1")
    gpus = torch.cuda.device_count() if device == "cuda" else ranks
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            "device: want a GPU that torch can use, got none; do install a CUDA build of torch or give device=cpu"
        )
    if gpus < ranks:
        raise ValueError(f"device: want a GPU per rank, got {gpus} for {ranks} ranks; do give ranks={gpus}")


def run_ranks(train: Callable[[torch.device], None], ranks: int, device: str = "cpu") -> None:
    """Run ``train`` in ``ranks`` processes that average gradients; in this process if ``ranks`` is 1.

    Args:
        train: called with the device of its rank: the CPU, or one GPU per rank.
        ranks: number of processes, each with one CPU thread.
        device: ``cpu`` or ``cuda``.

    Raises:
        ValueError: see `check_machine`.
        RuntimeError: a rank failed.
    """
    check_machine(device, ranks)
    # Threads of several ranks would compete for the same cores.
    torch.set_num_threads(1)
    if ranks == 1:
        train(_device_of_rank(device, 0))
        return
    # CUDA cannot be used in forked processes.
    context = torch.multiprocessing.get_context("spawn")
    # Ranks meet through a file: no port has to be free.
    store = Path(os.environ.get("TMPDIR", "/tmp")) / f"worldwarp-ranks-{os.getpid()}"
    # A file that a killed run left behind would be taken for a finished meeting.
    store.unlink(missing_ok=True)
    processes = [context.Process(target=_join, args=(train, rank, ranks, device, store)) for rank in range(ranks)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    store.unlink(missing_ok=True)
    if failed := [p.exitcode for p in processes if p.exitcode]:
        raise RuntimeError(f"training stopped: a process ended with exit code {failed[0]}; its last words are above")


def moved(batch: Any, device: torch.device) -> Any:
    """Move the tensors of ``batch`` to ``device``; it is a tensor, or nested tuples and dataclasses of tensors."""
    if isinstance(batch, Tensor):
        return batch.to(device)
    if isinstance(batch, tuple):
        return tuple(moved(part, device) for part in batch)
    if is_dataclass(batch) and not isinstance(batch, type):
        return replace(batch, **{f.name: moved(getattr(batch, f.name), device) for f in fields(batch)})
    return batch


def device_of(network: nn.Module) -> torch.device:
    """Device of a network's parameters."""
    return next(network.parameters()).device


def _join(train: Callable[[torch.device], None], rank: int, ranks: int, device: str, store: Path) -> None:
    torch.set_num_threads(1)
    mine = _device_of_rank(device, rank)
    backend = "nccl" if device == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=f"file://{store}", rank=rank, world_size=ranks)
    try:
        train(mine)
    finally:
        dist.destroy_process_group()


def _device_of_rank(device: str, rank: int) -> torch.device:
    if device == "cpu":
        return CPU
    torch.cuda.set_device(rank)
    return torch.device("cuda", rank)
