"""The sampler: exact at level 0, idle pixels, deterministic, exact with a perfect denoiser."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion.condition import Condition
from diffusion.kv_memory import KVMemory
from diffusion.passthrough import PassthroughGenerator
from diffusion.rgbd_state import encode
from diffusion.sampler import SamplerConfig, sample
from tests.helpers import cameras_along, chunk_of, guide_of, prior_of, textured_wall

SIZE = (8, 12)


class _Oracle(PassthroughGenerator):
    """Returns the truth; counts the calls."""

    def __init__(self, truth: Tensor) -> None:
        self.truth, self.calls = truth, 0

    def denoise(
        self,
        x: Float[Tensor, "t 4 h w"],  # noqa: ARG002
        sigma: Float[Tensor, "t 1 h w"],  # noqa: ARG002
        condition: Condition,  # noqa: ARG002
        memory: KVMemory,  # noqa: ARG002
    ) -> Float[Tensor, "t 4 h w"]:
        self.calls += 1
        return self.truth


def _scene(frames: int = 2) -> tuple[Condition, KVMemory, Tensor]:
    rng = torch.Generator().manual_seed(3)
    rgb = torch.rand(frames, 3, *SIZE, generator=rng)
    depth = 0.5 + torch.rand(frames, 1, *SIZE, generator=rng)
    depth[:, :, :2] = 100.0
    coverage = torch.ones_like(depth)
    coverage[..., 6:] = 0.0
    cameras = cameras_along(0.0, frames, SIZE)
    guide = replace(guide_of(cameras, depth, rgb, coverage == 0.0), sky=(depth > 40).float())
    prior = prior_of(rgb, depth, 1.0 - coverage)
    memory = PassthroughGenerator().start(chunk_of(textured_wall(cameras[:1], distance=1.0)))
    return Condition(guide, prior), memory, 1.0 - coverage


def test_pixels_at_level_zero_are_exact() -> None:
    condition, memory, sigma = _scene()
    oracle = _Oracle(torch.full((2, 4, *SIZE), 0.5))
    made = sample(oracle, condition, sigma, memory, torch.Generator().manual_seed(0))
    sure = sigma == 0.0
    assert torch.equal(made.rgb[sure.expand(2, 3, *SIZE)], condition.guide.rgb[sure.expand(2, 3, *SIZE)])
    assert torch.equal(made.depth[sure], condition.guide.depth[sure])
    assert torch.equal(made.sky[sure], (condition.guide.sky > 0.5)[sure])
    torch.testing.assert_close(made.rgb[~sure.expand(2, 3, *SIZE)], torch.full((2 * 3 * 8 * 6,), 0.75))


def test_all_levels_zero_calls_no_network() -> None:
    condition, memory, sigma = _scene()
    oracle = _Oracle(torch.zeros(2, 4, *SIZE))
    made = sample(oracle, condition, 0.0 * sigma, memory, torch.Generator().manual_seed(0))
    assert oracle.calls == 0
    assert torch.equal(made.rgb, condition.prior.rgb)
    assert torch.equal(made.depth, condition.prior.depth)


def test_every_schedule_reaches_the_oracle() -> None:
    condition, memory, sigma = _scene(3)
    truth = encode(torch.rand(3, 3, *SIZE), 1.0 + torch.rand(3, 1, *SIZE), memory.unit)
    for config in (SamplerConfig(1), SamplerConfig(4, shift=3.0), SamplerConfig(2, lag=1.0)):
        made = sample(_Oracle(truth), condition, sigma, memory, torch.Generator().manual_seed(0), config)
        hole = (sigma > 0).expand(3, 3, *SIZE)
        torch.testing.assert_close(made.rgb[hole], (0.5 * (truth[:, :3] + 1.0))[hole])


def test_steps_above_all_levels_are_skipped() -> None:
    condition, memory, sigma = _scene()
    oracle = _Oracle(torch.zeros(2, 4, *SIZE))
    sample(oracle, condition, 0.3 * sigma, memory, torch.Generator().manual_seed(0), SamplerConfig(4))
    assert oracle.calls == 2  # levels 1, .75, .5 are above .3; .25 and 0 are not


def test_same_seed_same_bits_and_uncovered_guide_pixels_have_no_effect() -> None:
    condition, memory, sigma = _scene()
    guide = replace(condition.guide, rgb=torch.where(sigma > 0, 0.123, condition.guide.rgb))
    other = Condition(guide, condition.prior)
    generator = PassthroughGenerator()
    one = sample(generator, condition, sigma, memory, torch.Generator().manual_seed(5))
    two = sample(generator, other, sigma, memory, torch.Generator().manual_seed(5))
    assert torch.equal(one.rgb, two.rgb)
    assert torch.equal(one.depth, two.depth)


def test_passthrough_returns_the_prior() -> None:
    condition, memory, sigma = _scene()
    made = sample(PassthroughGenerator(), condition, sigma, memory, torch.Generator().manual_seed(0))
    torch.testing.assert_close(made.rgb, condition.prior.rgb)
    torch.testing.assert_close(made.depth, condition.prior.depth, rtol=1e-4, atol=1e-4)
