"""A toy of the Wan class that was overfitted to a clip draws what the first frame of the clip hides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.quality.overfitted_wan import measured, teach
from diffusion.wan.denoiser import WanDenoiser
from diffusion.wan.memory import LatentBank, LatentPolicy
from geometry.camera import Camera


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """PSNR of hidden pixels, two chunks after a photo of 32x48."""
    return measured((32, 48), 9, decoder_steps=70, transformer_steps=500, folder=tmp_path_factory.mktemp("toy"))


@pytest.mark.slow
@pytest.mark.timeout(3600)  # 1 minute of two idle cores, ten and more of shared ones
def test_an_overfitted_toy_fills_holes_ten_decibels_better_than_untrained(figures: dict[str, float]) -> None:
    assert figures["trained"] > 10.0 + figures["untrained"]
    assert figures["trained"] > 5.0 + figures["prior"]  # which closes holes in frames of the world
    assert figures["trained"] > 4.0 + figures["untrained transformer"]  # whose decoder knows the clip
    assert figures["trained, latents"] > 10.0 + figures["untrained transformer, latents"]


@pytest.mark.slow
@pytest.mark.timeout(3600)  # 1 minute of two idle cores, ten and more of shared ones
def test_memory_tells_which_chunk_comes(figures: dict[str, float]) -> None:
    assert figures["memory alone, latents"] > 6.0 + figures["a chunk late, latents"]


def test_teacher_forcing_is_what_memory_does_chunk_by_chunk(transformer: Callable[..., Any], text: Tensor) -> None:
    rng = torch.Generator().manual_seed(0)
    clean, noisy = torch.randn(2, 3, 16, 4, 6, generator=rng).unbind()
    level = torch.rand(3, 1, 2, 3, generator=rng).repeat_interleave(2, 2).repeat_interleave(2, 3)
    model = transformer()
    taught = teach(model, 2, 2)
    once = taught(model, clean[:2], torch.cat([noisy[1:], noisy[1:]]), torch.cat([level[1:], level[1:]]), text)
    torch.testing.assert_close(once[:2], once[2:], rtol=1e-4, atol=1e-5)
    denoiser = WanDenoiser(transformer())
    bounds, camera = LatentPolicy().bounds(chunk=1, span=21), Camera.from_fov(60.0, (32, 48), torch.eye(4)[None])
    bank = LatentBank((), camera[:0], 1.0)
    for place in range(3):
        if place > 0:
            here = slice(place, place + 1)
            made = denoiser.predict(noisy[here], level[here], text, bank.context(camera, place, bounds))
            forced = noisy[here] - level[here] * once[place - 1 : place]
            torch.testing.assert_close(made, forced, rtol=1e-4, atol=1e-5)
        bank = denoiser.extend(bank, clean[place : place + 1], camera, place, place, text, bounds)
