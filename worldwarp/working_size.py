"""The size at which a generator of single views works, and the settings that follow from it."""

from __future__ import annotations

from omegaconf import DictConfig

from diffusion.generator import Generator
from scenes.photos.framing import PIXELS
from worldwarp.config import Settings, explore_settings

LARGEST = 2.2  # most pixels that a generator of single views is given, over the number that it works at
# Optimization steps for each view that enters alone. At 192x320, in two held-out worlds, 0 / 2 / 4 steps gave 17.89 /
# 17.99 / 18.00 dB for 1.19 / 1.21 / 1.46 CPU seconds a frame. At scale 2 steps bring .1 dB of a frame for 70 % of the
# time (log: Frames are rendered from the world).
VIEW_REFINE_STEPS = 2
STEP = 4  # pixels; both sides at working size are multiples of it


def working_scale(size: tuple[int, int], generator: Generator, *, video: bool = False) -> int:
    """The whole number by which frames of ``size`` are larger than what the generator is given.

    It divides the frame into squares, so that a pixel at working size is the mean of whole pixels of the frame. A
    generator of video makes every pixel itself, and ``video`` in replaces every pixel of the guide: 1.
    """
    if video or not generator.capabilities.per_view:
        return 1
    largest = LARGEST * (generator.cadence.pixels or PIXELS)
    scales = [scale for scale in range(1, min(size) // STEP + 1) if all(side % (STEP * scale) == 0 for side in size)]
    fitting = [scale for scale in scales if size[0] * size[1] <= largest * scale**2]
    return fitting[0] if fitting else scales[-1]


def at_working_size(
    config: DictConfig, size: tuple[int, int], generator: Generator
) -> tuple[DictConfig, Settings, int]:
    """A configuration with what follows from the working size, its plain settings, and the `working_scale`.

    Where ``cache.refine_steps`` is left open, views that enter one by one are refined in fewer steps than chunks, and
    above scale 1 not at all (`VIEW_REFINE_STEPS`).

    Args:
        config: with field of view and frame size; left unchanged.
        size: of the frames, ``(H, W)``.
        generator: of the frames.

    Raises:
        ConfigError: an invalid setting.
    """
    scale = working_scale(size, generator, video=config.video is not None)
    filled = config.copy()
    views_enter_alone = config.video is None and generator.capabilities.per_view
    if views_enter_alone and "refine_steps" in filled.cache and filled.cache.refine_steps is None:
        filled.cache.refine_steps = VIEW_REFINE_STEPS if scale == 1 else 0
    return filled, explore_settings(filled), scale


def samples_per_pixel(config: DictConfig, scale: int) -> int | None:
    """Samples per pixel of a frame and axis: as many as fit into the cache's per pixel at the generator's size."""
    samples = config.cache.get("rendering", {}).get("samples")
    return None if scale == 1 or samples is None else max(1, samples // scale)
