"""On which pixel of a camera each primitive falls, and which of them are the surface that a cache shows to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cache3d.compiled import for_blocks
from cache3d.insertion import CLEARLY, Shown
from cache3d.rasterizer_cpu import camera_row
from cache3d.view_kernels import locate
from geometry.camera import Camera
from geometry.windows import highest, lowest

BLOCK = 16384
STRAIGHT = 0.02  # share of the inverse depth by which it may bend from pixel to pixel on one slope
VISIBLE = 0.05  # relative depth within which a primitive is the surface that is shown


@dataclass(frozen=True)
class Seen:
    """Primitives inside the image of a camera, ``k`` of them, in storage order.

    Attributes:
        index: which primitives.
        pixel: the pixel each centre falls on, row-major.
        z: depth of each, scene units.
    """

    index: Int[Tensor, "k"]
    pixel: Int[Tensor, "k"]
    z: Float[Tensor, "k"]

    def __getitem__(self, chosen: Bool[Tensor, "k"]) -> Seen:
        """Those that are chosen."""
        return Seen(self.index[chosen], self.pixel[chosen], self.z[chosen])

    def on(self, depth: Float[Tensor, "1 h w"]) -> Bool[Tensor, "k"]:
        """Which of them lie on the surface that a depth map shows where they fall."""
        return (self.z - depth.reshape(-1)[self.pixel]).abs() < VISIBLE * self.z


def in_image(camera: Camera, positions: Float[Tensor, "n 3"], candidates: Bool[Tensor, "n"]) -> Seen:
    """The candidates whose centre lies inside the image, hidden ones as well.

    Args:
        camera: one camera, no batch axis.
        positions: of all primitives, world.
        candidates: which to look at; never sky.
    """
    if positions.is_cuda:
        return in_image_reference(camera, positions, candidates)
    pixel, z = np.empty(len(positions), np.int64), np.empty(len(positions), np.float32)
    row = camera_row(camera.camera_from_world, camera.focal_px, camera.center_px)
    (height, width), places, wanted = camera.size, positions.numpy(), candidates.numpy()
    for_blocks(len(positions), BLOCK, lambda i, j: locate(i, j, places, wanted, row, width, height, pixel, z))
    index = np.flatnonzero(pixel >= 0)
    return Seen(torch.from_numpy(index), torch.from_numpy(pixel[index]), torch.from_numpy(z[index]))


def in_image_reference(camera: Camera, positions: Float[Tensor, "n 3"], candidates: Bool[Tensor, "n"]) -> Seen:
    """As `in_image`, in tensor operations."""
    height, width = camera.size
    pose, focal, center = camera.camera_from_world, camera.focal_px, camera.center_px
    index = torch.nonzero(candidates)[:, 0]
    x, y, z = (positions[index] @ pose[:3, :3].T + pose[:3, 3]).unbind(-1)
    column, row = focal[0] * x / z + center[0], focal[1] * y / z + center[1]
    inside = (z > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    pixel = row[inside].long() * width + column[inside].long()
    return Seen(index[inside], pixel, z[inside])


def seen_by(camera: Camera, positions: Float[Tensor, "n 3"], candidates: Bool[Tensor, "n"], shown: Shown) -> Seen:
    """The candidates inside the image that are the surface which a cache shows to the camera."""
    inside = in_image(camera, positions, candidates)
    return inside[inside.on(shown.depth)]


def far_from_edges(
    depth: Float[Tensor, "1 h w"], usable: Bool[Tensor, "1 h w"], reach: int, bend: float = STRAIGHT
) -> Bool[Tensor, "1 h w"]:
    """Pixels all of whose neighbours within ``reach`` are in the image, usable and part of one surface.

    Those lie at one depth, or on one slope: in the image of a plane inverse depth bends nowhere.
    """
    inverse = torch.where(usable, 1.0 / depth, torch.zeros_like(depth))
    inside = torch.zeros_like(usable)
    inside[:, reach : depth.shape[1] - reach, reach : depth.shape[2] - reach] = True
    near, far = highest(inverse, reach), lowest(inverse, reach)
    straight = lowest((_bend(inverse) < bend * inverse).float(), reach) > 0
    return inside & (far > 0) & ((near < far * (1.0 + CLEARLY)) | straight)


def _bend(inverse: Float[Tensor, "1 h w"]) -> Float[Tensor, "1 h w"]:
    """Second differences, the larger of those along rows and columns; 0 at the border, where there are none."""
    bend = torch.zeros_like(inverse)
    for axis in (-1, -2):
        if (count := inverse.shape[axis] - 2) > 0:
            inner = bend.narrow(axis, 1, count)
            inner.copy_(torch.maximum(inner, inverse.diff(n=2, dim=axis).abs()))
    return bend
