"""What a frame adds to a cache and what it takes away, given what the cache shows to the same camera.

The rules, in one place. A valid pixel becomes a primitive when one of these holds:

1. *Nothing is there*: the cache covers less than half of the pixel.
2. *It faces away* (Voyager's rule): what is shown there has its normal more than 90° from the view, and the new
   surface is not hidden behind it.
3. *In front*: the new surface is clearly closer than the shown one, and some neighbors in the frame share its depth:
   an isolated outlier does not enter. Where a mixture of surfaces is shown, which an outline is, all of them must.
4. *A closer look*: what the frame retired there (below) left a gap.

Otherwise the pixel refines what is there. A farther look finds finer primitives than its pixels and changes nothing.

A primitive is retired when one of these holds (`cache3d.integration.retirement`):

5. *A closer look*: it spans more than 1.5 pixels of the frame, the frame agrees with its depth, knows it better than it
   is believed from here (its confidence times the sampling factor of `cache3d.rendering.confidence`), and shows its whole
   footprint on one surface, level or aslant. Finer primitives then replace coarser ones and never pile up on them.
   Points stay: the finer ones join them, and each camera is shown those that fit its pixels (`cache3d.point_cache`), for no
   color of a point is solved for.
6. *Looked through*: the frame sees something clearly behind it, hidden or not, and is finer than to miss it. One look
   refutes a guess if a camera took it, and anything that the frame is twice as sure of. Otherwise it takes two: the
   cache holds another primitive where the frame looks. So what one frame had wrong goes with the next ones.

*Which of two surfaces wins* depends on provenance, confidence and depth residual. Provenance decides first: what a
camera observed is neither covered nor retired by what was generated, and what a camera observes refutes any guess.
Otherwise the new surface must differ by the residual of `needed_residual`: 10 % of the depth, and as many times more
as the stored surface is surer than the frame. In front of that, it is added (rule 3), and the old one stays, hidden.
Behind, the stored surface stays until a second look (rule 6) takes the frame's side.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cache3d.rendering.rendered_view import RenderedView
from geometry.frame import Frame, Observation
from geometry.surfaces import DEPTH_TOLERANCE, similar_neighbors

SUPPORT, AROUND = 2, 8  # neighbors on a pixel's surface: of a line one pixel wide; inside a surface
SEALED = 0.98  # coverage that a seam between old and new primitives must keep
GAP = 0.01  # relative depth by which what lies behind pulls a pixel away that lost some of its surface
MIXED = 0.1  # relative spread of inverse depth above which a pixel shows a mixture


def needed_residual(stored: Float[Tensor, "*b"], new: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """Relative depth difference from which on a new surface contradicts a stored one, from the trust in each."""
    return DEPTH_TOLERANCE * (stored / new.clamp_min(1e-3)).clamp(1.0, 5.0)


def new_pixels(rendered: RenderedView, observation: Observation) -> Bool[Tensor, "1 h w"]:
    """Pixels of one frame that become primitives, by rules 1 to 3.

    Args:
        rendered: the cache, rendered from the frame's camera.
        observation: the frame.
    """
    frame = observation.frame
    allowed = rendered.generated | observation.observed
    not_hidden = rendered.sky_mask | (frame.depth < rendered.depth * (1.0 + DEPTH_TOLERANCE))
    faces_away = (rendered.away > 0.75) & not_hidden & ~frame.sky & allowed
    nearest_same = rendered.depth * (1.0 - needed_residual(rendered.confidence, observation.confidence))
    similar = similar_neighbors(frame)
    clear = (rendered.spread < MIXED) | (similar == AROUND)
    closer = torch.where(rendered.sky_mask, ~frame.sky, (frame.depth < nearest_same) & clear)
    in_front = allowed & closer & ~frame.sky & (similar >= SUPPORT)
    return frame.valid & (~rendered.covered | faces_away | in_front)


def uncovered(before: RenderedView, after: RenderedView, frame: Frame) -> Bool[Tensor, "1 h w"]:
    """Pixels of one frame that were covered until primitives were retired, and whose surface is not there now.

    Where something lies behind, a gap shows as depth before it shows as missing coverage.
    """
    sealed = after.coverage >= SEALED
    surface = torch.maximum(before.depth, frame.depth)
    deeper = ~frame.sky & (after.sky_mask | (after.depth > surface * (1.0 + GAP)))
    return frame.valid & before.covered & (~sealed | deeper)
