"""The Python face of WorldWarp: `explore` and `World`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from cache3d.cache import WorldCache
from cache3d.projective_texture import ProjectiveTexture
from geometry.camera import Camera
from geometry.frame import Frame, Guide
from geometry.primitives import Gaussians, Points
from scenes import world as stored
from worldwarp.config import compose_config
from worldwarp.exploration import build_cache, prepare
from worldwarp.loop import Step


def explore(
    *,
    image: str | Path,
    path: str | Path | Camera = "out_and_back",
    out: str | Path | None = None,
    overrides: Sequence[str] = (),
    **settings: Any,
) -> Iterator[Step]:
    """Walk through a photo; yields one `Step` per chunk as it is finished.

    Args:
        image: the photo.
        path: preset expression, camera file, or cameras ``[n]`` of frame size (the photo's first).
        out: folder to store the world in; nothing is stored when not given.
        overrides: further settings as on the command line, for example ``["depth=file", "depth.path=d.npy"]``.
        **settings: plain settings and group options, for example ``frames=33, size=(192, 320), cache="points"``.

    Raises:
        ValueError: bad input, in one sentence, before anything is written.

    Example:
        >>> for step in explore(image="photo.jpg", path="orbit", frames=17, size=(192, 320)):
        ...     print(step.chunk.frames.rgb.shape)
        torch.Size([8, 3, 192, 320])
        torch.Size([8, 3, 192, 320])
    """
    cameras = path if isinstance(path, Camera) else None
    words = [f"image={image}", *(f"{key}={_as_text(value)}" for key, value in settings.items()), *overrides]
    if cameras is None:
        words.append(f"path={path}")
    exploration = prepare(compose_config("explore", words), cameras)
    if out is not None:
        exploration.store_in(Path(out))
    return exploration.steps()


class World:
    """A stored world: its frames, its cache, and new views of it.

    Example:
        >>> world = World.load("worlds/pagoda")
        >>> guide = world.render(Camera.from_fov(60.0, (192, 320)))
    """

    def __init__(self, record: stored.World) -> None:
        self.record = record
        self._cache: WorldCache | None = None

    @staticmethod
    def load(folder: str | Path, chunks: int | None = None) -> World:
        """Open a world.

        Args:
            folder: where it lies.
            chunks: open only the first so many chunks, whatever happened to the files of the others.

        Raises:
            ValueError: not a world, of a later version, or damaged; the message names the file.
        """
        return World(stored.World.load(folder, chunks))

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return self.record.folder

    @property
    def cameras(self) -> Camera:
        """Cameras of the finished frames, ``[n]``; the photo's is the first."""
        return self.record.cameras

    def frames(self, first: int = 0, last: int | None = None) -> Frame:
        """Finished frames, to the bit."""
        return self.record.frames(first, last)

    @property
    def primitives(self) -> Points | Gaussians:
        """Everything the cache holds."""
        return self.record.primitives

    @property
    def cache(self) -> WorldCache:
        """The cache as the walk left it."""
        if self._cache is None:
            config = OmegaConf.create({**self.record.config, "device": "cpu"})  # a world opens on any machine
            self._cache = cache = build_cache(config)
            for change in self.record.changes():
                cache.apply(change)
            return cache
        return self._cache

    @cached_property
    def _texture(self) -> ProjectiveTexture:
        return ProjectiveTexture.of(self.record.chunk(0).frames, self.record.photo)

    def forget(
        self,
        *,
        chunks: Sequence[int] = (),
        region: tuple[tuple[float, float, float], tuple[float, float, float]] | None = None,
    ) -> int:
        """Take out of the world what some chunks added, or what lies in a box; its frames stay.

        Args:
            chunks: indices of chunks.
            region: low and high corner, world, scene units; sky lies in no region.

        Returns:
            How many primitives were forgotten; `undo` brings them back.

        Raises:
            ValueError: nothing is named, or a chunk that does not exist.

        Example:
            >>> world.forget(region=((-1.0, -1.0, 0.5), (1.0, 1.0, 2.0)))
            10482
        """
        count = self.record.forget(chunks=chunks, region=None if region is None else torch.tensor(region))
        self._cache = None
        return count

    def undo(self) -> None:
        """Take back the last `forget`, or if none followed it, the last chunk; walking on makes the same bits again.

        Raises:
            ValueError: there is only the photo.
        """
        self.record.undo()
        self._cache = None

    def branch(self, folder: str | Path, chunk: int) -> World:
        """A new world that shares this one's history up to and including ``chunk``, and goes its own way after.

        Raises:
            ValueError: a chunk that does not exist, or a folder with something in it.
        """
        return World(self.record.branch(folder, chunk))

    def render(self, camera: Camera) -> Guide:
        """What the world shows to cameras ``[t]``, or to one camera without a batch (then ``t`` is 1).

        What the photo saw is shown in the photo's own colours; ``world.cache.render`` shows the cache alone.
        """
        camera = camera.to(torch.float32)  # those of files are in float64
        batched = (
            camera
            if camera.batch_shape
            else Camera(camera.world_from_camera[None], camera.focal_px[None], camera.center_px[None], camera.size)
        )
        return self._texture.onto(self.cache.render(batched))


def _as_text(value: object) -> str:
    return (
        "null" if value is None else f"[{','.join(map(str, value))}]" if isinstance(value, tuple | list) else str(value)
    )
