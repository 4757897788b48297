"""The flow-matching step on closed forms."""

from __future__ import annotations

import itertools

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion.flow import add_noise, clean_to_velocity, step, velocity_to_clean


def _draw(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    clean, noise = torch.randn(2, 3, 4, 5, 6, generator=rng, dtype=torch.float64)
    sigma = torch.rand(3, 1, 5, 6, generator=rng, dtype=torch.float64)
    return clean, noise, sigma


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_velocity_is_noise_minus_clean(seed: int) -> None:
    clean, noise, sigma = _draw(seed)
    noisy = add_noise(clean, noise, sigma)
    torch.testing.assert_close(velocity_to_clean(noisy, noise - clean, sigma), clean)
    torch.testing.assert_close(clean_to_velocity(noisy, clean, sigma + 1e-3), (noisy - clean) / (sigma + 1e-3))


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_steps_with_the_true_clean_state_stay_on_the_line(seed: int) -> None:
    clean, noise, sigma = _draw(seed)
    state, now = add_noise(clean, noise, sigma), sigma
    for share in (0.7, 0.2, 0.0):
        state, now = step(state, clean, now, share * sigma), share * sigma
        torch.testing.assert_close(state, add_noise(clean, noise, now))
    assert torch.equal(state, clean)


def test_step_is_exact_for_a_gaussian() -> None:
    """For N(mu, s^2) data the optimal prediction and the flow are known: many Euler steps reach the closed form."""
    mu, spread = 0.3, 0.5
    start = torch.linspace(-2, 2, 60, dtype=torch.float64).reshape(1, 1, 6, 10)
    levels = torch.linspace(1.0, 0.0, 4001, dtype=torch.float64)
    state = start.clone()
    for now, then in itertools.pairwise(levels.tolist()):
        keep, variance = 1.0 - now, (1.0 - now) ** 2 * spread**2 + now**2
        clean = mu + keep * spread**2 / variance * (state - keep * mu)
        state = step(state, clean, torch.full_like(state, now), torch.full_like(state, then))
    torch.testing.assert_close(state, mu + spread * start, atol=2e-3, rtol=0.0)


def test_idle_pixels_and_finished_pixels_are_exact() -> None:
    clean, noise, sigma = _draw(1)
    assert torch.equal(step(noise, clean, sigma, sigma), noise)
    assert torch.equal(step(noise, clean, sigma, torch.zeros_like(sigma)), clean)
    zero = torch.zeros_like(sigma)
    assert torch.equal(step(noise, clean, zero, zero), noise)
    assert torch.equal(clean_to_velocity(noise, clean, zero), torch.zeros_like(noise))
    assert torch.equal(add_noise(clean, noise, zero), clean)
    assert torch.equal(add_noise(clean, noise, torch.ones_like(sigma)), noise)
