"""Extremes and means over windows: the fast way against torch's pooling, borders, gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d

from geometry.filters import dilate, erode, mean

SHAPES = [(7, 9), (1, 5, 40), (2, 3, 31, 17), (1, 1, 1, 1), (0, 1, 4, 4)]


def _random(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reach", [0, 1, 2, 7])
def test_windows_agree_with_pooling(shape: tuple[int, ...], reach: int) -> None:
    values = _random(shape)
    images = values.reshape(-1, 1, *shape[-2:])
    torch.testing.assert_close(
        dilate(values, reach), max_pool2d(images, 2 * reach + 1, 1, reach).view(shape), rtol=0, atol=0
    )
    torch.testing.assert_close(
        erode(values, reach), -max_pool2d(-images, 2 * reach + 1, 1, reach).view(shape), rtol=0, atol=0
    )
    expected = avg_pool2d(images, 2 * reach + 1, 1, reach, count_include_pad=False).view(shape)
    torch.testing.assert_close(mean(values, reach), expected, rtol=1e-5, atol=1e-6)


def test_nothing_but_minus_infinity_stays_so() -> None:
    values = torch.full((5, 6), -torch.inf)
    values[0, 0] = 1.0
    assert torch.equal(torch.isinf(dilate(values, 1)), torch.isinf(max_pool2d(values[None], 3, 1, 1)[0]))


def test_gradients_pass_and_precision_stays() -> None:
    values = _random((2, 1, 8, 8)).requires_grad_()
    mean(values, 2).square().sum().backward()
    assert values.grad is not None
    assert values.grad.abs().sum() > 0
    assert mean(values, 1).dtype == values.dtype
    with torch.no_grad():
        torch.testing.assert_close(mean(values, 2), mean(values.double(), 2).float(), rtol=1e-5, atol=1e-6)
        assert dilate(values.half(), 1).dtype == torch.float16
