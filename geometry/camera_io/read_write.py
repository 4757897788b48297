"""Read and write camera paths in all formats, and parse the ``path`` setting of users.

| format | recognized by | poses | lens |
|---|---|---|---|
| ``keyframes`` | JSON, ``"format": "worldwarp-keyframes"`` | OpenCV, camera-to-world, sampled through a spline | yes |
| ``nerfstudio`` | JSON with ``frames`` | OpenGL, camera-to-world | yes |
| (read only) | JSON list with ``transform`` (`ns-export cameras`) | OpenGL, camera-to-world | no |
| ``camera_path`` | JSON with ``camera_path`` | OpenGL, camera-to-world | vertical angle |
| ``colmap_text``, ``colmap_binary`` | folder with ``cameras`` and ``images`` | OpenCV, world-to-camera | yes |
| ``tum`` | text, 8 columns | OpenCV, camera-to-world, quaternion xyzw or by ``convention`` | no |
| ``realestate10k`` | text, 19 columns | OpenCV, world-to-camera | yes |
| ``npy`` | NumPy's signature, also in a ``.npz`` | by ``convention`` | no |

Poses stay in float64 until they are relative to the first camera: in float32, coordinates of millions (geo-referenced
models) would round off steps of less than half a unit.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from geometry.camera import Camera
from geometry.camera_io.colmap import read_colmap, write_colmap
from geometry.camera_io.keyframes import FORMAT, keyframes_content, read_keyframes
from geometry.camera_io.nerfstudio import (
    camera_path_content,
    read_camera_path,
    read_exported,
    read_transforms,
    transforms_content,
)
from geometry.camera_io.record import CameraRecord, text_of
from geometry.camera_io.tum_re10k_npy import (
    npy_stack,
    read_npy,
    read_text,
    realestate_text,
    refuse_convention,
    tum_text,
)
from geometry.lens_distortion import DistortedLens
from geometry.se3 import inverse
from geometry.trajectory.expressions import parse_path_expression
from geometry.trajectory.path_text import names_a_file
from geometry.trajectory.spline import CameraSpline, keyframes_of

FORMATS = ("keyframes", "nerfstudio", "camera_path", "colmap_text", "colmap_binary", "tum", "realestate10k", "npy")


@dataclass(frozen=True)
class CameraPath:
    """A parsed ``path`` setting.

    Attributes:
        cameras: the path ``[n]`` in float32; the first camera is the identity.
        from_file: whether the path is from a file, whose unit of length is unknown, and not from presets.
        lens: distorted lens of the photo, or None; the cameras are pinholes, so the photo has to be undistorted.
    """

    cameras: Camera
    from_file: bool
    lens: DistortedLens | None = None


@dataclass(frozen=True)
class FilmedCameras:
    """The cameras of a file, and what tells which image each of them took.

    Attributes:
        cameras: ``[n]`` in float64, with the file's poses.
        time_s: ``n`` times in seconds, or None.
        stamp_s: seconds per unit of the file's time stamps, or None.
        names: ``n`` names of images, or None.
        lens: distorted lens of the images, or None.
    """

    cameras: Camera
    time_s: list[float] | None = None
    stamp_s: float | None = None
    names: list[str] | None = None
    lens: DistortedLens | None = None


def open_camera_path(
    text_or_file: str | Path,
    *,
    size: tuple[int, int],
    fov_deg: float | None,
    frames: int | None = None,
    convention: str | None = None,
    photo_size: tuple[int, int] | None = None,
) -> CameraPath:
    """Cameras ``[frames]`` from a ``path`` setting: a file, a folder, or a preset expression.

    The first camera is that of the photo, with the identity pose; poses of a file are taken relative to its first one.

    Args:
        text_or_file: an expression for ``parse_path_expression``, or a file or folder. The name of a preset takes
            precedence over a file of that name; ``./orbit`` means the file.
        size: image size ``(H, W)`` of the frames to make.
        fov_deg: horizontal field of view in degrees, for presets and for files without intrinsics.
        frames: number of cameras; that of the file or the presets when None.
        convention: as in ``read_cameras``.
        photo_size: as in ``read_cameras``.

    Raises:
        ValueError: a missing file, an unknown preset, or a bad file; one sentence that names the field.
    """
    text = os.path.expanduser(str(text_or_file))
    if isinstance(text_or_file, Path) or names_a_file(text):
        camera, lens = _read_path(Path(text), size, convention, fov_deg, frames, photo_size)
        return CameraPath(rebased(camera), True, lens)
    if convention is not None:
        raise ValueError(f"convention: a preset needs none, got {convention!r}; remove it")
    return CameraPath(parse_path_expression(text, size=size, fov_deg=fov_deg, frames=frames), False)


def read_cameras(
    path: str | Path,
    *,
    size: tuple[int, int],
    convention: str | None = None,
    fov_deg: float | None = None,
    frames: int | None = None,
    photo_size: tuple[int, int] | None = None,
) -> Camera:
    """Read cameras in float64 from a file or folder of any format in the table above, recognized by its content.

    Poses are exactly those of the file; ``rebased`` turns them into a float32 path that starts at the photo. Intrinsics
    are adapted to images that are cropped about their center to the aspect of ``size`` and resampled. A lens with
    distortion becomes the pinhole of the same focal length (``open_camera_path`` also returns the lens, to undistort
    the photo).

    Args:
        path: file or folder.
        size: image size ``(H, W)`` of the frames to make.
        convention: for ``.npy`` and ``.npz`` ``c2w_opencv``, ``c2w_opengl``, ``w2c_opencv`` or ``w2c_opengl``; for text
            of 8 columns with an ambiguous quaternion order, ``tum_xyzw`` or ``tum_wxyz``.
        fov_deg: horizontal field of view, degrees, used if the file holds no intrinsics.
        frames: number of cameras, to which the path is resampled by a spline; that of the file when None.
        photo_size: size ``(H, W)`` of the photo taken by the first camera, from which frames of any aspect are cropped;
            when None, the file's images must have the frames' aspect.

    Raises:
        ValueError: a file that is missing, of no known format, truncated, of fewer than two poses, with a pose that is
            not finite, rigid and right-handed, with times that do not increase, or with intrinsics that are missing,
            of an unknown distortion or of images of another aspect; one sentence that names the field.
    """
    return _read_path(Path(path).expanduser(), size, convention, fov_deg, frames, photo_size)[0]


def _read_path(
    path: Path,
    size: tuple[int, int],
    convention: str | None,
    fov_deg: float | None,
    frames: int | None,
    photo_size: tuple[int, int] | None,
) -> tuple[Camera, DistortedLens | None]:
    if frames is not None and frames < 2:
        raise ValueError(f"frames: want 2 or more, got {frames}")
    found = read_filmed_cameras(
        path, size=size, photo_size=photo_size, convention=convention, fov_deg=fov_deg, frames=frames
    )
    if frames is None or frames == len(found.cameras):
        return found.cameras, found.lens
    return CameraSpline(keyframes_of(found.cameras, found.time_s), size).sample(frames), found.lens


def read_filmed_cameras(
    path: Path,
    *,
    size: tuple[int, int],
    photo_size: tuple[int, int] | None,
    convention: str | None,
    fov_deg: float | None,
    frames: int | None = None,
) -> FilmedCameras:
    """Read the cameras of a file with the names and times of their images; arguments as in `read_cameras`.

    Only the keyframes of our own format are resampled to ``frames``.

    Raises:
        ValueError: as `read_cameras`.
    """
    try:
        found = _read(path, photo_size or size, convention)
        if isinstance(found, dict):
            return FilmedCameras(read_keyframes(found, size, fov_deg, frames, photo_size))
        camera = found.camera(size, fov_deg, photo_size)
    except (ValueError, OSError) as error:
        raise ValueError(f"{path}: {error}") from error
    lens = None if found.lenses is None else found.lenses.distorted
    return FilmedCameras(camera, found.time_s, found.stamp_s, found.names, lens)


def _read(path: Path, image_size: tuple[int, int], convention: str | None) -> CameraRecord | dict:
    """Read the poses of a file or folder; for a keyframes file, its parsed JSON."""
    if path.is_dir():
        path = _in_folder(path)
    if path.is_dir():
        refuse_convention(convention)
        return read_colmap(path)
    start = _first_bytes(path)
    if not start:
        raise ValueError("the file is empty; want camera poses")
    if start.startswith((b"\x93NUMPY", b"PK\x03\x04")):
        return read_npy(path, convention)
    try:
        text = text_of(path)
    except ValueError:
        raise ValueError(
            "want JSON, TUM or RealEstate10K text (UTF-8 or UTF-16), a .npy stack, or a COLMAP folder; "
            "got another binary file"
        ) from None
    # JSON may begin with comments; anything else that is no binary file is a table.
    if not re.match(r"(\s|(//|#).*\n)*(\{|\[|/\*)", text):
        return read_text(text, image_size, convention)
    content = _parsed(text)
    refuse_convention(convention)
    if isinstance(content, list):
        return read_exported(content, image_size)
    if content.get("format") == FORMAT:
        return content
    if "camera_path" in content:
        return read_camera_path(content, image_size)
    if "frames" in content:
        return read_transforms(content, image_size)
    raise ValueError(
        f'want a JSON object with "format": "{FORMAT}", nerfstudio\'s frames or camera_path; '
        f"got {', '.join(list(content)[:5]) or 'none of them'}"
    )


def _parsed(text: str) -> dict | list:
    """Parse JSON in which whole lines may be ``//`` comments."""
    lines = ["" if line.lstrip().startswith("//") else line for line in text.splitlines()]
    try:
        return json.loads("\n".join(lines))
    except json.JSONDecodeError as error:
        line = lines[error.lineno - 1] if lines else ""
        if re.search(r"//|/\*|^\s*#", line):
            raise ValueError(
                f"line {error.lineno}: JSON has no comments, got {line.strip()[:40]!r}; remove it"
            ) from None
        raise ValueError(f"the JSON is broken or cut off at line {error.lineno}: {error.msg}") from None


def _in_folder(path: Path) -> Path:
    """Find the folder of a COLMAP model, or nerfstudio's ``transforms.json``, in a folder."""
    # The model itself, then where COLMAP and its reconstructions put it.
    for folder in (path, path / "sparse" / "0", path / "sparse"):
        for suffix in (".bin", ".txt"):
            if (folder / f"cameras{suffix}").is_file() and (folder / f"images{suffix}").is_file():
                return folder
    if (path / "transforms.json").is_file():
        return path / "transforms.json"
    raise ValueError("want a folder with COLMAP's cameras and images (.txt or .bin) or nerfstudio's transforms.json")


def _first_bytes(path: Path) -> bytes:
    if not path.is_file():
        raise ValueError("no such file or folder")
    with path.open("rb") as file:
        return file.read(16)


def rebased(camera: Camera) -> Camera:
    """The path ``[n]`` relative to its first camera, which becomes the identity; in float32."""
    pose = camera.world_from_camera.double()
    relative = (inverse(pose[0]) @ pose).float()
    relative[0] = torch.eye(4)  # exactly, without rounding errors
    return Camera(relative, camera.focal_px.float(), camera.center_px.float(), camera.size)


def scaled(camera: Camera, factor: float) -> Camera:
    """The path ``[n]`` with its positions multiplied by ``factor``."""
    pose = camera.world_from_camera.clone()
    pose[..., :3, 3] *= factor
    return replace(camera, world_from_camera=pose)


def continued(done: Camera, camera: Camera) -> Camera:
    """Append a path ``[m]``, relative to its first camera, to finished cameras ``[n]``: ``[n + m - 1]``."""
    relative = rebased(camera)
    pose = done.world_from_camera[-1].double() @ relative.world_from_camera.double()
    onward = replace(relative, world_from_camera=pose.to(done.world_from_camera.dtype))
    return Camera.concatenate([done, onward[1:]])


def write_cameras(
    path: str | Path,
    camera: Camera,
    format: str,
    *,
    fps: float = 24.0,
    convention: str | None = None,
    file_paths: Sequence[str] | None = None,
) -> None:
    """Write a batch ``[n]`` in one of ``FORMATS``; ``tum`` and ``npy`` hold poses only.

    Args:
        path: file, or folder for COLMAP; parents must exist.
        camera: cameras ``[n]``.
        format: one of ``FORMATS``.
        fps: frames per second, for formats with times.
        convention: required for ``npy``, as in ``read_cameras``.
        file_paths: image names for ``nerfstudio`` and COLMAP.

    Raises:
        ValueError: an unknown format, a missing convention, or a lens that the format cannot hold.
    """
    path = Path(path).expanduser()
    if format in ("colmap_text", "colmap_binary"):
        write_colmap(path, camera, file_paths, binary=format == "colmap_binary")
    elif format == "npy":
        with path.open("wb") as file:
            np.save(file, npy_stack(camera, convention), allow_pickle=False)
    elif format in FORMATS:
        path.write_text(_text(camera, format, fps, file_paths), "utf-8")
    else:
        raise ValueError(f"format: want one of {', '.join(FORMATS)}, got {format!r}")


def _text(camera: Camera, format: str, fps: float, file_paths: Sequence[str] | None) -> str:
    if format == "tum":
        return tum_text(camera, fps)
    if format == "realestate10k":
        return realestate_text(camera, fps)
    contents = {
        "keyframes": lambda: keyframes_content(camera, fps),
        "nerfstudio": lambda: transforms_content(camera, file_paths),
        "camera_path": lambda: camera_path_content(camera, fps),
    }
    return json.dumps(contents[format](), indent=1, allow_nan=False)
