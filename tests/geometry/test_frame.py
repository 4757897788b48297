"""Frames, chunks and guides: the masks and units that every stage derives from them."""

from __future__ import annotations

import torch
from torch import Tensor

from geometry.camera import Camera
from geometry.frame import COVERED, SKY, Chunk, Frame, Guide


def row(*values: float) -> Tensor:
    """A map ``[1 1 1 n]``."""
    return torch.tensor(values, dtype=torch.float32).reshape(1, 1, 1, -1)


def frame(depth: Tensor, valid: Tensor, sky: Tensor) -> Frame:
    camera = Camera.from_fov(60.0, (1, depth.shape[-1]), torch.eye(4)[None])
    return Frame(torch.zeros(1, 3, 1, depth.shape[-1]), depth, valid > 0, sky > 0, camera)


def test_surface_is_valid_and_not_sky() -> None:
    assert frame(row(1, 1, 1, 1), row(1, 1, 0, 0), row(0, 1, 0, 1)).surface.flatten().tolist() == [1, 0, 0, 0]


def test_median_depth_leaves_out_sky_and_invalid_pixels() -> None:
    assert frame(row(3, 1, 2, 900, 50), row(1, 1, 1, 1, 0), row(0, 0, 0, 1, 0)).median_depth() == 2.0


def test_median_depth_is_one_where_there_is_no_surface() -> None:
    assert frame(row(3, 900), row(0, 1), row(0, 1)).median_depth() == 1.0


def test_every_pixel_is_either_covered_or_a_hole() -> None:
    coverage = row(0.0, COVERED - 1e-6, COVERED, 1.0)
    camera = Camera.from_fov(60.0, (1, 4), torch.eye(4)[None])
    guide = Guide(torch.zeros(1, 3, 1, 4), coverage, coverage, coverage, row(0.0, SKY, SKY + 1e-6, 1.0), camera)
    assert guide.covered.flatten().tolist() == [0, 0, 1, 1]
    assert torch.equal(guide.hole, ~guide.covered)
    assert guide.sky_mask.flatten().tolist() == [0, 0, 1, 1]


def test_an_observation_is_one_frame_of_a_chunk() -> None:
    two = Frame.concatenate([frame(row(1, 2), row(1, 1), row(0, 0)), frame(row(3, 4), row(1, 1), row(0, 0))])
    taken = Chunk(two, 7, False, torch.cat([row(0.1, 0.2), row(0.3, 0.4)])).observation(1)
    assert torch.equal(taken.frame.depth, two.depth[1])
    assert torch.equal(taken.confidence, torch.tensor([[[0.3, 0.4]]]))
    assert not taken.observed
