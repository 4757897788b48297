"""Procedural towns: the same for a seed, upright things on the ground, sun shadows, free paths, plans. No assets."""

from __future__ import annotations

import functools
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scenes.dataset.clips import read_clip
from scenes.dataset.plans import CLIPS_PER_SCENE_VISIT, plan_clips, plan_town_clips
from scenes.dataset.render import render_data
from scenes.synthetic.camera_moves import MOVES, level_camera
from scenes.synthetic.filming import Stage, film_clip
from scenes.synthetic.raycast import View, WorldRenderer
from scenes.synthetic.towns import factory as towns
from scenes.synthetic.towns.buildings import arched_wall
from scenes.synthetic.towns.masonry import building_materials
from scenes.synthetic.towns.solids import Site, plain
from scenes.synthetic.towns.temples import pagoda
from scenes.synthetic.towns.terrain import make_land
from scenes.synthetic.towns.textures import clouded_sky, surface
from scenes.synthetic.triangle_scene import Lighting, WorldBuilder, gradient_sky

SKY = gradient_sky((0.3, 0.5, 0.9), (0.8, 0.85, 0.9))
SIZE = (36, 60)


def _kind_of(seed: int) -> str:
    rng = np.random.default_rng([78, seed])
    return str(rng.choice(list(towns.KINDS), p=list(towns.KINDS.values())))


@functools.cache
def _first_town(kind: str) -> tuple[int, towns.Town]:
    """The first seed of a layout and its town."""
    seed = next(s for s in range(200) if _kind_of(s) == kind)
    return seed, towns.TownFactory(None, None, None).build(seed)


@pytest.fixture
def town() -> towns.Town:
    return _first_town("river")[1]


@pytest.fixture
def stage(town: towns.Town) -> Stage:
    return Stage(WorldRenderer(town.world), town.lighting, town.license, standpoint=town.standpoint)


def test_a_seed_gives_the_same_town(town: towns.Town) -> None:
    again = towns.TownFactory(None, None, None).build(_first_town("river")[0])
    np.testing.assert_array_equal(town.world.corners, again.world.corners)
    np.testing.assert_array_equal(town.world.sky.panorama, again.world.sky.panorama)
    assert (town.kind, town.lighting.sun_direction) == (again.kind, again.lighting.sun_direction)
    assert town.license == "drawn by this project"
    assert np.isfinite(town.world.corners).all()


@pytest.mark.parametrize("kind", sorted(towns.KINDS))
def test_every_layout_stands_on_its_ground(kind: str) -> None:
    built = _first_town(kind)[1]
    assert built.kind == kind
    assert len(built.world) > 20_000
    for subject in built.subjects:
        assert abs(float(built.land.up(subject.x, subject.z))) < 60.0
    positions = [built.standpoint(np.random.default_rng(i))[0] for i in range(20)]
    above = [-p[1] - float(built.land.up(p[0], p[2])) for p in positions]
    assert min(above) > 0.3
    assert max(above) < 30.0


def test_a_town_is_filmed_with_sky_and_a_free_path(stage: Stage) -> None:
    clip = film_clip(stage, move="left", frames=3, seed=1, size=SIZE)
    assert clip is not None
    again = film_clip(stage, move="left", frames=3, seed=1, size=SIZE)
    assert again is not None
    np.testing.assert_array_equal(clip["rgb"], again["rgb"])
    assert clip["rgb"].shape == (3, 3, *SIZE)
    depth = 1.0 / np.maximum(clip["inverse_depth"][:, 0].astype(np.float64), 1e-6)
    assert depth.min() > 0.2
    assert clip["rgb"].std() > 15.0


def test_the_sun_casts_shadows_where_light_is_traced() -> None:
    builder = WorldBuilder()
    site = Site(builder, np.zeros(3))
    site.quad((-30, 0, -30), (30, 0, -30), (30, 0, 30), (-30, 0, 30), plain(0.5, 0.5, 0.5))
    site.box((-1.0, 0.0, 4.0), (1.0, 6.0, 4.5), plain(0.5, 0.5, 0.5))
    sun = (0.0, -math.sqrt(0.5), math.sqrt(0.5))
    light = Lighting(
        sky_rgb=(0.2, 0.2, 0.2),
        ground_rgb=(0.2, 0.2, 0.2),
        sun_direction=sun,
        sun_rgb=(1.0, 1.0, 1.0),
        occlusion_rays=2,
    )
    view = View(level_camera(np.array([0.0, -8.0, 2.0]), 0.0, -0.5 * math.pi), (40.0, 40.0), (30.0, 18.0), SIZE)
    rgb = WorldRenderer(builder.build(SKY)).render(view, light, np.random.default_rng(0)).rgb.astype(float).mean(-1)
    assert rgb[18, 30] < 0.65 * rgb[18, 5]


def test_solids_have_the_asked_size_and_turn() -> None:
    builder = WorldBuilder()
    Site(builder, np.array([10.0, -1.0, 5.0]), 0.5 * math.pi).box((0.0, 0.0, 0.0), (4.0, 3.0, 1.0), plain(1, 1, 1))
    corners = builder.build(SKY).corners.reshape(-1, 3)
    np.testing.assert_allclose(corners.min(0), [10.0, -4.0, 1.0], atol=1e-5)
    np.testing.assert_allclose(corners.max(0), [11.0, -1.0, 5.0], atol=1e-5)


def test_arches_are_open_and_pagodas_stand_upright() -> None:
    builder = WorldBuilder()
    arched_wall(Site(builder, np.zeros(3)), 10.0, 5.0, 1.0, 1, plain(0.5, 0.5, 0.5))
    caster = WorldRenderer(builder.build(SKY))
    ahead = np.array([[0.0, 0.0, 1.0]])
    assert np.isinf(caster.ray_depths(np.array([5.0, -1.0, -4.0]), ahead)[0])
    assert caster.ray_depths(np.array([0.4, -1.0, -4.0]), ahead)[0] == pytest.approx(3.5, abs=1e-4)
    builder, rng = WorldBuilder(), np.random.default_rng(0)
    pagoda(Site(builder, np.zeros(3)), rng, building_materials(builder, None, rng))
    corners = builder.build(SKY).corners.reshape(-1, 3)
    top = corners[corners[:, 1] < np.quantile(corners[:, 1], 0.02)]
    np.testing.assert_allclose(top[:, [0, 2]].mean(0), 0.0, atol=0.5)
    assert corners[:, 1].min() < -8.0


def test_water_lies_in_the_channel() -> None:
    land = make_land(np.random.default_rng(1), 2.0, 20.0, river=True, lake=False, level_radius=5.0)
    assert land.river is not None
    middle = float(np.interp(3.0, land.axis, land.river_course))
    assert land.wet(middle, 3.0, 0.5)
    assert float(land.up(middle, 3.0)) < land.water_up < float(land.up(middle + 3.0 * land.river[0], 3.0))
    dry = make_land(np.random.default_rng(1), 2.0, 20.0, river=False, lake=False, level_radius=5.0)
    assert not dry.wet(middle, 3.0, 0.5)


def test_surfaces_come_from_the_folder_or_are_drawn(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), (10, 200, 30)).save(tmp_path / "brick_wall_1.png")
    rng = np.random.default_rng(0)
    assert (surface(tmp_path, "brick_wall_1", rng)[..., :3] == [10, 200, 30]).all()
    drawn = surface(tmp_path, "grass_1", rng)
    assert drawn[..., 1].mean() > drawn[..., 2].mean()
    assert (drawn[..., 3] == 255).all()


def test_a_clear_sky_is_blue_above_and_bright_near_the_sun() -> None:
    sky = clouded_sky(np.random.default_rng(2), (0.0, -math.sin(0.5), math.cos(0.5)), 1.0, 0.0).panorama.astype(float)
    assert sky[10, :, 2].mean() > sky[10, :, 0].mean()
    row = round(256 * (1.0 - 0.5 / 1.5))
    assert sky[row, 512].mean() > sky[row, 0].mean()


def test_town_plan_is_apart_from_the_others_and_splits_by_scene() -> None:
    plans = plan_town_clips(300, 0)
    assert plans == plan_town_clips(500, 0)[:300]
    assert not {p.index for p in plans} & {p.index for p in plan_clips(904, 0)}
    held_out, train = ({p.scene for p in plans if p.split == split} for split in ("heldout", "train"))
    assert not held_out & train
    assert 0.07 < np.mean([p.split == "heldout" for p in plans]) < 0.13
    assert {p.move for p in plans} == set(MOVES)
    assert max(np.unique([p.scene for p in plans], return_counts=True)[1]) == CLIPS_PER_SCENE_VISIT


def test_render_data_takes_the_plan_and_the_number_of_frames(stage: Stage, tmp_path: Path) -> None:
    render_data(tmp_path, 1, stages=lambda *_: stage, plan="towns", size=SIZE, frames=5)
    assert [f.name for f in tmp_path.glob("*.safetensors")] == ["clip_50000.safetensors"]
    assert read_clip(tmp_path / "clip_50000.safetensors").rgb.shape == (5, 3, *SIZE)
    with pytest.raises(ValueError, match="plan: want one of"):
        render_data(tmp_path, 1, stages=lambda *_: stage, plan="cities")
