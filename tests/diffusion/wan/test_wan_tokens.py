"""Noise levels of pixels as levels of tokens, and mask channels."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffusion.wan.tokens import Pooling, expanded, mask_channels, padded, token_levels


@pytest.mark.parametrize(("factor", "first"), [(8, False), (8, True), (16, False)])
def test_one_unknown_pixel_in_one_frame_makes_one_token_unknown(factor: int, first: bool) -> None:
    side = 2 * factor
    sigma = torch.zeros(9 if first else 8, 1, 2 * side, 3 * side)
    sigma[5, 0, side + 3, 2 * side + side - 1] = 1.0
    level = token_levels(sigma, factor)
    assert level.shape == (3 if first else 2, 1, 2, 3)
    assert level.nonzero().tolist() == [[2 if first else 1, 0, 1, 2]]


def test_a_photo_at_the_start_is_a_latent_by_itself() -> None:
    sigma = torch.zeros(5, 1, 16, 16)
    sigma[0], sigma[1] = 1.0, 0.5
    assert token_levels(sigma, 8).flatten().tolist() == [1.0, 0.5]


def test_mean_and_corner() -> None:
    sigma = torch.zeros(4, 1, 16, 16)
    sigma[0, 0, :8] = 0.5
    sigma[3, 0, 7, 7] = 0.25
    assert token_levels(sigma, 8, pooling="mean").item() == pytest.approx((0.5 * 128 + 0.0) / 256)
    assert token_levels(sigma, 8, pooling="corner").item() == 0.25
    sigma[3] = 0.0
    sigma[3, 0, 8:] = 1.0
    assert token_levels(sigma, 8, pooling="corner").item() == 0.0


@given(
    seed=st.integers(0, 1000),
    pooling=st.sampled_from(["max", "mean", "corner"]),
    rows=st.integers(1, 3),
    first=st.booleans(),
)
def test_expanded_levels_agree_with_their_token(seed: int, pooling: Pooling, rows: int, first: bool) -> None:
    sigma = torch.rand(5 if first else 8, 1, 16 * rows, 32, generator=torch.Generator().manual_seed(seed))
    level = token_levels(sigma, 8, pooling=pooling)
    assert level.min() >= sigma.min()
    assert level.max() <= sigma.max()
    wide = expanded(level)
    assert wide.shape[-2:] == (2 * rows, 4)
    for corner in (wide[..., ::2, ::2], wide[..., 1::2, 1::2], wide[..., ::2, 1::2]):
        assert torch.equal(corner, level)


def test_frames_that_fill_no_latent_are_refused() -> None:
    with pytest.raises(ValueError, match="4 for each latent"):
        token_levels(torch.zeros(6, 1, 16, 16), 8)


def test_mask_channels_are_the_frames_of_a_latent_and_the_photo_stands_for_four() -> None:
    coverage = torch.rand(5, 1, 16, 24, generator=torch.Generator().manual_seed(1))
    mask = mask_channels(coverage, 8)
    assert mask.shape == (2, 4, 2, 3)
    assert torch.equal(mask[0], mask[0, :1].expand(4, 2, 3))
    alone = mask_channels(coverage[1:], 8)
    assert torch.equal(mask[1:], alone)
    assert not torch.equal(mask[1, 0], mask[1, 1])


def test_a_short_chunk_is_padded_by_its_last_frame() -> None:
    frames = torch.arange(3.0).reshape(3, 1)
    assert padded(frames, 5)[:, 0].tolist() == [0.0, 1.0, 2.0, 2.0, 2.0]
    assert padded(frames, 3) is frames
