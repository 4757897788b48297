"""The latents of a chunk, and the smoothed border between chunks of lines without memory."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from diffusion.flow import add_noise
from diffusion.wan.lines import LINES
from diffusion.wan.sampling import continued, sample
from diffusion.wan.schedule import Predict
from diffusion.wan.settings import Recipe, WanSettings


def _recipe(name: str = "st-diff", smoothing: float = 0.4) -> Recipe:
    return WanSettings(steps=10, guidance=1.0, chunk=3, overlap=2, smoothing=smoothing).of(LINES[name])


def _believes(mean: Tensor, spread: float = 1.0) -> Predict:
    """The exact denoiser of latents that are normal around ``mean``."""

    def predict(noisy: Tensor, level: Tensor) -> Tensor:
        gain = spread**2 * (1.0 - level) / ((1.0 - level) ** 2 * spread**2 + level**2)
        return mean + gain * (noisy - (1.0 - level) * mean)

    return predict


def _latents(frames: int, seed: int) -> Tensor:
    return torch.randn(frames, 4, 4, 6, generator=torch.Generator().manual_seed(seed))


def test_an_average_is_what_a_loop_over_frames_gives() -> None:
    before, again, made = _latents(2, 0), _latents(2, 1), _latents(3, 2)
    level = torch.rand(3, 1, 4, 6, generator=torch.Generator().manual_seed(3))
    averaged = continued(before, again, made, level)
    for frame in range(3):
        weight = (2 / 3, 1 / 3, 0.0)[frame]
        first = before[-1] + (made[frame] - again[-1])  # the first segment, continued by the motion of the second
        mean = weight * first + (1.0 - weight) * made[frame]
        torch.testing.assert_close(averaged[frame], torch.lerp(made[frame], mean, level[frame]))
    assert torch.equal(continued(before, again, made, 0.0 * level), made)


@pytest.mark.parametrize("name", ["st-diff", "wan"])
def test_a_smoothed_chunk_is_that_of_a_loop_over_levels(name: str) -> None:
    recipe, held, guide = _recipe(name), _latents(2, 0), _latents(3, 1)
    level = torch.rand(3, 1, 2, 3, generator=torch.Generator().manual_seed(2)).repeat_interleave(2, 2)
    level = level.repeat_interleave(2, 3)
    believes = _believes(_latents(5, 4))
    made = sample(believes, recipe, held, guide, level, torch.Generator().manual_seed(5))

    known, rng, seen = torch.cat([held, guide]), torch.Generator().manual_seed(5), recipe.line.seen
    overlap = torch.full((2, 1, 4, 6), 1.0)
    clean = known
    for start, share in (
        (torch.cat([seen * overlap, level]), torch.cat([seen * overlap, level])),
        (torch.cat([0.0 * overlap, level.clamp(max=0.4)]), torch.cat([0.0 * overlap, level])),
    ):
        if name == "wan":  # all tokens start at one level; the guide is blended in
            start = torch.where(share == 0.0, 0.0, 0.4 if start[:2].max() == 0.0 else 1.0)
        noise = torch.randn(known.shape, generator=rng)
        x = (1.0 - start) * clean + start * noise
        for now, then in pairwise(recipe.levels.float().tolist()):
            here, after = start.clamp(max=now), start.clamp(max=then)
            x0 = believes(x, here)
            x0 = (1.0 - share) * known + share * x0 if name == "wan" else x0
            moving = here > after
            x = torch.where(moving, add_noise(x0, (x - (1.0 - here) * x0) / here.clamp_min(1e-9), after), x)
        clean = torch.cat([held, continued(held, x[:2], x[2:], level)])
    torch.testing.assert_close(made, x[2:], rtol=1e-4, atol=1e-5)


def test_the_border_between_chunks_jumps_less_with_smoothing() -> None:
    still = torch.zeros(2, 4, 4, 6)  # the world stood still at 0; the model draws what comes 2 brighter
    believes = _believes(torch.full((5, 4, 4, 6), 2.0))
    level = torch.ones(3, 1, 4, 6)
    jumps, steps = [], []
    for smoothing in (0.0, 0.3):
        recipe = _recipe(smoothing=smoothing)
        made = sample(believes, recipe, still, torch.zeros(3, 4, 4, 6), level, torch.Generator().manual_seed(0))
        frames = torch.cat([still[-1:], made]).mean((1, 2, 3))
        jumps.append(frames.diff()[0].item())
        steps.append(frames.diff().abs().max().item())
    assert jumps[0] > 1.5
    assert jumps[1] < 0.6 * jumps[0]
    assert steps[1] < 0.7 * steps[0]  # the jump is spread, not moved to a later frame


def test_what_is_sure_stays_the_guide_with_smoothing() -> None:
    held, guide, level = _latents(2, 0), _latents(3, 1), torch.zeros(3, 1, 4, 6)
    made = sample(_believes(_latents(5, 4)), _recipe(), held, guide, level, torch.Generator().manual_seed(5))
    assert torch.equal(made, guide)


def test_smoothing_is_for_lines_without_memory() -> None:
    with pytest.raises(ValueError, match="want 0 for longlive, which remembers"):
        WanSettings(smoothing=0.3).of(LINES["longlive"])
    with pytest.raises(ValueError, match=r"want a level in 0\.\.1, got 1\.5"):
        WanSettings(smoothing=1.5).of(LINES["st-diff"])
