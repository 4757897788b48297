"""Training of the packaged generator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from diffusion.retouch.generator import load_network, save_network
from diffusion.retouch.network import DenoiserNetwork, Inputs, NetworkConfig
from scenes.dataset.clips import list_clips, read_clip
from scenes.io.png import write_rgb_png
from worldwarp.training.accelerated import Pace, train
from worldwarp.training.generator_loss import BLIND, generator_loss, noisy_inputs
from worldwarp.training.record_guides import record_guides
from worldwarp.training.samples import Sample, SampleConfig, recorded_sample, warped_sample

WEIGHTS = "generator.safetensors"  # in the folder of averaged weights
RECORDED_SHARE = 0.85  # of samples: recorded guides have the errors of the cache, warped ones any camera move
HALF = SampleConfig((64, 112), halved=True)
FULL = SampleConfig((144, 240), halved=False, context=1, targets=3)
HALF_UNTIL = 0.6  # share of the steps of a training from random weights, which are cheap at half size
LAST_LAYERS = ("grow.2.", "up.2.", "head.")
RATE_BEFORE = 0.6  # of the layers before the last ones, when given weights are fine-tuned


class GeneratorStage:
    """Sequences with holes: most steps of a network with random weights at half size, those of a given one at full."""

    def __init__(self, data: Path, start: Path | None = None, steps: int = 4000) -> None:
        """Read weights and list the clips.

        Args:
            data: folder of rendered clips, whose recorded guides are in ``data/guides``. Clips without guides are used
                with warped guides.
            start: initial weights, which are fine-tuned; random ones when None.
            steps: of the training.
        """
        self.guides = data / "guides"
        self.paths, self.held_out = list_clips(data, "train"), list_clips(data, "heldout")
        self.recorded = [p for p in self.paths + list_clips(data, "estimated") if (self.guides / p.name).is_file()]
        network = DenoiserNetwork(NetworkConfig(draws=False)) if start is None else load_network(start)
        # Convolutions are faster in this layout; torch's type stubs lack this form of `to`.
        self.network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] (typed for dtypes alone)
        self.halved_steps = HALF_UNTIL * steps if start is None else 0
        self.set_step(0)

    def set_step(self, step: int) -> None:
        """Choose the shape of a step's samples."""
        self.config = HALF if step < self.halved_steps else FULL

    def draw(self, rng: np.random.Generator) -> dict[str, Tensor]:
        """A sample, and the noisy inputs made of it."""
        sample = Sample.stack([self._sample(rng)])
        draws = torch.Generator().manual_seed(int(rng.integers(2**62)))
        inputs = noisy_inputs(sample, self.config.context, draws, blind=BLIND)
        parts = {"sample": sample, "inputs": inputs}
        return {f"{part}.{name}": value[0] for part, whole in parts.items() for name, value in vars(whole).items()}

    def loss(self, network: Any, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Loss and its terms; each is a mean over the pixels of the batch that it applies to."""
        sample, inputs = Sample(**_part(batch, "sample.")), Inputs(**_part(batch, "inputs."))
        loss, terms = generator_loss(network, sample, inputs, self.config.context)
        return {"loss": loss, **terms}

    def validate(self, network: Any, folder: Path) -> dict[str, float]:
        """Mean errors of depth and color in the holes of held-out clips, for the prior and the output of the sampler.

        Also writes a contact sheet; its columns are the covered pixels, the prior, the output, the truth, then the
        depth of prior, output and truth.
        """
        rows, figures = [], []
        validation_clips = 6
        device = next(self.network.parameters()).device
        # Every seventh: consecutive clips show the same scene.
        for index, path in enumerate(self.held_out[::7][:validation_clips]):
            sample = Sample.stack([warped_sample(read_clip(path), FULL, np.random.default_rng(index))])
            inputs = noisy_inputs(sample, FULL.context, torch.Generator().manual_seed(index), at_start=1.0)
            made = sampled(network, _moved(inputs, device), FULL.context).cpu()[0, -1]
            shown = _last(sample)
            hole = shown.copied > 0.5
            figures.append(_figures(made, shown, hole))
            # Holes are drawn dark on the sheet.
            seen = torch.where(hole, -0.8, shown.prior[:3])
            pictures = [*(state[:3] for state in (seen, shown.prior, made, shown.truth))]
            pictures += [state[3:].expand(3, -1, -1) for state in (shown.prior, made, shown.truth)]
            rows.append(torch.cat(pictures, 2))
        if not rows:
            return {}
        write_rgb_png(folder / "sheet.png", (0.5 * torch.cat(rows, 1) + 0.5).clamp(0.0, 1.0))
        return {name: float(np.mean([f[name] for f in figures])) for name in figures[0]}

    def save(self, weights: Mapping[str, Tensor], folder: Path) -> None:
        """Write the weights in the format of the package."""
        network = DenoiserNetwork(self.network.config)
        network.load_state_dict(weights)
        folder.mkdir(exist_ok=True)
        save_network(network, folder / WEIGHTS)

    def _sample(self, rng: np.random.Generator) -> Sample:
        if self.recorded and rng.random() < RECORDED_SHARE:
            path = self.recorded[int(rng.integers(len(self.recorded)))]
            return recorded_sample(read_clip(path), self.guides / path.name, self.config, rng)
        return warped_sample(read_clip(self.paths[int(rng.integers(len(self.paths)))]), self.config, rng)


def train_generator(
    data: Path,
    out: Path,
    start: Path | None = None,
    steps: int = 4000,
    batch: int = 4,
    minutes: float = 600.0,
    seed: int = 0,
) -> None:
    """Train the packaged generator, or go on with it; ``out/model/generator.safetensors`` has its averaged weights.

    Guides of the clips that have none are recorded first, each process of a training its share.

    Args:
        data: folder of rendered clips.
        out: folder of the run.
        start: initial weights, which are fine-tuned; random ones when None.
        steps: see `Pace`, as all that follow.
        batch: sequences.
        minutes: of this run, without the recording of guides.
        seed: of all draws.
    """

    def make() -> GeneratorStage:
        _record_missing_guides(data)
        return GeneratorStage(data, start, steps)

    rate, ema = (7e-4, 0.99) if start is None else (4e-4, 0.995)
    pace = Pace(steps, batch, rate, ema=ema, weight_decay=0.02, minutes=minutes, seed=seed)
    fast = ("",) if start is None else LAST_LAYERS  # every name starts with ""
    train(make, pace, out, lambda name: 1.0 if name.startswith(fast) else RATE_BEFORE)


def _record_missing_guides(data: Path) -> None:
    """Record guides of all clips, each process those of its share."""
    from accelerate import PartialState

    processes = PartialState()
    clips = list_clips(data, "train") + list_clips(data, "estimated")
    record_guides(clips[processes.process_index :: processes.num_processes], data / "guides")
    processes.wait_for_everyone()


def sampled(network: Any, inputs: Inputs, context: int) -> Float[Tensor, "b s 4 h w"]:
    """Output of the sampler after the context: one step, as all pixels enter below its second level."""
    chunks = (torch.arange(inputs.state.shape[1], device=inputs.state.device) >= context).long()
    made, _, _ = network(inputs, chunk_of_frame=chunks, first=context)
    return made.float()


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


def _part(batch: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in batch.items() if name.startswith(prefix)}


def _moved(inputs: Inputs, device: torch.device) -> Inputs:
    return Inputs(**{name: value.to(device) for name, value in vars(inputs).items()})
