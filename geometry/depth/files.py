"""Depth that the user has: 16-bit PNG, NPY or EXR."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from geometry.depth.estimate import DepthMap


class FileDepth:
    """Depth read from a file that belongs to the photo: z along the optical axis, 0 where unknown.

    Args:
        path: a 16-bit (or 8-bit) grey PNG, a ``.npy`` array ``[h w]``, or an ``.exr`` with a channel Z, Y or depth.
        unit_m: metres per stored unit (0.001 for millimetres). PNG needs it; without it depth is up to scale.
    """

    def __init__(self, path: str | Path, unit_m: float | None = None) -> None:
        self.path = Path(path)
        if unit_m is not None and not unit_m > 0.0:
            raise ValueError(f"depth.unit_m: want a positive number of metres per unit, got {unit_m}")
        if self.path.suffix.lower() not in READERS:
            raise ValueError(f"depth.path: want {', '.join(READERS)}, got '{self.path.name}'")
        if not self.path.is_file():
            raise ValueError(f"depth.path: no file {self.path}; check the name")
        if self.path.suffix.lower() == ".png" and unit_m is None:
            raise ValueError("depth.unit_m: a PNG holds counts; say how many metres one is (0.001 for millimetres)")
        self.unit_m = unit_m

    def estimate(self, rgb: Float[Tensor, "b 3 h w"], focal_px: Float[Tensor, "b 2"] | None = None) -> DepthMap:  # noqa: ARG002
        """The file's depth at the size of ``rgb``, centre-cropped to its aspect like the photo.

        Raises:
            ValueError: unreadable, negative or NaN values, all zero, or a size that does not fit the photo.
        """
        stored = torch.from_numpy(np.ascontiguousarray(READERS[self.path.suffix.lower()](self.path), dtype=np.float32))
        if stored.ndim != 2:
            raise ValueError(f"depth: want one channel [h w], got {list(stored.shape)} in {self.path.name}")
        if torch.isnan(stored).any() or (stored < 0.0).any():
            raise ValueError(f"depth: want values >= 0 (0 = unknown), got negative or NaN ones in {self.path.name}")
        if not (stored > 0.0).any():
            raise ValueError(f"depth: want some depth, got all zeros in {self.path.name}")
        depth = self._fitted(stored[None, None], (rgb.shape[-2], rgb.shape[-1])).expand(len(rgb), -1, -1, -1)
        valid = (depth > 0.0) & torch.isfinite(depth)
        sky = torch.isinf(depth)
        metric = self.unit_m is not None
        return DepthMap(torch.where(sky, 1.0, depth) * (self.unit_m or 1.0), valid | sky, sky, metric)

    def _fitted(self, stored: Tensor, size: tuple[int, int]) -> Tensor:
        """Resample by nearest neighbour: an average of two surfaces is none."""
        height, width = stored.shape[-2:]
        if min(height, width) < 2:
            raise ValueError(f"depth: want the photo's size, got {height}x{width} in {self.path.name}")
        if height < size[0] // 4 or width < size[1] // 4:
            raise ValueError(f"depth: want about the photo's size {size}, got ({height}, {width}) in {self.path.name}")
        aspect = size[1] / size[0]
        kept_h, kept_w = min(height, round(width / aspect)), min(width, round(height * aspect))
        top, left = (height - kept_h) // 2, (width - kept_w) // 2
        return interpolate(stored[..., top : top + kept_h, left : left + kept_w], size, mode="nearest-exact")


def _read_png(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as image:
            return np.asarray(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"depth: {path.name} is not a PNG that can be read ({error})") from error


def _read_npy(path: Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"depth: {path.name} is not an NPY array that can be read ({error})") from error


def _read_exr(path: Path) -> np.ndarray:
    try:
        import OpenEXR
    except ImportError as error:
        raise ImportError("depth: .exr files need OpenEXR: pip install 'worldwarp[exr]'") from error
    try:
        with OpenEXR.File(str(path)) as file:
            channels = file.channels()
            for name in ("Z", "depth", "Y", "R"):
                if name in channels:
                    return np.array(channels[name].pixels)
            # Some writers group R, G and B into one array.
            if len(channels) == 1:
                pixels = np.array(next(iter(channels.values())).pixels)
                return pixels[..., 0] if pixels.ndim == 3 else pixels
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(f"depth: {path.name} is not an EXR that can be read ({error})") from error
    raise ValueError(f"depth: want a channel Z, depth or Y, got {', '.join(channels)} in {path.name}")


READERS = {".png": _read_png, ".npy": _read_npy, ".exr": _read_exr}
