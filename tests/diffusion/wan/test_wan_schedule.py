"""Schedules of the published lines, levels per token, and the two steppers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from diffusion.flow import add_noise, velocity_to_clean
from diffusion.sampler import schedule_matrix
from diffusion.wan.schedule import blended, denoise, schedule_levels, shifted, staggered, token_rows


@pytest.mark.parametrize(
    ("steps", "shift", "warped", "timesteps"),
    [
        ((1000.0, 750.0, 500.0, 250.0), 5.0, True, [1000.0, 937.5, 833.333, 625.0, 0.0]),
        ((1000.0, 800.0, 600.0, 400.0, 200.0), 5.0, True, [1000.0, 952.381, 882.353, 769.231, 555.556, 0.0]),
        ((1000.0, 757.0, 522.0), 8.0, False, [1000.0, 756.757, 521.739, 0.0]),
        (4, 5.0, True, [1000.0, 937.5, 833.333, 625.0, 0.0]),
    ],
)
def test_published_timesteps(steps: int | Sequence[float], shift: float, warped: bool, timesteps: list[float]) -> None:
    levels = schedule_levels(steps, shift, warped=warped)
    torch.testing.assert_close(1000.0 * levels, torch.tensor(timesteps, dtype=torch.float64), rtol=0.0, atol=1e-3)


def test_table_that_ends_at_a_shifted_thousandth_shifts_it_a_second_time() -> None:
    last = shifted(torch.tensor(0.001, dtype=torch.float64), 5.0).item()
    timesteps = 1000.0 * schedule_levels(50, 5.0, last=last)
    assert len(timesteps) == 51
    assert timesteps[10].item() == pytest.approx(951.5, abs=2e-2)
    assert timesteps[49].item() == pytest.approx(24.41, abs=5e-3)
    assert timesteps[50] == 0.0


@pytest.mark.parametrize(
    ("steps", "shift", "word"),
    [
        (0, 5.0, "steps"),
        ((), 5.0, "steps"),
        ((500.0, 750.0), 5.0, "steps"),
        ((1000.0, 0.0), 5.0, "steps"),
        (4, 0.0, "shift"),
    ],
)
def test_schedules_that_cannot_be_are_refused(steps: int | Sequence[float], shift: float, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        schedule_levels(steps, shift)


@pytest.mark.parametrize("lag", [0.0, 1.0, 3.0])
def test_staggered_even_steps_are_the_schedule_matrix(lag: float) -> None:
    rows = staggered(schedule_levels(6, 3.0), 4, lag)
    torch.testing.assert_close(rows.float(), schedule_matrix(6, 4, shift=3.0, lag=lag), rtol=0.0, atol=1e-6)


def test_staggered_by_a_part_of_a_step_lies_between_whole_ones_and_a_negative_lag_is_refused() -> None:
    levels = schedule_levels(4, 5.0)
    rows = staggered(levels, 2, 0.5)
    torch.testing.assert_close(rows[1, 1], 0.5 * (levels[0] + levels[1]))
    assert (rows[0] == 1.0).all()
    assert (rows[-1] == 0.0).all()
    with pytest.raises(ValueError, match="lag"):
        staggered(levels, 2, -1.0)


def test_tokens_hold_until_the_schedule_reaches_them_or_scale_it() -> None:
    rows = staggered(schedule_levels(4, 1.0), 1, 0.0)
    start = torch.tensor([0.0, 0.6, 1.0]).reshape(1, 1, 1, 3)
    held = token_rows(rows, start, "hold")[:, 0, 0, 0]
    assert held.T.tolist() == [[0.0] * 5, pytest.approx([0.6, 0.6, 0.5, 0.25, 0.0]), [1.0, 0.75, 0.5, 0.25, 0.0]]
    scaled = token_rows(rows, start, "scale")[:, 0, 0, 0]
    assert scaled[:, 1].tolist() == pytest.approx([0.6, 0.45, 0.3, 0.15, 0.0])


def _scene() -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 2, 3, 4, 6, generator=rng).unbind()
    start = torch.rand(2, 1, 4, 6, generator=rng)
    start[0, 0, 0] = 0.0
    start[1, 0, 0] = 1.0
    return clean, noise, start


@pytest.mark.parametrize("mode", ["hold", "scale"])
def test_exact_velocity_recovers_the_clean_latents_from_any_level(mode: str) -> None:
    clean, noise, start = _scene()
    rows = token_rows(staggered(schedule_levels(5, 5.0), 2, 0.0), start, mode)  # pyright: ignore[reportArgumentType]
    noisy = add_noise(clean, noise, start)
    made = denoise(lambda x, now: velocity_to_clean(x, noise - clean, now), noisy, rows)
    torch.testing.assert_close(made, clean, rtol=0.0, atol=1e-6)


def test_waiting_and_known_tokens_keep_their_bits_and_the_level_falls() -> None:
    clean, noise, start = _scene()
    rows = token_rows(staggered(schedule_levels(5, 5.0), 2, 0.0), start)
    seen: list[tuple[Tensor, Tensor]] = []

    def predict(noisy: Tensor, now: Tensor) -> Tensor:
        seen.append((noisy, now))
        return torch.zeros_like(noisy)

    first = add_noise(clean, noise, start)
    made = denoise(predict, first, rows)
    for noisy, now in seen:
        waiting = (now == start).expand_as(noisy)
        assert torch.equal(noisy[waiting], first[waiting])
        assert (noisy.abs() <= first.abs()).all()
    known = (start == 0.0).expand_as(made)
    assert torch.equal(made[known], clean[known])
    assert (made[~known] == 0.0).all()


def test_renoising_equals_a_loop_by_hand_with_the_same_draws() -> None:
    _, noise, _ = _scene()
    levels = schedule_levels((1000.0, 750.0, 500.0, 250.0), 5.0)
    rows = token_rows(staggered(levels, 2, 0.0), torch.ones(2, 1, 4, 6))
    made = denoise(lambda x, now: 0.3 * x + 0.1 * now, noise, rows, torch.Generator().manual_seed(4))

    rng, x = torch.Generator().manual_seed(4), noise
    for now, then in pairwise(levels.float()):
        clean = 0.3 * x + 0.1 * now
        x = clean if then == 0.0 else (1.0 - then) * clean + then * torch.randn(x.shape, generator=rng)
    assert torch.equal(made, x)


def test_blended_predictions_end_at_the_guide_where_it_is_sure() -> None:
    guide, noise, level = _scene()
    rows = token_rows(staggered(schedule_levels(4, 5.0), 2, 0.0), torch.ones_like(level))
    made = denoise(blended(lambda x, _: 2.0 * x, guide, level), noise, rows, torch.Generator().manual_seed(1))
    sure = (level == 0.0).expand_as(made)
    assert torch.equal(made[sure], guide[sure])
    assert not torch.isclose(made[~sure], guide[~sure]).all()
