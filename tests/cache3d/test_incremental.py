"""The kernels that look at Gaussians in view against tensor operations, and pictures that follow what they show."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import avg_pool2d, normalize

from cache3d.gaussian_cache import GaussianCache
from cache3d.rasterizer import tile_kernels
from cache3d.rasterizer.rasterize import rasterize
from cache3d.rasterizer.types import Raster, Splats
from cache3d.rendering import splat_attributes as appearance
from cache3d.rendering.footprint import extent_reference, footprint_px
from cache3d.rendering.incremental import IncrementalRaster
from cache3d.rendering.pixels import blended, blended_reference
from cache3d.rendering.policy import DEFAULT_RENDERING
from cache3d.rendering.splat_attributes import (
    in_view,
    in_view_reference,
    pooled,
    sharpen_sky_alpha,
    supersampled,
    to_splats,
    to_splats_reference,
)
from cache3d.rendering.visibility import in_image, in_image_reference
from cache3d.store.block_store import BlockStore
from geometry.camera import Camera
from geometry.frame import Chunk, Frame
from geometry.primitives import Gaussians
from geometry.se3 import exp
from tests.helpers import cameras_at, chunk_of, same_bits

SIZE = (21, 30)


def some(count: int = 400, seed: int = 0) -> Gaussians:
    """Discs of all directions before, beside and behind the camera, a fifth of them sky."""
    rng = torch.Generator().manual_seed(seed)
    scales = torch.rand(count, 3, generator=rng) * 0.08 + 0.01
    return Gaussians(
        means=torch.randn(count, 3, generator=rng) * torch.tensor([1.5, 1.0, 1.5]) + torch.tensor([0.0, 0.0, 2.0]),
        quats=normalize(torch.randn(count, 4, generator=rng), dim=-1),
        scales=scales * torch.tensor([1.0, 1.0, 0.1]),
        opacities=torch.full((count,), 0.99),
        colors=torch.rand(count, 3, generator=rng),
        chunk=torch.zeros(count, dtype=torch.int32),
        observed=torch.rand(count, generator=rng) < 0.5,
        confidence=torch.rand(count, generator=rng),
        sky=torch.rand(count, generator=rng) < 0.2,
        n_updates=torch.zeros(count),
    )


def turned_camera(seed: int = 0) -> Camera:
    twist = 0.2 * torch.randn(6, generator=torch.Generator().manual_seed(seed))
    return Camera.from_fov(70.0, SIZE, exp(twist))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_view_kernels_agree_with_tensor_operations(seed: int) -> None:
    part, camera = some(seed=seed), turned_camera(seed)
    for sky in (False, True):
        chosen = in_view(part, camera, sky=sky)
        assert (chosen == torch.nonzero(in_view_reference(part, camera, sky=sky))[:, 0]).all()
        assert len(chosen) > 20
        rows = part[chosen]
        torch.testing.assert_close(
            footprint_px(part, chosen, camera), extent_reference(rows, camera), rtol=2e-5, atol=1e-5
        )
        fast, slow = to_splats(part, chosen, camera), to_splats_reference(rows, camera)
        for name in ("means", "quats", "opacities"):
            assert (getattr(fast, name) == getattr(slow, name)).all()
        torch.testing.assert_close(fast.scales, slow.scales, rtol=2e-5, atol=1e-6)
        # Relative, as planes seen edge on have large coefficients; measured: 3e-5.
        torch.testing.assert_close(fast.values, slow.values, rtol=2e-4, atol=2e-4)
    fast, slow = in_image(camera, part.means, ~part.sky), in_image_reference(camera, part.means, ~part.sky)
    assert (fast.index == slow.index).all()
    assert (fast.pixel == slow.pixel).all()
    torch.testing.assert_close(fast.z, slow.z)


def test_pooling_is_a_mean() -> None:
    source = torch.Generator().manual_seed(0)
    images, weights = torch.randn(1, 3, 8, 12, generator=source), torch.rand(1, 1, 8, 12, generator=source)
    torch.testing.assert_close(pooled(images, weights, 2), avg_pool2d(images * weights, 2))


def test_alpha_is_stretched_before_the_sky_alone() -> None:
    alpha = torch.tensor(
        [0.0, 0.5, DEFAULT_RENDERING.outside_alpha, 0.75, DEFAULT_RENDERING.gapless_alpha, 1.0]
    ).reshape(1, 1, 1, 6)
    drawn = alpha * sharpen_sky_alpha(alpha, torch.ones_like(alpha))
    torch.testing.assert_close(drawn, torch.tensor([0.0, 0.0, 0.0, 0.5, 1.0, 1.0]).reshape(1, 1, 1, 6))
    assert (sharpen_sky_alpha(alpha, torch.zeros_like(alpha)) == 1).all()


def test_colors_alone_get_the_same_gradient() -> None:
    part, camera = some(), turned_camera()
    rows = to_splats(part, in_view(part, camera, sky=False), camera)
    weight = torch.randn(1, rows.values.shape[1], *SIZE, generator=torch.Generator().manual_seed(3))
    grads = []
    for means in (rows.means, rows.means.clone().requires_grad_()):
        values = rows.values.clone().requires_grad_()
        splats = Splats(means, rows.quats, rows.scales, rows.opacities, values)
        raster = rasterize(splats, camera[None], "cpu", eps2d=0.1)
        grads.append(torch.autograd.grad((raster.values * weight).sum(), values)[0])
    assert grads[0].abs().max() > 0.5
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-4, atol=1e-5)


def fresh(part: Gaussians, ids: Tensor, camera: Camera) -> Raster:
    return IncrementalRaster(camera).draw(part, ids, in_view(part, camera, sky=False), np.zeros(0, np.int64))


def test_incremental_raster_agrees_with_the_rasterizer() -> None:
    part, camera = some(), turned_camera()
    splats = to_splats(part, in_view(part, camera, sky=False), camera)
    fine = camera.resized((2 * SIZE[0], 2 * SIZE[1]))
    assert same_bits(fresh(part, torch.arange(len(part)), camera), rasterize(splats, fine[None], "cpu", eps2d=0.1))


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 60), st.integers(0, 60), st.integers(0, 20))
def test_an_updated_raster_has_the_bits_of_a_new_one(seed: int, gone: int, added: int, recolored: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    everything, camera = some(560, seed), turned_camera(seed)
    everything.means[440:470] = everything.means[:30]  # ties in depth
    alive, incremental, changed = (
        torch.ones(560, dtype=torch.bool),
        IncrementalRaster(camera),
        torch.zeros(0, dtype=torch.int64),
    )
    for count in (440, 440 + added // 2, 440 + added):
        index = torch.nonzero(alive[:count])[:, 0]
        part, ids = everything[index], 3 * index  # ids need not be dense
        rendered = incremental.draw(part, ids, in_view(part, camera, sky=False), 3 * changed.numpy())
        assert same_bits(rendered, fresh(part, ids, camera))
        alive[torch.randperm(count, generator=rng)[:gone]] = False
        changed = torch.randperm(count, generator=rng)[:recolored]
        everything.colors[changed], everything.confidence[changed] = 0.25, 0.75


def test_only_touched_tiles_are_composited(monkeypatch: pytest.MonkeyPatch) -> None:
    part, camera, ids = some(), turned_camera(), torch.arange(400)
    incremental, drawn = IncrementalRaster(camera), []
    composite = tile_kernels.composite
    monkeypatch.setattr(tile_kernels, "composite", lambda which, *rest: (drawn.extend(which), composite(which, *rest)))
    chosen, none = in_view(part, camera, sky=False), np.zeros(0, np.int64)
    incremental.draw(part, ids, chosen, none)
    everything = len(drawn)
    drawn.clear()
    incremental.draw(part, ids, chosen, none)
    assert not drawn
    small = replace(part, scales=part.scales * 0.01)
    incremental = IncrementalRaster(camera)
    incremental.draw(small, ids, chosen, none)
    drawn.clear()
    incremental.draw(small, ids, chosen[1:], none)
    assert 0 <= len(drawn) <= 4 < everything


def noisy_chunk(x: float, index: int, *, observed: bool) -> Chunk:
    camera = cameras_at((x, 0.0, 0.0), (x + 0.1, 0.0, 0.0), size=SIZE)
    rng = torch.Generator().manual_seed(index)
    depth = 2.0 + 0.3 * torch.rand(2, 1, *SIZE, generator=rng)
    valid = torch.ones_like(depth, dtype=torch.bool)
    frame = Frame(torch.rand(2, 3, *SIZE, generator=rng), depth, valid, ~valid, camera)
    return chunk_of(frame, index, observed=observed, confidence=0.5 + 0.1 * index)


def test_no_bit_depends_on_earlier_renders() -> None:
    caches = [GaussianCache() for _ in range(2)]
    for k in range(4):
        chunk = noisy_chunk(0.2 * k, k, observed=k in (0, 2))
        caches[0].render(chunk.frames.camera)  # its pictures are followed
        caches[1].render(noisy_chunk(5.0, k, observed=False).frames.camera)
        for cache in caches:
            cache.integrate(chunk)
    a, b = (cache.snapshot() for cache in caches)
    assert len(a) > 100
    assert same_bits(a, b)


def test_a_kept_store_view_equals_a_new_one() -> None:
    store, camera = BlockStore(some(0), 64.0), turned_camera()
    store.append(some(300))
    with store.edit(camera) as edit:
        edit.removed = torch.arange(0, len(edit.view.ids), 3)
    store.append(some(200, seed=1))
    kept = store.near(camera)
    copy = BlockStore(some(0), 64.0)
    copy.apply(store.take_change())
    made = copy.near(camera)
    assert torch.equal(kept.ids, made.ids)
    assert same_bits(kept.rows, made.rows)


def test_kernels_accept_no_gaussians() -> None:
    nothing, camera = some(0), turned_camera()
    chosen = in_view(nothing, camera, sky=False)
    assert len(chosen) == len(footprint_px(nothing, chosen, camera)) == len(to_splats(nothing, chosen, camera)) == 0
    assert to_splats(nothing, chosen, camera).values.shape[1] == appearance.CHANNELS


@pytest.mark.parametrize("samples", [1, 2, 3])
@pytest.mark.parametrize("kinds", ["both", "surfaces", "sky"])
def test_blended_pixels_agree_with_tensor_operations(samples: int, kinds: str) -> None:
    part, camera = some(900), turned_camera()
    policy = replace(DEFAULT_RENDERING, samples=samples)
    rasters = []
    for sky in (False, True):
        index = in_view(part, camera, sky=sky)
        index = index[:0] if kinds == ("sky", "surfaces")[sky] else index
        fine = supersampled(camera, policy)[None]
        rasters.append(rasterize(to_splats(part, index, camera, policy), fine, "cpu", eps2d=0.1))
    near, far = rasters[0], None if kinds == "surfaces" else rasters[1]
    fast, slow = (make(near, far, camera, policy) for make in (blended, blended_reference))
    assert fast.covered.any()
    # The fourth power of the spread, and sums of several samples, round otherwise; the spread is a root of a
    # difference, so that its error is the root of the rounding.
    bound = 0.0 if samples == 1 else 2e-5
    for name in ("rgb", "depth", "coverage", "sky", "observed", "away"):
        torch.testing.assert_close(getattr(fast, name), getattr(slow, name), rtol=bound, atol=bound)
    torch.testing.assert_close(fast.confidence, slow.confidence, rtol=0.0, atol=1e-4)
    torch.testing.assert_close(fast.spread, slow.spread, rtol=0.0, atol=2e-3)


def test_samples_of_one_call_leave_the_policy_and_kept_rasters_alone() -> None:
    part, cameras = some(900), turned_camera()[None]
    cache, once = GaussianCache(), GaussianCache(rendering=replace(DEFAULT_RENDERING, samples=1))
    for world in (cache, once):
        world.load(part)
    before, single, after = cache.render(cameras), cache.render(cameras, samples=1), cache.render(cameras)
    assert same_bits(before, after)
    assert same_bits(single, once.render(cameras))
    assert not torch.equal(single.rgb, before.rgb)
