"""Replace the generator: this one tints what was never photographed, so that one sees what is invented.

python own_generator.py PHOTO
"""

import sys

import torch

from worldwarp import explore
from worldwarp.plugins import Condition, KVMemory, PassthroughGenerator


class TintGenerator(PassthroughGenerator):
    """The inpainting prior with a tint where the world shows nothing.

    Args:
        strength: share of the tint, 0..1.
    """

    def __init__(self, strength: float = 0.4) -> None:
        self.strength = strength

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, condition: Condition, memory: KVMemory) -> torch.Tensor:
        """The clean state ``[t 4 h w]``: colors in -1..1 in the first three channels, then a code of inverse depth."""
        clean = super().denoise(x, sigma, condition, memory).clone()
        tint = torch.tensor([0.9, 0.1, -0.6]).view(1, 3, 1, 1)
        share = self.strength * (1.0 - condition.guide.coverage)
        clean[:, :3] = (1.0 - share) * clean[:, :3] + share * tint
        return clean


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    for step in explore(
        image=sys.argv[1], path="left:distance=0.4", frames=17, size=(96, 160), generator=TintGenerator()
    ):
        print(step)
