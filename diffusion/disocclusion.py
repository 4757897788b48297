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
        pixels), and the known pixels of the near one, but for those that are the far side of another hole.
    """
    position = camera.camera_from_world[0] @ torch.cat([before.position[0], inverse.new_ones(1)])
    ray = (pixel_centers(camera.size, inverse) - camera.center_px[0, :, None, None]) / camera.focal_px[0, :, None, None]
    slide = (position[:2, None, None] - ray * position[2]) * camera.focal_px[0, :, None, None]
    nearest = inverse[known].max() if known.any() else inverse.new_zeros(())
    moved_px = slide.norm(dim=0) * nearest
    if known.all() or not (moved_px > 1.0).any():
        return torch.zeros_like(inverse), torch.zeros_like(known)
    direction = slide / slide.norm(dim=0).clamp_min(1e-9) * (moved_px > 1.0)
    far, front = _walk(
        np.where(known[0].numpy(), inverse[0].double().numpy(), 0.0), direction.double().numpy(), FRONT_REACH_PX
    )
    return torch.from_numpy(far)[None].to(inverse), torch.from_numpy(front)[None]


def _walk_bare(inverse: np.ndarray, direction: np.ndarray, reach: int) -> tuple[np.ndarray, np.ndarray]:
    """From each hole pixel to both sides until something is known (``inverse > 0``); compare; mark the nearer side."""
    height, width = inverse.shape
    far = np.zeros((height, width))
    front, behind = np.zeros((height, width), np.bool_), np.zeros((height, width), np.bool_)
    side, at = np.zeros(2), np.zeros(2)
    for y in range(height):
        for x in range(width):
            dx, dy = direction[0, y, x], direction[1, y, x]
            if inverse[y, x] > 0.0 or (dx == 0.0 and dy == 0.0):
                continue
            for k in range(2):
                sign, side[k], found, step = 1.0 - 2.0 * k, 0.0, 0, 0
                while found < SIDE_PX:
                    step += 1
                    i, j = int(np.round(y + sign * step * dy)), int(np.round(x + sign * step * dx))
                    if i < 0 or i >= height or j < 0 or j >= width:
                        break
                    if inverse[i, j] > 0.0:
                        if found == 0:
                            at[k] = step
                        found += 1
                        side[k] = max(side[k], inverse[i, j])
                    elif found > 0:
                        break
            low, high = min(side[0], side[1]), max(side[0], side[1])
            if low <= 0.0 or high < FRONT_RATIO * low:
                continue
            far[y, x] = low
            k = 0 if side[0] > side[1] else 1
            sign, between = 1.0 - 2.0 * k, low * np.sqrt(FRONT_RATIO)
            for step in range(int(at[1 - k]), int(at[1 - k]) + SIDE_PX):
                i, j = int(np.round(y - sign * step * dy)), int(np.round(x - sign * step * dx))
                if 0 <= i < height and 0 <= j < width and inverse[i, j] > 0.0:
                    behind[i, j] = True
            for step in range(int(at[k]), int(at[k]) + reach):
                i, j = int(np.round(y + sign * step * dy)), int(np.round(x + sign * step * dx))
                if i < 0 or i >= height or j < 0 or j >= width or 0.0 < inverse[i, j] < between:
                    break
                front[i, j] = inverse[i, j] > 0.0
    return far, front & ~behind


# Shape checkers wrap every function in tests; Numba wants the bare one.
_walk = numba.njit(cache=True)(inspect.unwrap(_walk_bare))
