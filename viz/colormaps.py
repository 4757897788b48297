"""Converts tensors to images for display."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float16, UInt8
from torch import Tensor

# Noise level to color: blue where pixels are kept, amber where texture was copied, pink where nothing is known.
_NOISE_LEVELS = np.array([0.0, 0.15, 0.55, 1.0])
_NOISE_COLORS = np.array([[16, 24, 48], [31, 78, 121], [245, 158, 11], [244, 63, 94]], np.float64)
_CHECKER_COLORS = np.array([[0.17, 0.17, 0.19], [0.26, 0.26, 0.29]], np.float32)


def to_uint8(rgb: Float[Tensor, "t c h w"]) -> UInt8[np.ndarray, "t h w c"]:
    """Images in 0..1 as bytes, channels last."""
    levels = np.nan_to_num(rgb.detach().float().cpu().numpy()).clip(0.0, 1.0) * 255.0 + 0.5
    return np.ascontiguousarray(levels.astype(np.uint8).transpose(0, 2, 3, 1))


def guide_picture(rgb: Float[Tensor, "t 3 h w"], coverage: Float[Tensor, "t 1 h w"]) -> UInt8[np.ndarray, "t h w 3"]:
    """Colors of the guide, blended by coverage over a checkerboard."""
    share = coverage.detach().float().cpu().numpy().transpose(0, 2, 3, 1).clip(0.0, 1.0)
    rows, columns = np.indices(share.shape[1:3]) // 8  # squares of 8 pixels
    checker = _CHECKER_COLORS[(rows + columns) % 2]
    colors = rgb.detach().float().cpu().numpy().transpose(0, 2, 3, 1).clip(0.0, 1.0)
    return (np.nan_to_num(colors * share + checker * (1.0 - share)) * 255.0 + 0.5).astype(np.uint8)


def noise_picture(sigma: Float[Tensor, "t 1 h w"], prior_rgb: Float[Tensor, "t 3 h w"]) -> UInt8[np.ndarray, "t h w 3"]:
    """Noise levels as colors, shaded by the luma of the prior."""
    # Not a number counts as unknown, and shows as such.
    level = np.nan_to_num(sigma[:, 0].detach().float().cpu().numpy(), nan=1.0)
    colors = np.stack([np.interp(level, _NOISE_LEVELS, _NOISE_COLORS[:, c]) for c in range(3)], axis=-1)
    luma = np.nan_to_num(prior_rgb.detach().float().mean(1).cpu().numpy()).clip(0.0, 1.0)
    return (colors * (0.55 + 0.45 * luma[..., None]) + 0.5).astype(np.uint8)


def half_depth(depth: Float[Tensor, "t 1 h w"], valid: Tensor) -> Float16[np.ndarray, "t h w"]:
    """Depth in half precision (three digits); invalid pixels are 0, which Rerun reads as "no depth"."""
    known = depth.detach().float().where(valid, 0.0)[:, 0].cpu().numpy()
    return np.nan_to_num(known).clip(0.0, 60000.0).astype(np.float16)
