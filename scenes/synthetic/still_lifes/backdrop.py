"""Generates a wall behind a still life, across the whole image, in parts without texture.

It is made of painted patches, textures, boards and openings, so that a network does not learn that plain means far or
dark means deep.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np

from scenes.synthetic.rooms.surfaces import floor_picture, wall_picture
from scenes.synthetic.towns.solids import Material, Site, plain, quads
from scenes.synthetic.triangle_scene import as_rgb

HALF_WIDTH = 3.5
_DEEP = 2.0  # largest depth of openings behind the wall, meters
_Painter = Callable[[], Material]


def add_backdrop(site: Site, surfaces: Path, rng: np.random.Generator) -> None:
    """Add a wall in the plane z = 0 of ``site``, facing -z, with one to three rows of patches; meters."""

    def painted() -> Material:
        if rng.random() < 0.5:
            gray = rng.uniform(0.4, 0.92)
            return plain(*np.clip(gray * rng.uniform(0.93, 1.07, 3), 0.0, 0.95))
        if rng.random() < 0.4:
            return plain(*rng.uniform(0.02, 0.8, 3))
        picture, meters = (wall_picture, floor_picture)[int(rng.integers(2))](surfaces, rng)
        meters *= rng.uniform(0.4, 1.0)
        return Material(site.builder.add_texture(picture), (meters, meters), as_rgb(rng.uniform(0.4, 1.0, 3)))

    heights = np.concatenate([[0.0], np.cumsum(rng.uniform(0.7, 2.0, int(rng.integers(1, 4))))])
    common = painted()
    for low, high in pairwise(heights):
        left = -HALF_WIDTH
        while left < HALF_WIDTH:
            right = left + float(np.exp(rng.uniform(math.log(0.4), math.log(4.0))))
            kind = rng.random()
            if kind < 0.3:
                _boards(site, rng, (left, right), (low, high), painted)
            elif kind < 0.5:
                _opening(site, rng, (left, right), (low, high), painted)
            else:
                front = float(rng.normal(0.0, 0.06))
                material = common if rng.random() < 0.5 else painted()
                site.box((left, low, front), (right, high, _DEEP), material)
            left = right


def _boards(
    site: Site, rng: np.random.Generator, across: tuple[float, float], up: tuple[float, float], painted: _Painter
) -> None:
    """Add boards side by side, vertical or horizontal, overlapping or with gaps."""
    material, wide = painted(), rng.uniform(0.08, 0.3)
    gap, lean = rng.uniform(0.0, 0.15) * wide, rng.uniform(0.0, 0.03)
    upright = rng.random() < 0.4
    start, end = across if upright else up
    at = start
    while at < end:
        to = min(at + wide - gap, end)
        board = material.tinted(rng.uniform(0.85, 1.05))
        if upright:
            site.box((at, up[0], 0.0), (to, up[1], 0.05), board)
        else:
            (a, b), z = across, lean
            site.quad((a, at, 0.0), (b, at, 0.0), (b, to, z), (a, to, z), board)
            site.quad((a, at, z), (b, at, z), (b, at, 0.0), (a, at, 0.0), board.tinted(0.7))
        at += wide
    site.box((across[0], up[0], 0.06), (across[1], up[1], _DEEP), material.tinted(0.4))


def _opening(
    site: Site, rng: np.random.Generator, across: tuple[float, float], up: tuple[float, float], painted: _Painter
) -> None:
    """Add a framed opening with a dark or textured surface behind it, at times with a curtain."""
    (left, right), (low, high) = across, up
    depth, frame = float(np.exp(rng.uniform(math.log(0.05), math.log(_DEEP)))), painted()
    edge = rng.uniform(0.03, 0.12)
    for a, b in (((left, low), (right, low + edge)), ((left, high - edge), (right, high))):
        site.box((a[0], a[1], -0.03), (b[0], b[1], depth), frame)
    for x in (left, right - edge):
        site.box((x, low, -0.03), (x + edge, high, depth), frame)
    behind = plain(*(3 * [rng.uniform(0.005, 0.06)])) if rng.random() < 0.4 else painted()
    site.quad((left, low, depth), (right, low, depth), (right, high, depth), (left, high, depth), behind)
    if rng.random() < 0.5:
        x = np.linspace(left, left + rng.uniform(0.3, 1.0) * (right - left), 49)
        folds = 0.3 * depth + rng.uniform(0.02, 0.06) * np.sin(x * rng.uniform(15.0, 50.0))
        rows = [np.stack([x, np.full(49, level), folds], -1) for level in (high, low + rng.uniform(0.0, 0.4))]
        site.faces(quads(np.stack(rows)), painted())
