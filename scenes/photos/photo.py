"""Read a photo file: checks, decoding, EXIF orientation, cropping and resampling."""

from __future__ import annotations

import math
import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH, TiffImageFile
from torch import Tensor

from geometry.input_files import read_head
from scenes.io.png import from_bytes
from scenes.photos.color_profiles import as_srgb
from scenes.photos.file_kinds import RAW, TIFF_STARTS, prepare_for
from scenes.photos.framing import center_box

MIN_SIDE_PX = 16
MAX_SIDE_PX = 16384
MAX_PIXELS = 100_000_000
MAX_ASPECT = 8.0  # above that of stitched panoramas; frames of a thinner strip would have too few pixels on one side
FILM_MM = (8.0, 1200.0)  # plausible equivalent focal lengths; others are ignored as errors in the EXIF data
UPRIGHT = {  # transposition that turns an image of each EXIF orientation upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
TURNED = (5, 6, 7, 8)  # EXIF orientations that swap height and width
SUBFILE_TYPE, SUB_IFDS, DNG_VERSION = 254, 330, 50706  # tags of TIFF
SEVERAL = ("GIF", "WEBP", "PNG", "TIFF", "AVIF")  # formats with several frames or pages; only the first is used
BROKEN = (OSError, SyntaxError, ValueError, TypeError, EOFError, struct.error)  # raised by Pillow for damaged files


@dataclass(frozen=True)
class Photo:
    """A photo, cropped about its center to the frame's aspect and resampled.

    Attributes:
        rgb: colors in 0..1 on the 8-bit grid, ``[3 h w]``.
        crop_box: left, top, right, bottom of the crop, in (fractional) pixels of the upright original.
        original_size: ``(H, W)`` of the upright original.
        enlarged: upsampling factor from the crop to ``rgb``; 1 when nothing was upsampled.
        turned: whether the EXIF orientation rotates the stored image by 90 degrees.
        remarks: what the user should know: guessed colors, further frames that are not shown.
    """

    rgb: Float[Tensor, "3 h w"]
    crop_box: tuple[float, float, float, float]
    original_size: tuple[int, int]
    enlarged: float
    turned: bool = False
    remarks: tuple[str, ...] = ()


# Removes the lens distortion of an upright photo.
Straighten: TypeAlias = Callable[[UInt8[np.ndarray, "h w 3"]], UInt8[np.ndarray, "h2 w2 3"]]


@dataclass(frozen=True)
class DecodedPhoto:
    """A photo, decoded once: upright and in sRGB, at full resolution.

    Attributes:
        image: 8-bit RGB.
        turned: whether the EXIF orientation rotates the stored image by 90 degrees.
        remarks: what the user should know: guessed colors, further frames that are not shown.
    """

    image: Image.Image
    turned: bool
    remarks: tuple[str, ...]

    def at(self, size: tuple[int, int], max_scale: float = 1.0) -> Photo:
        """Crop about the center to the aspect of ``size`` and resample with antialiasing.

        Args:
            size: frame size ``(H, W)``.
            max_scale: limit of the result's size over the frame size, reached if the photo is as large; 1 or more.

        Returns:
            The photo at ``k`` times ``size``, with ``1 <= k <= max_scale`` and whole pixels on both sides; smaller
            photos are upsampled to ``size`` by the factor ``enlarged``.
        """
        if max_scale < 1.0:
            raise ValueError(f"max_scale: want 1 or more, got {max_scale}")
        box = center_box((self.image.height, self.image.width), size)
        # Scaled by height alone: the box has the aspect of the frames.
        kept_height = box[3] - box[1]
        steps = math.gcd(*size)  # multiples of 1 / steps keep both sides whole
        k = max(steps, math.floor(min(max_scale, kept_height / size[0]) * steps)) / steps
        height, width = round(size[0] * k), round(size[1] * k)
        resized = self.image.resize((width, height), Image.Resampling.LANCZOS, box=box)
        rgb = from_bytes(torch.from_numpy(np.array(resized)).permute(2, 0, 1).contiguous())
        original_size = (self.image.height, self.image.width)
        return Photo(rgb, box, original_size, max(1.0, height / kept_height), self.turned, self.remarks)


def decode_photo(
    path: str | Path,
    straighten: Straighten | None = None,
) -> DecodedPhoto:
    """Decode a photo of any common kind: EXIF rotation, color profile, alpha, palette, 16 bits or gray, HEIC.

    The photo is turned upright, converted to sRGB and composited on white. The kind of file is recognized by its
    contents, not by its name.

    Args:
        path: the image file.
        straighten: removes the lens distortion of the whole upright photo.

    Raises:
        ValueError: a file that is missing, unreadable, not an image, truncated, too small, too large or a strip; one
            sentence.
    """
    image, turned, remarks = _upright_rgb(path)
    if straighten is not None:
        image = Image.fromarray(straighten(np.array(image)))
    return DecodedPhoto(image, turned, remarks)


def read_photo(path: str | Path, size: tuple[int, int], max_scale: float = 1.0) -> Photo:
    """Decode a photo and resample it, see `decode_photo` and `DecodedPhoto.at`."""
    return decode_photo(path).at(size, max_scale)


def photo_outline(path: str | Path) -> tuple[tuple[int, int], float | None]:
    """Upright size ``(H, W)`` of a photo, and its equivalent focal length on 35 mm film from EXIF, mm, or None.

    Raises:
        ValueError: a file that is missing, unreadable, not an image, too small, too large or a strip; one sentence.
    """
    # The header alone: frame size and field of view are needed before anything is decoded.
    with _opened(path) as image:
        width, height = _stored_size(image)
        size = (width, height) if _orientation(image) in TURNED else (height, width)
        try:
            film_mm = float(image.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.FocalLengthIn35mmFilm, 0))
        except (*BROKEN, ZeroDivisionError):
            film_mm = 0.0
    return size, film_mm if FILM_MM[0] <= film_mm <= FILM_MM[1] else None


def _upright_rgb(path: str | Path) -> tuple[Image.Image, bool, tuple[str, ...]]:
    """The upright photo in sRGB, whether it was rotated by 90 degrees, and remarks for the user."""
    with _opened(path) as image:
        turned = _orientation(image) in TURNED
        try:
            frames = getattr(image, "n_frames", 1) if image.format in SEVERAL else 1
            image.load()
        except BROKEN as error:
            raise ValueError(f"image: {str(path)!r} is truncated or broken ({error}); copy it again") from None
        try:
            rgb, remark = as_srgb(image)
        except ValueError as error:
            raise ValueError(f"image: {str(path)!r} cannot be shown: {error}") from None
        to_do = UPRIGHT.get(_orientation(image))  # read again: Pillow rotates TIFF, and pillow_heif HEIC, while loading
    more = f"it holds {frames} frames or pages: the first is used" if frames > 1 else None
    remarks = tuple(text for text in (remark, more) if text is not None)
    return rgb if to_do is None else rgb.transpose(to_do), turned, remarks


def _orientation(image: Image.Image) -> int:
    """EXIF orientation of the pixels in memory; 1 (upright) when the tag is missing or broken."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except BROKEN:
        return 1


def _stored_size(image: Image.Image) -> tuple[int, int]:
    """Width and height before EXIF orientation; Pillow's ``size`` of a TIFF may be rotated already."""
    if isinstance(image, TiffImageFile):
        return image.tag_v2[IMAGEWIDTH], image.tag_v2[IMAGELENGTH]
    return image.size


def _is_raw(image: TiffImageFile) -> bool:
    """Whether Pillow opened the thumbnail of a raw file: a DNG, or a reduced image followed by sub-images."""
    tags = image.tag_v2
    return DNG_VERSION in tags or bool(tags.get(SUBFILE_TYPE, 0) & 1 and SUB_IFDS in tags)


@contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image]:
    """Open an image file and check its kind, size and aspect; pixels are not decoded yet."""
    head = read_head(path, "image")
    prepare_for(Path(path), head)
    with warnings.catch_warnings():
        # ``_check_shape`` limits the size; warnings about metadata do not concern the pixels.
        warnings.simplefilter("ignore")
        try:
            opened = Image.open(path)
        except Image.DecompressionBombError:
            raise _too_large(path, "") from None
        except (UnidentifiedImageError, *BROKEN):
            if head.startswith(TIFF_STARTS):
                kind = "a TIFF that cannot be read (floats in colors?); save it as 8 or 16 bits"
            else:
                kind = "not an image that can be read; want JPEG, PNG, WebP, TIFF or HEIC"
            raise ValueError(f"image: {str(path)!r} is {kind}") from None
        with opened as image:
            if isinstance(image, TiffImageFile) and _is_raw(image):
                raise ValueError(f"image: {str(path)!r} is {RAW}")
            _check_shape(path, image)
            yield image


def _check_shape(path: str | Path, image: Image.Image) -> None:
    # Before decoding: a small file can hold an image that fills the memory.
    if max(image.size) > MAX_SIDE_PX or image.width * image.height > MAX_PIXELS:
        raise _too_large(path, f", got {image.width}x{image.height}")
    if min(image.size) < MIN_SIDE_PX:
        raise ValueError(
            f"image: want at least {MIN_SIDE_PX} pixels on each side, got {image.width}x{image.height} "
            f"in {str(path)!r}; use a larger photo"
        )
    if max(image.size) > MAX_ASPECT * min(image.size):
        raise ValueError(
            f"image: want a shape of at most {MAX_ASPECT:g}:1, got a strip of {image.width}x{image.height} "
            f"in {str(path)!r}; cut a part out of it"
        )


def _too_large(path: str | Path, found: str) -> ValueError:
    return ValueError(
        f"image: want at most {MAX_SIDE_PX} pixels on a side and {MAX_PIXELS // 1_000_000} megapixels{found} "
        f"in {str(path)!r}; make it smaller first"
    )
