"""One block of primitives, and the journal of changes since the last `BlockStore.take_change`."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from cache3d.store.block_files import Stored


class Block:
    """The rows of one cell: in memory (columns with spare capacity, ids first), on disk, or both."""

    def __init__(self, empty: list[Tensor]) -> None:
        self.room: list[Tensor] | None = empty  # columns, spare capacity included; None: on disk alone
        self.count = 0
        self.stored: Stored | None = None  # None: the disk does not hold what memory holds
        self.loading: Future[list[Tensor]] | None = None
        self.saving: Future[Stored] | None = None

    @property
    def capacity(self) -> int:
        """Rows that memory is allocated for."""
        return 0 if self.room is None else len(self.room[0])

    @property
    def columns(self) -> list[Tensor]:
        """The rows in memory."""
        assert self.room is not None
        return [column[: self.count] for column in self.room]

    def append(self, columns: list[Tensor]) -> None:
        """Add rows; capacity grows by half."""
        assert self.room is not None
        needed = self.count + len(columns[0])
        if needed > len(self.room[0]):
            capacity = max(needed, 3 * self.count // 2)
            grown = [column.new_empty(capacity, *column.shape[1:]) for column in self.room]
            for old, new in zip(self.columns, grown, strict=True):
                new[: self.count] = old
            self.room = grown
        for column, new in zip(self.room, columns, strict=True):
            column[self.count : needed] = new
        self.count = needed

    def keep(self, mask: Tensor) -> None:
        """Keep the rows of a mask."""
        self.room = [column[mask] for column in self.columns]
        self.count = len(self.room[0])


@dataclass
class Journal:
    """Ids of the rows below ``since`` that changed or were removed, for `BlockStore.take_change`."""

    since: int = 0
    changed: list[np.ndarray] = field(default_factory=list)
    removed: list[np.ndarray] = field(default_factory=list)
