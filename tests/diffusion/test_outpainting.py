"""Outpainting: around the photo, and where a chunk leaves the known."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from cache3d.gaussian_cache import GaussianCache
from diffusion.inpainting.config import InpaintConfig, OutpaintConfig
from diffusion.inpainting.outpainting import (
    STEP_PX,
    eroded_border,
    looks_beyond,
    outpaint_camera,
    pad_frame,
    photo_with_margin,
)
from diffusion.noise_map import NoiseConfig
from diffusion.passthrough import PassthroughGenerator
from geometry.frame import Frame, Guide
from tests.helpers import cameras_at, chunk_of, guide_of
from worldwarp.completion import add_margin
from worldwarp.loop import start
from worldwarp.state import Components, LiftedPhoto

SIZE = (48, 80)
CONFIG = OutpaintConfig()
Y, X = STEP_PX * round(CONFIG.end * SIZE[0] / STEP_PX), STEP_PX * round(CONFIG.side * SIZE[1] / STEP_PX)


@pytest.fixture(scope="module")
def columns() -> Frame:
    """Red columns on the left, cut by the border, in front of a blue surface."""
    column = torch.arange(SIZE[1])
    near = (column < 24).expand(1, 1, *SIZE)
    stripe = (0.6 + 0.3 * (column // 3 % 2)).expand(1, 1, *SIZE)
    none = torch.zeros(1, 1, *SIZE)
    rgb = torch.cat([torch.where(near, stripe, none), none, torch.where(near, none, stripe)], 1)
    depth = torch.where(near, 2.0, 4.0)
    return Frame(rgb, depth, depth > 0, depth < 0, cameras_at((0.0, 0.0, 0.0), size=SIZE))


def _begun(columns: Frame) -> GaussianCache:
    cache = GaussianCache()
    components = Components(PassthroughGenerator(), NoiseConfig(), InpaintConfig())
    lifted = LiftedPhoto(columns, columns, columns.rgb[0])
    state = start(lifted, cache, components, torch.Generator().manual_seed(0))
    assert state.chunks == state.frames == len(state.reference) == 1
    add_margin(state, components)
    return cache


def test_margin_is_hole_and_photo_pixels_are_kept(columns: Frame) -> None:
    guide = photo_with_margin(columns)
    known = pad_frame(columns, guide.camera.size)
    assert guide.camera.size == known.camera.size == (SIZE[0] + 2 * Y, SIZE[1] + 2 * X)
    inside = (slice(None), slice(None), slice(Y, -Y), slice(X, -X))
    assert torch.equal(guide.rgb[inside], columns.rgb)
    assert torch.equal(known.depth[inside], columns.depth)
    assert guide.coverage.sum() == known.valid.sum() == SIZE[0] * SIZE[1]
    assert (known.depth > 0).all()
    # Every ray keeps its pixel, shifted by the margin.
    torch.testing.assert_close(guide.camera.center_px - columns.camera.center_px, torch.tensor([[float(X), float(Y)]]))
    assert torch.equal(guide.camera.focal_px, columns.camera.focal_px)


def test_surfaces_cut_by_the_border_are_extended(columns: Frame) -> None:
    cache = _begun(columns)
    shown = cache.render(photo_with_margin(columns).camera)
    beside = (slice(None), slice(None), slice(Y, -Y), slice(X - 8, X))
    red, _, blue = shown.rgb[beside].mean((0, 2, 3))
    assert red > 4 * blue
    assert ((shown.depth[beside] - 2.0).abs() < 0.4).float().mean() > 0.9
    assert shown.coverage[..., CONFIG.border_px : -CONFIG.border_px, CONFIG.border_px : -CONFIG.border_px].mean() > 0.97
    assert shown.confidence[beside].max() < 0.95 * shown.confidence[..., Y + 8 : -Y - 8, X + 30 : -X - 8].mean()


def test_margin_belongs_to_the_next_chunk_and_is_not_observed(columns: Frame) -> None:
    rows = _begun(columns).snapshot()
    assert torch.equal(rows.chunk == 1, ~rows.observed)
    assert int((~rows.observed).sum()) > 0
    assert int(rows.observed.sum()) == SIZE[0] * SIZE[1]
    again = _begun(columns).snapshot()
    assert torch.equal(rows.means, again.means)
    assert torch.equal(rows.colors, again.colors)


def test_outpainting_does_not_change_the_photos_view(columns: Frame) -> None:
    alone = GaussianCache()
    alone.integrate(chunk_of(columns))
    before, after = (cache.render(columns.camera).rgb[..., 2:-2, 2:-2] for cache in (alone, _begun(columns)))
    assert (before - after).abs().max() < 0.02


def _half_covered(hole: torch.Tensor) -> Guide:
    """A guide of two cameras side by side; the last frame has ``hole [h w]``."""
    holes = torch.stack([torch.zeros_like(hole), hole])[:, None]
    return guide_of(cameras_at((0.0, 0.0, 0.0), (0.2, 0.0, 0.0), size=SIZE), 3.0, 1.0, holes)


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
    guide = _half_covered(hole)
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
    assert outpaint_camera(_half_covered(hole)) is None
    hole[: round((CONFIG.open_share - 0.05) * SIZE[0]), 0] = True
    assert outpaint_camera(_half_covered(hole)) is None
    assert outpaint_camera(_half_covered(torch.ones_like(hole))) is None


@pytest.mark.parametrize(
    ("move", "turn_deg", "sees_more"),
    [
        ((0.0, 0.0, 0.0), 0.0, False),
        ((0.0, 0.0, 1.0), 0.0, False),
        ((0.0, 0.0, -1.0), 0.0, True),
        ((0.5, 0.0, 0.0), 0.0, True),
        ((0.0, 0.0, 0.0), 3.0, True),
    ],
)
def test_views_beyond_the_photo_are_told_from_views_within(
    columns: Frame, move: tuple[float, float, float], turn_deg: float, sees_more: bool
) -> None:
    camera, angle = cameras_at((0.0, 0.0, 0.0), move, size=SIZE), math.radians(turn_deg)
    turn = torch.eye(4)
    turn[0, 0], turn[0, 2], turn[2, 0], turn[2, 2] = math.cos(angle), math.sin(angle), -math.sin(angle), math.cos(angle)
    camera = replace(camera, world_from_camera=camera.world_from_camera @ turn)
    assert looks_beyond(camera[-1:], columns) == looks_beyond(camera, columns) == sees_more


def test_outermost_pixels_are_not_kept(columns: Frame) -> None:
    kept = eroded_border(torch.ones(1, 1, *SIZE, dtype=torch.bool))
    assert kept[..., CONFIG.border_px : -CONFIG.border_px, CONFIG.border_px : -CONFIG.border_px].all()
    assert int(kept.sum()) == (SIZE[0] - 2 * CONFIG.border_px) * (SIZE[1] - 2 * CONFIG.border_px)
    # In the cache they are missing too.
    cover = _begun(columns).render(photo_with_margin(columns).camera).coverage[0, 0]
    assert cover[Y : Y + SIZE[0], CONFIG.border_px + 2 : X].mean() > 0.95
    assert cover[Y : Y + SIZE[0], : CONFIG.border_px - 2].max() < 0.5
