"""The world cache: what it shows, what it adds, what it never does."""

from __future__ import annotations

import math
from copy import copy
from dataclasses import fields, replace
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
from geometry.frame import Chunk, Frame
from geometry.primitives import Gaussians
from geometry.se3 import matrix_from_quat, quat_from_matrix

SIZE = (48, 64)
CACHES = [GaussianCache, PointCache]


def move(x: float = 0.0, y: float = 0.0, z: float = 0.0, yaw_deg: float = 0.0) -> Tensor:
    yaw = math.radians(yaw_deg)
    pose = torch.eye(4)
    pose[0, 0], pose[0, 2], pose[2, 0], pose[2, 2] = math.cos(yaw), math.sin(yaw), -math.sin(yaw), math.cos(yaw)
    pose[:3, 3] = torch.tensor([x, y, z])
    return pose


def cameras(*poses: Tensor, size: tuple[int, int] = SIZE) -> Camera:
    return Camera.from_fov(60.0, size, torch.stack(poses))


def wall(camera: Camera, distance: float = 2.0, grain: float = 9.0) -> Frame:
    """An endless textured wall ``z = distance``, seen exactly."""
    rows, columns = torch.meshgrid(
        torch.arange(camera.size[0]) + 0.5, torch.arange(camera.size[1]) + 0.5, indexing="ij"
    )
    ray = torch.stack([columns, rows, torch.ones_like(rows)])
    ray[:2] = (ray[:2] - camera.center_px[0][:, None, None]) / camera.focal_px[0][:, None, None]
    world = torch.einsum("tij,jhw->tihw", camera.world_from_camera[:, :3, :3], ray)
    start = camera.position[:, :, None, None]
    depth = ((distance - start[:, 2]) / world[:, 2])[:, None]
    point = start + depth * world
    rgb = torch.stack([torch.sin(grain * point[:, k % 2] + k) for k in range(3)], dim=1) * 0.35 + 0.5
    valid = (depth > 0) & torch.isfinite(depth)
    return Frame(rgb, torch.where(valid, depth, torch.ones_like(depth)), valid, torch.zeros_like(valid), camera)


def chunk_of(frame: Frame, index: int = 0, *, observed: bool = True, confidence: float = 1.0) -> Chunk:
    return Chunk(frame, index, observed, torch.full_like(frame.depth, confidence))


def with_sky(frame: Frame, rows: int) -> Frame:
    sky = frame.sky.clone()
    sky[..., :rows, :] = True
    return replace(frame, sky=sky, depth=torch.where(sky, torch.full_like(frame.depth, 200.0), frame.depth))


def psnr(a: Tensor, b: Tensor) -> float:
    return float(-10.0 * torch.log10(((a - b) ** 2).mean()))


@pytest.mark.parametrize(("make", "least_db"), [(GaussianCache, 30.0), (PointCache, 24.0)])
def test_the_photo_is_rendered_back_from_its_camera(make: type[GaussianCache], least_db: float) -> None:
    cache = make()
    fine = cameras(move(), size=(96, 128))
    photo = wall(fine)
    cache.integrate(chunk_of(photo))
    guide = cache.render(fine.resized(SIZE))
    assert guide.rgb.shape == (1, 3, *SIZE)
    assert guide.coverage.min() > 0.95
    assert guide.confidence.min() > 0.9
    assert psnr(guide.rgb, avg_pool2d(photo.rgb, 2)) > least_db
    torch.testing.assert_close(guide.depth, avg_pool2d(photo.depth, 2), rtol=5e-3, atol=0)


def test_a_photo_at_frame_size_is_sharp() -> None:
    cache = GaussianCache()
    photo = wall(cameras(move()))
    cache.integrate(chunk_of(photo))
    assert psnr(cache.render(photo.camera).rgb, photo.rgb) > 30.0


@pytest.mark.parametrize("make", CACHES)
def test_another_view_agrees_with_the_scene(make: type[GaussianCache]) -> None:
    cache = make()
    cache.integrate(chunk_of(wall(cameras(move(), size=(96, 128)))))
    target = cameras(move(x=0.3), move(z=-0.4), move(z=0.6), move(yaw_deg=10))
    guide, truth = cache.render(target), wall(target)
    seen = guide.coverage > 0.9
    assert seen.float().mean() > 0.6
    assert psnr(guide.rgb[seen.expand(-1, 3, -1, -1)], truth.rgb[seen.expand(-1, 3, -1, -1)]) > 25.0
    torch.testing.assert_close(guide.depth[seen], truth.depth[seen], rtol=0.02, atol=0)


@pytest.mark.parametrize("make", CACHES)
def test_surfaces_have_no_specks(make: type[GaussianCache]) -> None:
    cache = make()
    cache.integrate(chunk_of(wall(cameras(move(), size=(96, 128)))))
    for pose in (move(z=1.2), move(x=0.2, z=0.5), move(x=-0.8, z=0.4, yaw_deg=25)):
        coverage = cache.render(cameras(pose)).coverage[0, 0]
        holes = coverage < 0.5
        # A hole reaches the border of the image: nothing inside the wall is missing.
        inside = holes[12:-12, 16:-16]
        assert not inside.any() or inside.float().mean() > 0.2


@pytest.mark.parametrize("make", CACHES)
def test_only_new_surfaces_add_primitives(make: type[GaussianCache]) -> None:
    cache = make()
    out = cameras(*(move(x=0.15 * k) for k in range(6)))
    added = [cache.integrate(chunk_of(wall(out[k : k + 1]), k)).added for k in range(6)]
    pixels = SIZE[0] * SIZE[1]
    assert added[0] == pixels
    assert all(0 < count < 0.2 * pixels for count in added[1:])
    back = [cache.integrate(chunk_of(wall(out[k : k + 1]), 11 - k)).added for k in range(5, -1, -1)]
    assert sum(back) <= 0.02 * pixels


@pytest.mark.parametrize("make", CACHES)
def test_frames_of_a_chunk_are_integrated_in_order(make: type[GaussianCache]) -> None:
    plain = partial(GaussianCache, refine_steps=0) if make is GaussianCache else make
    together, apart = plain(), plain()
    frames = wall(cameras(move(), move(x=0.4), move(x=0.8)))
    once = together.integrate(chunk_of(frames))
    counts = [apart.integrate(chunk_of(frames[k : k + 1])) for k in range(3)]
    assert once.added == once.total == len(together) == sum(count.added for count in counts)
    assert [count.first for count in counts] == [0, counts[0].total, counts[1].total]
    assert_same(together.snapshot(), apart.snapshot())


@pytest.mark.parametrize("make", CACHES)
def test_back_sides_have_no_confidence_and_are_replaced(make: type[GaussianCache]) -> None:
    cache = make()
    cache.integrate(chunk_of(wall(cameras(move()))))
    turned = cameras(move(z=4.0, yaw_deg=180.0))
    guide = cache.render(turned)
    assert (guide.coverage > 0.5).float().mean() > 0.9
    assert guide.confidence.max() < 0.05
    behind = wall(turned)  # the other face of the wall, a little nearer
    behind = replace(behind, depth=behind.depth * 0.98)
    first = cache.integrate(chunk_of(behind, 1))
    assert first.added > 0.9 * SIZE[0] * SIZE[1]
    assert cache.integrate(chunk_of(behind, 2)).added < 0.05 * first.added
    assert cache.render(turned).confidence.median() > 0.9


@pytest.mark.parametrize("make", CACHES)
def test_generated_frames_never_cover_observed_surfaces(make: type[GaussianCache]) -> None:
    cache = make()
    photo = wall(cameras(move()))
    cache.integrate(chunk_of(photo))
    before, rgb = cache.snapshot(), cache.render(photo.camera).rgb
    nearer = replace(photo, depth=photo.depth * 0.6, rgb=1.0 - photo.rgb)
    result = cache.integrate(chunk_of(nearer, 1, observed=False, confidence=1.0))
    assert (result.added, result.refined) == (0, 0)
    assert_same(cache.snapshot(), before)
    assert torch.equal(cache.render(photo.camera).rgb, rgb)


@pytest.mark.parametrize("make", CACHES)
def test_a_surface_in_front_of_a_generated_one_is_added(make: type[GaussianCache]) -> None:
    cache = make()
    guess = wall(cameras(move()))
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
    frame = wall(cameras(move()))
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
    camera = cameras(move())
    cache.integrate(chunk_of(with_sky(wall(camera), 20)))
    home = cache.render(camera)
    # Far away, far beyond the wall, and even beyond the distance of the sky itself.
    away = cache.render(cameras(move(x=30.0), move(z=50.0), move(y=-20.0, z=500.0)))
    assert (home.sky[..., :19, :] > 0.99).all()
    for k in range(3):
        torch.testing.assert_close(away.rgb[k, :, :18], home.rgb[0, :, :18], atol=2e-2, rtol=0)
        assert (away.depth[k, :, :18] > 100).all()
    # From nearer, the wall's upper edge hides some of the sky.
    closer = cache.render(cameras(move(y=0.5)))
    assert (closer.sky[..., 19, :] < 0.5).float().mean() > 0.9


def test_outlines_do_not_fray_into_the_sky() -> None:
    camera = cameras(move())
    frame = with_sky(wall(camera), 20)
    frame = replace(frame, rgb=torch.where(frame.sky, torch.ones_like(frame.rgb), 0.5 * frame.rgb))
    cache = GaussianCache()
    cache.integrate(chunk_of(frame))
    guide = cache.render(camera)
    border = slice(18, 22)
    assert psnr(guide.rgb[..., border, 2:-2], frame.rgb[..., border, 2:-2]) > 35
    assert guide.sky[..., 19, 1:-1].min() > 0.95
    assert guide.sky[..., 20, 1:-1].max() < 0.1
    # Between the samples of a surface seen from nearby no sky shows either.
    assert cache.render(cameras(move(z=1.2, y=0.5))).sky[..., 24:, :].max() < 0.05


@pytest.mark.parametrize("make", CACHES)
def test_confidence_falls_smoothly_with_zoom_and_angle(make: type[GaussianCache]) -> None:
    cache = make()
    cache.integrate(chunk_of(wall(cameras(move()))))

    def center(pose: Tensor) -> float:
        return float(cache.render(cameras(pose)).confidence[0, 0, 20:28, 28:36].mean())

    zoom = [center(move(z=z)) for z in (0.0, 0.6, 1.0, 1.4, 1.7)]
    assert zoom[0] > 0.95
    assert all(a >= b - 1e-3 for a, b in pairwise(zoom))
    assert 0.6 < zoom[-1] < 0.9  # six times as close: blurred, mostly right
    # Around the point that the photo shows in its middle.
    turn = []
    for angle in (0, 30, 60, 75, 84):
        a = math.radians(angle)
        turn.append(center(move(x=-2 * math.sin(a), z=2 - 2 * math.cos(a), yaw_deg=angle)))
    assert turn[1] > 0.9
    assert all(a >= b - 1e-2 for a, b in pairwise(turn))
    assert turn[-1] < 0.7


@pytest.mark.parametrize("make", CACHES)
def test_confidence_follows_provenance(make: type[GaussianCache]) -> None:
    cache = make()
    frame = wall(cameras(move()))
    cache.integrate(chunk_of(frame, 3, observed=False, confidence=0.5))
    assert abs(float(cache.render(frame.camera).confidence.median()) - 0.5) < 0.03
    stored = cache.snapshot()
    assert (stored.chunk == 3).all()
    assert not stored.observed.any()


def test_mixtures_of_depths_have_low_confidence() -> None:
    cache = GaussianCache()
    camera = cameras(move())
    frame = wall(camera)
    near = frame.depth.clone()
    near[..., 20:40] = 0.7
    cache.integrate(chunk_of(replace(frame, depth=near)))
    confidence = cache.render(camera).confidence[0, 0]
    assert confidence[:, 24:36].min() > 0.9
    assert confidence[:, 18:22].min() < 0.8


@pytest.mark.parametrize("make", CACHES)
def test_a_loaded_snapshot_renders_the_same_bits(make: type[GaussianCache]) -> None:
    cache, again = make(), make()
    cache.integrate(chunk_of(with_sky(wall(cameras(move(), move(x=0.4))), 10)))
    cache.integrate(chunk_of(wall(cameras(move(x=0.9))), 1, observed=False, confidence=0.6))
    again.load(cache.snapshot())
    camera = cameras(move(x=0.2), move(z=-0.5))
    a, b = cache.render(camera), again.render(camera)
    for part in ("rgb", "depth", "coverage", "confidence", "sky"):
        assert torch.equal(getattr(a, part), getattr(b, part)), part
    later = chunk_of(wall(cameras(move(x=1.4))), 2, observed=False, confidence=0.6)
    assert cache.integrate(later) == again.integrate(later)
    assert_same(cache.snapshot(), again.snapshot())


@pytest.mark.parametrize("make", CACHES)
def test_a_snapshot_is_a_copy_and_can_start_anywhere(make: type[GaussianCache]) -> None:
    cache = make()
    cache.integrate(chunk_of(wall(cameras(move()))))
    result = cache.integrate(chunk_of(wall(cameras(move(x=0.5))), 1))
    new = cache.snapshot(result.first)
    assert len(new) == result.added
    assert (new.chunk == 1).all()
    new.colors.fill_(7.0)
    assert cache.snapshot().colors.max() <= 1.0


@pytest.mark.parametrize("make", CACHES)
def test_an_empty_cache_renders_no_coverage(make: type[GaussianCache]) -> None:
    guide = make().render(cameras(move(), move(x=1)))
    for image in (guide.rgb, guide.depth, guide.coverage, guide.confidence, guide.sky):
        assert image.shape[0] == 2
        assert not image.any()


@pytest.mark.parametrize("make", CACHES)
def test_an_image_of_one_pixel(make: type[GaussianCache]) -> None:
    cache = make()
    camera = cameras(move(), size=(1, 1))
    cache.integrate(chunk_of(wall(camera)))
    assert len(cache) == 1
    assert cache.render(camera).coverage.item() > 0.5


@pytest.mark.parametrize("make", CACHES)
def test_invalid_pixels_are_left_out(make: type[GaussianCache]) -> None:
    cache = make()
    frame = wall(cameras(move()))
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
    cache, frame = make(), wall(cameras(move()))
    good = chunk_of(frame)
    misfit = copy(frame)  # past the dataclass, whose own shape checks run in tests only
    object.__setattr__(misfit, "valid", frame.valid[..., :-1])
    spoiled = {
        r"depth: want finite": replace(good, frames=replace(frame, depth=-frame.depth)),
        r"rgb: want finite": replace(good, frames=replace(frame, rgb=frame.rgb * torch.nan)),
        r"camera: want \[1\] cameras": replace(good, frames=replace(frame, camera=cameras(move(), size=(5, 5)))),
        r"valid: want": replace(good, frames=misfit),
        r"confidence: want": replace(good, confidence=good.confidence[..., :-1]),
    }
    for message, chunk in spoiled.items():
        with pytest.raises(ValueError, match=message):
            cache.integrate(chunk)
        assert len(cache) == 0
    with pytest.raises(ValueError, match="want a batch"):
        cache.render(cameras(move())[0])
    other = PointCache() if make is GaussianCache else GaussianCache()
    with pytest.raises(ValueError, match="primitives: want"):
        cache.load(other.snapshot())


@settings(max_examples=20, deadline=None)
@given(st.floats(-1.2, 1.2), st.floats(-1.2, 1.2), st.floats(-3, 3))
def test_a_surfel_projects_to_a_circle_of_one_pixel(slope_x: float, slope_y: float, roll: float) -> None:
    """Whatever the slope, the ellipse on the surface projects to a circle of one pixel radius."""
    pose = move(x=0.3, yaw_deg=math.degrees(roll))
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
    cache.integrate(chunk_of(wall(cameras(move(), size=(6, 8)))))
    some = cache.snapshot()
    cache.load(replace(some, quats=torch.roll(some.quats, 1, -1), scales=some.scales.roll(1, -1)))
    guide = cache.render(cameras(move()))
    assert all(torch.isfinite(t).all() for t in (guide.rgb, guide.depth, guide.confidence))


def positions(primitives: object) -> Tensor:
    return primitives.means if isinstance(primitives, Gaussians) else primitives.positions  # pyright: ignore[reportAttributeAccessIssue]


def assert_same(a: object, b: object) -> None:
    for field in fields(a):  # pyright: ignore[reportArgumentType]
        assert torch.equal(getattr(a, field.name), getattr(b, field.name)), field.name


def test_slanted_ground_has_no_gaps_from_closer() -> None:
    size = (192, 64)
    camera = cameras(move(), size=size)
    below = (torch.arange(192.0) + 0.5 - 96.0)[:, None].expand(*size)[None, None]
    on = below > 3.0
    depth = torch.where(on, 0.4 * camera.focal_px[0, 1] / below.clamp_min(1.0), 99.0)
    frame = Frame(torch.full((1, 3, *size), 0.4), depth, on, torch.zeros_like(on), camera)
    cache = GaussianCache()
    cache.integrate(chunk_of(frame))
    # What was 5 rows below the horizon lies 25 rows below it from a fifth of the distance.
    closer = cameras(move(z=0.8 * float(depth[0, 0, 96 + 5, 0])), size=size)
    assert (cache.render(closer).coverage[0, 0, 96 + 20 : 96 + 30] > 0.5).float().mean() > 0.99
