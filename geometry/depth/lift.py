"""Lift a photo to an RGB-D frame."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from geometry.camera import Camera
from geometry.depth.discontinuities import clean_discontinuities, snap_depth_edges
from geometry.depth.estimator import DepthEstimator, DepthMap, far_sky
from geometry.depth.mixed_pixels import without_gaps
from geometry.depth.policy import DEFAULT_DISCONTINUITIES, DiscontinuityPolicy
from geometry.frame import Frame


def lift_photo(
    rgb: Float[Tensor, "1 3 h w"],
    estimator: DepthEstimator,
    camera: Camera,
    policy: DiscontinuityPolicy = DEFAULT_DISCONTINUITIES,
) -> Frame:
    """Estimate the depth of a photo, check it, sharpen its edges and remove flying pixels.

    Args:
        rgb: colors in 0..1.
        estimator: estimates the depth.
        camera: the photo's camera, batch ``[1]``, of the photo's size.
        policy: depth edges and mixed pixels.

    Returns:
        The frame; unless the depth is metric, its median depth without the sky is 1.

    Raises:
        ValueError: depth of another size, not finite, not positive, or nowhere valid.
    """
    return lift_depth(rgb, estimator.estimate(rgb, camera.focal_px), camera, policy)


def lift_depth(
    rgb: Float[Tensor, "1 3 h w"],
    made: DepthMap,
    camera: Camera,
    policy: DiscontinuityPolicy = DEFAULT_DISCONTINUITIES,
) -> Frame:
    """As `lift_photo`, from an estimate that was made before, e.g. to find the focal length of the camera."""
    _check(made, rgb)
    # Edges first: pixels that snapping puts on a surface are neither gaps nor flying.
    depth = snap_depth_edges(made.depth, rgb, made.sky, policy)
    ground = made.valid & ~made.sky
    # Paths are given in median depths of the photo.
    if not made.metric and ground.any():
        depth = depth / depth[ground].median()
    depth = far_sky(depth, made.sky, made.valid)
    whole = without_gaps(Frame(rgb, depth, made.valid, made.sky, camera, made.metric), policy)
    kept = clean_discontinuities(whole.depth, whole.valid & ~whole.sky, policy)
    return replace(whole, valid=whole.sky | kept)


def _check(made: DepthMap, rgb: Tensor) -> None:
    if made.depth.shape[-2:] != rgb.shape[-2:]:
        want, got = tuple(rgb.shape[-2:]), tuple(made.depth.shape[-2:])
        raise ValueError(f"depth: want the photo's size {want}, got {got}")
    if not made.valid.any():
        raise ValueError("depth: want some valid depth, got none (all zero, or all marked invalid)")
    known = made.depth[made.valid]
    if not torch.isfinite(known).all() or (known <= 0.0).any():
        raise ValueError("depth: want finite positive values where valid, got NaN, infinite, zero or negative ones")
