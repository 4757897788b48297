"""Gaussians as the splats of one camera: culling, magnification, composited values, and pooling of samples to pixels.

Kernels on the CPU; the functions named ``_reference`` are the same in tensor operations, used on other devices.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import avg_pool2d

from cache3d.rasterizer.types import Raster, Splats
from cache3d.rendering import view_kernels as kernels
from cache3d.rendering.confidence import facing, pixel_gradients, sampling_density, viewing_angle
from cache3d.rendering.footprint import BLOCK, extent_reference, kernel_row, magnification_scale
from cache3d.rendering.plane_depth import inverse_depth_planes, plane_image
from cache3d.rendering.policy import DEFAULT_RENDERING, RenderingPolicy
from geometry.camera import Camera
from geometry.jit import for_blocks
from geometry.primitives import Gaussians
from geometry.project import to_camera
from geometry.se3 import matrix_from_quat

MARGIN = 0.15  # of the image size, around it; the rasterizer culls exactly
CHANNELS = 11  # composited values, see `to_splats`
SHOWN = (0, 1, 2, 8, 9, 10)  # those that colors and depth are made of


def in_view(gaussians: Gaussians, camera: Camera, *, sky: bool) -> Int[Tensor, "k"]:
    """Indices of the Gaussians before the camera and inside the image with `MARGIN`; of the sky, or of the rest."""
    if gaussians.means.is_cuda:
        return torch.nonzero(in_view_reference(gaussians, camera, sky=sky))[:, 0]
    marked = np.empty(len(gaussians), np.bool_)
    means, is_sky = gaussians.means.numpy(), gaussians.sky.numpy()
    row, margin = kernel_row(camera), np.float32(MARGIN)
    height, width = camera.size
    for_blocks(
        len(gaussians),
        BLOCK,
        lambda i, j: kernels.mark_in_view(i, j, means, is_sky, sky, row, width, height, margin, marked),
    )
    return torch.from_numpy(np.flatnonzero(marked))


def in_view_reference(gaussians: Gaussians, camera: Camera, *, sky: bool) -> Bool[Tensor, "n"]:
    """`in_view` in tensor operations, as a mask."""
    height, width = camera.size
    x, y, z = to_camera(gaussians.means, camera).unbind(-1)
    focal, center = camera.focal_px, camera.center_px
    left, right = -(center[0] + MARGIN * width) / focal[0], (width * (1 + MARGIN) - center[0]) / focal[0]
    top, bottom = -(center[1] + MARGIN * height) / focal[1], (height * (1 + MARGIN) - center[1]) / focal[1]
    # As slopes times z, like the kernel.
    inside = (z > 0.01) & (x >= left * z) & (x <= right * z) & (y >= top * z) & (y <= bottom * z)
    return inside & (gaussians.sky == sky)


def to_splats(
    gaussians: Gaussians, index: Int[Tensor, "k"], camera: Camera, policy: RenderingPolicy = DEFAULT_RENDERING
) -> Splats:
    """Gaussians as the splats of one camera.

    Args:
        gaussians: all of them.
        index: which to convert.
        camera: no batch axis.
        policy: footprints and confidence.

    Returns:
        Splats with magnified footprints; values ``[k 11]``: rgb, confidence from this camera, observed, 1 where seen
        from behind, 1/z, 1/z², and the three coefficients of 1/z on its plane.
    """
    if gaussians.means.is_cuda:
        return to_splats_reference(gaussians[index], camera, policy)
    count = len(index)
    columns = (gaussians.means, gaussians.quats, gaussians.scales, gaussians.opacities, gaussians.colors)
    columns += (gaussians.observed, gaussians.confidence, gaussians.sky)
    arrays = [column.numpy() for column in (index, *columns)]
    growth = policy.close_kernel_px / policy.kernel_px - 1.0
    chosen = (policy.kernel_px, policy.close_from_px, policy.close_to_px, growth)
    chosen += (policy.density_power, policy.full_angle, policy.max_slope)
    row, numbers = kernel_row(camera), tuple(np.float32(number) for number in chosen)
    out = [np.empty((count, *more), np.float32) for more in ((3,), (4,), (3,), (), (CHANNELS,))]
    for_blocks(count, BLOCK, lambda i, j: kernels.gather_splats(i, j, *arrays, row, numbers, *out))
    return Splats(*(torch.from_numpy(array) for array in out))


def to_splats_reference(gaussians: Gaussians, camera: Camera, policy: RenderingPolicy = DEFAULT_RENDERING) -> Splats:
    """`to_splats` in tensor operations, of all."""
    normals = matrix_from_quat(gaussians.quats)[:, :, 2]
    extent, z = extent_reference(gaussians, camera, policy), pixel_gradients(gaussians.means, camera)[2]
    cosine = facing(gaussians.means, normals, camera)
    first_cosine = gaussians.scales[:, :2].amin(-1) / gaussians.scales[:, :2].amax(-1)
    angle = torch.where(gaussians.sky, torch.ones_like(z), viewing_angle(cosine, first_cosine, policy))
    confidence = gaussians.confidence * sampling_density(extent, policy) * angle
    away = ((cosine < 0) & ~gaussians.sky).float()
    extra = torch.stack([confidence, gaussians.observed.float(), away, 1.0 / z, 1.0 / z**2], dim=-1)
    values = torch.cat(
        [gaussians.colors, extra, inverse_depth_planes(gaussians.means, normals, camera, policy)], dim=-1
    )
    return Splats(
        gaussians.means,
        gaussians.quats,
        gaussians.scales * magnification_scale(extent, policy),
        gaussians.opacities,
        values,
    )


def sharpen_sky_alpha(
    alpha: Float[Tensor, "1 1 h w"], sky_alpha: Float[Tensor, "1 1 h w"], policy: RenderingPolicy = DEFAULT_RENDERING
) -> Float[Tensor, "1 1 h w"]:
    """Factor on the alpha of each sample of a surface that has sky behind it.

    Footprints are soft: they reach beyond the outline, and inside it a little background shows between them. Before
    another surface the optimized colors compensate for both, but not before the sky, which moves differently. So alpha
    is stretched: samples below ``outside_alpha`` are sky, those above ``gapless_alpha`` are not. Without sky behind,
    the factor is 1.
    """
    low, high = policy.outside_alpha, policy.gapless_alpha
    firm = ((alpha - low) / (high - low)).clamp(0.0, 1.0)
    return 1.0 + sky_alpha * (firm / alpha.clamp_min(low) - 1.0)


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
    rows_per_call = 64  # as few calls as keep all threads busy
    for_blocks(size[0], rows_per_call, lambda i, j: kernels.pool(i, j, fine, shares, samples, out))
    return torch.from_numpy(out)[None]


def supersampled(camera: Camera, policy: RenderingPolicy = DEFAULT_RENDERING) -> Camera:
    """The camera with one pixel per sample."""
    return camera.resized((camera.size[0] * policy.samples, camera.size[1] * policy.samples))


def to_pixels(
    raster: Raster, camera: Camera, weights: Float[Tensor, "1 1 h w"], policy: RenderingPolicy = DEFAULT_RENDERING
) -> Raster:
    """Pool weighted samples to pixels, and evaluate the planes of inverse depth at the samples."""
    alpha = pooled(raster.alpha, weights, policy.samples)
    depth = pooled(raster.depth * raster.alpha, weights, policy.samples) / alpha.clamp_min(1e-10)
    planes = plane_image(raster.values[:, 8:], supersampled(camera, policy))
    values = [pooled(part, weights, policy.samples) for part in (raster.values[:, :8], planes)]
    return Raster(torch.cat(values, dim=1), depth, alpha)
