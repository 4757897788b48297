"""Pictures wider than a frame, to be filled at once: what lies around the photograph, and where a walk turns to.

A walk opens the border of what is known strip by strip, and each strip would go on from the one before: what the border
cuts would stay cut, and texture would smear. In a wider picture every surface simply goes on, and what the border cuts
is finished.
"""

from __future__ import annotations

import torch
from torch.nn.functional import pad

from geometry.camera import Camera
from geometry.frame import Frame, Guide

SIDES, ENDS = 0.35, 0.25  # margins left and right, above and below, in widths and heights of the photograph


def with_margin(photo: Frame) -> Guide:
    """What is known of a wider picture from the photograph's place: open in the margin; of the photograph ``[1]``."""
    height, width = photo.camera.size
    wide = widened(photo, (height + 2 * round(ENDS * height), width + 2 * round(SIDES * width)))
    known = wide.valid.to(wide.rgb)
    return Guide(wide.rgb, wide.depth * known, known, known, wide.sky.to(wide.rgb), wide.camera)


def widened(frames: Frame, size: tuple[int, int]) -> Frame:
    """The same pixels in the middle of wider frames of ``size = (H, W)``, which are valid nowhere else."""
    (height, width), (rows, columns) = frames.camera.size, size
    x, y = (columns - width) // 2, (rows - height) // 2

    def wider(values: torch.Tensor, around: float = 0.0) -> torch.Tensor:
        return pad(values.to(frames.rgb), (x, columns - width - x, y, rows - height - y), value=around)

    center = frames.camera.center_px + frames.camera.center_px.new_tensor([x, y])
    camera = Camera(frames.camera.world_from_camera, frames.camera.focal_px, center, size)
    valid, sky = wider(frames.valid) > 0.5, wider(frames.sky) > 0.5
    return Frame(wider(frames.rgb), wider(frames.depth, 1.0), valid, sky, camera, frames.metric)
