"""Depth as OpenEXR, the format of compositing programs."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

FAR = 1e10  # depth of the sky, as Blender writes its background


def write_depth_exr(
    path: Path, depth: Float[Tensor, "1 h w"], known: Bool[Tensor, "1 h w"], sky: Bool[Tensor, "1 h w"]
) -> None:
    """Write depth, scene units, as the float channel ``Z`` of a ZIP-compressed EXR: 0 where unknown, sky `FAR`.

    Raises:
        ImportError: the package OpenEXR is not installed.
    """
    exr = load_openexr()
    far = depth.new_tensor(FAR)
    values = depth.where(known, depth.new_tensor(0.0)).where(~(known & sky), far)
    channel = np.ascontiguousarray(values[0].float().cpu().numpy())
    header = {"compression": exr.ZIP_COMPRESSION, "type": exr.scanlineimage}
    exr.File(header, {"Z": channel}).write(str(path))


def load_openexr() -> Any:
    """Import OpenEXR."""
    try:
        return importlib.import_module("OpenEXR")
    except ImportError:
        raise ImportError("formats: depth_exr needs a package: pip install 'worldwarp[exr]'") from None
