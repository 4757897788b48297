"""Procedural towns and countryside: a different one for every seed, metres. Everything upright stands on the ground."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from scenes import towns_buildings as buildings
from scenes import towns_nature as nature
from scenes import towns_props as props
from scenes.rooms_furniture import LICENCES
from scenes.textured import Lighting, TexturedWorld, WorldBuilder, as_rgb
from scenes.towns_nature import Land, Plants
from scenes.towns_pictures import clouded_sky, water
from scenes.towns_site import Material, Number, Site

SOURCE = "towns"
HELD_OUT_SEEDS = tuple(range(9000, 9012))
KINDS = {
    "square": 0.14, "street": 0.15, "temple": 0.27, "countryside": 0.14, "river": 0.12, "forest": 0.08, "castle": 0.1,
}  # fmt: skip
"""Layouts and their shares."""

_Builder = Callable[[Site, np.random.Generator, buildings.Masonry], float]


@dataclass(frozen=True)
class Subject:
    """Something worth a photograph: where it stands, its radius on the ground and its height, metres."""

    x: Number
    z: Number
    radius: Number
    height: Number


@dataclass
class _Plan:
    """A town while it is built."""

    site: Site
    land: Land
    stone: buildings.Masonry
    plants: Plants
    rng: np.random.Generator
    taken: list[Subject] = field(default_factory=list)
    subjects: list[Subject] = field(default_factory=list)

    def free(self, x: Number, z: Number, radius: Number) -> bool:
        """Whether nothing stands within the circle, the river included."""
        if self.land.wet(x, z, radius):
            return False
        return all(math.hypot(x - t.x, z - t.z) > radius + t.radius for t in self.taken)

    def at(self, x: Number, z: Number, yaw: Number, sink: Number = 0.0) -> Site:
        """A frame on the ground."""
        return self.site.moved(x, float(self.land.up(x, z)) - sink, z, yaw)

    def take(self, x: Number, z: Number, radius: Number, height: Number, *, subject: bool = False) -> None:
        """Reserve a circle of ground."""
        self.taken.append(Subject(x, z, radius, height))
        if subject:
            self.subjects.append(self.taken[-1])

    def spot(self, near: Number, far: Number, radius: Number, tries: int = 30) -> tuple[float, float] | None:
        """A free place between two distances from the middle."""
        for _ in range(tries):
            turn, reach = self.rng.uniform(0, 2 * math.pi), self.rng.uniform(near, far)
            x, z = reach * math.sin(turn), reach * math.cos(turn)
            if self.free(x, z, radius):
                return x, z
        return None


@dataclass(frozen=True)
class Town:
    """A built town: its world, its light, and where photographers stand and look."""

    world: TexturedWorld
    lighting: Lighting
    land: Land
    taken: list[Subject]
    subjects: list[Subject]
    kind: str
    licence: str

    def standpoint(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """A camera position and the point it looks at, in the world (y down).

        Mostly at eye height with a subject 3 to 30 m away; some near the ground, some on a balcony or a slope.
        """
        share = np.array([s.height for s in self.subjects]) ** 0.7
        for _ in range(60):
            subject = self.subjects[int(rng.choice(len(self.subjects), p=share / share.sum()))]
            near, far = max(0.35 * subject.height, 1.5), min(max(2.4 * subject.height, 5.0), 36.0)
            reach, turn = subject.radius + rng.uniform(near, far), rng.uniform(0, 2 * math.pi)
            x, z = subject.x + reach * math.sin(turn), subject.z + reach * math.cos(turn)
            if all(math.hypot(x - t.x, z - t.z) > t.radius + 0.4 for t in self.taken):
                break
        heights = [
            rng.uniform(1.4, 1.8),
            rng.uniform(0.35, 0.9),
            min(rng.uniform(2.5, 12.0), 0.8 * subject.height + 1.5),
        ]
        eye = float(rng.choice(heights, p=[0.65, 0.12, 0.23]))
        ground = max(float(self.land.up(x, z)), self.land.water_up)
        aim = float(self.land.up(subject.x, subject.z)) + rng.uniform(0.25, 0.6) * min(subject.height, 0.9 * reach)
        side = 0.25 * reach * rng.normal()
        target = [subject.x + side * math.cos(turn), -aim, subject.z - side * math.sin(turn)]
        return np.array([x, -ground - eye, z]), np.array(target)


class TownFactory:
    """Builds towns; whichever asset folder is None or empty is replaced by drawn pictures.

    Args:
        surfaces: folder of tileable pictures.
        tracks: the ``torcs`` folder, for photographed trees.
        furniture: unpacked furniture catalogues, for outdoor models.
    """

    def __init__(self, surfaces: Path | None, tracks: Path | None, furniture: Path | None) -> None:
        self._surfaces, self._tracks = surfaces, tracks
        self._catalogue = props.Catalogue(furniture)

    def build(self, seed: int) -> Town:
        """The town of a seed; the same arrays every time."""
        rng = np.random.default_rng([78, seed])
        kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
        builder = WorldBuilder()
        site = Site(builder, np.zeros(3))
        urban = kind in ("square", "street")
        relief = rng.uniform(0.0, 0.8) if urban else rng.uniform(1.0, 7.0)
        river, lake = kind == "river" or (not urban and rng.random() < 0.2), not urban and rng.random() < 0.3
        land = nature.make_land(
            rng, relief, float(rng.choice([rng.uniform(5, 30), rng.uniform(30, 110)])), river=river, lake=lake,
            level_radius=30.0 if urban else rng.uniform(4.0, 14.0),
        )  # fmt: skip
        stone = buildings.quarry(builder, self._surfaces, rng)
        plants = nature.nursery(builder, self._surfaces, self._tracks, rng)
        plan = _Plan(site, land, stone, plants, rng)
        cover = {"forest": ["grass", "soil"], "castle": ["grass", "grass", "grass", "sand"]}.get(
            kind, ["grass"] * 6 + ["soil", "gravel", "sand", "snow"]
        )
        ground = nature.ground_material(builder, self._surfaces, rng, str(rng.choice(cover)))
        nature.lay_land(site, land, ground, rng)
        _LAYOUTS[kind](plan, self)
        _surroundings(plan)
        catalogues = self._catalogue_pieces(plan)
        lighting, sky, sky_rgb = _weather(rng)
        if river or lake:
            picture = builder.add_texture(water(rng, sky_rgb))
            nature.lay_water(site, land, Material(picture, (float(rng.uniform(4.0, 9.0)),) * 2))
        return Town(
            builder.build(sky),
            lighting,
            land,
            plan.taken,
            plan.subjects or plan.taken,
            kind,
            self._licence(plants, catalogues),
        )

    def _licence(self, plants: Plants, catalogues: set[str]) -> str:
        """Licences of what the town shows."""
        parts = sorted({LICENCES[c] for c in catalogues})
        parts += ["surface textures Apache-2.0"] if self._surfaces is not None else []
        tracks = ", ".join(plants.billboard_tracks)
        parts += [f"tree pictures Free Art License 1.3 (TORCS tracks {tracks})"] if tracks else []
        return "; ".join(parts) or "drawn by this project"

    def _catalogue_pieces(self, plan: _Plan) -> set[str]:
        """Put some catalogue models down and return the catalogues that they come from."""
        used: set[str] = set()
        if not self._catalogue.items:
            return used
        for _ in range(int(plan.rng.integers(3, 9))):
            item = self._catalogue.items[int(plan.rng.integers(len(self._catalogue.items)))]
            radius = 0.5 * math.hypot(item.size[0], item.size[2])
            if radius > 4.0 or (where := plan.spot(3.0, 26.0, radius + 0.2)) is None:
                continue
            self._catalogue.place(plan.at(*where, plan.rng.uniform(0, 6.3), 0.02), item, plan.rng)
            plan.take(*where, radius, item.size[1], subject=plan.rng.random() < 0.3)
            used.add(item.catalogue)
        return used

    def path_material(self, plan: _Plan, kinds: list[str]) -> Material:
        """What a path is made of."""
        return nature.ground_material(plan.site.builder, self._surfaces, plan.rng, str(plan.rng.choice(kinds)))


def _raise_building(
    plan: _Plan, make: _Builder, x: Number, z: Number, yaw: Number, room: Number, height: Number, *, subject: bool
) -> None:
    """Put a building down on ground that may slope: its lowest corner decides."""
    around = [float(plan.land.up(x + room * math.sin(w), z + room * math.cos(w))) for w in np.arange(0.0, 6.2, 0.8)]
    base = min(max(min(around), float(plan.land.up(x, z)) - 1.2), float(plan.land.up(x, z)))
    radius = make(plan.site.moved(x, base, z, yaw), plan.rng, plan.stone)
    plan.take(x, z, radius, height, subject=subject)


def _ring(plan: _Plan, makers: list[_Builder], count: int, near: Number, far: Number, room: Number) -> None:
    """Buildings around the middle that look at it."""
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
    plan: _Plan, make, count: int, near: Number, far: Number, radius: Number, height: Number, share: Number
) -> None:
    """Props at free places; a share of them are subjects."""
    for _ in range(count):
        if (where := plan.spot(near, far, radius)) is not None:
            make(plan.at(*where, plan.rng.uniform(0, 2 * math.pi)), plan.rng, plan.stone)
            plan.take(*where, radius, height, subject=plan.rng.random() < share)


def _trees(plan: _Plan, count: int, near: Number, far: Number, share: Number) -> None:
    for _ in range(count):
        height = float(plan.rng.uniform(3.5, 14.0))
        if (where := plan.spot(near, far, 0.12 * height)) is not None:
            nature.tree(plan.at(*where, plan.rng.uniform(0, 6.3)), plan.rng, plan.plants, height)
            plan.take(*where, 0.08 * height, height, subject=plan.rng.random() < share)


def _rocks_and_bushes(plan: _Plan, rocks: int, bushes: int, far: Number) -> None:
    for _ in range(rocks):
        radius = float(np.exp(plan.rng.uniform(math.log(0.2), math.log(1.8))))
        if (where := plan.spot(2.0, far, radius)) is not None:
            nature.rock(plan.at(*where, 0.0), plan.rng, plan.plants, radius)
            plan.take(*where, radius, radius, subject=radius > 1.0)
    for _ in range(bushes):
        half = tuple(float(v) for v in plan.rng.uniform([0.4, 0.3, 0.4], [1.2, 0.9, 1.2]))
        if plan.rng.random() < 0.3:
            half = (float(plan.rng.uniform(2.0, 5.0)), half[1], 0.5)
        if (where := plan.spot(3.0, far, max(half[0], half[2]))) is not None:
            nature.bush(plan.at(*where, plan.rng.uniform(0, 6.3)), plan.rng, plan.plants, (half[0], half[1], half[2]))
            plan.take(*where, max(half[0], half[2]), 2 * half[1])


def _path(plan: _Plan, material: Material, wide: Number, turn: Number, bend: Number) -> np.ndarray:
    """A bent path through the middle, reserved so that nothing is built on it; returns its points."""
    s = np.linspace(-70.0, 70.0, 60)
    sway = bend * np.sin(s / 17.0)
    line = np.stack([s * math.sin(turn) + sway * math.cos(turn), s * math.cos(turn) - sway * math.sin(turn)], -1)
    nature.drape(plan.site, plan.land, line, wide, material, 0.05)
    return line


def _square(plan: _Plan, _factory: TownFactory) -> None:
    rng = plan.rng
    hero = [props.monument, buildings.tower, buildings.church, buildings.pagoda][int(rng.integers(4))]
    if hero is props.monument:
        props.monument(plan.at(0.0, 0.0, rng.uniform(0, 6)), rng, plan.stone)
        plan.take(0.0, 0.0, 2.8, 6.0, subject=True)
    else:
        _raise_building(plan, hero, 0.0, 0.0, rng.uniform(0, 6.3), 5.0, 16.0, subject=True)
    near = plan.taken[0].radius + rng.uniform(16.0, 26.0)
    _ring(
        plan,
        [buildings.house, buildings.block, buildings.block, buildings.hall],
        int(rng.integers(8, 15)),
        near,
        near + 8.0,
        7.0,
    )
    _ring(plan, [buildings.block, buildings.tower], 14, near + 24.0, near + 45.0, 9.0)
    far = near - 4.0
    nature.drape(
        plan.site,
        plan.land,
        np.array([[0.0, -near - 6.0], [0.0, near + 6.0]]),
        2 * near + 12.0,
        plan.stone.paving,
        0.05,
    )
    _sprinkle(plan, props.lamp, int(rng.integers(3, 9)), 4.0, far, 0.3, 4.0, 0.1)
    _sprinkle(plan, props.person, int(rng.integers(3, 16)), 3.0, far, 0.4, 1.7, 0.4)
    _sprinkle(plan, props.bench, int(rng.integers(1, 5)), 4.0, far, 0.9, 0.8, 0.3)
    _sprinkle(plan, props.stall, int(rng.integers(0, 6)), 5.0, far, 1.8, 2.5, 0.5)
    _sprinkle(plan, props.sign, int(rng.integers(0, 5)), 4.0, far, 0.3, 2.0, 0.0)
    _sprinkle(plan, props.car, int(rng.integers(0, 5)), 8.0, far, 2.4, 1.5, 0.3)
    _trees(plan, int(rng.integers(2, 10)), 5.0, far, 0.3)


def _street(plan: _Plan, factory: TownFactory) -> None:
    rng = plan.rng
    wide, setback = rng.uniform(5.0, 9.0), rng.uniform(2.0, 7.0)
    nature.drape(plan.site, plan.land, np.array([[0.0, -110.0], [0.0, 110.0]]), wide + 4.0, plan.stone.paving, 0.05)
    road = factory.path_material(plan, ["asphalt", "asphalt", "gravel"])
    nature.drape(plan.site, plan.land, np.array([[0.0, -110.0], [0.0, 110.0]]), wide, road, 0.09)
    makers: list[_Builder] = [buildings.house, buildings.house, buildings.block]
    for side in (-1.0, 1.0):
        z = -70.0
        while z < 70.0:
            make = makers[int(rng.integers(3))]
            x = side * (wide / 2 + 2.0 + setback + 5.0)
            _raise_building(plan, make, x, z, side * math.pi / 2, 6.0, 9.0, subject=abs(z) < 35.0)
            z += plan.taken[-1].radius * rng.uniform(1.3, 2.2) + 5.0
    if rng.random() < 0.6:
        end = [buildings.church, buildings.tower, buildings.pagoda][int(rng.integers(3))]
        _raise_building(plan, end, 0.0, rng.uniform(45.0, 80.0), 0.0, 6.0, 18.0, subject=True)
    for z in np.arange(-48.0, 48.0, rng.uniform(6.0, 10.0)):
        for side in (-1.0, 1.0):
            x = side * (wide / 2 - 1.1)
            if rng.random() < 0.35:
                props.car(plan.at(x, z, side * math.pi / 2 + 0.03 * rng.normal(), -0.09), rng, plan.stone)
                plan.take(x, z, 2.2, 1.5, subject=rng.random() < 0.3)
            x = side * (wide / 2 + 1.3)
            choice = rng.random()
            if choice < 0.3:
                props.lamp(plan.at(x, z + 3.0, -side * math.pi / 2 + math.pi / 2), rng, plan.stone)
                plan.take(x, z + 3.0, 0.3, 4.0)
            elif choice < 0.6:
                height = rng.uniform(4.0, 9.0)
                nature.tree(plan.at(x, z + 3.0, 0.0), rng, plan.plants, height)
                plan.take(x, z + 3.0, 0.5, height, subject=rng.random() < 0.3)
            elif choice < 0.8:
                props.person(plan.at(x, z + 3.0, rng.uniform(0, 6)), rng, plan.stone)
                plan.take(x, z + 3.0, 0.4, 1.7, subject=True)
    _rocks_and_bushes(plan, 0, 12, 35.0)


def _temple(plan: _Plan, _factory: TownFactory) -> None:
    rng = plan.rng
    hero: _Builder = buildings.pagoda if rng.random() < 0.6 else buildings.hall
    _raise_building(plan, hero, 0.0, 0.0, rng.uniform(-0.3, 0.3), 7.0, 18.0, subject=True)
    plan.subjects *= 4
    for _ in range(int(rng.integers(0, 14))):
        height = float(rng.uniform(2.5, 8.0))
        if (where := plan.spot(plan.taken[0].radius + 2.0, plan.taken[0].radius + 9.0, 1.2)) is not None:
            nature.tree(plan.at(*where, 0.0), rng, plan.plants, height)
            plan.take(*where, 0.5, height)
    _path(plan, plan.stone.paving, rng.uniform(2.0, 5.0), 0.0, 0.0)
    _ring(plan, [buildings.hall, buildings.pagoda, buildings.house], 4, 28.0, 45.0, 9.0)
    if rng.random() < 0.6:
        for x in (-24.0, 24.0):
            for z in (-22.0, 4.0):
                buildings.rampart(plan.at(x, z + 18.0, math.pi / 2, 0.5), rng, plan.stone, 18.0)
    _garden(plan)


def _garden(plan: _Plan) -> None:
    rng = plan.rng
    _sprinkle(plan, props.lamp, int(rng.integers(1, 6)), 9.0, 26.0, 0.3, 4.0, 0.1)
    _sprinkle(plan, props.person, int(rng.integers(0, 8)), 9.0, 26.0, 0.4, 1.7, 0.4)
    _sprinkle(plan, props.monument, int(rng.integers(0, 2)), 12.0, 26.0, 2.8, 6.0, 1.0)
    _sprinkle(plan, props.bench, int(rng.integers(0, 4)), 9.0, 26.0, 0.9, 0.8, 0.2)
    _trees(plan, int(rng.integers(8, 26)), 10.0, 45.0, 0.15)
    _rocks_and_bushes(plan, int(rng.integers(2, 10)), int(rng.integers(4, 16)), 30.0)
    for _ in range(int(rng.integers(0, 5))):
        if (where := plan.spot(9.0, 26.0, 2.0)) is not None:
            nature.meadow(plan.at(*where, 0.0), rng, plan.plants, plan.land, 160, 2.2, 0.5)


def _countryside(plan: _Plan, factory: TownFactory) -> None:
    rng = plan.rng
    _path(
        plan,
        factory.path_material(plan, ["soil", "gravel", "asphalt"]),
        rng.uniform(1.5, 4.5),
        rng.uniform(0, 3),
        rng.uniform(0, 6),
    )
    makers: list[_Builder] = [buildings.house, buildings.house, buildings.church, buildings.tower]
    for _ in range(int(rng.integers(2, 7))):
        if (where := plan.spot(6.0, 55.0, 8.0)) is not None:
            _raise_building(plan, makers[int(rng.integers(4))], *where, rng.uniform(0, 6.3), 5.0, 8.0, subject=True)
    for _ in range(int(rng.integers(2, 6))):
        if (where := plan.spot(4.0, 30.0, 5.0)) is not None:
            yaw = rng.uniform(0, 6.3)
            for k in range(int(rng.integers(2, 7))):
                x, z = where[0] + 3.0 * k * math.cos(yaw), where[1] - 3.0 * k * math.sin(yaw)
                props.fence(plan.at(x, z, yaw), np.random.default_rng(int(1e4 * abs(where[0]))), plan.stone, 3.0)
                plan.take(x, z, 1.2, 1.2, subject=k == 1)
    _sprinkle(plan, props.crates, int(rng.integers(0, 5)), 3.0, 25.0, 1.2, 0.8, 0.4)
    _sprinkle(plan, props.person, int(rng.integers(0, 5)), 3.0, 25.0, 0.4, 1.7, 0.6)
    _trees(plan, int(rng.integers(10, 35)), 6.0, 70.0, 0.25)
    _rocks_and_bushes(plan, int(rng.integers(0, 12)), int(rng.integers(2, 14)), 35.0)
    nature.meadow(plan.at(0.0, 0.0, 0.0), rng, plan.plants, plan.land, int(rng.integers(100, 1200)), 28.0, 0.45)


def _river(plan: _Plan, _factory: TownFactory) -> None:
    rng, land = plan.rng, plan.land
    assert land.river is not None
    z = rng.uniform(-6.0, 6.0)
    middle, half = float(np.interp(z, land.axis, land.river_course)), 1.6 * land.river[0]
    buildings.bridge(
        plan.site.moved(middle - half - 2.0, float(land.up(middle - half, z)) - 0.6, z), rng, plan.stone, 2 * half + 4.0
    )
    plan.subjects += [Subject(middle, z, 3.0, 5.0)] * 3
    plan.taken.append(Subject(middle, z, 2.5, 5.0))
    _ring(
        plan, [buildings.house, buildings.tower, buildings.church, buildings.pagoda], 7, half + 10.0, half + 30.0, 8.0
    )
    for _ in range(int(rng.integers(4, 20))):
        at, radius = rng.uniform(-35.0, 35.0), rng.uniform(0.3, 1.3)
        x = (
            float(np.interp(at, land.axis, land.river_course))
            + rng.choice([-1.0, 1.0]) * rng.uniform(0.6, 1.4) * land.river[0]
        )
        nature.rock(plan.at(x, at, 0.0), rng, plan.plants, radius)
        plan.take(x, at, radius, radius, subject=rng.random() < 0.3)
    _garden(plan)


def _forest(plan: _Plan, factory: TownFactory) -> None:
    rng = plan.rng
    _path(plan, factory.path_material(plan, ["soil", "gravel"]), rng.uniform(1.2, 2.5), rng.uniform(0, 3), 4.0)
    _trees(plan, int(rng.integers(60, 110)), 3.0, 55.0, 0.3)
    _rocks_and_bushes(plan, int(rng.integers(6, 30)), int(rng.integers(8, 26)), 25.0)
    nature.meadow(plan.at(0.0, 0.0, 0.0), rng, plan.plants, plan.land, int(rng.integers(300, 1500)), 22.0, 0.4)
    if rng.random() < 0.5 and (where := plan.spot(8.0, 22.0, 6.0)) is not None:
        _raise_building(plan, buildings.house, *where, rng.uniform(0, 6.3), 5.0, 7.0, subject=True)
    _sprinkle(plan, props.person, int(rng.integers(0, 4)), 3.0, 15.0, 0.4, 1.7, 0.8)


def _castle(plan: _Plan, _factory: TownFactory) -> None:
    rng = plan.rng
    _raise_building(
        plan, buildings.tower, rng.uniform(-4, 4), rng.uniform(-4, 4), rng.uniform(0, 6), 4.0, 20.0, subject=True
    )
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
            buildings.rampart(plan.site.moved(x, low, z, math.atan2(-(nz - z), nx - x)), rng, plan.stone, length)
            plan.take(x, z, 3.0, 9.0, subject=True)
            for share in np.linspace(0.1, 0.9, 7):
                plan.take(x + share * (nx - x), z + share * (nz - z), 1.2, 6.0)
    _ring(plan, [buildings.house, buildings.hall, buildings.church], 7, 30.0, 50.0, 8.0)
    _sprinkle(plan, props.crates, 4, 3.0, 20.0, 1.2, 0.8, 0.3)
    _garden(plan)


def _surroundings(plan: _Plan) -> None:
    """Trees and houses farther off, so that the land does not end in emptiness."""
    rng = plan.rng
    for _ in range(int(rng.integers(15, 60))):
        turn, reach = rng.uniform(0, 2 * math.pi), rng.uniform(60.0, 180.0)
        x, z = reach * math.sin(turn), reach * math.cos(turn)
        if plan.free(x, z, 3.0):
            nature.tree(plan.at(x, z, 0.0), rng, plan.plants, rng.uniform(6.0, 18.0))
    for _ in range(int(rng.integers(0, 12))):
        if (where := plan.spot(60.0, 160.0, 9.0)) is not None:
            make = [buildings.house, buildings.block, buildings.church, buildings.tower][int(rng.integers(4))]
            _raise_building(plan, make, *where, rng.uniform(0, 6.3), 6.0, 10.0, subject=False)


def _weather(rng: np.random.Generator):
    """Sun, sky and haze that belong together, and the sky's mean colour."""
    azimuth, elevation = rng.uniform(0, 2 * math.pi), math.radians(rng.uniform(8.0, 68.0))
    clear = float(np.clip(rng.uniform(-0.3, 1.2), 0.0, 1.0))
    warm = float(np.clip(1.0 - math.degrees(elevation) / 28.0, 0.0, 1.0)) * rng.uniform(0.3, 1.0)
    direction = (
        math.cos(elevation) * math.sin(azimuth), -math.sin(elevation), math.cos(elevation) * math.cos(azimuth),
    )  # fmt: skip
    sky = clouded_sky(rng, direction, clear, warm)
    height = sky.panorama.shape[0]
    mean = (sky.panorama[: height // 2].mean((0, 1)) / 255.0) ** 2.2
    # Light bounced from the ground and from haze makes shadows less blue than the sky.
    ambient = (0.5 + 0.5 * mean / mean.mean()) * (0.85 - 0.45 * clear)
    sun = 1.35 * clear * np.array([1.0, 0.95 - 0.3 * warm, 0.87 - 0.55 * warm])
    horizon = (sky.panorama[int(0.47 * height) : height // 2].mean((0, 1)) / 255.0) ** 2.2
    lighting = Lighting(
        sky_rgb=as_rgb(ambient),
        ground_rgb=as_rgb(0.35 * ambient * [1.0, 0.95, 0.85] + 0.12 * sun),
        sun_direction=direction,
        sun_rgb=as_rgb(sun),
        occlusion_rays=6,
        occlusion_reach=float(rng.uniform(2.0, 5.0)),
        haze_rgb=as_rgb(horizon),
        haze_per_metre=float(np.exp(rng.uniform(math.log(1 / 4000), math.log(1 / 250)))),
    )
    return lighting, sky, mean ** (1 / 2.2)


_LAYOUTS: dict[str, Callable[[_Plan, TownFactory], None]] = {
    "square": _square, "street": _street, "temple": _temple, "countryside": _countryside, "river": _river,
    "forest": _forest, "castle": _castle,
}  # fmt: skip
