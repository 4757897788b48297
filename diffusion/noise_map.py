"""Noise map: the noise level at which each pixel enters the sampler."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion.condition import Prior
from geometry.frame import Guide

KINDS = ("confidence", "regions", "binary", "spatial", "temporal", "uniform")


@dataclass(frozen=True)
class NoiseConfig:
    """Shape and levels of the noise map. With the packaged network no kind differs from another by more than chance.

    Figures: ``docs/results.md``, Ablations.

    Attributes:
        kind: ``confidence``: by coverage, confidence and copying; ``regions``: ``seen`` where covered, ``copied`` where
            filled, else ``unknown``, as models with a level per token were trained; ``binary``: 0 where covered,
            ``unknown`` in holes; ``spatial``: the union of ``binary`` over the frames of a chunk; ``temporal``: one
            level per frame, the mean of ``binary``; ``uniform``: ``copied`` everywhere. WorldWarp (table 3) compares
            such shapes. Default ``confidence``: chunk 10 within .16 dB of all others.
        seen: level of a covered pixel with confidence 0. Default .4; not measured.
        copied: level of a copied pixel. Default .3: depth in holes has delta1 .814, at full noise (``binary``) .792.
        unknown: level of the share of a pixel that was neither rendered nor copied. Default 1: pure noise. The prior
            fills every hole, so that only partly covered pixels have such a share: they reach .7, holes ``copied``.
    """

    kind: str = "confidence"
    seen: float = 0.4
    copied: float = 0.3
    unknown: float = 1.0

    def __post_init__(self) -> None:
        """Refuse unknown kinds and levels outside 0..1."""
        if self.kind not in KINDS:
            raise ValueError(f"kind: want one of {KINDS}, got '{self.kind}'")
        for name in ("seen", "copied", "unknown"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name}: want a noise level in 0..1, got {getattr(self, name)}")


def noise_map(guide: Guide, prior: Prior, config: NoiseConfig) -> Float[Tensor, "t 1 h w"]:
    """The noise level of each pixel.

    Coverage 1 with confidence 1 gives exactly 0, and so does, of kind ``confidence``, a locked pixel. Colors and depth
    of the guide are not read, so that values of uncovered pixels cannot matter.

    Args:
        guide: rendered frames.
        prior: the completed guide.
        config: shape and levels.

    Returns:
        sigma in 0..1, ``[t 1 h w]``.
    """
    if config.kind == "uniform":
        return torch.full_like(guide.coverage, config.copied)
    if config.kind == "regions":
        hole = torch.where(prior.copied > 0.5, config.copied, config.unknown)
        return torch.where(guide.covered, config.seen, hole).to(guide.coverage)
    if config.kind != "confidence":
        level = torch.where(guide.covered, 0.0, config.unknown).to(guide.coverage)
        if config.kind == "spatial":
            level = level.amax(0, keepdim=True).expand_as(level).contiguous()
        elif config.kind == "temporal":
            level = level.mean((1, 2, 3), keepdim=True).expand_as(level).contiguous()
        return level
    copied = prior.copied.clamp(0.0, 1.0)
    seen = torch.minimum(guide.coverage, 1.0 - copied)
    unknown = (1.0 - seen - copied).clamp_min(0.0)
    uncertainty = (1.0 - guide.confidence).clamp(0.0, 1.0)
    level = (seen * uncertainty * config.seen + copied * config.copied + unknown * config.unknown).clamp(0.0, 1.0)
    return torch.where(prior.locked, 0.0, level)
