"""A world on disk: one folder, written chunk by chunk.

A chunk's files are written first, each under a temporary name, synced and renamed; then ``world.json``, which names
them with their checksums, is replaced in one step. Only that step commits: a process that dies at any moment leaves
the last committed chunk, and files that no manifest names are removed before the next chunk is written.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from jaxtyping import UInt8
from safetensors.torch import load_file
from torch import Tensor

from geometry.camera import Camera
from geometry.frame import Chunk, Frame
from geometry.nerfstudio_files import transforms_content
from geometry.primitives import Gaussians, Points
from scenes import chunk_files, primitive_log
from scenes.files import PARTIAL, WorldError, disk_errors, fingerprint, sync_folder, write_bytes
from scenes.manifest import ChunkRecord, Manifest, check_files, manifest_text, read_manifest

MANIFEST = "world.json"
CAMERAS = "cameras.json"
PATH = "path"  # and a fingerprint: a new path is a new file, so that the manifest alone says which one holds

AnyWorld = TypeVar("AnyWorld", bound="World")  # not typing.Self, which run-time type checking of methods cannot read


class World:
    """A walk's whole record in one folder; make one with ``create``, open one with ``load``.

    Example:
        >>> world = World.load("worlds/pagoda")
        >>> world.frames(0, 8).rgb.shape
        torch.Size([8, 3, 192, 320])
    """

    def __init__(self, folder: Path, manifest: Manifest, path: Camera) -> None:
        self.folder = folder
        self.manifest = manifest
        self.path = path  # the planned walk, photo included
        self.cameras = path[:0]  # of the finished frames
        self._stored: Points | Gaussians | None = None  # the primitives as the last committed chunk left them
        self._clean = False

    @classmethod
    def create(
        cls: type[AnyWorld],
        folder: str | Path,
        *,
        path: Camera,
        seed: int,
        config: Mapping[str, Any] | None = None,
        metric: bool = False,
    ) -> AnyWorld:
        """Start an empty world.

        Args:
            folder: where; made with its parents, or an existing empty folder.
            path: the planned walk ``[n]``, photo included; kept, so that a resumed walk does not depend on the file
                that it came from.
            seed: the walk's random seed.
            config: the configuration as plain JSON values.
            metric: whether a scene unit is a metre.

        Raises:
            WorldError: a folder with something in it, or one that cannot be written.
        """
        folder = Path(folder)
        manifest = Manifest(_own_version(), seed, path.size, metric, dict(config or {}))
        manifest_text(manifest)  # refuses a config that JSON cannot hold before anything is written
        with disk_errors(f"cannot write {folder}"):
            if folder.exists() and not folder.is_dir():
                raise WorldError(f"out: {folder} is a file; want a new or empty folder")
            if folder.is_dir() and not _is_vacant(folder):
                raise WorldError(
                    f"out: {folder} is not empty; choose another folder, or continue it with resume={folder}"
                )
            folder.mkdir(parents=True, exist_ok=True)
            name = _write_path(folder, path)
            for subfolder in chunk_files.FOLDERS:
                (folder / subfolder).mkdir(exist_ok=True)
            world = cls(folder, replace(manifest, files={name: fingerprint(folder / name)}), path)
            world._commit(world.manifest)
            sync_folder(folder)
        return world

    @classmethod
    def load(cls: type[AnyWorld], folder: str | Path) -> AnyWorld:
        """Open a world and check every file of it; writes nothing.

        Raises:
            WorldError: not a world, of a later version, or with a file missing, truncated or changed, which it names.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise WorldError(f"{folder}: no such folder; want the folder of a world, as `worldwarp explore` makes it")
        manifest = read_manifest(folder / MANIFEST)
        check_files(folder, manifest.all_files())
        paths = [name for name in manifest.files if name.startswith(PATH)]
        if len(paths) != 1:
            raise WorldError(f"{folder / MANIFEST}: want one planned path, got {paths or 'none'}; it was changed")
        tensors = load_file(folder / paths[0])
        path = Camera(tensors["world_from_camera"], tensors["focal_px"], tensors["center_px"], manifest.size)
        world = cls(folder, manifest, path)
        read = [chunk_files.read_cameras_of(folder, record, manifest.size) for record in manifest.chunks]
        world.cameras = Camera.concatenate([path[:0], *read])
        world._check_cameras_file()
        return world

    def append(
        self,
        chunk: Chunk,
        *,
        primitives: Points | Gaussians,
        memory: Mapping[str, Tensor],
        rng_state: UInt8[Tensor, "s"],
        gauges: Mapping[str, float] | None = None,
    ) -> None:
        """Store a finished chunk; when this returns, it survives anything.

        Args:
            chunk: the next chunk; its colours are on the 8-bit grid.
            primitives: the whole cache after it; only rows that are new or changed since the last chunk are written.
            memory: what the generator remembers after it; only the latest is kept.
            rng_state: ``torch.Generator.get_state()`` after it.
            gauges: numbers measured while it was made; one that is not finite is kept as None.

        Raises:
            ValueError: a chunk that does not follow the last one, or of another size.
            WorldError: the disk is full or refuses; every earlier chunk is kept.
        """
        self._check_next(chunk)
        if self._stored is None and self.chunks:
            self._stored = self.primitives
        with disk_errors(f"cannot store chunk {chunk.index} in {self.folder}", "; every earlier chunk is kept"):
            self._check_unchanged()
            self._remove_leftovers()
            self._clean = False
            names = chunk_files.write_chunk(self.folder, chunk, len(self.cameras), rng_state)
            now = primitive_log.on_cpu(primitives)
            patch = primitive_log.difference(self._stored, now)
            cache_name, memory_name = chunk_files.cache_name(chunk.index), f"memory/{chunk.index:04d}.safetensors"
            primitive_log.write_patch(self.folder / cache_name, patch)
            write_bytes(self.folder / memory_name, chunk_files.tensors_as_bytes(dict(memory)))
            for name in chunk_files.FOLDERS:
                sync_folder(self.folder / name)
            marks = {name: fingerprint(self.folder / name) for name in (*names, cache_name)}
            record = ChunkRecord(
                chunk.index,
                len(self.cameras),
                len(chunk.frames),
                chunk.observed,
                len(now),
                {name: float(value) if math.isfinite(value) else None for name, value in (gauges or {}).items()},
                marks,
            )
            files = self._path_file | {memory_name: fingerprint(self.folder / memory_name)}
            self._commit(replace(self.manifest, files=files, chunks=(*self.chunks, record)))
            self._stored = now
            self.cameras = Camera.concatenate([self.cameras, chunk.frames.camera.to("cpu")])
            # What follows can be lost without harm.
            sync_folder(self.folder)
            self._remove_leftovers()
            write_bytes(self.folder / CAMERAS, self.cameras_text().encode())

    @property
    def chunks(self) -> tuple[ChunkRecord, ...]:
        """The committed chunks, in order; chunk 0 is the photo."""
        return self.manifest.chunks

    @property
    def config(self) -> dict[str, Any]:
        """The configuration of the walk, as plain JSON values."""
        return self.manifest.config

    @property
    def primitives(self) -> Points | Gaussians:
        """The cache after the last chunk, to the bit."""
        state: Points | Gaussians | None = None
        for record in self.chunks:
            state = primitive_log.apply(
                state, primitive_log.read_patch(self.folder / chunk_files.cache_name(record.index))
            )
        if state is None:
            raise WorldError(f"{self.folder}: no chunk is finished yet; there is nothing to show")
        return state

    @property
    def memory(self) -> dict[str, Tensor] | None:
        """What the generator remembered after the last chunk; None in a branch from an earlier one."""
        names = [name for name in self.manifest.files if not name.startswith(PATH)]
        return load_file(self.folder / names[0]) if names else None

    @property
    def rng_state(self) -> UInt8[Tensor, "s"]:
        """The state of the walk's random generator after the last chunk."""
        if not self.chunks:
            raise WorldError(f"{self.folder}: no chunk is finished yet; start it again with another out=")
        return chunk_files.read_rng_state(self.folder, self.chunks[-1])

    def __len__(self) -> int:
        """Number of finished frames, photo included."""
        return len(self.cameras)

    def chunk(self, index: int) -> Chunk:
        """One finished chunk, to the bit."""
        return chunk_files.read_chunk(self.folder, self.chunks[index], self.manifest.size, self.manifest.metric)

    def frames(self, first: int = 0, last: int | None = None) -> Frame:
        """Finished frames ``[last - first]``, to the bit; all of them when nothing is said.

        Raises:
            ValueError: a range that is empty or not finished.
        """
        last = len(self) if last is None else last
        if not 0 <= first < last <= len(self):
            raise ValueError(f"frames: want a range within the {len(self)} finished frames, got {first} to {last}")
        parts = []
        for record in self.chunks:
            low, high = max(first - record.first_frame, 0), min(last - record.first_frame, record.frames)
            if low < high:
                parts.append(self.chunk(record.index).frames[low:high])
        return Frame.concatenate(parts)

    def redirect(self, path: Camera, config: Mapping[str, Any]) -> None:
        """Go on along another path; what is finished stays.

        Args:
            path: the planned walk ``[n]``; its first cameras are those of the finished frames.
            config: the configuration from now on, as plain JSON values.

        Raises:
            ValueError: a path that does not begin with the finished frames.
            WorldError: the disk is full or refuses; the world is as it was.
        """
        done = self.cameras.world_from_camera
        if (
            len(path) < len(self)
            or path.size != self.manifest.size
            or not path.world_from_camera[: len(self)].equal(done)
        ):
            raise ValueError(f"path: want one that begins with the {len(self)} finished cameras")
        with disk_errors(f"cannot store a path in {self.folder}", "; the world is as it was"):
            self._check_unchanged()
            others = {name: mark for name, mark in self.manifest.files.items() if name not in self._path_file}
            name = _write_path(self.folder, path)
            files = {name: fingerprint(self.folder / name)} | others
            self._commit(replace(self.manifest, files=files, config=dict(config)))
            self.path = path
            self._clean = False
            self._remove_leftovers()

    @property
    def _path_file(self) -> dict[str, dict[str, int | str]]:
        return {name: mark for name, mark in self.manifest.files.items() if name.startswith(PATH)}

    def branch(self: AnyWorld, folder: str | Path, chunk: int) -> AnyWorld:
        """A new world that shares this one's history up to and including ``chunk``, and goes its own way after.

        Files are linked where the disk can, else copied. The generator's memory is kept of the last chunk only, so
        that of a branch from an earlier one is None: let the generator remember the branch's chunks again.

        Raises:
            ValueError: a chunk that does not exist.
            WorldError: as ``create``.
        """
        if not 0 <= chunk < len(self.chunks):
            raise ValueError(f"chunk: want one of the {len(self.chunks)} finished chunks, got {chunk}")
        branch = self.create(
            folder, path=self.path, seed=self.manifest.seed, config=self.config, metric=self.manifest.metric
        )
        is_last = chunk == len(self.chunks) - 1
        files = self.manifest.files if is_last else self._path_file
        manifest = replace(branch.manifest, files=files, chunks=self.chunks[: chunk + 1])
        with disk_errors(f"cannot write {branch.folder}"):
            for name in manifest.all_files():
                if not name.startswith(PATH):
                    _link(self.folder / name, branch.folder / name)
            branch._commit(manifest)
            branch.cameras = self.cameras[: sum(record.frames for record in manifest.chunks)]
            write_bytes(branch.folder / CAMERAS, branch.cameras_text().encode())
        return branch

    def _commit(self, manifest: Manifest) -> None:
        write_bytes(self.folder / MANIFEST, manifest_text(manifest).encode())
        self.manifest = manifest

    def _check_next(self, chunk: Chunk) -> None:
        if chunk.index != len(self.chunks):
            raise ValueError(f"chunk.index: want {len(self.chunks)}, the next one, got {chunk.index}")
        if chunk.frames.camera.size != self.manifest.size:
            raise ValueError(f"chunk: want frames of {self.manifest.size}, got {chunk.frames.camera.size}")
        if chunk.frames.metric != self.manifest.metric:
            raise ValueError(f"chunk: want metric={self.manifest.metric}, got {chunk.frames.metric}")

    def _check_unchanged(self) -> None:
        """Two programs that write one world would mix their chunks: the second one notices."""
        if (self.folder / MANIFEST).read_bytes() != manifest_text(self.manifest).encode():
            raise WorldError(f"{self.folder}: another program has written to this world meanwhile; open it again")

    def _remove_leftovers(self) -> None:
        """Remove what a killed process left and what a newer chunk has replaced."""
        if self._clean:
            return
        known = self.manifest.all_files()
        for path in [
            *{*self.folder.glob(f"*{PARTIAL}"), *self.folder.glob(f"{PATH}*")},
            *(p for d in chunk_files.FOLDERS for p in (self.folder / d).iterdir()),
        ]:
            if path.relative_to(self.folder).as_posix() not in known:
                path.unlink()
        self._clean = True

    def cameras_text(self, chunks: int | None = None) -> str:
        """``cameras.json`` after some chunks (all): nerfstudio's ``transforms.json`` and our own ``worldwarp`` part."""
        records = self.chunks[:chunks]
        camera = self.cameras[: sum(record.frames for record in records)]
        names = [chunk_files.frame_name(i) for i in range(len(camera))]
        content = transforms_content(camera, names)
        for i, frame in enumerate(content["frames"]):
            frame["depth_file_path"] = chunk_files.depth_name(i)
        ours = {
            "world_from_camera": camera.world_from_camera.tolist(),
            "axes": "OpenCV: x right, y down, z forward",
            "chunk": [record.index for record in records for _ in range(record.frames)],
            "metric": self.manifest.metric,
        }
        return json.dumps(content | {"worldwarp": ours}) + "\n"

    def _check_cameras_file(self) -> None:
        path = self.folder / CAMERAS
        if not path.is_file() or not self.chunks:
            return
        # A process that died right after a commit leaves the file one chunk behind.
        behind = self.cameras_text(len(self.chunks) - 1) if len(self.chunks) > 1 else None
        with contextlib.suppress(UnicodeDecodeError):
            if path.read_text("utf-8") in (self.cameras_text(), behind):
                return
        raise WorldError(f"{path}: truncated or changed; delete it (it is written again with the next chunk)")


def _write_path(folder: Path, path: Camera) -> str:
    """Write a planned walk under a name that its content decides; returns the name."""
    tensors = {"world_from_camera": path.world_from_camera, "focal_px": path.focal_px, "center_px": path.center_px}
    content = chunk_files.tensors_as_bytes(tensors)
    name = f"{PATH}-{hashlib.sha256(content).hexdigest()[:12]}.safetensors"
    write_bytes(folder / name, content)
    return name


def _is_vacant(folder: Path) -> bool:
    """Whether a folder holds nothing but what a process that died in ``World.create`` leaves."""
    return all(
        path.name.startswith(PATH)
        or path.suffix == PARTIAL
        or (path.name in chunk_files.FOLDERS and not any(path.iterdir()))
        for path in folder.iterdir()
    )


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _own_version() -> str:
    try:
        return version("worldwarp")
    except PackageNotFoundError:
        return "unknown"
