"""Points: what z-buffered discs must show and must leave open."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cache3d.point_cache import PointCache
from geometry.camera import Camera
from geometry.frame import Chunk, Frame, Guide

SIZE = (40, 64)
PILLAR = (-0.35, 0.25, 1.2)  # left, right, depth
WALL, SKYLINE = 2.5, -0.5  # the wall's depth, and its upper edge (y points down)


def camera_at(x: float = 0.0, z: float = 0.0, yaw_deg: float = 0.0) -> Camera:
    yaw = math.radians(yaw_deg)
    pose = torch.eye(4)
    pose[0, 0], pose[0, 2], pose[2, 0], pose[2, 2] = math.cos(yaw), math.sin(yaw), -math.sin(yaw), math.cos(yaw)
    pose[0, 3], pose[2, 3] = x, z
    return Camera.from_fov(60.0, SIZE, pose[None])


def look(camera: Camera) -> tuple[Frame, Tensor]:
    """A pillar before a low wall under the sky, and where the pillar is ``[h w]``."""
    rows, columns = torch.meshgrid(torch.arange(SIZE[0]) + 0.5, torch.arange(SIZE[1]) + 0.5, indexing="ij")
    ray = torch.stack([columns, rows, torch.ones_like(rows)], -1)
    ray[..., :2] = (ray[..., :2] - camera.center_px[0]) / camera.focal_px[0]
    pose = camera.world_from_camera[0]
    world = ray @ pose[:3, :3].T
    near, far = ((distance - pose[2, 3]) / world[..., 2] for distance in (PILLAR[2], WALL))
    across = pose[0, 3] + near * world[..., 0]
    pillar = (across > PILLAR[0]) & (across < PILLAR[1])
    sky = ~pillar & (pose[1, 3] + far * world[..., 1] < SKYLINE)
    depth = torch.where(pillar, near, far)
    point = pose[:3, 3] + depth[..., None] * world
    rgb = torch.stack([torch.sin(9.0 * point[..., k % 2] + k) for k in range(3)]) * 0.2 + 0.3 + 0.4 * pillar
    rgb = torch.where(sky, torch.tensor([0.1, 0.2, 0.9])[:, None, None], rgb)
    depth = torch.where(sky, torch.full_like(depth, 100.0), depth)
    valid = torch.ones(1, 1, *SIZE, dtype=torch.bool)
    return Frame(rgb[None], depth[None, None], valid, sky[None, None], camera), pillar


def seen_from(*cameras: Camera) -> PointCache:
    cache = PointCache()
    for index, camera in enumerate(cameras):
        frame, _ = look(camera)
        cache.integrate(Chunk(frame, index, observed=True, confidence=torch.ones_like(frame.depth)))
    return cache


def shows_pillar(guide: Guide) -> Tensor:
    return (guide.depth[0, 0] < 0.8 * WALL) & (guide.sky[0, 0] < 0.5)


def test_points_render_the_photo_pixel_by_pixel() -> None:
    frame, _ = look(camera_at())
    guide = seen_from(camera_at()).render(camera_at())
    assert torch.equal(guide.rgb, frame.rgb)
    assert torch.allclose(guide.depth, frame.depth, rtol=1e-5)
    assert torch.equal(guide.sky > 0.5, frame.sky)
    assert guide.confidence.min() > 0.99


def test_confidence_falls_at_outlines_off_the_pixel_centers() -> None:
    guide = seen_from(camera_at()).render(camera_at(x=0.03))
    near = shows_pillar(guide).float()[None, None]
    near = torch.nn.functional.max_pool2d(near, 3, 1, 1) + torch.nn.functional.max_pool2d(1.0 - near, 3, 1, 1)
    outline, inside = near[0, 0] > 1.5, near[0, 0] < 1.5
    ground = (guide.sky[0, 0] < 0.5) & (guide.coverage[0, 0] > 0.5)
    confidence = guide.confidence[0, 0]
    assert confidence[ground & inside].median() > 0.95
    assert confidence[ground & outline].median() < 0.85


def test_foreground_does_not_grow_over_background() -> None:
    cache = seen_from(camera_at(), camera_at(0.4), camera_at(-0.4))
    for x in (-0.25, -0.1, 0.15, 0.3):
        _, pillar = look(camera_at(x))
        rendered = shows_pillar(cache.render(camera_at(x)))
        widths = rendered.sum(-1) - pillar.sum(-1)
        assert widths.float().mean().abs() < 0.5


def test_background_does_not_show_through_a_surface() -> None:
    cache = seen_from(camera_at(), camera_at(0.6), camera_at(-0.6))
    for x, z, yaw_deg in ((0.13, 0.21, 3.0), (-0.2, 0.4, -5.0), (0.07, 0.1, 2.0), (0.0, 0.6, 0.0)):
        camera = camera_at(x, z, yaw_deg)
        _, pillar = look(camera)
        inner = torch.zeros_like(pillar)
        inner[:, 2:-2] = pillar[:, 2:-2] & pillar[:, :-4] & pillar[:, 4:]
        assert shows_pillar(cache.render(camera))[inner].float().mean() > 0.98


def test_unobserved_regions_stay_uncovered() -> None:
    guide = seen_from(camera_at()).render(camera_at(0.5))
    open_share = (guide.coverage == 0).float().mean()
    assert 0.05 < open_share < 0.5
    assert (guide.confidence[guide.coverage == 0] == 0).all()
    assert (guide.rgb[(guide.coverage == 0).expand_as(guide.rgb)] == 0).all()


def test_a_closer_frame_adds_finer_points() -> None:
    far, near = camera_at(), camera_at(z=0.8)
    cache, beside = seen_from(far, near), camera_at(x=0.013, z=0.8)
    frame, _ = look(beside)
    error = [(c.render(beside).rgb - frame.rgb).abs().mean() for c in (seen_from(far), cache)]
    assert error[1] < 0.7 * error[0]
    # The photo comes back as it was, and a look from the same place adds nothing.
    photo, _ = look(far)
    changed = (cache.render(far).rgb - photo.rgb).abs().amax(1) > 0.05
    assert changed.float().mean() < 0.01
    before = len(cache)
    for camera in (far, near):
        again, _ = look(camera)
        cache.integrate(Chunk(again, 2, observed=True, confidence=torch.ones_like(again.depth)))
    assert len(cache) < 1.01 * before


def test_generated_frames_add_no_points_to_observed_surfaces() -> None:
    cache = seen_from(camera_at())
    before = len(cache)
    frame, _ = look(camera_at(z=0.3))
    cache.integrate(Chunk(frame, 1, observed=False, confidence=torch.ones_like(frame.depth)))
    assert len(cache) < 1.05 * before
