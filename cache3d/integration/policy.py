"""The tuned numbers of integration: when pixels become primitives, when primitives retire, how they are optimized."""

from __future__ import annotations

import math
from dataclasses import dataclass

from geometry.checks import check_numbers
from geometry.surfaces import DEPTH_TOLERANCE


@dataclass(frozen=True)
class IntegrationPolicy:
    """Thresholds and rates of the integration rules; ``cache.policy.<name>=<value>`` on the command line.

    "Log" is `docs/log/`, by the heading of the entry; `docs/cache.md` lists every rule with its figures. Defaults
    without a figure were set by hand.

    Attributes:
        depth_tolerance: relative depth difference below which two depths are one surface for every rule below.
        visible_tolerance: relative depth difference below which a primitive is the rendered surface.
        min_neighbors: of eight neighbors that must share a pixel's depth before it enters in front of a stored surface;
            2 are those of a line. Isolated outliers stay out: 21.1 -> 25.7 dB (log: Outliers of depth pile up).
        mixed_spread: relative standard deviation of inverse depth from which a rendered pixel is a mixture of surfaces;
            in front of one all eight neighbors must agree.
        max_residual_ratio: cap on stored confidence over new confidence, by which `depth_tolerance` is multiplied.
        back_share: share of a rendered pixel seen from behind, from which a new surface replaces it.
        sealed_coverage: coverage below which a pixel that lost primitives is filled again.
        gap_depth: relative depth by which such a pixel may recede before it is filled again. Against .1: +.1 to +.6 dB
            beside the path, 2 % more primitives (log: A gap shows as depth).
        superseded_px: pixels per stored sample from which a frame replaces it; for points, from which it adds finer
            ones. Points at 2: up to 1.1 dB less (log: Points and the closer look).
        max_reach_px: half of the largest footprint, pixels, whose surroundings are checked before it is replaced.
        certain_ratio: frame confidence over stored confidence, from which one look contradicts a primitive.
        resolved_px: pixels per stored sample below which a frame may have missed it and contradicts nothing.
        opacity: of a new Gaussian.
        thickness: extent of a new Gaussian along its normal over its smaller extent on the surface.
        sharpening: share of a pixel's difference from its neighbors that a new color adds, against the blur of the
            footprints. 0 / .5 / .75 / 1: 32.67 / 35.09 / 35.65 / 35.57 dB after one frame (log: Colours undo
            beforehand).
        log_depth_tolerance: difference of the logarithms of two neighbors' depths up to which they are sharpened
            together. Neighbors at any depth: halos.
        max_even_slope: extent of a surface element along the view, pixel widths, where the slope is even. At 4 instead,
            ground under 14 degrees broke into rows (log: Ground towards the horizon).
        even_ratio: gentler over steeper one-sided slope, from which a slope is even.
        blend_rate: share of the difference that a generated primitive moves towards a better frame.
        max_generated_confidence: that a generated primitive can reach.
        min_confidence_gain: below which a generated primitive is not moved.
        relaxation: share of a color residual that one update corrects. 1 loses .5 dB; .3 loses .1 dB (log: Refining
            colours; results: Choices).
        min_weight_px: pixels added to the weight of each Gaussian, so that those that hardly show hardly change.
        solid_alpha: alpha from which a pixel is compared with the frame. .9 loses .9 dB (log: Refining colours).
        max_passes: over the target views of one chunk; a second pass brings under .1 dB (results: Choices).
        decay_updates: step sizes fall as ``1 / sqrt(1 + n_updates / decay_updates)``. Without decay 25.0 instead of
            25.9 dB at the end of 400 frames (log: Looks that disagree average out).
        outline_px: reach of an outline, pixels, within which colors behind it stay among those of the frame there.
            Everywhere instead: -.7 dB of the first view (log: Wisps over the lake).
        settled_updates: updates after which geometry rests. Without rest and veto holes open: .4 -> 1.4 % of the pixels
            zoomed in (log: Geometry in online refinement).
        max_shift: longest step along the normal, footprints. .3 loses .4 dB (same entry).
        max_growth: longest step of the logarithm of the size.
        half_step_error: squared color error per footprint, or per e-fold of size, that takes half of the longest step.
    """

    depth_tolerance: float = DEPTH_TOLERANCE
    visible_tolerance: float = 0.05
    min_neighbors: int = 2
    mixed_spread: float = 0.1
    max_residual_ratio: float = 5.0
    back_share: float = 0.75
    sealed_coverage: float = 0.98
    gap_depth: float = 0.01
    superseded_px: float = 1.5
    max_reach_px: int = 4
    certain_ratio: float = 2.0
    resolved_px: float = 0.7
    opacity: float = 0.99
    thickness: float = 0.1
    sharpening: float = 0.75
    log_depth_tolerance: float = 0.1
    max_even_slope: float = 24.0
    even_ratio: float = 0.7
    blend_rate: float = 0.25
    max_generated_confidence: float = 0.9
    min_confidence_gain: float = 0.01
    relaxation: float = 0.5
    min_weight_px: float = 0.05
    solid_alpha: float = 0.5
    max_passes: int = 4
    decay_updates: float = 4.0
    outline_px: int = 2
    settled_updates: float = 16.0
    max_shift: float = 0.07
    max_growth: float = 0.05
    half_step_error: float = 0.003

    def __post_init__(self) -> None:
        check_numbers(self, ("max_reach_px", "thickness", "decay_updates", "max_growth", "half_step_error"))

    @property
    def max_total_growth(self) -> float:
        """Factor by which all updates together can make a Gaussian larger or smaller."""
        # The steps 1 / sqrt(1 + n / decay) of one update each until geometry rests, and the one that passes it.
        steps = 2.0 * self.decay_updates * (math.sqrt(1.0 + self.settled_updates / self.decay_updates) - 1.0) + 1.0
        return math.exp(self.max_growth * steps)

    @property
    def max_total_shift(self) -> float:
        """Footprints by which all updates together can move a Gaussian, if it grows all the time."""
        return self.max_shift / self.max_growth * (self.max_total_growth - 1.0)


DEFAULT_POLICY = IntegrationPolicy()
