"""RGB-D frames, chunks of them, and the guide that a world cache renders."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geometry.camera import Camera

# Share of a pixel from which on it counts as covered by the cache. Below it, less than half of the color and the depth
# comes from known geometry, and the pixel is a hole to be generated. Every stage uses this one threshold.
COVERED = 0.5
# Share of sky in the covered part above which a pixel is sky: it takes the depth of its larger part.
SKY = 0.5


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

    @property
    def surface(self) -> Bool[Tensor, "*b 1 h w"]:
        """Where the frame shows a surface at a known, finite distance: valid and not sky."""
        return self.valid & ~self.sky

    def median_depth(self) -> float:
        """Median depth of the surface pixels of all frames, scene units; 1 where there is none."""
        surface = self.surface
        return self.depth[surface].median().item() if surface.any() else 1.0

    def to(self, device: torch.device | str) -> Frame:
        """Move every tensor to a device."""
        parts = (self.rgb, self.depth, self.valid, self.sky)
        return Frame(*(part.to(device) for part in parts), camera=self.camera.to(device), metric=self.metric)

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
class Observation:
    """One frame as the world cache integrates it.

    Attributes:
        frame: one frame, no batch axis.
        confidence: estimated probability that a pixel is right, 0..1, ``[1 H W]``; 1 for what a camera observed.
        observed: True for what a camera observed, False for what a generator made.
    """

    frame: Frame
    confidence: Float[Tensor, "1 h w"]
    observed: bool

    def to(self, device: torch.device | str) -> Observation:
        """Move every tensor to a device."""
        return Observation(self.frame.to(device), self.confidence.to(device), self.observed)


@dataclass(frozen=True)
class Chunk:
    """Consecutive frames that enter the world together.

    Attributes:
        frames: a batch ``[t]`` of frames.
        index: position in the world's history; 0 is the photo.
        observed: True for what a camera observed, False for what a generator made.
        confidence: estimated probability that a pixel is right, 0..1, ``[t 1 H W]``; 1 for what a camera observed.
    """

    frames: Frame
    index: int
    observed: bool
    confidence: Float[Tensor, "t 1 h w"]

    def every_second(self) -> Chunk:
        """Every second frame, always the last one: the others show the same surfaces at the same cost."""
        kept = every_second(len(self.frames))
        return replace(self, frames=self.frames[kept], confidence=self.confidence[kept])

    def observation(self, k: int) -> Observation:
        """Frame ``k`` with its confidence and provenance."""
        return Observation(self.frames[k], self.confidence[k], self.observed)


@dataclass(frozen=True)
class Guide:
    """The world cache rendered from a batch ``[t]`` of cameras; all maps are ``[t c H W]``.

    Attributes:
        rgb: colors in 0..1, normalized by coverage (no darkening at soft edges); 0 where ``coverage`` is 0.
        depth: expected z of the rendered surface, scene units; 0 where ``coverage`` is 0.
        coverage: share of the pixel that the cache covers, 0..1.
        confidence: estimated probability that the pixel is right, 0..1; 0 where ``coverage`` is 0.
        sky: share of the covered part that is sky, 0..1.
        camera: the cameras it was rendered for.
    """

    rgb: Float[Tensor, "t 3 h w"]
    depth: Float[Tensor, "t 1 h w"]
    coverage: Float[Tensor, "t 1 h w"]
    confidence: Float[Tensor, "t 1 h w"]
    sky: Float[Tensor, "t 1 h w"]
    camera: Camera

    @property
    def covered(self) -> Bool[Tensor, "t 1 h w"]:
        """Pixels that the cache covers, by the threshold `COVERED`."""
        return self.coverage >= COVERED

    @property
    def hole(self) -> Bool[Tensor, "t 1 h w"]:
        """Pixels that the cache does not cover and a generator must fill."""
        return self.coverage < COVERED

    @property
    def sky_mask(self) -> Bool[Tensor, "t 1 h w"]:
        """Pixels most of whose covered part is sky."""
        return self.sky > SKY

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


def every_second(frames: int) -> list[int]:
    """Indices of the frames of a chunk that enter the cache: every second one, always the last."""
    return list(range((frames - 1) % 2, frames, 2))
