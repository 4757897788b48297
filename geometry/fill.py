"""Push-pull filling of unknown pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from jaxtyping import Bool, Float
from torch import Tensor


def smooth_fill(values: Float[Tensor, "*b c h w"], known: Bool[Tensor, "*b 1 h w"]) -> Float[Tensor, "*b c h w"]:
    """Push-pull fill: exact where ``known``, elsewhere a smooth blend of the known pixels around; 0 without any."""
    batch = values.shape[:-3]
    flat, weight = values.reshape(-1, *values.shape[-3:]), known.reshape(-1, *known.shape[-3:]).to(values)
    filled = _push_pull(flat * weight, weight)
    return torch.where(known, values, filled.reshape(*batch, *values.shape[-3:]))


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
