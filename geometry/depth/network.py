"""The embedded depth network: an EfficientNet-Lite0 encoder and a light feature-pyramid decoder.

Shapes: B batch, C channels, H W pixels. Parameter names of the encoder are those of the published ImageNet weights,
which are loaded strictly (Tan and Le 2019; the *Lite* variant has no squeeze-and-excitation and uses ReLU6).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate, pad, pixel_shuffle, relu6, silu

# Per stage: repeats, kernel, stride, expansion, output channels.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
TAPS = {0: 16, 2: 24, 4: 40, 10: 112, 15: 320}  # block -> channels: the last block of each stride 2, 4, 8, 16, 32
STRIDE = 32
FROZEN_BLOCKS = 5


class SameConv(nn.Conv2d):
    """Convolution with TensorFlow's SAME padding, whose odd pixel is on the right and at the bottom."""

    def forward(self, input: Tensor) -> Tensor:
        """Convolve ``[B C H W]``."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        missing = [max((-(-size // stride) - 1) * stride + kernel - size, 0) for size in input.shape[-2:]]
        down, right = missing
        padded = pad(input, (right // 2, right - right // 2, down // 2, down - down // 2))
        return conv2d(padded, self.weight, self.bias, self.stride, 0, 1, self.groups)


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.expands, self.skips = expansion > 1, stride == 1 and inputs == outputs
        if self.expands:
            self._expand_conv = SameConv(inputs, wide, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(wide, eps=1e-3)
        self._depthwise_conv = SameConv(wide, wide, kernel, stride, groups=wide, bias=False)
        self._bn1 = nn.BatchNorm2d(wide, eps=1e-3)
        self._project_conv = SameConv(wide, outputs, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        y = relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.skips else y


class Encoder(nn.Module):
    """EfficientNet-Lite0 without its classifier; BatchNorm always uses the ImageNet statistics."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = SameConv(3, 32, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(32, eps=1e-3)
        blocks, channels = [], 32
        for repeats, kernel, stride, expansion, outputs in STAGES:
            for repeat in range(repeats):
                blocks.append(_Block(channels, outputs, kernel, stride if repeat == 0 else 1, expansion))
                channels = outputs
        self._blocks = nn.ModuleList(blocks)

    def train(self, mode: bool = True) -> Encoder:  # noqa: ARG002
        """Stay in evaluation mode: small batches of renders would distort the running statistics."""
        return super().train(False)

    def forward(self, rgb: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        """Features at strides 2, 4, 8, 16 and 32 of colors in 0..1."""
        # The normalization that the encoder was trained with.
        x = relu6(self._bn0(self._conv_stem((rgb * 255.0 - 127.0) / 128.0)))
        features = []
        for index, block in enumerate(self._blocks):
            x = block(x)
            if index in TAPS:
                features.append(x)
        return features


class Fuse(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(silu(self.first(silu(x))))


class DepthNetwork(nn.Module):
    """RGB to relative log depth and a sky logit, both at full resolution.

    Args:
        channels: width of the decoder.
    """

    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        self.channels = channels
        self.encoder = Encoder()
        self.lateral = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in TAPS.values())
        self.fuse = nn.ModuleList(Fuse(channels) for _ in TAPS)
        self.detail = nn.Conv2d(3, 16, 3, padding=1)
        self.raise_ = nn.Conv2d(channels, 64, 1)
        self.head = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.SiLU(), nn.Conv2d(32, 2, 3, padding=1))

    def tell(self, rgb: Float[Tensor, "b 3 h w"]) -> list[Tensor]:  # noqa: ARG002
        """What is known of whole pictures before they are looked at in any size: nothing."""
        return []

    def forward(
        self, rgb: Float[Tensor, "b 3 h w"], told: Sequence[Tensor] | None = None
    ) -> tuple[Float[Tensor, "b 1 h w"], Float[Tensor, "b 1 h w"]]:
        """Log depth up to a constant, and the sky logit.

        Args:
            rgb: colors in 0..1; height and width multiples of 32.
            told: maps ``[B channels y x]`` of the same pictures, of any size, to add to the levels of the pyramid,
                beginning with the coarsest; None takes `tell` of these colors.
        """
        told = self.tell(rgb) if told is None else told
        x: Tensor | None = None
        features = self.encoder(rgb)
        for order, level in enumerate(reversed(range(len(features)))):
            # The encoder's features deviate by 3 to 9: 0.15 brings them near one.
            y = self.lateral[level](features[level] * 0.15)
            if order < len(told):
                y = y + interpolate(told[order], y.shape[-2:], mode="bilinear", align_corners=False, antialias=True)
            if x is not None:
                y = y + interpolate(x, size=y.shape[-2:], mode="bilinear", align_corners=False)
            x = self.fuse[level](y)
        assert x is not None
        full = torch.cat([pixel_shuffle(self.raise_(x), 2), silu(self.detail(rgb))], dim=1)
        out = self.head(full)
        return out[:, :1], out[:, 1:]
