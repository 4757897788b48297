"""Which primitives a frame supersedes or contradicts: rules 5 and 6 of `cache3d.integration.rules`."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cache3d.integration.policy import DEFAULT_POLICY, IntegrationPolicy
from cache3d.integration.rules import needed_residual
from cache3d.rendering.confidence import sampling_density
from cache3d.rendering.policy import DEFAULT_RENDERING, RenderingPolicy
from cache3d.rendering.visibility import VisibleSet
from geometry.frame import Observation
from geometry.primitives import Gaussians, Points
from geometry.surfaces import far_from_edges


def superseded(
    gaussians: Gaussians,
    visible: VisibleSet,
    extent_px: Float[Tensor, "k"],
    observation: Observation,
    policy: IntegrationPolicy = DEFAULT_POLICY,
    rendering: RenderingPolicy = DEFAULT_RENDERING,
) -> Int[Tensor, "m"]:
    """Visible Gaussians that the frame samples more finely and with more confidence.

    A Gaussian is superseded only where its whole footprint lies on one surface inside the frame: then the frame's
    pixels cover everything that it covered.

    Args:
        gaussians: all of them.
        visible: the visible ones, from `visible_from`.
        extent_px: larger extent of the footprint of each visible one, pixels of the frame.
        observation: the frame.
        policy: thresholds.
        rendering: confidence by sampling density.

    Returns:
        Indices into ``gaussians``.
    """
    frame, widest = observation.frame, policy.max_reach_px
    reach = (0.5 * extent_px).ceil().clamp(1, widest).long()
    # One mask per reach; larger footprints are checked as if they had the largest.
    on_one_surface = torch.stack(
        [
            far_from_edges(frame.depth, frame.surface, k, tolerance=policy.depth_tolerance).reshape(-1)
            for k in range(1, widest + 1)
        ]
    )
    same = visible.on(frame.depth, policy.visible_tolerance)
    confidence = gaussians.confidence[visible.index] * sampling_density(extent_px, rendering)
    more_confident = observation.confidence.reshape(-1)[visible.pixel] > confidence
    # What a camera observed is never retired by what was generated.
    replaceable = ~gaussians.observed[visible.index] | observation.observed
    coarse = extent_px > policy.superseded_px
    return visible.index[coarse & same & more_confident & replaceable & on_one_surface[reach - 1, visible.pixel]]


def contradicted(
    primitives: Gaussians | Points,
    inside: VisibleSet,
    observation: Observation,
    policy: IntegrationPolicy = DEFAULT_POLICY,
) -> VisibleSet:
    """Primitives in front of the surface that the frame sees, visible or hidden: free-space carving.

    Beside a depth edge, where half a pixel decides, and around an outlier of the frame nothing is contradicted. A frame
    that samples a primitive less finely than ``policy.resolved_px`` may have missed it; the caller keeps those.

    Args:
        primitives: all of them.
        inside: those inside the image, from `in_image`.
        observation: the frame.
        policy: thresholds.
    """
    frame, observed = observation.frame, observation.observed
    depth = frame.depth.reshape(-1)
    away_from_edges = far_from_edges(frame.depth, frame.valid, 1, tolerance=policy.depth_tolerance).reshape(-1)
    # Pixels whose surface another primitive confirms: the second of the two frames that a contradiction takes.
    confirmed = torch.zeros_like(away_from_edges)
    confirmed[inside.pixel[inside.on(frame.depth, policy.visible_tolerance)]] = True
    in_front = inside.z * (1.0 + policy.depth_tolerance) < depth[inside.pixel]
    passed = inside[away_from_edges[inside.pixel] & in_front]
    new, stored = observation.confidence.reshape(-1)[passed.pixel], primitives.confidence[passed.index]
    generated = ~primitives.observed[passed.index]
    # The more certain the stored surface, the larger a difference it takes.
    clearly = depth[passed.pixel] > passed.z * (1.0 + needed_residual(stored, new, policy))
    certain = (generated & observed) | (new > policy.certain_ratio * stored) | confirmed[passed.pixel]
    return passed[clearly & certain & (generated | observed)]
