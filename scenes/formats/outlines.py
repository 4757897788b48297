"""Gaussians at outlines before the sky, so that programs with plain compositing show the outlines firm.

A footprint is soft and reaches beyond its outline. Our renderer takes a sample that is mostly sky for sky
(`cache3d.rendering.splat_attributes.sharpen_sky_alpha`); other programs mix the two, and outlines fray into the sky. In
an export the outermost Gaussians before the sky are therefore smaller, and the sky's overlap more.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool
from torch import Tensor

from geometry.filters import dilate
from geometry.frame import Frame
from geometry.primitives import Gaussians
from geometry.project import project


@dataclass(frozen=True)
class OutlinePolicy:
    """Tuned numbers, by dB within two pixels of outlines, plain compositing against our own rendering.

    Attributes:
        frames: how many of a world's frames are looked at, the photo included.
        beside_px: distance from the sky up to which a Gaussian is at an outline.
        same_depth: relative difference in depth below which a frame shows a Gaussian.
        shrink: factor on the scales of Gaussians at outlines. Default .7: .5 is better in a viewer as large as the
            frames, and 3 dB worse in one three times as large.
        sky_growth: factor on the scales of the sky, whose seams would show as dark lines.
    """

    frames: int = 8
    beside_px: int = 1
    same_depth: float = 0.1
    shrink: float = 0.7
    sky_growth: float = 1.6


def firm_outlines(gaussians: Gaussians, frames: Iterable[Frame], policy: OutlinePolicy = OutlinePolicy()) -> Gaussians:
    """The same Gaussians, changed where frames (no batch) see them before the sky; unchanged without sky."""
    if not bool(gaussians.sky.any()):
        return gaussians
    outer = torch.zeros(len(gaussians), dtype=torch.bool, device=gaussians.means.device)
    for frame in frames:
        outer |= _at_outlines(gaussians, frame, policy)
    outer &= ~gaussians.sky
    scale = torch.where(outer, policy.shrink, torch.where(gaussians.sky, policy.sky_growth, 1.0))
    return replace(gaussians, scales=gaussians.scales * scale[:, None])


def _at_outlines(gaussians: Gaussians, frame: Frame, policy: OutlinePolicy) -> Bool[Tensor, "n"]:
    """Which Gaussians a frame shows beside its sky, or before it."""
    height, width = frame.camera.size
    pixels, z = project(gaussians.means[None], frame.camera[None])
    column, row = pixels[0].nan_to_num(-1.0).floor().long().unbind(-1)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height) & (z[0] > 0.01)
    row, column = row.clamp(0, height - 1), column.clamp(0, width - 1)
    sky, depth = frame.sky[0], frame.depth[0]
    beside = (dilate(sky.float()[None], policy.beside_px)[0] > 0.0) & ~sky
    shown = ((z[0] / depth[row, column]) - 1.0).abs() < policy.same_depth
    return inside & ((beside[row, column] & shown) | sky[row, column])
