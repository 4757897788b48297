"""Training clips as files: one safetensors file each, and a manifest that lists them.

Every file holds ``rgb`` uint8 [T 3 H W], ``inverse_depth`` float16 [T 1 H W] (1 / z in 1/metre, 0 = sky,
negative = nothing is known there),
``world_from_camera`` float32 [T 4 4] relative to the first frame, ``focal_px`` and ``center_px`` float32 [T 2], and
text fields: what was planned, licence, unit.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

MANIFEST = "manifest.json"


def write_clip(path: Path, arrays: dict[str, np.ndarray], fields: Mapping[str, object]) -> None:
    """Write one clip, all of it or nothing."""
    partial = path.with_suffix(f".{os.getpid()}.partial")
    save_file(arrays, partial, metadata={key: str(value) for key, value in fields.items()})
    partial.replace(path)


def write_manifest(out: Path) -> Path:
    """List every clip of the folder in ``manifest.json`` (replaced in one step) and return its path."""
    path = out / MANIFEST
    partial = out / f"manifest.{os.getpid()}.partial"
    partial.write_text(json.dumps({"version": 1, "unit": "metre", "clips": list(_clip_fields(out))}, indent=1))
    partial.replace(path)
    return path


def _clip_fields(out: Path) -> Iterator[dict[str, str | int]]:
    for file in sorted(out.glob("clip_*.safetensors")):
        with safe_open(file, framework="np") as clip:
            fields = dict(clip.metadata())
        numbers = {key: int(fields[key]) for key in ("index", "frames", "seed")}
        yield {"file": file.name, **fields, **numbers}
