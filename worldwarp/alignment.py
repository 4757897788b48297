"""From generated frames to frames that can enter the world: depth in its scale, validity."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from diffusion.generator import Made
from geometry.depth import DepthEstimator, align_depth, clean_discontinuities
from geometry.frame import Guide, every_second
from geometry.rounding import to_levels

GENERATED_CONFIDENCE = 0.6  # of a generated pixel at noise level 0; an observed pixel has 1


def validity(depth: Float[Tensor, "t 1 h w"], sky: Bool[Tensor, "t 1 h w"]) -> Bool[Tensor, "t 1 h w"]:
    """Where depth can be lifted: the sky, and surfaces without the mixed pixels along outlines."""
    return sky | clean_discontinuities(depth, ~sky)


def aligned(
    depth: Float[Tensor, "t 1 h w"], sky: Bool[Tensor, "t 1 h w"], guide: Guide
) -> tuple[Float[Tensor, "t 1 h w"], float]:
    """Depth whose surfaces are scaled and shifted to the guide's, and the median relative error after it."""
    weight = guide.coverage * guide.confidence * (1.0 - guide.sky)
    fitted = align_depth(depth, ~sky, guide.depth, weight)
    return torch.where(sky, depth, fitted.depth), fitted.residual


def with_depth(
    made: Made, guide: Guide, sigma: Float[Tensor, "t 1 h w"], estimator: DepthEstimator | None
) -> tuple[Float[Tensor, "t 3 h w"], Float[Tensor, "t 1 h w"], Bool[Tensor, "t 1 h w"], Bool[Tensor, "t 1 h w"], float]:
    """What a generator made as RGB-D in the world's scale.

    Returns:
        Colors, depth, sky, where the depth can be lifted, and the median relative error of the alignment to the guide.

    Raises:
        ValueError: the generator makes no depth, and there is no estimator.
    """
    rgb = to_levels(made.rgb)
    if made.depth is None:
        return rgb, *estimated_depth(rgb, guide, sigma, estimator)
    sky = guide.covered & guide.sky_mask if made.sky is None else made.sky
    depth, residual = aligned(made.depth, sky, guide)
    return rgb, depth, sky, validity(depth, sky), residual


def estimated_depth(
    rgb: Float[Tensor, "t 3 h w"], guide: Guide, sigma: Float[Tensor, "t 1 h w"], estimator: DepthEstimator | None
) -> tuple[Float[Tensor, "t 1 h w"], Bool[Tensor, "t 1 h w"], Bool[Tensor, "t 1 h w"], float]:
    """Depth, sky and validity of frames whose generator makes none, and the error of the alignment.

    Estimated for the frames that enter the cache; the others have the guide's depth, and none in holes.

    Raises:
        ValueError: there is no estimator.
    """
    if estimator is None:
        raise ValueError(
            "generator: this one makes no depth, and there is no estimator for the depth of its frames; "
            "set depth=embedded or another one"
        )
    kept = every_second(len(rgb))
    part = guide[kept]
    estimated = estimator.estimate(rgb[kept], part.camera.focal_px)
    known = estimated.valid.to(rgb.device)
    made = torch.where(known, estimated.depth.to(rgb), estimated.depth[estimated.valid].median().to(rgb))
    part_sky = estimated.sky.to(rgb.device)
    part_depth, residual = aligned(made, part_sky, part)
    # What was sure keeps the surface that the cache has there.
    sure = (sigma[kept] == 0.0) & part.covered
    part_depth = torch.where(sure, part.depth, part_depth)
    part_sky = torch.where(sure, part.sky_mask, part_sky)
    depth, sky, valid = guide.depth.clamp_min(1e-6), guide.covered & guide.sky_mask, guide.covered.clone()
    depth[kept], sky[kept] = part_depth, part_sky
    valid[kept] = part_sky | (known & clean_discontinuities(part_depth, ~part_sky))
    return depth, sky, valid, residual
