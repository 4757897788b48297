"""From pixels of a frame to Gaussians."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cache3d.integration.surfels import lift_surfels
from cache3d.rendering.footprint import KERNEL
from geometry.filters import windows_3x3
from geometry.frame import Frame, Observation
from geometry.primitives import Gaussians
from geometry.se3 import quat_from_matrix

OPACITY = 0.99
THICKNESS = 0.1  # of the smaller extent along the surface
CRISP = 0.75  # of a pixel's difference from its neighbors: what footprints blur away between them
SAME_SURFACE = 0.1  # difference of the logarithms of two neighbors' depths


def lift_gaussians(observation: Observation, new: Bool[Tensor, "1 h w"], chunk: int) -> Gaussians:
    """One Gaussian per new pixel of a frame, on the frame's device.

    Args:
        observation: the frame.
        new: pixels to lift.
        chunk: index of the chunk that the frame belongs to.
    """
    frame = observation.frame
    surfels = lift_surfels(frame, new)
    count = len(surfels.positions)
    along, across = (torch.linalg.norm(axis, dim=-1) for axis in (surfels.along, surfels.across))
    thickness = THICKNESS * torch.minimum(along, across)
    axes = torch.stack([surfels.along / along[:, None], surfels.across / across[:, None], surfels.normals], dim=-1)
    where = new[0]
    return Gaussians(
        means=surfels.positions,
        quats=quat_from_matrix(axes, positive_w=False),
        scales=KERNEL * torch.stack([along, across, thickness], dim=-1),
        opacities=torch.full((count,), OPACITY, device=where.device),
        colors=crisp(frame, new)[:, where].T.contiguous(),
        chunk=torch.full((count,), chunk, dtype=torch.int32, device=where.device),
        observed=torch.full((count,), observation.observed, device=where.device),
        confidence=observation.confidence[0][where],
        sky=frame.sky[0][where],
        looks=torch.zeros(count, device=where.device),
    )


def crisp(frame: Frame, new: Bool[Tensor, "1 h w"]) -> Float[Tensor, "3 h w"]:
    """Colors for Gaussians that, drawn together, look like the frame: each is also seen through its neighbors.

    That holds for neighbors of 3 x 3 that are new too, on one surface; how those look that are there already is known
    to refinement alone.
    """
    log = torch.where(new, frame.depth.clamp_min(1e-9).log(), torch.inf)
    beside = ((windows_3x3(log, torch.inf) - log).abs() <= SAME_SURFACE).to(frame.rgb)
    apart = (frame.rgb[:, None] - windows_3x3(frame.rgb)) * beside
    return (frame.rgb + CRISP * apart.sum(1) / 9.0).clamp(0.0, 1.0)
