"""How large a Gaussian looks to a camera."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cache3d.rasterizer.types import camera_row
from cache3d.rendering import confidence as trust
from cache3d.rendering import view_kernels as kernels
from geometry.camera import Camera
from geometry.jit import for_blocks
from geometry.primitives import Gaussians
from geometry.se3 import matrix_from_quat

# Standard deviation in pixels of the photo: smaller shows the grid on zooming in, larger blurs (measured: 0.5 is best).
KERNEL = 0.5
# Closer than the photo (between these pixels per sample) footprints grow, or the gaps between them show.
CLOSE_KERNEL = 0.7
CLOSE_FROM, CLOSE_TO = 1.0, 2.0
SAMPLES = 2  # per pixel and axis
FOOTPRINT_FLOOR = 0.1  # variance in samples², near that of a sample's own square (1/12)
BLOCK = 16384

# Extent of a surface element along the view, in pixel widths, above which a depth difference is an edge and no slope.
# Lifting allows more where the slope is even (`IntegrationPolicy.max_even_slope`), rendered planes never do.
MAX_SLOPE = 4.0


def footprint_px(part: Gaussians, chosen: Int[Tensor, "k"], camera: Camera) -> Float[Tensor, "k"]:
    """Larger extent of the surface that each chosen one stands for, pixels of one camera; 1 in the one it is of."""
    if part.means.is_cuda:
        return extent_reference(part[chosen], camera)
    out = np.empty(len(chosen), np.float32)
    arrays = [t.numpy() for t in (chosen, part.means, part.quats, part.scales)]
    row, kernel = _row(camera), np.float32(KERNEL)
    for_blocks(len(chosen), BLOCK, lambda i, j: kernels.extents(i, j, *arrays, row, kernel, out))
    return torch.from_numpy(out)


def extent_reference(part: Gaussians, camera: Camera) -> Float[Tensor, "n"]:
    """As `footprint_px`, of all."""
    gradient_x, gradient_y, _ = trust.pixel_gradients(part.means, camera)
    axes = matrix_from_quat(part.quats)
    extents = []
    for k in range(2):
        step = axes[:, :, k] * (part.scales[:, k] / KERNEL)[:, None]
        extents.append(((gradient_x * step).sum(-1) ** 2 + (gradient_y * step).sum(-1) ** 2).sqrt())
    return torch.maximum(*extents)


def magnification_scale(extent_px: Float[Tensor, "n"]) -> Float[Tensor, "n 1"]:
    """By how much footprints grow that are larger than a pixel."""
    closeness = ((extent_px - CLOSE_FROM) / (CLOSE_TO - CLOSE_FROM)).clamp(0.0, 1.0)
    return (1.0 + (CLOSE_KERNEL / KERNEL - 1.0) * closeness)[:, None]


def _row(camera: Camera) -> np.ndarray:
    return camera_row(camera.camera_from_world, camera.focal_px, camera.center_px)
