"""SPZ files: Gaussians in a sixth of the size of a PLY, for phones, Spark and Niantic's tools.

The layout is version 3 of https://github.com/nianticlabs/spz: gzip, 24-bit fixed-point centers, quaternions as their
smallest three components, the other fields in bytes. Axes are OpenGL's, so that viewers show the world upright.
"""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from geometry.primitives import Gaussians
from scenes.formats.ply import OPACITY_MARGIN, SH_CONSTANT, from_columns
from scenes.io.atomic_files import replacing

VERSION = 3


def write_spz(path: str | Path, gaussians: Gaussians) -> None:
    """Write Gaussians as SPZ, y up; the format cannot hold provenance and the sky flag.

    Raises:
        ImportError: gsply, which writes it, is not installed.
    """
    gsply = load_gsply()
    farthest = max(1.0, float(gaussians.means.abs().max())) if len(gaussians) else 1.0
    content = gsply.GSData.from_arrays(
        means=_array(_turned(gaussians.means)),
        scales=_array(gaussians.scales.log()),
        quats=_array(_turned_quats(gaussians.quats)),
        opacities=_array(gaussians.opacities.clamp(OPACITY_MARGIN, 1.0 - OPACITY_MARGIN).logit()),
        sh0=_array((gaussians.colors - 0.5) / SH_CONSTANT),
        format="ply",
    )
    most_fractional_bits = 12  # of a center's coordinate: resolution 1/4096 unit
    integer_bits = 23  # 24 bits less the sign
    # As fine as the farthest center allows: the fixed-point number has 23 bits for whole and fraction.
    bits = min(most_fractional_bits, integer_bits - 1 - math.floor(math.log2(farthest)))
    with replacing(Path(path)) as partial:
        gsply.write_spz(partial, content, version=VERSION, fractional_bits=bits)


def read_spz(path: str | Path) -> Gaussians:
    """Read an SPZ file in world axes; fields that it lacks get the defaults of `read_gaussians_ply`.

    Raises:
        ImportError: gsply is not installed.
    """
    content = load_gsply().read_spz(path)
    columns = (torch.from_numpy(np.array(c)) for c in (content.means, content.quats, content.scales, content.sh0))
    means, quats, scales, sh0 = columns
    opacities = torch.from_numpy(np.array(content.opacities))
    return from_columns(_turned(means), _turned_quats(quats), scales, opacities, sh0)


def load_gsply() -> Any:
    """Import gsply, which reads and writes SPZ."""
    try:
        return importlib.import_module("gsply")
    except ImportError:
        raise ImportError("formats: spz needs a package: pip install 'worldwarp[spz]'") from None


def _turned(means: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
    """Rotate by 180 degrees about x: from OpenCV's axes to OpenGL's, and back."""
    return means * means.new_tensor([1.0, -1.0, -1.0])


def _turned_quats(quats: Float[Tensor, "n 4"]) -> Float[Tensor, "n 4"]:
    w, x, y, z = quats.unbind(-1)
    # The product with the quaternion (0, 1, 0, 0), a half turn about x.
    return torch.stack([-x, w, -z, y], -1)


def _array(values: Tensor) -> np.ndarray:
    return np.ascontiguousarray(values.float().numpy(force=True))
