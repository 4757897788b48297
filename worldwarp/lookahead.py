"""Where to fill first: a view from further on, of which the chunk shows a part.

A border that is filled strip by strip, chunk after chunk, repeats what lies next to it until nothing but fog is left.
Seen from further on, what opens is wide, and is filled as one thing. What opens behind things is then carried into the
chunk. What opens for who turns on the spot nothing hides: there a wider picture becomes part of the world, for what
comes next will see the rest of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from geometry.camera import Camera
from geometry.frame import Guide
from geometry.project import unproject

FURTHEST = 3  # chunks; with 1, what an orbit of 2 degrees a chunk opens beside a tree becomes a green smear
KEPT = 0.95  # share of what the chunk ends with that the view must hold: what covers a thing is needed to place it
WIDEST = 0.5  # shortest focal length of the view, of the chunk's: wider, what is copied there is too coarse
BEYOND = 8  # chunks; who turns slowly should not get a seam at each
ON_THE_SPOT = 0.01  # median depths that one may move during a chunk and still be only turning
OPENED = 0.1  # share of the picture's outline that is new where a chunk leaves what is known
EVEN = 16  # pixels: sizes of pictures are multiples


def look_ahead(guide: Guide) -> Camera | None:
    """The camera ``[1]`` where a chunk's would be up to `FURTHEST` chunks later, if it moved on as it does.

    Its lens is as wide as it takes to keep what the chunk ends with in the picture.

    Args:
        guide: what the cache shows to the chunk, ``[t]``.

    Returns:
        None where the chunk shows nothing new, or where nothing of it would be left in the picture.
    """
    for camera, lenses in _further(guide, FURTHEST):
        lens = float(lenses.amin(dim=1).quantile(1.0 - KEPT).clamp(max=1.0))
        if lens >= WIDEST:
            return replace(camera, focal_px=camera.focal_px * lens)
    return None


def look_beyond(guide: Guide) -> Camera | None:
    """The camera ``[1]`` of a wider picture, up to `BEYOND` chunks further on, where a chunk turns from what is known.

    Its pixels are as large as the chunk's; it has so many more that what the chunk ends with stays in the picture.

    Args:
        guide: as for `look_ahead`.

    Returns:
        None where the outline of the chunk's last picture is known, and for who moves from the spot: seen from further
        on, what hides it now would be filled as well, and debris would stand about a thing that one walks around.
    """
    known = guide.coverage[-1, 0] > 0.5
    if torch.cat([known[0], known[-1], known[:, 0], known[:, -1]]).float().mean() > 1.0 - OPENED:
        return None
    moved = (guide.camera.position[-1] - guide.camera.position[0]).norm()
    if not known.any() or moved > ON_THE_SPOT * guide.depth[-1, 0][known].median():
        return None
    for camera, lenses in _further(guide, BEYOND):
        across, down = lenses.quantile(1.0 - KEPT, dim=0).clamp(max=1.0).tolist()
        if min(across, down) < WIDEST:
            continue
        height, width = (EVEN * math.ceil(side / EVEN) for side in (camera.size[0] / down, camera.size[1] / across))
        more = camera.center_px.new_tensor([width - camera.size[1], height - camera.size[0]])
        return replace(camera, center_px=camera.center_px + 0.5 * more, size=(height, width))
    return None


def _further(guide: Guide, furthest: int) -> Iterator[tuple[Camera, Float[Tensor, "n 2"]]]:
    """Cameras ``[1]`` that go on like a chunk's, the furthest first, and what to multiply their focal lengths by.

    Across and down, for each point that the chunk ends with to lie in the picture; none where all or nothing is seen.
    """
    first, last = guide.camera[:1], guide.camera[-1:]
    seen = guide.coverage[-1, 0] > 0.5
    if seen.all() or not seen.any():
        return
    points = unproject(guide.depth[-1:], last)[0, :, seen].T
    onward = first.camera_from_world @ last.world_from_camera
    for chunks in range(furthest, 0, -1):
        camera = replace(last, world_from_camera=last.world_from_camera @ torch.linalg.matrix_power(onward, chunks))
        pose = camera.camera_from_world[0]
        local = points @ pose[:3, :3].T + pose[:3, 3]
        offset = local[:, :2] * camera.focal_px / local[:, 2:].clamp_min(1e-6)
        room = torch.where(offset > 0.0, torch.tensor(camera.size[::-1]) - camera.center_px, camera.center_px)
        yield camera, (room / offset.abs().clamp_min(1e-6)) * (local[:, 2:] > 0.0)
