"""Blocks of primitives as files: raw columns, one after the other, with a checksum that is verified on reading.

The files are scratch space: they can be made again from the chunks of the world, and are removed with the process.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import tempfile
import weakref
import zlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

PREFIX = "blocks-"


class PagingError(ValueError):
    """A block that cannot be written or read; the message names its file."""


@dataclass(frozen=True)
class Stored:
    """A block on disk.

    Attributes:
        path: its file.
        count: number of rows.
        checksum: CRC-32 of the file.
    """

    path: Path
    count: int
    checksum: int


class Scratch:
    """A folder of block files that belongs to this process and is removed with it.

    Args:
        parent: where to make it, with its parents, at the first write; the system's temporary folder when None.
    """

    def __init__(self, parent: Path | None) -> None:
        self.parent = parent
        self._folder: Path | None = None  # made at the first write

    def move_to(self, parent: Path) -> None:
        """Write below another folder from now on; files already written stay where they are."""
        self.parent, self._folder = parent, None

    def write(self, number: int, columns: list[Tensor]) -> Stored:
        """Write a block, replacing the file of that number.

        Raises:
            PagingError: the disk is full or refuses.
        """
        path = self.parent or Path(tempfile.gettempdir())
        try:
            if self._folder is None:
                self._folder = _make_folder(path)
                # Runs at the exit of the interpreter too.
                weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
            path = self._folder / f"{number:06d}.block"
            checksum = 0
            with path.open("wb") as file:
                for column in columns:
                    content = column.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
                    file.write(content)
                    checksum = zlib.crc32(content, checksum)
        except OSError as error:
            # A block that was cut short must not stay; the folder itself may have failed.
            if path.suffix == ".block":
                path.unlink(missing_ok=True)
            raise PagingError(
                f"{path}: cannot be written ({error.strerror}); free some space, or allow more with "
                "cache.resident_mib; every finished chunk is kept"
            ) from error
        return Stored(path, len(columns[0]), checksum)


def read_block(stored: Stored, like: list[Tensor]) -> list[Tensor]:
    """Read a block, bit for bit, to the CPU; may run in any thread.

    Args:
        stored: what `Scratch.write` returned.
        like: columns of the same dtypes and widths, of any length.

    Raises:
        PagingError: missing, truncated or changed.
    """
    advice = "open the world again: its blocks are made anew from its chunks"
    try:
        content = bytearray(stored.path.read_bytes())
    except OSError as error:
        raise PagingError(f"{stored.path}: block cannot be read ({error.strerror}); {advice}") from error
    sizes = [stored.count * row_bytes(column) for column in like]
    if len(content) != sum(sizes):
        raise PagingError(f"{stored.path}: block is truncated: want {sum(sizes)} bytes, got {len(content)}; {advice}")
    if zlib.crc32(content) != stored.checksum:
        raise PagingError(f"{stored.path}: block was changed after it was written (checksum differs); {advice}")
    if stored.count == 0:  # torch.frombuffer refuses empty buffers
        return [column.new_empty(0, *column.shape[1:], device="cpu") for column in like]
    columns, offset = [], 0
    for column, size in zip(like, sizes, strict=True):
        flat = torch.frombuffer(content, dtype=torch.uint8, count=size, offset=offset).view(column.dtype)
        columns.append(flat.reshape(stored.count, *column.shape[1:]))
        offset += size
    return columns


def row_bytes(column: Tensor) -> int:
    """Bytes of one row of a column of any length."""
    return math.prod(column.shape[1:]) * column.element_size()


def _make_folder(parent: Path) -> Path:
    """A new folder named after this process; folders of processes that no longer run are removed."""
    parent.mkdir(parents=True, exist_ok=True)
    for old in parent.glob(f"{PREFIX}*"):
        owner = old.name.removeprefix(PREFIX).partition("-")[0]
        if owner.isdigit() and not _is_running(int(owner)):
            with contextlib.suppress(OSError):
                shutil.rmtree(old)
    return Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=parent))


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    # It runs and belongs to another user.
    except OSError:
        return True
    return True
