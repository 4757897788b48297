"""Settings that all trainings share, and their start in one or more processes."""

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
    """A new network and its task.

    Attributes:
        network: network to train.
        task: data, loss and validation.
        rate_share: factor on the learning rate by parameter name; 0 freezes the parameter.
    """

    network: nn.Module
    task: Task
    rate_share: Callable[[str], float] = lambda _: 1.0


@dataclass(frozen=True)
class TrainingRun:
    """Folders, length and devices of a training; running it again with the same settings resumes it.

    The defaults are those of ``worldwarp/conf/train``, which a test compares.

    Attributes:
        data: folder of rendered clips.
        out: folder of checkpoints, log, contact sheet, and the averaged weights ``ema.safetensors``.
        steps: total number of optimizer steps.
        minutes: time limit of one run, minutes.
        ranks: number of processes, each with one CPU thread or one GPU.
        seed: seed of all random choices.
        device: ``cpu`` or ``cuda``.
        watch: called with every validation.
    """

    data: Path
    out: Path
    steps: int = 4000
    minutes: float = 600.0
    ranks: int = 1
    seed: int = 0
    device: str = "cpu"
    watch: Callable[[Validation], None] | None = None

    def train(self, make: Callable[[torch.device], Learner], learning_rate: float, **config: Any) -> None:
        """Train the learner that ``make`` returns for the device of each rank.

        Args:
            make: makes the learner; pickled and sent to the processes. Random weights follow from the seed.
            learning_rate: peak of the schedule.
            **config: other fields of `TrainConfig`.

        Raises:
            ValueError: the machine lacks the device or enough GPUs for the ranks.
            RuntimeError: a rank failed.
        """
        pace = TrainConfig(self.steps, learning_rate, minutes=self.minutes, watch=self.watch, **config)
        run_ranks(partial(_train, self, make, pace), self.ranks, self.device)


def _train(
    run: TrainingRun, make: Callable[[torch.device], Learner], config: TrainConfig, device: torch.device
) -> None:
    # Before `make`: random initial weights follow from the seed, and are equal on all ranks.
    torch.manual_seed(run.seed)
    learner = make(device)
    Trainer(learner.network, learner.task, config, run.out, run.seed, learner.rate_share, device).run()
