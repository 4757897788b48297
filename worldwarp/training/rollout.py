"""Sampling inside training: chunk by chunk, each conditioned on the generated chunks before it, as in inference."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion.flow import add_noise, step
from diffusion.retouch.network import DenoiserNetwork, Inputs, Past
from diffusion.sampler import schedule_matrix
from worldwarp.training.flow_matching import entry_level, inputs_at
from worldwarp.training.samples import Sample


@dataclass(frozen=True)
class RolloutConfig:
    """How a sequence is sampled.

    Attributes:
        context: number of leading frames, which are given.
        chunk: number of frames sampled together; all target frames for a bidirectional network.
        steps: number of denoising steps from full noise to clean frames.
    """

    context: int
    chunk: int
    steps: int

    @property
    def levels(self) -> list[float]:
        """Noise levels from 1 to 0 in the order of the sampler, ``steps + 1`` values."""
        return schedule_matrix(self.steps, 1)[:, 0].tolist()


@dataclass(frozen=True)
class Rollout:
    """Result of sampling.

    Attributes:
        made: clean frames after the context ``[b s 4 h w]``.
        states: noisy states before the watched steps ``[b k s 4 h w]``.
    """

    made: Float[Tensor, "b s 4 h w"]
    states: Float[Tensor, "b k s 4 h w"]


def roll_out(
    network: DenoiserNetwork,
    sample: Sample,
    noise: Float[Tensor, "b t 4 h w"],
    config: RolloutConfig,
    *,
    stop: int | None = None,
    watch: tuple[int, ...] = (),
) -> Rollout:
    """Sample the frames after the context; each chunk attends to the finished chunks before it.

    Args:
        network: predicts clean frames.
        sample: a batch ``[b]``; of its truth only the context frames are used.
        noise: standard normal noise.
        config: context, chunk size and number of steps.
        stop: index of the step whose prediction is taken as the finished frame, the only step with a gradient (Huang et
            al., "Self Forcing", section 3.2); None runs all steps without gradients.
        watch: indices of the steps whose input states are returned.
    """
    entry = entry_level(sample, config.context)
    given = sample.truth[:, : config.context]
    past = _remember(network, given, _cut(sample, slice(0, config.context)), None)
    frames = sample.truth.shape[1]
    made, states = [], []
    for start in range(config.context, frames, config.chunk):
        part = slice(start, min(start + config.chunk, frames))
        clean, seen = _make(network, _cut(sample, part), entry[:, part], noise[:, part], past, config, stop, watch)
        made.append(clean)
        states.append(seen)
        # Nothing attends to the last chunk.
        if part.stop < frames:
            # No gradient through the memory: only the last step of a chunk is differentiated (Self Forcing).
            past = _remember(network, clean.detach(), _cut(sample, part), past)
    return Rollout(torch.cat(made, dim=1), torch.cat(states, dim=2))


def _make(
    network: DenoiserNetwork,
    sample: Sample,
    entry: Tensor,
    noise: Tensor,
    past: Past,
    config: RolloutConfig,
    stop: int | None,
    watch: tuple[int, ...],
) -> tuple[Tensor, Tensor]:
    """Sample one chunk: its clean frames, and its states before the watched steps ``[b k s 4 h w]``."""
    # Each pixel starts from the prior at its own entry level, as in the sampler.
    state, now = add_noise(sample.prior, noise, entry), entry
    states = [state.new_zeros(len(state), 0, *state.shape[1:])]
    for index, level in enumerate(config.levels[1:]):
        if index in watch:
            states.append(state[:, None])
        with torch.set_grad_enabled(index == stop), torch.autocast(state.device.type, torch.bfloat16):
            clean = network(inputs_at(sample, state, now), past)[0].float()
        if index == stop:
            return clean, torch.cat(states, dim=1)
        # A pixel waits at its entry level until the schedule has come down to it.
        then = now.clamp(max=level)
        state, now = step(state, clean, now, then), then
    return state, torch.cat(states, dim=1)


@torch.no_grad()
def _remember(network: DenoiserNetwork, frames: Tensor, sample: Sample, past: Past | None) -> Past:
    """Append keys and values of finished frames to those of the past; the frames have coverage and confidence 1."""
    one, none = torch.ones_like(sample.copied), torch.zeros_like(sample.copied)
    # Finished frames are known: coverage and confidence 1, nothing copied, noise level 0.
    maps = (one, one, none, none)
    inputs = Inputs(frames, frames, frames, *maps, sample.world_from_camera, sample.intrinsics, sample.unit)
    with torch.autocast(frames.device.type, torch.bfloat16):
        _, keys, values = network(inputs, past, first=frames.shape[1])
    new = Past(keys, values, sample.world_from_camera, sample.intrinsics)
    if past is None:
        return new
    return Past(*(torch.cat([getattr(past, f.name), getattr(new, f.name)], dim=1) for f in fields(Past)))


def _cut(sample: Sample, frames: slice) -> Sample:
    """Select frames of a batch."""
    parts = {f.name: getattr(sample, f.name) for f in fields(Sample)}
    return Sample(**{name: value if name == "unit" else value[:, frames] for name, value in parts.items()})
