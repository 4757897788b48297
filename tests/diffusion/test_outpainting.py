"""Outpainting: around the photo, and where a chunk leaves the known."""

from __future__ import annotations

import pytest
import torch

from cache3d.gaussian_cache import GaussianCache
from diffusion.inpainting.config import InpaintConfig, OutpaintConfig
from diffusion.inpainting.outpainting import (
    STEP_PX,
    eroded_border,
    outpaint_camera,
    pad_frame,
    photo_with_margin,
)
from diffusion.noise_map import NoiseConfig
from diffusion.passthrough import PassthroughGenerator
from geometry.camera import Camera
from geometry.frame import Chunk, Frame, Guide
from worldwarp.loop import Components, LiftedPhoto, start

SIZE = (48, 80)
CONFIG = OutpaintConfig()
Y, X = STEP_PX * round(CONFIG.end * SIZE[0] / STEP_PX), STEP_PX * round(CONFIG.side * SIZE[1] / STEP_PX)


@pytest.fixture(scope="module")
def photo() -> Frame:
    """Red columns on the left, cut by the border, in front of a blue surface."""
    column = torch.arange(SIZE[1])
    near = (column < 24).expand(1, 1, *SIZE)
    stripe = (0.6 + 0.3 * (column // 3 % 2)).expand(1, 1, *SIZE)
    none = torch.zeros(1, 1, *SIZE)
    rgb = torch.cat([torch.where(near, stripe, none), none, torch.where(near, none, stripe)], 1)
    depth = torch.where(near, 2.0, 4.0)
    return Frame(rgb, depth, depth > 0, depth < 0, Camera.from_fov(60.0, SIZE, torch.eye(4)[None]))


def _begun(photo: Frame) -> GaussianCache:
    cache = GaussianCache()
    components = Components(PassthroughGenerator(), NoiseConfig(), InpaintConfig())
    lifted = LiftedPhoto(photo, photo, photo.rgb[0])
    state = start(lifted, cache, components, torch.Generator().manual_seed(0))
    assert state.chunks == state.frames == len(state.reference) == 1
    return cache


def test_margin_is_hole_and_photo_pixels_are_kept(photo: Frame) -> None:
    guide = photo_with_margin(photo)
    known = pad_frame(photo, guide.camera.size)
    assert guide.camera.size == known.camera.size == (SIZE[0] + 2 * Y, SIZE[1] + 2 * X)
    inside = (slice(None), slice(None), slice(Y, -Y), slice(X, -X))
    assert torch.equal(guide.rgb[inside], photo.rgb)
    assert torch.equal(known.depth[inside], photo.depth)
    assert guide.coverage.sum() == known.valid.sum() == SIZE[0] * SIZE[1]
    assert (known.depth > 0).all()
    # Every ray keeps its pixel, shifted by the margin.
    torch.testing.assert_close(guide.camera.center_px - photo.camera.center_px, torch.tensor([[float(X), float(Y)]]))
    assert torch.equal(guide.camera.focal_px, photo.camera.focal_px)


def test_surfaces_cut_by_the_border_are_extended(photo: Frame) -> None:
    cache = _begun(photo)
    shown = cache.render(photo_with_margin(photo).camera)
    beside = (slice(None), slice(None), slice(Y, -Y), slice(X - 8, X))
    red, _, blue = shown.rgb[beside].mean((0, 2, 3))
    assert red > 4 * blue
    assert ((shown.depth[beside] - 2.0).abs() < 0.4).float().mean() > 0.9
    assert shown.coverage[..., CONFIG.border_px : -CONFIG.border_px, CONFIG.border_px : -CONFIG.border_px].mean() > 0.97
    assert shown.confidence[beside].max() < 0.95 * shown.confidence[..., Y + 8 : -Y - 8, X + 30 : -X - 8].mean()


def test_margin_is_of_chunk_0_and_not_observed(photo: Frame) -> None:
    rows = _begun(photo).snapshot()
    assert (rows.chunk == 0).all()
    assert int((~rows.observed).sum()) > 0
    assert int(rows.observed.sum()) == SIZE[0] * SIZE[1]
    again = _begun(photo).snapshot()
    assert torch.equal(rows.means, again.means)
    assert torch.equal(rows.colors, again.colors)


def test_outpainting_does_not_change_the_photos_view(photo: Frame) -> None:
    alone = GaussianCache()
    alone.integrate(Chunk(photo, 0, observed=True, confidence=torch.ones_like(photo.depth)))
    before, after = (cache.render(photo.camera).rgb[..., 2:-2, 2:-2] for cache in (alone, _begun(photo)))
    assert (before - after).abs().max() < 0.02


def _shown(hole: torch.Tensor) -> Guide:
    """A guide of two cameras side by side; the last frame has ``hole [h w]``."""
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
def test_margin_on_the_uncovered_sides_only(part: tuple[slice, slice], margins: tuple[int, int, int, int]) -> None:
    hole = torch.zeros(SIZE, dtype=torch.bool)
    hole[part] = True
    guide = _shown(hole)
    wide = outpaint_camera(guide)
    assert wide is not None
    left, right, above, below = margins
    assert wide.size == (SIZE[0] + above + below, SIZE[1] + left + right)
    # Pose and focal length of the last camera; its pixels are shifted by the margin.
    last = guide.camera[-1:]
    assert torch.equal(wide.world_from_camera, last.world_from_camera)
    assert torch.equal(wide.focal_px, last.focal_px)
    assert torch.equal(wide.center_px - last.center_px, torch.tensor([[float(left), float(above)]]))


def test_no_outpainting_when_sides_are_covered_or_nothing_is() -> None:
    hole = torch.zeros(SIZE, dtype=torch.bool)
    hole[8:-8, 8:-8] = True
    assert outpaint_camera(_shown(hole)) is None
    hole[: round((CONFIG.open_share - 0.05) * SIZE[0]), 0] = True
    assert outpaint_camera(_shown(hole)) is None
    assert outpaint_camera(_shown(torch.ones_like(hole))) is None


def test_outermost_pixels_are_not_kept(photo: Frame) -> None:
    kept = eroded_border(torch.ones(1, 1, *SIZE, dtype=torch.bool))
    assert kept[..., CONFIG.border_px : -CONFIG.border_px, CONFIG.border_px : -CONFIG.border_px].all()
    assert int(kept.sum()) == (SIZE[0] - 2 * CONFIG.border_px) * (SIZE[1] - 2 * CONFIG.border_px)
    # In the cache they are missing too.
    cover = _begun(photo).render(photo_with_margin(photo).camera).coverage[0, 0]
    assert cover[Y : Y + SIZE[0], CONFIG.border_px + 2 : X].mean() > 0.95
    assert cover[Y : Y + SIZE[0], : CONFIG.border_px - 2].max() < 0.5
