"""Camera paths from named moves and from expressions that combine moves.

A path starts at the photo's camera; its speed is zero at both ends.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from geometry.camera import Camera
from geometry.trajectory.moves import MOTIONS, Motion
from geometry.trajectory.path_text import Term, find_preset, parse_legs


def preset(
    name: str,
    *,
    size: tuple[int, int],
    fov_deg: float | None = None,
    frames: int | None = None,
    distance: float | None = None,
    angle_deg: float | None = None,
    start: Camera | None = None,
) -> Camera:
    """Cameras ``[frames]`` of one named move.

    Args:
        name: a key of ``PRESETS``.
        size: image size ``(H, W)``.
        fov_deg: horizontal field of view of the first camera, degrees; not needed with ``start``.
        frames: number of cameras, the first included; the preset's own when not given.
        distance: distance in median depths of the photo; its meaning is in the preset's description.
        angle_deg: angle in degrees; its meaning is in the preset's description.
        start: the unbatched first camera (resampled to ``size``); the identity pose when None.

    Raises:
        ValueError: an unknown name (the message gives the nearest ones), a parameter that the preset does not have or
            that is out of range, fewer than two frames, or neither ``fov_deg`` nor ``start``.
    """
    return _compose([[Term(name, distance, angle_deg, frames)]], size, fov_deg, frames, start)


def parse_path_expression(
    text: str,
    *,
    size: tuple[int, int],
    fov_deg: float | None = None,
    frames: int | None = None,
    start: Camera | None = None,
) -> Camera:
    """Cameras of an expression such as ``forward``, ``orbit:angle_deg=40:distance=1`` or ``forward+pan,out_and_back``.

    ``,`` concatenates legs; each starts and ends with zero speed and is relative to the last pose of the leg before it.
    ``+`` combines simultaneous moves, each in the camera frame that results from those before it: ``forward+pan``
    translates straight while turning, ``orbit+forward`` spirals inward. ``:name=value`` sets ``distance``,
    ``angle_deg`` and ``frames``.

    Args:
        text: the expression.
        size: image size ``(H, W)``.
        fov_deg: horizontal field of view of the first camera, degrees; not needed with ``start``.
        frames: total number of cameras, shared between the legs in proportion to their own; their sum when not given.
        start: the unbatched first camera; the identity pose when None.

    Raises:
        ValueError: as ``preset``, or text that is not such an expression.
    """
    return _compose(parse_legs(text), size, fov_deg, frames, start)


def _compose(
    legs: list[list[Term]], size: tuple[int, int], fov_deg: float | None, frames: int | None, start: Camera | None
) -> Camera:
    """Concatenate the legs; within a leg the motions of its terms are multiplied."""
    if start is None:
        if fov_deg is None:
            raise ValueError("fov_deg: want the horizontal field of view in degrees, or a start camera; got neither")
        start = Camera.from_fov(fov_deg, size)
    if start.batch_shape:
        raise ValueError(f"start: want one camera without batch dimensions, got {tuple(start.batch_shape)}")
    start = start.resized(size)
    pose, focal = start.world_from_camera.double(), start.focal_px.double()
    poses, focals = [pose[None]], [focal[None]]
    for leg, steps in zip(legs, _steps([_leg_frames(leg) for leg in legs], frames), strict=True):
        progress = _eased(torch.arange(1, steps + 1, dtype=torch.float64) / steps)
        leg_poses, scale = pose.expand(steps, 4, 4), torch.ones_like(progress)
        for term in leg:
            fov_rad = 2.0 * math.atan(size[1] / (2.0 * focal[0].item()))
            motion = _checked_move(term, progress, fov_rad)
            leg_poses, scale = leg_poses @ motion.start_from_camera, scale * motion.focal_scale
        poses.append(leg_poses)
        focals.append(focal * scale[:, None])
        pose, focal = leg_poses[-1], focals[-1][-1]
    # Float32 only now: each leg continues the exact last pose of the one before it.
    path, lens = torch.cat(poses).float(), torch.cat(focals).float()
    return Camera(path, lens, start.center_px.float().expand(len(path), 2).clone(), size)


def leg_steps(text: str, frames: int) -> list[int]:
    """Frames of each leg of an expression with ``frames`` frames in all, that at which the path begins not counted.

    Raises:
        ValueError: as ``parse_path_expression``.
    """
    return _steps([_leg_frames(leg) for leg in parse_legs(text)], frames)


def _checked_move(term: Term, progress: Tensor, fov_rad: float) -> Motion:
    found = find_preset(term.name)
    for field in ("distance", "angle_deg"):
        given, default = getattr(term, field), getattr(found, field)
        if given is not None and default is None:
            raise ValueError(f"{field}: {term.name} has no {field}; remove it")
        if given is not None and not math.isfinite(given):
            raise ValueError(f"{field}: want a finite number for {term.name}, got {given}")
    distance = found.distance if term.distance is None else term.distance
    angle_deg = found.angle_deg if term.angle_deg is None else term.angle_deg
    return MOTIONS[term.name](progress, distance or 0.0, math.radians(angle_deg or 0.0), fov_rad)


def _leg_frames(leg: list[Term]) -> int:
    counts = [find_preset(term.name).frames if term.frames is None else term.frames for term in leg]
    if min(counts) < 2:
        raise ValueError(f"frames: want 2 or more, got {min(counts)}; one pose is not a path")
    return max(counts)


def _steps(leg_frames: list[int], frames: int | None) -> list[int]:
    """Steps of each leg; a path of n frames has n - 1 steps, as adjacent legs share a frame."""
    total = sum(count - 1 for count in leg_frames) if frames is None else frames - 1
    if total < len(leg_frames):
        raise ValueError(f"frames: want {len(leg_frames) + 1} or more for this path, got {total + 1}")
    # Ends are rounded and not lengths, so that the total is right; each leg keeps one step.
    ends = torch.tensor(leg_frames, dtype=torch.float64).sub(1).cumsum(0)
    spare = total - len(leg_frames)
    bounds = [0, *(round(spare * share) for share in (ends / ends[-1]).tolist())]
    return [end - begin + 1 for begin, end in itertools.pairwise(bounds)]


def _eased(progress: Tensor) -> Tensor:
    """Ease progress: speed rises from 0 over the first quarter, is constant, and falls to 0 over the last quarter.

    Acceleration is continuous.
    """
    ramp = 0.25
    x = torch.minimum(progress, 1.0 - progress).clamp(max=ramp) / ramp
    ramped = ramp * (x**3 - x**4 / 2.0)  # distance covered while the speed follows smoothstep
    cruised = (torch.minimum(progress, 1.0 - progress) - ramp).clamp(min=0.0)
    half = (ramped + cruised) / (1.0 - ramp)
    return torch.where(progress < 0.5, half, 1.0 - half)
