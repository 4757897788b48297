"""From pixels to Gaussians: what footprints blur is made up for beforehand, on one surface and where all is new."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cache3d.gaussian_cache import GaussianCache
from cache3d.integration.lifting import sharpened
from cache3d.integration.policy import DEFAULT_POLICY, IntegrationPolicy
from geometry.frame import Frame
from tests.helpers import cameras_at, chunk_of

SIZE = (32, 48)


def _frame(rgb: Tensor, depth: Tensor) -> Frame:
    whole = torch.ones_like(depth, dtype=torch.bool)
    return Frame(rgb, depth, whole, ~whole, cameras_at((0.0, 0.0, 0.0), size=SIZE))


def _grainy(seed: int = 0) -> Tensor:
    return 0.3 + 0.4 * torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("steps", [0, 6])
def test_sharpening_brings_the_rendering_nearer_to_the_frame(steps: int) -> None:
    frame = _frame(_grainy(), torch.full((1, 1, *SIZE), 2.0))
    errors = []
    for amount in (0.0, DEFAULT_POLICY.sharpening):
        cache = GaussianCache(refine_steps=steps, policy=IntegrationPolicy(sharpening=amount))
        cache.integrate(chunk_of(frame))
        errors.append(float((cache.render(frame.camera).rgb - frame.rgb)[..., 2:-2, 2:-2].square().mean()))
    assert errors[1] < 0.75 * errors[0]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(1.2, 5.0))
def test_sharpening_does_not_cross_outlines(seed: int, ratio: float) -> None:
    depth = torch.full((1, 1, *SIZE), 2.0)
    depth[..., 20:] *= ratio
    frame, other = _frame(_grainy(seed), depth), _frame(_grainy(seed), depth)
    other.rgb[..., 20:] = 1.0 - other.rgb[..., 20:]
    new = torch.ones(1, *SIZE, dtype=torch.bool)
    assert torch.equal(sharpened(frame[0], new)[..., :20], sharpened(other[0], new)[..., :20])


def test_sharpening_keeps_single_pixels_and_even_surfaces() -> None:
    frame = _frame(_grainy(), torch.full((1, 1, *SIZE), 2.0))
    alone = torch.zeros(1, *SIZE, dtype=torch.bool)
    alone[0, 10, 10] = True
    assert torch.equal(sharpened(frame[0], alone)[:, 10, 10], frame.rgb[0, :, 10, 10])
    even = _frame(torch.full((1, 3, *SIZE), 0.4), frame.depth)
    whole = torch.ones(1, *SIZE, dtype=torch.bool)
    assert torch.equal(sharpened(even[0], whole), even.rgb[0])
    bright = _frame(_grainy().round(), frame.depth)
    assert 0.0 <= sharpened(bright[0], whole).min() <= sharpened(bright[0], whole).max() <= 1.0
