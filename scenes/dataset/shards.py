"""Compression of clips for transfer: many clips in one shard.

Colors are WebP images, depth is a 16-bit PNG of the logarithm of inverse depth in steps of a relative ``STEP`` (0 =
sky); poses and intrinsics are unchanged. A frame of 144x240 takes 20 kB instead of 173 kB. Unpacking restores ordinary
clip files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float16, UInt8, UInt16
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from tqdm import tqdm

from scenes.dataset.clips import write_clip, write_manifest

SHARD_MB = 48
STEP, SMALLEST = 0.0005, 1e-7  # of inverse depth, 1/meter: relative step of the code, and value of code 1
UNKNOWN = 65535  # code of unknown depth
HEADER_BYTES = 128  # upper bound of the header entry of one array
PICTURES = ("rgb", "inverse_depth")


def pack(data: Path, out: Path, shard_mb: float | int = SHARD_MB) -> list[Path]:
    """Pack the clips of a folder.

    Args:
        data: folder of clips.
        out: folder of the shards, made when missing; shards in it are replaced.
        shard_mb: largest size of a shard, MB; only a shard of a single clip may exceed it.

    Returns:
        Paths of the shards, ``shard_000.safetensors`` onward.

    Raises:
        ValueError: ``data`` holds no clips.
    """
    clips = sorted(data.glob("clip_*.safetensors"))
    if not clips:
        raise ValueError(f"data: want a folder of clips, as `worldwarp render-data` makes it; {data} holds none")
    out.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    arrays: dict[str, np.ndarray] = {}
    fields: dict[str, str] = {}

    def close() -> None:
        path = out / f"shard_{len(written):03d}.safetensors"
        partial = path.with_suffix(".partial")
        save_file(arrays, partial, metadata=fields)
        partial.replace(path)
        written.append(path)
        arrays.clear()
        fields.clear()

    size = 0
    for path in tqdm(clips, desc="packing", unit="clip"):
        packed, text = _packed(path)
        # Twice the text: its quotes are escaped once more in the header, which is JSON itself.
        more = sum(array.nbytes + HEADER_BYTES for array in packed.values()) + 2 * len(json.dumps(text))
        if arrays and size + more > shard_mb * 1e6:
            close()
            size = 0
        arrays |= {f"{path.stem}/{name}": array for name, array in packed.items()}
        fields[path.stem] = json.dumps(text)
        size += more
    close()
    # Shards of an earlier, larger set would be unpacked with these.
    for stale in set(out.glob("shard_*.safetensors")) - set(written):
        stale.unlink()
    return written


def unpack(shards: Path, out: Path) -> Path:
    """Unpack the clips that ``out`` does not hold yet; returns the path of the manifest.

    Raises:
        ValueError: ``shards`` holds no shard, or a damaged one; clips unpacked before it are kept.
    """
    paths = sorted(shards.glob("shard_*.safetensors"))
    if not paths:
        raise ValueError(f"shards: want a folder of them, as `worldwarp pack-data` makes it; {shards} holds none")
    out.mkdir(parents=True, exist_ok=True)
    for path in tqdm(paths, desc="unpacking", unit="shard"):
        try:
            for stem, arrays, fields in _clips(path):
                if not (out / f"{stem}.safetensors").exists():
                    write_clip(out / f"{stem}.safetensors", arrays(), fields)
        except (SafetensorError, KeyError, ValueError, cv2.error) as error:
            raise ValueError(f"{path}: damaged ({error}); fetch it again") from error
    return write_manifest(out)


def encode_depth(inverse: Float16[np.ndarray, "h w"]) -> UInt16[np.ndarray, "h w"]:
    """Code of inverse depth: 0 for the sky, ``UNKNOWN`` for negative values."""
    # The logarithm spends equal code steps on equal relative errors.
    known = inverse > 0.0
    steps = np.log(np.where(known, inverse, 1.0).astype(np.float64) / SMALLEST) / STEP
    code = np.where(known, 1.0 + steps.round().clip(0.0, UNKNOWN - 2.0), 0.0)
    return np.where(inverse < 0.0, UNKNOWN, code).astype(np.uint16)


def decode_depth(code: UInt16[np.ndarray, "h w"]) -> Float16[np.ndarray, "h w"]:
    """The inverse of `encode_depth`, accurate to half a step."""
    inverse = SMALLEST * np.exp(STEP * (code.astype(np.float64) - 1.0))
    return np.where(code == UNKNOWN, -1.0, np.where(code > 0, inverse, 0.0)).astype(np.float16)


def _packed(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays of a clip with its images encoded as bytes, ``rgb/000`` onward, and its text fields."""
    with safe_open(path, framework="np") as clip:
        arrays, fields = {name: clip.get_tensor(name) for name in clip.keys()}, dict(clip.metadata())  # noqa: SIM118
    packed = {name: array for name, array in arrays.items() if name not in PICTURES}
    for t, (rgb, inverse) in enumerate(zip(arrays["rgb"], arrays["inverse_depth"], strict=True)):
        bgr = np.ascontiguousarray(rgb[::-1].transpose(1, 2, 0))
        packed[f"rgb/{t:03d}"] = _bytes(".webp", bgr, [cv2.IMWRITE_WEBP_QUALITY, 90])
        packed[f"inverse_depth/{t:03d}"] = _bytes(".png", encode_depth(inverse[0]), [cv2.IMWRITE_PNG_COMPRESSION, 5])
    return packed, fields


def _bytes(kind: str, picture: np.ndarray, options: list[int]) -> UInt8[np.ndarray, "n"]:
    done, encoded = cv2.imencode(kind, picture, options)
    if not done:
        raise ValueError(f"cannot encode a picture of shape {picture.shape} as {kind}")
    return encoded.reshape(-1)


def _clips(path: Path) -> Iterator[tuple[str, Callable[[], dict[str, np.ndarray]], dict[str, str]]]:
    """Name, function that decodes the arrays, and text fields of each clip of a shard, one clip at a time."""
    with safe_open(path, framework="np") as shard:
        names = list(shard.keys())
        for stem, text in sorted(shard.metadata().items()):
            own = sorted(name for name in names if name.startswith(f"{stem}/"))

            # Decoded on call: `unpack` skips clips that it has.
            def arrays(stem: str = stem, own: list[str] = own) -> dict[str, np.ndarray]:
                tensors = {name.removeprefix(f"{stem}/"): shard.get_tensor(name) for name in own}
                plain = {name: array for name, array in tensors.items() if "/" not in name}
                rgb = [_picture(v)[..., ::-1].transpose(2, 0, 1) for n, v in tensors.items() if n.startswith("rgb/")]
                depth = [decode_depth(_picture(v)) for n, v in tensors.items() if n.startswith("inverse_depth/")]
                return {**plain, "rgb": np.ascontiguousarray(rgb), "inverse_depth": np.stack(depth)[:, None]}

            yield stem, arrays, json.loads(text)


def _picture(encoded: UInt8[np.ndarray, "n"]) -> np.ndarray:
    picture = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED)
    if picture is None:
        raise ValueError("a picture that cannot be decoded")
    return picture
