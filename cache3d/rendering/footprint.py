"""The extent of a Gaussian in the image of a camera."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cache3d.rasterizer.types import camera_row
from cache3d.rendering import view_kernels as kernels
from cache3d.rendering.confidence import pixel_gradients
from geometry.camera import Camera
from geometry.jit import for_blocks
from geometry.primitives import Gaussians
from geometry.se3 import matrix_from_quat

# Standard deviation of a footprint in pixels of the frame that made it; stored scales are multiples of it. Smaller ones
# show the pixel grid on zooming in, larger ones blur (measured: 0.5 is best).
KERNEL = 0.5
# Seen from closer, from CLOSE_FROM to CLOSE_TO pixels per sample, the standard deviation grows to CLOSE_KERNEL, or gaps
# between footprints would open.
CLOSE_KERNEL = 0.7
CLOSE_FROM, CLOSE_TO = 1.0, 2.0
SAMPLES = 2  # per pixel and axis
FOOTPRINT_FLOOR = 0.1  # variance in samples², near that of a sample's own square (1/12)
BLOCK = 16384  # Gaussians per call of a kernel

# Extent of a surface element along the view, in pixel widths, above which a depth difference is an edge and no slope.
# Lifting allows more where the slope is even (`IntegrationPolicy.max_even_slope`), rendered planes never do.
MAX_SLOPE = 4.0


def footprint_px(gaussians: Gaussians, index: Int[Tensor, "k"], camera: Camera) -> Float[Tensor, "k"]:
    """Larger extent of the surface element of each Gaussian, pixels of one camera; 1 in the frame that made it.

    Args:
        gaussians: all of them.
        index: which to measure.
        camera: no batch axis.
    """
    if gaussians.means.is_cuda:
        return extent_reference(gaussians[index], camera)
    out = np.empty(len(index), np.float32)
    arrays = [t.numpy() for t in (index, gaussians.means, gaussians.quats, gaussians.scales)]
    row, kernel = kernel_row(camera), np.float32(KERNEL)
    for_blocks(len(index), BLOCK, lambda i, j: kernels.extents(i, j, *arrays, row, kernel, out))
    return torch.from_numpy(out)


def extent_reference(gaussians: Gaussians, camera: Camera) -> Float[Tensor, "n"]:
    """`footprint_px` in tensor operations, of all."""
    gradient_x, gradient_y, _ = pixel_gradients(gaussians.means, camera)
    axes = matrix_from_quat(gaussians.quats)
    extents = []
    for k in range(2):
        step = axes[:, :, k] * (gaussians.scales[:, k] / KERNEL)[:, None]
        extents.append(((gradient_x * step).sum(-1) ** 2 + (gradient_y * step).sum(-1) ** 2).sqrt())
    return torch.maximum(*extents)


def magnification_scale(extent_px: Float[Tensor, "n"]) -> Float[Tensor, "n 1"]:
    """Factor by which the scales of a Gaussian grow, from its extent."""
    closeness = ((extent_px - CLOSE_FROM) / (CLOSE_TO - CLOSE_FROM)).clamp(0.0, 1.0)
    return (1.0 + (CLOSE_KERNEL / KERNEL - 1.0) * closeness)[:, None]


def kernel_row(camera: Camera) -> np.ndarray:
    """One camera as the kernels take it, see `camera_row`."""
    return camera_row(camera.camera_from_world, camera.focal_px, camera.center_px)
