"""What every training is told, and how it starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from worldwarp.training.distributed import run_ranks
from worldwarp.training.trainer import Task, TrainConfig, Trainer, Validation


@dataclass(frozen=True)
class Learner:
    """A network, freshly made, and what it learns.

    Attributes:
        network: the network.
        task: what it learns.
        rate_share: share of the learning rate by parameter name; 0 freezes.
    """

    network: nn.Module
    task: Task
    rate_share: Callable[[str], float] = lambda _: 1.0


@dataclass(frozen=True)
class TrainingRun:
    """Where a training reads and writes, how long it lasts, and on what; the same again goes on where it stopped.

    Attributes:
        data: rendered clips.
        out: checkpoints, log, contact sheet, and ``ema.safetensors`` to use.
        steps: length of the whole training.
        minutes: stop after this long.
        ranks: processes: one CPU thread each, or one GPU each.
        seed: decides everything random.
        device: ``cpu`` or ``cuda``.
        watch: told of every validation.
    """

    data: Path
    out: Path
    steps: int = 4000
    minutes: float = 60.0
    ranks: int = 1
    seed: int = 0
    device: str = "cpu"
    watch: Callable[[Validation], None] | None = None

    def train(self, make: Callable[[torch.device], Learner], learning_rate: float, **config: Any) -> None:
        """Train what ``make`` makes on the device of each rank; it travels to their processes.

        Args:
            make: the learner; its random weights follow from the seed.
            learning_rate: at its height.
            **config: what else `TrainConfig` is to be.

        Raises:
            ValueError: a device or a number of ranks that this machine does not have.
            RuntimeError: a rank failed.
        """
        pace = TrainConfig(self.steps, learning_rate, minutes=self.minutes, watch=self.watch, **config)
        run_ranks(partial(_train, self, make, pace), self.ranks, self.device)


def _train(
    run: TrainingRun, make: Callable[[torch.device], Learner], config: TrainConfig, device: torch.device
) -> None:
    torch.manual_seed(run.seed)
    learner = make(device)
    Trainer(learner.network, learner.task, config, run.out, run.seed, learner.rate_share, device).run()
