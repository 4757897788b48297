"""Smooth camera paths through keyframes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from geometry.camera import Camera
from geometry.se3 import checked_rigid, quat_from_matrix


@dataclass(frozen=True)
class Keyframe:
    """One pose of a path. Exactly one of ``fov_deg`` and ``focal_px`` gives the lens.

    Attributes:
        time_s: time in seconds.
        world_from_camera: ``[4 4]``, rigid.
        fov_deg: horizontal field of view of square pixels, degrees.
        focal_px: ``(fx, fy)`` in pixels of the spline's image size.
        center_px: ``(cx, cy)`` in pixels; the center of the image when None.
    """

    time_s: float
    world_from_camera: Float[Tensor, "4 4"]
    fov_deg: float | None = None
    focal_px: tuple[float, float] | None = None
    center_px: tuple[float, float] | None = None


def keyframes_of(camera: Camera, time_s: Sequence[float] | None = None) -> list[Keyframe]:
    """Keyframes of all cameras of a batch ``[n]``, one second apart when ``time_s`` is None."""
    times = range(len(camera)) if time_s is None else time_s
    lenses = zip(camera.focal_px.tolist(), camera.center_px.tolist(), strict=True)
    return [
        Keyframe(float(time), pose, focal_px=tuple(focal), center_px=tuple(center))
        for time, pose, (focal, center) in zip(times, camera.world_from_camera, lenses, strict=True)
    ]


class CameraSpline:
    """A path that passes exactly through its keyframes.

    Positions, focal lengths (in their logarithm, so that they stay positive) and principal points are natural cubic
    splines, twice continuously differentiable; rotations are scipy's ``RotationSpline``, whose angular velocity and
    acceleration are continuous. Computed in float64, returned in the dtype of the keyframes' poses, without gradients.

    Args:
        keyframes: two or more, in strictly increasing time.
        size: image size ``(H, W)`` of the cameras to make.
        constant_speed: ignore the times of inner keyframes and use constant speed, where a rotation by one radian
            counts as a translation by one scene unit (both move image points at depth 1 about as far).

    Raises:
        ValueError: fewer than two keyframes, times not finite or not increasing, a pose that is not rigid, a lens that
            is missing, doubled or out of range; the message names the field and its index.
    """

    def __init__(self, keyframes: Sequence[Keyframe], size: tuple[int, int], constant_speed: bool = False) -> None:
        if len(keyframes) < 2:
            raise ValueError(f"keyframes: want 2 or more poses, got {len(keyframes)}; one pose is not a path")
        self.size = size
        times = _checked_times([key.time_s for key in keyframes])
        poses = torch.stack([key.world_from_camera for key in keyframes])
        self._dtype = poses.dtype
        poses = checked_rigid(poses.double(), "keyframes[{}].world_from_camera")
        lenses = np.array([_lens(index, key, size) for index, key in enumerate(keyframes)])
        self._start_s, self._end_s = times[0], times[-1]
        values = np.concatenate([poses[:, :3, 3].numpy(), np.log(lenses[:, :2]), lenses[:, 2:]], axis=1)
        # Imported late: most paths have no keyframes, and this takes a fifth of a second.
        from scipy.interpolate import CubicSpline
        from scipy.spatial.transform import Rotation, RotationSpline

        self._values = CubicSpline(times, values, bc_type="natural")
        quats = quat_from_matrix(poses[:, :3, :3]).numpy()
        self._rotation = RotationSpline(times, Rotation.from_quat(quats, scalar_first=True))
        self._even = self._even_times(64 * len(keyframes)) if constant_speed else None

    def at(self, time_s: Float[np.ndarray, " t"]) -> Camera:
        """Cameras ``[t]`` at times in seconds."""
        values = torch.from_numpy(self._values(time_s))
        pose = torch.eye(4, dtype=torch.float64).repeat(len(time_s), 1, 1)
        pose[:, :3, :3] = torch.from_numpy(self._rotation(time_s).as_matrix())
        pose[:, :3, 3] = values[:, :3]
        return Camera(pose, values[:, 3:5].exp(), values[:, 5:7], self.size).to(self._dtype)

    def sample(self, frames: int) -> Camera:
        """Cameras ``[frames]`` from the first keyframe to the last, both included; two frames or more."""
        if frames < 2:
            raise ValueError(f"frames: want 2 or more, got {frames}")
        if self._even is None:
            return self.at(np.linspace(self._start_s, self._end_s, frames))
        way, times = self._even
        return self.at(np.interp(np.linspace(0.0, way[-1], frames), way, times))

    def _even_times(self, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """Arc length at fine, even times, which constant speed inverts."""
        # Fine enough to interpolate linearly between them.
        times = np.linspace(self._start_s, self._end_s, max(steps, 2048))
        rotation = self._rotation(times)
        turned = (rotation[:-1].inv() * rotation[1:]).magnitude()
        moved = np.linalg.norm(np.diff(self._values(times)[:, :3], axis=0), axis=1)
        way = np.concatenate([[0.0], np.cumsum(np.hypot(moved, turned))])
        # A camera that stands still has no way to go by: time takes its place.
        return (way, times) if way[-1] > 0.0 else (times - times[0], times)


def _checked_times(times: list[float]) -> np.ndarray:
    for index, time in enumerate(times):
        if not math.isfinite(time):
            raise ValueError(f"keyframes[{index}].time_s: want a finite number of seconds, got {time}")
        shortest_step_s = 1e-9  # shorter steps count as equal times: velocities would overflow
        if index and time - times[index - 1] < shortest_step_s:
            problem = "earlier than" if time < times[index - 1] else "the same time as"
            raise ValueError(
                f"keyframes[{index}].time_s: want increasing times, got {time}, {problem} the keyframe before it; "
                "sort the keyframes and give each its own time"
            )
    return np.asarray(times, dtype=np.float64)


def _lens(index: int, key: Keyframe, size: tuple[int, int]) -> tuple[float, float, float, float]:
    height, width = size
    if (key.fov_deg is None) == (key.focal_px is None):
        raise ValueError(f"keyframes[{index}]: want exactly one of fov_deg and focal_px")
    if key.fov_deg is not None:
        if not 0.0 < key.fov_deg < 180.0:
            raise ValueError(f"keyframes[{index}].fov_deg: want degrees in (0, 180), got {key.fov_deg}")
        focal = 0.5 * width / math.tan(math.radians(key.fov_deg / 2.0))
        focal_px = (focal, focal)
    else:
        focal_px = key.focal_px or (0.0, 0.0)
        if not all(math.isfinite(f) and f > 0.0 for f in focal_px):
            raise ValueError(f"keyframes[{index}].focal_px: want positive pixels, got {focal_px}")
    center_px = key.center_px or (width / 2.0, height / 2.0)
    if not all(math.isfinite(c) for c in center_px):
        raise ValueError(f"keyframes[{index}].center_px: want finite pixels, got {center_px}")
    return (*focal_px, *center_px)
