"""The shape of holes: what is sure around them, where they are wide, where narrow."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from scipy import ndimage
from torch import Tensor
from torch.nn.functional import pad

from geometry.filters import dilate, erode

THIN_PX = 8  # holes narrower than this are determined by what surrounds them
MIXED_PX = 1  # ring of a hole whose pixels mix two surfaces


def reliable(coverage: Float[Tensor, "t 1 h w"], covered: float) -> Bool[Tensor, "t 1 h w"]:
    """Seen pixels, without the ring around holes where two surfaces mix."""
    seen = (coverage >= covered)[:, 0].numpy()
    hole: np.ndarray = np.logical_not(seen)
    # Specks of a pixel are sampling noise, not holes with a border; their ring stays.
    solid = np.stack([ndimage.binary_opening(h, np.ones((2, 2), bool)) for h in hole])
    ring = np.stack([ndimage.binary_dilation(h, iterations=MIXED_PX) for h in solid])
    return torch.from_numpy(seen & np.logical_not(ring))[:, None]


def thin(hole: Bool[Tensor, "t 1 h w"], width_px: int = THIN_PX) -> Bool[Tensor, "t 1 h w"]:
    """The parts of holes that are narrower than ``width_px`` in some direction; beyond the picture they go on."""
    radius = width_px // 2
    wider = pad(hole.float(), (2 * radius,) * 4, mode="replicate")
    kept = dilate(erode(wider, radius), radius)
    inner = slice(2 * radius, -2 * radius)
    return hole & ~(kept[..., inner, inner] > 0.5)


def wide_part(hole: Bool[Tensor, "1 h w"], thin_px: int) -> Bool[Tensor, "1 h w"]:
    """The part of a hole that holds a disc wider than ``thin_px``, with what hangs on to it closely."""
    mask = hole[0].numpy()
    if not mask.any():
        return hole
    padded = np.pad(mask, thin_px, constant_values=True) if mask.all() else np.pad(mask, thin_px, mode="edge")
    core = distance_px(~padded)[thin_px:-thin_px, thin_px:-thin_px] > 0.5 * thin_px
    grown = distance_px(core) <= 0.75 * thin_px + 1.0
    return torch.from_numpy(grown & mask)[None]


def distance_px(away_from: Bool[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """Distance in pixels from each pixel to the nearest one of a mask; 0 on it, infinite where the mask is empty."""
    if not away_from.any():
        return np.full(away_from.shape, np.inf, np.float32)
    return np.asarray(ndimage.distance_transform_edt(~away_from), np.float32)
