"""Fewer Gaussians that look alike."""

from __future__ import annotations

import pytest
import torch

from cache3d.gaussian_cache import GaussianCache
from geometry.primitives import Gaussians
from tests.helpers import cameras_along, chunk_of, pillar_before_wall, psnr
from worldwarp.thinning import contribution, thinned

SIZE = (48, 64)


@pytest.fixture(scope="module")
def world() -> Gaussians:
    cache = GaussianCache(refine_steps=0)
    frames, _ = pillar_before_wall(cameras_along(0.0, 1, SIZE), skyline=-0.3)
    cache.integrate(chunk_of(frames))
    primitives = cache.snapshot()
    assert isinstance(primitives, Gaussians)
    return primitives


def view(gaussians: Gaussians, step: float) -> torch.Tensor:
    cache = GaussianCache()
    cache.load(gaussians)
    return cache.render(cameras_along(step, 2, SIZE)).rgb[1]


def test_contributions_add_up_to_the_pixels_that_are_covered(world: Gaussians) -> None:
    weights = contribution(world, cameras_along(0.02, 3, SIZE))
    assert weights.shape == (len(world),)
    assert (weights >= 0.0).all()
    assert float(weights.sum()) == pytest.approx(3 * SIZE[0] * SIZE[1], rel=0.15)


def test_what_no_camera_sees_goes_first(world: Gaussians) -> None:
    weights = contribution(world, cameras_along(0.0, 1, SIZE))
    weights[::2] = 0.0
    count = int((weights > 0.0).sum())
    assert thinned(world, weights, count, cameras_along(0.0, 1, SIZE)[0]).means.equal(world.means[weights > 0.0])


def test_neighbors_of_one_color_become_one_and_leave_no_gap(world: Gaussians) -> None:
    camera = cameras_along(0.0, 1, SIZE)
    plain = Gaussians(**(vars(world) | {"colors": torch.full_like(world.colors, 0.6)}))
    fewer = thinned(plain, contribution(plain, camera), len(plain) // 3, camera[0])
    assert len(plain) // 4 < len(fewer) <= len(plain) // 3
    assert psnr(view(fewer, 0.02), view(plain, 0.02)) > 30.0


def test_thinning_costs_little_where_dropping_costs_much(world: Gaussians) -> None:
    camera = cameras_along(0.0, 1, SIZE)
    weights, count = contribution(world, camera), int(0.6 * len(world))
    kept = thinned(world, weights, count, camera[0])
    dropped = world[weights.argsort(descending=True)[:count].sort().values]
    assert len(kept) <= count
    assert psnr(view(kept, 0.02), view(world, 0.02)) > psnr(view(dropped, 0.02), view(world, 0.02)) + 6.0


def test_any_number_can_be_asked_for(world: Gaussians) -> None:
    camera = cameras_along(0.0, 1, SIZE)
    for count in (1, 7, len(world)):
        assert 0 < len(thinned(world, contribution(world, camera), count, camera[0])) <= count
