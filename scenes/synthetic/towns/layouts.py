"""Layouts of towns: square, street, temple, countryside, river, forest and castle."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from scenes.synthetic.towns import plants as towns_plants
from scenes.synthetic.towns import props as towns_props
from scenes.synthetic.towns.buildings import block, bridge, church, house, rampart, tower
from scenes.synthetic.towns.masonry import Masonry
from scenes.synthetic.towns.plants import Plants
from scenes.synthetic.towns.solids import Material, Number, Site
from scenes.synthetic.towns.temples import hall, pagoda
from scenes.synthetic.towns.terrain import Land, drape, ground_material

_Builder = Callable[[Site, np.random.Generator, Masonry], float]


@dataclass(frozen=True)
class Subject:
    """An object to look at: position, radius on the ground and height, meters."""

    x: Number
    z: Number
    radius: Number
    height: Number


@dataclass
class TownPlan:
    """A town under construction: its frame, land, materials, and occupied circles."""

    site: Site
    land: Land
    stone: Masonry
    plants: Plants
    rng: np.random.Generator
    surfaces: Path | None
    taken: list[Subject] = field(default_factory=list)
    subjects: list[Subject] = field(default_factory=list)

    def free(self, x: Number, z: Number, radius: Number) -> bool:
        """Whether the circle overlaps neither objects nor water."""
        if self.land.wet(x, z, radius):
            return False
        return all(math.hypot(x - t.x, z - t.z) > radius + t.radius for t in self.taken)

    def at(self, x: Number, z: Number, yaw: Number, sink: Number = 0.0) -> Site:
        """A frame on the ground, ``sink`` meters lower."""
        return self.site.moved(x, float(self.land.up(x, z)) - sink, z, yaw)

    def take(self, x: Number, z: Number, radius: Number, height: Number, *, subject: bool = False) -> None:
        """Mark a circle of ground as occupied."""
        self.taken.append(Subject(x, z, radius, height))
        if subject:
            self.subjects.append(self.taken[-1])

    def spot(self, near: Number, far: Number, radius: Number, tries: int = 30) -> tuple[float, float] | None:
        """Draw a free position between two distances from the center; None after ``tries``."""
        for _ in range(tries):
            turn, reach = self.rng.uniform(0, 2 * math.pi), self.rng.uniform(near, far)
            x, z = reach * math.sin(turn), reach * math.cos(turn)
            if self.free(x, z, radius):
                return x, z
        return None

    def path_material(self, kinds: list[str]) -> Material:
        """Draw a ground material among ``kinds``."""
        return ground_material(self.site.builder, self.surfaces, self.rng, str(self.rng.choice(kinds)))


def _raise_building(
    plan: TownPlan, make: _Builder, x: Number, z: Number, yaw: Number, room: Number, height: Number, *, subject: bool
) -> None:
    """Add a building at the lowest ground height around it, at most 1.2 meters below its center."""
    around = [float(plan.land.up(x + room * math.sin(w), z + room * math.cos(w))) for w in np.arange(0.0, 6.2, 0.8)]
    base = min(max(min(around), float(plan.land.up(x, z)) - 1.2), float(plan.land.up(x, z)))
    radius = make(plan.site.moved(x, base, z, yaw), plan.rng, plan.stone)
    plan.take(x, z, radius, height, subject=subject)


def _ring(plan: TownPlan, makers: list[_Builder], count: int, near: Number, far: Number, room: Number) -> None:
    """Add a ring of buildings that face the center."""
    for k in range(count):
        turn = 2 * math.pi * (k + 0.25 * plan.rng.normal()) / count
        reach = plan.rng.uniform(near, far)
        x, z = reach * math.sin(turn), reach * math.cos(turn)
        if plan.free(x, z, room):
            make = makers[int(plan.rng.integers(len(makers)))]
            _raise_building(
                plan, make, x, z, turn + 0.1 * plan.rng.normal(), room, 9.0, subject=plan.rng.random() < 0.5
            )


def _sprinkle(
    plan: TownPlan, make, count: int, near: Number, far: Number, radius: Number, height: Number, share: Number
) -> None:
    """Add props at free positions; a share of them are subjects."""
    for _ in range(count):
        if (where := plan.spot(near, far, radius)) is not None:
            make(plan.at(*where, plan.rng.uniform(0, 2 * math.pi)), plan.rng, plan.stone)
            plan.take(*where, radius, height, subject=plan.rng.random() < share)


def _trees(plan: TownPlan, count: int, near: Number, far: Number, share: Number) -> None:
    for _ in range(count):
        height = float(plan.rng.uniform(3.5, 14.0))
        if (where := plan.spot(near, far, 0.12 * height)) is not None:
            towns_plants.tree(plan.at(*where, plan.rng.uniform(0, 6.3)), plan.rng, plan.plants, height)
            plan.take(*where, 0.08 * height, height, subject=plan.rng.random() < share)


def _rocks_and_bushes(plan: TownPlan, rocks: int, bushes: int, far: Number) -> None:
    for _ in range(rocks):
        radius = float(np.exp(plan.rng.uniform(math.log(0.2), math.log(1.8))))
        if (where := plan.spot(2.0, far, radius)) is not None:
            towns_plants.rock(plan.at(*where, 0.0), plan.rng, plan.plants, radius)
            plan.take(*where, radius, radius, subject=radius > 1.0)
    for _ in range(bushes):
        half = tuple(float(v) for v in plan.rng.uniform([0.4, 0.3, 0.4], [1.2, 0.9, 1.2]))
        if plan.rng.random() < 0.3:
            half = (float(plan.rng.uniform(2.0, 5.0)), half[1], 0.5)
        if (where := plan.spot(3.0, far, max(half[0], half[2]))) is not None:
            towns_plants.bush(
                plan.at(*where, plan.rng.uniform(0, 6.3)), plan.rng, plan.plants, (half[0], half[1], half[2])
            )
            plan.take(*where, max(half[0], half[2]), 2 * half[1])


def _path(plan: TownPlan, material: Material, wide: Number, turn: Number, bend: Number) -> np.ndarray:
    """Add a curved path through the center; returns its points."""
    s = np.linspace(-70.0, 70.0, 60)
    sway = bend * np.sin(s / 17.0)
    line = np.stack([s * math.sin(turn) + sway * math.cos(turn), s * math.cos(turn) - sway * math.sin(turn)], -1)
    drape(plan.site, plan.land, line, wide, material, 0.05)
    return line


def _square(plan: TownPlan) -> None:
    rng = plan.rng
    hero = [towns_props.monument, tower, church, pagoda][int(rng.integers(4))]
    if hero is towns_props.monument:
        towns_props.monument(plan.at(0.0, 0.0, rng.uniform(0, 6)), rng, plan.stone)
        plan.take(0.0, 0.0, 2.8, 6.0, subject=True)
    else:
        _raise_building(plan, hero, 0.0, 0.0, rng.uniform(0, 6.3), 5.0, 16.0, subject=True)
    near = plan.taken[0].radius + rng.uniform(16.0, 26.0)
    _ring(
        plan,
        [house, block, block, hall],
        int(rng.integers(8, 15)),
        near,
        near + 8.0,
        7.0,
    )
    _ring(plan, [block, tower], 14, near + 24.0, near + 45.0, 9.0)
    far = near - 4.0
    drape(
        plan.site,
        plan.land,
        np.array([[0.0, -near - 6.0], [0.0, near + 6.0]]),
        2 * near + 12.0,
        plan.stone.paving,
        0.05,
    )
    _sprinkle(plan, towns_props.lamp, int(rng.integers(3, 9)), 4.0, far, 0.3, 4.0, 0.1)
    _sprinkle(plan, towns_props.person, int(rng.integers(3, 16)), 3.0, far, 0.4, 1.7, 0.4)
    _sprinkle(plan, towns_props.bench, int(rng.integers(1, 5)), 4.0, far, 0.9, 0.8, 0.3)
    _sprinkle(plan, towns_props.stall, int(rng.integers(0, 6)), 5.0, far, 1.8, 2.5, 0.5)
    _sprinkle(plan, towns_props.sign, int(rng.integers(0, 5)), 4.0, far, 0.3, 2.0, 0.0)
    _sprinkle(plan, towns_props.car, int(rng.integers(0, 5)), 8.0, far, 2.4, 1.5, 0.3)
    _trees(plan, int(rng.integers(2, 10)), 5.0, far, 0.3)


def _street(plan: TownPlan) -> None:
    rng = plan.rng
    wide, setback = rng.uniform(5.0, 9.0), rng.uniform(2.0, 7.0)
    drape(plan.site, plan.land, np.array([[0.0, -110.0], [0.0, 110.0]]), wide + 4.0, plan.stone.paving, 0.05)
    road = plan.path_material(["asphalt", "asphalt", "gravel"])
    drape(plan.site, plan.land, np.array([[0.0, -110.0], [0.0, 110.0]]), wide, road, 0.09)
    makers: list[_Builder] = [house, house, block]
    for side in (-1.0, 1.0):
        z = -70.0
        while z < 70.0:
            make = makers[int(rng.integers(3))]
            x = side * (wide / 2 + 2.0 + setback + 5.0)
            _raise_building(plan, make, x, z, side * math.pi / 2, 6.0, 9.0, subject=abs(z) < 35.0)
            z += plan.taken[-1].radius * rng.uniform(1.3, 2.2) + 5.0
    if rng.random() < 0.6:
        end = [church, tower, pagoda][int(rng.integers(3))]
        _raise_building(plan, end, 0.0, rng.uniform(45.0, 80.0), 0.0, 6.0, 18.0, subject=True)
    for z in np.arange(-48.0, 48.0, rng.uniform(6.0, 10.0)):
        for side in (-1.0, 1.0):
            x = side * (wide / 2 - 1.1)
            if rng.random() < 0.35:
                towns_props.car(plan.at(x, z, side * math.pi / 2 + 0.03 * rng.normal(), -0.09), rng, plan.stone)
                plan.take(x, z, 2.2, 1.5, subject=rng.random() < 0.3)
            x = side * (wide / 2 + 1.3)
            choice = rng.random()
            if choice < 0.3:
                towns_props.lamp(plan.at(x, z + 3.0, -side * math.pi / 2 + math.pi / 2), rng, plan.stone)
                plan.take(x, z + 3.0, 0.3, 4.0)
            elif choice < 0.6:
                height = rng.uniform(4.0, 9.0)
                towns_plants.tree(plan.at(x, z + 3.0, 0.0), rng, plan.plants, height)
                plan.take(x, z + 3.0, 0.5, height, subject=rng.random() < 0.3)
            elif choice < 0.8:
                towns_props.person(plan.at(x, z + 3.0, rng.uniform(0, 6)), rng, plan.stone)
                plan.take(x, z + 3.0, 0.4, 1.7, subject=True)
    _rocks_and_bushes(plan, 0, 12, 35.0)


def _temple(plan: TownPlan) -> None:
    rng = plan.rng
    hero: _Builder = pagoda if rng.random() < 0.6 else hall
    _raise_building(plan, hero, 0.0, 0.0, rng.uniform(-0.3, 0.3), 7.0, 18.0, subject=True)
    plan.subjects *= 4
    for _ in range(int(rng.integers(0, 14))):
        height = float(rng.uniform(2.5, 8.0))
        if (where := plan.spot(plan.taken[0].radius + 2.0, plan.taken[0].radius + 9.0, 1.2)) is not None:
            towns_plants.tree(plan.at(*where, 0.0), rng, plan.plants, height)
            plan.take(*where, 0.5, height)
    _path(plan, plan.stone.paving, rng.uniform(2.0, 5.0), 0.0, 0.0)
    _ring(plan, [hall, pagoda, house], 4, 28.0, 45.0, 9.0)
    if rng.random() < 0.6:
        for x in (-24.0, 24.0):
            for z in (-22.0, 4.0):
                rampart(plan.at(x, z + 18.0, math.pi / 2, 0.5), rng, plan.stone, 18.0)
    _garden(plan)


def _garden(plan: TownPlan) -> None:
    rng = plan.rng
    _sprinkle(plan, towns_props.lamp, int(rng.integers(1, 6)), 9.0, 26.0, 0.3, 4.0, 0.1)
    _sprinkle(plan, towns_props.person, int(rng.integers(0, 8)), 9.0, 26.0, 0.4, 1.7, 0.4)
    _sprinkle(plan, towns_props.monument, int(rng.integers(0, 2)), 12.0, 26.0, 2.8, 6.0, 1.0)
    _sprinkle(plan, towns_props.bench, int(rng.integers(0, 4)), 9.0, 26.0, 0.9, 0.8, 0.2)
    _trees(plan, int(rng.integers(8, 26)), 10.0, 45.0, 0.15)
    _rocks_and_bushes(plan, int(rng.integers(2, 10)), int(rng.integers(4, 16)), 30.0)
    for _ in range(int(rng.integers(0, 5))):
        if (where := plan.spot(9.0, 26.0, 2.0)) is not None:
            towns_plants.meadow(plan.at(*where, 0.0), rng, plan.plants, plan.land, 160, 2.2, 0.5)


def _countryside(plan: TownPlan) -> None:
    rng = plan.rng
    _path(
        plan,
        plan.path_material(["soil", "gravel", "asphalt"]),
        rng.uniform(1.5, 4.5),
        rng.uniform(0, 3),
        rng.uniform(0, 6),
    )
    makers: list[_Builder] = [house, house, church, tower]
    for _ in range(int(rng.integers(2, 7))):
        if (where := plan.spot(6.0, 55.0, 8.0)) is not None:
            _raise_building(plan, makers[int(rng.integers(4))], *where, rng.uniform(0, 6.3), 5.0, 8.0, subject=True)
    for _ in range(int(rng.integers(2, 6))):
        if (where := plan.spot(4.0, 30.0, 5.0)) is not None:
            yaw = rng.uniform(0, 6.3)
            for k in range(int(rng.integers(2, 7))):
                x, z = where[0] + 3.0 * k * math.cos(yaw), where[1] - 3.0 * k * math.sin(yaw)
                towns_props.fence(plan.at(x, z, yaw), np.random.default_rng(int(1e4 * abs(where[0]))), plan.stone, 3.0)
                plan.take(x, z, 1.2, 1.2, subject=k == 1)
    _sprinkle(plan, towns_props.crates, int(rng.integers(0, 5)), 3.0, 25.0, 1.2, 0.8, 0.4)
    _sprinkle(plan, towns_props.person, int(rng.integers(0, 5)), 3.0, 25.0, 0.4, 1.7, 0.6)
    _trees(plan, int(rng.integers(10, 35)), 6.0, 70.0, 0.25)
    _rocks_and_bushes(plan, int(rng.integers(0, 12)), int(rng.integers(2, 14)), 35.0)
    towns_plants.meadow(plan.at(0.0, 0.0, 0.0), rng, plan.plants, plan.land, int(rng.integers(100, 1200)), 28.0, 0.45)


def _river(plan: TownPlan) -> None:
    rng, land = plan.rng, plan.land
    assert land.river is not None
    z = rng.uniform(-6.0, 6.0)
    middle, half = float(np.interp(z, land.axis, land.river_course)), 1.6 * land.river[0]
    bridge(
        plan.site.moved(middle - half - 2.0, float(land.up(middle - half, z)) - 0.6, z), rng, plan.stone, 2 * half + 4.0
    )
    plan.subjects += [Subject(middle, z, 3.0, 5.0)] * 3
    plan.taken.append(Subject(middle, z, 2.5, 5.0))
    _ring(plan, [house, tower, church, pagoda], 7, half + 10.0, half + 30.0, 8.0)
    for _ in range(int(rng.integers(4, 20))):
        at, radius = rng.uniform(-35.0, 35.0), rng.uniform(0.3, 1.3)
        x = (
            float(np.interp(at, land.axis, land.river_course))
            + rng.choice([-1.0, 1.0]) * rng.uniform(0.6, 1.4) * land.river[0]
        )
        towns_plants.rock(plan.at(x, at, 0.0), rng, plan.plants, radius)
        plan.take(x, at, radius, radius, subject=rng.random() < 0.3)
    _garden(plan)


def _forest(plan: TownPlan) -> None:
    rng = plan.rng
    _path(plan, plan.path_material(["soil", "gravel"]), rng.uniform(1.2, 2.5), rng.uniform(0, 3), 4.0)
    _trees(plan, int(rng.integers(60, 110)), 3.0, 55.0, 0.3)
    _rocks_and_bushes(plan, int(rng.integers(6, 30)), int(rng.integers(8, 26)), 25.0)
    towns_plants.meadow(plan.at(0.0, 0.0, 0.0), rng, plan.plants, plan.land, int(rng.integers(300, 1500)), 22.0, 0.4)
    if rng.random() < 0.5 and (where := plan.spot(8.0, 22.0, 6.0)) is not None:
        _raise_building(plan, house, *where, rng.uniform(0, 6.3), 5.0, 7.0, subject=True)
    _sprinkle(plan, towns_props.person, int(rng.integers(0, 4)), 3.0, 15.0, 0.4, 1.7, 0.8)


def _castle(plan: TownPlan) -> None:
    rng = plan.rng
    _raise_building(plan, tower, rng.uniform(-4, 4), rng.uniform(-4, 4), rng.uniform(0, 6), 4.0, 20.0, subject=True)
    corners, reach = int(rng.integers(4, 7)), rng.uniform(16.0, 24.0)
    for k in range(corners):
        if rng.random() < 0.8:
            turn = 2 * math.pi * k / corners
            length = 2 * reach * math.sin(math.pi / corners)
            x, z = reach * math.sin(turn), reach * math.cos(turn)
            nx, nz = reach * math.sin(turn + 2 * math.pi / corners), reach * math.cos(turn + 2 * math.pi / corners)
            low = min(
                float(plan.land.up(x, z)), float(plan.land.up(nx, nz)), float(plan.land.up((x + nx) / 2, (z + nz) / 2))
            )
            rampart(plan.site.moved(x, low, z, math.atan2(-(nz - z), nx - x)), rng, plan.stone, length)
            plan.take(x, z, 3.0, 9.0, subject=True)
            for share in np.linspace(0.1, 0.9, 7):
                plan.take(x + share * (nx - x), z + share * (nz - z), 1.2, 6.0)
    _ring(plan, [house, hall, church], 7, 30.0, 50.0, 8.0)
    _sprinkle(plan, towns_props.crates, 4, 3.0, 20.0, 1.2, 0.8, 0.3)
    _garden(plan)


def add_surroundings(plan: TownPlan) -> None:
    """Add distant trees and houses, so that the horizon is not empty."""
    rng = plan.rng
    for _ in range(int(rng.integers(15, 60))):
        turn, reach = rng.uniform(0, 2 * math.pi), rng.uniform(60.0, 180.0)
        x, z = reach * math.sin(turn), reach * math.cos(turn)
        if plan.free(x, z, 3.0):
            towns_plants.tree(plan.at(x, z, 0.0), rng, plan.plants, rng.uniform(6.0, 18.0))
    for _ in range(int(rng.integers(0, 12))):
        if (where := plan.spot(60.0, 160.0, 9.0)) is not None:
            make = [house, block, church, tower][int(rng.integers(4))]
            _raise_building(plan, make, *where, rng.uniform(0, 6.3), 6.0, 10.0, subject=False)


LAYOUTS: dict[str, Callable[[TownPlan], None]] = {
    "square": _square, "street": _street, "temple": _temple, "countryside": _countryside, "river": _river,
    "forest": _forest, "castle": _castle,
}  # fmt: skip
