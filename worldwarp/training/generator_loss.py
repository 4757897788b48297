"""Inputs and loss of the generator's training: noisy inputs made from samples, and a loss that preserves texture.

Regression to an unpredictable target gives a blurred mean. So colors are compared with the truth only where the inputs
determine it (uncertain covered pixels, thin holes, borders, copies corrupted by augmentation). Inside wide holes the
copied texture is kept, and only its power and the color steps at the borders are fitted to the truth. Depth is compared
everywhere.

In some samples coverage is hidden and only the noise level tells it, so that the network learns to use the level.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d

from diffusion.flow import add_noise
from diffusion.inpainting.masks import thin
from diffusion.noise_map import NoiseConfig
from diffusion.retouch.network import Inputs, detail, inside
from diffusion.rgbd_state import SKY_BELOW
from worldwarp.training.samples import Sample

_COARSE_PX = 8
_BAND_PX = 3
_LEAST_POWER = 0.2  # power of some hundred pixels of faint texture; keeps the ratio of smaller powers near 1
_SEEN_SIGMA, _COPIED_SIGMA = NoiseConfig.seen, NoiseConfig.copied  # levels at which the sampler starts
AT_START = 0.75  # share of samples at these levels
BLIND, BLIND_EVEN = 0.15, 0.25  # share of samples with hidden coverage; of these, with one level everywhere
_WRONG = 0.22  # error of log depth that counts half: a quarter too far or too near


@dataclass(frozen=True)
class LossWeights:
    """Weights of the terms of `loss_terms`, by name."""

    pixel: float = 1.0
    thin: float = 3.0
    keep: float = 4.0
    contrast: float = 1.0
    strength: float = 0.3
    seam: float = 0.5
    wrong: float = 1.5
    depth: float = 2.0
    slope: float = 1.0


def noisy_inputs(
    sample: Sample, context: int, rng: torch.Generator, at_start: float = AT_START, blind: float = 0.0
) -> Inputs:
    """Draw noise levels and noise with the distribution of the sampler.

    Most samples are at the start of the sampler's schedule, where the noisy state is made from the prior; the others
    are at a random level, where it is made from a random blend of prior and truth.

    Args:
        sample: a batch ``[b]``.
        context: number of leading frames that stay clean.
        rng: the only source of randomness.
        at_start: share of samples at the start of the schedule, 0..1.
        blind: share of samples with hidden coverage, 0..1; `BLIND_EVEN` of them have one level everywhere.
    """
    batch = len(sample.truth)

    def draw(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(batch, 1, 1, 1, 1, generator=rng)

    later = draw(0.0, 1.0) >= at_start
    doubt = (1.0 - sample.copied) * (1.0 - sample.confidence)
    copied = torch.where(later, draw(0.2, 1.0), torch.full_like(later, _COPIED_SIGMA, dtype=sample.copied.dtype))
    seen = torch.where(later, draw(0.0, 0.7), torch.full_like(copied, _SEEN_SIGMA))
    level = torch.where(later, draw(0.05, 1.0), torch.ones_like(copied))
    sigma = sample.copied * copied + doubt * seen
    untold, even = draw(0.0, 1.0) < blind, draw(0.0, 1.0) < BLIND_EVEN
    sigma = torch.minimum(torch.where(untold & even, copied, sigma), level)
    target = torch.arange(sigma.shape[1], device=sigma.device).reshape(-1, 1, 1, 1) >= context
    sigma, untold = sigma * target, untold & target
    known = torch.where(later, torch.lerp(sample.prior, sample.truth, draw(0.3, 1.0)), sample.prior)
    noise = torch.randn(known.shape, generator=rng)
    return Inputs(
        state=add_noise(known, noise, sigma),
        prior=sample.prior,
        smooth=sample.smooth,
        coverage=torch.where(untold, 0.0, sample.coverage),
        confidence=torch.where(untold, 0.0, sample.confidence),
        copied=torch.where(untold, 1.0, sample.copied),
        sigma=sigma,
        world_from_camera=sample.world_from_camera,
        intrinsics=sample.intrinsics,
        unit=sample.unit,
    )


def generator_loss(
    network: Any, sample: Sample, inputs: Inputs, context: int, weights: LossWeights = LossWeights()
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """Loss of one batch; differentiable in the network.

    Args:
        network: a `DenoiserNetwork`, as it is wrapped for several devices.
        sample: a batch ``[b]``.
        inputs: of `noisy_inputs`.
        context: number of leading frames, which are given.
        weights: of the terms.

    Returns:
        The weighted sum of the terms, and the unweighted terms for the log (detached).
    """
    frames = sample.truth.shape[1]
    chunk_of_frame = (torch.arange(frames, device=sample.truth.device) >= context).long()
    clean, _, _ = network(inputs, chunk_of_frame=chunk_of_frame, first=context)
    terms = loss_terms(clean.float(), sample, context)
    total = torch.stack([getattr(weights, name) * value for name, value in terms.items()]).sum()
    return total, {name: value.detach() for name, value in terms.items()}


def loss_terms(clean: Float[Tensor, "b t 4 h w"], sample: Sample, context: int) -> dict[str, Float[Tensor, ""]]:
    """The terms by name; each is a mean over the pixels that it applies to."""
    made = clean.flatten(0, 1)
    truth, prior = (t[:, context:].flatten(0, 1) for t in (sample.truth, sample.prior))
    hole, determined, seen = (
        t[:, context:].flatten(0, 1) for t in (sample.copied, sample.determined, sample.coverage * sample.confidence)
    )
    doubt = (1.0 - (1.0 - hole) * seen).clamp(0.0, 1.0)
    color, true_color = made[:, :3], truth[:, :3]
    narrow, open_ = thin(hole > 0.5).to(hole), hole * (1.0 - determined)
    # Along its border a wide hole is determined in part: there must be no seam.
    band = open_ * max_pool2d(1.0 - hole, 2 * _BAND_PX + 1, stride=1, padding=_BAND_PX)
    trusted = doubt * (determined * (1.0 - narrow) + 0.5 * band).clamp(max=1.0)
    kept = open_ * (1.0 - band)
    contrasts = tuple(_contrast(torch.cat(detail(image), dim=1)) for image in (color, true_color))
    spoiled = hole * determined * (1.0 - narrow)
    return {
        "pixel": ((color - true_color).abs() * trusted).sum() / (3.0 * doubt.sum().clamp_min(1.0)),
        # Thin holes are nearly determined, so their mean is a useful regression target.
        "thin": _mean((color - true_color).square(), narrow),
        "keep": _mean((color - prior[:, :3]).abs(), kept),
        "contrast": _mean((contrasts[0] - contrasts[1]).abs(), avg_pool2d(spoiled, _COARSE_PX)),
        "strength": _strength(color, true_color, kept * inside(hole > 0.5)),
        "seam": _seam(color, true_color, hole > 0.5, hole - narrow > 0.5),
        **_depth_terms(made[:, 3:], truth[:, 3:], hole),
    }


def _depth_terms(code: Tensor, true_code: Tensor, hole: Tensor) -> dict[str, Tensor]:
    """Depth terms in holes: soft share of wrong pixels, error of the depth code, error of its slopes."""
    sky = true_code < SKY_BELOW
    apart = (_log_depth(code) - _log_depth(true_code)).square()
    # The weight makes the error relative to the depth, up to a limit; the sky has weight 1.
    relative = torch.where(sky, 1.0, 1.0 / (1.0 - true_code.square()).clamp_min(0.25))
    slopes = [_mean((code.diff(dim=axis) - true_code.diff(dim=axis)).abs(), _both(hole, axis)) for axis in (-1, -2)]
    return {
        "wrong": _mean(apart / (apart + _WRONG**2), hole * ~sky),
        "depth": _mean((code - true_code).abs() * relative, hole),
        "slope": slopes[0] + slopes[1],
    }


def _log_depth(code: Tensor) -> Tensor:
    """Logarithm of unit over depth; the code is clamped to keep it finite."""
    return 2.0 * torch.atanh(code.clamp(SKY_BELOW, -SKY_BELOW))


def _seam(made: Tensor, truth: Tensor, hole: Tensor, wide: Tensor) -> Tensor:
    """Absolute log ratio of the color steps across the borders of wide holes, generated over true."""
    totals = []
    for image in (made, truth):
        total = image.new_ones(())
        for axis in (-1, -2):
            size = hole.shape[axis] - 1
            here, there = ((wide.narrow(axis, at, size), hole.narrow(axis, at, size)) for at in (0, 1))
            border = (here[0] & ~there[1]) | (~here[1] & there[0])
            total = total + (image.diff(dim=axis).abs() * border).sum((1, 2, 3))
        totals.append(total.log())
    return (totals[0] - totals[1]).abs().mean()


def _strength(made: Tensor, truth: Tensor, area: Tensor) -> Tensor:
    """Mean over frequency bands of the absolute log ratio of power in an area, generated over true."""
    apart = [
        ((_power(a, area) + _LEAST_POWER) / (_power(b, area) + _LEAST_POWER)).log().abs()
        for a, b in zip(detail(made), detail(truth), strict=True)
    ]
    return torch.stack(apart).mean()


def _power(band: Tensor, area: Tensor) -> Tensor:
    return (band.square() * area).sum((1, 2, 3))


def _contrast(bands: Tensor) -> Tensor:
    """Root mean square of each band over cells of `_COARSE_PX` pixels."""
    return (avg_pool2d(bands.square(), _COARSE_PX) + 1e-4).sqrt()


def _mean(error: Tensor, weight: Tensor) -> Tensor:
    return (error * weight).sum() / (weight.sum() * error.shape[1]).clamp_min(1.0)


def _both(hole: Tensor, axis: int) -> Tensor:
    """Mask of neighbor pairs along an axis of which either is in a hole."""
    size = hole.shape[axis] - 1
    return torch.maximum(hole.narrow(axis, 0, size), hole.narrow(axis, 1, size))
