"""Textures of a room: photographed floors and walls, procedural wallpaper, paintings and window views."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

_FLOORS = {
    "wood_1": 1.5, "wood_2": 1.5, "wood_planks_1": 1.6, "floor_tiles_bw_1": 1.2, "floor_tiles_white": 1.2,
    "concrete_tiles_1": 2.0, "marble_1": 2.0, "marble_2": 2.0, "concrete_1": 2.5, "cardboard_2": 2.5,
    "brick_wall_1": 2.0,
}  # fmt: skip
_WALLS = {
    "brick_wall_1": 1.8, "cinder_blocks_1": 1.8, "concrete_1": 2.5, "concrete_2": 2.5, "concrete_3": 2.5,
    "concrete_4": 2.5, "drywall_1": 2.0, "marble_1": 2.5, "stucco_1": 2.0, "white_1": 2.0, "wood_planks_1": 1.8,
    "wood_1": 1.8, "rock_1": 2.0, "ceiling_tiles_1": 1.2,
}  # fmt: skip


def floor_picture(folder: Path, rng: np.random.Generator) -> tuple[UInt8[np.ndarray, "h w 4"], float]:
    """A tileable floor texture and its width in meters; a procedural carpet with probability 0.2."""
    if rng.random() < 0.2:
        return _carpet(rng), 2.0
    return _photograph(folder, _FLOORS, rng)


def wall_picture(folder: Path, rng: np.random.Generator) -> tuple[UInt8[np.ndarray, "h w 4"], float]:
    """A tileable wall texture and its width in meters; procedural wallpaper with probability 0.5."""
    if rng.random() < 0.5:
        return _wallpaper(rng), float(rng.uniform(0.5, 1.0))
    return _photograph(folder, _WALLS, rng)


def _photograph(folder: Path, meters: dict[str, float], rng: np.random.Generator) -> tuple[np.ndarray, float]:
    name = sorted(meters)[int(rng.integers(len(meters)))]
    image = Image.open(folder / f"{name}.png").convert("RGBA")
    image.thumbnail((1024, 1024))
    return np.asarray(image), meters[name]


def _smooth_noise(rng: np.random.Generator, size: int, octaves: int = 5) -> Float[np.ndarray, "size size"]:
    """Tileable noise in about -1..1, coarse octaves strongest."""
    spectrum = np.fft.rfft2(rng.normal(size=(size, size)))
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]) * size
    noise = np.fft.irfft2(spectrum / np.maximum(frequency, 1.0) ** (1.0 + 1.0 / octaves), (size, size))
    return noise / (3.0 * noise.std())


def _rgba(rgb: Float[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 4"]:
    byte = (255.0 * np.clip(rgb, 0.0, 1.0)).astype(np.uint8)
    return np.concatenate([byte, np.full_like(byte[..., :1], 255)], -1)


def _wallpaper(rng: np.random.Generator) -> np.ndarray:
    """Plain plaster, stripes, dots, diamonds or waves in two related colors."""
    size = 256
    y, x = np.mgrid[:size, :size] / size
    repeats = int(rng.integers(2, 7))
    kind = int(rng.integers(5))
    sx, sy = np.sin(2 * np.pi * repeats * x), np.sin(2 * np.pi * repeats * y)
    pattern = (np.zeros_like(x), sx > rng.uniform(-0.5, 0.7), sx * sy > 0.5, np.abs(sx) + np.abs(sy) > 1.3,
               np.sin(2 * np.pi * (repeats * y) + 1.5 * sx) > 0.3)[kind]  # fmt: skip
    base = rng.uniform(0.55, 0.95) + rng.uniform(-0.12, 0.12, 3)
    other = base + rng.uniform(-0.3, 0.15) + rng.uniform(-0.1, 0.1, 3)
    soft = 0.04 * _smooth_noise(rng, size)[..., None] + 0.012 * rng.normal(size=(size, size, 1))
    return _rgba(np.where(np.asarray(pattern, bool)[..., None], other, base) + soft)


def _carpet(rng: np.random.Generator) -> np.ndarray:
    size = 512
    base = rng.uniform(0.25, 0.7) + rng.uniform(-0.12, 0.12, 3)
    speckle = 0.09 * rng.normal(size=(size, size, 1)) + 0.05 * _smooth_noise(rng, size)[..., None]
    return _rgba(base + speckle)


def painting_picture(rng: np.random.Generator) -> UInt8[np.ndarray, "h w 4"]:
    """An abstract picture: overlapping soft-edged shapes on a mottled ground."""
    size = 192
    y, x = np.mgrid[:size, :size] / size
    rgb = np.ones((size, size, 3)) * rng.uniform(0.2, 0.95, 3) + 0.12 * _smooth_noise(rng, size)[..., None]
    for _ in range(int(rng.integers(4, 14))):
        a = rng.uniform(0, np.pi)
        u = (x - rng.random()) * np.cos(a) + (y - rng.random()) * np.sin(a)
        v = (y - rng.random()) * np.cos(a) - (x - rng.random()) * np.sin(a)
        p = rng.choice([1.0, 2.0, 8.0])
        inside = np.abs(u / rng.uniform(0.05, 0.4)) ** p + np.abs(v / rng.uniform(0.05, 0.4)) ** p < 1.0
        rgb = np.where(inside[..., None], 0.8 * rng.uniform(0.0, 1.0, 3) + 0.2 * rgb, rgb)
    return _rgba(rgb + 0.03 * rng.normal(size=(size, size, 1)))


def window_picture(rng: np.random.Generator) -> UInt8[np.ndarray, "h w 4"]:
    """A bright blurred view: sky that fades to the horizon, hills and ground."""
    size = 128
    y = np.linspace(0.0, 1.0, size)[:, None]
    horizon = rng.uniform(0.55, 0.85) + 0.12 * _smooth_noise(rng, size)[0][None]
    sky = np.array([0.62, 0.78, 0.98]) + (np.array([0.98, 0.98, 0.96]) - [0.62, 0.78, 0.98]) * y[..., None]
    sky = sky + 0.06 * _smooth_noise(rng, size)[..., None]
    ground = rng.uniform([0.25, 0.35, 0.2], [0.5, 0.55, 0.4]) + 0.12 * _smooth_noise(rng, size)[..., None]
    return _rgba(np.where((y > horizon)[..., None], ground, sky))
