"""Render training clips from freely licensed textured scenes: color, exact depth and poses (`scenes/dataset/clips.py`).

Train and held-out clips never share a scene. Clips of panoramas are in a third split, ``estimated``: their depth is
estimated and some of their frames have invalid pixels, so they are used only through guides recorded from them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from tqdm import tqdm

from geometry.depth.embedded import EmbeddedDepth
from scenes.dataset.clips import write_clip, write_manifest
from scenes.dataset.plans import CLIP_FRAMES, CLIPS_PER_SCENE_VISIT, PLANS
from scenes.synthetic import panoramas, torcs
from scenes.synthetic.assets import (
    FURNITURE_ARCHIVES,
    FURNITURE_FOLDER,
    PANORAMAS_FOLDER,
    SURFACES_FOLDER,
    TRACKS_FOLDER,
)
from scenes.synthetic.filming import Stage
from scenes.synthetic.raycast import WorldRenderer
from scenes.synthetic.rooms import factory as rooms
from scenes.synthetic.rooms.furniture import unpack_catalogues
from scenes.synthetic.still_lifes import factory as still_lifes
from scenes.synthetic.towns import factory as towns

log = logging.getLogger(__name__)


@runtime_checkable
class Place(Protocol):
    """A scene from which clips are rendered."""

    @property
    def license(self) -> str:
        """License of the rendered frames."""
        ...

    def film(self, *, move: str, frames: int, seed: int, size: tuple[int, int]) -> dict[str, np.ndarray] | None:
        """Render the arrays of a clip; None if no collision-free path is found. ``seed`` decides all random choices."""
        ...


class AssetStages:
    """Loads scenes from an asset folder (see ``scenes.synthetic.assets``) and caches the latest ones."""

    def __init__(self, assets: Path) -> None:
        self._tracks, self._panoramas = assets / TRACKS_FOLDER, assets / PANORAMAS_FOLDER
        furniture = unpack_catalogues(assets / FURNITURE_ARCHIVES, assets / FURNITURE_FOLDER)
        self._rooms = rooms.RoomFactory(furniture, assets / SURFACES_FOLDER)
        self._towns = towns.TownFactory(assets / SURFACES_FOLDER, self._tracks, furniture)
        self._still_lifes = still_lifes.StillLifeFactory(furniture, assets / SURFACES_FOLDER)
        self._kept: dict[str, Place] = {}

    def __call__(self, source: str, scene: str) -> Place:
        """The stage of a scene.

        Raises:
            ValueError: the asset folder does not hold the scene.
        """
        if scene not in self._kept:
            self._kept[scene] = self._load(source, scene)
            cached_worlds = 14
            # Textures of a scene take memory; dictionaries keep the order of insertion, so the first is the oldest.
            while len(self._kept) > cached_worlds:
                self._kept.pop(next(iter(self._kept)))
        # Moved to the end: the scene was used last.
        stage = self._kept.pop(scene)
        self._kept[scene] = stage
        return stage

    def _load(self, source: str, scene: str) -> Place:
        if source == panoramas.SOURCE:
            return panoramas.load_panorama(self._panoramas / f"{scene}_1k.jpg", EmbeddedDepth())
        if source == torcs.SOURCE:
            return Stage(WorldRenderer(torcs.load_track(self._tracks, scene)), None, torcs.LICENSE)
        if source == towns.SOURCE:
            town = self._towns.build(int(scene.removeprefix("town-")))
            return Stage(WorldRenderer(town.world), town.lighting, town.license, standpoint=town.standpoint)
        if source == still_lifes.SOURCE:
            life = self._still_lifes.build(int(scene.removeprefix("still-life-")))
            return Stage(WorldRenderer(life.world), life.lighting, life.license, standpoint=life.standpoint)
        room = self._rooms.build(int(scene.removeprefix("room-")))
        renderer = WorldRenderer(room.world)
        return Stage(renderer, room.lighting, rooms.room_license(room), room.low, room.high)


def render_data(
    out: Path,
    clips: int,
    seed: int = 0,
    *,
    assets: Path | None = None,
    size: tuple[int, int] = (144, 240),
    frames: int = CLIP_FRAMES,
    worker: int = 0,
    workers: int = 1,
    stages: Callable[[str, str], Place] | None = None,
    plan: str = "tracks-and-rooms",
) -> Path:
    """Render the planned clips that ``out`` does not hold yet; returns the path of the manifest.

    Args:
        out: folder of the clips and ``manifest.json``; created when missing.
        clips: number of clips of the whole plan.
        seed: seed of the plan; the same seed gives the same clips.
        assets: folder filled by ``scenes.synthetic.assets.fetch_assets``.
        size: ``(H, W)`` of the frames.
        frames: of a clip; the long clips of a plan keep their length. The paths are as long, in finer steps.
        worker: index of the share to render, 0 to ``workers - 1``.
        workers: number of processes that fill the same folder.
        stages: function that returns the stage of a source and scene, instead of ``assets``.
        plan: a key of ``PLANS``.

    Raises:
        ValueError: neither or both of ``assets`` and ``stages``, a worker out of range, or an unknown plan.
    """
    if (assets is None) == (stages is None):
        raise ValueError("assets: want a folder of downloaded worlds or stages, exactly one of the two")
    if not 0 <= worker < workers:
        raise ValueError(f"worker: want 0 to {workers - 1}, got {worker}")
    if plan not in PLANS:
        raise ValueError(f"plan: want one of {', '.join(PLANS)}, got {plan!r}")
    out.mkdir(parents=True, exist_ok=True)
    load = stages if assets is None else AssetStages(assets)
    assert load is not None
    # By visits and not by clips, so that one process uses a loaded scene for several clips.
    mine = [p for p in PLANS[plan](clips, seed) if (p.index // CLIPS_PER_SCENE_VISIT) % workers == worker]
    mine = [replace(p, frames=frames) if p.frames == CLIP_FRAMES else p for p in mine]
    written = 0
    for clip in tqdm(mine, desc=f"clips {worker + 1}/{workers}", unit="clip", mininterval=5.0):
        # Clips are written atomically, so an existing file is complete and a run can be repeated.
        if (out / clip.file_name).exists():
            continue
        stage = load(clip.source, clip.scene)
        filmed = stage.film(move=clip.move, frames=clip.frames, seed=clip.seed, size=size)
        if filmed is None:
            log.warning("clip %d: no free %s path in %s; left out", clip.index, clip.move, clip.scene)
            continue
        write_clip(out / clip.file_name, filmed, {**asdict(clip), "license": stage.license, "unit": "meter"})
        written += 1
        manifest_every = 8
        # Training may read the folder while it is filled.
        if written % manifest_every == 0:
            write_manifest(out)
    return write_manifest(out)
