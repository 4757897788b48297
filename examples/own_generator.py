"""Replace the generator: this one tints what was never photographed, so that one sees what is invented.

python own_generator.py PHOTO
"""

import sys
from dataclasses import replace
from typing import Any

import torch

from worldwarp import explore
from worldwarp.plugins import Condition, Made, PassthroughGenerator


class TintGenerator(PassthroughGenerator):
    """The inpainting prior with a tint where the world shows nothing.

    Args:
        strength: share of the tint, 0..1.
    """

    def __init__(self, strength: float = 0.4) -> None:
        self.strength = strength

    def make(self, condition: Condition, sigma: torch.Tensor, memory: Any, rng: torch.Generator) -> Made:
        """The frames of a chunk: colors in 0..1, ``[t 3 h w]``, with depth and sky as the parent made them."""
        made = super().make(condition, sigma, memory, rng)
        tint = torch.tensor([0.95, 0.55, 0.2]).view(1, 3, 1, 1)
        share = self.strength * (1.0 - condition.guide.coverage)
        return replace(made, rgb=(1.0 - share) * made.rgb + share * tint)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    for step in explore(
        image=sys.argv[1], path="left:distance=0.4", frames=17, size=(96, 160), generator=TintGenerator()
    ):
        print(step)
