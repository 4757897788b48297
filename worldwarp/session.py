"""From settings to a walk: photo, depth, path and parts are checked and put together before anything is written."""

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
from geometry.depth import FileDepth, clear_far, lift_photo
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

VIDEO = "video.mp4"
REACH = 0.4  # median depths that path_scale=auto lets a path go, as far as out_and_back
SMALLER = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01)  # scales to try for a path that runs into things
FINEST = 4.0  # times the frame size: no finer is the photo shown, however close the walk comes


@dataclass
class Session:
    """A world that is being explored.

    Attributes:
        settings: the checked plain settings.
        config: the composed configuration, groups included.
        components: what the loop is made of.
        photo: the photo at frame size with its depth, ``[1]``.
        cameras: the whole path ``[n]``; camera 0 is the photo's.
        state: the world as it is after the last finished chunk.
        world: the folder it is stored in; None when nothing is stored (yet).
        picture: the photo as it was read; None for a world that goes on.
        from_file: whether the path's unit of length is a camera file's.
        path_scale: what the file's positions were multiplied by.
        notes: lines for the plan about what was done to the photo and the path.
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
        """Cameras still to be walked, chunk by chunk."""
        size, total = self.settings.chunk, len(self.cameras)
        return [self.cameras[i : min(i + size, total)] for i in range(self.state.frames, total, size)]

    def steps(self, chunks: Iterable[Camera] | None = None) -> Iterator[Step]:
        """Walk on, along what remains or along ``chunks``; every chunk is stored before it is yielded."""
        for step in explore(self.state, self.remaining if chunks is None else chunks, self.components):
            if self.world is not None:
                self._store(step.chunk, step.integration.change, step.gauges)
            yield step

    def go(self, cameras: Camera) -> Step:
        """Make one chunk along a move from where the walk stands; what was planned beyond is dropped.

        Args:
            cameras: the move after where it begins, ``[t]``, its lengths in the photo's median depths.
        """
        done = self.cameras[: self.state.frames]
        relative = scaled(rebased(Camera.concatenate([done[-1:], cameras])), _unit(self.photo))
        self.cameras = continued(done, relative)
        if self.world is not None:
            self.world.redirect(self.cameras, self.world.config)
        (step,) = self.steps([self.cameras[len(done) :]])
        return step

    def undo(self) -> None:
        """Take back the last chunk of a stored walk, or a `forget` after it; then stand where a resumed walk would.

        Raises:
            ValueError: nothing is stored, or there is only the photo.
        """
        if self.world is None:
            raise ValueError("undo: want a walk that is stored (out=), got one that is not")
        self.world.undo()
        self.world.redirect(self.world.cameras, self.world.config)
        again = resume(self.world.folder, self.settings.device)
        self.components, self.cameras, self.state, self.world = (
            again.components,
            again.cameras,
            again.state,
            again.world,
        )

    def store_in(self, folder: Path) -> None:
        """Start a world in ``folder`` with the photo as its chunk 0.

        Raises:
            WorldError: when the folder holds something, or cannot be written.
        """
        folder = user_path("out", folder)
        config: Any = OmegaConf.to_container(self.config)  # `device` stays open: it may differ on resume
        metric, seed = self.photo.metric, self.settings.seed
        self.world = WorldStore.create(folder, path=self.cameras, seed=seed, config=config, metric=metric)
        self.state.view.cache.page_to(folder)
        change = Change.from_nothing(self.state.view.cache.snapshot())
        self._store(photo_chunk(self.photo), change, {}, self.state.view.texture.full_res)

    def plan(self) -> Plan:
        """Look ahead along the path and time the parts; the walk is left as it was."""
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
            # Rendering, insertion about twice that, and per look of the refinement a quarter of it; a pass per step,
            # copying about as long as one.
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
        """What keeps the rest of the path from running into what the photo shows."""
        if not self.from_file:
            return "a smaller distance"
        done, rest = self.cameras[: self.state.frames], rebased(self.cameras[self.state.frames - 1 :])
        for factor in SMALLER:
            if not [i for i in collisions(self.photo, continued(done, scaled(rest, factor))) if i >= len(done)]:
                return f"path_scale={self.path_scale * factor:.3g}"
        return f"path_scale={self.path_scale * SMALLER[-1]:.3g}"

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
    """Write ``video.mp4`` of all finished frames into the world's folder, replacing what was there."""
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
    """Get a walk ready: everything that can be wrong with the input is refused here; nothing is written.

    Args:
        config: a composed `explore` configuration.
        path: cameras ``[n]`` of frame size, the photo's first, to which the others are taken relative; instead of the
            configuration's `path`.
        out: where the world will be stored, to see whether it fits; None when nothing is.
        tell: takes lines about the memory and disk that are needed, before anything takes long.
        given: objects instead of what the configuration says, by group: ``depth``, ``cache``, ``generator``.

    Raises:
        ValueError: a bad photo, depth, path, size or setting, or too little memory or disk, in one sentence.
    """
    check_explore(config)
    config = _framed(config, path)
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
    picture, full_res = decoded.at(settings.size, settings.detail), decoded.at(settings.size, FINEST).rgb
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
        remembers=not config.generator["_target_"].endswith("PassthroughGenerator"),
        recorded=config.viewer.mode != "none",
    )


def _framed(config: DictConfig, path: Camera | None) -> DictConfig:
    """The configuration with a frame size and a lens: as it says, as the cameras have them, or as the photo asks."""
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
    """Get a stored walk ready to go on, to the same bits as if it had never stopped.

    Args:
        folder: of the world.
        device: where to run from now on.
        onward: new `path`, `frames`, `convention` and `path_scale`: from the last finished frame on, they replace what
            was planned.
        path: or cameras ``[n]`` of frame size; the first is placed where the last finished frame is.
        tell: takes lines about the memory and disk that are needed, before anything takes long.
        given: objects instead of what the world's configuration says, by group: ``cache``, ``generator``.

    Raises:
        WorldError: no world, one of a later version, or one with a damaged file, which it names.
        ConfigError: a path that cannot be walked, or too little memory or disk.
    """
    folder = user_path("resume", folder)
    world = WorldStore.load(folder)
    if not world.chunks:
        raise ConfigError(
            f"resume: {folder} was stopped before its first chunk was stored; start again with another out="
        )
    # Settings that an older world does not know have their defaults.
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
        notes = _notes(replace(planned, lens=None), factor)  # only the photo goes through a lens
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
    memory = _remembered(world, components.generator)
    view = WorldView(cache, PhotoTexture.of(photo, finest))
    state = ExploreState(view, memory, reference_of(photo, last_frames), rng, chunks=count, frames=len(world))
    return Session(settings, config, components, photo, world.path, state, world, None, from_file, factor, notes)


def _remembered(world: WorldStore, generator: Generator) -> KVMemory:
    """What the generator remembered after the last chunk, made again: a pass per chunk, and larger than all else."""
    memory = generator.start(world.chunk(0))
    for index in range(1, len(world.chunks)):
        memory = generator.remember(subsample(world.chunk(index)), memory)
    return memory


def build_cache(config: DictConfig) -> WorldCache:
    """The empty cache that a configuration asks for."""
    return build(config, "cache")


def _part(config: DictConfig, group: str, given: Mapping[str, Any] | None) -> Any:
    """The object that was given for a group, else what the configuration builds."""
    return given[group] if given and group in given else build(config, group)


def _open_path(settings: Settings, photo_size: tuple[int, int] | None = None) -> CameraPath:
    """The path that the settings ask for, in its own unit; ``photo_size`` where the photo is its first frame."""
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
    """The length that moves call 1, in scene units: the photo's median depth, sky left out."""
    ground = photo.depth[photo.valid & ~photo.sky]
    return ground.median().item() if photo.metric and len(ground) else 1.0  # up to scale, the median is the unit


def _path_scale(given: CameraPath, settings: Settings, photo: Frame) -> float:
    """What the positions of a path are multiplied by to be in scene units."""
    if not given.from_file:
        return _unit(photo)
    if settings.path_scale == AUTO:
        farthest = given.cameras.position.norm(dim=-1).max().item()
        return REACH * _unit(photo) / farthest if farthest > 0.0 else 1.0
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
