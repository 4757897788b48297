"""Plausibility of copy sources: dissimilarity to the border of the hole; dissimilar sources cost more to copy.

Sky, water, trees and walls touch the border of a hole where they continue into it. An object elsewhere in the picture
does not.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage
from scipy.spatial import KDTree

from diffusion.inpainting.config import ExemplarConfig
from diffusion.inpainting.masks import distance_px
from diffusion.inpainting.patchmatch import SAMPLE_STEP


def border_dissimilarity(
    features: Float[np.ndarray, "h w 4"],
    known: Bool[np.ndarray, "h w"],
    hole: Bool[np.ndarray, "h w"],
    sources: Float[np.ndarray, "s h w 4"],
    usable: Bool[np.ndarray, "s h w"],
    config: ExemplarConfig,
) -> tuple[Float[np.ndarray, "n s h4 w4"], Int[np.ndarray, "h w"]]:
    """How unlike each source pixel is, 0..1, to everything along each segment of the hole's border.

    Args:
        features: Lab and depth code of the picture.
        known: pixels outside the hole that the fill has to match.
        hole: the hole.
        sources: the pictures to copy from, as ``features``.
        usable: what may be copied.
        config: size of segments and samples, and where dissimilarity begins.

    Returns:
        A map of every `SAMPLE_STEP`-th pixel of the sources for each segment, and for each pixel the nearest segment.
    """
    appearance = np.stack([_appearance(f, m, config.appearance_px) for f, m in zip(sources, usable, strict=True)])
    appearance = appearance[:, ::SAMPLE_STEP, ::SAMPLE_STEP]
    border = known & (distance_px(hole) <= config.border_px)
    if not border.any():
        return np.zeros((1, *appearance.shape[:3]), np.float32), np.zeros(border.shape, np.int64)
    nearest = np.asarray(ndimage.distance_transform_edt(~border, return_distances=False, return_indices=True))
    cells, segment = np.unique(nearest.reshape(2, -1) // config.segment_px, axis=1, return_inverse=True)
    at_border, own = np.argwhere(border), _appearance(features, known, config.appearance_px)[border]
    maps = []
    for cell in cells.T:
        # The halves of the neighboring segments count as well, so that the cost does not jump between segments.
        near = (np.abs(at_border - (cell + 0.5) * config.segment_px) <= config.segment_px).all(1)
        samples = own[near][:: max(near.sum() // config.segment_samples, 1)]
        distance = KDTree(samples).query(appearance.reshape(-1, appearance.shape[-1]))[0].reshape(appearance.shape[:3])
        maps.append(np.clip(0.5 * (distance / config.dissimilar_from - 1.0), 0.0, 1.0))
    return np.stack(maps).astype(np.float32), segment.reshape(border.shape)


def _appearance(
    features: Float[np.ndarray, "h w 4"], mask: Bool[np.ndarray, "h w"], radius_px: float
) -> Float[np.ndarray, "h w 4"]:
    """Mean color and standard deviation of lightness around each pixel, of the pixels in ``mask``."""

    def mean(values: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(values * mask, radius_px) / np.maximum(share, 1e-3)

    share = ndimage.gaussian_filter(mask.astype(np.float32), radius_px)
    color = [mean(features[..., c]) for c in range(3)]
    contrast = np.sqrt(np.maximum(mean(features[..., 0] ** 2) - color[0] ** 2, 0.0))
    return np.stack([*color, contrast], -1)
