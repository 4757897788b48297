"""Which primitives a frame proves wrong or outdoes; see `cache3d.integration.rules` for all the rules."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cache3d.integration.rules import needed_residual
from cache3d.rendering.confidence import sampling_density
from cache3d.rendering.visibility import VisibleSet
from geometry.frame import Observation
from geometry.primitives import Gaussians, Points
from geometry.surfaces import DEPTH_TOLERANCE, far_from_edges

CLOSER = 1.5  # pixels per stored sample from which on a frame replaces it
WIDEST = 4  # pixels: half of the largest footprint whose surroundings are checked; larger ones as if of that size
SURER = 2.0  # how much surer than a primitive a frame must be to refute it at one look
RESOLVED = 0.7  # pixels per stored sample under which a frame may miss what is there


def superseded(
    primitives: Gaussians,
    seen: VisibleSet,
    extent_px: Float[Tensor, "k"],
    observation: Observation,
) -> Int[Tensor, "m"]:
    """Seen primitives that the frame samples more finely and knows at least as well: they give way to its pixels.

    A primitive goes only where its whole footprint lies on one surface inside the frame, so that nothing it covered is
    left bare.

    Args:
        primitives: all of them.
        seen: the visible ones, from `visible_from`.
        extent_px: larger extent of the footprint of each seen one, pixels of the frame.
        observation: the frame.
    """
    frame = observation.frame
    reach = (0.5 * extent_px).ceil().clamp(1, WIDEST).long()
    clear = torch.stack([far_from_edges(frame.depth, frame.surface, k).reshape(-1) for k in range(1, WIDEST + 1)])
    same = seen.on(frame.depth)
    worth = primitives.confidence[seen.index] * sampling_density(extent_px)
    known_better = observation.confidence.reshape(-1)[seen.pixel] > worth
    allowed = ~primitives.observed[seen.index] | observation.observed
    chosen = (extent_px > CLOSER) & same & known_better & allowed & clear[reach - 1, seen.pixel]
    return seen.index[chosen]


def contradicted(primitives: Gaussians | Points, inside: VisibleSet, observation: Observation) -> VisibleSet:
    """Primitives through which the frame looks at something clearly behind them, whether they show or not.

    One look is enough where a camera observed the frame and not the primitive, or where the frame is `SURER`. Otherwise
    it takes two: another primitive lies where the frame looks. A generated frame refutes nothing that was observed.
    Beside an edge, where half a pixel decides, and around an outlier of the frame nothing is refuted. A frame that
    samples a primitive less finely than `RESOLVED` may have missed it; the caller leaves those.

    Args:
        primitives: all of them.
        inside: those that fall into the image, from `in_image`.
        observation: the frame.
    """
    frame, observed = observation.frame, observation.observed
    steady = far_from_edges(frame.depth, frame.valid, 1).reshape(-1)
    depth = frame.depth.reshape(-1)
    agreed = torch.zeros_like(steady)
    agreed[inside.pixel[inside.on(frame.depth)]] = True
    passed = inside[steady[inside.pixel] & (inside.z * (1.0 + DEPTH_TOLERANCE) < depth[inside.pixel])]
    trust, mine = observation.confidence.reshape(-1)[passed.pixel], primitives.confidence[passed.index]
    guess = ~primitives.observed[passed.index]
    behind = depth[passed.pixel] > passed.z * (1.0 + needed_residual(mine, trust))
    certain = (guess & observed) | (trust > SURER * mine) | agreed[passed.pixel]
    return passed[behind & certain & (guess | observed)]
