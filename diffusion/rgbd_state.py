"""The RGB-D state that the generator works on: colors and a bounded depth code."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

# The sky, in units of the photo's median depth: it is stored at SKY_UNITS. In depth maps whatever is beyond SKY_BEYOND
# is sky (smoothing leaves less than SKY_UNITS); in the code, whatever is under SKY_BELOW (39 units) becomes SKY_CODE.
SKY_UNITS = 100.0
SKY_BEYOND = 30.0
SKY_CODE = -1.0
SKY_BELOW = -0.95


def encode(rgb: Float[Tensor, "t 3 h w"], depth: Float[Tensor, "t 1 h w"], unit: float) -> Float[Tensor, "t 4 h w"]:
    """RGB-D as the state that is diffused: colors in -1..1 and the depth code ``(u - z) / (u + z)``.

    The code is bounded: 0 at one unit, near 1 up close, -1 for the sky. ``code(u^2 / z) = -code(z)``: depth and inverse
    depth count alike.

    Args:
        rgb: colors in 0..1.
        depth: z in scene units, positive everywhere.
        unit: median depth of the photo, in scene units.
    """
    code = (unit - depth) / (unit + depth)
    code = torch.where(code < SKY_BELOW, torch.full_like(code, SKY_CODE), code)
    return torch.cat([2.0 * rgb - 1.0, code], dim=1)


def decode(
    state: Float[Tensor, "t 4 h w"], unit: float
) -> tuple[Float[Tensor, "t 3 h w"], Float[Tensor, "t 1 h w"], Bool[Tensor, "t 1 h w"]]:
    """The inverse of `encode`: colors in 0..1, depth in scene units (100 units for the sky), sky mask."""
    rgb = (0.5 * (state[:, :3] + 1.0)).clamp(0.0, 1.0)
    nearest_code = 0.99  # keeps decoded depth away from 0
    code = state[:, 3:].clamp(SKY_BELOW, nearest_code)
    sky = state[:, 3:] < SKY_BELOW
    depth = torch.where(sky, torch.full_like(code, SKY_UNITS), (1.0 - code) / (1.0 + code))
    return rgb, unit * depth, sky
