"""Pagodas and halls with columns, on terraces with stairs."""

from __future__ import annotations

import itertools
import math

import numpy as np

from scenes.synthetic.towns.masonry import Masonry, gable_roof, pick, swept_roof, walls_with_windows
from scenes.synthetic.towns.solids import Material, Number, Site


def pagoda(site: Site, rng: np.random.Generator, stone: Masonry) -> float:
    """Add a pagoda: two to seven tapering storeys with roofs, on a terrace; returns its radius on the ground."""
    sides, tiers = int(rng.choice([4, 4, 6, 8])), int(rng.integers(2, 8))
    radius, storey = rng.uniform(3.0, 6.0), rng.uniform(2.6, 3.8)
    wall, roof = pick(rng, stone.walls + stone.paint[:2]), pick(rng, stone.roofs)
    front, trim = pick(rng, stone.facades), pick(rng, stone.paint)
    low = terrace(site, rng, stone, radius + 2.0)
    shrink, overhang = rng.uniform(0.82, 0.93), rng.uniform(0.9, 1.8)
    upturn, hollow = rng.uniform(0.2, 1.0), rng.uniform(1.2, 1.8)
    for tier in range(tiers):
        polygon = [(radius, low), (radius, low + storey)]
        if tier % 2 == 0 and rng.random() < 0.7:
            site.turned(polygon, Material(front.texture, (math.pi * radius / 2, 4.0 * storey), front.tint), sides=sides)
        else:
            site.turned(polygon, wall, sides=sides)
        for k in range(2 * sides if sides == 4 else sides):
            turn = math.pi / 4 * (k + 1) if sides == 4 else 2.0 * math.pi * (k + 0.5) / sides
            _post(site, turn, radius, low, storey, trim, sides)
        last = tier == tiers - 1
        rise = rng.uniform(0.8, 1.2) * radius if last else 0.35 * radius
        swept_roof(
            site, sides, (radius + overhang + 0.5, 0.15 if last else radius * shrink), low + storey - 0.25, rise, roof,
            trim, upturn=upturn, hollow=hollow,
        )  # fmt: skip
        low += storey + (rise - 0.3)
        radius, storey = radius * shrink, storey * rng.uniform(0.9, 0.98)
        if not last:
            _railing(site, sides, radius + 0.5, low, trim)
    site.turned(
        [(0.25, low - 0.5), (0.4, low), (0.12, low + 0.4), (0.3, low + 0.8), (0.05, low + 1.2), (0.02, low + 3)], trim
    )
    return 1.5 * (radius / shrink**tiers) + 3.0


def _post(
    site: Site, turn: Number, radius: Number, low: Number, height: Number, material: Material, sides: int
) -> None:
    reach = radius * (1.04 if sides != 4 or round(turn / (math.pi / 4)) % 2 else 0.76)
    x, z = reach * math.sin(turn), reach * math.cos(turn)
    site.beam((x, low, z), (x, low + height, z), 0.16, material)


def _railing(site: Site, sides: int, radius: Number, low: Number, material: Material) -> None:
    turn = 2.0 * math.pi * np.arange(sides + 1) / sides + math.pi / sides
    ring = [(radius * math.sin(w), radius * math.cos(w)) for w in turn]
    for (ax, az), (bx, bz) in itertools.pairwise(ring):
        for up in (0.35, 0.8):
            site.beam((ax, low + up, az), (bx, low + up, bz), 0.05, material)
        for share in (0.0, 0.33, 0.66):
            x, z = ax + share * (bx - ax), az + share * (bz - az)
            site.beam((x, low - 0.2, z), (x, low + 0.85, z), 0.05, material)


def terrace(site: Site, rng: np.random.Generator, stone: Masonry, half: Number) -> float:
    """Add a paved platform with stairs on two sides and at times a balustrade; returns its height."""
    height = rng.uniform(0.3, 2.0)
    wall = pick(rng, stone.walls)
    site.box((-half, -3.0, -half), (half, height, half), wall, stone.paving)
    for sign in (-1.0, 1.0):
        stairs(site.moved(0.0, 0.0, sign * half, 0.0 if sign > 0 else math.pi), rng.uniform(2.0, 4.0), height, wall)
    if height > 0.8 and rng.random() < 0.7:
        for a, b in (((-half, -half), (-half, half)), ((half, -half), (half, half))):
            for share in np.linspace(0.0, 1.0, 9):
                x, z = (0.97 * (p + share * (q - p)) for p, q in zip(a, b, strict=True))
                site.box((x - 0.12, height, z - 0.12), (x + 0.12, height + 0.95, z + 0.12), wall)
            x = 0.97 * a[0]
            site.box((x - 0.08, height + 0.6, -0.97 * half), (x + 0.08, height + 0.75, 0.97 * half), wall)
    return height


def stairs(site: Site, wide: Number, height: Number, material: Material) -> None:
    """Add steps that descend towards +z, with side walls."""
    steps = max(round(height / 0.17), 1)
    for i in range(steps):
        top = height * (i + 1) / (steps + 1)
        near = 0.32 * (steps - i)
        site.box((-wide / 2, -1.0, 0.0), (wide / 2, top, near), material)
    for x in (-wide / 2 - 0.3, wide / 2):
        site.box((x, -1.0, 0.0), (x + 0.3, 0.6 * height, 0.2 * steps), material)


def hall(site: Site, rng: np.random.Generator, stone: Masonry) -> float:
    """Add a hall with columns and a gable roof or upturned hipped roofs; returns its radius on the ground."""
    half_x, half_z = rng.uniform(5.0, 10.0), rng.uniform(3.5, 6.0)
    wide = max(half_x, half_z) + 2.0
    low, height = terrace(site, rng, stone, wide), rng.uniform(3.5, 6.5)
    shaft, wall = pick(rng, stone.walls + stone.paint), pick(rng, stone.facades + stone.walls)
    walls_with_windows(site, (half_x - 1.2, half_z - 1.2), low, height, wall)
    thick = rng.uniform(0.22, 0.42)
    count = (int(rng.integers(4, 9)), int(rng.integers(3, 6)))
    at = [(x, s * half_z) for x in np.linspace(-half_x, half_x, count[0]) for s in (-1, 1)]
    at += [(s * half_x, z) for z in np.linspace(-half_z, half_z, count[1])[1:-1] for s in (-1, 1)]
    for x, z in at:
        column(site.moved(x, low, z), thick, height, shaft)
    site.box(
        (-half_x - 0.5, low + height, -half_z - 0.5),
        (half_x + 0.5, low + height + 0.7, half_z + 0.5),
        pick(rng, stone.walls),
    )
    roof, trim = pick(rng, stone.roofs), pick(rng, stone.paint)
    top, rise = low + height + 0.7, rng.uniform(0.4, 0.9) * half_z
    if rng.random() < 0.5:
        gable_roof(site, (half_x, half_z), top, rise, 0.7, roof, pick(rng, stone.walls))
    else:
        r = math.sqrt(2.0) * half_z
        levels = int(rng.integers(1, 3))
        for level in range(levels):
            last = level == levels - 1
            swept_roof(
                site, 4, (r + 2.2, 0.2 if last else 0.6 * r), top - 0.3, rise, roof, trim,
                upturn=rng.uniform(0.2, 0.9), hollow=1.4, stretch=(half_x / half_z, 1.0),
            )  # fmt: skip
            if not last:
                inner = (0.6 * half_x, 0.6 * half_z)
                walls_with_windows(site, inner, top + 0.3 * rise, rise + 1.2, pick(rng, stone.facades))
                top, r = top + 1.3 * rise + 1.0, 0.62 * r
    return wide + 2.0


def column(site: Site, radius: Number, height: Number, material: Material) -> None:
    """Add a column with base and capital."""
    site.box((-1.5 * radius, 0, -1.5 * radius), (1.5 * radius, 0.2, 1.5 * radius), material)
    site.turned(
        [(1.3 * radius, 0.2), (radius, 0.35), (0.86 * radius, height - 0.45), (1.4 * radius, height - 0.15)],
        material,
        sides=10,
    )
    site.box((-1.5 * radius, height - 0.15, -1.5 * radius), (1.5 * radius, height, 1.5 * radius), material)
