"""Flow matching with a noise level per pixel.

``x_sigma = (1 - sigma) * clean + sigma * noise`` and ``velocity = d x / d sigma = noise - clean``; sigma 1 is pure
noise, sigma 0 is clean. After Lipman et al., "Flow Matching for Generative Modeling", section 4.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def add_noise(
    clean: Float[Tensor, "*b c h w"], noise: Float[Tensor, "*b c h w"], sigma: Float[Tensor, "*b 1 h w"]
) -> Float[Tensor, "*b c h w"]:
    """Noise a clean state to level ``sigma``; exactly ``clean`` at 0 and ``noise`` at 1."""
    return (1.0 - sigma) * clean + sigma * noise


def velocity_to_clean(
    noisy: Float[Tensor, "*b c h w"], velocity: Float[Tensor, "*b c h w"], sigma: Float[Tensor, "*b 1 h w"]
) -> Float[Tensor, "*b c h w"]:
    """The clean state, given the velocity at level ``sigma``."""
    return noisy - sigma * velocity


def clean_to_velocity(
    noisy: Float[Tensor, "*b c h w"], clean: Float[Tensor, "*b c h w"], sigma: Float[Tensor, "*b 1 h w"]
) -> Float[Tensor, "*b c h w"]:
    """The velocity, given the clean state; 0 where ``sigma`` is 0."""
    moving = sigma > 0.0
    return torch.where(moving, (noisy - clean) / torch.where(moving, sigma, 1.0), torch.zeros_like(noisy))


def step(
    noisy: Float[Tensor, "*b c h w"],
    clean: Float[Tensor, "*b c h w"],
    sigma: Float[Tensor, "*b 1 h w"],
    next_sigma: Float[Tensor, "*b 1 h w"],
) -> Float[Tensor, "*b c h w"]:
    """One Euler step from ``sigma`` down to ``next_sigma`` along the line through ``noisy`` and ``clean``.

    Pixels with ``next_sigma == sigma`` keep their bits; pixels with ``next_sigma == 0`` become ``clean``.

    Args:
        noisy: the state at level ``sigma``.
        clean: the predicted clean state.
        sigma: present level, 0..1.
        next_sigma: level to reach, ``0 <= next_sigma <= sigma``.
    """
    ratio = next_sigma / torch.where(sigma > 0.0, sigma, 1.0)
    moved = clean + ratio * (noisy - clean)
    return torch.where(next_sigma < sigma, moved, noisy)
