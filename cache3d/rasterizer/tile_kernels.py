"""Numba kernels, one 16x16 tile at a time: compositing front to back, and its gradient back to front.

The loop is over Gaussians, then over the rows that the Gaussian touches, eight pixels at a time
(`cache3d.rasterizer.simd`): transmittance and sums of a tile stay in the first-level cache. A footprint up to eight
pixels wide, as nearly all are, needs one group of lanes per row, wherever in the tile it lies.

Numba does not notice a change in another file: after one in `cache3d.rasterizer.simd`, change this file too.
"""

from __future__ import annotations

import numpy as np

from cache3d.rasterizer.projection_kernels import MIN_ALPHA as _MIN_ALPHA
from cache3d.rasterizer.projection_kernels import TILE
from cache3d.rasterizer.simd import WIDTH, exp2, iota, load, minimum, reduce_add, select, splat, store
from geometry.jit import compiled

# gsplat's: least and largest alpha, and the transmittance below which a pixel is finished.
MIN_ALPHA = np.float32(_MIN_ALPHA)
MAX_ALPHA = np.float32(0.999)
STOP = np.float32(1e-4)
AREA = TILE * TILE
DEPTH = 8  # index of the depth in a row; the values follow
BATCH = 32  # Gaussians fetched together, after a check whether the tile is opaque already
LOG2_E = np.float32(1.4426950408889634)

_zero, _half, _one = np.float32(0.0), np.float32(0.5), np.float32(1.0)


@compiled
def _span(center, extent, origin):
    """First and one-past-last pixel of a tile whose centers lie within ``extent`` of ``center``."""
    low = np.int64(np.ceil(center - extent - _half)) - origin
    high = np.int64(np.floor(center + extent - _half)) - origin + 1
    return max(low, 0), min(high, TILE)


@compiled
def _groups(left, right):
    """First lane of the groups that cover columns ``left:right`` of a tile, as a range."""
    if right - left <= WIDTH:
        # Lanes may begin at any column, but not reach beyond the tile.
        first = min(left, TILE - WIDTH)
        return range(first, first + 1, WIDTH)
    return range(0, TILE, WIDTH)


@compiled
def _fetch(ids, entry, step, count, lines, length, near):
    """Copy the rows of ``count`` list entries side by side; fetched together, their cache misses overlap."""
    for j in range(count):
        row, to = ids[entry + j * step] * length, j * length
        for k in range(0, length, WIDTH):
            store(near, to + k, load(lines, row + k))


@compiled
def _falloff(near, n):
    """Center, opacity and coefficients of the row that begins at ``n``; their quadratic form is an exponent of 2."""
    a, b, c = -LOG2_E * _half * near[n + 2], -LOG2_E * near[n + 3], -LOG2_E * _half * near[n + 4]
    return near[n], near[n + 1], near[n + 5], a, b, c


@compiled
def _any_open(passing):
    """Whether any pixel of a tile is unfinished; finished ones hold their transmittance negated."""
    most = splat(_zero)
    for at in range(0, AREA, WIDTH):
        some = load(passing, at)
        most = select(some > most, some, most)
    return reduce_add(most) > _zero


@compiled
def composite(which, tiles_x, width, height, starts, ids, flat, out, transmittance, last):
    """Composite tiles front to back.

    Args:
        which: tiles, row-major.
        tiles_x: tiles in a row.
        width, height: image size.
        starts, ids: tile lists.
        flat: ``[n k]`` projected Gaussians.
        out: ``[c+1 h w]`` gets the sums; the last is depth.
        transmittance: ``[h w]`` gets what passes through all.
        last: ``[h w]`` int32 gets the list entry of the last contribution, -1 where there is none.
    """
    channels, length, lines = out.shape[0] - 1, flat.shape[1], flat.reshape(-1)
    passing, reached, weights = np.empty(AREA, np.float32), np.empty(AREA, np.float32), np.empty(AREA, np.float32)
    near = np.empty(BATCH * length, np.float32)
    sums = np.empty((channels + 1) * AREA, np.float32)  # in the order of a row: depth first
    column = iota()
    for tile in which:
        x0, y0 = (tile % tiles_x) * TILE, (tile // tiles_x) * TILE
        passing[:], reached[:], sums[:] = _one, -_one, _zero
        begin, end = starts[tile], starts[tile + 1]
        for entry in range(begin, end):
            n = (entry - begin) % BATCH
            if n == 0:
                if not _any_open(passing):
                    break
                _fetch(ids, entry, 1, min(BATCH, end - entry), lines, length, near)
            n *= length
            mx, my, opacity, a, b, c = _falloff(near, n)
            row0, row1 = _span(my, near[n + 7], y0)
            left, right = _span(mx, near[n + 6], x0)
            # A float, as all lanes are; exact for the first 2**24 entries of a tile.
            index = splat(np.float32(entry - begin))
            for first in _groups(left, right):
                dx = (mx - np.float32(x0 + first) - _half) - column
                across, slope, total = a * dx * dx, b * dx, splat(_zero)
                for row in range(row0, row1):
                    at = row * TILE + first
                    dy = my - np.float32(y0 + row) - _half
                    power = across + dy * (slope + c * dy)
                    alpha = minimum(opacity * exp2(power), splat(MAX_ALPHA))
                    before = load(passing, at)
                    weight = alpha * before
                    after = before - weight
                    # A power above 0 is no falloff: the conic is degenerate.
                    reaches = (power <= _zero) & (alpha >= MIN_ALPHA) & (before > _zero)
                    hit = reaches & (after > STOP)
                    weight = select(hit, weight, splat(_zero))
                    total = total + weight
                    store(weights, at, weight)
                    # A Gaussian that would bring a pixel under STOP is dropped, and the sign marks the pixel as
                    # finished.
                    store(passing, at, select(hit, after, select(reaches, _zero - before, before)))
                    store(reached, at, select(hit, index, load(reached, at)))
                # Values are added in a second loop, so that hidden Gaussians, which are many, never load them.
                if reduce_add(total) <= _zero:  # hidden
                    continue
                for row in range(row0, row1):
                    at = row * TILE + first
                    weight = load(weights, at)
                    for channel in range(channels + 1):
                        to = channel * AREA + at
                        store(sums, to, load(sums, to) + near[n + DEPTH + channel] * weight)
        for row in range(min(TILE, height - y0)):
            for k in range(min(TILE, width - x0)):
                at = row * TILE + k
                transmittance[y0 + row, x0 + k] = abs(passing[at])
                last[y0 + row, x0 + k] = -1 if reached[at] < 0 else begin + np.int64(reached[at])
        for channel in range(channels + 1):
            # A row of `flat` has depth before the values, an image has it after them.
            plane = (channel + 1) % (channels + 1) * AREA
            for row in range(min(TILE, height - y0)):
                for k in range(min(TILE, width - x0)):
                    out[channel, y0 + row, x0 + k] = sums[plane + row * TILE + k]


@compiled
def composite_backward(
    start, stop, tiles_x, width, height, starts, ids, flat, transmittance, last, v_out, v_alpha, per_entry
):
    """Gradients of `composite` for tiles ``start:stop``, one row of ``per_entry`` per list entry.

    Args:
        start, stop: tiles, row-major.
        tiles_x, width, height, starts, ids, flat: as `composite` had them.
        transmittance, last: as `composite` made them.
        v_out: ``[c+1 h w]`` gradient of the sums.
        v_alpha: ``[h w]`` gradient of alpha = 1 - transmittance.
        per_entry: ``[k 7+c]`` gets mean x y, conic a b c, opacity, values, depth; zero where an entry never shows.
    """
    channels, length, lines = v_out.shape[0] - 1, flat.shape[1], flat.reshape(-1)
    near = np.empty(BATCH * length, np.float32)
    passing, reached, behind = np.empty(AREA, np.float32), np.empty(AREA, np.float32), np.empty(AREA, np.float32)
    # `rest` is v_alpha times what passes through all.
    rest, weights, dots = np.empty(AREA, np.float32), np.empty(AREA, np.float32), np.empty(AREA, np.float32)
    pulled = np.empty((channels + 1) * AREA, np.float32)
    column, nothing = iota(), splat(_zero)
    for tile in range(start, stop):
        x0, y0 = (tile % tiles_x) * TILE, (tile // tiles_x) * TILE
        begin, end = starts[tile], starts[tile]
        passing[:], reached[:], behind[:], rest[:], pulled[:] = _zero, -_one, _zero, _zero, _zero
        for row in range(min(TILE, height - y0)):
            for k in range(min(TILE, width - x0)):
                at, y, x = row * TILE + k, y0 + row, x0 + k
                passing[at] = transmittance[y, x]
                reached[at] = np.float32(last[y, x] - begin) if last[y, x] >= 0 else -_one
                end = max(end, last[y, x] + 1)
                rest[at] = v_alpha[y, x] * transmittance[y, x]
        for channel in range(channels + 1):
            for row in range(min(TILE, height - y0)):
                for k in range(min(TILE, width - x0)):
                    pulled[channel * AREA + row * TILE + k] = v_out[channel, y0 + row, x0 + k]
        # Behind the last contribution to any pixel nothing has a gradient.
        per_entry[end : starts[tile + 1]] = _zero
        # Back to front: what passes in front of each Gaussian follows by dividing its own share out.
        for entry in range(end - 1, begin - 1, -1):
            n = (end - 1 - entry) % BATCH
            if n == 0:
                _fetch(ids, entry, -1, min(BATCH, entry + 1 - begin), lines, length, near)
            n *= length
            mx, my, opacity = near[n], near[n + 1], near[n + 5]
            a, b, c = near[n + 2], near[n + 3], near[n + 4]
            row0, row1 = _span(my, near[n + 7], y0)
            left, right = _span(mx, near[n + 6], x0)
            index = np.float32(entry - begin)
            per_entry[entry] = _zero
            for first in _groups(left, right):
                dx = (mx - np.float32(x0 + first) - _half) - column
                across, slope = (-LOG2_E * _half) * a * dx * dx, (-LOG2_E * b) * dx
                for row in range(row0, row1):
                    store(dots, row * TILE + first, nothing)
                for channel in range(channels + 1):
                    value = near[n + DEPTH + (channel + 1) % (channels + 1)]
                    for row in range(row0, row1):
                        at = row * TILE + first
                        store(dots, at, load(dots, at) + value * load(pulled, channel * AREA + at))
                # Sums over the pixels of v_s dx, v_s dy, v_s dx², v_s dx dy, v_s dy² and falloff · v_alpha.
                sx, sy, sxx, sxy, syy, so = nothing, nothing, nothing, nothing, nothing, nothing
                for row in range(row0, row1):
                    at = row * TILE + first
                    dy = my - np.float32(y0 + row) - _half
                    power = across + dy * (slope + (-LOG2_E * _half * c) * dy)
                    falloff = exp2(power)
                    raw = opacity * falloff
                    alpha = minimum(raw, splat(MAX_ALPHA))
                    hit = (power <= _zero) & (alpha >= MIN_ALPHA) & (load(reached, at) >= index)
                    # Finite, as alpha is at most 0.999.
                    over = _one / (_one - alpha)
                    after, dot, hidden = load(passing, at), load(dots, at), load(behind, at)
                    before = after * over
                    weight = select(hit, alpha * before, nothing)
                    # Where alpha is capped it does not depend on the Gaussian.
                    pull = select(hit & (raw <= MAX_ALPHA), before * dot + over * (load(rest, at) - hidden), nothing)
                    store(passing, at, select(hit, before, after))
                    store(behind, at, hidden + weight * dot)
                    store(weights, at, weight)
                    gone = falloff * pull
                    v_s = (_zero - opacity) * gone
                    so, sy, syy = so + gone, sy + v_s * dy, syy + v_s * (dy * dy)
                    slant = v_s * dx
                    sx, sxy, sxx = sx + slant, sxy + slant * dy, sxx + slant * dx
                tx, ty = reduce_add(sx), reduce_add(sy)
                per_entry[entry, 0] += a * tx + b * ty
                per_entry[entry, 1] += b * tx + c * ty
                per_entry[entry, 2] += _half * reduce_add(sxx)
                per_entry[entry, 3] += reduce_add(sxy)
                per_entry[entry, 4] += _half * reduce_add(syy)
                per_entry[entry, 5] += reduce_add(so)
                for channel in range(channels + 1):
                    found = nothing
                    for row in range(row0, row1):
                        at = row * TILE + first
                        found = found + load(weights, at) * load(pulled, channel * AREA + at)
                    per_entry[entry, 6 + channel] += reduce_add(found)


@compiled
def spread(start, stop, tiles_x, width, height, starts, ids, flat, last, v_out, per_entry):
    """Gradients of `composite` for the values alone, front to back like the forward pass.

    Args:
        start, stop: tiles, row-major.
        tiles_x, width, height, starts, ids, flat: as `composite` had them.
        last: as `composite` made it.
        v_out: ``[c+1 h w]`` gradient of the sums.
        per_entry: ``[k c]`` gets the gradients per list entry.
    """
    channels, length, lines = per_entry.shape[1], flat.shape[1], flat.reshape(-1)
    near = np.empty(BATCH * length, np.float32)
    passing, weights = np.empty(AREA, np.float32), np.empty(AREA, np.float32)
    reached = np.empty(AREA, np.float32)
    pulled = np.empty(channels * AREA, np.float32)
    column, nothing = iota(), splat(_zero)
    for tile in range(start, stop):
        x0, y0 = (tile % tiles_x) * TILE, (tile // tiles_x) * TILE
        begin, end = starts[tile], starts[tile]
        passing[:], reached[:], pulled[:] = _one, -_one, _zero
        for row in range(min(TILE, height - y0)):
            for k in range(min(TILE, width - x0)):
                at = row * TILE + k
                reached[at] = np.float32(last[y0 + row, x0 + k] - begin) if last[y0 + row, x0 + k] >= 0 else -_one
                end = max(end, last[y0 + row, x0 + k] + 1)
                for channel in range(channels):
                    pulled[channel * AREA + at] = v_out[channel, y0 + row, x0 + k]
        per_entry[begin : starts[tile + 1]] = _zero
        # With weights alone there is nothing to divide out: front to back, as the forward pass.
        for entry in range(begin, end):
            n = (entry - begin) % BATCH
            if n == 0:
                _fetch(ids, entry, 1, min(BATCH, end - entry), lines, length, near)
            n *= length
            mx, my, opacity, a, b, c = _falloff(near, n)
            row0, row1 = _span(my, near[n + 7], y0)
            left, right = _span(mx, near[n + 6], x0)
            index = np.float32(entry - begin)
            for first in _groups(left, right):
                dx = (mx - np.float32(x0 + first) - _half) - column
                across, slope, total = a * dx * dx, b * dx, nothing
                for row in range(row0, row1):
                    at = row * TILE + first
                    dy = my - np.float32(y0 + row) - _half
                    power = across + dy * (slope + c * dy)
                    alpha = minimum(opacity * exp2(power), splat(MAX_ALPHA))
                    before = load(passing, at)
                    hit = (power <= _zero) & (alpha >= MIN_ALPHA) & (load(reached, at) >= index)
                    weight = select(hit, alpha * before, nothing)
                    total = total + weight
                    store(weights, at, weight)
                    store(passing, at, before - weight)
                if reduce_add(total) <= _zero:  # hidden
                    continue
                for channel in range(channels):
                    found = nothing
                    for row in range(row0, row1):
                        at = row * TILE + first
                        found = found + load(weights, at) * load(pulled, channel * AREA + at)
                    per_entry[entry, channel] += reduce_add(found)
