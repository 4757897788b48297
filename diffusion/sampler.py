"""The few-step sampler of RGB-D states: a pixel idles at its own noise level until the schedule reaches it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion.condition import Condition
from diffusion.flow import add_noise, step
from diffusion.generator import MadeRGBD
from diffusion.kv_memory import KVMemory
from diffusion.rgbd_state import decode, encode


@dataclass(frozen=True)
class SamplerConfig:
    """Steps per frame and spacing of the levels (see `schedule_matrix`).

    Attributes:
        steps: steps that a frame takes from noise 1 to 0; None: 1. Two steps give the same figures to the third digit
            (``docs/results.md``, The generator on held-out scenes).
        shift: above 1, more of the steps are at high noise. Default 1: even spacing; without effect at one step.
        lag: steps by which each frame of a chunk trails the one before it. Default 0: all frames together; not
            measured. 1 is a full pyramid, for generators that were trained with a level per frame.
    """

    steps: int | None = None
    shift: float = 1.0
    lag: float = 0.0


@runtime_checkable
class Denoiser(Protocol):
    """A network on the RGB-D state, see `diffusion.rgbd_state.encode`."""

    def denoise(
        self,
        x: Float[Tensor, "t 4 h w"],
        sigma: Float[Tensor, "t 1 h w"],
        condition: Condition,
        memory: KVMemory,
    ) -> Float[Tensor, "t 4 h w"]:
        """Predict the clean state of ``x``, which is at noise levels ``sigma``."""
        ...


@torch.no_grad()
def sample(
    denoiser: Denoiser,
    condition: Condition,
    sigma: Float[Tensor, "t 1 h w"],
    memory: KVMemory,
    rng: torch.Generator,
    config: SamplerConfig = SamplerConfig(),
) -> MadeRGBD:
    """Sample the frames that ``condition`` describes. No gradient.

    Args:
        denoiser: predicts the clean state.
        condition: guide and prior of ``t`` cameras; the prior's depth must be positive everywhere.
        sigma: level at which each pixel starts; pixels at 0 keep the prior's bits.
        memory: the keys and values of past chunks.
        rng: source of the noise; the same amount is drawn whatever ``sigma`` is.
        config: steps and spacing.
    """
    # 1. Noise each pixel of the prior to its own level.
    prior = condition.prior
    known = encode(prior.rgb, prior.depth, memory.unit)
    noise = torch.randn(known.shape, generator=rng, dtype=known.dtype, device=rng.device).to(known.device)
    state = add_noise(known, noise, sigma)
    # 2. Follow the schedule down; a pixel idles until its frame's level falls below its own.
    levels = schedule_matrix(config.steps or 1, len(known), shift=config.shift, lag=config.lag).to(known)
    now = sigma
    for level in levels[1:]:
        then = torch.minimum(sigma, level[:, None, None, None])
        if torch.equal(then, now):
            continue
        clean = denoiser.denoise(state, now, condition, memory)
        state, now = step(state, clean, now, then), then
    # 3. Back to colors and depth; pixels at level 0 keep the prior's bits.
    rgb, depth, sky = decode(state, memory.unit)
    certain, known_sky = sigma == 0.0, decode(known, memory.unit)[2]
    return MadeRGBD(
        torch.where(certain, prior.rgb, rgb),
        torch.where(certain, prior.depth, depth),
        torch.where(certain, known_sky, sky),
    )


def schedule_matrix(steps: int, frames: int, *, shift: float = 1.0, lag: float = 0.0) -> Float[Tensor, "rows {frames}"]:
    """Global noise levels, one row per state of the sampler and one column per frame.

    The first row is 1 and the last row is 0 everywhere; every column falls monotonically. A pixel with its own level
    ``sigma`` idles until the column of its frame reaches it: its level in a row is ``minimum(sigma, row)``.

    Args:
        steps: number of steps that each frame takes from 1 to 0, at least 1.
        frames: number of frames.
        shift: above 1 spends more steps at high noise (``s / (s + (1 - s) / shift)``).
        lag: steps by which each frame trails the one before it; 0 treats all frames alike, 1 is a full pyramid.

    Returns:
        ``[rows frames]`` with ``rows = steps + ceil(lag * (frames - 1)) + 1``.

    Raises:
        ValueError: for fewer than one step or frame, a shift that is not positive, or a negative lag.
    """
    if steps < 1 or frames < 1:
        raise ValueError(f"steps, frames: want at least 1 of each, got {steps} and {frames}")
    if shift <= 0.0 or lag < 0.0:
        raise ValueError(f"shift, lag: want shift > 0 and lag >= 0, got {shift} and {lag}")
    rows = steps + math.ceil(lag * (frames - 1)) + 1
    done = torch.arange(rows)[:, None] - lag * torch.arange(frames)[None, :]
    level = (1.0 - done / steps).clamp(0.0, 1.0)
    return level / (level + (1.0 - level) / shift)
