"""Which primitives a frame proves wrong or outdoes; see `cache3d.insertion` for all the rules."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cache3d.confidence import sampling_density
from cache3d.insertion import needed_residual
from cache3d.visibility import VISIBLE, Seen, far_from_edges
from geometry.frame import Frame
from geometry.primitives import Gaussians

CLOSER = 1.5  # pixels per stored sample from which on a frame replaces it
WIDEST = 4  # pixels: half of the largest footprint whose surroundings are checked; larger ones as if of that size
SURER = 2.0  # how much surer than a guess a generated frame must be to refute it


def outdone(
    primitives: Gaussians,
    seen: Seen,
    extent_px: Float[Tensor, "k"],
    frame: Frame,
    confidence: Float[Tensor, "1 h w"],
    *,
    observed: bool,
) -> Int[Tensor, "m"]:
    """Seen primitives that the frame samples more finely and knows at least as well: they give way to its pixels.

    A primitive goes only where its whole footprint lies on one surface inside the frame, so that nothing it covered is
    left bare.

    Args:
        primitives: all of them.
        seen: the visible ones, from `seen_by`.
        extent_px: larger extent of the footprint of each seen one, pixels of the frame.
        frame: one frame, no batch axis.
        confidence: trust in the frame's pixels.
        observed: whether a camera saw the frame.
    """
    usable = frame.valid & ~frame.sky
    reach = (0.5 * extent_px).ceil().clamp(1, WIDEST).long()
    clear = torch.stack([far_from_edges(frame.depth, usable, k).reshape(-1) for k in range(1, WIDEST + 1)])
    same = (frame.depth.reshape(-1)[seen.pixel] - seen.z).abs() < VISIBLE * seen.z
    worth = primitives.confidence[seen.index] * sampling_density(extent_px)
    known_better = confidence.reshape(-1)[seen.pixel] > worth
    allowed = torch.full_like(same, True) if observed else ~primitives.observed[seen.index]
    chosen = (extent_px > CLOSER) & same & known_better & allowed & clear[reach - 1, seen.pixel]
    return seen.index[chosen]


def refuted(
    primitives: Gaussians, seen: Seen, frame: Frame, confidence: Float[Tensor, "1 h w"], *, observed: bool
) -> Int[Tensor, "m"]:
    """Seen guesses through which the frame looks at something clearly behind them.

    What a camera observed refutes any guess; a generated frame only one that it is `SURER` than. Beside an edge, where
    half a pixel decides, nothing is refuted.
    """
    steady = far_from_edges(frame.depth, frame.valid, 1).reshape(-1)[seen.pixel]
    depth, trust = frame.depth.reshape(-1)[seen.pixel], confidence.reshape(-1)[seen.pixel]
    mine = primitives.confidence[seen.index]
    behind = depth > seen.z * (1.0 + needed_residual(mine, trust))
    surer = torch.full_like(behind, True) if observed else trust > SURER * mine
    return seen.index[~primitives.observed[seen.index] & behind & surer & steady]
