"""The inpainting prior: completes a guide by copying texture that the world already shows and extending its surfaces.

The frame with the largest wide hole is filled first; its filled pixels, which have a depth, are warped into the other
frames of the chunk. So one place gets one texture in every frame. The pipeline and its figures: ``docs/inpainting.md``.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool
from torch import Tensor

from diffusion.condition import Prior
from diffusion.inpainting.config import InpaintConfig
from diffusion.inpainting.frame_fill import FrameFill
from diffusion.inpainting.masks import reliable
from diffusion.rgbd_state import SKY_UNITS
from geometry.frame import Frame, Guide

GRAY = 0.5  # the color of an unfilled hole: 0 in the -1..1 that networks take


def inpaint_prior(
    guide: Guide,
    reference: Frame,
    rng: torch.Generator,
    config: InpaintConfig = InpaintConfig(),  # noqa: B008 (frozen)
    *,
    lock_thin: bool = False,
) -> Prior:
    """Complete a guide.

    Args:
        guide: rendered frames ``[t]``.
        reference: the photo, then past frames, ``[r]``, of the same size. Texture is copied from the photo; the last
            camera is where the world was seen from before.
        rng: the only randomness; one number is drawn.
        config: see `InpaintConfig`.
        lock_thin: whether a thin strip that is wide in another frame keeps what was copied there. For a single view a
            smooth guess is nearer to the truth on average; on a walk one such strip beside another becomes fog.

    Raises:
        ValueError: a reference of another size.
    """
    if reference.camera.size != guide.camera.size:
        raise ValueError(f"reference: want frames of {guide.camera.size}, got {reference.camera.size}")
    seed = int(torch.randint(2**31 - 1, (), generator=rng))
    known = reliable(guide.covered, config.mixed_px)
    unit = reference[:1].median_depth()
    if config.fill == "none":
        return _unfilled(guide, known, unit)
    fills = [FrameFill.of(guide, reference, index, known[index], unit, config) for index in range(len(guide))]
    # 1. Key frames, the widest hole first and of equals the last: copy, then warp into all others.
    copies = config.key_frames if config.fill == "copy" else 0
    for key in sorted(range(len(fills)), key=lambda i: (-int(fills[i].wide.sum()), -i))[:copies]:
        fill = fills[key]
        if fill.wide.float().mean() <= config.min_share:
            break
        fill.copy(guide.confidence[key], reference, seed, (key, len(fills)))
        for other, target in enumerate(fills):
            if other != key:
                target.receive(fill, lock_thin=lock_thin)
    # 2. What is left in each frame.
    for fill in fills:
        fill.close_rest()
        fill.average_thin()
        fill.extend_sky()
    return Prior(
        rgb=torch.stack([f.rgb for f in fills]),
        depth=torch.stack([f.depth for f in fills]) * unit,
        copied=(~known).to(guide.coverage),
        smooth_rgb=torch.stack([f.smooth for f in fills]),
        smooth_depth=torch.stack([f.smooth_depth for f in fills]) * unit,
        locked=torch.stack([f.locked for f in fills]),
        source=torch.stack([f.source for f in fills]),
    )


def _unfilled(guide: Guide, known: Bool[Tensor, "t 1 h w"], unit: float) -> Prior:
    """The guide with gray holes at the photo's median depth."""
    rgb = torch.where(known, guide.rgb, GRAY)
    depth = torch.where(known, torch.where(guide.sky_mask, SKY_UNITS * unit, guide.depth), unit)
    return Prior(rgb, depth, (~known).to(guide.coverage), rgb, depth, torch.zeros_like(known))
