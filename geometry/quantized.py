"""Weights in one byte each: a scale per row, for matrices that are large and not trained any more."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

SCALE = ".scale"  # of the name of a row's scales, after that of its matrix
LARGEST = 127


def quantized(state: Mapping[str, Tensor], of: Callable[[str], bool]) -> dict[str, Tensor]:
    """A state with its floats as float16, and those with two dimensions or more of the names ``of`` as int8."""
    out: dict[str, Tensor] = {}
    for name, value in state.items():
        if value.is_floating_point() and value.ndim > 1 and of(name):
            rows = value.float().flatten(1)
            # A row of zeros has no scale of its own.
            scale = rows.abs().amax(1).clamp_min(1e-12) / LARGEST
            out[name] = (rows / scale[:, None]).round().to(torch.int8).view_as(value).contiguous()
            out[name + SCALE] = scale
        else:
            out[name] = (value.half() if value.is_floating_point() else value).contiguous()
    return out


def dequantized(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state that `quantized` was given, up to rounding, in float32."""
    out: dict[str, Tensor] = {}
    for name, value in state.items():
        if (scale := state.get(name + SCALE)) is not None:
            out[name] = value.float() * scale.view(-1, *(1 for _ in value.shape[1:]))
        elif name.removesuffix(SCALE) == name or name.removesuffix(SCALE) not in state:
            out[name] = value.float() if value.is_floating_point() else value
    return out
