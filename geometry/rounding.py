"""The precision of generated frames: what is stored of them is what the loop itself goes on with.

A chunk is rounded once, before anything uses it. So a resumed session has the bits of one that never stopped, although
the stored world has 8 bits of a color, 12 significant bits of a depth and 8 bits of a confidence. Only integer and
correctly rounded arithmetic is used, so that every machine and device gives the same bits.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from geometry.frame import Chunk

DEPTH_BITS = 12  # significant bits: at most 1.2e-4 off, a tenth of the roughness of generated depth
LEVELS = 255.0  # of colors and confidence
_DROPPED = 24 - DEPTH_BITS  # a float32 has 24 significant bits


def rounded(chunk: Chunk) -> Chunk:
    """The chunk as it is stored; of a chunk that is rounded already, the same bits."""
    frames = replace(chunk.frames, rgb=to_levels(chunk.frames.rgb), depth=rounded_depth(chunk.frames.depth))
    return replace(chunk, frames=frames, confidence=to_levels(chunk.confidence))


def to_levels(values: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """Values in 0..1 as the nearest multiples of 1/255."""
    return (values * LEVELS).round().clamp(0.0, LEVELS) / LEVELS


def rounded_depth(depth: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """Depth to `DEPTH_BITS` significant bits, halves away from zero; infinity and NaN stay."""
    bits = depth.contiguous().view(torch.int32)
    # A carry out of the mantissa goes into the exponent, which is the next power of two: still the nearest.
    nearest = (bits + (1 << (_DROPPED - 1))) & -(1 << _DROPPED)
    return torch.where(depth.isfinite(), nearest.view(torch.float32), depth)
