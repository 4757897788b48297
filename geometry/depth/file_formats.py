"""Reads arrays from depth files; the format is detected from the contents, not from the name."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from geometry.input_files import reason_of

PNG_START = b"\x89PNG"
WANTED = "PNG, TIFF, PFM, EXR, NPY or NPZ"
PLAIN_MODES = ("L", "I;16", "I;16L", "I;16B", "I;16N", "I", "F")  # one channel, which Pillow reads without loss
COLOR_CHANNELS = ("Y", "R", "V")  # names of the channel of a one-channel EXR
BROKEN = (OSError, ValueError, SyntaxError, EOFError, RuntimeError, KeyError, zipfile.BadZipFile, cv2.error)


@dataclass(frozen=True)
class Format:
    """A file format and its reader."""

    name: str
    read: Callable[[Path], np.ndarray]


def format_of(path: Path, head: bytes) -> Format:
    """The format of a depth file, from its first bytes ``head``.

    Raises:
        ValueError: none of the supported formats.
    """
    for start, kind in FORMATS.items():
        if head.startswith(start):
            return kind
    raise ValueError(f"depth.path: want {WANTED}, got '{path.name}', whose contents are none of them")


def read_array(path: Path, kind: Format) -> np.ndarray:
    """Read the array of a depth file, as stored.

    Returns:
        ``[h w]``, or ``[h w c]`` for several channels, with the dtype of the file.

    Raises:
        ValueError: the file is damaged, or has several arrays of which none is named depth.
        ImportError: an EXR file, and OpenEXR is not installed.
    """
    try:
        values = np.asarray(kind.read(path))
    except _NoSingleDepth as error:
        raise ValueError(f"depth: {path.name}: {error}") from None
    except BROKEN as error:
        raise ValueError(f"depth: {path.name} is no {kind.name} file that can be read ({reason_of(error)})") from None
    if values.dtype.kind not in "uif":
        raise ValueError(f"depth: want numbers, got values of type {values.dtype} in {path.name}")
    return values


class _NoSingleDepth(Exception):
    """A readable file without exactly one depth array; the message names what it holds."""


def _picture(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as image:
            image.load()  # Pillow refuses truncated files; OpenCV would pad them
            if image.mode in PLAIN_MODES:
                return np.asarray(image)
            if image.mode in ("1", "P", "PA", "LA", "RGBA"):
                return np.asarray(image.convert("RGB" if image.mode != "1" else "L"))
    except UnidentifiedImageError:  # float images of several channels, which Pillow cannot open
        pass
    # OpenCV, as Pillow would reduce 16-bit colors to 8 bits.
    values = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None:
        raise ValueError("of an unknown kind, or cut short")
    return values


def _npz(path: Path) -> np.ndarray:
    with (
        open(path, "rb") as file,
        np.load(file, allow_pickle=False) as arrays,
    ):  # opened here, as NumPy leaves a damaged file open
        if len(arrays.files) == 1:
            return arrays[arrays.files[0]]
        for name in ("depth", "disparity"):
            if name in arrays.files:
                return arrays[name]
        raise _NoSingleDepth(f"want one array or one called depth, got {', '.join(arrays.files) or 'none'}")


def _exr(path: Path) -> np.ndarray:
    try:
        import OpenEXR
    except ImportError as error:
        raise ImportError("depth: .exr files need OpenEXR: pip install 'worldwarp[exr]'") from error
    channels: dict[str, np.ndarray] = {}
    with OpenEXR.File(str(path), separate_channels=True) as file:
        for part in range(len(file.parts)):
            channels |= {name: np.array(channel.pixels) for name, channel in file.channels(part).items()}
    if not channels:  # OpenEXR returns this for a truncated file
        raise ValueError("no channels")
    return _depth_channel(channels)


def _depth_channel(channels: Mapping[str, np.ndarray]) -> np.ndarray:
    """The channel Z, else the one named depth in any layer (`Depth.V`, `ViewLayer.Depth.Z`), else the colors."""
    if "Z" in channels:
        return channels["Z"]
    called = [name for name in channels if "depth" in name.lower().split(".")]
    if len(called) > 1:
        raise _NoSingleDepth(f"want one channel called depth, got {', '.join(called)}")
    if called:
        return channels[called[0]]
    if {"R", "G", "B"} <= channels.keys():
        return np.stack([channels[name] for name in "RGB"], -1)
    for name in COLOR_CHANNELS:
        if name in channels:
            return channels[name]
    if len(channels) == 1:
        return next(iter(channels.values()))
    raise _NoSingleDepth(f"want a channel Z or depth, got {', '.join(channels)}")


FORMATS = {
    PNG_START: Format("PNG", _picture),
    b"II*\x00": Format("TIFF", _picture),
    b"MM\x00*": Format("TIFF", _picture),
    b"II+\x00": Format("TIFF", _picture),
    b"MM\x00+": Format("TIFF", _picture),
    b"Pf": Format("PFM", _picture),
    b"PF": Format("PFM", _picture),
    b"\x93NUMPY": Format("NPY", lambda path: np.load(path, allow_pickle=False)),
    b"PK": Format("NPZ", _npz),
    b"v/1\x01": Format("EXR", _exr),
}
