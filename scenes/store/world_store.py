"""A world on disk: a folder that is written chunk by chunk and survives crashes.

A chunk's files are written first, each under a temporary name, synced and renamed; then ``world.json``, which names
them with their checksums, is replaced atomically. Only that replacement commits: a process that dies at any moment
leaves the last committed chunk, and files that the manifest does not name are removed before the next chunk is written.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from geometry.camera import Camera
from geometry.frame import Chunk, Frame
from geometry.primitives import Change, Gaussians, Points
from scenes.io.atomic_files import PARTIAL, WorldError, disk_errors, fingerprint, sync_folder, write_bytes
from scenes.io.video import FPS
from scenes.store import chunk_files, delta_log
from scenes.store.cameras_file import CamerasText
from scenes.store.manifest import ChunkRecord, Manifest, check_files, manifest_text, read_manifest
from scenes.store.packed_tensors import open_tensors, packed

MANIFEST = "world.json"
CAMERAS = "cameras.json"
PATH = "path"  # prefix before a hash: a new path is a new file, so that the manifest switches paths atomically

AnyStore = TypeVar(
    "AnyStore", bound="WorldStore"
)  # not typing.Self, which run-time type checking of methods cannot read


class WorldStore:
    """The files of one world; made by ``create``, opened by ``load``.

    Example:
        >>> world = WorldStore.load("worlds/pagoda")
        >>> world.frames(0, 8).rgb.shape
        torch.Size([8, 3, 192, 320])
    """

    def __init__(self, folder: Path, manifest: Manifest, path: Camera) -> None:
        self.folder = folder
        self.manifest = manifest
        self.path = path  # the planned cameras, that of the photo included
        self.cameras = path[:0]  # of the finished frames
        self._text = b""  # manifest on disk when this object read or wrote it; detects other writers
        self._clean = False  # whether the folder holds no files that the manifest does not name
        self._cameras_text = CamerasText()

    @classmethod
    def create(
        cls: type[AnyStore],
        folder: str | Path,
        *,
        path: Camera,
        seed: int,
        config: Mapping[str, Any] | None = None,
        metric: bool = False,
    ) -> AnyStore:
        """Start an empty world.

        Args:
            folder: an empty folder, or one that does not exist and is made with its parents.
            path: the planned cameras ``[n]``, that of the photo included; stored, so that resuming does not need the
                camera file.
            seed: random seed of the session.
            config: configuration of the session, as plain JSON values.
            metric: whether a scene unit is a meter.

        Raises:
            WorldError: the folder is not empty or cannot be written.
        """
        folder = Path(folder).expanduser()
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
    def load(cls: type[AnyStore], folder: str | Path, chunks: int | None = None) -> AnyStore:
        """Open a world and check every file of it; writes nothing.

        Args:
            folder: the folder of the world.
            chunks: number of leading chunks to open, read-only, to inspect or branch a world whose later chunks are
                damaged; all when None.

        Raises:
            WorldError: not a world, of a later version, or a file is missing, truncated or changed; it is named.
        """
        folder = Path(folder).expanduser()
        if not folder.is_dir():
            raise WorldError(f"{folder}: no such folder; want the folder of a world, as `worldwarp explore` makes it")
        manifest = read_manifest(folder / MANIFEST)
        if chunks is not None and not 0 < chunks <= len(manifest.chunks):
            raise ValueError(f"chunks: want 1 to {len(manifest.chunks)}, the finished ones, got {chunks}")
        if chunks not in (None, len(manifest.chunks)):
            manifest = replace(manifest, files=_path_file(manifest), chunks=manifest.chunks[:chunks])
        check_files(folder, manifest.all_files())
        path = planned_path(folder, manifest)
        world = cls(folder, manifest, path)
        read = [chunk_files.read_cameras_of(folder, record, manifest.size) for record in manifest.chunks]
        world.cameras = Camera.concatenate([path[:0], *read])
        if chunks is None:
            world._text = (folder / MANIFEST).read_bytes()
            world._cameras_text.check(folder / CAMERAS, world.chunks, world.cameras, metric=manifest.metric)
        return world

    def append(
        self,
        chunk: Chunk,
        *,
        change: Change,
        rng_state: UInt8[Tensor, "s"],
        gauges: Mapping[str, float] | None = None,
        photo: Float[Tensor, "3 h w"] | None = None,
        carried: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Store a finished chunk; when this returns, it is committed and survives a crash or power failure.

        Args:
            chunk: the next chunk; its colors are on the 8-bit grid.
            change: the change that the cache made when it integrated the chunk.
            rng_state: ``torch.Generator.get_state()`` after the chunk.
            gauges: metrics of the chunk; values that are not finite are stored as None.
            photo: with chunk 0, the photo at a higher resolution than its frame; on the 8-bit grid.
            carried: tensors from which the generator rebuilds its memory of the chunk, by name.

        Raises:
            ValueError: the chunk does not follow the last one, or has another frame size or unit.
            WorldError: the disk is full or cannot be written; every earlier chunk is kept.
        """
        self._check_next(chunk)
        primitives = self.chunks[-1].primitives if self.chunks else 0
        known = self._total
        is_new = int((change.index >= known).sum()) - int((change.removed < known).sum())
        with disk_errors(f"cannot store chunk {chunk.index} in {self.folder}", "; every earlier chunk is kept"):
            self._check_unchanged()
            self._remove_leftovers()
            self._clean = False
            for name in chunk_files.FOLDERS:  # worlds of earlier programs lack some
                (self.folder / name).mkdir(exist_ok=True)
            names = chunk_files.write_chunk(self.folder, chunk, len(self.cameras), rng_state)
            names += [] if photo is None else [chunk_files.write_photo(self.folder, photo)]
            names += [chunk_files.write_carried(self.folder, chunk.index, carried)] if carried else []
            cache_name = chunk_files.cache_name(chunk.index)
            delta_log.write_change(self.folder / cache_name, change)
            for name in chunk_files.FOLDERS:
                sync_folder(self.folder / name)
            marks = {name: fingerprint(self.folder / name) for name in (*names, cache_name)}
            record = ChunkRecord(
                chunk.index,
                len(self.cameras),
                len(chunk.frames),
                chunk.observed,
                primitives + is_new,
                {name: float(value) if math.isfinite(value) else None for name, value in (gauges or {}).items()},
                marks,
            )
            # The file of the KV memory in worlds of versions 1 and 2 lacks the new chunk: it leaves the manifest.
            files, before = _path_file(self.manifest), self.manifest.files
            self._commit(replace(self.manifest, files=files, chunks=(*self.chunks, record)))
            self.cameras = Camera.concatenate([self.cameras, chunk.frames.camera.to("cpu")])
            # The chunk is committed; the rest is redone when the world is written again.
            sync_folder(self.folder)
            self._clean = files == before
            write_bytes(self.folder / CAMERAS, self.cameras_text().encode())

    @property
    def chunks(self) -> tuple[ChunkRecord, ...]:
        """The committed chunks, in order; chunk 0 is the photo."""
        return self.manifest.chunks

    @property
    def config(self) -> dict[str, Any]:
        """The configuration of the session, as plain JSON values."""
        return self.manifest.config

    @property
    def fps(self) -> float:
        """Frames per second of videos of the world."""
        return float(self.config.get("fps", FPS))

    def changes(self) -> Iterator[Change]:
        """Yield the changes of the cache in order; applied to an empty cache they restore it exactly."""
        for record in self.chunks:
            for name in chunk_files.cache_names(record):
                yield delta_log.read_change(self.folder / name)

    @property
    def primitives(self) -> Points | Gaussians:
        """The primitives of the cache after the last chunk, exact, all in memory."""
        if not self.chunks:
            raise WorldError(f"{self.folder}: no chunk is finished yet; there is nothing to show")
        return delta_log.replay(self.changes(), self._total)

    @property
    def rng_state(self) -> UInt8[Tensor, "s"]:
        """The state of the session's random generator after the last chunk."""
        if not self.chunks:
            raise WorldError(f"{self.folder}: no chunk is finished yet; start it again with another out=")
        return chunk_files.read_rng_state(self.folder, self.chunks[-1])

    @property
    def photo(self) -> Float[Tensor, "3 h w"]:
        """The photo at the resolution at which it was stored."""
        has_photo = chunk_files.PHOTO in self.chunks[0].files
        return chunk_files.read_photo(self.folder) if has_photo else self.chunk(0).frames.rgb[0]

    def __len__(self) -> int:
        """Number of finished frames, the photo included."""
        return len(self.cameras)

    def chunk(self, index: int) -> Chunk:
        """Read one finished chunk exactly."""
        return chunk_files.read_chunk(self.folder, self.chunks[index], self.manifest.size, self.manifest.metric)

    def carried(self, index: int) -> dict[str, Tensor]:
        """What the generator stored with a chunk, exactly; empty if it stored nothing."""
        return chunk_files.read_carried(self.folder, self.chunks[index])

    def frames(self, first: int = 0, last: int | None = None) -> Frame:
        """Read finished frames ``[last - first]`` exactly; all of them by default.

        Raises:
            ValueError: an empty range, or one beyond the finished frames.
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
        """Replace the planned path and the configuration; finished chunks stay.

        Args:
            path: the planned cameras ``[n]``; the first ones are those of the finished frames.
            config: the new configuration, as plain JSON values.

        Raises:
            ValueError: the path does not begin with the cameras of the finished frames.
            WorldError: the disk is full or cannot be written; the world is unchanged.
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
            others = {name: mark for name, mark in self.manifest.files.items() if name not in _path_file(self.manifest)}
            name = _write_path(self.folder, path)
            files = {name: fingerprint(self.folder / name)} | others
            self._commit(replace(self.manifest, files=files, config=dict(config)))
            self.path = path
            self._clean = False
            self._remove_leftovers()

    def branch(self: AnyStore, folder: str | Path, chunk: int) -> AnyStore:
        """Make a new world with the chunks of this one up to and including ``chunk``; later changes affect only one.

        Files are hard-linked if the file system supports it, else copied.

        Raises:
            ValueError: the chunk does not exist.
            WorldError: as ``create``.
        """
        if not 0 <= chunk < len(self.chunks):
            raise ValueError(f"chunk: want one of the {len(self.chunks)} finished chunks, got {chunk}")
        branch = self.create(
            folder, path=self.path, seed=self.manifest.seed, config=self.config, metric=self.manifest.metric
        )
        manifest = replace(branch.manifest, chunks=self.chunks[: chunk + 1])
        with disk_errors(f"cannot write {branch.folder}"):
            for name in manifest.all_files():
                if not name.startswith(PATH):
                    (branch.folder / name).parent.mkdir(exist_ok=True)  # worlds of earlier programs have more folders
                    _link(self.folder / name, branch.folder / name)
            branch._commit(manifest)
            branch.cameras = self.cameras[: sum(record.frames for record in manifest.chunks)]
            write_bytes(branch.folder / CAMERAS, branch.cameras_text().encode())
        return branch

    def forget(self, *, chunks: Sequence[int] = (), region: Float[Tensor, "2 3"] | None = None) -> int:
        """Remove primitives from the cache: all that the given chunks added, and all inside a region.

        Frames stay. The removal is stored as a separate change after the last chunk, so that `undo` can revert it.

        Args:
            chunks: indices of chunks.
            region: low and high corner of a box, world, scene units; sky primitives are in no region.

        Returns:
            Number of removed primitives.

        Raises:
            ValueError: neither chunks nor a region are given, or a chunk does not exist.
            WorldError: as ``append``.
        """
        if (not chunks and region is None) or not all(0 <= index < len(self.chunks) for index in chunks):
            raise ValueError(
                f"forget: want chunks from 0 (the photo) to {len(self.chunks) - 1}, or a region, got {list(chunks)}"
            )
        if region is not None and not (region[0] < region[1]).all():
            raise ValueError(f"region: want a low corner below the high one, got {region.tolist()}; swap them")
        gone = delta_log.names_where(self.changes(), self._total, torch.tensor([*chunks], dtype=torch.int64), region)
        if len(gone):
            record = self.chunks[-1]
            none = next(self.changes()).rows[:0]
            name = chunk_files.edit_name(record.index, len(chunk_files.cache_names(record)))
            with disk_errors(f"cannot change {self.folder}", "; it is as it was"):
                self._check_unchanged()
                self._clean = False
                change = Change(self._total, torch.zeros(0, dtype=torch.int64), none, gone)
                delta_log.write_change(self.folder / name, change)
                sync_folder(self.folder / "cache")
                files = record.files | {name: fingerprint(self.folder / name)}
                record = replace(record, files=files, primitives=record.primitives - len(gone))
                self._commit(replace(self.manifest, chunks=(*self.chunks[:-1], record)))
        return len(gone)

    def undo(self) -> None:
        """Revert the last `forget`, or if none follows the last chunk, that chunk; exploring again makes the same bits.

        Raises:
            ValueError: the world holds only the photo.
            WorldError: as ``append``.
        """
        record, files = self.chunks[-1] if self.chunks else None, self.manifest.files
        if record is None or (record.index == 0 and len(chunk_files.cache_names(record)) == 1):
            raise ValueError(f"undo: {self.folder} holds nothing but its photo; there is nothing to take back")
        names = chunk_files.cache_names(record)
        if len(names) > 1:
            back = len(delta_log.read_change(self.folder / names[-1]).removed)
            marks = {name: mark for name, mark in record.files.items() if name != names[-1]}
            chunks = (*self.chunks[:-1], replace(record, files=marks, primitives=record.primitives + back))
        else:
            chunks, files = self.chunks[:-1], _path_file(self.manifest)
        with disk_errors(f"cannot change {self.folder}", "; it is as it was"):
            self._check_unchanged()
            self._clean = False
            (self.folder / CAMERAS).unlink(missing_ok=True)  # rewritten below; it must never list uncommitted cameras
            self._commit(replace(self.manifest, files=files, chunks=chunks))
            self.cameras = self.cameras[: sum(record.frames for record in chunks)]
            self._cameras_text.forget()
            write_bytes(self.folder / CAMERAS, self.cameras_text().encode())

    @property
    def _total(self) -> int:
        """Number of ids assigned to primitives so far."""
        last = chunk_files.cache_names(self.chunks[-1])[-1] if self.chunks else None
        return delta_log.read_total(self.folder / last) if last else 0

    def _commit(self, manifest: Manifest) -> None:
        self._text = manifest_text(manifest).encode()
        write_bytes(self.folder / MANIFEST, self._text)
        self.manifest = manifest

    def _check_next(self, chunk: Chunk) -> None:
        if chunk.index != len(self.chunks):
            raise ValueError(f"chunk.index: want {len(self.chunks)}, the next one, got {chunk.index}")
        if chunk.frames.camera.size != self.manifest.size:
            raise ValueError(f"chunk: want frames of {self.manifest.size}, got {chunk.frames.camera.size}")
        if chunk.frames.metric != self.manifest.metric:
            raise ValueError(f"chunk: want metric={self.manifest.metric}, got {chunk.frames.metric}")

    def _check_unchanged(self) -> None:
        """Raise if another program wrote to this world: chunks of two writers must not mix."""
        if (self.folder / MANIFEST).read_bytes() != self._text:
            raise WorldError(
                f"{self.folder}: was opened in part, or another program has written to this world meanwhile; "
                "open it again, or branch it"
            )

    def _remove_leftovers(self) -> None:
        """Remove files that the manifest does not name: partial files of a killed process, and replaced ones."""
        if self._clean:
            return
        known = self.manifest.all_files()
        for path in [
            *{*self.folder.glob(f"*{PARTIAL}"), *self.folder.glob(f"{PATH}*")},
            *(p for d in (*chunk_files.FOLDERS, *chunk_files.OLDER) for p in (self.folder / d).glob("*")),
        ]:
            if path.relative_to(self.folder).as_posix() not in known:
                path.unlink()
        self._clean = True

    def cameras_text(self) -> str:
        """The text of ``cameras.json``: nerfstudio's ``transforms.json`` with an extra key ``worldwarp``."""
        return self._cameras_text.after(self.chunks, self.cameras, metric=self.manifest.metric)


def planned_path(folder: Path, manifest: Manifest) -> Camera:
    """The planned cameras ``[n]`` of a world, that of the photo included.

    Raises:
        WorldError: the manifest names no path, or several.
    """
    names = list(_path_file(manifest))
    if len(names) != 1:
        raise WorldError(f"{folder / MANIFEST}: want one planned path, got {names or 'none'}; it was changed")
    with open_tensors(folder / names[0]) as file:
        pose, focal_px, center_px = (file.get(name) for name in ("world_from_camera", "focal_px", "center_px"))
    return Camera(pose, focal_px, center_px, manifest.size)


def _path_file(manifest: Manifest) -> dict[str, dict[str, int | str]]:
    """Name and fingerprint of the file of the planned path, as a dict of one entry."""
    return {name: mark for name, mark in manifest.files.items() if name.startswith(PATH)}


def _write_path(folder: Path, path: Camera) -> str:
    """Write the planned path to a file whose name contains a hash of its content; returns the name."""
    tensors = {"world_from_camera": path.world_from_camera, "focal_px": path.focal_px, "center_px": path.center_px}
    content = packed(tensors)
    name = f"{PATH}-{hashlib.sha256(content).hexdigest()[:12]}.safetensors"
    write_bytes(folder / name, content)
    return name


def _is_vacant(folder: Path) -> bool:
    """Whether a folder is empty or holds only files of a process that died in ``WorldStore.create``."""
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
