"""The training loop that every embedded network shares.

AdamW on a warm-up and cosine schedule, an exponential moving average, gradient clipping, a time budget, checkpoints
that resume exactly, and a log. Several single-threaded processes that average their gradients are much faster on a
shared CPU than one process with several threads, so ``ranks`` starts processes.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
import torch.distributed as dist
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

CHECKPOINT, PROGRESS, LOG = "checkpoint.safetensors", "progress.json", "log.jsonl"


@runtime_checkable
class Task(Protocol):
    """What is trained, and on what."""

    def batch(self, progress: float, rng: np.random.Generator) -> Any:
        """A batch; ``progress`` is the share of the training time that is over."""
        ...

    def loss(self, network: Any, batch: Any, rng: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and its terms."""
        ...

    def validate(self, network: Any, folder: Path) -> dict[str, float]:
        """Figures on held-out data; may leave pictures in ``folder``."""
        ...

    def save(self, network: Any, path: Path, notes: dict[str, str]) -> None:
        """Write the averaged network as the program will load it."""
        ...


@dataclass(frozen=True)
class TrainConfig:
    """How long and how fast.

    Attributes:
        steps: optimiser steps, all ranks together counting once.
        learning_rate: of the first parameter group at its height; other groups keep their own share of it.
        warmup: steps of linear rise.
        ema: decay of the moving average.
        clip: largest norm of the gradient.
        weight_decay: of matrices.
        checkpoint_s: seconds between checkpoints and validations.
        minutes: stop after this long, whatever the step; what was done is saved and resumes.
    """

    steps: int
    learning_rate: float = 5e-4
    warmup: int = 100
    ema: float = 0.998
    clip: float = 1.0
    weight_decay: float = 0.02
    checkpoint_s: float = 180.0
    minutes: float = math.inf


class Trainer:
    """Trains one network; make it with the same arguments again to resume from ``folder``.

    Args:
        network: the network, freshly made.
        task: what it learns.
        config: how long and how fast.
        folder: where checkpoints, the log and pictures go.
        seed: decides every batch and every draw.
        learning_rate_of: share of the learning rate by parameter name; 0 freezes.
    """

    def __init__(
        self,
        network: nn.Module,
        task: Task,
        config: TrainConfig,
        folder: Path,
        seed: int = 0,
        learning_rate_of: Callable[[str], float] = lambda _: 1.0,
    ) -> None:
        self.network, self.task, self.config, self.folder, self.seed = network, task, config, folder, seed
        self._rank = dist.get_rank() if dist.is_initialized() else 0
        self._world = dist.get_world_size() if dist.is_initialized() else 1
        named = [(name, p) for name, p in network.named_parameters() if learning_rate_of(name) > 0.0]
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(learning_rate_of(name) > 0.0)
        self._parameters = [p for _, p in named]
        self._shares = [learning_rate_of(name) for name, _ in named]
        groups = [{"params": [p], "weight_decay": config.weight_decay if p.ndim > 1 else 0.0} for p in self._parameters]
        self._optimiser = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.95))
        self.average = {name: value.detach().clone() for name, value in network.state_dict().items()}
        self.step = 0
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / PROGRESS).exists():
            self._resume()

    def run(self) -> dict[str, float]:
        """Train until the steps or the minutes are over; returns the last validation's figures."""
        started = saved = time.monotonic()
        figures: dict[str, float] = {}
        bar = tqdm(total=self.config.steps, initial=self.step, unit="step", disable=self._rank > 0)
        while self.step < self.config.steps and not self._all_agree(
            time.monotonic() - started > 60 * self.config.minutes
        ):
            terms = self._advance()
            bar.update()
            bar.set_postfix({name: f"{value:.3f}" for name, value in terms.items()})
            if self._rank == 0 and self.step % 20 == 0:
                self._log({"step": self.step, "seconds": round(time.monotonic() - started, 1), **terms})
            if self._all_agree(time.monotonic() - saved > self.config.checkpoint_s):
                figures = self._save_and_validate()
                saved = time.monotonic()
        bar.close()
        return self._save_and_validate() or figures

    def averaged(self) -> nn.Module:
        """The network with its averaged weights, in evaluation mode; call `restore` to go on training."""
        self._kept = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
        self.network.load_state_dict(self.average)
        return self.network.eval()

    def restore(self) -> None:
        """Undo `averaged`."""
        self.network.load_state_dict(self._kept)
        self.network.train()

    def _advance(self) -> dict[str, float]:
        # Everything random follows from seed, rank and step: resuming needs no generator state.
        numbers = np.random.default_rng([self.seed, self._rank, self.step])
        draws = torch.Generator().manual_seed(int(numbers.integers(2**62)))
        progress = self.step / self.config.steps
        for group, share in zip(self._optimiser.param_groups, self._shares, strict=True):
            group["lr"] = share * self.config.learning_rate * self._schedule(progress)
        loss, terms = self.task.loss(self.network, self.task.batch(progress, numbers), draws)
        self._optimiser.zero_grad()
        loss.backward()
        norm = self._share_gradients()
        if math.isfinite(norm):
            self._optimiser.step()
            self._update_average()
        self.step += 1
        return {"loss": loss.item(), **{name: float(value) for name, value in terms.items()}, "gradient": norm}

    def _schedule(self, progress: float) -> float:
        rise = min(1.0, (self.step + 1) / self.config.warmup)
        return rise * (0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * progress)))

    def _share_gradients(self) -> float:
        """Average over ranks and clip; returns the norm before clipping. What the loss did not reach stays as it is."""
        reached = [p for p in self._parameters if p.grad is not None]
        grads = [p.grad for p in reached if p.grad is not None]
        flat = torch.cat([g.reshape(-1) for g in grads])
        if self._world > 1:
            dist.all_reduce(flat)
            flat /= self._world
        norm = flat.norm().item()
        flat *= min(1.0, self.config.clip / max(norm, 1e-12))
        for parameter, part in zip(reached, flat.split([g.numel() for g in grads]), strict=True):
            parameter.grad = part.view_as(parameter)
        return norm

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.config.ema, (1.0 + self.step) / (10.0 + self.step))
        for name, value in self.network.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1.0 - decay)
            else:
                self.average[name].copy_(value)

    def _all_agree(self, wish: bool) -> bool:
        """Rank 0 decides for all, since clocks differ."""
        if self._world == 1:
            return wish
        flag = torch.tensor(float(wish))
        dist.broadcast(flag, 0)
        return bool(flag)

    def _save_and_validate(self) -> dict[str, float]:
        if self._rank > 0:
            return {}
        state = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        state |= {f"average.{k}": v for k, v in self.average.items()}
        for index, parameter in enumerate(self._parameters):
            state |= {f"optimiser.{index}.{k}": v for k, v in self._optimiser.state.get(parameter, {}).items()}
        _replace(self.folder / CHECKPOINT, lambda path: save_file({k: v.contiguous() for k, v in state.items()}, path))
        progress = {"step": self.step, "seed": self.seed}
        _replace(self.folder / PROGRESS, lambda path: path.write_text(json.dumps(progress)))
        network = self.averaged()
        self.task.save(network, self.folder / "ema.safetensors", {"steps": str(self.step)})
        with torch.no_grad():
            figures = self.task.validate(network, self.folder)
        self.restore()
        self._log({"step": self.step, "validation": figures})
        return figures

    def _resume(self) -> None:
        try:
            progress = json.loads((self.folder / PROGRESS).read_text())
            state = load_file(self.folder / CHECKPOINT)
            self.network.load_state_dict(_part(state, "network."))
            self.average = {k: v.to(self.average[k].device) for k, v in _part(state, "average.").items()}
            for index, parameter in enumerate(self._parameters):
                if own := _part(state, f"optimiser.{index}."):
                    self._optimiser.state[parameter] = {
                        k: v.to(parameter.device) if v.ndim else v for k, v in own.items()
                    }
            self.step = int(progress["step"])
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise ValueError(
                f"{self.folder}: its checkpoint is damaged or of another network; remove it ({error})"
            ) from error
        if progress["seed"] != self.seed:
            raise ValueError(f"seed: {self.folder} was trained with seed {progress['seed']}, got {self.seed}")

    def _log(self, entry: dict[str, Any]) -> None:
        with (self.folder / LOG).open("a") as file:
            file.write(json.dumps(entry) + "\n")


def run_ranks(train: Callable[[], None], ranks: int) -> None:
    """Run ``train`` in ``ranks`` single-threaded processes that share gradients (or here, when ``ranks`` is 1)."""
    torch.set_num_threads(1)
    if ranks == 1:
        train()
        return
    context = torch.multiprocessing.get_context("spawn")
    store = Path(os.environ.get("TMPDIR", "/tmp")) / f"worldwarp-ranks-{os.getpid()}"
    store.unlink(missing_ok=True)
    processes = [context.Process(target=_join, args=(train, rank, ranks, store)) for rank in range(ranks)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    store.unlink(missing_ok=True)
    if failed := [p.exitcode for p in processes if p.exitcode]:
        raise RuntimeError(f"training stopped: a process ended with exit code {failed[0]}; its last words are above")


def _join(train: Callable[[], None], rank: int, ranks: int, store: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=ranks)
    try:
        train()
    finally:
        dist.destroy_process_group()


def _part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    partial = path.with_suffix(path.suffix + ".partial")
    write(partial)
    os.replace(partial, path)
