"""Grid cells of primitives, their bounds, and the frustum planes that select the cells that a camera sees."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch

from geometry.camera import Camera
from geometry.primitives import Gaussians, Points

CELL_BITS = 6  # a cell is between 2**6 and 2**7 footprints wide
AXIS_BITS = 18  # of a cell's number along each axis; primitives farther out share the outermost cell
SKY = 0  # number of the cell and the block of the sky
PLANES = 5  # of a frustum without a far plane


def frustum_planes(camera: Camera) -> np.ndarray:
    """Inward planes ``(normal, offset)`` of frustums of cameras ``[t]`` or one, with a margin; ``[5 t, 4]`` float64."""
    margin = 0.25  # of the image size, around it; more than any rendering reaches beyond the bounds
    height, width = camera.size
    pose = camera.camera_from_world.double().cpu().reshape(-1, 4, 4).numpy()
    focal, center = (t.double().cpu().reshape(-1, 2).numpy() for t in (camera.focal_px, camera.center_px))
    low = -(center + margin * np.array([width, height])) / focal
    high = (np.array([width, height]) * (1.0 + margin) - center) / focal
    local = np.zeros((len(pose), PLANES, 4))
    # Inward normals: ahead of the camera, then right of its left border, and so on around.
    local[:, 0, 2] = 1.0
    local[:, 1, 0], local[:, 1, 2] = 1.0, -low[:, 0]
    local[:, 2, 0], local[:, 2, 2] = -1.0, high[:, 0]
    local[:, 3, 1], local[:, 3, 2] = 1.0, -low[:, 1]
    local[:, 4, 1], local[:, 4, 2] = -1.0, high[:, 1]
    return (local @ pose).reshape(-1, 4)


def bounds_of(rows: Points | Gaussians) -> np.ndarray:
    """Low and high corners of the box that each row can cover, ``[2 n 3]`` float64, scene units."""
    if isinstance(rows, Gaussians):
        # Beyond 5 standard deviations a Gaussian shows nothing, even where magnification enlarges its footprint.
        centers, reach = rows.means, 5.0 * rows.scales.amax(-1)
    else:
        # A disc is drawn up to 1.5 radii.
        centers, reach = rows.positions, 2.0 * rows.radii
    centers, reach = centers.double().cpu().numpy(), reach.double().cpu().numpy()[:, None]
    return np.stack([centers - reach, centers + reach])


def cell_keys(rows: Points | Gaussians) -> np.ndarray:
    """The cell of each row as one number, ``[n]`` int64; `SKY` for sky."""
    if isinstance(rows, Gaussians):
        centers, footprint = rows.means, 2.0 * rows.scales[:, :2].amin(-1)
    else:
        centers, footprint = rows.positions, 2.0 * rows.radii
    # Cells of one fixed size would make thousands of blocks of a few rows each of coarse, far surfaces.
    octave = torch.frexp(footprint).exponent.clamp(-100, 100)
    cells = torch.floor(torch.ldexp(centers, -(octave + CELL_BITS)[:, None]))
    half = 1 << (AXIS_BITS - 1)
    x, y, z = (cells.clamp(-half, half - 1).long() + half).unbind(-1)
    # One number: octave, made positive, then the cell along each axis.
    key = (((octave.long() + 128) << AXIS_BITS | x) << AXIS_BITS | y) << AXIS_BITS | z
    return torch.where(rows.sky, torch.full_like(key, SKY), key).cpu().numpy()


def groups(numbers: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Each number that occurs, ascending, with the indices where it occurs, ascending."""
    order = np.argsort(numbers, kind="stable")
    values, starts = np.unique(numbers[order], return_index=True)
    indices = (order[i:j] for i, j in pairwise([*starts.tolist(), len(order)]))
    return zip(values.tolist(), indices, strict=True)
