"""Noise maps, schedules and the RGB-D code."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion.condition import Prior
from diffusion.noise_map import KINDS, NoiseConfig, noise_map
from diffusion.rgbd_state import SKY_CODE, decode, encode
from diffusion.sampler import schedule_matrix
from geometry.frame import Guide
from tests.helpers import cameras_along, guide_of, prior_of, random_rgb


def _guide_and_prior(coverage: torch.Tensor, confidence: torch.Tensor, copied: torch.Tensor) -> tuple[Guide, Prior]:
    frames, _, *size = coverage.shape
    guide = guide_of(cameras_along(0.0, frames, (size[0], size[1])), 1.0, random_rgb((size[0], size[1]), frames))
    guide = replace(guide, coverage=coverage, confidence=confidence)
    return guide, prior_of(guide.rgb, guide.depth, copied)


def test_level_by_confidence_copying_and_unknown() -> None:
    coverage = torch.tensor([1.0, 1.0, 0.0, 0.0]).reshape(1, 1, 1, 4)
    confidence = torch.tensor([1.0, 0.5, 0.0, 0.0]).reshape(1, 1, 1, 4)
    copied = torch.tensor([0.0, 0.0, 1.0, 0.0]).reshape(1, 1, 1, 4)
    sigma = noise_map(
        *_guide_and_prior(coverage, confidence, copied), NoiseConfig(seen=0.4, copied=0.7, unknown=1.0)
    ).flatten()
    assert sigma[0] == 0.0
    torch.testing.assert_close(sigma, torch.tensor([0.0, 0.2, 0.7, 1.0]))


@given(st.floats(0.0, 1.0), st.floats(0.0, 1.0))
@settings(max_examples=30, deadline=None)
def test_level_falls_with_confidence(a: float, b: float) -> None:
    one = torch.ones(1, 1, 2, 2)
    low, high = sorted((a, b))
    noisy = noise_map(*_guide_and_prior(one, low * one, 0 * one), NoiseConfig())
    calm = noise_map(*_guide_and_prior(one, high * one, 0 * one), NoiseConfig())
    assert (calm <= noisy + 1e-7).all()


def test_values_of_uncovered_pixels_have_no_effect() -> None:
    coverage = (torch.rand(2, 1, 4, 5, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    guide, prior = _guide_and_prior(coverage, coverage, 1.0 - coverage)
    other = replace(guide, rgb=torch.where(coverage > 0, guide.rgb, 9.0), depth=guide.depth + 7.0 * (coverage == 0))
    for kind in KINDS:
        config = NoiseConfig(kind=kind)
        assert torch.equal(noise_map(guide, prior, config), noise_map(other, prior, config))


def test_binary_and_uniform() -> None:
    coverage = torch.tensor([1.0, 0.0]).reshape(1, 1, 1, 2)
    scene = _guide_and_prior(coverage, 0.3 * coverage, 1.0 - coverage)
    assert noise_map(*scene, NoiseConfig(kind="binary")).flatten().tolist() == [0.0, 1.0]
    assert noise_map(*scene, NoiseConfig(kind="uniform", copied=0.5)).flatten().tolist() == [0.5, 0.5]


def test_regions_are_seen_copied_and_unknown_whatever_the_confidence() -> None:
    coverage = torch.tensor([1.0, 0.6, 0.0, 0.0]).reshape(1, 1, 1, 4)
    copied = torch.tensor([0.0, 0.4, 1.0, 0.0]).reshape(1, 1, 1, 4)
    config = NoiseConfig(kind="regions", seen=0.25, copied=0.5)
    sigma = noise_map(*_guide_and_prior(coverage, 0.9 * coverage, copied), config)
    assert sigma.flatten().tolist() == [0.25, 0.25, 0.5, 1.0]


def test_spatial_is_one_map_and_temporal_one_level_per_frame() -> None:
    coverage = torch.tensor([[1.0, 0.0, 1.0, 1.0], [1.0, 0.0, 0.0, 1.0]]).reshape(2, 1, 1, 4)
    scene = _guide_and_prior(coverage, coverage, 1.0 - coverage)
    spatial = noise_map(*scene, NoiseConfig(kind="spatial"))
    assert spatial.reshape(2, 4).tolist() == [[0.0, 1.0, 1.0, 0.0]] * 2
    temporal = noise_map(*scene, NoiseConfig(kind="temporal"))
    assert temporal.reshape(2, 4).tolist() == [[0.25] * 4, [0.5] * 4]


def test_bad_configs_are_rejected() -> None:
    with pytest.raises(ValueError, match="kind"):
        NoiseConfig(kind="spotted")
    with pytest.raises(ValueError, match="copied"):
        NoiseConfig(copied=1.2)


@given(st.integers(1, 6), st.integers(1, 5), st.floats(0.3, 5.0), st.floats(0.0, 1.5))
@settings(max_examples=40, deadline=None)
def test_schedules_fall_from_one_to_zero(steps: int, frames: int, shift: float, lag: float) -> None:
    matrix = schedule_matrix(steps, frames, shift=shift, lag=lag)
    assert (matrix[0] == 1.0).all()
    assert (matrix[-1] == 0.0).all()
    assert (matrix.diff(dim=0) <= 0.0).all()
    assert (matrix.diff(dim=1) >= 0.0).all()  # later frames are never ahead


def test_lag_one_starts_each_frame_one_step_later() -> None:
    matrix = schedule_matrix(2, 3, lag=1.0)
    expected = torch.tensor([[1, 1, 1], [0.5, 1, 1], [0, 0.5, 1], [0, 0, 0.5], [0, 0, 0]])
    torch.testing.assert_close(matrix, expected)


@pytest.mark.parametrize("bad", [{"steps": 0}, {"frames": 0}, {"shift": 0.0}, {"lag": -1.0}])
def test_bad_schedules_are_rejected(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="want"):
        schedule_matrix(**{"steps": 2, "frames": 2, **bad})  # pyright: ignore[reportArgumentType]


def test_rgbd_code_round_trip() -> None:
    rng = torch.Generator().manual_seed(0)
    rgb = torch.rand(2, 3, 4, 5, generator=rng)
    depth = 0.05 + 30.0 * torch.rand(2, 1, 4, 5, generator=rng)
    back_rgb, back_depth, sky = decode(encode(rgb, depth, unit=2.0), unit=2.0)
    torch.testing.assert_close(back_rgb, rgb)
    torch.testing.assert_close(back_depth, depth, rtol=1e-4, atol=1e-4)
    assert not sky.any()
    code = encode(rgb, torch.full_like(depth, 200.0), unit=2.0)
    assert (code[:, 3] == SKY_CODE).all()
    assert decode(code, unit=2.0)[2].all()
    torch.testing.assert_close(decode(code, unit=2.0)[1], torch.full_like(depth, 200.0))


def test_locked_pixels_have_level_zero() -> None:
    hole = torch.zeros(1, 1, 4, 6)
    guide, prior = _guide_and_prior(hole, hole, 1.0 - hole)
    locked = torch.zeros(1, 1, 4, 6, dtype=torch.bool)
    locked[..., :3] = True
    sigma = noise_map(guide, replace(prior, locked=locked), NoiseConfig())
    assert (sigma[..., :3] == 0.0).all()
    assert (sigma[..., 3:] > 0.0).all()
