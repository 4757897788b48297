"""Training the embedded generator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from diffusion.network import DenoiserNetwork, Inputs
from diffusion.training.clips import read_clip
from diffusion.training.generator_loss import generator_loss
from diffusion.training.guides import Sample, SampleConfig, recorded_sample, warped_sample
from geometry.frame import Frame


@dataclass(frozen=True)
class Stage:
    """A part of the training at one resolution.

    Attributes:
        until: share of the training time at which it ends, 0..1.
        config: shape of the samples.
        batch: sequences per rank and step.
    """

    until: float
    config: SampleConfig
    batch: int


STAGES = (
    Stage(0.6, SampleConfig((64, 112), halved=True), batch=5),
    Stage(1.0, SampleConfig((144, 240), halved=False, context=1), batch=2),
)


class GeneratorTask:
    """What a trainer needs to know: batches, a loss, a validation picture."""

    def __init__(
        self, clips: Callable[[], list[Path]], guides: Path | None, stages: tuple[Stage, ...] = STAGES
    ) -> None:
        """Train on clips (a callable, since they may still be arriving) and on recorded guides where there are any."""
        self.clips, self.guides, self.stages = clips, guides, stages

    def stage(self, progress: float) -> Stage:
        """The stage at a share of the training time."""
        return next((s for s in self.stages if progress < s.until), self.stages[-1])

    def batch(self, progress: float, rng: np.random.Generator) -> tuple[Sample, int]:
        """A batch and its number of context frames."""
        stage, paths = self.stage(progress), self.clips()
        samples = [self._sample(paths[int(rng.integers(len(paths)))], stage.config, rng) for _ in range(stage.batch)]
        return Sample.stack(samples), stage.config.context

    def _sample(self, path: Path, config: SampleConfig, rng: np.random.Generator) -> Sample:
        clip = read_clip(path)
        recorded = self.guides and self.guides / path.name
        if recorded and recorded.is_file() and rng.random() < 0.6:
            return recorded_sample(clip, recorded, config, rng)
        return warped_sample(clip, config, rng)

    def loss(
        self, network: DenoiserNetwork, batch: tuple[Sample, int], rng: torch.Generator
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Loss and its terms; bfloat16 inside where the processor is fast at it."""
        with torch.autocast("cpu", torch.bfloat16):
            return generator_loss(network, *batch, rng)
