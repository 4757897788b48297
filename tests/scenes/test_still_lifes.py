"""Still lifes: the same for a seed, things on the ground or on each other, close cameras, plans. A toy catalogue."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scenes.dataset.plans import plan_still_life_clips
from scenes.dataset.render import render_data
from scenes.synthetic.filming import Stage
from scenes.synthetic.raycast import WorldRenderer
from scenes.synthetic.rooms.surfaces import _FLOORS, _WALLS
from scenes.synthetic.still_lifes.backdrop import HALF_WIDTH, add_backdrop
from scenes.synthetic.still_lifes.factory import StillLife, StillLifeFactory
from scenes.synthetic.towns.solids import Site
from scenes.synthetic.triangle_scene import WorldBuilder, gradient_sky

SIZE = (36, 60)
PYRAMID = "v 0 0 0\nv 2 0 0\nv 2 0 2\nv 0 0 2\nv 1 5 1\nf 1 2 3\nf 1 3 4\nf 1 2 5\nf 2 3 5\nf 3 4 5\nf 4 1 5\n"


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> StillLifeFactory:
    folder = tmp_path_factory.mktemp("assets")
    for name in {**_FLOORS, **_WALLS}:
        Image.new("RGB", (8, 8), (90, 120, 150)).save(folder / f"{name}.png")
    catalogue = folder / "Scopia"
    catalogue.mkdir()
    entries = [
        f"id#{n}={n}\nname#{n}={name}\ncategory#{n}=Kitchen\nmodel#{n}=/t.obj\nwidth#{n}={w}\ndepth#{n}={w}\nheight#{n}={h}\n"
        for n, (name, w, h) in enumerate((("Table", 120, 70), ("Pot", 20, 30), ("Tower", 40, 900)), 1)
    ]
    (catalogue / "PluginFurnitureCatalog.properties").write_text("".join(entries))
    (catalogue / "t.obj").write_text(PYRAMID)
    return StillLifeFactory(folder, folder)


def _stage(life: StillLife) -> Stage:
    return Stage(WorldRenderer(life.world), life.lighting, life.license, standpoint=life.standpoint)


def test_a_seed_gives_the_same_still_life(factory: StillLifeFactory) -> None:
    life, again, other = factory.build(3), factory.build(3), factory.build(4)
    np.testing.assert_array_equal(life.world.corners, again.world.corners)
    assert life.things == again.things != other.things
    assert life.license == "CC-BY-3.0; surface textures Apache-2.0"


@pytest.mark.parametrize("seed", range(6))
def test_things_stand_on_the_ground_or_on_each_other(factory: StillLifeFactory, seed: int) -> None:
    life = factory.build(seed)
    heights = {0.0} | {thing.height for thing in life.things}
    assert all(thing.foot in heights for thing in life.things)
    assert all(thing.height <= 2.2 + 1e-9 for thing in life.things)  # a tower of nine meters is a model of itself
    assert np.isfinite(life.world.corners).all()
    assert life.world.corners[..., 1].max() < 0.5  # y down: nothing below the ground but roots and a rope's lower half


def test_photographers_stand_close(factory: StillLifeFactory) -> None:
    life = factory.build(1)
    rng = np.random.default_rng(0)
    for _ in range(50):
        position, target = life.standpoint(rng)
        assert 0.3 <= -position[1] <= 2.1
        assert np.linalg.norm(position - target) < 6.0
        assert any(np.hypot(target[0] - t.x, target[2] - t.z) < 1e-9 for t in life.things)


def test_before_a_wall_photographers_face_it(factory: StillLifeFactory) -> None:
    lifes = [factory.build(seed) for seed in range(12)]
    fronts = [life for life in lifes if life.front_rad is not None]
    assert 3 < len(fronts) < len(lifes)
    for life in fronts[:3]:
        rng = np.random.default_rng(0)
        views = [life.standpoint(rng) for _ in range(60)]
        front = np.array([np.sin(life.front_rad or 0.0), np.cos(life.front_rad or 0.0)])
        before = [(position - target)[[0, 2]] @ front > 0 for position, target in views]
        assert np.mean(before) > 0.6


def test_a_wall_is_patched_together_and_lies_behind_its_plane(tmp_path: Path) -> None:
    for name in {**_FLOORS, **_WALLS}:
        Image.new("RGB", (8, 8), (90, 120, 150)).save(tmp_path / f"{name}.png")
    for seed in range(5):
        builder = WorldBuilder()
        add_backdrop(Site(builder, np.zeros(3)), tmp_path, np.random.default_rng(seed))
        corners = builder.build(gradient_sky((0.0, 0.0, 0.0), (0.0, 0.0, 0.0))).corners
        assert np.ptp(corners[..., 0]) >= 2 * HALF_WIDTH
        assert -0.3 < corners[..., 2].min() < corners[..., 2].max() <= 2.2
        assert -6.1 < corners[..., 1].min() < -0.7  # y down


def test_clips_are_filmed_and_planned(factory: StillLifeFactory, tmp_path: Path) -> None:
    plans = plan_still_life_clips(6, seed=0)
    assert {plan.split for plan in plans} == {"train"}
    assert len({plan.scene for plan in plans}) == 6
    assert plan_still_life_clips(3, seed=0) == plans[:3]
    stages = lambda _, scene: _stage(factory.build(int(scene.removeprefix("still-life-"))))  # noqa: E731
    render_data(tmp_path, 2, stages=stages, plan="still-lifes", size=SIZE)
    from scenes.dataset.clips import list_clips, read_clip

    clips = list_clips(tmp_path, "train")
    assert [path.name for path in clips] == ["clip_80000.safetensors", "clip_80001.safetensors"]
    frames = read_clip(clips[0])
    assert frames.depth[~frames.sky].median() < 6.0
