"""Photographs as users have them, made into what a world starts from."""

from __future__ import annotations

import math
import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from scenes.images import from_bytes

MIN_SIDE_PX = 16
MAX_SIDE_PX = 16384
MAX_PIXELS = 100_000_000
SIXTEEN_BIT_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I")
FILM_MM = (8.0, 1200.0)  # equivalent focal lengths that a lens may have; others are slips
HEIC = (".heic", ".heif")
TURNED = (5, 6, 7, 8)  # EXIF orientations that swap height and width
BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error)  # what Pillow raises for damaged files


@dataclass(frozen=True)
class Photo:
    """A photo, cropped about its centre to the frame's aspect and resampled.

    Attributes:
        rgb: colours in 0..1 on the 8-bit grid, ``[3 h w]``.
        crop_box: left, top, right, bottom of what was kept, in pixels of the upright original (fractions included).
        original_size: ``(H, W)`` of the upright original.
        enlarged: how many times larger a pixel grid ``rgb`` has than what was kept; 1 when nothing was upsampled.
    """

    rgb: Float[Tensor, "3 h w"]
    crop_box: tuple[float, float, float, float]
    original_size: tuple[int, int]
    enlarged: float


def read_photo(
    path: str | Path,
    size: tuple[int, int],
    max_scale: float = 1.0,
    straighten: Callable[[UInt8[np.ndarray, "h w 3"]], UInt8[np.ndarray, "h2 w2 3"]] | None = None,
) -> Photo:
    """Read a photo of any common kind: rotated by EXIF, with alpha, a palette, 16 bits or grey, HEIC.

    It is turned upright, laid on white where transparent, cropped about the centre to the aspect of ``size`` and
    resampled with antialiasing.

    Args:
        path: the image file.
        size: frame size ``(H, W)``.
        max_scale: the result may be up to this many times the frame size, where the photo is that sharp; 1 or more.
        straighten: undoes the lens's distortion on the whole upright photo, before it is cropped.

    Returns:
        The photo at ``k`` times ``size``, with ``1 <= k <= max_scale`` and whole pixels on both sides; smaller photos
        are enlarged to ``size``, and ``enlarged`` says by how much.

    Raises:
        ValueError: a file that is missing, not an image, truncated, or too small or too large; one sentence.
    """
    path = Path(path)
    if max_scale < 1.0:
        raise ValueError(f"max_scale: want 1 or more, got {max_scale}")
    image = _upright_rgb(path)
    if straighten is not None:
        image = Image.fromarray(straighten(np.array(image)))
    box = _centre_box((image.height, image.width), size)
    kept_height = box[3] - box[1]
    steps = math.gcd(*size)  # k moves in steps that keep both sides whole
    k = max(steps, math.floor(min(max_scale, kept_height / size[0]) * steps)) / steps
    height, width = round(size[0] * k), round(size[1] * k)
    resized = image.resize((width, height), Image.Resampling.LANCZOS, box=box)
    rgb = from_bytes(torch.from_numpy(np.array(resized)).permute(2, 0, 1).contiguous())
    return Photo(rgb, box, (image.height, image.width), max(1.0, height / kept_height))


def photo_outline(path: str | Path) -> tuple[tuple[int, int], float | None]:
    """Size ``(H, W)`` of a photo once upright, and its focal length on 35 mm film if the camera wrote it (EXIF).

    Raises:
        ValueError: a file that is missing, not an image, or too small or too large; one sentence.
    """
    with _opened(Path(path)) as image:
        width, height = image.size
        try:
            exif = image.getexif()
            turned = exif.get(ExifTags.Base.Orientation, 1) in TURNED
            film_mm = float(exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.FocalLengthIn35mmFilm, 0))
        except (*BROKEN, TypeError, ZeroDivisionError):
            turned, film_mm = False, 0.0
    size = (width, height) if turned else (height, width)
    return size, film_mm if FILM_MM[0] <= film_mm <= FILM_MM[1] else None


def _upright_rgb(path: Path) -> Image.Image:
    with _opened(path) as image:
        try:
            image.load()
            return _as_rgb(ImageOps.exif_transpose(image))
        except BROKEN as error:
            raise ValueError(f"image: {str(path)!r} is truncated or broken ({error}); copy it again") from None


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    if not path.is_file():
        raise ValueError(f"image: no file {str(path)!r}; check the name")
    if path.suffix.lower() in HEIC and not _reads_heic():
        raise ValueError(
            f"image: {str(path)!r} is HEIC, which needs a package: pip install 'worldwarp[heic]', or save it as JPEG"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit follows
            opened = Image.open(path)
    except Image.DecompressionBombError:
        raise _too_large(path, "") from None
    except (UnidentifiedImageError, *BROKEN):
        raise ValueError(
            f"image: {str(path)!r} is not an image that can be read; want JPEG, PNG, WebP, TIFF or HEIC"
        ) from None
    with opened as image:
        if max(image.size) > MAX_SIDE_PX or image.width * image.height > MAX_PIXELS:
            raise _too_large(path, f", got {image.width}x{image.height}")
        if min(image.size) < MIN_SIDE_PX:
            raise ValueError(
                f"image: want at least {MIN_SIDE_PX} pixels on each side, got {image.width}x{image.height} "
                f"in {str(path)!r}; use a larger photo"
            )
        yield image


def _reads_heic() -> bool:
    """Teach Pillow the format of many telephones, if the package for it is there."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


def _too_large(path: Path, found: str) -> ValueError:
    return ValueError(
        f"image: want at most {MAX_SIDE_PX} pixels on a side and {MAX_PIXELS // 1_000_000} megapixels{found} "
        f"in {str(path)!r}; make it smaller first"
    )


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode in SIXTEEN_BIT_MODES:
        # Pillow's own conversion clips at 255, which makes every 16-bit photo white.
        counts = np.asarray(image, dtype=np.float64)
        image = Image.fromarray((counts / 257.0).round().clip(0, 255).astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("its pixels are floats of unknown range; save it as 8 or 16 bits")
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, "white")
    return Image.alpha_composite(white, rgba).convert("RGB")


def _centre_box(original: tuple[int, int], size: tuple[int, int]) -> tuple[float, float, float, float]:
    """The largest centred box of the aspect of ``size`` inside an image of size ``original``."""
    height, width = original
    scale = min(height / size[0], width / size[1])
    box_height, box_width = min(height, size[0] * scale), min(width, size[1] * scale)
    left, top = (width - box_width) / 2.0, (height - box_height) / 2.0
    return (left, top, left + box_width, top + box_height)
