"""What Gaussians are to one camera: which it may see, how large they look, and what is to be drawn of them.

On a CPU kernels do the work; elsewhere, and to be read, the same in tensor operations.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import avg_pool2d

from cache3d.rasterizer.types import Raster, Splats
from cache3d.rendering import confidence as trust
from cache3d.rendering import view_kernels as kernels
from cache3d.rendering.footprint import (
    BLOCK,
    CLOSE_FROM,
    CLOSE_KERNEL,
    CLOSE_TO,
    KERNEL,
    MAX_SLOPE,
    SAMPLES,
    _row,
    extent_reference,
    magnification_scale,
)
from cache3d.rendering.plane_depth import inverse_depth_planes, plane_image
from geometry.camera import Camera
from geometry.jit import for_blocks
from geometry.primitives import Gaussians
from geometry.project import to_camera
from geometry.se3 import matrix_from_quat

MARGIN = 0.15  # of the image, around it; the rasterizer itself decides exactly
CHANNELS = 11
# What a gapless surface reaches at least between its samples; more is full coverage.
GAPLESS = 0.9
OUTSIDE = 0.6  # alpha up to which a sample lies outside an outline before the sky (measured: 0.5 frays, 0.7 opens gaps)
POOL_ROWS = 64


def in_view(part: Gaussians, camera: Camera, *, sky: bool) -> Int[Tensor, "k"]:
    """Indices of those that can show: in front and within a margin around the image; either of the sky or of the rest.

    A generous first look.
    """
    if part.means.is_cuda:
        return torch.nonzero(in_view_reference(part, camera, sky=sky))[:, 0]
    marked = np.empty(len(part), np.bool_)
    means, is_sky = part.means.numpy(), part.sky.numpy()
    row, margin = _row(camera), np.float32(MARGIN)
    height, width = camera.size
    for_blocks(
        len(part),
        BLOCK,
        lambda i, j: kernels.mark_in_view(i, j, means, is_sky, sky, row, width, height, margin, marked),
    )
    return torch.from_numpy(np.flatnonzero(marked))


def in_view_reference(part: Gaussians, camera: Camera, *, sky: bool) -> Bool[Tensor, "n"]:
    """As `in_view`, as a mask."""
    height, width = camera.size
    x, y, z = to_camera(part.means, camera).unbind(-1)
    focal, center = camera.focal_px, camera.center_px
    left, right = -(center[0] + MARGIN * width) / focal[0], (width * (1 + MARGIN) - center[0]) / focal[0]
    top, bottom = -(center[1] + MARGIN * height) / focal[1], (height * (1 + MARGIN) - center[1]) / focal[1]
    inside = (z > 0.01) & (x >= left * z) & (x <= right * z) & (y >= top * z) & (y <= bottom * z)
    return inside & (part.sky == sky)


def to_splats(part: Gaussians, chosen: Int[Tensor, "k"], camera: Camera) -> Splats:
    """The chosen Gaussians as one camera sees them.

    Returns:
        Grown footprints; values ``[k 11]``: rgb, confidence from here, observed, 1 where seen from behind, 1/z, 1/z²,
        coefficients of 1/z on its plane.
    """
    if part.means.is_cuda:
        return to_splats_reference(part[chosen], camera)
    count = len(chosen)
    arrays = [
        t.numpy()
        for t in (chosen, part.means, part.quats, part.scales, part.opacities, part.colors, part.observed,
                  part.confidence, part.sky)
    ]  # fmt: skip
    growth = CLOSE_KERNEL / KERNEL - 1.0
    constants = (KERNEL, CLOSE_FROM, CLOSE_TO, growth, trust.DENSITY_POWER, trust.FULL_ANGLE, MAX_SLOPE)
    row, rules = _row(camera), tuple(np.float32(constant) for constant in constants)
    out = [np.empty((count, *more), np.float32) for more in ((3,), (4,), (3,), (), (CHANNELS,))]
    for_blocks(count, BLOCK, lambda i, j: kernels.see(i, j, *arrays, row, rules, *out))
    return Splats(*(torch.from_numpy(array) for array in out))


def to_splats_reference(part: Gaussians, camera: Camera) -> Splats:
    """As `to_splats`, of all."""
    normals = matrix_from_quat(part.quats)[:, :, 2]
    extent, z = extent_reference(part, camera), trust.pixel_gradients(part.means, camera)[2]
    cosine = trust.facing(part.means, normals, camera)
    first_cosine = part.scales[:, :2].amin(-1) / part.scales[:, :2].amax(-1)
    angle = torch.where(part.sky, torch.ones_like(z), trust.viewing_angle(cosine, first_cosine))
    belief = part.confidence * trust.sampling_density(extent) * angle
    away = ((cosine < 0) & ~part.sky).float()
    extra = torch.stack([belief, part.observed.float(), away, 1.0 / z, 1.0 / z**2], dim=-1)
    values = torch.cat([part.colors, extra, inverse_depth_planes(part.means, normals, camera)], dim=-1)
    return Splats(part.means, part.quats, part.scales * magnification_scale(extent), part.opacities, values)


def sharpen_sky_alpha(alpha: Float[Tensor, "1 1 h w"], sky_alpha: Float[Tensor, "1 1 h w"]) -> Float[Tensor, "1 1 h w"]:
    """How many times its alpha a sample of a surface counts, where the sky is drawn behind it.

    Footprints are soft: they reach beyond the outline, and inside it a little passes between them. Before another
    surface the colors make up for both, but not before the sky, which moves differently. So the alpha is stretched:
    samples with less than `OUTSIDE` are sky, those with more than `GAPLESS` are not. Where no sky is known it stays.
    """
    firm = ((alpha - OUTSIDE) / (GAPLESS - OUTSIDE)).clamp(0.0, 1.0)
    return 1.0 + sky_alpha * (firm / alpha.clamp_min(OUTSIDE) - 1.0)


def pooled(
    images: Float[Tensor, "1 c h w"], weights: Float[Tensor, "1 1 h w"], samples: int
) -> Float[Tensor, "1 c h2 w2"]:
    """Means over squares of ``samples`` x ``samples`` pixels of weighted images; no gradients."""
    if images.is_cuda:
        return avg_pool2d(images * weights, samples)
    _, channels, height, width = images.shape
    size = (height // samples, width // samples)
    fine, shares = images[0].contiguous().numpy(), weights[0, 0].contiguous().numpy()
    out = np.empty((channels, *size), np.float32)
    for_blocks(size[0], POOL_ROWS, lambda i, j: kernels.pool(i, j, fine, shares, samples, out))
    return torch.from_numpy(out)[None]


def supersampled(camera: Camera) -> Camera:
    """With a pixel for each sample."""
    return camera.resized((camera.size[0] * SAMPLES, camera.size[1] * SAMPLES))


def to_pixels(raster: Raster, camera: Camera, weights: Float[Tensor, "1 1 h w"]) -> Raster:
    """From samples, weighted, to pixels, and from planes of inverse depth to its value there."""
    alpha = pooled(raster.alpha, weights, SAMPLES)
    depth = pooled(raster.depth * raster.alpha, weights, SAMPLES) / alpha.clamp_min(1e-10)
    planes = plane_image(raster.values[:, 8:], supersampled(camera))
    values = [pooled(part, weights, SAMPLES) for part in (raster.values[:, :8], planes)]
    return Raster(torch.cat(values, dim=1), depth, alpha)
