"""The integration rules: which pixels of a frame become primitives, given the cache rendered from the frame's camera.

A valid pixel becomes a primitive when one of these holds:

1. *Hole*: the cache covers less than half of the pixel.
2. *Back side* (Voyager's rule): the rendered surface is seen from behind, and the new surface is not hidden behind it.
3. *In front*: the new surface is clearly closer than the rendered one, and at least two of its eight neighbors in the
   frame share its depth, so that an isolated outlier does not enter. Where the rendered pixel is a mixture of surfaces,
   as along an outline, all eight must.
4. *Gap*: the frame retired primitives there (rule 5), and the pixel lost coverage or receded.

Otherwise the pixel updates what is stored. A frame from farther away finds primitives finer than its pixels and changes
nothing.

A primitive is retired when one of these holds (`cache3d.integration.retirement`):

5. *Superseded*: it spans more than 1.5 pixels of the frame, the frame agrees with its depth and is more confident than
   it is from here (its confidence times the sampling factor of `cache3d.rendering.confidence`), and its whole footprint
   lies on one surface of the frame. Finer primitives replace coarser ones instead of piling up on them. Points are not
   superseded, because no color of theirs is optimized: finer ones join them, and each camera renders those that fit its
   pixels (`cache3d.point_cache`).
6. *Contradicted* (free-space carving): the frame sees a surface clearly behind it, and samples it finely enough not to
   miss it. One observed frame contradicts a generated primitive, and so does a frame of twice its confidence.
   Otherwise it takes two frames: another stored primitive lies on the surface that this frame sees. Errors of one frame
   are removed by the next ones.

*Which of two surfaces wins* depends on provenance, confidence and depth residual. Provenance decides first: a generated
frame neither covers nor retires what a camera observed, and an observed frame contradicts any generated primitive.
Otherwise the new surface must differ by `needed_residual`: 10 % of the depth, times the ratio of stored to new
confidence. In front of that it is added (rule 3), and the old surface stays, hidden. Behind, the stored surface stays
until a second frame contradicts it (rule 6).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cache3d.integration.policy import DEFAULT_POLICY, IntegrationPolicy
from cache3d.rendering.rendered_view import RenderedView
from geometry.frame import Frame, Observation
from geometry.surfaces import similar_neighbors


def needed_residual(
    stored: Float[Tensor, "*b"], new: Float[Tensor, "*b"], policy: IntegrationPolicy = DEFAULT_POLICY
) -> Float[Tensor, "*b"]:
    """Relative depth difference from which a new surface contradicts a stored one, from the confidence of both."""
    return policy.depth_tolerance * (stored / new.clamp_min(1e-3)).clamp(1.0, policy.max_residual_ratio)


def new_pixels(
    rendered: RenderedView, observation: Observation, policy: IntegrationPolicy = DEFAULT_POLICY
) -> Bool[Tensor, "1 h w"]:
    """Pixels of one frame that become primitives by rules 1 to 3.

    Args:
        rendered: the cache, rendered from the frame's camera.
        observation: the frame.
        policy: thresholds.
    """
    frame = observation.frame
    replaceable = rendered.generated | observation.observed
    not_hidden = rendered.sky_mask | (frame.depth < rendered.depth * (1.0 + policy.depth_tolerance))
    back_side = (rendered.away > policy.back_share) & not_hidden & ~frame.sky & replaceable
    nearest_same = rendered.depth * (1.0 - needed_residual(rendered.confidence, observation.confidence, policy))
    similar = similar_neighbors(frame, policy.depth_tolerance)
    # The depth of a mixture lies between its surfaces: being in front of it says little.
    certain = (rendered.spread < policy.mixed_spread) | (similar == 8)
    # Any surface is in front of the sky.
    closer = torch.where(rendered.sky_mask, ~frame.sky, (frame.depth < nearest_same) & certain)
    in_front = replaceable & closer & ~frame.sky & (similar >= policy.min_neighbors)
    return frame.valid & (~rendered.covered | back_side | in_front)


def uncovered(
    before: RenderedView, after: RenderedView, frame: Frame, policy: IntegrationPolicy = DEFAULT_POLICY
) -> Bool[Tensor, "1 h w"]:
    """Pixels of one frame that were covered before primitives were retired and lost their surface (rule 4).

    Where another surface lies behind, coverage stays full, and the gap shows as depth alone.
    """
    sealed = after.coverage >= policy.sealed_coverage
    # A gap shows what lies behind both, the surface that was there and the one that replaced it.
    surface = torch.maximum(before.depth, frame.depth)
    receded = ~frame.sky & (after.sky_mask | (after.depth > surface * (1.0 + policy.gap_depth)))
    return frame.valid & before.covered & (~sealed | receded)
