"""Outpainting: a wider view, filled as one piece, around the photo and where a chunk leaves the known.

A walk uncovers strip after strip, and each strip would be extended from the one before: what the border cuts would stay
cut, and texture would smear. In a wider view every surface is extended at once. The view is taken from where the camera
is: from a displaced camera hidden regions would be filled too, which leaves floaters around foreground objects.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn.functional import pad

from diffusion.inpainting.config import OutpaintConfig
from geometry.camera import Camera
from geometry.frame import Frame, Guide
from geometry.project import project, unproject

_GRID = 24  # points across and down by which a view is compared with the photo
_FAR = 1000.0  # median depths
STEP_PX = 16  # margins are multiples: the generator's pictures are


def photo_with_margin(photo: Frame, config: OutpaintConfig = OutpaintConfig()) -> Guide:  # noqa: B008 (frozen)
    """A guide wider than the photo ``[1]`` on all sides, from the photo's camera; the margin is hole."""
    wide = pad_frame(photo, _wider(photo.camera, (True, True, True, True), config).size)
    known = wide.valid.to(wide.rgb)
    return Guide(wide.rgb, wide.depth * known, known, known, wide.sky.to(wide.rgb), wide.camera)


def outpaint_camera(guide: Guide, config: OutpaintConfig = OutpaintConfig()) -> Camera | None:  # noqa: B008 (frozen)
    """The chunk's last camera ``[1]`` with a margin on the sides that are largely uncovered.

    Args:
        guide: what the cache shows to the chunk, ``[t]``.
        config: margins, and when a side is uncovered.

    Returns:
        None where nothing is covered, or no side is uncovered.
    """
    known = guide.covered[-1, 0]
    left, right, above, below = (
        float(side.float().mean()) < 1.0 - config.open_share
        for side in (known[:, 0], known[:, -1], known[0], known[-1])
    )
    if not known.any() or not (left or right or above or below):
        return None
    return _wider(guide.camera[-1:], (left, right, above, below), config)


def looks_beyond(camera: Camera, photo: Frame, config: OutpaintConfig = OutpaintConfig()) -> bool:  # noqa: B008 (frozen)
    """Whether any view of cameras ``[t]`` shows places that lie outside the picture of the photo ``[1]``.

    Asked of the far distance, where turns count, and of the photo's median depth, where moves do.
    """
    coarse, median = camera.resized((_GRID, _GRID)), photo.median_depth()
    height, width = photo.camera.size
    for depth in (median, _FAR * median):
        points = unproject(coarse.focal_px.new_full((len(coarse), 1, _GRID, _GRID), depth), coarse)
        pixels, z = project(points.movedim(1, 0).reshape(1, 3, -1).transpose(1, 2), photo.camera)
        outside = (pixels < 0).any(-1) | (pixels[..., 0] > width) | (pixels[..., 1] > height) | (z < 0)
        if outside.reshape(len(coarse), -1).float().mean(1).max() > config.margin_share:
            return True
    return False


def pad_frame(frames: Frame, size: tuple[int, int]) -> Frame:
    """The frames in the middle of wider ones of ``size = (H, W)`` pixels, which are valid nowhere else."""
    (height, width), (rows, columns) = frames.camera.size, size
    x, y = (columns - width) // 2, (rows - height) // 2

    def wider(values: Tensor, around: float = 0.0) -> Tensor:
        return pad(values.to(frames.rgb), (x, columns - width - x, y, rows - height - y), value=around)

    center = frames.camera.center_px + frames.camera.center_px.new_tensor([x, y])
    camera = Camera(frames.camera.world_from_camera, frames.camera.focal_px, center, size)
    valid, sky = wider(frames.valid) > 0.5, wider(frames.sky) > 0.5
    return Frame(wider(frames.rgb), wider(frames.depth, 1.0), valid, sky, camera, frames.metric)


def eroded_border(mask: Bool[Tensor, "*b h w"], border_px: int = OutpaintConfig.border_px) -> Bool[Tensor, "*b h w"]:
    """The mask without the outermost ``border_px`` pixels of the picture.

    Patches there extend beyond the picture, so that fewer known pixels constrain them.
    """
    inner = torch.zeros_like(mask)
    inside = (..., *(slice(border_px, side - border_px) for side in mask.shape[-2:]))
    inner[inside] = mask[inside]
    return inner


def _wider(camera: Camera, sides: tuple[bool, bool, bool, bool], config: OutpaintConfig) -> Camera:
    """The camera with a margin left, right, above, below; every ray keeps its pixel, shifted by the margin."""
    height, width = camera.size
    across, down = (
        STEP_PX * round(share * side / STEP_PX) for share, side in ((config.side, width), (config.end, height))
    )
    left, right, above, below = (m * s for m, s in zip((across, across, down, down), sides, strict=True))
    center = camera.center_px + camera.center_px.new_tensor([left, above])
    return replace(camera, center_px=center, size=(height + above + below, width + left + right))
