"""Fill wide holes of one picture with its own texture, and blend it in."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import Tensor

from geometry.project import smooth_fill

ROUNDS = 4  # one round leaves strips where the hole is wider than its largest shift
MARGIN_PX = 72  # surroundings of a hole that texture may be copied from
BLEND_PX = 4.0  # smoothing, along the border, of the colour step that blending removes
BLEND_REACH_PX = 20.0  # how far into the hole the correction is felt
LARGEST_STEP = 0.15  # a larger step is an edge of the picture, not a seam


def fill_from_picture(
    rgb: Float[Tensor, "3 h w"], source: Bool[Tensor, "1 h w"], hole: Bool[Tensor, "1 h w"], seed: int
) -> Float[Tensor, "3 h w"]:
    """Fill ``hole`` with patches from ``source`` by shift maps (Pritch et al. 2009; OpenCV's implementation, in Lab).

    Args:
        rgb: colours in 0..1.
        source: pixels that may be copied; those outside ``source`` and ``hole`` are neither copied nor changed.
        hole: pixels to fill.
        seed: the only randomness.

    Returns:
        Colours in 0..1, changed only inside ``hole``.
    """
    top, bottom, left, right = _window(hole)
    window = (slice(None), slice(top, bottom), slice(left, right))
    if not source[window].any():
        return torch.where(hole, smooth_fill(rgb[None], source[None])[0], rgb)
    image = np.ascontiguousarray((rgb[window].permute(1, 2, 0).numpy() * 255.0).round().astype(np.uint8))
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2Lab)
    known = source[window][0].numpy().astype(np.uint8) * 255
    cv2.setRNGSeed(seed)
    for _ in range(ROUNDS):
        if known.all():
            break
        filled = np.zeros_like(lab)
        cv2.xphoto.inpaint(lab, known, filled, cv2.xphoto.INPAINT_SHIFTMAP)
        new = (known == 0) & filled.any(axis=2)
        if not new.any():
            break
        lab[new] = filled[new]
        known[new] = 255
    copied = cv2.cvtColor(lab, cv2.COLOR_Lab2RGB).astype(np.float32) / 255.0
    result = rgb.clone()
    result[window] = torch.where(hole[window], torch.from_numpy(copied).permute(2, 0, 1), rgb[window])
    left_over = hole & ~_placed(known, hole, window)
    if left_over.any():
        result = torch.where(left_over, smooth_fill(result[None], (source | (hole & ~left_over))[None])[0], result)
    return blend_in(result, source, hole)


def blend_in(
    rgb: Float[Tensor, "3 h w"], source: Bool[Tensor, "1 h w"], hole: Bool[Tensor, "1 h w"]
) -> Float[Tensor, "3 h w"]:
    """Add to the filled part the smooth field that takes away the colour step along its border with ``source``."""
    weight = torch.zeros_like(rgb[:1])
    step = torch.zeros_like(rgb)
    for axis, shift in ((-1, 1), (-1, -1), (-2, 1), (-2, -1)):
        neighbour_is_source = torch.roll(source, shift, axis) & hole
        index = 0 if shift == 1 else -1
        neighbour_is_source.select(axis, index).fill_(False)
        step += (torch.roll(rgb, shift, axis) - rgb).clamp(-LARGEST_STEP, LARGEST_STEP) * neighbour_is_source
        weight += neighbour_is_source
    border = weight > 0
    if not border.any():
        return rgb

    def smoothed(values: Tensor) -> Tensor:
        return torch.from_numpy(ndimage.gaussian_filter(values.numpy(), (0, BLEND_PX, BLEND_PX)))

    mean_step = smoothed(step) / smoothed(weight).clamp_min(1e-3)
    correction = smooth_fill(torch.where(border, mean_step, 0.0)[None], border[None])[0]
    distance = torch.from_numpy(ndimage.distance_transform_edt(~border[0].numpy())).to(rgb)
    return torch.where(hole, (rgb + correction * torch.exp(-distance / BLEND_REACH_PX)).clamp(0.0, 1.0), rgb)


def _window(hole: Bool[Tensor, "1 h w"]) -> tuple[int, int, int, int]:
    rows, columns = hole[0].any(1).nonzero()[:, 0], hole[0].any(0).nonzero()[:, 0]
    height, width = hole.shape[-2:]
    top, bottom = max(int(rows[0]) - MARGIN_PX, 0), min(int(rows[-1]) + 1 + MARGIN_PX, height)
    left, right = max(int(columns[0]) - MARGIN_PX, 0), min(int(columns[-1]) + 1 + MARGIN_PX, width)
    return top, bottom, left, right


def _placed(known: np.ndarray, hole: Tensor, window: tuple[slice, slice, slice]) -> Tensor:
    placed = torch.zeros_like(hole)
    placed[window] = torch.from_numpy(known > 0)[None]
    return placed
