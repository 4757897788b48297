"""Fallback without a network: constant depth, a plane that faces the camera."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from geometry.depth.estimator import DepthMap


class PlaneDepth:
    """Estimates one depth for every pixel.

    Args:
        depth: depth in scene units.
    """

    def __init__(self, depth: float = 1.0) -> None:
        if not depth > 0.0:
            raise ValueError(f"depth: want a positive distance, got {depth}")
        self.depth = depth

    def estimate(self, rgb: Float[Tensor, "b 3 h w"], focal_px: Float[Tensor, "b 2"] | None = None) -> DepthMap:  # noqa: ARG002
        """A constant depth map."""
        depth = torch.full_like(rgb[:, :1], self.depth)
        return DepthMap(
            depth, torch.ones_like(depth, dtype=torch.bool), torch.zeros_like(depth, dtype=torch.bool), False
        )
