"""Primitives in spatial blocks, of which only those near a camera need to be in memory.

A block is a cell of a grid. Grids come in octaves: a primitive lives in the one whose cells are 64 to 128 times as wide
as its own footprint, so that a block holds some thousands of primitives whatever the scale of the world, and coarse
primitives far away make few blocks. Views are gathered in the order of arrival, whatever blocks they come from: no
image depends on the blocks, nor on which of them are on disk. Sky is one block that never leaves memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Generic

import numpy as np
import torch
from torch import Tensor

from cache3d.store.block import Journal
from cache3d.store.grid import PLANES, SKY, bounds_of, cell_keys, frustum_planes, groups
from cache3d.store.pager import Pager
from cache3d.store.view import Edit, P, View
from geometry.camera import Camera
from geometry.primitives import Change

WRITTEN = ("colors", "confidence", "n_updates", "means", "scales")  # columns that change after insertion


class BlockStore(Generic[P]):
    """A growing set of primitives in blocks, with a bound on the bytes that are in memory.

    Args:
        empty: no primitives, of the kind and on the device to store.
        resident_mib: bound on the memory of blocks, MiB; the least recently used go to disk. One view, of all cameras
            of a chunk, may exceed it.
        scratch: folder for blocks on disk; the system's temporary folder when None.
    """

    def __init__(self, empty: P, resident_mib: float | int, scratch: Path | None = None) -> None:
        if not resident_mib > 0:
            raise ValueError(f"resident_mib: want a positive number of MiB, got {resident_mib}; leave it out for 2048")
        self._kind = type(empty)
        self._device = empty.chunk.device
        ids = torch.zeros(0, dtype=torch.int64, device=self._device)
        self._empty = [ids, *(getattr(empty, f.name) for f in fields(empty))]
        self._resident_mib = resident_mib
        self._memory = Pager(self._empty, resident_mib * 2**20, scratch)
        self._number_of: dict[int, int] = {}
        self._bounds = np.zeros((2, 1, 3))  # low and high corner of each block, footprints included
        self._home = np.zeros(0, np.int32)  # block of each id; -1 once removed
        self._total = self._alive = 0
        self._view: tuple[tuple[int, ...], View[P]] | None = None
        self._journal = Journal()

    def __len__(self) -> int:
        return self._alive

    @property
    def total(self) -> int:
        """Ids given so far."""
        return self._total

    @property
    def resident_bytes(self) -> int:
        """Bytes of the blocks in memory, sky included."""
        return self._memory.resident_bytes

    def page_to(self, folder: Path) -> None:
        """Write blocks to ``folder``, made when needed, instead of the system's temporary folder."""
        self._memory.scratch.move_to(folder)

    def emptied(self) -> BlockStore[P]:
        """A new store without rows, with the settings of this one."""
        empty = self._kind(*self._empty[1:])
        return BlockStore(empty, self._resident_mib, self._memory.scratch.parent)

    def near(self, *cameras: Camera) -> View[P]:
        """The rows of all blocks that any of the cameras, each alone or a batch ``[t]``, may see.

        The last view is kept and returned again where it holds all these rows; it may hold more.

        Raises:
            PagingError: a block that is needed is missing or damaged on disk, or another cannot be put there.
        """
        loaded = (SKY, *sorted({number for camera in cameras for number in self._numbers_in_view(camera)}))
        if self._view is not None and set(loaded) <= set(self._view[0]):
            return self._view[1]
        self._view = None  # only one view is kept
        blocks = [self._memory.load(number).columns for number in loaded]
        columns = [torch.cat(column) for column in zip(*blocks, strict=True)]
        # In the order of arrival: equal depths are drawn alike, whatever blocks the rows lie in.
        order = torch.argsort(columns[0])
        ids, *rows = (column.index_select(0, order) for column in columns)  # three times as fast as column[order]
        self._memory.make_room(set(loaded))
        view = View(self._kind(*rows), ids)
        self._view = (loaded, view)
        return view

    def prefetch(self, camera: Camera) -> None:
        """Start to read, in the background, what cameras ``[t]`` will see, as much as memory may hold."""
        self._memory.prefetch(self._numbers_in_view(camera))

    def append(self, rows: P) -> None:
        """Add primitives; their ids follow their order."""
        ids = torch.arange(self._total, self._total + len(rows), device=self._device)
        self._insert(ids, rows, self._total + len(rows))

    @contextmanager
    def edit(self, *cameras: Camera) -> Iterator[Edit[P]]:
        """Change rows that the cameras may see: what was written and removed is stored when the ``with`` block ends.

        An exception in the block leaves the store as it was.

        Raises:
            PagingError: as `near`.

        Example:
            >>> with store.edit(camera) as edit:
            ...     edit.view.rows.colors[index] *= 0.5
            ...     edit.written = index
        """
        view = self.near(*cameras)
        edit = Edit(view, view.ids[:0], view.ids[:0])
        try:
            yield edit
        except BaseException:
            self._view = None  # its rows may have been written to
            raise
        # Rows of an older view were written to: the kept one is out of date.
        if self._view is not None and self._view[1] is not view:
            self._view = None
        ids = view.ids[edit.written]
        self._overwrite(ids, view.rows[edit.written], WRITTEN)
        self._journal.changed.append(ids.cpu().numpy())
        removed = np.unique(view.ids[edit.removed].cpu().numpy())
        self._remove(removed)
        self._journal.removed.append(removed)

    def take_change(self) -> Change:
        """The change since the last call: applied to the state of then, it makes the present state."""
        since, journal = self._journal.since, self._journal
        none = np.zeros(0, np.int64)
        changed = np.zeros(self._total, np.bool_)
        for changed_ids in journal.changed:
            changed[changed_ids] = True
        ids = np.concatenate([np.flatnonzero(changed[:since]), np.arange(since, self._total)])
        # Rows that were removed again have no content to store.
        ids = ids[self._home[ids] >= 0]
        removed = np.unique(np.concatenate([none, *journal.removed]))
        self._journal = Journal(self._total)
        return Change(self._total, torch.from_numpy(ids), self._gather(ids), torch.from_numpy(removed))

    def apply(self, change: Change) -> None:
        """Apply a change."""
        columns = (getattr(change.rows, f.name).to(self._device) for f in fields(self._kind))
        rows, ids = self._kind(*columns), change.index.to(self._device)
        new = ids >= self._total
        self._view = None
        old = rows[~new]
        self._overwrite(ids[~new], old, tuple(f.name for f in fields(old)))
        self._insert(ids[new], rows[new], change.total)
        removed = change.removed.numpy()
        # Rows that came and went within the change were never stored here.
        self._remove(removed[self._home[removed] >= 0])
        self._journal = Journal(self._total)

    def ids(self) -> Tensor:
        """Ids of all rows, ascending, ``[n]`` int64."""
        return torch.from_numpy(np.flatnonzero(self._home[: self._total] >= 0))

    def copy(self, first: int) -> P:
        """A copy of all rows whose ids are at least ``first``, in order."""
        return self._gather(first + np.flatnonzero(self._home[first : self._total] >= 0))

    def _insert(self, ids: Tensor, rows: P, total: int) -> None:
        if total > len(self._home):
            # Grown by half, so that appending takes constant time per row.
            room = np.empty(max(total, 3 * self._total // 2), np.int32)
            room[: self._total] = self._home[: self._total]
            self._home = room
        self._home[self._total : total] = -1
        self._total, self._alive = total, self._alive + len(rows)
        if len(rows) == 0:
            return
        known = len(self._memory.blocks)
        home = self._numbers(rows)
        self._home[ids.cpu().numpy()] = home
        columns = [ids, *(getattr(rows, f.name) for f in fields(rows))]
        if self._view is not None:
            # New rows join the kept view, which is cheaper than to gather it again. So do new blocks: a frame makes
            # some along its sides, and the next frame needs them.
            loaded, view = self._view
            loaded = (*loaded, *range(known, len(self._memory.blocks)))
            inside = torch.from_numpy(np.flatnonzero(np.isin(home, loaded))).to(self._device)
            self._view = (loaded, view.with_new(rows[inside], ids[inside]))
        bounds = bounds_of(rows)
        for number, where in groups(home):
            block, index = self._memory.load(number), torch.from_numpy(where).to(self._device)
            before = block.capacity
            block.append([column[index] for column in columns])
            self._memory.changed(number, before)
            self._widen(number, bounds[:, where])
        self._memory.make_room(set(home.tolist()))

    def _overwrite(self, ids: Tensor, rows: P, written: tuple[str, ...]) -> None:
        """Overwrite some columns of stored rows; rows stay in their block, even if they moved out of its cell."""
        if len(ids) == 0:
            return
        home, bounds = self._home[ids.cpu().numpy()], bounds_of(rows)
        for number, where in groups(home):
            block, index = self._memory.load(number), torch.from_numpy(where).to(self._device)
            assert block.room is not None
            # Ids in a block ascend: rows arrive in their order.
            place = torch.searchsorted(block.room[0][: block.count], ids[index])
            for column, f in zip(block.room[1:], fields(self._kind), strict=True):
                if f.name in written:
                    column[place] = getattr(rows, f.name)[index]
            self._memory.changed(number, block.capacity)
            self._widen(number, bounds[:, where])
        self._memory.make_room(set(home.tolist()))

    def _remove(self, ids: np.ndarray) -> None:
        if len(ids) == 0:
            return
        if self._view is not None:
            self._view = (self._view[0], self._view[1].without(ids))
        for number, where in groups(self._home[ids]):
            block = self._memory.load(number)
            before = block.capacity
            block.keep(~torch.isin(block.columns[0], torch.from_numpy(ids[where]).to(self._device)))
            self._memory.changed(number, before)
        self._home[ids] = -1
        self._alive -= len(ids)

    def _gather(self, ids: np.ndarray) -> P:
        out = [column.new_empty(len(ids), *column.shape[1:]) for column in self._empty[1:]]
        for number, where in groups(self._home[ids]):
            block, index = self._memory.load(number), torch.from_numpy(where).to(self._device)
            columns = block.columns
            place = torch.searchsorted(columns[0], torch.from_numpy(ids[where]).to(self._device))
            for column, target in zip(columns[1:], out, strict=True):
                target[index] = column[place]
            self._memory.make_room({number})
        return self._kind(*out)

    def _numbers(self, rows: P) -> np.ndarray:
        """The block of each row, made where there is none yet; ``[n]`` int32."""
        keys, inverse = np.unique(cell_keys(rows), return_inverse=True)
        numbers = np.empty(len(keys), np.int32)
        for i, key in enumerate(keys.tolist()):
            if key != SKY and key not in self._number_of:
                self._number_of[key] = self._memory.new_block()
            numbers[i] = SKY if key == SKY else self._number_of[key]
        if len(self._memory.blocks) > self._bounds.shape[1]:
            room = np.empty((2, 2 * len(self._memory.blocks), 3))
            room[0], room[1] = np.inf, -np.inf
            room[:, : self._bounds.shape[1]] = self._bounds
            self._bounds = room
        return numbers[inverse]

    def _numbers_in_view(self, camera: Camera) -> list[int]:
        """Numbers of the blocks that meet the frustum of a camera of a batch, ascending, without sky."""
        count = len(self._memory.blocks)
        # There is only the sky.
        if count == 1:
            return []
        planes = frustum_planes(camera)
        low, high = self._bounds[:, 1:count]
        normals = planes[:, :3].T
        # A box is outside where even its corner farthest along the normal is.
        furthest = high @ normals.clip(min=0.0) + low @ normals.clip(max=0.0) + planes[:, 3]
        inside = (furthest >= 0.0).reshape(count - 1, -1, PLANES).all(-1).any(-1)
        return (1 + np.flatnonzero(inside)).tolist()

    def _widen(self, number: int, bounds: np.ndarray) -> None:
        # Bounds only grow: too large a box costs time and never a row.
        self._bounds[0, number] = np.minimum(self._bounds[0, number], bounds[0].min(0))
        self._bounds[1, number] = np.maximum(self._bounds[1, number], bounds[1].max(0))
