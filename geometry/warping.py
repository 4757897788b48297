"""Forward warping of per-pixel values into other cameras."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geometry.camera import Camera
from geometry.frame import Frame
from geometry.jit import compiled
from geometry.project import unproject


def forward_warp(
    source: Frame, camera: Camera, values: Float[Tensor, "s c h w"]
) -> tuple[Float[Tensor, "t c h2 w2"], Float[Tensor, "t 1 h2 w2"], Bool[Tensor, "t 1 h2 w2"]]:
    """Warp per-pixel values of source frames into target cameras; the nearest surface wins. No gradients.

    Each source pixel covers the square of its footprint in the target, at least one pixel and at most
    4 pixels, so that surfaces at their own sampling density have no cracks.

    Args:
        source: frames ``[s]``; only ``valid`` pixels are warped.
        camera: target cameras ``[t]``.
        values: of the source's size.

    Returns:
        Values and depth in the target, both 0 where no pixel was warped to, and a mask of the others.
    """
    arrays = _warp_arguments(source, camera, values)
    warped, depth, hit = _splat(*arrays)
    return torch.from_numpy(warped), torch.from_numpy(depth)[:, None], torch.from_numpy(hit)[:, None]


def _warp_arguments(source: Frame, camera: Camera, values: Tensor) -> tuple[np.ndarray, ...]:
    if values.shape[0] != len(source) or values.shape[-2:] != source.depth.shape[-2:]:
        raise ValueError(f"values: want [{len(source)} c {source.camera.size}], got {tuple(values.shape)}")
    points = unproject(source.depth, source.camera)
    keep = source.valid[:, 0]
    spacing = (source.depth[:, 0] / source.camera.focal_px[:, :1, None].to(source.depth))[keep]
    flat_points = points.permute(0, 2, 3, 1)[keep]
    flat_values = values.permute(0, 2, 3, 1)[keep]
    size = np.array(camera.size, dtype=np.int64)
    return (
        flat_points.double().numpy(),
        spacing.double().numpy(),
        flat_values.contiguous().float().numpy(),
        camera.camera_from_world.double().contiguous().numpy(),
        camera.focal_px.double().contiguous().numpy(),
        camera.center_px.double().contiguous().numpy(),
        size,
    )


def _splat_reference(
    points: np.ndarray,
    spacing: np.ndarray,
    values: np.ndarray,
    pose: np.ndarray,
    focal: np.ndarray,
    center: np.ndarray,
    size: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each target, each point fills its square where it is nearest; the first point wins ties."""
    targets, height, width = len(pose), int(size[0]), int(size[1])
    out = np.zeros((targets, values.shape[1], height, width), np.float32)
    depth = np.zeros((targets, height, width), np.float32)
    for t in range(targets):
        nearest = np.full((height, width), np.inf)
        for n in range(len(points)):
            px, py, pz = points[n, 0], points[n, 1], points[n, 2]
            z = pose[t, 2, 0] * px + pose[t, 2, 1] * py + pose[t, 2, 2] * pz + pose[t, 2, 3]
            # Behind the camera, or too near to divide by.
            if z <= 1e-4:
                continue
            x = pose[t, 0, 0] * px + pose[t, 0, 1] * py + pose[t, 0, 2] * pz + pose[t, 0, 3]
            y = pose[t, 1, 0] * px + pose[t, 1, 1] * py + pose[t, 1, 2] * pz + pose[t, 1, 3]
            u, v = x / z * focal[t, 0] + center[t, 0], y / z * focal[t, 1] + center[t, 1]
            # A tenth wider than the sampling, against cracks; what would exceed 4 pixels is a gap and stays open.
            half = 0.5 * min(max(spacing[n] * focal[t, 0] / z * 1.1, 1.0), 4.0)
            for row in range(max(int(np.ceil(v - half - 0.5)), 0), min(int(np.floor(v + half - 0.5)) + 1, height)):
                for col in range(max(int(np.ceil(u - half - 0.5)), 0), min(int(np.floor(u + half - 0.5)) + 1, width)):
                    # Of equally near ones the first in the source stays.
                    if z < nearest[row, col]:
                        nearest[row, col], depth[t, row, col] = z, z
                        # Not by slices: their shape check takes Numba three seconds to compile.
                        for channel in range(values.shape[1]):
                            out[t, channel, row, col] = values[n, channel]
    return out, depth, depth > 0


_splat = compiled(_splat_reference, fastmath=False, error_model="python")
