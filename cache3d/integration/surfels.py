"""Lifts an RGB-D frame to oriented surface elements, one per pixel."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cache3d.rendering.policy import DEFAULT_RENDERING
from geometry.frame import Frame


@dataclass(frozen=True)
class Surfels:
    """One oriented element per lifted pixel, in row-major order of the pixels.

    Attributes:
        positions: ``[n 3]``, world; for sky relative to the camera, axes of the world.
        along, across: ``[n 3]``, orthogonal world vectors on the surface: the semi-axes of the ellipse whose image is a
            circle of one pixel *radius* around the pixel's center.
        normals: ``[n 3]``, unit, towards the camera.
        pixel_width: ``[n]`` width of the pixel at that depth, scene units.
    """

    positions: Float[Tensor, "n 3"]
    along: Float[Tensor, "n 3"]
    across: Float[Tensor, "n 3"]
    normals: Float[Tensor, "n 3"]
    pixel_width: Float[Tensor, "n"]


def lift_surfels(
    frame: Frame,
    new: Bool[Tensor, "1 h w"],
    max_even_slope: float,
    even_ratio: float = 1.0,
    max_slope: float = DEFAULT_RENDERING.max_slope,
) -> Surfels:
    """Lift pixels of one frame (no batch axis) to surface elements.

    The slope of the surface is the gentler of the two one-sided depth differences, and none where they disagree in
    sign, are too steep or reach an invalid pixel: a depth edge never tilts or stretches the elements beside it.

    Args:
        frame: no batch axis.
        new: pixels to lift.
        max_even_slope: largest extent of an element along the view, in pixel widths, where the slope is even.
        even_ratio: gentler over steeper one-sided difference, from which a slope is even.
        max_slope: the same extent elsewhere.
    """
    rows, columns = torch.nonzero(new[0], as_tuple=True)
    depth = frame.depth[0]
    usable = frame.surface[0]
    focal, center = frame.camera.focal_px, frame.camera.center_px
    z = depth[rows, columns]
    ray_x = (columns + 0.5 - center[0]) / focal[0]
    ray_y = (rows + 0.5 - center[1]) / focal[1]
    dz_x = _slope(depth, usable, rows, columns, z / focal[0], max_even_slope, even_ratio, max_slope)
    dz_y = _slope(depth.T, usable.T, columns, rows, z / focal[1], max_even_slope, even_ratio, max_slope)
    one, zero = torch.ones_like(z), torch.zeros_like(z)
    # One pixel on, the point moves sideways by the width of a pixel, and along its ray by the change of depth.
    ray = torch.stack([ray_x, ray_y, one], dim=-1)
    step_x = torch.stack([z / focal[0], zero, zero], dim=-1) + dz_x[:, None] * ray
    step_y = torch.stack([zero, z / focal[1], zero], dim=-1) + dz_y[:, None] * ray
    # Rotate the two steps into each other until they are orthogonal: the same ellipse by its principal axes.
    dot = (step_x * step_y).sum(-1)
    angle = 0.5 * torch.atan2(2 * dot, (step_x * step_x).sum(-1) - (step_y * step_y).sum(-1))
    cosine, sine = torch.cos(angle)[:, None], torch.sin(angle)[:, None]
    along, across = step_x * cosine + step_y * sine, step_y * cosine - step_x * sine
    normals = torch.nn.functional.normalize(torch.linalg.cross(along, across, dim=-1), dim=-1)
    # Both are turned, or the three axes would be left-handed.
    away = ((normals * ray).sum(-1) > 0)[:, None]
    normals, across = torch.where(away, -normals, normals), torch.where(away, -across, across)
    pose = frame.camera.world_from_camera
    rotation = pose[:3, :3]
    positions = (ray * z[:, None]) @ rotation.T
    positions = torch.where(frame.sky[0][rows, columns][:, None], positions, positions + pose[:3, 3])
    return Surfels(
        positions, along @ rotation.T, across @ rotation.T, normals @ rotation.T, z / torch.sqrt(focal[0] * focal[1])
    )


def _slope(
    depth: Float[Tensor, "h w"],
    usable: Bool[Tensor, "h w"],
    rows: Tensor,
    columns: Tensor,
    pixel_width: Float[Tensor, "n"],
    max_even_slope: float,
    even_ratio: float,
    max_slope: float,
) -> Float[Tensor, "n"]:
    """Depth change to the next column at the given pixels: the gentler side, 0 where the sides disagree."""
    here, width = depth[rows, columns], depth.shape[1]
    after, before = (columns + 1).clamp(max=width - 1), (columns - 1).clamp(min=0)
    known = usable[rows, columns]
    ahead, behind = depth[rows, after] - here, here - depth[rows, before]
    ahead_ok = known & usable[rows, after] & (after != columns)
    behind_ok = known & usable[rows, before] & (before != columns)
    gentler, steeper = torch.minimum(ahead.abs(), behind.abs()), torch.maximum(ahead.abs(), behind.abs())
    # Where both sides rise alike it is one slope, however steep: ground towards the horizon.
    even = ahead_ok & behind_ok & (ahead * behind > 0) & (gentler >= even_ratio * steeper)
    steepest = pixel_width * torch.where(even, max_even_slope, max_slope)
    ahead_ok, behind_ok = ahead_ok & (ahead.abs() <= steepest), behind_ok & (behind.abs() <= steepest)
    gentler = torch.where(ahead.abs() < behind.abs(), ahead, behind)
    both = torch.where(ahead * behind > 0, gentler, torch.zeros_like(here))
    # Beside an edge one side is left.
    only = torch.where(ahead_ok, ahead, torch.where(behind_ok, behind, torch.zeros_like(here)))
    return torch.where(ahead_ok & behind_ok, both, only)
