"""Patch correspondences: for every patch that touches the unknown, the best patch elsewhere (PatchMatch).

Barnes et al., "PatchMatch: a randomized correspondence algorithm for structural image editing", SIGGRAPH 2009, with
voting as in Wexler et al., "Space-time completion of video", PAMI 2007.
"""

from __future__ import annotations

import inspect
import math

import numba
import numpy as np

from diffusion.inpainting.source_plausibility import LOOK_STEP

RADIUS = 3  # patches are 7x7
WORST = 1e9


def _patch_cost_bare(
    picture: np.ndarray,
    weight: np.ndarray,
    source: np.ndarray,
    source_cost: np.ndarray,
    dissimilarity: np.ndarray,
    factor: int,
    target_depth: np.ndarray,
    depth_weight: np.ndarray,
    border_segment: int,
    y: int,
    x: int,
    s: int,
    sy: int,
    sx: int,
    best: float,
) -> float:
    """Cost of explaining the patch at ``(y, x)`` by the source patch at ``(s, sy, sx)``; may stop above ``best``."""
    height, width, channels = picture.shape
    row = (sy - y) / height
    near = source[s, sy, sx, channels - 1] - target_depth[y, x]
    # A surface nearer than what is wanted is far worse than one behind it.
    depth = depth_weight[y, x] * (4.0 * max(near - NEARER, 0.0) + max(-near - FARTHER, 0.0))
    own = source_cost[s, sy, sx] + dissimilarity[border_segment, s, sy * factor // LOOK_STEP, sx * factor // LOOK_STEP]
    fixed = own + min(ROW * row * row, ROW_MOST) + DEPTH * min(depth, 1.0)
    if fixed >= best:
        return WORST
    total, sum_weight = 0.0, 1e-3
    for dy in range(-RADIUS, RADIUS + 1):
        if 0 <= y + dy < height:
            for dx in range(-RADIUS, RADIUS + 1):
                if 0 <= x + dx < width:
                    sum_weight += weight[y + dy, x + dx]
    limit = (best - fixed) * sum_weight
    for dy in range(-RADIUS, RADIUS + 1):
        ty = y + dy
        if ty < 0 or ty >= height:
            continue
        for dx in range(-RADIUS, RADIUS + 1):
            tx = x + dx
            if tx < 0 or tx >= width:
                continue
            w = weight[ty, tx]
            if w > 0.0:
                part = 0.0
                for c in range(channels):
                    step = picture[ty, tx, c] - source[s, sy + dy, sx + dx, c]
                    part += step * step
                total += w * part
        if total >= limit:
            return WORST
    return total / sum_weight + fixed


NEARER, FARTHER = 0.08, 0.15  # differences from the wanted depth code that cost nothing
ROW = 1.5  # a source from another height of the picture: at most ROW_MOST
ROW_MOST = 0.06
DEPTH = 0.5
CELL = 4  # extent of a place, of which it is counted how often it is copied
REPEAT = 0.01  # cost of a source with much detail that is used far more often than would be even
ALONE = 0.01  # cost of a patch none of whose neighbors copies the same piece
VETO = 50.0  # per unit of depth code


def _overuse_bare(use: np.ndarray, mean_uses: float, detail: np.ndarray, s: int, sy: int, sx: int) -> float:
    """Cost of copying from a place once more."""
    share = mean_uses * CELL * CELL / (use[s, sy // CELL, sx // CELL] + 1.0)
    return REPEAT * detail[s, sy, sx] * max(1.0 - share, 0.0)


def _alone_bare(nnf: np.ndarray, y: int, x: int, s: int, sy: int, sx: int) -> float:
    """Cost of ``(y, x)`` copying from ``(s, sy, sx)`` as far as its neighbors copy other pieces: whole stays whole."""
    height, width = nnf.shape[:2]
    count = 0
    for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        ny, nx = y + dy, x + dx
        if 0 <= ny < height and 0 <= nx < width and nnf[ny, nx, 0] >= 0:
            same = nnf[ny, nx, 0] == s and nnf[ny, nx, 1] == sy + dy and nnf[ny, nx, 2] == sx + dx
            count += not same
    return ALONE * 0.25 * count


def _improve_bare(
    picture: np.ndarray,
    weight: np.ndarray,
    source: np.ndarray,
    usable: np.ndarray,
    source_cost: np.ndarray,
    dissimilarity: np.ndarray,
    factor: int,
    border_segment: np.ndarray,
    detail: np.ndarray,
    mean_uses: float,
    target_depth: np.ndarray,
    depth_weight: np.ndarray,
    ys: np.ndarray,
    xs: np.ndarray,
    nnf: np.ndarray,
    cost: np.ndarray,
    rounds: int,
    reach: int,
    seed: int,
) -> None:
    """Improve the correspondence ``nnf [h w 3]`` in place by propagation and random search.

    Copying from a source costs ``source_cost [s h w]`` and ``dissimilarity [n s h4 w4]``, given for every ``LOOK_STEP``-th pixel of the
    picture ``factor`` times as large and for each border_segment of the hole's border, of which ``border_segment [h w]`` names one.
    Using a place more than ``mean_uses`` costs as well, by how much ``detail [s h w]`` it has; who copies from where is
    counted as it changes, or all would leave what is used too often at once, and for the same place. So does copying
    another piece than the neighbors. ``cost [h w]`` is without these two: how well a patch fits and suits.
    """
    count, height, width = usable.shape
    use = np.zeros((count, height // CELL + 1, width // CELL + 1))
    state = np.uint64(seed * 2654435761 + 88172645463325252)
    for n in range(len(ys)):
        y, x = ys[n], xs[n]
        s, sy, sx = nnf[y, x]
        cost[y, x] = _patch_cost(
            picture,
            weight,
            source,
            source_cost,
            dissimilarity,
            factor,
            target_depth,
            depth_weight,
            border_segment[y, x],
            y,
            x,
            s,
            sy,
            sx,
            2 * WORST,
        )
        use[s, sy // CELL, sx // CELL] += 1.0
    for turn in range(rounds):
        sign = 1 if turn % 2 == 0 else -1
        for k in range(len(ys)):
            n = k if sign == 1 else len(ys) - 1 - k
            y, x = ys[n], xs[n]
            s, sy, sx = nnf[y, x]
            use[s, sy // CELL, sx // CELL] -= 1.0
            best = cost[y, x] + _overuse(use, mean_uses, detail, s, sy, sx) + _alone(nnf, y, x, s, sy, sx)
            side, radius = 0, reach
            while radius >= 1:
                if side < 2:  # what the neighbors copy, moved along
                    ny, nx = (y - sign, x) if side == 0 else (y, x - sign)
                    side += 1
                    if ny < 0 or ny >= height or nx < 0 or nx >= width or nnf[ny, nx, 0] < 0:
                        continue
                    s, sy, sx = nnf[ny, nx, 0], nnf[ny, nx, 1] + y - ny, nnf[ny, nx, 2] + x - nx
                else:  # something at random, nearer and nearer
                    state ^= state << np.uint64(13)
                    state ^= state >> np.uint64(7)
                    state ^= state << np.uint64(17)
                    a = np.int64(state & np.uint64(0xFFFFF)) / 1048576.0
                    b = np.int64((state >> np.uint64(20)) & np.uint64(0xFFFFF)) / 1048576.0
                    d = np.int64((state >> np.uint64(40)) & np.uint64(0xFFFFF)) / 1048576.0
                    s = int(d * count) if radius == reach else nnf[y, x, 0]
                    # Rows matter more than columns: search wide, not tall.
                    sy = nnf[y, x, 1] + int((2.0 * a - 1.0) * (0.5 * radius + 1.0))
                    sx = nnf[y, x, 2] + int((2.0 * b - 1.0) * (radius + 1.0))
                    radius //= 2
                if sy < 0 or sy >= height or sx < 0 or sx >= width or not usable[s, sy, sx]:
                    continue
                extra = _overuse(use, mean_uses, detail, s, sy, sx) + _alone(nnf, y, x, s, sy, sx)
                c = _patch_cost(
                    picture, weight, source, source_cost, dissimilarity, factor, target_depth, depth_weight, border_segment[y, x],
                    y, x, s, sy, sx, best - extra,
                )  # fmt: skip
                if c + extra < best:
                    best, cost[y, x] = c + extra, c
                    nnf[y, x, 0], nnf[y, x, 1], nnf[y, x, 2] = s, sy, sx
            s, sy, sx = nnf[y, x]
            use[s, sy // CELL, sx // CELL] += 1.0


def _vote_bare(
    picture: np.ndarray,
    source: np.ndarray,
    hole: np.ndarray,
    target_depth: np.ndarray,
    depth_weight: np.ndarray,
    nnf: np.ndarray,
    cost: np.ndarray,
    trust: np.ndarray,
    scale: float,
    single: bool,
) -> None:
    """Repaint the hole: each pixel is what the patches over it say, weighted by how well they fit (or the best one).

    What a patch says of a pixel counts little where it is nearer than is wanted there.
    """
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
                    near = max(source[s, sy, sx, channels - 1] - target_depth[y, x] - NEARER, 0.0)
                    w = trust[py, px] * math.exp(-cost[py, px] / scale - 0.08 * (dy * dy + dx * dx)) + 1e-20
                    w *= math.exp(-VETO * depth_weight[y, x] * near)
                    if single:
                        if w > most:
                            most = w
                            total = 1.0
                            for c in range(channels):
                                value[c] = source[s, sy, sx, c]
                    else:
                        total += w
                        for c in range(channels):
                            value[c] += w * source[s, sy, sx, c]
            if total > 0.0:
                for c in range(channels):
                    picture[y, x, c] = value[c] / total


# Shape checkers wrap every function in tests; Numba wants the bare ones.
_patch_cost = numba.njit(cache=True, fastmath=True)(inspect.unwrap(_patch_cost_bare))
_overuse = numba.njit(cache=True, fastmath=True)(inspect.unwrap(_overuse_bare))
_alone = numba.njit(cache=True, fastmath=True)(inspect.unwrap(_alone_bare))
improve = numba.njit(cache=True, fastmath=True)(inspect.unwrap(_improve_bare))
vote = numba.njit(cache=True, fastmath=True)(inspect.unwrap(_vote_bare))
