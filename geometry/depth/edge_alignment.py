"""Depth that ends where the picture ends: values flow from where the network is sure, but not across color edges."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from geometry.depth.picture_solver import Picture, Ties, solve
from geometry.depth.policy import DEFAULT_EDGES, EdgeAlignPolicy
from geometry.fill import smooth_fill


def fit_to_picture(
    log_depth: Float[Tensor, "h w"],
    sky: Float[Tensor, "h w"],
    rgb: Float[Tensor, "3 h w"],
    policy: EdgeAlignPolicy = DEFAULT_EDGES,
) -> tuple[Float[Tensor, "h w"], Float[Tensor, "h w"]]:
    """Redraw the soft edges of a network's output along the edges of the picture it was given.

    Weighted least squares (in the manner of Levin et al. 2004, *Colorization using optimization*): each pixel stays
    near its own value as far as that is trusted, and near its neighbors as far as they have its color. A value is
    doubted near the outline of the sky and where depth changes fast; there the colors decide.

    Args:
        log_depth: log of the depth.
        sky: probability of sky.
        rgb: colors in 0..1.
        policy: what is an edge, and which values are trusted.

    Returns:
        Log depth and probability of sky.
    """
    lab = _lab(rgb, policy)
    likely, values = sky.numpy(), log_depth.numpy()
    if likely.max() < policy.sure:  # nowhere sure: so it sees walls of plain white
        likely = np.zeros_like(likely)
    likely = _without_islands(likely, lab, policy)
    is_sky = (likely > 0.5).astype(np.uint8)
    within = _distance_px(is_sky) + _distance_px(1 - is_sky)
    halo = policy.halo * min(sky.shape)
    # No trust within .3 of the halo around the outline of the sky, all of it from a halo on.
    inside = ((within / halo - 0.3) / 0.7).clip(0.0, 1.0) ** 2
    trust = np.maximum(2.0 * np.abs(likely - 0.5) * inside, policy.least_trust)
    alien = _unlike_the_sky(lab, (is_sky > 0) & (inside > 0.5), policy) * (1.0 - inside)
    whole, ties = Picture(lab, np.zeros_like(is_sky)), Ties(policy.color_scale, policy.leak, policy.smoothness)
    redrawn_sky = solve(whole, likely * trust / (trust + alien), trust + alien, np.zeros_like(likely), ties)
    fitted_sky = _without_islands(redrawn_sky, lab, policy)  # what was one with the sky may have become an island
    # Depth is doubted where the outline of the sky was redrawn, beside it, and where inverse depth bends.
    redrawn = ((fitted_sky > 0.5) != (is_sky > 0)).astype(np.uint8)
    beside = np.minimum(_distance_px(1 - redrawn) / (policy.beside * halo), within / (0.25 * halo)).clip(0.0, 1.0) ** 2
    trust = np.exp(-((_bend(values) / policy.bend) ** 2)) * (1.0 - likely) * beside
    # Nothing of the ground hangs on the sky; parts of the ground hang together whatever their colors.
    side = (fitted_sky > 0.5).astype(np.uint8)
    ties = Ties(policy.color_scale, policy.ground_leak, policy.smoothness)
    # Slopes that are trusted stay slopes: held to what has their color, a lawn would fall into terraces.
    fitted = solve(Picture(lab, side), values, np.maximum(trust, policy.ground_least_trust), trust, ties)
    return torch.from_numpy(fitted).to(log_depth), torch.from_numpy(fitted_sky).clamp(0.0, 1.0).to(sky)


def _without_islands(likely: np.ndarray, lab: np.ndarray, policy: EdgeAlignPolicy) -> np.ndarray:
    """No sky inside the ground unless it looks like the open sky: bright slopes and water are taken for it."""
    count, labels = cv2.connectedComponents((likely > 0.5).astype(np.uint8))
    piece = labels.astype(np.int64)
    # The open sky touches the upper border of the picture.
    open_pieces = np.unique(piece[0][piece[0] > 0])
    if not len(open_pieces):
        return likely
    unlike = _unlike_the_sky(lab, np.isin(piece, open_pieces), policy)
    size = np.bincount(piece.ravel(), minlength=count)
    mean = np.bincount(piece.ravel(), unlike.ravel(), count) / np.maximum(size, 1)
    island = mean > policy.island
    island[0] = island[open_pieces] = False
    return np.where(island[piece], 0.0, likely)


def _distance_px(mask: np.ndarray) -> np.ndarray:
    """Distance of each pixel of a mask from the pixels outside it; larger than the image where there are none."""
    return np.minimum(cv2.distanceTransform(mask, cv2.DIST_L2, 5), float(sum(mask.shape)))


def _bend(log_depth: np.ndarray) -> np.ndarray:
    """How far inverse depth is from linear around each pixel, relative to itself: 0 on any plane."""
    inverse = np.exp(-log_depth)
    bend = np.abs(cv2.Laplacian(cv2.GaussianBlur(inverse, (0, 0), 1.5), cv2.CV_32F)) / inverse
    # A soft edge bends at both ends and not between them.
    return cv2.dilate(bend, np.ones((7, 7)))


def _lab(rgb: Tensor, policy: EdgeAlignPolicy) -> np.ndarray:
    """CIELAB without texture: the leaves of a tree are one color, and hang together rather than on what is behind."""
    image = (np.ascontiguousarray(rgb.permute(1, 2, 0).numpy()) * 255.0).round().astype(np.uint8)
    # No pyramid, OpenCV's default: with one the result depends on left and right.
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2Lab)
    flat = cv2.pyrMeanShiftFiltering(lab, policy.texture_px, policy.texture_contrast, maxLevel=0)
    scale, zero = np.array([[100.0 / 255.0, 1.0, 1.0], [0.0, 128.0, 128.0]], np.float32)
    return flat * scale - zero


def _unlike_the_sky(lab: np.ndarray, sure: np.ndarray, policy: EdgeAlignPolicy) -> np.ndarray:
    """How far each pixel's color is from that of the sure sky around it, 0..1."""
    if not sure.any():
        return np.zeros_like(lab[..., 0])
    known = torch.from_numpy(sure)[None, None]
    around = smooth_fill(torch.from_numpy(lab).permute(2, 0, 1)[None], known)[0].permute(1, 2, 0).numpy()
    beyond = np.maximum(np.linalg.norm(lab - around, axis=-1) - policy.alien_color, 0.0)
    return 1.0 - np.exp(-((beyond / policy.alien_color) ** 2))
