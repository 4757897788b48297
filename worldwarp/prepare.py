"""Prepares a session: photo, depth, path and components are checked before anything is written."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, ListConfig, OmegaConf
from PIL import Image
from torch.nn.functional import interpolate

from cache3d.photo_texture import PhotoTexture
from cache3d.world_view import WorldView
from diffusion.generator import Cadence, Generator, Licensed, TakesPrompts
from diffusion.memory_plan import in_words
from geometry.camera import Camera
from geometry.camera_io.read_write import CameraPath, continued, rebased, scaled
from geometry.depth import FileDepth, clear_far, lift_depth
from geometry.frame import Frame
from geometry.trajectory.path_text import begins_with_preset
from scenes.io.png import to_bytes
from scenes.photos.clip import ClipReader, clip_outline
from scenes.photos.framing import PIXELS, QUALITIES, STEP, natural_size, photo_fov_deg, sized
from scenes.photos.photo import DecodedPhoto, Straighten, decode_photo, photo_outline
from scenes.store.world_store import WorldStore
from worldwarp.arguments import LIVE, SAME, user_path
from worldwarp.components import components, keep_prompts, part, video_guide
from worldwarp.config import (
    ONWARD,
    ConfigError,
    Settings,
    check_explore,
    checked_size,
    compose_config,
    explore_settings,
)
from worldwarp.loop import start
from worldwarp.needs import Needs
from worldwarp.planned_path import notes_of, open_path, path_scale
from worldwarp.session import Session
from worldwarp.state import REFERENCE_FRAMES, ExploreState, LiftedPhoto, reference_of
from worldwarp.stored_config import current_config
from worldwarp.working_size import with_following, working_scale

LONGEST_CHUNK = 64  # frames, of a generator that names no limit: all frames of a chunk are in memory together
MAX_PHOTO_SCALE = 4.0  # largest resolution of the photo texture over the frame size, however close the camera comes


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
    generator: Generator = part(config, "generator", given)
    config, assumed = _with_frame_size(config, path, generator)
    finer = working_scale(checked_size(config.size), generator, video=config.video is not None)
    config = with_following(config, finer)
    settings = explore_settings(config)
    _check_cadence(settings, generator.cadence)
    outline = _outline(config)[0]
    planned = open_path(settings, outline) if path is None else CameraPath(rebased(path), from_file=True)
    cameras, lens = planned.cameras, planned.lens
    assumed = assumed and not planned.from_file
    if lens is not None and "path" in config.depth:
        raise ConfigError(
            f"depth: a depth file shows the photo as it is, but its lens has {lens.model} distortion and the photo is "
            "straightened; undistort photo, depth and cameras first"
        )
    if cameras.size != settings.size:
        raise ConfigError(f"path: want cameras of size {settings.size}, got {cameras.size}; set size to match")
    detail_scale = max(settings.detail / finer, 1.0)
    scale = min(detail_scale, *(side / size for side, size in zip(outline, settings.size, strict=True)))
    needs = _needs(config, settings, len(cameras), scale, generator)
    for line in (*needs.lines(out), *_about(generator, settings.size, needs.planned_frames)):
        tell(line)
    straighten = None if lens is None else lens.straightened
    decoded = _decoded(settings, straighten)
    picture, full_res = decoded.at(settings.size, detail_scale), decoded.at(settings.size, MAX_PHOTO_SCALE).rgb
    _check_gpu(generator, settings, needs.planned_frames)
    estimator = part(config, "depth", given)
    if isinstance(estimator, FileDepth):
        estimator = estimator.of_photo(picture.original_size, picture.turned)
    detail_size = (picture.rgb.shape[1], picture.rgb.shape[2])
    given_px = None if assumed else cameras[:1].resized(detail_size).focal_px
    made = estimator.estimate(picture.rgb[None], given_px)
    if assumed and made.focal_px is not None:
        config.fov_deg = math.degrees(2.0 * math.atan(0.5 * detail_size[1] / made.focal_px[0].item()))
        settings = explore_settings(config)
        planned = open_path(settings, outline)
        cameras = planned.cameras
    camera = replace(cameras[:1], world_from_camera=torch.eye(4)[None])
    detail = lift_depth(picture.rgb[None], made, camera.resized(detail_size))
    photo = _at_frame_size(detail, camera)
    parts = replace(components(config, generator, estimator, settings.size), video=video_guide(settings, estimator, 1))
    rng = torch.Generator().manual_seed(settings.seed)
    lifted = LiftedPhoto(photo, clear_far(detail), full_res)
    state = start(lifted, part(config, "cache", given), parts, rng)
    keep_prompts(config, generator)  # a captioner has described the photo by now
    factor = path_scale(planned, settings, photo)
    notes = notes_of(planned, factor)
    return Session(
        settings,
        config,
        parts,
        photo,
        scaled(cameras, factor),
        state,
        None,
        picture,
        planned.from_file,
        factor,
        notes,
    )


def _needs(config: DictConfig, settings: Settings, frames: int, scale: float, generator: Generator) -> Needs:
    return Needs(
        settings.size,
        frames,
        settings.chunk or generator.cadence.frames,
        max(scale, 1.0),
        generator=generator.plan if settings.device == "cpu" else None,
        recorded=config.viewer.mode != "none",
        per_view=generator.capabilities.per_view and config.video is None,
    )


def _about(generator: Generator, size: tuple[int, int], frames: int) -> list[str]:
    """Lines about the generator: what its license allows, and its memory by stage."""
    lines = [f"model    {generator.terms}"] if isinstance(generator, Licensed) else []
    stages = [f"{stage.name} {in_words(stage.bytes)}" for stage in generator.plan(size, frames).stages]
    return [*lines, f"memory   of the model, one after the other: {', '.join(stages)}"] if len(stages) > 1 else lines


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


def _check_gpu(generator: Generator, settings: Settings, frames: int) -> None:
    """Refuse a generator that does not fit into the free memory of the GPU.

    Raises:
        ValueError: naming the stage, and the smallest change that would fit.
    """
    if settings.device == "cuda":
        generator.plan(settings.size, frames).check(torch.cuda.mem_get_info()[0], "GPU memory")


def _check_cadence(settings: Settings, cadence: Cadence) -> None:
    """Refuse frames and chunks that the generator cannot take.

    Raises:
        ConfigError: naming the nearest size, or the longest chunk, that it takes.
    """
    size, step = settings.size, cadence.size_multiple
    longest = max(LONGEST_CHUNK, cadence.frames) if cadence.longest is None else cadence.longest
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


def resume(
    folder: Path,
    device: str = "cpu",
    onward: Mapping[str, Any] | None = None,
    path: Camera | None = None,
    tell: Callable[[str], object] = lambda _: None,
    given: Mapping[str, Any] | None = None,
) -> Session:
    """Prepare a stored session to continue, to the same bits as without the interruption.

    Args:
        folder: of the world.
        device: to run on.
        onward: new `path`, `frames`, `convention` and `path_scale`; replace the path after the last frame. `prompt`
            describes the chunks after it.
        path: or cameras ``[n]`` of frame size; the first is placed at the last finished frame.
        tell: receives lines about needed memory and disk, before the slow steps.
        given: objects that replace those of the stored configuration, by group: ``cache``, ``generator``.

    Raises:
        WorldError: no world, a later version, or a damaged file, which the message names.
        ConfigError: an invalid path, or too little memory or disk.
    """
    folder = user_path("resume", folder)
    world = WorldStore.load(folder)
    if not world.chunks:
        raise ConfigError(
            f"resume: {folder} was stopped before its first chunk was stored; start again with another out="
        )
    # Settings that an older world lacks get their defaults.
    config = OmegaConf.create({**compose_config("explore", []), **current_config(world.config)})
    assert isinstance(config, DictConfig)
    config.device = device
    text = onward.pop("prompt", None) if (onward := dict(onward or {})) else None
    if onward:
        config.update(dict.fromkeys(ONWARD) | {"prompt": config.prompt} | onward)
    generator: Generator = part(config, "generator", given)
    finer = working_scale(world.path.size, generator, video=config.video is not None)
    config = with_following(config, finer)
    settings = explore_settings(config)
    if text is not None:
        generator = _prompted(generator, text, len(world.chunks))
        keep_prompts(config, generator)
    photo, cameras = world.chunk(0).frames, world.path
    from_file, factor, notes = settings.path not in (LIVE, SAME) and not begins_with_preset(settings.path), 1.0, ()
    if onward or path is not None:
        if path is None:
            planned = open_path(replace(settings, fov_deg=float(world.cameras.fov_deg[-1, 0])))
        else:
            planned = CameraPath(rebased(path), from_file=True)
        if planned.cameras.size != settings.size:
            raise ConfigError(f"path: want cameras of size {settings.size}, got {planned.cameras.size}; resize them")
        from_file, factor = planned.from_file, path_scale(planned, settings, photo)
        notes = notes_of(replace(planned, lens=None), factor)  # the lens applies to the photo only
        cameras = continued(world.cameras, scaled(planned.cameras, factor))
    finest = world.photo
    by_keys = settings.path == LIVE
    if by_keys or len(cameras) > len(world):
        scale = min(max(settings.detail / finer, 1.0), finest.shape[1] / settings.size[0])
        needs = _needs(config, settings, 1 if by_keys else len(cameras), scale, generator)
        lines = [] if by_keys else replace(needs, done=len(world)).lines(folder)
        for line in (*lines, *_about(generator, settings.size, needs.planned_frames)):
            tell(line)
        _check_gpu(generator, settings, needs.planned_frames)
    depth = None if generator.capabilities.depth else part(config, "depth", given)
    cache, parts = part(config, "cache", given), components(config, generator, depth, settings.size)
    if settings.video is not None:
        parts = replace(parts, video=video_guide(settings, part(config, "depth", given), len(world)))
    # Before anything is written: the models of the generator may refuse a new prompt.
    count = len(world.chunks)
    memory = generator.rebuild((world.chunk(k).pooled(parts.scale), world.carried(k)) for k in range(count))
    if cameras is not world.path or text is not None:
        stored: Any = OmegaConf.to_container(config)
        world.redirect(cameras, stored)
    cache.page_to(folder)
    for change in world.changes():
        cache.apply(change)
    rng = torch.Generator()
    rng.set_state(world.rng_state)
    last_frames = [world.chunk(i).frames[-1:] for i in range(max(1, count - REFERENCE_FRAMES + 1), count)]
    view = WorldView(cache, PhotoTexture.of(photo, finest))
    state = ExploreState(view, memory, reference_of(photo, last_frames), rng, chunks=count, frames=len(world))
    return Session(settings, config, parts, photo, world.path, state, world, None, from_file, factor, notes)


def undo(session: Session) -> None:
    """Undo the last chunk of a stored session, or a `forget` after it; the state becomes that of a resumed session.

    Raises:
        ValueError: nothing is stored, or the world has only the photo.
    """
    if session.world is None:
        raise ValueError("undo: want a stored world (out=), got one that is not stored")
    session.world.undo()
    session.world.redirect(session.world.cameras, session.world.config)
    # The generator stays, with its loaded models.
    generator = {"generator": session.components.generator}
    resumed = resume(session.world.folder, session.settings.device, given=generator)
    session.components, session.cameras, session.state, session.world = (
        resumed.components,
        resumed.cameras,
        resumed.state,
        resumed.world,
    )


def _prompted(generator: Generator, text: str, from_chunk: int) -> Generator:
    if not isinstance(generator, TakesPrompts):
        raise ConfigError("prompt: the generator of this world takes no text; leave prompt= out")
    return generator.prompted(text, from_chunk)


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
