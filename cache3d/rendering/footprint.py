"""The extent of a Gaussian in the image of a camera."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cache3d.rasterizer.types import camera_row
from cache3d.rendering import view_kernels as kernels
from cache3d.rendering.confidence import pixel_gradients
from cache3d.rendering.policy import DEFAULT_RENDERING, RenderingPolicy
from geometry.camera import Camera
from geometry.jit import for_blocks
from geometry.primitives import Gaussians
from geometry.se3 import matrix_from_quat

BLOCK = 16384  # primitives per call of a kernel: enough to hide the call, few enough to share among threads


def footprint_px(
    gaussians: Gaussians, index: Int[Tensor, "k"], camera: Camera, policy: RenderingPolicy = DEFAULT_RENDERING
) -> Float[Tensor, "k"]:
    """Larger extent of the surface element of each Gaussian, pixels of one camera; 1 in the frame that made it.

    Args:
        gaussians: all of them.
        index: which to measure.
        camera: no batch axis.
        policy: size of a footprint.
    """
    if gaussians.means.is_cuda:
        return extent_reference(gaussians[index], camera, policy)
    out = np.empty(len(index), np.float32)
    arrays = [t.numpy() for t in (index, gaussians.means, gaussians.quats, gaussians.scales)]
    row, kernel = kernel_row(camera), np.float32(policy.kernel_px)
    for_blocks(len(index), BLOCK, lambda i, j: kernels.extents(i, j, *arrays, row, kernel, out))
    return torch.from_numpy(out)


def extent_reference(
    gaussians: Gaussians, camera: Camera, policy: RenderingPolicy = DEFAULT_RENDERING
) -> Float[Tensor, "n"]:
    """`footprint_px` in tensor operations, of all."""
    gradient_x, gradient_y, _ = pixel_gradients(gaussians.means, camera)
    axes = matrix_from_quat(gaussians.quats)
    extents = []
    for k in range(2):
        step = axes[:, :, k] * (gaussians.scales[:, k] / policy.kernel_px)[:, None]
        extents.append(((gradient_x * step).sum(-1) ** 2 + (gradient_y * step).sum(-1) ** 2).sqrt())
    return torch.maximum(*extents)


def magnification_scale(
    extent_px: Float[Tensor, "n"], policy: RenderingPolicy = DEFAULT_RENDERING
) -> Float[Tensor, "n 1"]:
    """Factor by which the scales of a Gaussian grow, from its extent."""
    low, high = policy.close_from_px, policy.close_to_px
    closeness = ((extent_px - low) / (high - low)).clamp(0.0, 1.0)
    return (1.0 + (policy.close_kernel_px / policy.kernel_px - 1.0) * closeness)[:, None]


def kernel_row(camera: Camera) -> np.ndarray:
    """One camera as the kernels take it, see `camera_row`."""
    return camera_row(camera.camera_from_world, camera.focal_px, camera.center_px)
