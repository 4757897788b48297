"""The protocol of a world cache, and the check and the result of an integration."""

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
    """The result of integrating one chunk.

    Attributes:
        added: number of new primitives.
        refined: number of generated primitives that a more confident frame blended.
        total: primitives now in the cache.
        first: id of the first new primitive; ``snapshot(first)`` holds the new ones.
        change: rows that changed; another cache can `apply` it.
    """

    added: int
    refined: int
    total: int
    first: int
    change: Change = field(compare=False, repr=False)

    def then(self, later: Integration) -> Integration:
        """Both integrations as one."""
        added, refined = self.added + later.added, self.refined + later.refined
        return Integration(added, refined, later.total, self.first, self.change.then(later.change))


@runtime_checkable
class WorldCache(Protocol):
    """A growing set of primitives that integrates chunks of frames and renders guides.

    The id of a primitive is its place in the order of arrival and never changes or returns. Colors, confidences and,
    within bounds, the geometry of Gaussians may change, and primitives retire by the rules of
    `cache3d.integration.rules`. Rendering and integration are deterministic and do not depend on what is in memory and
    what on disk.
    """

    def integrate(self, chunk: Chunk, remembered: Frame | None = None) -> Integration:
        """Integrate a chunk; ``remembered`` frames ``[k]``, the photo first, are fitted along with it.

        A cache keeps no frames: to continue a world, pass the same remembered frames again. A chunk without frames
        changes nothing.
        """
        ...

    def render(self, camera: Camera, samples: int | None = None) -> Guide:
        """Render the cache from a batch ``[t]`` of cameras of any image size.

        Args:
            camera: the cameras.
            samples: per pixel and axis, where the cache draws samples; None: as it is set.
        """
        ...

    def prefetch(self, camera: Camera) -> None:
        """Start to read from disk, in the background, what a batch ``[t]`` of cameras will see."""
        ...

    def page_to(self, folder: Path) -> None:
        """Write what does not fit in memory to ``folder`` from now on."""
        ...

    def snapshot(self, first: int = 0) -> Points | Gaussians:
        """A copy of the primitives whose ids are at least ``first``, in the order of arrival."""
        ...

    def ids(self) -> Int[Tensor, "n"]:
        """Ids of all primitives, in the order of arrival."""
        ...

    def load(self, primitives: Points | Gaussians) -> None:
        """Replace the content by a snapshot; renders bit-identically afterwards."""
        ...

    def apply(self, change: Change) -> None:
        """Apply the change of an `Integration`; afterwards this renders bit-identically to that cache."""
        ...

    def __len__(self) -> int:
        """Number of primitives."""
        ...


@runtime_checkable
class ShowingCache(Protocol):
    """A `WorldCache` that renders faster for eyes alone."""

    def show(self, camera: Camera, samples: int | None = None) -> Guide:
        """As `WorldCache.render`, but the confidence may be anything."""
        ...


def check_chunk(chunk: Chunk) -> None:
    """Refuse a chunk that cannot be integrated.

    Raises:
        ValueError: for parts that disagree in shape, and for non-finite or non-positive depth where ``valid``.
    """
    frames = chunk.frames
    if frames.rgb.ndim != 4:
        raise ValueError(f"frames: want a batch [t 3 h w], got {list(frames.rgb.shape)}; add a batch axis")
    t, _, h, w = frames.rgb.shape
    maps = {"depth": frames.depth, "valid": frames.valid, "sky": frames.sky, "confidence": chunk.confidence}
    for name, values in maps.items():
        if values.shape != (t, 1, h, w):
            raise ValueError(f"{name}: want {[t, 1, h, w]} like rgb, got {list(values.shape)}; resample it")
    if frames.camera.size != (h, w) or frames.camera.batch_shape != (t,):
        got = f"{list(frames.camera.batch_shape)} of {frames.camera.size}"
        raise ValueError(f"camera: want {[t]} cameras of {(h, w)}, got {got}; use Camera.resized")
    depth = frames.depth[frames.valid]
    if not (torch.isfinite(depth) & (depth > 0)).all():
        raise ValueError("depth: want finite, positive values where valid, got others; mark those pixels invalid")
    if not torch.isfinite(frames.rgb).all():
        raise ValueError("rgb: want finite values, got NaN or infinity")
