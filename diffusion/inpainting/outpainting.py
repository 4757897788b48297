"""What lies around a picture, to be filled at once: around the photograph, and wherever a walk leaves what is known.

A walk opens the border of what is known strip by strip, and each strip would go on from the one before: what the border
cuts would stay cut, and texture would smear. In a wider picture every surface simply goes on, and what the border cuts
is finished. It is taken from where the camera stands: from further on, what is hidden now would be filled as well, and
debris would stand about a thing that one walks around.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn.functional import pad

from geometry.camera import Camera
from geometry.frame import Frame, Guide

SIDES, ENDS = 0.35, 0.25  # margins left and right, above and below, in widths and heights of the picture
EVEN = 16  # pixels: margins are multiples, as the generator's pictures are
RIM_PX = 4  # of the margin that is not kept: patches that hang over its end are held by too little
OPENED = 0.3  # share of one side of a picture that is new where a walk leaves what is known


def photo_with_margin(photo: Frame) -> Guide:
    """What is known of a wider picture from the photograph's place: open in the margin; of the photograph ``[1]``."""
    wide = pad_frame(photo, _wider(photo.camera, (True, True, True, True)).size)
    known = wide.valid.to(wide.rgb)
    return Guide(wide.rgb, wide.depth * known, known, known, wide.sky.to(wide.rgb), wide.camera)


def outpaint_camera(guide: Guide) -> Camera | None:
    """The camera ``[1]`` of a picture that is wider than a chunk's last, on the sides where that leaves what is known.

    Args:
        guide: what the cache shows to the chunk, ``[t]``.

    Returns:
        None where nothing is known, or all sides are.
    """
    known = guide.coverage[-1, 0] > 0.5
    left, right, above, below = (
        float(side.float().mean()) < 1.0 - OPENED for side in (known[:, 0], known[:, -1], known[0], known[-1])
    )
    if not known.any() or not (left or right or above or below):
        return None
    return _wider(guide.camera[-1:], (left, right, above, below))


def pad_frame(frames: Frame, size: tuple[int, int]) -> Frame:
    """The same pixels in the middle of wider frames of ``size = (H, W)``, which are valid nowhere else."""
    (height, width), (rows, columns) = frames.camera.size, size
    x, y = (columns - width) // 2, (rows - height) // 2

    def wider(values: Tensor, around: float = 0.0) -> Tensor:
        return pad(values.to(frames.rgb), (x, columns - width - x, y, rows - height - y), value=around)

    center = frames.camera.center_px + frames.camera.center_px.new_tensor([x, y])
    camera = Camera(frames.camera.world_from_camera, frames.camera.focal_px, center, size)
    valid, sky = wider(frames.valid) > 0.5, wider(frames.sky) > 0.5
    return Frame(wider(frames.rgb), wider(frames.depth, 1.0), valid, sky, camera, frames.metric)


def eroded_border(mask: Bool[Tensor, "*b h w"]) -> Bool[Tensor, "*b h w"]:
    """What lies no nearer than `RIM_PX` to the end of the picture."""
    inner = torch.zeros_like(mask)
    inside = (..., slice(RIM_PX, -RIM_PX), slice(RIM_PX, -RIM_PX))
    inner[inside] = mask[inside]
    return inner


def _wider(camera: Camera, sides: tuple[bool, bool, bool, bool]) -> Camera:
    """The same camera with a margin left, right, above, below; directions keep their pixels."""
    height, width = camera.size
    across, down = (EVEN * round(share * side / EVEN) for share, side in ((SIDES, width), (ENDS, height)))
    left, right, above, below = (m * s for m, s in zip((across, across, down, down), sides, strict=True))
    center = camera.center_px + camera.center_px.new_tensor([left, above])
    return replace(camera, center_px=center, size=(height + above + below, width + left + right))
