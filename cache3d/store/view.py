"""The stored primitives that a camera may see, kept up to date while primitives come and go."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Generic, TypeVar

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from geometry.primitives import Gaussians, Points

P = TypeVar("P", Points, Gaussians)


@dataclass(frozen=True)
class View(Generic[P]):
    """A copy of the rows of all blocks that a camera may see, in the order of arrival.

    Attributes:
        rows: the primitives; to change them, see `BlockStore.edit`.
        ids: of each, ``[n]`` int64, ascending.
    """

    rows: P
    ids: Int[Tensor, "n"]

    def with_new(self, rows: P, ids: Int[Tensor, "m"]) -> View[P]:
        """With more rows, whose ids are all larger."""
        both = (torch.cat([getattr(self.rows, f.name), getattr(rows, f.name)]) for f in fields(rows))
        return View(type(self.rows)(*both), torch.cat([self.ids, ids]))

    def without(self, ids: np.ndarray) -> View[P]:
        """Without the rows of some ids; ids that it does not hold are ignored."""
        kept = np.isin(self.ids.cpu().numpy(), ids, assume_unique=True, invert=True)
        index = torch.from_numpy(np.flatnonzero(kept)).to(self.ids.device)
        rows = (getattr(self.rows, f.name).index_select(0, index) for f in fields(self.rows))  # faster than indexing
        return View(type(self.rows)(*rows), self.ids.index_select(0, index))


@dataclass
class Edit(Generic[P]):
    """What `BlockStore.edit` is to store.

    Attributes:
        view: the rows that may be written to.
        written: indices into the view of the rows that were written to, ``[k]`` int64; none at first.
        removed: indices into the view of the rows to remove for good, ``[k]`` int64; none at first.
    """

    view: View[P]
    written: Int[Tensor, "k"]
    removed: Int[Tensor, "k"]
