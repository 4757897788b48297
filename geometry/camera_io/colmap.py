"""COLMAP models, text and binary: world-to-camera poses in OpenCV axes, pixel centers at +0.5 as ours.

The layout is documented at https://colmap.github.io/format.html. Points are written if given, and never read; without
points an empty points file is written, because readers expect one.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from numpy.typing import NDArray

from geometry.camera import Camera
from geometry.camera_io.record import CameraRecord, Lenses, order_by_name, require_path, text_of, unit_quat
from geometry.lens_distortion import DistortedLens
from geometry.se3 import checked_rigid, inverse, matrix_from_quat, quat_from_matrix, rigid

# COLMAP's camera models in the order of their numbers, with their PARAMS.
MODELS = {
    "SIMPLE_PINHOLE": "f cx cy",
    "PINHOLE": "fx fy cx cy",
    "SIMPLE_RADIAL": "f cx cy k1",
    "RADIAL": "f cx cy k1 k2",
    "OPENCV": "fx fy cx cy k1 k2 p1 p2",
    "OPENCV_FISHEYE": "fx fy cx cy k1 k2 k3 k4",
    "FULL_OPENCV": "fx fy cx cy k1 k2 p1 p2 k3 k4 k5 k6",
    "FOV": "fx fy cx cy omega",
    "SIMPLE_RADIAL_FISHEYE": "f cx cy k1",
    "RADIAL_FISHEYE": "f cx cy k1 k2",
    "THIN_PRISM_FISHEYE": "fx fy cx cy k1 k2 p1 p2 k3 k4 sx1 sy1",
    "RAD_TAN_THIN_PRISM_FISHEYE": "fx fy cx cy k1 k2 k3 k4 k5 k6 p1 p2 s1 s2 s3 s4",
    "SIMPLE_DIVISION": "f cx cy k",
    "DIVISION": "fx fy cx cy k",
    "SIMPLE_FISHEYE": "f cx cy",
    "FISHEYE": "fx fy cx cy",
    "EUCM": "fx fy cx cy alpha beta",
    "EQUIRECTANGULAR": "w h",
}
PINHOLE_ID = list(MODELS).index("PINHOLE")
PERSPECTIVE = ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")  # OpenCV's order
FISHEYE = ("k1", "k2", "k3", "k4")


@dataclass(frozen=True)
class _Lens:
    focal_px: tuple[float, float]
    center_px: tuple[float, float]
    image_size: tuple[float, float]
    distorted: DistortedLens | None


@dataclass(frozen=True)
class _Image:
    name: str
    quat: np.ndarray
    translation: np.ndarray
    camera_id: int


@dataclass(frozen=True)
class Tracks:
    """Points and their observations in images.

    Attributes:
        positions: ``[p 3]``, world, scene units.
        colors: ``[p 3]``, 0..255.
        image: ``[o]``, index of the image of each observation.
        point: ``[o]``, index of the point of each observation; a point occurs at most once in an image.
        pixels: ``[o 2]``, ``(x, y)`` of each observation, pixel centers at +0.5.
        errors_px: ``[p]``, mean distance of a point's observations from its projections.
    """

    positions: Float[np.ndarray, "p 3"]
    colors: UInt8[np.ndarray, "p 3"]
    image: Int[np.ndarray, "o"]
    point: Int[np.ndarray, "o"]
    pixels: Float[np.ndarray, "o 2"]
    errors_px: Float[np.ndarray, "p"]

    def by_image(self, count: int) -> list[NDArray[np.int64]]:
        """Indices of the observations of each of ``count`` images."""
        order = np.argsort(self.image, kind="stable")
        return np.split(order, np.searchsorted(self.image[order], np.arange(1, count)))

    def by_point(self, count: int) -> list[NDArray[np.int64]]:
        """Rows ``(image id, index of the observation in the image)`` for each point; ``count`` images."""
        rows = np.empty((len(self.image), 2), np.int64)
        for index, observations in enumerate(self.by_image(count), 1):
            rows[observations, 0] = index
            rows[observations, 1] = np.arange(len(observations))
        order = np.argsort(self.point, kind="stable")
        return np.split(rows[order], np.searchsorted(self.point[order], np.arange(1, len(self.positions))))


NO_TRACKS = Tracks(
    np.zeros((0, 3)), np.zeros((0, 3), np.uint8), np.zeros(0, int), np.zeros(0, int), np.zeros((0, 2)), np.zeros(0)
)


def read_colmap(folder: Path) -> CameraRecord:
    """Read the cameras and images of a COLMAP model, ordered by image name; binary files take precedence over text.

    Raises:
        ValueError: a camera model with a distortion that OpenCV lacks, a truncated file, or a wrong field; the message
            names it.
    """
    if (folder / "cameras.bin").is_file():
        lenses = _read_cameras_binary(_Bytes(folder / "cameras.bin"))
        images = _read_images_binary(_Bytes(folder / "images.bin"))
        source = "images.bin"
    else:
        lenses = _read_cameras_text(text_of(folder / "cameras.txt"))
        images = _read_images_text(text_of(folder / "images.txt"))
        source = "images.txt"
    require_path(len(images), source)
    images = [images[i] for i in order_by_name([image.name for image in images])]
    poses = []
    for image in images:
        if image.camera_id not in lenses:
            raise ValueError(
                f"{source}: image {image.name} has CAMERA_ID {image.camera_id}, which the cameras file lacks"
            )
        quat = unit_quat(image.quat, f"{source}: QW QX QY QZ of {image.name}")
        poses.append(rigid(matrix_from_quat(quat), torch.from_numpy(image.translation)))
    camera_from_world = checked_rigid(torch.stack(poses), source + ": TX TY TZ of image {}")
    taken = [lenses[image.camera_id] for image in images]
    focal, center, size = (
        torch.tensor([getattr(lens, field) for lens in taken], dtype=torch.float64)
        for field in ("focal_px", "center_px", "image_size")
    )
    found = Lenses(focal, center, size, "WIDTH, HEIGHT of the COLMAP cameras", taken[0].distorted)
    return CameraRecord(inverse(camera_from_world), found, names=[image.name for image in images])


def write_colmap(
    folder: Path, camera: Camera, names: Sequence[str] | None = None, *, binary: bool, tracks: Tracks = NO_TRACKS
) -> None:
    """Write a batch ``[n]`` as a COLMAP model; cameras of equal intrinsics share one PINHOLE camera.

    Args:
        folder: output folder; made if missing.
        camera: cameras ``[n]``.
        names: image name of each camera; ``00000.png`` and so on when None.
        binary: write ``.bin`` files instead of ``.txt``.
        tracks: points and their observations.
    """
    names = [f"{i:05d}.png" for i in range(len(camera))] if names is None else names
    if len(names) != len(camera):
        raise ValueError(f"file_paths: want one for each of {len(camera)} cameras, got {len(names)}")
    folder.mkdir(parents=True, exist_ok=True)
    lenses, which = torch.cat([camera.focal_px, camera.center_px], -1).double().unique(dim=0, return_inverse=True)
    pose = inverse(camera.world_from_camera.double())
    rows = torch.cat([quat_from_matrix(pose[:, :3, :3]), pose[:, :3, 3]], -1).tolist()
    images = list(zip(rows, (which + 1).tolist(), names, strict=True))
    height, width = camera.size
    seen = tracks.by_image(len(camera))
    points = list(
        zip(
            tracks.positions.tolist(),
            tracks.colors.tolist(),
            tracks.errors_px.tolist(),
            tracks.by_point(len(camera)) if len(tracks.positions) else [],
            strict=True,
        )
    )
    if binary:
        cameras = [struct.pack("<iiQQ4d", i, PINHOLE_ID, width, height, *p) for i, p in enumerate(lenses.tolist(), 1)]
        records = [
            struct.pack("<i7di", i, *row, camera_id) + name.encode() + b"\0" + _keypoints_binary(tracks, of_image)
            for i, ((row, camera_id, name), of_image) in enumerate(zip(images, seen, strict=True), 1)
        ]
        records_of_points = [
            struct.pack("<Q3d3BdQ", i, *position, *color, error, len(track)) + track.astype("<i4").tobytes()
            for i, (position, color, error, track) in enumerate(points, 1)
        ]
        (folder / "cameras.bin").write_bytes(struct.pack("<Q", len(cameras)) + b"".join(cameras))
        (folder / "images.bin").write_bytes(struct.pack("<Q", len(records)) + b"".join(records))
        (folder / "points3D.bin").write_bytes(struct.pack("<Q", len(points)) + b"".join(records_of_points))
        return
    lines = [f"{i} PINHOLE {width} {height} {_numbers(p)}\n" for i, p in enumerate(lenses.tolist(), 1)]
    (folder / "cameras.txt").write_text("# CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]\n" + "".join(lines), "utf-8")
    header = "# IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME\n# POINTS2D[] as (X, Y, POINT3D_ID)\n"
    lines = [
        f"{i} {_numbers(row)} {camera_id} {name}\n{_keypoints_text(tracks, of_image)}\n"
        for i, ((row, camera_id, name), of_image) in enumerate(zip(images, seen, strict=True), 1)
    ]
    (folder / "images.txt").write_text(header + "".join(lines), "utf-8")
    header = "# POINT3D_ID, X, Y, Z, R, G, B, ERROR, TRACK[] as (IMAGE_ID, POINT2D_IDX)\n"
    lines = [
        " ".join([str(i), _numbers(position), *map(str, color), f"{error:.4g}", *map(str, track.reshape(-1).tolist())])
        for i, (position, color, error, track) in enumerate(points, 1)
    ]
    (folder / "points3D.txt").write_text(header + "".join(f"{line}\n" for line in lines), "utf-8")


def _keypoints_text(tracks: Tracks, observations: NDArray[np.int64]) -> str:
    # COLMAP counts from 1.
    pixels, points = tracks.pixels[observations].tolist(), (tracks.point[observations] + 1).tolist()
    return " ".join(f"{x!r} {y!r} {point}" for (x, y), point in zip(pixels, points, strict=True))


def _keypoints_binary(tracks: Tracks, observations: NDArray[np.int64]) -> bytes:
    rows = np.empty(len(observations), np.dtype([("pixel", "<f8", 2), ("point", "<i8")]))
    rows["pixel"], rows["point"] = tracks.pixels[observations], tracks.point[observations] + 1
    return struct.pack("<Q", len(rows)) + rows.tobytes()


def _numbers(values: Sequence[float]) -> str:
    return " ".join(map(repr, values))


def _lens(model: str, width: float, height: float, params: Sequence[float], where: str) -> _Lens:
    """One camera, with its distortion as one of OpenCV's models."""
    names = MODELS[_known(model, where)].split()
    if len(params) != len(names):
        raise ValueError(f"{where}: want {len(names)} PARAMS for {model} ({' '.join(names)}), got {len(params)}")
    values = dict(zip(names, params, strict=True))
    if model == "EQUIRECTANGULAR":
        raise ValueError(f"{where}: want MODEL with a focal length, got {model}; a photo of all directions has none")
    focal = (values["fx"], values["fy"]) if "fx" in values else (values["f"], values["f"])
    center, size = (values["cx"], values["cy"]), (height, width)
    fisheye = "FISHEYE" in model
    order = FISHEYE if fisheye else PERSPECTIVE
    # EUCM's beta alone bends nothing: it counts where alpha is not 0.
    others = {
        name: value for name, value in values.items() if name not in ("f", "fx", "fy", "cx", "cy", "beta", *order)
    }
    if any(others.values()):
        raise ValueError(
            f"{where}: want a distortion of OpenCV's models, got {model} with {_named(others)}; "
            "run `colmap image_undistorter` and use its photo and its model"
        )
    coefficients = tuple(values.get(name, 0.0) for name in order)
    if not all(np.isfinite(coefficients)):
        raise ValueError(f"{where}: want finite PARAMS, got {_named(values)}")
    # A fisheye bends even where all coefficients are 0.
    bent = fisheye or any(coefficients)
    return _Lens(
        focal, center, size, DistortedLens(model, fisheye, coefficients, focal, center, size) if bent else None
    )


def _named(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in values.items() if value)


def _known(model: str, where: str) -> str:
    if model not in MODELS:
        raise ValueError(f"{where}: want MODEL one of COLMAP's ({', '.join(MODELS)}), got {model}")
    return model


def _read_cameras_text(text: str) -> dict[int, _Lens]:
    lenses = {}
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        camera_id, *rest = line.split()
        where = f"cameras.txt: camera {camera_id}"
        model, values = rest[0] if rest else "", _floats(rest[1:], where)
        if len(values) < 2:
            raise ValueError(f"{where}: want CAMERA_ID MODEL WIDTH HEIGHT PARAMS, got {line.strip()!r}")
        lenses[_integer(camera_id, "cameras.txt: CAMERA_ID")] = _lens(model, values[0], values[1], values[2:], where)
    return lenses


def _read_images_text(text: str) -> list[_Image]:
    """Parse two lines per image: its pose, then its points, which may be an empty line."""
    images = []
    lines = iter(line for line in text.splitlines() if not line.startswith("#"))
    for line in lines:
        if not line.strip():
            continue
        # NAME, the tenth, may hold spaces.
        tokens = line.split(maxsplit=9)
        where = f"images.txt: image {tokens[0]}"
        if len(tokens) < 10:
            raise ValueError(f"{where}: want IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME, got {line.strip()[:60]!r}")
        values = np.array(_floats(tokens[1:8], where))
        images.append(_Image(tokens[9].strip(), values[:4], values[4:], _integer(tokens[8], f"{where}: CAMERA_ID")))
        if len(next(lines, "").split()) % 3:
            raise ValueError(f"{where}: want a line of POINTS2D (x y id, any number of them) after it; is one missing?")
    return images


def _floats(tokens: Sequence[str], where: str) -> list[float]:
    try:
        return [float(token) for token in tokens]
    except ValueError:
        raise ValueError(f"{where}: want numbers, got {' '.join(tokens)[:60]!r}") from None


def _integer(token: str, where: str) -> int:
    if not token.isdigit():
        raise ValueError(f"{where}: want a whole number, got {token!r}")
    return int(token)


class _Bytes:
    """Sequential reader of a binary file; reading past the end raises a ValueError."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise ValueError(f"{path.name}: missing from the COLMAP model")
        self.name, self._content, self._offset = path.name, path.read_bytes(), 0

    def take(self, layout: str) -> tuple:
        end = self._offset + struct.calcsize("<" + layout)
        if end > len(self._content):
            raise ValueError(f"{self.name}: truncated at byte {len(self._content)}; copy the model again")
        values = struct.unpack_from("<" + layout, self._content, self._offset)
        self._offset = end
        return values

    def skip(self, count: int) -> None:
        self._offset += count
        self.take("")

    def name_string(self) -> str:
        end = self._content.find(b"\0", self._offset)
        if end < 0:
            raise ValueError(f"{self.name}: truncated at byte {len(self._content)}; copy the model again")
        text = self._content[self._offset : end].decode("utf-8", "replace")
        self._offset = end + 1
        return text


def _read_cameras_binary(file: _Bytes) -> dict[int, _Lens]:
    lenses = {}
    for _ in range(file.take("Q")[0]):
        camera_id, model_id, width, height = file.take("iiQQ")
        where = f"cameras.bin: camera {camera_id}"
        model = _known(list(MODELS)[model_id] if 0 <= model_id < len(MODELS) else f"number {model_id}", where)
        params = file.take(f"{len(MODELS[model].split())}d")
        lenses[camera_id] = _lens(model, float(width), float(height), params, where)
    return lenses


def _read_images_binary(file: _Bytes) -> list[_Image]:
    images = []
    for _ in range(file.take("Q")[0]):
        _, *values, camera_id = file.take("i7di")
        name = file.name_string()
        file.skip(24 * file.take("Q")[0])  # each 2D point is two doubles and an id
        images.append(_Image(name, np.array(values[:4]), np.array(values[4:]), camera_id))
    return images
