"""Flow matching with one noise level per frame: inputs and loss of teacher, student and online score.

A pixel's noise level is the level of its frame, limited to the level at which the sampler lets the pixel enter: full
noise in holes, little noise where the confidence of the cache is high. Above its entry level the state of a pixel is
the noised prior, as in `diffusion.sampler`.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion.flow import add_noise
from diffusion.noise_map import NoiseConfig
from diffusion.retouch.network import DenoiserNetwork, Inputs
from worldwarp.training.samples import Sample

# Holes start from pure noise; the copied texture is only a conditioning input.
FULL_NOISE = NoiseConfig(copied=1.0, unknown=1.0)


def entry_level(sample: Sample, context: int) -> Float[Tensor, "b t 1 h w"]:
    """Noise level at which each pixel enters the sampler: `diffusion.noise_map.noise_map` with `FULL_NOISE`.

    Args:
        sample: a batch ``[b]``.
        context: number of leading frames, which are clean.
    """
    copied = sample.copied.clamp(0.0, 1.0)
    seen = torch.minimum(sample.coverage, 1.0 - copied)
    unknown = (1.0 - seen - copied).clamp_min(0.0)
    doubt = (1.0 - sample.confidence).clamp(0.0, 1.0)
    level = seen * doubt * FULL_NOISE.seen + copied * FULL_NOISE.copied + unknown * FULL_NOISE.unknown
    level = level.clamp(0.0, 1.0)
    return torch.cat([torch.zeros_like(level[:, :context]), level[:, context:]], dim=1)


def noised(
    sample: Sample,
    clean: Float[Tensor, "b t 4 h w"],
    level: Float[Tensor, "b t"],
    noise: Float[Tensor, "b t 4 h w"],
    context: int,
) -> Inputs:
    """Network inputs when frame ``t`` of ``clean`` is noised to ``level``: the forward process, per region.

    Args:
        sample: guide, prior and cameras.
        clean: frames at the clean end of the flow; context frames first.
        level: noise level of each frame, 0..1; ignored for context frames.
        noise: standard normal noise.
        context: number of leading frames, which stay clean.
    """
    entry = entry_level(sample, context)
    level = level[:, :, None, None, None]
    sigma = torch.minimum(entry, level)
    # Above its entry level a pixel has not entered the sampler: its state is still the noised prior.
    return inputs_at(sample, add_noise(torch.where(level >= entry, sample.prior, clean), noise, sigma), sigma)


def inputs_at(sample: Sample, state: Float[Tensor, "b t 4 h w"], sigma: Float[Tensor, "b t 1 h w"]) -> Inputs:
    """Network inputs of a batch with state ``state`` at noise levels ``sigma``."""
    return Inputs(
        state=state,
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


def chunk_indices(frames: int, context: int, chunk: int, device: torch.device | None = None) -> Tensor:
    """Chunk index of each frame: 0 for the context, then one index per ``chunk`` frames."""
    index = torch.arange(frames, device=device)
    return torch.where(index < context, torch.zeros_like(index), (index - context) // chunk + 1)


def predict(network: DenoiserNetwork, inputs: Inputs, context: int, chunk: int) -> Float[Tensor, "b t 4 h w"]:
    """Predict clean frames after the context, float32, under the block-causal mask of chunks of ``chunk`` frames.

    A chunk of all frames makes the network bidirectional.
    """
    state = inputs.state
    with torch.autocast(state.device.type, torch.bfloat16):
        clean, _, _ = network(
            inputs, chunk_of_frame=chunk_indices(state.shape[1], context, chunk, state.device), first=context
        )
    return clean.float()


def velocity_loss(
    predicted: Float[Tensor, "*b c h w"],
    clean: Float[Tensor, "*b c h w"],
    sigma: Float[Tensor, "*b 1 h w"],
    weight: Float[Tensor, "*b 1 h w"],
) -> Float[Tensor, ""]:
    """Weighted mean of the squared velocity error.

    With ``x`` the noisy state, ``(x - predicted) / sigma`` against ``(x - clean) / sigma`` is the error of the clean
    end over ``sigma`` (Lipman et al., "Flow Matching for Generative Modeling", equation 9, in the signs of
    `diffusion.flow`).
    """
    least_sigma = 0.1  # lower bound of the level in the weight of an error, which would grow without bound
    error = ((predicted - clean) / sigma.clamp_min(least_sigma)).square()
    return (error * weight).sum() / (weight.sum() * error.shape[-3]).clamp_min(1e-6)


def flow_matching_loss(
    network: DenoiserNetwork,
    sample: Sample,
    clean: Float[Tensor, "b t 4 h w"],
    level: Float[Tensor, "b t"],
    noise: Float[Tensor, "b t 4 h w"],
    context: int,
    chunk: int,
) -> Float[Tensor, ""]:
    """Flow-matching loss of the network on ``clean``; differentiable in the network.

    Args:
        network: predicts clean frames.
        sample: guide, prior and cameras.
        clean: clean end of the flow: the truth for a teacher, the student's frames for its online score.
        level: noise level of each frame, 0..1.
        noise: standard normal noise.
        context: number of leading frames, which stay clean.
        chunk: frames per chunk.
    """
    inputs = noised(sample, clean, level, noise, context)
    sigma = inputs.sigma[:, context:]
    # Pixels at level 0 are given and have no error to learn from.
    return velocity_loss(predict(network, inputs, context, chunk), clean[:, context:], sigma, (sigma > 0.0).to(sigma))


def with_truth(sample: Sample, made: Float[Tensor, "b t 4 h w"], context: int) -> Float[Tensor, "b s 4 h w"]:
    """Concatenate the context frames of the sample and ``made``."""
    return torch.cat([sample.truth[:, :context], made], dim=1)
