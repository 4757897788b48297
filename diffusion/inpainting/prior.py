"""The copying prior: complete the guide with texture that the world already shows, and extend its surfaces.

The frame that sees most of what is new is filled first; its filled pixels, which have a depth, are carried into the
other frames of the chunk. So one place gets one texture, whatever camera looks at it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from diffusion.condition import Prior
from diffusion.inpainting.frame_fill import FrameFill
from diffusion.inpainting.masks import THIN_PX, reliable
from geometry.frame import Frame, Guide


@dataclass(frozen=True)
class PriorConfig:
    """When and how to copy.

    Attributes:
        thin_px: holes up to this wide are filled smoothly; wider ones by copying.
        covered: coverage from which a pixel counts as seen.
        keys: frames of a chunk that may be filled by copying; the rest get what these carry over.
        small: share of a frame that must be new before copying is worth its time.
    """

    thin_px: int = THIN_PX
    covered: float = 0.5
    keys: int = 2
    small: float = 0.002


def inpaint_prior(
    guide: Guide,
    reference: Frame,
    rng: torch.Generator,
    config: PriorConfig = PriorConfig(),
    *,
    lock_thin: bool = False,
) -> Prior:
    """Complete a guide.

    Args:
        guide: what the cache shows, ``[t]``.
        reference: the photo, then past frames, ``[r]``, of the same size: where the world was last seen from, and more
            to copy from.
        rng: the only randomness.
        config: when and how to copy.
        settle: whether a strip that is wide in another frame stays as it was copied there. For one look a smooth guess
            is nearer on average; on a walk that goes on, one such strip beside the other becomes fog.

    Raises:
        ValueError: a reference of another size.
    """
    if reference.camera.size != guide.camera.size:
        raise ValueError(f"reference: want frames of {guide.camera.size}, got {reference.camera.size}")
    seed = int(torch.randint(2**31 - 1, (), generator=rng))
    known = reliable(guide.coverage, config.covered)
    ground = reference.valid[0] & ~reference.sky[0]
    unit = reference.depth[0][ground].median().item() if ground.any() else 1.0
    frames = [FrameFill.of(guide, reference, index, known[index], unit, config.thin_px) for index in range(len(guide))]
    for key in sorted(range(len(frames)), key=lambda i: (-int(frames[i].wide.sum()), -i))[: config.keys]:
        fill_of_frame = frames[key]
        if fill_of_frame.wide.float().mean() <= config.small:
            break
        fill_of_frame.copy(guide.confidence[key], reference, seed)
        for other, target in enumerate(frames):
            if other != key:
                target.receive(fill_of_frame, config.thin_px, lock_thin=lock_thin)
    for fill_of_frame in frames:
        fill_of_frame.close_rest()
        fill_of_frame.smooth_narrow(config.thin_px)
        fill_of_frame.clear_sky()
    return Prior(
        rgb=torch.stack([f.rgb for f in frames]),
        depth=torch.stack([f.depth for f in frames]) * unit,
        copied=(~known).to(guide.coverage),
        smooth_rgb=torch.stack([f.smooth for f in frames]),
        smooth_depth=torch.stack([f.smooth_depth for f in frames]) * unit,
        locked=torch.stack([f.locked for f in frames]),
    )
