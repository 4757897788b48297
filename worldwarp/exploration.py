"""From settings to a walk: photo, depth, path and parts are checked and put together before anything is written."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as functional
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from diffusion.prior import PriorConfig
from diffusion.sampler import SamplerConfig
from geometry.camera import Camera
from geometry.camera_files import open_camera_path
from geometry.depth import lift_photo
from geometry.frame import Chunk, Frame
from scenes.photo import read_photo
from scenes.world import World
from worldwarp.config import ConfigError, Settings, explore_settings
from worldwarp.loop import Parts, Step, Walk, begin, explore_chunks
from worldwarp.plan import Plan, collisions, predicted_holes, time_render

DEFAULT_FRAMES = 49


@dataclass
class Exploration:
    """A walk that is ready to go.

    Attributes:
        settings: the checked plain settings.
        config: the composed configuration, groups included.
        parts: what the loop is made of.
        photo: the photo at frame size with its depth, ``[1]``.
        cameras: the whole walk ``[n]``; camera 0 is the photo's.
        walk: where the walk stands.
        world: the folder it is stored in; None when nothing is stored.
    """

    settings: Settings
    config: DictConfig
    parts: Parts
    photo: Frame
    cameras: Camera
    walk: Walk
    world: World | None

    @property
    def remaining(self) -> list[Camera]:
        """Cameras still to be walked, chunk by chunk."""
        size, total = self.settings.chunk, len(self.cameras)
        return [self.cameras[i : min(i + size, total)] for i in range(self.walk.frames, total, size)]

    def steps(self) -> Iterator[Step]:
        """Walk on; stores every chunk before it is yielded."""
        for step in explore_chunks(self.walk, self.remaining, self.parts):
            if self.world is not None:
                store(self.world, step)
            yield step

    def plan(self) -> Plan:
        """Look ahead along the path and time the parts."""
        chunks = self.remaining
        holes = predicted_holes(self.parts.cache, chunks)
        seconds = 0.0
        if chunks:
            start = time.perf_counter()
            self.parts.generator.rehearse(len(chunks[0]), self.settings.size)
            seconds = (time.perf_counter() - start) * (self.settings.steps + 1)
            seconds += 2.0 * time_render(self.parts.cache, chunks[0]) + 0.5
        return Plan.of(self, chunks, holes, collisions(self.photo, self.cameras), seconds)
