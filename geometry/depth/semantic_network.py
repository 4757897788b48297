"""The depth network with a second encoder: DINOv2 tells what things are, EfficientNet-Lite0 where they end.

Shapes: B batch, C channels, H W pixels; ``h w`` patches of the picture as DINOv2 sees it.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate

from geometry.depth.dino import PATCH, TAPS, DinoEncoder
from geometry.depth.network import DepthNetwork, Fuse

SHORT_SIDE_PX = 252  # of the picture that DINOv2 is shown: 18 patches, near the sizes of training
COARSE_LEVELS, FINE_LEVELS = 2, 2  # levels of the pyramid, from the coarsest, that take the one and the other map


class Context(nn.Module):
    """A coarse and a fine map from the features of four layers of DINOv2 (after Ranftl et al. 2021).

    Args:
        features: channels of a layer of DINOv2.
        width: channels of the maps.
    """

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(features, width, 1) for _ in range(TAPS))
        self.fuse = nn.ModuleList(Fuse(width) for _ in range(4))

    def forward(
        self, features: Float[Tensor, "b 4 c h w"]
    ) -> tuple[Float[Tensor, "b d h w"], Float[Tensor, "b d y x"]]:
        """The coarse map, a value per patch, and the fine one, of twice the height and width."""
        # Normalized features deviate by 1.5 to 2: .5 brings them near one.
        maps = [lateral(features[:, index] * 0.5) for index, lateral in enumerate(self.lateral)]
        coarse = self.fuse[1](self.fuse[0](maps[3] + maps[2]))
        size = (2 * coarse.shape[-2], 2 * coarse.shape[-1])
        fine = interpolate(coarse + maps[1] + maps[0], size, mode="bilinear", align_corners=False)
        return coarse, self.fuse[3](self.fuse[2](fine))


class SemanticDepthNetwork(DepthNetwork):
    """`DepthNetwork` whose pyramid is told what DINOv2 makes of the picture.

    Args:
        channels: width of the decoder.
        width: channels of the maps made of DINOv2's features.
        dino: the encoder; None takes a ViT-S with random weights.
    """

    def __init__(self, channels: int = 64, width: int = 96, dino: DinoEncoder | None = None) -> None:
        super().__init__(channels)
        self.width, self.dino = width, DinoEncoder() if dino is None else dino
        self.context = Context(self.dino.shape[0], width)
        self.inject = nn.ModuleList(nn.Conv2d(width, channels, 1) for _ in range(COARSE_LEVELS + FINE_LEVELS))
        for parameter in self.inject.parameters():
            nn.init.zeros_(parameter)  # at first it is the network without features

    def tell(self, rgb: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        """What DINOv2 makes of whole pictures, for `forward` at any size."""
        # A thumbnail has no more to see when it is enlarged further.
        features = features_of(self.dino, rgb, min(SHORT_SIDE_PX, 2 * min(rgb.shape[-2:])))
        coarse, fine = self.context(features)
        maps = [coarse] * COARSE_LEVELS + [fine] * FINE_LEVELS
        return [inject(each) for inject, each in zip(self.inject, maps, strict=True)]


def features_of(
    dino: DinoEncoder, rgb: Float[Tensor, "b 3 h w"], short_side_px: int = SHORT_SIDE_PX
) -> Float[Tensor, "b 4 c y x"]:
    """Features of four layers, of colors in 0..1 of any size and shape, resized to ``short_side_px``."""
    scale = short_side_px / min(rgb.shape[-2:])
    size = [max(PATCH, round(side * scale / PATCH) * PATCH) for side in rgb.shape[-2:]]
    return torch.stack(dino(interpolate(rgb, size, mode="bilinear", antialias=True, align_corners=False)), 1)
