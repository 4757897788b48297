"""Numba kernels of the point cache: rasterization of discs with a z-buffer."""

from __future__ import annotations

import numpy as np

from cache3d.rasterizer.projection_kernels import NEAR
from geometry.jit import compiled

BEHIND = 1e6  # factor on the depth of sky during rasterization, so that it lies behind everything


@compiled
def _foreshortened(i, z, x, y, nx, ny, nz, radii, focal):
    """Pixels per sample, foreshortened: the disc is as long as its pixel's footprint on a slanted surface."""
    distance = np.sqrt(x * x + y * y + z * z)
    cosine = abs(nx * x + ny * y + nz * z) / distance
    if nx == 0 and ny == 0 and nz == 0:
        cosine = np.float32(1.0)
    return np.float32(2.0) * radii[i] * focal / z * max(cosine, np.float32(0.25))


@compiled
def _settle(
    height, width, nearest, owner, sparse, misfit, home_nearest, home_owner, home_misfit, center_nearest, same, slack
):  # fmt: skip
    """Choose between the disc that covers a pixel and the sample whose center lies in it, where they differ.

    The center wins: a sample is sharpest in its own pixel, and a rim would fatten the outline of the foreground. A rim
    in front is kept where samples are sparse, and inside a surface: where the pixels on both sides, along a row, a
    column or a diagonal, have their centers at the rim's depth. A rim of the same surface is kept if its disc fits the
    pixel size much better.
    """
    for y in range(height):
        for x in range(width):
            if home_owner[y, x] < 0 or home_owner[y, x] == owner[y, x]:
                continue
            near = nearest[y, x]
            if near < home_nearest[y, x] * np.float32(1.0 - same):
                inside = sparse[y, x]
                # Inside means: the surface goes on to both sides along some line.
                for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
                    y0, x0, y1, x1 = y - dy, x - dx, y + dy, x + dx
                    first, last = near, near  # the surface continues beyond the image border
                    if 0 <= y0 < height and 0 <= x0 < width:
                        first = center_nearest[y0, x0]
                    if 0 <= y1 < height and 0 <= x1 < width:
                        last = center_nearest[y1, x1]
                    reach = np.float32(same) * near
                    inside = inside or (abs(first - near) < reach and abs(last - near) < reach)
                if inside:
                    continue
            elif misfit[y, x] + np.float32(slack) < home_misfit[y, x]:
                continue
            nearest[y, x], owner[y, x] = home_nearest[y, x], home_owner[y, x]


@compiled
def splat_discs(start, stop, positions, normals, radii, sky, cameras, height, width, policy, nearest, owner):
    """Rasterize points as discs; the nearest wins, and of one surface the disc with the nearest center.

    Sky is rendered as if the camera were at the origin, and behind everything.

    Args:
        start, stop: cameras to draw.
        positions, normals, radii, sky: of all points; a zero normal means facing the camera.
        cameras: ``[t 16]``: rotation (camera from world), translation, fx, fy, cx, cy.
        height, width: image size.
        policy: the `DiscPolicy`.
        nearest: ``[t h w]`` in: infinity, out: depth.
        owner: ``[t h w]`` in: -1, out: index of the point shown.
    """
    half = np.float32(0.5)
    for k in range(start, stop):
        r = cameras[k, :9].reshape(3, 3)
        fx, fy, cx, cy = cameras[k, 12], cameras[k, 13], cameras[k, 14], cameras[k, 15]
        rank, home_rank = np.full((2, height, width), np.inf, np.float32)
        home_nearest, center_nearest = np.full((2, height, width), np.inf, np.float32)
        home_owner = np.full((height, width), -1, np.int32)
        sparse = np.zeros((height, width), np.bool_)
        misfit, home_misfit = np.zeros((2, height, width), np.float32)
        for i in range(len(positions)):
            shift, back = np.float32(1.0), np.float32(1.0)
            if sky[i]:
                shift, back = np.float32(0.0), np.float32(BEHIND)
            a, b, c = positions[i, 0], positions[i, 1], positions[i, 2]
            z = r[2, 0] * a + r[2, 1] * b + r[2, 2] * c + shift * cameras[k, 11]
            if not z > NEAR:
                continue
            x = r[0, 0] * a + r[0, 1] * b + r[0, 2] * c + shift * cameras[k, 9]
            y = r[1, 0] * a + r[1, 1] * b + r[1, 2] * c + shift * cameras[k, 10]
            u, v = fx * x / z + cx, fy * y / z + cy
            radius = np.float32(1.5) * radii[i]  # covers the corners of the pixel that made it
            reach_x = min(radius * fx / z, np.float32(policy.max_reach_px))
            reach_y = min(radius * fy / z, np.float32(policy.max_reach_px))
            if not (u + reach_x >= 0 and u - reach_x <= width and v + reach_y >= 0 and v - reach_y <= height):
                continue
            na = r[0, 0] * normals[i, 0] + r[0, 1] * normals[i, 1] + r[0, 2] * normals[i, 2]
            nb = r[1, 0] * normals[i, 0] + r[1, 1] * normals[i, 1] + r[1, 2] * normals[i, 2]
            nc = r[2, 0] * normals[i, 0] + r[2, 1] * normals[i, 1] + r[2, 2] * normals[i, 2]
            offset = na * x + nb * y + nc * z
            pixels = _foreshortened(i, z, x, y, na, nb, nc, radii, fx)
            large = pixels > policy.sparse_px
            unfit = min(abs(np.log2(pixels)), np.float32(policy.max_unfit))
            if offset > 0:  # seen from behind
                unfit = np.float32(policy.max_unfit)
            # The home pixel holds the center; it is visited even if the disc is smaller than a pixel.
            home_x, home_y = np.int64(np.floor(u)), np.int64(np.floor(v))
            first_x, last_x = min(np.int64(np.ceil(u - reach_x - half)), home_x), np.int64(np.floor(u + reach_x - half))
            first_y, last_y = min(np.int64(np.ceil(v - reach_y - half)), home_y), np.int64(np.floor(v + reach_y - half))
            for py in range(max(first_y, 0), min(max(last_y, home_y), height - 1) + 1):
                for px in range(max(first_x, 0), min(max(last_x, home_x), width - 1) + 1):
                    ray_x, ray_y = (np.float32(px) + half - cx) / fx, (np.float32(py) + half - cy) / fy
                    slope = na * ray_x + nb * ray_y + nc
                    at = z
                    # Almost edge on the plane runs away along the ray: the disc counts as facing the camera.
                    if abs(slope) > np.float32(0.1):
                        at = offset / slope
                    dx, dy, dz = ray_x * at - x, ray_y * at - y, at - z
                    apart = (dx * dx + dy * dy + dz * dz) / (radius * radius)
                    home = px == home_x and py == home_y
                    if apart > 1:
                        if not home:
                            continue
                        # The pixel lies beyond the rim, but the sample lies in the pixel.
                        at, apart = z, np.float32(1.0)
                    at *= back
                    rim, misfitting = np.float32(policy.rim), np.float32(policy.unfit)
                    key = at * (np.float32(1.0) + rim * apart * radius / z + misfitting * unfit)
                    if key < rank[py, px]:
                        rank[py, px], nearest[k, py, px], owner[k, py, px] = key, at, i
                        sparse[py, px], misfit[py, px] = large, unfit
                    if home:
                        # Centers and not what is drawn: along an outline rims would vouch for each other.
                        center_nearest[py, px] = min(center_nearest[py, px], at)
                    if home and apart <= np.float32(policy.core) and key < home_rank[py, px]:
                        home_rank[py, px], home_nearest[py, px], home_owner[py, px] = key, at, i
                        home_misfit[py, px] = unfit
        _settle(
            height, width, nearest[k], owner[k], sparse, misfit, home_nearest, home_owner, home_misfit, center_nearest,
            policy.same, policy.slack,
        )  # fmt: skip
        for py in range(height):
            for px in range(width):
                if owner[k, py, px] >= 0 and sky[owner[k, py, px]]:
                    nearest[k, py, px] /= np.float32(BEHIND)
