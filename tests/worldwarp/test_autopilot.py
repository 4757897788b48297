"""`path=auto` and `worldwarp complete`: which views are chosen, the way to them, and what they leave unknown."""

from __future__ import annotations

import contextlib
import io
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cache3d.point_cache import PointCache
from diffusion.inpainting.config import InpaintConfig
from diffusion.noise_map import NoiseConfig
from diffusion.passthrough import PassthroughGenerator
from geometry.frame import Frame
from geometry.se3 import inverse, log
from tests.helpers import (
    cameras_at,
    chunk_of,
    guide_of,
    pillar_before_wall,
    pose_at,
    same_bits,
    textured_wall,
    world_content,
)
from worldwarp import World, explore
from worldwarp.autopilot import AutopilotPolicy, conflict, coverage_gain, next_leg, planned_frames, smooth_way
from worldwarp.cli import main
from worldwarp.config import ConfigError, compose_config
from worldwarp.loop import start
from worldwarp.prepare import prepare
from worldwarp.resume import resume
from worldwarp.state import Components, LiftedPhoto
from worldwarp.surroundings import Surroundings, all_around, hidden

SIZE = (48, 80)
SMALL = ["size=48x80", "chunk=4", "depth=plane", "prior=smooth", "cache=points", "viewer=none", "auto.candidates=16"]
POLICY = AutopilotPolicy(candidates=24, view_px=40)


def world_of(photo: Frame) -> tuple[Frame, PointCache, Components]:
    return photo, PointCache(), Components(PassthroughGenerator(), NoiseConfig(), InpaintConfig(fill="smooth"))


def leg_of(photo: Frame, policy: AutopilotPolicy = POLICY, left: int = 40):
    frame, cache, components = world_of(photo)
    state = start(LiftedPhoto(frame, frame, frame.rgb[0]), cache, components, torch.Generator())
    return next_leg(state.view, frame, frame.camera, policy, unit=frame.median_depth(), chunk=4, left=left)


def test_views_of_the_surroundings_are_near_the_photo_upright_and_the_same_each_time() -> None:
    photo = textured_wall(cameras_at((0.0, 0.0, 0.0), size=SIZE, fov_deg=140.0), distance=0.35)
    around = Surroundings(photo, radius=0.3, angle_deg=25.0, clearance=0.1)
    views = around.views(64)
    assert views.size == SIZE
    assert views.position.norm(dim=-1).max() <= 0.3
    assert 0.2 < views.position[:, 2].max() <= 0.25 + 1e-6  # the wall, less the clearance
    ahead = views.world_from_camera[:, :3, 2]
    assert torch.rad2deg(torch.arccos(ahead[:, 2])).max() <= 25.0 + 1e-3
    assert views.world_from_camera[:, 1, 0].abs().max() < 1e-6  # the horizon stays level
    assert torch.det(views.world_from_camera[:, :3, :3]).sub(1.0).abs().max() < 1e-5
    spread = views.position.mean(0).abs().max()
    assert spread < 0.1
    again = around.views(64)
    assert torch.equal(views.world_from_camera, again.world_from_camera)
    assert not torch.equal(views.world_from_camera, around.views(64, skip=64).world_from_camera)


def test_unknown_beside_known_is_worth_more_than_far_from_it_and_sky_less() -> None:
    camera = cameras_at((0.0, 0.0, 0.0), size=(20, 40))
    gap, half, all_ = (torch.zeros(1, 1, 20, 40, dtype=torch.bool) for _ in range(3))
    gap[..., 10:14] = half[..., 20:] = all_[:] = True
    gains = [coverage_gain(guide_of(camera, 1.0, hole=hole), 0.15, 0.5).item() for hole in (gap, half, all_)]
    assert 0.07 < gains[0] < 0.1  # a tenth of the view, nearly all of its worth
    assert gains[0] < gains[1] < 0.4  # half of the view, most of it far from the known
    assert gains[2] == 0.0  # nothing to go on
    sky = replace(guide_of(camera, 1.0, hole=gap), sky=(~gap).float())
    assert coverage_gain(sky, 0.15, 0.5).item() == pytest.approx(0.5 * gains[0], rel=1e-5)


def test_conflict_grows_with_the_angle_to_what_the_photo_saw() -> None:
    places = [pose_at(), pose_at(x=0.2), pose_at(x=0.6), pose_at(z=0.5)]
    views = guide_of(cameras_at(*places, size=(20, 40)), 1.0)
    still, near, aside, ahead = conflict(views, torch.zeros(3), 30.0).tolist()
    assert still < 1e-2 < near < aside < 1.0
    assert ahead < aside
    turned = guide_of(cameras_at(pose_at(yaw_deg=20.0), size=(20, 40)), 1.0)
    assert conflict(turned, torch.zeros(3), 30.0).item() < 1e-2  # turning shows nothing from aside


@pytest.mark.parametrize("ends", [True, False])
def test_a_way_reaches_its_target_without_a_jump_of_velocity(ends: bool) -> None:
    moving = cameras_at(pose_at(), pose_at(x=0.02, yaw_deg=1.0), size=SIZE)
    target = cameras_at(pose_at(x=-0.2, y=0.1, z=0.15, yaw_deg=-20.0), size=SIZE)
    way = smooth_way(moving, target, 16, ends=ends)
    assert (way.world_from_camera[-1] - target.world_from_camera[0]).abs().max() < 1e-5
    poses = torch.cat([moving.world_from_camera, way.world_from_camera]).double()
    steps = log(inverse(poses[:-1]) @ poses[1:])
    assert (steps[1:] - steps[:-1]).abs().max() < 0.35 * steps.abs().max()
    assert (steps[1] - steps[0]).norm() < 0.5 * steps[0].norm()  # still in its motion
    assert (steps[-1].norm() < 0.3 * steps.norm(dim=-1).max()) == ends


def test_the_next_view_shows_what_is_unknown_and_is_the_same_each_time() -> None:
    photo, _ = pillar_before_wall(cameras_at((0.0, 0.0, 0.0), size=SIZE))
    leg = leg_of(photo)
    assert leg is not None
    assert len(leg.cameras) % 4 == 0
    assert leg.unknown > 0.02
    assert leg.gain >= POLICY.gain
    assert not Surroundings(photo, 1.0, 25.0, 0.1).blocked(leg.cameras.position).any()
    again = leg_of(photo)
    assert again is not None
    assert torch.equal(leg.cameras.world_from_camera, again.cameras.world_from_camera)


def test_places_behind_what_the_world_shows_are_hidden_in_every_direction() -> None:
    photo, cache, components = world_of(textured_wall(cameras_at((0.0, 0.0, 0.0), size=SIZE), distance=2.0))
    state = start(LiftedPhoto(photo, photo, photo.rgb[0]), cache, components, torch.Generator())
    turned = cameras_at(pose_at(yaw_deg=90.0), size=SIZE)  # a wall to the right, as another camera saw it
    side = textured_wall(cameras_at((0.0, 0.0, 0.0), size=SIZE), distance=1.0)
    state.view.integrate(chunk_of(replace(side, camera=turned), 1))
    around = all_around(state.view, photo.camera)
    places = torch.tensor([[0.0, 0.0, 1.8], [0.0, 0.0, 2.2], [0.8, 0.0, 0.0], [1.2, 0.0, 0.0], [-2.0, 0.0, 0.0]])
    assert hidden(places, around, 0.0).tolist() == [False, True, False, True, False]
    assert hidden(places, around, 0.3).tolist() == [True, True, True, True, False]


def test_a_leg_that_the_budget_cuts_ends_on_the_way() -> None:
    photo, _ = pillar_before_wall(cameras_at((0.0, 0.0, 0.0), size=SIZE))
    whole, cut = leg_of(photo), leg_of(photo, left=3)
    assert whole is not None
    assert cut is not None
    assert len(cut.cameras) == 3
    assert cut.cameras.position[-1].norm() < whole.cameras.position[-1].norm()


def test_it_stops_where_everything_is_known_or_nothing_is_worth_going_to() -> None:
    photo, _ = pillar_before_wall(cameras_at((0.0, 0.0, 0.0), size=SIZE))
    assert leg_of(photo, replace(POLICY, radius=0.0, angle_deg=0.0)) is None  # it has seen what there is
    assert leg_of(photo, replace(POLICY, enough=1.0)) is None
    assert leg_of(photo, replace(POLICY, gain=1.0)) is None
    assert leg_of(photo, replace(POLICY, unknown=0.0)) is None


def test_cameras_that_are_not_chosen_yet_repeat_the_last_one() -> None:
    path = cameras_at((0.0, 0.0, 0.0), (0.1, 0.0, 0.0), (0.2, 0.0, 0.0), size=SIZE)
    assert planned_frames(path) == 3
    assert planned_frames(path[[0, 1, 2, 2, 2]]) == 3
    assert planned_frames(path[[0, 0, 0]]) == 1
    assert planned_frames(path[[0, 0, 1]]) == 3


@pytest.fixture(scope="module")
def made(photo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world of 13 frames that explored by itself."""
    out = tmp_path_factory.mktemp("auto") / "world"
    with contextlib.redirect_stdout(io.StringIO()):
        assert main(["explore", str(photo), "auto", f"out={out}", "frames=13", *SMALL]) == 0
    return out


def test_it_makes_an_ordinary_world(made: Path) -> None:
    world = World.load(made)
    assert len(world.cameras) == len(world.record.path) == 13
    assert planned_frames(world.record.path) == 13
    assert [record.frames for record in world.record.chunks] == [1, 4, 4, 4]
    moved = (world.cameras.world_from_camera[1:] - world.cameras.world_from_camera[:-1]).flatten(1).norm(dim=1)
    assert moved.min() > 1e-4
    assert (made / "video.mp4").is_file()


def test_a_stopped_session_resumes_to_the_same_bits(photo: Path, made: Path, tmp_path: Path) -> None:
    out = tmp_path / "parts"
    session = prepare(compose_config("explore", [f"image={photo}", "path=auto", f"out={out}", "frames=13", *SMALL]))
    session.store_in(out)
    next(session.steps())
    for _ in range(2):
        next(resume(out).steps())
    assert same_bits(world_content(out), world_content(made))


def test_undo_and_explore_make_the_same_bits(made: Path, tmp_path: Path) -> None:
    out = shutil.copytree(made, tmp_path / "world")
    World.load(out).undo()
    list(explore(resume=out, viewer="none"))
    assert same_bits(world_content(out), world_content(made))


def test_it_stops_early_where_it_knows_enough(photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "world"
    steps = list(explore(image=photo, path="auto", out=out, frames=40, overrides=[*SMALL, "auto.enough=1.0"]))
    assert steps == []
    assert len(World.load(out).record.path) == 1


def test_complete_closes_what_is_unknown(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = shutil.copytree(made, tmp_path / "world")
    wide = ["radius=0.3", "angle_deg=25", "enough=0.02"]
    assert main(["complete", str(out), *wide]) == 0
    printed = capsys.readouterr().out
    before, after = (float(line.split()[1].rstrip("%,")) for line in printed.splitlines() if line[0] in "ba")
    assert before > 4.0
    assert after <= 2.0
    world = World.load(out)
    assert torch.equal(world.cameras.world_from_camera[:13], World.load(made).cameras.world_from_camera)
    assert len(world.cameras) == len(world.record.path) > 13
    assert main(["complete", str(out), *wide]) == 0
    assert "nothing to complete" in capsys.readouterr().out
    assert len(World.load(out).cameras) == len(world.cameras)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["path=orbit", "auto.radius=0.2"], "auto.radius: it is for path=auto, got path=orbit"),
        (["path=auto", "auto.radius=-1"], "auto.radius: want a number of 0 or more, got '-1'"),
        (["path=auto", "auto.nearness=1"], "there is no setting 'auto.nearness'"),
    ],
)
def test_invalid_settings_are_refused(photo: Path, words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        prepare(compose_config("explore", [f"image={photo}", *words]))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["radius=far"], "radius: want a number, got 'far'"),
        (["angle_deg=200"], "angle_deg: want a number from 0 to 180, got 200"),
        (["frames=0"], "frames: want a whole number from 1"),
        (["views=3"], "there is no setting 'views'"),
    ],
)
def test_complete_refuses_invalid_settings(
    made: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["complete", str(made), *words]) == 2
    assert message in capsys.readouterr().err


def test_a_policy_without_choice_is_refused() -> None:
    with pytest.raises(ValueError, match=r"auto\.candidates: want more than 0, got 0"):
        AutopilotPolicy(candidates=0)
    with pytest.raises(ValueError, match=r"auto\.angle_deg: want degrees from 0 to 180"):
        AutopilotPolicy(angle_deg=181.0)


def test_the_defaults_of_the_settings_are_those_of_the_policy() -> None:
    settings = compose_config("explore", ["path=auto"]).auto
    assert {key: value for key, value in settings.items() if key != "_target_"} == vars(AutopilotPolicy())
