"""Every tuned number of the inpainting prior, with unit, default and the measurement that chose it.

Figures are from ``docs/log/``, which gives command and clips: PSNR in dB, delta1 (share of hole pixels whose depth is
within a factor of 1.25) and kernel distance (lower is better) of held-out or training clips, prior alone unless said
otherwise. *By eye* means that walks through photographs were compared and no figure was taken; *not measured* means
that no comparison is recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from diffusion.inpainting.masks import THIN_PX

FILLS = ("copy", "smooth", "none")


class PatchCosts(NamedTuple):
    """Terms of the cost of copying one patch, besides the squared difference of its features.

    A `NamedTuple`, because Numba kernels read it.

    Attributes:
        depth: cost of a patch at the wrong depth, per unit of depth feature, at most once. Default .5; not measured.
        nearer: depth feature by which a source may be nearer than the target depth at no cost. Default .08; not
            measured.
        farther: the same for farther sources. Default .15; not measured.
        foreground: how much more a nearer source costs than a farther one. Default 4; not measured.
        row: cost of a source from another row, per squared share of the picture's height. Default 1.5; not measured.
        row_limit: most that ``row`` adds. Default .06; not measured.
        repetition: cost of using a place with much detail far more often than ``mean_uses``. Default .01: kernel
            distance .084 at .02, .080 at .01 (116 clips); unsaturated .1 copies foreground onto walls.
        incoherence: cost of a patch none of whose neighbors copies the same piece. Default .01: kernel distance .120 at
            0, .113 at .01, .111 at .03 (60 clips); at .03 and more objects are copied whole.
        veto: falloff of a patch's vote per unit of depth feature nearer than the target depth. Default 50: with the
            limit on depth in disocclusions delta1 .655 -> .663 (24 clips).
    """

    depth: float = 0.5
    nearer: float = 0.08
    farther: float = 0.15
    foreground: float = 4.0
    row: float = 1.5
    row_limit: float = 0.06
    repetition: float = 0.01
    incoherence: float = 0.01
    veto: float = 50.0


@dataclass(frozen=True)
class ExemplarConfig:
    """Filling of wide holes with patches: search, plausibility of sources, blending.

    Attributes:
        coarsest_rows: the pyramid stops before a picture has fewer rows. Default 20: with 12 and 40 delta1 .692 and
            .723, kernel distance .125 and .162 (60 clips; default .72 and .12 to .13).
        passes: search and repaint, from the coarsest level on; the last number repeats. Default 10, 6, 5, 4: kernel
            distance .123, with 10, 5, 3, 2 .130 (60 clips).
        depth_scale: weight of the depth code among the color features. Default .3: with .15 and .5 delta1 .689 and .719
            (60 clips; default .72).
        confidence_decay: factor by which a filled pixel counts less per pixel away from the known. Default 1.25; not
            measured.
        generated_cost: cost of copying what was itself generated, at confidence 0. Default .004; not measured.
        dissimilar_cost: cost of a source wholly unlike the border of the hole. Default .1: delta1 .713 at .05, .721 at
            .1, .718 at .2 (60 clips).
        dissimilar_from: feature difference to the border at which that cost begins; it is full at three times it.
            Default .05 instead of .08: by eye.
        border_px: width of the border of a hole that sources are compared with, pixels. Default 10; not measured.
        segment_px: length of a segment of border; each pixel is compared with the nearest one. Default 64 instead of
            the whole border: by eye (a second pagoda, a dog's head).
        segment_samples: pixels of a segment that are compared. Default 256; bounds time.
        appearance_px: Gaussian radius of the color and contrast that are compared, pixels. Default 2.5; not measured.
        detailed: contrast (standard deviation of lightness) from which repetition costs fully. Default .1; not
            measured.
        plain: least share of the repetition cost, of patches without contrast. Default .25; not measured.
        blend_px: smoothing, along the border, of the color step that blending removes, pixels. Default 4; not measured.
        blend_reach_px: distance at which that correction has fallen to 1/e, pixels. Default 20; not measured.
        blend_limit: largest color step that counts as a seam, 0..1. Default .15; not measured.
        costs: cost of one patch.
    """

    coarsest_rows: int = 20
    passes: Sequence[int] = (10, 6, 5, 4)
    depth_scale: float = 0.3
    confidence_decay: float = 1.25
    generated_cost: float = 0.004
    dissimilar_cost: float = 0.1
    dissimilar_from: float = 0.05
    border_px: float = 10.0
    segment_px: int = 64
    segment_samples: int = 256
    appearance_px: float = 2.5
    detailed: float = 0.1
    plain: float = 0.25
    blend_px: float = 4.0
    blend_reach_px: float = 20.0
    blend_limit: float = 0.15
    costs: PatchCosts = PatchCosts()  # noqa: RUF009 (immutable)


class DisocclusionConfig(NamedTuple):
    """Which side of a hole is foreground. A `NamedTuple`, because Numba kernels read it.

    Attributes:
        front_ratio: ratio of inverse depths from which the nearer side of a hole is foreground. Default 1.15; not
            measured.
        reach_px: pixels of foreground beside a hole that are neither copied nor extended. Default 64 instead of 12,
            which left part of wide objects as source.
        side_px: pixels of a side whose largest inverse depth counts. Default 3; not measured.
        slope_px: pixels over which the slope of a side is taken. Default 6; by eye (a lake behind bushes).
    """

    front_ratio: float = 1.15
    reach_px: int = 64
    side_px: int = 3
    slope_px: int = 6


@dataclass(frozen=True)
class DepthConfig:
    """Depth of holes: extension of the surfaces around them.

    Attributes:
        cell_px: pixels per cell of the grid on which the thin plate is solved. Default 8; bounds time.
        membrane: share of first differences in the plate's energy. Default .02: with .06 and .2 delta1 .711 and
            .702 (60 clips; default .72).
        data_weight: weight of known values against the energy. Default 10; not measured.
        reach_px: distance from the known at which the extended depth's pull on the copy falls to 1/e, at the edge of
            the world. Default 16: with 40 delta1 .720 (60 clips; default .72).
        agreement: difference of log depth up to which copied depth follows the extended surface. Default .35; not
            measured.
        follow_px: Gaussian radius of that correction, pixels. Default 12; not measured.
        speck: share of the picture under which a piece of other depth is a speck. Default .002; not measured.
        same_surface: difference of log inverse depth between neighbors of one piece. Default .08; not measured.
    """

    cell_px: int = 8
    membrane: float = 0.02
    data_weight: float = 10.0
    reach_px: float = 16.0
    agreement: float = 0.35
    follow_px: float = 12.0
    speck: float = 0.002
    same_surface: float = 0.08


@dataclass(frozen=True)
class SkyConfig:
    """Extension of the sky, as a plate under tension through what is near the hole.

    Attributes:
        border_px: distance to the hole within which sky is extended, pixels. Default 24; from all of the sky a wide
            hole gets its mean color, with 4 px steps show.
        mixed_px: sky this close to something else is not extended: it may hold its colors. Default 2; not measured.
        cell_px: side of a cell in which the sky's level is solved, pixels. Default 4; bounds time.
        bending: stiffness of the plate against its tension, in cells: the sky's slope at the border goes on for about
            the root of it. Default 10; with 0 the bend shows as a line (docs/log, Seams at the photo's frame).
    """

    border_px: int = 24
    mixed_px: int = 2
    cell_px: int = 4
    bending: float = 10.0


@dataclass(frozen=True)
class OutpaintConfig:
    """Outpainting of a wider view, around the photo and where a chunk leaves the known.

    Attributes:
        side: margin left and right, share of the width. Default .35; not measured.
        end: margin above and below, share of the height. Default .25; not measured.
        open_share: share of one side of the picture that must be uncovered. Default .3: with outpainting on the way
            contrast at chunk 10 .534 -> .559, PSNR 17.57 -> 17.74 (generator, four rollouts).
        margin_share: share of a view that must lie beyond the photo before the margin around the photo is made, once.
            Default .01; not measured.
        ease_px: distance to the known over which the generator's colors take the place of the prior's, pixels at the
            generator's size. Default 8: the packaged generator draws a dark line of 3 pixels along the photo's frame.
        border_px: outermost pixels of a margin that are not kept. Default 4; by eye (dark lines where a later margin
            starts).
    """

    side: float = 0.35
    end: float = 0.25
    open_share: float = 0.3
    margin_share: float = 0.01
    ease_px: int = 8
    border_px: int = 4


@dataclass(frozen=True)
class LookAheadConfig:
    """The view further along the path that is filled first.

    Attributes:
        chunks: chunks ahead, at most. Default 3; by eye: with 1 an orbit of 2 degrees a chunk leaves a green smear
            beside a tree.
        kept: share of the chunk's last points that the view must contain. Default .95; by eye: .99 leaves mist beside
            trunks.
        shortest_focal: shortest focal length, share of the chunk's. Default .5; wider, copies are too coarse.
    """

    chunks: int = 3
    kept: float = 0.95
    shortest_focal: float = 0.5


@dataclass(frozen=True)
class CompletionConfig:
    """Which views of the world are completed, and what of them enters it (log: Frames are rendered from the world).

    Attributes:
        closed_px: holes thinner than this and a pixel, at the generator's size, are closed smoothly in each frame.
            Default 2: 24 frames of two worlds 2.2 -> 1.7 CPU seconds per frame, .1 dB less.
        solid: coverage from which a rendered color is shown as it is; others come from around. Default .9; by eye.
        in_front: relative depth from which a point stands before what the photo shows. Default .1: what the photo
            decides 22.38 -> 26.17 dB; other values are not measured.
        outline_px: pixels of the photo around outlines whose nearer side counts for that. Default 2; not measured.
    """

    closed_px: int = 2
    solid: float = 0.9
    in_front: float = 0.1
    outline_px: int = 2


@dataclass(frozen=True)
class InpaintConfig:
    """The inpainting prior: which holes are copied, and the parts of the pipeline.

    Attributes:
        fill: what fills a hole: ``copy``: patches of the photo and of the frame; ``smooth``: its surroundings extended
            smoothly; ``none``: gray at the photo's median depth, for a generator that starts from noise. Default
            ``copy``: with a smooth fill a generator that starts from the prior has nothing to keep.
        thin_px: holes up to this wide are filled smoothly, wider ones by copying, pixels. Default 8: in such holes
            copies have 15.23 dB, a smooth fill from the background 16.10, the mean of both 15.99 (24 clips); other
            widths are not measured.
        mixed_px: ring around holes that is filled again: its pixels mix two surfaces. Default 1; 2 removes leaves.
        key_frames: frames of a chunk filled by copying; the rest receive by warping. Default 2; bounds time.
        min_share: share of a frame that must be wide hole before copying starts, and a view is completed. Default
            .002, before .008: by eye.
        same_surface: difference of log depth up to which neighbors of a warped pixel are on its surface. Default .1;
            not measured.
        dense: how many of 3x3 must be, or the warped pixel is dropped. Default 6; by eye: fewer leave dots.
        exemplar: filling of wide holes with patches.
        disocclusion: which side of a hole is foreground.
        depth: depth of holes.
        sky: extension of the sky.
        outpaint: wider views.
        look_ahead: the view that is filled first.
        completion: which views are completed, where frames are rendered from the world.
    """

    fill: str = "copy"
    thin_px: int = THIN_PX
    mixed_px: int = 1
    key_frames: int = 2
    min_share: float = 0.002
    same_surface: float = 0.1
    dense: int = 6
    exemplar: ExemplarConfig = ExemplarConfig()
    disocclusion: DisocclusionConfig = DisocclusionConfig()  # noqa: RUF009 (immutable)
    depth: DepthConfig = DepthConfig()
    sky: SkyConfig = SkyConfig()
    outpaint: OutpaintConfig = OutpaintConfig()
    look_ahead: LookAheadConfig = LookAheadConfig()
    completion: CompletionConfig = CompletionConfig()

    def __post_init__(self) -> None:
        """Refuse an unknown way to fill."""
        if self.fill not in FILLS:
            raise ValueError(f"prior.fill: want one of {', '.join(FILLS)}, got '{self.fill}'")
