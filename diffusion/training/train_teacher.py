"""The bidirectional teacher: all frames of a clip at once, in many steps, from full noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from diffusion.generator import load_network, package_weights, save_network
from diffusion.network import DenoiserNetwork
from diffusion.training.clips import list_clips
from diffusion.training.flow_matching import flow_matching_loss
from diffusion.training.guides import Sample, SampleConfig
from diffusion.training.machine import device_of, moved, run_ranks
from diffusion.training.rollout import Walk, roll_out
from diffusion.training.train_generator import GeneratorTask, Stage, show_held_out, target_frames
from diffusion.training.trainer import TrainConfig, Trainer, Validation

SHAPE = SampleConfig((64, 112), halved=True, context=1, targets=4)
STEPS = 50
BATCH = 4
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


def train_teacher(
    data: Path,
    out: Path,
    *,
    start: Path | None = None,
    steps: int = 4000,
    minutes: float = 60.0,
    ranks: int = 1,
    seed: int = 0,
    device: str = "cpu",
    watch: Callable[[Validation], None] | None = None,
    guides: Path | None = None,
) -> None:
    """Train the teacher; the same call again goes on where the last one stopped.

    Args:
        data: rendered clips.
        out: checkpoints, log, contact sheet, and ``ema.safetensors`` to use.
        start: weights to begin with; those of the package when not given.
        steps: length of the whole training.
        minutes: stop after this long.
        ranks: processes: one CPU thread each, or one GPU each.
        seed: decides everything random.
        device: ``cpu`` or ``cuda``.
        watch: told of every validation.
        guides: guides recorded from the clips; ``data/guides`` when not given.
    """
    list_clips(data, "train")
    run_ranks(partial(_train, data, out, start, stage_config(steps, minutes, 5e-4, watch), guides, seed), ranks, device)


def stage_config(
    steps: int, minutes: float, learning_rate: float, watch: Callable[[Validation], None] | None
) -> TrainConfig:
    """What the stages from many steps to few have in common."""
    return TrainConfig(steps, learning_rate, warmup=30, ema=0.99, checkpoint_s=240.0, minutes=minutes, watch=watch)


def _train(
    data: Path,
    out: Path,
    start: Path | None,
    config: TrainConfig,
    guides: Path | None,
    seed: int,
    device: torch.device,
) -> None:
    torch.manual_seed(seed)
    walk = Walk(SHAPE.context, SHAPE.targets, _SHEET_STEPS)
    Trainer(begin(start), TeacherTask(data, guides, walk), config, out, seed, device=device).run()


def begin(start: Path | None) -> DenoiserNetwork:
    """A network to go on training from weights, those of the package when not given."""
    network = load_network(package_weights() if start is None else start).train()
    network.config = replace(network.config, draws=True)  # from full noise there is nothing else to go by
    return network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
