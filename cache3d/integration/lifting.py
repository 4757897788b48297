"""Lifts pixels of a frame to Gaussians."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cache3d.integration.policy import DEFAULT_POLICY, IntegrationPolicy
from cache3d.integration.surfels import lift_surfels
from cache3d.rendering.policy import DEFAULT_RENDERING, RenderingPolicy
from geometry.filters import windows_3x3
from geometry.frame import Frame, Observation
from geometry.primitives import Gaussians
from geometry.se3 import quat_from_matrix


def lift_gaussians(
    observation: Observation,
    new: Bool[Tensor, "1 h w"],
    chunk: int,
    policy: IntegrationPolicy = DEFAULT_POLICY,
    rendering: RenderingPolicy = DEFAULT_RENDERING,
) -> Gaussians:
    """One Gaussian per new pixel of a frame, on the frame's device.

    Args:
        observation: the frame.
        new: pixels to lift.
        chunk: index of the chunk that the frame belongs to.
        policy: shape of the Gaussians and sharpening of their colors.
        rendering: size of their footprints.
    """
    frame = observation.frame
    surfels = lift_surfels(frame, new, policy.max_even_slope, policy.even_ratio, rendering.max_slope)
    count = len(surfels.positions)
    along, across = (torch.linalg.norm(axis, dim=-1) for axis in (surfels.along, surfels.across))
    thickness = policy.thickness * torch.minimum(along, across)
    axes = torch.stack([surfels.along / along[:, None], surfels.across / across[:, None], surfels.normals], dim=-1)
    where = new[0]
    return Gaussians(
        means=surfels.positions,
        quats=quat_from_matrix(axes, positive_w=False),
        scales=rendering.kernel_px * torch.stack([along, across, thickness], dim=-1),
        opacities=torch.full((count,), policy.opacity, device=where.device),
        colors=sharpened(frame, new, policy)[:, where].T.contiguous(),
        chunk=torch.full((count,), chunk, dtype=torch.int32, device=where.device),
        observed=torch.full((count,), observation.observed, device=where.device),
        confidence=observation.confidence[0][where],
        sky=frame.sky[0][where],
        n_updates=torch.zeros(count, device=where.device),
    )


def sharpened(
    frame: Frame, new: Bool[Tensor, "1 h w"], policy: IntegrationPolicy = DEFAULT_POLICY
) -> Float[Tensor, "3 h w"]:
    """Colors for Gaussians that look like the frame once drawn together, although each shows through its neighbors.

    Counted are the neighbors of 3x3 that are new too and on the same surface; how stored neighbors look is known to the
    optimization alone.
    """
    log_depth = torch.where(new, frame.depth.clamp_min(1e-9).log(), torch.inf)
    same = ((windows_3x3(log_depth, torch.inf) - log_depth).abs() <= policy.log_depth_tolerance).to(frame.rgb)
    # What the footprints of the neighbors will take from the pixel.
    difference = (frame.rgb[:, None] - windows_3x3(frame.rgb)) * same
    return (frame.rgb + policy.sharpening * difference.sum(1) / 9.0).clamp(0.0, 1.0)
