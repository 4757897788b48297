"""The tuned numbers of rendering: footprints of Gaussians, discs of points, and the factors of confidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from geometry.checks import check_numbers


# Numba does not notice a change of these fields: after one, change `point_kernels.py` too.
class DiscPolicy(NamedTuple):
    """Which disc of the point cache a pixel shows; ``cache.rendering.discs.<name>=<value>``.

    A `NamedTuple`, because a Numba kernel reads it. "Log" is `docs/log/`, by the heading of the entry.

    Attributes:
        max_reach_px: half of the largest footprint, pixels, however close; bounds time. Default 24; not measured.
        rim: by how much a disc's rim counts as farther than its center, relative to the depth. Default .05; not
            measured.
        sparse_px: pixels per sample from which rims are needed everywhere. Default 1.2; not measured alone. With
            `core` and `same`, nearest disc first instead: 26 dB at the photo's camera (log: Points: who owns a pixel).
        core: largest squared distance from the disc's center, over its squared radius, at which the disc owns the
            center of its pixel. Default .6; not measured alone.
        unfit: by how much a sample counts as farther, relative to the depth, per doubling between its size and the
            pixel's. Default .03: first view .01 loses .6 to .9 dB, .02 loses .4 (log: Points and the closer look).
        max_unfit: most doublings that count, and what a disc seen from behind counts as. Default 3: backs that fit
            worst, room's first view 40.1 -> 42.3 dB (same entry).
        slack: doublings by which a disc must fit better to cover a sample of its surface that lies in the pixel
            itself. Default .5; not measured.
        same: relative depth difference up to which two pixels show one surface. Default .05; not measured alone.
    """

    max_reach_px: float = 24.0
    rim: float = 0.05
    sparse_px: float = 1.2
    core: float = 0.6
    unfit: float = 0.03
    max_unfit: float = 3.0
    slack: float = 0.5
    same: float = 0.05


@dataclass(frozen=True)
class RenderingPolicy:
    """Numbers that define how stored primitives look; ``cache.rendering.<name>=<value>`` on the command line.

    A world keeps those that it was started with. "Log" is `docs/log/`, by the heading of the entry.

    Attributes:
        kernel_px: standard deviation of a footprint, pixels of the frame that made it; stored scales are multiples of
            it. Default .5: smaller shows the pixel grid on zooming in, larger blurs; no figure is recorded.
        close_kernel_px: the same once seen from closer, or gaps between footprints would open. Default .7; not
            measured.
        close_from_px, close_to_px: pixels per sample between which it grows to that. Default 1 and 2: against 1 to 1.5
            frame 200 of the street 26.63 -> 26.91 dB; from 1.5, coverage falls to .92 (log: A gap shows as depth).
        samples: per pixel and axis. Default 2: 26 -> 32 dB at the photo's camera; optimizing at 1 is worse than not
            optimizing (log: Refining colours).
        footprint_floor: variance added to each footprint, samples². Default .1, near that of a sample's own square
            (1/12); not measured alone.
        max_slope: extent of a surface element along the view, pixel widths, above which a depth difference is an edge
            and no slope. Lifting allows more where the slope is even (`IntegrationPolicy.max_even_slope`), rendered
            planes and points never do. Default 4; points at 24: 2 dB less (log: A day of smeared points).
        gapless_alpha: least alpha between the samples of a surface without gaps; from here on coverage is full and,
            before the sky, a sample is surface alone. Default .9: first view with .8 35.04, .9 34.97, .99 31.42 dB
            (log: What was wrong with one look).
        outside_alpha: alpha up to which a sample before the sky is sky. Default .6: first view 32.47 dB without, 34.97
            at .5, 35.24 at .6, 33.82 at .7 (same entry).
        density_power: power of the sampling density in the confidence. Default 1/8; least squares .127 (log:
            Confidence, calibrated).
        full_angle: cosine over the first cosine from which the angle costs no confidence. Default .45; least squares
            .445 (same entry).
        spread_tolerance: relative standard deviation of inverse depth in a pixel that halves the confidence. Default
            1/8; least squares .126 (same entry).
        mixed_sky: what a mixture of surface and sky loses. Default 3; 2 kept half of the confidence of even mixtures,
            which are right one time in three (log: What the falls of the reliability curve were).
        isolation_loss: share of its confidence that a point loses without neighbors at its depth. Default .75: no fall
            of the reliability curve beyond its interval (log: Points and outlines).
        neighbor_tolerance: relative difference of inverse depth up to which neighbors agree. Default .1; not measured.
        off_center_px: distance from the pixel center, pixels, at which the whole loss applies. Default .25; not
            measured.
        first_cosine: assumed between normal and first view of a point, which does not store it. Default .5; not
            measured.
        discs: which disc of the point cache a pixel shows.
    """

    kernel_px: float = 0.5
    close_kernel_px: float = 0.7
    close_from_px: float = 1.0
    close_to_px: float = 2.0
    samples: int = 2
    footprint_floor: float = 0.1
    max_slope: float = 4.0
    gapless_alpha: float = 0.9
    outside_alpha: float = 0.6
    density_power: float = 0.125
    full_angle: float = 0.45
    spread_tolerance: float = 0.125
    mixed_sky: float = 3.0
    isolation_loss: float = 0.75
    neighbor_tolerance: float = 0.1
    off_center_px: float = 0.25
    first_cosine: float = 0.5
    discs: DiscPolicy = DiscPolicy()  # noqa: RUF009 (immutable)

    def __post_init__(self) -> None:
        divisors = ("kernel_px", "samples", "max_slope", "full_angle", "spread_tolerance", "off_center_px")
        check_numbers(self, (*divisors, "outside_alpha", "first_cosine"))
        for low, high in (("close_from_px", "close_to_px"), ("outside_alpha", "gapless_alpha")):
            if getattr(self, low) >= getattr(self, high):
                raise ValueError(
                    f"{low}: want less than {high}, got {getattr(self, low)} and {getattr(self, high)}; change one"
                )


DEFAULT_RENDERING = RenderingPolicy()
