"""The photograph as a texture: its own colors where the cache shows what it saw, and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample

from cache3d.photo_texture import DEFAULT_TEXTURE, PhotoTexture, _sampled
from geometry.camera import Camera
from geometry.frame import Frame, Guide
from geometry.project import pixel_centers, unproject
from tests.helpers import cameras_at, guide_of, pose_at

SIZE = (48, 80)
HOME = (0.0, 0.0, 0.0)
INNER = (..., slice(3, -3), slice(3, -3))


def floor_depth(camera: Camera, height: float = 1.0, slope: float = 0.4) -> Tensor:
    """Depth ``[1 1 h w]`` of the plane ``y = height - slope * (z - 3)``, seen from a camera that looks along +z."""
    ray = (pixel_centers(camera.size, camera.focal_px) - camera.center_px[0, :, None, None]) / camera.focal_px[0, 0]
    place = camera.position[0]
    return ((height + 3.0 * slope - slope * place[2] - place[1]) / (ray[1] + slope))[None, None]


def painted(camera: Camera, depth: Tensor, finest: float = 0.1) -> Tensor:
    """A pattern of the world with detail as small as ``finest``, ``[1 3 h w]``."""
    x, y, z = unproject(depth, camera)[0]
    waves = [torch.sin(2.0 * torch.pi * (a * x + b * z + c * y)) for a, b, c in ((1, 0, 0), (0, 1, 0), (0.5, 0.5, 0))]
    fine = torch.sin(2.0 * torch.pi * x / finest) * torch.sin(2.0 * torch.pi * z / finest)
    return torch.stack([0.5 + 0.2 * wave + 0.25 * fine for wave in waves])[None]


def picture(camera: Camera, times: int = 4) -> tuple[Tensor, Tensor]:
    """The painted floor as a camera with square pixels sees it: colors, and depth of the centers."""
    size = (camera.size[0] * times, camera.size[1] * times)
    fine = camera.resized(size)
    return avg_pool2d(painted(fine, floor_depth(fine)), times), floor_depth(camera)


def gray_guide(camera: Camera, depth: Tensor, gray: float = 0.5) -> Guide:
    """A cache that knows the geometry and no color, half sure."""
    guide = guide_of(camera, depth, gray)
    return replace(guide, confidence=0.5 * guide.confidence)


@pytest.fixture(scope="module")
def floor() -> Frame:
    camera = cameras_at(HOME, size=SIZE)
    rgb, depth = picture(camera, 8)
    return Frame(rgb, depth, depth > 0.0, depth < 0.0, camera)


@pytest.fixture(scope="module")
def sharp() -> Tensor:
    return picture(cameras_at(HOME, size=SIZE).resized((4 * SIZE[0], 4 * SIZE[1])), 2)[0][0]


def test_the_photos_camera_shows_the_photo(floor: Frame) -> None:
    rendered = PhotoTexture.of(floor, floor.rgb[0]).apply(gray_guide(floor.camera, floor.depth))
    torch.testing.assert_close(rendered.rgb[INNER], floor.rgb[INNER], atol=1e-4, rtol=0.0)
    assert (rendered.confidence[INNER] == 1.0).all()
    assert torch.equal(rendered.depth, floor.depth)


def test_a_finer_photo_shows_the_same_at_frame_size(floor: Frame, sharp: Tensor) -> None:
    rendered = PhotoTexture.of(floor, sharp).apply(gray_guide(floor.camera, floor.depth))
    assert (rendered.rgb - floor.rgb)[INNER].abs().mean() < 0.01


def test_closer_views_show_detail_of_the_full_photo(floor: Frame, sharp: Tensor) -> None:
    near = cameras_at((0.0, 0.4, 1.5), size=SIZE)
    truth, depth = picture(near)
    errors = []
    for finest in (floor.rgb[0], sharp):
        rendered = PhotoTexture.of(floor, finest).apply(gray_guide(near, depth))
        known = rendered.confidence == 1.0
        assert known.float().mean() > 0.8
        errors.append(float((rendered.rgb - truth).square().mean(1, keepdim=True)[known].mean().sqrt()))
    assert errors[1] < 0.5 * errors[0]
    assert errors[1] < 0.04


def test_farther_views_do_not_alias(floor: Frame, sharp: Tensor) -> None:
    far = cameras_at((0.0, -0.5, -2.0), size=SIZE)
    truth, depth = picture(far, 8)
    rendered = PhotoTexture.of(floor, sharp).apply(gray_guide(far, depth))
    known = (rendered.confidence == 1.0).expand_as(truth)
    assert known.float().mean() > 0.2
    assert (rendered.rgb - truth)[known].square().mean().sqrt() < 0.05


@settings(deadline=None, max_examples=30)
@given(st.floats(0.5, 2.0).filter(lambda factor: abs(factor - 1.0) > 1.2 * DEFAULT_TEXTURE.same_depth))
def test_other_surfaces_keep_the_rendered_colors(floor: Frame, factor: float) -> None:
    # Seen from the photo's own place all surfaces of a pixel fall on the same pixel of the floor.
    guide = gray_guide(floor.camera, factor * floor.depth)
    rendered = PhotoTexture.of(floor, floor.rgb[0]).apply(guide)
    assert torch.equal(rendered.rgb, guide.rgb)
    assert torch.equal(rendered.confidence, guide.confidence)


def test_outlines_holes_and_the_outside_keep_the_rendered_colors(floor: Frame) -> None:
    depth = floor.depth.clone()
    depth[..., 40:] = 0.5 * depth[..., 40:]
    stepped = replace(floor, depth=depth)
    texture = PhotoTexture.of(stepped, floor.rgb[0])
    guide = gray_guide(floor.camera, depth)
    hole = torch.zeros_like(depth)
    hole[..., 10:14, :] = 1.0
    guide = replace(guide, coverage=1.0 - hole, depth=guide.depth * (1.0 - hole))
    changed = (texture.apply(guide).confidence != guide.confidence)[0, 0]
    assert not changed[:, 40 - DEFAULT_TEXTURE.outline_px : 40 + DEFAULT_TEXTURE.outline_px].any()
    assert not changed[10:14].any()
    assert changed[15:-3, 3 : 39 - DEFAULT_TEXTURE.outline_px].all()
    behind = cameras_at(pose_at(yaw_deg=180.0), size=SIZE)
    turned = gray_guide(behind, floor.depth)
    assert torch.equal(texture.apply(turned).rgb, turned.rgb)


def test_invalid_pixels_of_the_photo_are_not_used(floor: Frame) -> None:
    unknown = torch.zeros_like(floor.valid)
    unknown[..., 20:30, 20:30] = True
    holed = replace(floor, valid=~unknown, depth=torch.where(unknown, 0.0, floor.depth))
    guide = gray_guide(floor.camera, floor.depth)
    rendered = PhotoTexture.of(holed, floor.rgb[0]).apply(guide)
    assert rendered.rgb.isfinite().all()
    assert torch.equal(rendered.rgb[..., 20:30, 20:30], guide.rgb[..., 20:30, 20:30])
    assert (rendered.confidence[..., 32:-3, 3:-3] == 1.0).all()


def test_sky_is_textured_where_both_show_sky(floor: Frame) -> None:
    sky = torch.zeros_like(floor.sky)
    sky[..., :20, :] = True
    depth = torch.where(sky, 1000.0, floor.depth)
    under = replace(floor, sky=sky, depth=depth)
    guide = replace(gray_guide(floor.camera, depth), sky=sky.float())
    rendered = PhotoTexture.of(under, floor.rgb[0]).apply(guide)
    torch.testing.assert_close(rendered.rgb[..., 2:18, 3:-3], floor.rgb[..., 2:18, 3:-3], atol=1e-4, rtol=0.0)
    ground = replace(guide, sky=torch.zeros_like(guide.sky))
    kept = PhotoTexture.of(under, floor.rgb[0]).apply(ground)
    assert torch.equal(kept.rgb[..., :18, :], guide.rgb[..., :18, :])


def test_wrong_rendered_colors_are_replaced(floor: Frame, sharp: Tensor) -> None:
    texture, aside = PhotoTexture.of(floor, sharp), cameras_at((0.2, 0.0, 0.0), size=SIZE)
    depth = floor_depth(aside)
    dark, bright = (texture.apply(gray_guide(aside, depth, gray)) for gray in (0.1, 0.9))
    same = (dark.confidence == 1.0).expand_as(dark.rgb)
    assert same.float().mean() > 0.8
    torch.testing.assert_close(dark.rgb[same], bright.rgb[same])


def test_the_pyramid_halves_down_to_the_coarsest(floor: Frame) -> None:
    finest = torch.rand(3, 144, 240)  # three times as fine: not a power of two
    texture = PhotoTexture.of(floor, finest)
    assert texture.scales == (3.0, 2.0, 1.0, 0.5, DEFAULT_TEXTURE.coarsest)
    assert [tuple(level.shape[1:]) for level in texture.levels] == [
        (round(SIZE[0] * scale), round(SIZE[1] * scale)) for scale in texture.scales
    ]
    assert torch.equal(texture.levels[2], floor.rgb[0])
    assert torch.equal(texture.full_res, finest)


def test_sampling_agrees_with_torch() -> None:
    rng = torch.Generator().manual_seed(0)
    image = torch.rand(3, 20, 30, generator=rng)
    places = torch.rand(40, 50, 2, generator=rng) * torch.tensor([29.0, 19.0])
    grid = (places + 0.5) / torch.tensor([15.0, 10.0]) - 1.0
    slow = grid_sample(image[None], grid[None], mode="bicubic", padding_mode="border", align_corners=False)[0]
    fast = torch.from_numpy(_sampled(np.ascontiguousarray(image.permute(1, 2, 0).numpy()), places)).permute(2, 0, 1)
    # OpenCV rounds places to 1/32 of a pixel.
    torch.testing.assert_close(fast, slow, atol=0.06, rtol=0.0)
    on_grid = (places * 32.0).round() / 32.0
    grid = (on_grid + 0.5) / torch.tensor([15.0, 10.0]) - 1.0
    slow = grid_sample(image[None], grid[None], mode="bicubic", padding_mode="border", align_corners=False)[0]
    fast = torch.from_numpy(_sampled(np.ascontiguousarray(image.permute(1, 2, 0).numpy()), on_grid)).permute(2, 0, 1)
    torch.testing.assert_close(fast, slow, atol=1e-4, rtol=0.0)


def test_mixed_pixels_of_outlines_are_not_used() -> None:
    camera = cameras_at(HOME, size=(96, 160))
    depth = torch.ones(1, 1, 96, 160)
    depth[..., 80:] = 4.0
    photo = Frame(torch.full((1, 3, 96, 160), 0.2), depth, depth > 0.0, depth < 0.0, camera)
    rendered = PhotoTexture.of(photo, photo.rgb[0]).apply(gray_guide(camera, depth, gray=0.8))
    near, beside, far = (rendered.rgb[..., 10:-10, part] for part in (slice(40, 76), slice(80, 81), slice(90, 120)))
    assert near.max() < 0.21
    assert beside.min() > 0.79
    assert far.max() < 0.21


@pytest.mark.parametrize(
    "pose", [HOME, (0.2, 0.0, 0.0), (0.0, 0.4, 1.5), (0.0, -0.5, -2.0), pose_at(yaw_deg=25.0), pose_at(yaw_deg=180.0)]
)
@pytest.mark.parametrize("times", [1, 3])
def test_kernels_agree_with_tensor_operations(
    floor: Frame, pose: tuple[float, float, float] | Tensor, times: int
) -> None:
    rng = torch.Generator().manual_seed(times)
    noise = torch.rand(3, times * SIZE[0], times * SIZE[1], generator=rng)
    sky = torch.zeros_like(floor.sky)
    sky[..., :12, :] = True
    photo = replace(floor, rgb=noise[None] if times == 1 else floor.rgb, sky=sky)
    camera = cameras_at(pose, size=(40, 70))
    guide = gray_guide(camera, floor_depth(camera).clamp(0.1, 50.0) * (1.0 + 0.03 * torch.rand(40, 70, generator=rng)))
    guide = replace(guide, sky=(torch.rand(guide.sky.shape, generator=rng) < 0.3).float())
    guide = replace(guide, coverage=(torch.rand(guide.sky.shape, generator=rng) < 0.9).float())
    texture = PhotoTexture.of(photo, noise)
    fast, slow = texture.apply(guide), texture.apply_reference(guide)
    # Where a position is rounded to a pixel, the last bit decides: at most one pixel in a thousand here.
    confidence = (fast.confidence - slow.confidence).abs()
    assert (confidence > 2e-4).float().mean() <= 1e-3
    # OpenCV may round positions to 1/32 of a pixel: on noise the worst case, of a contrast of 1 between neighbors.
    same = (confidence <= 2e-4).expand_as(fast.rgb)
    torch.testing.assert_close(fast.rgb[same], slow.rgb[same], atol=0.06, rtol=0.0)
    assert (fast.rgb - slow.rgb)[same].abs().mean() < 2e-3
    if not torch.equal(fast.rgb, guide.rgb):
        assert (fast.confidence == 1.0).sum() > 100


def test_textures_have_the_same_bits_for_any_number_of_threads(floor: Frame, sharp: Tensor) -> None:
    camera = cameras_at((0.0, 0.4, 1.5), (0.2, 0.0, 0.0), size=SIZE)
    depth = torch.cat([floor_depth(camera[k : k + 1]) for k in range(2)])
    texture, guide, threads = PhotoTexture.of(floor, sharp), gray_guide(camera, depth), torch.get_num_threads()
    try:
        shown = []
        for count in (1, 3):
            torch.set_num_threads(count)
            shown.append(texture.apply(guide))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(shown[0].rgb, shown[1].rgb)
    assert torch.equal(shown[0].confidence, shown[1].confidence)
