"""One frame while its holes are being filled: from behind, by copying, and from what other frames filled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad, unfold

from diffusion.inpainting.depth_extension import (
    fill_inverse_depth,
    settle_inverse_depth,
    thin_plate_fill,
    without_specks,
)
from diffusion.inpainting.disocclusion import FRONT_RATIO, split_sides
from diffusion.inpainting.exemplar import Sources, Target, blend_in, fill, from_features, to_features
from diffusion.inpainting.masks import distance_px, thin, wide_part
from geometry.camera import Camera
from geometry.fill import smooth_fill
from geometry.frame import Frame, Guide
from geometry.warping import forward_warp

SKY_UNITS = 100.0  # depth of the sky, in units of the photo's median
SKY_BEYOND = 30.0  # what is farther than this is sky
SIDEWAYS = 16  # how much faster the colors of the sky spread sideways than up and down
SKY_RIM_PX = 8  # how far from a hole the sky is looked at to go on into it
MIXED_SKY_PX = 2  # sky this close to something may hold its colors
SAME, DENSE = 0.1, 6  # log ratio of depths up to which pixels lie on one surface; how many of 3x3 make it whole
DEPTH_REACH_PX = 16.0  # how far from what is known the extended surfaces are believed, at the edge of the world
GENERATED_DOUBT = 0.004  # cost of copying what was itself generated


@dataclass
class FrameFill:
    """One frame while it is being completed; ``rgb`` and ``depth`` are complete from the start and get better.

    Depth is in units of the photo's median.
    """

    rgb: Float[Tensor, "3 h w"]
    depth: Float[Tensor, "1 h w"]
    known: Bool[Tensor, "1 h w"]
    foreground: Bool[Tensor, "1 h w"]  # known, but hides what the hole would show
    disoccluded: Bool[Tensor, "1 h w"]  # hole that shows what was hidden, not what lay outside
    wide: Bool[Tensor, "1 h w"]  # still to be copied
    locked: Bool[Tensor, "1 h w"]  # taken over from where the hole is wide; in the end, of that what is narrow here
    smooth: Float[Tensor, "3 h w"]
    smooth_depth: Float[Tensor, "1 h w"]
    camera: Camera
    unit: float

    @staticmethod
    def of(guide: Guide, reference: Frame, index: int, known: Tensor, unit: float, thin_px: int) -> FrameFill:
        rgb, camera = guide.rgb[index], guide.camera[index : index + 1]
        seen = torch.where(guide.sky[index] > 0.5, SKY_UNITS, guide.depth[index] / unit)
        inverse = torch.where(known, 1.0 / seen.clamp_min(1e-6), 0.0)
        # Everything in a picture is at least as near as the sky, so depths in units of the median suit the camera too.
        far, foreground = split_sides(inverse / unit, known, camera, reference.camera[-1:])
        behind = known & ~foreground if bool((known & ~foreground).any()) else known
        # What goes on into a hole from behind lies no nearer there than where it was last seen.
        disoccluded, extended = far > 0.0, fill_inverse_depth(inverse, behind)
        filled = 1.0 / torch.where(disoccluded, torch.minimum(extended, far * unit * FRONT_RATIO), extended)
        depth = torch.where(known, seen, torch.where(filled > SKY_BEYOND, SKY_UNITS, filled))
        smooth = torch.where(known, rgb, smooth_fill(rgb[None], behind[None])[0])
        wide = wide_part(~known, thin_px)
        # Where nothing new is seen the guide's own depth stays, to the bit.
        return FrameFill(
            smooth, depth, known, foreground, disoccluded, wide, torch.zeros_like(wide), smooth, depth, camera, unit
        )

    def copy(self, confidence: Float[Tensor, "1 h w"], reference: Frame, seed: int) -> None:
        """Fill what is wide by copying, from this frame and from the references."""
        target, sources = self._target(), self._sources(confidence, reference)
        rgb, code = (torch.from_numpy(part) for part in from_features(fill(target, sources, seed)))
        behind = self.known & ~self.foreground
        copied = torch.where(self.wide, rgb.to(self.rgb), self.rgb)
        self.rgb = blend_in(copied, behind, self.wide)
        inverse = settle_inverse_depth(_decode(code.to(self.depth)), 1.0 / self.depth, self.wide)
        depth = 1.0 / without_specks(inverse, self.wide)
        self.depth = torch.where(self.wide, torch.where(depth > SKY_BEYOND, SKY_UNITS, depth), self.depth)
        self.wide = torch.zeros_like(self.wide)

    def receive(self, other: FrameFill, thin_px: int, *, lock_thin: bool) -> None:
        """Take over what another frame filled, where this one is still open."""
        source = Frame(
            other.rgb[None],
            other.depth[None] * self.unit,
            ~other.known[None] & ~other.wide[None],
            torch.zeros_like(other.known)[None],
            other.camera,
        )
        rgb, depth, hit = (part[0] for part in forward_warp(source, self.camera, other.rgb[None]))
        hit = hit & (self.wide | (~self.known & ~self.foreground)) & _dense(depth, hit)
        self.rgb = torch.where(hit, rgb, self.rgb)
        self.depth = torch.where(hit, depth / self.unit, self.depth)
        self.locked = self.locked | (hit & ~self.known & lock_thin)
        left = self.wide & ~hit
        self.wide = wide_part(left, thin_px // 2)
        cracks, around = left & ~self.wide, (self.known & ~self.foreground) | hit
        if cracks.any() and around.any():
            self.rgb = torch.where(cracks, smooth_fill(self.rgb[None], around[None])[0], self.rgb)
            smooth = smooth_fill(1.0 / self.depth[None], around[None])[0]
            self.depth = torch.where(cracks, 1.0 / smooth, self.depth)

    def close_rest(self) -> None:
        """Give what no key frame reached the colors that they brought around it; its surfaces go on as they do."""
        around = ~self.wide & ~self.foreground
        if self.wide.any() and around.any():
            self.rgb = torch.where(self.wide, smooth_fill(self.rgb[None], around[None])[0], self.rgb)
        self.wide = torch.zeros_like(self.wide)

    def smooth_narrow(self, width_px: int) -> None:
        """Take the narrow parts of holes halfway to what goes on smoothly around, but for what is in front.

        There the truth is nearly determined by what is around: a smooth guess and a copied one err apart, and their
        mean is nearer to it than either.
        """
        narrow = thin(~self.known[None], width_px)[0]
        self.locked = self.locked & narrow  # the generator heals what is wide here too
        narrow = narrow & ~self.locked
        if narrow.any():
            around = smooth_fill(self.rgb[None], (~narrow & ~self.foreground)[None])[0]
            self.rgb = torch.where(narrow, 0.5 * (self.rgb + around), self.rgb)

    def clear_sky(self) -> None:
        """Let the sky go on as it is around the hole: patches of it show their borders where there is nothing else."""
        sky = self.depth > SKY_BEYOND  # smoothing leaves little less than the depth of the sky
        seen, hole = sky & self.known, sky & ~self.known
        clear = seen & ~_grown(~sky & self.known, MIXED_SKY_PX)
        # Farther colors would draw a wide hole towards their mean, and the next one back: bands in an even sky.
        beside = clear & _grown(hole, SKY_RIM_PX)
        clear = beside if beside.any() else clear
        if hole.any() and clear.any():
            # Skies change with the height above the horizon: colors spread sideways first.
            narrow = _level(self.rgb, clear)[None]
            level = interpolate(narrow, clear.shape[-2:], mode="bilinear", align_corners=False)[0]
            filled = level + smooth_fill((self.rgb - level)[None], clear[None])[0]
            self.rgb = torch.where(hole, filled.clamp(0.0, 1.0), self.rgb)

    def _target(self) -> Target:
        behind = self.known & ~self.foreground
        distance = distance_px(behind[0].numpy())
        depth_weight = np.where(self.disoccluded[0].numpy(), 1.0, np.exp(-distance / DEPTH_REACH_PX)).astype(np.float32)
        features = to_features(self.rgb.numpy(), _code(1.0 / self.depth).numpy())
        hole = self.wide[0].numpy()
        return Target(features, behind[0].numpy(), hole, features[..., 3].copy(), depth_weight)

    def _sources(self, confidence: Float[Tensor, "1 h w"], reference: Frame) -> Sources:
        photo = reference[:1]
        code = torch.cat([_code(1.0 / self.depth)[None], _code(self.unit / photo.depth.clamp_min(1e-6))])
        code[1:] = torch.where(photo.sky, -1.0, code[1:])
        usable = torch.cat([self.known[None], photo.valid])
        source_cost = torch.zeros(usable.shape)
        source_cost[0] = GENERATED_DOUBT * (1.0 - confidence)
        features = to_features(torch.cat([self.rgb[None], photo.rgb]).numpy(), code.numpy())
        return Sources(features, usable[:, 0].numpy(), source_cost[:, 0].numpy())


def _code(inverse: Tensor) -> Tensor:
    """Inverse depth in units of the median as a value in -1 (sky) .. 1 (touching the camera)."""
    return (inverse - 1.0) / (inverse + 1.0)


def _decode(code: Tensor) -> Tensor:
    bounded = code.clamp(-1.0 + 2.0 / (SKY_UNITS + 1.0), 0.98)
    return (1.0 + bounded) / (1.0 - bounded)


def _level(rgb: Float[Tensor, "3 h w"], known: Bool[Tensor, "1 h w"]) -> Float[Tensor, "3 h narrow"]:
    """Colors of the known pixels gone on everywhere, in a picture narrower by ``SIDEWAYS``."""
    share = avg_pool2d(known.to(rgb), (1, SIDEWAYS), ceil_mode=True, count_include_pad=False)
    mean = avg_pool2d(rgb * known, (1, SIDEWAYS), ceil_mode=True, count_include_pad=False) / share.clamp_min(1e-6)
    return thin_plate_fill(mean, share[0], bending=0.0, membrane=1.0).to(rgb)


def _grown(mask: Bool[Tensor, "1 h w"], by_px: int) -> Bool[Tensor, "1 h w"]:
    return torch.from_numpy(ndimage.binary_dilation(mask[0].numpy(), iterations=by_px))[None]


def _dense(depth: Float[Tensor, "1 h w"], hit: Bool[Tensor, "1 h w"]) -> Bool[Tensor, "1 h w"]:
    """Where most neighbors lie on the same surface: what is stretched falls apart into dots before what is behind."""
    code = torch.where(hit, depth.clamp_min(1e-6).log(), torch.inf)
    around = unfold(pad(code[None], (1, 1, 1, 1), value=torch.inf), 3)[0].reshape(9, *depth.shape[1:])
    return ((around - code).abs() < SAME).sum(0, keepdim=True) >= DENSE
