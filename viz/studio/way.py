"""The planned way: keys that people set in the page, and the smooth path through them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from geometry.camera import Camera
from geometry.se3 import quat_from_matrix
from geometry.trajectory.spline import CameraSpline, Keyframe
from viz.studio.events import Forecast, View

SPEED = 0.3  # median depths a second, of a new key
TURN_DEG = 15.0  # degrees a second, of a new key
MOST_KEYS = 64


@dataclass(frozen=True)
class Key:
    """One key of the way.

    Attributes:
        camera: no batch axis.
        seconds: from the key before it.
    """

    camera: Camera
    seconds: float


class Way:
    """A way from the last finished camera through keys.

    Attributes:
        start: the last finished camera, no batch axis; None before there is a world.
        keys: in order.
        chosen: index of the key whose settings are shown; None while there is none.
        forecast: of the present keys; None while unknown.
    """

    def __init__(self) -> None:
        self.start: Camera | None = None
        self.unit = 1.0
        self.clear()

    def clear(self) -> None:
        """Drop all keys."""
        self.keys: list[Key] = []
        self.chosen: int | None = None
        self.forecast: Forecast | None = None

    def add(self, camera: Camera) -> None:
        """Add a key after the chosen one, which it becomes.

        Raises:
            ValueError: there is no world yet, or there are `MOST_KEYS` keys.
        """
        if self.start is None:
            raise ValueError("path: there is no world yet; make one first")
        if len(self.keys) >= MOST_KEYS:
            raise ValueError(f"path: want at most {MOST_KEYS} keys; walk these first, or remove some")
        place = len(self.keys) if self.chosen is None else self.chosen + 1
        before = self.keys[place - 1].camera if place else self.start
        self.keys.insert(place, Key(camera, self._seconds(before, camera)))
        self.chosen, self.forecast = place, None

    def replace(self, camera: Camera | None = None, seconds: float | None = None) -> None:
        """Change the chosen key."""
        if self.chosen is None:
            return
        key = self.keys[self.chosen]
        # A camera without a batch axis has no length, and so no truth.
        self.keys[self.chosen] = Key(key.camera if camera is None else camera, seconds or key.seconds)
        self.forecast = None

    def remove(self) -> None:
        """Remove the chosen key."""
        if self.chosen is None:
            return
        del self.keys[self.chosen]
        self.chosen = min(self.chosen, len(self.keys) - 1) if self.keys else None
        self.forecast = None

    def take(self, cameras: Camera, seconds: float) -> None:
        """Replace the keys by cameras ``[n]``, the first of which is the start and is left out.

        Args:
            cameras: of the whole way, evenly spaced in time.
            seconds: from the first to the last of them.
        """
        self.clear()
        most = 16  # keys of a path that was read: enough for its bends, few enough to edit
        count = min(len(cameras) - 1, most)
        places = np.linspace(0, len(cameras) - 1, count + 1).round().astype(int)[1:]
        self.keys = [Key(cameras[int(place)], max(seconds / count, 0.05)) for place in places]
        self.chosen = len(self.keys) - 1

    @property
    def seconds(self) -> float:
        """Length of the way."""
        return sum((key.seconds for key in self.keys), 0.0)

    def sample(self, fps: float) -> Camera | None:
        """Cameras ``[t]`` along the way, that of the start left out; None without keys."""
        if self.start is None or not self.keys:
            return None
        times = np.concatenate([[0.0], np.cumsum([key.seconds for key in self.keys])])
        cameras = [self.start, *(key.camera for key in self.keys)]
        keyframes = [
            Keyframe(
                float(time_s),
                camera.world_from_camera.float(),
                focal_px=tuple(camera.focal_px.tolist()),
                center_px=tuple(camera.center_px.tolist()),
            )
            for time_s, camera in zip(times, cameras, strict=True)
        ]
        frames = max(2, round(times[-1] * fps) + 1)
        return CameraSpline(keyframes, self.start.size).sample(frames)[1:]

    def camera_of(self, view: View, fov_deg: float | None = None) -> Camera:
        """The camera of a view, with the lens of the start, or another horizontal field of view.

        Raises:
            ValueError: there is no world yet.
        """
        if self.start is None:
            raise ValueError("path: there is no world yet; make one first")
        pose = torch.from_numpy(view.world_from_camera).float()
        if fov_deg is None:
            return replace(self.start, world_from_camera=pose)
        return Camera.from_fov(fov_deg, self.start.size, pose)

    def _seconds(self, before: Camera, after: Camera) -> float:
        moved = (after.position - before.position).norm().item() / self.unit
        quats = quat_from_matrix(torch.stack([c.world_from_camera[:3, :3].double() for c in (before, after)]))
        turned = 2.0 * math.degrees(math.acos(min(1.0, abs(float(quats[0] @ quats[1])))))
        return round(max(moved / SPEED, turned / TURN_DEG, 0.5), 1)
