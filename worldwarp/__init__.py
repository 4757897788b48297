"""WorldWarp: one photo and a camera path in; a live, persistent, exportable 3D world out."""

import os
from importlib import import_module
from typing import TYPE_CHECKING

from worldwarp.siblings import check_siblings

check_siblings()
# Idle OpenMP threads that spin would compete with working ones; read by the runtime when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from geometry.camera import Camera
    from geometry.camera_io.read_write import read_cameras, write_cameras
    from geometry.frame import Chunk, Frame, Guide
    from geometry.primitives import Gaussians, Points
    from geometry.trajectory.spline import CameraSpline, Keyframe
    from worldwarp.api import World, explore
    from worldwarp.state import Step

# Module of each public name; imported on first access, so that `worldwarp --help` does not load torch.
_MODULES = {
    "Camera": "geometry.camera",
    "CameraSpline": "geometry.trajectory.spline",
    "Chunk": "geometry.frame",
    "Frame": "geometry.frame",
    "Gaussians": "geometry.primitives",
    "Guide": "geometry.frame",
    "Keyframe": "geometry.trajectory.spline",
    "Points": "geometry.primitives",
    "Step": "worldwarp.state",
    "World": "worldwarp.api",
    "explore": "worldwarp.api",
    "read_cameras": "geometry.camera_io.read_write",
    "write_cameras": "geometry.camera_io.read_write",
}

__all__ = [
    "Camera",
    "CameraSpline",
    "Chunk",
    "Frame",
    "Gaussians",
    "Guide",
    "Keyframe",
    "Points",
    "Step",
    "World",
    "explore",
    "read_cameras",
    "write_cameras",
]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'worldwarp' has no attribute '{name}'")
    value = globals()[name] = getattr(import_module(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
