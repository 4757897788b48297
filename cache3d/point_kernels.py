"""Numba kernel of the point cache: discs into a z-buffer."""

from __future__ import annotations

import numpy as np

from cache3d.compiled import compiled

NEAR = 0.01
LARGEST = 24  # pixels: half size of a footprint, however close
ROUND = 0.05  # how much farther a disc's rim counts than its centre, relative to depth


@compiled
def splat_discs(start, stop, which, positions, normals, radii, cameras, shift, height, width, nearest, owner):
    """Draw points as discs into z-buffers; the nearest wins, and of one surface the one with the nearest centre.

    Args:
        start, stop: cameras to draw.
        which: ``[m]`` indices of the points to draw.
        positions, normals, radii: of all points; a zero normal means facing the camera.
        cameras: ``[t 16]``: rotation (camera from world), translation, fx, fy, cx, cy.
        shift: 0 to draw as if the camera stood at the origin, else 1.
        height, width: image size.
        nearest: ``[t h w]`` in: infinity, out: depth.
        owner: ``[t h w]`` in: -1, out: index of the point shown.
    """
    half = np.float32(0.5)
    for k in range(start, stop):
        r = cameras[k, :9].reshape(3, 3)
        fx, fy, cx, cy = cameras[k, 12], cameras[k, 13], cameras[k, 14], cameras[k, 15]
        rank = np.full((height, width), np.inf, np.float32)
        for i in which:
            a, b, c = positions[i, 0], positions[i, 1], positions[i, 2]
            z = r[2, 0] * a + r[2, 1] * b + r[2, 2] * c + shift * cameras[k, 11]
            if not z > NEAR:
                continue
            x = r[0, 0] * a + r[0, 1] * b + r[0, 2] * c + shift * cameras[k, 9]
            y = r[1, 0] * a + r[1, 1] * b + r[1, 2] * c + shift * cameras[k, 10]
            u, v = fx * x / z + cx, fy * y / z + cy
            radius = np.float32(1.5) * radii[i]  # covers the corners of the pixel that made it
            reach_x = min(radius * fx / z, np.float32(LARGEST))
            reach_y = min(radius * fy / z, np.float32(LARGEST))
            if not (u + reach_x >= 0 and u - reach_x <= width and v + reach_y >= 0 and v - reach_y <= height):
                continue
            na = r[0, 0] * normals[i, 0] + r[0, 1] * normals[i, 1] + r[0, 2] * normals[i, 2]
            nb = r[1, 0] * normals[i, 0] + r[1, 1] * normals[i, 1] + r[1, 2] * normals[i, 2]
            nc = r[2, 0] * normals[i, 0] + r[2, 1] * normals[i, 1] + r[2, 2] * normals[i, 2]
            offset = na * x + nb * y + nc * z
            home_x, home_y = np.int64(np.floor(u)), np.int64(np.floor(v))
            first_x, last_x = min(np.int64(np.ceil(u - reach_x - half)), home_x), np.int64(np.floor(u + reach_x - half))
            first_y, last_y = min(np.int64(np.ceil(v - reach_y - half)), home_y), np.int64(np.floor(v + reach_y - half))
            for py in range(max(first_y, 0), min(max(last_y, home_y), height - 1) + 1):
                for px in range(max(first_x, 0), min(max(last_x, home_x), width - 1) + 1):
                    ray_x, ray_y = (np.float32(px) + half - cx) / fx, (np.float32(py) + half - cy) / fy
                    slope = na * ray_x + nb * ray_y + nc
                    at = z
                    if abs(slope) > np.float32(0.1):
                        at = offset / slope
                    dx, dy, dz = ray_x * at - x, ray_y * at - y, at - z
                    apart = (dx * dx + dy * dy + dz * dz) / (radius * radius)
                    if apart > 1:
                        if px != home_x or py != home_y:
                            continue
                        at, apart = z, np.float32(1.0)
                    key = at * (np.float32(1.0) + np.float32(ROUND) * apart * radius / z)
                    if key < rank[py, px]:
                        rank[py, px], nearest[k, py, px], owner[k, py, px] = key, at, i
