"""Continues a stored session: the world is read, and everything is checked before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from cache3d.cache import WorldCache
from cache3d.photo_texture import PhotoTexture
from cache3d.world_view import WorldView
from diffusion.generator import Generator, Memory, TakesPrompts
from geometry.camera import Camera
from geometry.camera_io.read_write import CameraPath, continued, rebased
from geometry.frame import Frame
from geometry.trajectory.path_text import begins_with_preset
from scenes.store.world_store import WorldStore
from worldwarp.arguments import BY_ITSELF, LIVE, SAME, STUDIO, user_path
from worldwarp.components import autopilot_of, components, keep_prompts, part, video_guide
from worldwarp.config import ONWARD, ConfigError, Settings, compose_config
from worldwarp.needs import announce, check_gpu, needs_of
from worldwarp.planned_path import in_scene_units, open_path
from worldwarp.session import Session
from worldwarp.state import REFERENCE_FRAMES, ExploreState, reference_of
from worldwarp.stored_config import current_config
from worldwarp.working_size import at_working_size


def resume(
    folder: Path,
    device: str = "cpu",
    onward: Mapping[str, Any] | None = None,
    path: Camera | None = None,
    tell: Callable[[str], object] = lambda _: None,
    given: Mapping[str, Any] | None = None,
    *,
    store: bool = True,
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
        store: whether a new path is stored, and what is made; else the session is for looking, and the world stays.

    Raises:
        WorldError: no world, a later version, or a damaged file, which the message names.
        ConfigError: an invalid path, or too little memory or disk.
    """
    folder = user_path("resume", folder)
    world = _stored_world(folder)
    onward = dict(onward or {})
    text = onward.pop("prompt", None)
    config = _stored_config(world, device, onward)
    autopilot = autopilot_of(config)
    generator: Generator = part(config, "generator", given)
    config, settings, finer = at_working_size(config, world.path.size, generator)
    if text is not None:
        generator = _prompted(generator, text, len(world.chunks))
        keep_prompts(config, generator)
    photo, cameras = world.chunk(0).frames, world.path
    by_name = settings.path in (LIVE, SAME, BY_ITSELF, STUDIO) or begins_with_preset(settings.path)
    from_file, factor, notes = not by_name, 1.0, ()
    if redirected := bool(onward) or path is not None:
        planned = _path_onward(settings, world, path)
        more, factor, notes = in_scene_units(planned, settings.path_scale, photo)
        from_file, cameras = planned.from_file, continued(world.cameras, more)
    finest = world.photo
    if settings.path == LIVE or len(cameras) > len(world):
        scale = min(max(settings.detail / finer, 1.0), finest.shape[1] / settings.size[0])
        _check_rest(config, settings, generator, world, len(cameras), scale, tell)
    depth = None if generator.capabilities.depth else part(config, "depth", given)
    cache, parts = part(config, "cache", given), components(config, generator, depth, settings.size)
    if settings.video is not None:
        parts = replace(parts, video=video_guide(settings, part(config, "depth", given), len(world)))
    # Before anything is written: the models of the generator may refuse a new prompt.
    chunks = range(len(world.chunks))
    memory = generator.rebuild((world.chunk(k).pooled(parts.scale), world.carried(k)) for k in chunks)
    if store and (redirected or text is not None):
        stored: Any = OmegaConf.to_container(config)
        world.redirect(cameras, stored)
    state = _stored_state(world, cache, memory, photo, finest)
    kept = world if store else None
    return Session(settings, config, parts, photo, cameras, state, kept, None, from_file, factor, notes, autopilot)


def _stored_world(folder: Path) -> WorldStore:
    """The world of a folder.

    Raises:
        WorldError: no world, a later version, or a damaged file.
        ConfigError: not even its photo was stored.
    """
    world = WorldStore.load(folder)
    if not world.chunks:
        raise ConfigError(
            f"resume: {folder} was stopped before its first chunk was stored; start again with another out="
        )
    return world


def _stored_config(world: WorldStore, device: str, onward: dict[str, Any]) -> DictConfig:
    """The configuration of a world in its present form, with the settings of a new path if ``onward`` has any."""
    # Settings that an older world lacks get their defaults.
    config = OmegaConf.create({**compose_config("explore", []), **current_config(world.config)})
    assert isinstance(config, DictConfig)
    config.device = device
    if onward:
        config.update(dict.fromkeys(ONWARD) | {"prompt": config.prompt} | onward)
    return config


def _path_onward(settings: Settings, world: WorldStore, path: Camera | None) -> CameraPath:
    """The path from the last finished frame on, in its own unit: the given cameras, else that of the settings.

    Raises:
        ConfigError: an invalid path, or cameras of another frame size.
    """
    if path is None:
        planned = open_path(replace(settings, fov_deg=float(world.cameras.fov_deg[-1, 0])))
    else:
        planned = CameraPath(rebased(path), from_file=True)
    if planned.cameras.size != settings.size:
        raise ConfigError(f"path: want cameras of size {settings.size}, got {planned.cameras.size}; resize them")
    return replace(planned, lens=None)  # the lens applies to the photo only


def _check_rest(
    config: DictConfig,
    settings: Settings,
    generator: Generator,
    world: WorldStore,
    frames: int,
    scale: float,
    tell: Callable[[str], object],
) -> None:
    """Tell what the unfinished frames need, and refuse more than there is.

    Args:
        frames: of the whole path.
        scale: resolution of the photo in the cache over the frame size.

    Raises:
        ConfigError: too little memory or disk.
        ValueError: too little GPU memory.
    """
    by_keys = settings.path == LIVE
    needs = needs_of(config, settings, generator, 1 if by_keys else frames, scale)
    announce([] if by_keys else replace(needs, done=len(world)).lines(world.folder), needs, generator, tell)
    check_gpu(settings, generator, needs.planned_frames)


def _stored_state(
    world: WorldStore, cache: WorldCache, memory: Memory, photo: Frame, finest: Float[Tensor, "3 h w"]
) -> ExploreState:
    """The state after the last finished chunk.

    Args:
        world: the store.
        cache: an empty cache; it is filled.
        memory: of the generator.
        photo: frame 0.
        finest: the photo at the resolution at which it was stored.
    """
    cache.page_to(world.folder)
    for change in world.changes():
        cache.apply(change)
    rng = torch.Generator()
    rng.set_state(world.rng_state)
    count = len(world.chunks)
    last_frames = [world.chunk(i).frames[-1:] for i in range(max(1, count - REFERENCE_FRAMES + 1), count)]
    view = WorldView(cache, PhotoTexture.of(photo, finest))
    return ExploreState(view, memory, reference_of(photo, last_frames), rng, chunks=count, frames=len(world))


def undo(session: Session) -> None:
    """Undo the last chunk of a stored session, or a `forget` after it; the state becomes that of a resumed session.

    Raises:
        ValueError: nothing is stored, or the world has only the photo.
    """
    if session.world is None:
        raise ValueError("undo: want a stored world (out=), got one that is not stored")
    session.world.undo()
    session.world.redirect(session.world.cameras, session.world.config)
    _reopen(session)


def forget(
    session: Session,
    *,
    chunks: Sequence[int] = (),
    region: Float[Tensor, "2 3"] | None = None,
) -> int:
    """Remove primitives of a stored session, see `WorldStore.forget`; the state becomes that of a resumed session.

    Returns:
        Number of removed primitives; `undo` restores them.

    Raises:
        ValueError: nothing is stored, or what is to be forgotten does not exist.
    """
    if session.world is None:
        raise ValueError("forget: want a stored world (out=), got one that is not stored")
    count = session.world.forget(chunks=chunks, region=region)
    if count:
        session.world.redirect(session.world.cameras, session.world.config)
        _reopen(session)
    return count


def _reopen(session: Session) -> None:
    """Take over the state of the stored world, after it was changed."""
    assert session.world is not None
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
