"""The pixel of each primitive in one camera, and which primitives are the rendered surface."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cache3d.rasterizer.types import camera_row
from cache3d.rendering.footprint import BLOCK
from cache3d.rendering.rendered_view import RenderedView
from cache3d.rendering.view_kernels import locate
from geometry.camera import Camera
from geometry.jit import for_blocks
from geometry.project import to_camera
from geometry.surfaces import same_surface


@dataclass(frozen=True)
class VisibleSet:
    """Primitives inside the image of a camera, ``k`` of them, in storage order.

    Attributes:
        index: of each primitive in the rows given.
        pixel: index of the pixel that holds its center, row-major.
        z: depth of its center, scene units.
    """

    index: Int[Tensor, "k"]
    pixel: Int[Tensor, "k"]
    z: Float[Tensor, "k"]

    def __getitem__(self, mask: Bool[Tensor, "k"]) -> VisibleSet:
        """The primitives of a mask."""
        return VisibleSet(self.index[mask], self.pixel[mask], self.z[mask])

    def on(self, depth: Float[Tensor, "1 h w"], tolerance: float) -> Bool[Tensor, "k"]:
        """Which of them lie on the surface of a depth map, within a relative depth difference ``tolerance``."""
        return same_surface(depth.reshape(-1)[self.pixel], self.z, tolerance)


def in_image(camera: Camera, positions: Float[Tensor, "n 3"], candidates: Bool[Tensor, "n"]) -> VisibleSet:
    """The candidates whose center lies inside the image, hidden ones included.

    Args:
        camera: one camera, no batch axis.
        positions: of all primitives, world.
        candidates: primitives to consider; never sky.
    """
    if positions.is_cuda:
        return in_image_reference(camera, positions, candidates)
    pixel, z = np.empty(len(positions), np.int64), np.empty(len(positions), np.float32)
    row = camera_row(camera.camera_from_world, camera.focal_px, camera.center_px)
    (height, width), places, wanted = camera.size, positions.numpy(), candidates.numpy()
    for_blocks(len(positions), BLOCK, lambda i, j: locate(i, j, places, wanted, row, width, height, pixel, z))
    index = np.flatnonzero(pixel >= 0)
    return VisibleSet(torch.from_numpy(index), torch.from_numpy(pixel[index]), torch.from_numpy(z[index]))


def in_image_reference(camera: Camera, positions: Float[Tensor, "n 3"], candidates: Bool[Tensor, "n"]) -> VisibleSet:
    """`in_image` in tensor operations."""
    height, width = camera.size
    focal, center = camera.focal_px, camera.center_px
    index = torch.nonzero(candidates)[:, 0]
    x, y, z = to_camera(positions[index], camera).unbind(-1)
    column, row = focal[0] * x / z + center[0], focal[1] * y / z + center[1]
    inside = (z > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    pixel = row[inside].long() * width + column[inside].long()
    return VisibleSet(index[inside], pixel, z[inside])


def visible_from(
    camera: Camera,
    positions: Float[Tensor, "n 3"],
    candidates: Bool[Tensor, "n"],
    rendered: RenderedView,
    tolerance: float,
) -> VisibleSet:
    """The candidates inside the image that are the rendered surface, within a relative depth ``tolerance``."""
    inside = in_image(camera, positions, candidates)
    return inside[inside.on(rendered.depth, tolerance)]
