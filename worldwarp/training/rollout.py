"""Sampling inside training: chunk after chunk, each going on from what was made before, as the sampler will."""

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
class Walk:
    """How a sequence is sampled.

    Attributes:
        context: leading frames, which are given.
        chunk: frames made together; as many as there are to make for a bidirectional network.
        steps: steps from full noise to the end.
    """

    context: int
    chunk: int
    steps: int

    @property
    def levels(self) -> list[float]:
        """Levels from 1 to 0, as the sampler walks down them."""
        return schedule_matrix(self.steps, 1)[:, 0].tolist()


@dataclass(frozen=True)
class Rollout:
    """What was made.

    Attributes:
        made: clean frames ``[b s 4 h w]`` after the context.
        states: noisy states ``[b k s 4 h w]`` before the watched steps.
    """

    made: Float[Tensor, "b s 4 h w"]
    states: Float[Tensor, "b k s 4 h w"]


def roll_out(
    network: DenoiserNetwork,
    sample: Sample,
    noise: Float[Tensor, "b t 4 h w"],
    walk: Walk,
    *,
    stop: int | None = None,
    watch: tuple[int, ...] = (),
) -> Rollout:
    """Sample the frames after the context; each chunk remembers the finished ones before it.

    Args:
        network: predicts clean ends.
        sample: a batch ``[b]``; nothing of its truth but the context is looked at.
        noise: standard normal.
        walk: chunks and steps.
        stop: the step whose clean end is taken as finished, the only one with a gradient (Huang et al., "Self Forcing",
            section 3.2); None walks to the end without any gradient.
        watch: steps whose states are wanted.
    """
    entry = entry_level(sample, walk.context)
    given = sample.truth[:, : walk.context]
    past = _remember(network, given, _cut(sample, slice(0, walk.context)), None)
    frames = sample.truth.shape[1]
    made, states = [], []
    for start in range(walk.context, frames, walk.chunk):
        part = slice(start, min(start + walk.chunk, frames))
        clean, seen = _make(network, _cut(sample, part), entry[:, part], noise[:, part], past, walk, stop, watch)
        made.append(clean)
        states.append(seen)
        if part.stop < frames:
            past = _remember(network, clean.detach(), _cut(sample, part), past)
    return Rollout(torch.cat(made, dim=1), torch.cat(states, dim=2))


def _make(
    network: DenoiserNetwork,
    sample: Sample,
    entry: Tensor,
    noise: Tensor,
    past: Past,
    walk: Walk,
    stop: int | None,
    watch: tuple[int, ...],
) -> tuple[Tensor, Tensor]:
    """One chunk: its clean frames, and its states before the watched steps ``[b k s 4 h w]``."""
    state, now = add_noise(sample.prior, noise, entry), entry
    states = [state.new_zeros(len(state), 0, *state.shape[1:])]
    for index, level in enumerate(walk.levels[1:]):
        if index in watch:
            states.append(state[:, None])
        with torch.set_grad_enabled(index == stop), torch.autocast(state.device.type, torch.bfloat16):
            clean = network(inputs_at(sample, state, now), past)[0].float()
        if index == stop:
            return clean, torch.cat(states, dim=1)
        then = now.clamp(max=level)
        state, now = step(state, clean, now, then), then
    return state, torch.cat(states, dim=1)


@torch.no_grad()
def _remember(network: DenoiserNetwork, frames: Tensor, sample: Sample, past: Past | None) -> Past:
    """Keys and values of finished frames after those of the past; the frames count as seen."""
    one, none = torch.ones_like(sample.copied), torch.zeros_like(sample.copied)
    maps = (one, one, none, none)
    inputs = Inputs(frames, frames, frames, *maps, sample.world_from_camera, sample.intrinsics, sample.unit)
    with torch.autocast(frames.device.type, torch.bfloat16):
        _, keys, values = network(inputs, past, first=frames.shape[1])
    new = Past(keys, values, sample.world_from_camera, sample.intrinsics)
    if past is None:
        return new
    return Past(*(torch.cat([getattr(past, f.name), getattr(new, f.name)], dim=1) for f in fields(Past)))


def _cut(sample: Sample, frames: slice) -> Sample:
    """Some frames of a batch."""
    parts = {f.name: getattr(sample, f.name) for f in fields(Sample)}
    return Sample(**{name: value if name == "unit" else value[:, frames] for name, value in parts.items()})
