"""Materials of the buildings of a town, and the walls and roofs that all of them share."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scenes.synthetic.towns.solids import Material, Number, Site, plain, quads
from scenes.synthetic.towns.textures import WALLS, facade, mottled, paving, roof_tiles, surface, weathered
from scenes.synthetic.triangle_scene import WorldBuilder, as_rgb

PAINTS = (
    (0.33, 0.05, 0.03), (0.2, 0.03, 0.02), (0.04, 0.12, 0.08), (0.04, 0.07, 0.15), (0.3, 0.2, 0.12),
    (0.13, 0.08, 0.05), (0.7, 0.68, 0.62), (0.05, 0.05, 0.055), (0.5, 0.35, 0.08), (0.35, 0.36, 0.36),
    (0.45, 0.4, 0.32), (0.12, 0.25, 0.24),
)  # fmt: skip
"""Colors of painted wood and metal, linear."""


@dataclass(frozen=True)
class Masonry:
    """Building materials of a town; a texture of ``facades`` has four by four windows."""

    walls: list[Material]
    facades: list[Material]
    roofs: list[Material]
    paving: Material
    wood: Material
    paint: list[Material]
    doors: list[Material]


def building_materials(builder: WorldBuilder, folder: Path | None, rng: np.random.Generator) -> Masonry:
    """Draw the building materials of a town; textures are procedural where ``folder`` has none."""
    names = list(WALLS)
    walls, facades = [], []
    for name in rng.choice(names, 4, replace=False):
        picture = weathered(surface(folder, name, rng), rng)
        warmth = rng.normal(0.05, 0.08)
        tint = rng.uniform(0.65, 1.1) * (1.0 + warmth * np.array([1.0, 0.0, -1.3]) + 0.02 * rng.normal(size=3))
        walls.append(Material(builder.add_texture(picture), (WALLS[name], WALLS[name]), as_rgb(np.minimum(tint, 1.15))))
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
        for name in ("door_steel_brown", "door_steel_red", "door_steel_gray", "door_garage_white")
    ]
    return Masonry(
        walls=walls,
        facades=facades,
        roofs=[Material(builder.add_texture(roof_tiles(rng)), (2.2, 2.2)) for _ in range(3)],
        paving=Material(builder.add_texture(paving(rng)), (slab := float(rng.uniform(2.0, 4.0)), slab)),
        wood=Material(builder.add_texture(surface(folder, "wood_planks_1", rng)), (1.6, 1.6), (0.8, 0.75, 0.7)),
        paint=[plain(*PAINTS[int(k)]) for k in rng.integers(len(PAINTS), size=4)],
        doors=doors,
    )


def pick(rng: np.random.Generator, choices: list[Material]) -> Material:
    """Draw one of the materials."""
    return choices[int(rng.integers(len(choices)))]


def walls_with_windows(
    site: Site, half: tuple[Number, Number], low: Number, height: Number, material: Material
) -> None:
    """Add four walls over a rectangle, with a whole number of storeys and bays."""
    hx, hz = half
    ring = [(-hx, -hz), (hx, -hz), (hx, hz), (-hx, hz)]
    # A texture has four rows of windows, hence the quarter below.
    storeys = max(round(height / material.meters[1]), 1)
    for (ax, az), (bx, bz) in zip(ring, ring[1:] + ring[:1], strict=True):
        # Whole windows: a facade must not end in half a window.
        bays = max(round(math.hypot(bx - ax, bz - az) / material.meters[0]), 1)
        site.panel((ax, low, az), (bx, low, bz), height, material, (bays / 4.0, storeys / 4.0))


def gable_roof(site: Site, half: tuple[Number, Number], low: Number, rise: Number, eave: Number, roof: Material,
               gable: Material) -> None:  # fmt: skip
    """Add a gable roof: two slopes that overhang by ``eave``, ridge along x, vertical gables, a thickness."""
    hx, hz = half
    drop = rise * eave / hz
    for sign in (-1.0, 1.0):
        ridge, edge, z = low + rise, low - drop, sign * (hz + eave)
        for lift, material in ((0.0, gable.tinted(0.5)), (0.16, roof)):
            upper, lower = ridge + lift, edge + lift
            site.quad(
                (-hx - eave, upper, 0), (hx + eave, upper, 0), (hx + eave, lower, z), (-hx - eave, lower, z), material
            )
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
    """Add a roof over a regular polygon, with upturned corners and concave slopes.

    Args:
        site: frame below the center of the roof.
        sides: number of sides of the polygon; four give a hipped roof.
        radius: circumradius at the eave and at the top.
        low: height of the eave.
        rise: height from eave to top.
        roof: material of the upper face.
        trim: material of the lower face and rim.
        upturn: rise of the eave corners, meters.
        hollow: exponent of the slope: 1 is straight, 2 concave like a tent.
        stretch: factors along x and z.
        thickness: thickness of the rim.
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
