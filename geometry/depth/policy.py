"""The tuned numbers of depth edges: their alignment to the photo, discontinuities, and mixed pixels.

"Log" is `docs/log/`, by the heading of the entry; figures there are means over 39 or 116 pictures with ground truth
(delta1, AbsRel, distance between edges of depth and truth in pixels).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from geometry.checks import check_numbers


@dataclass(frozen=True)
class EdgeAlignPolicy:
    """Alignment of the packaged network's depth and sky to color edges; ``depth.edges.<name>=<value>``.

    Attributes:
        texture_px: extent of what is texture and no edge, pixels. Default 6: with `texture_contrast`, against no
            smoothing, AbsRel .326 -> .303, edges 2.2 -> 2.0 px; 10 is no better (log: Depth hangs on things).
        texture_contrast: contrast of texture, of 255. Default 10; 15 is no better (same entry).
        color_scale: CIELAB units within which two neighbors belong together. Default 4; not measured.
        smoothness: weight of agreeing with a neighbor over that of keeping a trusted value. Default 20; not measured.
        halo: share of the short side by which the network may draw the outline of the sky off. Default .06; not
            measured.
        alien_color: CIELAB units from the sky around, beyond which a pixel of the halo is no sky. Default 15; not
            measured.
        sure: probability that some sky reaches where there is any. Default .98; not measured.
        island: mean dissimilarity to the open sky from which an isolated piece of sky is ground. Default .2; by eye
            (log: Sky islands).
        beside: share of the halo around the redrawn outline where depth is doubted. Default .5; not measured.
        bend: relative second difference of inverse depth above which a value is doubted. Default .02; steps kept only
            under an eighth of it bring terraces back (log: Terraces on lawns).
        least_trust: weight of a sky value that is not trusted; keeps the system solvable. Default 5e-4; not measured.
        leak: tie between neighbors of any color, for the sky. Default 1e-5; not measured.
        ground_least_trust: `least_trust` of depth. Default 5e-3; 1e-6 to 1e-3 give the same figures, and take up to
            ten times the steps (log: Depth edges on several scales).
        ground_leak: `leak` of depth: the ground is connected whatever its colors. Default 1e-3; weaker changes nothing
            visible (log: Depth hangs on things).
    """

    texture_px: int = 6
    texture_contrast: int = 10
    color_scale: float = 4.0
    smoothness: float = 20.0
    halo: float = 0.06
    alien_color: float = 15.0
    sure: float = 0.98
    island: float = 0.2
    beside: float = 0.5
    bend: float = 0.02
    least_trust: float = 5e-4
    leak: float = 1e-5
    ground_least_trust: float = 5e-3
    ground_leak: float = 1e-3

    def __post_init__(self) -> None:
        divisors = ("color_scale", "halo", "alien_color", "beside", "bend")
        check_numbers(self, (*divisors, "texture_px", "least_trust", "leak", "ground_least_trust", "ground_leak"))


class SnapPass(NamedTuple):
    """One pass of `geometry.depth.discontinuities.snap_depth_edges`.

    Attributes:
        radius_px: radius of the window.
        ratio: of the largest to the smallest depth in it, above which an edge is snapped.
        stepped: share of the window that must lie on one of the two surfaces.
    """

    radius_px: int
    ratio: float
    stepped: float


@dataclass(frozen=True)
class DiscontinuityPolicy:
    """Depth edges and mixed pixels of any frame; set from Python, as no estimator owns them.

    Attributes:
        edge_ratio: ratio of neighboring depths from which they lie on two surfaces. Default 1.08; not measured.
        snap_passes: passes of edge snapping. Default 4 px from a ratio of 1.15 on, then 7 px from 1.8 on where .65 of
            the window is on one of two surfaces. None -> first -> both -> both without the share: AbsRel .290 -> .294
            -> .295 -> .313, edges off by 7.1 -> 2.0 -> 2.0 -> 2.0 px (log: Specks in the air). 8 px: no better, five
            times the time (log: Wider snapping).
        vote_px: radius in which snapped pixels vote. Default 1: without votes edges are off by 1.4 px, but leaves and
            the gaps between them come apart; with 2 edges are rounded off, 2.8 instead of 2.0 px (log: Sky islands).
        mixed_reach: share of the short side that foreground colors reach into the background. Default .015; not
            measured.
        mixed_ratio: ratio of two depths above which one is in front. Default 1.3; not measured.
        mixed_search: radius of the search for pure colors, over that reach. Default 3; not measured.
        gap_share: share of the surroundings that must be in front of a gap before it is closed. Default .5; not
            measured.
        unmix_noise: difference of colors, of 1, under which they cannot be unmixed. Default .03; not measured.
    """

    edge_ratio: float = 1.08
    snap_passes: tuple[SnapPass, ...] = (SnapPass(4, 1.15, 0.0), SnapPass(7, 1.8, 0.65))
    vote_px: int = 1
    mixed_reach: float = 0.015
    mixed_ratio: float = 1.3
    mixed_search: int = 3
    gap_share: float = 0.5
    unmix_noise: float = 0.03

    def __post_init__(self) -> None:
        check_numbers(self, ("unmix_noise",))
        for name in ("edge_ratio", "mixed_ratio"):
            if getattr(self, name) <= 1.0:
                raise ValueError(
                    f"{name}: want a ratio above 1, got {getattr(self, name)!r}; leave it out for the default"
                )


DEFAULT_EDGES = EdgeAlignPolicy()
DEFAULT_DISCONTINUITIES = DiscontinuityPolicy()
