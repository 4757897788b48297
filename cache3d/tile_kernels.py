"""Numba kernels, one 16x16 tile at a time: compositing front to back, and its gradient back to front.

Everything a kernel calls is in this file: Numba does not notice a change in another one.

A tile's planes lie in one scratch array and rows are looped over with unsigned indices in steps of eight pixels,
because LLVM vectorises only what it can prove not to alias. The loop is over Gaussians, then over the rows that the
Gaussian touches: transmittance and sums stay in the first-level cache.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from cache3d.compiled import compiled

MIN_ALPHA = np.float32(1.0 / 255.0)
MAX_ALPHA = np.float32(0.999)
STOP = np.float32(1e-4)
TILE = 16
AREA = TILE * TILE
HEAD = 8  # record entries before the values: mean x y, conic a b c, opacity, half extent x y
PATIENCE = 32  # Gaussians between two looks whether a tile is opaque already

_zero, _half, _one = np.float32(0.0), np.float32(0.5), np.float32(1.0)


@intrinsic
def _float_of_bits(context, bits):  # noqa: ARG001 - Numba's signature
    def generate(context, builder, signature, arguments):  # noqa: ARG001
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), generate


@compiled
def _exp_negative(s):
    """exp(-s) for s >= 0 in float32, relative error 2e-7.

    Clamped at 2^-32: what is smaller never shows, and would only produce slow denormals. A polynomial, because it
    vectorises where a call into the C library does not.
    """
    t = max(-s * np.float32(1.4426950408889634), np.float32(-32.0))
    whole = np.int32(t - _half)
    f = t - np.float32(whole)
    p = np.float32(1.535336188319500e-4)
    p = p * f + np.float32(1.339887440266574e-3)
    p = p * f + np.float32(9.618437357674640e-3)
    p = p * f + np.float32(5.550332471162809e-2)
    p = p * f + np.float32(2.402264791363012e-1)
    p = p * f + np.float32(6.931472028550421e-1)
    p = p * f + _one
    return p * _float_of_bits((whole + np.int32(127)) << np.int32(23))  # pyright: ignore[reportCallIssue]


@compiled
def _span(center, extent, origin, count):
    """First and one-past-last pixel of a tile whose centres lie within ``extent`` of ``center``."""
    low = np.int64(np.ceil(center - extent - _half)) - origin
    high = np.int64(np.floor(center + extent - _half)) - origin + 1
    return max(low, 0), min(high, count)


@compiled
def composite(start, stop, tiles_x, width, height, starts, ranks, records, out, transmittance, last):
    """Composite tiles ``start:stop`` front to back.

    Args:
        start, stop: tiles, row-major.
        tiles_x: tiles in a row.
        width, height: image size.
        starts, ranks: tile lists.
        records: ``[m 8+c]``.
        out: ``[c h w]`` gets the sums.
        transmittance: ``[h w]`` gets what passes through all.
        last: ``[h w]`` int32 gets the list entry of the last contribution, -1 where there is none.
    """
    channels = records.shape[1] - HEAD
    area, tile_width = np.uintp(AREA), np.uintp(TILE)
    sums = area + area + tile_width  # planes: transmittance | last | one row of weights | sums
    plane = np.empty(2 * AREA + TILE + channels * AREA, np.float32)
    weights = area + area
    for tile in range(start, stop):
        x0, y0 = (tile % tiles_x) * TILE, (tile // tiles_x) * TILE
        plane[:] = 0.0
        plane[:AREA] = 1.0
        plane[AREA : 2 * AREA] = -1.0
        begin = starts[tile]
        for entry in range(begin, starts[tile + 1]):
            # A finished pixel holds its transmittance negated.
            if (entry - begin) % PATIENCE == PATIENCE - 1 and np.max(plane[:AREA]) <= _zero:
                break
            rank = ranks[entry]
            mx, my = records[rank, 0], records[rank, 1]
            a, b, c, opacity = records[rank, 2], records[rank, 3], records[rank, 4], records[rank, 5]
            row0, row1 = _span(my, records[rank, 7], y0, TILE)
            left, right = _span(mx, records[rank, 6], x0, TILE)
            lane0 = np.uintp(left & ~7)
            lanes = np.uintp(8) if (left >> 3) == ((right - 1) >> 3) else tile_width
            index = np.float32(entry - begin)
            dx0 = mx - (np.float32(x0) + np.float32(lane0) + _half)
            for row in range(row0, row1):
                dy = my - (np.float32(y0 + row) + _half)
                base = np.uintp(row) * tile_width + lane0
                linear, constant = b * dy, _half * c * dy * dy
                for k in range(lanes):
                    dx = dx0 - np.float32(np.int32(k))
                    s = (_half * a * dx + linear) * dx + constant
                    alpha = min(MAX_ALPHA, opacity * _exp_negative(s))
                    before, was = plane[base + k], plane[area + base + k]
                    after = before * (_one - alpha)
                    touched = (s >= _zero) & (alpha >= MIN_ALPHA) & (before > _zero)
                    hit = touched & (after > STOP)
                    plane[weights + k] = alpha * before if hit else _zero
                    plane[base + k] = after if hit else (-before if touched else before)
                    plane[area + base + k] = index if hit else was
                for channel in range(channels):
                    value = records[rank, HEAD + channel]
                    to = sums + np.uintp(channel) * area + base
                    for k in range(lanes):
                        plane[to + k] += value * plane[weights + k]
        for row in range(min(TILE, height - y0)):
            for k in range(min(TILE, width - x0)):
                at = row * TILE + k
                transmittance[y0 + row, x0 + k] = abs(plane[at])
                last[y0 + row, x0 + k] = -1 if plane[AREA + at] < 0 else begin + np.int64(plane[AREA + at])
                for channel in range(channels):
                    out[channel, y0 + row, x0 + k] = plane[2 * AREA + TILE + channel * AREA + at]


@compiled
def composite_backward(
    start, stop, tiles_x, width, height, starts, ranks, records, transmittance, last, v_out, v_alpha, per_entry
):
    """Gradients of `composite` for tiles ``start:stop``, one row of ``per_entry`` per list entry.

    Args:
        start, stop, tiles_x, width, height, starts, ranks, records: as `composite` had them.
        transmittance, last: as `composite` made them.
        v_out: ``[c h w]`` gradient of the sums.
        v_alpha: ``[h w]`` gradient of alpha = 1 - transmittance.
        per_entry: ``[k 6+c]`` gets mean x y, conic a b c, opacity, values; zero where an entry never shows.
    """
    channels = records.shape[1] - HEAD
    area, tile_width = np.uintp(AREA), np.uintp(TILE)
    # planes: transmittance | last | sum behind | v_alpha * final transmittance | weights, dots | v_out
    weights, dots = np.uintp(4 * AREA), np.uintp(4 * AREA + TILE)
    first = np.uintp(4 * AREA + 2 * TILE)
    plane = np.empty(4 * AREA + 2 * TILE + channels * AREA, np.float32)
    for tile in range(start, stop):
        x0, y0 = (tile % tiles_x) * TILE, (tile // tiles_x) * TILE
        begin, end = starts[tile], starts[tile]
        plane[:] = 0.0
        plane[AREA : 2 * AREA] = -1.0
        for row in range(min(TILE, height - y0)):
            for k in range(min(TILE, width - x0)):
                at = row * TILE + k
                plane[at] = transmittance[y0 + row, x0 + k]
                reached = last[y0 + row, x0 + k]
                plane[AREA + at] = np.float32(reached - begin) if reached >= 0 else np.float32(-1.0)
                end = max(end, reached + 1)
                plane[3 * AREA + at] = v_alpha[y0 + row, x0 + k] * transmittance[y0 + row, x0 + k]
                for channel in range(channels):
                    plane[4 * AREA + 2 * TILE + channel * AREA + at] = v_out[channel, y0 + row, x0 + k]
        per_entry[end : starts[tile + 1]] = 0.0
        for entry in range(end - 1, begin - 1, -1):
            rank = ranks[entry]
            mx, my = records[rank, 0], records[rank, 1]
            a, b, c, opacity = records[rank, 2], records[rank, 3], records[rank, 4], records[rank, 5]
            row0, row1 = _span(my, records[rank, 7], y0, TILE)
            left, right = _span(mx, records[rank, 6], x0, TILE)
            lane0 = np.uintp(left & ~7)
            lanes = np.uintp(8) if (left >> 3) == ((right - 1) >> 3) else tile_width
            index = np.float32(entry - begin)
            dx0 = mx - (np.float32(x0) + np.float32(lane0) + _half)
            per_entry[entry] = 0.0
            v_mx, v_my, v_a, v_b, v_c, v_o = _zero, _zero, _zero, _zero, _zero, _zero
            for row in range(row0, row1):
                dy = my - (np.float32(y0 + row) + _half)
                base = np.uintp(row) * tile_width + lane0
                linear, constant = b * dy, _half * c * dy * dy
                for k in range(lanes):
                    plane[dots + k] = _zero
                for channel in range(channels):
                    value = records[rank, HEAD + channel]
                    of = first + np.uintp(channel) * area + base
                    for k in range(lanes):
                        plane[dots + k] += value * plane[of + k]
                s0, s1, s2, o0 = _zero, _zero, _zero, _zero
                for k in range(lanes):
                    dx = dx0 - np.float32(np.int32(k))
                    s = (_half * a * dx + linear) * dx + constant
                    falloff = _exp_negative(s)
                    raw = opacity * falloff
                    alpha = min(MAX_ALPHA, raw)
                    hit = (s >= _zero) & (alpha >= MIN_ALPHA) & (plane[area + base + k] >= index)
                    over = _one / (_one - alpha)
                    before = plane[base + k] * over
                    weight = alpha * before if hit else _zero
                    dot, behind = plane[dots + k], plane[area + area + base + k]
                    pull = before * dot + over * (plane[area + area + area + base + k] - behind)
                    pull = pull if hit & (raw <= MAX_ALPHA) else _zero
                    plane[base + k] = before if hit else plane[base + k]
                    plane[area + area + base + k] = behind + weight * dot
                    plane[weights + k] = weight
                    v_s = -raw * pull
                    s0 += v_s
                    s1 += v_s * dx
                    s2 += v_s * dx * dx
                    o0 += falloff * pull
                v_mx += a * s1 + linear * s0
                v_my += b * s1 + c * dy * s0
                v_a += _half * s2
                v_b += dy * s1
                v_c += _half * dy * dy * s0
                v_o += o0
                for channel in range(channels):
                    of = first + np.uintp(channel) * area + base
                    total = _zero
                    for k in range(lanes):
                        total += plane[weights + k] * plane[of + k]
                    per_entry[entry, 6 + channel] += total
            per_entry[entry, 0], per_entry[entry, 1] = v_mx, v_my
            per_entry[entry, 2], per_entry[entry, 3], per_entry[entry, 4] = v_a, v_b, v_c
            per_entry[entry, 5] = v_o
