"""Small files of Gaussians, written by gsply: SPZ and PlayCanvas' compressed PLY.

SPZ has a sixth of the size of a PLY, for phones, Spark and Niantic's tools.

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
from jaxtyping import Float, Int
from torch import Tensor

from geometry.primitives import Gaussians
from scenes.formats.ply import OPACITY_MARGIN, SH_CONSTANT, from_columns
from scenes.io.atomic_files import replacing, write_bytes

VERSION = 3


def write_compressed_ply(path: str | Path, gaussians: Gaussians) -> None:
    """Write Gaussians as PlayCanvas' compressed PLY: 16 bytes each, in chunks of 256 with their own bounds; y down.

    Raises:
        ImportError: gsply, which writes it, is not installed.
    """
    gsply = load_gsply("compressed_ply")
    # Bounds are tight where neighbors in the file are neighbors in space.
    order = _along_a_curve(gaussians.means)
    content = _content(gsply, gaussians[order], gaussians.means[order], gaussians.quats[order])
    write_bytes(Path(path), gsply.compress_to_bytes(content))


def read_compressed_ply(path: str | Path) -> Gaussians:
    """Read a compressed PLY; fields that it lacks get the defaults of `read_gaussians_ply`.

    Raises:
        ImportError: gsply is not installed.
    """
    return _read(load_gsply("compressed_ply").plyread(path), opengl=False)


def write_spz(path: str | Path, gaussians: Gaussians) -> None:
    """Write Gaussians as SPZ, y up; the format cannot hold provenance and the sky flag.

    Raises:
        ImportError: gsply, which writes it, is not installed.
    """
    gsply = load_gsply()
    farthest = max(1.0, float(gaussians.means.abs().max())) if len(gaussians) else 1.0
    content = _content(gsply, gaussians, to_opengl(gaussians.means), to_opengl_quats(gaussians.quats))
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
    return _read(load_gsply().read_spz(path), opengl=True)


def load_gsply(name: str = "spz") -> Any:
    """Import gsply, which reads and writes SPZ and compressed PLY; ``name`` is the format that wants it."""
    try:
        return importlib.import_module("gsply")
    except ImportError:
        raise ImportError(f"formats: {name} needs a package: pip install 'worldwarp[spz]'") from None


def _content(gsply: Any, gaussians: Gaussians, means: Tensor, quats: Tensor) -> Any:
    """Gaussians, at other places and orientations, in gsply's form."""
    return gsply.GSData.from_arrays(
        means=_array(means),
        scales=_array(gaussians.scales.log()),
        quats=_array(quats),
        opacities=_array(gaussians.opacities.clamp(OPACITY_MARGIN, 1.0 - OPACITY_MARGIN).logit()),
        sh0=_array((gaussians.colors - 0.5) / SH_CONSTANT),
        format="ply",
    )


def _read(content: Any, *, opengl: bool) -> Gaussians:
    columns = (torch.from_numpy(np.array(c)) for c in (content.means, content.quats, content.scales, content.sh0))
    means, quats, scales, sh0 = columns
    opacities = torch.from_numpy(np.array(content.opacities))
    if opengl:
        means, quats = to_opengl(means), to_opengl_quats(quats)
    return from_columns(means, quats, scales, opacities, sh0)


def _along_a_curve(means: Float[Tensor, "n 3"]) -> Int[Tensor, "n"]:
    """Order along a Z-order curve (Morton 1966) through signed logarithms of the coordinates."""
    coded = means.sign() * means.abs().log1p()
    low, high = coded.amin(0), coded.amax(0)
    steps = ((coded - low) / (high - low).clamp_min(1e-9) * 1023.0).long()
    code = torch.zeros(len(means), dtype=torch.int64)
    for bit in range(10):
        for axis in range(3):
            code |= ((steps[:, axis] >> bit) & 1) << (3 * bit + axis)
    return code.argsort(stable=True)


def to_opengl(means: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
    """Rotate by 180 degrees about x: from OpenCV's axes to OpenGL's, and back."""
    return means * means.new_tensor([1.0, -1.0, -1.0])


def to_opengl_quats(quats: Float[Tensor, "n 4"]) -> Float[Tensor, "n 4"]:
    """Orientations (wxyz) turned as `to_opengl` turns positions."""
    w, x, y, z = quats.unbind(-1)
    # The product with the quaternion (0, 1, 0, 0), a half turn about x.
    return torch.stack([-x, w, -z, y], -1)


def _array(values: Tensor) -> np.ndarray:
    return np.ascontiguousarray(values.float().numpy(force=True))
