"""Ways of the studio: from the last camera to a view, and what a planned way would show."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cache3d.cache import WorldCache
from cache3d.world_view import WorldView
from geometry.camera import Camera
from geometry.frame import Frame
from geometry.se3 import checked_rigid, quat_from_matrix
from geometry.trajectory.spline import CameraSpline, keyframes_of
from viz.studio.events import Forecast
from worldwarp.plan import collisions, predicted_holes
from worldwarp.preview import look_along

STEP = 0.04  # median depths between two frames, as a key of `path=keys` moves
TURN_DEG = 2.5  # degrees between two frames, likewise
FORECAST_VIEWS = 24
SHEET_VIEWS, SHEET_COLUMNS, SHEET_SIDE_PX = 6, 3, 160  # of the small sheet beside them


def camera_at(pose: Float[np.ndarray, "4 4"], lens: Camera) -> Camera:
    """A camera of the page in the world, with the lens of another, no batch axis.

    Raises:
        ValueError: the pose is not a finite rigid transform.
    """
    checked = checked_rigid(torch.from_numpy(pose)[None].double(), "view")[0]
    return Camera(checked.float(), lens.focal_px, lens.center_px, lens.size)


def toward(here: Camera, there: Camera, unit: float, *, multiple: int, eased: bool = True) -> Camera:
    """The cameras ``[t]`` of a straight move from one camera to another, the first left out.

    Args:
        here: no batch axis.
        there: no batch axis.
        unit: the photo's median depth, scene units.
        multiple: their number is a multiple of it: whole chunks.
        eased: start and end slowly, as presets do.
    """
    moved = (there.position - here.position).norm().item() / (STEP * unit)
    frames = max(1, math.ceil(max(moved, turned_deg(here, there) / TURN_DEG)))
    frames = multiple * math.ceil(frames / multiple)
    spline = CameraSpline(keyframes_of(Camera.concatenate([here[None], there[None]])), here.size)
    times = np.linspace(0.0, 1.0, frames + 1)
    return spline.at(times * times * (3.0 - 2.0 * times) if eased else times)[1:]


def is_at(here: Camera, there: Camera, unit: float) -> bool:
    """Whether two cameras without batch axis see the same."""
    moved = (there.position - here.position).norm().item() / unit
    return moved < 0.1 * STEP and turned_deg(here, there) < 0.1 * TURN_DEG


def turned_deg(here: Camera, there: Camera) -> float:
    """Angle between two cameras without batch axis, degrees."""
    quats = quat_from_matrix(torch.stack([camera.world_from_camera[:3, :3].double() for camera in (here, there)]))
    return 2.0 * math.degrees(math.acos(min(1.0, abs(float(quats[0] @ quats[1])))))


def unknown_share(cache: WorldCache, camera: Camera) -> float:
    """Share of a view that the world does not show; ``camera`` has no batch axis."""
    return predicted_holes(cache, [camera[None]])[0]


def foresee(view: WorldView, photo: Frame, cameras: Camera, chunk: int, chunk_s: float | None) -> Forecast:
    """What a way would show, by rendering the present world along it.

    Args:
        view: the world.
        photo: with its depth, ``[1]``.
        cameras: of the way, ``[t]``.
        chunk: frames that are made together.
        chunk_s: seconds that one chunk takes; None while unknown.
    """
    places = torch.linspace(0, len(cameras) - 1, min(FORECAST_VIEWS, len(cameras))).round().long()
    views = cameras[places]
    unknown = predicted_holes(view.cache, [views[i : i + 1] for i in range(len(views))])
    behind = set(collisions(photo, views))
    chunks = math.ceil(len(cameras) / chunk)
    words = [f"{len(cameras)} frames in {chunks} chunks"]
    words += [] if chunk_s is None else [f"about {chunks * chunk_s:.0f} s"]
    words.append(f"up to {max(unknown):.0%} of a view is unknown today")
    if behind:
        words.append(f"**{len(behind) / len(views):.0%} of the way lies behind what the photo shows**")
    sheet = np.asarray(look_along(view, photo, cameras, SHEET_VIEWS, SHEET_SIDE_PX).sheet(SHEET_COLUMNS))
    return Forecast(tuple(unknown), tuple(i in behind for i in range(len(views))), " · ".join(words), sheet)


def box_of(low: tuple[float, float, float], high: tuple[float, float, float]) -> Float[Tensor, "2 3"]:
    """A region of the world.

    Raises:
        ValueError: a side is not positive and finite.
    """
    corners = torch.tensor([low, high])
    if not corners.isfinite().all() or not (corners[0] < corners[1]).all():
        raise ValueError(f"region: want a box with positive sides, got {[low, high]}")
    return corners
