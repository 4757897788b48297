"""Exemplar-based filling of wide holes: patches of the picture and of the photo, coarse to fine, and blending."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy import ndimage
from torch import Tensor

from diffusion.inpainting.config import ExemplarConfig
from diffusion.inpainting.masks import distance_px
from diffusion.inpainting.patchmatch import RADIUS, Correspondences, PatchSources, PatchTarget, improve, vote
from diffusion.inpainting.source_plausibility import border_dissimilarity
from geometry.fill import smooth_fill

# Shares of a coarse pixel's area that make it known, hole, or usable as a source.
_KNOWN_SHARE, _HOLE_SHARE, _USABLE_SHARE = 0.3, 0.3, 0.7
_LAB_SCALE = np.array([100.0, 80.0, 80.0], np.float32)  # brings L, a, b to about -1..1
_FIRST_GUESS_WEIGHT = np.float32(1e-3)  # of the hole's pixels before anything is painted there
_COARSEST_ROUNDS, _ROUNDS, _REACH_PX = 4, 2, 16  # sweeps per pass at the coarsest and other levels; search radius there
_SOFTNESS, _SOFTNESS_QUANTILE = 0.5, 0.6  # a vote falls to 1/e at this share of this quantile of the costs


@dataclass(frozen=True)
class Target:
    """A picture with a hole. Pixels that are neither ``known`` nor ``hole`` are neither changed nor matched.

    Attributes:
        features: Lab and depth code, ``[h w 4]``, scaled so that squared differences compare; any value in the hole.
        known: what the fill has to match.
        hole: what to fill.
        target_depth: depth feature that the hole should have.
        depth_weight: how strictly, 0..1.
    """

    features: Float[np.ndarray, "h w 4"]
    known: Bool[np.ndarray, "h w"]
    hole: Bool[np.ndarray, "h w"]
    target_depth: Float[np.ndarray, "h w"]
    depth_weight: Float[np.ndarray, "h w"]


@dataclass(frozen=True)
class Sources:
    """Pictures ``[s]`` of the target's size to copy from.

    Attributes:
        features: as those of the target.
        usable: what may be copied.
        source_cost: cost of copying the pixel.
    """

    features: Float[np.ndarray, "s h w 4"]
    usable: Bool[np.ndarray, "s h w"]
    source_cost: Float[np.ndarray, "s h w"]


def to_features(
    rgb: Float[np.ndarray, "*b 3 h w"], code: Float[np.ndarray, "*b 1 h w"], depth_scale: float
) -> Float[np.ndarray, "*b h w 4"]:
    """Features of colors in 0..1 and depth code in -1..1: scaled Lab, and the code times ``depth_scale``."""
    image = np.moveaxis(rgb, -3, -1).astype(np.float32)
    lab = cv2.cvtColor(np.ascontiguousarray(image.reshape(-1, image.shape[-2], 3)), cv2.COLOR_RGB2Lab)
    lab = lab.reshape(image.shape) / _LAB_SCALE
    return np.concatenate([lab, depth_scale * np.moveaxis(code, -3, -1)], -1).astype(np.float32)


def from_features(
    features: Float[np.ndarray, "h w 4"], depth_scale: float
) -> tuple[Float[np.ndarray, "3 h w"], Float[np.ndarray, "1 h w"]]:
    """The inverse of `to_features`."""
    lab = (features[..., :3] * _LAB_SCALE.astype(np.float64)).astype(np.float32)
    rgb = cv2.cvtColor(np.ascontiguousarray(lab), cv2.COLOR_Lab2RGB).clip(0.0, 1.0)
    return np.moveaxis(rgb, -1, 0), features[None, ..., 3] / depth_scale


def fill(
    target: Target, sources: Sources, seed: int, config: ExemplarConfig
) -> tuple[Float[np.ndarray, "h w 4"], Int[np.ndarray, "h w 3"]]:
    """Fill the hole with source patches that match the known around it, the target depth and each other.

    Args:
        target: the picture.
        sources: what to copy from.
        seed: of the random search.
        config: search, plausibility and costs.

    Returns:
        Features, changed only inside the hole; and from where each pixel of the hole was copied: picture, row, column,
        -1 elsewhere.
    """
    levels = max(int(np.log2(target.hole.shape[0] / config.coarsest_rows)), 0)
    rng = np.random.default_rng(seed)
    dissimilarity, segment = border_dissimilarity(
        target.features, target.known, target.hole, sources.features, sources.usable, config
    )
    dissimilarity_cost = config.dissimilar_cost * dissimilarity
    nnf = picture = None
    for level in range(levels, -1, -1):
        factor = 2**level
        small, small_sources = _shrink(target, factor), _shrink_sources(sources, factor)
        usable = np.stack([_erode(mask) for mask in small_sources.usable])
        if not usable.any():
            continue
        detail = np.stack([_detail(features[..., 0], config) for features in small_sources.features])
        patches = PatchSources(
            small_sources.features, usable, small_sources.source_cost, dissimilarity_cost, factor, detail
        )
        centers = _dilate(small.hole)
        nnf = _start(nnf, centers, usable, rng)
        picture = small.features.copy()
        passes = config.passes[min(levels - level, len(config.passes) - 1)]
        _paint(
            picture, small, segment[::factor, ::factor], patches, centers, nnf, passes, config,
            first=level == levels, last=level == 0, rng=rng,
        )  # fmt: skip
    if picture is None or nnf is None:
        return target.features, np.full((*target.hole.shape, 3), -1, np.int64)
    return picture, np.where(target.hole[..., None], nnf, -1)


def blend_in(
    rgb: Float[Tensor, "3 h w"], source: Bool[Tensor, "1 h w"], hole: Bool[Tensor, "1 h w"], config: ExemplarConfig
) -> Float[Tensor, "3 h w"]:
    """Remove the color step along the border between the filled hole and ``source`` by a smooth correction."""
    weight = torch.zeros_like(rgb[:1])
    step = torch.zeros_like(rgb)
    for axis, shift in ((-1, 1), (-1, -1), (-2, 1), (-2, -1)):
        neighbor_is_source = torch.roll(source, shift, axis) & hole
        index = 0 if shift == 1 else -1
        neighbor_is_source.select(axis, index).fill_(False)  # what `roll` brought from the other side
        # A larger step is an edge of the picture, not a seam.
        limit = config.blend_limit
        step += (torch.roll(rgb, shift, axis) - rgb).clamp(-limit, limit) * neighbor_is_source
        weight += neighbor_is_source
    border = weight > 0
    if not border.any():
        return rgb

    def smoothed(values: Tensor) -> Tensor:
        return torch.from_numpy(ndimage.gaussian_filter(values.numpy(), (0, config.blend_px, config.blend_px)))

    mean_step = smoothed(step) / smoothed(weight).clamp_min(1e-3)
    correction = smooth_fill(torch.where(border, mean_step, 0.0)[None], border[None])[0]
    distance = torch.from_numpy(distance_px(border[0].numpy())).to(rgb)
    return torch.where(hole, (rgb + correction * torch.exp(-distance / config.blend_reach_px)).clamp(0.0, 1.0), rgb)


def _paint(
    picture: np.ndarray,
    small: Target,
    segment: np.ndarray,
    sources: PatchSources,
    centers: np.ndarray,
    nnf: np.ndarray,
    passes: int,
    config: ExemplarConfig,
    *,
    first: bool,
    last: bool,
    rng: np.random.Generator,
) -> None:
    """Search and repaint one pyramid level ``passes`` times; ``picture`` and ``nnf`` change in place."""
    ys, xs = (part.astype(np.int64) for part in np.nonzero(centers))
    confidence = config.confidence_decay ** -distance_px(small.known)
    field = Correspondences(ys, xs, nnf, np.zeros(centers.shape, np.float32))
    mean_uses = max(len(ys) / sources.usable.sum(), 1.0)
    level = PatchTarget(picture, confidence, small.hole, small.target_depth, small.depth_weight, segment)
    if not first:
        vote(level, sources, field, config.costs, confidence, 1.0, False)
    for turn in range(passes):
        inside = _FIRST_GUESS_WEIGHT if first and turn == 0 else confidence
        weight = np.where(small.known, 1.0, np.where(small.hole, inside, 0.0)).astype(np.float32)
        rounds, reach = (_COARSEST_ROUNDS, max(centers.shape)) if first else (_ROUNDS, _REACH_PX)
        weighted = level._replace(weight=weight)
        improve(weighted, sources, field, config.costs, mean_uses, rounds, reach, int(rng.integers(2**31)))
        scale = max(float(np.quantile(field.cost[ys, xs], _SOFTNESS_QUANTILE)), 1e-5)
        # The last vote takes single pixels: means soften texture.
        vote(level, sources, field, config.costs, confidence, _SOFTNESS * scale, last and turn == passes - 1)


def _detail(lightness: np.ndarray, config: ExemplarConfig) -> np.ndarray:
    """How visible a repetition of each patch is, by its contrast, ``config.plain`` .. 1."""
    mean = ndimage.uniform_filter(lightness, 2 * RADIUS + 1)
    variance = ndimage.uniform_filter(lightness**2, 2 * RADIUS + 1) - mean**2
    return np.clip(np.sqrt(np.maximum(variance, 0.0)) / config.detailed, config.plain, 1.0)


def _start(nnf: np.ndarray | None, centers: np.ndarray, usable: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The coarser level's correspondences at twice the size, or random ones; -1 where ``centers`` is False."""
    height, width = centers.shape
    ys, xs = np.nonzero(centers)
    choices = np.argwhere(usable)
    chosen = choices[rng.integers(len(choices), size=len(ys))]
    if nnf is not None:
        coarse = nnf[np.minimum(ys // 2, nnf.shape[0] - 1), np.minimum(xs // 2, nnf.shape[1] - 1)]
        fine = coarse * np.array([1, 2, 2]) + np.stack([0 * ys, ys % 2, xs % 2], 1)
        fine[:, 1:] = np.clip(fine[:, 1:], 0, [height - 1, width - 1])
        good = (coarse[:, 0] >= 0) & usable[fine[:, 0], fine[:, 1], fine[:, 2]]
        chosen = np.where(good[:, None], fine, chosen)
    started = np.full((height, width, 3), -1, np.int64)
    started[ys, xs] = chosen
    return started


def _shrink(target: Target, factor: int) -> Target:
    if factor == 1:
        return target
    known, hole = _pool(target.known[..., None], factor)[..., 0], _pool(target.hole[..., None], factor)[..., 0]
    is_hole = hole > _HOLE_SHARE
    features = _pool(target.features * target.known[..., None], factor) / np.maximum(known[..., None], 1e-6)
    target_depth = _pool(target.target_depth[..., None], factor)[..., 0]
    depth_weight = _pool(target.depth_weight[..., None], factor)[..., 0]
    return Target(features, (known > _KNOWN_SHARE) & ~is_hole, is_hole, target_depth, depth_weight)


def _shrink_sources(sources: Sources, factor: int) -> Sources:
    if factor == 1:
        return sources
    share = np.stack([_pool(mask[..., None], factor) for mask in sources.usable])
    features = np.stack(
        [_pool(f * m[..., None], factor) for f, m in zip(sources.features, sources.usable, strict=True)]
    ) / np.maximum(share, 1e-6)
    source_cost = np.stack([_pool(d[..., None], factor)[..., 0] for d in sources.source_cost])
    return Sources(features, share[..., 0] > _USABLE_SHARE, source_cost)


def _pool(values: np.ndarray, factor: int) -> np.ndarray:
    """Means over blocks of ``factor`` by ``factor`` pixels, the last row and column repeated; ``[h w c]``."""
    height, width = values.shape[:2]
    size = (-(-width // factor), -(-height // factor))
    padded = np.pad(
        values.astype(np.float32),
        ((0, size[1] * factor - height), (0, size[0] * factor - width), (0, 0)), mode="edge",
    )  # fmt: skip
    return padded.reshape(size[1], factor, size[0], factor, -1).mean((1, 3))


def _dilate(mask: np.ndarray) -> np.ndarray:
    return ndimage.binary_dilation(mask, np.ones((2 * RADIUS + 1,) * 2, bool))


def _erode(mask: np.ndarray) -> np.ndarray:
    return ndimage.binary_erosion(mask, np.ones((2 * RADIUS + 1,) * 2, bool))
