"""Primitives in spatial blocks, of which only those near a camera need to be in memory.

A block is a cell of a grid. Grids come in octaves: a primitive lives in the one whose cells are 64 to 128 times as wide
as its own footprint, so that a block holds some thousands of primitives whatever the scale of the world, and what is
far away and coarse makes few blocks. Views are gathered in the order of arrival, whatever blocks they come from: no
picture depends on the blocks, nor on which of them are on disk. Sky is one block that never leaves memory.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Generic

import numpy as np
import torch
from torch import Tensor

from cache3d.store.block import Journal
from cache3d.store.grid import PLANES, SKY, cell_keys, extents, frustum_planes, groups
from cache3d.store.pager import Pager
from cache3d.store.view import P, View
from geometry.camera import Camera
from geometry.primitives import Change

WRITTEN = ("colors", "confidence", "n_updates", "means", "scales")  # what changes after insertion; not all of points


class BlockStore(Generic[P]):
    """A growing set of primitives in blocks, with a bound on the bytes that are in memory.

    Args:
        empty: no primitives, of the kind and on the device to store.
        resident_mib: blocks beyond it go to disk, those longest out of view first; one view, of all cameras of a chunk,
            may exceed it.
        scratch: folder for them; the system's temporary folder when None.
    """

    def __init__(self, empty: P, resident_mib: float | int, scratch: Path | None = None) -> None:
        if not resident_mib > 0:
            raise ValueError(f"resident_mib: want a positive number of MiB, got {resident_mib}; leave it out for 2048")
        self._kind = type(empty)
        self._device = empty.chunk.device
        names = torch.zeros(0, dtype=torch.int64, device=self._device)
        self._empty = [names, *(getattr(empty, f.name) for f in fields(empty))]
        self._resident_mib = resident_mib
        self._memory = Pager(self._empty, resident_mib * 2**20, scratch)
        self._number_of: dict[int, int] = {}
        self._bounds = np.zeros((2, 1, 3))  # low and high corner of each block, footprints included
        self._home = np.zeros(0, np.int32)  # block of each name; -1 once removed
        self._total = self._alive = 0
        self._view: tuple[tuple[int, ...], View[P]] | None = None
        self._journal = Journal()

    def __len__(self) -> int:
        return self._alive

    @property
    def total(self) -> int:
        """Names given so far."""
        return self._total

    @property
    def resident_bytes(self) -> int:
        """Bytes of the blocks in memory, sky included."""
        return self._memory.resident_bytes

    def page_to(self, folder: Path) -> None:
        """Write blocks to ``folder`` from now on; the system's temporary folder before. It is made when needed."""
        self._memory.scratch.move_to(folder)

    def emptied(self) -> BlockStore[P]:
        """A new store with nothing in it, and otherwise like this one."""
        empty = self._kind(*self._empty[1:])
        return BlockStore(empty, self._resident_mib, self._memory.scratch.parent)

    def near(self, *cameras: Camera) -> View[P]:
        """The rows of all blocks that one of some cameras, each alone or a batch ``[t]``, may see.

        The last view is kept, and returned again where it has all that is wanted, and maybe more.

        Raises:
            PagingError: a block that is needed is missing or damaged on disk, or another cannot be put there.
        """
        seen = (SKY, *sorted({number for camera in cameras for number in self._in_sight(camera)}))
        if self._view is not None and set(seen) <= set(self._view[0]):
            return self._view[1]
        self._view = None  # only one view is kept
        parts = [self._memory.load(number).columns for number in seen]
        columns = [torch.cat(column) for column in zip(*parts, strict=True)]
        order = torch.argsort(columns[0])
        names, *rows = (column.index_select(0, order) for column in columns)  # three times as fast as column[order]
        self._memory.make_room(set(seen))
        view = View(self._kind(*rows), names)
        self._view = (seen, view)
        return view

    def prefetch(self, camera: Camera) -> None:
        """Start to bring back, in the background, what cameras ``[t]`` will see; as much as memory may hold."""
        self._memory.prefetch(self._in_sight(camera))

    def append(self, part: P) -> None:
        """Add primitives; they are named in their order."""
        names = torch.arange(self._total, self._total + len(part), device=self._device)
        self._insert(names, part, self._total + len(part))

    def put(self, view: View[P], which: Tensor) -> None:
        """Store what was written to the columns `WRITTEN` of the rows ``which`` (indices) of a view."""
        if self._view is not None and self._view[1] is not view:
            self._view = None
        names = view.names[which]
        self._overwrite(names, view.rows[which], WRITTEN)
        self._journal.changed.append(names.cpu().numpy())

    def remove(self, view: View[P], which: Tensor) -> None:
        """Take the rows ``which`` (indices) of a view away; their names are not used again."""
        names = np.unique(view.names[which].cpu().numpy())
        self._take_away(names)
        self._journal.removed.append(names)

    def take_change(self) -> Change:
        """What happened since this was last called; applied to the state of then, it makes the state of now."""
        since, journal = self._journal.since, self._journal
        none = np.zeros(0, np.int64)
        changed = np.zeros(self._total, np.bool_)
        for part in journal.changed:
            changed[part] = True
        names = np.concatenate([np.flatnonzero(changed[:since]), np.arange(since, self._total)])
        names = names[self._home[names] >= 0]
        removed = np.unique(np.concatenate([none, *journal.removed]))
        self._journal = Journal(self._total)
        return Change(self._total, torch.from_numpy(names), self._gather(names), torch.from_numpy(removed))

    def apply(self, change: Change) -> None:
        """Do what a change says."""
        columns = (getattr(change.rows, f.name).to(self._device) for f in fields(self._kind))
        rows, names = self._kind(*columns), change.index.to(self._device)
        new = names >= self._total
        self._view = None
        old = rows[~new]
        self._overwrite(names[~new], old, tuple(f.name for f in fields(old)))
        self._insert(names[new], rows[new], change.total)
        removed = change.removed.numpy()
        self._take_away(removed[self._home[removed] >= 0])
        self._journal = Journal(self._total)

    def names(self) -> Tensor:
        """Of all rows, ascending; ``[n]`` int64."""
        return torch.from_numpy(np.flatnonzero(self._home[: self._total] >= 0))

    def copy(self, first: int) -> P:
        """A copy of all rows named from ``first`` on, in order."""
        return self._gather(first + np.flatnonzero(self._home[first : self._total] >= 0))

    def _insert(self, names: Tensor, part: P, total: int) -> None:
        if total > len(self._home):
            room = np.empty(max(total, 3 * self._total // 2), np.int32)
            room[: self._total] = self._home[: self._total]
            self._home = room
        self._home[self._total : total] = -1
        self._total, self._alive = total, self._alive + len(part)
        if len(part) == 0:
            return
        home = self._numbers(part)
        self._home[names.cpu().numpy()] = home
        columns = [names, *(getattr(part, f.name) for f in fields(part))]
        if self._view is not None:
            seen, view = self._view
            rendered = torch.from_numpy(np.flatnonzero(np.isin(home, seen))).to(self._device)
            self._view = (seen, view.with_new(part[rendered], names[rendered]))
        bounds = extents(part)
        for number, where in groups(home):
            block, index = self._memory.load(number), torch.from_numpy(where).to(self._device)
            before = block.capacity
            block.append([column[index] for column in columns])
            self._memory.changed(number, before)
            self._widen(number, bounds[:, where])
        self._memory.make_room(set(home.tolist()))

    def _overwrite(self, names: Tensor, part: P, written: tuple[str, ...]) -> None:
        """Put some columns of rows that are stored; they stay in their block, wherever they move."""
        if len(names) == 0:
            return
        home, bounds = self._home[names.cpu().numpy()], extents(part)
        for number, where in groups(home):
            block, index = self._memory.load(number), torch.from_numpy(where).to(self._device)
            assert block.room is not None
            place = torch.searchsorted(block.room[0][: block.count], names[index])
            for column, f in zip(block.room[1:], fields(self._kind), strict=True):
                if f.name in written:
                    column[place] = getattr(part, f.name)[index]
            self._memory.changed(number, block.capacity)
            self._widen(number, bounds[:, where])
        self._memory.make_room(set(home.tolist()))

    def _take_away(self, names: np.ndarray) -> None:
        if len(names) == 0:
            return
        if self._view is not None:
            self._view = (self._view[0], self._view[1].without(names))
        for number, where in groups(self._home[names]):
            block = self._memory.load(number)
            before = block.capacity
            block.keep(~torch.isin(block.columns[0], torch.from_numpy(names[where]).to(self._device)))
            self._memory.changed(number, before)
        self._home[names] = -1
        self._alive -= len(names)

    def _gather(self, names: np.ndarray) -> P:
        out = [column.new_empty(len(names), *column.shape[1:]) for column in self._empty[1:]]
        for number, where in groups(self._home[names]):
            block, index = self._memory.load(number), torch.from_numpy(where).to(self._device)
            columns = block.columns
            place = torch.searchsorted(columns[0], torch.from_numpy(names[where]).to(self._device))
            for column, target in zip(columns[1:], out, strict=True):
                target[index] = column[place]
            self._memory.make_room({number})
        return self._kind(*out)

    def _numbers(self, part: P) -> np.ndarray:
        """The block of each row, made where there is none yet; ``[n]`` int32."""
        keys, inverse = np.unique(cell_keys(part), return_inverse=True)
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

    def _in_sight(self, camera: Camera) -> list[int]:
        """Numbers of the blocks that meet the frustum of a camera of a batch, ascending, without sky."""
        count = len(self._memory.blocks)
        if count == 1:
            return []
        planes = frustum_planes(camera)
        low, high = self._bounds[:, 1:count]
        normals = planes[:, :3].T
        furthest = high @ normals.clip(min=0.0) + low @ normals.clip(max=0.0) + planes[:, 3]
        inside = (furthest >= 0.0).reshape(count - 1, -1, PLANES).all(-1).any(-1)
        return (1 + np.flatnonzero(inside)).tolist()

    def _widen(self, number: int, bounds: np.ndarray) -> None:
        self._bounds[0, number] = np.minimum(self._bounds[0, number], bounds[0].min(0))
        self._bounds[1, number] = np.maximum(self._bounds[1, number], bounds[1].max(0))
