"""Which depths belong to one surface; the only definitions, call sites choose the tolerance."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from geometry.filters import dilate, erode, windows_3x3
from geometry.frame import Frame

DEPTH_TOLERANCE = 0.1  # relative depth difference below which two pixels may show one surface


def same_surface(
    depth: Float[Tensor, "*b"], reference: Float[Tensor, "*b"], tolerance: float = DEPTH_TOLERANCE
) -> Bool[Tensor, "*b"]:
    """Whether two depths differ by less than a share ``tolerance`` of the reference; never for two zeros."""
    return (depth - reference).abs() < tolerance * reference


def similar_neighbors(frame: Frame, tolerance: float = DEPTH_TOLERANCE) -> Int[Tensor, "1 h w"]:
    """Number of the eight neighbors of each pixel that show its surface; sky and invalid pixels show none.

    Args:
        frame: one frame, no batch axis.
        tolerance: as in `same_surface`.
    """
    surface = frame.surface
    depth = torch.where(surface, frame.depth, torch.full_like(frame.depth, torch.inf))
    windows = windows_3x3(depth, torch.inf)[0]
    similar = same_surface(windows, frame.depth.expand_as(windows), tolerance)
    return similar.sum(0, keepdim=True) - surface.long()  # the pixel itself is one of the nine


def far_from_edges(
    depth: Float[Tensor, "1 h w"],
    usable: Bool[Tensor, "1 h w"],
    reach_px: int,
    bend: float = 0.02,
    tolerance: float = DEPTH_TOLERANCE,
) -> Bool[Tensor, "1 h w"]:
    """Pixels whose whole window of ``reach_px`` rows and columns lies in the image, is usable and shows one surface.

    A window shows one surface if its depths are equal within ``tolerance``, or if it is an even slope: inverse depth is
    linear over the image of a plane, so its second difference stays below ``bend`` times itself.
    """
    inverse = torch.where(usable, 1.0 / depth, torch.zeros_like(depth))
    inside = torch.zeros_like(usable)
    inside[:, reach_px : depth.shape[1] - reach_px, reach_px : depth.shape[2] - reach_px] = True
    nearest, farthest = dilate(inverse, reach_px), erode(inverse, reach_px)
    even = erode((_second_difference(inverse) < bend * inverse).float(), reach_px) > 0
    return inside & (farthest > 0) & ((nearest < farthest * (1.0 + tolerance)) | even)


def _second_difference(inverse: Float[Tensor, "1 h w"]) -> Float[Tensor, "1 h w"]:
    """Absolute second difference, the larger of those along rows and columns; 0 at the image border."""
    largest = torch.zeros_like(inverse)
    for axis in (-1, -2):
        if (count := inverse.shape[axis] - 2) > 0:
            inner = largest.narrow(axis, 1, count)
            inner.copy_(torch.maximum(inner, inverse.diff(n=2, dim=axis).abs()))
    return largest
