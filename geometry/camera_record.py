"""What a camera file says, before it is fitted to the frames that are to be made; and small readers of its fields."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from geometry.camera import Camera

ASPECT_TOLERANCE = 0.03  # what rounding an image's size to whole pixels or multiples of 8 can do

# Right-multiplied onto a pose, it renames camera axes between OpenGL (y up, z backward) and OpenCV (y down, z forward).
OPENGL_AXES = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64))


@dataclass(frozen=True)
class Lenses:
    """Pinhole intrinsics, in pixels of the images they belong to.

    Attributes:
        focal_px: ``[n 2]``.
        center_px: ``[n 2]``.
        image_size: ``(H, W)`` of each image, ``[n 2]``.
        size_fields: which fields of the file say so; for messages.
    """

    focal_px: Float[Tensor, "n 2"]
    center_px: Float[Tensor, "n 2"]
    image_size: Float[Tensor, "n 2"]
    size_fields: str


@dataclass(frozen=True)
class CameraRecord:
    """A camera file, read: OpenCV camera-to-world poses, and lenses and times where the file has them.

    Attributes:
        world_from_camera: ``[n 4 4]`` float64, rigid.
        lenses: intrinsics, or None.
        time_s: ``n`` times in seconds, or None.
    """

    world_from_camera: Float[Tensor, "n 4 4"]
    lenses: Lenses | None = None
    time_s: list[float] | None = None

    def camera(self, size: tuple[int, int], fov_deg: float | None) -> Camera:
        """The cameras for images of ``size = (H, W)``; ``fov_deg`` serves files without intrinsics.

        Raises:
            ValueError: intrinsics that are not positive or of an image of another shape, or no intrinsics at all.
        """
        poses = self.world_from_camera.float()
        if self.lenses is None:
            if fov_deg is None:
                raise ValueError("fov_deg: this file holds no intrinsics; give the horizontal field of view in degrees")
            return Camera.from_fov(fov_deg, size, poses)
        lenses, wanted = self.lenses, torch.tensor(size, dtype=torch.float64)
        _check_lenses(lenses, size)
        scale = (wanted / lenses.image_size).flip(-1)
        return Camera(poses, (lenses.focal_px * scale).float(), (lenses.center_px * scale).float(), size)


def _check_lenses(lenses: Lenses, size: tuple[int, int]) -> None:
    wanted = size[1] / size[0]
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
        if abs(math.log(width / height / wanted)) > ASPECT_TOLERANCE:
            raise ValueError(
                f"{lenses.size_fields}: the intrinsics of camera {index} belong to images of aspect "
                f"{width / height:.3f} (width over height), but the frames to make are {size[1]}x{size[0]}, aspect "
                f"{wanted:.3f}; choose a size of the file's aspect or crop the cameras to yours"
            )


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
    """Refuse nothing and one pose: a path has two or more."""
    if count < 2:
        raise ValueError(f"{field}: want 2 or more poses, got {count}; one pose is not a path")


def unit_quat(quat: np.ndarray, field: str) -> Tensor:
    """A quaternion wxyz ``[4]`` of length 1 up to rounding, or a ValueError that names the field."""
    length = float(np.linalg.norm(quat))
    if not abs(length - 1.0) < 1e-2:  # also true of NaN
        raise ValueError(f"{field}: want a unit quaternion, got length {length:.4g}")
    return torch.from_numpy(quat / length)


def order_by_name(names: Sequence[str]) -> list[int]:
    """The order of file names in which numbers compare as numbers: ``frame_2`` before ``frame_10``."""
    keys = [
        [int(part) if i % 2 else part for i, part in enumerate(re.split("([0-9]+)", name))]  # odd parts are the digits
        for name in names
    ]
    return sorted(range(len(names)), key=keys.__getitem__)


def dotted(where: str, key: str) -> str:
    """``where.key``, or ``key`` at the top of a file."""
    return f"{where}.{key}" if where else key


def require_square_pixels(camera: Camera, format_name: str) -> None:
    """Refuse to write a lens that a format of one angle per camera cannot say."""
    middle = camera.center_px.new_tensor([camera.size[1] / 2.0, camera.size[0] / 2.0])
    uneven = (camera.focal_px[:, 0] / camera.focal_px[:, 1] - 1.0).abs().max().item()
    off = (camera.center_px - middle).abs().max().item()
    if uneven > 1e-4 or off > 1e-2:
        raise ValueError(
            f"camera: {format_name} holds square pixels and a centred principal point, got fx and fy that differ by "
            f"{100 * uneven:.2g}% and a principal point {off:.2g} px off the middle; write nerfstudio or colmap instead"
        )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
