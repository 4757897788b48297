"""How much noise each pixel starts from: little where it was seen, more where it was copied, most where unknown."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion.condition import Prior
from geometry.frame import Guide

KINDS = ("confidence", "binary", "spatial", "temporal", "uniform")


@dataclass(frozen=True)
class NoiseConfig:
    """Noise levels, all in 0..1.

    Attributes:
        kind: ``confidence`` varies with trust; ``binary`` knows only covered (0) and not covered (``unknown``);
            ``spatial`` is one such map for all frames of a chunk, of what any of them lacks; ``temporal`` is one level
            per frame, ``unknown`` times the share that it lacks; ``uniform`` gives every pixel the level ``copied``,
            whatever is known of it. The last three are there to be compared with (WorldWarp, table 3).
        seen: level of a pixel that the cache covers but that nothing vouches for (confidence 0).
        copied: level of a pixel whose texture was copied from elsewhere.
        unknown: level of a pixel that was neither seen nor copied.
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
    """The level at which each pixel enters the sampler.

    Coverage 1 with confidence 1 gives exactly 0, and so does, of kind ``confidence``, what is ``locked``. Else nothing
    but ``coverage``, ``confidence`` and ``prior.copied`` is read: pixels that nothing covers cannot matter.

    Args:
        guide: what the cache shows.
        prior: the guide made complete; its ``copied`` is the share of a pixel not seen; what is ``locked`` stays.
        config: levels.

    Returns:
        sigma, ``[t 1 h w]``, in 0..1.
    """
    if config.kind == "uniform":
        return torch.full_like(guide.coverage, config.copied)
    if config.kind != "confidence":
        lacking = torch.where(guide.coverage < 0.5, config.unknown, 0.0).to(guide.coverage)
        if config.kind == "spatial":
            lacking = lacking.amax(0, keepdim=True).expand_as(lacking).contiguous()
        elif config.kind == "temporal":
            lacking = lacking.mean((1, 2, 3), keepdim=True).expand_as(lacking).contiguous()
        return lacking
    copied = prior.copied.clamp(0.0, 1.0)
    seen = torch.minimum(guide.coverage, 1.0 - copied)
    unknown = (1.0 - seen - copied).clamp_min(0.0)
    doubt = (1.0 - guide.confidence).clamp(0.0, 1.0)
    level = (seen * doubt * config.seen + copied * config.copied + unknown * config.unknown).clamp(0.0, 1.0)
    return torch.where(prior.locked, 0.0, level)
