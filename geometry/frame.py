"""RGB-D frames, chunks of them, and the guide that a world cache renders.

Kernels on the CPU; the methods named ``_reference`` are the same in tensor operations, used on other devices.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor
from torch.nn.functional import avg_pool2d

from geometry.camera import Camera
from geometry.jit import for_blocks
from geometry.pooling_kernels import pool_frame, pool_guide

# Share of a pixel from which on it counts as covered by the cache. Below it, less than half of the color and the depth
# comes from known geometry, and the pixel is a hole to be generated. Every stage uses this one threshold.
COVERED = 0.5
# Share of sky in the covered part above which a pixel is sky: it takes the depth of its larger part.
SKY = 0.5
ROWS = 16  # of pooled images per call of a kernel


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

    def pooled(self, factor: int) -> Frame:
        """Frames ``[t]`` of a ``factor``-th of the size: the mean color, and the surface that most of a square shows.

        Depth is the harmonic mean of that surface's pixels, because inverse depth is linear over a plane. Colors are
        rounded to 8 bits, as stored frames are.
        """
        if factor == 1:
            return self
        if self.rgb.device.type != "cpu":
            return self.pooled_reference(factor)
        count, (height, width) = len(self), self.camera.size
        height, width = height // factor, width // factor
        out, flags = np.empty((count, 4, height, width), np.float32), np.empty((count, 2, height, width), np.bool_)
        maps = [part[:, 0].contiguous().numpy() for part in (self.depth.float(), self.valid, self.sky)]
        fixed = (self.rgb.float().contiguous().numpy(), *maps, factor, out, flags)
        for_blocks(count * height, ROWS, lambda i, j: pool_frame(i, j, *fixed))
        rgb, depth = torch.from_numpy(out).split([3, 1], 1)
        valid, sky = torch.from_numpy(flags).split(1, 1)
        return Frame(rgb, depth, valid, sky, self.camera.pooled(factor), self.metric)

    def pooled_reference(self, factor: int) -> Frame:
        """`pooled` in tensor operations."""
        surface = _shares(self.surface, factor)
        inverse = avg_pool2d(torch.where(self.surface, 1.0 / self.depth, 0.0), factor)
        sky = _shares(self.sky & self.valid, factor) > surface
        far = avg_pool2d(torch.where(self.sky, self.depth, 0.0), factor) / _shares(self.sky, factor).clamp_min(1e-6)
        near = torch.where(surface > 0.0, surface / inverse.clamp_min(1e-10), 1.0)
        rgb = (avg_pool2d(self.rgb, factor) * 255.0).round() / 255.0
        valid = _shares(self.valid, factor) >= 0.5
        return Frame(rgb, torch.where(sky, far, near), valid, sky, self.camera.pooled(factor), self.metric)

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

    def pooled(self, factor: int) -> Chunk:
        """The chunk at a ``factor``-th of the size, see `Frame.pooled`."""
        if factor == 1:
            return self
        return replace(self, frames=self.frames.pooled(factor), confidence=avg_pool2d(self.confidence, factor))

    def around_valid(self, margin_px: int) -> Chunk:
        """The part of the frames that holds every valid pixel, with a margin; all of them where none is valid."""
        valid = self.frames.valid.any(0)[0]
        if not valid.any():
            return self
        rows, columns = (_bounds(valid.any(axis), margin_px) for axis in (1, 0))
        frames, part = self.frames, (slice(None), slice(None), rows, columns)
        maps = (frames.rgb[part], frames.depth[part], frames.valid[part], frames.sky[part])
        cropped = Frame(*maps, frames.camera.cropped(rows, columns), frames.metric)
        return replace(self, frames=cropped, confidence=self.confidence[part])

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

    def pooled(self, factor: int) -> Guide:
        """The guide at a ``factor``-th of its size: means over squares, weighted as the maps are defined.

        Depth is the harmonic mean of what covers most of the square, surface or sky.
        """
        if factor == 1:
            return self
        if self.rgb.device.type != "cpu":
            return self.pooled_reference(factor)
        count, (height, width) = len(self), self.camera.size
        height, width = height // factor, width // factor
        out = np.empty((count, 7, height, width), np.float32)
        maps = [
            part[:, 0].float().contiguous().numpy() for part in (self.depth, self.coverage, self.confidence, self.sky)
        ]
        limits = np.float32(COVERED), np.float32(SKY)
        fixed = (self.rgb.float().contiguous().numpy(), *maps, factor, limits, out)
        for_blocks(count * height, ROWS, lambda i, j: pool_guide(i, j, *fixed))
        rgb, depth, coverage, confidence, sky = torch.from_numpy(out).split([3, 1, 1, 1, 1], 1)
        return Guide(rgb, depth, coverage, confidence, sky, self.camera.pooled(factor))

    def pooled_reference(self, factor: int) -> Guide:
        """`pooled` in tensor operations."""
        coverage = avg_pool2d(self.coverage, factor)
        over = coverage.clamp_min(1e-6)
        rgb, sky = (avg_pool2d(part * self.coverage, factor) / over for part in (self.rgb, self.sky))
        inverse = torch.where(self.depth > 0.0, 1.0 / self.depth.clamp_min(1e-10), 0.0)
        depth = torch.zeros_like(coverage)
        for kind in (self.covered & ~self.sky_mask, self.covered & self.sky_mask):
            share = _shares(kind, factor)
            mean = share / avg_pool2d(inverse * kind, factor).clamp_min(1e-10)
            larger = share >= 0.5 * _shares(self.covered, factor)
            depth = torch.where(larger & (share > 0.0), mean, depth)
        confidence = avg_pool2d(self.confidence, factor)
        return Guide(rgb, depth, coverage, confidence, sky, self.camera.pooled(factor))

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


def repeated(values: Shaped[Tensor, "t c h w"], factor: int) -> Shaped[Tensor, "t c h2 w2"]:
    """Images at ``factor`` times their size, each pixel as a square of equal ones."""
    return values.repeat_interleave(factor, -2).repeat_interleave(factor, -1)


def _shares(mask: Bool[Tensor, "t 1 h w"], factor: int) -> Float[Tensor, "t 1 h2 w2"]:
    """Share of a mask in each square of ``factor`` x ``factor`` pixels."""
    return avg_pool2d(mask.float(), factor)


def _bounds(mask: Bool[Tensor, "n"], margin: int) -> slice:
    """From the first to the last place of a mask that is True, with a margin inside the mask."""
    places = mask.nonzero()[:, 0]
    return slice(max(int(places[0]) - margin, 0), min(int(places[-1]) + 1 + margin, len(mask)))
