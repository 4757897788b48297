"""Numba kernels of `cache3d.rendering.splat_attributes` and `cache3d.rendering.visibility`, one Gaussian at a time.

They replace chains of tensor operations over all Gaussians by one pass without temporaries.

Legend: `camera` is a float32 row of 16: rotation (9, camera from world), translation (3), fx, fy, cx, cy.
"""

from __future__ import annotations

import numpy as np

from cache3d.rasterizer.projection_kernels import NEAR
from geometry.jit import compiled

_zero, _one = np.float32(0.0), np.float32(1.0)


@compiled
def mark_in_view(start, stop, means, sky, wanted, camera, width, height, margin, marked):
    """Mark the Gaussians with ``sky == wanted`` in front of the camera and inside the image with a margin.

    Args:
        start, stop: range of Gaussians.
        means, sky: ``[n 3]`` and ``[n]`` bool, of all.
        wanted: which kind.
        camera: row of 16.
        width, height: image size.
        margin: share of the image size around it.
        marked: ``[n]`` bool gets the marks.
    """
    r = camera[:9].reshape(3, 3)
    fx, fy, cx, cy = camera[12], camera[13], camera[14], camera[15]
    # Borders as slopes x / z, compared after multiplying by z: no division per Gaussian.
    left, right = -(cx + margin * width) / fx, (width * (_one + margin) - cx) / fx
    top, bottom = -(cy + margin * height) / fy, (height * (_one + margin) - cy) / fy
    for i in range(start, stop):
        marked[i] = False
        if sky[i] != wanted:
            continue
        a, b, c = means[i, 0], means[i, 1], means[i, 2]
        z = r[2, 0] * a + r[2, 1] * b + r[2, 2] * c + camera[11]
        # So written that NaN fails.
        if not z > np.float32(NEAR):
            continue
        x = r[0, 0] * a + r[0, 1] * b + r[0, 2] * c + camera[9]
        y = r[1, 0] * a + r[1, 1] * b + r[1, 2] * c + camera[10]
        marked[i] = left * z <= x <= right * z and top * z <= y <= bottom * z


@compiled
def locate(start, stop, positions, candidates, camera, width, height, pixel, depth):
    """Find the pixel of each candidate's center.

    Args:
        start, stop: range of primitives.
        positions, candidates: ``[n 3]`` and ``[n]`` bool, of all.
        camera: row of 16.
        width, height: image size.
        pixel: ``[n]`` int64 gets the index of the pixel, row-major; -1 outside the image.
        depth: ``[n]`` gets the depth where ``pixel`` is not -1.
    """
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
def _extent(x, y, inverse_z, camera, quats, scales, i, kernel):
    """Larger extent in pixels of the surface element of Gaussian ``i``, at a camera point."""
    w, a, b, c = quats[i, 0], quats[i, 1], quats[i, 2], quats[i, 3]
    # Divided by the squared length: the quaternion need not be normalized.
    two = np.float32(2.0) / (w * w + a * a + b * b + c * c)
    first = _axis_px(
        x, y, inverse_z, camera, _one - two * (b * b + c * c), two * (a * b + w * c), two * (a * c - w * b)
    )
    second = _axis_px(
        x, y, inverse_z, camera, two * (a * b - w * c), _one - two * (a * a + c * c), two * (b * c + w * a)
    )
    return max(first * scales[i, 0], second * scales[i, 1]) / kernel


@compiled
def _axis_px(x, y, inverse_z, camera, a, b, c):
    """Length in pixels of the image of a world vector at a camera point."""
    along = camera[6] * a + camera[7] * b + camera[8] * c
    u = (camera[0] * a + camera[1] * b + camera[2] * c - x * inverse_z * along) * camera[12]
    v = (camera[3] * a + camera[4] * b + camera[5] * c - y * inverse_z * along) * camera[13]
    return np.sqrt(u * u + v * v) * inverse_z


@compiled
def extents(start, stop, index, means, quats, scales, camera, kernel, out):
    """Measure the larger extents of Gaussians.

    Args:
        start, stop: range of ``index``.
        index: ``[k]`` rows of ``means [n 3]``, ``quats [n 4]`` and ``scales [n 3]``.
        camera: row of 16.
        kernel: standard deviation of a footprint, pixels of its own frame.
        out: ``[k]`` gets the extents, pixels.
    """
    r = camera[:9].reshape(3, 3)
    for k in range(start, stop):
        i = index[k]
        a, b, c = means[i, 0], means[i, 1], means[i, 2]
        x = r[0, 0] * a + r[0, 1] * b + r[0, 2] * c + camera[9]
        y = r[1, 0] * a + r[1, 1] * b + r[1, 2] * c + camera[10]
        z = max(r[2, 0] * a + r[2, 1] * b + r[2, 2] * c + camera[11], np.float32(1e-6))
        out[k] = _extent(x, y, _one / z, camera, quats, scales, i, kernel)


@compiled
def gather_splats(
    start, stop, index, means, quats, scales, opacities, colors, observed, confidence, sky, camera, numbers,
    out_means, out_quats, out_scales, out_opacities, values,
):  # fmt: skip
    """Gather the splats of the Gaussians ``index``; see `cache3d.rendering.splat_attributes.to_splats`.

    Args:
        start, stop: range of ``index``.
        index: ``[k]`` rows of the next nine arrays, the fields of `Gaussians`.
        camera: row of 16.
        numbers: kernel, extents between which footprints grow, their growth, power of the density, full angle, largest
            slope.
        out_means, out_quats, out_scales, out_opacities, values: ``[k ...]`` get the splats, ``values [k 11]``.
    """
    kernel, low, high, growth, power, full_angle, max_slope = numbers
    r = camera[:9].reshape(3, 3)
    tiny, two = np.float32(1e-6), np.float32(2.0)
    for k in range(start, stop):
        i = index[k]
        a, b, c = means[i, 0], means[i, 1], means[i, 2]
        x = r[0, 0] * a + r[0, 1] * b + r[0, 2] * c + camera[9]
        y = r[1, 0] * a + r[1, 1] * b + r[1, 2] * c + camera[10]
        z = max(r[2, 0] * a + r[2, 1] * b + r[2, 2] * c + camera[11], tiny)
        inverse_z = _one / z
        extent = _extent(x, y, inverse_z, camera, quats, scales, i, kernel)
        # The normal in the camera.
        qw, qx, qy, qz = quats[i, 0], quats[i, 1], quats[i, 2], quats[i, 3]
        double = two / (qw * qw + qx * qx + qy * qy + qz * qz)
        a, b, c = double * (qx * qz + qw * qy), double * (qy * qz - qw * qx), _one - double * (qx * qx + qy * qy)
        nx, ny = r[0, 0] * a + r[0, 1] * b + r[0, 2] * c, r[1, 0] * a + r[1, 1] * b + r[1, 2] * c
        nz = r[2, 0] * a + r[2, 1] * b + r[2, 2] * c
        cosine = -(nx * x + ny * y + nz * z) / max(np.sqrt(x * x + y * y + z * z), np.float32(1e-12))
        confidence_here, away = confidence[i], _zero
        if extent > _one:
            confidence_here *= extent**-power
        # The sky has no surface that could be seen aslant or from behind.
        if not sky[i]:
            # A pixel on a tilted surface is longer by the cosine of the view that lifted it.
            first = min(scales[i, 0], scales[i, 1]) / max(scales[i, 0], scales[i, 1])
            step = min(max(cosine / max(first, np.float32(1e-3)) / full_angle, _zero), _one)
            confidence_here *= step * step * (np.float32(3.0) - two * step)
            if cosine < _zero:
                away = _one
        u, v = x * inverse_z, y * inverse_z
        tilt = nx * u + ny * v + nz
        # Edge on the slope is infinite: keep the sign, stay finite.
        tilt = min(tilt, -tiny) if tilt < _zero else max(tilt, tiny)
        slope_x, slope_y = nx * (_one / tilt), ny * (_one / tilt)
        # As in `inverse_depth_planes`: no plane steeper than what was lifted.
        gentler = max_slope / max(np.sqrt(slope_x * slope_x + slope_y * slope_y), max_slope)
        slope_x, slope_y = slope_x * gentler, slope_y * gentler
        grown = _one + growth * min(max((extent - low) / (high - low), _zero), _one)
        for j in range(3):
            out_means[k, j], out_scales[k, j], values[k, j] = means[i, j], scales[i, j] * grown, colors[i, j]
        for j in range(4):
            out_quats[k, j] = quats[i, j]
        out_opacities[k] = opacities[i]
        values[k, 3], values[k, 4], values[k, 5] = confidence_here, np.float32(observed[i]), away
        values[k, 6], values[k, 7] = inverse_z, inverse_z * inverse_z
        values[k, 8], values[k, 9] = slope_x * inverse_z, slope_y * inverse_z
        values[k, 10] = (_one - slope_x * u - slope_y * v) * inverse_z


@compiled
def pool(start, stop, images, weights, samples, out):
    """Average weighted images over squares of pixels.

    Args:
        start, stop: rows of ``out``.
        images, weights: ``[c h w]`` and ``[h w]``.
        samples: side of the squares, pixels.
        out: ``[c h/samples w/samples]`` gets the means.
    """
    share = _one / np.float32(samples * samples)
    for channel in range(images.shape[0]):
        for row in range(start, stop):
            for column in range(out.shape[2]):
                found = _zero
                for dy in range(samples):
                    for dx in range(samples):
                        y, x = row * samples + dy, column * samples + dx
                        found += images[channel, y, x] * weights[y, x]
                out[channel, row, column] = found * share
