"""The condition of the generator: the rendered guide and the inpainted prior that completes it."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from geometry.frame import Guide


@dataclass(frozen=True)
class Prior:
    """A guide whose holes are filled; made by `diffusion.inpainting.prior.inpaint_prior`.

    Attributes:
        rgb: colors in 0..1, ``[t 3 h w]``; equal to the guide's where ``copied`` is 0.
        depth: z in scene units, positive everywhere, ``[t 1 h w]``; equal to the guide's where ``copied`` is 0.
        copied: 1 where the pixel was filled, 0 where the cache rendered it, ``[t 1 h w]``.
        smooth_rgb: the same holes filled by smooth interpolation, ``[t 3 h w]``.
        smooth_depth: as ``smooth_rgb``, for ``depth``, ``[t 1 h w]``.
        locked: thin parts of holes that keep what was copied for another frame, where the same place is part of a wide
            hole, ``[t 1 h w]``. The generator must not change them.
    """

    rgb: Float[Tensor, "t 3 h w"]
    depth: Float[Tensor, "t 1 h w"]
    copied: Float[Tensor, "t 1 h w"]
    smooth_rgb: Float[Tensor, "t 3 h w"]
    smooth_depth: Float[Tensor, "t 1 h w"]
    locked: Bool[Tensor, "t 1 h w"]

    def __getitem__(self, index: slice) -> Prior:
        """Select frames."""
        parts = (self.rgb, self.depth, self.copied, self.smooth_rgb, self.smooth_depth, self.locked)
        return Prior(*(part[index] for part in parts))


@dataclass(frozen=True)
class Condition:
    """The guide that the cache rendered and its completed prior, for the same ``t`` cameras."""

    guide: Guide
    prior: Prior
