"""What a generated chunk is rounded to: near, once and for all, and the same on the way back from disk."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from geometry.rounding import DEPTH_BITS, rounded_depth, to_levels

NUMBERS = st.floats(2.0**-100, 2.0**100, width=32)


@given(st.lists(NUMBERS, min_size=1, max_size=20))
def test_depth_is_near_and_rounding_again_changes_nothing(depths: list[float]) -> None:
    depth = torch.tensor(depths)
    near = rounded_depth(depth)
    assert ((near - depth).abs() <= depth * 2.0**-DEPTH_BITS).all()
    assert near.equal(rounded_depth(near))
    mantissa, _ = torch.frexp(near)
    assert (mantissa * 2**DEPTH_BITS).frac().eq(0.0).all()


def test_the_next_power_of_two_infinity_and_nan() -> None:
    depth = torch.tensor([2.0 - 2.0**-20, 0.0, torch.inf, torch.nan])
    near = rounded_depth(depth)
    assert near[:3].tolist() == [2.0, 0.0, torch.inf]
    assert near[3].isnan()


def test_levels_are_multiples_of_a_255th_in_bounds() -> None:
    levels = to_levels(torch.tensor([-0.5, 0.001, 0.4999, 1.5]))
    assert levels.equal(torch.tensor([0.0, 0.0, 127.0, 255.0]) / 255.0)
    assert levels.equal(to_levels(levels))
