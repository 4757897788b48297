"""The frames that a photo asks for: of its own shape, through the lens that took it."""

from __future__ import annotations

import math

PIXELS = 192 * 320  # about so many a frame has, when nothing else is asked for
STEP = 16  # sides are multiples of it
CROP_WORTH = 5.0  # cutting off 1 % of the photo is as bad as being 5 % off the number of pixels
ASSUMED_FOV_DEG = 60.0  # across the photo's longer side, when the photo does not say
FILM_DIAGONAL_MM = math.hypot(36.0, 24.0)  # of the film that equivalent focal lengths refer to


def natural_size(photo: tuple[int, int]) -> tuple[int, int]:
    """The frame size ``(H, W)`` that shows nearly all of a photo of size ``(H, W)``."""
    aspect = photo[1] / photo[0]

    def cost(size: tuple[int, int]) -> float:
        return CROP_WORTH * abs(math.log(size[1] / size[0] / aspect)) + abs(math.log(size[0] * size[1] / PIXELS))

    heights = range(2 * STEP, PIXELS // (2 * STEP) + 1, STEP)
    widths = (max(2 * STEP, STEP * round(height * aspect / STEP)) for height in heights)
    return min(zip(heights, widths, strict=True), key=cost)


def sized(photo: tuple[int, int], longer_side: int) -> tuple[int, int]:
    """The frame size ``(H, W)`` of a photo's shape whose longer side is about so many pixels."""
    scale = longer_side / max(photo)
    height, width = (max(2 * STEP, STEP * round(side * scale / STEP)) for side in photo)
    return height, width


def photo_fov_deg(photo: tuple[int, int], size: tuple[int, int], film_mm: float | None) -> float:
    """Horizontal field of view of frames of ``size`` cut from the middle of a photo.

    Args:
        photo: its size ``(H, W)``.
        size: of the frames, ``(H, W)``.
        film_mm: focal length that would show as much on 35 mm film, over the diagonal; None where nobody knows.
    """
    if film_mm is None:
        focal_px = 0.5 * max(photo) / math.tan(math.radians(ASSUMED_FOV_DEG / 2.0))
    else:
        focal_px = math.hypot(*photo) * film_mm / FILM_DIAGONAL_MM
    kept_px = min(photo[1], photo[0] * size[1] / size[0])
    return math.degrees(2.0 * math.atan(0.5 * kept_px / focal_px))
