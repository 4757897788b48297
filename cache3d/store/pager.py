"""Moves blocks between memory and disk: least recently used first, with read-ahead and write-behind."""

from __future__ import annotations

from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path

from torch import Tensor

from cache3d.store.block import Block
from cache3d.store.block_files import PagingError, Scratch, read_block, row_bytes
from cache3d.store.grid import SKY


class Pager:
    """Numbered blocks and a bound on the bytes of those in memory; the least recently used go to disk first.

    Block 0, the sky, never leaves memory.

    Args:
        empty: columns without rows, ids first, on the device to store on.
        limit_bytes: the bound.
        scratch: folder for the other blocks; the system's temporary folder when None.
    """

    def __init__(self, empty: list[Tensor], limit_bytes: float | int, scratch: Path | None) -> None:
        self.blocks = [Block(empty)]
        self.limit_bytes = limit_bytes
        self.scratch = Scratch(scratch)
        self._empty = empty
        self._row_bytes = sum(row_bytes(column) for column in empty)
        self._reader = ThreadPoolExecutor(1, "blocks")  # starts its thread at the first use
        self._recent: OrderedDict[int, None] = OrderedDict()  # blocks in memory or loading, least recently used first
        self._resident = 0  # rows in memory or loading, spare capacity included, without sky

    @property
    def resident_bytes(self) -> int:
        """Bytes of the blocks in memory, sky included."""
        return (self._resident + self.blocks[SKY].capacity) * self._row_bytes

    def new_block(self) -> int:
        """Number of a new, empty block, in memory."""
        number = len(self.blocks)
        self.blocks.append(Block(self._empty))
        self._recent[number] = None
        return number

    def load(self, number: int) -> Block:
        """A block, in memory."""
        block = self.blocks[number]
        if block.room is None:
            loading, block.loading = block.loading, None
            if loading is None:
                self._resident += block.count
            self._recent[number] = None
            assert block.stored is not None
            try:
                columns = read_block(block.stored, self._empty) if loading is None else loading.result()
            except PagingError:
                # It counts as not loaded again, so that a later call tries anew.
                self._drop(number)
                raise
            block.room = [column.to(empty.device) for column, empty in zip(columns, self._empty, strict=True)]
        if number != SKY:
            self._recent.move_to_end(number)
        return block

    def changed(self, number: int, rows_before: int) -> None:
        """Record that a block in memory differs from its file and may have grown from ``rows_before`` rows."""
        block = self.blocks[number]
        if block.saving is not None:
            wait([block.saving])  # two threads must not write one file
        block.stored = block.saving = None
        if number != SKY:
            self._resident += block.capacity - rows_before

    def make_room(self, keep: set[int], rows: int = 0) -> None:
        """Write blocks to disk until ``rows`` more fit, or only those to keep are left."""
        if (self._resident + rows) * self._row_bytes <= self.limit_bytes:
            return
        # A copy, as dropping removes from it.
        for number in [n for n in self._recent if n not in keep]:
            block = self.blocks[number]
            # Nothing is there yet that could be dropped.
            if block.loading is not None and not block.loading.done():
                continue
            if block.saving is not None:
                with suppress(PagingError):  # written again below, where the error is raised
                    block.stored = block.saving.result()
                block.saving = None
            if block.stored is None:
                block.stored = self.scratch.write(number, block.columns)
            self._drop(number)
            if (self._resident + rows) * self._row_bytes <= self.limit_bytes:
                return

    def prefetch(self, wanted: list[int]) -> None:
        """Start to read some blocks in the background, as many as memory may hold.

        Blocks that an equal number of further ones will push out of memory are written meanwhile, so that those need
        not wait.
        """
        for number in wanted:
            if number in self._recent:
                self._recent.move_to_end(number)
        for number in wanted:
            block = self.blocks[number]
            if number in self._recent:
                continue
            self.make_room(set(wanted), block.count)
            # Reading more would push out what is wanted as well.
            if (self._resident + block.count) * self._row_bytes > self.limit_bytes:
                return
            assert block.stored is not None
            block.loading = self._reader.submit(read_block, block.stored, self._empty)
            self._recent[number] = None
            self._resident += block.count
        self._save_ahead(set(wanted))

    def _save_ahead(self, keep: set[int]) -> None:
        """Write, in the background, the blocks that must leave when as many rows again as those to keep are loaded."""
        over = self._resident + sum(self.blocks[number].count for number in keep) - self.limit_bytes / self._row_bytes
        for number in self._recent:
            if over <= 0:
                return
            block = self.blocks[number]
            if number not in keep and block.room is not None:
                if block.stored is None and block.saving is None:
                    block.saving = self._reader.submit(self.scratch.write, number, block.columns)
                over -= block.capacity

    def _drop(self, number: int) -> None:
        block = self.blocks[number]
        self._resident -= block.capacity if block.room is not None else block.count
        block.room = block.loading = None
        del self._recent[number]
