"""What a stream shows of the world, so that what the cache retires can be made to disappear."""

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
from viz.log_entries import LogEntry, TimePoint, hidden, primitive_row

UNTOLD = 0.01  # of what an entity holds: so much may stay for a while, or a few that go would cost a column each time


@dataclass
class _Part:
    """One entity: names of its primitives, ascending, and the column that hides those that are gone."""

    names: np.ndarray
    values: np.ndarray
    gone: np.ndarray
    told: int = 0  # how many are hidden


class LoggedPrimitives:
    """The primitives that one stream shows, by the entity that holds them.

    An entity cannot lose a part of what it holds, and logging it again would cost all of it. But a single column can be
    logged again: the opacity of what is gone becomes 0 (of points, the radius). That is 4 bytes for each primitive of
    an entity, from then on: going back in time brings them back. It is told when more than `UNTOLD` of an entity went.

    Args:
        limit: show at most this many of those that come at once; the rest is left out at random and those shown grow to
            cover for it. None for no limit.
        take: how often something was undone; its entities are others than those before.
    """

    def __init__(self, limit: int | None, take: int = 0) -> None:
        self._limit, self._take = limit, take
        self._rng = np.random.default_rng(0)  # draws which primitives a viewer does without; nothing of the world
        self._parts: dict[str, _Part] = {}

    def put(self, added: Points | Gaussians, names: Int[Tensor, "n"], when: TimePoint) -> list[LogEntry]:
        """Show new primitives, near ones and sky apart so that the sky can be hidden and does not blow up the view."""
        grow = 1.0
        if self._limit is not None and len(added) > self._limit:
            kept = torch.from_numpy(np.sort(self._rng.choice(len(added), self._limit, replace=False)))
            grow = math.sqrt(len(added) / self._limit)
            added, names = added[kept.to(added.sky.device)], names[kept]
        rows, sky = [], added.sky.cpu()
        for entity, which in (
            (entities.cache(when.chunk, self._take), ~sky),
            (entities.sky(when.chunk, self._take), sky),
        ):
            if which.any():
                row, values = primitive_row(entity, added[which.to(added.sky.device)], when, grow)
                rows.append(row)
                self._parts[entity] = _Part(names[which].numpy(), values, np.zeros(len(values), np.bool_))
        return rows

    def retire(self, names: Int[Tensor, "r"], when: TimePoint) -> list[LogEntry]:
        """Hide primitives of some names, ascending, of which it may show none."""
        rows, retired = [], names.numpy()
        for entity, part in list(self._parts.items()):
            near = retired[np.searchsorted(retired, part.names[0]) : np.searchsorted(retired, part.names[-1], "right")]
            gone = np.isin(part.names, near, assume_unique=True)
            if (part.gone | gone).all():
                rows += self.clear(entity, when)
                continue
            part.gone |= gone
            count = int(part.gone.sum())
            if count - part.told > UNTOLD * len(part.names):
                part.told = count
                rows.append(LogEntry(entity, (hidden(part.values, part.gone),), when))
        return rows

    def clear(self, entity: str, when: TimePoint) -> list[LogEntry]:
        """Take a whole entity away, shown or not."""
        self._parts.pop(entity, None)
        return [LogEntry(entity, (rr.Clear(recursive=False),), when)]
