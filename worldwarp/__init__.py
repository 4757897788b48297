"""WorldWarp: one photo and a camera path in; a live, persistent, exportable 3D world out."""

import os

from worldwarp.siblings import check_siblings

check_siblings()
# Threads that spin while they wait take the processor from each other; this counts only before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from geometry.camera import Camera  # noqa: E402
from geometry.camera_files import read_cameras, write_cameras  # noqa: E402
from geometry.frame import Chunk, Frame, Guide  # noqa: E402
from geometry.primitives import Gaussians, Points  # noqa: E402
from geometry.spline import CameraSpline, Keyframe  # noqa: E402
from worldwarp.api import World, explore  # noqa: E402
from worldwarp.loop import Step  # noqa: E402

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
