"""From pixels to tokens: noise levels, and the mask channels of InSpatio-World.

A token of the transformer covers ``patch`` x ``patch`` latent pixels of one latent frame; a latent frame stands for
four frames of the video, the first one of a clip for one (the photo). Level and state must agree token by token: a
level that is pooled for the model is expanded again (`expanded`) before the latents are noised with it.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

FRAMES_PER_LATENT = 4
Pooling = Literal["max", "mean", "corner"]


def token_levels(
    sigma: Float[Tensor, "t 1 h w"], factor: int, patch: int = 2, pooling: str = "max"
) -> Float[Tensor, "f 1 ht wt"]:
    """The level of each token, from the level of each pixel.

    Args:
        sigma: levels of the frames of whole latents: ``4 f``, or ``1 + 4 (f - 1)`` where the clip begins with its
            photo; sides are multiples of ``factor * patch``.
        factor: pixels per latent pixel, 8 or 16.
        patch: latent pixels per token.
        pooling: one of `Pooling`, over the pixels of a token. ``max``: one unknown pixel makes it unknown; ``mean``;
            ``corner``: that of the token's first latent pixel in the last frame of the latent, as WorldWarp's own
            program has it. Over the frames of a latent the other two take the largest.
    """
    side = factor * patch
    if pooling == "corner":
        last = sigma[(len(sigma) - 1) % FRAMES_PER_LATENT :: FRAMES_PER_LATENT]
        return F.max_pool2d(last, factor)[:, :, ::patch, ::patch]
    level = _by_latent(sigma).amax(1)
    return F.max_pool2d(level, side) if pooling == "max" else F.avg_pool2d(level, side)


def expanded(level: Float[Tensor, "f 1 ht wt"], patch: int = 2) -> Float[Tensor, "f 1 hl wl"]:
    """The level of each latent pixel: that of its token."""
    return level.repeat_interleave(patch, -2).repeat_interleave(patch, -1)


def mask_channels(coverage: Float[Tensor, "t 1 h w"], factor: int) -> Float[Tensor, "f 4 hl wl"]:
    """The four mask channels of InSpatio-World: known (1) or not (0), a channel for each frame of a latent.

    Args:
        coverage: share of each pixel that is known, of the frames of whole latents (`token_levels`).
        factor: pixels per latent pixel.
    """
    height, width = coverage.shape[-2:]
    small = F.interpolate(coverage, (height // factor, width // factor), mode="bilinear", align_corners=False)
    return _by_latent(small)[:, :, 0]


def padded(frames: Tensor, count: int) -> Tensor:
    """The last of ``frames [t ...]`` repeated until there are ``count``."""
    missing = count - len(frames)
    return torch.cat([frames, frames[-1:].expand(missing, *frames.shape[1:])]) if missing > 0 else frames


def _by_latent(frames: Float[Tensor, "t c h w"]) -> Float[Tensor, "f 4 c h w"]:
    """Frames by latent; a photo at the start stands for all four of its latent."""
    if over := len(frames) % FRAMES_PER_LATENT:
        if over != 1:
            raise ValueError(f"frames: want 4 for each latent, or 1 and 4 for each further one, got {len(frames)}")
        frames = torch.cat([frames[:1].expand(FRAMES_PER_LATENT - 1, *frames.shape[1:]), frames])
    return frames.unflatten(0, (-1, FRAMES_PER_LATENT))
