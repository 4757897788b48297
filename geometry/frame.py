"""Frames and what the cache renders for them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geometry.camera import Camera


@dataclass(frozen=True)
class Frame:
    """RGB-D images with the cameras that took them; one frame (no batch) or a batch.

    Attributes:
        rgb: colors in 0..1, sRGB-encoded, ``[*b 3 H W]``.
        depth: z along the optical axis in scene units, ``[*b 1 H W]``; meaningful only where ``valid``.
        valid: where ``depth`` can be used, sky included, ``[*b 1 H W]``.
        sky: where the surface is so far that it never parallaxes, ``[*b 1 H W]``; ``depth`` holds a far distance there.
        camera: cameras with the same batch and size.
        metric: whether a scene unit is a meter.
    """

    rgb: Float[Tensor, "*b 3 h w"]
    depth: Float[Tensor, "*b 1 h w"]
    valid: Bool[Tensor, "*b 1 h w"]
    sky: Bool[Tensor, "*b 1 h w"]
    camera: Camera
    metric: bool = False

    def __len__(self) -> int:
        """Length of the first batch dimension."""
        return self.rgb.shape[0]

    def __getitem__(self, index: int | slice | Tensor | list[int]) -> Frame:
        """Index the first batch dimension; an int removes it."""
        return Frame(
            self.rgb[index], self.depth[index], self.valid[index], self.sky[index], self.camera[index], self.metric
        )

    @staticmethod
    def concatenate(frames: list[Frame]) -> Frame:
        """Join batches ``[t_i]`` into one ``[sum t_i]``."""
        return Frame(
            torch.cat([f.rgb for f in frames]),
            torch.cat([f.depth for f in frames]),
            torch.cat([f.valid for f in frames]),
            torch.cat([f.sky for f in frames]),
            Camera.concatenate([f.camera for f in frames]),
            frames[0].metric,
        )


@dataclass(frozen=True)
class Chunk:
    """Consecutive frames that enter the world together.

    Attributes:
        frames: a batch ``[t]`` of frames.
        index: position in the world's history; 0 is the photo.
        observed: True for what a camera saw, False for what a generator made.
        confidence: trust in each pixel, 0..1, ``[t 1 H W]`` (1 = a camera saw it).
    """

    frames: Frame
    index: int
    observed: bool
    confidence: Float[Tensor, "t 1 h w"]


@dataclass(frozen=True)
class Guide:
    """What the world cache shows to a batch ``[t]`` of cameras.

    Attributes:
        rgb: colors in 0..1, normalized by coverage (no darkening at soft edges), 0 where nothing was hit.
        depth: expected z of what was hit; meaningful only where ``coverage > 0``, 0 elsewhere.
        coverage: share of the pixel that the cache covers, 0..1.
        confidence: how far the pixel can be believed, 0..1; 0 where ``coverage`` is 0.
        sky: share of the covered part that is sky, 0..1.
        camera: the cameras it was rendered for.
    """

    rgb: Float[Tensor, "t 3 h w"]
    depth: Float[Tensor, "t 1 h w"]
    coverage: Float[Tensor, "t 1 h w"]
    confidence: Float[Tensor, "t 1 h w"]
    sky: Float[Tensor, "t 1 h w"]
    camera: Camera

    def __len__(self) -> int:
        """Number of frames."""
        return self.rgb.shape[0]

    def __getitem__(self, index: slice | list[int] | Tensor) -> Guide:
        """Select frames; always keeps the batch dimension."""
        return Guide(
            self.rgb[index],
            self.depth[index],
            self.coverage[index],
            self.confidence[index],
            self.sky[index],
            self.camera[index],
        )

    @staticmethod
    def concatenate(guides: list[Guide]) -> Guide:
        """Join batches ``[t_i]`` into one ``[sum t_i]``."""
        return Guide(
            torch.cat([g.rgb for g in guides]),
            torch.cat([g.depth for g in guides]),
            torch.cat([g.coverage for g in guides]),
            torch.cat([g.confidence for g in guides]),
            torch.cat([g.sky for g in guides]),
            Camera.concatenate([g.camera for g in guides]),
        )
