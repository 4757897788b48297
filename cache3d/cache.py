"""The protocol of a world cache, and what every cache checks and counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from geometry.camera import Camera
from geometry.frame import Chunk, Frame, Guide
from geometry.primitives import Gaussians, Points


@dataclass(frozen=True)
class Integration:
    """What one chunk changed.

    Attributes:
        added: new primitives.
        refined: existing primitives whose colour or confidence improved.
        total: primitives now in the cache.
        first: index of the first new primitive; ``snapshot(first)`` is what is new.
    """

    added: int
    refined: int
    total: int
    first: int


@runtime_checkable
class WorldCache(Protocol):
    """What persists of the world: it grows where there is something new and shows itself to any camera.

    New primitives come last. Positions never change; colours and confidences may, and a primitive that a rule of
    `cache3d.insertion` retires has opacity 0 until `integrate` closes the gaps, before it adds anything. Rendering and
    integration are deterministic.
    """

    def integrate(self, chunk: Chunk, remembered: Frame | None = None) -> Integration:
        """Add what a chunk shows and the cache does not; refine what it shows better, and what ``remembered`` shows.

        A cache keeps no frames of its own: who resumes a walk hands it the same remembered frames ``[k]`` again.
        """
        ...

    def render(self, camera: Camera) -> Guide:
        """Show the cache to a batch ``[t]`` of cameras of any image size."""
        ...

    def snapshot(self, first: int = 0) -> Points | Gaussians:
        """A copy of the primitives from index ``first`` on."""
        ...

    def load(self, primitives: Points | Gaussians) -> None:
        """Replace the content by a snapshot; renders bit-identically afterwards."""
        ...

    def __len__(self) -> int:
        """Number of primitives."""
        ...


def check_chunk(chunk: Chunk) -> None:
    """Refuse a chunk that would spoil the world.

    Raises:
        ValueError: for parts that disagree in shape, and for non-finite or non-positive depth where ``valid``.
    """
    frames = chunk.frames
    if frames.rgb.ndim != 4:
        raise ValueError(f"frames: want a batch [t 3 h w], got {list(frames.rgb.shape)}; add a batch axis")
    t, _, h, w = frames.rgb.shape
    for name, part in (("depth", frames.depth), ("valid", frames.valid), ("sky", frames.sky),
                       ("confidence", chunk.confidence)):  # fmt: skip
        if part.shape != (t, 1, h, w):
            raise ValueError(f"{name}: want {[t, 1, h, w]} like rgb, got {list(part.shape)}; resample it")
    if frames.camera.size != (h, w) or frames.camera.batch_shape != (t,):
        got = f"{list(frames.camera.batch_shape)} of {frames.camera.size}"
        raise ValueError(f"camera: want {[t]} cameras of {(h, w)}, got {got}; use Camera.resized")
    depth = frames.depth[frames.valid]
    if not (torch.isfinite(depth) & (depth > 0)).all():
        raise ValueError("depth: want finite, positive values where valid, got others; mark those pixels invalid")
    if not torch.isfinite(frames.rgb).all():
        raise ValueError("rgb: want finite values, got NaN or infinity")
