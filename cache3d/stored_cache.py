"""What world caches of every kind of primitive do with their store: page, copy, load, apply changes."""

from __future__ import annotations

from pathlib import Path
from typing import Generic

import torch
from jaxtyping import Int
from torch import Tensor

from cache3d.store.block_store import BlockStore
from cache3d.store.view import P
from geometry.camera import Camera
from geometry.primitives import Change, Gaussians, Points


class StoredCache(Generic[P]):
    """The part of the protocol `cache3d.cache.WorldCache` that is the same for all primitives.

    Args:
        empty: no primitives, of the kind and on the device to store.
        resident_mib: bound on the primitives in memory, MiB; the rest goes to disk.

    Raises:
        ValueError: for a bound that is not positive.
    """

    def __init__(self, empty: P, resident_mib: float | int) -> None:
        self._kind = type(empty)
        self._store = BlockStore(empty, resident_mib)

    def __len__(self) -> int:
        return len(self._store)

    def prefetch(self, camera: Camera) -> None:
        """Start to read from disk, in the background, what a batch ``[t]`` of cameras will see."""
        self._store.prefetch(camera)

    def page_to(self, folder: Path) -> None:
        """Write what does not fit in memory to ``folder`` from now on."""
        self._store.page_to(folder)

    def snapshot(self, first: int = 0) -> P:
        """A copy of the primitives whose ids are at least ``first``, in the order of arrival."""
        return self._store.copy(first)

    def ids(self) -> Int[Tensor, "n"]:
        """Ids of all primitives, in the order of arrival."""
        return self._store.ids()

    @torch.no_grad()
    def apply(self, change: Change) -> None:
        """Apply the change of an `Integration`; afterwards this renders bit-identically to that cache.

        Raises:
            ValueError: for primitives of another kind.
        """
        self._check_kind(change.rows)
        self._store.apply(change)

    def load(self, primitives: Points | Gaussians) -> None:
        """Replace the content by a snapshot; renders bit-identically afterwards.

        Raises:
            ValueError: for primitives of another kind.
        """
        self._check_kind(primitives)
        self._store = self._store.emptied()
        self._store.apply(Change.from_nothing(primitives))

    def _check_kind(self, primitives: Points | Gaussians) -> None:
        if not isinstance(primitives, self._kind):
            raise ValueError(
                f"primitives: want {self._kind.__name__}, got {type(primitives).__name__}; use the cache that made them"
            )
