"""Lossless compression of tensors in a file.

The file is a safetensors file of byte tensors. The bytes of each tensor are shuffled (all first bytes of its numbers,
then all second bytes, and so on) and deflated, since signs and exponents of neighbors are similar. Before that:

- Numbers of 4 bytes become the differences of their bit patterns, each column of a table by itself, and lose the low
  bits that are zero in all of them (rounded numbers have many). Deflating only runs is then smaller and a third faster
  than searching for repetitions (docs/results.md).
- Masks take one bit a value.

Level 1 of zlib is within 4 % of Zstandard, bit shuffling and pcodec on worlds and needs no further package. Each tensor
can be read alone.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from scenes.io.atomic_files import WorldError

# The only metadata entry: safetensors writes several in random order, but equal worlds must give equal bytes.
LAYOUT = "packed"


class TensorFile:
    """An open file of tensors: packed, or plain safetensors as in older worlds."""

    def __init__(self, path: Path, file: safe_open) -> None:
        """Read the metadata of an open safetensors file."""
        metadata = file.metadata() or {}
        layout = json.loads(metadata[LAYOUT]) if LAYOUT in metadata else None
        self.kind: str | None = metadata.get("kind") if layout is None else layout["kind"]
        self._path, self._file = path, file
        self._tensors: dict[str, list[Any]] | None = None if layout is None else layout["tensors"]

    @property
    def names(self) -> set[str]:
        """Names of the tensors."""
        return set(self._file.keys())

    def get(self, name: str) -> Tensor:
        """Read one tensor exactly.

        Raises:
            WorldError: no such tensor, or damaged bytes.
        """
        try:
            stored = self._file.get_tensor(name)
            return stored if self._tensors is None else _unpacked(stored, *self._tensors[name])
        except (SafetensorError, KeyError, ValueError, zlib.error) as error:
            raise WorldError(f"{self._path}: its tensor {name!r} cannot be read ({error}); restore it") from error


@contextmanager
def open_tensors(path: Path) -> Iterator[TensorFile]:
    """Open a file that `packed` made, or a plain safetensors file.

    Raises:
        WorldError: a file that is neither.
    """
    try:
        opened = safe_open(path, "pt")
    except SafetensorError as error:
        raise WorldError(f"{path}: is not a file of tensors ({error}); restore it from a copy") from error
    with opened as file:
        yield TensorFile(path, file)


def packed(tensors: Mapping[str, Tensor], kind: str | None = None) -> bytes:
    """The bytes of a file; equal tensors give equal bytes.

    Args:
        tensors: tensors by name, of any device, memory layout and sharing.
        kind: name of the kind of content, given to readers as ``TensorFile.kind``.
    """
    layout: dict[str, list[Any]] = {}
    content: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        content[name], coding = _packed(tensor)
        layout[name] = [str(tensor.dtype).removeprefix("torch."), list(tensor.shape), coding]
    head = json.dumps({"kind": kind, "tensors": layout}, sort_keys=True)
    return save(content, {LAYOUT: head})


def _packed(tensor: Tensor) -> tuple[Tensor, int | str | None]:
    """The compressed bytes of a tensor, and their coding: "bits", differences without that many low bits, or None."""
    plain = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    coding: int | str | None = None
    strategy = zlib.Z_DEFAULT_STRATEGY
    if plain.dtype is torch.bool:
        raw, coding = np.packbits(plain.numpy()).tobytes(), "bits"
    elif plain.element_size() == 4 and plain.numel():
        steps = _differences(_columns(plain.view(torch.int32).numpy().view(np.uint32)).reshape(-1))
        used = int(np.bitwise_or.reduce(steps))
        coding = max((used & -used).bit_length() - 1, 0)
        raw, strategy = _shuffled((steps >> np.uint32(coding)).view(np.uint8), 4), zlib.Z_RLE
    else:
        raw = _shuffled(plain.reshape(-1).view(torch.uint8).numpy(), plain.element_size())
    level = 1
    deflate = zlib.compressobj(level, zlib.DEFLATED, zlib.MAX_WBITS, 9, strategy)
    return torch.frombuffer(bytearray(deflate.compress(raw) + deflate.flush()), dtype=torch.uint8), coding


def _unpacked(stored: Tensor, dtype: str, shape: list[int], coding: int | str | None = None) -> Tensor:
    """The tensor of compressed bytes; files of world versions up to 3 name no coding, which is None."""
    kind: torch.dtype = getattr(torch, dtype)
    raw = np.frombuffer(zlib.decompress(stored.numpy().tobytes()), np.uint8)
    if coding == "bits":
        return torch.from_numpy(np.unpackbits(raw, count=math.prod(shape)).view(np.bool_)).reshape(shape)
    numbers = raw.reshape(kind.itemsize, -1).T.copy().reshape(-1)
    if coding is None:
        return torch.from_numpy(numbers).view(kind).reshape(shape)
    bits = _sums(numbers.view(np.uint32) << np.uint32(coding))
    if _is_table(shape):
        bits = np.ascontiguousarray(bits.reshape(shape[1], shape[0]).T)
    return torch.from_numpy(bits.view(np.int32)).view(kind).reshape(shape)


def _is_table(shape: Sequence[int]) -> bool:
    table_columns = 4  # most columns of a table: positions, colors and quaternions; more is an image or a matrix
    return len(shape) == 2 and shape[1] <= table_columns


def _columns(numbers: np.ndarray) -> np.ndarray:
    """A table column by column, anything else as it is."""
    return np.ascontiguousarray(numbers.T) if _is_table(numbers.shape) else numbers


def _shuffled(numbers: np.ndarray, itemsize: int) -> bytes:
    """All first bytes, then all second ones, and so on."""
    return numbers.reshape(-1, itemsize).T.tobytes()


def _differences(numbers: np.ndarray) -> np.ndarray:
    """Differences of neighbors modulo 2^32, small negative ones as small odd numbers; the first stays."""
    steps = np.diff(numbers, prepend=np.uint32(0)).view(np.int32)
    return ((steps << 1) ^ (steps >> 31)).view(np.uint32)


def _sums(steps: np.ndarray) -> np.ndarray:
    """The inverse of `_differences`."""
    return np.cumsum((steps >> np.uint32(1)) ^ (np.uint32(0) - (steps & np.uint32(1))), dtype=np.uint32)
