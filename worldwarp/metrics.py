"""Metrics of a finished chunk, which show whether the world stays consistent."""

from __future__ import annotations

import psutil
import torch
from jaxtyping import Float
from torch import Tensor

from geometry.frame import Frame, Guide

RELIABLE = 0.8


def measure(guide: Guide, frames: Frame, depth_residual: float, primitives: int) -> dict[str, float]:
    """Metrics of one finished chunk.

    Args:
        guide: rendered from the cache before the chunk was made.
        frames: the finished frames ``[t]``.
        depth_residual: median relative error after the depth alignment.
        primitives: size of the cache after the chunk.

    Returns:
        ``hole_ratio`` (share of uncovered pixels), ``seam_error`` (gradient along the border of the holes
        over the gradient elsewhere; 1 = no seam), ``warp_agreement_db`` (PSNR of the frames against the guide where its
        confidence is above `RELIABLE`), ``depth_residual``, ``primitives`` and ``memory_mib`` (of this process).
    """
    hole = guide.hole
    return {
        "hole_ratio": hole.float().mean().item(),
        "seam_error": seam_error(frames.rgb, hole),
        "warp_agreement_db": agreement_db(frames.rgb, guide.rgb, guide.confidence > RELIABLE),
        "depth_residual": depth_residual,
        "primitives": float(primitives),
        "memory_mib": psutil.Process().memory_info().rss / 2**20,
    }


def agreement_db(rgb: Float[Tensor, "t 3 h w"], reference: Float[Tensor, "t 3 h w"], where: Tensor) -> float:
    """PSNR in dB over the pixels ``where [t 1 h w]``, capped at 60; 60 when there are none."""
    weight = where.to(rgb).expand_as(rgb)
    if not weight.any():
        return 60.0
    mse = ((rgb - reference).square() * weight).sum() / weight.sum()
    # Agreement of equal images would be infinite, which JSON cannot hold.
    return min(60.0, -10.0 * torch.log10(mse.clamp_min(1e-6)).item())


def seam_error(rgb: Float[Tensor, "t 3 h w"], hole: Tensor) -> float:
    """Mean color step across the border of ``hole [t 1 h w]`` over the mean step between all other neighbors."""
    across, within = [], []
    for axis in (-1, -2):
        step = rgb.diff(dim=axis).abs().mean(dim=1, keepdim=True)
        size = hole.shape[axis] - 1
        # Exactly one of two neighbors in the hole: a seam is between them.
        border = hole.narrow(axis, 0, size) ^ hole.narrow(axis, 1, size)
        across.append(step[border])
        within.append(step[~border])
    steps_across, steps_within = torch.cat(across), torch.cat(within)
    if steps_across.numel() == 0 or steps_within.numel() == 0:
        return 1.0
    return (steps_across.mean() / steps_within.mean().clamp_min(1e-6)).item()
