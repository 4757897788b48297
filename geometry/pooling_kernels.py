"""Numba kernels of `geometry.frame`: frames and guides at a fraction of their size."""

from __future__ import annotations

import numpy as np

from geometry.jit import compiled

_zero, _half, _one = np.float32(0.0), np.float32(0.5), np.float32(1.0)
_TINY, _LEVELS = np.float32(1e-10), np.float32(255.0)


@compiled(fastmath=False)
def pool_guide(start, stop, rgb, depth, coverage, confidence, sky, factor, limits, out):
    """Pool the maps of guides, see `geometry.frame.Guide.pooled`.

    Args:
        start, stop: rows of the pooled images, counted through all of them.
        rgb: ``[t 3 h w]``.
        depth, coverage, confidence, sky: ``[t h w]``.
        factor: side of a square, pixels.
        limits: coverage from which a pixel is covered, and share of sky above which it is sky.
        out: ``[t 7 h2 w2]`` gets rgb, depth, coverage, confidence, sky.
    """
    height, width, share = out.shape[2], out.shape[3], _one / np.float32(factor * factor)
    covered_from, sky_above = limits
    for index in range(start, stop):
        t, row = index // height, index % height
        for column in range(width):
            red, green, blue, cover, sure, open_air = _zero, _zero, _zero, _zero, _zero, _zero
            ground, above, ground_inverse, above_inverse = _zero, _zero, _zero, _zero
            for y in range(row * factor, (row + 1) * factor):
                for x in range(column * factor, (column + 1) * factor):
                    weight = coverage[t, y, x]
                    cover, sure = cover + weight, sure + confidence[t, y, x]
                    red, green = red + rgb[t, 0, y, x] * weight, green + rgb[t, 1, y, x] * weight
                    blue, open_air = blue + rgb[t, 2, y, x] * weight, open_air + sky[t, y, x] * weight
                    if weight >= covered_from:
                        far = depth[t, y, x]
                        inverse = _one / max(far, _TINY) if far > _zero else _zero
                        if sky[t, y, x] > sky_above:
                            above, above_inverse = above + _one, above_inverse + inverse
                        else:
                            ground, ground_inverse = ground + _one, ground_inverse + inverse
            over = share / max(cover * share, np.float32(1e-6))
            out[t, 0, row, column], out[t, 1, row, column], out[t, 2, row, column] = (
                red * over,
                green * over,
                blue * over,
            )
            found = _zero
            # The larger part, and of equal ones the sky.
            if above > _zero and above >= ground:
                found = above / max(above_inverse, _TINY)
            elif ground > _zero:
                found = ground / max(ground_inverse, _TINY)
            out[t, 3, row, column], out[t, 4, row, column] = found, cover * share
            out[t, 5, row, column], out[t, 6, row, column] = sure * share, open_air * over


@compiled(fastmath=False)
def pool_frame(start, stop, rgb, depth, valid, sky, factor, out, flags):
    """Pool RGB-D images, see `geometry.frame.Frame.pooled`.

    Args:
        start, stop: rows of the pooled images, counted through all of them.
        rgb: ``[t 3 h w]``.
        depth, valid, sky: ``[t h w]``.
        factor: side of a square, pixels.
        out: ``[t 4 h2 w2]`` gets rgb and depth.
        flags: ``[t 2 h2 w2]`` bool, gets valid and sky.
    """
    height, width, share = out.shape[2], out.shape[3], _one / np.float32(factor * factor)
    for index in range(start, stop):
        t, row = index // height, index % height
        for column in range(width):
            red, green, blue, known = _zero, _zero, _zero, _zero
            ground, inverse, known_sky, any_sky, far = _zero, _zero, _zero, _zero, _zero
            for y in range(row * factor, (row + 1) * factor):
                for x in range(column * factor, (column + 1) * factor):
                    red, green, blue = red + rgb[t, 0, y, x], green + rgb[t, 1, y, x], blue + rgb[t, 2, y, x]
                    if sky[t, y, x]:
                        any_sky, far = any_sky + _one, far + depth[t, y, x]
                    if valid[t, y, x]:
                        known += _one
                        if sky[t, y, x]:
                            known_sky += _one
                        else:
                            ground, inverse = ground + _one, inverse + _one / depth[t, y, x]
            out[t, 0, row, column] = np.rint(red * share * _LEVELS) / _LEVELS
            out[t, 1, row, column] = np.rint(green * share * _LEVELS) / _LEVELS
            out[t, 2, row, column] = np.rint(blue * share * _LEVELS) / _LEVELS
            flags[t, 0, row, column], flags[t, 1, row, column] = known * share >= _half, known_sky > ground
            if known_sky > ground:
                out[t, 3, row, column] = far / any_sky
            else:
                out[t, 3, row, column] = ground / max(inverse, _TINY) if ground > _zero else _one
