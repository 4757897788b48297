"""Textured worlds: exact depth, color that reprojects, free paths, and clips on disk. Needs no downloaded asset."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from scenes.dataset.plans import CLIPS_PER_SCENE_VISIT, LONG_CLIP_FRAMES, plan_clips, plan_orbits, plan_stills
from scenes.dataset.render import render_data
from scenes.synthetic import torcs
from scenes.synthetic.camera_moves import (
    MOVES,
    ORBIT_DEGREES,
    STILLS,
    is_good_path,
    level_camera,
    move_path,
    orbit_poses,
)
from scenes.synthetic.filming import Stage, film_clip
from scenes.synthetic.raycast import View, WorldRenderer
from scenes.synthetic.rooms import factory as rooms
from scenes.synthetic.rooms.furniture import read_catalogues
from scenes.synthetic.shading import build_atlas, linear_to_srgb, srgb_to_linear
from scenes.synthetic.torcs import TextureFolder, load_track, read_acc, read_picture
from scenes.synthetic.towns import factory as towns
from scenes.synthetic.triangle_scene import Lighting, TexturedWorld, WorldBuilder, face_normals, flip_up, gradient_sky

SKY = gradient_sky((0.3, 0.5, 0.9), (0.8, 0.85, 0.9))
PLAIN_LIGHT = Lighting(sky_rgb=(0.8, 0.8, 0.8), ground_rgb=(0.8, 0.8, 0.8))
SIZE = (36, 60)


def _no_stage(source: str, scene: str) -> Stage:
    raise AssertionError(f"{source}/{scene} was asked for")


def _texture(seed: int) -> np.ndarray:
    """A smooth colorful picture, so that small shifts change colors little."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:64, :64] / 64 * 2 * math.pi
    waves = [0.5 + 0.4 * np.sin(rng.integers(1, 3) * x + rng.integers(1, 3) * y + rng.uniform(0, 6)) for _ in range(3)]
    rgb = (255 * np.stack(waves, -1)).astype(np.uint8)
    return np.concatenate([rgb, np.full((64, 64, 1), 255, np.uint8)], -1)


def _box_room() -> TexturedWorld:
    """A closed room of 6 x 3 x 8 m (floor at y = 0) with a textured box of 1 m on the floor."""
    builder = WorldBuilder()
    _add_box(builder, np.array([-3.0, -3.0, -4.0]), np.array([3.0, 0.0, 4.0]), seed=0)
    _add_box(builder, np.array([-0.9, -1.0, 1.5]), np.array([0.1, 0.0, 2.5]), seed=10)
    return builder.build(SKY)


def _add_box(builder: WorldBuilder, low: np.ndarray, high: np.ndarray, seed: int) -> None:
    extent = np.diag(high - low)
    for axis in range(3):
        a, b = extent[(axis + 1) % 3], extent[(axis + 2) % 3]
        for side, corner in enumerate((low, low + extent[axis])):
            builder.add_quad(corner, a, b, texture=builder.add_texture(_texture(seed + 2 * axis + side)))


def _view(position: tuple[float, float, float], yaw_deg: float = 0.0, tilt_deg: float = 0.0, size=SIZE) -> View:
    pose = level_camera(np.asarray(position), math.radians(yaw_deg), math.radians(tilt_deg))
    return View(pose, (0.7 * size[1], 0.7 * size[1]), (size[1] / 2, size[0] / 2), size)


@pytest.fixture(scope="module")
def renderer() -> WorldRenderer:
    return WorldRenderer(_box_room())


@pytest.fixture(scope="module")
def stage(renderer: WorldRenderer) -> Stage:
    lighting = Lighting(
        sky_rgb=(0.4, 0.4, 0.4),
        ground_rgb=(0.3, 0.3, 0.3),
        lamp_positions=np.array([[0.0, -2.6, 0.0]], np.float32),
        lamp_rgb=np.array([[1.5, 1.4, 1.2]], np.float32),
        occlusion_rays=2,
    )
    return Stage(renderer, lighting, "CC0-1.0", (-2.7, -2.6, -3.7), (2.7, -0.4, 3.7))


def _box_depth(view: View) -> np.ndarray:
    """z-depth of the room's inner walls and of the small box, from slabs, at pixel centers."""
    height, width = view.size
    rows, columns = np.mgrid[:height, :width] + 0.5
    d = np.stack([(columns - view.center_px[0]) / view.focal_px[0], (rows - view.center_px[1]) / view.focal_px[1],
                  np.ones_like(rows)], -1) @ view.world_from_camera[:3, :3].T  # fmt: skip
    o = view.world_from_camera[:3, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        walls = np.maximum(([-3.0, -3.0, -4.0] - o) / d, ([3.0, 0.0, 4.0] - o) / d).min(-1)
        first, second = ([-0.9, -1.0, 1.5] - o) / d, ([0.1, 0.0, 2.5] - o) / d
    enter, leave = np.minimum(first, second).max(-1), np.maximum(first, second).min(-1)
    return np.where((enter < leave) & (enter > 0), enter, walls)


@pytest.mark.parametrize(("yaw_deg", "tilt_deg"), [(0.0, 0.0), (17.0, -12.0), (-140.0, 20.0)])
def test_depth_is_exact_z_at_pixel_centers(renderer: WorldRenderer, yaw_deg: float, tilt_deg: float) -> None:
    view = _view((0.2, -1.5, -2.0), yaw_deg, tilt_deg)
    rendered = renderer.render(view, PLAIN_LIGHT, np.random.default_rng(0))
    error = np.abs(rendered.depth / _box_depth(view) - 1.0)
    # A ray through an edge may fall to either side of it.
    assert np.quantile(error, 0.995) < 1e-5
    assert not rendered.sky.any()


def test_first_frame_reprojects_into_a_later_one(renderer: WorldRenderer) -> None:
    source, target = _view((0.2, -1.5, -2.0), size=(72, 120)), _view((0.5, -1.4, -1.6), 6.0, -3.0, size=(72, 120))
    first, second = (renderer.render(v, PLAIN_LIGHT, np.random.default_rng(0)) for v in (source, target))
    rows, columns = np.mgrid[:72, :120] + 0.5
    f = source.focal_px[0]
    points = np.stack([(columns - 60) / f, (rows - 36) / f, np.ones_like(rows)], -1) * first.depth[..., None]
    world = points @ source.world_from_camera[:3, :3].T + source.world_from_camera[:3, 3]
    there = (world - target.world_from_camera[:3, 3]) @ target.world_from_camera[:3, :3]
    x, y = (np.floor(f * there[..., i] / there[..., 2] + c).astype(int) for i, c in ((0, 60), (1, 36)))
    inside = (there[..., 2] > 0) & (x >= 0) & (x < 120) & (y >= 0) & (y < 72)
    seen = np.abs(second.depth[y[inside], x[inside]] / there[..., 2][inside] - 1.0) < 0.02
    difference = np.abs(first.rgb[inside].astype(int) - second.rgb[y[inside], x[inside]].astype(int)).mean(-1)[seen]
    assert seen.mean() > 0.85
    assert np.median(difference) < 4.0
    assert first.rgb.std() > 30.0


def test_sky_is_flagged_and_colored() -> None:
    builder = WorldBuilder()
    builder.add_quad(np.array([-50.0, 0, 50]), np.array([100.0, 0, 0]), np.array([0, 0, -100.0]), tint=(0.2, 0.5, 0.2))
    view = _view((0.0, -1.5, 0.0), size=(36, 60))
    rendered = WorldRenderer(builder.build(SKY)).render(view, PLAIN_LIGHT, np.random.default_rng(0))
    assert rendered.sky[:17].all()
    assert not rendered.sky[20:].any()
    assert (rendered.depth[rendered.sky] == 0).all()
    assert rendered.rgb[2, :, 2].mean() > 1.2 * rendered.rgb[2, :, 0].mean()


def test_clear_texels_let_rays_through() -> None:
    fence = np.full((32, 32, 4), 255, np.uint8)
    fence[:, :16, 3] = 0
    for cutout in (True, False):
        builder = WorldBuilder()
        builder.add_quad(np.array([-5.0, -5, 8]), np.array([10.0, 0, 0]), np.array([0, 10.0, 0]))
        texture = builder.add_texture(fence)
        assert builder.has_clear_pixels(texture)
        piece = np.array([[[-1, -1, 2], [1, -1, 2], [1, 1, 2]], [[-1, -1, 2], [1, 1, 2], [-1, 1, 2]]], np.float32)
        uv = (piece[..., :2] + 1) / 2
        builder.add_triangles(piece, uv=uv, texture=texture, cutout=cutout)
        depth = (
            WorldRenderer(builder.build(SKY)).render(_view((0.0, 0, 0)), PLAIN_LIGHT, np.random.default_rng(0)).depth
        )
        assert depth[18, 33] == pytest.approx(2.0)
        assert depth[18, 27] == pytest.approx(8.0 if cutout else 2.0)


def test_lamps_cast_shadows() -> None:
    lamp = Lighting(
        sky_rgb=(0.05, 0.05, 0.05),
        ground_rgb=(0.05, 0.05, 0.05),
        lamp_positions=np.array([[0.0, -2.6, 0.0]], np.float32),
        lamp_rgb=np.array([[4.0, 4.0, 4.0]], np.float32),
        lamp_radius=0.05,
        occlusion_rays=4,
    )
    view = _view((-0.4, -2.9, 3.0), tilt_deg=-90.0)
    bright = []
    for with_box in (False, True):
        builder = WorldBuilder()
        builder.add_quad(np.array([-9.0, 0, 9]), np.array([18.0, 0, 0]), np.array([0, 0, -18.0]), tint=(0.6, 0.6, 0.6))
        if with_box:
            _add_box(builder, np.array([-0.9, -1.0, 1.5]), np.array([0.1, 0.0, 2.5]), seed=10)
        caster = WorldRenderer(builder.build(SKY))
        picture = caster.render(view, lamp, np.random.default_rng(0))
        np.testing.assert_array_equal(picture.rgb, caster.render(view, lamp, np.random.default_rng(0)).rgb)
        bright.append((picture.rgb[18, 30].mean(), picture.rgb[18, 55].mean()))
    (open_floor, open_side), (shadow, lit_side) = bright
    assert shadow < 0.6 * open_floor
    assert lit_side == pytest.approx(open_side, rel=0.1)


def test_mip_levels_keep_the_mean_light() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (32, 16, 4)).astype(np.uint8)
    picture[..., 3] = 255
    atlas = build_atlas([picture])
    assert atlas.levels[0] == 5
    last = atlas.start[0, 4]
    smallest = srgb_to_linear(atlas.texels[last : last + 2, :3] / 255.0).mean(0)
    np.testing.assert_allclose(smallest, srgb_to_linear(picture[..., :3] / 255.0).mean((0, 1)), atol=0.02)
    np.testing.assert_allclose(linear_to_srgb(srgb_to_linear(np.linspace(0, 1, 11))), np.linspace(0, 1, 11), atol=1e-6)


@pytest.mark.parametrize("move", sorted(MOVES))
def test_moves_start_at_the_camera_and_are_smooth(move: str) -> None:
    start = level_camera(np.array([1.0, -1.5, 2.0]), 0.4, -0.1)
    poses = move_path(move, start, 12, 4.0, 1.0, np.random.default_rng(3))
    np.testing.assert_allclose(poses[0], start, atol=1e-12)
    np.testing.assert_allclose(poses[:, :3, :3] @ poses[:, :3, :3].transpose(0, 2, 1), np.tile(np.eye(3), (12, 1, 1)),
                               atol=1e-9)  # fmt: skip
    local = (poses[-1, :3, 3] - start[:3, 3]) @ start[:3, :3]
    axis, sign = {"forward": (2, 1), "back": (2, -1), "left": (0, -1), "right": (0, 1), "up": (1, -1)}.get(move, (0, 0))
    assert sign * local[axis] > 0.3 or not sign
    steps = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=-1)
    assert steps.max() < 0.6


def test_unknown_move_is_rejected() -> None:
    with pytest.raises(ValueError, match="move: want one of"):
        move_path("sideways", np.eye(4), 12, 1.0, 1.0, np.random.default_rng(0))


def test_paths_through_a_wall_are_rejected(renderer: WorldRenderer) -> None:
    free = [_view((0.9 + 0.02 * i, -1.5, -2.0)) for i in range(4)]
    assert is_good_path(renderer, free, PLAIN_LIGHT, nearest=0.2, most_sky=0.2, least_contrast=0.01)
    through = [_view((x, -1.5, 0.0)) for x in (2.0, 4.0)]
    assert not is_good_path(renderer, through, PLAIN_LIGHT, nearest=0.2, most_sky=0.2, least_contrast=0.01)
    close = [_view((2.9, -1.5, 0.0), 90.0)] * 2
    assert not is_good_path(renderer, close, PLAIN_LIGHT, nearest=0.2, most_sky=0.2, least_contrast=0.01)


def test_clips_are_written_resumed_and_reproduced(stage: Stage, tmp_path: Path) -> None:
    asked: list[str] = []

    def stages(source: str, scene: str) -> Stage:
        asked.append(f"{source}/{scene}")
        return stage

    manifest = render_data(tmp_path / "a", 3, 5, stages=stages, size=SIZE)
    listed = json.loads(manifest.read_text())["clips"]
    assert listed
    before = load_file(tmp_path / "a" / listed[0]["file"])
    with safe_open(tmp_path / "a" / listed[0]["file"], framework="np") as clip:
        frames = listed[0]["frames"]
        assert clip.get_tensor("rgb").shape == (frames, 3, *SIZE)
        assert clip.get_tensor("rgb").dtype == np.uint8
        assert clip.get_tensor("inverse_depth").dtype == np.float16
        np.testing.assert_allclose(clip.get_tensor("world_from_camera")[0], np.eye(4), atol=1e-6)
        assert clip.get_tensor("focal_px").shape == clip.get_tensor("center_px").shape == (frames, 2)
        assert {"source", "scene", "license", "seed", "move", "split", "unit"} <= clip.metadata().keys()
    first = tmp_path / "a" / listed[0]["file"]
    first.unlink()
    kept = {name: (tmp_path / "a" / name).stat().st_mtime_ns for name in [c["file"] for c in listed[1:]]}
    asked.clear()
    again = json.loads(render_data(tmp_path / "a", 3, 5, stages=stages, size=SIZE).read_text())["clips"]
    assert again == listed
    after = load_file(first)
    assert before.keys() == after.keys()
    for name, values in before.items():
        np.testing.assert_array_equal(values, after[name])
    assert kept == {name: (tmp_path / "a" / name).stat().st_mtime_ns for name in kept}
    assert len(asked) <= 1 + 3 - len(listed)
    assert not list((tmp_path / "a").glob("*.partial"))


def test_a_blocked_stage_gives_no_clip(renderer: WorldRenderer) -> None:
    cramped = Stage(renderer, PLAIN_LIGHT, "CC0-1.0", (-0.5, -0.6, 1.9), (-0.4, -0.5, 2.0))
    assert film_clip(cramped, move="pan", frames=2, seed=0, size=SIZE) is None


def test_plan_is_balanced_and_splits_by_scene() -> None:
    plans = plan_clips(400, 0)
    assert plans == plan_clips(800, 0)[:400]
    held_out, train = ({p.scene for p in plans if p.split == split} for split in ("heldout", "train"))
    assert not held_out & train
    assert set(torcs.HELD_OUT_TRACKS) <= held_out
    assert sum(s.startswith("room-") for s in held_out) >= 5
    for prefix in (plans[:80], plans):
        share = np.mean([p.split == "heldout" for p in prefix])
        rooms_share = np.mean([p.source == rooms.SOURCE for p in prefix])
        assert 0.05 <= share <= 0.15
        assert 0.35 <= rooms_share <= 0.55
    assert {p.move for p in plans[:80]} == set(MOVES)
    assert len({p.seed for p in plans}) == len(plans)
    assert any(p.frames == LONG_CLIP_FRAMES for p in plans)
    lanes = [{p.scene for p in plans if p.source == torcs.SOURCE and p.split == "train"
              and (p.index // CLIPS_PER_SCENE_VISIT) % 2 == lane} for lane in (0, 1)]  # fmt: skip
    assert not lanes[0] & lanes[1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda out: render_data(out, 1), "assets: want"),
        (lambda out: render_data(out, 1, assets=out, stages=_no_stage), "assets: want"),
        (lambda out: render_data(out, 1, assets=out, worker=2, workers=2), "worker: want"),
        (lambda out: load_track(out, "nowhere"), "name: want a track"),
        (lambda out: read_catalogues(out), "cache: want"),
        (lambda _: WorldBuilder().build(SKY), "world: want at least one"),
    ],
)
def test_guards_reject(call: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        call(tmp_path)


def test_flip_up_is_a_rotation_and_keeps_faces() -> None:
    corners = np.random.default_rng(0).normal(size=(5, 3, 3))
    np.testing.assert_allclose(flip_up(flip_up(corners)), corners)
    np.testing.assert_allclose(face_normals(flip_up(corners)), flip_up(face_normals(corners)), atol=1e-12)


ACC = """AC3Db
MATERIAL "" rgb 0.4 0.4 0.4 amb 0.8 0.8 0.8 emis 0 0 0 spec 0.5 0.5 0.5 shi 50 trans 0
OBJECT world
kids 2
OBJECT poly
name "road"
texture "road.png" base
texture "dark.rgb" tiled
texture empty_texture_no_mapping skids
numvert 4
0 0 0 0 1 0
1 0 0 0 1 0
0 0 1 0 1 0
1 0 1 0 1 0
numsurf 1
SURF 0x14
mat 0
refs 4
0 0.0 0.0 0.5 0.25
1 1.0 0.0 0.5 0.25
2 0.0 1.0 0.5 0.25
3 1.0 1.0 0.5 0.25
kids 0
OBJECT poly
name "wall"
texture "wall.png"
numvert 4
0 0 0 0 0 1
1 0 0 0 0 1
1 1 0 0 0 1
0 1 0 0 0 1
numsurf 1
SURF 0x20
mat 0
refs 4
0 0 0
1 1 0
2 1 1
3 0 1
kids 0
"""


def _gray_alpha_sgi(width: int, height: int) -> bytes:
    """An uncompressed SGI picture of two planes: rows of rising gray, bottom row first, and full opacity."""
    header = struct.pack(">hbbHHHH", 474, 0, 1, 3, width, height, 2).ljust(512, b"\0")
    gray = b"".join(bytes([10 * row] * width) for row in range(height))
    return header + gray + b"\xff" * (width * height)


def test_tracks_are_read(tmp_path: Path) -> None:
    from PIL import Image

    folder = tmp_path / "tracks" / "road" / "toy"
    folder.mkdir(parents=True)
    (folder / "toy.acc").write_text(ACC)
    for name in ("road.png", "wall.png", "background.png"):
        Image.new("RGB", (8, 8), (90, 120, 150)).save(folder / name)
    (folder / "dark.rgb").write_bytes(_gray_alpha_sgi(4, 3))
    road, wall = [m for m in read_acc(folder / "toy.acc") if m.triangles]
    assert [role for _, role in road.layers] == ["base", "tiled", "skids"]
    assert len(road.triangles) == len(wall.triangles) == 2
    assert [[int(c[0]) for c in t] for t in road.triangles] == [[0, 1, 2], [1, 2, 3]]
    assert [[int(c[0]) for c in t] for t in wall.triangles] == [[0, 1, 2], [0, 2, 3]]
    world = load_track(tmp_path, "toy")
    assert len(world) == 4
    assert (world.shade_texture[:2] >= 0).all()
    assert (world.shade_texture[2:] < 0).all()
    np.testing.assert_allclose(world.shade_uv[0, 0], [0.5, -0.25])
    assert world.corners[2:, :, 1].min() == -1.0
    gray = np.asarray(read_picture(folder / "dark.rgb"))
    np.testing.assert_array_equal(gray[:, 0, 0], [20, 10, 0])
    assert (gray[..., 3] == 255).all()
    assert TextureFolder([folder]).read("missing.png") is None
    points = torcs.road_points(world, np.random.default_rng(0), 20)
    assert np.abs(points[:, 1]).max() < 1e-9


def test_furniture_is_scaled_and_read(tmp_path: Path) -> None:
    folder = tmp_path / "Scopia"
    folder.mkdir()
    (folder / "PluginFurnitureCatalog.properties").write_text(
        "id#1=a\nname#1=Table\ncategory#1=Living room\nmodel#1=/t.obj\nwidth#1=120\ndepth#1=60\nheight#1=70\n"
        "dropOnTopElevation#1=-1\nid#2=b\nname#2=Half an entry\n"
    )
    faces = "f 1 2 3\nf 1 3 4\nf 1 2 5\nf 2 3 5\nf 3 4 5\nf 4 1 5\n"
    (folder / "t.obj").write_text("v 0 0 0\nv 2 0 0\nv 2 0 2\nv 0 0 2\nv 1 5 1\n" + faces)
    (table,) = read_catalogues(tmp_path)
    assert table.size == (1.2, 0.7, 0.6)
    assert table.top == 0.0
    from scenes.synthetic.rooms.furniture import load_furniture

    corners = np.concatenate([part.corners for part in load_furniture(tmp_path, table)]).reshape(-1, 3)
    np.testing.assert_allclose(corners.min(0), [-0.6, 0.0, -0.3], atol=1e-9)
    np.testing.assert_allclose(corners.max(0), [0.6, 0.7, 0.3], atol=1e-9)


def test_stills_are_unrelated_views_of_one_scene_with_its_depth(stage: Stage) -> None:
    taken = stage.film(move=STILLS, frames=4, seed=3, size=SIZE)
    assert taken is not None
    again = stage.film(move=STILLS, frames=3, seed=3, size=SIZE)
    assert again is not None
    np.testing.assert_array_equal(taken["rgb"][:3], again["rgb"])
    poses, count = taken["world_from_camera"], len(taken["rgb"])
    assert count == 4
    apart = np.linalg.norm(poses[:, None, :3, 3] - poses[None, :, :3, 3], axis=-1)[~np.eye(count, dtype=bool)]
    assert apart.min() > 0.05
    assert len(set(taken["focal_px"][:, 0])) == count
    assert (taken["inverse_depth"] > 0.0).all()  # the room is closed


def test_an_orbit_looks_at_one_point_from_its_angles() -> None:
    start = level_camera(np.array([1.0, -1.6, 2.0]), 0.4, -0.1)
    poses = orbit_poses(start, 5.0)
    point = start[:3, 3] + 5.0 * start[:3, 2]
    toward = point - poses[:, :3, 3]
    np.testing.assert_allclose(np.linalg.norm(toward, axis=1), 5.0, atol=1e-9)
    np.testing.assert_allclose(toward, 5.0 * poses[:, :3, 2], atol=1e-9)
    turned = np.degrees(np.arccos(np.clip(poses[:, :3, 2] @ start[:3, 2], -1.0, 1.0)))
    np.testing.assert_allclose(turned, np.abs(ORBIT_DEGREES), atol=1e-5)
    right = (poses[:, :3, 3] - start[:3, 3]) @ start[:3, 0]
    assert (np.sign(right.round(9)) == np.sign(ORBIT_DEGREES)).all()


def test_orbits_are_held_out_and_stills_are_of_scenes_of_their_own() -> None:
    stills, orbits = plan_stills(40, 0), plan_orbits(30, 0)
    assert stills[:10] == plan_stills(10, 0)
    assert {plan.split for plan in stills} == {"train"}
    assert {plan.split for plan in orbits} == {"heldout"}
    built = [plan.scene for plan in stills if plan.source != torcs.SOURCE]
    assert len(set(built)) == len(built)
    assert not {plan.scene for plan in stills} & {plan.scene for plan in orbits}
    assert not {plan.scene for plan in stills if plan.source != torcs.SOURCE} & {p.scene for p in plan_clips(900, 0)}
    assert {plan.source for plan in orbits} == {torcs.SOURCE, rooms.SOURCE, towns.SOURCE}
