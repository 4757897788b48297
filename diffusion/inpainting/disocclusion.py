"""Disocclusions: which side of a hole is foreground, and how deep the background behind it is.

When a camera moves, every surface shifts along the epipolar lines, near ones faster. A hole that opens inside the
picture therefore lies, along its epipolar line, between the foreground surface that uncovered it and the background
surface that continues into it.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from diffusion.inpainting.config import DisocclusionConfig
from geometry.camera import Camera
from geometry.jit import compiled
from geometry.project import pixel_centers


def split_sides(
    inverse: Float[Tensor, "1 h w"],
    known: Bool[Tensor, "1 h w"],
    camera: Camera,
    before: Camera,
    config: DisocclusionConfig,
) -> tuple[Float[Tensor, "1 h w"], Bool[Tensor, "1 h w"]]:
    """Find what was uncovered between two cameras, and the foreground that used to cover it.

    Args:
        inverse: inverse depth, positive where ``known``.
        known: pixels with geometry.
        camera: the camera ``[1]`` that sees ``inverse``.
        before: the camera ``[1]`` from which the world was seen last.
        config: when a side is foreground, and how far it reaches.

    Returns:
        Inverse depth of the background in each hole pixel between a near and a far side (0 at other pixels), and the
        known pixels of the near side, except those that continue into another hole.
    """
    position = camera.camera_from_world[0] @ torch.cat([before.position[0], inverse.new_ones(1)])
    ray = (pixel_centers(camera.size, inverse) - camera.center_px[0, :, None, None]) / camera.focal_px[0, :, None, None]
    shift = (position[:2, None, None] - ray * position[2]) * camera.focal_px[0, :, None, None]
    nearest = inverse[known].max() if known.any() else inverse.new_zeros(())
    length = torch.hypot(shift[0], shift[1])
    moved_px = length * nearest
    if known.all() or not (moved_px > 1.0).any():
        return torch.zeros_like(inverse), torch.zeros_like(known)
    direction = shift / length.clamp_min(1e-9) * (moved_px > 1.0)
    far, foreground = _compare_sides(
        np.where(known[0].numpy(), inverse[0].double().numpy(), 0.0), direction.double().numpy(), config
    )
    return torch.from_numpy(far)[None].to(inverse), torch.from_numpy(foreground)[None]


@compiled
def _value(inverse: np.ndarray, y: int, x: int, dy: float, dx: float, step: int) -> float:
    """Inverse depth ``step`` pixels along ``(dy, dx)`` from ``(y, x)`` in ``inverse [h w]``.

    0 in holes, negative outside the picture.
    """
    i, j = int(np.round(y + step * dy)), int(np.round(x + step * dx))
    if i < 0 or i >= inverse.shape[0] or j < 0 or j >= inverse.shape[1]:
        return -1.0
    return inverse[i, j]


@compiled
def _mark(
    mask: np.ndarray, inverse: np.ndarray, y: int, x: int, dy: float, dx: float, first: int, last: int, least: float
) -> None:
    """Mark known pixels from step ``first`` to ``last`` along a line, up to one whose inverse depth is under ``least``.

    Args:
        mask: ``[h w]``, changed in place.
        inverse: ``[h w]`` inverse depth, 0 in holes.
        y, x: start of the line.
        dy, dx: unit direction in pixels.
        first, last: range of steps, the last excluded.
        least: inverse depth.
    """
    for step in range(first, last):
        value = _value(inverse, y, x, dy, dx, step)
        if value < 0.0 or 0.0 < value < least:
            return
        if value > 0.0:
            mask[int(np.round(y + step * dy)), int(np.round(x + step * dx))] = True


@compiled
def _side(inverse: np.ndarray, y: int, x: int, dy: float, dx: float, side_px: int) -> tuple[int, float]:
    """The side of a hole along a line from one of its pixels.

    Args:
        inverse: ``[h w]`` inverse depth, 0 in holes.
        y, x: the hole pixel.
        dy, dx: unit direction in pixels.
        side_px: known pixels that are read.

    Returns:
        Steps to the first known pixel (0: none), and the largest inverse depth of the first ``side_px`` known ones.
    """
    step, at, found, value = 0, 0, 0, 0.0
    while found < side_px:
        step += 1
        here = _value(inverse, y, x, dy, dx, step)
        if here < 0.0 or (here == 0.0 and found > 0):
            break
        if here > 0.0:
            at = step if found == 0 else at
            found += 1
            value = max(value, here)
    return at, value


@compiled
def _compare_sides(
    inverse: np.ndarray, direction: np.ndarray, config: DisocclusionConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Compare both sides of every hole pixel along its epipolar line; mark the nearer one.

    Args:
        inverse: ``[h w]`` inverse depth, 0 in holes.
        direction: ``[2 h w]`` unit epipolar direction ``(dx, dy)`` of each pixel, 0 where nothing moves.
        config: see `DisocclusionConfig`.

    Returns:
        ``[h w]`` inverse depth of the background in disoccluded pixels, 0 elsewhere; ``[h w]`` mask of foreground.
    """
    height, width = inverse.shape
    far = np.zeros((height, width))
    foreground, background = np.zeros((height, width), np.bool_), np.zeros((height, width), np.bool_)
    for y in range(height):
        for x in range(width):
            dy, dx = direction[1, y, x], direction[0, y, x]
            if inverse[y, x] > 0.0 or (dx == 0.0 and dy == 0.0):
                continue
            near_at, near = _side(inverse, y, x, dy, dx, config.side_px)
            far_at, low = _side(inverse, y, x, -dy, -dx, config.side_px)
            if low > near:
                near_at, near, far_at, low, dy, dx = far_at, low, near_at, near, -dy, -dx
            # Where the near side slopes down to the far one, like ground towards the horizon, both are one surface.
            edge = _value(inverse, y, x, dy, dx, near_at)
            within = _value(inverse, y, x, dy, dx, near_at + config.slope_px)
            rise = (within - edge) / config.slope_px if within > 0.0 else (near - edge) / (config.side_px - 1)
            step = edge - rise * (near_at + far_at) if rise > 0.0 else near
            disoccluded = low > 0.0 and step >= config.front_ratio * low
            if low > 0.0:
                _mark(background, inverse, y, x, -dy, -dx, far_at, far_at + config.side_px, 0.0)
            if near > 0.0 and not disoccluded:
                _mark(background, inverse, y, x, dy, dx, near_at, near_at + config.side_px, 0.0)
            if disoccluded:
                # Ground that rises towards the camera continues to rise in the hole.
                edge = _value(inverse, y, x, -dy, -dx, far_at)
                within = _value(inverse, y, x, -dy, -dx, far_at + config.slope_px)
                rise = max(edge - within, 0.0) / config.slope_px if within > 0.0 else 0.0
                far[y, x] = min(low + rise * far_at, near)
                reach = near_at + config.reach_px
                _mark(foreground, inverse, y, x, dy, dx, near_at, reach, low * np.sqrt(config.front_ratio))
    # A pixel from which another hole continues is background there: it stays.
    return far, foreground & ~background
