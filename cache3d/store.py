"""Append-only storage of primitives that grows by doubling."""

from __future__ import annotations

from dataclasses import fields
from typing import Generic, TypeVar

import torch

from geometry.primitives import Gaussians, Points

P = TypeVar("P", Points, Gaussians)


class GrowingStore(Generic[P]):
    """Primitives in arrays with room to spare: appending costs what is appended, on average."""

    def __init__(self, empty: P) -> None:
        self._kind = type(empty)
        self._room = empty
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def live(self) -> P:
        """All primitives, as views into the storage: writing to them writes to the store."""
        return self._room[: self._count]

    def append(self, part: P) -> None:
        """Add primitives at the end."""
        needed = self._count + len(part)
        if needed > len(self._room):
            self._grow(max(needed, 2 * self._count))
        for field in fields(self._kind):
            getattr(self._room, field.name)[self._count : needed] = getattr(part, field.name)
        self._count = needed

    def copy(self, first: int) -> P:
        """A copy of the primitives from index ``first`` on."""
        live = self.live
        return self._kind(*(getattr(live, field.name)[first:].clone() for field in fields(self._kind)))

    def _grow(self, capacity: int) -> None:
        grown = []
        for field in fields(self._kind):
            old = getattr(self._room, field.name)
            new = torch.empty(capacity, *old.shape[1:], dtype=old.dtype, device=old.device)
            new[: self._count] = old[: self._count]
            grown.append(new)
        self._room = self._kind(*grown)
