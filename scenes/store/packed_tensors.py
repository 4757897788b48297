"""Lossless compression of tensors in a file.

The file is a safetensors file of byte tensors. The bytes of each tensor are shuffled (all first bytes of its numbers,
then all second bytes, and so on) and deflated. Signs and exponents of neighbors are similar, so a world takes a third
of its plain size. Level 1 of zlib is within 4 % of Zstandard, bit shuffling and pcodec on worlds (docs/results.md) and
needs no further package. Each tensor can be read alone.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from scenes.io.atomic_files import WorldError

LEVEL = 1
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
    layout = {name: [str(tensor.dtype).removeprefix("torch."), list(tensor.shape)] for name, tensor in tensors.items()}
    head = json.dumps({"kind": kind, "tensors": layout}, sort_keys=True)
    return save({name: _packed(tensor) for name, tensor in tensors.items()}, {LAYOUT: head})


def _packed(tensor: Tensor) -> Tensor:
    plain = tensor.detach().cpu().clone(memory_format=torch.contiguous_format).reshape(-1)
    numbers = plain.view(torch.uint8).numpy().reshape(-1, plain.element_size())
    return torch.frombuffer(bytearray(zlib.compress(numbers.T.tobytes(), LEVEL)), dtype=torch.uint8)


def _unpacked(stored: Tensor, dtype: str, shape: list[int]) -> Tensor:
    kind: torch.dtype = getattr(torch, dtype)
    flat = np.frombuffer(zlib.decompress(stored.numpy().tobytes()), np.uint8).reshape(kind.itemsize, -1)
    return torch.from_numpy(flat.T.copy().reshape(-1)).view(kind).reshape(shape)
