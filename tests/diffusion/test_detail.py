"""Enlarging what was filled: colors, depth, and the detail of copies."""

from __future__ import annotations

import torch

from diffusion.inpainting.detail import copied_detail, enlarged, enlarged_depth
from tests.helpers import random_rgb


def test_a_copy_gets_the_detail_of_its_source_back() -> None:
    fine = random_rgb((32, 48))
    small = torch.nn.functional.avg_pool2d(fine, 2)
    row, column = torch.meshgrid(torch.arange(16), torch.arange(24), indexing="ij")
    itself = torch.stack([torch.zeros_like(row), row, column])
    assert torch.allclose(enlarged(small, 2)[0] + copied_detail(itself, fine, 2), fine[0], atol=1e-6)


def test_detail_comes_from_the_named_picture_and_place_alone() -> None:
    pictures = torch.cat([torch.full((1, 3, 16, 16), 0.5), random_rgb((16, 16))])
    source = torch.full((3, 8, 8), -1)
    source[:, 2, 3] = torch.tensor([1, 5, 4])
    detail = copied_detail(source, pictures, 2)
    fine = pictures - enlarged(torch.nn.functional.avg_pool2d(pictures, 2), 2)
    assert torch.equal(detail[:, 4:6, 6:8], fine[1, :, 10:12, 8:10])
    detail[:, 4:6, 6:8] = 0.0
    assert (detail == 0.0).all()


def test_depth_is_not_interpolated_across_an_outline() -> None:
    depth = torch.where(torch.arange(12) < 6, 2.0, 5.0).expand(1, 1, 8, 12).contiguous()
    large = enlarged_depth(depth, 3)
    torch.testing.assert_close(large, torch.where(torch.arange(36) < 18, 2.0, 5.0).expand(1, 1, 24, 36))
    slope = 1.0 / torch.linspace(0.2, 0.5, 12).expand(1, 1, 8, 12).contiguous()
    steps = (1.0 / enlarged_depth(slope, 3))[0, 0, 0].diff()
    assert steps[3:-3].max() < 1.5 * steps[3:-3].min()  # no stairs


def test_at_the_same_size_nothing_changes() -> None:
    rgb = random_rgb((8, 8))
    assert enlarged(rgb, 1) is rgb
    assert enlarged_depth(rgb[:, :1] + 1.0, 1).equal(rgb[:, :1] + 1.0)
