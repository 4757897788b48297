"""Numba kernels, one Gaussian at a time: projection to the image, depth order, tile lists, and the backward pass.

Everything a kernel calls is in this file: Numba does not notice a change in another one.

Legend: `camera` is a float32 row of 16: rotation (9, camera from world), translation (3), fx, fy, cx, cy.
A `box` is a range of tiles in one integer, see `_box`; -1 where a Gaussian shows nowhere.
A `flat` row is mean x, y (pixels), conic a, b, c, opacity, half extent x, y (pixels), depth, values, and padding to
whole cache lines, so that fetching one Gaussian costs one cache miss.
"""

from __future__ import annotations

import math

import numpy as np

from geometry.jit import compiled

# As gsplat's defaults: what is nearer, farther or fainter shows nowhere.
NEAR = 0.01
FAR = 1e10
MIN_ALPHA = 1.0 / 255.0
MAX_STD = 3.33  # a footprint is cut where alpha falls under 1/255, and never later than this
TILE = 16
FLAT = 9  # floats of a row before the values
LINE = 16  # floats of a cache line
DIGIT = np.uint32(2047)


@compiled
def _rotation(w, x, y, z, q):
    """Write the rotation matrix of a quaternion of any length into ``q``; returns its inverse length."""
    scale = np.float32(1.0) / np.sqrt(w * w + x * x + y * y + z * z)
    w, x, y, z = w * scale, x * scale, y * scale, z * scale
    two, one = np.float32(2.0), np.float32(1.0)
    q[0, 0], q[0, 1], q[0, 2] = one - two * (y * y + z * z), two * (x * y - w * z), two * (x * z + w * y)
    q[1, 0], q[1, 1], q[1, 2] = two * (x * y + w * z), one - two * (x * x + z * z), two * (y * z - w * x)
    q[2, 0], q[2, 1], q[2, 2] = two * (x * z - w * y), two * (y * z + w * x), one - two * (x * x + y * y)
    return scale


@compiled
def _jacobian(x, y, z, fx, fy, cx, cy, width, height):
    """The four non-zero entries of d(pixel)/d(camera point), far off-axis points clamped, and where the clamps bite."""
    # The linearization diverges far off-axis; as in gsplat it is held a little outside the image.
    lim = np.float32(0.15)
    right, left = (width - cx) / fx + lim * width / fx, cx / fx + lim * width / fx
    down, up = (height - cy) / fy + lim * height / fy, cy / fy + lim * height / fy
    u, v = x / z, y / z
    inside_x, inside_y = -left <= u <= right, -up <= v <= down
    u, v = min(right, max(-left, u)), min(down, max(-up, v))
    return fx / z, fy / z, -fx * u / z, -fy * v / z, inside_x, inside_y


@compiled
def _box(left, right, top, bottom):
    """First and last column and row of tiles, 16 bits each: they are sorted along with the depths."""
    return left | right << 16 | top << 32 | bottom << 48


@compiled
def _columns(box):
    return range(box & 0xFFFF, (box >> 16 & 0xFFFF) + 1)


@compiled
def _rows(box):
    return range(box >> 32 & 0xFFFF, (box >> 48) + 1)


@compiled
def project(start, stop, means, quats, scales, opacities, values, camera, eps2d, width, height, flat, box):
    """Project Gaussians; one with a non-finite parameter shows nowhere.

    Args:
        start, stop: range of Gaussians.
        means, quats, scales, opacities, values: ``[n 3]``, ``[n 4]``, ``[n 3]``, ``[n]``, ``[n c]``, as in `Splats`.
        camera: row of 16.
        eps2d: variance added to every footprint, px².
        width, height: image size.
        flat: ``[n k]`` gets the projected rows.
        box: ``[n]`` int64 gets the tile ranges, -1 where a Gaussian shows nowhere.
    """
    r = camera[:9].reshape(3, 3)
    fx, fy, cx, cy = camera[12], camera[13], camera[14], camera[15]
    q = np.empty((3, 3), np.float32)
    half, one = np.float32(0.5), np.float32(1.0)
    for i in range(start, stop):
        box[i] = -1
        a, b, c = means[i, 0], means[i, 1], means[i, 2]
        z = r[2, 0] * a + r[2, 1] * b + r[2, 2] * c + camera[11]
        opacity = opacities[i]
        # So written that NaN fails.
        if not (z >= NEAR and z <= FAR and opacity >= MIN_ALPHA):
            continue
        x = r[0, 0] * a + r[0, 1] * b + r[0, 2] * c + camera[9]
        y = r[1, 0] * a + r[1, 1] * b + r[1, 2] * c + camera[10]
        mx, my = fx * x / z + cx, fy * y / z + cy
        # A cheap bound first, because most of a large world is out of view.
        largest = max(scales[i, 0], scales[i, 1], scales[i, 2])
        reach = MAX_STD * (np.float32(2.0) * max(fx, fy) * largest / z * np.float32(1.5) + one)
        reach *= one + max((np.float32(width) + abs(cx)) / fx, (np.float32(height) + abs(cy)) / fy)
        if not (mx + reach > 0 and mx - reach < width and my + reach > 0 and my - reach < height):
            continue
        jx, jy, jxz, jyz, _, _ = _jacobian(x, y, z, fx, fy, cx, cy, np.float32(width), np.float32(height))
        _rotation(quats[i, 0], quats[i, 1], quats[i, 2], quats[i, 3], q)
        xx, xy, yy = np.float32(eps2d), np.float32(0.0), np.float32(eps2d)
        for j in range(3):
            m0 = (r[0, 0] * q[0, j] + r[0, 1] * q[1, j] + r[0, 2] * q[2, j]) * scales[i, j]
            m1 = (r[1, 0] * q[0, j] + r[1, 1] * q[1, j] + r[1, 2] * q[2, j]) * scales[i, j]
            m2 = (r[2, 0] * q[0, j] + r[2, 1] * q[1, j] + r[2, 2] * q[2, j]) * scales[i, j]
            u, v = jx * m0 + jxz * m2, jy * m1 + jyz * m2
            xx, xy, yy = xx + u * u, xy + u * v, yy + v * v
        det = xx * yy - xy * xy
        if not det > 0:
            continue
        # A thousandth more than where alpha falls under 1/255: compositing tests every pixel exactly.
        std = min(
            np.float32(MAX_STD), np.sqrt(np.float32(2.0) * np.log(opacity * np.float32(255.0))) + np.float32(1e-3)
        )
        ex, ey = std * np.sqrt(xx), std * np.sqrt(yy)
        # The pixels whose centers lie within the extent; may be none.
        left, right = math.ceil(mx - ex - half), math.floor(mx + ex - half)
        top, bottom = math.ceil(my - ey - half), math.floor(my + ey - half)
        if not (left <= right and top <= bottom and right >= 0 and left < width and bottom >= 0 and top < height):
            continue
        box[i] = _box(
            max(left, 0) // TILE, min(right, width - 1) // TILE, max(top, 0) // TILE, min(bottom, height - 1) // TILE
        )
        flat[i, 0], flat[i, 1] = mx, my
        flat[i, 2], flat[i, 3], flat[i, 4] = yy / det, -xy / det, xx / det
        flat[i, 5], flat[i, 6], flat[i, 7], flat[i, 8] = opacity, ex, ey, z
        for k in range(values.shape[1]):
            flat[i, FLAT + k] = values[i, k]


@compiled
def count_digits(start, stop, keys, shift, counts):
    """Count the 11-bit digits of keys ``start:stop`` at bit ``shift`` into ``counts [2048]``."""
    for k in range(start, stop):
        counts[(keys[k] >> shift) & DIGIT] += 1


@compiled
def move_by_digit(start, stop, keys, order, boxes, shift, places, next_keys, next_order, next_boxes):
    """Move keys ``start:stop`` with their order and boxes to the places of their digits: one pass of a radix sort.

    Args:
        start, stop: range of keys.
        keys, order, boxes: ``[n]``, sorted by the lower digits.
        shift: bit of the digit.
        places: ``[2048]`` where this block writes each digit; advanced.
        next_keys, next_order, next_boxes: ``[n]`` get the result.
    """
    for k in range(start, stop):
        digit = (keys[k] >> shift) & DIGIT
        to = places[digit]
        places[digit] = to + 1
        next_keys[to], next_order[to], next_boxes[to] = keys[k], order[k], boxes[k]


@compiled
def count_tiles(start, stop, box, many):
    """Number of tiles in each of the boxes ``start:stop``, into ``many [n]``."""
    for i in range(start, stop):
        many[i] = len(_rows(box[i])) * len(_columns(box[i])) if box[i] >= 0 else 0


@compiled
def touch(boxes, tiles_x, touched):
    """Mark the tiles inside the boxes in ``touched [tiles]``, row-major with ``tiles_x`` tiles in a row."""
    for k in range(len(boxes)):
        if boxes[k] >= 0:
            for ty in _rows(boxes[k]):
                for tx in _columns(boxes[k]):
                    touched[ty * tiles_x + tx] = True


@compiled
def count_entries(start, stop, boxes, tiles_x, counts):
    """Count ``boxes[start:stop]`` in each tile, into ``counts [tiles]``."""
    for k in range(start, stop):
        for ty in _rows(boxes[k]):
            for tx in _columns(boxes[k]):
                counts[ty * tiles_x + tx] += 1


@compiled
def fill_lists(start, stop, order, boxes, tiles_x, places, ids, firsts, slots):
    """Append the Gaussians ``order[start:stop]`` to the lists of their tiles; advances ``places``.

    Args:
        start, stop, order: Gaussians, nearest first.
        boxes, tiles_x: their tiles, in the same order.
        places: ``[tiles]`` where in ``ids`` this block of each tile begins.
        ids: ``[k]`` gets the lists.
        firsts: ``[n + 1]`` where in ``slots`` a Gaussian's entries begin; empty where no gradient is wanted.
        slots: ``[k]`` gets where in ``ids`` a Gaussian's entries are.
    """
    for k in range(start, stop):
        i = order[k]
        slot = firsts[i] if len(firsts) else 0
        for ty in _rows(boxes[k]):
            for tx in _columns(boxes[k]):
                place = places[ty * tiles_x + tx]
                places[ty * tiles_x + tx] = place + 1
                ids[place] = i
                if len(firsts):
                    slots[slot] = place
                    slot += 1


@compiled
def gather(start, stop, firsts, slots, per_entry, out):
    """Sum the gradients of Gaussians over their tiles, in order.

    Args:
        start, stop: range of Gaussians.
        firsts, slots: where the entries of each Gaussian are, from `fill_lists`.
        per_entry: ``[k c]`` gradients per list entry.
        out: ``[n c]`` gets the sums.
    """
    for i in range(start, stop):
        out[i] = np.float32(0.0)
        for entry in range(firsts[i], firsts[i + 1]):
            for j in range(out.shape[1]):
                out[i, j] += per_entry[slots[entry], j]


@compiled
def project_backward(
    start, stop, firsts, slots, per_entry, flat, means, quats, scales, camera, width, height,
    v_means, v_quats, v_scales, v_opacities, v_values, v_camera,
):  # fmt: skip
    """Sum the gradients of Gaussians over their tiles and propagate them back through the projection.

    Args:
        start, stop: range of Gaussians.
        firsts, slots: where the entries of each Gaussian are, from `fill_lists`.
        per_entry: ``[k 7+c]`` gradients per list entry, from `composite_backward`.
        flat: ``[n k]`` projected rows, from `project`.
        means, quats, scales, camera, width, height: as `project` had them.
        v_means, v_quats, v_scales, v_opacities, v_values: get the gradients; unchanged for Gaussians without entries.
        v_camera: ``[12]`` float64, this block's share of the gradient of rotation and translation is added.
    """
    r = camera[:9].reshape(3, 3)
    fx, fy, cx, cy = camera[12], camera[13], camera[14], camera[15]
    channels = v_values.shape[1]
    total = np.empty(per_entry.shape[1], np.float32)
    q, rq, m = np.empty((3, 3), np.float32), np.empty((3, 3), np.float32), np.empty((3, 3), np.float32)
    v_q, v_rq = np.empty((3, 3), np.float32), np.empty((3, 3), np.float32)
    p, v_p = np.empty(3, np.float32), np.empty(3, np.float32)
    two, half = np.float32(2.0), np.float32(0.5)
    for i in range(start, stop):
        # It touches no tile.
        if firsts[i] == firsts[i + 1]:
            continue
        total[:] = 0.0
        # In the order of the list: the same bits for any number of threads.
        for entry in range(firsts[i], firsts[i + 1]):
            for j in range(total.shape[0]):
                total[j] += per_entry[slots[entry], j]
        v_opacities[i] = total[5]
        for j in range(channels):
            v_values[i, j] = total[6 + j]
        # Recompute the forward quantities.
        for j in range(3):
            p[j] = r[j, 0] * means[i, 0] + r[j, 1] * means[i, 1] + r[j, 2] * means[i, 2] + camera[9 + j]
        x, y, z = p[0], p[1], p[2]
        jx, jy, jxz, jyz, inside_x, inside_y = _jacobian(x, y, z, fx, fy, cx, cy, np.float32(width), np.float32(height))
        inverse_length = _rotation(quats[i, 0], quats[i, 1], quats[i, 2], quats[i, 3], q)
        for a in range(3):
            for b in range(3):
                rq[a, b] = r[a, 0] * q[0, b] + r[a, 1] * q[1, b] + r[a, 2] * q[2, b]
                m[a, b] = rq[a, b] * scales[i, b]
        # Conic to covariance: d(inverse) = -K G K.
        ka, kb, kc = flat[i, 2], flat[i, 3], flat[i, 4]
        ga, gb, gc = total[2], half * total[3], total[4]
        ta, tb, tc, td = ka * ga + kb * gb, ka * gb + kb * gc, kb * ga + kc * gb, kb * gb + kc * gc
        v_xx, v_xy, v_yy = -(ta * ka + tb * kb), -(ta * kb + tb * kc), -(tc * kb + td * kc)
        # Covariance = U Uᵀ with rows u = jx m0 + jxz m2 and v = jy m1 + jyz m2.
        v_jx, v_jy, v_jxz, v_jyz = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
        for b in range(3):
            u, v = jx * m[0, b] + jxz * m[2, b], jy * m[1, b] + jyz * m[2, b]
            v_u, v_v = two * (v_xx * u + v_xy * v), two * (v_xy * u + v_yy * v)
            v_jx, v_jxz = v_jx + v_u * m[0, b], v_jxz + v_u * m[2, b]
            v_jy, v_jyz = v_jy + v_v * m[1, b], v_jyz + v_v * m[2, b]
            v_m0, v_m1, v_m2 = jx * v_u, jy * v_v, jxz * v_u + jyz * v_v
            v_scales[i, b] = v_m0 * rq[0, b] + v_m1 * rq[1, b] + v_m2 * rq[2, b]
            v_rq[0, b], v_rq[1, b], v_rq[2, b] = v_m0 * scales[i, b], v_m1 * scales[i, b], v_m2 * scales[i, b]
        # Camera point.
        v_p[0], v_p[1] = fx / z * total[0], fy / z * total[1]
        v_p[2] = total[6 + channels] - (fx * x * total[0] + fy * y * total[1]) / (z * z)
        v_p[2] -= (v_jx * jx + v_jy * jy) / z
        if inside_x:  # jxz = -fx x / z²
            v_p[0] -= v_jxz * fx / (z * z)
            v_p[2] -= two * v_jxz * jxz / z
        else:  # jxz = -fx limit / z
            v_p[2] -= v_jxz * jxz / z
        if inside_y:
            v_p[1] -= v_jyz * fy / (z * z)
            v_p[2] -= two * v_jyz * jyz / z
        else:
            v_p[2] -= v_jyz * jyz / z
        for a in range(3):
            v_means[i, a] = r[0, a] * v_p[0] + r[1, a] * v_p[1] + r[2, a] * v_p[2]
            v_camera[9 + a] += v_p[a]
            for b in range(3):
                v_q[a, b] = r[0, a] * v_rq[0, b] + r[1, a] * v_rq[1, b] + r[2, a] * v_rq[2, b]
                v_camera[3 * a + b] += v_p[a] * means[i, b]
                for j in range(3):
                    v_camera[3 * a + b] += v_rq[a, j] * q[b, j]
        # Rotation matrix to quaternion, through its normalisation.
        w, x, y, z = (
            quats[i, 0] * inverse_length, quats[i, 1] * inverse_length,
            quats[i, 2] * inverse_length, quats[i, 3] * inverse_length,
        )  # fmt: skip
        g = v_q
        v_w = two * (x * (g[2, 1] - g[1, 2]) + y * (g[0, 2] - g[2, 0]) + z * (g[1, 0] - g[0, 1]))
        v_x = two * (-two * x * (g[1, 1] + g[2, 2]) + y * (g[1, 0] + g[0, 1]) + z * (g[2, 0] + g[0, 2]))
        v_x += two * w * (g[2, 1] - g[1, 2])
        v_y = two * (x * (g[1, 0] + g[0, 1]) - two * y * (g[0, 0] + g[2, 2]) + z * (g[2, 1] + g[1, 2]))
        v_y += two * w * (g[0, 2] - g[2, 0])
        v_z = two * (x * (g[2, 0] + g[0, 2]) + y * (g[2, 1] + g[1, 2]) - two * z * (g[0, 0] + g[1, 1]))
        v_z += two * w * (g[1, 0] - g[0, 1])
        along = v_w * w + v_x * x + v_y * y + v_z * z
        v_quats[i, 0], v_quats[i, 1] = (v_w - along * w) * inverse_length, (v_x - along * x) * inverse_length
        v_quats[i, 2], v_quats[i, 3] = (v_y - along * y) * inverse_length, (v_z - along * z) * inverse_length
