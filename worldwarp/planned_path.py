"""The planned path of a session: read from a file or an expression, and scaled to the photo."""

from __future__ import annotations

import sys

import torch

from geometry.camera import Camera
from geometry.camera_io.read_write import CameraPath, continued, open_camera_path, rebased, scaled
from geometry.frame import Frame
from scenes.photos.clip import ClipReader
from worldwarp.arguments import BY_ITSELF, LIVE, SAME
from worldwarp.config import AUTO, ConfigError, Settings
from worldwarp.plan import collisions


def open_path(settings: Settings, photo_size: tuple[int, int] | None = None) -> CameraPath:
    """The path of the settings, in its own unit; ``photo_size`` if the photo is its first frame."""
    text, size = settings.path, settings.size
    if text == SAME:
        count = settings.frames or _frames_of(settings)
        pose = torch.eye(4).repeat(count, 1, 1)
        given = CameraPath(Camera.from_fov(float(settings.fov_deg), size, pose), from_file=False)
    elif text == BY_ITSELF:
        # Cameras that are not chosen yet repeat the last one (`worldwarp.autopilot.planned_frames`).
        default_frames = 49
        pose = torch.eye(4).repeat(settings.frames or default_frames, 1, 1)
        given = CameraPath(Camera.from_fov(float(settings.fov_deg), size, pose), from_file=False)
    elif text == LIVE:
        given = CameraPath(Camera.from_fov(float(settings.fov_deg), size, torch.eye(4)[None]), from_file=False)
    else:
        given = open_camera_path(
            text,
            size=size,
            fov_deg=float(settings.fov_deg),
            frames=settings.frames,
            convention=settings.convention,
            photo_size=photo_size,
        )
    if settings.path_scale is not None and not given.from_file:
        raise ConfigError("path_scale: it is for camera files; remove it, moves have distance= (orbit:distance=0.5)")
    return given


def _frames_of(settings: Settings) -> int:
    """Number of frames of the clip at the rate of the session; reads all of it.

    Raises:
        ConfigError: there is no clip.
    """
    if settings.video is None:
        raise ConfigError(f"path={SAME}: it is for video=; want a preset, a camera file or {LIVE}")
    with ClipReader(settings.video, settings.size, settings.fps) as clip:
        return clip.skip(sys.maxsize)


def unit_of(photo: Frame) -> float:
    """Unit of length of moves, in scene units: the photo's median depth without sky."""
    ground = photo.depth[photo.valid & ~photo.sky]
    return ground.median().item() if photo.metric and len(ground) else 1.0  # depth without metric scale has median 1


def in_scene_units(
    given: CameraPath, path_scale: float | str | None, photo: Frame
) -> tuple[Camera, float, tuple[str, ...]]:
    """The cameras of a path in scene units, the factor on their positions, and lines for the plan about it."""
    factor = _factor(given, path_scale, photo)
    return scaled(given.cameras, factor), factor, _notes(given, factor)


def _factor(given: CameraPath, path_scale: float | str | None, photo: Frame) -> float:
    """Factor from the positions of a path to scene units."""
    if not given.from_file:
        return unit_of(photo)
    if path_scale == AUTO:
        farthest = given.cameras.position.norm(dim=-1).max().item()
        # Largest distance of a path with path_scale=auto, in median depths; the distance of out_and_back.
        auto_distance = 0.4
        return auto_distance * unit_of(photo) / farthest if farthest > 0.0 else 1.0
    return 1.0 if path_scale is None else float(path_scale)


def _notes(given: CameraPath, factor: float) -> tuple[str, ...]:
    """Lines for the plan: how the lens of the camera file and its scale change photo and path."""
    notes = []
    if given.lens is not None:
        shown = "" if given.lens.kept == 1.0 else f", of which it shows the middle {given.lens.kept:.0%} of each side"
        notes.append(
            f"lens     the photo has {given.lens.model} distortion; it is straightened to the pinhole of the same "
            f"focal length{shown}"
        )
    if factor != 1.0:
        what = (
            f"path_scale={factor:.4g}" if given.from_file else f"distance 1 is {factor:.3g} m, the photo's median depth"
        )
        notes.append(f"path     {what}")
    return tuple(notes)


def smaller_scale(photo: Frame, cameras: Camera, done: int, scale: float) -> str:
    """The setting with which the part of a camera file's path after ``done`` frames does not collide with the photo.

    Args:
        photo: the photo with depth, ``[1]``.
        cameras: the whole path ``[n]``.
        done: number of finished frames.
        scale: the present factor on the positions of the path.
    """
    past, rest = cameras[:done], rebased(cameras[done - 1 :])

    def collides(factor: float) -> bool:
        return any(i >= done for i in collisions(photo, continued(past, scaled(rest, factor))))

    tried = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01)
    free = next((factor for factor in tried if not collides(factor)), tried[-1])
    return f"path_scale={scale * free:.3g}"
