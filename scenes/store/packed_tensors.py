"""Tensors in a file, compressed without loss.

A safetensors file whose tensors are bytes: of each tensor all first bytes of its numbers, then all second ones, and so
on, deflated. Signs and exponents of neighbors are alike, so that a world takes a third of its plain size. Level 1 of
zlib comes within 4 % of what Zstandard, bit shuffling and pcodec reach on worlds (docs/results.md) and needs no further
package. One tensor can be read without the others.
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
LAYOUT = "packed"  # the only metadata entry: safetensors writes several in random order, and equal worlds are equal


class TensorFile:
    """An open file of tensors, packed, or plain as older worlds have them."""

    def __init__(self, path: Path, file: safe_open) -> None:
        """Read the head."""
        metadata = file.metadata() or {}
        layout = json.loads(metadata[LAYOUT]) if LAYOUT in metadata else None
        self.kind: str | None = metadata.get("kind") if layout is None else layout["kind"]
        self._path, self._file = path, file
        self._tensors: dict[str, list[Any]] | None = None if layout is None else layout["tensors"]

    @property
    def names(self) -> set[str]:
        """Of the tensors."""
        return set(self._file.keys())

    def get(self, name: str) -> Tensor:
        """One tensor, to the bit.

        Raises:
            WorldError: no such tensor, or bytes that are not its own.
        """
        try:
            stored = self._file.get_tensor(name)
            return stored if self._tensors is None else _unpacked(stored, *self._tensors[name])
        except (SafetensorError, KeyError, ValueError, zlib.error) as error:
            raise WorldError(f"{self._path}: its tensor {name!r} cannot be read ({error}); restore it") from error


@contextmanager
def open_tensors(path: Path) -> Iterator[TensorFile]:
    """Open what `packed` made, or a plain safetensors file.

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
    """The content of a file; equal tensors give equal bytes.

    Args:
        tensors: by name; whatever their device, layout or sharing.
        kind: what they are, for whoever reads them.
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
