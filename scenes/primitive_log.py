"""Primitives on disk as a log of patches: each chunk stores only the rows that it added or changed.

A patch says how many primitives there are now, and which rows to put in place. Replaying the patches in order gives
the primitives back to the bit; the cost of a patch follows what changed, not what there is.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import torch
from jaxtyping import Bool, Int
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from geometry.primitives import Gaussians, Points
from scenes.files import WorldError, write_bytes

KINDS: dict[str, type[Points] | type[Gaussians]] = {"Points": Points, "Gaussians": Gaussians}


@dataclass(frozen=True)
class Patch:
    """What turns one state of the primitives into the next.

    Attributes:
        total: number of primitives afterwards.
        index: rows to put, ascending; those past the former end are new, ``[m]`` int64.
        rows: their content.
    """

    total: int
    index: Int[Tensor, "m"]
    rows: Points | Gaussians


def difference(before: Points | Gaussians | None, after: Points | Gaussians) -> Patch:
    """The patch that leads from ``before`` to ``after``, compared bit by bit; None stands for nothing yet."""
    total = len(after)
    if before is None:
        return Patch(total, torch.arange(total), after)
    if type(before) is not type(after):
        raise WorldError(f"primitives: this world holds {type(before).__name__}, got {type(after).__name__}")
    common = min(len(before), total)
    changed = torch.zeros(common, dtype=torch.bool)
    for name in _names(after):
        changed |= _rows_differ(getattr(before, name)[:common], getattr(after, name)[:common])
    index = torch.cat([changed.nonzero()[:, 0], torch.arange(common, total)])
    return Patch(total, index, after[index])


def apply(before: Points | Gaussians | None, patch: Patch) -> Points | Gaussians:
    """Replay one patch; the inverse of ``difference``.

    Raises:
        WorldError: a patch that does not fit on ``before``.
    """
    kind = type(patch.rows)
    if before is not None and type(before) is not kind:
        raise WorldError(f"a patch of {kind.__name__} follows {type(before).__name__}")
    common = 0 if before is None else min(len(before), patch.total)
    new = patch.total - common
    fits = len(patch.index) >= new and torch.equal(
        patch.index[len(patch.index) - new :], torch.arange(common, patch.total)
    )
    old = patch.index[: len(patch.index) - new] if fits else patch.index
    if not fits or (len(old) and not 0 <= int(old.min()) <= int(old.max()) < common):
        raise WorldError(f"a patch for {patch.total} primitives does not fit on {common}")
    columns = []
    for name in _names(patch.rows):
        rows = getattr(patch.rows, name)
        column = rows.new_empty((patch.total, *rows.shape[1:]))
        if before is not None:
            column[:common] = getattr(before, name)[:common]
        column[patch.index] = rows
        columns.append(column)
    return kind(*columns)


def write_patch(path: Path, patch: Patch) -> None:
    """Write a patch as safetensors, atomically."""
    tensors = {name: getattr(patch.rows, name).contiguous() for name in _names(patch.rows)}
    tensors |= {"index": patch.index, "total": torch.tensor(patch.total)}
    # One entry only: safetensors writes several in random order, and equal worlds must have equal files.
    write_bytes(path, save(tensors, {"kind": type(patch.rows).__name__}))


def read_patch(path: Path) -> Patch:
    """Read a patch.

    Raises:
        WorldError: a file of another kind.
    """
    with safe_open(path, "pt") as file:
        metadata, names = file.metadata() or {}, set(file.keys())
        kind = KINDS.get(metadata.get("kind", ""))
        if kind is None or not {f.name for f in fields(kind)} | {"index", "total"} <= names:
            raise WorldError(f"{path.name}: want Points or Gaussians, got {metadata.get('kind', 'neither')}")
        rows = kind(*(file.get_tensor(f.name) for f in fields(kind)))
        return Patch(int(file.get_tensor("total")), file.get_tensor("index"), rows)


def on_cpu(primitives: Points | Gaussians) -> Points | Gaussians:
    """A copy that later changes to the cache cannot reach."""
    return type(primitives)(*(getattr(primitives, name).detach().cpu().clone() for name in _names(primitives)))


def _names(primitives: Points | Gaussians) -> list[str]:
    return [f.name for f in fields(primitives)]


def _rows_differ(a: Tensor, b: Tensor) -> Bool[Tensor, "n"]:
    if a.dtype == torch.float32:  # as integers, or +0 would equal -0 and NaN differ from itself
        a, b = a.contiguous().view(torch.int32), b.contiguous().view(torch.int32)
    return (a != b).flatten(1).any(1) if a.ndim > 1 else a != b
