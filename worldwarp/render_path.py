"""The cameras of a path through a finished world, at any size and rate."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from geometry.camera import Camera
from geometry.camera_io.read_write import CameraPath, continued, open_camera_path
from geometry.camera_io.record import cropped
from geometry.trajectory.expressions import parse_path_expression
from geometry.trajectory.path_text import begins_with_preset
from geometry.trajectory.spline import CameraSpline, keyframes_of
from scenes.store.world_store import WorldStore
from worldwarp.config import ConfigError
from worldwarp.planned_path import in_scene_units
from worldwarp.render_settings import RenderSettings


def cameras_along(world: WorldStore, settings: RenderSettings) -> Camera:
    """The cameras ``[n]`` of a path through a world; see `RenderSettings`.

    Frames of another shape than the world's show a part of them, cropped about the center.

    Raises:
        ValueError: an invalid path, or no such frame of the world.
    """
    if not world.chunks:
        raise ValueError(f"{world.folder}: no chunk is finished yet; there is nothing to render")
    count = len(world)
    if not -count <= settings.begin < count:
        raise ConfigError(
            f"begin: want a frame from 0 to {count - 1}, or a negative one from the last, got {settings.begin}"
        )
    size, fps = frame_size_of(world, settings), settings.fps or world.fps
    walked = _reshaped(world.cameras, size)
    if settings.path is None:
        cameras = _resampled(walked[settings.begin % count :], settings.frames, fps / world.fps)
        return cameras if settings.fov_deg is None else _with_fov(cameras, settings.fov_deg)
    begin = walked[settings.begin % count]
    if settings.fov_deg is not None:
        begin = _with_fov(begin, settings.fov_deg)
    photo = world.chunk(0).frames
    given = _given(settings, begin, fps / world.fps)
    relative, _, _ = in_scene_units(given, settings.path_scale, photo)
    onward = continued(begin[None].to(torch.float32), relative)
    # `continued` keeps the lens of its first camera: a file brings its own.
    return Camera.concatenate(
        [replace(onward[:1], focal_px=relative.focal_px[:1], center_px=relative.center_px[:1]), onward[1:]]
    )


def frame_size_of(world: WorldStore, settings: RenderSettings) -> tuple[int, int]:
    """Size ``(H, W)`` of a frame, of one eye where there are two."""
    height, width = world.manifest.size
    if isinstance(settings.size, tuple):
        return settings.size
    if settings.view == "360":
        longer = settings.size or 2 * width  # the world's own frames take up a part of the sphere
        return (longer // 2, longer // 2 * 2)
    if settings.size is None:
        return height, width
    scale = settings.size / max(height, width)
    return max(2, 2 * round(height * scale / 2)), max(2, 2 * round(width * scale / 2))


def _given(settings: RenderSettings, begin: Camera, rate: float) -> CameraPath:
    """The path of the settings, relative to its first camera, in its own unit.

    Args:
        settings: with a path.
        begin: the camera at which it begins, no batch axis; of the wanted size.
        rate: frames per frame of a walk.
    """
    text, size = settings.path, begin.size
    assert text is not None
    if not begins_with_preset(text):
        fov_deg = float(begin.fov_deg[0])
        return open_camera_path(
            text, size=size, fov_deg=fov_deg, frames=settings.frames, convention=settings.convention
        )
    if settings.convention is not None:
        raise ConfigError(f"convention: a preset needs none, got '{settings.convention}'; remove it")
    start = replace(begin, world_from_camera=torch.eye(4, dtype=begin.world_from_camera.dtype))
    frames = settings.frames
    if frames is None:
        frames = _as_long(len(parse_path_expression(text, size=size, start=start)), rate)
    if frames == 1:
        return CameraPath(parse_path_expression(text, size=size, start=start)[:1], False)
    return CameraPath(parse_path_expression(text, size=size, frames=frames, start=start), False)


def _as_long(frames: int, rate: float) -> int:
    """The number of frames that last as long at ``rate`` times the frames per second."""
    return max(1, round((frames - 1) * rate) + 1)


def _resampled(cameras: Camera, frames: int | None, rate: float) -> Camera:
    """Cameras ``[n]`` as ``frames`` cameras of a smooth path through them."""
    frames = _as_long(len(cameras), rate) if frames is None else frames
    if frames == len(cameras):
        return cameras
    if frames == 1 or len(cameras) == 1:
        return cameras[:1]
    return CameraSpline(keyframes_of(cameras), cameras.size).sample(frames).to(torch.float32)


def _reshaped(cameras: Camera, size: tuple[int, int]) -> Camera:
    """Cameras ``[n]`` of frames that are cropped about their center to the shape of ``size`` and resampled to it."""
    whole = cameras.focal_px.new_tensor(cameras.size).expand(len(cameras), 2)
    focal, center = cropped(cameras.focal_px, cameras.center_px, whole, size)
    return Camera(cameras.world_from_camera, focal, center, size)


def _with_fov(camera: Camera, fov_deg: float) -> Camera:
    """Cameras with another field of view; the change of lens along the path is kept."""
    first = camera.focal_px if not camera.batch_shape else camera.focal_px[0]
    wanted = 0.5 * camera.size[1] / math.tan(math.radians(0.5 * fov_deg))
    return replace(camera, focal_px=camera.focal_px * (wanted / first[0]))
