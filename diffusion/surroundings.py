"""The photograph with a margin around it, to be filled from where it was taken.

A walk opens the photograph's border strip by strip, and each strip would go on from the one before: what the border
cuts would stay cut, and texture would smear. Seen from the photograph's own place nothing hides anything, so that every
surface simply goes on, and what the border cuts is finished.
"""

from __future__ import annotations

import torch
from torch.nn.functional import pad

from geometry.camera import Camera
from geometry.frame import Frame, Guide

SIDES, ENDS = 0.35, 0.25  # margins left and right, above and below, in widths and heights of the photograph


def with_margin(photo: Frame) -> tuple[Guide, Frame]:
    """What is known of a wider picture from the photograph's place, and the same as a frame to copy from.

    Args:
        photo: the photograph ``[1]``.

    Returns:
        The guide ``[1]``, open in the margin, and the frame ``[1]``, valid where the photograph is; of one size, with
        the photograph's pixels.
    """
    height, width = photo.camera.size
    x, y = round(SIDES * width), round(ENDS * height)

    def wider(values: torch.Tensor) -> torch.Tensor:
        return pad(values.to(photo.rgb), (x, x, y, y))

    center = photo.camera.center_px + photo.camera.center_px.new_tensor([x, y])
    camera = Camera(photo.camera.world_from_camera, photo.camera.focal_px, center, (height + 2 * y, width + 2 * x))
    valid, sky = wider(photo.valid), wider(photo.sky)
    guide = Guide(wider(photo.rgb), wider(photo.depth) * valid, valid, valid, sky, camera)
    depth = torch.where(valid > 0.5, guide.depth, 1.0)
    return guide, Frame(guide.rgb, depth, valid > 0.5, sky > 0.5, camera, photo.metric)
