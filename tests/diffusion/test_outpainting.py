"""What lies around a picture: around the photograph from the start, and wherever a walk leaves what is known."""

from __future__ import annotations

import pytest
import torch

from cache3d.gaussian_cache import GaussianCache
from diffusion.generator import PassthroughGenerator
from diffusion.inpainting.outpainting import (
    ENDS,
    EVEN,
    OPENED,
    RIM_PX,
    SIDES,
    eroded_border,
    outpaint_camera,
    pad_frame,
    photo_with_margin,
)
from diffusion.inpainting.prior import PriorConfig
from diffusion.noise_map import NoiseConfig
from diffusion.sampler import SamplerConfig
from geometry.camera import Camera
from geometry.frame import Chunk, Frame, Guide
from worldwarp.loop import Components, LiftedPhoto, start

SIZE = (48, 80)
Y, X = EVEN * round(ENDS * SIZE[0] / EVEN), EVEN * round(SIDES * SIZE[1] / EVEN)


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
    components = Components(PassthroughGenerator(), NoiseConfig(), PriorConfig(), SamplerConfig())
    lifted = LiftedPhoto(photo, photo, photo.rgb[0])
    state = start(lifted, cache, components, torch.Generator().manual_seed(0))
    assert state.chunks == state.frames == len(state.reference) == 1
    return cache


def test_the_margin_is_open_and_the_photo_keeps_its_pixels(photo: Frame) -> None:
    guide = photo_with_margin(photo)
    known = pad_frame(photo, guide.camera.size)
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
    shown = cache.render(photo_with_margin(photo).camera)
    beside = (slice(None), slice(None), slice(Y, -Y), slice(X - 8, X))
    red, _, blue = shown.rgb[beside].mean((0, 2, 3))
    assert red > 4 * blue
    assert ((shown.depth[beside] - 2.0).abs() < 0.4).float().mean() > 0.9
    assert shown.coverage[..., RIM_PX:-RIM_PX, RIM_PX:-RIM_PX].mean() > 0.97
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


def _shown(hole: torch.Tensor) -> Guide:
    """What two cameras see, one beside the other, where the last has ``hole [h w]``."""
    poses = torch.eye(4).repeat(2, 1, 1)
    poses[1, 0, 3] = 0.2
    coverage = torch.ones(2, 1, *SIZE)
    coverage[1, 0, hole] = 0.0
    return Guide(
        coverage.expand(-1, 3, -1, -1),
        3.0 * coverage,
        coverage,
        coverage,
        0 * coverage,
        Camera.from_fov(60.0, SIZE, poses),
    )


@pytest.mark.parametrize(
    ("part", "margins"),
    [
        ((slice(None), slice(-6, None)), (0, X, 0, 0)),
        ((slice(None), slice(0, 6)), (X, 0, 0, 0)),
        ((slice(0, 6), slice(None)), (0, 0, Y, 0)),
        ((slice(-6, None), slice(0, -6)), (0, 0, 0, Y)),
        ((slice(16, None), slice(20, None)), (0, X, 0, Y)),
    ],
)
def test_a_walk_looks_beyond_the_sides_that_open(part: tuple[slice, slice], margins: tuple[int, int, int, int]) -> None:
    hole = torch.zeros(SIZE, dtype=torch.bool)
    hole[part] = True
    guide = _shown(hole)
    wide = outpaint_camera(guide)
    assert wide is not None
    left, right, above, below = margins
    assert wide.size == (SIZE[0] + above + below, SIZE[1] + left + right)
    # From where the last camera stands, through its lens: its pixels stay what they are, moved by the margin.
    last = guide.camera[-1:]
    assert torch.equal(wide.world_from_camera, last.world_from_camera)
    assert torch.equal(wide.focal_px, last.focal_px)
    assert torch.equal(wide.center_px - last.center_px, torch.tensor([[float(left), float(above)]]))


def test_there_is_nothing_beyond_where_the_sides_are_known_or_nothing_is() -> None:
    hole = torch.zeros(SIZE, dtype=torch.bool)
    hole[8:-8, 8:-8] = True
    assert outpaint_camera(_shown(hole)) is None
    hole[: round((OPENED - 0.05) * SIZE[0]), 0] = True
    assert outpaint_camera(_shown(hole)) is None
    assert outpaint_camera(_shown(torch.ones_like(hole))) is None


def test_the_outermost_pixels_are_not_kept(photo: Frame) -> None:
    kept = eroded_border(torch.ones(1, 1, *SIZE, dtype=torch.bool))
    assert kept[..., RIM_PX:-RIM_PX, RIM_PX:-RIM_PX].all()
    assert int(kept.sum()) == (SIZE[0] - 2 * RIM_PX) * (SIZE[1] - 2 * RIM_PX)
    # In the world neither: as far as the margin's end is opaque, not farther.
    cover = _begun(photo).render(photo_with_margin(photo).camera).coverage[0, 0]
    assert cover[Y : Y + SIZE[0], RIM_PX + 2 : X].mean() > 0.95
    assert cover[Y : Y + SIZE[0], : RIM_PX - 2].max() < 0.5
