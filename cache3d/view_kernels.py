"""Numba kernels, one Gaussian at a time: what `cache3d.appearance` and `cache3d.visibility` need of those in view.

They do what chains of tensor operations over all Gaussians would do, in one pass and without their temporaries.

Legend: `camera` is a float32 row of 16: rotation (9, camera from world), translation (3), fx, fy, cx, cy.
Numba does not notice a change in another file: after one in `rotation`, change this file too.
"""

from __future__ import annotations

import numpy as np

from cache3d.compiled import compiled
from cache3d.projection_kernels import NEAR, rotation

_zero, _one = np.float32(0.0), np.float32(1.0)


@compiled
def mark_in_view(start, stop, means, sky, wanted, camera, width, height, margin, marked):
    """Mark the Gaussians of the kind ``sky == wanted`` that lie before the camera and near the image."""
    r = camera[:9].reshape(3, 3)
    fx, fy, cx, cy = camera[12], camera[13], camera[14], camera[15]
    left, right = -(cx + margin * width) / fx, (width * (_one + margin) - cx) / fx
    top, bottom = -(cy + margin * height) / fy, (height * (_one + margin) - cy) / fy
    for i in range(start, stop):
        marked[i] = False
        if sky[i] != wanted:
            continue
        a, b, c = means[i, 0], means[i, 1], means[i, 2]
        z = r[2, 0] * a + r[2, 1] * b + r[2, 2] * c + camera[11]
        if not z > np.float32(NEAR):
            continue
        x = r[0, 0] * a + r[0, 1] * b + r[0, 2] * c + camera[9]
        y = r[1, 0] * a + r[1, 1] * b + r[1, 2] * c + camera[10]
        marked[i] = left * z <= x <= right * z and top * z <= y <= bottom * z


@compiled
def locate(start, stop, positions, candidates, camera, width, height, pixel, depth):
    """The pixel ``[n]`` that each candidate's centre falls on, row-major, -1 outside the image; and its depth."""
    r = camera[:9].reshape(3, 3)
    fx, fy, cx, cy = camera[12], camera[13], camera[14], camera[15]
    for i in range(start, stop):
        pixel[i] = -1
        if not candidates[i]:
            continue
        a, b, c = positions[i, 0], positions[i, 1], positions[i, 2]
        z = r[2, 0] * a + r[2, 1] * b + r[2, 2] * c + camera[11]
        if not z > _zero:
            continue
        x = r[0, 0] * a + r[0, 1] * b + r[0, 2] * c + camera[9]
        y = r[1, 0] * a + r[1, 1] * b + r[1, 2] * c + camera[10]
        column, row = fx * x / z + cx, fy * y / z + cy
        if column >= _zero and column < width and row >= _zero and row < height:
            pixel[i], depth[i] = np.int64(row) * width + np.int64(column), z


@compiled
def _extent(x, y, inverse_z, camera, q, scales, i, kernel):
    """Larger extent in pixels of the surface that Gaussian ``i`` stands for, at a camera point."""
    r = camera[:9].reshape(3, 3)
    largest = _zero
    for k in range(2):
        length = scales[i, k] * (_one / kernel)
        # The world axis, and its image in the camera.
        ax = (r[0, 0] * q[0, k] + r[0, 1] * q[1, k] + r[0, 2] * q[2, k]) * length
        ay = (r[1, 0] * q[0, k] + r[1, 1] * q[1, k] + r[1, 2] * q[2, k]) * length
        az = (r[2, 0] * q[0, k] + r[2, 1] * q[1, k] + r[2, 2] * q[2, k]) * length
        u, v = (
            (ax - x * inverse_z * az) * (camera[12] * inverse_z),
            (ay - y * inverse_z * az) * (camera[13] * inverse_z),
        )
        largest = max(largest, u * u + v * v)
    return np.sqrt(largest)


@compiled
def extents(start, stop, chosen, means, quats, scales, camera, kernel, out):
    """Larger extents in pixels ``[k]`` of the chosen Gaussians."""
    r, q = camera[:9].reshape(3, 3), np.empty((3, 3), np.float32)
    for k in range(start, stop):
        i = chosen[k]
        a, b, c = means[i, 0], means[i, 1], means[i, 2]
        x = r[0, 0] * a + r[0, 1] * b + r[0, 2] * c + camera[9]
        y = r[1, 0] * a + r[1, 1] * b + r[1, 2] * c + camera[10]
        z = max(r[2, 0] * a + r[2, 1] * b + r[2, 2] * c + camera[11], np.float32(1e-6))
        rotation(quats[i, 0], quats[i, 1], quats[i, 2], quats[i, 3], q)
        out[k] = _extent(x, y, _one / z, camera, q, scales, i, kernel)


@compiled
def see(
    start, stop, chosen, means, quats, scales, opacities, colors, observed, confidence, sky, camera, rules,
    out_means, out_quats, out_scales, out_opacities, values,
):  # fmt: skip
    """Gather what a rasterizer needs of the chosen Gaussians; ``values [k 11]`` are those of `appearance.seen`.

    ``rules``: kernel, the extents between which footprints grow, by how much, power of the density, full angle,
    steepest slope.
    """
    kernel, low, high, growth, power, full_angle, steepest = rules
    r, q = camera[:9].reshape(3, 3), np.empty((3, 3), np.float32)
    tiny = np.float32(1e-6)
    for k in range(start, stop):
        i = chosen[k]
        a, b, c = means[i, 0], means[i, 1], means[i, 2]
        x = r[0, 0] * a + r[0, 1] * b + r[0, 2] * c + camera[9]
        y = r[1, 0] * a + r[1, 1] * b + r[1, 2] * c + camera[10]
        z = max(r[2, 0] * a + r[2, 1] * b + r[2, 2] * c + camera[11], tiny)
        rotation(quats[i, 0], quats[i, 1], quats[i, 2], quats[i, 3], q)
        inverse_z = _one / z
        extent = _extent(x, y, inverse_z, camera, q, scales, i, kernel)
        # The normal in the camera.
        nx = r[0, 0] * q[0, 2] + r[0, 1] * q[1, 2] + r[0, 2] * q[2, 2]
        ny = r[1, 0] * q[0, 2] + r[1, 1] * q[1, 2] + r[1, 2] * q[2, 2]
        nz = r[2, 0] * q[0, 2] + r[2, 1] * q[1, 2] + r[2, 2] * q[2, 2]
        cosine = -(nx * x + ny * y + nz * z) / max(np.sqrt(x * x + y * y + z * z), np.float32(1e-12))
        belief, away = confidence[i], _zero
        if extent > _one:
            belief *= extent**-power
        if not sky[i]:
            first = min(scales[i, 0], scales[i, 1]) / max(scales[i, 0], scales[i, 1])
            step = min(max(cosine / max(first, np.float32(1e-3)) / full_angle, _zero), _one)
            belief *= step * step * (np.float32(3.0) - np.float32(2.0) * step)
            if cosine < _zero:
                away = _one
        u, v = x * inverse_z, y * inverse_z
        tilt = nx * u + ny * v + nz
        tilt = min(tilt, -tiny) if tilt < _zero else max(tilt, tiny)
        slope_x, slope_y = nx * (_one / tilt), ny * (_one / tilt)
        gentler = steepest / max(np.sqrt(slope_x * slope_x + slope_y * slope_y), steepest)
        slope_x, slope_y = slope_x * gentler, slope_y * gentler
        grown = _one + growth * min(max((extent - low) / (high - low), _zero), _one)
        for j in range(3):
            out_means[k, j], out_scales[k, j], values[k, j] = means[i, j], scales[i, j] * grown, colors[i, j]
        for j in range(4):
            out_quats[k, j] = quats[i, j]
        out_opacities[k] = opacities[i]
        values[k, 3], values[k, 4], values[k, 5] = belief, np.float32(observed[i]), away
        values[k, 6], values[k, 7] = inverse_z, inverse_z * inverse_z
        values[k, 8], values[k, 9] = slope_x * inverse_z, slope_y * inverse_z
        values[k, 10] = (_one - slope_x * u - slope_y * v) * inverse_z


@compiled
def pool(start, stop, images, samples, out):
    """Means over ``samples`` x ``samples`` pixels of images ``[c h w]``, rows ``start:stop`` of ``out``."""
    share = _one / np.float32(samples * samples)
    for channel in range(images.shape[0]):
        for row in range(start, stop):
            for column in range(out.shape[2]):
                found = _zero
                for dy in range(samples):
                    for dx in range(samples):
                        found += images[channel, row * samples + dy, column * samples + dx]
                out[channel, row, column] = found * share
