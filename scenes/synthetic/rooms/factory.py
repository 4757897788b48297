"""Generates rooms with catalogue furniture from a seed; meters."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scenes.synthetic.rooms.furniture import LICENSES, Furniture, load_furniture, read_catalogues
from scenes.synthetic.rooms.surfaces import floor_picture, painting_picture, wall_picture, window_picture
from scenes.synthetic.triangle_scene import (
    NO_TEXTURE,
    Lighting,
    Rgb,
    TexturedWorld,
    WorldBuilder,
    as_rgb,
    flip_up,
    gradient_sky,
)

SOURCE = "rooms"
HELD_OUT_SEEDS = tuple(range(9000, 9008))
KINDS = ("living", "bedroom", "kitchen", "office", "bathroom", "playroom")

_CATEGORIES = {
    "living": ("Living room", "Lights"),
    "bedroom": ("Bedroom", "Lights"),
    "kitchen": ("Kitchen",),
    "office": ("Office", "Living room", "Lights"),
    "bathroom": ("Bathroom",),
    "playroom": ("Miscellaneous", "Living room", "Bedroom"),
}
_FREE_STANDING = r"table|rug|island|stool|ottoman|tatami|mat\b|pool|football"
_UNWANTED = (
    r"fence|railing|container|lamppost|street|park light|outdoor|porch|contemporary living|stair|ceiling|hanging|"
    r"pendant|chandelier|track light|socket|plug|switch|screen door|wall|coathanger|cone|mezzanine|tree|projector|"
    r"dress\b|suit|trousers|jacket|skirt|short|umbrella"
)
_RUG = r"rug|tatami|mat\b"


@dataclass(frozen=True)
class Room:
    """A furnished room: triangles, lighting, and the box of possible camera positions (low and high corner)."""

    world: TexturedWorld
    lighting: Lighting
    low: tuple[float, float, float]
    high: tuple[float, float, float]
    kind: str
    catalogues: tuple[str, ...]


@dataclass(frozen=True)
class _Placed:
    item: Furniture
    x: float
    z: float
    half_x: float
    half_z: float
    yaw: float
    foot: float


class RoomFactory:
    """Builds rooms from unpacked furniture catalogues and a folder of surface textures."""

    def __init__(self, furniture_cache: Path, surfaces: Path) -> None:
        self._cache, self._surfaces = furniture_cache, surfaces
        self._items = [i for i in read_catalogues(furniture_cache) if not re.search(_UNWANTED, i.name, re.IGNORECASE)]

    def build(self, seed: int) -> Room:
        """The room of a seed; the same seed gives the same arrays."""
        rng = np.random.default_rng([77, seed])  # 77: a stream of its own beside towns (78) and still lifes (79)
        kind = KINDS[int(rng.integers(len(KINDS)))]
        width, length = rng.uniform(3.4, 7.0), rng.uniform(3.4, 7.0)
        if kind == "bathroom":
            width, length = 0.75 * width, 0.75 * length
        height = rng.uniform(2.4, 3.1)
        builder = WorldBuilder()
        window_positions = add_shell(builder, self._surfaces, rng, width, length, height)
        placed = self._furnish(rng, kind, width, length, height)
        for piece in placed:
            self._add_piece(builder, piece, rng)
        lighting = room_lighting(rng, width, length, height, window_positions)
        return Room(
            world=builder.build(gradient_sky((0.35, 0.5, 0.8), (0.8, 0.85, 0.9))),
            lighting=lighting,
            low=(-width / 2 + 0.3, -height + 0.4, -length / 2 + 0.3),
            high=(width / 2 - 0.3, -0.4, length / 2 - 0.3),
            kind=kind,
            catalogues=tuple(sorted({p.item.catalogue for p in placed})),
        )

    def _furnish(
        self, rng: np.random.Generator, kind: str, width: float, length: float, height: float
    ) -> list[_Placed]:
        """Place large pieces along the walls, some free-standing ones, and small items on top of them."""
        pool = [i for i in self._items if i.category in _CATEGORIES[kind] and i.size[1] < height - 0.1]
        large = [i for i in pool if max(i.size[0], i.size[2]) > 0.3 and i.size[1] > 0.3 and i.elevation == 0.0]
        rugs = [i for i in self._items if re.search(_RUG, i.name, re.IGNORECASE) and i.size[0] > 0.6]
        central = [i for i in large if re.search(_FREE_STANDING, i.name, re.IGNORECASE)]
        lining = [i for i in large if i not in central]
        small = [i for i in self._items if max(i.size) < 0.5 and i.size[1] > 0.08 and i.size[0] * i.size[2] > 0.004]
        placed: list[_Placed] = []
        if rugs and rng.random() < 0.7:
            item, at = rugs[int(rng.integers(len(rugs)))], rng.uniform(-0.4, 0.4, 2)
            placed.append(_Placed(item, float(at[0]), float(at[1]), 0.0, 0.0, float(rng.uniform(0, 0.3)), 0.004))
        area = width * length
        for _ in range(int(area * rng.uniform(0.35, 0.6)) + 3):
            item = lining[int(rng.integers(len(lining)))]
            _try_place(placed, item, rng, width, length, against_wall=True)
        for _ in range(int(area * rng.uniform(0.05, 0.15)) + 1):
            if central:
                _try_place(placed, central[int(rng.integers(len(central)))], rng, width, length, against_wall=False)
        for base in list(placed):
            room = min(base.half_x, base.half_z)
            if base.item.top > 0.2 and base.item.size[1] < 1.3 and room > 0.15 and _is_surface(base.item):
                for _ in range(int(rng.integers(1, 4))):
                    item = small[int(rng.integers(len(small)))]
                    dx, dz = rng.uniform(-0.6, 0.6, 2) * [base.half_x, base.half_z]
                    yaw = float(rng.uniform(0, 2 * math.pi))
                    placed.append(_Placed(item, base.x + dx, base.z + dz, 0.0, 0.0, yaw, base.item.top))
        return placed

    def _add_piece(self, builder: WorldBuilder, piece: _Placed, rng: np.random.Generator) -> None:
        cosine, sine = math.cos(piece.yaw), math.sin(piece.yaw)
        turn = np.array([[cosine, 0.0, sine], [0.0, 1.0, 0.0], [-sine, 0.0, cosine]])
        # A tone per piece: catalogue models repeat from room to room.
        tone = rng.uniform(0.75, 1.1, 3)
        for part in load_furniture(self._cache, piece.item):
            texture = NO_TEXTURE if part.picture is None else builder.add_texture(part.picture)
            tint = as_rgb(np.minimum(np.asarray(part.tint) * tone, 0.92))
            builder.add_triangles(
                flip_up(part.corners @ turn.T + [piece.x, piece.foot, -piece.z]),
                normals=flip_up(part.normals @ turn.T),
                uv=part.uv,
                texture=texture,
                tint=tint,
                cutout=builder.has_clear_pixels(texture),
            )


def add_shell(
    builder: WorldBuilder, surfaces: Path, rng: np.random.Generator, width: float, length: float, height: float
) -> list[np.ndarray]:
    """Add floor, ceiling, walls, skirting, paintings and windows; returns the windows' centers."""
    floor, meters = floor_picture(surfaces, rng)
    wall, wall_meters = wall_picture(surfaces, rng)
    floor_texture, wall_texture = builder.add_texture(floor), builder.add_texture(wall)
    x, z = width / 2, length / 2
    builder.add_quad(
        np.array([-x, 0, z]), np.array([width, 0, 0]), np.array([0, 0, -length]),
        tiles=(width / meters, length / meters), texture=floor_texture,
    )  # fmt: skip
    paint = float(rng.uniform(0.6, 0.85))
    builder.add_quad(
        np.array([-x, -height, -z]), np.array([width, 0, 0]), np.array([0, 0, length]), tint=(paint, paint, paint)
    )
    color = 0.55 + 0.4 * rng.random(3)
    accent = 0.35 + 0.6 * rng.random(3)
    skirting: Rgb = (0.75, 0.75, 0.75) if rng.random() < 0.6 else (0.25, 0.14, 0.07)
    accent_wall = int(rng.integers(4)) if rng.random() < 0.4 else -1
    windows = []
    for side, (corner, along, inward) in enumerate(_walls(x, z, height)):
        span = float(np.linalg.norm(along))
        tint = as_rgb(accent if side == accent_wall else color)
        builder.add_quad(
            corner, along, np.array([0, height, 0]), tiles=(span / wall_meters, height / wall_meters),
            texture=wall_texture, tint=tint,
        )  # fmt: skip
        foot = corner + [0, height - 0.09, 0] + 0.012 * inward
        builder.add_quad(foot, along, np.array([0, 0.09, 0]), tint=skirting)
        if rng.random() < 0.5:
            windows.append(_add_window(builder, rng, corner, along, inward, height))
        elif rng.random() < 0.8:
            _add_painting(builder, rng, corner, along, inward, height)
    return windows


def _is_surface(item: Furniture) -> bool:
    return bool(re.search(r"table|desk|dresser|cabinet|stand|chest|shel|island|bench|drawer", item.name, re.IGNORECASE))


def _walls(x: float, z: float, height: float) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Upper-left corner, direction along and inward normal of the walls, seen from inside."""
    return [
        (np.array([-x, -height, z]), np.array([2 * x, 0, 0]), np.array([0, 0, -1.0])),
        (np.array([x, -height, z]), np.array([0, 0, -2 * z]), np.array([-1.0, 0, 0])),
        (np.array([x, -height, -z]), np.array([-2 * x, 0, 0]), np.array([0, 0, 1.0])),
        (np.array([-x, -height, -z]), np.array([0, 0, 2 * z]), np.array([1.0, 0, 0])),
    ]


def _add_window(builder, rng, corner, along, inward, height) -> np.ndarray:
    """Add an emissive pane with bars and a frame; returns a point in front of its center, for a lamp."""
    span = float(np.linalg.norm(along))
    unit = along / span
    wide, tall = min(rng.uniform(0.9, 2.2), 0.7 * span), rng.uniform(0.9, 1.4)
    top = corner + unit * rng.uniform(0.1, 0.9) * (span - wide) + [0, height - 0.85 - tall, 0] + 0.03 * inward
    texture = builder.add_texture(window_picture(rng))
    glow = float(rng.uniform(1.0, 1.5))
    builder.add_quad(top, wide * unit, np.array([0, tall, 0]), texture=texture, tint=(glow,) * 3, emissive=True)
    frame, bar = float(rng.uniform(0.5, 0.85)), 0.05
    bars = int(rng.integers(1, 4))
    for i in range(bars + 1):
        at = top + unit * (wide - bar) * i / bars + 0.02 * inward
        builder.add_quad(at, bar * unit, np.array([0, tall, 0]), tint=(frame,) * 3)
    for i in range(3 if rng.random() < 0.5 else 2):
        at = top + np.array([0, (tall - bar) * (i if i < 2 else 0.5), 0]) + 0.021 * inward
        builder.add_quad(at, wide * unit, np.array([0, bar, 0]), tint=(frame,) * 3)
    sill = top + np.array([0, tall, 0]) - 0.03 * unit - 0.03 * inward
    builder.add_quad(sill, (wide + 0.06) * unit, 0.18 * inward, tint=(frame,) * 3)
    return top + wide / 2 * unit + np.array([0, tall / 2, 0]) + 0.35 * inward


def _add_painting(builder, rng, corner, along, inward, height) -> None:
    span = float(np.linalg.norm(along))
    unit = along / span
    wide, tall = rng.uniform(0.4, 1.2), rng.uniform(0.4, 0.9)
    place = rng.uniform(0.1, 0.9) * (span - wide - 0.2)
    top = corner + unit * (0.1 + place) + [0, height - 1.6 - tall / 2, 0] + 0.03 * inward
    edge = float(rng.uniform(0.02, 0.5))
    border = 0.04
    builder.add_quad(
        top - border * unit - [0, border, 0], (wide + 2 * border) * unit, np.array([0, tall + 2 * border, 0]),
        tint=(edge, 0.8 * edge, 0.6 * edge),
    )  # fmt: skip
    texture = builder.add_texture(painting_picture(rng))
    builder.add_quad(top + 0.01 * inward, wide * unit, np.array([0, tall, 0]), texture=texture)


def _try_place(placed, item, rng, width, length, *, against_wall: bool) -> None:
    """Add the piece where its footprint overlaps no other; give up after 12 tries."""
    for _ in range(12):
        side = int(rng.integers(4))
        yaw = (0.0, 0.5 * math.pi, math.pi, 1.5 * math.pi)[side]
        half_x, half_z = (item.size[0] / 2, item.size[2] / 2)
        if side % 2:
            half_x, half_z = half_z, half_x
        free_x, free_z = width / 2 - half_x - 0.03, length / 2 - half_z - 0.03
        if free_x < 0 or free_z < 0:
            continue
        x, z = rng.uniform(-free_x, free_x), rng.uniform(-free_z, free_z)
        if against_wall:
            # A model's front faces its +z (y up), which is the world's -z: yaw 0 belongs at the far wall.
            x, z = ((x, free_z), (-free_x, z), (x, -free_z), (free_x, z))[side]
        else:
            x, z = 0.6 * x, 0.6 * z
        gap = 0.05 if against_wall else 0.25
        if all(abs(x - p.x) > half_x + p.half_x + gap or abs(z - p.z) > half_z + p.half_z + gap
               for p in placed if p.half_x > 0.0):  # fmt: skip
            placed.append(_Placed(item, float(x), float(z), half_x, half_z, yaw, 0.0))
            return


def room_lighting(rng, width, length, height, windows) -> Lighting:
    """Draw the lighting: a ceiling lamp, a lamp of daylight at up to two windows, ambient light."""
    warm = np.array([1.0, rng.uniform(0.82, 0.97), rng.uniform(0.6, 0.92)])
    lamps = [np.array([rng.uniform(-0.2, 0.2) * width, -height + 0.35, rng.uniform(-0.2, 0.2) * length])]
    colors = [warm * rng.uniform(0.8, 2.2)]
    for center in windows[:2]:
        lamps.append(center)
        colors.append(np.array([0.85, 0.93, 1.0]) * rng.uniform(1.2, 3.0))
    ambient = rng.uniform(0.22, 0.4)
    return Lighting(
        sky_rgb=as_rgb(ambient * warm),
        ground_rgb=as_rgb(0.85 * ambient * np.array([1.0, 0.93, 0.85])),
        lamp_positions=np.asarray(lamps, np.float32),
        lamp_rgb=np.asarray(colors, np.float32),
        occlusion_rays=10,
    )


def room_license(room: Room) -> str:
    """Licenses of the furniture and textures of a room."""
    furniture = sorted({LICENSES[c] for c in room.catalogues})
    return "; ".join([*furniture, "surface textures Apache-2.0"])
