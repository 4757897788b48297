"""How a chunk enters the Gaussian cache: what is added, what is replaced, what wins."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cache3d.gaussian_cache import GaussianCache
from cache3d.integration.policy import IntegrationPolicy
from cache3d.integration.rules import needed_residual
from cache3d.point_cache import PointCache
from cache3d.rendering.policy import RenderingPolicy
from geometry.camera import Camera
from geometry.frame import Frame
from geometry.primitives import Gaussians
from geometry.surfaces import DEPTH_TOLERANCE, far_from_edges
from tests.helpers import cameras_at, chunk_of, psnr, same_bits, textured_wall

SIZE = (48, 64)
PIXELS = SIZE[0] * SIZE[1]


def rendered(cache: GaussianCache) -> Gaussians:
    stored = cache.snapshot()
    return stored[stored.opacities > 0]


def test_a_closer_frame_supersedes_coarser_primitives() -> None:
    cache, near = GaussianCache(refine_steps=0), textured_wall(cameras_at((0, 0, 1.2)), grain=40.0)
    cache.integrate(chunk_of(textured_wall(cameras_at((0, 0, 0)), grain=40.0)))
    before = cache.render(near.camera)
    cache.integrate(chunk_of(near, 1))
    after = cache.render(near.camera)
    # The closer frame shows 0.4² of the coarse samples: those are gone, fine ones came.
    stored = rendered(cache)
    assert (stored.chunk == 1).sum() > 0.75 * PIXELS  # all but the border, where footprints reach out of the frame
    assert PIXELS * (1 - 0.42**2) < (stored.chunk == 0).sum() < PIXELS * (1 - 0.3**2)
    assert after.confidence.median() > 0.95 > before.confidence.median()
    assert psnr(after.rgb, near.rgb) > psnr(before.rgb, near.rgb) + 4.5
    assert cache.render(cameras_at((0, 0, 0), (0.2, 0, 0.6))).coverage[..., 8:-8, 16:-16].min() > 0.95


def test_a_farther_frame_never_coarsens() -> None:
    cache, near = GaussianCache(refine_steps=0), textured_wall(cameras_at((0, 0, 1.2)))
    cache.integrate(chunk_of(near))
    before = cache.snapshot()
    cache.integrate(chunk_of(textured_wall(cameras_at((0, 0, 0))), 1))
    after = cache.snapshot()
    for name in ("means", "scales", "colors", "opacities"):
        assert torch.equal(getattr(after, name)[: len(before)], getattr(before, name))
    # Nothing was piled on the fine part, which is 0.16 of the far frame.
    assert len(after) - len(before) < 0.9 * PIXELS


def test_approaching_a_wall_does_not_pile_up_primitives() -> None:
    cache = GaussianCache(refine_steps=0)
    places = [(0.0, 0.0, 0.15 * k) for k in range(10)]
    result = cache.integrate(chunk_of(textured_wall(cameras_at(places[0]))))
    for index, place in enumerate(places[1:], 1):
        result = cache.integrate(chunk_of(textured_wall(cameras_at(place)), index))
    assert result.total == len(cache)
    assert len(rendered(cache)) < 0.3 * PIXELS * len(places)
    # Retired ones are dropped once they are a quarter.
    assert len(cache) <= len(rendered(cache)) / 0.7 + PIXELS


def before_a_dark_wall() -> GaussianCache:
    home = cameras_at((0, 0, 0))
    dark = textured_wall(home, 6.0)
    cache = GaussianCache(refine_steps=0)
    cache.integrate(chunk_of(replace(dark, rgb=0.0 * dark.rgb)))
    cache.integrate(chunk_of(textured_wall(home), 1))
    return cache


def test_superseding_leaves_no_gaps_in_the_foreground() -> None:
    cache, home = before_a_dark_wall(), cameras_at((0, 0, 0))
    for k, z in enumerate((0.3, 0.6, 0.75, 0.9)):
        cache.integrate(chunk_of(textured_wall(cameras_at((0.02 * k, 0.01 * k, z))), 2 + k))
    guide = cache.render(home)
    inside = (..., slice(10, -10), slice(14, -14))
    assert (guide.depth[inside] / 2.0 - 1.0).abs().max() < 0.06  # a twentieth passes even through a whole surface
    assert psnr(guide.rgb[inside], textured_wall(home).rgb[inside]) > 30.0


def test_gaps_are_filled_by_a_later_frame() -> None:
    cache, home = before_a_dark_wall(), cameras_at((0, 0, 0))
    whole = cache.snapshot()
    lost = (whole.chunk == 1) & (torch.arange(len(whole.means)) % 3 == 0)
    cache.load(whole[~lost])
    inside = (..., slice(2, -2), slice(2, -2))
    assert (cache.render(home).depth[inside] / 2.0 - 1.0).abs().max() > 0.2
    cache.integrate(chunk_of(textured_wall(home), 2))
    assert (cache.render(home).depth[inside] / 2.0 - 1.0).abs().max() < 0.1


def test_retired_primitives_stay_retired_after_loading() -> None:
    cache, again = GaussianCache(), GaussianCache()
    for index in range(5):
        cache.integrate(chunk_of(textured_wall(cameras_at((0, 0, 0.3 * index))), index))
    again.load(cache.snapshot())
    later = chunk_of(textured_wall(cameras_at((0, 0, 1.6))), 5)
    counts = [(i.added, i.refined, i.total) for i in (cache.integrate(later), again.integrate(later))]
    assert counts[0] == counts[1]
    assert same_bits(cache.snapshot(), again.snapshot())


def test_a_closer_generated_frame_supersedes_nothing_observed() -> None:
    cache = GaussianCache()
    cache.integrate(chunk_of(textured_wall(cameras_at((0, 0, 0)))))
    before = cache.snapshot()
    near = textured_wall(cameras_at((0, 0, 1.2)))
    result = cache.integrate(chunk_of(replace(near, rgb=1.0 - near.rgb), 1, observed=False))
    assert (result.added, result.refined) == (0, 0)
    assert same_bits(cache.snapshot(), before)


@pytest.mark.parametrize(
    ("observed", "confidence", "gives_way"), [(True, 1.0, True), (False, 0.9, True), (False, 0.5, False)]
)
def test_a_contradicted_generated_surface_is_removed(observed: bool, confidence: float, gives_way: bool) -> None:
    cache, camera = GaussianCache(refine_steps=0), cameras_at((0, 0, 0))
    cache.integrate(chunk_of(textured_wall(camera, 1.0), observed=False, confidence=0.4))
    result = cache.integrate(chunk_of(textured_wall(camera), 1, observed=observed, confidence=confidence))
    assert (result.added > 0.9 * PIXELS) == gives_way
    depth = cache.render(camera).depth.median()
    assert abs(float(depth) - (2.0 if gives_way else 1.0)) < 0.05


@pytest.mark.parametrize("far", [20.0, 5.0])
def test_generated_background_holds_no_foreground_color(far: float) -> None:
    camera = cameras_at((0.0, 0.0, 0.0))
    _, _, height, width = textured_wall(camera).rgb.shape
    behind = torch.zeros(1, 1, height, width, dtype=torch.bool)
    behind[..., width // 2 :] = True
    rgb = torch.where(behind, 0.9, 0.1).repeat(1, 3, 1, 1)
    rgb[..., width // 2] = 0.5  # an outline as pictures have it: half of each
    depth = torch.where(behind, far, 1.0)
    frame = Frame(rgb, depth, torch.ones_like(behind), behind & (far > 10.0), camera)
    cache = GaussianCache(refine_steps=0)
    cache.integrate(chunk_of(frame, observed=False, confidence=0.5))
    rows = rendered(cache)
    assert rows.colors[rows.means[:, 2] > 1.5].min() > 0.8
    assert rows.colors[rows.means[:, 2] < 1.5].max() < 0.2


def test_generated_frames_contradict_nothing_observed() -> None:
    cache, camera = GaussianCache(), cameras_at((0, 0, 0))
    cache.integrate(chunk_of(textured_wall(camera, 1.0)))
    assert cache.integrate(chunk_of(textured_wall(camera), 1)).added == 0


def test_only_observed_frames_add_in_front_of_observed_surfaces() -> None:
    camera = cameras_at((0, 0, 0))
    for observed, added in ((True, PIXELS), (False, 0)):
        cache = GaussianCache()
        cache.integrate(chunk_of(textured_wall(camera)))
        assert cache.integrate(chunk_of(textured_wall(camera, 1.5), 1, observed=observed)).added == added


def test_a_more_confident_stored_surface_needs_a_larger_residual() -> None:
    camera = cameras_at((0, 0, 0))
    for confidence, added in ((0.8, PIXELS), (0.2, 0)):
        cache = GaussianCache()
        cache.integrate(chunk_of(textured_wall(camera), observed=False, confidence=0.8))
        nearer = chunk_of(textured_wall(camera, 1.6), 1, observed=False, confidence=confidence)
        assert cache.integrate(nearer).added == added


@settings(max_examples=30, deadline=None)
@given(st.floats(0.01, 1.0), st.floats(0.01, 1.0))
def test_needed_residual_grows_with_stored_confidence(stored: float, new: float) -> None:
    residual = float(needed_residual(torch.tensor(stored), torch.tensor(new)))
    assert DEPTH_TOLERANCE - 1e-6 <= residual <= 5 * DEPTH_TOLERANCE + 1e-6
    assert residual >= float(needed_residual(torch.tensor(stored), torch.tensor(1.0))) - 1e-6


def test_far_from_edges_excludes_edges_and_the_border() -> None:
    depth = torch.ones(1, 9, 12)
    depth[..., 6:] = 2.0
    steady = far_from_edges(depth, torch.ones_like(depth, dtype=torch.bool), 2)[0]
    assert steady[4].tolist() == [False] * 2 + [True] * 2 + [False] * 4 + [True] * 2 + [False] * 2
    assert not steady[:2].any()
    assert not far_from_edges(depth, torch.zeros_like(depth, dtype=torch.bool), 1).any()


def ground(camera: Camera, below: float = 0.1) -> Frame:
    """An endless textured floor, seen exactly by cameras that look along z; above the horizon there is nothing."""
    height, width = camera.size
    rows, columns = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    pixel = torch.stack([columns, rows]) - camera.center_px[0][:, None, None]
    on = (pixel[1] > 2.0).expand(len(camera), 1, height, width)
    depth = torch.where(on, below * camera.focal_px[0, 1] / pixel[1].clamp_min(1.0), 99.0)
    x = pixel[0] / camera.focal_px[0, 0] * depth[:, 0] + camera.position[:, 0, None, None]
    z = depth[:, 0] + camera.position[:, 2, None, None]
    rgb = torch.stack([torch.sin(9.0 * x + k) * torch.sin(9.0 * z + k) for k in range(3)], dim=1) * 0.35 + 0.5
    return Frame(rgb, depth, on, torch.zeros_like(on), camera)


def test_closer_frames_supersede_slanted_ground() -> None:
    cache, near = GaussianCache(refine_steps=0), ground(cameras_at((0, 0, 1.2)))
    cache.integrate(chunk_of(ground(cameras_at((0, 0, 0)))))
    inner = (slice(None), slice(None), slice(SIZE[0] // 2 + 3, -6), slice(6, -6))
    before = psnr(cache.render(near.camera).rgb[inner], near.rgb[inner])
    cache.integrate(chunk_of(near, 1))
    after = psnr(cache.render(near.camera).rgb[inner], near.rgb[inner])
    assert (rendered(cache).chunk == 1).sum() > 0.9 * near.valid.sum()
    assert after > before + 10.0


def test_points_of_slanted_ground_do_not_cover_their_neighbors() -> None:
    """Discs are round: one as long as its pixel on the ground is would be as wide."""
    cache, first = PointCache(), ground(cameras_at((0, 0, 0)), below=0.3)
    cache.integrate(chunk_of(first))
    inner = (slice(None), slice(None), slice(SIZE[0] // 2 + 3, -6), slice(6, -6))
    for place in ((0.0, 0.0, 0.0), (0.02, 0.0, 0.02)):
        view = ground(cameras_at(place), below=0.3)
        guide = cache.render(view.camera)
        rendered = guide.coverage[inner] > 0.5
        error = (guide.rgb[inner] - view.rgb[inner]).square().mean(1, keepdim=True)[rendered].mean()
        assert -10.0 * torch.log10(error) > 22.0
        assert ((guide.depth - view.depth).abs() < 0.1 * view.depth)[inner][rendered].float().mean() > 0.97


def test_a_slope_is_one_surface_and_its_fold_is_not() -> None:
    inverse = torch.ones(1, 9, 24)
    inverse[..., :12] += 0.045 * torch.arange(12.0)
    inverse[..., 12:] += 0.045 * (23 - torch.arange(12.0, 24.0))
    steady = far_from_edges(1.0 / inverse, torch.ones_like(inverse, dtype=torch.bool), 4)[0, 4]
    assert inverse[0, 4, 8] / inverse[0, 4, 4] > 1.1
    assert steady[4:7].all()
    assert not steady[7:17].any()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"superseded_px": -1.0}, "superseded_px: want a number of 0 or more, got -1.0; leave it out for 1.5"),
        ({"decay_updates": 0.0}, "decay_updates: want a number above 0"),
        ({"min_neighbors": True}, "min_neighbors: want a whole number"),
    ],
)
def test_a_wrong_policy_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        IntegrationPolicy(**wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kernel_px": 0.0}, "kernel_px: want a number above 0, got 0.0; leave it out for 0.5"),
        ({"samples": 0}, "samples: want a whole number above 0, got 0"),
        ({"close_from_px": 2.0}, "close_from_px: want less than close_to_px, got 2.0 and 2.0"),
        ({"outside_alpha": 0.95}, "outside_alpha: want less than gapless_alpha, got 0.95 and 0.9"),
    ],
)
def test_a_wrong_rendering_policy_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RenderingPolicy(**wrong)
