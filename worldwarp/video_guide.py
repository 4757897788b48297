"""Video to video: the frames of a clip take the place of the rendered guide, and each is made again from a noise level.

The depth of a frame is estimated and aligned to what the cache shows of the same view, so that the clip enters the
world like any chunk. Its cameras are those of a camera file, or one camera that stands still.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from geometry.depth import DepthEstimator, align_depth
from geometry.frame import Guide
from scenes.photos.clip import ClipReader


@dataclass(frozen=True)
class VideoGuide:
    """Shows the next frames of a clip instead of the cache.

    Attributes:
        clip: open at the first frame that is not finished yet.
        depth: of its frames.
        level: noise level at which every pixel starts, 0..1.
    """

    clip: ClipReader
    depth: DepthEstimator
    level: float

    def over(self, known: Guide) -> Guide:
        """The next ``t`` frames of the clip with depth, at the cameras of a rendered guide ``[t]``.

        Raises:
            ValueError: the clip has ended or is damaged.
        """
        rgb = self.clip.take(len(known)).to(known.rgb)
        if len(rgb) < len(known):
            raise ValueError(
                f"video: want {len(known)} more frames, got {len(rgb)} in {str(self.clip.path)!r}; lower frames="
            )
        estimated = self.depth.estimate(rgb, known.camera.focal_px)
        valid = estimated.valid & ~estimated.sky
        weight = known.coverage * known.confidence * (1.0 - known.sky)
        depth = align_depth(estimated.depth, valid, known.depth, weight).depth
        one = torch.ones_like(known.coverage)
        return Guide(rgb, depth, one, (1.0 - self.level) * one, estimated.sky.to(one), known.camera)

    def sigma(self, guide: Guide) -> Float[Tensor, "t 1 h w"]:
        """The noise map: ``level`` everywhere."""
        return torch.full_like(guide.coverage, self.level)
