"""What a cache shows to one camera, with what the integration rules need."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class RenderedView:
    """What a cache shows to one camera, with what the rules need. All ``[1 h w]`` but ``rgb [3 h w]``.

    Attributes:
        rgb, depth, coverage, confidence, sky: as in `Guide`.
        spread: relative standard deviation of inverse depth inside the pixel.
        observed: share of the covered part that a camera observed.
        away: share of the covered part that is seen from behind.
    """

    rgb: Float[Tensor, "3 h w"]
    depth: Float[Tensor, "1 h w"]
    coverage: Float[Tensor, "1 h w"]
    confidence: Float[Tensor, "1 h w"]
    sky: Float[Tensor, "1 h w"]
    spread: Float[Tensor, "1 h w"]
    observed: Float[Tensor, "1 h w"]
    away: Float[Tensor, "1 h w"]
