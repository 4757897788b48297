"""Primitives on disk as a log of changes: each chunk stores only the rows that it added, changed or removed.

Replaying the log in order restores the primitives exactly. The cost of storing a chunk depends on the number of changed
rows, not on the size of the cache. A primitive's id is its place in the order of arrival.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from geometry.primitives import Change, Gaussians, Points
from scenes.io.atomic_files import WorldError, write_bytes
from scenes.store.packed_tensors import open_tensors, packed

KINDS: dict[str, type[Points] | type[Gaussians]] = {"Points": Points, "Gaussians": Gaussians}
STORED_NAME = {"n_updates": "looks"}  # fields whose column on disk keeps the name of format 1
LATER = {"looks"}  # columns of Gaussians that older worlds lack; read as zeros


def replay(changes: Iterable[Change], total: int) -> Points | Gaussians:
    """The primitives after all changes of a log, ordered by id.

    Args:
        changes: the log, at least one change.
        total: number of ids assigned in the whole log.

    Raises:
        WorldError: a change that is inconsistent with the changes before it.
    """
    state: Points | Gaussians | None = None
    alive, known = torch.zeros(total, dtype=torch.bool), 0
    for change in changes:
        if state is None:
            columns = (getattr(change.rows, f.name) for f in fields(change.rows))
            state = type(change.rows)(*(column.new_zeros(total, *column.shape[1:]) for column in columns))
        if type(change.rows) is not type(state):
            raise WorldError(f"a change of {type(change.rows).__name__} follows {type(state).__name__}")
        old = change.index[change.index < known]
        if not known <= change.total <= total or not _fits(change, known) or not alive[old].all():
            raise WorldError(f"a change to {change.total} names does not fit on {known}")
        for f in fields(state):
            getattr(state, f.name)[change.index] = getattr(change.rows, f.name)
        alive[change.index] = True
        alive[change.removed] = False
        known = change.total
    assert state is not None
    return state[alive]


def names_where(
    changes: Iterable[Change], total: int, chunks: Int[Tensor, "c"], region: Float[Tensor, "2 3"] | None
) -> Int[Tensor, "n"]:
    """Ascending ids of the living primitives that some chunks added or whose center is in a box.

    Changes are read one at a time, so that memory holds only one.

    Args:
        changes: the log.
        total: number of ids assigned in the whole log.
        chunks: indices of chunks.
        region: low and high corner, world, scene units; None selects nothing. Sky primitives are in no region.
    """
    named = torch.zeros(total, dtype=torch.bool)
    for change in changes:
        rows = change.rows
        chosen = torch.isin(rows.chunk, chunks)
        if region is not None:
            centers = rows.means if isinstance(rows, Gaussians) else rows.positions
            chosen |= ((centers >= region[0]) & (centers <= region[1])).all(-1) & ~rows.sky
        named[change.index] = chosen
        named[change.removed] = False
    return named.nonzero()[:, 0]


def _fits(change: Change, known: int) -> bool:
    """Whether ids are ascending and below the total, and every new id is either added or removed again."""
    for names in (change.index, change.removed):
        if len(names) and not (int(names[0]) >= 0 and int(names[-1]) < change.total and (names.diff() > 0).all()):
            return False
    new = int((change.index >= known).sum()) + int((change.removed >= known).sum())
    return len(change.index) == len(change.rows) and new == change.total - known


def write_change(path: Path, change: Change) -> None:
    """Write a change, compressed without loss, atomically."""
    tensors = {_stored(f.name): getattr(change.rows, f.name) for f in fields(change.rows)}
    tensors |= {"index": change.index, "total": torch.tensor(change.total), "removed": change.removed}
    write_bytes(path, packed(tensors, type(change.rows).__name__))


def read_change(path: Path) -> Change:
    """Read a change.

    Raises:
        WorldError: a file that holds no change of Points or Gaussians.
    """
    with open_tensors(path) as file:
        names, kind = file.names, KINDS.get(file.kind or "")
        if kind is None or not {_stored(f.name) for f in fields(kind)} - LATER | {"index", "total"} <= names:
            raise WorldError(f"{path.name}: want Points or Gaussians, got {file.kind or 'neither'}")
        index = file.get("index")
        stored = {f.name: _stored(f.name) for f in fields(kind)}
        rows = kind(
            **{field: file.get(name) if name in names else torch.zeros(len(index)) for field, name in stored.items()}
        )
        # Worlds of version 1 have no removals.
        removed = file.get("removed") if "removed" in names else torch.zeros(0, dtype=torch.int64)
        return Change(int(file.get("total")), index, rows, removed)


def _stored(field: str) -> str:
    """Name on disk of the column of a field."""
    return STORED_NAME.get(field, field)


def read_total(path: Path) -> int:
    """Read only the number of ids assigned up to and including a change."""
    with open_tensors(path) as file:
        return int(file.get("total"))
