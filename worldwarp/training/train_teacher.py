"""The bidirectional teacher: all frames of a clip at once, in many steps, from full noise."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from diffusion.retouch.generator import load_network, package_weights, save_network
from diffusion.retouch.network import DenoiserNetwork
from scenes.dataset.clips import list_clips
from worldwarp.training.distributed import device_of, moved
from worldwarp.training.flow_matching import flow_matching_loss
from worldwarp.training.rollout import Walk, roll_out
from worldwarp.training.run import Learner, TrainingRun
from worldwarp.training.samples import Sample, SampleConfig
from worldwarp.training.train_generator import GeneratorTask, Stage, show_held_out, target_frames

SHAPE = SampleConfig((64, 112), halved=True, context=1, targets=4)
STEPS = 50
BATCH = 4
PACE = {"warmup": 30, "ema": 0.99, "checkpoint_s": 240.0}  # of all stages from many steps to few
_SHEET_STEPS = 10


class SampledTask:
    """A task judged by sampling held-out clips as ``walk`` says."""

    def __init__(self, data: Path, walk: Walk, shape: SampleConfig = SHAPE) -> None:
        """Held-out clips come from ``data``."""
        self.data, self.walk, self.shape = data, walk, shape

    def validate(self, network: DenoiserNetwork, folder: Path) -> dict[str, float]:
        """Sample held-out clips; see `show_held_out`."""

        def make(sample: Sample, rng: torch.Generator) -> Tensor:
            noise = torch.randn(sample.truth.shape, generator=rng)
            sample, noise = moved((sample, noise), device_of(network))
            return roll_out(network, sample, noise, self.walk).made

        return show_held_out(self.data, self.shape, make, folder)


class ClipTask(SampledTask):
    """Also draws batches from clips and the guides recorded from them."""

    def __init__(
        self, data: Path, guides: Path | None, walk: Walk, shape: SampleConfig = SHAPE, batch: int = BATCH
    ) -> None:
        """Guides are in ``guides``, or ``data/guides`` when not given."""
        super().__init__(data, walk, shape)
        self.samples = GeneratorTask(data, guides, (Stage(1.0, shape, batch),))

    def batch(self, progress: float, rng: np.random.Generator) -> Sample:
        """A batch."""
        return self.samples.batch(progress, rng)[0]

    def frames(self, batch: Sample) -> int:
        """Those after the context."""
        return target_frames(batch, self.walk.context)


class TeacherTask(ClipTask):
    """Flow matching on all frames at once."""

    def loss(
        self, network: DenoiserNetwork, batch: Sample, rng: torch.Generator
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Velocity error; half of the samples at one level, half with a level per frame."""
        level = frame_levels(batch, rng)
        noise = torch.randn(batch.truth.shape, generator=rng).to(batch.truth)
        loss = flow_matching_loss(network, batch, batch.truth, level, noise, self.walk.context, self.walk.chunk)
        return loss, {"velocity": loss.detach()}

    def save(self, network: DenoiserNetwork, path: Path, notes: dict[str, str]) -> None:
        """Write the weights as the package holds them."""
        save_network(network, path, {**notes, "role": "teacher"})


def frame_levels(sample: Sample, rng: torch.Generator) -> Float[Tensor, "b t"]:
    """Levels in 0.02..1 of every frame: one for the whole sample in half of the samples, independent in the others."""
    batch, frames = sample.truth.shape[:2]
    each, one = torch.rand(batch, frames, generator=rng), torch.rand(batch, 1, generator=rng)
    alone = torch.rand(batch, 1, generator=rng) < 0.5
    return (0.02 + 0.98 * torch.where(alone, each, one)).to(sample.truth)


def train_teacher(run: TrainingRun, *, start: Path | None = None, guides: Path | None = None) -> None:
    """Train the teacher.

    Args:
        run: see `TrainingRun`.
        start: weights to begin with; those of the package when not given.
        guides: guides recorded from the clips; ``data/guides`` when not given.
    """
    list_clips(run.data, "train")
    run.train(partial(_learner, run.data, start, guides), 5e-4, **PACE)


def _learner(data: Path, start: Path | None, guides: Path | None, device: torch.device) -> Learner:  # noqa: ARG001
    return Learner(begin(start), TeacherTask(data, guides, Walk(SHAPE.context, SHAPE.targets, _SHEET_STEPS)))


def begin(start: Path | None) -> DenoiserNetwork:
    """A network to go on training from weights, those of the package when not given."""
    network = load_network(package_weights() if start is None else start).train()
    network.config = replace(network.config, draws=True)  # from full noise there is nothing else to go by
    return network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
