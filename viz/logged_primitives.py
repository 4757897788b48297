"""Tracks the primitives that were logged to a stream, so that retired ones can be hidden."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import rerun as rr
import torch
from jaxtyping import Int
from torch import Tensor

from geometry.primitives import Gaussians, Points
from viz import entities
from viz.log_entries import LogEntry, TimePoint, hidden, primitive_entry


@dataclass
class _Part:
    """One entity: ids of its primitives, ascending; its column for `hidden`; mask of the retired ones."""

    ids: np.ndarray
    values: np.ndarray
    gone: np.ndarray
    n_hidden: int = 0  # retired primitives that the stream already hides


class LoggedPrimitives:
    """The primitives that one stream shows, by entity.

    Rerun cannot remove a part of an entity, and logging the rest again would cost all of its columns. But one column
    can be logged again: opacities of retired Gaussians (radii of points) become 0, 4 bytes per primitive of the entity;
    earlier times still show them. This is done when more than 1 % of an entity was newly retired.

    Args:
        limit: most primitives per update; a larger update is subsampled at random and the rest drawn larger to
            compensate. None for no limit.
        take: number of undos so far; each take has its own entities.
    """

    def __init__(self, limit: int | None, take: int = 0) -> None:
        self._limit, self._take = limit, take
        self._rng = np.random.default_rng(0)  # subsampling for the viewer only; the world does not depend on it
        self._parts: dict[str, _Part] = {}

    def put(self, added: Points | Gaussians, ids: Int[Tensor, "n"], when: TimePoint) -> list[LogEntry]:
        """Log new primitives; sky is a separate entity, so that it can be hidden and does not enlarge the view."""
        grow = 1.0
        if self._limit is not None and len(added) > self._limit:
            kept = torch.from_numpy(np.sort(self._rng.choice(len(added), self._limit, replace=False)))
            grow = math.sqrt(len(added) / self._limit)
            added, ids = added[kept.to(added.sky.device)], ids[kept]
        entries, sky = [], added.sky.cpu()
        for entity, which in (
            (entities.cache(when.chunk, self._take), ~sky),
            (entities.sky(when.chunk, self._take), sky),
        ):
            if which.any():
                entry, values = primitive_entry(entity, added[which.to(added.sky.device)], when, grow)
                entries.append(entry)
                self._parts[entity] = _Part(ids[which].numpy(), values, np.zeros(len(values), np.bool_))
        return entries

    def retire(self, ids: Int[Tensor, "r"], when: TimePoint) -> list[LogEntry]:
        """Hide the primitives with these ids, ascending; ids that are not shown are ignored."""
        entries, retired = [], ids.numpy()
        for entity, part in list(self._parts.items()):
            near = retired[np.searchsorted(retired, part.ids[0]) : np.searchsorted(retired, part.ids[-1], "right")]
            gone = np.isin(part.ids, near, assume_unique=True)
            if (part.gone | gone).all():
                entries += self.clear(entity, when)
                continue
            part.gone |= gone
            count = int(part.gone.sum())
            if count - part.n_hidden > 0.01 * len(part.ids):
                part.n_hidden = count
                entries.append(LogEntry(entity, (hidden(part.values, part.gone),), when))
        return entries

    def clear(self, entity: str, when: TimePoint) -> list[LogEntry]:
        """Clear a whole entity, shown or not."""
        self._parts.pop(entity, None)
        return [LogEntry(entity, (rr.Clear(recursive=False),), when)]
