"""Fill wide holes of a picture with patches of what the world already shows, coarse to fine."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy import ndimage
from torch import Tensor

from diffusion.inpainting.masks import distance_px
from diffusion.inpainting.patchmatch import RADIUS, improve, vote
from diffusion.inpainting.source_plausibility import border_dissimilarity
from geometry.fill import smooth_fill

COARSEST_ROWS = 20  # the pyramid stops before a picture has fewer rows
PASSES = (10, 6, 5, 4)  # search and repaint, from the coarsest level on; the last number repeats
DEPTH_WEIGHT = 0.3  # of the depth code among the color channels
TRUST_DECAY = 1.25  # per pixel away from what is known
ALIEN = 0.1  # cost of copying what is wholly unlike the border of the hole
DETAILED, PLAIN = 0.1, 0.25  # contrast from which one sees at once what is repeated; the least that counts
BLEND_PX = 4.0  # smoothing, along the border, of the color step that blending removes
BLEND_REACH_PX = 20.0  # how far into the hole the correction is felt
LARGEST_STEP = 0.15  # a larger step is an edge of the picture, not a seam


@dataclass(frozen=True)
class Target:
    """A picture with a hole. Pixels that are neither ``known`` nor ``hole`` are left alone and not looked at.

    Attributes:
        features: Lab and depth code, ``[h w 4]``, scaled so that squared differences compare; anything in the hole.
        known: what the fill has to fit.
        hole: what to fill.
        wanted: depth code that the hole should have, scaled.
        pull: how strictly, 0..1.
    """

    features: Float[np.ndarray, "h w 4"]
    known: Bool[np.ndarray, "h w"]
    hole: Bool[np.ndarray, "h w"]
    target_depth: Float[np.ndarray, "h w"]
    depth_weight: Float[np.ndarray, "h w"]


@dataclass(frozen=True)
class Sources:
    """Pictures ``[s]`` of the painting's size to copy from.

    Attributes:
        features: as those of the painting.
        usable: what may be copied.
        doubt: cost of copying it.
    """

    features: Float[np.ndarray, "s h w 4"]
    usable: Bool[np.ndarray, "s h w"]
    source_cost: Float[np.ndarray, "s h w"]


def to_features(
    rgb: Float[np.ndarray, "*b 3 h w"], code: Float[np.ndarray, "*b 1 h w"]
) -> Float[np.ndarray, "*b h w 4"]:
    """Colors in 0..1 and depth code in -1..1 as features."""
    image = np.moveaxis(rgb, -3, -1).astype(np.float32)
    lab = cv2.cvtColor(np.ascontiguousarray(image.reshape(-1, image.shape[-2], 3)), cv2.COLOR_RGB2Lab)
    lab = lab.reshape(image.shape) / np.array([100.0, 80.0, 80.0], np.float32)
    return np.concatenate([lab, DEPTH_WEIGHT * np.moveaxis(code, -3, -1)], -1).astype(np.float32)


def from_features(
    features: Float[np.ndarray, "h w 4"],
) -> tuple[Float[np.ndarray, "3 h w"], Float[np.ndarray, "1 h w"]]:
    """The inverse of `to_features`."""
    lab = (features[..., :3] * np.array([100.0, 80.0, 80.0])).astype(np.float32)
    rgb = cv2.cvtColor(np.ascontiguousarray(lab), cv2.COLOR_Lab2RGB).clip(0.0, 1.0)
    return np.moveaxis(rgb, -1, 0), features[None, ..., 3] / DEPTH_WEIGHT


@dataclass(frozen=True)
class _Search:
    """What stays the same while one level of the pyramid is searched and painted.

    Attributes:
        painting: the picture at this level.
        sources: what to copy from at this level.
        usable: sources whose whole patch may be copied, ``[s h w]``.
        odd: what copying the strange costs, for each stretch of the hole's border, of every fourth pixel at level 0.
        stretch: the stretch of each pixel, ``[h w]``.
        factor: how much larger the pictures are at level 0.
        detail: how much there is in a source's patch that one would see again, 0..1, ``[s h w]``.
    """

    target: Target
    sources: Sources
    usable: Bool[np.ndarray, "s h w"]
    dissimilarity: Float[np.ndarray, "n s h4 w4"]
    border_segment: Int[np.ndarray, "h w"]
    factor: int
    detail: Float[np.ndarray, "s h w"]


def fill(target: Target, sources: Sources, seed: int) -> Float[np.ndarray, "h w 4"]:
    """Fill the hole with source patches that agree with what is around it, with its depth, and with each other.

    Returns:
        Features, changed only inside the hole.
    """
    levels = max(int(np.log2(target.hole.shape[0] / COARSEST_ROWS)), 0)
    rng = np.random.default_rng(seed)
    strange, border_segment = border_dissimilarity(
        target.features, target.known, target.hole, sources.features, sources.usable
    )
    nnf = picture = None
    for level in range(levels, -1, -1):
        factor = 2**level
        small, shown = _shrink(target, factor), _shrink_sources(sources, factor)
        usable = np.stack([_erode(mask) for mask in shown.usable])
        if not usable.any():
            continue
        detail = np.stack([_detail(features[..., 0]) for features in shown.features])
        search = _Search(small, shown, usable, ALIEN * strange, border_segment[::factor, ::factor], factor, detail)
        centers = _dilate(small.hole)
        nnf = _start(nnf, centers, usable, rng)
        picture = small.features.copy()
        passes = PASSES[min(levels - level, len(PASSES) - 1)]
        _paint(picture, search, centers, nnf, passes, first=level == levels, last=level == 0, rng=rng)
    return target.features if picture is None else picture


def blend_in(
    rgb: Float[Tensor, "3 h w"], source: Bool[Tensor, "1 h w"], hole: Bool[Tensor, "1 h w"]
) -> Float[Tensor, "3 h w"]:
    """Add to the filled part the smooth field that takes away the color step along its border with ``source``."""
    weight = torch.zeros_like(rgb[:1])
    step = torch.zeros_like(rgb)
    for axis, shift in ((-1, 1), (-1, -1), (-2, 1), (-2, -1)):
        neighbor_is_source = torch.roll(source, shift, axis) & hole
        index = 0 if shift == 1 else -1
        neighbor_is_source.select(axis, index).fill_(False)
        step += (torch.roll(rgb, shift, axis) - rgb).clamp(-LARGEST_STEP, LARGEST_STEP) * neighbor_is_source
        weight += neighbor_is_source
    border = weight > 0
    if not border.any():
        return rgb

    def smoothed(values: Tensor) -> Tensor:
        return torch.from_numpy(ndimage.gaussian_filter(values.numpy(), (0, BLEND_PX, BLEND_PX)))

    mean_step = smoothed(step) / smoothed(weight).clamp_min(1e-3)
    correction = smooth_fill(torch.where(border, mean_step, 0.0)[None], border[None])[0]
    distance = torch.from_numpy(distance_px(border[0].numpy())).to(rgb)
    return torch.where(hole, (rgb + correction * torch.exp(-distance / BLEND_REACH_PX)).clamp(0.0, 1.0), rgb)


def _paint(picture, search: _Search, centers, nnf, passes, *, first, last, rng) -> None:
    small, source = search.target, search.sources.features
    ys, xs = (part.astype(np.int64) for part in np.nonzero(centers))
    trust = TRUST_DECAY ** -distance_px(small.known)
    cost = np.zeros(centers.shape, np.float32)
    mean_uses = max(len(ys) / search.usable.sum(), 1.0)
    if not first:
        vote(picture, source, small.hole, small.target_depth, small.depth_weight, nnf, cost, trust, 1.0, False)
    for turn in range(passes):
        inside = np.float32(1e-3) if first and turn == 0 else trust
        weight = np.where(small.known, 1.0, np.where(small.hole, inside, 0.0)).astype(np.float32)
        improve(
            picture, weight, source, search.usable, search.sources.source_cost, search.dissimilarity, search.factor, search.border_segment,
            search.detail, mean_uses, small.target_depth, small.depth_weight, ys, xs, nnf, cost,
            4 if first else 2, max(centers.shape) if first else 16, int(rng.integers(2**31)),
        )  # fmt: skip
        scale = max(float(np.quantile(cost[ys, xs], 0.6)), 1e-5)
        vote(
            picture, source, small.hole, small.target_depth, small.depth_weight, nnf, cost, trust, 0.5 * scale,
            last and turn == passes - 1,
        )  # fmt: skip


def _detail(lightness: np.ndarray) -> np.ndarray:
    """How much there is in each patch that one would see again, 0..1."""
    mean = ndimage.uniform_filter(lightness, 2 * RADIUS + 1)
    variance = ndimage.uniform_filter(lightness**2, 2 * RADIUS + 1) - mean**2
    return np.clip(np.sqrt(np.maximum(variance, 0.0)) / DETAILED, PLAIN, 1.0)


def _start(nnf, centers, usable, rng) -> np.ndarray:
    """The coarser field at twice the size, or a random one; always usable at the centers and -1 elsewhere."""
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
    is_hole = hole > 0.3
    counted = target.known[..., None]
    features = _pool(target.features * counted, factor) / np.maximum(known[..., None], 1e-6)
    target_depth = _pool(target.target_depth[..., None], factor)[..., 0]
    depth_weight = _pool(target.depth_weight[..., None], factor)[..., 0]
    return Target(features, (known > 0.3) & ~is_hole, is_hole, target_depth, depth_weight)


def _shrink_sources(sources: Sources, factor: int) -> Sources:
    if factor == 1:
        return sources
    share = np.stack([_pool(mask[..., None], factor) for mask in sources.usable])
    features = np.stack(
        [_pool(f * m[..., None], factor) for f, m in zip(sources.features, sources.usable, strict=True)]
    ) / np.maximum(share, 1e-6)
    source_cost = np.stack([_pool(d[..., None], factor)[..., 0] for d in sources.source_cost])
    return Sources(features, share[..., 0] > 0.7, source_cost)


def _pool(values: np.ndarray, factor: int) -> np.ndarray:
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
