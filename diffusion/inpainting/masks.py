"""Masks of holes: reliable pixels around them, thin and wide parts."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float32
from scipy import ndimage
from torch import Tensor
from torch.nn.functional import pad

from geometry.filters import dilate, erode

THIN_PX = 8  # holes narrower than this are determined by what surrounds them; see `InpaintConfig.thin_px`


def reliable(covered: Bool[Tensor, "t 1 h w"], mixed_px: int) -> Bool[Tensor, "t 1 h w"]:
    """Covered pixels without the ring of ``mixed_px`` pixels around holes, where two surfaces mix."""
    seen = covered[:, 0].numpy()
    hole: np.ndarray = np.logical_not(seen)
    # Specks of a pixel are sampling noise, not holes with a border; their ring is reliable.
    solid = np.stack([ndimage.binary_opening(h, np.ones((2, 2), bool)) for h in hole])
    ring = np.stack([ndimage.binary_dilation(h, iterations=mixed_px) for h in solid])
    return torch.from_numpy(seen & np.logical_not(ring))[:, None]


def thin(hole: Bool[Tensor, "t 1 h w"], width_px: int = THIN_PX) -> Bool[Tensor, "t 1 h w"]:
    """The parts of holes that are narrower than ``width_px`` in some direction.

    Holes are taken to continue beyond the picture: a strip along its border is not thin.
    """
    radius = width_px // 2
    wider = pad(hole.float(), (2 * radius,) * 4, mode="replicate")
    opened = dilate(erode(wider, radius), radius)
    inner = slice(2 * radius, -2 * radius)
    return hole & ~(opened[..., inner, inner] > 0.5)


def wide_part(hole: Bool[Tensor, "1 h w"], thin_px: int) -> Bool[Tensor, "1 h w"]:
    """The part of a hole that contains a disc wider than ``thin_px``, and what is close to that."""
    mask = hole[0].numpy()
    if not mask.any():
        return hole
    padded = np.pad(mask, thin_px, constant_values=True) if mask.all() else np.pad(mask, thin_px, mode="edge")
    core = distance_px(~padded)[thin_px:-thin_px, thin_px:-thin_px] > 0.5 * thin_px
    near_core = distance_px(core) <= 0.75 * thin_px + 1.0  # one and a half radii of the disc, and a pixel of rounding
    return torch.from_numpy(near_core & mask)[None]


def grown(mask: Bool[Tensor, "1 h w"], by_px: int) -> Bool[Tensor, "1 h w"]:
    """The mask and what is within ``by_px`` rows and columns together (city-block distance)."""
    return torch.from_numpy(ndimage.binary_dilation(mask[0].numpy(), iterations=by_px))[None]


def distance_px(away_from: Bool[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """Distance in pixels from each pixel to the nearest one of a mask; 0 on it, infinite where the mask is empty."""
    if not away_from.any():
        return np.full(away_from.shape, np.inf, np.float32)
    return np.asarray(ndimage.distance_transform_edt(~away_from), np.float32)
