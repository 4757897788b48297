"""The protocol of a world cache, and what every cache checks and counts."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

from geometry.camera import Camera
from geometry.frame import Chunk, Frame, Guide
from geometry.primitives import Change, Gaussians, Points


@dataclass(frozen=True)
class Integration:
    """What one chunk changed.

    Attributes:
        added: new primitives.
        refined: existing primitives whose color or confidence improved.
        total: primitives now in the cache.
        first: name of the first new primitive; ``snapshot(first)`` is what is new.
        change: what there is to store, so that another cache can `apply` it.
    """

    added: int
    refined: int
    total: int
    first: int
    change: Change = field(compare=False, repr=False)

    def then(self, later: Integration) -> Integration:
        """Both as one."""
        added, refined = self.added + later.added, self.refined + later.refined
        return Integration(added, refined, later.total, self.first, self.change.then(later.change))


@runtime_checkable
class WorldCache(Protocol):
    """What persists of the world: it grows where there is something new and shows itself to any camera.

    A primitive is named by its place in the order of arrival and keeps that name for good. Colors, confidences and,
    within bounds, the geometry of Gaussians may change, and what a rule of `cache3d.integration.rules` retires is taken away.
    Rendering and integration are deterministic and do not depend on what is in memory and what on disk.
    """

    def integrate(self, chunk: Chunk, remembered: Frame | None = None) -> Integration:
        """Add what a chunk shows and the cache does not; refine what it shows better, and what ``remembered`` shows.

        A cache keeps no frames of its own: who resumes a walk hands it the same remembered frames ``[k]`` again.
        """
        ...

    def render(self, camera: Camera) -> Guide:
        """Show the cache to a batch ``[t]`` of cameras of any image size."""
        ...

    def prefetch(self, camera: Camera) -> None:
        """Start to bring back from disk, in the background, what a batch ``[t]`` of cameras will see."""
        ...

    def page_to(self, folder: Path) -> None:
        """Keep what does not fit in memory in ``folder`` from now on."""
        ...

    def snapshot(self, first: int = 0) -> Points | Gaussians:
        """A copy of the primitives named from ``first`` on, in the order of their arrival."""
        ...

    def names(self) -> Int[Tensor, "n"]:
        """Of all that there is, in the order of arrival."""
        ...

    def load(self, primitives: Points | Gaussians) -> None:
        """Replace the content by a snapshot; renders bit-identically afterwards."""
        ...

    def apply(self, change: Change) -> None:
        """Do what an `Integration` says was done; afterwards this renders bit-identically to that cache."""
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
