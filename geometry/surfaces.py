"""When two depths belong to one surface."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad, unfold

from geometry.filters import dilate, erode
from geometry.frame import Frame

STRAIGHT = 0.02  # share of the inverse depth by which it may bend from pixel to pixel on one slope

CLEARLY = 0.1  # relative depth difference between two surfaces


SUPPORT, AROUND = 2, 8  # neighbors that share a pixel's depth: those of a line; those inside a surface


def _alike(frame: Frame) -> Int[Tensor, "1 h w"]:
    """How many of the eight neighbors share a pixel's depth."""
    height, width = frame.depth.shape[-2:]
    usable = frame.surface
    depth = torch.where(usable, frame.depth, torch.full_like(frame.depth, torch.inf))
    around = unfold(pad(depth[None], (1, 1, 1, 1), value=torch.inf), 3)[0].reshape(9, height, width)
    alike = (around - frame.depth).abs() < CLEARLY * frame.depth
    return alike.sum(0, keepdim=True) - usable.long()  # the pixel itself is one of the nine


def far_from_edges(
    depth: Float[Tensor, "1 h w"], usable: Bool[Tensor, "1 h w"], reach: int, bend: float = STRAIGHT
) -> Bool[Tensor, "1 h w"]:
    """Pixels all of whose neighbors within ``reach`` are in the image, usable and part of one surface.

    Those lie at one depth, or on one slope: in the image of a plane inverse depth bends nowhere.
    """
    inverse = torch.where(usable, 1.0 / depth, torch.zeros_like(depth))
    inside = torch.zeros_like(usable)
    inside[:, reach : depth.shape[1] - reach, reach : depth.shape[2] - reach] = True
    near, far = dilate(inverse, reach), erode(inverse, reach)
    straight = erode((_bend(inverse) < bend * inverse).float(), reach) > 0
    return inside & (far > 0) & ((near < far * (1.0 + CLEARLY)) | straight)


def _bend(inverse: Float[Tensor, "1 h w"]) -> Float[Tensor, "1 h w"]:
    """Second differences, the larger of those along rows and columns; 0 at the border, where there are none."""
    bend = torch.zeros_like(inverse)
    for axis in (-1, -2):
        if (count := inverse.shape[axis] - 2) > 0:
            inner = bend.narrow(axis, 1, count)
            inner.copy_(torch.maximum(inner, inverse.diff(n=2, dim=axis).abs()))
    return bend
