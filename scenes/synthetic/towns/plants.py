"""Trees, shrubs, hedges, grass and rocks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from scenes.synthetic.torcs import TextureFolder
from scenes.synthetic.towns.solids import Material, Number, Site, quads
from scenes.synthetic.towns.terrain import Land
from scenes.synthetic.towns.textures import bark, flowers, leaves, surface
from scenes.synthetic.triangle_scene import NO_TEXTURE, WorldBuilder

_BILLBOARDS = {
    "dirt-1": ("tree1_n.rgb", "tree2_n.rgb", "tree3_n.rgb", "tree13_n.rgb", "tree15_n.rgb", "tree16_n.rgb"),
    "dirt-2": ("tree10_n.png", "tree13_n.png", "tree15_n.png"),
    "alpine-2": ("tree2_n.png", "tree6_n.png", "tree7_n.png"),
    "ruudskogen": ("rk_tree_1_n.png", "rk_tree_2_n.png", "rk_tree_3_n.png"),
    "wheel-2": ("tree_n.png", "treeg11_n.png"),
    "e-track-6": ("tree_maple_n.png", "tree_apple_n.png"),
}
"""Images of trees of tracks under the Free Art License."""


@dataclass(frozen=True)
class Plants:
    """Materials of the plants of one town."""

    foliage: list[Material]
    needles: Material
    flowers: list[Material]
    bark: Material
    stone: Material
    billboards: list[tuple[Material, float]]
    billboard_tracks: list[str]


def plant_materials(
    builder: WorldBuilder, surfaces: Path | None, tracks: Path | None, rng: np.random.Generator
) -> Plants:
    """Draw the materials of a town's plants; trees of ``tracks`` are used when it is given."""
    billboards, shown = [], set()
    if tracks is not None:
        names = [(track, file) for track in _BILLBOARDS for file in _BILLBOARDS[track]]
        for k in rng.choice(len(names), 4, replace=False):
            track, file = names[int(k)]
            picture = TextureFolder(sorted(tracks.glob(f"tracks/*/{track}"))).read(file)
            if picture is not None:
                used = picture[..., 3] > 127
                rows, columns = np.flatnonzero(used.any(1)), np.flatnonzero(used.any(0))
                cut = picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
                shown.add(track)
                billboards.append((Material(builder.add_texture(cut), cutout=True), cut.shape[1] / cut.shape[0]))
    return Plants(
        foliage=[Material(builder.add_texture(leaves(rng)), cutout=True) for _ in range(3)],
        needles=Material(builder.add_texture(leaves(rng, needles=True)), cutout=True),
        flowers=[Material(builder.add_texture(flowers(rng)), cutout=True) for _ in range(2)],
        bark=Material(builder.add_texture(bark(rng)), (0.8, 1.6)),
        stone=Material(builder.add_texture(surface(surfaces, "rock_1", rng)), (2.5, 2.5), (0.85, 0.82, 0.78)),
        billboards=billboards,
        billboard_tracks=sorted(shown),
    )


def _cards(
    site: Site, centers: Float[np.ndarray, "n 3"], outward: Float[np.ndarray, "n 3"], size: Float[np.ndarray, "n"],
    material: Material, rng: np.random.Generator, jitter: Number = 0.6,
) -> None:  # fmt: skip
    """Square cards that face roughly outward, each with the whole texture, rotated at random."""
    n = len(centers)
    normal = outward + jitter * rng.normal(size=(n, 3))
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True) + 1e-9
    a = np.cross(normal, rng.normal(size=(n, 3)))
    a /= np.linalg.norm(a, axis=-1, keepdims=True) + 1e-9
    b = np.cross(normal, a)
    a, b = 0.5 * size[:, None] * a, 0.5 * size[:, None] * b
    corners = np.stack([centers - a - b, centers + a - b, centers + a + b, centers - a + b], 1)
    uv = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    order = np.array([[0, 1, 2], [0, 2, 3]])
    smooth = np.repeat(np.repeat((outward + np.array([0.0, 0.3, 0.0]))[:, None], 2, 1).reshape(-1, 1, 3), 3, 1)
    triangles, low = corners[:, order].reshape(-1, 3, 3), np.quantile(centers[:, 1], 0.45)
    tone = np.where(centers[:, 1] < low, rng.integers(0, 2, n), rng.integers(1, 3, n)).repeat(2)
    for k, factor in enumerate((0.62, 0.86, 1.12)):
        site.faces(
            triangles[tone == k], material.tinted(factor), normals=smooth[tone == k],
            uv_meters=np.tile(uv[order], (n, 1, 1))[tone == k] * np.asarray(material.meters),
        )  # fmt: skip


def _ball(rng: np.random.Generator, count: int) -> Float[np.ndarray, "n 3"]:
    direction = rng.normal(size=(count, 3))
    return direction / np.linalg.norm(direction, axis=-1, keepdims=True)


def tree(site: Site, rng: np.random.Generator, plants: Plants, height: Number) -> None:
    """Add a tree: a photographed one on crossed planes, a leafy one, a conifer or a bare one."""
    kind = rng.choice(["cards", "leafy", "conifer", "bare"], p=[0.25, 0.5, 0.19, 0.06])
    if kind == "cards" and plants.billboards:
        material, aspect = plants.billboards[int(rng.integers(len(plants.billboards)))]
        half = 0.5 * aspect * height
        for turn in rng.uniform(0, math.pi) + math.pi / 3 * np.arange(3):
            x, z = half * math.cos(turn), half * math.sin(turn)
            site.panel((-x, -0.1, -z), (x, -0.1, z), height, material, (1.0, 1.0))
    elif kind == "conifer":
        _conifer(site, rng, plants, height)
    else:
        _leafy(site, rng, plants, height, bare=bool(kind == "bare"))


def _leafy(site: Site, rng: np.random.Generator, plants: Plants, height: Number, *, bare: bool) -> None:
    """Add a trunk with boughs, each with a cloud of leaf cards."""
    trunk, lean = rng.uniform(0.25, 0.5) * height, rng.normal(0, 0.05, 2) * height
    thick = (0.018 + 0.012 * rng.random()) * height
    fork = (float(lean[0]), trunk, float(lean[1]))
    site.beam((0, -0.4, 0), fork, 1.25 * thick, plants.bark, end_radius=0.8 * thick)
    boughs, spread = int(rng.integers(5, 10)), rng.uniform(0.16, 0.34) * height
    foliage = plants.foliage[int(rng.integers(len(plants.foliage)))].tinted(rng.uniform(0.8, 1.15))
    centers, outward = [], []
    for k in range(boughs):
        turn, reach = 2 * math.pi * (k + rng.random()) / boughs, spread * math.sqrt(rng.uniform(0.1, 1.0))
        tip = np.array(
            [
                fork[0] + reach * math.sin(turn),
                rng.uniform(trunk + 0.08 * height, 0.86 * height),
                fork[2] + reach * math.cos(turn),
            ]
        )
        site.beam(fork, tuple(tip), 0.55 * thick, plants.bark, end_radius=0.12 * thick)
        if bare:
            for _ in range(6):
                twig = tip + 0.25 * height * (rng.normal(size=3) * [0.5, 0.3, 0.5] + [0, 0.3, 0])
                start = np.asarray(fork) + rng.uniform(0.4, 1.0) * (tip - np.asarray(fork))
                site.beam(tuple(start), tuple(twig), 0.14 * thick, plants.bark, end_radius=0.03 * thick)
            continue
        direction = _ball(rng, 40)
        radius = rng.uniform(0.11, 0.2) * height
        centers.append(tip + direction * radius * rng.uniform(0.4, 1.0, (40, 1)) * [1.15, 0.8, 1.15])
        outward.append(direction)
    if not bare:
        middle = np.concatenate(centers)
        size = rng.uniform(0.11, 0.2, len(middle)) * height**0.75 * 1.2
        _cards(site, middle, np.concatenate(outward), size, foliage, rng)


def _conifer(site: Site, rng: np.random.Generator, plants: Plants, height: Number) -> None:
    site.beam((0, -0.4, 0), (0, 0.95 * height, 0), 0.02 * height, plants.bark, end_radius=0.004 * height)
    count, wide = 420, rng.uniform(0.14, 0.26) * height
    shade = Material(NO_TEXTURE, tint=(0.012, 0.02, 0.01))
    site.turned([(0.55 * wide, 0.1 * height), (0.3 * wide, 0.45 * height), (0.02, 0.95 * height)], shade, sides=9)
    up = 1.0 - np.sqrt(rng.random(count)) * 0.9
    turn, reach = rng.uniform(0, 2 * math.pi, count), wide * (1.0 - up) * rng.uniform(0.35, 1.0, count)
    centers = np.stack([reach * np.sin(turn), up * height - 0.25 * reach, reach * np.cos(turn)], -1)
    outward = np.stack([0.5 * np.sin(turn), np.full(count, 0.9), 0.5 * np.cos(turn)], -1)
    material = (plants.needles if rng.random() < 0.5 else plants.foliage[0]).tinted(rng.uniform(0.6, 1.0))
    _cards(site, centers, outward, (0.06 + 0.08 * (1.0 - up)) * height, material, rng, 0.3)


def bush(site: Site, rng: np.random.Generator, plants: Plants, half: tuple[float, float, float]) -> None:
    """Add a shrub, or a clipped hedge when it is long: leaf cards over a dark core."""
    core = plants.foliage[0].tint
    material = plants.foliage[int(rng.integers(len(plants.foliage)))].tinted(rng.uniform(0.7, 1.05))
    hx, hy, hz = half
    boxy = hx > 2.5 * hz
    count = int(np.clip(110 * (hx * hz + hx * hy + hy * hz) ** 0.8, 70, 700))
    direction = _ball(rng, count)
    if boxy:
        direction = direction / np.abs(direction).max(-1, keepdims=True)
    centers = direction * [hx, hy, hz] * rng.uniform(0.85, 1.02, (count, 1)) + [0, hy, 0]
    dark = Material(NO_TEXTURE, tint=(0.05 * core[0], 0.07 * core[1], 0.03 * core[2]))
    if boxy:
        site.box((-0.85 * hx, -0.2, -0.8 * hz), (0.85 * hx, 1.8 * hy, 0.8 * hz), dark)
    else:
        site.turned([(0.6, 0.0), (0.8, hy), (0.55, 1.6 * hy), (0.05, 1.75 * hy)], dark, sides=8, stretch=(hx, hz))
    outward = direction / np.linalg.norm(direction, axis=-1, keepdims=True)
    _cards(site, centers, outward, rng.uniform(0.25, 0.45, count) * min(max(hy, 0.5), 1.2), material, rng, 0.5)


def rock(site: Site, rng: np.random.Generator, plants: Plants, radius: Number) -> None:
    """Add an irregular boulder, half in the ground."""
    rows, columns = 9, 14
    polar, turn = np.linspace(0.02, math.pi - 0.02, rows)[:, None], np.linspace(0, 2 * math.pi, columns + 1)[None]
    direction = np.stack(
        np.broadcast_arrays(np.sin(polar) * np.cos(turn), np.cos(polar), np.sin(polar) * np.sin(turn)), -1
    )
    lump = np.ones(direction.shape[:2])
    for scale, amount in ((1.5, 0.28), (3.5, 0.12), (8.0, 0.05)):
        wave = rng.normal(size=(3, 3)) * scale
        lump += amount * np.sin(direction @ wave + rng.uniform(0, 6, 3)).sum(-1) / 1.7
    points = direction * lump[..., None] * radius * rng.uniform(0.6, 1.2, 3) + [0.0, 0.2 * radius, 0.0]
    site.faces(quads(points), plants.stone.tinted(rng.uniform(0.6, 1.15)))


def meadow(
    site: Site, rng: np.random.Generator, plants: Plants, land: Land, count: int, reach: float, tall: Number
) -> None:
    """Add vertical cards of grass and flowers over a disc."""
    material = plants.flowers[int(rng.integers(len(plants.flowers)))]
    turn, far = rng.uniform(0, 2 * math.pi, count), reach * np.sqrt(rng.random(count))
    x, z = site.position[0] + far * np.sin(turn), site.position[2] + far * np.cos(turn)
    lean = rng.uniform(0, math.pi, count)
    size = tall * rng.uniform(0.6, 1.3, count)
    up = land.up(x, z)
    ax, az = 0.6 * size * np.cos(lean), 0.6 * size * np.sin(lean)
    corners = np.stack(
        [np.stack([x - ax, up + size, z - az], -1), np.stack([x + ax, up + size, z + az], -1),
         np.stack([x + ax, up - 0.05, z + az], -1), np.stack([x - ax, up - 0.05, z - az], -1)], 1,
    )  # fmt: skip
    uv, order = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]), np.array([[0, 1, 2], [0, 2, 3]])
    Site(site.builder, np.zeros(3)).faces(
        corners[:, order].reshape(-1, 3, 3), material, uv_meters=np.tile(uv[order], (count, 1, 1))
    )
