"""Rendered clips, as `worldwarp render-data` writes them."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from geometry.camera import Camera
from geometry.frame import Frame

MANIFEST = "manifest.json"
SKY_MEDIANS = 100.0
KEYS = {"rgb", "inverse_depth", "world_from_camera", "focal_px", "center_px"}


def list_clips(data: Path, split: str) -> list[Path]:
    """Clips of ``split`` (train, heldout or estimated) that are there, in the manifest's order.

    Raises:
        ValueError: no manifest in ``data``.
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
    """Frames ``[T]`` of a clip; the sky is flagged and lies 100 medians away, and so does what is not valid.

    Raises:
        ValueError: a file that is damaged or no clip.
    """
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: damaged ({error}); delete it and render it again") from error
    if missing := sorted(KEYS - tensors.keys()):
        raise ValueError(f"{path}: want a clip with {sorted(KEYS)}, missing {missing}")
    inverse = tensors["inverse_depth"].float()
    sky, valid, ground = inverse == 0.0, inverse >= 0.0, inverse > 0.0
    depth = 1.0 / inverse.clamp_min(1e-6)
    median = depth[ground].median() if ground.any() else torch.tensor(1.0)
    depth = torch.where(ground, depth, SKY_MEDIANS * median)
    size = (inverse.shape[-2], inverse.shape[-1])
    camera = Camera(tensors["world_from_camera"], tensors["focal_px"], tensors["center_px"], size)
    return Frame(tensors["rgb"].float() / 255.0, depth, valid, sky, camera, metric=True)
