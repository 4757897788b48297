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
TINY = 1e-20  # below every weight


def smooth_fill(values: Float[Tensor, "*b c h w"], known: Bool[Tensor, "*b 1 h w"]) -> Float[Tensor, "*b c h w"]:
    """Push-pull fill: exact where ``known``, elsewhere a smooth blend of the known pixels around; 0 without any."""
    if not _has_kernels(values):
        return smooth_fill_reference(values, known)
    flat, masks = values.detach().reshape(-1, *values.shape[-3:]), known.reshape(-1, *known.shape[-3:])
    return torch.where(known, values, _filled(flat, masks.float()).reshape(values.shape))


def _has_kernels(values: Tensor) -> bool:
    return values.device.type == "cpu" and values.dtype == torch.float32


def _filled(values: Float[Tensor, "b c h w"], weight: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b c h w"]:
    """`_push_pull` of values times their weights, by kernels."""
    filled = [
        _fill((image * part).contiguous().numpy(), part[0].contiguous().numpy())
        for image, part in zip(values, weight, strict=True)
    ]
    return torch.from_numpy(np.stack(filled))


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
        # A cell that knows nothing takes the mean of the others.
        overall = weighted.sum((1, 2), keepdims=True) / np.maximum(weight.sum(), np.float32(TINY))
        return np.where(weight > 0.0, weighted / np.maximum(weight, np.float32(TINY)), overall)
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
    mean = weighted / weight.clamp_min(TINY)
    if min(weighted.shape[-2:]) <= 1:
        # A cell that knows nothing takes the mean of the others.
        overall = weighted.sum((-2, -1), keepdim=True) / weight.sum((-2, -1), keepdim=True).clamp_min(TINY)
        return torch.where(weight > 0.0, mean, overall)
    coarse_weight = functional.avg_pool2d(weight, 2, ceil_mode=True, count_include_pad=False)
    coarse_weighted = functional.avg_pool2d(weighted, 2, ceil_mode=True, count_include_pad=False)
    scale = coarse_weight.clamp(max=1.0) / coarse_weight.clamp_min(TINY)
    coarse = _push_pull(coarse_weighted * scale, coarse_weight * scale)
    smooth = functional.interpolate(coarse, size=weighted.shape[-2:], mode="bilinear", align_corners=False)
    # A pixel of a coarse level that is known in part takes the rest from the next coarser one.
    certain = weight.clamp(max=1.0)
    return certain * mean + (1.0 - certain) * smooth


def background_fill(
    values: Float[Tensor, "*b c h w"], depth: Float[Tensor, "*b 1 h w"], known: Bool[Tensor, "*b 1 h w"]
) -> Float[Tensor, "*b c h w"]:
    """`smooth_fill` that prefers the farther of what borders on a hole: what a moving camera uncovers is behind.

    Args:
        values: to fill.
        depth: of the known pixels, positive; sky at any depth beyond all surfaces.
        known: pixels that are kept.
    """
    batch = values.shape[:-3]
    flat, far, mask = (part.reshape(-1, *part.shape[-3:]) for part in (values, depth, known))
    height, width = flat.shape[-2:]
    cell = max(1, max(height, width) // 64)
    # The largest depth within about a ninth of the picture: a surface counts as foreground beside a farther one only.
    coarse = functional.max_pool2d(torch.where(mask, far, 0.0), cell, ceil_mode=True)
    coarse = functional.max_pool2d(coarse, 15, stride=1, padding=7)
    around = functional.interpolate(coarse, size=(height, width), mode="nearest")
    nearness = torch.where(mask, far / around.clamp_min(1e-10), 0.0).clamp(0.0, 1.0)
    least = 1e-4  # weight of the foreground, so that a hole among nothing else is filled from it
    weight = torch.where(mask, (nearness**4).clamp_min(least), 0.0)
    filled = _filled(flat.detach(), weight) if _has_kernels(values) else _push_pull(flat * weight, weight)
    return torch.where(known, values, filled.reshape(*batch, *values.shape[-3:]))
