"""Free space: what one photo shows says that nothing stands between its camera and the surfaces in it."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geometry.camera import Camera
from geometry.filters import erode
from geometry.frame import Frame
from geometry.project import project, unproject


def behind_photo(
    depth: Float[Tensor, "1 1 h w"],
    background: Float[Tensor, "1 1 h w"],
    sky: Bool[Tensor, "1 1 h w"],
    camera: Camera,
    photo: Frame,
    tolerance: float = 0.1,
    outline_px: int = 2,
) -> tuple[Float[Tensor, "1 1 h w"], Bool[Tensor, "1 1 h w"]]:
    """Depth that hides nothing of what the photo shows, where possible, and a mask of where that is so.

    A surface of one view may stand, seen from the photo's place, before what the photo shows: then its depth is wrong.
    It gets the depth to which the background extends; if that is in front too, the pixel must not be lifted. This is
    the rule of free-space carving (Kutulakos and Seitz 2000, *A theory of shape by space carving*) for one camera.

    Args:
        depth: of the surfaces of one view, scene units.
        background: depth to which what lies behind them extends.
        sky: which pixels are sky, which stands before nothing.
        camera: of the view, ``[1]``.
        photo: the photo with depth, ``[1]``.
        tolerance: relative depth by which a point must be nearer than the photo's surface.
        outline_px: pixels of the photo around outlines whose nearer side counts.
    """
    wrong = _in_front(depth, camera, photo, tolerance, outline_px) & ~sky
    depth = torch.where(wrong, background, depth)
    return depth, ~(wrong & _in_front(depth, camera, photo, tolerance, outline_px))


def _in_front(depth: Tensor, camera: Camera, photo: Frame, tolerance: float, outline_px: int) -> Tensor:
    """Pixels ``[1 1 h w]`` whose points stand clearly before the photo's surface or sky, seen from its camera."""
    points = unproject(depth, camera).flatten(2).transpose(1, 2)
    pixels, z = project(points, photo.camera)
    height, width = photo.camera.size
    column, row = pixels[0].nan_to_num(-1.0).floor().long().unbind(-1)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height) & (z[0] > 1e-3)
    nearest = erode(torch.where(photo.valid, photo.depth, torch.inf), outline_px)[0, 0]
    there = nearest[row.clamp(0, height - 1), column.clamp(0, width - 1)]
    # Where the photo has no depth it says nothing.
    return (inside & there.isfinite() & (z[0] < (1.0 - tolerance) * there)).reshape(depth.shape)
