"""What the generator is trained on: noisy inputs made from samples, and a loss that keeps texture.

Regression turns what cannot be known into fog. So colours are compared with the truth only where it is determined by
what is shown (seen but doubtful pixels, thin holes, borders, copies that were spoiled on purpose); inside wide holes
the texture that was copied is to be kept. Depth is compared everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d

from diffusion.condition import SKY_BELOW
from diffusion.flow import add_noise
from diffusion.network import DenoiserNetwork, Inputs
from diffusion.prior import thin
from diffusion.training.guides import Sample

_COARSE_PX = 8
_BAND_PX = 3


@dataclass(frozen=True)
class LossWeights:
    """Weights of the terms of `generator_loss`."""

    pixel: float = 1.0
    thin: float = 0.5
    keep: float = 1.0
    contrast: float = 1.0
    depth: float = 2.0
    slope: float = 1.0


def noisy_inputs(sample: Sample, context: int, rng: torch.Generator) -> Inputs:
    """Draw noise levels and noise as the sampler would meet them.

    Half of the samples stand at the start of the schedule, where the noisy state is made from the prior; the others
    stand further down, where it is made from something between the prior and the truth.

    Args:
        sample: a batch ``[b]``.
        context: leading frames that stay clean.
        rng: the only randomness.
    """
    batch = len(sample.truth)

    def draw(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(batch, 1, 1, 1, 1, generator=rng)

    start = sample.copied * draw(0.2, 1.0) + (1.0 - sample.copied) * (1.0 - sample.confidence) * draw(0.0, 0.7)
    later = draw(0.0, 1.0) < 0.5
    level = torch.where(later, draw(0.05, 0.95), torch.ones_like(start[:, :1, :1, :1, :1]))
    sigma = torch.minimum(start, level)
    sigma[:, :context] = 0.0
    known = torch.where(later, torch.lerp(sample.prior, sample.truth, draw(0.3, 1.0)), sample.prior)
    noise = torch.randn(known.shape, generator=rng)
    return Inputs(
        state=add_noise(known, noise, sigma),
        prior=sample.prior,
        smooth=sample.smooth,
        coverage=sample.coverage,
        confidence=sample.confidence,
        copied=sample.copied,
        sigma=sigma,
        world_from_camera=sample.world_from_camera,
        intrinsics=sample.intrinsics,
        unit=sample.unit,
    )


def generator_loss(
    network: DenoiserNetwork,
    sample: Sample,
    context: int,
    rng: torch.Generator,
    weights: LossWeights = LossWeights(),
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """Loss of one batch; differentiable in the network.

    Returns:
        The weighted sum, and its unweighted terms for the log (detached).
    """
    inputs = noisy_inputs(sample, context, rng)
    frames = sample.truth.shape[1]
    chunk_of_frame = (torch.arange(frames) >= context).long()
    clean, _, _ = network(inputs, chunk_of_frame=chunk_of_frame, first=context)
    terms = loss_terms(clean.float(), sample, inputs.doubt, context)
    total = torch.stack([getattr(weights, name) * value for name, value in terms.items()]).sum()
    return total, {name: value.detach() for name, value in terms.items()}


def loss_terms(
    clean: Float[Tensor, "b t 4 h w"], sample: Sample, doubt: Float[Tensor, "b s 1 h w"], context: int
) -> dict[str, Float[Tensor, ""]]:
    """The terms by name; each is a mean over the pixels it speaks of."""
    made = clean.flatten(0, 1)
    truth, prior = (t[:, context:].flatten(0, 1) for t in (sample.truth, sample.prior))
    hole, determined, doubt = (t[:, context:].flatten(0, 1) for t in (sample.copied, sample.determined, doubt))
    open_ = hole * (1.0 - determined)
    # Along its border a wide hole is determined after all, as far as there must be no seam.
    band = open_ * max_pool2d(1.0 - hole, 2 * _BAND_PX + 1, stride=1, padding=_BAND_PX)
    trusted = doubt * (determined + 0.5 * band).clamp(max=1.0)
    pixel = (made[:, :3] - truth[:, :3]).abs()
    area = doubt.sum().clamp_min(1.0) * 3.0
    terms = {"pixel": (pixel * trusted).sum() / area}
    inside = open_ * (1.0 - band)
    terms["keep"] = _mean((made[:, :3] - prior[:, :3]).abs(), inside)
    contrast_made, contrast_truth = (_contrast(_bands(image[:, :3])) for image in (made, truth))
    terms["contrast"] = _mean((contrast_made - contrast_truth).abs(), avg_pool2d(hole * determined, _COARSE_PX))
    terms["thin"] = _mean((made[:, :3] - truth[:, :3]).abs(), thin(hole > 0.5).to(hole))
    # Weighted so that an error counts by its share of the depth, up to a limit; the sky has none.
    relative = 1.0 / (1.0 - truth[:, 3:].square()).clamp_min(0.25)
    relative = torch.where(truth[:, 3:] < SKY_BELOW, torch.ones_like(relative), relative)
    terms["depth"] = _mean((made[:, 3:] - truth[:, 3:]).abs() * relative, hole)
    terms["slope"] = torch.stack(
        [
            _mean((made[:, 3:].diff(dim=axis) - truth[:, 3:].diff(dim=axis)).abs(), _both(hole, axis))
            for axis in (-1, -2)
        ]
    ).sum()
    return terms


def _bands(rgb: Tensor) -> Tensor:
    """Two bands of fine detail (about 1 and 3 px), ``[t 6 h w]``."""
    soft = avg_pool2d(rgb, 3, stride=1, padding=1, count_include_pad=False)
    softer = avg_pool2d(soft, 7, stride=1, padding=3, count_include_pad=False)
    return torch.cat([rgb - soft, soft - softer], dim=1)


def _contrast(bands: Tensor) -> Tensor:
    """Local root mean square of each band over coarse cells."""
    return (avg_pool2d(bands.square(), _COARSE_PX) + 1e-4).sqrt()


def _mean(error: Tensor, weight: Tensor) -> Tensor:
    return (error * weight).sum() / (weight.sum() * error.shape[1]).clamp_min(1.0)


def _both(hole: Tensor, axis: int) -> Tensor:
    """Where either of two neighbours along an axis lies in a hole."""
    size = hole.shape[axis] - 1
    return torch.maximum(hole.narrow(axis, 0, size), hole.narrow(axis, 1, size))
