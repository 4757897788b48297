"""The condition of the generator: the rendered guide and the inpainted prior that completes it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
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
        source: from where a pixel was copied: picture, row, column, ``-1`` where it was not, ``[t 3 h w]``; pictures
            are the frames that were filled together, then the photo. None: nothing was copied.
    """

    rgb: Float[Tensor, "t 3 h w"]
    depth: Float[Tensor, "t 1 h w"]
    copied: Float[Tensor, "t 1 h w"]
    smooth_rgb: Float[Tensor, "t 3 h w"]
    smooth_depth: Float[Tensor, "t 1 h w"]
    locked: Bool[Tensor, "t 1 h w"]
    source: Int[Tensor, "t 3 h w"] | None = None

    @staticmethod
    def known(guide: Guide) -> Prior:
        """The prior of views in which nothing is filled: the guide itself."""
        depth, none = guide.depth.clamp_min(1e-6), torch.zeros_like(guide.coverage)
        return Prior(guide.rgb, depth, none, guide.rgb, depth, none > 0.0)

    def __getitem__(self, index: slice | list[int]) -> Prior:
        """Select frames."""
        source = None if self.source is None else self.source[index]
        return Prior(*(part[index] for part in self._maps), source=source)

    @staticmethod
    def concatenate(priors: list[Prior]) -> Prior:
        """Join views that were filled apart, without their sources."""
        rgb, depth, copied, smooth_rgb, smooth_depth, locked = (
            torch.cat(parts) for parts in zip(*(prior._maps for prior in priors), strict=True)
        )
        return Prior(rgb, depth, copied, smooth_rgb, smooth_depth, locked)

    @property
    def _maps(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        return self.rgb, self.depth, self.copied, self.smooth_rgb, self.smooth_depth, self.locked


@dataclass(frozen=True)
class Condition:
    """The guide that the cache rendered and its completed prior, for the same ``t`` cameras."""

    guide: Guide
    prior: Prior
