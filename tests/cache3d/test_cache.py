"""The world cache: what it shows, what it adds, what it never does."""

from __future__ import annotations

import math
from copy import copy
from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import avg_pool2d

from cache3d.gaussian_cache import GaussianCache
from cache3d.integration.policy import DEFAULT_POLICY
from cache3d.integration.surfels import lift_surfels
from cache3d.point_cache import PointCache
from geometry.camera import Camera
from geometry.frame import Frame
from geometry.primitives import Gaussians
from geometry.se3 import matrix_from_quat, quat_from_matrix
from tests.helpers import cameras_at, chunk_of, pose_at, psnr, same_bits, textured_wall

SIZE = (48, 64)
CACHES = [GaussianCache, PointCache]


def with_sky(frame: Frame, rows: int) -> Frame:
    sky = frame.sky.clone()
    sky[..., :rows, :] = True
    return replace(frame, sky=sky, depth=torch.where(sky, torch.full_like(frame.depth, 200.0), frame.depth))


@pytest.mark.parametrize(("make", "least_db"), [(GaussianCache, 30.0), (PointCache, 24.0)])
def test_the_photo_is_rendered_back_from_its_camera(make: type[GaussianCache], least_db: float) -> None:
    cache = make()
    fine = cameras_at(pose_at(), size=(96, 128))
    photo = textured_wall(fine)
    cache.integrate(chunk_of(photo))
    guide = cache.render(fine.resized(SIZE))
    assert guide.rgb.shape == (1, 3, *SIZE)
    assert guide.coverage.min() > 0.95
    assert guide.confidence.min() > 0.9
    assert psnr(guide.rgb, avg_pool2d(photo.rgb, 2)) > least_db
    torch.testing.assert_close(guide.depth, avg_pool2d(photo.depth, 2), rtol=5e-3, atol=0)


def test_a_photo_at_frame_size_is_sharp() -> None:
    cache = GaussianCache()
    photo = textured_wall(cameras_at(pose_at()))
    cache.integrate(chunk_of(photo))
    assert psnr(cache.render(photo.camera).rgb, photo.rgb) > 30.0


@pytest.mark.parametrize("make", CACHES)
def test_another_view_agrees_with_the_scene(make: type[GaussianCache]) -> None:
    cache = make()
    cache.integrate(chunk_of(textured_wall(cameras_at(pose_at(), size=(96, 128)))))
    target = cameras_at(pose_at(x=0.3), pose_at(z=-0.4), pose_at(z=0.6), pose_at(yaw_deg=10))
    guide, truth = cache.render(target), textured_wall(target)
    seen = guide.coverage > 0.9
    assert seen.float().mean() > 0.6
    assert psnr(guide.rgb[seen.expand(-1, 3, -1, -1)], truth.rgb[seen.expand(-1, 3, -1, -1)]) > 25.0
    torch.testing.assert_close(guide.depth[seen], truth.depth[seen], rtol=0.02, atol=0)


@pytest.mark.parametrize("make", CACHES)
def test_surfaces_have_no_specks(make: type[GaussianCache]) -> None:
    cache = make()
    cache.integrate(chunk_of(textured_wall(cameras_at(pose_at(), size=(96, 128)))))
    for pose in (pose_at(z=1.2), pose_at(x=0.2, z=0.5), pose_at(x=-0.8, z=0.4, yaw_deg=25)):
        coverage = cache.render(cameras_at(pose)).coverage[0, 0]
        holes = coverage < 0.5
        # A hole reaches the border of the image: nothing inside the wall is missing.
        inside = holes[12:-12, 16:-16]
        assert not inside.any() or inside.float().mean() > 0.2


@pytest.mark.parametrize("make", CACHES)
def test_only_new_surfaces_add_primitives(make: type[GaussianCache]) -> None:
    cache = make()
    out = cameras_at(*(pose_at(x=0.15 * k) for k in range(6)))
    added = [cache.integrate(chunk_of(textured_wall(out[k : k + 1]), k)).added for k in range(6)]
    pixels = SIZE[0] * SIZE[1]
    assert added[0] == pixels
    assert all(0 < count < 0.2 * pixels for count in added[1:])
    back = [cache.integrate(chunk_of(textured_wall(out[k : k + 1]), 11 - k)).added for k in range(5, -1, -1)]
    assert sum(back) <= 0.02 * pixels


@pytest.mark.parametrize("make", CACHES)
def test_frames_of_a_chunk_are_integrated_in_order(make: type[GaussianCache]) -> None:
    plain = partial(GaussianCache, refine_steps=0) if make is GaussianCache else make
    together, apart = plain(), plain()
    frames = textured_wall(cameras_at(pose_at(), pose_at(x=0.4), pose_at(x=0.8)))
    once = together.integrate(chunk_of(frames))
    counts = [apart.integrate(chunk_of(frames[k : k + 1])) for k in range(3)]
    assert once.added == once.total == len(together) == sum(count.added for count in counts)
    assert [count.first for count in counts] == [0, counts[0].total, counts[1].total]
    assert same_bits(together.snapshot(), apart.snapshot())


@pytest.mark.parametrize("make", CACHES)
def test_back_sides_have_no_confidence_and_are_replaced(make: type[GaussianCache]) -> None:
    cache = make()
    cache.integrate(chunk_of(textured_wall(cameras_at(pose_at()))))
    turned = cameras_at(pose_at(z=4.0, yaw_deg=180.0))
    guide = cache.render(turned)
    assert (guide.coverage > 0.5).float().mean() > 0.9
    assert guide.confidence.max() < 0.05
    behind = textured_wall(turned)  # the other face of the wall, a little nearer
    behind = replace(behind, depth=behind.depth * 0.98)
    first = cache.integrate(chunk_of(behind, 1))
    assert first.added > 0.9 * SIZE[0] * SIZE[1]
    assert cache.integrate(chunk_of(behind, 2)).added < 0.05 * first.added
    assert cache.render(turned).confidence.median() > 0.9


@pytest.mark.parametrize("make", CACHES)
def test_generated_frames_never_cover_observed_surfaces(make: type[GaussianCache]) -> None:
    cache = make()
    photo = textured_wall(cameras_at(pose_at()))
    cache.integrate(chunk_of(photo))
    before, rgb = cache.snapshot(), cache.render(photo.camera).rgb
    nearer = replace(photo, depth=photo.depth * 0.6, rgb=1.0 - photo.rgb)
    result = cache.integrate(chunk_of(nearer, 1, observed=False, confidence=1.0))
    assert (result.added, result.refined) == (0, 0)
    assert same_bits(cache.snapshot(), before)
    assert torch.equal(cache.render(photo.camera).rgb, rgb)


@pytest.mark.parametrize("make", CACHES)
def test_a_surface_in_front_of_a_generated_one_is_added(make: type[GaussianCache]) -> None:
    cache = make()
    guess = textured_wall(cameras_at(pose_at()))
    cache.integrate(chunk_of(guess, observed=False, confidence=0.5))
    nearer = replace(guess, depth=guess.depth * 0.6, rgb=1.0 - guess.rgb)
    pixels = SIZE[0] * SIZE[1]
    assert cache.integrate(chunk_of(nearer, 1)).added == pixels
    assert psnr(cache.render(guess.camera).rgb, nearer.rgb) > 25.0
    farther = replace(guess, depth=guess.depth * 2.0)
    assert cache.integrate(chunk_of(farther, 2)).added == 0


@pytest.mark.parametrize("make", CACHES)
def test_a_more_confident_frame_blends_generated_colors_only(make: type[GaussianCache]) -> None:
    cache = make()
    frame = textured_wall(cameras_at(pose_at()))
    gray = replace(frame, rgb=torch.full_like(frame.rgb, 0.5))
    cache.integrate(chunk_of(gray, observed=False, confidence=0.3))
    before = cache.snapshot()
    result = cache.integrate(chunk_of(frame, 1, observed=False, confidence=0.8))
    after = cache.snapshot()
    assert result.added == 0
    assert result.refined > 0.9 * len(before)
    assert torch.equal(positions(before), positions(after))
    assert (after.confidence - before.confidence).mean() > 0.1
    assert psnr(cache.render(frame.camera).rgb, frame.rgb) > psnr(gray.rgb, frame.rgb) + 1.0
    for index in range(2, 30):
        cache.integrate(chunk_of(frame, index, observed=False, confidence=0.8))
    assert cache.integrate(chunk_of(frame, 30, observed=False, confidence=0.8)).refined == 0
    assert cache.snapshot().confidence.max() <= 0.8


@pytest.mark.parametrize("make", CACHES)
def test_sky_never_parallaxes_and_is_behind_everything(make: type[GaussianCache]) -> None:
    cache = make()
    camera = cameras_at(pose_at())
    cache.integrate(chunk_of(with_sky(textured_wall(camera), 20)))
    home = cache.render(camera)
    # Far away, far beyond the wall, and even beyond the distance of the sky itself.
    away = cache.render(cameras_at(pose_at(x=30.0), pose_at(z=50.0), pose_at(y=-20.0, z=500.0)))
    assert (home.sky[..., :19, :] > 0.99).all()
    for k in range(3):
        torch.testing.assert_close(away.rgb[k, :, :18], home.rgb[0, :, :18], atol=2e-2, rtol=0)
        assert (away.depth[k, :, :18] > 100).all()
    # From nearer, the wall's upper edge hides some of the sky.
    closer = cache.render(cameras_at(pose_at(y=0.5)))
    assert (closer.sky[..., 19, :] < 0.5).float().mean() > 0.9


def test_views_rendered_together_equal_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sky of cameras that only move is rasterized once, and again after the world has changed."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    size, cache, moves = (24, 32), GaussianCache(refine_steps=0), ((0.0, 0.0, 0.0), (0.0, 0.0, 0.3), (0.1, 0.0, 0.0))
    cameras = Camera.concatenate(
        [cameras_at(*moves, size=size), Camera.from_fov(60.0, size, pose_at(yaw_deg=9.0)[None])]
    )
    for index, rows in enumerate((10, 6)):
        camera = cameras_at((0.0, 0.0, 0.01 * index), size=size)
        cache.integrate(chunk_of(with_sky(textured_wall(camera), rows), index))
        together = cache.render(cameras)
        fresh = GaussianCache(refine_steps=0)
        fresh.load(cache.snapshot())
        for k in range(len(cameras)):
            assert same_bits(together[k : k + 1], fresh.render(cameras[k : k + 1]))
            fresh.load(cache.snapshot())


@pytest.mark.parametrize("samples", [1, 2])
def test_what_is_for_eyes_alone_has_the_same_bits(samples: int) -> None:
    """Cameras that move and turn, then the same ones again, where the sky is kept; and after a change."""
    cache = GaussianCache()
    cache.integrate(chunk_of(with_sky(textured_wall(cameras_at(pose_at(), size=(96, 128))), 30)))
    cameras = cameras_at(pose_at(), pose_at(x=0.1), pose_at(x=0.1, z=0.3), pose_at(z=0.2, yaw_deg=30), size=SIZE)
    names = ("rgb", "depth", "coverage", "sky")
    for _ in range(2):
        for views in (cameras, cameras[:1]):
            whole, shown = cache.render(views, samples), cache.show(views, samples)
            assert 0.1 < whole.sky.mean() < 0.9
            assert all(same_bits(getattr(whole, name), getattr(shown, name)) for name in names)
        cache.integrate(chunk_of(with_sky(textured_wall(cameras_at(pose_at(yaw_deg=30), size=SIZE)), 20), 1))
    assert not GaussianCache().show(cameras).coverage.any()


def test_outlines_do_not_fray_into_the_sky() -> None:
    camera = cameras_at(pose_at())
    frame = with_sky(textured_wall(camera), 20)
    frame = replace(frame, rgb=torch.where(frame.sky, torch.ones_like(frame.rgb), 0.5 * frame.rgb))
    cache = GaussianCache()
    cache.integrate(chunk_of(frame))
    guide = cache.render(camera)
    border = slice(18, 22)
    assert psnr(guide.rgb[..., border, 2:-2], frame.rgb[..., border, 2:-2]) > 35
    assert guide.sky[..., 19, 1:-1].min() > 0.95
    assert guide.sky[..., 20, 1:-1].max() < 0.1
    # Between the samples of a surface seen from nearby no sky shows either.
    assert cache.render(cameras_at(pose_at(z=1.2, y=0.5))).sky[..., 24:, :].max() < 0.05


@pytest.mark.parametrize("make", CACHES)
def test_confidence_falls_smoothly_with_zoom_and_angle(make: type[GaussianCache]) -> None:
    cache = make()
    cache.integrate(chunk_of(textured_wall(cameras_at(pose_at()))))

    def center(pose: Tensor) -> float:
        return float(cache.render(cameras_at(pose)).confidence[0, 0, 20:28, 28:36].mean())

    zoom = [center(pose_at(z=z)) for z in (0.0, 0.6, 1.0, 1.4, 1.7)]
    assert zoom[0] > 0.95
    assert all(a >= b - 1e-3 for a, b in pairwise(zoom))
    assert 0.6 < zoom[-1] < 0.9  # six times as close: blurred, mostly right
    # Around the point that the photo shows in its middle.
    turn = []
    for angle in (0, 30, 60, 75, 84):
        a = math.radians(angle)
        turn.append(center(pose_at(x=-2 * math.sin(a), z=2 - 2 * math.cos(a), yaw_deg=angle)))
    assert turn[1] > 0.9
    assert all(a >= b - 1e-2 for a, b in pairwise(turn))
    assert turn[-1] < 0.7


@pytest.mark.parametrize("make", CACHES)
def test_confidence_follows_provenance(make: type[GaussianCache]) -> None:
    cache = make()
    frame = textured_wall(cameras_at(pose_at()))
    cache.integrate(chunk_of(frame, 3, observed=False, confidence=0.5))
    assert abs(float(cache.render(frame.camera).confidence.median()) - 0.5) < 0.03
    stored = cache.snapshot()
    assert (stored.chunk == 3).all()
    assert not stored.observed.any()


def test_mixtures_of_depths_have_low_confidence() -> None:
    cache = GaussianCache()
    camera = cameras_at(pose_at())
    frame = textured_wall(camera)
    near = frame.depth.clone()
    near[..., 20:40] = 0.7
    cache.integrate(chunk_of(replace(frame, depth=near)))
    confidence = cache.render(camera).confidence[0, 0]
    assert confidence[:, 24:36].min() > 0.9
    assert confidence[:, 18:22].min() < 0.8


@pytest.mark.parametrize("make", CACHES)
def test_a_loaded_snapshot_renders_the_same_bits(make: type[GaussianCache]) -> None:
    cache, again = make(), make()
    cache.integrate(chunk_of(with_sky(textured_wall(cameras_at(pose_at(), pose_at(x=0.4))), 10)))
    cache.integrate(chunk_of(textured_wall(cameras_at(pose_at(x=0.9))), 1, observed=False, confidence=0.6))
    again.load(cache.snapshot())
    camera = cameras_at(pose_at(x=0.2), pose_at(z=-0.5))
    a, b = cache.render(camera), again.render(camera)
    for part in ("rgb", "depth", "coverage", "confidence", "sky"):
        assert torch.equal(getattr(a, part), getattr(b, part)), part
    later = chunk_of(textured_wall(cameras_at(pose_at(x=1.4))), 2, observed=False, confidence=0.6)
    assert cache.integrate(later) == again.integrate(later)
    assert same_bits(cache.snapshot(), again.snapshot())


@pytest.mark.parametrize("make", CACHES)
def test_a_snapshot_is_a_copy_and_can_start_anywhere(make: type[GaussianCache]) -> None:
    cache = make()
    cache.integrate(chunk_of(textured_wall(cameras_at(pose_at()))))
    result = cache.integrate(chunk_of(textured_wall(cameras_at(pose_at(x=0.5))), 1))
    new = cache.snapshot(result.first)
    assert len(new) == result.added
    assert (new.chunk == 1).all()
    new.colors.fill_(7.0)
    assert cache.snapshot().colors.max() <= 1.0


@pytest.mark.parametrize("make", CACHES)
def test_an_empty_cache_renders_no_coverage(make: type[GaussianCache]) -> None:
    guide = make().render(cameras_at(pose_at(), pose_at(x=1)))
    for image in (guide.rgb, guide.depth, guide.coverage, guide.confidence, guide.sky):
        assert image.shape[0] == 2
        assert not image.any()


@pytest.mark.parametrize("make", CACHES)
def test_an_image_of_one_pixel(make: type[GaussianCache]) -> None:
    cache = make()
    camera = cameras_at(pose_at(), size=(1, 1))
    cache.integrate(chunk_of(textured_wall(camera)))
    assert len(cache) == 1
    assert cache.render(camera).coverage.item() > 0.5


@pytest.mark.parametrize("make", CACHES)
def test_invalid_pixels_are_left_out(make: type[GaussianCache]) -> None:
    cache = make()
    frame = textured_wall(cameras_at(pose_at()))
    valid = frame.valid.clone()
    valid[..., 10:30, 20:40] = False
    depth = torch.where(valid, frame.depth, torch.full_like(frame.depth, torch.nan))
    cache.integrate(chunk_of(replace(frame, valid=valid, depth=depth)))
    assert len(cache) == int(valid.sum())
    coverage = cache.render(frame.camera).coverage[0, 0]
    assert (coverage[11:29, 21:39] < 0.5).all()
    assert coverage[:9].min() > 0.9
    positions_are_finite = torch.isfinite(positions(cache.snapshot())).all()
    assert positions_are_finite


@pytest.mark.parametrize("make", CACHES)
def test_invalid_chunks_are_refused(make: type[GaussianCache]) -> None:
    cache, frame = make(), textured_wall(cameras_at(pose_at()))
    good = chunk_of(frame)
    misfit = copy(frame)  # past the dataclass, whose own shape checks run in tests only
    object.__setattr__(misfit, "valid", frame.valid[..., :-1])
    spoiled = {
        r"depth: want finite": replace(good, frames=replace(frame, depth=-frame.depth)),
        r"rgb: want finite": replace(good, frames=replace(frame, rgb=frame.rgb * torch.nan)),
        r"camera: want \[1\] cameras": replace(good, frames=replace(frame, camera=cameras_at(pose_at(), size=(5, 5)))),
        r"valid: want": replace(good, frames=misfit),
        r"confidence: want": replace(good, confidence=good.confidence[..., :-1]),
    }
    for message, chunk in spoiled.items():
        with pytest.raises(ValueError, match=message):
            cache.integrate(chunk)
        assert len(cache) == 0
    with pytest.raises(ValueError, match="want a batch"):
        cache.render(cameras_at(pose_at())[0])
    other = PointCache() if make is GaussianCache else GaussianCache()
    with pytest.raises(ValueError, match="primitives: want"):
        cache.load(other.snapshot())


@settings(max_examples=20, deadline=None)
@given(st.floats(-1.2, 1.2), st.floats(-1.2, 1.2), st.floats(-3, 3))
def test_a_surfel_projects_to_a_circle_of_one_pixel(slope_x: float, slope_y: float, roll: float) -> None:
    """Whatever the slope, the ellipse on the surface projects to a circle of one pixel radius."""
    pose = pose_at(x=0.3, yaw_deg=math.degrees(roll))
    camera = Camera.from_fov(50.0, (9, 9), pose[None])
    rows, columns = torch.meshgrid(torch.arange(9) + 0.5, torch.arange(9) + 0.5, indexing="ij")
    x, y = (columns - 4.5) / camera.focal_px[0, 0], (rows - 4.5) / camera.focal_px[0, 1]
    depth = (2.0 / (1.0 - slope_x * x - slope_y * y))[None, None]
    on = torch.ones(1, 1, 9, 9, dtype=torch.bool)
    frame = Frame(torch.zeros(1, 3, 9, 9), depth, on, ~on, camera)[0]
    surfels = lift_surfels(frame, on[0], DEFAULT_POLICY.max_even_slope, DEFAULT_POLICY.even_ratio)
    middle = 4 * 9 + 4
    rotation = camera.camera_from_world[0, :3, :3]
    center = rotation @ (surfels.positions[middle] - pose[:3, 3])
    axes = rotation @ torch.stack([surfels.along[middle], surfels.across[middle]], dim=-1)
    focal = camera.focal_px[0, 0]
    image = focal * (axes[:2] / center[2] - center[:2, None] * axes[2] / center[2] ** 2)
    torch.testing.assert_close(image @ image.T, torch.eye(2), atol=0.1, rtol=0)
    expected = torch.nn.functional.normalize(torch.tensor([slope_x, slope_y, -1.0]), dim=0)
    assert float(expected @ (rotation @ surfels.normals[middle])) > 0.995


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=4, max_size=4))
def test_quaternions_and_rotations_agree(parts: list[float]) -> None:
    quat = torch.tensor([parts]) + torch.tensor([[1e-3, 0.0, 0.0, 0.0]])
    if quat.norm() < 1e-2:
        return
    quat = quat / quat.norm()
    again = quat_from_matrix(matrix_from_quat(quat), positive_w=False)
    assert abs(float((again * quat).sum())) > 1 - 1e-5


def test_loaded_gaussians_of_any_orientation_render() -> None:
    cache = GaussianCache()
    cache.integrate(chunk_of(textured_wall(cameras_at(pose_at(), size=(6, 8)))))
    some = cache.snapshot()
    cache.load(replace(some, quats=torch.roll(some.quats, 1, -1), scales=some.scales.roll(1, -1)))
    guide = cache.render(cameras_at(pose_at()))
    assert all(torch.isfinite(t).all() for t in (guide.rgb, guide.depth, guide.confidence))


def positions(primitives: object) -> Tensor:
    return primitives.means if isinstance(primitives, Gaussians) else primitives.positions  # pyright: ignore[reportAttributeAccessIssue]


def test_slanted_ground_has_no_gaps_from_closer() -> None:
    size = (192, 64)
    camera = cameras_at(pose_at(), size=size)
    below = (torch.arange(192.0) + 0.5 - 96.0)[:, None].expand(*size)[None, None]
    on = below > 3.0
    depth = torch.where(on, 0.4 * camera.focal_px[0, 1] / below.clamp_min(1.0), 99.0)
    frame = Frame(torch.full((1, 3, *size), 0.4), depth, on, torch.zeros_like(on), camera)
    cache = GaussianCache()
    cache.integrate(chunk_of(frame))
    # What was 5 rows below the horizon lies 25 rows below it from a fifth of the distance.
    closer = cameras_at(pose_at(z=0.8 * float(depth[0, 0, 96 + 5, 0])), size=size)
    assert (cache.render(closer).coverage[0, 0, 96 + 20 : 96 + 30] > 0.5).float().mean() > 0.99
