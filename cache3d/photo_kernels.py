"""Numba kernels of `cache3d.photo_texture`: where each pixel of a guide lies in the photo, and the colors found there.

Numba does not notice a change in another file: after one in `cache3d.rasterizer.simd`, change this file too.
"""

from __future__ import annotations

import numpy as np

from cache3d.rasterizer.simd import load, splat, store
from geometry.jit import compiled

_zero, _quarter, _half, _one = np.float32(0.0), np.float32(0.25), np.float32(0.5), np.float32(1.0)
_two = np.float32(2.0)
SHARPNESS = np.float32(-0.75)  # of the cubic, as OpenCV and torch have it
CHANNELS = 3
TAPS = 4 * CHANNELS  # numbers of one row of the 4x4 pixels that a cubic reads


@compiled
def locate_in_photo(
    start, stop, depth, coverage, sky, motion, guide, photo, inverse, ground, photo_sky, same_depth, pure_sky,
    places, weight,
):  # fmt: skip
    """Find the position in the photo of each pixel of a guide, and the weight of the photo there.

    Args:
        start, stop: rows of the guide.
        depth, coverage, sky: ``[h w]``, of the guide.
        motion: ``[3 4]`` float32, the photo's camera from the guide's.
        guide, photo: focal lengths and principal points ``(fx, fy, cx, cy)``, pixels.
        inverse, ground, photo_sky: ``[h2 w2]``, see `PhotoTexture`.
        same_depth, pure_sky: see `TexturePolicy`.
        places: ``[h w 2]`` gets the positions ``(x, y)``, pixels of the photo at frame size.
        weight: ``[h w]`` gets the weights, 0..1.
    """
    height, width = inverse.shape
    right, bottom = np.float32(width - 1), np.float32(height - 1)
    for row in range(start, stop):
        ray_y = (np.float32(row) + _half - guide[3]) / guide[1]
        for column in range(depth.shape[1]):
            ray_x = (np.float32(column) + _half - guide[2]) / guide[0]
            covered = coverage[row, column] > _zero
            # Any depth where nothing is rendered: its weight is 0, its position tells its neighbors their steps.
            far = depth[row, column] if covered else _one
            z = far * (motion[2, 0] * ray_x + motion[2, 1] * ray_y + motion[2, 2]) + motion[2, 3]
            over = _one / (z if abs(z) >= np.float32(1e-8) else np.float32(1e-8))
            x = (far * (motion[0, 0] * ray_x + motion[0, 1] * ray_y + motion[0, 2]) + motion[0, 3]) * over
            y = (far * (motion[1, 0] * ray_x + motion[1, 1] * ray_y + motion[1, 2]) + motion[1, 3]) * over
            x, y = x * photo[0] + photo[2], y * photo[1] + photo[3]
            places[row, column, 0], places[row, column, 1] = x, y
            weight[row, column] = _zero
            # So written that NaN fails.
            if not (covered and z > _zero and x > _zero and x < width and y > _zero and y < height):
                continue
            u, v = min(max(x - _half, _zero), right), min(max(y - _half, _zero), bottom)
            i, j = np.int64(np.rint(v)), np.int64(np.rint(u))
            found = _zero
            if sky[row, column] > pure_sky:
                found = photo_sky[i, j]
            if sky[row, column] < _one - pure_sky and ground[i, j] > _zero:
                # Inverse depth is linear over the image of a plane, so that it is what to interpolate.
                top, left = np.int64(v), np.int64(u)
                below, beside = min(top + 1, height - 1), min(left + 1, width - 1)
                down, across = v - np.float32(top), u - np.float32(left)
                upper = inverse[top, left] * (_one - across) + inverse[top, beside] * across
                lower = inverse[below, left] * (_one - across) + inverse[below, beside] * across
                apart = abs(z * (upper * (_one - down) + lower * down) - _one) / same_depth
                # Full weight up to half of the tolerance, none from it on; between them it fades.
                found = max(found, min(max(_two - _two * apart, _zero), _one) * ground[i, j])
            weight[row, column] = found


@compiled
def _step(places, row, column, back_row, back_column, next_row, next_column):
    """Difference to the nearer of two neighbors, so that it does not cross an outline, and its squared length.

    At the border one of the neighbors is the pixel itself: the other one counts.
    """
    x, y = places[row, column, 0], places[row, column, 1]
    ax, ay = places[next_row, next_column, 0] - x, places[next_row, next_column, 1] - y
    bx, by = x - places[back_row, back_column, 0], y - places[back_row, back_column, 1]
    ahead, behind = ax * ax + ay * ay, bx * bx + by * by
    first, last = back_row == row and back_column == column, next_row == row and next_column == column
    if first or (ahead <= behind and not last):
        return ax, ay, ahead
    return bx, by, behind


@compiled
def _cubic(t):
    """Weights of the four samples around a position ``t`` behind the second of them (Keys 1981)."""
    rest = _one - t
    first, last = SHARPNESS * t * rest * rest, SHARPNESS * rest * t * t
    second = ((SHARPNESS + _two) * t - (SHARPNESS + np.float32(3.0))) * t * t + _one
    return first, second, _one - first - second - last, last


@compiled
def _bounded(position, length):
    """A position no farther than two pixels beyond the image, where all samples are border pixels; NaN too."""
    if not position > -_two:
        return -_two
    return min(position, length + _one)


@compiled
def _sample(colors, first, height, width, x, y, window, share, found):
    """Add ``share`` times the cubic interpolation of an image at ``(x, y)`` to ``found [3]``; borders are repeated.

    Args:
        colors: of all images, one after the other, ``[h w 3]`` each.
        first: where the image begins.
        height, width: its size.
        x, y: position; whole numbers are centers of pixels.
        window: ``[48]`` memory.
        share, found: see above.
    """
    x, y = _bounded(x, np.float32(width)), _bounded(y, np.float32(height))
    floor_x, floor_y = np.floor(x), np.floor(y)
    x0, x1, x2, x3 = _cubic(x - floor_x)
    y0, y1, y2, y3 = _cubic(y - floor_y)
    left, top = np.int64(floor_x) - 1, np.int64(floor_y) - 1
    if left >= 0 and top >= 0 and left + 4 <= width and top + 4 <= height:
        source, at, pitch = colors, first + (top * width + left) * CHANNELS, width * CHANNELS
    else:
        source, at, pitch = window, 0, TAPS
        for i in range(4):
            row = min(max(top + i, 0), height - 1)
            for j in range(4):
                column = min(max(left + j, 0), width - 1)
                for channel in range(CHANNELS):
                    window[i * TAPS + j * CHANNELS + channel] = colors[
                        first + (row * width + column) * CHANNELS + channel
                    ]
    # Twelve numbers a row, as two groups of eight lanes that overlap: nothing beyond the row is read.
    a0, b0, a1, b1 = load(source, at), load(source, at + 4), load(source, at + pitch), load(source, at + pitch + 4)
    at += 2 * pitch
    a2, b2, a3, b3 = load(source, at), load(source, at + 4), load(source, at + pitch), load(source, at + pitch + 4)
    store(window, 0, splat(y0) * a0 + splat(y1) * a1 + (splat(y2) * a2 + splat(y3) * a3))
    store(window, 8, splat(y0) * b0 + splat(y1) * b1 + (splat(y2) * b2 + splat(y3) * b3))
    for c in range(CHANNELS):
        near, far = x0 * window[c] + x1 * window[3 + c], x2 * window[10 + c] + x3 * window[13 + c]
        found[c] += share * (near + far)


@compiled
def show_photo(start, stop, places, weight, colors, firsts, sizes, scales, positions, rgb, confidence):
    """Blend the photo's colors over those of a guide.

    A color is the mean of four samples per pixel, blended between the two nearest levels of the pyramid. Where pixels
    of a level are as large as the guide's, the four coincide, and one is taken.

    Args:
        start, stop: rows of the guide.
        places, weight: as `locate_in_photo` made them.
        colors: of all levels, one after the other, ``[h w 3]`` each, coarsest first.
        firsts, sizes, scales, positions: where each level begins, its size, its resolution over the frame's, and the
            logarithm of that to base 2, ascending.
        rgb, confidence: ``[3 h w]`` and ``[h w]`` of the guide, changed where the weight is not 0.
    """
    height, width = weight.shape
    window, found, levels = np.empty(4 * TAPS, np.float32), np.empty(CHANNELS, np.float32), len(scales)
    for row in range(start, stop):
        up, down = max(row - 1, 0), min(row + 1, height - 1)
        for column in range(width):
            blend = weight[row, column]
            if not blend > _zero:
                continue
            x, y = places[row, column, 0], places[row, column, 1]
            before, after = max(column - 1, 0), min(column + 1, width - 1)
            rx, ry, right = _step(places, row, column, row, before, row, after)
            dx, dy, below = _step(places, row, column, up, column, down, column)
            log_step = np.log2(max(np.sqrt(max(right, below)), np.float32(1e-6)))
            # Twice as fine as the pixels of the guide, for four samples: one trilinear sample is softer than the
            # Gaussians.
            at = min(max(_one - log_step, positions[0]), positions[levels - 1])
            fine = 1
            while fine < levels - 1 and positions[fine] < at:
                fine += 1
            fine = min(fine, levels - 1)
            coarse = max(fine - 1, 0)
            finer = (at - positions[coarse]) / (positions[fine] - positions[coarse]) if fine > coarse else _one
            found[:] = _zero
            for level in range(coarse, fine + 1):
                share = finer if level == fine else _one - finer
                if share == _zero:
                    continue
                scale, first, rows, columns = scales[level], firsts[level], sizes[level, 0], sizes[level, 1]
                apart = _quarter * min(max(log_step + positions[level], _zero), _one)
                if apart == _zero:
                    _sample(colors, first, rows, columns, scale * x - _half, scale * y - _half, window, share, found)
                    continue
                for i in range(-1, 2, 2):
                    for j in range(-1, 2, 2):
                        px = scale * (x + apart * (np.float32(i) * rx + np.float32(j) * dx)) - _half
                        py = scale * (y + apart * (np.float32(i) * ry + np.float32(j) * dy)) - _half
                        _sample(colors, first, rows, columns, px, py, window, _quarter * share, found)
            for c in range(CHANNELS):
                color = min(max(found[c], _zero), _one)
                # Exactly the photo's color at weight 1.
                rgb[c, row, column] = color + (_one - blend) * (rgb[c, row, column] - color)
            confidence[row, column] = _one + (_one - blend) * (confidence[row, column] - _one)
