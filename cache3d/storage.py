"""Primitives on disk: safetensors with a version, written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from dataclasses import fields
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from geometry.primitives import Gaussians, Points

VERSION = 1
_KINDS: dict[str, type[Points] | type[Gaussians]] = {"points": Points, "gaussians": Gaussians}
_WIDTHS = {"positions": 3, "normals": 3, "means": 3, "quats": 4, "scales": 3, "colors": 3}
_DTYPES = {"chunk": torch.int32, "observed": torch.bool, "sky": torch.bool}


def save_primitives(path: str | Path, primitives: Points | Gaussians) -> None:
    """Write primitives; a file of that name is replaced in one step, after all is on disk.

    Args:
        path: file to write; its folder must exist.
        primitives: on any device.

    Raises:
        OSError: if it cannot be written; an existing file is then as it was.
    """
    path = Path(path)
    kind = next(name for name, cls in _KINDS.items() if isinstance(primitives, cls))
    tensors = {f.name: getattr(primitives, f.name).detach().cpu().contiguous() for f in fields(primitives)}
    handle, partial = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    try:
        save_file(tensors, partial, {"format": "worldwarp.primitives", "version": str(VERSION), "kind": kind})
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        os.unlink(partial)
        raise


def load_primitives(path: str | Path) -> Points | Gaussians:
    """Read what `save_primitives` wrote, bit for bit.

    Raises:
        ValueError: naming the file, if it is missing, truncated, altered, of another kind or of a later version.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            meta = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: cannot be read as primitives ({error}); restore it from a copy") from error
    if meta.get("format") != "worldwarp.primitives" or meta.get("kind") not in _KINDS:
        raise ValueError(f"{path}: want a primitives file of worldwarp, got metadata {meta}")
    if meta.get("version") != str(VERSION):
        raise ValueError(f"{path}: want version {VERSION}, got {meta.get('version')}; use the worldwarp that wrote it")
    cls = _KINDS[meta["kind"]]
    names = {f.name for f in fields(cls)}
    if set(tensors) != names:
        raise ValueError(f"{path}: want tensors {sorted(names)}, got {sorted(tensors)}")
    count = len(tensors["colors"])
    for name, tensor in tensors.items():
        shape = (count, _WIDTHS[name]) if name in _WIDTHS else (count,)
        dtype = _DTYPES.get(name, torch.float32)
        if tuple(tensor.shape) != shape or tensor.dtype != dtype:
            raise ValueError(f"{path}: {name}: want {dtype} {shape}, got {tensor.dtype} {tuple(tensor.shape)}")
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ValueError(f"{path}: {name}: want finite numbers, got NaN or infinity")
    return cls(**tensors)
