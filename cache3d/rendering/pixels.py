"""Samples of the surfaces and of the sky as the maps of one image.

A kernel on the CPU; the function named ``_reference`` is the same in tensor operations, used on other devices.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from cache3d.rasterizer.types import Raster
from cache3d.rendering.confidence import depth_agreement
from cache3d.rendering.pixel_kernels import FAINTEST, blend_samples, blend_shown
from cache3d.rendering.policy import DEFAULT_RENDERING, RenderingPolicy
from cache3d.rendering.rendered_view import RenderedView
from cache3d.rendering.splat_attributes import sharpen_sky_alpha, supersampled, to_pixels
from geometry.camera import Camera
from geometry.frame import SKY
from geometry.jit import for_blocks

ROWS = 16  # of pixels per call of the kernel
_FAINTEST = float(FAINTEST)  # alpha below which a pixel shows nothing


def blended(
    near: Raster, far: Raster | None, camera: Camera, policy: RenderingPolicy = DEFAULT_RENDERING
) -> RenderedView:
    """Blend rendered surfaces over the rendered sky.

    Args:
        near: surfaces ``[1]``, `RenderingPolicy.samples` per pixel and axis.
        far: the sky behind them, likewise; None where none is in view.
        camera: of the image, no batch axis.
        policy: samples, the sharpening before the sky, and confidence.
    """
    if near.alpha.is_cuda:
        return blended_reference(near, far, camera, policy)
    height, fixed = camera.size[0], _fixed(near, far, camera, policy)
    maps = np.empty((10, *camera.size), np.float32)
    for_blocks(height, ROWS, lambda i, j: blend_samples(i, j, *fixed, maps))
    rgb, *others = torch.from_numpy(maps).split([3] + [1] * 7)
    return RenderedView(rgb, *others)


def blended_shown(
    near: Raster, far: Raster | None, camera: Camera, policy: RenderingPolicy = DEFAULT_RENDERING
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Colors ``[3 h w]``, depth, coverage and sky ``[1 h w]`` of `blended`, from rasters of the channels `SHOWN`."""
    fixed = _fixed(near, far, camera, policy)
    maps = np.empty((6, *camera.size), np.float32)
    for_blocks(camera.size[0], ROWS, lambda i, j: blend_shown(i, j, *fixed, maps))
    rgb, depth, coverage, sky = torch.from_numpy(maps).split([3, 1, 1, 1])
    return rgb, depth, coverage, sky


def _fixed(near: Raster, far: Raster | None, camera: Camera, policy: RenderingPolicy) -> tuple[Any, ...]:
    """The arguments of the kernels between rows and maps."""
    fine = supersampled(camera, policy)
    sky = near if far is None else far
    arrays = [
        part[0].float().contiguous().numpy()
        for part in (near.values, near.alpha[:, 0], sky.values, sky.depth[:, 0], sky.alpha[:, 0])
    ]
    lens = torch.cat([fine.focal_px, fine.center_px]).float().numpy()
    low, high = policy.outside_alpha, policy.gapless_alpha
    numbers = tuple(np.float32(number) for number in (low, high, high - low, policy.mixed_sky, policy.spread_tolerance))
    return (*arrays, far is not None, policy.samples, lens, numbers, np.float32(SKY))


def blended_reference(
    near: Raster, far: Raster | None, camera: Camera, policy: RenderingPolicy = DEFAULT_RENDERING
) -> RenderedView:
    """`blended` in tensor operations."""
    if far is None:
        far = Raster(*(torch.zeros_like(part) for part in (near.values, near.depth, near.alpha)))
    near = to_pixels(near, camera, sharpen_sky_alpha(near.alpha, far.alpha, policy), policy)
    far = to_pixels(far, camera, torch.ones_like(far.alpha), policy)
    passed = 1.0 - near.alpha
    alpha = near.alpha + passed * far.alpha
    hit = alpha >= _FAINTEST
    # Divided by alpha, so that soft coverage neither darkens nor cracks.
    share = torch.where(hit, 1.0 / alpha.clamp_min(_FAINTEST), torch.zeros_like(alpha))
    rgb, confidence, observed, away = (
        ((near.values[:, channels] + passed * far.values[:, channels]) * share)[0]
        for channels in (slice(0, 3), slice(3, 4), slice(4, 5), slice(5, 6))
    )
    sky = (passed * far.alpha * share).clamp(0.0, 1.0)
    spread = _spread(near.values[:, 6:7], near.values[:, 7:8], near.alpha)
    agreement = depth_agreement(spread, sky, policy)
    # The mean of the inverse depth: the little background that shows between samples hardly changes it.
    near_depth = torch.where(near.alpha >= _FAINTEST, near.alpha / near.values[:, 8:9].clamp_min(1e-10), 0.0)
    # No surface lies at the mean depth of surface and sky: the pixel takes the depth of its larger part.
    depth = torch.where(sky > SKY, far.depth, near_depth) * hit
    coverage = (alpha / policy.gapless_alpha).clamp(max=1.0) * hit
    confidence = (coverage * confidence * agreement).clamp(0.0, 1.0)
    return RenderedView(rgb.clamp(0.0, 1.0), depth[0], coverage[0], confidence[0], sky[0], spread[0], observed, away)


def _spread(mean: Tensor, square: Tensor, alpha: Tensor) -> Tensor:
    """Relative standard deviation, from alpha-weighted sums of a quantity and of its square."""
    scale = 1.0 / alpha.clamp_min(_FAINTEST)
    mean, square = mean * scale, square * scale
    return torch.sqrt((square - mean**2).clamp_min(0.0)) / mean.clamp_min(1e-10)
