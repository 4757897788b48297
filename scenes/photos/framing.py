"""Frame size and field of view that follow from a photo: its aspect ratio and its focal length."""

from __future__ import annotations

import math

PIXELS = 192 * 320  # target number of pixels of a frame when no size is given
QUALITIES = {"draft": PIXELS, "good": 480 * 832, "best": 720 * 1280}  # the same by `quality=`
STEP = 16  # pixels; both sides of a frame are multiples of it, or of what a generator takes
FILM_DIAGONAL_MM = math.hypot(36.0, 24.0)  # of 35 mm film, to which equivalent focal lengths refer


def natural_size(photo: tuple[int, int], pixels: int = PIXELS, step: int = STEP) -> tuple[int, int]:
    """Frame size ``(H, W)`` near ``pixels`` pixels whose aspect is close to that of a photo of size ``(H, W)``.

    Both sides are multiples of ``step``.
    """
    aspect = photo[1] / photo[0]

    def cost(size: tuple[int, int]) -> float:
        crop_worth = 5.0  # cropping 1 % of the photo costs as much as a deviation of 5 % from PIXELS
        return crop_worth * abs(math.log(size[1] / size[0] / aspect)) + abs(math.log(size[0] * size[1] / pixels))

    heights = range(2 * step, pixels // (2 * step) + 1, step)
    widths = (max(2 * step, step * round(height * aspect / step)) for height in heights)
    return min(zip(heights, widths, strict=True), key=cost)


def sized(photo: tuple[int, int], longer_side: int, step: int = STEP) -> tuple[int, int]:
    """Frame size ``(H, W)`` with a photo's aspect and a longer side of about ``longer_side``, multiples of ``step``."""
    scale = longer_side / max(photo)
    height, width = (max(2 * step, step * round(side * scale / step)) for side in photo)
    return height, width


def photo_fov_deg(photo: tuple[int, int], size: tuple[int, int], film_mm: float | None) -> float:
    """Horizontal field of view, in degrees, of frames of ``size`` cropped about the center of a photo.

    Args:
        photo: size of the photo ``(H, W)``.
        size: size of the frames ``(H, W)``.
        film_mm: equivalent focal length on 35 mm film (equal diagonal field of view), mm; None if unknown.
    """
    if film_mm is None:
        assumed_fov_deg = 60.0  # along the photo's longer side, when its EXIF has no focal length
        focal_px = 0.5 * max(photo) / math.tan(math.radians(assumed_fov_deg / 2.0))
    else:
        focal_px = math.hypot(*photo) * film_mm / FILM_DIAGONAL_MM
    kept_px = min(photo[1], photo[0] * size[1] / size[0])
    return math.degrees(2.0 * math.atan(0.5 * kept_px / focal_px))


def center_box(original: tuple[int, int], size: tuple[int, int]) -> tuple[float, float, float, float]:
    """The largest centered box of the aspect of ``size`` inside an image of size ``original``."""
    height, width = original
    scale = min(height / size[0], width / size[1])
    box_height, box_width = min(height, size[0] * scale), min(width, size[1] * scale)
    left, top = (width - box_width) / 2.0, (height - box_height) / 2.0
    return (left, top, left + box_width, top + box_height)
