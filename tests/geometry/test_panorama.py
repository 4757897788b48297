"""Panoramas from cube faces, and stereo pairs."""

from __future__ import annotations

import math

import pytest
import torch

from geometry.camera import Camera
from geometry.fill import background_fill, smooth_fill
from geometry.frame import Guide
from geometry.panorama import Panorama, panorama_rays, stereo_pair
from geometry.project import pixel_rays, project
from tests.helpers import pose_at

SIZE = (64, 128)


def sphere(camera: Camera, radius: float = 3.0) -> Guide:
    """Cameras ``[t]`` in the middle of a sphere whose color tells the direction in the world."""
    rays = torch.cat([pixel_rays(camera[0], torch.zeros(1)), torch.ones(1, *camera.size)])
    lengths = rays.norm(dim=0, keepdim=True)
    world = torch.einsum("tij,jhw->tihw", camera.world_from_camera[:, :3, :3], rays / lengths)
    depth = (radius / lengths)[None].expand(len(camera), -1, -1, -1)
    ones = torch.ones_like(depth)
    return Guide(0.5 + 0.5 * world, depth, ones, ones, torch.zeros_like(depth), camera)


@pytest.mark.parametrize("yaw_deg", [0.0, 70.0])
def test_a_panorama_shows_each_direction_where_it_is(yaw_deg: float) -> None:
    camera = Camera.from_fov(60.0, SIZE, pose_at(1.0, 2.0, 3.0, yaw_deg))
    panorama = Panorama.of(SIZE)
    shown = panorama.look_up(sphere(panorama.faces(camera)), camera)
    rays = panorama_rays(SIZE) @ camera.world_from_camera[:3, :3].T
    assert (shown.rgb[0] - (0.5 + 0.5 * rays.permute(2, 0, 1))).abs().max() < 0.01
    assert (shown.depth / 3.0 - 1.0).abs().max() < 0.05  # along the ray, and not along the axis of a face
    assert shown.coverage.min() > 0.999


def test_the_middle_of_a_panorama_is_ahead_and_its_right_half_to_the_right() -> None:
    rays = panorama_rays(SIZE)
    assert rays.norm(dim=-1) == pytest.approx(torch.ones(SIZE), abs=1e-5)
    ahead, right, top = rays[32, 64], rays[32, 96], rays[0, 64]
    assert ahead[2] > 0.99
    assert right[0] > 0.99
    assert top[1] < -0.99  # y points down


def test_a_panorama_keeps_what_is_unknown_unknown() -> None:
    camera, panorama = Camera.from_fov(60.0, SIZE, torch.eye(4)), Panorama.of(SIZE)
    guide = sphere(panorama.faces(camera))
    guide.coverage[1:] = 0.0  # the face ahead alone is seen
    shown = panorama.look_up(guide, camera)
    seen = panorama_rays(SIZE)[..., 2] > math.sin(math.radians(50.0))
    assert shown.coverage[0, 0][seen].min() > 0.999
    assert (shown.depth[0, 0][shown.coverage[0, 0] < 0.5] == 0.0).all()
    assert 0.1 < shown.coverage.mean() < 0.25


def test_eyes_meet_at_the_screen_and_what_is_before_it_comes_out() -> None:
    camera = Camera.from_fov(60.0, SIZE, torch.eye(4)[None])
    left, right = stereo_pair(camera, 0.1, 2.0)
    points = torch.tensor([[[0.3, 0.2, 2.0], [0.3, 0.2, 1.0], [0.3, 0.2, 9.0]]])
    (left_px, _), (right_px, _) = project(points, left), project(points, right)
    parallax = (right_px - left_px)[0, :, 0]
    assert parallax[0] == pytest.approx(0.0, abs=1e-4)
    assert parallax[1] < 0.0 < parallax[2]
    assert (left_px - right_px)[0, :, 1].abs().max() < 1e-4
    assert left.position[0, 0] < 0.0 < right.position[0, 0]


def test_a_hole_beside_foreground_is_filled_from_behind_it() -> None:
    rgb, depth = torch.zeros(1, 3, 60, 200), torch.ones(1, 1, 60, 200)
    rgb[..., 100:], depth[..., 100:] = 1.0, 10.0  # black foreground on the left, white background on the right
    known = torch.ones_like(depth, dtype=torch.bool)
    known[..., 96:104] = False
    filled = background_fill(rgb, depth, known)
    assert filled[..., 96:104].min() > 0.8 > smooth_fill(rgb, known)[..., 96:99].max()
    assert filled[..., :96].equal(rgb[..., :96])
    alone = background_fill(rgb[..., :99], depth[..., :99], known[..., :99])  # nothing else is there
    assert alone[..., 96:].max() < 0.01


def test_the_kernels_fill_from_behind_as_the_tensor_operations_do() -> None:
    rng = torch.Generator().manual_seed(0)
    rgb, depth = torch.rand(2, 3, 75, 101, generator=rng), 0.1 + 3.0 * torch.rand(2, 1, 75, 101, generator=rng)
    known = torch.rand(2, 1, 75, 101, generator=rng) > 0.4
    known[:, :, 20:50, 30:80] = False
    exact = background_fill(rgb.double(), depth.double(), known)
    torch.testing.assert_close(background_fill(rgb, depth, known), exact.float(), rtol=0.0, atol=2e-6)
