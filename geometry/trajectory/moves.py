"""Camera moves by name.

Directions are those of the camera: ``left`` translates it to its own left (image content moves right), ``pan`` by a
positive angle turns it to the right, ``tilt`` up, ``roll`` clockwise. Distances are in median depths of the photo.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from geometry.se3 import rigid


@dataclass(frozen=True)
class Motion:
    """Poses relative to the start of a move, ``[n 4 4]``, and factors on the focal length, ``[n]``."""

    start_from_camera: Float[Tensor, "n 4 4"]
    focal_scale: Float[Tensor, "n"]


def _motion(
    progress: Tensor,
    *,
    right: Tensor | float = 0.0,
    down: Tensor | float = 0.0,
    forward: Tensor | float = 0.0,
    pan: Tensor | float = 0.0,
    tilt: Tensor | float = 0.0,
    roll: Tensor | float = 0.0,
    focal_scale: Tensor | float = 1.0,
) -> Motion:
    """A motion from offsets along the start's axes and angles in radians, applied in the order pan, tilt, roll."""

    def column(value: Tensor | float) -> Tensor:
        return torch.as_tensor(value, dtype=progress.dtype).expand(progress.shape)

    def turn(axis: int, angle: Tensor) -> Tensor:
        matrix = torch.eye(3, dtype=progress.dtype).repeat(len(progress), 1, 1)
        a, b = (axis + 1) % 3, (axis + 2) % 3
        matrix[:, a, a] = matrix[:, b, b] = torch.cos(angle)
        matrix[:, b, a], matrix[:, a, b] = torch.sin(angle), -torch.sin(angle)
        return matrix

    rotation = turn(1, column(pan)) @ turn(0, column(tilt)) @ turn(2, column(roll))
    position = torch.stack([column(right), column(down), column(forward)], -1)
    return Motion(rigid(rotation, position), column(focal_scale))


def _line(axis: str, sign: float) -> Callable[[Tensor, float, float, float], Motion]:
    return lambda u, distance, _angle, _fov: _motion(u, **{axis: sign * distance * u})


def _turn(axis: str) -> Callable[[Tensor, float, float, float], Motion]:
    return lambda u, _distance, angle, _fov: _motion(u, **{axis: angle * u})


def _circle(u: Tensor, distance: float, around: Tensor) -> Motion:
    """Move on the horizontal circle around the point at ``distance``, facing it; a positive angle moves right."""
    _require_depth(distance)
    return _motion(u, right=distance * torch.sin(around), forward=distance * (1.0 - torch.cos(around)), pan=-around)


def _require_depth(distance: float) -> None:
    if distance <= 0.0:
        raise ValueError(f"distance: want the depth of the subject, more than 0, got {distance}")


def _spiral(u: Tensor, distance: float, angle: float, _fov: float) -> Motion:
    """Circle in the image plane whose radius grows to ``distance`` and shrinks back, facing the point at depth 1."""
    radius = distance * torch.sin(math.pi * u)
    right, down = radius * torch.cos(angle * u), radius * torch.sin(angle * u)
    return _motion(u, right=right, down=down, pan=-torch.atan(right), tilt=torch.atan2(down, torch.sqrt(1 + right**2)))


def _dolly_zoom(u: Tensor, distance: float, angle: float, fov: float) -> Motion:
    """Move so that the widening lens shows the subject at constant size; focal length scales with its distance."""
    _require_depth(distance)
    end_fov = fov + angle
    if not math.radians(2.0) <= end_fov <= math.radians(170.0):
        raise ValueError(
            f"angle_deg: want a dolly_zoom that ends with a field of view from 2 to 170 degrees, got "
            f"{math.degrees(end_fov):.1f}; change angle_deg"
        )
    travel = distance * (1.0 - math.tan(fov / 2.0) / math.tan(end_fov / 2.0))
    return _motion(u, forward=travel * u, focal_scale=1.0 - travel * u / distance)


def _look_around(u: Tensor, _distance: float, angle: float, _fov: float) -> Motion:
    return _motion(u, pan=angle * torch.sin(2 * math.pi * u), tilt=angle / 3.0 * torch.sin(4 * math.pi * u))


def _fly_through(u: Tensor, distance: float, angle: float, _fov: float) -> Motion:
    """Bend to the right and back, facing the direction of motion; ``angle`` is the largest heading, radians."""
    if abs(angle) > math.radians(80.0):
        raise ValueError(f"angle_deg: want a heading within 80 degrees, got {math.degrees(angle):g}")
    bend = math.tan(angle)
    heading = torch.atan(bend * torch.sin(2 * math.pi * u))
    sideways = distance * bend / (2 * math.pi) * (1.0 - torch.cos(2 * math.pi * u))
    return _motion(u, right=sideways, forward=distance * u, pan=heading)


# Per preset: (progress [n] from 0 to 1, distance, angle_rad, fov_rad) -> Motion; the identity at progress 0.
MOTIONS: dict[str, Callable[[Tensor, float, float, float], Motion]] = {
    "forward": _line("forward", 1.0),
    "back": _line("forward", -1.0),
    "left": _line("right", -1.0),
    "right": _line("right", 1.0),
    "up": _line("down", -1.0),
    "down": _line("down", 1.0),
    "pan": _turn("pan"),
    "tilt": _turn("tilt"),
    "roll": _turn("roll"),
    "orbit": lambda u, distance, angle, _fov: _circle(u, distance, angle * u),
    "arc": lambda u, distance, angle, _fov: _circle(u, distance, angle * torch.sin(2 * math.pi * u)),
    "spiral": _spiral,
    "dolly_zoom": _dolly_zoom,
    "look_around": _look_around,
    "fly_through": _fly_through,
    "out_and_back": lambda u, distance, _angle, _fov: _motion(u, forward=distance * torch.sin(math.pi * u)),
}
