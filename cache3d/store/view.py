"""What a camera may see of the stored primitives, and how it follows what comes and goes."""

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
        rows: the primitives; write to them, then `BlockStore.put` what was written.
        names: their names, ``[n]`` int64, ascending.
    """

    rows: P
    names: Int[Tensor, "n"]

    def with_new(self, rows: P, names: Int[Tensor, "m"]) -> View[P]:
        """With more rows, all of them named later."""
        both = (torch.cat([getattr(self.rows, f.name), getattr(rows, f.name)]) for f in fields(rows))
        return View(type(self.rows)(*both), torch.cat([self.names, names]))

    def without(self, names: np.ndarray) -> View[P]:
        """Without the rows of some names, of which it may have none."""
        kept = np.isin(self.names.cpu().numpy(), names, assume_unique=True, invert=True)
        index = torch.from_numpy(np.flatnonzero(kept)).to(self.names.device)
        rows = (getattr(self.rows, f.name).index_select(0, index) for f in fields(self.rows))  # faster than indexing
        return View(type(self.rows)(*rows), self.names.index_select(0, index))
