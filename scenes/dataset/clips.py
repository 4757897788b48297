"""Training clips as files: one safetensors file each, and a manifest that lists them.

Every file holds ``rgb`` uint8 [T 3 H W], ``inverse_depth`` float16 [T 1 H W] (1 / z in 1/unit, 0 = sky, negative =
unknown), ``world_from_camera`` float32 [T 4 4] relative to the first frame, ``focal_px`` and ``center_px`` float32
[T 2], and text fields: the fields of ``ClipPlan``, license, unit (meter, or of filmed video the median depth of the
first frame).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from safetensors.torch import load_file

from geometry.camera import Camera
from geometry.frame import Frame

SKY_MEDIANS = 100.0  # depth given to the sky and to invalid pixels, in medians of the clip's depth
KEYS = {"rgb", "inverse_depth", "world_from_camera", "focal_px", "center_px"}

MANIFEST = "manifest.json"


def write_clip(path: Path, arrays: dict[str, np.ndarray], fields: Mapping[str, object]) -> None:
    """Write one clip atomically."""
    # Several processes fill one folder: their partial files need different names.
    partial = path.with_suffix(f".{os.getpid()}.partial")
    save_file(arrays, partial, metadata={key: str(value) for key, value in fields.items()})
    partial.replace(path)


def write_manifest(out: Path) -> Path:
    """List every clip of the folder in ``manifest.json`` (replaced atomically) and return its path."""
    path = out / MANIFEST
    partial = out / f"manifest.{os.getpid()}.partial"
    partial.write_text(json.dumps({"version": 1, "unit": "meter", "clips": list(_clip_fields(out))}, indent=1))
    partial.replace(path)
    return path


def _clip_fields(out: Path) -> Iterator[dict[str, str | int]]:
    for file in sorted(out.glob("clip_*.safetensors")):
        with safe_open(file, framework="np") as clip:
            fields = dict(clip.metadata())
        numbers = {key: int(fields[key]) for key in ("index", "frames", "seed")}
        yield {"file": file.name, **fields, **numbers}


def list_clips(data: Path, split: str) -> list[Path]:
    """Existing clips of ``split`` (train, heldout or estimated), in the manifest's order.

    Raises:
        ValueError: ``data`` holds no manifest.
    """
    try:
        manifest = json.loads((data / MANIFEST).read_text())
    except (OSError, ValueError) as error:
        raise ValueError(
            f"data: want a folder with {MANIFEST}, as `worldwarp render-data` makes it; {error}"
        ) from error
    names = [clip["file"] for clip in manifest["clips"] if clip["split"] == split]
    return [data / name for name in names if (data / name).is_file()]


def read_clip(path: Path) -> Frame:
    """Read the frames ``[T]`` of a clip; sky and invalid pixels get a depth of ``SKY_MEDIANS`` medians.

    Raises:
        ValueError: the file is damaged or not a clip.
    """
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: damaged ({error}); delete it and render it again") from error
    if missing := sorted(KEYS - tensors.keys()):
        raise ValueError(f"{path}: want a clip with {sorted(KEYS)}, missing {missing}")
    inverse = tensors["inverse_depth"].float()
    # Inverse depth tells three cases apart without a second array.
    sky, valid, ground = inverse == 0.0, inverse >= 0.0, inverse > 0.0
    depth = 1.0 / inverse.clamp_min(1e-6)
    median = depth[ground].median() if ground.any() else torch.tensor(1.0)
    depth = torch.where(ground, depth, SKY_MEDIANS * median)
    size = (inverse.shape[-2], inverse.shape[-1])
    camera = Camera(tensors["world_from_camera"], tensors["focal_px"], tensors["center_px"], size)
    return Frame(tensors["rgb"].float() / 255.0, depth, valid, sky, camera, metric=True)
