"""Patch correspondences: for every patch that touches the unknown, the best patch elsewhere (PatchMatch).

Barnes et al., "PatchMatch: a randomized correspondence algorithm for structural image editing", SIGGRAPH 2009, with
voting as in Wexler et al., "Space-time completion of video", PAMI 2007. Numba kernels; arrays travel in tuples.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from diffusion.inpainting.config import PatchCosts
from geometry.jit import compiled

RADIUS = 3  # pixels; patches are 7x7. Kernel distance .120; with radius 2 .145, with 5 .117 (60 clips)
CELL = 4  # pixels: how often a source is used is counted per cell of this size
SAMPLE_STEP = 4  # dissimilarity is given for every fourth pixel of the full-size sources
_WORST = 1e9  # cost of a patch that is certainly not the best
_EVEN_WEIGHT = 1e-20  # so that a pixel whose patches all fit badly still gets their mean
_PATCH_FALLOFF = 0.08  # of a vote per squared pixel from the patch's center


class PatchTarget(NamedTuple):
    """One pyramid level of the picture to fill.

    Attributes:
        picture: ``[h w c]`` features, the depth feature last; the hole is repainted in place.
        weight: ``[h w]``, of each pixel in the distance between patches.
        hole: ``[h w]``.
        depth: ``[h w]``, depth feature that the hole should have.
        depth_weight: ``[h w]``, how strictly, 0..1.
        segment: ``[h w]``, index of the nearest segment of the hole's border.
    """

    picture: np.ndarray
    weight: np.ndarray
    hole: np.ndarray
    depth: np.ndarray
    depth_weight: np.ndarray
    segment: np.ndarray


class PatchSources(NamedTuple):
    """The same level of the pictures to copy from.

    Attributes:
        features: ``[s h w c]``.
        usable: ``[s h w]``, whether the whole patch may be copied.
        cost: ``[s h w]``, of copying the pixel.
        dissimilarity: ``[n s h4 w4]``, cost by segment of the border, of every `SAMPLE_STEP`-th pixel at full size.
        factor: how much larger the pictures are at full size.
        detail: ``[s h w]``, how visible repetition of the patch is, 0..1.
    """

    features: np.ndarray
    usable: np.ndarray
    cost: np.ndarray
    dissimilarity: np.ndarray
    factor: int
    detail: np.ndarray


class Correspondences(NamedTuple):
    """Which source patch each target patch copies.

    Attributes:
        ys, xs: ``[n]``, centers of the patches that touch the hole.
        nnf: ``[h w 3]``, source index, row and column of each center, -1 elsewhere; improved in place.
        cost: ``[h w]``, of each center's patch without repetition and incoherence; updated in place.
    """

    ys: np.ndarray
    xs: np.ndarray
    nnf: np.ndarray
    cost: np.ndarray


@compiled
def _patch_cost(
    target: PatchTarget, sources: PatchSources, costs: PatchCosts, y: int, x: int, s: int, sy: int, sx: int, best: float
) -> float:
    """Cost of filling the patch at ``(y, x)`` from source patch ``(s, sy, sx)``; `_WORST` as soon as above ``best``.

    Args:
        target: the picture to fill.
        sources: the pictures to copy from.
        costs: weights of the cost.
        y, x: center of the target patch.
        s, sy, sx: source and center of its patch.
        best: cost above which the exact value does not matter.
    """
    height, width, channels = target.picture.shape
    row = (sy - y) / height
    near = sources.features[s, sy, sx, channels - 1] - target.depth[y, x]
    # A foreground surface copied into the hole is far worse than one behind it.
    depth = target.depth_weight[y, x] * (
        costs.foreground * max(near - costs.nearer, 0.0) + max(-near - costs.farther, 0.0)
    )
    segment, factor = target.segment[y, x], sources.factor
    own = (
        sources.cost[s, sy, sx]
        + sources.dissimilarity[segment, s, sy * factor // SAMPLE_STEP, sx * factor // SAMPLE_STEP]
    )
    fixed = own + min(costs.row * row * row, costs.row_limit) + costs.depth * min(depth, 1.0)
    if fixed >= best:
        return _WORST
    total, sum_weight = 0.0, 1e-3
    for dy in range(-RADIUS, RADIUS + 1):
        if 0 <= y + dy < height:
            for dx in range(-RADIUS, RADIUS + 1):
                if 0 <= x + dx < width:
                    sum_weight += target.weight[y + dy, x + dx]
    limit = (best - fixed) * sum_weight
    for dy in range(-RADIUS, RADIUS + 1):
        ty = y + dy
        if ty < 0 or ty >= height:
            continue
        for dx in range(-RADIUS, RADIUS + 1):
            tx = x + dx
            if tx < 0 or tx >= width:
                continue
            w = target.weight[ty, tx]
            if w > 0.0:
                part = 0.0
                for c in range(channels):
                    step = target.picture[ty, tx, c] - sources.features[s, sy + dy, sx + dx, c]
                    part += step * step
                total += w * part
        if total >= limit:
            return _WORST
    return total / sum_weight + fixed


@compiled
def _repetition(
    use: np.ndarray, detail: np.ndarray, costs: PatchCosts, mean_uses: float, s: int, sy: int, sx: int
) -> float:
    """Cost of one more use of a source cell: 0 up to ``mean_uses`` per pixel, then saturating.

    Args:
        use: ``[s h/CELL w/CELL]``, patches that copy from each cell now.
        detail: ``[s h w]``, how visible repetition is, 0..1.
        costs: weights of the cost.
        mean_uses: uses per source pixel if all were used alike.
        s, sy, sx: the source pixel.
    """
    share = mean_uses * CELL * CELL / (use[s, sy // CELL, sx // CELL] + 1.0)
    return costs.repetition * detail[s, sy, sx] * max(1.0 - share, 0.0)


@compiled
def _incoherence(nnf: np.ndarray, costs: PatchCosts, y: int, x: int, s: int, sy: int, sx: int) -> float:
    """Cost of ``(y, x)`` copying ``(s, sy, sx)`` while its four neighbors copy other pieces, by their number.

    Args:
        nnf: ``[h w 3]``, source, row and column of each center, -1 elsewhere.
        costs: weights of the cost.
        y, x: center of the target patch.
        s, sy, sx: source and center of its patch.
    """
    height, width = nnf.shape[:2]
    count = 0
    for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        ny, nx = y + dy, x + dx
        if 0 <= ny < height and 0 <= nx < width and nnf[ny, nx, 0] >= 0:
            same = nnf[ny, nx, 0] == s and nnf[ny, nx, 1] == sy + dy and nnf[ny, nx, 2] == sx + dx
            count += not same
    return costs.incoherence * 0.25 * count


@compiled
def improve(
    target: PatchTarget,
    sources: PatchSources,
    field: Correspondences,
    costs: PatchCosts,
    mean_uses: float,
    rounds: int,
    reach: int,
    seed: int,
) -> None:
    """Improve the correspondences in place by propagation and random search.

    Args:
        target: the picture to fill.
        sources: the pictures to copy from.
        field: the correspondences, all usable; ``nnf`` and ``cost`` change.
        costs: weights of the cost.
        mean_uses: uses per source pixel from which repetition costs.
        rounds: sweeps over all centers, forwards and backwards in turn.
        reach: largest distance of the random search in pixels; halved until it is under one.
        seed: of the random search.
    """
    ys, xs, nnf, cost = field.ys, field.xs, field.nnf, field.cost
    count, height, width = sources.usable.shape
    # Uses are counted as they change: counted once a sweep, all patches would leave an overused place together, for
    # the same next place.
    use = np.zeros((count, height // CELL + 1, width // CELL + 1))
    state = np.uint64(seed * 2654435761 + 88172645463325252)
    for n in range(len(ys)):
        y, x = ys[n], xs[n]
        s, sy, sx = nnf[y, x]
        cost[y, x] = _patch_cost(target, sources, costs, y, x, s, sy, sx, 2 * _WORST)
        use[s, sy // CELL, sx // CELL] += 1.0
    for turn in range(rounds):
        sign = 1 if turn % 2 == 0 else -1
        for k in range(len(ys)):
            n = k if sign == 1 else len(ys) - 1 - k
            y, x = ys[n], xs[n]
            s, sy, sx = nnf[y, x]
            use[s, sy // CELL, sx // CELL] -= 1.0
            best = (
                cost[y, x]
                + _repetition(use, sources.detail, costs, mean_uses, s, sy, sx)
                + _incoherence(nnf, costs, y, x, s, sy, sx)
            )
            side, radius = 0, reach
            while radius >= 1:
                if side < 2:  # propagation: the source of the neighbor, shifted along
                    ny, nx = (y - sign, x) if side == 0 else (y, x - sign)
                    side += 1
                    if ny < 0 or ny >= height or nx < 0 or nx >= width or nnf[ny, nx, 0] < 0:
                        continue
                    s, sy, sx = nnf[ny, nx, 0], nnf[ny, nx, 1] + y - ny, nnf[ny, nx, 2] + x - nx
                else:  # random search around the present source, in smaller and smaller windows (xorshift64)
                    state ^= state << np.uint64(13)
                    state ^= state >> np.uint64(7)
                    state ^= state << np.uint64(17)
                    a = np.int64(state & np.uint64(0xFFFFF)) / 1048576.0
                    b = np.int64((state >> np.uint64(20)) & np.uint64(0xFFFFF)) / 1048576.0
                    d = np.int64((state >> np.uint64(40)) & np.uint64(0xFFFFF)) / 1048576.0
                    s = int(d * count) if radius == reach else nnf[y, x, 0]
                    # Texture changes more with the height in the picture than across: the window is wide, not tall.
                    sy = nnf[y, x, 1] + int((2.0 * a - 1.0) * (0.5 * radius + 1.0))
                    sx = nnf[y, x, 2] + int((2.0 * b - 1.0) * (radius + 1.0))
                    radius //= 2
                if sy < 0 or sy >= height or sx < 0 or sx >= width or not sources.usable[s, sy, sx]:
                    continue
                extra = _repetition(use, sources.detail, costs, mean_uses, s, sy, sx) + _incoherence(
                    nnf, costs, y, x, s, sy, sx
                )
                c = _patch_cost(target, sources, costs, y, x, s, sy, sx, best - extra)
                if c + extra < best:
                    best, cost[y, x] = c + extra, c
                    nnf[y, x, 0], nnf[y, x, 1], nnf[y, x, 2] = s, sy, sx
            s, sy, sx = nnf[y, x]
            use[s, sy // CELL, sx // CELL] += 1.0


@compiled
def vote(
    target: PatchTarget,
    sources: PatchSources,
    field: Correspondences,
    costs: PatchCosts,
    confidence: np.ndarray,
    scale: float,
    single: bool,
) -> None:
    """Repaint the hole in place: each pixel is the mean of what the patches over it say, weighted by how well they fit.

    A patch's pixel that is nearer than the target depth there has little weight: it is foreground.

    Args:
        target: the picture; ``picture`` changes in the hole.
        sources: the pictures to copy from.
        field: the correspondences with their costs.
        costs: for the falloff of nearer pixels.
        confidence: ``[h w]``, weight of each patch.
        scale: cost at which a patch's weight falls to 1/e.
        single: take the pixel of the best patch instead of the mean, which softens texture.
    """
    picture, hole, nnf, cost = target.picture, target.hole, field.nnf, field.cost
    height, width, channels = picture.shape
    value = np.zeros(channels)
    for y in range(height):
        for x in range(width):
            if not hole[y, x]:
                continue
            value[:] = 0.0
            total, most = 0.0, 0.0
            for dy in range(-RADIUS, RADIUS + 1):
                for dx in range(-RADIUS, RADIUS + 1):
                    py, px = y + dy, x + dx
                    if py < 0 or py >= height or px < 0 or px >= width or nnf[py, px, 0] < 0:
                        continue
                    s, sy, sx = nnf[py, px, 0], nnf[py, px, 1] - dy, nnf[py, px, 2] - dx
                    near = max(sources.features[s, sy, sx, channels - 1] - target.depth[y, x] - costs.nearer, 0.0)
                    w = (
                        confidence[py, px] * math.exp(-cost[py, px] / scale - _PATCH_FALLOFF * (dy * dy + dx * dx))
                        + _EVEN_WEIGHT
                    )
                    w *= math.exp(-costs.veto * target.depth_weight[y, x] * near)
                    if single:
                        if w > most:
                            most = w
                            total = 1.0
                            for c in range(channels):
                                value[c] = sources.features[s, sy, sx, c]
                    else:
                        total += w
                        for c in range(channels):
                            value[c] += w * sources.features[s, sy, sx, c]
            if total > 0.0:
                for c in range(channels):
                    picture[y, x, c] = value[c] / total
