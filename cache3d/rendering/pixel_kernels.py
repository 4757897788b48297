"""Numba kernel of `cache3d.rendering.pixels`: samples of the surfaces and of the sky to the maps of one image."""

from __future__ import annotations

import numpy as np

from geometry.jit import compiled

_zero, _half, _one = np.float32(0.0), np.float32(0.5), np.float32(1.0)
FAINTEST = np.float32(1.0 / 255.0)
TINY = np.float32(1e-10)


# IEEE arithmetic: with one sample per pixel all maps but the confidence have the bits of the tensor operations.
@compiled(fastmath=False)
def blend_samples(
    start, stop, near, near_alpha, far, far_depth, far_alpha, has_far, samples, lens, numbers, sky_share, maps
):
    """Pool samples to pixels, blend the surfaces over the sky, and make the maps of a `RenderedView`.

    Args:
        start, stop: rows of pixels.
        near: ``[11 h w]`` sums of the surfaces, see `cache3d.rendering.splat_attributes.to_splats`.
        near_alpha: ``[h w]``.
        far, far_depth, far_alpha: ``[11 h w]``, ``[h w]`` and ``[h w]``, of the sky; read only if ``has_far``.
        has_far: whether there is any sky.
        samples: per pixel and axis.
        lens: ``fx, fy, cx, cy`` of the samples, pixels.
        numbers: outside alpha, gapless alpha, difference of the two, mixed sky, spread tolerance.
        sky_share: share of sky from which a pixel takes its depth.
        maps: ``[10 h w]`` gets rgb, depth, coverage, confidence, sky, spread, observed, away.
    """
    outside, gapless, between, mixed_sky, tolerance = numbers
    share = _one / np.float32(samples * samples)
    for row in range(start, stop):
        for column in range(maps.shape[2]):
            red, green, blue, sure, observed, away = _zero, _zero, _zero, _zero, _zero, _zero
            mean, square, plane, alpha = _zero, _zero, _zero, _zero
            far_red, far_green, far_blue, far_sure, far_observed, far_away = _zero, _zero, _zero, _zero, _zero, _zero
            depth, behind = _zero, _zero
            for dy in range(samples):
                y = row * samples + dy
                ray_y = (np.float32(y) + _half - lens[3]) / lens[1]
                for dx in range(samples):
                    x = column * samples + dx
                    ray_x = (np.float32(x) + _half - lens[2]) / lens[0]
                    a, w = near_alpha[y, x], _one
                    if has_far:
                        s = far_alpha[y, x]
                        # See `cache3d.rendering.splat_attributes.sharpen_sky_alpha`.
                        firm = min(max((a - outside) / between, _zero), _one)
                        w = _one + s * (firm / max(a, outside) - _one)
                        behind += s
                        depth += far_depth[y, x] * s
                        far_red, far_green = far_red + far[0, y, x], far_green + far[1, y, x]
                        far_blue, far_sure = far_blue + far[2, y, x], far_sure + far[3, y, x]
                        far_observed, far_away = far_observed + far[4, y, x], far_away + far[5, y, x]
                    alpha += a * w
                    red, green, blue = red + near[0, y, x] * w, green + near[1, y, x] * w, blue + near[2, y, x] * w
                    sure, observed = sure + near[3, y, x] * w, observed + near[4, y, x] * w
                    away, mean, square = away + near[5, y, x] * w, mean + near[6, y, x] * w, square + near[7, y, x] * w
                    plane += (near[8, y, x] * ray_x + near[9, y, x] * ray_y + near[10, y, x]) * w
            alpha, behind, plane = alpha * share, behind * share, plane * share
            passed = _one - alpha
            total = alpha + passed * behind
            if not total >= FAINTEST:
                for k in range(10):
                    maps[k, row, column] = _zero
                scale = _one / max(alpha, FAINTEST)
                maps[7, row, column] = _spread(mean * share * scale, square * share * scale)
                continue
            # Divided by alpha, so that soft coverage neither darkens nor cracks.
            over = _one / max(total, FAINTEST)
            maps[0, row, column] = min(max((red * share + passed * (far_red * share)) * over, _zero), _one)
            maps[1, row, column] = min(max((green * share + passed * (far_green * share)) * over, _zero), _one)
            maps[2, row, column] = min(max((blue * share + passed * (far_blue * share)) * over, _zero), _one)
            sky = min(max(passed * behind * over, _zero), _one)
            # No surface lies at the mean depth of surface and sky: the pixel takes the depth of its larger part. The
            # surface's is the mean of the inverse depth: the little background between samples hardly changes it.
            if sky > sky_share:
                maps[3, row, column] = depth * share / max(behind, TINY)
            else:
                maps[3, row, column] = alpha / max(plane, TINY) if alpha >= FAINTEST else _zero
            coverage = min(total / gapless, _one)
            maps[4, row, column] = coverage
            scale = _one / max(alpha, FAINTEST)
            spread = _spread(mean * share * scale, square * share * scale)
            # See `cache3d.rendering.confidence.depth_agreement`.
            loss = spread * (_one - sky) / tolerance
            loss *= loss
            agreement = (_one - mixed_sky * sky * (_one - sky)) / (_one + loss * loss)
            sure = (sure * share + passed * (far_sure * share)) * over
            maps[5, row, column] = min(max(coverage * sure * agreement, _zero), _one)
            maps[6, row, column], maps[7, row, column] = sky, spread
            maps[8, row, column] = (observed * share + passed * (far_observed * share)) * over
            maps[9, row, column] = (away * share + passed * (far_away * share)) * over


@compiled(fastmath=False)
def blend_shown(
    start, stop, near, near_alpha, far, far_depth, far_alpha, has_far, samples, lens, numbers, sky_share, maps
):
    """`blend_samples` of the channels `cache3d.rendering.splat_attributes.SHOWN`: the same bits of fewer maps.

    Args:
        start, stop, samples, lens, numbers, sky_share: as of `blend_samples`.
        near: ``[6 h w]`` sums of the surfaces.
        near_alpha: ``[h w]``.
        far, far_depth, far_alpha, has_far: likewise, of the sky.
        maps: ``[6 h w]`` gets rgb, depth, coverage, sky.
    """
    outside, gapless, between = numbers[0], numbers[1], numbers[2]
    share = _one / np.float32(samples * samples)
    for row in range(start, stop):
        for column in range(maps.shape[2]):
            red, green, blue, plane, alpha = _zero, _zero, _zero, _zero, _zero
            far_red, far_green, far_blue, depth, behind = _zero, _zero, _zero, _zero, _zero
            for dy in range(samples):
                y = row * samples + dy
                ray_y = (np.float32(y) + _half - lens[3]) / lens[1]
                for dx in range(samples):
                    x = column * samples + dx
                    ray_x = (np.float32(x) + _half - lens[2]) / lens[0]
                    a, w = near_alpha[y, x], _one
                    if has_far:
                        s = far_alpha[y, x]
                        firm = min(max((a - outside) / between, _zero), _one)
                        w = _one + s * (firm / max(a, outside) - _one)
                        behind += s
                        depth += far_depth[y, x] * s
                        far_red, far_green = far_red + far[0, y, x], far_green + far[1, y, x]
                        far_blue += far[2, y, x]
                    alpha += a * w
                    red, green, blue = red + near[0, y, x] * w, green + near[1, y, x] * w, blue + near[2, y, x] * w
                    plane += (near[3, y, x] * ray_x + near[4, y, x] * ray_y + near[5, y, x]) * w
            alpha, behind, plane = alpha * share, behind * share, plane * share
            passed = _one - alpha
            total = alpha + passed * behind
            if not total >= FAINTEST:
                for k in range(6):
                    maps[k, row, column] = _zero
                continue
            over = _one / max(total, FAINTEST)
            maps[0, row, column] = min(max((red * share + passed * (far_red * share)) * over, _zero), _one)
            maps[1, row, column] = min(max((green * share + passed * (far_green * share)) * over, _zero), _one)
            maps[2, row, column] = min(max((blue * share + passed * (far_blue * share)) * over, _zero), _one)
            sky = min(max(passed * behind * over, _zero), _one)
            if sky > sky_share:
                maps[3, row, column] = depth * share / max(behind, TINY)
            else:
                maps[3, row, column] = alpha / max(plane, TINY) if alpha >= FAINTEST else _zero
            maps[4, row, column] = min(total / gapless, _one)
            maps[5, row, column] = sky


@compiled(fastmath=False)
def _spread(mean, square):
    """Relative standard deviation, from the means of a quantity and of its square."""
    return np.sqrt(max(square - mean * mean, _zero)) / max(mean, TINY)
