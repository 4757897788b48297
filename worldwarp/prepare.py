"""Prepares a new session: photo, depth, path and components are checked before anything is written."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from omegaconf import DictConfig, ListConfig
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from diffusion.generator import Cadence, Generator
from geometry.camera import Camera
from geometry.camera_io.read_write import CameraPath, rebased
from geometry.depth import DepthEstimator, DepthMap, FileDepth, clear_far, lift_depth
from geometry.frame import Frame
from scenes.io.png import to_bytes
from scenes.photos.clip import ClipReader, clip_outline
from scenes.photos.framing import PIXELS, QUALITIES, STEP, natural_size, photo_fov_deg, sized
from scenes.photos.photo import DecodedPhoto, Photo, Straighten, decode_photo, photo_outline
from worldwarp.components import autopilot_of, components, keep_prompts, part, video_guide
from worldwarp.config import ConfigError, Settings, check_explore, checked_size, explore_settings
from worldwarp.loop import start
from worldwarp.needs import announce, check_gpu, needs_of
from worldwarp.planned_path import in_scene_units, open_path
from worldwarp.session import Session
from worldwarp.state import LiftedPhoto
from worldwarp.working_size import at_working_size


def prepare(
    config: DictConfig,
    path: Camera | None = None,
    *,
    out: Path | None = None,
    tell: Callable[[str], object] = lambda _: None,
    given: Mapping[str, Any] | None = None,
) -> Session:
    """Prepare a session: invalid input is refused here; nothing is written.

    Args:
        config: a composed `explore` configuration.
        path: cameras ``[n]`` of frame size, relative to the first, which is the photo's; replaces the configuration's
            `path`.
        out: folder of the world, to check the free disk; None if nothing is stored.
        tell: receives lines about needed memory and disk, before the slow steps.
        given: objects that replace those of the configuration, by group: ``depth``, ``cache``, ``generator``.

    Raises:
        ValueError: an invalid photo, depth, path, size or setting, or too little memory or disk.
    """
    check_explore(config)
    autopilot = autopilot_of(config)
    generator: Generator = part(config, "generator", given)
    config, assumed = _with_frame_size(config, path, generator)
    config, settings, finer = at_working_size(config, checked_size(config.size), generator)
    _check_cadence(settings, generator.cadence)
    outline = _outline(config)[0]
    planned = _path_of_photo(config, settings, outline, path)
    assumed = assumed and not planned.from_file
    detail_scale = max(settings.detail / finer, 1.0)
    scale = min(detail_scale, *(side / size for side, size in zip(outline, settings.size, strict=True)))
    needs = needs_of(config, settings, generator, len(planned.cameras), scale)
    announce(needs.lines(out), needs, generator, tell)
    decoded = _decoded(settings, None if planned.lens is None else planned.lens.straightened)
    max_photo_scale = 4.0  # largest resolution of the photo texture over the frame size, however close the camera comes
    picture, full_res = decoded.at(settings.size, detail_scale), decoded.at(settings.size, max_photo_scale).rgb
    check_gpu(settings, generator, needs.planned_frames)
    estimator = _estimator_of(picture, part(config, "depth", given))
    depth = _depth(estimator, picture, None if assumed else planned.cameras[:1])
    if assumed and depth.focal_px is not None:
        config.fov_deg = math.degrees(2.0 * math.atan(0.5 * picture.rgb.shape[2] / depth.focal_px[0].item()))
        settings = explore_settings(config)
        planned = open_path(settings, outline)
    lifted = _lifted(picture, depth, planned.cameras[:1], full_res)
    parts = replace(components(config, generator, estimator, settings.size), video=video_guide(settings, estimator, 1))
    rng = torch.Generator().manual_seed(settings.seed)
    state = start(lifted, part(config, "cache", given), parts, rng)
    keep_prompts(config, generator)  # a captioner has described the photo by now
    photo = lifted.frame
    cameras, factor, notes = in_scene_units(planned, settings.path_scale, photo)
    return Session(
        settings, config, parts, photo, cameras, state, None, picture, planned.from_file, factor, notes, autopilot
    )


def _path_of_photo(config: DictConfig, settings: Settings, outline: tuple[int, int], path: Camera | None) -> CameraPath:
    """The path from the photo on, in its own unit: the given cameras, else that of the settings.

    Raises:
        ConfigError: a depth file for a photo that is straightened, or cameras of another frame size.
    """
    planned = open_path(settings, outline) if path is None else CameraPath(rebased(path), from_file=True)
    if planned.lens is not None and "path" in config.depth:
        raise ConfigError(
            f"depth: a depth file shows the photo as it is, but its lens has {planned.lens.model} distortion and the "
            "photo is straightened; undistort photo, depth and cameras first"
        )
    if planned.cameras.size != settings.size:
        raise ConfigError(f"path: want cameras of size {settings.size}, got {planned.cameras.size}; set size to match")
    return planned


def _outline(config: DictConfig) -> tuple[tuple[int, int], float | None]:
    """Size ``(H, W)`` of the photo, or of the clip's frames, and its equivalent focal length, mm, or None."""
    return photo_outline(config.image) if config.video is None else (clip_outline(config.video).size, None)


def _decoded(settings: Settings, straighten: Straighten | None) -> DecodedPhoto:
    """The photo, or the first frame of the clip."""
    if settings.video is None:
        assert settings.image is not None
        return decode_photo(settings.image, straighten)
    outline = clip_outline(settings.video)
    with ClipReader(settings.video, outline.size) as clip:
        pixels = to_bytes(clip.take(1)[0]).permute(1, 2, 0).numpy()
    return DecodedPhoto(Image.fromarray(pixels), turned=False, remarks=outline.remarks)


def _check_cadence(settings: Settings, cadence: Cadence) -> None:
    """Refuse frames and chunks that the generator cannot take.

    Raises:
        ConfigError: naming the nearest size, or the longest chunk, that it takes.
    """
    size, step = settings.size, cadence.size_multiple
    longest_chunk = 64  # frames, of a generator that names no limit: all frames of a chunk are in memory together
    longest = max(longest_chunk, cadence.frames) if cadence.longest is None else cadence.longest
    if (settings.chunk or 0) > longest:
        raise ConfigError(
            f"chunk: this generator makes at most {longest} frames, got {settings.chunk}; leave chunk= out"
        )
    if any(side % step for side in size):
        height, width = (max(step, step * round(side / step)) for side in size)
        raise ConfigError(
            f"size: this generator wants multiples of {step}, got {size[0]}x{size[1]}; try size={height}x{width}"
        )


def _with_frame_size(config: DictConfig, path: Camera | None, generator: Generator) -> tuple[DictConfig, bool]:
    """The configuration with frame size and field of view, from itself, else from the cameras, else from the photo.

    A size that follows from the photo has about the number of pixels of `quality`, but no more than the photo; of a
    generator of video, those that it was trained for.

    Returns:
        The configuration, and whether nothing tells the field of view: it was assumed.
    """
    longer_side = config.size if isinstance(config.size, int) else None
    has_photo, has_size = not (config.image is None and config.video is None), isinstance(config.size, ListConfig)
    if not has_photo or (has_size and config.fov_deg is not None):
        return config, False
    framed, step = config.copy(), math.lcm(STEP, generator.cadence.size_multiple)
    outline, film_mm = _outline(config)
    if longer_side is not None:
        framed.size = list(sized(outline, longer_side, step))
    elif config.size is None:
        pixels = min(QUALITIES[config.quality], max(outline[0] * outline[1], PIXELS))
        if not generator.capabilities.per_view:
            pixels = generator.cadence.pixels or pixels
        framed.size = list(natural_size(outline, pixels, step) if path is None else path.size)
    assumed = config.fov_deg is None and film_mm is None and path is None
    if config.fov_deg is None:
        framed.fov_deg = photo_fov_deg(outline, checked_size(framed.size), film_mm)
    return framed, assumed


def _estimator_of(picture: Photo, estimator: DepthEstimator) -> DepthEstimator:
    """The estimator; a depth file is checked against the photo and cropped like it."""
    if isinstance(estimator, FileDepth):
        return estimator.of_photo(picture.original_size, picture.turned)
    return estimator


def _depth(estimator: DepthEstimator, picture: Photo, camera: Camera | None) -> DepthMap:
    """Depth of the photo; without a camera ``[1]``, of any size, its focal length is left to the estimator."""
    focal_px = None if camera is None else camera.resized(_size_of(picture)).focal_px
    return estimator.estimate(picture.rgb[None], focal_px)


def _lifted(picture: Photo, depth: DepthMap, camera: Camera, full_res: Float[Tensor, "3 h w"]) -> LiftedPhoto:
    """The photo with its depth, seen from the origin of the world.

    Args:
        picture: the photo at the resolution that enters the cache.
        depth: of ``picture``.
        camera: of the photo, ``[1]``, at frame size; its pose is ignored.
        full_res: the colors of the photo texture.
    """
    camera = replace(camera, world_from_camera=torch.eye(4)[None])
    detail = lift_depth(picture.rgb[None], depth, camera.resized(_size_of(picture)))
    return LiftedPhoto(_at_frame_size(detail, camera), clear_far(detail), full_res)


def _size_of(picture: Photo) -> tuple[int, int]:
    height, width = picture.rgb.shape[1:]
    return height, width


def _at_frame_size(detail: Frame, camera: Camera) -> Frame:
    """The photo at frame size: colors averaged and rounded to 8 bits, depth and masks sampled."""
    if detail.camera.size == camera.size:
        return detail
    rgb = interpolate(detail.rgb, camera.size, mode="bilinear", antialias=True)
    rgb = (rgb * 255.0).round().clamp(0.0, 255.0) / 255.0

    def sampled(mask: torch.Tensor) -> torch.Tensor:
        return interpolate(mask.float(), camera.size, mode="nearest-exact")

    valid, sky = sampled(detail.valid) > 0.5, sampled(detail.sky) > 0.5
    return Frame(rgb, sampled(detail.depth), valid, sky, camera, detail.metric)
