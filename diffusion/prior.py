"""The copying prior: complete the guide with texture that the world already shows, and extend its surfaces.

The frame that sees most of what is new is filled first; its filled pixels, which have a depth, are carried into the
other frames of the chunk. So one place gets one texture, whatever camera looks at it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import Tensor

from diffusion.depth_fill import fill_inverse_depth, in_front
from diffusion.exemplar import fill_from_picture
from geometry.camera import Camera
from geometry.frame import Frame, Guide
from geometry.project import forward_warp, project, smooth_fill, unproject

SKY_DEPTH = 100.0
MIXED_PX = 1  # ring of a hole whose pixels mix two surfaces


@dataclass(frozen=True)
class PriorConfig:
    """When and how to copy.

    Attributes:
        thin_px: holes up to this wide are filled smoothly; wider ones by copying.
        covered: coverage from which a pixel counts as seen.
        keys: frames of a chunk that may be filled by copying; the rest get what these carry over.
        small: share of a frame that must be new before copying is worth its time.
    """

    thin_px: int = 8
    covered: float = 0.5
    keys: int = 2
    small: float = 0.008


@dataclass(frozen=True)
class Prior:
    """The guide, complete.

    Attributes:
        rgb: colours, ``[t 3 h w]``; the guide's where it was seen.
        depth: positive depth, ``[t 1 h w]``; the guide's where it was seen.
        copied: share of the pixel that was copied or filled rather than seen, 0..1, ``[t 1 h w]``.
        smooth_rgb: the same holes filled smoothly, ``[t 3 h w]``.
        smooth_depth: as ``depth``, ``[t 1 h w]``.
    """

    rgb: Float[Tensor, "t 3 h w"]
    depth: Float[Tensor, "t 1 h w"]
    copied: Float[Tensor, "t 1 h w"]
    smooth_rgb: Float[Tensor, "t 3 h w"]
    smooth_depth: Float[Tensor, "t 1 h w"]


def copy_into_holes(
    guide: Guide, reference: Frame, rng: torch.Generator, config: PriorConfig = PriorConfig()  # noqa: B008 (frozen)
) -> Prior:
    """Complete a guide.

    Args:
        guide: what the cache shows, ``[t]``.
        reference: the photo, then past frames, ``[r]``, of the same size: to tell disocclusions from the edge of the
            world, and to copy from where the guide shows next to nothing.
        rng: the only randomness.
        config: when and how to copy.

    Raises:
        ValueError: a reference of another size.
    """
    if reference.camera.size != guide.camera.size:
        raise ValueError(f"reference: want frames of {guide.camera.size}, got {reference.camera.size}")
    seed = int(torch.randint(2**31 - 1, (), generator=rng))
    known = _sure(guide.coverage, config.covered)
    frames = [_Canvas.of(guide, reference, index, known[index], config) for index in range(len(guide))]
    keys = sorted(range(len(frames)), key=lambda i: (-int(frames[i].wide.sum()), -i))[: config.keys]
    for key in keys:
        canvas = frames[key]
        if canvas.wide.float().mean() <= config.small:
            break
        canvas.copy(reference, seed)
        for other, target in enumerate(frames):
            if other != key:
                target.receive(canvas)
    return Prior(
        rgb=torch.stack([f.rgb for f in frames]),
        depth=torch.stack([f.depth for f in frames]),
        copied=(~known).to(guide.coverage),
        smooth_rgb=torch.stack([f.smooth for f in frames]),
        smooth_depth=torch.stack([f.smooth_depth for f in frames]),
    )


@dataclass
class _Canvas:
    """One frame while it is being completed; ``rgb`` and ``depth`` are complete from the start and get better."""

    rgb: Float[Tensor, "3 h w"]
    depth: Float[Tensor, "1 h w"]
    known: Bool[Tensor, "1 h w"]
    front: Bool[Tensor, "1 h w"]  # known, but hides what the hole would show
    wide: Bool[Tensor, "1 h w"]  # still to be copied
    carried: Bool[Tensor, "1 h w"]  # filled here, to be carried to other frames
    smooth: Float[Tensor, "3 h w"]
    smooth_depth: Float[Tensor, "1 h w"]
    camera: Camera

    @staticmethod
    def of(guide: Guide, reference: Frame, index: int, known: Tensor, config: PriorConfig) -> _Canvas:
        rgb, camera = guide.rgb[index], guide.camera[index : index + 1]
        inverse = torch.where(known, 1.0 / guide.depth[index].clamp_min(1e-6), torch.zeros_like(known, dtype=rgb.dtype))
        first = fill_inverse_depth(inverse, known)
        front = in_front(inverse, known, ~known & _looked_at(1.0 / first, camera, reference))
        behind = known & ~front if bool((known & ~front).any()) else known
        filled = fill_inverse_depth(inverse, behind) if front.any() else first
        depth = torch.where(known, guide.depth[index], 1.0 / filled.clamp_min(1.0 / SKY_DEPTH))
        smooth = torch.where(known, rgb, smooth_fill(rgb[None], behind[None])[0])
        wide = _wide(~known, config.thin_px)
        return _Canvas(smooth, depth, known, front, wide, torch.zeros_like(known), smooth, depth, camera)

    def copy(self, reference: Frame, seed: int) -> None:
        """Fill what is wide by copying from this frame, and from the photo where this frame shows little."""
        source = self.known & ~self.front
        picture, source_wide, hole = self.rgb, source, self.wide
        if source.float().mean() < 0.35:
            picture = torch.cat([picture, reference.rgb[0]], -1)
            source_wide = torch.cat([source, torch.ones_like(source)], -1)
            hole = torch.cat([self.wide, torch.zeros_like(self.wide)], -1)
        filled = fill_from_picture(picture, source_wide, hole, seed)[..., : self.rgb.shape[-1]]
        self.rgb = torch.where(self.wide, filled, self.rgb)
        self.carried = self.wide
        self.wide = torch.zeros_like(self.wide)

    def receive(self, other: _Canvas) -> None:
        """Take over what another frame filled, where this one is still open."""
        source = Frame(
            other.rgb[None],
            other.depth[None],
            other.carried[None],
            torch.zeros_like(other.carried)[None],
            other.camera,
        )
        rgb, depth, hit = (part[0] for part in forward_warp(source, self.camera, other.rgb[None]))
        hit = hit & self.wide
        self.rgb = torch.where(hit, rgb, self.rgb)
        self.depth = torch.where(hit, depth, self.depth)
        left = self.wide & ~hit
        settled = self.known | (hit & ~left)
        self.wide = _wide(left, 3)
        cracks = left & ~self.wide
        if cracks.any():
            usable = settled & ~self.front if bool((settled & ~self.front).any()) else settled
            self.rgb = torch.where(cracks, smooth_fill(self.rgb[None], usable[None])[0], self.rgb)


def _sure(coverage: Float[Tensor, "t 1 h w"], covered: float) -> Bool[Tensor, "t 1 h w"]:
    """Seen pixels, without the ring around holes where two surfaces mix."""
    seen = (coverage >= covered)[:, 0].numpy()
    hole = ~seen
    # Specks of a pixel are sampling noise, not holes with a border; their ring stays.
    solid = np.stack([ndimage.binary_opening(h, np.ones((2, 2), bool)) for h in hole])
    ring = np.stack([ndimage.binary_dilation(h, iterations=MIXED_PX) for h in solid])
    return torch.from_numpy(seen & ~ring)[:, None]


def _wide(hole: Bool[Tensor, "1 h w"], thin_px: int) -> Bool[Tensor, "1 h w"]:
    """The part of a hole that holds a disc wider than ``thin_px``, with what hangs on to it closely."""
    mask = hole[0].numpy()
    if not mask.any():
        return hole
    padded = np.pad(mask, thin_px, constant_values=True) if mask.all() else np.pad(mask, thin_px, mode="edge")
    core = ndimage.distance_transform_edt(padded)[thin_px:-thin_px, thin_px:-thin_px] > 0.5 * thin_px
    grown = ndimage.distance_transform_edt(~core) <= 0.75 * thin_px + 1.0 if core.any() else core
    return torch.from_numpy(grown & mask)[None]


def _looked_at(depth: Float[Tensor, "1 h w"], camera: Camera, reference: Frame) -> Bool[Tensor, "1 h w"]:
    """Pixels whose (guessed) surface lies inside the photo's view: what is missing there was hidden."""
    points = unproject(depth[None], camera)[0].flatten(1).T
    pixels, z = project(points[None], reference.camera[:1])
    height, width = reference.camera.size
    x, y = pixels[0].unbind(-1)
    inside = (x > 0) & (x < width) & (y > 0) & (y < height) & (z[0] > 0)
    return inside.reshape(depth.shape)
