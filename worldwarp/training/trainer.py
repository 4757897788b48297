"""The training loop that all networks of the package share.

AdamW with a warm-up and cosine schedule, an exponential moving average of the weights, gradient clipping, a time limit,
exactly resumable checkpoints, and a log. Several single-threaded processes that average their gradients are much faster
on a shared CPU than one process with several threads, so a training has ranks (`worldwarp.training.distributed`).
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
import torch.distributed as dist
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from worldwarp.training.distributed import CPU, moved

CHECKPOINT, PROGRESS, LOG, SHEET = "checkpoint.safetensors", "progress.json", "log.jsonl", "sheet.png"


@runtime_checkable
class Task(Protocol):
    """Data, loss, validation and storage of one kind of training."""

    def batch(self, progress: float, rng: np.random.Generator) -> Any:
        """Draw a batch, on the CPU; ``progress`` is the finished share of the training, 0..1."""
        ...

    def frames(self, batch: Any) -> int:
        """Number of frames of a batch in the loss; equal on all ranks."""
        ...

    def loss(self, network: Any, batch: Any, rng: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and its terms for the log; network and batch are on one device, ``rng`` is on the CPU."""
        ...

    def validate(self, network: Any, folder: Path) -> dict[str, float]:
        """Metrics on held-out data; may write images to ``folder``."""
        ...

    def save(self, network: Any, path: Path, notes: dict[str, str]) -> None:
        """Write the averaged network in the format that the package loads."""
        ...


class Validation(NamedTuple):
    """Result of a validation.

    Attributes:
        step: number of optimizer steps so far.
        frames: number of training frames so far, on all ranks.
        figures: metrics of `Task.validate`.
        folder: folder of its images.
    """

    step: int
    frames: int
    figures: dict[str, float]
    folder: Path


@dataclass(frozen=True)
class TrainConfig:
    """Length, optimizer settings and observer of a training.

    Attributes:
        steps: number of optimizer steps; a step of all ranks counts once.
        learning_rate: peak of the schedule; parameters have a factor on it (`Trainer`).
        warmup: number of steps of the linear warm-up.
        ema: decay of the moving average.
        clip: largest norm of the gradient.
        weight_decay: weight decay of parameters with two or more dimensions.
        checkpoint_s: seconds between checkpoints and validations.
        minutes: time limit of one run; a checkpoint is saved and the training can be resumed.
        watch: called with every validation in the process of the first rank; must be picklable.
    """

    steps: int
    learning_rate: float = 5e-4
    warmup: int = 100
    ema: float = 0.998
    clip: float = 1.0
    weight_decay: float = 0.02
    checkpoint_s: float = 180.0
    minutes: float = math.inf
    watch: Callable[[Validation], None] | None = None


class Trainer:
    """Trains one network; a trainer with the same arguments resumes from ``folder``.

    Args:
        network: the new network.
        task: data, loss and validation.
        config: length and optimizer settings.
        folder: folder of checkpoints, log and images.
        seed: seed of all batches and random draws.
        learning_rate_of: factor on the learning rate by parameter name; 0 freezes the parameter.
        device: device of the training; the network is moved there. A checkpoint resumes on any device.
    """

    def __init__(
        self,
        network: nn.Module,
        task: Task,
        config: TrainConfig,
        folder: Path,
        seed: int = 0,
        learning_rate_of: Callable[[str], float] = lambda _: 1.0,
        device: torch.device = CPU,
    ) -> None:
        self.network, self.task, self.config, self.folder, self.seed = network.to(device), task, config, folder, seed
        self._device = device
        self._rank = dist.get_rank() if dist.is_initialized() else 0
        self._world = dist.get_world_size() if dist.is_initialized() else 1
        named = [(name, p) for name, p in network.named_parameters() if learning_rate_of(name) > 0.0]
        # Frozen parameters need no gradient, which saves their backward pass.
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(learning_rate_of(name) > 0.0)
        self._parameters = [p for _, p in named]
        self._shares = [learning_rate_of(name) for name, _ in named]
        # A group per parameter, as each has its own learning rate; biases and norms have no weight decay.
        groups = [{"params": [p], "weight_decay": config.weight_decay if p.ndim > 1 else 0.0} for p in self._parameters]
        self._optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.95))
        self.average = {name: value.detach().clone() for name, value in network.state_dict().items()}
        self.step = self.frames = 0
        self._pace = _Pace()
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / PROGRESS).exists():
            self._resume()

    def run(self) -> dict[str, float]:
        """Train until the limit of steps or minutes; returns the metrics of the last validation."""
        started = saved = time.monotonic()
        figures: dict[str, float] = {}
        bar = tqdm(total=self.config.steps, initial=self.step, unit="step", disable=self._rank > 0)
        while self.step < self.config.steps and not self._all_agree(
            time.monotonic() - started > 60 * self.config.minutes
        ):
            terms = self._advance()
            bar.update()
            bar.set_postfix({name: f"{value:.3f}" for name, value in terms.items()})
            log_every = 20
            if self._rank == 0 and self.step % log_every == 0:
                clock = {"seconds": round(time.monotonic() - started, 1), **self._pace.read()}
                self._log({"step": self.step, "frames": self.frames, **clock, **terms})
            if self._all_agree(time.monotonic() - saved > self.config.checkpoint_s):
                figures = self._save_and_validate()
                saved = time.monotonic()
        bar.close()
        return self._save_and_validate() or figures

    def averaged(self) -> nn.Module:
        """Load the averaged weights into the network, in evaluation mode; call `restore` before training on."""
        self._kept = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
        self.network.load_state_dict(self.average)
        return self.network.eval()

    def restore(self) -> None:
        """Undo `averaged`."""
        self.network.load_state_dict(self._kept)
        self.network.train()

    def _advance(self) -> dict[str, float]:
        started = time.monotonic()
        # Everything random follows from seed, rank and step: resuming needs no generator state.
        numbers = np.random.default_rng([self.seed, self._rank, self.step])
        draws = torch.Generator().manual_seed(int(numbers.integers(2**62)))
        progress = self.step / self.config.steps
        for group, share in zip(self._optimizer.param_groups, self._shares, strict=True):
            group["lr"] = share * self.config.learning_rate * self._schedule(progress)
        batch = self.task.batch(progress, numbers)
        frames = self._world * self.task.frames(batch)
        loaded = time.monotonic()
        loss, terms = self.task.loss(self.network, moved(batch, self._device), draws)
        self._optimizer.zero_grad()
        loss.backward()
        norm = self._share_gradients()
        # A step with an overflow is skipped; one bad batch must not end a long training.
        if math.isfinite(norm):
            self._optimizer.step()
            self._update_average()
        self.step += 1
        self.frames += frames
        found = {"loss": loss.item(), **{name: float(value) for name, value in terms.items()}, "gradient": norm}
        self._pace.add(frames, loaded - started, time.monotonic() - loaded)  # `item` above synchronizes with a GPU
        return found

    def _schedule(self, progress: float) -> float:
        rise = min(1.0, (self.step + 1) / self.config.warmup)
        return rise * (0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * progress)))

    def _share_gradients(self) -> float:
        """Average gradients over ranks and clip them; returns the norm before clipping. Missing ones are skipped."""
        reached = [p for p in self._parameters if p.grad is not None]
        grads = [p.grad for p in reached if p.grad is not None]
        # One exchange for all gradients instead of one per parameter.
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
        # The average follows closely at first, so that it does not remember the random initial weights.
        decay = min(self.config.ema, (1.0 + self.step) / (10.0 + self.step))
        for name, value in self.network.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1.0 - decay)
            else:
                self.average[name].copy_(value)

    def _all_agree(self, wish: bool) -> bool:
        """The wish of rank 0 on all ranks, since their clocks differ."""
        if self._world == 1:
            return wish
        flag = torch.tensor(float(wish), device=self._device)
        dist.broadcast(flag, 0)
        return bool(flag)

    def _save_and_validate(self) -> dict[str, float]:
        if self._rank > 0:
            return {}
        state = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        state |= {f"average.{k}": v for k, v in self.average.items()}
        for index, parameter in enumerate(self._parameters):
            state |= {f"optimizer.{index}.{k}": v for k, v in self._optimizer.state.get(parameter, {}).items()}
        _replace(self.folder / CHECKPOINT, lambda path: save_file({k: v.contiguous() for k, v in state.items()}, path))
        progress = {"step": self.step, "frames": self.frames, "seed": self.seed}
        # After the weights: a kill in between repeats steps instead of skipping them.
        _replace(self.folder / PROGRESS, lambda path: path.write_text(json.dumps(progress)))
        network = self.averaged()
        self.task.save(network, self.folder / "ema.safetensors", {"steps": str(self.step)})
        with torch.no_grad():
            figures = self.task.validate(network, self.folder)
        self.restore()
        share = self.step / max(self.config.steps, 1)
        self._log({"step": self.step, "frames": self.frames, "progress": round(share, 4), "validation": figures})
        if self.config.watch is not None:
            self.config.watch(Validation(self.step, self.frames, figures, self.folder))
        return figures

    def _resume(self) -> None:
        try:
            progress = json.loads((self.folder / PROGRESS).read_text())
            state = load_file(self.folder / CHECKPOINT)
            self.network.load_state_dict(_part(state, "network."))
            self.average = {k: v.to(self._device) for k, v in _part(state, "average.").items()}
            for index, parameter in enumerate(self._parameters):
                if own := _part(state, f"optimizer.{index}."):
                    self._optimizer.state[parameter] = {k: v.to(self._device) if v.ndim else v for k, v in own.items()}
            self.step, self.frames = int(progress["step"]), int(progress.get("frames", 0))
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise ValueError(
                f"{self.folder}: its checkpoint is damaged or of another network; remove it ({error})"
            ) from error
        # Batches follow from the seed: another one would repeat or skip data unnoticed.
        if progress["seed"] != self.seed:
            raise ValueError(f"seed: {self.folder} was trained with seed {progress['seed']}, got {self.seed}")

    def _log(self, entry: dict[str, Any]) -> None:
        with (self.folder / LOG).open("a") as file:
            file.write(json.dumps(entry) + "\n")


@dataclass
class _Pace:
    """Frames, and seconds of loading batches and of the rest of the steps, since the last `read`."""

    frames: int = 0
    loading_s: float = 0.0
    computing_s: float = 0.0

    def add(self, frames: int, loading_s: float, computing_s: float) -> None:
        self.frames += frames
        self.loading_s += loading_s
        self.computing_s += computing_s

    def read(self) -> dict[str, float | str]:
        """Frames per second, the share of time spent loading, and which part is the bottleneck; resets the counts."""
        seconds = self.loading_s + self.computing_s
        share = self.loading_s / seconds
        found = {"frames_per_s": round(self.frames / seconds, 2), "loading": round(share, 3)}
        self.frames, self.loading_s, self.computing_s = 0, 0.0, 0.0
        return {**found, "bound": "loading" if share > 0.5 else "computing"}


def _part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    partial = path.with_suffix(path.suffix + ".partial")
    write(partial)
    os.replace(partial, path)
