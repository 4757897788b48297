"""Where to fill first: a view from further on, of which the chunk shows a part.

A border that is filled strip by strip, chunk after chunk, repeats what lies next to it until nothing but fog is left.
Seen from further on, what opens is wide, and is filled as one thing.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from geometry.camera import Camera
from geometry.frame import Guide
from geometry.project import unproject

FURTHEST = 3  # chunks; with 1, what an orbit of 2 degrees a chunk opens beside a tree becomes a green smear
KEPT = 0.95  # share of what the chunk ends with that the view must hold: what covers a thing is needed to place it
WIDEST = 0.5  # shortest focal length of the view, of the chunk's: wider, what is copied there is too coarse


def look_ahead(guide: Guide) -> Camera | None:
    """The camera ``[1]`` where a chunk's would be up to `FURTHEST` chunks later, if it moved on as it does.

    Its lens is as wide as it takes to keep what the chunk ends with in the picture.

    Args:
        guide: what the cache shows to the chunk, ``[t]``.

    Returns:
        None where the chunk shows nothing new, or where nothing of it would be left in the picture.
    """
    first, last = guide.camera[:1], guide.camera[-1:]
    seen = guide.coverage[-1, 0] > 0.5
    if seen.all() or not seen.any():
        return None
    points = unproject(guide.depth[-1:], last)[0, :, seen].T
    onward = first.camera_from_world @ last.world_from_camera
    for chunks in range(FURTHEST, 0, -1):
        pose = last.world_from_camera @ torch.linalg.matrix_power(onward, chunks)
        camera = replace(last, world_from_camera=pose)
        lens = _lens_that_keeps(points, camera)
        if lens >= WIDEST:
            return replace(camera, focal_px=camera.focal_px * lens)
    return None


def _lens_that_keeps(points: torch.Tensor, camera: Camera) -> float:
    """Factor on the focal length, 0..1, with which `KEPT` of the points ``[n 3]`` lie in the picture of ``camera``."""
    pose = camera.camera_from_world[0]
    local = points @ pose[:3, :3].T + pose[:3, 3]
    offset = local[:, :2] * camera.focal_px / local[:, 2:].clamp_min(1e-6)
    room = torch.where(offset > 0.0, torch.tensor(camera.size[::-1]) - camera.center_px, camera.center_px)
    lens = (room / offset.abs().clamp_min(1e-6)).amin(dim=1) * (local[:, 2] > 0.0)
    return min(float(lens.quantile(1.0 - KEPT)), 1.0)
