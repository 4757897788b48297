"""What is new in a frame, given what the cache shows to the same camera. The rules, in one place.

A valid pixel becomes a primitive when one of these holds:

1. *Nothing is there*: the cache covers less than half of the pixel.
2. *It faces away* (Voyager's rule): what is shown there has its normal more than 90° from the view, and the new
   surface is not hidden behind it.
3. *In front of a guess*: what is shown was generated, the new surface is closer by more than 10 %, and the shown depth
   is no mixture of surfaces. Sky that was generated counts as a guess behind everything.

Otherwise the pixel refines what is there. What a camera observed is never covered by what was generated, and no
primitive ever moves. A new surface *behind* what is shown is never added: it would not be seen, and would be added
again in every frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geometry.frame import Frame

COVERED = 0.5
CLEARLY = 0.1  # relative depth difference between two surfaces
MIXED = 0.1  # relative spread of inverse depth above which a pixel shows a mixture


@dataclass(frozen=True)
class Shown:
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


def new_pixels(shown: Shown, frame: Frame, *, observed: bool) -> Bool[Tensor, "1 h w"]:
    """Which pixels of one frame (no batch axis) become primitives.

    Args:
        shown: what the cache shows to the frame's camera.
        frame: the frame.
        observed: whether a camera saw the frame.
    """
    covered = shown.coverage >= COVERED
    guess = shown.observed < 0.5
    shown_sky = shown.sky > 0.5
    allowed = guess | observed
    not_hidden = shown_sky | (frame.depth < shown.depth * (1.0 + CLEARLY))
    faces_away = (shown.away > 0.75) & not_hidden & ~frame.sky & allowed
    closer = torch.where(shown_sky, ~frame.sky, (frame.depth < shown.depth * (1.0 - CLEARLY)) & (shown.spread < MIXED))
    in_front = guess & closer & ~frame.sky
    return frame.valid & (~covered | faces_away | in_front)
