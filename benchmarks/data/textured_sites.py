"""Three textured worlds: a furnished room, a street, a garden; drawn here from noise, bricks and the bundled photo."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image

import worldwarp
from scenes.synthetic.triangle_scene import Lighting, Rgb, TexturedWorld, WorldBuilder, gradient_sky

PHOTO = Path(worldwarp.__file__).parent / "photos" / "pagoda.jpg"
DAYLIGHT = Lighting(
    sky_rgb=(0.55, 0.6, 0.7), ground_rgb=(0.35, 0.33, 0.3), sun_direction=(0.4, -0.75, -0.53), sun_rgb=(0.75, 0.7, 0.6)
)
LAMPLIGHT = Lighting(
    sky_rgb=(0.6, 0.6, 0.6), ground_rgb=(0.75, 0.72, 0.68), sun_direction=(0.3, -0.8, -0.5), sun_rgb=(0.35, 0.33, 0.3)
)
SKY = gradient_sky((0.3, 0.5, 0.85), (0.8, 0.87, 0.93))


@dataclass(frozen=True)
class Site:
    """A world with room to walk: where a walk starts and how far it reaches, meters."""

    build: Callable[[np.random.Generator], TexturedWorld]
    lighting: Lighting
    start: tuple[float, float, float]
    reach: float


def _noise(rng: np.random.Generator, size: int, falloff: float) -> Float[np.ndarray, "size size"]:
    """Tileable noise of unit deviation; a larger falloff is smoother."""
    spectrum = np.fft.rfft2(rng.normal(size=(size, size)))
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]) * size
    noise = np.fft.irfft2(spectrum / np.maximum(frequency, 1.0) ** falloff, (size, size))
    return (noise - noise.mean()) / noise.std()


def _mottled(rng: np.random.Generator, base: Rgb, contrast: float, size: int = 256) -> np.ndarray:
    """Noise of two scales around a color, for plaster, carpet, grass, leaves, bark."""
    grain = 0.7 * _noise(rng, size, 1.3) + 0.3 * _noise(rng, size, 0.6)
    tint = 0.3 * np.stack([_noise(rng, size, 1.6) for _ in range(3)], -1)
    return _rgba(np.asarray(base) * (1.0 + contrast * (grain[..., None] + tint)))


def _tiles(rng: np.random.Generator, base: Rgb, joint: Rgb, rows: int, columns: int, shift: float) -> np.ndarray:
    """Bricks, planks, tiles: cells of varied brightness with joints, every second row shifted."""
    size = 256
    y, x = np.mgrid[:size, :size] / size
    row = np.floor(y * rows).astype(int)
    across = (x * columns + shift * (row % 2)) % columns
    shade = 1.0 + 0.22 * rng.normal(size=(rows, columns))[row, np.floor(across).astype(int)]
    edge = np.minimum(
        np.minimum(y * rows % 1.0, 1.0 - y * rows % 1.0) * columns / rows, np.minimum(across % 1.0, 1.0 - across % 1.0)
    )
    rgb = np.asarray(base) * (shade + 0.08 * _noise(rng, size, 1.0))[..., None]
    return _rgba(np.where(edge[..., None] < 0.05, np.asarray(joint), rgb))


def _facade(rng: np.random.Generator) -> np.ndarray:
    """A storey of two windows in a brick or plaster wall."""
    wall = (
        _tiles(rng, (0.62, 0.38, 0.3), (0.72, 0.68, 0.62), 16, 8, 0.5)
        if rng.random() < 0.5
        else _mottled(rng, tuple(rng.uniform(0.45, 0.85, 3)), 0.1)
    )
    y, x = np.mgrid[:256, :256] / 256
    inside, frame = np.zeros((256, 256), bool), np.zeros((256, 256), bool)
    for left in (0.12, 0.6):
        frame |= (x > left - 0.02) & (x < left + 0.3) & (y > 0.2) & (y < 0.82)
        inside |= (x > left) & (x < left + 0.28) & (y > 0.22) & (y < 0.8) & (np.abs(x - left - 0.14) > 0.01)
    glass = np.array([0.2, 0.28, 0.36]) + 0.07 * _noise(rng, 256, 1.5)[..., None]
    rgb = np.where(inside[..., None], glass, np.where(frame[..., None], 0.88, wall[..., :3] / 255.0))
    return _rgba(rgb)


def _rgba(rgb: Float[np.ndarray, "h w 3"]) -> np.ndarray:
    byte = (255.0 * np.clip(rgb, 0.0, 1.0)).astype(np.uint8)
    return np.concatenate([byte, np.full_like(byte[..., :1], 255)], -1)


def _photo() -> np.ndarray:
    """The bundled photograph as a picture on a wall."""
    picture = Image.open(PHOTO).convert("RGB")
    picture.thumbnail((512, 512))
    return _rgba(np.asarray(picture) / 255.0)


def _box(
    builder: WorldBuilder,
    low: tuple[float, float, float],
    high: tuple[float, float, float],
    texture: int,
    meters: float,
) -> None:
    """An axis-aligned box whose texture repeats every ``meters``."""
    a, b = np.asarray(low, float), np.asarray(high, float)
    x, y, z = np.diag(b - a)
    sides = ((a, x, y), (a + z, x, y), (a, z, y), (a + x, z, y), (a, x, z), (a + y, x, z))
    for corner, along, down in sides:
        tiles = (float(np.linalg.norm(along)) / meters, float(np.linalg.norm(down)) / meters)
        builder.add_quad(corner, along, down, tiles=tiles, texture=texture)


def _room(rng: np.random.Generator) -> TexturedWorld:
    """A living room of 7 x 2.8 x 9 m: tables, shelves, sofas, boxes, a rug, pictures on the walls."""
    builder = WorldBuilder()
    wood = [
        builder.add_texture(_tiles(rng, c, (0.2, 0.13, 0.08), 8, 2, 0.37))
        for c in ((0.6, 0.42, 0.25), (0.4, 0.26, 0.16))
    ]
    cloth = [
        builder.add_texture(_mottled(rng, c, 0.16)) for c in ((0.55, 0.2, 0.2), (0.25, 0.4, 0.5), (0.6, 0.55, 0.4))
    ]
    wall, photo = builder.add_texture(_mottled(rng, (0.75, 0.72, 0.62), 0.07)), builder.add_texture(_photo())
    paper = builder.add_texture(_tiles(rng, (0.5, 0.62, 0.58), (0.85, 0.85, 0.78), 6, 6, 0.5))
    low, high = (-3.5, -2.8, -1.5), (3.5, 0.0, 7.5)
    width, height, length = np.diag(np.subtract(high, low))
    builder.add_quad(np.array([-3.5, 0, -1.5]), width, length, tiles=(4.0, 5.0), texture=wood[0])
    builder.add_quad(np.array(low), width, length, tiles=(3.0, 4.0), texture=wall)
    for corner, along, tiles, texture in (
        (np.array([-3.5, -2.8, 7.5]), width, 5.0, paper), (np.array(low), width, 3.0, wall),
        (np.array(low), length, 4.0, wall), (np.array([3.5, -2.8, -1.5]), length, 7.0, paper),
    ):  # fmt: skip
        builder.add_quad(corner, along, height, tiles=(tiles, 0.4 * tiles), texture=texture)
    for corner, along in (
        ((-1.6, -2.2, 7.45), (2.2, 0, 0)), ((1.2, -2.0, 7.45), (1.4, 0, 0)), ((-3.45, -2.1, 3.0), (0, 0, 1.8)),
        ((3.45, -2.1, 1.5), (0, 0, 1.8)),
    ):  # fmt: skip
        builder.add_quad(np.array(corner), np.array(along), np.array([0, 1.2, 0]), texture=photo)
    for a, b, texture, meters in (
        ((-2.6, -0.75, 3.6), (-1.2, -0.65, 5.0), wood[1], 1.0), ((-2.5, -0.65, 3.7), (-2.4, 0.0, 3.8), wood[1], 0.5),
        ((-1.4, -0.65, 4.8), (-1.3, 0.0, 4.9), wood[1], 0.5), ((-1.4, -0.65, 3.7), (-1.3, 0.0, 3.8), wood[1], 0.5),
        ((-2.2, -1.05, 4.1), (-1.8, -0.75, 4.5), cloth[2], 0.4), ((1.6, -0.45, 3.2), (2.7, 0.0, 5.4), cloth[0], 0.9),
        ((2.5, -0.95, 3.2), (2.8, 0.0, 5.4), cloth[0], 0.9), ((0.6, -0.9, 6.9), (2.0, 0.0, 7.4), wood[1], 0.9),
        ((-3.4, -2.0, 6.0), (-3.0, 0.0, 7.3), wood[0], 1.2), ((-0.4, -0.5, 6.3), (0.3, 0.0, 6.9), cloth[1], 0.5),
        ((-3.3, -0.5, 0.6), (-2.4, 0.0, 2.2), cloth[1], 0.8), ((2.7, -1.3, 0.8), (3.3, 0.0, 1.6), wood[0], 0.8),
        ((-0.9, -0.02, 3.4), (1.2, -0.01, 5.2), cloth[2], 1.0),
    ):  # fmt: skip
        _box(builder, a, b, texture, meters)
    return builder.build(SKY)


def _street(rng: np.random.Generator) -> TexturedWorld:
    """A street between rows of houses of different heights and depths, with parked boxes, posts and a far end."""
    builder = WorldBuilder()
    road = builder.add_texture(_tiles(rng, (0.45, 0.45, 0.46), (0.3, 0.3, 0.3), 12, 12, 0.5))
    paving = builder.add_texture(_tiles(rng, (0.66, 0.63, 0.58), (0.45, 0.43, 0.4), 6, 6, 0.0))
    facades = [builder.add_texture(_facade(rng)) for _ in range(6)]
    paint = [
        builder.add_texture(_mottled(rng, c, 0.1)) for c in ((0.7, 0.15, 0.12), (0.15, 0.3, 0.6), (0.8, 0.75, 0.3))
    ]
    poster, bark = builder.add_texture(_photo()), builder.add_texture(_mottled(rng, (0.3, 0.3, 0.32), 0.12))
    builder.add_quad(
        np.array([-60.0, 0, -30]), np.array([120.0, 0, 0]), np.array([0, 0, 150.0]), tiles=(40.0, 50.0), texture=road
    )
    for side in (-1.0, 1.0):
        _box(builder, (min(side * 3.5, side * 6), -0.15, -30.0), (max(side * 3.5, side * 6), 0.0, 90.0), paving, 2.0)
        z = -20.0
        while z < 80.0:
            width, height, back = rng.uniform(6, 11), 3.0 * rng.integers(2, 5), side * (6.0 + rng.uniform(0, 1.5))
            _box(
                builder, (min(back, side * 20), -height, z), (max(back, side * 20), 0.0, z + width),
                facades[rng.integers(6)], 3.0,
            )  # fmt: skip
            z += width + (rng.uniform(2.0, 4.0) if rng.random() < 0.35 else 0.0)
        for z in np.arange(3.0, 60.0, 8.0) + rng.uniform(0, 3):
            x = side * 4.0
            _box(builder, (x - 0.08, -4.0, z), (x + 0.08, -0.15, z + 0.16), bark, 0.6)
            if rng.random() < 0.7:
                a, b = sorted((side * 2.3, side * 3.4))
                _box(builder, (a, -1.4, z + 1.5), (b, -0.3, z + 4.5), paint[rng.integers(3)], 1.5)
    _box(builder, (-20.0, -9.0, 85.0), (20.0, 0.0, 90.0), facades[0], 3.0)
    builder.add_quad(np.array([-5.8, -3.6, 9.0]), np.array([0, 0, 3.5]), np.array([0, 2.4, 0]), texture=poster)
    return builder.build(SKY)


def _garden(rng: np.random.Generator) -> TexturedWorld:
    """Grass, trees, hedges, a brick wall with a picture, a shed, a path; sky above."""
    builder = WorldBuilder()
    grass, leaves = builder.add_texture(_mottled(rng, (0.33, 0.48, 0.2), 0.2)), [
        builder.add_texture(_mottled(rng, c, 0.3)) for c in ((0.25, 0.42, 0.16), (0.38, 0.48, 0.18), (0.5, 0.4, 0.15))
    ]  # fmt: skip
    bark = builder.add_texture(_mottled(rng, (0.35, 0.26, 0.18), 0.25))
    brick = builder.add_texture(_tiles(rng, (0.6, 0.35, 0.28), (0.7, 0.67, 0.6), 16, 8, 0.5))
    plank, stone = (
        builder.add_texture(_tiles(rng, (0.55, 0.42, 0.28), (0.25, 0.2, 0.14), 2, 10, 0.0)),
        builder.add_texture(_tiles(rng, (0.68, 0.66, 0.62), (0.4, 0.42, 0.35), 5, 5, 0.5)),
    )
    photo = builder.add_texture(_photo())
    builder.add_quad(
        np.array([-40.0, 0, -20]), np.array([80.0, 0, 0]), np.array([0, 0, 80.0]), tiles=(32.0, 32.0), texture=grass
    )
    _box(builder, (-0.8, -0.03, -5.0), (0.8, -0.01, 18.0), stone, 2.0)
    _box(builder, (-12.0, -2.4, 18.0), (12.0, 0.0, 18.4), brick, 1.6)
    builder.add_quad(np.array([-2.5, -2.2, 17.98]), np.array([3.0, 0, 0]), np.array([0, 1.9, 0]), texture=photo)
    for a, b, texture, meters in (
        ((-9.0, -1.3, -4.0), (-8.0, 0.0, 18.0), leaves[0], 1.5), ((8.0, -1.6, -4.0), (9.2, 0.0, 18.0), leaves[1], 1.5),
        ((4.0, -2.5, 12.5), (7.0, 0.0, 15.5), plank, 2.0), ((-5.0, -0.6, 5.0), (-3.4, 0.0, 6.0), leaves[2], 0.8),
        ((2.4, -0.5, 7.0), (3.6, 0.0, 8.2), stone, 0.9),
    ):  # fmt: skip
        _box(builder, a, b, texture, meters)
    for x, z, scale in (
        (-3.5, 9.5, 1.0),
        (3.2, 4.6, 0.8),
        (-5.5, 14.0, 1.3),
        (2.2, 15.0, 1.1),
        (-6.0, 3.0, 1.0),
        (6.3, 8.5, 1.2),
    ):
        _box(
            builder,
            (x - 0.15 * scale, -2.2 * scale, z - 0.15 * scale),
            (x + 0.15 * scale, 0.0, z + 0.15 * scale),
            bark,
            0.8,
        )
        for _ in range(5):
            center = np.array([x, -2.7 * scale, z]) + 0.6 * scale * rng.normal(size=3)
            _ball(builder, center, scale * rng.uniform(0.6, 0.95), leaves[rng.integers(3)])
    return builder.build(SKY)


def _ball(builder: WorldBuilder, center: np.ndarray, radius: float, texture: int) -> None:
    """A sphere of 12 x 8 smooth facets."""
    turn, lift = np.meshgrid(np.linspace(0, 2 * math.pi, 13), np.linspace(0, math.pi, 9))
    normal = np.stack([np.sin(lift) * np.cos(turn), -np.cos(lift), np.sin(lift) * np.sin(turn)], -1)
    uv = np.stack([2.0 * radius * turn / math.pi, 2.0 * radius * lift / math.pi], -1)
    a, b, c, d = (
        (slice(0, 8), slice(0, 12)),
        (slice(0, 8), slice(1, 13)),
        (slice(1, 9), slice(1, 13)),
        (slice(1, 9), slice(0, 12)),
    )

    def faces(values: np.ndarray) -> np.ndarray:
        pairs = [
            np.stack([values[i].reshape(-1, values.shape[-1]) for i in corners], 1)
            for corners in ((a, b, c), (a, c, d))
        ]
        return np.concatenate(pairs)

    builder.add_triangles(faces(center + radius * normal), normals=faces(normal), uv=faces(uv), texture=texture)


SITES = {
    "room": Site(_room, LAMPLIGHT, (0.0, -1.5, -0.8), 3.6),
    "street": Site(_street, DAYLIGHT, (0.0, -1.7, 0.0), 14.0),
    "garden": Site(_garden, DAYLIGHT, (0.0, -1.6, -2.0), 9.0),
}
