"""Input and output of the rasterizers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[Any]

Backend = Literal["auto", "cpu", "gsplat", "reference"]


@dataclass(frozen=True)
class Splats:
    """``n`` Gaussians as a rasterizer takes them, in natural units.

    Attributes:
        means: ``[n 3]``, world, scene units.
        quats: ``[n 4]``, wxyz, world from Gaussian, any length but zero.
        scales: ``[n 3]``, standard deviations, scene units.
        opacities: ``[n]``, 0..1.
        values: ``[n c]``, composited channels: colors and other numbers per primitive.
    """

    means: Float[Tensor, "n 3"]
    quats: Float[Tensor, "n 4"]
    scales: Float[Tensor, "n 3"]
    opacities: Float[Tensor, "n"]
    values: Float[Tensor, "n c"]

    def __len__(self) -> int:
        """Number of Gaussians."""
        return self.means.shape[0]


@dataclass(frozen=True)
class Raster:
    """Composited images.

    Attributes:
        values: sums of value · weight, *not* divided by alpha, ``[t c h w]``.
        depth: expected z, divided by alpha; 0 where nothing is hit, ``[t 1 h w]``.
        alpha: 1 - transmittance, 0..1, ``[t 1 h w]``.
    """

    values: Float[Tensor, "t c h w"]
    depth: Float[Tensor, "t 1 h w"]
    alpha: Float[Tensor, "t 1 h w"]


def camera_row(camera_from_world: Tensor, focal_px: Tensor, center_px: Tensor) -> Array:
    """One camera as the kernels take it; see `cache3d.rasterizer.projection_kernels`."""
    row = np.empty(16, np.float32)
    row[:9] = camera_from_world[:3, :3].reshape(-1).numpy()
    row[9:12] = camera_from_world[:3, 3].numpy()
    row[12:14], row[14:] = focal_px.numpy(), center_px.numpy()
    return row
