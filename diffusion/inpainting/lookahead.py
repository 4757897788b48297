"""Look-ahead: a view further along the path that is filled first; the chunk then shows a part of it.

A border that is filled strip by strip, chunk after chunk, repeats what is next to it until only fog is left. From
further along, the hole is wide and is filled as one piece.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion.inpainting.config import LookAheadConfig
from geometry.camera import Camera
from geometry.frame import Guide
from geometry.project import unproject


def look_ahead(guide: Guide, config: LookAheadConfig = LookAheadConfig()) -> Camera | None:  # noqa: B008 (frozen)
    """The camera ``[1]`` that is up to ``config.chunks`` chunks ahead if the chunk's motion continues.

    Its focal length is as long as keeps the chunk's last points in the picture.

    Args:
        guide: what the cache shows to the chunk, ``[t]``.
        config: how far and how wide.

    Returns:
        None where the last frame is all covered or all hole, or where no such view holds enough of its points.
    """
    first, last = guide.camera[:1], guide.camera[-1:]
    seen = guide.covered[-1, 0]
    if seen.all() or not seen.any():
        return None
    points = unproject(guide.depth[-1:], last)[0, :, seen].T
    motion = first.camera_from_world @ last.world_from_camera
    for chunks in range(config.chunks, 0, -1):
        pose = last.world_from_camera @ torch.linalg.matrix_power(motion, chunks)
        camera = replace(last, world_from_camera=pose)
        factor = _focal_factor(points, camera, config.kept)
        if factor >= config.shortest_focal:
            return replace(camera, focal_px=camera.focal_px * factor)
    return None


def _focal_factor(points: Float[Tensor, "n 3"], camera: Camera, kept: float) -> float:
    """Factor on the focal length, 0..1, with which the share ``kept`` of world points is in the picture."""
    pose = camera.camera_from_world[0]
    local = points @ pose[:3, :3].T + pose[:3, 3]
    offset = local[:, :2] * camera.focal_px / local[:, 2:].clamp_min(1e-6)
    room = torch.where(offset > 0.0, torch.tensor(camera.size[::-1]) - camera.center_px, camera.center_px)
    factor = (room / offset.abs().clamp_min(1e-6)).amin(dim=1) * (local[:, 2] > 0.0)
    return min(float(factor.quantile(1.0 - kept)), 1.0)
