"""How strange a picture is to the border of a hole: what goes on beyond a border touches it there."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage
from scipy.spatial import KDTree

from diffusion.inpainting.masks import distance_px

RIM_PX = 10.0  # width of the border of a hole that says what it is made of
STRETCH_PX = 64  # length of a stretch of border; its neighbors' halves count as well
RIM_SAMPLES = 256  # of a stretch
LOOK_PX = 2.5  # extent of what is compared
LOOK_STEP = 4
STRANGE = 0.05  # difference from everything at the border at which a source becomes strange


def border_dissimilarity(
    features: Float[np.ndarray, "h w 4"],
    known: Bool[np.ndarray, "h w"],
    hole: Bool[np.ndarray, "h w"],
    sources: Float[np.ndarray, "s h w 4"],
    usable: Bool[np.ndarray, "s h w"],
) -> tuple[Float[np.ndarray, "n s h4 w4"], Int[np.ndarray, "h w"]]:
    """How unlike each source is, 0..1, to everything along each stretch of the border of a hole.

    Sky, water, trees, walls touch a border where they go on beyond it. A thing that stands alone, or elsewhere, does
    not.

    Args:
        features: Lab and depth code of the picture.
        known: what the hole goes on from.
        hole: the hole.
        sources: the pictures to copy from, as ``features``.
        usable: what may be copied.

    Returns:
        A map of every ``LOOK_STEP``-th pixel of the sources for each stretch, and for each pixel the stretch that is
        nearest.
    """
    looks = np.stack([_look(f, m) for f, m in zip(sources, usable, strict=True)])[:, ::LOOK_STEP, ::LOOK_STEP]
    rim = known & (distance_px(hole) <= RIM_PX)
    if not rim.any():
        return np.zeros((1, *looks.shape[:3]), np.float32), np.zeros(rim.shape, np.int64)
    nearest = np.asarray(ndimage.distance_transform_edt(~rim, return_distances=False, return_indices=True))
    cells, border_segment = np.unique(nearest.reshape(2, -1) // STRETCH_PX, axis=1, return_inverse=True)
    at_rim, own = np.argwhere(rim), _look(features, known)[rim]
    maps = []
    for cell in cells.T:
        near = (np.abs(at_rim - (cell + 0.5) * STRETCH_PX) <= STRETCH_PX).all(1)
        samples = own[near][:: max(near.sum() // RIM_SAMPLES, 1)]
        distance = KDTree(samples).query(looks.reshape(-1, looks.shape[-1]))[0].reshape(looks.shape[:3])
        maps.append(np.clip(0.5 * (distance / STRANGE - 1.0), 0.0, 1.0))
    return np.stack(maps).astype(np.float32), border_segment.reshape(rim.shape)


def _look(features: Float[np.ndarray, "h w 4"], mask: Bool[np.ndarray, "h w"]) -> Float[np.ndarray, "h w 4"]:
    """Mean color and contrast of the surroundings of each pixel."""

    def mean(values: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(values * mask, LOOK_PX) / np.maximum(share, 1e-3)

    share = ndimage.gaussian_filter(mask.astype(np.float32), LOOK_PX)
    color = [mean(features[..., c]) for c in range(3)]
    contrast = np.sqrt(np.maximum(mean(features[..., 0] ** 2) - color[0] ** 2, 0.0))
    return np.stack([*color, contrast], -1)
