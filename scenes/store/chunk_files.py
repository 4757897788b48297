"""The files of one chunk of a world.

| file | holds |
|---|---|
| ``frames/00000.png`` | colors, 8 bits: lossless, as frames are rounded to 8 bits before anything uses them |
| ``depth/00000.png`` | depth for other programs: 16 bits, thousandths of a unit, 0 = unknown, sky or beyond 65.5 |
| ``chunks/0000.safetensors`` | for resuming to the bit: float32 depth, masks, confidence, cameras, random state |
| ``cache/0000.safetensors`` | the primitives that this chunk added or changed (``scenes.store.delta_log``) |
| ``cache/0000_1.safetensors`` | those that were forgotten after it |
| ``photo.png`` | with chunk 0: the photo finer than its frame, 8 bits |

The ``.safetensors`` files are compressed without loss (``scenes.store.packed_tensors``). What the generator remembers
is not stored: it is larger than all the rest and made again from the chunks.
"""

from __future__ import annotations

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

FOLDERS = ("frames", "depth", "chunks", "cache")
OLDER = "memory"  # a folder that worlds of versions 1 and 2 have besides
PHOTO = "photo.png"


def frame_name(index: int) -> str:
    """The image of a frame, relative to the world's folder."""
    return f"frames/{index:05d}.png"


def depth_name(index: int) -> str:
    """The depth image of a frame, relative to the world's folder."""
    return f"depth/{index:05d}.png"


def chunk_name(index: int) -> str:
    """The exact numbers of a chunk, relative to the world's folder."""
    return f"chunks/{index:04d}.safetensors"


def cache_name(index: int) -> str:
    """The primitives of a chunk, relative to the world's folder."""
    return f"cache/{index:04d}.safetensors"


def edit_name(index: int, edit: int) -> str:
    """What was forgotten after a chunk, the ``edit``-th time, relative to the world's folder."""
    return f"cache/{index:04d}_{edit}.safetensors"


def cache_names(record: ChunkRecord) -> list[str]:
    """The changes to the cache that belong to a chunk, in order: its own, then what was forgotten after it."""
    return [name for name in record.files if name.startswith("cache/")]


def write_chunk(folder: Path, chunk: Chunk, first_frame: int, rng_state: UInt8[Tensor, "s"]) -> list[str]:
    """Write everything of a chunk but its primitives; returns the names of the files.

    Raises:
        ValueError: colors that 8 bits do not hold exactly.
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
    """Write the photo that a world began with; returns the name of the file."""
    with replacing(folder / PHOTO) as path:
        write_rgb_png(path, rgb)
    return PHOTO


def read_photo(folder: Path) -> Float[Tensor, "3 h w"]:
    """Read back what `write_photo` wrote, to the bit."""
    return read_rgb_png(folder / PHOTO)


def read_chunk(folder: Path, record: ChunkRecord, size: tuple[int, int], metric: bool) -> Chunk:
    """Read a chunk back to the bit."""
    rgb = torch.stack([read_rgb_png(folder / frame_name(record.first_frame + i)) for i in range(record.frames)])
    with open_tensors(folder / chunk_name(record.index)) as file:
        depth, valid, sky, confidence = (file.get(name) for name in ("depth", "valid", "sky", "confidence"))
    frames = Frame(rgb, depth, valid, sky, read_cameras_of(folder, record, size), metric)
    return Chunk(frames, record.index, record.observed, confidence)


def read_cameras_of(folder: Path, record: ChunkRecord, size: tuple[int, int]) -> Camera:
    """Only the cameras of a chunk."""
    with open_tensors(folder / chunk_name(record.index)) as file:
        pose, focal_px, center_px = (file.get(name) for name in ("world_from_camera", "focal_px", "center_px"))
        return Camera(pose, focal_px, center_px, size)


def read_rng_state(folder: Path, record: ChunkRecord) -> UInt8[Tensor, "s"]:
    """The state of the random generator after a chunk."""
    with open_tensors(folder / chunk_name(record.index)) as file:
        return file.get("rng_state")
