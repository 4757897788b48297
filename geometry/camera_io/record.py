"""Content of a camera file before it is fitted to the frame size, and parsers of its fields."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from geometry.camera import Camera
from geometry.lens_distortion import DistortedLens

ASPECT_TOLERANCE = 0.03  # of the log aspect: the effect of rounding an image's size to multiples of 8
SIDE_STEP = 16  # pixels; sides of frames are multiples of it

# Right-multiplied to a pose, converts camera axes between OpenGL (y up, z backward) and OpenCV (y down, z forward).
OPENGL_AXES = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64))


@dataclass(frozen=True)
class Lenses:
    """Pinhole intrinsics, in pixels of the file's images.

    Attributes:
        focal_px: ``(fx, fy)``, ``[n 2]``.
        center_px: ``(cx, cy)``, ``[n 2]``.
        image_size: ``(H, W)`` of each image, ``[n 2]``.
        size_fields: names of the fields of the file that hold the size, for messages.
        distorted: lens of the first camera if it has distortion, by which the photo is undistorted; else None.
    """

    focal_px: Float[Tensor, "n 2"]
    center_px: Float[Tensor, "n 2"]
    image_size: Float[Tensor, "n 2"]
    size_fields: str
    distorted: DistortedLens | None = None


@dataclass(frozen=True)
class CameraRecord:
    """Content of a camera file: OpenCV camera-to-world poses, and intrinsics, times and names if the file has them.

    Attributes:
        world_from_camera: ``[n 4 4]`` float64, rigid.
        lenses: intrinsics, or None.
        time_s: ``n`` times in seconds, or None.
        stamp_s: seconds per unit of the time stamps in the file, by which frames are named; None without times.
        names: ``n`` names of the images, as the file has them, or None.
    """

    world_from_camera: Float[Tensor, "n 4 4"]
    lenses: Lenses | None = None
    time_s: list[float] | None = None
    stamp_s: float | None = None
    names: list[str] | None = None

    def camera(self, size: tuple[int, int], fov_deg: float | None, photo_size: tuple[int, int] | None = None) -> Camera:
        """Cameras in float64 for images of ``size = (H, W)``: the file's images, cropped about their center.

        Args:
            size: image size ``(H, W)`` of the frames to make.
            fov_deg: horizontal field of view of the frames, degrees, for files without intrinsics.
            photo_size: size ``(H, W)`` of the photo taken by the first camera; when None, the file's images must have
                the frames' aspect.

        Raises:
            ValueError: intrinsics that are not positive or of an image of another shape, or no intrinsics at all.
        """
        poses = self.world_from_camera.double()
        if self.lenses is None:
            if fov_deg is None:
                raise ValueError("fov_deg: this file holds no intrinsics; give the horizontal field of view in degrees")
            return Camera.from_fov(fov_deg, size, poses)
        lenses = self.lenses
        _check_lenses(lenses, size, photo_size)
        # The photo is undistorted and cropped by its lens, and all images with it.
        kept = 1.0 if lenses.distorted is None else lenses.distorted.kept
        shown = lenses.image_size * kept
        center = lenses.center_px - (lenses.image_size - shown).flip(-1) / 2.0
        return Camera(poses, *cropped(lenses.focal_px, center, shown, size), size)


def cropped(
    focal_px: Float[Tensor, "n 2"],
    center_px: Float[Tensor, "n 2"],
    image_size: Float[Tensor, "n 2"],
    size: tuple[int, int],
) -> tuple[Float[Tensor, "n 2"], Float[Tensor, "n 2"]]:
    """Intrinsics of images that are cropped about their center to the aspect of ``size`` and resampled to it.

    Both axes are scaled by one factor, so square pixels stay square.

    Args:
        focal_px: ``(fx, fy)``, pixels of the whole image.
        center_px: ``(cx, cy)``, pixels of the whole image.
        image_size: ``(H, W)`` of the whole images.
        size: ``(H, W)`` of the frames.

    Returns:
        Focal lengths and principal points in pixels of the frames.
    """
    wanted = image_size.new_tensor(size)
    # The larger factor: the frame is filled, and what reaches beyond it is cropped.
    scale = (wanted / image_size).amax(-1, keepdim=True)
    center = (center_px - image_size.flip(-1) / 2.0) * scale + wanted.flip(-1) / 2.0
    return focal_px * scale, center


def _check_lenses(lenses: Lenses, size: tuple[int, int], photo_size: tuple[int, int] | None) -> None:
    for index in range(len(lenses.focal_px)):
        height, width = lenses.image_size[index].tolist()
        if not (0.0 < height < math.inf and 0.0 < width < math.inf):
            raise ValueError(
                f"{lenses.size_fields}: want a positive image size for camera {index}, got {width}x{height}"
            )
        focal, center = lenses.focal_px[index], lenses.center_px[index]
        if not (focal.isfinite().all() and (focal > 0.0).all() and center.isfinite().all()):
            raise ValueError(
                f"intrinsics of camera {index}: want positive focal lengths and a finite principal point, "
                f"got focal {focal.tolist()}, principal point {center.tolist()}"
            )
        check_aspect((height, width), size, photo_size, lenses.size_fields, f"the intrinsics of camera {index} are")


def check_aspect(
    image_size: tuple[float, float],
    size: tuple[int, int],
    photo_size: tuple[int, int] | None,
    field: str,
    what: str,
) -> None:
    """Raise if the aspect of images ``(H, W)`` differs from the photo's, or from the frames' if that is unknown."""
    (height, width), (shown_height, shown_width) = image_size, photo_size or size
    if abs(math.log(width / height * shown_height / shown_width)) <= ASPECT_TOLERANCE:
        return
    found = f"{field}: {what} for images of {width:g}x{height:g}"
    if photo_size is not None:
        raise ValueError(
            f"{found}, but the photo is {shown_width}x{shown_height}, of another shape; give the whole photo that the "
            "first camera took, or crop the cameras as the photo was cropped"
        )
    fitting = _fitting_size(width / height, size)
    advice = "" if fitting is None else f"{fitting[1]}x{fitting[0]} fits (size=[{fitting[0]},{fitting[1]}]), or "
    raise ValueError(
        f"{found}, aspect {width / height:.3f} (width over height), but the frames to make are "
        f"{shown_width}x{shown_height}, aspect {shown_width / shown_height:.3f}; {advice}crop the cameras to yours"
    )


def _fitting_size(aspect: float, size: tuple[int, int]) -> tuple[int, int] | None:
    """Size ``(H, W)`` of an aspect (width over height), in multiples of ``SIDE_STEP``, with about as many pixels."""
    pixels = size[0] * size[1]
    heights = range(2 * SIDE_STEP, 4 * max(size), SIDE_STEP)
    sizes = [(height, SIDE_STEP * round(height * aspect / SIDE_STEP)) for height in heights]
    fitting = [s for s in sizes if s[1] >= 2 * SIDE_STEP and abs(math.log(s[1] / s[0] / aspect)) <= ASPECT_TOLERANCE]
    return min(fitting, key=lambda s: abs(math.log(s[0] * s[1] / pixels)), default=None)


def text_of(path: Path) -> str:
    """The text of a file in UTF-8, UTF-16 or UTF-32, with or without a byte order mark.

    Raises:
        ValueError: other bytes.
    """
    content = path.read_bytes()
    try:
        text = content.decode(json.detect_encoding(content))  # from the byte order mark, or the positions of zero bytes
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise ValueError(f"{path.name}: want UTF-8 or UTF-16 text, got other bytes; save it as UTF-8")
    return text.removeprefix("\ufeff")


def lookup(entry: object, key: str, where: str) -> object:
    """``entry[key]`` of a parsed JSON object, or a ValueError that names the field."""
    if not isinstance(entry, Mapping):
        raise ValueError(f"{where or 'file'}: want a JSON object, got {type(entry).__name__}")
    if key not in entry:
        raise ValueError(f"{dotted(where, key)}: missing")
    return entry[key]


def array(value: object, shape: Sequence[int], field: str) -> np.ndarray:
    """Nested JSON numbers as float64 of one shape, or a ValueError that names the field."""
    try:
        numbers = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        numbers = None
    if numbers is None or numbers.shape != tuple(shape):
        what = "a number" if not shape else f"{'x'.join(map(str, shape))} numbers"
        raise ValueError(f"{field}: want {what}, got {_short(value)}")
    return numbers


def matrix(value: object, field: str) -> Tensor:
    """A camera matrix ``[4 4]`` float64: 4x4 or 3x4 numbers, nested or flat by rows, up to a homogeneous factor.

    Raises:
        ValueError: other numbers; the message names the field.
    """
    try:
        numbers = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        numbers = None
    if numbers is None or numbers.shape not in ((4, 4), (3, 4), (16,), (12,)):
        raise ValueError(f"{field}: want a matrix of 4x4 or 3x4 numbers, nested or flat by rows, got {_short(value)}")
    return homogeneous(torch.from_numpy(numbers).view(1, -1, 4))[0]


def homogeneous(matrices: Float[Tensor, "n r 4"]) -> Float[Tensor, "n 4 4"]:
    """Matrices with a last row ``0 0 0 1``: added where missing, or divided by its last entry where that is not 1."""
    if matrices.shape[-2] == 3:
        last = matrices.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(len(matrices), 1, 4)
        return torch.cat([matrices, last], -2)
    w = matrices[:, 3:, 3:]
    # Other last rows stay, to be refused with their numbers.
    scaled = (matrices[:, 3:, :3] == 0.0).all(-1, keepdim=True) & (w != 0.0) & w.isfinite()
    return torch.where(scaled, matrices / torch.where(scaled, w, 1.0), matrices)


def number(value: object, field: str, *, positive: bool = False) -> float:
    """A finite JSON number, or a ValueError that names the field."""
    result = float(array(value, (), field))
    if not math.isfinite(result) or (positive and result <= 0.0):
        raise ValueError(f"{field}: want a {'positive' if positive else 'finite'} number, got {result}")
    return result


def items(value: object, field: str) -> list:
    """A JSON list of two entries or more, or a ValueError that names the field."""
    if not isinstance(value, list):
        raise ValueError(f"{field}: want a list, got {type(value).__name__}")
    require_path(len(value), field)
    return value


def require_path(count: int, field: str) -> None:
    """Raise if there are fewer than two poses."""
    if count < 2:
        raise ValueError(f"{field}: want 2 or more poses, got {count}; one pose is not a path")


def unit_quat(quat: np.ndarray, field: str) -> Tensor:
    """A quaternion wxyz ``[4]`` of length 1 up to rounding, or a ValueError that names the field."""
    length = float(np.linalg.norm(quat))
    if not abs(length - 1.0) < 1e-2:  # also true of NaN
        raise ValueError(f"{field}: want a unit quaternion, got length {length:.4g}")
    return torch.from_numpy(quat / length)


def order_by_name(names: Sequence[str]) -> list[int]:
    """Natural sort order of file names: ``frame_2`` before ``frame_10``."""
    keys = [
        [int(part) if i % 2 else part for i, part in enumerate(re.split("([0-9]+)", name))]  # odd parts are the digits
        for name in names
    ]
    return sorted(range(len(names)), key=keys.__getitem__)


def dotted(where: str, key: str) -> str:
    """``where.key``, or ``key`` at the top of a file."""
    return f"{where}.{key}" if where else key


def require_square_pixels(camera: Camera, format_name: str) -> None:
    """Raise if intrinsics do not fit a format with one angle per camera."""
    middle = camera.center_px.new_tensor([camera.size[1] / 2.0, camera.size[0] / 2.0])
    uneven = (camera.focal_px[:, 0] / camera.focal_px[:, 1] - 1.0).abs().max().item()
    off = (camera.center_px - middle).abs().max().item()
    if uneven > 1e-4 or off > 1e-2:
        raise ValueError(
            f"camera: {format_name} holds square pixels and a centered principal point, got fx and fy that differ by "
            f"{100 * uneven:.2g}% and a principal point {off:.2g} px off the middle; write nerfstudio or colmap instead"
        )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
