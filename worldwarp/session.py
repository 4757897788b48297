"""Builds a session from settings: photo, depth, path and components are checked before anything is written."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from torch.nn.functional import interpolate

from cache3d.cache import WorldCache
from cache3d.photo_texture import PhotoTexture
from cache3d.world_view import WorldView
from diffusion.generator import Generator
from diffusion.kv_memory import KVMemory
from geometry.camera import Camera
from geometry.camera_io.read_write import CameraPath, continued, open_camera_path, rebased, scaled
from geometry.depth import DepthEstimator, FileDepth, clear_far, lift_photo
from geometry.frame import Chunk, Frame
from geometry.primitives import Change
from geometry.trajectory.path_text import begins_with_preset
from scenes.io.video import write_video
from scenes.photos.framing import natural_size, photo_fov_deg, sized
from scenes.photos.photo import Photo, decode_photo, photo_outline
from scenes.store.world_store import WorldStore
from worldwarp.arguments import LIVE, user_path
from worldwarp.config import (
    AUTO,
    ONWARD,
    ConfigError,
    Settings,
    build,
    check_explore,
    checked_size,
    compose_config,
    explore_settings,
)
from worldwarp.keyboard import MOVES, move
from worldwarp.loop import (
    REFERENCE_FRAMES,
    Components,
    ExploreState,
    LiftedPhoto,
    Step,
    explore,
    photo_chunk,
    reference_of,
    start,
    subsample,
)
from worldwarp.needs import Needs
from worldwarp.plan import Plan, collisions, predicted_holes, time_render
from worldwarp.stored_config import current_targets

PROTOCOLS = {"depth": DepthEstimator, "cache": WorldCache, "generator": Generator}  # of components given as objects
VIDEO = "video.mp4"
AUTO_DISTANCE = 0.4  # largest distance of a path with path_scale=auto, in median depths; the distance of out_and_back
SMALLER_SCALES = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01)  # scales to try for a path that collides with surfaces
MAX_PHOTO_SCALE = 4.0  # largest resolution of the photo texture over the frame size, however close the camera comes


@dataclass
class Session:
    """A world that is being explored.

    Attributes:
        settings: the checked plain settings.
        config: the composed configuration, groups included.
        components: the parts of the loop.
        photo: the photo at frame size with its depth, ``[1]``.
        cameras: the whole path ``[n]``; camera 0 is the photo's.
        state: after the last finished chunk.
        world: the store; None while nothing is stored.
        picture: the photo as it was read; None for a resumed world.
        from_file: whether the path is in the unit of a camera file.
        path_scale: factor on the positions of the path.
        notes: lines for the plan about changes to the photo and the path.
    """

    settings: Settings
    config: DictConfig
    components: Components
    photo: Frame
    cameras: Camera
    state: ExploreState
    world: WorldStore | None = None
    picture: Photo | None = None
    from_file: bool = False
    path_scale: float = 1.0
    notes: tuple[str, ...] = ()

    @property
    def remaining(self) -> list[Camera]:
        """Cameras of the unfinished part of the path, by chunk."""
        size, total = self.settings.chunk, len(self.cameras)
        return [self.cameras[i : min(i + size, total)] for i in range(self.state.frames, total, size)]

    def steps(self, chunks: Iterable[Camera] | None = None) -> Iterator[Step]:
        """Explore the `remaining` path or ``chunks``; every chunk is stored before it is yielded."""
        for step in explore(self.state, self.remaining if chunks is None else chunks, self.components):
            if self.world is not None:
                self._store(step.chunk, step.integration.change, step.gauges)
            yield step

    def go(self, cameras: Camera) -> Step:
        """Make one chunk along a move from the last finished frame; the rest of the planned path is dropped.

        Args:
            cameras: of the move, without its first camera, ``[t]``; lengths in the photo's median depths.
        """
        done = self.cameras[: self.state.frames]
        relative = scaled(rebased(Camera.concatenate([done[-1:], cameras])), _unit(self.photo))
        self.cameras = continued(done, relative)
        if self.world is not None:
            self.world.redirect(self.cameras, self.world.config)
        (step,) = self.steps([self.cameras[len(done) :]])
        return step

    def undo(self) -> None:
        """Undo the last chunk of a stored session, or a `forget` after it; the state becomes that of a resumed session.

        Raises:
            ValueError: nothing is stored, or the world has only the photo.
        """
        if self.world is None:
            raise ValueError("undo: want a stored world (out=), got one that is not stored")
        self.world.undo()
        self.world.redirect(self.world.cameras, self.world.config)
        resumed = resume(self.world.folder, self.settings.device)
        self.components, self.cameras, self.state, self.world = (
            resumed.components,
            resumed.cameras,
            resumed.state,
            resumed.world,
        )

    def store_in(self, folder: Path) -> None:
        """Start a world in ``folder`` with the photo as its chunk 0.

        Raises:
            WorldError: the folder is not empty, or cannot be written.
        """
        folder = user_path("out", folder)
        config: Any = OmegaConf.to_container(self.config)  # `device` may differ on resume
        metric, seed = self.photo.metric, self.settings.seed
        self.world = WorldStore.create(folder, path=self.cameras, seed=seed, config=config, metric=metric)
        self.state.view.cache.page_to(folder)
        change = Change.from_nothing(self.state.view.cache.snapshot())
        self._store(photo_chunk(self.photo), change, {}, self.state.view.texture.full_res)

    def plan(self) -> Plan:
        """Check the path and time rendering and generator; does not change the state."""
        chunks, seconds = self.remaining, 0.0
        timed = chunks[0] if chunks else None
        if self.settings.path == LIVE:
            timed = move(next(iter(MOVES)), self.cameras[self.state.frames - 1], self.settings.chunk)
        if timed is not None:
            count = len(timed)
            self.components.generator.rehearse(count, self.settings.size)
            start = time.perf_counter()
            self.components.generator.rehearse(count, self.settings.size)
            denoise_s = time.perf_counter() - start
            # In renderings: 1 for the guide, about 2 for integration, 0.25 per refinement step. In passes of the
            # generator: 1 per denoising step, about 1 for inpainting.
            renders = 3.0 + 0.25 * self.config.cache.get("refine_steps", 0)
            seconds = renders * time_render(self.state.view.cache, timed) + (self.settings.steps + 1.0) * denoise_s
        names = {group: self.config[group]["_target_"].rpartition(".")[2] for group in ("depth", "cache", "generator")}
        return Plan(
            frames=len(self.cameras) - self.state.frames,
            chunks=len(chunks),
            size=self.settings.size,
            fov_deg=float(self.cameras.fov_deg[0, 0]),
            backends=names | {"noise": self.config.noise.kind, "device": self.settings.device},
            seconds_per_chunk=seconds,
            hole_ratio=predicted_holes(self.state.view.cache, chunks),
            collisions=collisions(self.photo, self.cameras),
            remedy=self._remedy(),
            notes=self.notes,
            photo=self.picture,
        )

    def _remedy(self) -> str:
        """The setting with which the rest of the path does not collide with surfaces of the photo."""
        if not self.from_file:
            return "a smaller distance"
        done, rest = self.cameras[: self.state.frames], rebased(self.cameras[self.state.frames - 1 :])
        for factor in SMALLER_SCALES:
            if not [i for i in collisions(self.photo, continued(done, scaled(rest, factor))) if i >= len(done)]:
                return f"path_scale={self.path_scale * factor:.3g}"
        return f"path_scale={self.path_scale * SMALLER_SCALES[-1]:.3g}"

    def write_video(self) -> None:
        """Write ``video.mp4`` of all finished frames into the world's folder."""
        if self.world is not None:
            write_world_video(self.world)

    def _store(
        self, chunk: Chunk, change: Change, gauges: dict[str, float], photo: Float[Tensor, "3 h w"] | None = None
    ) -> None:
        assert self.world is not None
        self.world.append(
            chunk,
            change=change,
            rng_state=self.state.rng.get_state(),
            gauges=gauges,
            photo=photo,
        )


def write_world_video(world: WorldStore) -> Path:
    """Write ``video.mp4`` of all finished frames into the world's folder, replacing an earlier one."""
    path = world.folder / VIDEO
    write_video(path, (rgb for chunk in range(len(world.chunks)) for rgb in world.chunk(chunk).frames.rgb), world.fps)
    return path


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
    config = _with_frame_size(config, path)
    settings = explore_settings(config)
    assert settings.image is not None
    outline, _ = photo_outline(settings.image)
    planned = _open_path(settings, outline) if path is None else CameraPath(rebased(path), from_file=True)
    cameras, lens = planned.cameras, planned.lens
    if lens is not None and "path" in config.depth:
        raise ConfigError(
            f"depth: a depth file shows the photo as it is, but its lens has {lens.model} distortion and the photo is "
            "straightened; undistort photo, depth and cameras first"
        )
    if cameras.size != settings.size:
        raise ConfigError(f"path: want cameras of size {settings.size}, got {cameras.size}; set size to match")
    scale = min(settings.detail, *(side / size for side, size in zip(outline, settings.size, strict=True)))
    for line in _needs(config, settings, len(cameras), scale).lines(out):
        tell(line)
    straighten = None if lens is None else lens.straightened
    decoded = decode_photo(settings.image, straighten)
    picture, full_res = decoded.at(settings.size, settings.detail), decoded.at(settings.size, MAX_PHOTO_SCALE).rgb
    camera = replace(cameras[:1], world_from_camera=torch.eye(4)[None])
    detail_size = (picture.rgb.shape[1], picture.rgb.shape[2])
    estimator = _part(config, "depth", given)
    if isinstance(estimator, FileDepth):
        estimator = estimator.of_photo(picture.original_size, picture.turned)
    detail = lift_photo(picture.rgb[None], estimator, camera.resized(detail_size))
    photo = _at_frame_size(detail, camera)
    components = _build_components(config, given)
    rng = torch.Generator().manual_seed(settings.seed)
    lifted = LiftedPhoto(photo, clear_far(detail), full_res)
    state = start(lifted, _part(config, "cache", given), components, rng)
    factor = _path_scale(planned, settings, photo)
    notes = _notes(planned, factor)
    return Session(
        settings,
        config,
        components,
        photo,
        scaled(cameras, factor),
        state,
        None,
        picture,
        planned.from_file,
        factor,
        notes,
    )


def _needs(config: DictConfig, settings: Settings, frames: int, scale: float) -> Needs:
    return Needs(
        settings.size,
        frames,
        settings.chunk,
        max(scale, 1.0),
        remembers=_keeps_memory(config.generator),
        recorded=config.viewer.mode != "none",
    )


def _keeps_memory(generator: DictConfig) -> bool:
    """Whether a generator keeps keys and values of past frames; without a policy, all but passthrough count as such."""
    policy = generator.get("policy")
    if policy is None:
        return not generator["_target_"].endswith("PassthroughGenerator")
    return policy.bank > 0


def _with_frame_size(config: DictConfig, path: Camera | None) -> DictConfig:
    """The configuration with frame size and field of view, from itself, else from the cameras, else from the photo."""
    longer_side = config.size if isinstance(config.size, int) else None
    if config.image is None or (config.size is not None and longer_side is None and config.fov_deg is not None):
        return config
    framed = config.copy()
    outline, film_mm = photo_outline(config.image)
    if longer_side is not None:
        framed.size = list(sized(outline, longer_side))
    elif config.size is None:
        framed.size = list(natural_size(outline) if path is None else path.size)
    if config.fov_deg is None:
        framed.fov_deg = photo_fov_deg(outline, checked_size(framed.size), film_mm)
    return framed


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
        onward: new `path`, `frames`, `convention` and `path_scale`; replace the path after the last frame.
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
    config = OmegaConf.create({**compose_config("explore", []), **current_targets(world.config)})
    assert isinstance(config, DictConfig)
    config.device = device
    if onward:
        config.update(dict.fromkeys(ONWARD) | dict(onward))
    settings = explore_settings(config)
    photo, cameras = world.chunk(0).frames, world.path
    from_file, factor, notes = settings.path != LIVE and not begins_with_preset(settings.path), 1.0, ()
    if onward or path is not None:
        if path is None:
            planned = _open_path(replace(settings, fov_deg=float(world.cameras.fov_deg[-1, 0])))
        else:
            planned = CameraPath(rebased(path), from_file=True)
        if planned.cameras.size != settings.size:
            raise ConfigError(f"path: want cameras of size {settings.size}, got {planned.cameras.size}; resize them")
        from_file, factor = planned.from_file, _path_scale(planned, settings, photo)
        notes = _notes(replace(planned, lens=None), factor)  # the lens applies to the photo only
        cameras = continued(world.cameras, scaled(planned.cameras, factor))
    finest = world.photo
    if len(cameras) > len(world):
        scale = min(settings.detail, finest.shape[1] / settings.size[0])
        needs = _needs(config, settings, len(cameras), scale)
        for line in replace(needs, done=len(world)).lines(folder):
            tell(line)
    cache, components = _part(config, "cache", given), _build_components(config, given)
    if cameras is not world.path:
        stored: Any = OmegaConf.to_container(config)
        world.redirect(cameras, stored)
    cache.page_to(folder)
    for change in world.changes():
        cache.apply(change)
    rng = torch.Generator()
    rng.set_state(world.rng_state)
    count = len(world.chunks)
    last_frames = [world.chunk(i).frames[-1:] for i in range(max(1, count - REFERENCE_FRAMES + 1), count)]
    memory = _rebuild_memory(world, components.generator)
    view = WorldView(cache, PhotoTexture.of(photo, finest))
    state = ExploreState(view, memory, reference_of(photo, last_frames), rng, chunks=count, frames=len(world))
    return Session(settings, config, components, photo, world.path, state, world, None, from_file, factor, notes)


def _rebuild_memory(world: WorldStore, generator: Generator) -> KVMemory:
    """Recompute the generator's memory after the last chunk, one pass per chunk; it is too large to store."""
    memory = generator.start(world.chunk(0))
    for index in range(1, len(world.chunks)):
        memory = generator.remember(subsample(world.chunk(index)), memory)
    return memory


def build_cache(config: DictConfig) -> WorldCache:
    """The empty cache of a configuration."""
    return build(config, "cache")


def _part(config: DictConfig, group: str, given: Mapping[str, Any] | None) -> Any:
    """The object given for a group, else the one that the configuration builds."""
    part = given[group] if given and group in given else build(config, group)
    check_part(group, part)
    return part


def check_part(group: str, part: object) -> None:
    """Refuse an object without the methods of its group's protocol.

    Raises:
        ConfigError: naming the protocol and the missing methods.
    """
    protocol = PROTOCOLS[group]
    methods = [name for name in vars(protocol) if not name.startswith("_") or name == "__len__"]
    missing = [name for name in methods if not hasattr(part, name)]
    if missing:
        raise ConfigError(
            f"{group}: want an object with the methods of worldwarp.plugins.{protocol.__name__}, "
            f"got {type(part).__name__} without {', '.join(missing)}"
        )


def _open_path(settings: Settings, photo_size: tuple[int, int] | None = None) -> CameraPath:
    """The path of the settings, in its own unit; ``photo_size`` if the photo is its first frame."""
    text, size = settings.path, settings.size
    if text == LIVE:
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


def _unit(photo: Frame) -> float:
    """Unit of length of moves, in scene units: the photo's median depth without sky."""
    ground = photo.depth[photo.valid & ~photo.sky]
    return ground.median().item() if photo.metric and len(ground) else 1.0  # depth without metric scale has median 1


def _path_scale(given: CameraPath, settings: Settings, photo: Frame) -> float:
    """Factor from the positions of a path to scene units."""
    if not given.from_file:
        return _unit(photo)
    if settings.path_scale == AUTO:
        farthest = given.cameras.position.norm(dim=-1).max().item()
        return AUTO_DISTANCE * _unit(photo) / farthest if farthest > 0.0 else 1.0
    return 1.0 if settings.path_scale is None else float(settings.path_scale)


def _notes(given: CameraPath, factor: float) -> tuple[str, ...]:
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


def _build_components(config: DictConfig, given: Mapping[str, Any] | None) -> Components:
    return Components(
        generator=_part(config, "generator", given),
        noise=build(config, "noise"),
        prior=build(config, "prior"),
        sampler=build(config, "sampler"),
    )


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
