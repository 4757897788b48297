"""Generates still lifes from a seed: catalogue models at close range, in a bare room or outdoors; meters.

Tracks, towns and furnished rooms are viewed from the middle distance. Photographs also show one object at close range,
with others beside, behind and on top of it, with ropes and poles in front, and often before a wall.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from scenes.synthetic.rooms.factory import add_shell, room_lighting
from scenes.synthetic.rooms.furniture import LICENSES, Furniture, load_furniture, read_catalogues
from scenes.synthetic.rooms.surfaces import floor_picture, painting_picture, wall_picture
from scenes.synthetic.still_lifes.backdrop import add_backdrop
from scenes.synthetic.towns.factory import daylight
from scenes.synthetic.towns.plants import bush, plant_materials, tree
from scenes.synthetic.towns.solids import Material, Site, plain
from scenes.synthetic.triangle_scene import NO_TEXTURE, Lighting, TexturedWorld, WorldBuilder, as_rgb, gradient_sky

SOURCE = "still-lifes"

_FLAT = r"rug|tatami|mat\b|carpet|socket|plug|switch"
_SPREAD = 2.3  # largest distance of objects from the center along x and z, meters
_GROUND = 60.0  # half side of the ground plane, meters


@dataclass(frozen=True)
class Thing:
    """Position and size of an object, meters; ``foot`` is the height of its bottom above the ground."""

    x: float
    z: float
    foot: float
    height: float
    radius: float


@dataclass(frozen=True)
class StillLife:
    """A generated still life.

    Attributes:
        world: the triangles, meters.
        lighting: lighting of the scene.
        things: objects to look at.
        reach: largest x and z of a camera, meters.
        license: license of its images.
        front_rad: direction from which it is mostly viewed, angle about the vertical; None for all directions.
    """

    world: TexturedWorld
    lighting: Lighting
    things: list[Thing]
    reach: float
    license: str
    front_rad: float | None = None

    def standpoint(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw a camera position and a point to look at, in the world (y down), close to an object."""
        thing = self.things[int(rng.integers(len(self.things)))]
        away = thing.radius + rng.uniform(0.4, 1.0) * (0.5 + rng.uniform(0.5, 2.0) * max(thing.height, thing.radius))
        turn = rng.uniform(0.0, 2.0 * math.pi)
        if self.front_rad is not None and rng.random() < 0.8:
            turn = rng.normal(self.front_rad, 0.5)
        x, z = np.clip([thing.x + away * math.sin(turn), thing.z + away * math.cos(turn)], -self.reach, self.reach)
        middle = thing.foot + rng.uniform(0.3, 0.8) * thing.height
        eye = max(middle + away * rng.uniform(-0.15, 0.4), 0.3)
        return np.array([x, -min(eye, 2.1), z]), np.array([thing.x, -middle, thing.z])


class StillLifeFactory:
    """Builds still lifes from unpacked furniture catalogues and a folder of surface textures."""

    def __init__(self, furniture_cache: Path, surfaces: Path) -> None:
        self._cache, self._surfaces = furniture_cache, surfaces
        self._items = [i for i in read_catalogues(furniture_cache) if not re.search(_FLAT, i.name, re.IGNORECASE)]

    def build(self, seed: int) -> StillLife:
        """The still life of a seed; the same seed gives the same arrays."""
        rng = np.random.default_rng([79, seed])  # 79: a stream of its own beside rooms (77) and towns (78)
        builder = WorldBuilder()
        site = Site(builder, np.zeros(3))
        if rng.random() < 0.6:
            width, length, height = rng.uniform(4.6, 7.0), rng.uniform(4.6, 7.0), rng.uniform(2.4, 3.2)
            windows = add_shell(builder, self._surfaces, rng, width, length, height)
            lighting = room_lighting(rng, width, length, height, windows)
            sky, reach = gradient_sky((0.35, 0.5, 0.8), (0.8, 0.85, 0.9)), 0.5 * min(width, length) - 0.3
        else:
            # Gray skies behind close objects taught the depth network to see sky in white walls.
            lighting, sky, _ = daylight(rng, overcast=False)
            reach = 4.5
            self._lay_ground(site, rng)
        front_rad = None
        # A wall behind most of them: without walls, plain areas behind close objects were all sky.
        if rng.random() < 0.6:
            front_rad = float(rng.uniform(0.0, 2.0 * math.pi))
            wall = Site(builder, site.position, front_rad + math.pi).moved(0.0, 0.0, rng.uniform(0.6, 2.0))
            add_backdrop(wall, self._surfaces, rng)
        things, catalogues = self._place_things(site, rng)
        _add_rods(site, rng)
        license = "; ".join([*sorted({LICENSES[c] for c in catalogues}), "surface textures Apache-2.0"])
        return StillLife(builder.build(sky), lighting, things, reach, license, front_rad)

    def _lay_ground(self, site: Site, rng: np.random.Generator) -> None:
        """Add ground to the horizon, up to two walls, and plants."""
        picture, meters = floor_picture(self._surfaces, rng)
        ground = Material(site.builder.add_texture(picture), (meters, meters), as_rgb(rng.uniform(0.5, 1.0, 3)))
        g = _GROUND
        site.quad((-g, 0, g), (g, 0, g), (g, 0, -g), (-g, 0, -g), ground)
        for _ in range(int(rng.integers(3))):
            picture, meters = wall_picture(self._surfaces, rng)
            wall = Material(site.builder.add_texture(picture), (meters, meters), as_rgb(rng.uniform(0.5, 1.0, 3)))
            turned = Site(site.builder, site.position, rng.uniform(0, 2 * math.pi))
            place = turned.moved(0.0, 0.0, rng.uniform(4.9, 9.0))
            half = rng.uniform(2.0, 8.0)
            place.box((-half, 0, 0), (half, rng.uniform(0.8, 4.5), 0.3), wall)
        plants = plant_materials(site.builder, self._surfaces, None, rng)
        for _ in range(int(rng.integers(7))):
            away, turn = rng.uniform(1.5, 9.0), rng.uniform(0.0, 2.0 * math.pi)
            place = site.moved(away * math.sin(turn), 0.0, away * math.cos(turn))
            if rng.random() < 0.5:
                tree(place, rng, plants, rng.uniform(1.5, 6.0))
            else:
                half_wide = rng.uniform(0.3, 1.2)
                bush(place, rng, plants, (half_wide, rng.uniform(0.3, 1.0), half_wide))

    def _place_things(self, site: Site, rng: np.random.Generator) -> tuple[list[Thing], set[str]]:
        """Place up to 25 models of 0.25 to 2.2 meters beside and on top of each other; returns their catalogues too."""
        things: list[Thing] = []
        used: set[str] = set()
        for _ in range(int(rng.integers(8, 26))):
            item = self._items[int(rng.integers(len(self._items)))]
            size = max(item.size)
            scale = float(np.clip(rng.uniform(0.6, 1.5) * size, 0.25, 2.2)) / size
            radius = 0.5 * scale * math.hypot(item.size[0], item.size[2])
            below = [t for t in things if t.foot == 0.0 and t.height < 1.3 and t.radius > 0.7 * radius]
            if below and rng.random() < 0.3:
                base = below[int(rng.integers(len(below)))]
                x, z, foot = base.x, base.z, base.height
            else:
                x, z = rng.uniform(-_SPREAD, _SPREAD, 2) * rng.random() ** 0.3
                foot = 0.0
                if any(math.hypot(x - t.x, z - t.z) < 0.7 * (radius + t.radius) for t in things):
                    continue
            if self._place(site.moved(x, foot, z, rng.uniform(0, 2 * math.pi)), item, scale, rng):
                things.append(Thing(float(x), float(z), foot, scale * item.size[1], radius))
                used.add(item.catalogue)
        if not things:  # every draw was too heavy or overlapped
            return self._place_things(site, rng)
        return things, used

    def _place(self, site: Site, item: Furniture, scale: float, rng: np.random.Generator) -> bool:
        """Add a model, some of its parts with another texture; False when it has too many triangles."""
        parts = load_furniture(self._cache, item)
        tone = rng.uniform(0.7, 1.1, 3)
        for part in parts:
            tint, uv, meters = np.asarray(part.tint) * tone, part.uv, 1.0
            texture = NO_TEXTURE if part.picture is None else site.builder.add_texture(part.picture)
            if rng.random() < 0.25:
                picture, meters = self._surface(rng)
                texture, tint, uv = site.builder.add_texture(picture), rng.uniform(0.4, 0.9, 3), None
            elif rng.random() < 0.2:
                tint = rng.uniform(0.05, 0.9, 3)
            cutout = site.builder.has_clear_pixels(texture)
            material = Material(texture, (meters, meters), as_rgb(np.minimum(tint, 0.92)), cutout)
            site.faces(scale * part.corners, material, uv_meters=uv, normals=part.normals)
        return bool(parts)

    def _surface(self, rng: np.random.Generator) -> tuple[np.ndarray, float]:
        """A random texture and its width in meters."""
        meters = float(rng.uniform(0.3, 1.2))
        kind = int(rng.integers(3))
        if kind == 0:
            return painting_picture(rng), meters
        return (floor_picture, wall_picture)[kind - 1](self._surfaces, rng)[0], meters


def _add_rods(site: Site, rng: np.random.Generator) -> None:
    """Add up to five thin rods, half of them upright: thin structures in front of the objects."""
    for _ in range(int(rng.integers(6))):
        ends: Float[np.ndarray, "2 3"] = rng.uniform((-_SPREAD, 0.0, -_SPREAD), (_SPREAD, 2.2, _SPREAD), (2, 3))
        if rng.random() < 0.5:
            ends[:, 1] = (0.0, rng.uniform(0.8, 2.3))
            ends[1, ::2] = ends[0, ::2] + rng.uniform(-0.15, 0.15, 2)
        a, b = ((float(x), float(y), float(z)) for x, y, z in ends)
        site.beam(a, b, float(np.exp(rng.uniform(math.log(0.004), math.log(0.04)))), plain(*rng.uniform(0.03, 0.9, 3)))
