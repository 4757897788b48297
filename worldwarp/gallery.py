"""Finds the worlds in a folder, and says what each is and how to go on; damaged ones are named with the reason."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from scenes.store import chunk_files
from scenes.store.manifest import check_files, read_manifest
from scenes.store.world_store import MANIFEST, planned_path
from worldwarp.arguments import BY_ITSELF, LIVE, pasted
from worldwarp.needs import MIB

DEEPEST = 3  # folders below the one that is looked through


@dataclass(frozen=True)
class FoundWorld:
    """A world in a folder.

    Attributes:
        folder: of the world.
        changed: when its last chunk, or its plan, was stored.
        disk_bytes: of all files in the folder, exports and recordings included.
        trouble: why it cannot be opened; None for a sound world. The fields below say nothing of a damaged one.
        size: of a frame, ``(H, W)``.
        frames: number of finished frames, the photo included.
        left: number of planned frames that are not made.
        photo: file name of the photo, or of the clip.
        path: setting ``path`` of the world.
        picture: file of the photo's frame.
    """

    folder: Path
    changed: datetime
    disk_bytes: int
    trouble: str | None = None
    size: tuple[int, int] = (0, 0)
    frames: int = 0
    left: int = 0
    photo: str = ""
    path: str = ""
    picture: Path | None = None

    @property
    def command(self) -> str:
        """The command that goes on with the world."""
        words = ["explore", str(self.folder)]
        return f"worldwarp {pasted(*words, *([] if self.left or self.path == LIVE else ['up,orbit']))}"

    @property
    def line(self) -> str:
        """Size, frames and what is left, in words."""
        if self.trouble is not None:
            return f"damaged: {self.trouble}"
        height, width = self.size
        if self.left:
            most = "at most " if self.path == BY_ITSELF else ""
            return f"{self.frames} frames of {width}x{height}, {most}{self.left} planned ones are left"
        return f"{self.frames} frames of {width}x{height}, finished"

    def lines(self) -> list[str]:
        """The world as a few lines of text."""
        size = f"{self.disk_bytes / MIB:.0f} MiB"
        date = self.changed.strftime("%Y-%m-%d %H:%M")
        if self.trouble is not None:
            return [f"{self.folder}", f"  {self.line}", f"  {date}, {size}"]
        return [f"{self.folder}", f"  {self.line}; of {self.photo}, {date}, {size}", f"  go on      {self.command}"]


def find_worlds(folder: Path, *, contents: bool = True) -> Iterator[FoundWorld]:
    """The worlds in a folder and in its subfolders, the one that was changed last first; nothing is written.

    Args:
        folder: a folder of worlds, or a world; one that does not exist holds none.
        contents: whether every file is read and compared with its checksum; else its length alone is.
    """
    manifests = [place / MANIFEST for place in _world_folders(folder, DEEPEST)]
    for changed, manifest in sorted(((_changed(manifest), manifest) for manifest in manifests), reverse=True):
        yield _found(manifest.parent, datetime.fromtimestamp(changed).astimezone(), contents)


def thumbnail(file: Path, width_px: int = 320) -> UInt8[np.ndarray, "h w 3"]:
    """A picture, reduced to a width."""
    with Image.open(file) as picture:
        small = picture.convert("RGB")
        height = max(1, round(small.height * width_px / small.width))
        return np.asarray(small.resize((width_px, height)))


def _world_folders(folder: Path, deep: int) -> Iterator[Path]:
    """The folders of worlds; of a world that has lost its manifest, the others of its folders are there."""
    if (folder / MANIFEST).exists() or all((folder / name).is_dir() for name in chunk_files.FOLDERS):
        yield folder
        return
    try:
        inner = sorted(Path(entry) for entry in os.scandir(folder) if entry.is_dir() and entry.name[0] != ".")
    except OSError:  # does not exist, or may not be read
        return
    for place in inner if deep else []:
        yield from _world_folders(place, deep - 1)


def _found(folder: Path, changed: datetime, contents: bool) -> FoundWorld:
    disk_bytes = _disk_bytes(folder)
    try:
        manifest = read_manifest(folder / MANIFEST)
        check_files(folder, manifest.all_files(), contents=contents)
        planned = len(planned_path(folder, manifest))
        if not manifest.chunks:
            reason = "stopped before its photo was stored; explore the photo again with another out="
            return FoundWorld(folder, changed, disk_bytes, reason)
        frames = sum(record.frames for record in manifest.chunks)
        config, first = manifest.config, manifest.chunks[0]
        return FoundWorld(
            folder,
            changed,
            disk_bytes,
            size=manifest.size,
            frames=frames,
            left=planned - frames,
            photo=Path(str(config.get("image") or config.get("video") or "an unknown photo")).name,
            path=str(config.get("path")),
            picture=folder / chunk_files.frame_name(0, first),
        )
    # A manifest with a checksum of its own may still have been written by hand.
    except (ValueError, OSError, LookupError, TypeError) as error:
        return FoundWorld(folder, changed, disk_bytes, str(error) or type(error).__name__)


def _changed(manifest: Path) -> float:
    """When a manifest, or where it is missing its folder, was written; seconds."""
    for place in (manifest, manifest.parent):
        try:
            return place.stat().st_mtime
        except OSError:
            continue
    return 0.0


def _disk_bytes(folder: Path) -> int:
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_size
            except OSError:  # removed meanwhile
                continue
    return total
