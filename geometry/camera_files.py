"""Camera paths from files and to files, whatever the format; and from whatever a user types.

| format | recognised by | poses | lens |
|---|---|---|---|
| ``keyframes`` | JSON, ``"format": "worldwarp-keyframes"`` | OpenCV, camera-to-world, sampled through a spline | yes |
| ``nerfstudio`` | JSON with ``frames`` | OpenGL, camera-to-world | yes |
| ``camera_path`` | JSON with ``camera_path`` | OpenGL, camera-to-world | vertical angle |
| ``colmap_text``, ``colmap_binary`` | folder with ``cameras`` and ``images`` | OpenCV, world-to-camera | yes |
| ``tum`` | text, 8 columns | OpenCV, camera-to-world, quaternion xyzw | no |
| ``realestate10k`` | text, 19 columns | OpenCV, world-to-camera | yes |
| ``npy`` | NumPy's signature | as ``convention`` says | no |
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from geometry.camera import Camera
from geometry.camera_record import CameraRecord
from geometry.colmap_files import read_colmap, write_colmap
from geometry.keyframe_files import FORMAT, keyframes_content, read_keyframes
from geometry.nerfstudio_files import camera_path_content, read_camera_path, read_transforms, transforms_content
from geometry.presets import PRESETS, parse_path_expression
from geometry.se3 import inverse
from geometry.spline import CameraSpline, keyframes_of
from geometry.trajectory_files import npy_stack, read_npy, read_text, realestate_text, tum_text

FORMATS = ("keyframes", "nerfstudio", "camera_path", "colmap_text", "colmap_binary", "tum", "realestate10k", "npy")


def open_camera_path(
    text_or_file: str | Path,
    *,
    size: tuple[int, int],
    fov_deg: float | None,
    frames: int | None = None,
    convention: str | None = None,
) -> Camera:
    """Cameras ``[frames]`` from what a user gives as a path: a file or folder, or a preset expression.

    The first camera is the identity: the photo's. A file's poses are taken relative to its first one.

    Args:
        text_or_file: an expression as ``presets.parse_path_expression`` takes it, or a file or folder. A preset's name
            wins over a file of that name; write ``./orbit`` for the file.
        size: image size ``(H, W)`` of the frames to make.
        fov_deg: horizontal field of view in degrees, for presets and for files without intrinsics.
        frames: number of cameras; the file's or the presets' own when not given.
        convention: what the poses of a ``.npy`` stack mean.

    Raises:
        ValueError: a missing file, an unknown preset, or a bad file; one sentence that names the field.
    """
    text = str(text_or_file)
    begins_with_preset = re.split("[,+:]", text)[0].strip() in PRESETS
    if isinstance(text_or_file, Path) or (not begins_with_preset and os.path.exists(text)):
        return rebased(read_cameras(text_or_file, size=size, convention=convention, fov_deg=fov_deg, frames=frames))
    if not begins_with_preset and ("/" in text or os.sep in text or Path(text).suffix):
        raise ValueError(f"path: no file or folder {text!r}; check the name, or use a preset such as orbit")
    if convention is not None:
        raise ValueError(f"convention: a preset needs none, got {convention!r}; remove it")
    return parse_path_expression(text, size=size, fov_deg=fov_deg, frames=frames)


def read_cameras(
    path: str | Path,
    *,
    size: tuple[int, int],
    convention: str | None = None,
    fov_deg: float | None = None,
    frames: int | None = None,
) -> Camera:
    """Cameras from a file or folder of any format in this module's table, recognised by its content.

    Intrinsics follow the image to ``size``. Poses are the file's; see ``rebased``.

    Args:
        path: file or folder.
        size: image size ``(H, W)`` of the frames to make.
        convention: for ``.npy`` only: ``c2w_opencv``, ``c2w_opengl``, ``w2c_opencv`` or ``w2c_opengl``.
        fov_deg: horizontal field of view in degrees, used where the file holds no intrinsics.
        frames: number of cameras to resample the path to, smoothly; as many as the file has when not given.

    Raises:
        ValueError: a file that is missing, of no known format, truncated, of fewer than two poses, with a pose that is
            not finite, rigid and right-handed, with times that do not increase, or with intrinsics that are missing,
            distorted or of images of another aspect; one sentence that names the field.
    """
    path = Path(path)
    if frames is not None and frames < 2:
        raise ValueError(f"frames: want 2 or more, got {frames}")
    try:
        found = _read(path, size, convention, fov_deg, frames)
        if isinstance(found, Camera):
            return found
        camera = found.camera(size, fov_deg)
    except (ValueError, OSError) as error:
        raise ValueError(f"{path}: {error}") from error
    if frames is None or frames == len(camera):
        return camera
    return CameraSpline(keyframes_of(camera, found.time_s), size).sample(frames)


def _read(
    path: Path, size: tuple[int, int], convention: str | None, fov_deg: float | None, frames: int | None
) -> CameraRecord | Camera:
    if path.is_dir():
        return _read_folder(path, size)
    start = _first_bytes(path)
    if not start:
        raise ValueError("the file is empty; want camera poses")
    if start.startswith(b"\x93NUMPY"):
        return read_npy(path, convention)
    if convention is not None:
        raise ValueError(f"convention: this file says itself what its poses mean; got {convention!r}, remove it")
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(
            "want JSON, TUM or RealEstate10K text, a .npy stack, or a COLMAP folder; got another binary file"
        ) from None
    if text.lstrip()[:1] not in ("{", "["):
        return read_text(text, size)
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"the JSON is broken or cut off at line {error.lineno}: {error.msg}") from None
    if not isinstance(content, dict):
        raise ValueError("want a JSON object with keyframes, frames or camera_path; got a list")
    if content.get("format") == FORMAT:
        return read_keyframes(content, size, fov_deg, frames)
    if "camera_path" in content:
        return read_camera_path(content, size)
    if "frames" in content:
        return read_transforms(content, size)
    raise ValueError(
        f'want a JSON object with "format": "{FORMAT}", nerfstudio\'s frames or camera_path; '
        f"got {', '.join(list(content)[:5]) or 'none of them'}"
    )


def _read_folder(path: Path, size: tuple[int, int]) -> CameraRecord | Camera:
    for folder in (path, path / "sparse" / "0", path / "sparse"):
        for suffix in (".bin", ".txt"):
            if (folder / f"cameras{suffix}").is_file() and (folder / f"images{suffix}").is_file():
                return read_colmap(folder)
    if (path / "transforms.json").is_file():
        return _read(path / "transforms.json", size, None, None, None)
    raise ValueError("want a folder with COLMAP's cameras and images (.txt or .bin) or nerfstudio's transforms.json")


def _first_bytes(path: Path) -> bytes:
    if not path.is_file():
        raise ValueError("no such file or folder")
    with path.open("rb") as file:
        return file.read(16)


def rebased(camera: Camera) -> Camera:
    """The same path seen from its first camera ``[n]``: that one becomes the identity."""
    pose = camera.world_from_camera.double()
    relative = (inverse(pose[0]) @ pose).to(camera.world_from_camera.dtype)
    relative[0] = torch.eye(4)  # exactly, not to rounding
    return Camera(relative, camera.focal_px, camera.center_px, camera.size)


def continued(done: Camera, camera: Camera) -> Camera:
    """Finished cameras ``[n]``, then a path ``[m]`` that starts where they end: ``[n + m - 1]``."""
    pose = done.world_from_camera[-1].double() @ rebased(camera).world_from_camera.double()
    onward = replace(camera, world_from_camera=pose.to(done.world_from_camera.dtype))
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
        camera: the cameras.
        format: one of ``FORMATS``.
        fps: frames per second, for formats with times.
        convention: required for ``npy``, as in ``read_cameras``.
        file_paths: image names for ``nerfstudio`` and COLMAP.

    Raises:
        ValueError: an unknown format, a missing convention, or a lens that the format cannot hold.
    """
    path = Path(path)
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
