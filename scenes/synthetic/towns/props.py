"""Props of a town: lamps, cars, people, fences, benches, statues, stalls, catalogue models."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np

from scenes.synthetic.rooms.furniture import Furniture, load_furniture, read_catalogues
from scenes.synthetic.towns.masonry import Masonry, gable_roof, pick
from scenes.synthetic.towns.solids import Material, Number, Site, plain
from scenes.synthetic.triangle_scene import NO_TEXTURE

_OUTDOOR = (
    r"^(little plant|bench|fence|motorbike|plant box|flower box|barrel|umbrella|car model|snowman|bike|bulldog|horse|"
    r"siamese cat|fountain|concrete bench|painted bench|park trashcan|bullet trash can|classic lamppost|street lamp|"
    r"street light|bush|garden hut|mannequin male|mannequin female|camping tent|coconut tree|bended coconut tree|"
    r"palm tree|stone grill device|smart car|bicycle|dog house|dog|rock|outdoor lamp|cardboard box|decorative plant)$"
)


class Catalogue:
    """Outdoor models of the furniture catalogues; empty without a folder."""

    def __init__(self, cache: Path | None) -> None:
        self._cache = cache
        known = [] if cache is None or not any(cache.glob("*/*.properties")) else read_catalogues(cache)
        self.items = [i for i in known if re.search(_OUTDOOR, i.name, re.IGNORECASE)]

    def place(self, site: Site, item: Furniture, rng: np.random.Generator) -> None:
        """Add a model."""
        assert self._cache is not None
        tone = rng.uniform(0.7, 1.1, 3)
        for part in load_furniture(self._cache, item):
            texture = NO_TEXTURE if part.picture is None else site.builder.add_texture(part.picture)
            tint = np.minimum(np.asarray(part.tint) * tone, 0.92)
            cutout = site.builder.has_clear_pixels(texture)
            material = Material(texture, tint=(float(tint[0]), float(tint[1]), float(tint[2])), cutout=cutout)
            site.faces(part.corners, material, uv_meters=part.uv if part.uv is not None else None, normals=part.normals)


def lamp(site: Site, rng: np.random.Generator, _stone: Masonry) -> None:
    """Add a lamp post with a lantern or an arm."""
    height, iron = rng.uniform(2.8, 6.5), plain(*(rng.uniform(0.03, 0.3) * np.ones(3)))
    site.turned([(0.16, -0.3), (0.14, 0.3), (0.06, 0.5), (0.05, height)], iron, sides=9)
    glass = plain(0.85, 0.8, 0.65)
    if rng.random() < 0.6:
        site.turned([(0.09, height), (0.2, height + 0.5), (0.24, height + 0.52), (0.02, height + 0.8)], glass, sides=6)
    else:
        site.beam((0, height - 0.05, 0), (1.3, height + 0.2, 0), 0.045, iron)
        site.box((0.9, height + 0.12, -0.12), (1.6, height + 0.26, 0.12), glass)


def car(site: Site, rng: np.random.Generator, _stone: Masonry) -> None:
    """Add a parked car: body, cabin with dark windows, wheels, lights."""
    long, wide, tall = rng.uniform(3.6, 4.7), rng.uniform(1.6, 1.85), rng.uniform(1.35, 1.75)
    body, glass = plain(*(rng.uniform(0.02, 0.7) * (1 + rng.uniform(-0.5, 0.3, 3)))), plain(0.03, 0.035, 0.045)
    waist, van = 0.55 * tall, rng.random() < 0.3
    front = rng.uniform(0.2, 0.3) * long
    back = 0.06 * long if van else rng.uniform(0.1, 0.24) * long
    xs = [-long / 2, -long / 2 + 0.06, long / 2 - 0.06, long / 2]
    lower = [
        (xs[0], 0.28),
        (xs[0], 0.8 * waist),
        (xs[1], waist),
        (xs[2], 0.92 * waist),
        (xs[3], 0.7 * waist),
        (xs[3], 0.28),
    ]
    cabin = [
        (-long / 2 + back * 0.6, waist),
        (-long / 2 + back + 0.1, tall),
        (long / 2 - front - 0.65, tall),
        (long / 2 - front + 0.1, 0.95 * waist),
    ]
    _extruded(site, lower, wide, body)
    _extruded(site, cabin, 0.88 * wide, body)
    inset = [(0.94 * x + 0.0, waist + (u - waist) * 0.86 + 0.04) for x, u in cabin]
    _extruded(site, inset, 0.885 * wide + 0.02, glass)
    for x in (-0.31 * long, 0.32 * long):
        for z in (-wide / 2, wide / 2):
            turn = np.linspace(0, 2 * math.pi, 13)
            ring = np.stack([x + 0.31 * np.cos(turn), 0.31 + 0.31 * np.sin(turn), np.full(13, 1.01 * z)], -1)
            fan = np.stack([np.broadcast_to([x, 0.31, 1.01 * z], (12, 3)), ring[:-1], ring[1:]], 1)
            site.faces(fan, plain(0.02, 0.02, 0.02))
            site.faces(
                0.55 * (fan - [x, 0.31, 0]) * [1, 1, 1.0 / 0.55] + [x, 0.31, 0.004 * np.sign(z)],
                plain(0.35, 0.35, 0.36),
            )
    for z in (-0.36 * wide, 0.36 * wide):
        site.box(
            (-long / 2 - 0.02, 0.55 * waist, z - 0.14),
            (-long / 2 + 0.02, 0.85 * waist, z + 0.14),
            plain(0.5, 0.02, 0.02),
        )
        site.box(
            (long / 2 - 0.02, 0.45 * waist, z - 0.16), (long / 2 + 0.02, 0.65 * waist, z + 0.16), plain(0.8, 0.8, 0.75)
        )


def _extruded(site: Site, outline: list[tuple[Number, Number]], wide: Number, material: Material) -> None:
    """Add a convex outline (x, up), extruded along z."""
    p = np.asarray(outline)
    closed = np.concatenate([p, p[:1]])
    grid = np.stack([np.concatenate([closed, np.full((len(closed), 1), z)], -1) for z in (-wide / 2, wide / 2)])
    ring_low, ring_high = grid
    for a, b in zip(range(len(p)), range(1, len(p) + 1), strict=True):
        site.faces(
            np.array([[ring_low[a], ring_low[b], ring_high[b]], [ring_low[a], ring_high[b], ring_high[a]]]), material
        )
    for ring in grid:
        site.faces(np.stack([np.broadcast_to(ring[0], (len(p) - 2, 3)), ring[1:-2], ring[2:-1]], 1), material)


def person(site: Site, rng: np.random.Generator, _stone: Masonry) -> None:
    """Add a person, standing or walking, in simple clothes."""
    scale = rng.uniform(0.92, 1.08) if rng.random() < 0.85 else rng.uniform(0.6, 0.8)
    skin = plain(*(rng.uniform(0.15, 0.6) * np.array([1.0, 0.72, 0.55])))
    shirt, trousers, hair = (
        plain(*(rng.uniform(0.02, high) * (1.0 + rng.uniform(-0.5, 0.3, 3)))) for high in (0.7, 0.35, 0.15)
    )
    stride, swing = rng.uniform(0.0, 0.28), rng.normal(0, 0.15, 2)
    for sign in (-1.0, 1.0):
        hip, foot = (0.09 * sign * scale, 0.88 * scale, 0.0), (0.1 * sign * scale, 0.02, sign * stride)
        site.beam(hip, foot, 0.085 * scale, trousers, end_radius=0.06 * scale)
        site.box((foot[0] - 0.05, 0.0, foot[2] - 0.16), (foot[0] + 0.05, 0.09, foot[2] + 0.08), plain(0.03, 0.03, 0.03))
        shoulder = (0.2 * sign * scale, 1.38 * scale, 0.0)
        elbow = (0.27 * sign * scale, 1.1 * scale, float(swing[0]) * sign)
        hand = (0.25 * sign * scale, 0.86 * scale + abs(float(swing[1])), float(swing[1] - 0.1))
        site.beam(shoulder, elbow, 0.055 * scale, shirt)
        site.beam(elbow, hand, 0.045 * scale, skin if rng.random() < 0.5 else shirt)
    torso = [(0.13, 0.82), (0.16, 0.95), (0.15, 1.1), (0.2, 1.35), (0.17, 1.44), (0.06, 1.5)]
    skirt = [(0.3, 0.35), (0.15, 0.95)] if rng.random() < 0.2 else []
    for profile in (torso, skirt):
        if profile:
            site.turned([(r * scale, u * scale) for r, u in profile], shirt, sides=10, stretch=(1.0, 0.65))
    head = [(0.11 * math.sin(a), 1.63 - 0.13 * math.cos(a)) for a in np.linspace(0.1, math.pi, 7)]
    site.turned([(r * scale, u * scale) for r, u in head], skin, sides=10)
    cap = [(0.118 * math.sin(a) + 0.004, 1.64 - 0.135 * math.cos(a)) for a in np.linspace(1.5, math.pi, 4)]
    site.turned([(r * scale, u * scale) for r, u in cap], hair, sides=10)


def fence(site: Site, rng: np.random.Generator, stone: Masonry, length: Number) -> None:
    """Add a fence along x: pickets, rails, iron bars or a low wall along x."""
    kind, height = int(rng.integers(4)), rng.uniform(0.8, 1.5)
    material = (stone.wood, stone.wood, plain(0.04, 0.045, 0.05), pick(rng, stone.walls))[kind]
    if kind == 3:
        site.box((0.0, -0.5, -0.16), (length, height, 0.16), material)
        site.box((-0.05, height, -0.22), (length + 0.05, height + 0.1, 0.22), material.tinted(1.1))
        return
    gap, half = ((0.19, 0.05), (1.8, 0.06), (0.16, 0.014))[kind]
    if kind == 0 and rng.random() < 0.5:
        material = plain(0.75, 0.75, 0.72)
    for x in np.arange(0.0, length, gap):
        site.box((x, -0.4, -min(half, 0.03)), (x + 2 * half, height, min(half, 0.03)), material)
    for up in (0.35, 0.85) if kind != 1 else (0.3, 0.6, 0.9):
        site.box((0.0, (up - 0.04) * height, 0.01), (length, (up + 0.04) * height, 0.06), material)


def bench(site: Site, rng: np.random.Generator, stone: Masonry) -> None:
    """Add a bench of planks."""
    for z in (-0.2, -0.06, 0.08):
        site.box((-0.8, 0.42, z), (0.8, 0.46, z + 0.11), stone.wood)
    if rng.random() < 0.7:
        for up in (0.6, 0.76):
            site.box((-0.8, up, 0.22), (0.8, up + 0.1, 0.25), stone.wood)
    for x in (-0.65, 0.6):
        site.box((x, -0.2, -0.2), (x + 0.06, 0.42, 0.24), plain(0.05, 0.05, 0.05))


def crates(site: Site, rng: np.random.Generator, stone: Masonry) -> None:
    """Add a few boxes and barrels."""
    for _ in range(int(rng.integers(2, 6))):
        at = site.moved(rng.normal() * 0.8, 0.0, rng.normal() * 0.8, rng.uniform(0, 3))
        half, height = rng.uniform(0.2, 0.45), rng.uniform(0.4, 0.9)
        material = stone.wood if rng.random() < 0.6 else pick(rng, stone.paint)
        if rng.random() < 0.4:
            at.turned([(0.8 * half, 0), (half, 0.5 * height), (0.8 * half, height), (0.0, height)], material, sides=12)
        else:
            at.box((-half, -0.2, -half), (half, height, half), material)


def monument(site: Site, rng: np.random.Generator, stone: Masonry) -> None:
    """Add a figure on a plinth, an obelisk, a tall column or a fountain."""
    wall, kind, up = pick(rng, stone.walls), int(rng.integers(4)), rng.uniform(1.0, 2.6)
    for k, half in enumerate((1.6, 1.3, 1.0)):
        site.box((-half, -1.0, -half), (half, 0.2 * (k + 1), half), wall)
    if kind == 0:
        site.box((-0.6, 0.4, -0.6), (0.6, up, 0.6), wall)
        bronze = plain(*(rng.uniform(0.08, 0.4) * np.array([0.8, 1.0, 0.8])))
        robe = [(0.45, up), (0.4, up + 0.8), (0.28, up + 1.3), (0.38, up + 1.8), (0.12, up + 2.05)]
        site.turned(robe, bronze, sides=10, stretch=(1.0, 0.7))
        site.turned([(0.02, up + 2.0), (0.17, up + 2.2), (0.12, up + 2.42), (0.02, up + 2.5)], bronze, sides=10)
        site.beam((0.3, up + 1.7, 0), (0.9, up + 2.2 * rng.uniform(0.6, 1.2), -0.3), 0.1, bronze)
    elif kind == 1:
        site.turned([(0.75, 0.5), (0.45, 4.0 * up), (0.02, 4.0 * up + 0.8)], wall, sides=4)
    elif kind == 2:
        site.turned(
            [(0.7, 0.5), (0.55, 0.9), (0.45, 3.5 * up), (0.7, 3.5 * up + 0.4), (0.1, 3.5 * up + 0.6)], wall, sides=14
        )
    else:
        site.turned([(2.6, -0.5), (2.7, 0.7), (2.35, 0.7), (2.3, 0.4), (0.0, 0.4)], wall, sides=20)
        site.turned(
            [(0.3, 0.3), (0.2, 1.3), (1.2, 1.7), (1.15, 1.75), (0.15, 1.6), (0.1, 2.6), (0.5, 2.9), (0.0, 2.8)],
            wall,
            sides=16,
        )


def stall(site: Site, rng: np.random.Generator, stone: Masonry) -> None:
    """Add a market stall, a gazebo or a sunshade with goods."""
    cloth = pick(rng, stone.paint)
    if rng.random() < 0.4:
        site.beam((0, 0, 0), (0, 2.6, 0), 0.04, stone.wood)
        site.turned([(1.6, 2.1), (0.0, 2.65)], cloth, sides=8)
        return
    for x in (-1.2, 1.2):
        for z in (-0.9, 0.9):
            site.beam((x, -0.2, z), (x, 2.2, z), 0.05, stone.wood)
    gable_roof(site, (1.3, 1.0), 2.2, 0.6, 0.25, cloth, cloth)
    site.box((-1.2, 0.0, -0.8), (1.2, 0.85, -0.2), stone.wood)
    for _ in range(10):
        x, half = rng.uniform(-1.0, 1.0), rng.uniform(0.06, 0.14)
        site.box((x - half, 0.85, -0.6 - half), (x + half, 0.85 + 2 * half, -0.6 + half), pick(rng, stone.paint))


def sign(site: Site, rng: np.random.Generator, stone: Masonry) -> None:
    """Add a post with a plate, or a bollard."""
    if rng.random() < 0.5:
        site.turned([(0.11, -0.2), (0.11, 0.8), (0.0, 0.9)], pick(rng, stone.paint), sides=10)
        return
    site.beam((0, -0.2, 0), (0, 2.6, 0), 0.035, plain(0.4, 0.4, 0.4))
    half = rng.uniform(0.2, 0.5)
    site.box((-half, 2.6 - 1.3 * half, -0.03), (half, 2.7, 0.0), pick(rng, stone.paint))
