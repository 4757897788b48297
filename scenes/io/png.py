"""Lossless images: 8-bit colors as PNG or WebP, 16-bit depth as PNG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor

PNG_LEVEL = 3  # twice as fast as the default for a few per cent of size
DEPTH_UNIT = 1e-3  # scene units per count: nerfstudio's default, millimeters where a unit is a meter


def to_bytes(rgb: Float[Tensor, "*b c h w"]) -> UInt8[Tensor, "*b c h w"]:
    """Colors, or other values, in 0..1 as 0..255, rounded to nearest."""
    return (rgb * 255.0).round().clamp(0.0, 255.0).to(torch.uint8)


def from_bytes(pixels: UInt8[Tensor, "*b c h w"]) -> Float[Tensor, "*b c h w"]:
    """Colors 0..255 as 0..1; the exact inverse of ``to_bytes``."""
    return pixels.to(torch.float32) / 255.0


def write_rgb_png(path: Path, rgb: Float[Tensor, "c h w"]) -> None:
    """Write colors in 0..1 as an 8-bit PNG; a fourth channel is alpha."""
    pixels = to_bytes(rgb).permute(1, 2, 0).contiguous().cpu().numpy()
    Image.fromarray(pixels).save(path, format="PNG", compress_level=PNG_LEVEL)


def write_rgb_webp(path: Path, rgb: Float[Tensor, "c h w"]) -> None:
    """Write colors in 0..1 as a lossless 8-bit WebP: a fifth smaller than PNG in less than half of the time.

    A fourth channel is alpha; colors under full transparency are kept.
    """
    pixels = to_bytes(rgb).permute(1, 2, 0).contiguous().cpu().numpy()
    webp_effort = 20  # of 100; a lossless encoder takes no quality but an effort, and 0 is slower than this
    Image.fromarray(pixels).save(path, format="WEBP", lossless=True, quality=webp_effort, method=0, exact=True)


def read_rgb(path: Path) -> Float[Tensor, "3 h w"]:
    """Read an 8-bit RGB image as colors in 0..1."""
    with Image.open(path) as image:
        return from_bytes(torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1))


def read_rgb_or_rgba(path: Path) -> Float[Tensor, "c h w"]:
    """Read an 8-bit image as colors in 0..1, with alpha as fourth channel if it has one."""
    with Image.open(path) as image:
        return from_bytes(torch.from_numpy(np.array(image)).permute(2, 0, 1))


def write_depth_png(path: Path, depth: Float[Tensor, "1 h w"], known: Bool[Tensor, "1 h w"]) -> None:
    """Write depth as a 16-bit PNG in counts of ``DEPTH_UNIT``; 0 where not known or too far for 16 bits."""
    counts = (depth / DEPTH_UNIT).round()
    depth_max = 65535
    counts = torch.where(known & (counts <= depth_max), counts, torch.zeros_like(counts))
    pixels = counts[0].cpu().numpy().astype(np.uint16)
    Image.fromarray(pixels).save(path, format="PNG", compress_level=PNG_LEVEL)
