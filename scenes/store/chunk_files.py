"""The files of one chunk of a world.

| file | holds |
|---|---|
| ``frames/00000.webp`` | colors, 8 bits: lossless WebP, as frames are rounded to 8 bits before anything uses them |
| ``chunks/0000.safetensors`` | exact depth, masks, confidence, cameras, random state |
| ``cache/0000.safetensors`` | the primitives that this chunk added or changed (``scenes.store.delta_log``) |
| ``cache/0000_1.safetensors`` | the primitives that the first ``forget`` after this chunk removed |
| ``generator/0000.safetensors`` | optional: what the generator rebuilds its memory of the chunk from, e.g. latents |
| ``photo.png`` | with chunk 0, optional: the photo at a higher resolution than its frame, 8 bits |

The ``.safetensors`` files are compressed without loss (``scenes.store.packed_tensors``); they are small where a chunk
was rounded before its use (``geometry.rounding``), and exact in any case. Keys and values of the generator are not
stored: they are larger than all other files and are recomputed from the chunks.

Chunks of worlds up to version 3 have ``frames/00000.png`` and, for other programs, ``depth/00000.png``; they are read
as they are. Depth images are now made by the export ``nerfstudio``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from geometry.camera import Camera
from geometry.frame import Chunk, Frame
from geometry.jit import for_each
from scenes.io.atomic_files import replacing, write_bytes
from scenes.io.png import from_bytes, read_rgb, to_bytes, write_rgb_png, write_rgb_webp
from scenes.store.manifest import ChunkRecord
from scenes.store.packed_tensors import open_tensors, packed

FOLDERS = ("frames", "chunks", "cache", "generator")
OLDER = ("memory", "depth")  # extra folders in worlds of versions 1 and 2, and 1 to 3
PHOTO = "photo.png"


def frame_name(index: int, record: ChunkRecord | None = None) -> str:
    """Path of a frame's colors, relative to the world's folder.

    Args:
        index: of the frame in the world.
        record: of its chunk, which may be of an older version; None for a chunk that is being written.
    """
    older = f"frames/{index:05d}.png"
    return older if record is not None and older in record.files else f"frames/{index:05d}.webp"


def older_depth_name(index: int, record: ChunkRecord) -> str | None:
    """Path of a frame's depth image, which only worlds up to version 3 have."""
    name = f"depth/{index:05d}.png"
    return name if name in record.files else None


def chunk_name(index: int) -> str:
    """Path of a chunk's exact tensors, relative to the world's folder."""
    return f"chunks/{index:04d}.safetensors"


def cache_name(index: int) -> str:
    """Path of a chunk's change to the cache, relative to the world's folder."""
    return f"cache/{index:04d}.safetensors"


def carried_name(index: int) -> str:
    """Path of what the generator stored with a chunk, relative to the world's folder."""
    return f"generator/{index:04d}.safetensors"


def edit_name(index: int, edit: int) -> str:
    """Path of the ``edit``-th change by ``forget`` after a chunk, relative to the world's folder."""
    return f"cache/{index:04d}_{edit}.safetensors"


def cache_names(record: ChunkRecord) -> list[str]:
    """Paths of the cache changes of a chunk, in order: its own, then those of ``forget`` after it."""
    return [name for name in record.files if name.startswith("cache/")]


def write_chunk(folder: Path, chunk: Chunk, first_frame: int, rng_state: UInt8[Tensor, "s"]) -> list[str]:
    """Write the files of a chunk except its cache change; returns their relative paths.

    Raises:
        ValueError: colors that are not exact multiples of 1/255.
    """
    frames = chunk.frames
    if not torch.equal(from_bytes(to_bytes(frames.rgb)), frames.rgb.float()):
        raise ValueError(
            "chunk.frames.rgb: want colors on the 8-bit grid, so that a resumed walk has the same bits; "
            "round them with (rgb * 255).round() / 255 before the cache and the generator see them"
        )
    names = [frame_name(first_frame + i) for i in range(len(frames))]

    def write_colors(i: int) -> None:
        with replacing(folder / names[i]) as path:
            write_rgb_webp(path, frames.rgb[i])

    for_each(range(len(frames)), write_colors)
    levels = to_bytes(chunk.confidence)
    tensors = {
        "depth": frames.depth,
        "valid": frames.valid,
        "sky": frames.sky,
        # One byte where that is exact, as after `geometry.rounding.rounded`.
        "confidence": levels if torch.equal(from_bytes(levels), chunk.confidence) else chunk.confidence,
        "world_from_camera": frames.camera.world_from_camera,
        "focal_px": frames.camera.focal_px,
        "center_px": frames.camera.center_px,
        "rng_state": rng_state,
    }
    write_bytes(folder / chunk_name(chunk.index), packed(tensors))
    return [*names, chunk_name(chunk.index)]


def write_photo(folder: Path, rgb: Float[Tensor, "3 h w"]) -> str:
    """Write the photo of a world; returns the relative path."""
    with replacing(folder / PHOTO) as path:
        write_rgb_png(path, rgb)
    return PHOTO


def write_carried(folder: Path, index: int, carried: Mapping[str, Tensor]) -> str:
    """Write what the generator stores with a chunk; returns the relative path."""
    name = carried_name(index)
    write_bytes(folder / name, packed(carried))
    return name


def read_carried(folder: Path, record: ChunkRecord) -> dict[str, Tensor]:
    """Read what `write_carried` wrote, exactly; empty if there is none."""
    name = carried_name(record.index)
    if name not in record.files:
        return {}
    with open_tensors(folder / name) as file:
        return {key: file.get(key) for key in sorted(file.names)}


def read_photo(folder: Path) -> Float[Tensor, "3 h w"]:
    """Read the photo that `write_photo` wrote, exactly."""
    return read_rgb(folder / PHOTO)


def read_chunk(folder: Path, record: ChunkRecord, size: tuple[int, int], metric: bool) -> Chunk:
    """Read a chunk exactly as it was written."""
    indices = range(record.first_frame, record.first_frame + record.frames)
    rgb = torch.stack([read_rgb(folder / frame_name(i, record)) for i in indices])
    with open_tensors(folder / chunk_name(record.index)) as file:
        depth, valid, sky, confidence = (file.get(name) for name in ("depth", "valid", "sky", "confidence"))
    confidence = from_bytes(confidence) if confidence.dtype is torch.uint8 else confidence
    frames = Frame(rgb, depth, valid, sky, read_cameras_of(folder, record, size), metric)
    return Chunk(frames, record.index, record.observed, confidence)


def read_cameras_of(folder: Path, record: ChunkRecord, size: tuple[int, int]) -> Camera:
    """Read only the cameras of a chunk."""
    with open_tensors(folder / chunk_name(record.index)) as file:
        pose, focal_px, center_px = (file.get(name) for name in ("world_from_camera", "focal_px", "center_px"))
        return Camera(pose, focal_px, center_px, size)


def read_rng_state(folder: Path, record: ChunkRecord) -> UInt8[Tensor, "s"]:
    """Read the state of the random generator after a chunk."""
    with open_tensors(folder / chunk_name(record.index)) as file:
        return file.get("rng_state")
