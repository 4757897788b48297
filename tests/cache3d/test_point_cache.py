"""Points: what z-buffered discs must show and must leave open."""

from __future__ import annotations

import torch
from torch import Tensor

from cache3d.point_cache import PointCache
from geometry.camera import Camera
from geometry.frame import Frame, Guide
from tests.helpers import BACK_WALL, cameras_at, chunk_of, pillar_before_wall, pose_at

SIZE = (40, 64)
SKYLINE = -0.5  # upper edge of the wall (y points down)


def camera_at(x: float = 0.0, z: float = 0.0, yaw_deg: float = 0.0) -> Camera:
    return cameras_at(pose_at(x, 0.0, z, yaw_deg), size=SIZE)


def low_wall(camera: Camera) -> tuple[Frame, Tensor]:
    return pillar_before_wall(camera, SKYLINE)


def seen_from(*cameras: Camera) -> PointCache:
    cache = PointCache()
    for index, camera in enumerate(cameras):
        frame, _ = low_wall(camera)
        cache.integrate(chunk_of(frame, index))
    return cache


def shows_pillar(guide: Guide) -> Tensor:
    return (guide.depth[0, 0] < 0.8 * BACK_WALL) & (guide.sky[0, 0] < 0.5)


def test_points_render_the_photo_pixel_by_pixel() -> None:
    frame, _ = low_wall(camera_at())
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
        _, pillar = low_wall(camera_at(x))
        rendered = shows_pillar(cache.render(camera_at(x)))
        widths = rendered.sum(-1) - pillar.sum(-1)
        assert widths.float().mean().abs() < 0.5


def test_background_does_not_show_through_a_surface() -> None:
    cache = seen_from(camera_at(), camera_at(0.6), camera_at(-0.6))
    for x, z, yaw_deg in ((0.13, 0.21, 3.0), (-0.2, 0.4, -5.0), (0.07, 0.1, 2.0), (0.0, 0.6, 0.0)):
        camera = camera_at(x, z, yaw_deg)
        _, pillar = low_wall(camera)
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
    frame, _ = low_wall(beside)
    error = [(c.render(beside).rgb - frame.rgb).abs().mean() for c in (seen_from(far), cache)]
    assert error[1] < 0.7 * error[0]
    # The photo comes back as it was, and a look from the same place adds nothing.
    photo, _ = low_wall(far)
    changed = (cache.render(far).rgb - photo.rgb).abs().amax(1) > 0.05
    assert changed.float().mean() < 0.01
    before = len(cache)
    for camera in (far, near):
        again, _ = low_wall(camera)
        cache.integrate(chunk_of(again, 2))
    assert len(cache) < 1.01 * before


def test_generated_frames_add_no_points_to_observed_surfaces() -> None:
    cache = seen_from(camera_at())
    before = len(cache)
    frame, _ = low_wall(camera_at(z=0.3))
    cache.integrate(chunk_of(frame, 1, observed=False))
    assert len(cache) < 1.05 * before
