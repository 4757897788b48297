"""The files of one chunk of a world.

| file | holds |
|---|---|
| ``frames/00000.png`` | colors, 8 bits: lossless, as frames are rounded to 8 bits before anything uses them |
| ``depth/00000.png`` | depth for other programs: 16 bits, 0.001 units a count, 0 = unknown, sky or beyond 65.5 |
| ``chunks/0000.safetensors`` | for exact resuming: float32 depth, masks, confidence, cameras, random state |
| ``cache/0000.safetensors`` | the primitives that this chunk added or changed (``scenes.store.delta_log``) |
| ``cache/0000_1.safetensors`` | the primitives that the first ``forget`` after this chunk removed |
| ``generator/0000.safetensors`` | optional: what the generator rebuilds its memory of the chunk from, e.g. latents |
| ``photo.png`` | with chunk 0, optional: the photo at a higher resolution than its frame, 8 bits |

The ``.safetensors`` files are compressed without loss (``scenes.store.packed_tensors``). Keys and values
of the generator are not stored: they are larger than all other files and are recomputed from the chunks.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from geometry.camera import Camera
from geometry.frame import Chunk, Frame
from scenes.io.atomic_files import replacing, write_bytes
from scenes.io.png import from_bytes, read_rgb_png, to_bytes, write_depth_png, write_rgb_png
from scenes.store.manifest import ChunkRecord
from scenes.store.packed_tensors import open_tensors, packed

FOLDERS = ("frames", "depth", "chunks", "cache", "generator")
OLDER = "memory"  # an extra folder in worlds of versions 1 and 2
PHOTO = "photo.png"


def frame_name(index: int) -> str:
    """Path of a frame's colors, relative to the world's folder."""
    return f"frames/{index:05d}.png"


def depth_name(index: int) -> str:
    """Path of a frame's depth image, relative to the world's folder."""
    return f"depth/{index:05d}.png"


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
    names = []
    for i in range(len(frames)):
        with replacing(folder / frame_name(first_frame + i)) as path:
            write_rgb_png(path, frames.rgb[i])
        with replacing(folder / depth_name(first_frame + i)) as path:
            write_depth_png(path, frames.depth[i], frames.valid[i] & ~frames.sky[i])
        names += [frame_name(first_frame + i), depth_name(first_frame + i)]
    tensors = {
        "depth": frames.depth,
        "valid": frames.valid,
        "sky": frames.sky,
        "confidence": chunk.confidence,
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
    return read_rgb_png(folder / PHOTO)


def read_chunk(folder: Path, record: ChunkRecord, size: tuple[int, int], metric: bool) -> Chunk:
    """Read a chunk exactly as it was written."""
    rgb = torch.stack([read_rgb_png(folder / frame_name(record.first_frame + i)) for i in range(record.frames)])
    with open_tensors(folder / chunk_name(record.index)) as file:
        depth, valid, sky, confidence = (file.get(name) for name in ("depth", "valid", "sky", "confidence"))
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
