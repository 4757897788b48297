"""Textures of a town: photographed surfaces where available; procedural facades, tiles, leaves, water, skies."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from scenes.synthetic.triangle_scene import Sky

Picture = UInt8[np.ndarray, "_h _w 4"]

WALLS = {
    "brick_wall_1": 1.8, "cinder_blocks_1": 1.8, "concrete_1": 3.0, "concrete_3": 3.0, "stucco_1": 2.0,
    "drywall_1": 2.5, "wood_planks_1": 1.8, "rock_1": 2.2, "marble_2": 3.0,
}  # fmt: skip
"""Photographed walls and the width of one repeat in meters."""

_STAND_IN_RGB = {"brick": (0.55, 0.32, 0.27), "grass": (0.33, 0.45, 0.18), "asphalt": (0.36, 0.37, 0.39),
                 "wood": (0.5, 0.37, 0.24), "rock": (0.42, 0.42, 0.4)}  # fmt: skip


def smooth_noise(rng: np.random.Generator, size: int, roughness: float = 1.3) -> Float[np.ndarray, "size size"]:
    """Tileable noise in about -1..1; a larger exponent is smoother."""
    # Filtered in the frequency domain, where noise is periodic: the texture tiles without a seam.
    spectrum = np.fft.rfft2(rng.normal(size=(size, size)))
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]) * size
    noise = np.fft.irfft2(spectrum / np.maximum(frequency, 1.0) ** roughness, (size, size))
    return noise / (2.5 * noise.std())


def as_picture(rgb: Float[np.ndarray, "h w 3"], opacity: np.ndarray | None = None) -> Picture:
    """Convert colors 0..1 to an 8-bit image; opaque unless ``opacity`` is given."""
    byte = (255.0 * np.clip(rgb, 0.0, 1.0)).astype(np.uint8)
    alpha = np.full(byte.shape[:2], 255, np.uint8) if opacity is None else (255.0 * opacity).astype(np.uint8)
    return np.concatenate([byte, alpha[..., None]], -1)


def surface(folder: Path | None, name: str, rng: np.random.Generator) -> Picture:
    """A tileable photographed surface of the folder, or noise of a similar color when it is missing."""
    path = None if folder is None else folder / f"{name}.png"
    if path is not None and path.exists():
        image = Image.open(path).convert("RGBA").resize((512, 512), Image.Resampling.BOX)
        return np.asarray(image)
    base = next((rgb for word, rgb in _STAND_IN_RGB.items() if word in name), (0.62, 0.6, 0.57))
    return mottled(rng, base)


def weathered(picture: Picture, rng: np.random.Generator) -> Picture:
    """The same image with soft stains, so that large walls are not uniform."""
    size = picture.shape[0]
    stain = 0.94 + rng.uniform(0.05, 0.16) * smooth_noise(rng, size, 0.9)
    return as_picture(picture[..., :3] / 255.0 * stain[:, : picture.shape[1], None])


def mottled(rng: np.random.Generator, base: tuple[float, float, float], amount: float = 0.1) -> Picture:
    """Fine grain and soft spots around one color: soil, sand, gravel, plaster."""
    size = 256
    spots = amount * smooth_noise(rng, size, 0.7)[..., None] + 0.7 * amount * rng.normal(size=(size, size, 1))
    return as_picture(np.asarray(base) * (1.0 + 1.5 * spots) + 0.02 * rng.normal(size=(size, size, 3)))


def paving(rng: np.random.Generator) -> Picture:
    """Slabs, setts or herringbone-like rows with joints."""
    size = 256
    rows, columns = int(rng.choice([4, 8, 16])), int(rng.choice([2, 4, 8, 16]))
    y, x = np.mgrid[:size, :size] / size
    row = np.floor(y * rows)
    shift = 0.5 * (row % 2) if rng.random() < 0.6 else 0.0 * row
    column = np.floor(x * columns + shift) % columns
    tone = rng.normal(size=(rows, columns))[row.astype(int), column.astype(int)]
    joint = np.minimum(
        np.abs((y * rows) % 1.0 - 0.5) * -1 + 0.5, (np.abs((x * columns + shift) % 1.0 - 0.5) * -1) + 0.5
    )
    base = rng.uniform(0.4, 0.72) + rng.uniform(-0.06, 0.06, 3) + np.array([0.03, 0.0, -0.03])
    rgb = base * (1.0 + 0.09 * tone + 0.08 * smooth_noise(rng, size))[..., None]
    return as_picture(np.where((joint < 0.06)[..., None], 0.55 * base, rgb) + 0.02 * rng.normal(size=(size, size, 1)))


def roof_tiles(rng: np.random.Generator) -> Picture:
    """Rows of round or flat tiles, slates, or standing seams."""
    size = 256
    palette = [(0.62, 0.3, 0.2), (0.5, 0.24, 0.18), (0.36, 0.37, 0.41), (0.27, 0.28, 0.3), (0.3, 0.4, 0.3),
               (0.74, 0.56, 0.22), (0.45, 0.33, 0.25), (0.55, 0.53, 0.5)]  # fmt: skip
    base = np.asarray(palette[int(rng.integers(len(palette)))]) * rng.uniform(0.8, 1.2)
    rows, columns = int(rng.choice([4, 8, 12])), int(rng.choice([8, 12, 16]))
    y, x = np.mgrid[:size, :size] / size
    row = np.floor(y * rows).astype(int)
    kind = int(rng.integers(3))
    shift = 0.5 * (row % 2) if kind == 1 else 0.0 * row
    column = (np.floor(x * columns + shift) % columns).astype(int)
    across, down = (x * columns + shift) % 1.0, (y * rows) % 1.0
    shade = (0.6 + 0.5 * np.sin(np.pi * across), 0.9 + 0.0 * across, 0.75 + 0.35 * (across > 0.12))[kind]
    shade = shade * np.where(down > 0.88, 0.6, 0.85 + 0.2 * down) if kind < 2 else shade
    tone = 1.0 + 0.1 * rng.normal(size=(rows, columns))[row, column]
    soft = 1.0 + 0.12 * smooth_noise(rng, size)
    return as_picture(base * (shade * tone * soft)[..., None] + 0.015 * rng.normal(size=(size, size, 1)))


def facade(wall: Picture, tint: np.ndarray, tiles_per_cell: float, rng: np.random.Generator) -> Picture:
    """Four by four windows of one style in a wall: frames, panes, sills, shutters, curtains, some lit."""
    cell, count = 96, 4
    size = cell * count
    step = np.arange(size) * (tiles_per_cell * count / size)
    index = (step % 1.0 * wall.shape[0]).astype(int)
    rgb = wall[index][:, index, :3] / 255.0 * tint
    wide, tall = rng.uniform(0.28, 0.72), rng.uniform(0.42, 0.75)
    top = rng.uniform(0.1, 0.9 - tall)
    arched, shutters = rng.random() < 0.3, rng.random() < 0.3 and wide < 0.5
    frame = np.asarray([0.88, 0.86, 0.82]) if rng.random() < 0.6 else rng.uniform(0.1, 0.45, 3)
    shutter_rgb, bars = rng.uniform(0.1, 0.5, 3), (int(rng.integers(1, 4)), int(rng.integers(1, 5)))
    glass = rng.uniform(0.06, 0.25) * np.array([0.8, 0.95, 1.1])
    y, x = (np.mgrid[:cell, :cell] + 0.5) / cell
    u, v = (x - 0.5) / wide + 0.5, (y - top) / tall
    inside = (np.abs(u - 0.5) < 0.5) & (v > 0.0) & (v < 1.0)
    if arched:
        inside &= (v > 0.25) | (((u - 0.5) / 0.5) ** 2 + ((v - 0.25) / 0.25) ** 2 < 1.0)
    rim = 0.03
    border = (np.abs(x - 0.5) < 0.5 * wide + rim) & (y > top - rim) & (y < top + tall + rim) & ~inside
    bar = (np.abs((u * bars[0]) % 1.0 - 0.5) > 0.5 - 0.025 * bars[0] / wide * 0.6) | (
        np.abs((v * bars[1]) % 1.0 - 0.5) > 0.5 - 0.02 * bars[1] / tall * 0.6
    )
    sill = (y > top + tall) & (y < top + tall + 0.05) & (np.abs(x - 0.5) < 0.5 * wide + 0.06)
    shadow = (y > top + tall + 0.05) & (y < top + tall + 0.09) & (np.abs(x - 0.5) < 0.5 * wide + 0.05)
    for i in range(count):
        for j in range(count):
            part = rgb[i * cell : (i + 1) * cell, j * cell : (j + 1) * cell]
            pane = glass * rng.uniform(0.6, 1.8) + 0.35 * np.clip(1.0 - v - 0.6 * u, 0, 1)[..., None] * rng.random()
            if rng.random() < 0.3:
                pane = np.where((np.abs(u - 0.5) > rng.uniform(0.1, 0.4))[..., None], rng.uniform(0.4, 0.8, 3), pane)
            part[:] = np.where(shadow[..., None], 0.6 * part, part)
            part[:] = np.where((border | sill)[..., None], frame, part)
            part[:] = np.where(inside[..., None], np.where(bar[..., None], 0.9 * frame, pane), part)
            if shutters:
                leaf = (np.abs(np.abs(x - 0.5) - 0.75 * wide) < 0.25 * wide) & (y > top) & (y < top + tall)
                slats = (0.8 + 0.3 * ((y * 24) % 1.0 > 0.4))[..., None]
                part[:] = np.where(leaf[..., None], shutter_rgb * slats, part)
    return as_picture(rgb)


def leaves(rng: np.random.Generator, *, needles: bool = False) -> Picture:
    """A cluster of leaves or a fan of needles on transparent ground."""
    size = 128
    y, x = np.mgrid[:size, :size] / size - 0.5
    palettes = [(0.25, 0.33, 0.14), (0.31, 0.38, 0.17), (0.19, 0.27, 0.14), (0.38, 0.41, 0.2), (0.56, 0.43, 0.18),
                (0.53, 0.29, 0.15), (0.78, 0.62, 0.64)]  # fmt: skip
    share = [0.3, 0.27, 0.23, 0.11, 0.04, 0.03, 0.02]
    base = np.asarray(palettes[int(rng.choice(len(palettes), p=share))])
    rgb, opacity = np.ones((size, size, 3)) * base * 0.6, np.zeros((size, size))
    for _ in range(150 if needles else 75):
        turn, reach = rng.uniform(0, 2 * np.pi), 0.42 * math.sqrt(rng.random())
        cx, cy = reach * math.cos(turn), reach * math.sin(turn)
        if not needles:
            turn = rng.uniform(0, np.pi)
        long, thin = (0.17, 0.016) if needles else (rng.uniform(0.06, 0.11), rng.uniform(0.03, 0.055))
        a = (x - cx) * math.cos(turn) + (y - cy) * math.sin(turn)
        b = (y - cy) * math.cos(turn) - (x - cx) * math.sin(turn)
        leaf = (a / long) ** 2 + (b / thin) ** 2 < 1.0
        tone = base * rng.uniform(0.6, 1.45) * (1.0 + 0.08 * rng.normal(size=3))
        rgb[leaf] = tone * (1.0 + 0.25 * (b[leaf] / thin))[:, None]
        opacity[leaf] = 1.0
    return as_picture(rgb, opacity)


def flowers(rng: np.random.Generator) -> Picture:
    """Grass blades with blossoms on transparent ground, growing from the lower border."""
    size = 128
    rgb, opacity = np.zeros((size, size, 3)), np.zeros((size, size))
    petal = rng.uniform(0.3, 1.0, 3) * np.array([1.0, 0.8, 0.9])
    y, x = np.mgrid[:size, :size] / size
    for _ in range(60):
        foot, lean, tall = rng.random(), 0.25 * rng.normal(), rng.uniform(0.3, 0.95)
        up = 1.0 - y
        blade = (np.abs(x - foot - lean * up**2) < 0.014 * (1.0 - up / tall)) & (up < tall)
        rgb[blade] = np.array([0.3, 0.42, 0.15]) * rng.uniform(0.5, 1.3)
        opacity[blade] = 1.0
        if rng.random() < 0.35:
            blossom = (x - foot - lean * tall**2) ** 2 + (up - tall) ** 2 < rng.uniform(0.02, 0.045) ** 2
            rgb[blossom], opacity[blossom] = petal * rng.uniform(0.7, 1.1), 1.0
    return as_picture(rgb, opacity)


def bark(rng: np.random.Generator) -> Picture:
    """Vertical streaks of brown or gray."""
    size = 128
    streak = smooth_noise(rng, size, 0.9)[:, : size // 8].repeat(8, 1).T[:size].copy()
    base = np.array([0.36, 0.29, 0.23]) * rng.uniform(0.6, 1.4) + rng.uniform(-0.03, 0.03)
    return as_picture(base * (1.0 + 0.35 * streak.T + 0.15 * rng.normal(size=(size, size)))[..., None])


def water(rng: np.random.Generator, sky_rgb: np.ndarray) -> Picture:
    """Ripples between a dark color and ``sky_rgb``."""
    size = 256
    ripple = 0.5 + 0.7 * smooth_noise(rng, size, 1.1)
    deep = rng.uniform([0.06, 0.12, 0.1], [0.2, 0.26, 0.26])
    mix = np.clip(ripple, 0.0, 1.0)[..., None] * rng.uniform(0.4, 0.9)
    return as_picture(deep * (1.0 - mix) + mix * sky_rgb)


def clouded_sky(rng: np.random.Generator, sun: tuple[float, float, float], clear: float, warm: float) -> Sky:
    """Draw a sky: gradient, glow around the sun, clouds in perspective, dim haze below the horizon.

    Args:
        rng: source of colors and clouds.
        sun: unit vector towards the sun, y down.
        clear: 0 overcast to 1 blue.
        warm: 0 noon to 1 sunset.
    """
    height, width = 512, 1024
    elevation = np.linspace(1.5, -1.5, height)[:, None]
    turn = (np.arange(width)[None] / width - 0.5) * 2.0 * math.pi
    flat = np.cos(elevation)
    direction = np.stack(np.broadcast_arrays(flat * np.sin(turn), -np.sin(elevation), flat * np.cos(turn)), -1)
    zenith = (1 - warm) * rng.uniform([0.12, 0.3, 0.62], [0.4, 0.56, 0.86]) + warm * np.array([0.34, 0.46, 0.62])
    horizon = (1 - warm) * rng.uniform([0.66, 0.76, 0.84], [0.86, 0.9, 0.93]) + warm * np.array([0.95, 0.68, 0.45])
    gray = rng.uniform(0.6, 0.88) * np.array([0.96, 0.98, 1.0])
    zenith, horizon = (clear * zenith + (1 - clear) * gray), (clear * horizon + (1 - clear) * (gray + 0.06))
    up = np.clip(np.sin(elevation), 0.0, 1.0)[..., None]
    rgb = zenith + (horizon - zenith) * np.exp(-up * rng.uniform(2.0, 5.0)) + np.zeros((height, width, 3))
    cover, scale = rng.uniform(-0.5, 0.5) + 0.5 * (1.0 - clear), rng.uniform(0.05, 0.16)
    noise = smooth_noise(rng, 512, rng.uniform(1.25, 1.6))
    plane = direction[..., [0, 2]] / np.maximum(up, 0.03)
    column, row = ((plane[..., i] * scale * 512).astype(int) % 512 for i in (0, 1))
    cloud = np.clip((noise[row, column] + cover) * rng.uniform(1.2, 2.5), 0.0, 1.0)[..., None]
    cloud = cloud * np.clip(up * 9.0, 0.0, 1.0) * rng.uniform(0.4, 1.0)
    bright = rng.uniform(0.82, 1.0) * ((1 - warm) * np.ones(3) + warm * np.array([1.0, 0.8, 0.68]))
    rgb = rgb * (1.0 - cloud) + cloud * (bright - 0.22 * cloud * (1.0 - 0.5 * clear))
    glow = np.clip((direction * np.asarray(sun)).sum(-1, keepdims=True), 0.0, 1.0)
    rgb = rgb + clear * (0.25 * glow**12 + 0.9 * glow**900) * (
        np.array([1.0, 0.95, 0.85]) - 0.3 * warm * np.array([0, 0.5, 1])
    )
    rgb = np.where(elevation[..., None] < 0.0, 0.6 * horizon, rgb)
    return Sky(as_picture(rgb)[..., :3].copy(), repeats=1, half_height_rad=1.5)
