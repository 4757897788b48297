"""Kernels of `geometry.depth.picture_solver`; rows ``first .. last - 1`` each, see `geometry.jit`.

A pixel is tied to the next one in its row and to three in the row below, so that each pair is tied once.
"""

from __future__ import annotations

import math

import numpy as np

from geometry.jit import compiled

DOWN = np.array([0, 1, 1, 1])
RIGHT = np.array([1, -1, 0, 1])


@compiled
def tie_neighbors(first, last, lab, side, scale, leak, ties):
    """Weight between pixels and four of their neighbors, ``ties [4 h w]``: by color, none to another side."""
    height, width = side.shape
    for y in range(first, last):
        for k in range(4):
            v = y + DOWN[k]
            for x in range(width):
                u = x + RIGHT[k]
                weight = 0.0
                if v < height and 0 <= u < width and side[y, x] == side[v, u]:
                    square = 0.0
                    for c in range(3):
                        square += (lab[y, x, c] - lab[v, u, c]) ** 2
                    weight = math.exp(-square / scale**2) + leak
                ties[k, y, x] = weight


@compiled
def set_up(first, last, ties, values, sloping, trust, smoothness, diagonal, wanted):
    """Diagonal and right side of the system; ties between sloping pixels keep the rise of the values."""
    height, width = values.shape
    for y in range(first, last):
        for x in range(width):
            total, rises = 0.0, 0.0
            for k in range(4):
                for sign in (1, -1):
                    v, u = y + sign * DOWN[k], x + sign * RIGHT[k]
                    if 0 <= v < height and 0 <= u < width:
                        tie = ties[k, y, x] if sign > 0 else ties[k, v, u]
                        total += tie
                        rises += tie * min(sloping[y, x], sloping[v, u]) * (values[y, x] - values[v, u])
            diagonal[y, x] = trust[y, x] + smoothness * total
            wanted[y, x] = trust[y, x] * values[y, x] + smoothness * rises


@compiled
def multiply(first, last, ties, diagonal, smoothness, x_in, product, dots):
    """The system times ``x_in``; ``dots`` gets the scalar product of the two, by row."""
    height, width = x_in.shape
    for y in range(first, last):
        dot = 0.0
        for x in range(width):
            around = 0.0
            for k in range(4):
                for sign in (1, -1):
                    v, u = y + sign * DOWN[k], x + sign * RIGHT[k]
                    if 0 <= v < height and 0 <= u < width:
                        around += (ties[k, y, x] if sign > 0 else ties[k, v, u]) * x_in[v, u]
            value = diagonal[y, x] * x_in[y, x] - smoothness * around
            product[y, x] = value
            dot += value * x_in[y, x]
        dots[y] = dot


@compiled
def advance(first, last, step, direction, product, diagonal, solution, residual, dots):
    """One step of conjugate gradients; ``dots`` gets the square of the preconditioned residual, by row."""
    width = solution.shape[1]
    for y in range(first, last):
        dot = 0.0
        for x in range(width):
            solution[y, x] += step * direction[y, x]
            rest = residual[y, x] - step * product[y, x]
            residual[y, x] = rest
            dot += rest * rest / diagonal[y, x]
        dots[y] = dot


@compiled
def turn(first, last, share, residual, diagonal, direction):
    """The next direction: the preconditioned residual and a share of the last direction."""
    for y in range(first, last):
        for x in range(direction.shape[1]):
            direction[y, x] = residual[y, x] / diagonal[y, x] + share * direction[y, x]


@compiled
def refine(first, last, coarse, coarse_lab, coarse_side, lab, side, scale, out):
    """``coarse`` at twice the size: means of the nearest four pixels, of those more that have a pixel's color."""
    height, width = coarse.shape
    for y in range(first, last):
        for x in range(side.shape[1]):
            # The block that holds the pixel, and the nearer neighbor of it along each axis.
            v, u = min(y // 2, height - 1), min(x // 2, width - 1)
            total, mean = 0.0, 0.0
            for dv in (0, 2 * (y % 2) - 1):
                for du in (0, 2 * (x % 2) - 1):
                    j, i = min(max(v + dv, 0), height - 1), min(max(u + du, 0), width - 1)
                    square = 0.0
                    for c in range(3):
                        square += (lab[y, x, c] - coarse_lab[j, i, c]) ** 2
                    weight = (3.0 if dv == 0 else 1.0) * (3.0 if du == 0 else 1.0) * math.exp(-square / scale**2) + 1e-6
                    if side[y, x] != coarse_side[j, i]:
                        weight *= 1e-3
                    total += weight
                    mean += weight * coarse[j, i]
            out[y, x] = mean / total
