"""Terrain of a town: height field with a river or a lake, ground materials, and paths."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from scenes.synthetic.towns.solids import Material, Number, Site, quads
from scenes.synthetic.towns.textures import as_picture, mottled, smooth_noise, surface
from scenes.synthetic.triangle_scene import WorldBuilder, as_rgb

LAND_REACH = 420.0


@dataclass(frozen=True)
class Land:
    """Height field of the ground, y up, on a grid that is finest at the center.

    Attributes:
        axis: grid positions along x and z, meters.
        height: ``height[i, j]`` at ``z = axis[i]``, ``x = axis[j]``.
        river: half width and depth of a channel along a bent line, or None.
        river_course: x of the channel's center at every ``axis`` position of z.
        water_up: height of the water surface; minus infinity without water.
    """

    axis: Float[np.ndarray, "n"]
    height: Float[np.ndarray, "n n"]
    river: tuple[Number, Number] | None
    river_course: Float[np.ndarray, "n"]
    water_up: float

    def up(self, x: np.ndarray | Number, z: np.ndarray | Number) -> np.ndarray:
        """Height of the ground, bilinear on the grid."""
        x, z = np.clip(x, -LAND_REACH, LAND_REACH), np.clip(z, -LAND_REACH, LAND_REACH)
        j = np.clip(np.searchsorted(self.axis, x) - 1, 0, len(self.axis) - 2)
        i = np.clip(np.searchsorted(self.axis, z) - 1, 0, len(self.axis) - 2)
        u = (x - self.axis[j]) / (self.axis[j + 1] - self.axis[j])
        v = (z - self.axis[i]) / (self.axis[i + 1] - self.axis[i])
        low = (1 - u) * self.height[i, j] + u * self.height[i, j + 1]
        high = (1 - u) * self.height[i + 1, j] + u * self.height[i + 1, j + 1]
        return np.asarray((1 - v) * low + v * high)

    def wet(self, x: Number, z: Number, radius: Number) -> bool:
        """Whether the circle reaches water."""
        turn = np.linspace(0.0, 2.0 * math.pi, 9)
        return bool((self.up(x + radius * np.sin(turn), z + radius * np.cos(turn)) < self.water_up + 0.25).any())


def make_land(
    rng: np.random.Generator, relief: Number, far_hills: Number, *, river: bool, lake: bool, level_radius: Number
) -> Land:
    """Draw a height field.

    Args:
        rng: source of randomness.
        relief: amplitude near the center, meters.
        far_hills: height of the hills at the horizon, meters.
        river: whether to add a channel.
        lake: whether one side is under water.
        level_radius: radius of the almost level center, meters.
    """
    s = np.linspace(-1.0, 1.0, 149)
    # Cells of 1.2 meters at the center, where the cameras are, and of 19 meters at the border.
    axis = LAND_REACH * (0.22 * s + 0.78 * s**3 * np.abs(s))
    x, z = np.meshgrid(axis, axis)
    noise = smooth_noise(rng, 256, 2.0)
    far = np.hypot(x, z)

    def sampled(meters: float) -> np.ndarray:
        """Noise with a period of ``meters``, sampled bilinearly."""
        a, b = (z / meters % 1.0) * 256, (x / meters % 1.0) * 256
        i, j, fa, fb = a.astype(int) % 256, b.astype(int) % 256, a % 1.0, b % 1.0
        k, m = (i + 1) % 256, (j + 1) % 256
        return (1 - fa) * ((1 - fb) * noise[i, j] + fb * noise[i, m]) + fa * ((1 - fb) * noise[k, j] + fb * noise[k, m])

    ease = np.clip((far - level_radius) / 30.0, 0.0, 1.0)
    height = relief * sampled(130.0) * ease + 0.15 * relief * sampled(40.0) * (0.2 + 0.8 * ease)
    height += far_hills * np.clip((far - 130.0) / 220.0, 0.0, 1.0) ** 1.5 * (0.6 + sampled(500.0))
    course = rng.uniform(-14.0, 14.0) + rng.uniform(3.0, 9.0) * np.sin(
        axis / rng.uniform(18.0, 40.0) + rng.uniform(0, 6)
    )
    half, deep = rng.uniform(3.0, 10.0), rng.uniform(1.2, 2.5)
    if river:
        away = np.abs(x - course[:, None]) / half
        bank = 1.0 / (1.0 + np.exp(np.clip((away - 1.0) * 6.0, -30, 30)))
        valley = np.exp(-((away / 4.0) ** 2))
        height = height * (1.0 - 0.9 * valley) - deep * bank
    if lake:
        turn, shore = rng.uniform(0, 2 * math.pi), rng.uniform(24.0, 60.0)
        out = (x * math.sin(turn) + z * math.cos(turn) - shore + 6.0 * sampled(90.0)) / 9.0
        sunk = (1.0 / (1.0 + np.exp(-np.clip(out, -30, 30)))) * np.clip((340.0 - far) / 60.0, 0.0, 1.0)
        height = height * (1.0 - sunk) - 5.0 * sunk
    return Land(axis, height, (half, deep) if river else None, course, -0.55 * deep if river or lake else -math.inf)


def lay_land(site: Site, land: Land, ground: Material, rng: np.random.Generator) -> None:
    """Add the ground: a fine texture times large-scale variation of brightness and hue."""
    x, z = np.meshgrid(land.axis, land.axis)
    grid = np.stack([x, land.height, z], -1)
    uv = np.stack([x, z], -1)
    spots = 0.8 + 0.2 * smooth_noise(rng, 512, 0.9)
    hue = 1.0 + 0.08 * smooth_noise(rng, 512, 1.3)
    shade = as_picture(np.stack([spots * hue, spots, spots * (2.0 - hue)], -1))
    normals = np.stack(
        [-np.gradient(land.height, land.axis, axis=1), np.ones_like(x), -np.gradient(land.height, land.axis, axis=0)],
        -1,
    )
    site.builder.add_triangles(
        quads(grid * [1.0, -1.0, 1.0]),
        normals=quads(normals * [1.0, -1.0, 1.0]),
        uv=quads(uv / np.asarray(ground.meters)),
        texture=ground.texture,
        tint=ground.tint,
        shade_uv=quads(uv / 70.0),
        shade_texture=site.builder.add_texture(shade),
    )


def lay_water(site: Site, land: Land, material: Material) -> None:
    """Add the water surface, a plane that is visible where the ground is lower."""
    x, z = np.meshgrid(land.axis[::4], land.axis[::4])
    site.faces(quads(np.stack([x, np.full_like(x, land.water_up), z], -1)), material)


def drape(
    site: Site, land: Land, line: Float[np.ndarray, "n 2"], wide: Number, material: Material, lift: Number
) -> None:
    """Add a strip of width ``wide`` along (x, z) points, ``lift`` meters above the ground."""
    step = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=-1))])
    at = np.arange(0.0, step[-1], 0.8)
    x, z = (np.interp(at, step, line[:, i]) for i in (0, 1))
    heading = np.stack([np.gradient(x), np.gradient(z)], -1)
    heading /= np.linalg.norm(heading, axis=-1, keepdims=True) + 1e-9
    across = np.linspace(-0.5, 0.5, max(int(wide / 0.8), 2) + 1) * wide
    px, pz = x[:, None] + across * heading[:, 1:2], z[:, None] - across * heading[:, 0:1]
    grid = np.stack([px, land.up(px, pz) + lift, pz], -1)
    uv = np.stack(np.broadcast_arrays(across[None], at[:, None]), -1)
    site.faces(quads(grid), material, uv_meters=quads(uv))


def ground_material(builder: WorldBuilder, surfaces: Path | None, rng: np.random.Generator, kind: str) -> Material:
    """A ground material: grass, asphalt, soil, sand, gravel or snow."""
    if kind in ("grass", "asphalt"):
        name = {"grass": str(rng.choice(["grass_1", "grass_2"])), "asphalt": "asphalt_1"}[kind]
        tone = (
            rng.uniform([0.7, 0.6, 0.8], [1.25, 0.85, 1.4]) if kind == "grass" else np.ones(3) * rng.uniform(0.6, 1.1)
        )
        return Material(builder.add_texture(surface(surfaces, name, rng)), (3.0, 3.0), as_rgb(tone))
    colors = {
        "soil": (0.45, 0.36, 0.27),
        "sand": (0.8, 0.71, 0.54),
        "gravel": (0.6, 0.57, 0.52),
        "snow": (0.9, 0.92, 0.95),
    }
    base = np.asarray(colors[kind]) * rng.uniform(0.8, 1.1)
    return Material(builder.add_texture(mottled(rng, tuple(base), 0.03 if kind == "snow" else 0.12)), (2.0, 2.0))
