"""Fill wide holes of a picture with patches of what the world already shows, coarse to fine."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import ndimage
from scipy.spatial import KDTree
from torch import Tensor

from diffusion.distance import distance_px
from diffusion.patchmatch import RADIUS, improve, vote
from geometry.project import smooth_fill

COARSEST_ROWS = 20  # the pyramid stops before a picture has fewer rows
PASSES = (10, 5, 3, 2)  # search and repaint, from the coarsest level on; the last number repeats
DEPTH_WEIGHT = 0.3  # of the depth code among the colour channels
TRUST_DECAY = 1.25  # per pixel away from what is known
REPEAT = 0.1  # cost of using a source twice as often as would be even; less of it makes streaks
ALIEN = 0.05  # cost of copying what is wholly unlike the border of the hole
RIM_PX = 10.0  # width of the border of a hole that says what it is made of
RIM_SAMPLES = 256
LOOK_PX = 2.5  # extent of what is compared with it
LOOK_STEP = 4
STRANGE = 0.08  # difference from everything at the border at which a source becomes strange
BLEND_PX = 4.0  # smoothing, along the border, of the colour step that blending removes
BLEND_REACH_PX = 20.0  # how far into the hole the correction is felt
LARGEST_STEP = 0.15  # a larger step is an edge of the picture, not a seam


@dataclass(frozen=True)
class Painting:
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
    wanted: Float[np.ndarray, "h w"]
    pull: Float[np.ndarray, "h w"]


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
    doubt: Float[np.ndarray, "s h w"]


def to_features(
    rgb: Float[np.ndarray, "*b 3 h w"], code: Float[np.ndarray, "*b 1 h w"]
) -> Float[np.ndarray, "*b h w 4"]:
    """Colours in 0..1 and depth code in -1..1 as features."""
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


def fill(painting: Painting, sources: Sources, seed: int) -> Float[np.ndarray, "h w 4"]:
    """Fill the hole with source patches that agree with what is around it, with its depth, and with each other.

    Returns:
        Features, changed only inside the hole.
    """
    height = painting.hole.shape[0]
    levels = max(int(np.log2(height / COARSEST_ROWS)), 0)
    rng = np.random.default_rng(seed)
    sources = replace(sources, doubt=sources.doubt + ALIEN * strangeness(painting, sources))
    field = picture = None
    for level in range(levels, -1, -1):
        small, shown = _shrink(painting, 2**level), _shrink_sources(sources, 2**level)
        centers = _dilate(small.hole)
        usable = np.stack([_erode(mask) for mask in shown.usable])
        if not usable.any():
            continue
        field = _start(field, centers, usable, rng)
        picture = small.features.copy()
        passes = PASSES[min(levels - level, len(PASSES) - 1)]
        _paint(picture, small, shown, usable, centers, field, passes, first=level == levels, last=level == 0, rng=rng)
    return painting.features if picture is None else picture


def strangeness(painting: Painting, sources: Sources) -> Float[np.ndarray, "s h w"]:
    """How unlike each source is, 0..1, to everything along the border of the hole.

    What goes on beyond a border touches it: sky, water, trees, walls. A thing that stands alone elsewhere does not.
    """
    rim = painting.known & (distance_px(painting.hole) <= RIM_PX)
    ys, xs = np.nonzero(rim)
    if not len(ys):
        return np.zeros_like(sources.doubt)
    at_rim = _look(painting.features, painting.known)[ys, xs][:: max(len(ys) // RIM_SAMPLES, 1)]
    looks = np.stack([_look(f, m) for f, m in zip(sources.features, sources.usable, strict=True)])
    coarse = looks[:, ::LOOK_STEP, ::LOOK_STEP]
    distance = KDTree(at_rim).query(coarse.reshape(-1, coarse.shape[-1]))[0].reshape(coarse.shape[:3])
    strange = np.clip(0.5 * (distance / STRANGE - 1.0), 0.0, 1.0).astype(np.float32)
    full = strange.repeat(LOOK_STEP, 1).repeat(LOOK_STEP, 2)
    return full[:, : looks.shape[1], : looks.shape[2]]


def _look(features: Float[np.ndarray, "h w 4"], mask: Bool[np.ndarray, "h w"]) -> Float[np.ndarray, "h w 4"]:
    """Mean colour and contrast of the surroundings of each pixel."""

    def mean(values: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(values * mask, LOOK_PX) / np.maximum(share, 1e-3)

    share = ndimage.gaussian_filter(mask.astype(np.float32), LOOK_PX)
    colour = [mean(features[..., c]) for c in range(3)]
    contrast = np.sqrt(np.maximum(mean(features[..., 0] ** 2) - colour[0] ** 2, 0.0))
    return np.stack([*colour, contrast], -1)


def blend_in(
    rgb: Float[Tensor, "3 h w"], source: Bool[Tensor, "1 h w"], hole: Bool[Tensor, "1 h w"]
) -> Float[Tensor, "3 h w"]:
    """Add to the filled part the smooth field that takes away the colour step along its border with ``source``."""
    weight = torch.zeros_like(rgb[:1])
    step = torch.zeros_like(rgb)
    for axis, shift in ((-1, 1), (-1, -1), (-2, 1), (-2, -1)):
        neighbour_is_source = torch.roll(source, shift, axis) & hole
        index = 0 if shift == 1 else -1
        neighbour_is_source.select(axis, index).fill_(False)
        step += (torch.roll(rgb, shift, axis) - rgb).clamp(-LARGEST_STEP, LARGEST_STEP) * neighbour_is_source
        weight += neighbour_is_source
    border = weight > 0
    if not border.any():
        return rgb

    def smoothed(values: Tensor) -> Tensor:
        return torch.from_numpy(ndimage.gaussian_filter(values.numpy(), (0, BLEND_PX, BLEND_PX)))

    mean_step = smoothed(step) / smoothed(weight).clamp_min(1e-3)
    correction = smooth_fill(torch.where(border, mean_step, 0.0)[None], border[None])[0]
    distance = torch.from_numpy(distance_px(border[0].numpy())).to(rgb)
    return torch.where(hole, (rgb + correction * torch.exp(-distance / BLEND_REACH_PX)).clamp(0.0, 1.0), rgb)


def _paint(picture, small, shown, usable, centers, field, passes, *, first, last, rng) -> None:
    ys, xs = (part.astype(np.int64) for part in np.nonzero(centers))
    distance = distance_px(small.known)
    trust = TRUST_DECAY**-distance
    cost = np.zeros(centers.shape, np.float32)
    evenly = max(len(ys) / usable.sum(), 1.0)
    if not first:
        vote(picture, shown.features, small.hole, small.wanted, small.pull, field, cost, trust, 1.0, False)
    for turn in range(passes):
        inside = np.float32(1e-3) if first and turn == 0 else trust
        weight = np.where(small.known, 1.0, np.where(small.hole, inside, 0.0)).astype(np.float32)
        bias = (shown.doubt + REPEAT * _overuse(field, ys, xs, usable.shape, evenly)).astype(np.float32)
        reach = max(centers.shape) if first else 16
        improve(
            picture, weight, shown.features, usable, bias, small.wanted, small.pull, ys, xs, field, cost,
            4 if first else 2, reach, int(rng.integers(2**31)),
        )  # fmt: skip
        scale = max(float(np.quantile(cost[ys, xs], 0.6)), 1e-5)
        vote(
            picture, shown.features, small.hole, small.wanted, small.pull, field, cost, trust, 0.5 * scale,
            last and turn == passes - 1,
        )  # fmt: skip


def _overuse(field, ys, xs, shape, evenly) -> np.ndarray:
    """How often the surroundings of each source are used, beyond an even spread."""
    count = np.zeros(shape, np.float32)
    s, sy, sx = field[ys, xs].T
    np.add.at(count, (s, sy, sx), 1.0)
    mean = np.stack([ndimage.uniform_filter(part, 2 * RADIUS + 1, mode="nearest") for part in count])
    return np.maximum(mean / evenly - 1.0, 0.0)


def _start(field, centers, usable, rng) -> np.ndarray:
    """The coarser field at twice the size, or a random one; always usable at the centres and -1 elsewhere."""
    height, width = centers.shape
    ys, xs = np.nonzero(centers)
    choices = np.argwhere(usable)
    chosen = choices[rng.integers(len(choices), size=len(ys))]
    if field is not None:
        coarse = field[np.minimum(ys // 2, field.shape[0] - 1), np.minimum(xs // 2, field.shape[1] - 1)]
        fine = coarse * np.array([1, 2, 2]) + np.stack([0 * ys, ys % 2, xs % 2], 1)
        fine[:, 1:] = np.clip(fine[:, 1:], 0, [height - 1, width - 1])
        good = (coarse[:, 0] >= 0) & usable[fine[:, 0], fine[:, 1], fine[:, 2]]
        chosen = np.where(good[:, None], fine, chosen)
    started = np.full((height, width, 3), -1, np.int64)
    started[ys, xs] = chosen
    return started


def _shrink(painting: Painting, factor: int) -> Painting:
    if factor == 1:
        return painting
    known, hole = _pool(painting.known[..., None], factor)[..., 0], _pool(painting.hole[..., None], factor)[..., 0]
    is_hole = hole > 0.3
    counted = painting.known[..., None]
    features = _pool(painting.features * counted, factor) / np.maximum(known[..., None], 1e-6)
    wanted = _pool(painting.wanted[..., None], factor)[..., 0]
    pull = _pool(painting.pull[..., None], factor)[..., 0]
    return Painting(features, (known > 0.3) & ~is_hole, is_hole, wanted, pull)


def _shrink_sources(sources: Sources, factor: int) -> Sources:
    if factor == 1:
        return sources
    share = np.stack([_pool(mask[..., None], factor) for mask in sources.usable])
    features = np.stack(
        [_pool(f * m[..., None], factor) for f, m in zip(sources.features, sources.usable, strict=True)]
    ) / np.maximum(share, 1e-6)
    doubt = np.stack([_pool(d[..., None], factor)[..., 0] for d in sources.doubt])
    return Sources(features, share[..., 0] > 0.7, doubt)


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
