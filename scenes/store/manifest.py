"""``world.json``: settings of a world, its chunks, and length and checksum of every file."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from scenes.io.atomic_files import WorldError, fingerprint

FORMAT = "worldwarp-world"
VERSION = 4
# 1: no removals; 1 and 2: no compression, and a file of the generator's KV memory; 1 to 3: PNG frames, depth images
READABLE = (1, 2, 3, 4)


@dataclass(frozen=True)
class ChunkRecord:
    """One committed chunk.

    Attributes:
        index: position in the world's history; 0 is the photo.
        first_frame: index of its first frame in the world.
        frames: number of frames.
        observed: whether a camera recorded it; else a generator made it.
        primitives: number of primitives in the cache after it.
        gauges: metrics of the chunk; None where the value was not finite.
        files: length and SHA-256 of each of its files, by path relative to the world's folder.
    """

    index: int
    first_frame: int
    frames: int
    observed: bool
    primitives: int
    gauges: dict[str, float | None]
    files: dict[str, dict[str, int | str]]

    @cached_property
    def text(self) -> str:
        """The record as canonical JSON; cached, as every new chunk rewrites the manifest."""
        return _canonical({f.name: getattr(self, f.name) for f in fields(self)})


@dataclass(frozen=True)
class Manifest:
    """The content of ``world.json``.

    Attributes:
        created_by: version of the program that made the world.
        seed: random seed of the session.
        size: frame size ``(H, W)``.
        metric: whether a scene unit is a meter.
        config: configuration of the session, as plain JSON.
        files: fingerprints of the files that belong to no chunk: the planned path.
        chunks: committed chunks, in order.
    """

    created_by: str
    seed: int
    size: tuple[int, int]
    metric: bool
    config: dict[str, Any]
    files: dict[str, dict[str, int | str]] = field(default_factory=dict)
    chunks: tuple[ChunkRecord, ...] = ()

    def all_files(self) -> dict[str, dict[str, int | str]]:
        """Fingerprints of all files of the world, by relative path."""
        return self.files | {name: mark for chunk in self.chunks for name, mark in chunk.files.items()}


def manifest_text(manifest: Manifest) -> str:
    """The text of ``world.json``, with a checksum of itself.

    Raises:
        WorldError: a configuration that JSON cannot hold.
    """
    content = {"format": FORMAT, "version": VERSION} | {k: v for k, v in vars(manifest).items() if k != "chunks"}
    try:
        rest = _canonical(content)
    except (TypeError, ValueError) as error:
        raise WorldError(f"config: want plain JSON values (no NaN, no objects): {error}") from error
    # "chunks" is the first key in sorted order, so the cached texts of the records can be joined.
    text = f'{{"chunks":[{",".join(record.text for record in manifest.chunks)}],{rest[1:]}'
    return f'{text[:-1]},"checksum":"{hashlib.sha256(text.encode()).hexdigest()}"}}\n'


def read_manifest(path: Path) -> Manifest:
    """Read and check ``world.json``.

    Raises:
        WorldError: missing, truncated, changed, of another format or of a later version; the message names the file.
    """
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise WorldError(f"{path}: missing; want the folder of a world, as `worldwarp explore` makes it") from None
    except OSError as error:
        raise WorldError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError:
        raise WorldError(f"{path}: truncated or not JSON; restore it from a copy") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise WorldError(f'{path}: want "format": "{FORMAT}"; this is not the folder of a world')
    version = content.pop("version", None)
    if version not in READABLE:
        made_by = content.get("created_by", "another program")
        raise WorldError(
            f"{path}: is of version {version} (made by worldwarp {made_by}), but this program reads versions "
            f"{READABLE[0]} to {VERSION}; "
            "install the worldwarp that made it"
        )
    if content.pop("checksum", None) != _checksum({"format": FORMAT, "version": version} | content):
        raise WorldError(f"{path}: was changed after it was written; restore it from a copy")
    if set(content) - {"format"} != {f.name for f in fields(Manifest)}:
        raise WorldError(f"{path}: its fields are not those of version {version}; restore it from a copy")
    chunks = tuple(ChunkRecord(**chunk) for chunk in content.pop("chunks"))
    size = (content["size"][0], content["size"][1])
    return Manifest(**{k: v for k, v in content.items() if k not in ("format", "size")}, size=size, chunks=chunks)


def check_files(folder: Path, files: dict[str, dict[str, int | str]], *, contents: bool = True) -> None:
    """Compare files with their fingerprints; without ``contents`` by their lengths alone, which takes no time.

    Raises:
        WorldError: a file is missing, truncated or changed; the message names the first one.
    """
    for name, wanted in files.items():
        path = folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise WorldError(f"{folder}: its manifest names {name!r}, which lies outside the folder")
        if not path.is_file():
            raise WorldError(f"{path}: missing; restore it from a copy, or open the chunks before it")
        if path.stat().st_size != wanted["bytes"]:
            raise WorldError(f"{path}: truncated: want {wanted['bytes']} bytes, got {path.stat().st_size}")
        if contents and fingerprint(path) != wanted:
            raise WorldError(f"{path}: was changed after it was written (SHA-256 differs)")


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(_canonical(content).encode()).hexdigest()


def _canonical(content: dict[str, Any]) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
