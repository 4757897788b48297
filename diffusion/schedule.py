"""Schedule matrices in the manner of Diffusion Forcing (Chen et al. 2024, section 3.3): a level per step and frame."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor


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
