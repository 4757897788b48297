"""Training of the packaged generator."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from diffusion.retouch.generator import load_network, save_network
from diffusion.retouch.network import DenoiserNetwork, NetworkConfig
from scenes.dataset.clips import list_clips, read_clip
from worldwarp.training.distributed import device_of, moved
from worldwarp.training.generator_loss import generator_loss, noisy_inputs
from worldwarp.training.run import Learner, TrainingRun
from worldwarp.training.samples import Sample, SampleConfig, recorded_sample, warped_sample
from worldwarp.training.trainer import SHEET

RELIST_S = 60.0  # seconds between listings of the clips, which may still be rendered during training


@dataclass(frozen=True)
class Stage:
    """A stage of the training at one resolution.

    Attributes:
        until: share of the training at which the stage ends, 0..1.
        config: shape of the samples.
        batch: number of sequences per rank and step.
    """

    until: float
    config: SampleConfig
    batch: int


STAGES = (
    Stage(0.6, SampleConfig((64, 112), halved=True), batch=5),
    Stage(1.0, SampleConfig((144, 240), halved=False, context=1, targets=3), batch=2),
)
# Fine-tuning of given weights uses full resolution, and a lower learning rate before the last decoder layers.
FINE_TUNING = (Stage(1.0, SampleConfig((144, 240), halved=False, context=1, targets=3), batch=2),)
LAST_LAYERS = ("grow.2.", "up.2.", "head.")


class GeneratorTask:
    """Task of the generator: sequences with holes, its loss, and a contact sheet of held-out clips."""

    def __init__(self, data: Path, guides: Path | None = None, stages: tuple[Stage, ...] = STAGES) -> None:
        """Train on the clips in ``data`` and on their recorded guides in ``guides`` (None: ``data/guides``)."""
        self.data, self.guides, self.stages = data, guides, stages
        self._listed_s = -RELIST_S
        self._paths: list[Path] = []
        self._recorded: list[Path] = []

    def batch(self, progress: float, rng: np.random.Generator) -> tuple[Sample, int]:
        """Draw a batch; returns it with its number of context frames."""
        if time.monotonic() - self._listed_s > RELIST_S:
            self._paths, self._listed_s = list_clips(self.data, "train"), time.monotonic()
            listed = self._paths + list_clips(self.data, "estimated")
            self._recorded = [p for p in listed if self._guide(p).is_file()]
        # Most steps at half size, where they are cheap; the last ones at full size.
        stage = next((s for s in self.stages if progress < s.until), self.stages[-1])
        samples = [self._draw(stage.config, rng) for _ in range(stage.batch)]
        return Sample.stack(samples), stage.config.context

    def frames(self, batch: tuple[Sample, int]) -> int:
        """Number of frames after the context."""
        sample, context = batch
        return target_frames(sample, context)

    def loss(
        self, network: DenoiserNetwork, batch: tuple[Sample, int], rng: torch.Generator
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Loss and its terms, computed in bfloat16."""
        with torch.autocast(batch[0].truth.device.type, torch.bfloat16):
            return generator_loss(network, *batch, rng)

    def validate(self, network: DenoiserNetwork, folder: Path) -> dict[str, float]:
        """Run the sampler on held-out clips; see `show_held_out`."""
        config = self.stages[-1].config

        def make(sample: Sample, rng: torch.Generator) -> Tensor:
            return sampled(network, moved(sample, device_of(network)), config.context, rng)

        return show_held_out(self.data, config, make, folder)

    def save(self, network: DenoiserNetwork, path: Path, notes: dict[str, str]) -> None:
        """Write the weights in the format of the package."""
        save_network(network, path, notes)

    def _draw(self, config: SampleConfig, rng: np.random.Generator) -> Sample:
        recorded_share = 0.85
        # Recorded guides have the errors of the cache, warped ones any camera move.
        if self._recorded and rng.random() < recorded_share:
            path = self._recorded[int(rng.integers(len(self._recorded)))]
            return recorded_sample(read_clip(path), self._guide(path), config, rng)
        return warped_sample(read_clip(self._paths[int(rng.integers(len(self._paths)))]), config, rng)

    def _guide(self, path: Path) -> Path:
        return (self.data / "guides" if self.guides is None else self.guides) / path.name


def train_generator(run: TrainingRun, *, guides: Path | None = None, start: Path | None = None) -> None:
    """Train the generator.

    Args:
        run: see `TrainingRun`.
        guides: folder of guides recorded from the clips (`worldwarp.training.record_guides`); ``data/guides`` when
            None. Clips without guides are used with warped guides.
        start: initial weights, which are fine-tuned; random ones when None.
    """
    list_clips(run.data, "train")
    rate, decay = (7e-4, 0.99) if start is None else (4e-4, 0.995)
    run.train(partial(_learner, run.data, guides, start), rate, ema=decay, checkpoint_s=240.0)


def show_held_out(
    data: Path, config: SampleConfig, make: Callable[[Sample, torch.Generator], Tensor], folder: Path
) -> dict[str, float]:
    """Mean errors of depth and color in the holes of held-out clips, for the prior and the output of ``make``.

    Also writes a contact sheet; its columns are the covered pixels, the prior, the output, the truth, then the depth of
    prior, output and truth.
    """
    rows, figures = [], []
    validation_clips = 6
    # Every seventh: consecutive clips show the same scene.
    for index, path in enumerate(list_clips(data, "heldout")[::7][:validation_clips]):
        rng = np.random.default_rng(index)
        sample = Sample.stack([warped_sample(read_clip(path), config, rng)])
        made = make(sample, torch.Generator().manual_seed(index)).cpu()
        shown = _last(sample)
        hole = shown.copied > 0.5
        figures.append(_figures(made[0, -1], shown, hole))
        # Holes are drawn dark on the sheet.
        seen = torch.where(hole, -0.8, shown.prior[:3])
        pictures = [_color(t) for t in (seen, shown.prior, made[0, -1], shown.truth)]
        pictures += [_gray(t) for t in (shown.prior, made[0, -1], shown.truth)]
        rows.append(np.concatenate(pictures, axis=1))
    if not rows:
        return {}
    Image.fromarray(np.concatenate(rows)).save(folder / SHEET)
    return {name: float(np.mean([f[name] for f in figures])) for name in figures[0]}


def target_frames(sample: Sample, context: int) -> int:
    """Number of frames after the context, over all sequences of a batch."""
    batch, frames = sample.truth.shape[:2]
    return batch * (frames - context)


@torch.no_grad()
def sampled(network: DenoiserNetwork, sample: Sample, context: int, rng: torch.Generator) -> Tensor:
    """Output of the sampler, ``[b t-context 4 h w]``: one step, as all pixels enter below its second level."""
    chunks = (torch.arange(sample.truth.shape[1], device=sample.truth.device) >= context).long()
    inputs = noisy_inputs(sample, context, rng, at_start=1.0)
    made, _, _ = network(inputs, chunk_of_frame=chunks, first=context)
    return made.float()


def _learner(data: Path, guides: Path | None, start: Path | None, device: torch.device) -> Learner:  # noqa: ARG001
    network = DenoiserNetwork(NetworkConfig(draws=False)) if start is None else load_network(start).train()
    # Convolutions are faster in this layout; torch's type stubs lack this form of `to`.
    network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    stages, fast = (STAGES, ("",)) if start is None else (FINE_TUNING, LAST_LAYERS)  # every name starts with ""
    task = GeneratorTask(data, guides, stages)
    rate_before = 0.6
    return Learner(network, task, lambda name: 1.0 if name.startswith(fast) else rate_before)


@dataclass(frozen=True)
class _Shown:
    """The last frame of the first sequence."""

    prior: Tensor
    truth: Tensor
    copied: Tensor


def _last(sample: Sample) -> _Shown:
    return _Shown(sample.prior[0, -1], sample.truth[0, -1], sample.copied[0, -1])


def _figures(made: Tensor, shown: _Shown, hole: Tensor) -> dict[str, float]:
    """Mean absolute error of depth code and color in the hole, for the output and the prior."""
    area = hole.sum().clamp_min(1)
    return {
        f"{name}_{what}": ((state[part] - shown.truth[part]).abs().mean(0) * hole[0]).sum().item() / area.item()
        for name, state in (("made", made), ("prior", shown.prior))
        for what, part in (("color", slice(0, 3)), ("depth", slice(3, 4)))
    }


def _color(state: Tensor) -> np.ndarray:
    return ((state[:3].clamp(-1.0, 1.0) + 1.0) * 127.5).to(torch.uint8).permute(1, 2, 0).numpy()


def _gray(state: Tensor) -> np.ndarray:
    return _color(state[3:].expand(3, -1, -1))
