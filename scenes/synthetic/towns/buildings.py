"""Buildings of a town: houses, blocks, churches, towers, ramparts and bridges; radii and heights in meters."""

from __future__ import annotations

import itertools
import math

import numpy as np

from scenes.synthetic.towns.masonry import Masonry, gable_roof, pick, swept_roof, walls_with_windows
from scenes.synthetic.towns.solids import Material, Number, Site, plain, quads


def house(site: Site, rng: np.random.Generator, stone: Masonry) -> float:
    """Add a house with a gabled or hipped roof, doors, a chimney; returns its radius on the ground."""
    hx, hz = rng.uniform(3.0, 6.5), rng.uniform(2.6, 4.5)
    front, roof, storeys = pick(rng, stone.facades), pick(rng, stone.roofs), int(rng.integers(1, 4))
    height, base = storeys * rng.uniform(2.6, 3.1), rng.uniform(0.1, 0.6)
    site.box((-hx - 0.05, -1.5, -hz - 0.05), (hx + 0.05, base, hz + 0.05), pick(rng, stone.walls).tinted(0.8))
    walls_with_windows(site, (hx, hz), base, height, front)
    top, rise = base + height, rng.uniform(0.5, 1.1) * hz
    if rng.random() < 0.65:
        gable_roof(site, (hx, hz), top, rise, rng.uniform(0.2, 0.8), roof, pick(rng, stone.walls))
    else:
        r = math.sqrt(2.0) * hz
        swept_roof(site, 4, (r + 0.7, 0.1), top - 0.1, rise, roof, pick(rng, stone.paint), stretch=(hx / hz, 1.0))
    cx, cz = rng.uniform(-0.7, 0.7) * hx, rng.uniform(-0.3, 0.3) * hz
    site.box((cx - 0.35, top, cz - 0.35), (cx + 0.35, top + rise + 0.8, cz + 0.35), pick(rng, stone.walls))
    door = rng.uniform(-0.6, 0.6) * hx
    for z in (-hz - 0.06, hz + 0.06):
        site.panel((door - 0.55, base, z), (door + 0.55, base, z), 2.1, pick(rng, stone.doors), (1.0, 1.0))
        site.box((door - 0.9, -0.4, min(z, z * 1.2)), (door + 0.9, base, max(z, z * 1.2)), stone.paving)
        if rng.random() < 0.4:
            site.box((door - 1.2, base + 2.3, min(z, 1.3 * z)), (door + 1.2, base + 2.42, max(z, 1.3 * z)), stone.wood)
            for x in (door - 1.1, door + 1.1):
                site.beam((x, 0.0, 1.27 * z), (x, base + 2.3, 1.27 * z), 0.07, stone.wood)
    if rng.random() < 0.4:
        _dormer(site, rng, hz, top, rise, roof, stone)
    return math.hypot(hx, hz)


def _dormer(
    site: Site, rng: np.random.Generator, hz: float, top: float, rise: Number, roof: Material, stone: Masonry
) -> None:
    for sign in (-1.0, 1.0):
        at = site.moved(rng.uniform(-1.5, 1.5), top + 0.2 * rise, sign * 0.55 * hz, 0.5 * math.pi)
        at.box((-0.4 * hz, 0.0, -0.7), (0.4 * hz, 1.3, 0.7), pick(rng, stone.facades))
        gable_roof(at, (0.4 * hz, 0.7), 1.3, 0.6, 0.2, roof, pick(rng, stone.walls))


def block(site: Site, rng: np.random.Generator, stone: Masonry) -> float:
    """Add a flat-roofed block of two to nine storeys, with shops and balconies; returns its radius on the ground."""
    hx, hz = rng.uniform(4.0, 9.0), rng.uniform(4.0, 7.0)
    front, wall = pick(rng, stone.facades), pick(rng, stone.walls)
    storeys = int(rng.integers(2, 10))
    shop, height = rng.uniform(3.0, 4.2), storeys * rng.uniform(2.8, 3.3)
    site.box((-hx, -1.5, -hz), (hx, shop, hz), wall)
    glass, awning = plain(0.05, 0.06, 0.07), pick(rng, stone.paint)
    for z in (-hz - 0.05, hz + 0.05):
        for x in np.arange(-hx + 0.6, hx - 2.4, 3.0):
            panel = glass if rng.random() < 0.7 else pick(rng, stone.doors)
            site.panel((x, 0.1, z), (x + 2.2, 0.1, z), 2.4, panel, (1.0, 1.0))
            if rng.random() < 0.5:
                far = z + math.copysign(1.2, z)
                site.quad((x - 0.2, 2.9, z), (x + 2.4, 2.9, z), (x + 2.4, 2.4, far), (x - 0.2, 2.4, far), awning)
    walls_with_windows(site, (hx, hz), shop, height, front)
    top = shop + height
    site.box((-hx - 0.3, shop - 0.15, -hz - 0.3), (hx + 0.3, shop + 0.1, hz + 0.3), wall.tinted(1.1))
    site.box((-hx - 0.35, top - 0.2, -hz - 0.35), (hx + 0.35, top + 0.5, hz + 0.35), wall.tinted(0.9))
    for _ in range(int(rng.integers(0, 4))):
        x, z, w, h = (
            rng.uniform(-0.6, 0.6) * hx,
            rng.uniform(-0.6, 0.6) * hz,
            rng.uniform(0.6, 1.8),
            rng.uniform(0.8, 2.5),
        )
        site.box((x - w, top, z - w), (x + w, top + 0.5 + h, z + w), pick(rng, stone.walls))
    if rng.random() < 0.6:
        for storey in range(storeys):
            for x in np.arange(-hx + 1.5, hx - 1.4, rng.choice([3.0, 6.0])):
                for z in (-hz, hz):
                    _balcony(site.moved(x, shop + (storey + 0.05) * height / storeys, z), math.copysign(1.1, z), awning)
    return math.hypot(hx, hz)


def _balcony(site: Site, depth: Number, rail: Material) -> None:
    near, far = min(0.0, depth), max(0.0, depth)
    site.box((-1.2, -0.12, near), (1.2, 0.02, far), plain(0.45, 0.44, 0.42))
    site.quad((-1.2, 0.95, depth), (1.2, 0.95, depth), (1.2, 0.88, depth), (-1.2, 0.88, depth), rail)
    for x in np.linspace(-1.2, 1.2, 7):
        site.quad((x - 0.03, 0.9, depth), (x + 0.03, 0.9, depth), (x + 0.03, 0, depth), (x - 0.03, 0, depth), rail)


def tower(site: Site, rng: np.random.Generator, stone: Masonry) -> float:
    """Add a square or round tower with battlements, spire, dome or lantern; returns its radius on the ground."""
    radius, height = rng.uniform(1.8, 4.0), rng.uniform(9.0, 26.0)
    sides = int(rng.choice([4, 4, 8, 16]))
    wall, front, roof = pick(rng, stone.walls), pick(rng, stone.facades), pick(rng, stone.roofs)
    corner = radius * (math.sqrt(2.0) if sides == 4 else 1.0)
    site.turned([(1.12 * corner, -2.0), (1.12 * corner, 1.2), (corner, 1.5)], wall, sides=sides)
    split = rng.uniform(0.3, 0.8) * height
    site.turned([(corner, 1.5), (corner, split)], wall, sides=sides)
    site.turned(
        [(corner, split), (corner, height)], Material(front.texture, (4.0 * radius, 12.0), front.tint), sides=sides
    )
    for up in (split, height - 0.3):
        site.turned(
            [(corner, up - 0.3), (1.12 * corner, up), (1.12 * corner, up + 0.3), (corner, up + 0.35)],
            wall.tinted(0.9),
            sides=sides,
        )
    site.panel((-0.7, 0.0, radius * 1.13), (0.7, 0.0, radius * 1.13), 2.3, pick(rng, stone.doors), (1.0, 1.0))
    top = rng.integers(4)
    if top == 0:
        battlements(site, sides, 1.1 * corner, height, wall)
    elif top == 1:
        swept_roof(site, sides, (1.2 * corner, 0.05), height, rng.uniform(1.5, 4.0) * radius, roof, wall)
    elif top == 2:
        dome = [
            (1.05 * corner * math.cos(a), height + 0.3 + 1.2 * corner * math.sin(a)) for a in np.linspace(0, 1.5, 7)
        ]
        site.turned([*dome, (0.12, dome[-1][1]), (0.03, dome[-1][1] + 2.0)], roof, sides=max(sides, 8))
    else:
        for k in range(8):
            turn = 2 * math.pi * k / 8
            x, z = 0.8 * corner * math.sin(turn), 0.8 * corner * math.cos(turn)
            site.beam((x, height, z), (x, height + 2.5, z), 0.15, wall)
        swept_roof(site, 8, (1.1 * corner, 0.05), height + 2.5, 1.4 * radius, roof, wall, upturn=0.2)
    return 1.6 * radius


def battlements(site: Site, sides: int, radius: Number, low: Number, material: Material) -> None:
    """Add a parapet with merlons around a polygon."""
    turn = 2.0 * math.pi * np.arange(sides + 1) / sides + math.pi / sides
    for a, b in itertools.pairwise(turn):
        start, end = ((radius * math.sin(w), radius * math.cos(w)) for w in (a, b))
        crenellated(site, start, end, low, material)


def crenellated(
    site: Site, start: tuple[Number, Number], end: tuple[Number, Number], low: Number, material: Material
) -> None:
    """Add merlons along a line on top of a wall."""
    length = math.hypot(end[0] - start[0], end[1] - start[1])
    at = site.moved(start[0], low, start[1], math.atan2(-(end[1] - start[1]), end[0] - start[0]))
    at.box((0.0, -0.1, -0.2), (length, 0.5, 0.2), material)
    for x in np.arange(0.2, length - 0.5, 1.4):
        at.box((x, 0.5, -0.2), (x + 0.7, 1.2, 0.2), material)


def church(site: Site, rng: np.random.Generator, stone: Masonry) -> float:
    """Add a nave with buttresses and a bell tower; returns its radius on the ground."""
    hx, hz, height = rng.uniform(7.0, 12.0), rng.uniform(3.5, 5.0), rng.uniform(5.0, 8.0)
    wall, front, roof = pick(rng, stone.walls), pick(rng, stone.facades), pick(rng, stone.roofs)
    site.box((-hx, -2.0, -hz), (hx, 1.2, hz), wall)
    tall = Material(front.texture, (3.2, height - 1.2), front.tint)
    walls_with_windows(site, (hx, hz), 1.2, height - 1.2, tall)
    gable_roof(site, (hx, hz), height, rng.uniform(0.8, 1.3) * hz, 0.4, roof, wall)
    for x in np.linspace(-hx + 0.5, hx - 0.5, 6):
        for sign in (-1, 1):
            site.box((x - 0.3, -2.0, sign * hz - 0.6), (x + 0.3, 0.75 * height, sign * hz + 0.6), wall)
    tower(site.moved(-hx - 2.0, 0.0, 0.0), rng, stone)
    return hx + 5.0


def arched_wall(site: Site, length: Number, height: Number, thick: Number, arches: int, material: Material, *,
                pier: Number = 0.8, hump: Number = 0.0) -> None:  # fmt: skip
    """Add a wall along x with round arches; the deck of a bridge rises by ``hump`` towards its center."""
    span = (length - pier * (arches + 1)) / arches

    def deck(x: np.ndarray) -> np.ndarray:
        return np.asarray(height + hump * (1.0 - (2.0 * x / length - 1.0) ** 2))

    for i in range(arches):
        left = pier + i * (span + pier)
        w = np.linspace(math.pi, 0.0, 13)
        x = left + 0.5 * span * (1.0 + np.cos(w))
        crown = float(deck(np.array(left + 0.5 * span))) - 0.6
        spring = max(crown - 0.5 * span, 0.25 * crown)
        up = spring + (crown - spring) * np.sin(w)
        x = np.concatenate([[left], x, [left + span]])
        up = np.concatenate([[-2.0], up, [-2.0]])
        for z in (-thick / 2, thick / 2):
            face = np.stack([np.stack([x, deck(x), np.full_like(x, z)], -1), np.stack([x, up, np.full_like(x, z)], -1)])
            site.faces(quads(face), material)
        inner = np.stack([np.stack([x, up, np.full_like(x, z)], -1) for z in (-thick / 2, thick / 2)])
        site.faces(quads(inner), material.tinted(0.9))
    for i in range(arches + 1):
        left = i * (span + pier)
        ends = np.array([left, left + pier])
        for z in (-thick / 2, thick / 2):
            face = np.stack(
                [np.stack([ends, deck(ends), np.full(2, z)], -1), np.stack([ends, np.full(2, -2.0), np.full(2, z)], -1)]
            )
            site.faces(quads(face), material)
        for x in ends[[0] if i == 0 else [1] if i == arches else []]:
            site.quad(
                (x, height, -thick / 2), (x, height, thick / 2), (x, -2, thick / 2), (x, -2, -thick / 2), material
            )
    x = np.linspace(0.0, length, 25)
    top = np.stack([np.stack([x, deck(x), np.full_like(x, z)], -1) for z in (-thick / 2, thick / 2)])
    site.faces(quads(top), material)


def bridge(site: Site, rng: np.random.Generator, stone: Masonry, length: Number) -> None:
    """Add a stone bridge along x from the origin, with parapets and at times lamps."""
    wall, wide, hump = pick(rng, stone.walls), rng.uniform(2.5, 5.0), rng.uniform(0.4, 0.14 * length)
    height = rng.uniform(1.8, 3.0)
    arched_wall(
        site, length, height, wide, int(rng.choice([1, 1, 2, 3])), wall, hump=hump, pier=max(0.08 * length, 0.8)
    )
    x = np.linspace(0.0, length, 17)
    deck = height + hump * (1.0 - (2.0 * x / length - 1.0) ** 2)
    for z in (-wide / 2, wide / 2):
        for i in range(16):
            mid = math.atan2(deck[i + 1] - deck[i], x[i + 1] - x[i])
            site.beam((x[i], deck[i] + 0.9, z), (x[i + 1], deck[i + 1] + 0.9 + 0.0 * mid, z), 0.13, wall)
            site.box((x[i] - 0.14, deck[i] - 0.1, z - 0.14), (x[i] + 0.14, deck[i] + 1.0, z + 0.14), wall)


def rampart(site: Site, rng: np.random.Generator, stone: Masonry, length: Number) -> None:
    """Add a town wall along x with a gate, merlons and end towers."""
    wall, height, thick = pick(rng, stone.walls), rng.uniform(3.0, 7.0), rng.uniform(1.0, 2.0)
    arched_wall(
        site,
        length,
        height,
        thick,
        max(round(length / 14.0), 1),
        wall,
        pier=0.42 * length / max(round(length / 14.0) + 1, 2),
    )
    for z in (-thick / 2 + 0.2, thick / 2 - 0.2):
        crenellated(site, (0.0, z), (length, z), height, wall)
    for x in (0.0, length):
        round_tower = site.moved(x, 0.0, 0.0)
        round_tower.turned(
            [(2.3, -2.0), (2.1, 0.0), (2.0, height + 2.0), (2.3, height + 2.5), (2.3, height + 3.2)], wall, sides=14
        )
        if rng.random() < 0.5:
            swept_roof(round_tower, 14, (2.7, 0.05), height + 3.2, rng.uniform(2.0, 4.5), pick(rng, stone.roofs), wall)
        else:
            battlements(round_tower, 10, 2.3, height + 3.2, wall)
