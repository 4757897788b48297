"""A folder of frames and the cameras that took them: matched by name, by time stamp, or by order."""

from __future__ import annotations

import bisect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from geometry.camera import Camera
from geometry.camera_io.read_write import FilmedCameras, read_filmed_cameras
from geometry.camera_io.record import order_by_name
from geometry.lens_distortion import DistortedLens
from scenes.photos.photo import decode_photo, photo_outline

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")
APART_S = 0.02  # largest time between a frame and its camera, as in the tools of the TUM RGB-D benchmark


@dataclass(frozen=True)
class PosedFrames:
    """Frames of a video in their order, each with its camera.

    Attributes:
        files: one image each.
        cameras: ``[n]`` in float64, for the images as `read` gives them.
        image_size: ``(H, W)`` of the images in the files.
        lens: distorted lens of the images, or None.
    """

    files: list[Path]
    cameras: Camera
    image_size: tuple[int, int]
    lens: DistortedLens | None

    def read(self, rows: Sequence[int]) -> Float[Tensor, "t 3 h w"]:
        """Colors in 0..1 of frames, straightened, cropped about their center and resampled to the cameras' size.

        Raises:
            ValueError: an image that cannot be read, or of another size than the first.
        """
        straighten = None if self.lens is None else self.lens.straightened
        pictures = []
        for row in rows:
            found = photo_outline(self.files[row])[0]
            if found != self.image_size:
                (height, width), (first_height, first_width) = found, self.image_size
                raise ValueError(
                    f"images: want frames of one size, {first_width}x{first_height}, got {width}x{height} in "
                    f"{self.files[row]}; give the frames of one video"
                )
            pictures.append(decode_photo(self.files[row], straighten).at(self.cameras.size).rgb)
        return torch.stack(pictures)


def open_posed_frames(
    images: Path, cameras: Path, *, size: tuple[int, int], convention: str | None = None, fov_deg: float | None = None
) -> PosedFrames:
    """Read a camera file and match its cameras with the images of a folder; the images are read later.

    Args:
        images: folder of the frames.
        cameras: file or folder of any format of ``geometry/camera_io/read_write.py``.
        size: ``(H, W)`` to which frames are cropped and resampled.
        convention: as in `read_cameras`.
        fov_deg: horizontal field of view of the resampled frames, degrees, for files without intrinsics.

    Raises:
        ValueError: no images, cameras that cannot be read, or that do not match the images; one sentence.
    """
    files = [path for path in images.iterdir() if path.suffix.lower() in PICTURES] if images.is_dir() else []
    if not files:
        raise ValueError(f"images: want a folder of frames ({', '.join(PICTURES)}), found none in '{images}'")
    files = [files[i] for i in order_by_name([path.name for path in files])]
    image_size = photo_outline(files[0])[0]
    filmed = read_filmed_cameras(cameras, size=size, photo_size=image_size, convention=convention, fov_deg=fov_deg)
    pairs = _by_name(files, filmed) or _by_time(files, filmed) or _by_order(files, filmed)
    if not pairs:
        held = f"{len(filmed.cameras)} cameras and {len(files)} frames"
        raise ValueError(
            f"cameras: want a frame of each camera's name or time stamp, or as many frames as cameras, got {held} in "
            f"'{images}'; give the frames that belong to '{cameras}'"
        )
    rows = [row for row, _ in pairs]
    return PosedFrames([file for _, file in pairs], filmed.cameras[rows], image_size, filmed.lens)


def _by_name(files: Sequence[Path], filmed: FilmedCameras) -> list[tuple[int, Path]]:
    """Cameras with the files that they name; files of another folder or kind count by their name without suffix."""
    stems = [Path(name).stem for name in filmed.names or []]
    if len(set(stems)) < len(stems):  # several cameras, not one video
        return []
    # The images of a data set lie in images_4 or images_8 while its file says images, or as PNG while it says JPEG.
    of_stem = {file.stem: file for file in files}
    return [(row, of_stem[stem]) for row, stem in enumerate(stems) if stem in of_stem]


def _by_time(files: Sequence[Path], filmed: FilmedCameras) -> list[tuple[int, Path]]:
    """Cameras with the files that are named by their time stamps; none unless half of them match."""
    if filmed.time_s is None or filmed.stamp_s is None:
        return []
    if not all(re.fullmatch(r"\d+(\.\d+)?", file.stem) for file in files):
        return []
    files = sorted(files, key=lambda file: float(file.stem))
    at_s, times = [float(file.stem) * filmed.stamp_s for file in files], filmed.time_s
    # Each must be the other's nearest, so that none is taken twice.
    pairs = [(row, _nearest(at_s, time)) for row, time in enumerate(times)]
    pairs = [
        (row, file)
        for row, file in pairs
        if abs(at_s[file] - times[row]) <= APART_S and _nearest(times, at_s[file]) == row
    ]
    # Numbers that count frames meet a time stamp here and there.
    enough = 2 * len(pairs) >= min(len(files), len(times))
    return [(row, files[file]) for row, file in pairs] if enough else []


def _nearest(values: Sequence[float], value: float) -> int:
    """Index of the nearest of increasing values."""
    after = min(bisect.bisect_left(values, value), len(values) - 1)
    before = max(after - 1, 0)
    return before if abs(values[before] - value) <= abs(values[after] - value) else after


def _by_order(files: Sequence[Path], filmed: FilmedCameras) -> list[tuple[int, Path]]:
    """Cameras with the files in their order, if they are as many and name none."""
    if filmed.names is not None or len(files) != len(filmed.cameras):
        return []
    return list(enumerate(files))
