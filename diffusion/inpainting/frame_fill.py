"""One frame while its holes are filled: extended from the background, copied, and received from other frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad, unfold

from diffusion.inpainting.config import InpaintConfig
from diffusion.inpainting.depth_extension import fill_inverse_depth, fit_copied_depth, thin_plate_fill, without_specks
from diffusion.inpainting.disocclusion import split_sides
from diffusion.inpainting.exemplar import Sources, Target, blend_in, fill, from_features, to_features
from diffusion.inpainting.masks import distance_px, grown, thin, wide_part
from diffusion.rgbd_state import SKY_BEYOND, SKY_UNITS
from geometry.camera import Camera
from geometry.fill import smooth_fill
from geometry.frame import Frame, Guide
from geometry.warping import forward_warp


@dataclass
class FrameFill:
    """One frame while it is completed; every step changes ``rgb`` and ``depth`` in the hole only.

    Attributes:
        rgb: colors in 0..1, complete from the start.
        depth: z in units of the photo's median depth, complete and positive from the start.
        known: pixels that the cache rendered.
        foreground: known pixels that hide what the hole would show; never copied or extended.
        disoccluded: hole pixels between a near and a far side, which show background.
        wide: hole pixels that are still to be copied.
        locked: thin hole pixels that keep what was copied for another frame, where the hole is wide.
        source: from where each pixel was copied: picture, row, column, ``-1`` where it was not. Pictures are the frames
            of the guide, in order, then the photo.
        smooth: the smooth fill that ``rgb`` starts from.
        smooth_depth: the extended depth that ``depth`` starts from.
        camera: the camera ``[1]``.
        unit: median depth of the photo in scene units.
        config: see `InpaintConfig`.
    """

    rgb: Float[Tensor, "3 h w"]
    depth: Float[Tensor, "1 h w"]
    known: Bool[Tensor, "1 h w"]
    foreground: Bool[Tensor, "1 h w"]
    disoccluded: Bool[Tensor, "1 h w"]
    wide: Bool[Tensor, "1 h w"]
    locked: Bool[Tensor, "1 h w"]
    source: Int[Tensor, "3 h w"]
    smooth: Float[Tensor, "3 h w"]
    smooth_depth: Float[Tensor, "1 h w"]
    camera: Camera
    unit: float
    config: InpaintConfig

    @staticmethod
    def of(
        guide: Guide, reference: Frame, index: int, known: Bool[Tensor, "1 h w"], unit: float, config: InpaintConfig
    ) -> FrameFill:
        """Frame ``index`` of a guide with its holes filled smoothly from the background.

        Args:
            guide: rendered frames ``[t]``.
            reference: the photo and past frames; the last camera is where the world was seen from before.
            index: of the frame.
            known: its reliable pixels.
            unit: median depth of the photo in scene units.
            config: see `InpaintConfig`.
        """
        rgb, camera = guide.rgb[index], guide.camera[index : index + 1]
        seen = torch.where(guide.sky[index] > 0.5, SKY_UNITS, guide.depth[index] / unit)
        inverse = torch.where(known, 1.0 / seen.clamp_min(1e-6), 0.0)
        # Nothing in a picture is farther than the sky, so depths in units of the median suit the camera too.
        far, foreground = split_sides(inverse / unit, known, camera, reference.camera[-1:], config.disocclusion)
        background = known & ~foreground if bool((known & ~foreground).any()) else known
        # Background is no nearer in the hole than it is beside it.
        disoccluded, extended = far > 0.0, fill_inverse_depth(inverse, background, config.depth)
        limit = far * unit * config.disocclusion.front_ratio
        filled = 1.0 / torch.where(disoccluded, torch.minimum(extended, limit), extended)
        # Known pixels keep the guide's depth, to the bit.
        depth = torch.where(known, seen, torch.where(filled > SKY_BEYOND, SKY_UNITS, filled))
        smooth = torch.where(known, rgb, smooth_fill(rgb[None], background[None])[0])
        wide = wide_part(~known, config.thin_px)
        return FrameFill(
            rgb=smooth,
            depth=depth,
            known=known,
            foreground=foreground,
            disoccluded=disoccluded,
            wide=wide,
            locked=torch.zeros_like(wide),
            source=torch.full((3, *wide.shape[1:]), -1, dtype=torch.int64),
            smooth=smooth,
            smooth_depth=depth,
            camera=camera,
            unit=unit,
            config=config,
        )

    def copy(self, confidence: Float[Tensor, "1 h w"], reference: Frame, seed: int, pictures: tuple[int, int]) -> None:
        """Fill ``wide`` with patches of this frame and of the photo, blend the seam and fit the copied depth.

        Args:
            confidence: of this frame's known pixels.
            reference: the photo, first; further frames are not copied from.
            seed: of the random search.
            pictures: numbers of this frame and of the photo in ``source``.
        """
        config = self.config
        target, sources = self._target(), self._sources(confidence, reference)
        features, nnf = fill(target, sources, seed, config.exemplar)
        place = torch.from_numpy(nnf).permute(2, 0, 1)
        place = torch.cat([torch.where(place[:1] == 0, *pictures), place[1:]])
        self.source = torch.where(self.wide & (torch.from_numpy(nnf[..., 0]) >= 0), place, self.source)
        rgb, code = (torch.from_numpy(part) for part in from_features(features, config.exemplar.depth_scale))
        background = self.known & ~self.foreground
        copied = torch.where(self.wide, rgb.to(self.rgb), self.rgb)
        self.rgb = blend_in(copied, background, self.wide, config.exemplar)
        inverse = fit_copied_depth(_decode(code.to(self.depth)), 1.0 / self.depth, self.wide, config.depth)
        depth = 1.0 / without_specks(inverse, self.wide, config.depth)
        self.depth = torch.where(self.wide, torch.where(depth > SKY_BEYOND, SKY_UNITS, depth), self.depth)
        self.wide = torch.zeros_like(self.wide)

    def receive(self, other: FrameFill, *, lock_thin: bool) -> None:
        """Warp what another frame filled into this frame's hole, so that one place looks the same in both.

        Args:
            other: a frame that was filled by copying.
            lock_thin: whether received pixels become ``locked`` where the hole is thin here.
        """
        source = Frame(
            other.rgb[None],
            other.depth[None] * self.unit,
            ~other.known[None] & ~other.wide[None],
            torch.zeros_like(other.known)[None],
            other.camera,
        )
        values = torch.cat([other.rgb, other.source.to(other.rgb)])[None]
        warped, depth, hit = (part[0] for part in forward_warp(source, self.camera, values))
        rgb, place = warped[:3], warped[3:].long()
        hit = hit & (self.wide | (~self.known & ~self.foreground)) & _dense(depth, hit, self.config)
        self.rgb = torch.where(hit, rgb, self.rgb)
        self.source = torch.where(hit, place, self.source)
        self.depth = torch.where(hit, depth / self.unit, self.depth)
        self.locked = self.locked | (hit & ~self.known & lock_thin)
        left = self.wide & ~hit
        self.wide = wide_part(left, self.config.thin_px // 2)
        # Cracks that the warp leaves are filled from both sides.
        cracks, around = left & ~self.wide, (self.known & ~self.foreground) | hit
        if cracks.any() and around.any():
            self.rgb = torch.where(cracks, smooth_fill(self.rgb[None], around[None])[0], self.rgb)
            smooth = smooth_fill(1.0 / self.depth[None], around[None])[0]
            self.depth = torch.where(cracks, 1.0 / smooth, self.depth)

    def close_rest(self) -> None:
        """Fill what no key frame reached smoothly from what they brought around it; depth stays as extended."""
        around = ~self.wide & ~self.foreground
        if self.wide.any() and around.any():
            self.rgb = torch.where(self.wide, smooth_fill(self.rgb[None], around[None])[0], self.rgb)
        self.wide = torch.zeros_like(self.wide)

    def average_thin(self) -> None:
        """Average copied and smooth fill in thin parts of holes, leaving out foreground.

        The truth there is nearly determined by what is around: the errors of both differ, so that their mean is nearer
        to it than either.
        """
        narrow = thin(~self.known[None], self.config.thin_px)[0]
        self.locked = self.locked & narrow  # what is wide here too is left to the generator
        narrow = narrow & ~self.locked
        if narrow.any():
            around = smooth_fill(self.rgb[None], (~narrow & ~self.foreground)[None])[0]
            self.rgb = torch.where(narrow, 0.5 * (self.rgb + around), self.rgb)

    def extend_sky(self) -> None:
        """Extend the sky around the hole smoothly: patches of sky show their borders, for nothing hides them."""
        config = self.config.sky
        sky = self.depth > SKY_BEYOND  # smoothing leaves little less than the depth of the sky
        seen, hole = sky & self.known, sky & ~self.known
        clear = seen & ~grown(~sky & self.known, config.mixed_px)
        # From all of the sky a wide hole would get its mean color, and the next hole start from that: bands.
        beside = clear & grown(hole, config.border_px)
        clear = beside if beside.any() else clear
        if hole.any() and clear.any():
            # Skies change with the height above the horizon: what is common to a row goes on along all of it.
            profile = _sky_level(self.rgb, clear, (config.cell_px, clear.shape[-1]), config.bending)
            level = profile + _sky_level(self.rgb - profile, clear, (config.cell_px, config.cell_px), config.bending)
            filled = level + smooth_fill((self.rgb - level)[None], clear[None])[0]
            self.rgb = torch.where(hole, filled.clamp(0.0, 1.0), self.rgb)
            self.source = torch.where(hole, -1, self.source)

    def _target(self) -> Target:
        background = self.known & ~self.foreground
        distance = distance_px(background[0].numpy())
        disoccluded = self.disoccluded[0].numpy()
        depth_weight = np.where(disoccluded, 1.0, np.exp(-distance / self.config.depth.reach_px)).astype(np.float32)
        features = to_features(self.rgb.numpy(), _code(1.0 / self.depth).numpy(), self.config.exemplar.depth_scale)
        return Target(features, background[0].numpy(), self.wide[0].numpy(), features[..., 3].copy(), depth_weight)

    def _sources(self, confidence: Float[Tensor, "1 h w"], reference: Frame) -> Sources:
        photo = reference[:1]
        code = torch.cat([_code(1.0 / self.depth)[None], _code(self.unit / photo.depth.clamp_min(1e-6))])
        code[1:] = torch.where(photo.sky, -1.0, code[1:])
        usable = torch.cat([self.known[None], photo.valid])
        source_cost = torch.zeros(usable.shape)
        source_cost[0] = self.config.exemplar.generated_cost * (1.0 - confidence)
        rgb = torch.cat([self.rgb[None], photo.rgb]).numpy()
        features = to_features(rgb, code.numpy(), self.config.exemplar.depth_scale)
        return Sources(features, usable[:, 0].numpy(), source_cost[:, 0].numpy())


def _code(inverse: Tensor) -> Tensor:
    """The depth code of `diffusion.rgbd_state.encode` from inverse depth in units, without its step at the sky."""
    return (inverse - 1.0) / (inverse + 1.0)


def _decode(code: Tensor) -> Tensor:
    """Inverse depth from the depth code, between the sky's and that of .01 units."""
    bounded = code.clamp(-1.0 + 2.0 / (SKY_UNITS + 1.0), 0.98)
    return (1.0 + bounded) / (1.0 - bounded)


def _sky_level(
    rgb: Float[Tensor, "3 h w"], known: Bool[Tensor, "1 h w"], cell: tuple[int, int], bending: float
) -> Float[Tensor, "3 h w"]:
    """Means of the known pixels over cells of ``(rows, columns)``, extended by a plate under tension.

    A membrane alone goes on without the slope that the sky has at its border, and the eye finds the bend.
    """
    share = avg_pool2d(known.to(rgb), cell, ceil_mode=True, count_include_pad=False)
    mean = avg_pool2d(rgb * known, cell, ceil_mode=True, count_include_pad=False) / share.clamp_min(1e-6)
    weight = share[0] / share.max()
    coarse = thin_plate_fill(mean, weight, bending=bending, membrane=1.0).to(rgb)
    return interpolate(coarse[None], known.shape[-2:], mode="bilinear", align_corners=False)[0]


def _dense(depth: Float[Tensor, "1 h w"], hit: Bool[Tensor, "1 h w"], config: InpaintConfig) -> Bool[Tensor, "1 h w"]:
    """Warped pixels with enough neighbors on their surface: a surface that the warp stretches falls apart into dots."""
    code = torch.where(hit, depth.clamp_min(1e-6).log(), torch.inf)
    around = unfold(pad(code[None], (1, 1, 1, 1), value=torch.inf), 3)[0].reshape(9, *depth.shape[1:])
    return ((around - code).abs() < config.same_surface).sum(0, keepdim=True) >= config.dense
