"""The inpainting prior: complete, exact where known, background behind foreground, one texture in all frames."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from diffusion.condition import Prior
from diffusion.inpainting.config import DepthConfig, DisocclusionConfig, ExemplarConfig, InpaintConfig, PatchCosts
from diffusion.inpainting.depth_extension import fill_inverse_depth, thin_plate_fill, without_specks
from diffusion.inpainting.disocclusion import split_sides
from diffusion.inpainting.exemplar import blend_in
from diffusion.inpainting.frame_fill import _dense
from diffusion.inpainting.masks import thin
from diffusion.inpainting.patchmatch import SAMPLE_STEP, Correspondences, PatchSources, PatchTarget, improve
from diffusion.inpainting.prior import inpaint_prior
from diffusion.inpainting.source_plausibility import border_dissimilarity
from geometry.camera import Camera
from geometry.frame import Frame, Guide
from geometry.warping import forward_warp
from tests.helpers import cameras_at, guide_of

SIZE = (64, 96)


def sideways(count: int) -> Camera:
    return cameras_at(*((x, 0.0, 0.0) for x in torch.linspace(0.0, 0.2, count).tolist()), size=SIZE)


def stripes(count: int = 1) -> torch.Tensor:
    columns = torch.arange(SIZE[1]) // 4 % 2
    green = torch.stack([torch.zeros(SIZE[1]), 0.4 + 0.4 * columns, torch.full((SIZE[1],), 0.2)])
    return green[None, :, None].expand(count, 3, *SIZE).clone()


def holed_guide(rgb: torch.Tensor, depth: torch.Tensor, hole: torch.Tensor) -> Guide:
    return guide_of(sideways(len(rgb)), depth, rgb, hole)


def reference() -> Frame:
    depth = torch.full((1, 1, *SIZE), 2.0)
    return Frame(stripes(), depth, depth > 0, depth < 0, sideways(2)[:1])


def wide_hole(count: int = 1) -> torch.Tensor:
    hole = torch.zeros(count, 1, *SIZE, dtype=torch.bool)
    hole[..., 60:] = True
    return hole


def copied(guide: Guide, seed: int = 0) -> Prior:
    return inpaint_prior(guide, reference(), torch.Generator().manual_seed(seed))


def test_known_pixels_are_exact_and_holes_complete() -> None:
    guide = holed_guide(stripes(2), torch.full((2, 1, *SIZE), 2.0), wide_hole(2))
    prior = copied(guide)
    seen = prior.copied == 0
    assert torch.equal(prior.rgb[seen.expand_as(prior.rgb)], guide.rgb[seen.expand_as(prior.rgb)])
    assert torch.equal(prior.depth[seen], guide.depth[seen])
    assert torch.equal(prior.copied > 0, ~seen)
    assert (prior.copied[wide_hole(2)] == 1).all()
    assert torch.isfinite(prior.depth).all()
    assert (prior.depth > 0).all()
    assert prior.rgb.min() >= 0
    assert prior.rgb.max() <= 1


def test_thin_parts_of_a_wide_hole_are_smoother_than_copies() -> None:
    truth = torch.linspace(0.0, 1.0, SIZE[0])[None, None, :, None].expand(1, 3, *SIZE).contiguous()
    grainy = truth + 0.2 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    hole = torch.zeros(1, 1, *SIZE, dtype=torch.bool)
    hole[..., 8:40, 10:42] = True  # wide, with a thin slit attached
    hole[..., 20:24, 42:80] = True
    guide = holed_guide(grainy.clamp(0.0, 1.0), torch.full((1, 1, *SIZE), 2.0), hole)
    error = (copied(guide).rgb - truth).abs()
    assert error[..., 20:24, 46:80].mean() < 0.8 * error[..., 12:36, 14:38].mean()


def test_guide_without_hole_is_returned_exactly() -> None:
    guide = holed_guide(stripes(), torch.full((1, 1, *SIZE), 2.0), torch.zeros(1, 1, *SIZE, dtype=torch.bool))
    prior = copied(guide)
    assert torch.equal(prior.rgb, guide.rgb)
    assert torch.equal(prior.depth, guide.depth)
    assert not prior.copied.any()


def test_wide_holes_get_texture() -> None:
    guide = holed_guide(stripes(), torch.full((1, 1, *SIZE), 2.0), wide_hole())
    prior = copied(guide)
    contrast = lambda rgb: rgb[0, 1, :, 66:90].std().item()  # noqa: E731
    assert contrast(prior.rgb) > 0.5 * contrast(stripes())
    assert contrast(prior.rgb) > 2.0 * contrast(prior.smooth_rgb)


def test_foreground_is_not_copied() -> None:
    rgb, depth = stripes(), torch.full((1, 1, *SIZE), 4.0)
    rgb[..., 16:48, 20:40] = torch.tensor([1.0, 0.0, 0.0])[:, None, None]
    depth[..., 16:48, 20:40] = 1.0
    hole = torch.zeros(1, 1, *SIZE, dtype=torch.bool)
    hole[..., 16:48, 40:60] = True  # what the red box hid
    guide = replace(holed_guide(rgb, depth, hole), camera=sideways(2)[1:])  # the camera moved to the right
    prior = copied(guide)
    inside = prior.rgb[0, :, 18:46, 42:58]
    assert inside[0].max() < 0.3, "red was copied behind the red box"
    assert (prior.depth[0, 0, 18:46, 42:58] > 3.0).all(), "the hole got the box's depth"


def test_foreground_is_not_extended_into_its_disocclusion() -> None:
    rgb, depth = stripes(), torch.full((1, 1, *SIZE), 20.0)
    for rows, columns in ((slice(8, 44), slice(20, 40)), (slice(44, 64), slice(None))):  # a box on the ground
        rgb[..., rows, columns] = torch.tensor([1.0, 0.0, 0.0])[:, None, None]
        depth[..., rows, columns] = 1.0
    hole = torch.zeros(1, 1, *SIZE, dtype=torch.bool)
    hole[..., 8:44, 40:60] = True
    guide = replace(holed_guide(rgb, depth, hole), camera=sideways(2)[1:])
    prior = copied(guide)
    assert (prior.depth[0, 0, 8:42, 40:60] > 15.0).all(), "the far surface bends towards the ground in front of it"
    assert prior.rgb[0, 0, 8:40, 41:60].max() < 0.5, "the box grew"


def test_planes_are_extended_as_planes() -> None:
    rows = torch.linspace(0.2, 1.0, SIZE[0])[None, :, None].expand(1, *SIZE)
    known = torch.ones(1, *SIZE, dtype=torch.bool)
    known[:, 48:] = False
    filled = fill_inverse_depth(rows * known, known, DepthConfig())
    assert torch.allclose(filled, rows, rtol=0.08)
    assert torch.equal(filled[known], rows[known])


def test_depth_specks_are_removed_and_objects_kept() -> None:
    inverse = torch.full((1, *SIZE), 0.5)
    inverse[:, 20:23, 60:63] = 0.1  # a speck in the hole
    inverse[:, 20:23, 10:13] = 0.1  # and one among known pixels
    inverse[:, 30:60, 70:90] = 0.2  # an object
    hole = wide_hole()[0]
    kept = without_specks(inverse, hole, DepthConfig())
    assert (kept[:, 20:23, 60:63] == 0.5).all()
    changed = kept != inverse
    assert changed.sum() == 9
    only_specks = torch.rand(1, *SIZE, generator=torch.Generator().manual_seed(0)) ** 4 + 1e-3
    assert torch.equal(without_specks(only_specks, torch.ones_like(hole), DepthConfig()), only_specks)


def test_pixels_no_key_frame_reached_take_surrounding_colors() -> None:
    rgb = stripes(2)
    rgb[:, :, :, :50] = torch.tensor([1.0, 0.0, 0.0])[None, :, None, None]
    poses = torch.eye(4).repeat(2, 1, 1)
    poses[1, 0, 3] = 0.6  # what is copied here at column 60 is at column 85 in the first frame
    guide = replace(
        holed_guide(rgb, torch.full((2, 1, *SIZE), 2.0), wide_hole(2)), camera=Camera.from_fov(60.0, SIZE, poses)
    )
    prior = inpaint_prior(guide, reference(), torch.Generator().manual_seed(0), InpaintConfig(key_frames=1))
    red, red_of_smooth = prior.rgb[0, 0, :, 76:82], prior.smooth_rgb[0, 0, :, 76:82]
    assert (red < red_of_smooth).all()  # nearer to the green that was warped beside it
    assert torch.allclose(prior.depth[0], torch.full((1, *SIZE), 2.0), atol=0.2)


def test_depth_is_filled_without_known_pixels() -> None:
    known = torch.zeros(1, *SIZE, dtype=torch.bool)
    assert (fill_inverse_depth(torch.zeros(1, *SIZE), known, DepthConfig()) == 1.0).all()
    disoccluded, foreground = split_sides(
        torch.ones(1, *SIZE), known, sideways(2)[1:], sideways(2)[:1], DisocclusionConfig()
    )
    assert not disoccluded.any()
    assert not foreground.any()


def test_background_of_one_hole_can_be_foreground_of_another() -> None:
    depth = torch.full((1, *SIZE), 4.0)
    depth[..., 40:] = 2.0
    depth[..., 70:] = 1.0
    known = torch.ones(1, *SIZE, dtype=torch.bool)
    known[..., 36:40] = known[..., 66:70] = False
    _, foreground = split_sides(1.0 / depth, known, sideways(2)[1:], sideways(2)[:1], DisocclusionConfig())
    row = foreground[0, 20]
    assert row[40:60].all()  # foreground of the first hole
    assert not row[63:66].any()  # background of the second hole
    assert row[70:90].all()


def test_sloping_ground_is_not_foreground() -> None:
    below = (torch.arange(float(SIZE[0])) + 4.0)[:, None].expand(*SIZE)[None]
    known = torch.ones(1, *SIZE, dtype=torch.bool)
    known[:, 20:26] = False
    forward = torch.eye(4).repeat(2, 1, 1)
    forward[1, 2, 3] = 0.5
    camera = Camera.from_fov(60.0, SIZE, forward)
    disoccluded, _ = split_sides(0.05 * below, known, camera[1:], camera[:1], DisocclusionConfig())
    assert (disoccluded[:, 20:26] > 0.0).float().mean() < 0.05  # rounding of the epipolar lines to pixels
    step = torch.where(below > 26.0, 2.0, 0.5)  # a wall there is foreground
    disoccluded, _ = split_sides(step, known, camera[1:], camera[:1], DisocclusionConfig())
    assert (disoccluded[:, 20:26] > 0.0).float().mean() > 0.7


def test_lock_thin_keeps_what_was_copied_for_another_frame() -> None:
    hole = torch.zeros(2, 1, *SIZE, dtype=torch.bool)
    hole[0, ..., 60:64] = True
    hole[1, ..., 50:80] = True
    guide = holed_guide(stripes(2), torch.full((2, 1, *SIZE), 2.0), hole)
    guide = replace(guide, camera=guide.camera[[0, 0]])
    loose, locked = (
        inpaint_prior(guide, reference(), torch.Generator().manual_seed(0), lock_thin=lock_thin)
        for lock_thin in (False, True)
    )
    strip = np.s_[:1, :, :, 61:63]
    assert not loose.locked.any()
    assert locked.locked[strip].float().mean() > 0.9
    assert not locked.locked[1].any()
    assert (locked.rgb - locked.rgb[[1]])[strip].abs().mean() < 0.5 * (loose.rgb - loose.rgb[[1]])[strip].abs().mean()


def test_same_seed_same_bits() -> None:
    guide = holed_guide(stripes(2), torch.full((2, 1, *SIZE), 2.0), wide_hole(2))
    a, b = copied(guide, 3), copied(guide, 3)
    assert torch.equal(a.rgb, b.rgb)
    assert torch.equal(a.depth, b.depth)


def test_frames_of_a_chunk_agree_by_warping() -> None:
    guide = holed_guide(stripes(3), torch.full((3, 1, *SIZE), 2.0), wide_hole(3))
    prior = copied(guide)
    frames = Frame(prior.rgb, prior.depth, prior.depth > 0, prior.depth < 0, guide.camera)
    carried, _, hit = forward_warp(frames[2:3], guide.camera[1:2], frames.rgb[2:3])
    both = hit[0, 0] & wide_hole()[0, 0]
    both[:, :70] = False
    assert both.sum() > 500
    assert (carried[0] - prior.rgb[1]).abs()[:, both].median() < 0.02


def test_sparse_warped_pixels_are_dropped() -> None:
    depth = torch.full((1, *SIZE), 4.0)
    depth[:, ::3, ::3] = 1.0  # dots of a near surface over a wall
    depth[:, :, 48:] = 1.0  # the whole near surface
    hit = torch.ones_like(depth, dtype=torch.bool)
    kept = _dense(depth, hit, InpaintConfig())
    assert not kept[:, ::3, :45:3].any()
    assert kept[:, 2:-2, 50:-1].all()
    assert not _dense(depth, ~hit, InpaintConfig()).any()


def test_nearly_empty_guide_copies_from_the_photo() -> None:
    hole = torch.ones(1, 1, *SIZE, dtype=torch.bool)
    hole[..., :4] = False
    prior = copied(holed_guide(stripes(), torch.full((1, 1, *SIZE), 2.0), hole))
    assert prior.rgb[0, 1, :, 8:].std() > 0.05


def test_blending_removes_a_color_step() -> None:
    rgb = torch.full((3, *SIZE), 0.5)
    hole = wide_hole()[0]
    rgb[:, :, 60:] = 0.6
    blended = blend_in(rgb, ~hole, hole, ExemplarConfig())
    assert (blended[:, :, 60] - 0.5).abs().max() < 0.02
    assert torch.equal(blended[:, :, :60], rgb[:, :, :60])


def test_reference_of_another_size_is_rejected() -> None:
    guide = holed_guide(stripes(), torch.full((1, 1, *SIZE), 2.0), wide_hole())
    small = Camera.from_fov(60.0, (32, 48), torch.eye(4)[None])
    depth = torch.ones(1, 1, 32, 48)
    frame = Frame(torch.zeros(1, 3, 32, 48), depth, depth > 0, depth < 0, small)
    with pytest.raises(ValueError, match="reference: want frames"):
        inpaint_prior(guide, frame, torch.Generator(), InpaintConfig())


def test_sky_is_extended_per_row_without_mixed_pixels() -> None:
    rows = torch.linspace(0.2, 0.9, SIZE[0])[:, None].expand(SIZE)
    rgb = torch.stack([rows * 0.8, rows * 0.9, rows])[None]
    hole = torch.zeros(1, 1, *SIZE, dtype=torch.bool)
    hole[..., 50:] = True
    sky = torch.ones(1, 1, *SIZE)
    sky[..., 20:30, 20:30] = 0.0  # a bird, and around it pixels mixed with the sky
    seen = rgb.clone()
    seen[..., 18:32, 18:32] = 0.0
    covered = (~hole).float()
    depth = torch.where(sky > 0.5, 200.0, 2.0)
    guide = Guide(seen * covered, depth * covered, covered, covered, sky * covered, sideways(1))
    far = Frame(seen, depth, depth > 0, sky > 0.5, sideways(2)[:1])
    prior = inpaint_prior(guide, far, torch.Generator().manual_seed(0))
    new = hole.clone()
    new[..., :52] = False
    assert (prior.rgb - rgb).abs()[new.expand_as(rgb)].max() < 0.1


def test_strip_at_the_border_of_the_picture_is_not_thin() -> None:
    hole = torch.zeros(1, 1, 40, 60, dtype=torch.bool)
    hole[..., :3] = True  # continues beyond the picture
    hole[..., 10:14, 20:] = True  # a crack that does so too
    hole[..., 20:32, 30:42] = True
    expected = torch.zeros_like(hole)
    expected[..., 10:14, 20:] = True
    assert torch.equal(thin(hole), expected)


def test_wide_sky_hole_takes_the_color_beside_it_not_the_mean() -> None:
    bright = torch.linspace(0.3, 0.9, SIZE[1]).expand(1, 3, *SIZE).clone()
    covered = torch.ones(1, 1, *SIZE)
    covered[..., :24] = 0.0
    depth = torch.full((1, 1, *SIZE), 200.0)
    guide = Guide(bright * covered, depth * covered, covered, covered, covered.clone(), sideways(1))
    far = Frame(bright, depth, depth > 0, depth > 0, sideways(2)[:1])
    prior = inpaint_prior(guide, far, torch.Generator().manual_seed(0))
    beside, mean = bright[0, 0, 0, 24], bright[0, 0, 0, 24:].mean()
    assert ((prior.rgb[0, :, :, :16] - beside).abs() < 0.25 * (mean - beside)).all()


def test_sky_above_goes_on_with_its_slope_and_with_what_varies_across() -> None:
    height, width = SIZE
    down = torch.arange(float(height))[:, None].expand(SIZE)
    across = torch.linspace(-0.15, 0.15, width).expand(SIZE)
    rgb = (0.4 + 0.004 * down + across).expand(1, 3, *SIZE).clone()
    covered = torch.ones(1, 1, *SIZE)
    covered[..., : height // 2, :] = 0.0
    depth = torch.full((1, 1, *SIZE), 200.0)
    guide = Guide(rgb * covered, depth * covered, covered, covered, covered.clone(), sideways(1))
    far = Frame(rgb, depth, depth > 0, depth > 0, sideways(2)[:1])
    filled = inpaint_prior(guide, far, torch.Generator().manual_seed(0)).rgb[0, 0]
    border = height // 2
    above, truth = filled[border - 6 : border], rgb[0, 0, border - 6 : border]
    assert (above - truth).abs().mean() < 0.012  # .064 where each row is nearly one color
    slope = (filled[border - 4] - filled[border - 1]).mean() / (truth[2] - truth[5]).mean()
    assert slope > 0.3


def test_slope_of_the_ground_is_extended_behind_foreground() -> None:
    ground = 0.01 * (torch.arange(float(SIZE[0])) + 4.0)[:, None].expand(*SIZE)[None]
    known = torch.ones(1, *SIZE, dtype=torch.bool)
    known[:, 20:30] = False
    forward = torch.eye(4).repeat(2, 1, 1)
    forward[1, 2, 3] = 0.5
    camera = Camera.from_fov(60.0, SIZE, forward)
    rows = torch.arange(SIZE[0])[:, None].expand(*SIZE)[None]
    far, _ = split_sides(torch.where(rows < 30, ground, 2.0), known, camera[1:], camera[:1], DisocclusionConfig())
    hidden = known.logical_not() & (far > 0.0)
    assert hidden[:, 20:30].float().mean() > 0.5
    error = (far / ground - 1.0).abs()[hidden]
    assert error.median() < 0.15  # the last known depth is up to a third farther


def test_membrane_extends_constants_and_plate_extends_slopes() -> None:
    slope = torch.arange(24.0).expand(1, 16, 24)
    weight = torch.ones(16, 24)
    weight[:, :12] = 0.0
    sheet = thin_plate_fill(slope, weight, bending=0.0, membrane=1.0)
    plate = thin_plate_fill(slope, weight, bending=1.0, membrane=0.0)
    assert torch.allclose(sheet[:, :, :12], torch.tensor(12.0).double(), atol=0.2)
    assert torch.allclose(plate, slope.double(), atol=1e-3)


def test_dissimilarity_is_per_border_segment() -> None:
    green, red = np.array([0.5, -0.5, 0.5, 0.0], np.float32), np.array([0.5, 0.7, 0.5, 0.0], np.float32)
    picture = np.where(np.arange(320)[None, :, None] < 160, green, red).repeat(40, 0)
    hole = np.zeros((40, 320), bool)
    hole[:, :40] = hole[:, -40:] = True
    maps, border_segment = border_dissimilarity(picture, ~hole, hole, picture[None], ~hole[None], ExemplarConfig())
    for column, own, other in ((10, 80, 240), (310, 240, 80)):
        costs = maps[border_segment[20, column], 0, 20 // SAMPLE_STEP]
        assert costs[own // SAMPLE_STEP] == 0.0
        assert costs[other // SAMPLE_STEP] == 1.0
    nothing, _ = border_dissimilarity(picture, np.zeros_like(hole), hole, picture[None], ~hole[None], ExemplarConfig())
    assert not nothing.any()


def _improved(detail: float, start: np.ndarray) -> np.ndarray:
    """Correspondences ``[32 32 3]`` after a search in which every patch of the only source fits equally well."""
    flat, zero = np.zeros((32, 32, 4), np.float32), np.zeros((1, 32, 32), np.float32)
    usable = np.zeros((1, 32, 32), bool)
    usable[0, 4:28, 4:28] = True
    ys, xs = np.nonzero(np.ones((32, 32), bool))
    field = Correspondences(ys, xs, start.copy(), np.zeros((32, 32), np.float32))
    target = PatchTarget(
        picture=flat,
        weight=np.zeros((32, 32), np.float32),
        hole=np.ones((32, 32), bool),
        depth=flat[..., 0],
        depth_weight=flat[..., 0],
        segment=np.zeros((32, 32), np.int64),
    )
    sources = PatchSources(
        features=flat[None],
        usable=usable,
        cost=zero,
        dissimilarity=zero[None],
        factor=1,
        detail=np.full((1, 32, 32), detail, np.float32),
    )
    improve(target, sources, field, PatchCosts(), len(ys) / usable.sum(), 4, 32, 0)
    return field.nnf


def test_repetition_cost_spreads_the_uses() -> None:
    start = np.tile(np.array([0, 16, 16]), (32, 32, 1))

    def most_used(detail: float) -> float:
        field = _improved(detail, start)
        places = field[..., 1] // 4 * 8 + field[..., 2] // 4
        return float(np.bincount(places.ravel()).max()) / (32 * 32 / 36)

    assert most_used(1.0) < 2.5
    assert most_used(0.0) > 1.5 * most_used(1.0)  # patches without detail may be repeated


def test_incoherence_cost_keeps_pieces_whole() -> None:
    rng = np.random.default_rng(0)
    start = np.concatenate([np.zeros((32, 32, 1), int), rng.integers(4, 28, (32, 32, 2))], -1)
    moved = _improved(0.0, start)[..., 1:] - np.moveaxis(np.mgrid[:32, :32], 0, -1)

    def whole(shift: np.ndarray) -> float:
        return float((shift[:, 1:] == shift[:, :-1]).all(-1).mean())

    assert whole(start[..., 1:] - np.moveaxis(np.mgrid[:32, :32], 0, -1)) < 0.05
    assert whole(moved) > 0.8
