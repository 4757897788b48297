"""Frames and guides at a fraction of their size."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from geometry.frame import Frame, Guide
from geometry.project import unproject
from tests.helpers import cameras_at, chunk_of, guide_of, pillar_before_wall, textured_wall


def test_a_plane_keeps_its_depth_and_camera() -> None:
    camera = cameras_at((0.0, 0.0, 0.0), size=(24, 32))
    wall = textured_wall(camera, distance=2.0, grain=3.0)
    small = wall.pooled(2)
    assert small.camera.size == (12, 16)
    torch.testing.assert_close(small.camera.fov_deg, camera.fov_deg)
    torch.testing.assert_close(small.depth, torch.full_like(small.depth, 2.0))
    assert (small.rgb - textured_wall(small.camera, grain=3.0).rgb).abs().mean() < 0.01
    assert small.valid.all()
    assert (small.rgb * 255.0 - (small.rgb * 255.0).round()).abs().max() < 1e-3  # as stored


def test_depth_is_that_of_the_larger_part() -> None:
    depth = torch.tensor([[2.0, 2.0, 2.0, 8.0], [2.0, 8.0, 8.0, 8.0]]).reshape(1, 1, 2, 4)
    sky = depth > 4.0
    rgb = torch.zeros(1, 3, 2, 4)
    small = Frame(rgb, depth, sky >= 0, sky, cameras_at((0.0, 0.0, 0.0), size=(2, 4))).pooled(2)
    torch.testing.assert_close(small.depth.flatten(), torch.tensor([2.0, 8.0]))
    assert small.sky.flatten().tolist() == [False, True]


def test_colors_of_a_guide_are_weighted_by_coverage() -> None:
    camera = cameras_at((0.0, 0.0, 0.0), size=(4, 4))
    hole = torch.zeros(4, 4, dtype=torch.bool)
    hole[:2, :2], hole[0, 2] = True, True
    small = guide_of(camera, 3.0, 0.5, hole).pooled(2)
    assert small.coverage[0, 0].tolist() == [[0.0, 0.75], [1.0, 1.0]]
    assert small.hole[0, 0].tolist() == [[True, False], [False, False]]
    torch.testing.assert_close(small.rgb[0, 0], torch.tensor([[0.0, 0.5], [0.5, 0.5]]))
    torch.testing.assert_close(small.depth[0, 0], torch.tensor([[0.0, 3.0], [3.0, 3.0]]))


def test_of_two_surfaces_depth_lies_between() -> None:
    frame, _ = pillar_before_wall(cameras_at((0.0, 0.0, 0.0), size=(24, 32)))
    small = frame.pooled(2)
    assert small.depth.min() >= frame.depth.min() - 1e-5
    assert small.depth.max() <= frame.depth.max() + 1e-5
    assert frame.pooled(1) is frame


def test_the_part_around_valid_pixels_keeps_every_ray() -> None:
    camera = cameras_at((0.0, 0.0, 0.0), size=(24, 32))
    wall = textured_wall(camera)
    valid = torch.zeros_like(wall.valid)
    valid[..., 10:12, 20:23] = True
    chunk = chunk_of(replace(wall, valid=valid))
    part = chunk.around_valid(2)
    assert part.frames.camera.size == part.confidence.shape[-2:] == (6, 7)
    assert torch.equal(part.frames.rgb, wall.rgb[..., 8:14, 18:25])
    assert int(part.frames.valid.sum()) == 6
    torch.testing.assert_close(
        unproject(part.frames.depth, part.frames.camera), unproject(wall.depth, camera)[..., 8:14, 18:25]
    )
    assert replace(chunk, frames=replace(wall, valid=valid & False)).around_valid(2).frames.camera.size == (24, 32)


def random_maps(seed: int) -> tuple[torch.Tensor, ...]:
    """Colors, depth, coverage, confidence and sky of two images; a third of the pixels are empty, a third partial."""
    rng = torch.Generator().manual_seed(seed)
    rgb, *others = (torch.rand(2, channels, 12, 20, generator=rng) for channels in (3, 1, 1, 1, 1))
    depth, coverage, confidence, sky = others
    coverage = (3.0 * coverage - 1.0).clamp(0.0, 1.0)
    known = (coverage > 0.0).float()
    return rgb * known, (0.5 + 9.0 * depth) * known, coverage, confidence * known, (sky > 0.5) * known


@pytest.mark.parametrize("factor", [2, 4])
def test_kernels_pool_as_tensor_operations_do(factor: int) -> None:
    camera = cameras_at((0.0, 0.0, 0.0), (0.0, 0.0, 1.0), size=(12, 20))
    rgb, depth, coverage, confidence, sky = random_maps(factor)
    guide = Guide(rgb, depth, coverage, confidence, sky, camera)
    frame = Frame(rgb, depth.clamp_min(0.1), coverage > 0.2, sky > 0.5, camera)
    for whole, names in ((guide, ("rgb", "depth", "coverage", "confidence", "sky")), (frame, ("rgb", "depth"))):
        fast, slow = whole.pooled(factor), whole.pooled_reference(factor)
        assert fast.camera.size == slow.camera.size == (12 // factor, 20 // factor)
        for name in names:
            torch.testing.assert_close(getattr(fast, name), getattr(slow, name), rtol=0.0, atol=2e-6)
    assert torch.equal(frame.pooled(factor).valid, frame.pooled_reference(factor).valid)
    assert torch.equal(frame.pooled(factor).sky, frame.pooled_reference(factor).sky)
