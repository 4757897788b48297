"""Splines through keyframes, and presets as their viewer sees them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from geometry.camera import Camera
from geometry.se3 import exp
from geometry.trajectory.expressions import parse_path_expression, preset
from geometry.trajectory.path_text import PRESETS
from geometry.trajectory.spline import CameraSpline, Keyframe, keyframes_of

SIZE = (60, 100)
LEFT, RIGHT, ABOVE, BELOW = (-0.2, 0.0, 1.0), (0.2, 0.0, 1.0), (0.0, -0.2, 1.0), (0.0, 0.2, 1.0)


def pose(x: float = 0.0, y: float = 0.0, z: float = 0.0, turn: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Tensor:
    transform = exp(torch.tensor([0.0, 0.0, 0.0, *turn]))
    transform[:3, 3] = torch.tensor([x, y, z])
    return transform


def pixels(camera: Camera, point: tuple[float, float, float]) -> Tensor:
    """Where each camera ``[t]`` sees a world point, ``[t 2]``; the point must stay in front."""
    seen = (camera.camera_from_world.double() @ torch.tensor([*point, 1.0], dtype=torch.float64))[..., :3]
    assert (seen[..., 2] > 0.0).all()
    image = camera.intrinsics.double() @ seen[..., None]
    return (image[..., :2, 0] / image[..., 2:, 0]).squeeze(-1)


def moved(
    name: str, point: tuple[float, float, float] = (0.0, 0.0, 1.0), angle_deg: float | None = None
) -> tuple[float, float]:
    """By how many pixels a point moves from the first to the last frame: (right, down)."""
    seen = pixels(preset(name, size=SIZE, fov_deg=60.0, angle_deg=angle_deg), point)
    dx, dy = (seen[-1] - seen[0]).tolist()
    return dx, dy


# --- splines ---------------------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.tuples(*[st.floats(-1, 1, width=32)] * 6, st.floats(0.1, 3.0), st.floats(20, 100)), min_size=2, max_size=6
    )
)
def test_a_spline_passes_through_its_keys(rows: list[tuple[float, ...]]) -> None:
    time_s, keys = 0.0, []
    for *values, step, fov in rows:
        time_s += step
        x, y, z, a, b, c = values
        keys.append(Keyframe(time_s, pose(x, y, z, (a, b, c)), fov_deg=fov))
    spline = CameraSpline(keys, SIZE)
    cameras = spline.at(torch.tensor([key.time_s for key in keys], dtype=torch.float64).numpy())
    torch.testing.assert_close(
        cameras.world_from_camera, torch.stack([k.world_from_camera for k in keys]), atol=2e-5, rtol=0
    )
    torch.testing.assert_close(cameras.fov_deg[:, 0], torch.tensor([k.fov_deg for k in keys]), atol=1e-3, rtol=0)
    ends = spline.sample(5)
    torch.testing.assert_close(ends.position[[0, -1]], cameras.position[[0, -1]])


def test_two_keys_make_a_straight_even_path() -> None:
    camera = CameraSpline([Keyframe(1.0, pose(), 60.0), Keyframe(3.0, pose(x=1.0), 60.0)], SIZE).sample(5)
    torch.testing.assert_close(camera.position[:, 0], torch.linspace(0, 1, 5))
    assert len(camera) == 5
    assert camera.size == SIZE


def bend() -> list[Keyframe]:
    places = [(0.0, 0.0, 0.0), (1.0, 0.2, 0.5), (1.2, -0.4, 2.0), (0.0, 0.0, 2.5)]
    times = [0.0, 0.5, 2.0, 2.6]
    return [Keyframe(t, pose(*p, turn=(0.2 * t, -0.5 * t, 0.1)), 60.0) for t, p in zip(times, places, strict=True)]


def test_velocity_and_acceleration_are_continuous_at_keys() -> None:
    spline = CameraSpline(bend(), SIZE)
    for key in (0.5, 2.0):
        h = 0.01
        t = key + h * torch.arange(-3, 4, dtype=torch.float64).numpy()
        forward = spline.at(t).world_from_camera.double()
        columns = forward[:, :3, [2, 3]]  # viewing direction and position
        before = (columns[3] - 2 * columns[2] + columns[1]) / h**2
        after = (columns[5] - 2 * columns[4] + columns[3]) / h**2
        assert (before - after).abs().max() < 0.6  # a jump of velocity by 1 would show as 100


def test_focal_length_moves_smoothly_and_stays_positive() -> None:
    keys = [Keyframe(float(i), pose(x=i), fov) for i, fov in enumerate([170.0, 170.0, 5.0, 170.0, 170.0])]
    assert (CameraSpline(keys, SIZE).sample(200).focal_px > 0.0).all()


def test_constant_speed_is_constant_and_the_default_is_not() -> None:
    def steps(constant_speed: bool) -> Tensor:
        keys = [Keyframe(k.time_s, pose(*k.world_from_camera[:3, 3].tolist()), 60.0) for k in bend()]
        return CameraSpline(keys, SIZE, constant_speed).sample(400).position.diff(dim=0).norm(dim=-1)

    even = steps(True)
    assert (even.max() / even.min()).item() < 1.01
    assert (steps(False).max() / steps(False).min()).item() > 1.5


def test_constant_speed_of_a_turn_on_the_spot_and_of_no_motion() -> None:
    turn = [Keyframe(t, pose(turn=(0.0, a, 0.0)), 60.0) for t, a in [(0.0, 0.0), (1.0, 0.6), (3.0, 1.0)]]
    forward = CameraSpline(turn, SIZE, constant_speed=True).sample(11).world_from_camera[:, :3, 2]
    steps = (forward[1:] * forward[:-1]).sum(-1).clamp(-1, 1).acos()
    assert (steps.max() / steps.min()).item() < 1.05
    zoom = [Keyframe(0.0, pose(), 60.0), Keyframe(1.0, pose(), 30.0)]
    assert CameraSpline(zoom, SIZE, constant_speed=True).sample(3).fov_deg[-1, 0].item() == pytest.approx(
        30.0, abs=1e-3
    )


def test_cameras_as_keyframes_come_back() -> None:
    camera = CameraSpline(bend(), SIZE).sample(6)
    again = CameraSpline(keyframes_of(camera), SIZE).sample(6)
    torch.testing.assert_close(again.world_from_camera, camera.world_from_camera, atol=1e-5, rtol=0)
    torch.testing.assert_close(again.focal_px, camera.focal_px)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ([], "keyframes: want 2 or more poses, got 0"),
        ([Keyframe(0.0, pose(), 60.0)], "keyframes: want 2 or more poses, got 1"),
        ([Keyframe(0.0, pose(), 60.0), Keyframe(0.0, pose(x=1), 60.0)], r"keyframes\[1\]\.time_s: .*the same time as"),
        ([Keyframe(1.0, pose(), 60.0), Keyframe(0.0, pose(x=1), 60.0)], r"keyframes\[1\]\.time_s: .*earlier"),
        ([Keyframe(0.0, pose(), 60.0), Keyframe(math.nan, pose(), 60.0)], r"keyframes\[1\]\.time_s: .*finite"),
        ([Keyframe(0.0, pose(x=math.nan), 60.0), Keyframe(1.0, pose(), 60.0)], r"keyframes\[0\]\.world_from.*NaN"),
        ([Keyframe(0.0, pose(), 60.0), Keyframe(1.0, 2 * pose(), 60.0)], r"keyframes\[1\]\.world_from_camera: "),
        ([Keyframe(0.0, pose(), 60.0), Keyframe(1.0, pose() * torch.tensor([-1.0, 1, 1, 1]), 60.0)], r"\[1\].*handed"),
        ([Keyframe(0.0, pose(), 60.0), Keyframe(1.0, pose(), 180.0)], r"keyframes\[1\]\.fov_deg"),
        ([Keyframe(0.0, pose(), 60.0), Keyframe(1.0, pose())], r"keyframes\[1\]: want exactly one of"),
        ([Keyframe(0.0, pose(), focal_px=(0.0, 1.0)), Keyframe(1.0, pose(), 60.0)], r"keyframes\[0\]\.focal_px"),
        (
            [Keyframe(0.0, pose(), 60.0, center_px=(math.nan, 1.0)), Keyframe(1.0, pose(), 60.0)],
            r"keyframes\[0\]\.center_px",
        ),
    ],
)
def test_bad_keyframes_are_refused_by_name(keys: list[Keyframe], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CameraSpline(keys, SIZE)


def test_one_frame_is_not_a_path() -> None:
    with pytest.raises(ValueError, match="frames: want 2 or more, got 1"):
        CameraSpline(bend(), SIZE).sample(1)


# --- presets, from the viewer's side ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_starts_at_the_photo_at_rest_and_without_jerks(name: str) -> None:
    camera = preset(name, size=SIZE, fov_deg=60.0)
    assert len(camera) == PRESETS[name].frames
    torch.testing.assert_close(camera.world_from_camera[0], torch.eye(4))
    torch.testing.assert_close(camera.fov_deg[0, 0], torch.tensor(60.0), atol=1e-3, rtol=0)
    rotation = camera.world_from_camera[:, :3, :3]
    torch.testing.assert_close(
        rotation.transpose(-1, -2) @ rotation, torch.eye(3).expand_as(rotation), atol=1e-5, rtol=0
    )
    points = [(0.4, 0.3, 2.0), (-0.4, 0.0, 2.0), (0.1, -0.3, 1.2)]
    track = torch.cat([pixels(camera, point) for point in points], -1)
    speed = track.diff(dim=0).abs().amax(-1)
    assert speed.max() > 0.05  # something moves
    assert max(speed[0], speed[-1]) < 0.02 * speed.max()
    assert track.diff(n=2, dim=0).abs().max() < 0.5 * speed.max()


@pytest.mark.parametrize("name", sorted(set(PRESETS) - {"pan", "tilt", "roll", "look_around"}))
def test_nothing_else_turns_on_the_spot(name: str) -> None:
    assert preset(name, size=SIZE, fov_deg=60.0).position.norm(dim=-1).max() > 0.1


@pytest.mark.parametrize("name", ["pan", "tilt", "roll", "look_around"])
def test_turns_stay_on_the_spot(name: str) -> None:
    assert preset(name, size=SIZE, fov_deg=60.0).position.abs().max() == 0.0


def test_translations_have_the_camera_directions() -> None:
    assert moved("left")[0] > 5  # the camera goes left: things go right
    assert moved("right")[0] < -5
    assert moved("up")[1] > 5
    assert moved("down")[1] < -5
    assert moved("forward", RIGHT)[0] > 2  # things spread from the middle
    assert moved("forward", ABOVE)[1] < -2
    assert moved("back", RIGHT)[0] < -2
    assert moved("left")[1] == pytest.approx(0.0, abs=1e-9)


def test_near_things_move_more_than_far_ones() -> None:
    near, far = (moved("left", (0.0, 0.0, z))[0] for z in (1.0, 50.0))
    assert near > 10 * far > 0
    near, far = (abs(moved("pan", (0.0, 0.0, z))[0]) for z in (1.0, 50.0))
    assert near == pytest.approx(far)


def test_rotations_have_the_camera_directions() -> None:
    assert moved("pan")[0] < -5  # the view goes right: things go left
    assert moved("pan", angle_deg=-20.0)[0] > 5
    assert moved("tilt")[1] > 5  # the view goes up: things go down
    assert moved("tilt", angle_deg=-10.0)[1] < -5
    assert moved("roll", RIGHT)[1] < -2  # the camera turns clockwise: the picture the other way, its right side up
    assert moved("roll", ABOVE)[0] < -2
    exact = 50.0 / math.tan(math.radians(30.0)) * math.tan(math.radians(20.0))
    assert moved("pan", angle_deg=20.0)[0] == pytest.approx(-exact, abs=1e-3)


@pytest.mark.parametrize("name", ["orbit", "arc"])
def test_circles_keep_their_subject_in_the_middle_and_at_its_distance(name: str) -> None:
    camera = preset(name, size=SIZE, fov_deg=60.0, distance=1.5)
    subject = torch.tensor([0.0, 0.0, 1.5])
    torch.testing.assert_close(
        pixels(camera, (0.0, 0.0, 1.5)), torch.tensor([[50.0, 30.0]]).double().expand(49, 2), atol=1e-4, rtol=0
    )
    torch.testing.assert_close((camera.position - subject).norm(dim=-1), torch.full((49,), 1.5))


def test_orbit_goes_to_the_right_by_its_angle() -> None:
    camera = preset("orbit", size=SIZE, fov_deg=60.0, angle_deg=90.0, distance=2.0)
    torch.testing.assert_close(camera.position[-1], torch.tensor([2.0, 0.0, 2.0]))
    torch.testing.assert_close(camera.world_from_camera[-1, :3, 2], torch.tensor([-1.0, 0.0, 0.0]), atol=1e-6, rtol=0)
    assert moved("orbit", (0.0, 0.0, 3.0))[0] > 2  # what is behind the subject goes with the camera's side
    assert moved("orbit", (0.0, 0.0, 0.8))[0] < -2
    assert preset("orbit", size=SIZE, fov_deg=60.0, angle_deg=-90.0).position[-1, 0] < 0


def test_arc_goes_both_ways_and_returns() -> None:
    x = preset("arc", size=SIZE, fov_deg=60.0).position[:, 0]
    assert x.argmax() < x.argmin()
    torch.testing.assert_close(x.max(), -x.min())
    assert x[-1].abs() < 1e-6


def test_spiral_goes_round_faces_its_subject_and_returns() -> None:
    camera = preset("spiral", size=SIZE, fov_deg=60.0)
    torch.testing.assert_close(
        pixels(camera, (0.0, 0.0, 1.0)), torch.tensor([[50.0, 30.0]]).double().expand(49, 2), atol=1e-4, rtol=0
    )
    assert camera.position[-1].norm() < 1e-6
    assert camera.position.norm(dim=-1).max().item() == pytest.approx(0.2, abs=0.01)
    angle = torch.atan2(camera.position[1:-1, 1], camera.position[1:-1, 0])
    assert torch.remainder(angle.diff(), 2 * math.pi).sum().item() == pytest.approx(2 * math.pi, abs=0.1)
    assert camera.world_from_camera[:, 1, 0].abs().max() < 1e-6  # the horizon stays level


def test_dolly_zoom_keeps_the_subject_and_changes_what_is_behind() -> None:
    camera = preset("dolly_zoom", size=SIZE, fov_deg=50.0, distance=2.0, angle_deg=30.0)
    assert camera.fov_deg[-1, 0].item() == pytest.approx(80.0, abs=1e-3)
    assert camera.position[-1, 2] > 0.3
    seen = pixels(camera, (0.3, 0.2, 2.0))
    torch.testing.assert_close(seen, seen[:1].expand_as(seen), atol=1e-3, rtol=0)
    behind = pixels(camera, (0.3, 0.2, 6.0))
    assert behind[-1, 0] < behind[0, 0] - 1  # shrinks towards the middle
    assert preset("dolly_zoom", size=SIZE, fov_deg=60.0, angle_deg=-20.0).position[-1, 2] < -0.2


def test_look_around_looks_to_both_sides_and_returns() -> None:
    camera = preset("look_around", size=SIZE, fov_deg=60.0)
    heading_deg = torch.rad2deg(torch.atan2(camera.world_from_camera[:, 0, 2], camera.world_from_camera[:, 2, 2]))
    assert heading_deg.max().item() == pytest.approx(20.0, abs=0.5)
    assert heading_deg.argmax() < heading_deg.argmin()
    torch.testing.assert_close(camera.world_from_camera[-1], torch.eye(4), atol=1e-6, rtol=0)


def test_fly_through_looks_where_it_goes() -> None:
    camera = preset("fly_through", size=SIZE, fov_deg=60.0, frames=400)
    steps = torch.nn.functional.normalize(camera.position.double().diff(dim=0)[50:-50], dim=-1)
    looks = camera.world_from_camera[50:-51, :3, 2].double()
    assert (steps * looks).sum(-1).min() > 0.9995
    assert (camera.position.diff(dim=0)[:, 2] >= 0).all()
    assert camera.position[-1, 2].item() == pytest.approx(0.8)


def test_out_and_back_returns_by_the_same_way() -> None:
    position = preset("out_and_back", size=SIZE, fov_deg=60.0, distance=0.5).position
    torch.testing.assert_close(position, position.flip(0), atol=1e-6, rtol=0)
    assert position[24, 2].item() == pytest.approx(0.5)


# --- expressions -----------------------------------------------------------------------------------------------------


def path(text: str, frames: int | None = None) -> Camera:
    return parse_path_expression(text, size=SIZE, fov_deg=60.0, frames=frames)


def test_parameters_in_an_expression_are_the_presets() -> None:
    written = path("orbit:angle_deg=40:distance=2:frames=9")
    called = preset("orbit", size=SIZE, fov_deg=60.0, frames=9, distance=2.0, angle_deg=40.0)
    assert torch.equal(written.world_from_camera, called.world_from_camera)
    assert path(" forward : distance=0.2 ").position[-1, 2].item() == pytest.approx(0.2)


def test_moves_at_the_same_time() -> None:
    both = path("forward+pan")
    torch.testing.assert_close(both.position, path("forward").position)
    torch.testing.assert_close(both.world_from_camera[:, :3, :3], path("pan").world_from_camera[:, :3, :3])
    inward = path("orbit+forward:distance=0.5")
    target = torch.tensor([0.0, 0.0, 1.0])
    assert (inward.position[-1] - target).norm().item() == pytest.approx(0.5, abs=1e-5)
    torch.testing.assert_close(
        pixels(inward, (0.0, 0.0, 1.0))[-1], torch.tensor([50.0, 30.0]).double(), atol=1e-3, rtol=0
    )


def test_moves_one_after_the_other() -> None:
    camera = path("pan:angle_deg=90:frames=11,forward:distance=2:frames=21")
    assert len(camera) == 31  # the legs share the frame in which they meet
    assert camera.position[10].abs().max() == 0.0
    torch.testing.assert_close(camera.position[-1], torch.tensor([2.0, 0.0, 0.0]))  # ahead is now to the right
    left = math.tan(math.radians(30)) / math.tan(math.radians(40))  # of the way to the subject
    zoomed = path(f"dolly_zoom,dolly_zoom:angle_deg=-20:distance={left}")
    torch.testing.assert_close(zoomed.world_from_camera[-1], torch.eye(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(zoomed.focal_px[-1], zoomed.focal_px[0])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(2, 60), min_size=1, max_size=5), st.integers(0, 200))
def test_the_total_number_of_frames_is_kept(legs: list[int], extra: int) -> None:
    text = ",".join(f"forward:frames={n}" for n in legs)
    assert len(path(text)) == sum(legs) - len(legs) + 1
    camera = path(text, frames=len(legs) + 1 + extra)
    assert len(camera) == len(legs) + 1 + extra
    assert camera.position[-1, 2].item() == pytest.approx(0.35 * len(legs), abs=1e-4)


def test_a_path_can_start_anywhere_with_any_lens() -> None:
    start = Camera(
        pose(1.0, 2.0, 3.0, (0.0, math.pi / 2, 0.0)), torch.tensor([40.0, 44.0]), torch.tensor([9.0, 8.0]), (30, 50)
    )
    camera = preset("forward", size=SIZE, start=start, distance=1.0)
    torch.testing.assert_close(camera.position[-1], torch.tensor([2.0, 2.0, 3.0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(camera.focal_px[0], torch.tensor([80.0, 88.0]))
    torch.testing.assert_close(camera.center_px[-1], torch.tensor([18.0, 16.0]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("orbot", "did you mean orbit"),
        ("xyzzy", "choose from forward, back"),
        ("", "neither a preset"),
        ("forward,,orbit", "neither a preset"),
        ("forward+", "neither a preset"),
        ("pan:distance=1", "pan has no distance"),
        ("forward:angle_deg=1", "forward has no angle_deg"),
        ("forward:speed=1", "'speed=1'"),
        ("forward:distance", "'distance'"),
        ("forward:distance=far", "want a number for distance of forward, got 'far'"),
        ("forward:distance=nan", "finite number"),
        ("forward:frames=2.5", "whole number for frames"),
        ("forward:frames=1", "frames: want 2 or more"),
        ("forward:distance=1:distance=2", "sets distance twice"),
        ("orbit:distance=0", "distance: want the depth of the subject"),
        ("dolly_zoom:distance=-1", "distance: want the depth of the subject"),
        ("dolly_zoom:angle_deg=150", "angle_deg: want a dolly_zoom"),
        ("fly_through:angle_deg=85", "angle_deg: want a heading"),
    ],
)
def test_bad_expressions_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        path(text)


def test_too_few_frames_no_lens_and_a_batched_start_are_refused() -> None:
    with pytest.raises(ValueError, match="frames: want 3 or more"):
        path("forward,orbit", frames=2)
    with pytest.raises(ValueError, match="fov_deg: want"):
        preset("forward", size=SIZE)
    with pytest.raises(ValueError, match="start: want one camera"):
        preset("forward", size=SIZE, start=path("forward"))
