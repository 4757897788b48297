"""A world cache rendered from one camera, with the maps that the integration rules need."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geometry.camera import Camera
from geometry.frame import COVERED, SKY, Guide


@dataclass(frozen=True)
class RenderedView:
    """One rendered image; all maps are ``[1 h w]`` but ``rgb [3 h w]``.

    Attributes:
        rgb, depth, coverage, confidence, sky: as in `Guide`.
        spread: relative standard deviation of inverse depth inside the pixel.
        observed: share of the covered part that a camera observed, 0..1.
        away: share of the covered part that shows the back of its surface, 0..1.
    """

    rgb: Float[Tensor, "3 h w"]
    depth: Float[Tensor, "1 h w"]
    coverage: Float[Tensor, "1 h w"]
    confidence: Float[Tensor, "1 h w"]
    sky: Float[Tensor, "1 h w"]
    spread: Float[Tensor, "1 h w"]
    observed: Float[Tensor, "1 h w"]
    away: Float[Tensor, "1 h w"]

    @property
    def covered(self) -> Bool[Tensor, "1 h w"]:
        """Pixels that the cache covers, as `Guide.covered`."""
        return self.coverage >= COVERED

    @property
    def sky_mask(self) -> Bool[Tensor, "1 h w"]:
        """Pixels most of whose covered part is sky, as `Guide.sky_mask`."""
        return self.sky > SKY

    @property
    def generated(self) -> Bool[Tensor, "1 h w"]:
        """Pixels most of whose covered part was generated; only these give way to a generated frame."""
        return self.observed < 0.5


def to_guide(views: list[RenderedView], camera: Camera) -> Guide:
    """Stack rendered views to the guide of their cameras ``[t]``, on the cameras' device."""
    names = ("rgb", "depth", "coverage", "confidence", "sky")
    maps = (torch.stack([getattr(view, name) for view in views]) for name in names)
    return Guide(*(values.to(camera.world_from_camera.device) for values in maps), camera=camera)
