"""Numba kernels of `geometry.fill`: down and up the pyramid of push-pull filling."""

from __future__ import annotations

import numpy as np

from geometry.jit import compiled

_zero, _half, _one = np.float32(0.0), np.float32(0.5), np.float32(1.0)
_TINY = np.float32(1e-20)  # as `geometry.fill.TINY`


@compiled(fastmath=False)
def push(start, stop, weighted, weight, coarse_weighted, coarse_weight):
    """Sum up a level to the next coarser one, whose weights are at most 1.

    Args:
        start, stop: rows of the coarser level.
        weighted: ``[c h w]`` values times their weights.
        weight: ``[h w]``.
        coarse_weighted: ``[c h2 w2]`` gets the means over 2x2 pixels, at the borders over fewer.
        coarse_weight: ``[h2 w2]`` likewise.
    """
    channels, height, width = weighted.shape
    for row in range(start, stop):
        bottom = min(2 * row + 2, height)
        for column in range(coarse_weight.shape[1]):
            right = min(2 * column + 2, width)
            share = _one / np.float32((bottom - 2 * row) * (right - 2 * column))
            total = _zero
            for y in range(2 * row, bottom):
                for x in range(2 * column, right):
                    total += weight[y, x]
            mean = total * share
            scale = min(mean, _one) / max(mean, _TINY)
            coarse_weight[row, column] = mean * scale
            for channel in range(channels):
                found = _zero
                for y in range(2 * row, bottom):
                    for x in range(2 * column, right):
                        found += weighted[channel, y, x]
                coarse_weighted[channel, row, column] = found * share * scale


@compiled(fastmath=False)
def pull(start, stop, weighted, weight, coarse, filled):
    """Fill the part of a level that is not known from the coarser one, bilinearly.

    Args:
        start, stop: rows of the level.
        weighted: ``[c h w]`` values times their weights.
        weight: ``[h w]``.
        coarse: ``[c h2 w2]``, filled.
        filled: ``[c h w]`` gets the level.
    """
    channels, height, width = weighted.shape
    down, across = np.float32(coarse.shape[1]) / np.float32(height), np.float32(coarse.shape[2]) / np.float32(width)
    last_row, last_column = coarse.shape[1] - 1, coarse.shape[2] - 1
    for row in range(start, stop):
        y = max((np.float32(row) + _half) * down - _half, _zero)
        top = min(np.int64(y), last_row)
        below, v = min(top + 1, last_row), y - np.float32(top)
        for column in range(width):
            certain, mass = min(weight[row, column], _one), max(weight[row, column], _TINY)
            if certain >= _one:
                for channel in range(channels):
                    filled[channel, row, column] = weighted[channel, row, column] / mass
                continue
            x = max((np.float32(column) + _half) * across - _half, _zero)
            left = min(np.int64(x), last_column)
            beside, u = min(left + 1, last_column), x - np.float32(left)
            for channel in range(channels):
                upper = coarse[channel, top, left] * (_one - u) + coarse[channel, top, beside] * u
                lower = coarse[channel, below, left] * (_one - u) + coarse[channel, below, beside] * u
                smooth = upper * (_one - v) + lower * v
                mean = weighted[channel, row, column] / mass
                filled[channel, row, column] = certain * mean + (_one - certain) * smooth
