"""Training of the bidirectional teacher: it denoises all frames of a clip together, in many steps, from full noise."""

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
from worldwarp.training.rollout import RolloutConfig, roll_out
from worldwarp.training.run import Learner, TrainingRun
from worldwarp.training.samples import Sample, SampleConfig
from worldwarp.training.train_generator import GeneratorTask, Stage, show_held_out, target_frames

SHAPE = SampleConfig((64, 112), halved=True, context=1, targets=4)
STEPS = 50
BATCH = 4
PACE = {"warmup": 30, "ema": 0.99, "checkpoint_s": 240.0}  # shared by all stages of the distillation


class SampledTask:
    """A task that is validated by sampling held-out clips with the configuration ``rollout``."""

    def __init__(self, data: Path, rollout: RolloutConfig, shape: SampleConfig = SHAPE) -> None:
        """Take held-out clips from the folder ``data``."""
        self.data, self.rollout, self.shape = data, rollout, shape

    def validate(self, network: DenoiserNetwork, folder: Path) -> dict[str, float]:
        """Sample held-out clips; see `show_held_out`."""

        def make(sample: Sample, rng: torch.Generator) -> Tensor:
            noise = torch.randn(sample.truth.shape, generator=rng)
            sample, noise = moved((sample, noise), device_of(network))
            return roll_out(network, sample, noise, self.rollout).made

        return show_held_out(self.data, self.shape, make, folder)


class ClipTask(SampledTask):
    """A sampled task whose batches are drawn from clips and from guides recorded from them."""

    def __init__(
        self, data: Path, guides: Path | None, rollout: RolloutConfig, shape: SampleConfig = SHAPE, batch: int = BATCH
    ) -> None:
        """Take guides from the folder ``guides``, or ``data/guides`` when None."""
        super().__init__(data, rollout, shape)
        self.samples = GeneratorTask(data, guides, (Stage(1.0, shape, batch),))

    def batch(self, progress: float, rng: np.random.Generator) -> Sample:
        """Draw a batch of samples."""
        return self.samples.batch(progress, rng)[0]

    def frames(self, batch: Sample) -> int:
        """Number of frames after the context."""
        return target_frames(batch, self.rollout.context)


class TeacherTask(ClipTask):
    """Flow matching on all frames together."""

    def loss(
        self, network: DenoiserNetwork, batch: Sample, rng: torch.Generator
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Velocity error; half of the samples have one noise level, the others one per frame."""
        level = frame_levels(batch, rng)
        noise = torch.randn(batch.truth.shape, generator=rng).to(batch.truth)
        loss = flow_matching_loss(network, batch, batch.truth, level, noise, self.rollout.context, self.rollout.chunk)
        return loss, {"velocity": loss.detach()}

    def save(self, network: DenoiserNetwork, path: Path, notes: dict[str, str]) -> None:
        """Write the weights in the format of the package."""
        save_network(network, path, {**notes, "role": "teacher"})


def frame_levels(sample: Sample, rng: torch.Generator) -> Float[Tensor, "b t"]:
    """Random noise levels per frame, 0.02..1: equal for all frames in half of the samples, independent in others."""
    batch, frames = sample.truth.shape[:2]
    each, one = torch.rand(batch, frames, generator=rng), torch.rand(batch, 1, generator=rng)
    # One level for all frames is what a bidirectional sampler sees, a level per frame what a causal one does.
    alone = torch.rand(batch, 1, generator=rng) < 0.5
    return (0.02 + 0.98 * torch.where(alone, each, one)).to(sample.truth)


def train_teacher(run: TrainingRun, *, start: Path | None = None, guides: Path | None = None) -> None:
    """Train the teacher.

    Args:
        run: see `TrainingRun`.
        start: initial weights; those of the package when None.
        guides: folder of the guides recorded from the clips; ``data/guides`` when None.
    """
    list_clips(run.data, "train")
    run.train(partial(_learner, run.data, start, guides), 5e-4, **PACE)


def _learner(data: Path, start: Path | None, guides: Path | None, device: torch.device) -> Learner:  # noqa: ARG001
    sheet_steps = 10
    return Learner(begin(start), TeacherTask(data, guides, RolloutConfig(SHAPE.context, SHAPE.targets, sheet_steps)))


def begin(start: Path | None) -> DenoiserNetwork:
    """Load a network for training; ``start`` None takes the weights of the package."""
    network = load_network(package_weights() if start is None else start).train()
    # From full noise the network must synthesize and not only correct the prior.
    network.config = replace(network.config, draws=True)
    return network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
