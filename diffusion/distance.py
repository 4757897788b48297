"""Distances in masks."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32
from scipy import ndimage


def distance_px(away_from: Bool[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """Distance in pixels from each pixel to the nearest one of a mask; 0 on it, infinite where the mask is empty."""
    if not away_from.any():
        return np.full(away_from.shape, np.inf, np.float32)
    return np.asarray(ndimage.distance_transform_edt(~away_from), np.float32)
