"""Conversion of a photo from its ICC color profile to sRGB."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image, ImageCms

SIXTEEN_BIT_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I")
MODES_OF_SPACE = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}  # ICC color space to Pillow mode
BAD_PROFILE = "its color profile {}, so it was left out: colors may be off"
BARE_CMYK = "it has CMYK colors without a profile: colors are approximate (save it as sRGB to be sure)"


def as_srgb(image: Image.Image) -> tuple[Image.Image, str | None]:
    """Convert an image of any mode to sRGB; transparent parts are composited on white.

    Args:
        image: loaded, with its profile (if any) in ``info``.

    Returns:
        The image in mode RGB, and a remark for the user if its colors had to be guessed.

    Raises:
        ValueError: the white level of the pixels is unknown (floats, 32-bit counts); the message begins with "its".
    """
    profile = image.info.get("icc_profile")
    with_alpha = image.has_transparency_data and image.mode not in SIXTEEN_BIT_MODES  # those Pillow cannot convert
    alpha = image.convert("RGBA").getchannel("A") if with_alpha else None
    colors = _plain_colors(image)
    rgb, remark = (
        _through_profile(colors, profile) if profile or colors.mode == "LAB" else (colors.convert("RGB"), None)
    )
    if colors.mode == "CMYK" and not profile:
        remark = BARE_CMYK
    if alpha is not None:
        rgb = Image.composite(rgb, Image.new("RGB", rgb.size, "white"), alpha)
    return rgb, remark


def _plain_colors(image: Image.Image) -> Image.Image:
    """Remove alpha and palette and reduce 16 bits to 8; the result has one of the modes of ``MODES_OF_SPACE``."""
    if image.mode == "F":
        raise ValueError("its pixels are floats whose white is unknown; tone-map it and save it as 8 or 16 bits")
    if image.mode in SIXTEEN_BIT_MODES:
        # Pillow's own conversion clips at 255, which makes every 16-bit photo white.
        counts = np.asarray(image, dtype=np.float64)
        if counts.max() > 65535.0 or counts.min() < 0.0:
            raise ValueError("its pixels are 32-bit counts whose white is unknown; save it as 8 or 16 bits")
        return Image.fromarray((counts / 257.0).round().astype(np.uint8))
    if image.mode in ("1", "LA", "La"):
        return image.convert("LA").convert("L") if image.mode == "La" else image.convert("L")
    if image.mode in MODES_OF_SPACE.values():
        return image
    return image.convert("RGBA").convert("RGB") if image.mode == "RGBa" else image.convert("RGB")


def _through_profile(colors: Image.Image, profile: bytes | None) -> tuple[Image.Image, str | None]:
    """Apply an ICC profile (None: CIELAB); a profile that cannot be applied is left out, and the remark says so."""
    try:
        source: Any = ImageCms.ImageCmsProfile(
            ImageCms.createProfile("LAB") if profile is None else io.BytesIO(profile)
        )
        space = source.profile.xcolor_space.strip()
        if space == "RGB" and colors.mode == "L":
            colors = colors.convert("RGB")
        if MODES_OF_SPACE.get(space) != colors.mode:
            reason = BAD_PROFILE.format(f"is for {space} and its pixels are {colors.mode}")
        else:
            made = ImageCms.profileToProfile(colors, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            assert made is not None
            return made, None
    except (ImageCms.PyCMSError, ImportError, OSError, TypeError, ValueError):
        reason = BAD_PROFILE.format("is broken")
    # LAB has a fixed meaning without any profile.
    if colors.mode == "LAB":
        return _through_profile(colors, None)[0], reason
    return colors.convert("RGB"), reason
