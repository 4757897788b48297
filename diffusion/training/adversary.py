"""A critic of wide holes: which of two pictures is the true one, place by place?

What cannot be known from what is shown has no mean worth regressing to; it only has to look like the truth. A small
network beside the generator sees what is shown and where the hole is, and at every place holds the truth against what
was made *there* (relativistic pairing: Jolicoeur-Martineau, "The relativistic discriminator", 2018; Huang et al., "The
GAN is dead; long live the GAN!", 2024). Outside the hole both show the same, the guide, so that neither its softness
nor its errors tell them apart, but a seam does.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, softplus

from diffusion.network import DenoiserNetwork
from diffusion.prior import thin
from geometry.depth.network import FEATURE_SCALE, Encoder

CRITIC_STRIDE = 8  # pixels per judgement
_TAPS = (0, 1, 4)  # blocks of the encoder that are looked at, with strides of 2, 4 and 8 pixels
_CHANNELS = (9, 16, 24, 40)  # bands of the colours themselves, and of each tap
_JITTER_PX = 8
_PENALTY, _PERTURBATION = 3.0, 0.1
_ALONE, _RISE = 100, 100  # steps that the critic trains alone, then steps until the generator hears it fully


class PatchCritic(nn.Module):
    """Judges patches of 20 to 50 pixels by frozen features of the depth network's encoder; more is more real.

    Features that know pictures spare the critic the thousands of steps that it takes to find them (Sauer et al.,
    "Projected GANs converge faster", 2021).
    """

    def __init__(self, encoder: Encoder, width: int = 64) -> None:
        """Random weights on top of ``encoder``, which stays as it is; ``width`` channels."""
        super().__init__()
        self._encoder = (encoder.requires_grad_(False),)  # in a tuple: neither trained, nor saved, nor averaged
        self.heads = nn.ModuleList(
            [
                _head(channels + 1, width, 4 if kind == 0 else 2 if kind == 1 else 1)
                for kind, channels in enumerate(_CHANNELS)
            ]
        )

    def look(self, rgb: Float[Tensor, "n 3 h w"]) -> list[Tensor]:
        """Features of colours in -1..1, finest first."""
        soft = avg_pool2d(rgb, 3, stride=1, padding=1, count_include_pad=False)
        softer = avg_pool2d(soft, 7, stride=1, padding=3, count_include_pad=False)
        # Fine detail is weak; it counts as much as colour only when it is shown apart and made stronger.
        bands = torch.cat([softer, 6.0 * (soft - softer), 6.0 * (rgb - soft)], dim=1)
        layers = self._encoder[0].layers(0.5 * rgb + 0.5, _TAPS)
        return [bands, *(FEATURE_SCALE * layer for layer in layers)]

    def forward(self, features: list[Tensor], hole: Float[Tensor, "n 1 h w"]) -> Tensor:
        """Judgements ``[n k h/8 w/8]`` of what `look` saw, one for each of ``k`` kinds of features."""
        size = (hole.shape[-2] // CRITIC_STRIDE, hole.shape[-1] // CRITIC_STRIDE)
        scores = [
            head(torch.cat([layer, adaptive_avg_pool2d(hole, layer.shape[-2:])], 1)).float()
            for head, layer in zip(self.heads, features, strict=True)
        ]
        return torch.cat([adaptive_avg_pool2d(score, size) for score in scores], dim=1)


def _head(channels: int, width: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, stride + 2, stride=stride, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(width, width, 3, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(width, 1, 3, padding=1),
    )


class Contest(nn.Module):
    """Generator and critic, trained together; ``turn`` counts steps, so that the critic can begin alone."""

    def __init__(self, generator: DenoiserNetwork, critic: PatchCritic) -> None:
        """Begin with these weights."""
        super().__init__()
        self.generator, self.critic = generator, critic
        self.register_buffer("turn", torch.zeros((), dtype=torch.int64))

    def attention(self) -> float:
        """Take a turn: how much the generator listens to the critic in it, 0..1."""
        self.turn += 1
        return min(1.0, max(0.0, (int(self.turn) - _ALONE) / _RISE))


def contest_losses(
    critic: PatchCritic,
    made: Float[Tensor, "n 4 h w"],
    truth: Float[Tensor, "n 4 h w"],
    prior: Float[Tensor, "n 4 h w"],
    hole: Float[Tensor, "n 1 h w"],
    rng: torch.Generator,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """What the generator should lower, and what the critic should; neither moves the other's weights.

    The critic is kept smooth around true pictures by the square of what noise on their features changes, which is the
    penalty of its gradient there without a second derivative (Lin et al., "Diffusion Adversarial Post-Training", 2025).

    Args:
        critic: judges.
        made: what the generator made, differentiable.
        truth, prior: states; of the prior what lies outside the hole is shown.
        hole: 1 where something was made.
        rng: draws the noise.
    """
    inside = (hole > 0.5).to(hole)
    wide = inside * (~thin(inside > 0.5)).to(hole)
    # Shifted, or patterns that fit the strides of the features deceive them.
    down, right = (int(n) for n in torch.randint(_JITTER_PX, (2,), generator=rng))
    truth, made, prior, inside, wide = (t[..., down:, right:] for t in (truth, made, prior, inside, wide))
    weight = avg_pool2d(wide, CRITIC_STRIDE)
    real, fake = (torch.where(inside > 0.5, state, prior)[:, :3] for state in (truth, made))
    with torch.no_grad():
        true = critic.look(real)
    seen = critic.look(fake)
    critic.requires_grad_(False)
    generator_loss = _mean(softplus(critic(true, inside) - critic(seen, inside)), weight)
    critic.requires_grad_(True)
    true_score, made_score = critic(true, inside), critic([layer.detach() for layer in seen], inside)
    noisy = [layer + _PERTURBATION * torch.randn(layer.shape, generator=rng).to(layer) for layer in true]
    change = (critic(noisy, inside) - true_score) / _PERTURBATION
    critic_loss = _mean(softplus(made_score - true_score), weight) + _PENALTY * _mean(change.square(), weight)
    return generator_loss, critic_loss


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    return (values * weight).sum() / (weight.sum() * values.shape[1]).clamp_min(1.0)
