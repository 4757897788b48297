"""Generates towns and countryside from a seed; meters. All upright objects stand on the ground."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from scenes.synthetic.rooms.furniture import LICENSES
from scenes.synthetic.towns.layouts import LAYOUTS, Subject, TownPlan, add_surroundings
from scenes.synthetic.towns.masonry import building_materials
from scenes.synthetic.towns.plants import Plants, plant_materials
from scenes.synthetic.towns.props import Catalogue
from scenes.synthetic.towns.solids import Material, Site
from scenes.synthetic.towns.terrain import Land, ground_material, lay_land, lay_water, make_land
from scenes.synthetic.towns.textures import clouded_sky, water
from scenes.synthetic.triangle_scene import Lighting, Sky, TexturedWorld, WorldBuilder, as_rgb

SOURCE = "towns"


HELD_OUT_SEEDS = tuple(range(9000, 9012))


# Temples most: tracks and rooms have few tall upright objects against the sky, and a depth network trained on them
# bent a photographed pagoda.
KINDS = {
    "square": 0.14, "street": 0.15, "temple": 0.27, "countryside": 0.14, "river": 0.12, "forest": 0.08, "castle": 0.1,
}  # fmt: skip
"""Layouts and their probabilities."""


@dataclass(frozen=True)
class Town:
    """A generated town: triangles, lighting, land, occupied circles and subjects."""

    world: TexturedWorld
    lighting: Lighting
    land: Land
    taken: list[Subject]
    subjects: list[Subject]
    kind: str
    license: str

    def standpoint(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw a camera position and a point to look at, in the world (y down).

        Mostly at eye height, at a distance by the height of the subject; some near the ground, some elevated.
        """
        share = np.array([s.height for s in self.subjects]) ** 0.7
        tries = 0
        while True:
            subject = self.subjects[int(rng.choice(len(self.subjects), p=share / share.sum()))]
            near, far = max(0.35 * subject.height, 1.5), min(max(2.4 * subject.height, 5.0), 36.0)
            reach, turn = subject.radius + rng.uniform(near, far), rng.uniform(0, 2 * math.pi)
            x, z = subject.x + reach * math.sin(turn), subject.z + reach * math.cos(turn)
            tries += 1
            standpoint_tries = 60
            # Dense towns may have no free position; `film_clip` checks the path for collisions anyway.
            if tries == standpoint_tries or all(math.hypot(x - t.x, z - t.z) > t.radius + 0.4 for t in self.taken):
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
    """Builds towns; an asset folder that is None or empty is replaced by procedural textures.

    Args:
        surfaces: folder of tileable textures.
        tracks: the ``torcs`` folder, for images of trees.
        furniture: unpacked furniture catalogues, for outdoor models.
    """

    def __init__(self, surfaces: Path | None, tracks: Path | None, furniture: Path | None) -> None:
        self._surfaces, self._tracks = surfaces, tracks
        self._catalogue = Catalogue(furniture)

    def build(self, seed: int) -> Town:
        """The town of a seed; the same seed gives the same arrays."""
        rng = np.random.default_rng([78, seed])  # 78: a stream of its own beside rooms (77) and still lifes (79)
        kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
        builder = WorldBuilder()
        site = Site(builder, np.zeros(3))
        urban = kind in ("square", "street")
        relief = rng.uniform(0.0, 0.8) if urban else rng.uniform(1.0, 7.0)
        river, lake = kind == "river" or (not urban and rng.random() < 0.2), not urban and rng.random() < 0.3
        land = make_land(
            rng, relief, float(rng.choice([rng.uniform(5, 30), rng.uniform(30, 110)])), river=river, lake=lake,
            level_radius=30.0 if urban else rng.uniform(4.0, 14.0),
        )  # fmt: skip
        stone = building_materials(builder, self._surfaces, rng)
        plants = plant_materials(builder, self._surfaces, self._tracks, rng)
        plan = TownPlan(site, land, stone, plants, rng, self._surfaces)
        cover = {"forest": ["grass", "soil"], "castle": ["grass", "grass", "grass", "sand"]}.get(
            kind, ["grass"] * 6 + ["soil", "gravel", "sand", "snow"]
        )
        ground = ground_material(builder, self._surfaces, rng, str(rng.choice(cover)))
        lay_land(site, land, ground, rng)
        LAYOUTS[kind](plan)
        add_surroundings(plan)
        catalogues = self._catalogue_pieces(plan)
        lighting, sky, sky_rgb = daylight(rng)
        if river or lake:
            picture = builder.add_texture(water(rng, sky_rgb))
            meters = float(rng.uniform(4.0, 9.0))
            lay_water(site, land, Material(picture, (meters, meters)))
        return Town(
            builder.build(sky),
            lighting,
            land,
            plan.taken,
            plan.subjects or plan.taken,
            kind,
            self._license(plants, catalogues),
        )

    def _license(self, plants: Plants, catalogues: set[str]) -> str:
        """Licenses of the textures and models of a town."""
        parts = sorted({LICENSES[c] for c in catalogues})
        parts += ["surface textures Apache-2.0"] if self._surfaces is not None else []
        tracks = ", ".join(plants.billboard_tracks)
        parts += [f"tree pictures Free Art License 1.3 (TORCS tracks {tracks})"] if tracks else []
        return "; ".join(parts) or "drawn by this project"

    def _catalogue_pieces(self, plan: TownPlan) -> set[str]:
        """Add some catalogue models; returns the catalogues that they come from."""
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


def daylight(rng: np.random.Generator, *, overcast: bool = True) -> tuple[Lighting, Sky, Float[np.ndarray, "3"]]:
    """Draw consistent sun, sky and haze; returns them with the sky's mean color; gray skies only if ``overcast``."""
    azimuth, elevation = rng.uniform(0, 2 * math.pi), math.radians(rng.uniform(8.0, 68.0))
    clear = float(np.clip(rng.uniform(-0.3 if overcast else 0.5, 1.2), 0.0, 1.0))
    warm = float(np.clip(1.0 - math.degrees(elevation) / 28.0, 0.0, 1.0)) * rng.uniform(0.3, 1.0)
    direction = (
        math.cos(elevation) * math.sin(azimuth), -math.sin(elevation), math.cos(elevation) * math.cos(azimuth),
    )  # fmt: skip
    sky = clouded_sky(rng, direction, clear, warm)
    height = sky.panorama.shape[0]
    mean = (sky.panorama[: height // 2].mean((0, 1)) / 255.0) ** 2.2
    # Light reflected by the ground and by haze makes shadows less blue than the sky.
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
        haze_per_meter=float(np.exp(rng.uniform(math.log(1 / 4000), math.log(1 / 250)))),
    )
    return lighting, sky, mean ** (1 / 2.2)
