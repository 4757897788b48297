"""The trainer of all networks: one loop on accelerate for a CPU, one GPU, and many (DDP, FSDP).

What is trained is a `Stage`; how it runs is accelerate's own configuration: `accelerate launch` (on a CPU
`torchrun`) starts the processes, and the loop asks nothing about them. Everything random follows from seed, step and
the number of the sample in its batch, so that a run that was interrupted goes on to the bit, and two processes with
half a batch each do what one does with all of it, up to the order of sums.
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
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.utils.data import default_collate
from tqdm import tqdm

CHECKPOINT, PROGRESS, LOG, MODEL = "checkpoint.safetensors", "progress.json", "log.jsonl", "model"
LOG_EVERY = 20  # steps
COOLDOWN = 0.2  # share of the steps at whose end the learning rate falls to zero


@runtime_checkable
class Stage(Protocol):
    """What one training is about: a network, samples, a loss."""

    @property
    def network(self) -> nn.Module:
        """To be trained; parameters that need no gradient stay as they are."""
        ...

    def draw(self, rng: np.random.Generator) -> dict[str, Tensor]:
        """One sample with all its random numbers; samples of a batch are stacked."""
        ...

    def loss(self, network: Any, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Terms, each the mean over samples of what does not depend on other samples; ``loss`` is descended.

        Args:
            network: `network`, as it is wrapped for several devices.
            batch: of `draw`, on the device.
        """
        ...

    def validate(self, network: Any, folder: Path) -> dict[str, float]:
        """Figures on held-out data, of averaged weights; may write pictures to ``folder``."""
        ...

    def save(self, weights: Mapping[str, Tensor], folder: Path) -> None:
        """Write averaged weights as the product loads them; ``folder`` is new."""
        ...


@runtime_checkable
class StepwiseStage(Stage, Protocol):
    """A stage whose samples depend on the step, as their size may, for only samples of one shape can be stacked."""

    def set_step(self, step: int) -> None:
        """Called before the samples of a step are drawn."""
        ...


@dataclass(frozen=True)
class Pace:
    """Length and optimizer of a training.

    Attributes:
        steps: optimizer steps in all. The learning rate falls to zero over the last fifth of them, so that a run which
            its time limit ends before is continued at full rate.
        batch: samples of a step, over all processes.
        learning_rate: after the warm-up.
        warmup: steps in which the rate rises.
        ema: decay of the average of the weights.
        clip: largest norm of a gradient.
        weight_decay: of parameters with two or more dimensions.
        minutes: time limit of one run.
        checkpoint_s: seconds between checkpoints, each with a validation.
        seed: of all draws.
    """

    steps: int
    batch: int
    learning_rate: float
    warmup: int = 100
    ema: float = 0.999
    clip: float = 1.0
    weight_decay: float = 0.01
    minutes: float = math.inf
    checkpoint_s: float = 300.0
    seed: int = 0

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        left = (self.steps - step) / max(COOLDOWN * self.steps, 1.0)
        return self.learning_rate * min(1.0, (step + 1) / self.warmup, left)


def train(
    make: Callable[[], Stage], pace: Pace, folder: Path, rate_of: Callable[[str], float] = lambda _: 1.0
) -> dict[str, float]:
    """Train a stage, or go on where ``folder`` stands; returns the last validation, none where no step was made.

    Args:
        make: the stage; called after the random generators are seeded, for its first weights.
        pace: another one than before changes what is to come, and nothing else.
        folder: of checkpoint, log and ``model/``, the averaged weights.
        rate_of: factor on the learning rate, by the name of a parameter of the stage's network.

    Raises:
        ValueError: a batch that the processes cannot share, or a folder with another network or seed.
        ImportError: accelerate is missing.
    """
    try:
        from accelerate import Accelerator
    except ImportError:
        raise ImportError("training: accelerate is missing; pip install 'worldwarp[train-data]'") from None
    # Processes without a GPU join only if told so; else each would train alone, in the same folder.
    accelerator = Accelerator(cpu=not torch.accelerator.is_available())
    if pace.batch % accelerator.num_processes:
        raise ValueError(
            f"batch: want a multiple of the {accelerator.num_processes} processes, got {pace.batch}; change batch="
        )
    torch.manual_seed(pace.seed)
    return _Training(accelerator, make(), pace, folder, rate_of).run()


class _Training:
    """A run of `train`."""

    def __init__(
        self, accelerator: Any, stage: Stage, pace: Pace, folder: Path, rate_of: Callable[[str], float]
    ) -> None:
        self.accelerator, self.stage, self.pace, self.folder = accelerator, stage, pace, folder
        factors = [rate_of(name) for name, p in stage.network.named_parameters() if p.requires_grad]
        # Sharding replaces parameters, so that the optimizer is made of what `prepare` returns; their order stays.
        self.network = accelerator.prepare(stage.network.train())
        self.trained = [p for p in self.network.parameters() if p.requires_grad]
        alike: dict[tuple[float, float], list[nn.Parameter]] = {}
        for factor, parameter in zip(factors, self.trained, strict=True):
            decay = pace.weight_decay if parameter.ndim >= 2 else 0.0
            alike.setdefault((factor, decay), []).append(parameter)
        groups = [{"params": p, "weight_decay": decay, "factor": factor} for (factor, decay), p in alike.items()]
        adam = torch.optim.AdamW(groups, lr=pace.learning_rate, betas=(0.9, 0.95))
        self.optimizer = accelerator.prepare(adam)
        self.step = self.samples = 0
        self.average = [p.detach().clone() for p in self.trained]
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / PROGRESS).exists():
            self._resume()

    def run(self) -> dict[str, float]:
        pace, main = self.pace, self.accelerator.is_main_process
        started = saved = logged = time.monotonic()
        terms: list[dict[str, float]] = []
        figures: dict[str, float] = {}
        stored = self.step
        bar = tqdm(total=pace.steps, initial=self.step, unit="step", disable=not main, mininterval=5.0)
        while self.step < pace.steps and not self._agreed(time.monotonic() - started > 60.0 * pace.minutes):
            terms.append(self._advance())
            bar.update()
            if self.step % LOG_EVERY == 0:
                now = time.monotonic()
                mean = {name: sum(term[name] for term in terms) / len(terms) for name in terms[0]}
                speed = len(terms) * pace.batch / (now - logged)
                self._log({"samples_per_s": round(speed, 3), "rate": pace.rate(self.step), **mean})
                terms, logged = [], now
            if self._agreed(time.monotonic() - saved > pace.checkpoint_s):
                figures, stored = self._save_and_validate(), self.step
                saved = logged = time.monotonic()
                terms = []
        bar.close()
        # Before the first step the optimizer has no state that could be stored.
        return figures if self.step == stored else self._save_and_validate()

    def _advance(self) -> dict[str, float]:
        own = self.pace.batch // self.accelerator.num_processes
        first = own * self.accelerator.process_index
        if isinstance(self.stage, StepwiseStage):
            self.stage.set_step(self.step)
        drawn = [
            self.stage.draw(np.random.default_rng([self.pace.seed, self.step, number]))
            for number in range(first, first + own)
        ]
        batch = {name: value.to(self.accelerator.device) for name, value in default_collate(drawn).items()}
        for group in self.optimizer.param_groups:
            group["lr"] = group["factor"] * self.pace.rate(self.step)
        terms = self.stage.loss(self.network, batch)
        self.accelerator.backward(terms["loss"])
        norm = self.accelerator.clip_grad_norm_(self.trained, self.pace.clip)
        # One bad batch must not end a long training.
        if math.isfinite(float(norm)):
            self.optimizer.step()
            # Closer at first, so that the average forgets the random weights.
            decay = min(self.pace.ema, (1.0 + self.step) / (10.0 + self.step))
            with torch.no_grad():
                for mean, parameter in zip(self.average, self.trained, strict=True):
                    mean.lerp_(parameter, 1.0 - decay)
        self.optimizer.zero_grad()
        self.step += 1
        self.samples += self.pace.batch
        names = sorted(terms)
        values = torch.stack([terms[name].detach().float() for name in names])
        values = self.accelerator.reduce(values, "mean")
        return dict(zip(names, values.tolist(), strict=True)) | {"gradient": float(norm)}

    def _save_and_validate(self) -> dict[str, float]:
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        weights: dict[str, Any]
        average: dict[str, Any]
        optimizer: dict[str, Any]
        weights, optimizer = get_state_dict(self.network, self.optimizer.optimizer, options=options)
        # Of a network on a CPU the dictionary holds the parameters themselves, which are about to change.
        weights = {name: value.clone() for name, value in weights.items()}
        with _Swapped(self.trained, self.average):
            average, _ = get_state_dict(self.network, (), options=options)
            average = {name: value.clone() for name, value in average.items()}
            # All processes: a sharded network runs on all of them or on none.
            self.network.eval()
            with torch.no_grad():
                figures = self.stage.validate(self.network, self.folder)
            self.network.train()
        if self.accelerator.is_main_process:
            state = {f"network.{name}": value for name, value in weights.items()}
            state |= {f"average.{name}": value for name, value in average.items()}
            for name, own in optimizer["state"].items():
                state |= {f"optimizer.{name}.{key}": torch.as_tensor(value) for key, value in own.items()}
            whole = {name: value.contiguous() for name, value in state.items()}
            _replace(self.folder / CHECKPOINT, lambda path: save_file(whole, path))
            progress = {"step": self.step, "samples": self.samples, "seed": self.pace.seed}
            # After the weights: a kill in between repeats steps instead of leaving them out.
            _replace(self.folder / PROGRESS, lambda path: path.write_text(json.dumps(progress)))
            self.stage.save(average, self.folder / MODEL)
        self._log({"validation": figures})
        return figures

    def _resume(self) -> None:
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        try:
            progress = json.loads((self.folder / PROGRESS).read_text())
            state = load_file(self.folder / CHECKPOINT)
            part: dict[str, dict[str, Any]] = {
                prefix: {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
                for prefix in ("network.", "average.", "optimizer.")
            }
            _, optimizer = get_state_dict(self.network, self.optimizer.optimizer, options=options)
            stored: dict[str, Any] = {}
            for name, value in part["optimizer."].items():
                parameter, _, key = name.rpartition(".")
                stored.setdefault(parameter, {})[key] = value
            whole: dict[str, Any] = {"state": stored, "param_groups": optimizer["param_groups"]}
            nothing: dict[str, Any] = {"state": {}, "param_groups": optimizer["param_groups"]}
            set_state_dict(
                self.network,
                (),
                model_state_dict=part["average."],
                optim_state_dict=nothing,
                options=options,
            )
            self.average = [p.detach().clone() for p in self.trained]
            # Networks that are trained in turns may have had no step yet, and no state, which torch would make up.
            some = StateDictOptions(full_state_dict=True, cpu_offload=True, strict=False)
            set_state_dict(
                self.network,
                self.optimizer.optimizer,
                model_state_dict=part["network."],
                optim_state_dict=whole,
                options=some,
            )
            for name, parameter in self.stage.network.named_parameters():
                if name not in stored:
                    self.optimizer.optimizer.state.pop(parameter, None)
            self.step, self.samples, seed = (int(progress[key]) for key in ("step", "samples", "seed"))
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise ValueError(
                f"{self.folder}: its checkpoint is damaged or of another network; remove it ({error})"
            ) from error
        # Samples follow from the seed: another one would repeat or leave out data unnoticed.
        if seed != self.pace.seed:
            raise ValueError(f"seed: {self.folder} was trained with seed {seed}, got {self.pace.seed}; leave seed= out")

    def _agreed(self, wish: bool) -> bool:
        """The wish of the main process on all of them, since their clocks differ."""
        from accelerate.utils import broadcast

        if self.accelerator.num_processes == 1:
            return wish
        return bool(broadcast(torch.tensor(float(wish), device=self.accelerator.device)))

    def _log(self, entry: dict[str, Any]) -> None:
        if self.accelerator.is_main_process:
            with (self.folder / LOG).open("a") as file:
                file.write(json.dumps({"step": self.step, "samples": self.samples, **entry}) + "\n")


class _Swapped:
    """Other values in parameters for a while."""

    def __init__(self, parameters: list[nn.Parameter], values: list[Tensor]) -> None:
        self.parameters, self.values = parameters, values

    def __enter__(self) -> None:
        self.kept = [p.detach().clone() for p in self.parameters]
        self._set(self.values)

    def __exit__(self, *_: object) -> None:
        self._set(self.kept)

    @torch.no_grad()
    def _set(self, values: list[Tensor]) -> None:
        for parameter, value in zip(self.parameters, values, strict=True):
            parameter.copy_(value)


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    partial = path.with_suffix(path.suffix + ".partial")
    write(partial)
    os.replace(partial, path)
