"""Depth with outliers, frame after frame: what one frame has wrong must not stay."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from cache3d.cache import WorldCache
from cache3d.gaussian_cache import GaussianCache
from cache3d.point_cache import PointCache
from cache3d.rendering.plane_depth import inverse_depth_planes, plane_image
from geometry.depth import align_depth
from geometry.frame import Frame
from tests.helpers import cameras_at, chunk_of, psnr

SIZE = (36, 60)
WALL, FLOOR = 3.0, 0.8
CACHES = pytest.mark.parametrize("make", [PointCache, lambda: GaussianCache(refine_steps=0)], ids=["points", "gauss"])


def wall_and_floor(x: float) -> Frame:
    """A patterned wall and the floor before it, from ``x``."""
    camera = cameras_at((x, 0.0, 0.0), size=SIZE)
    rows, columns = torch.meshgrid(torch.arange(SIZE[0]) + 0.5, torch.arange(SIZE[1]) + 0.5, indexing="ij")
    ray_x, ray_y = ((columns - SIZE[1] / 2) / camera.focal_px[0, 0], (rows - SIZE[0] / 2) / camera.focal_px[0, 1])
    depth = torch.where(ray_y * WALL > FLOOR, FLOOR / ray_y.clamp_min(1e-3), torch.full_like(rows, WALL))
    place = torch.stack([x + ray_x * depth, ray_y * depth, depth])
    rgb = 0.5 + 0.3 * torch.sin(5.0 * place)
    everywhere = torch.ones(1, 1, *SIZE, dtype=torch.bool)
    return Frame(rgb[None], depth[None, None], everywhere, ~everywhere, camera)


def with_spots(depth: Tensor, share: float, rng: torch.Generator) -> Tensor:
    """Some pixels wrong by up to a factor of two."""
    wrong = torch.rand(depth.shape, generator=rng) < share
    return torch.where(wrong, depth * torch.exp2(2.0 * torch.rand(depth.shape, generator=rng) - 1.0), depth)


def aligned_walk(cache: WorldCache, share: float) -> list[float]:
    """Sidle along the wall with depth of unknown scale and outliers, aligned as in the loop; scale errors."""
    rng, errors = torch.Generator().manual_seed(3), []
    for index in range(30):
        frame = wall_and_floor(0.04 * index)
        if index > 0:
            scale = 1.0 + 0.05 * torch.randn((), generator=rng).item()
            guide = cache.render(frame.camera)
            made = align_depth(
                scale * with_spots(frame.depth, share, rng), frame.valid, guide.depth, guide.coverage * guide.confidence
            )
            errors.append(abs((made.depth / frame.depth).median().item() - 1.0))
            frame = replace(frame, depth=made.depth)
        cache.integrate(chunk_of(frame, index))
    return errors


def held_out_psnr(cache: WorldCache) -> float:
    frames = Frame.concatenate([wall_and_floor(x) for x in (0.1, 0.5, 0.9, 1.1)])
    return psnr(cache.render(frames.camera).rgb, frames.rgb)


@CACHES
def test_outliers_do_not_pile_up_and_alignment_does_not_run_away(make: type[PointCache]) -> None:
    clean, spotted = make(), make()
    aligned_walk(clean, 0.0)
    errors = aligned_walk(spotted, 0.02)
    assert held_out_psnr(spotted) > held_out_psnr(clean) - 1.5
    assert max(errors) < 0.01


@CACHES
def test_two_frames_contradict_a_surface(make: type[PointCache]) -> None:
    frame = wall_and_floor(0.0)
    spot = frame.depth.clone()
    spot[..., 10:14, 28:32] *= 0.6
    cache = make()
    cache.integrate(chunk_of(frame, 0))
    cache.integrate(chunk_of(replace(frame, depth=spot), 1))
    assert float(cache.render(frame.camera).depth[..., 12, 30]) < 0.7 * WALL
    cache.integrate(chunk_of(frame, 2, observed=False))
    assert float(cache.render(frame.camera).depth[..., 12, 30]) < 0.7 * WALL
    cache.integrate(chunk_of(frame, 3))
    assert abs(float(cache.render(frame.camera).depth[..., 12, 30]) / WALL - 1.0) < 0.02


@CACHES
def test_a_coarse_frame_contradicts_nothing(make: type[PointCache]) -> None:
    frame, cache = wall_and_floor(0.0), make()
    near = frame.depth.clone()
    near[..., 10:14, 28:32] *= 0.6
    cache.integrate(chunk_of(frame, 0))
    cache.integrate(chunk_of(replace(frame, depth=near), 1))
    small = (SIZE[0] // 3, SIZE[1] // 3)
    parts = {name: getattr(frame, name)[..., 1::3, 1::3] for name in ("rgb", "depth", "valid", "sky")}
    cache.integrate(chunk_of(replace(frame, camera=frame.camera.resized(small), **parts), 2))
    assert float(cache.render(frame.camera).depth[..., 12, 30]) < 0.7 * WALL


@CACHES
def test_isolated_pixels_do_not_enter_in_front_but_lines_do(make: type[PointCache]) -> None:
    frame = wall_and_floor(0.0)
    spot, line = frame.depth.clone(), frame.depth.clone()
    spot[..., 8, 20] *= 0.6
    line[..., 8, 10:40] *= 0.6
    cache = make()
    cache.integrate(chunk_of(frame, 0))
    assert cache.integrate(chunk_of(replace(frame, depth=spot), 1)).added == 0
    assert cache.integrate(chunk_of(replace(frame, depth=line), 2)).added >= 28


def test_the_depth_of_a_slope_is_unbiased() -> None:
    frame, cache = wall_and_floor(0.0), GaussianCache(refine_steps=0)
    cache.integrate(chunk_of(frame, 0))
    floor = (slice(None), slice(None), slice(28, 34), slice(10, 50))
    ratio = (cache.render(frame.camera).depth / frame.depth)[floor]
    assert abs(float(ratio.mean()) - 1.0) < 1e-3


def test_a_plane_has_its_depth_at_every_pixel() -> None:
    frame = wall_and_floor(0.3)
    normal = torch.nn.functional.normalize(torch.tensor([[0.2, -0.5, -0.8]]), dim=-1)
    point = torch.tensor([[0.4, 0.1, 2.0]])
    planes = inverse_depth_planes(point, normal, frame.camera[0])
    image = plane_image(planes[0][None, :, None, None].expand(1, 3, *SIZE), frame.camera[0])[0, 0]
    rows, columns = torch.meshgrid(torch.arange(SIZE[0]) + 0.5, torch.arange(SIZE[1]) + 0.5, indexing="ij")
    center, focal = frame.camera.center_px[0], frame.camera.focal_px[0]
    ray = torch.stack([(columns - center[0]) / focal[0], (rows - center[1]) / focal[1], torch.ones_like(rows)], -1)
    depth = (normal @ (point[0] - frame.camera.position[0])) / (ray @ normal[0])
    assert torch.allclose(1.0 / image, depth, rtol=1e-4)
