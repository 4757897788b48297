"""Which side of a hole belongs to what was hidden.

When a camera moves, every surface slides along the epipolar lines, near ones faster. A hole that opens inside the
picture therefore lies, along its epipolar line, between the surface in front, which uncovered it, and the surface
behind, which goes on into it.
"""

from __future__ import annotations

import inspect

import numba
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geometry.camera import Camera
from geometry.project import pixel_centers

FRONT_RATIO = 1.15  # inverse depth this much above the far side's belongs to a surface in front
FRONT_REACH_PX = 64
SIDE_PX = 3  # pixels of a side that vote on its depth
SLOPE_PX = 6  # over which the slope of a side is taken


def split_sides(
    inverse: Float[Tensor, "1 h w"], known: Bool[Tensor, "1 h w"], camera: Camera, before: Camera
) -> tuple[Float[Tensor, "1 h w"], Bool[Tensor, "1 h w"]]:
    """Find what was uncovered between two cameras, and what used to cover it.

    Args:
        inverse: inverse depth, positive where ``known``.
        known: pixels with geometry.
        camera: the camera ``[1]`` that sees ``inverse``.
        before: the camera ``[1]`` from which the world was seen last.

    Returns:
        Inverse depth of the far surface that goes on into each hole pixel between a near and a far one (0 at other
        pixels), and the known pixels of the near one, but for those from which another hole goes on.
    """
    position = camera.camera_from_world[0] @ torch.cat([before.position[0], inverse.new_ones(1)])
    ray = (pixel_centers(camera.size, inverse) - camera.center_px[0, :, None, None]) / camera.focal_px[0, :, None, None]
    slide = (position[:2, None, None] - ray * position[2]) * camera.focal_px[0, :, None, None]
    nearest = inverse[known].max() if known.any() else inverse.new_zeros(())
    length = torch.hypot(slide[0], slide[1])
    moved_px = length * nearest
    if known.all() or not (moved_px > 1.0).any():
        return torch.zeros_like(inverse), torch.zeros_like(known)
    direction = slide / length.clamp_min(1e-9) * (moved_px > 1.0)
    far, foreground = _walk(
        np.where(known[0].numpy(), inverse[0].double().numpy(), 0.0), direction.double().numpy(), FRONT_REACH_PX
    )
    return torch.from_numpy(far)[None].to(inverse), torch.from_numpy(foreground)[None]


def _value_bare(inverse: np.ndarray, y: int, x: int, dy: float, dx: float, step: int) -> float:
    """Inverse depth some steps along a line from a pixel: 0 in holes, negative outside the picture."""
    i, j = int(np.round(y + step * dy)), int(np.round(x + step * dx))
    if i < 0 or i >= inverse.shape[0] or j < 0 or j >= inverse.shape[1]:
        return -1.0
    return inverse[i, j]


def _mark_bare(
    mask: np.ndarray, inverse: np.ndarray, y: int, x: int, dy: float, dx: float, first: int, last: int, least: float
) -> None:
    """Mark the known pixels from the first to the last step along a line, up to where one is below ``least``."""
    for step in range(first, last):
        value = _value(inverse, y, x, dy, dx, step)
        if value < 0.0 or 0.0 < value < least:
            return
        if value > 0.0:
            mask[int(np.round(y + step * dy)), int(np.round(x + step * dx))] = True


def _side_bare(inverse: np.ndarray, y: int, x: int, dy: float, dx: float) -> tuple[int, float]:
    """Steps from a hole pixel to the first known one along a line, and the largest inverse depth of `SIDE_PX`."""
    step, at, found, value = 0, 0, 0, 0.0
    while found < SIDE_PX:
        step += 1
        here = _value(inverse, y, x, dy, dx, step)
        if here < 0.0 or (here == 0.0 and found > 0):
            break
        if here > 0.0:
            at = step if found == 0 else at
            found += 1
            value = max(value, here)
    return at, value


def _walk_bare(inverse: np.ndarray, direction: np.ndarray, reach: int) -> tuple[np.ndarray, np.ndarray]:
    """From each hole pixel to both sides until something is known (``inverse > 0``); compare; mark the nearer side."""
    height, width = inverse.shape
    far = np.zeros((height, width))
    foreground, behind = np.zeros((height, width), np.bool_), np.zeros((height, width), np.bool_)
    for y in range(height):
        for x in range(width):
            dy, dx = direction[1, y, x], direction[0, y, x]
            if inverse[y, x] > 0.0 or (dx == 0.0 and dy == 0.0):
                continue
            near_at, near = _side(inverse, y, x, dy, dx)
            far_at, low = _side(inverse, y, x, -dy, -dx)
            if low > near:
                near_at, near, far_at, low, dy, dx = far_at, low, near_at, near, -dy, -dx
            # Where the near side slopes down to the far one, like ground towards the horizon, both are one surface.
            edge, within = _value(inverse, y, x, dy, dx, near_at), _value(inverse, y, x, dy, dx, near_at + SLOPE_PX)
            rise = (within - edge) / SLOPE_PX if within > 0.0 else (near - edge) / (SIDE_PX - 1)
            step = edge - rise * (near_at + far_at) if rise > 0.0 else near
            disoccluded = low > 0.0 and step >= FRONT_RATIO * low
            if low > 0.0:
                _mark(behind, inverse, y, x, -dy, -dx, far_at, far_at + SIDE_PX, 0.0)
            if near > 0.0 and not disoccluded:
                _mark(behind, inverse, y, x, dy, dx, near_at, near_at + SIDE_PX, 0.0)
            if disoccluded:
                # Ground that rises towards the camera goes on rising in the hole.
                edge = _value(inverse, y, x, -dy, -dx, far_at)
                within = _value(inverse, y, x, -dy, -dx, far_at + SLOPE_PX)
                rise = max(edge - within, 0.0) / SLOPE_PX if within > 0.0 else 0.0
                far[y, x] = min(low + rise * far_at, near)
                _mark(foreground, inverse, y, x, dy, dx, near_at, near_at + reach, low * np.sqrt(FRONT_RATIO))
    return far, foreground & ~behind


# Shape checkers wrap every function in tests; Numba wants the bare ones.
_value = numba.njit(cache=True)(inspect.unwrap(_value_bare))
_mark = numba.njit(cache=True)(inspect.unwrap(_mark_bare))
_side = numba.njit(cache=True)(inspect.unwrap(_side_bare))
_walk = numba.njit(cache=True)(inspect.unwrap(_walk_bare))
