"""The size at which a generator of single views works, and the settings that follow from it."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig

from diffusion.generator import Generator
from scenes.photos.framing import PIXELS

LARGEST = 2.2  # most pixels that a generator of single views is given, over the number that it works at
STEP = 4  # pixels; both sides at working size are multiples of it

# By setting: where the generator works at frame size, and where frames are finer. With as many samples and primitives
# as pixels a frame takes a third of the time; optimized against smaller pictures, primitives would lose detail.
FOLLOWING = {"detail": (2, 1), "cache.refine_steps": (6, 0), "cache.rendering.samples": (2, 1)}


def working_scale(size: tuple[int, int], generator: Generator) -> int:
    """The whole number by which frames of ``size`` are larger than what the generator is given.

    It divides the frame into squares, so that a pixel at working size is the mean of whole pixels of the frame. A
    generator of video makes every pixel itself: 1.
    """
    if not generator.capabilities.per_view:
        return 1
    largest = LARGEST * (generator.cadence.pixels or PIXELS)
    scales = [scale for scale in range(1, min(size) // STEP + 1) if all(side % (STEP * scale) == 0 for side in size)]
    fitting = [scale for scale in scales if size[0] * size[1] <= largest * scale**2]
    return fitting[0] if fitting else scales[-1]


def with_following(config: DictConfig, scale: int) -> DictConfig:
    """The configuration with every setting of `FOLLOWING` that is left open."""
    filled: Any = config.copy()
    for key, values in FOLLOWING.items():
        *groups, name = key.split(".")
        section = filled
        for group in groups:
            section = section.get(group, {})
        if name in section and section[name] is None:
            section[name] = values[scale > 1]
    return filled
