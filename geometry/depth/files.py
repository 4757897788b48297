"""Depth estimator that reads a depth map from a file of the user."""

from __future__ import annotations

import math
from copy import copy
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor

from geometry.depth.estimator import DepthMap, depth_of_disparity, far_sky
from geometry.depth.file_formats import PNG_START, format_of, read_array
from geometry.input_files import read_head

# Values that programs write for pixels without a surface: the largest half-precision number, the largest 16-bit number,
# and 1e10 or more (Blender). For integers of 16 bits or more: the largest number of the type.
NO_SURFACE = (65504.0, 65535.0)


class FileDepth:
    """Depth of the photo read from a file: z along the optical axis; 0, negative or NaN = unknown.

    Sky is infinite, 65504, 65535, or 1e10 or more.

    Args:
        path: a PNG, TIFF, PFM, EXR, ``.npy`` or ``.npz`` file with one channel, or with equal ones.
        unit_m: meters per stored unit: 0.001 for millimeters, 0.00390625 for KITTI's PNG (1/256 m). PNG needs it;
            without it depth is up to scale.
        disparity: whether the values are inverse depth (MiDaS, Depth Anything): large is near, 0 is sky. Depth is then
            ``unit_m / value``, up to scale without ``unit_m``.
    """

    def __init__(self, path: str | Path, unit_m: float | None = None, disparity: bool = False) -> None:
        if unit_m is not None and not unit_m > 0.0:
            raise ValueError(f"depth.unit_m: want a positive number of meters per unit, got {unit_m}")
        head = read_head(path, "depth.path")
        self.path = Path(path)
        png = head.startswith(PNG_START) or self.path.suffix.lower() == ".png"
        if png and unit_m is None and not disparity:
            raise ValueError("depth.unit_m: a PNG holds counts; say how many meters one is (0.001 for millimeters)")
        self._format = format_of(self.path, head)
        self.unit_m = unit_m
        self.disparity = disparity
        self.photo_size: tuple[int, int] | None = None
        self.photo_turned = False

    def of_photo(self, size: tuple[int, int], turned: bool) -> FileDepth:
        """A copy that knows the photo from which the images passed to ``estimate`` are cropped.

        Args:
            size: ``(H, W)`` of the whole upright photo.
            turned: whether EXIF rotates the stored photo by 90 degrees.
        """
        bound = copy(self)
        bound.photo_size, bound.photo_turned = size, turned
        return bound

    def estimate(self, rgb: Float[Tensor, "b 3 h w"], focal_px: Float[Tensor, "b 2"] | None = None) -> DepthMap:  # noqa: ARG002
        """Depth of the file, resampled to the size of ``rgb`` and cropped about the center of the photo as ``rgb`` is.

        Raises:
            ValueError: the file cannot be read, its channels differ, no value is positive, or its shape differs from
                that of the photo or is much smaller.
            ImportError: an EXR file, and OpenEXR is not installed.
        """
        stored = self._one_channel(read_array(self.path, self._format))
        size = (rgb.shape[-2], rgb.shape[-1])
        self._check_size((stored.shape[0], stored.shape[1]), size)
        values, sky, valid = (
            self._resampled(t, size).expand(len(rgb), -1, -1, -1) for t in self._values_and_masks(stored)
        )
        unit = 1.0 if self.unit_m is None else self.unit_m
        if self.disparity:
            depth, sky = depth_of_disparity(values, valid)
        else:
            depth = far_sky(values, sky, valid)
        return DepthMap(depth * unit, valid, sky, self.unit_m is not None)

    def _one_channel(self, stored: np.ndarray) -> Num[np.ndarray, "h w"]:
        found = stored.shape
        # Arrays come with axes of length one in front or behind.
        while stored.ndim > 2 and stored.shape[0] == 1:
            stored = stored[0]
        while stored.ndim > 2 and stored.shape[-1] == 1:
            stored = stored[..., 0]
        if stored.ndim == 3 and stored.shape[-1] in (3, 4):
            first = stored[..., :1]
            if not np.array_equal(stored[..., :3], np.broadcast_to(first, (*first.shape[:2], 3)), equal_nan=True):
                raise ValueError(
                    f"depth: want one channel of depth, got a colored picture in {self.path.name}; "
                    "save the values and not their colors"
                )
            stored = stored[..., 0]
        if stored.ndim != 2:
            raise ValueError(f"depth: want one channel [h w], got {list(found)} in {self.path.name}")
        return stored

    def _values_and_masks(self, stored: Num[np.ndarray, "h w"]) -> tuple[Tensor, Tensor, Tensor]:
        """Values (1 where invalid or sky), sky mask and validity mask, each ``[h w]``."""
        values = torch.from_numpy(stored.astype(np.float64))
        if self.disparity:
            sky = torch.zeros_like(values, dtype=torch.bool)
            valid = torch.isfinite(values) & (values >= 0.0)
        else:
            sky = self._no_surface(values, stored.dtype)
            valid = sky | (torch.isfinite(values) & (values > 0.0))
        if not (valid & (values > 0.0)).any():
            if not torch.isfinite(values).any():
                found = "NaN or infinite ones only"
            elif (values < 0.0).any():
                found = "negative ones only (z points forward: turn the sign)"
            else:
                found = "all zeros"
            raise ValueError(f"depth: want values > 0 (0 = unknown), got {found} in {self.path.name}")
        return torch.where(valid & ~sky, values, 1.0).float(), sky, valid

    @staticmethod
    def _no_surface(values: Float[Tensor, "h w"], kind: np.dtype) -> Bool[Tensor, "h w"]:
        ends = NO_SURFACE
        if kind.kind in "ui":
            ends = (NO_SURFACE[1], float(np.iinfo(kind).max)) if kind.itemsize > 1 else ()
        sky = values >= 1e10
        for end in ends:
            sky |= values == end
        return sky

    def _check_size(self, stored: tuple[int, int], size: tuple[int, int]) -> None:
        photo = size if self.photo_size is None else self.photo_size
        got = f"got {stored[1]}x{stored[0]} in {self.path.name}"
        if min(stored) < 2 or stored[0] < size[0] // 4 or stored[1] < size[1] // 4:
            raise ValueError(f"depth: want about the photo's size {size[1]}x{size[0]}, {got}")
        tolerance = 0.03  # networks round sides to multiples of 14 or 32, and aspects with them
        aspect, wanted = stored[1] / stored[0], photo[1] / photo[0]
        if abs(math.log(aspect / wanted)) <= tolerance:
            return
        want = f"depth: want the shape of the upright photo, {photo[1]}x{photo[0]}, {got}"
        if abs(math.log(aspect * wanted)) > tolerance:
            raise ValueError(f"{want}; resize it to the photo's size")
        if self.photo_turned:
            raise ValueError(f"{want}, which fits the photo before its EXIF rotation; rotate the depth likewise")
        raise ValueError(f"{want}, which lies on its side; rotate it by 90 degrees")

    def _resampled(self, stored: Tensor, size: tuple[int, int]) -> Tensor:
        """Resample to ``size`` by nearest neighbor, ``[1 1 h w]``; the mean of two surfaces would be on neither."""
        photo = size if self.photo_size is None else self.photo_size
        scale = min(photo[0] / size[0], photo[1] / size[1])
        for axis in (0, 1):
            kept = min(1.0, size[axis] * scale / photo[axis])  # share of the photo's side that the picture shows
            centers = 0.5 + kept * ((torch.arange(size[axis], dtype=torch.float64) + 0.5) / size[axis] - 0.5)
            length = stored.shape[axis]
            stored = stored.index_select(axis, (centers * length).long().clamp(0, length - 1))
        return stored[None, None]
