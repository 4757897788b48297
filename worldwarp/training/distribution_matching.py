"""Distribution matching: the student's gradient is the difference of two scores.

After Yin et al., "Improved Distribution Matching Distillation" (DMD2), section 3 and 4, in predicted clean samples
instead of scores: for the same noised sample, the teacher predicts the clean end under the real distribution and the
online network under the student's distribution; the student is moved along the difference.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def matching_gradient(
    made: Float[Tensor, "b t c h w"],
    real: Float[Tensor, "b t c h w"],
    fake: Float[Tensor, "b t c h w"],
    weight: Float[Tensor, "b t 1 h w"],
) -> Float[Tensor, "b t c h w"]:
    """Gradient of the divergence of the student's distribution from the teacher's, up to a positive factor.

    Both scores are ``((1 - sigma) clean - noisy) / sigma**2``, so their difference is that of the clean ends, up to a
    factor of the level. The factor is replaced by one over the mean distance of the sample from the teacher's clean
    end, so that all levels have about the same weight (DMD, equation 8).

    Args:
        made: the student's sample.
        real: the teacher's prediction of the clean end of the noised sample.
        fake: the online score's prediction of it.
        weight: weight of each pixel, 0..1.
    """
    pixels = (weight.sum((1, 2, 3, 4), keepdim=True) * made.shape[2]).clamp_min(1e-6)
    scale = ((made - real).abs() * weight).sum((1, 2, 3, 4), keepdim=True) / pixels
    # A sample without weighted pixels has neither a distance nor a gradient.
    return torch.nan_to_num((fake - real) / scale.clamp_min(1e-3)) * weight


def matching_loss(
    made: Float[Tensor, "b t c h w"],
    gradient: Float[Tensor, "b t c h w"],
    weight: Float[Tensor, "b t 1 h w"],
) -> Float[Tensor, ""]:
    """Loss whose derivative by ``made`` is ``gradient`` over the weighted number of values."""
    # The gradient comes from networks that must not be differentiated.
    aim = (made - gradient).detach()
    return 0.5 * (((made - aim).square()) * weight).sum() / (weight.sum() * made.shape[2]).clamp_min(1e-6)
