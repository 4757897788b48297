"""Align the scale of a new depth map with the depth that the cache renders."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class DepthAlignment:
    """An aligned depth map and the parameters of the alignment.

    Attributes:
        depth: aligned, positive, ``[t 1 h w]``.
        scale: factor on inverse depth.
        shift: added to inverse depth after the factor.
        residual: median relative difference of inverse depths on the shared pixels after alignment.
        count: number of shared pixels; 0 means that nothing was aligned (scale 1, shift 0).
    """

    depth: Float[Tensor, "t 1 h w"]
    scale: float
    shift: float
    residual: float
    count: int


def align_depth(
    depth: Float[Tensor, "t 1 h w"],
    valid: Bool[Tensor, "t 1 h w"],
    reference_depth: Float[Tensor, "t 1 h w"],
    reference_weight: Float[Tensor, "t 1 h w"],
    *,
    min_pixels: int = 64,
    rounds: int = 12,
    scale_range: tuple[float, float] = (0.2, 5.0),
) -> DepthAlignment:
    """Robust scale and shift in inverse depth, the same for all frames (iteratively reweighted least squares, Cauchy).

    Args:
        depth: new depth, positive where ``valid``.
        valid: mask of usable new depth.
        reference_depth: known depth.
        reference_weight: confidence of the known depth, 0..1; 0 excludes the pixel.
        min_pixels: shared pixels below which nothing is aligned.
        rounds: of reweighting.
        scale_range: factors on inverse depth that are believed.

    Returns:
        The aligned depth; unchanged, with ``count`` 0, when fewer than ``min_pixels`` are shared. A scale out of
        ``scale_range`` or a negative depth falls back to the clamped ratio of medians without a shift.
    """
    shared = valid & (reference_weight > 0.0) & (reference_depth > 0.0)
    count = int(shared.sum())
    if count < min_pixels:
        return DepthAlignment(depth, 1.0, 0.0, 0.0, 0)
    x, y = 1.0 / depth[shared].double(), 1.0 / reference_depth[shared].double()
    trust = reference_weight[shared].double() / y.square()  # the fit minimizes relative errors
    scale, shift = (y.median() / x.median()).item(), 0.0
    for _ in range(rounds):
        error = ((scale * x + shift - y) / y).abs()
        # The width follows the median error: as the fit gets better, outliers lose their say.
        width = 1.5 * error.median().clamp_min(1e-6)
        weight = trust / (1.0 + (error / width).square())
        fitted = _weighted_line(x, y, weight)
        if fitted is None:
            break
        scale, shift = fitted
    inverse = scale / depth.double() + shift
    # The shared pixels do not settle a line: take one factor, that cannot turn depth negative.
    if not scale_range[0] < scale < scale_range[1] or bool((inverse[valid] <= 0.0).any()):
        scale, shift = min(max((y.median() / x.median()).item(), scale_range[0]), scale_range[1]), 0.0
        inverse = scale / depth.double()
    residual = ((scale * x + shift - y) / y).abs().median().item()
    aligned = torch.where(valid, 1.0 / inverse.clamp_min(1e-9), depth.double()).to(depth)
    return DepthAlignment(aligned, scale, shift, residual, count)


def _weighted_line(x: Tensor, y: Tensor, weight: Tensor) -> tuple[float, float] | None:
    """Weighted least-squares line, slope and intercept; None if x varies too little to separate them."""
    total = weight.sum()
    mean_x, mean_y = (weight * x).sum() / total, (weight * y).sum() / total
    variance = (weight * (x - mean_x).square()).sum() / total
    if variance < 1e-6 * mean_x.square():
        return None
    slope = (weight * (x - mean_x) * (y - mean_y)).sum() / total / variance
    return slope.item(), (mean_y - slope * mean_x).item()
