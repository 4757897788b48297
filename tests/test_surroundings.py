"""What lies around the photograph: made once, from where it was taken, and part of the world from the start."""

from __future__ import annotations

import pytest
import torch

from cache3d.gaussians import GaussianCache
from diffusion.generator import PassthroughGenerator
from diffusion.noise import NoiseConfig
from diffusion.prior import PriorConfig
from diffusion.sampler import SamplerConfig
from diffusion.surroundings import ENDS, SIDES, widened, with_margin
from geometry.camera import Camera
from geometry.frame import Chunk, Frame
from worldwarp.loop import Parts, begin

SIZE = (48, 80)
Y, X = round(ENDS * SIZE[0]), round(SIDES * SIZE[1])


@pytest.fixture(scope="module")
def photo() -> Frame:
    """Red columns on the left, which the border cuts, before something blue."""
    column = torch.arange(SIZE[1])
    near = (column < 24).expand(1, 1, *SIZE)
    stripe = (0.6 + 0.3 * (column // 3 % 2)).expand(1, 1, *SIZE)
    none = torch.zeros(1, 1, *SIZE)
    rgb = torch.cat([torch.where(near, stripe, none), none, torch.where(near, none, stripe)], 1)
    depth = torch.where(near, 2.0, 4.0)
    return Frame(rgb, depth, depth > 0, depth < 0, Camera.from_fov(60.0, SIZE, torch.eye(4)[None]))


def _begun(photo: Frame) -> GaussianCache:
    cache = GaussianCache()
    parts = Parts(cache, PassthroughGenerator(), NoiseConfig(), PriorConfig(), SamplerConfig())
    seed = Chunk(photo, 0, observed=True, confidence=torch.ones_like(photo.depth))
    walk = begin(seed, seed, photo.rgb[0], parts, torch.Generator().manual_seed(0))
    assert walk.chunks == walk.frames == len(walk.reference) == 1
    return cache


def test_the_margin_is_open_and_the_photo_keeps_its_pixels(photo: Frame) -> None:
    guide = with_margin(photo)
    known = widened(photo, guide.camera.size)
    assert guide.camera.size == known.camera.size == (SIZE[0] + 2 * Y, SIZE[1] + 2 * X)
    inside = (slice(None), slice(None), slice(Y, -Y), slice(X, -X))
    assert torch.equal(guide.rgb[inside], photo.rgb)
    assert torch.equal(known.depth[inside], photo.depth)
    assert guide.coverage.sum() == known.valid.sum() == SIZE[0] * SIZE[1]
    assert (known.depth > 0).all()
    # A direction keeps its pixel, moved by the margin.
    torch.testing.assert_close(guide.camera.center_px - photo.camera.center_px, torch.tensor([[float(X), float(Y)]]))
    assert torch.equal(guide.camera.focal_px, photo.camera.focal_px)


def test_what_the_border_cuts_goes_on(photo: Frame) -> None:
    cache = _begun(photo)
    shown = cache.render(with_margin(photo).camera)
    beside = (slice(None), slice(None), slice(Y, -Y), slice(X - 8, X))
    red, _, blue = shown.rgb[beside].mean((0, 2, 3))
    assert red > 4 * blue
    assert ((shown.depth[beside] - 2.0).abs() < 0.4).float().mean() > 0.9
    assert shown.coverage.mean() > 0.97
    assert shown.confidence[beside].max() < 0.95 * shown.confidence[..., Y + 8 : -Y - 8, X + 30 : -X - 8].mean()


def test_it_belongs_to_the_photo_s_chunk_but_was_not_observed(photo: Frame) -> None:
    rows = _begun(photo).snapshot()
    assert (rows.chunk == 0).all()
    assert int((~rows.observed).sum()) > 0
    assert int(rows.observed.sum()) == SIZE[0] * SIZE[1]
    again = _begun(photo).snapshot()
    assert torch.equal(rows.means, again.means)
    assert torch.equal(rows.colors, again.colors)


def test_the_photo_still_shows_the_photo(photo: Frame) -> None:
    alone = GaussianCache()
    alone.integrate(Chunk(photo, 0, observed=True, confidence=torch.ones_like(photo.depth)))
    before, after = (cache.render(photo.camera).rgb[..., 2:-2, 2:-2] for cache in (alone, _begun(photo)))
    assert (before - after).abs().max() < 0.02
