"""Push-pull filling of unknown pixels (Gortler et al. 1996, *The lumigraph*).

Kernels on the CPU; the function named ``_reference`` is the same in tensor operations, used on other devices.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as functional
from jaxtyping import Bool, Float
from torch import Tensor

from geometry.fill_kernels import pull, push
from geometry.jit import for_blocks

ROWS = 32  # per call of a kernel


def smooth_fill(values: Float[Tensor, "*b c h w"], known: Bool[Tensor, "*b 1 h w"]) -> Float[Tensor, "*b c h w"]:
    """Push-pull fill: exact where ``known``, elsewhere a smooth blend of the known pixels around; 0 without any."""
    if values.device.type != "cpu" or values.dtype != torch.float32:
        return smooth_fill_reference(values, known)
    batch, (channels, height, width) = values.shape[:-3], values.shape[-3:]
    flat, masks = values.detach().reshape(-1, channels, height, width), known.reshape(-1, height, width)
    filled = [
        _fill((image * mask).contiguous().numpy(), mask.float().contiguous().numpy())
        for image, mask in zip(flat, masks, strict=True)
    ]
    return torch.where(known, values, torch.from_numpy(np.stack(filled)).reshape(*batch, channels, height, width))


def smooth_fill_reference(
    values: Float[Tensor, "*b c h w"], known: Bool[Tensor, "*b 1 h w"]
) -> Float[Tensor, "*b c h w"]:
    """`smooth_fill` in tensor operations."""
    batch = values.shape[:-3]
    flat, weight = values.reshape(-1, *values.shape[-3:]), known.reshape(-1, *known.shape[-3:]).to(values)
    filled = _push_pull(flat * weight, weight)
    return torch.where(known, values, filled.reshape(*batch, *values.shape[-3:]))


def _fill(weighted: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """All levels of the pyramid of values ``[c h w]`` times their weights ``[h w]``."""
    channels, height, width = weighted.shape
    if min(height, width) <= 1:
        return weighted / np.maximum(weight, np.float32(1e-8))
    rows, columns = -(-height // 2), -(-width // 2)
    coarse_weighted, coarse_weight = (
        np.empty((channels, rows, columns), np.float32),
        np.empty((rows, columns), np.float32),
    )
    for_blocks(rows, ROWS, lambda i, j: push(i, j, weighted, weight, coarse_weighted, coarse_weight))
    coarse, filled = _fill(coarse_weighted, coarse_weight), np.empty_like(weighted)
    for_blocks(height, ROWS, lambda i, j: pull(i, j, weighted, weight, coarse, filled))
    return filled


def _push_pull(weighted: Tensor, weight: Tensor) -> Tensor:
    """Pyramid of weighted means; each level fills its unknown pixels from the coarser one."""
    mean = weighted / weight.clamp_min(1e-8)
    if min(weighted.shape[-2:]) <= 1:
        return mean
    coarse_weight = functional.avg_pool2d(weight, 2, ceil_mode=True, count_include_pad=False)
    coarse_weighted = functional.avg_pool2d(weighted, 2, ceil_mode=True, count_include_pad=False)
    scale = coarse_weight.clamp(max=1.0) / coarse_weight.clamp_min(1e-8)
    coarse = _push_pull(coarse_weighted * scale, coarse_weight * scale)
    smooth = functional.interpolate(coarse, size=weighted.shape[-2:], mode="bilinear", align_corners=False)
    # A pixel of a coarse level that is known in part takes the rest from the next coarser one.
    certain = weight.clamp(max=1.0)
    return certain * mean + (1.0 - certain) * smooth
