"""nerfstudio's camera files: ``transforms.json``, ``camera_path.json`` (a path from its viewer), exported cameras.

All hold camera-to-world matrices in OpenGL axes. The field of view of a camera path is vertical, in degrees.
``applied_transform`` and ``applied_scale`` are already included in the matrices and are ignored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from geometry.camera import Camera
from geometry.camera_io.record import (
    OPENGL_AXES,
    CameraRecord,
    Lenses,
    items,
    lookup,
    matrix,
    number,
    order_by_name,
    require_square_pixels,
)
from geometry.lens_distortion import DistortedLens
from geometry.se3 import checked_rigid

FOCAL = ("fl_x", "fl_y", "camera_angle_x", "camera_angle_y")
PERSPECTIVE = ("k1", "k2", "p1", "p2", "k3")  # OpenCV's order
FISHEYE = ("k1", "k2", "k3", "k4")
DISTORTION = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2")
LENS = (*FOCAL, "cx", "cy", "w", "h", *DISTORTION, "camera_model", "is_fisheye")
PERSPECTIVE_MODELS = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL")
OTHER_LENSES = ("ftheta_p0", "latlong", "equirectangular")  # camera models of instant-ngp


def read_transforms(content: dict, image_size: tuple[int, int]) -> CameraRecord:
    """Read a parsed ``transforms.json``; frames are ordered by file name, as in nerfstudio.

    Args:
        content: the parsed file.
        image_size: ``(H, W)`` of the photo, to which angles refer if the file has no ``w`` and ``h``.

    Raises:
        ValueError: a lens model that OpenCV lacks, or a field that is missing or wrong; the message names it.
    """
    frames = items(content["frames"], "frames")
    matrices = [
        matrix(lookup(frame, "transform_matrix", f"frames[{i}]"), f"frames[{i}].transform_matrix")
        for i, frame in enumerate(frames)
    ]
    poses = checked_rigid(torch.stack(matrices), "frames[{}].transform_matrix")
    rows = [_Fields(content, frame, f"frames[{i}].").lens(image_size) for i, frame in enumerate(frames)]
    names = [frame.get("file_path") for frame in frames]
    named = all(isinstance(name, str) for name in names)
    order = order_by_name(names) if named else list(range(len(frames)))
    ordered = [names[i] for i in order] if named else None
    found = [rows[i] for i in order if rows[i] is not None]
    if not found:
        return CameraRecord((poses @ OPENGL_AXES)[order], names=ordered)
    if len(found) < len(rows):
        first = next(i for i, row in enumerate(rows) if row is None)
        raise ValueError(
            f"frames[{first}].fl_x: missing, while other frames have it; give all frames intrinsics or none"
        )
    table = torch.tensor([lens[0] for lens in found if lens], dtype=torch.float64)
    distorted = found[0][1] if found[0] else None
    lenses = Lenses(table[:, 0:2], table[:, 2:4], table[:, 4:6], "w, h", distorted)
    return CameraRecord((poses @ OPENGL_AXES)[order], lenses, names=ordered)


def read_exported(content: list, image_size: tuple[int, int]) -> CameraRecord:
    """Read the file of ``ns-export cameras``: a list of ``file_path`` and ``transform`` (3x4), without intrinsics.

    Raises:
        ValueError: a list of other entries; the message names the expected ones.
    """
    if not all(isinstance(entry, dict) and "transform" in entry for entry in content):
        raise ValueError(
            "want a JSON object with keyframes, frames or camera_path, or the list that `ns-export cameras` writes "
            "(file_path and transform of each camera); got another list"
        )
    frames = [{"file_path": entry.get("file_path"), "transform_matrix": entry["transform"]} for entry in content]
    return read_transforms({"frames": frames}, image_size)


class _Fields:
    """The lens fields of one frame: the frame's own fields override those of the file."""

    def __init__(self, content: dict, frame: dict, where: str) -> None:
        own = {name: frame[name] for name in LENS if name in frame}
        shared = {name: content[name] for name in LENS if name in content}
        if any(name in own for name in FOCAL):  # a focal length in another form (pixels or angle) is overridden too
            shared = {name: value for name, value in shared.items() if name not in FOCAL}
        self._values, self._own, self._where = shared | own, own, where
        for name in OTHER_LENSES:
            if content.get(name) or frame.get(name):
                raise ValueError(f"{name}: want a perspective or fisheye lens; undistort the photo and its cameras")

    def _name(self, name: str) -> str:
        """Name of a field in messages, with the frame's prefix if the frame has the field or should have it."""
        return self._where + name if name in self._own or (self._own and name not in self._values) else name

    def _number(self, name: str, default: float = 0.0, *, positive: bool = False) -> float:
        return number(self._values.get(name, default), self._name(name), positive=positive)

    def lens(self, image_size: tuple[int, int]) -> tuple[list[float], DistortedLens | None] | None:
        """``fx fy cx cy h w``, and the distortion or None; None without any lens field."""
        model, fisheye, coefficients = self._distortion()
        bent = fisheye or any(coefficients)
        if not any(name in self._values for name in FOCAL):
            half = [name for name in ("cx", "cy") if name in self._values] + ["distortion"] * bent
            if half:
                raise ValueError(f"{self._name('fl_x')}: missing, while there is {half[0]}; give the focal length too")
            return None
        if "w" in self._values and "h" in self._values:
            width, height = self._number("w", positive=True), self._number("h", positive=True)
        elif any(name in self._values for name in ("w", "h", "fl_x", "fl_y", "cx", "cy")):
            raise ValueError(
                f"{self._name('w')}, {self._name('h')}: missing; fl_x and cx are pixels of an image whose size the "
                "file must say"
            )
        else:
            height, width = float(image_size[0]), float(image_size[1])
        focal_x, focal_y = self._focal("x", width), self._focal("y", height)
        focal = (focal_x or focal_y or 0.0, focal_y or focal_x or 0.0)
        center = (self._number("cx", width / 2.0), self._number("cy", height / 2.0))
        size = (height, width)
        return [*focal, *center, *size], DistortedLens(
            model, fisheye, coefficients, focal, center, size
        ) if bent else None

    def _focal(self, axis: str, side_px: float) -> float | None:
        """Focal length in pixels along one axis, from pixels or from an angle; None if both are missing."""
        pixels_name, angle_name = f"fl_{axis}", f"camera_angle_{axis}"
        pixels = self._number(pixels_name, positive=True) if pixels_name in self._values else None
        if angle_name not in self._values:
            return pixels
        angle = self._number(angle_name, positive=True)
        if angle >= math.pi:
            raise ValueError(f"{self._name(angle_name)}: want radians in (0, pi), got {angle}")
        of_angle = 0.5 * side_px / math.tan(angle / 2.0)
        # Both are given: up to 2 % apart they describe one lens.
        if pixels is not None and abs(math.log(pixels / of_angle)) > 0.02:
            raise ValueError(
                f"{self._name(angle_name)}: want the angle of {pixels_name} = {pixels:g} across {side_px:g} pixels, "
                f"got one of a focal length of {of_angle:g}; remove the wrong one"
            )
        return of_angle if pixels is None else pixels

    def _distortion(self) -> tuple[str, bool, tuple[float, ...]]:
        """The model's name, whether it is a fisheye, and OpenCV's coefficients."""
        model = self._values.get("camera_model", "OPENCV")
        if model != "OPENCV_FISHEYE" and model not in PERSPECTIVE_MODELS:
            raise ValueError(
                f"{self._name('camera_model')}: want one of {', '.join(PERSPECTIVE_MODELS)}, OPENCV_FISHEYE, got "
                f"{model!r}; undistort the photo and its cameras"
            )
        fisheye = model == "OPENCV_FISHEYE" or bool(self._values.get("is_fisheye"))
        order = FISHEYE if fisheye else PERSPECTIVE
        values = {name: self._number(name) for name in DISTORTION}
        for name, value in values.items():
            if value and name not in order:
                raise ValueError(
                    f"{self._name(name)}: want 0 for {'a fisheye' if fisheye else 'a perspective'} lens, which has "
                    f"{', '.join(order)}, got {value:g}; undistort the photo and its cameras"
                )
        return "OPENCV_FISHEYE" if fisheye else str(model), fisheye, tuple(values[name] for name in order)


def read_camera_path(content: dict, image_size: tuple[int, int]) -> CameraRecord:
    """Read a parsed ``camera_path.json``.

    Its lens is an angle and not a number of pixels, so it applies to a photo of any size: the vertical field of view is
    kept, as in nerfstudio for another ``render_width``.

    Args:
        content: the parsed file.
        image_size: ``(H, W)`` of the photo.

    Raises:
        ValueError: a camera that is not perspective, or a field that is missing or wrong; the message names it.
    """
    kind = content.get("camera_type", "perspective")
    if kind != "perspective":
        raise ValueError(f"camera_type: want 'perspective', got {kind!r}; export the path with a perspective camera")
    entries = items(content["camera_path"], "camera_path")
    matrices, focals = [], []
    for index, entry in enumerate(entries):
        where = f"camera_path[{index}]"
        matrices.append(matrix(lookup(entry, "camera_to_world", where), f"{where}.camera_to_world"))
        fov_deg = number(lookup(entry, "fov", where), f"{where}.fov")
        if not 0.0 < fov_deg < 180.0:
            raise ValueError(f"{where}.fov: want vertical degrees in (0, 180), got {fov_deg}")
        focals.append(0.5 * image_size[0] / math.tan(math.radians(fov_deg / 2.0)))
    poses = checked_rigid(torch.stack(matrices), "camera_path[{}].camera_to_world")
    focal = torch.tensor(focals, dtype=torch.float64)[:, None].expand(-1, 2)
    extent = torch.tensor(image_size, dtype=torch.float64).expand(len(entries), 2)
    return CameraRecord(poses @ OPENGL_AXES, Lenses(focal, extent.flip(-1) / 2.0, extent, "fov"))


def transforms_content(camera: Camera, file_paths: Sequence[str] | None = None) -> dict:
    """The JSON object of a ``transforms.json`` for a batch ``[n]``.

    Args:
        camera: cameras ``[n]``.
        file_paths: image path of each camera; ``frames/00000.png`` and so on when None.
    """
    shared = share_a_lens(camera)
    return transforms_head(camera, with_lens=shared) | {
        "frames": transforms_frames(camera, file_paths, with_lens=not shared)
    }


def transforms_head(camera: Camera, *, with_lens: bool) -> dict:
    """Fields of a ``transforms.json`` common to all frames, with the intrinsics of the first camera if asked."""
    top = _lenses(camera[:1])[0] if with_lens else {}
    return {"camera_model": "OPENCV", "w": camera.size[1], "h": camera.size[0], **top}


def transforms_frames(camera: Camera, file_paths: Sequence[str] | None = None, *, with_lens: bool) -> list[dict]:
    """The entries of ``frames`` in a ``transforms.json``, with or without intrinsics in each."""
    paths = [f"frames/{i:05d}.png" for i in range(len(camera))] if file_paths is None else file_paths
    if len(paths) != len(camera):
        raise ValueError(f"file_paths: want one for each of {len(camera)} cameras, got {len(paths)}")
    matrices = (camera.world_from_camera.double() @ OPENGL_AXES).tolist()
    lenses = _lenses(camera) if with_lens else [{}] * len(camera)
    frames = zip(paths, matrices, lenses, strict=True)
    return [{"file_path": path, "transform_matrix": matrix} | lens for path, matrix, lens in frames]


def share_a_lens(camera: Camera) -> bool:
    """Whether all cameras of a batch ``[n]`` have the same intrinsics."""
    lenses = torch.cat([camera.focal_px, camera.center_px], -1)
    return bool((lenses == lenses[0]).all())


def _lenses(camera: Camera) -> list[dict[str, float]]:
    lenses = torch.cat([camera.focal_px, camera.center_px], -1).tolist()
    return [dict(zip(("fl_x", "fl_y", "cx", "cy"), lens, strict=True)) for lens in lenses]


def camera_path_content(camera: Camera, fps: float) -> dict:
    """The JSON object of a ``camera_path.json`` for a batch ``[n]``.

    Raises:
        ValueError: pixels that are not square, or a principal point off the center: the format cannot hold them.
    """
    require_square_pixels(camera, "a nerfstudio camera path")
    height, width = camera.size
    matrices = (camera.world_from_camera.double() @ OPENGL_AXES).flatten(1).tolist()
    fovs_deg = camera.fov_deg[:, 1].tolist()
    steps = zip(matrices, fovs_deg, strict=True)
    return {
        "camera_type": "perspective",
        "render_height": height,
        "render_width": width,
        "fps": fps,
        "seconds": len(camera) / fps,
        "is_cycle": False,
        "smoothness_value": 0.0,
        "default_fov": fovs_deg[0],
        "keyframes": [],
        "camera_path": [{"camera_to_world": matrix, "fov": fov, "aspect": width / height} for matrix, fov in steps],
    }
