"""Buildings of a town: houses, blocks, churches, pagodas, halls with columns, towers, walls, arches and stairs."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scenes.textured import WorldBuilder, as_rgb
from scenes.towns_pictures import WALLS, facade, mottled, paving, roof_tiles, surface, weathered
from scenes.towns_site import Material, Number, Site, plain, quads


PAINTS = (
    (0.33, 0.05, 0.03), (0.2, 0.03, 0.02), (0.04, 0.12, 0.08), (0.04, 0.07, 0.15), (0.3, 0.2, 0.12), (0.13, 0.08, 0.05),
    (0.7, 0.68, 0.62), (0.05, 0.05, 0.055), (0.5, 0.35, 0.08), (0.35, 0.36, 0.36), (0.45, 0.4, 0.32), (0.12, 0.25, 0.24),
)  # fmt: skip
"""Colours of painted wood and metal, linear."""


@dataclass(frozen=True)
class Masonry:
    """The materials that a town builds with; ``facades`` picture four windows by four."""

    walls: list[Material]
    facades: list[Material]
    roofs: list[Material]
    paving: Material
    wood: Material
    paint: list[Material]
    doors: list[Material]


def quarry(builder: WorldBuilder, folder: Path | None, rng: np.random.Generator) -> Masonry:
    """Choose and draw a town's materials."""
    names = list(WALLS)
    walls, facades = [], []
    for name in rng.choice(names, 4, replace=False):
        picture = weathered(surface(folder, name, rng), rng)
        warmth = rng.normal(0.05, 0.08)
        tint = rng.uniform(0.65, 1.1) * (1.0 + warmth * np.array([1.0, 0.0, -1.3]) + 0.02 * rng.normal(size=3))
        walls.append(Material(builder.add_texture(picture), (WALLS[name],) * 2, as_rgb(np.minimum(tint, 1.15))))
        size = rng.uniform(2.6, 3.4)
        facades.append(Material(builder.add_texture(facade(picture, tint, 3.0 / WALLS[name], rng)), (size, size)))
    for _ in range(2):
        hue = rng.uniform(0.7, 0.95) * np.array(
            [[1.0, 0.96, 0.88], [1.0, 0.85, 0.6], [0.95, 0.72, 0.6], [0.85, 0.9, 0.95]]
        )
        plaster = mottled(rng, as_rgb(hue[int(rng.integers(4))]), 0.07)
        facades.append(Material(builder.add_texture(facade(plaster, np.ones(3), 1.0, rng)), (3.0, 3.0)))
        walls.append(Material(builder.add_texture(plaster), (3.0, 3.0)))
    doors = [
        Material(builder.add_texture(surface(folder, name, rng)))
        for name in ("door_steel_brown", "door_steel_red", "door_steel_grey", "door_garage_white")
    ]
    return Masonry(
        walls=walls,
        facades=facades,
        roofs=[Material(builder.add_texture(roof_tiles(rng)), (2.2, 2.2)) for _ in range(3)],
        paving=Material(builder.add_texture(paving(rng)), (float(rng.uniform(2.0, 4.0)),) * 2),
        wood=Material(builder.add_texture(surface(folder, "wood_planks_1", rng)), (1.6, 1.6), (0.8, 0.75, 0.7)),
        paint=[plain(*PAINTS[int(k)]) for k in rng.integers(len(PAINTS), size=4)],
        doors=doors,
    )


def pick(rng: np.random.Generator, choices: list[Material]) -> Material:
    """One of the materials."""
    return choices[int(rng.integers(len(choices)))]


def walls_with_windows(
    site: Site, half: tuple[Number, Number], low: Number, height: Number, material: Material
) -> None:
    """Four walls over a rectangle in whole storeys and bays."""
    hx, hz = half
    ring = [(-hx, -hz), (hx, -hz), (hx, hz), (-hx, hz)]
    storeys = max(round(height / material.metres[1]), 1)
    for (ax, az), (bx, bz) in zip(ring, ring[1:] + ring[:1], strict=True):
        bays = max(round(math.hypot(bx - ax, bz - az) / material.metres[0]), 1)
        site.panel((ax, low, az), (bx, low, bz), height, material, (bays / 4.0, storeys / 4.0))


def gable_roof(site: Site, half: tuple[Number, Number], low: Number, rise: Number, eave: Number, roof: Material,
               gable: Material) -> None:  # fmt: skip
    """Two slopes that overhang by ``eave``, the ridge along x, with upright gables and a thickness."""
    hx, hz = half
    drop = rise * eave / hz
    for sign in (-1.0, 1.0):
        ridge, edge = low + rise, low - drop
        for lift, material in ((0.0, gable.tinted(0.5)), (0.16, roof)):
            site.quad((-hx - eave, ridge + lift, 0), (hx + eave, ridge + lift, 0), (hx + eave, edge + lift, sign * (hz + eave)),
                      (-hx - eave, edge + lift, sign * (hz + eave)), material)  # fmt: skip
        z = sign * (hz + eave)
        trim = gable.tinted(0.7)
        site.quad(
            (-hx - eave, edge + 0.16, z), (hx + eave, edge + 0.16, z), (hx + eave, edge, z), (-hx - eave, edge, z), trim
        )
        for x in (-hx - eave, hx + eave):
            site.quad((x, ridge + 0.16, 0), (x, edge + 0.16, z), (x, edge, z), (x, ridge, 0), trim)
        site.faces(np.array([[[sign * hx, low, -hz], [sign * hx, low, hz], [sign * hx, ridge, 0]]]), gable)


def swept_roof(
    site: Site, sides: int, radius: tuple[Number, Number], low: Number, rise: Number, roof: Material, trim: Material, *,
    upturn: Number = 0.0, hollow: Number = 1.0, stretch: tuple[Number, Number] = (1.0, 1.0), thickness: Number = 0.2,
) -> None:  # fmt: skip
    """A roof over a regular polygon, from the eave's to the top's radius; corners turn up and slopes hang through.

    Args:
        site: stands under the roof's middle.
        sides: of the polygon; four give a hipped roof.
        radius: of the eave and of the top, to the corners.
        low: height of the eave.
        rise: from eave to top.
        roof: upper face.
        trim: lower face and rim.
        upturn: metres by which eave corners rise.
        hollow: 1 is straight, 2 hangs through like a tent.
        stretch: factors along x and z.
        thickness: of the rim.
    """
    t = np.linspace(0.0, 1.0, 6 if hollow > 1.0 else 2)[:, None]
    s = np.linspace(-1.0, 1.0, 9 if upturn > 0.0 else 2)[None]
    up = low + rise * t**hollow + upturn * np.abs(s) ** 3 * (1.0 - t) ** 2
    for k in range(sides):
        turn = 2.0 * math.pi * (k + 0.5 + np.array([-0.5, 0.5])) / sides + math.pi / sides
        a, b = (np.array([math.sin(w), math.cos(w)]) for w in turn)
        along = (0.5 * (1.0 - s))[..., None] * a + (0.5 * (1.0 + s))[..., None] * b
        reach = (radius[0] + (radius[1] - radius[0]) * t)[..., None] * (
            1.0 + 0.06 * upturn * (np.abs(s) ** 6)[..., None] * (1.0 - t[..., None])
        )
        flat = reach * along * np.asarray(stretch)
        top = np.stack([flat[..., 0], up + 0.0 * flat[..., 0], flat[..., 1]], -1)
        site.faces(quads(top), roof)
        under = top - [0.0, thickness, 0.0]
        site.faces(quads(under), trim.tinted(0.6))
        site.faces(quads(np.stack([top[0], under[0]])), trim)
        if hollow > 1.0:
            ridge = top[:, -1] + [0.0, 0.06, 0.0]
            for p, q in itertools.pairwise(ridge):
                site.beam(tuple(p), tuple(q), 0.09, trim)


def house(site: Site, rng: np.random.Generator, stone: Masonry) -> float:
    """A house with a gabled or hipped roof, door, chimney and at times a porch; returns its radius on the ground."""
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
    """A flat-roofed block of two to nine storeys with cornice, shop front, balconies and roof boxes."""
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


def pagoda(site: Site, rng: np.random.Generator, stone: Masonry) -> float:
    """Three to nine roofed storeys that grow narrower, on a stone terrace with stairs, a spire on top."""
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
            _post(site, 2.0 * math.pi * (k + 0.5 * (sides != 4)) / (2 * sides if sides == 4 else sides) + (math.pi / 4 if sides == 4 else 0.0),
                  radius, low, storey, trim, sides)  # fmt: skip
        last = tier == tiers - 1
        rise = rng.uniform(0.8, 1.2) * radius if last else 0.35 * radius
        swept_roof(
            site, sides, (radius + overhang + 0.5, 0.15 if last else radius * shrink), low + storey - 0.25, rise, roof, trim,
            upturn=upturn, hollow=hollow,
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
    """A paved platform with stairs on one or two sides and a balustrade; returns its height."""
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
    """Steps that come down towards +z, with cheeks."""
    steps = max(round(height / 0.17), 1)
    for i in range(steps):
        top = height * (i + 1) / (steps + 1)
        near = 0.32 * (steps - i)
        site.box((-wide / 2, -1.0, 0.0), (wide / 2, top, near), material)
    for x in (-wide / 2 - 0.3, wide / 2):
        site.box((x, -1.0, 0.0), (x + 0.3, 0.6 * height, 0.2 * steps), material)


def hall(site: Site, rng: np.random.Generator, stone: Masonry) -> float:
    """A hall behind columns: a temple with a pediment or a hipped roof with turned-up corners."""
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
            swept_roof(site, 4, (r + 2.2, 0.2 if last else 0.6 * r), top - 0.3, rise, roof, trim, upturn=rng.uniform(0.2, 0.9),
                       hollow=1.4, stretch=(half_x / half_z, 1.0))  # fmt: skip
            if not last:
                inner = (0.6 * half_x, 0.6 * half_z)
                walls_with_windows(site, inner, top + 0.3 * rise, rise + 1.2, pick(rng, stone.facades))
                top, r = top + 1.3 * rise + 1.0, 0.62 * r
    return wide + 2.0


def column(site: Site, radius: Number, height: Number, material: Material) -> None:
    """A column with base and capital."""
    site.box((-1.5 * radius, 0, -1.5 * radius), (1.5 * radius, 0.2, 1.5 * radius), material)
    site.turned(
        [(1.3 * radius, 0.2), (radius, 0.35), (0.86 * radius, height - 0.45), (1.4 * radius, height - 0.15)],
        material,
        sides=10,
    )
    site.box((-1.5 * radius, height - 0.15, -1.5 * radius), (1.5 * radius, height, 1.5 * radius), material)


def tower(site: Site, rng: np.random.Generator, stone: Masonry) -> float:
    """A square or round tower with windows, cornices and battlements, a spire, a dome or a lantern."""
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
    """A parapet with merlons around a polygon."""
    turn = 2.0 * math.pi * np.arange(sides + 1) / sides + math.pi / sides
    for a, b in itertools.pairwise(turn):
        start, end = ((radius * math.sin(w), radius * math.cos(w)) for w in (a, b))
        crenellated(site, start, end, low, material)


def crenellated(
    site: Site, start: tuple[Number, Number], end: tuple[Number, Number], low: Number, material: Material
) -> None:
    """Merlons along a line on top of a wall."""
    length = math.hypot(end[0] - start[0], end[1] - start[1])
    at = site.moved(start[0], low, start[1], math.atan2(-(end[1] - start[1]), end[0] - start[0]))
    at.box((0.0, -0.1, -0.2), (length, 0.5, 0.2), material)
    for x in np.arange(0.2, length - 0.5, 1.4):
        at.box((x, 0.5, -0.2), (x + 0.7, 1.2, 0.2), material)


def church(site: Site, rng: np.random.Generator, stone: Masonry) -> float:
    """A nave with buttresses and a bell tower."""
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
    """A wall along x with round arches through it; a bridge's deck rises by ``hump`` towards the middle."""
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
    """A stone bridge along x from the origin, with parapets and at times lamps."""
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
    """A town wall along x with a gate, merlons and end towers."""
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
