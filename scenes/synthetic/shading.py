"""Texture atlas, and the Numba kernels that turn ray hits into color."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8

from geometry.jit import compiled

CHANNELS = 4
_MAX_LEVELS = 12
_kernel = compiled(fastmath=True, error_model="python")


def srgb_to_linear(encoded: Float[np.ndarray, "*s"]) -> Float[np.ndarray, "*s"]:
    """Decode sRGB values in 0..1."""
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(linear: Float[np.ndarray, "*s"]) -> Float[np.ndarray, "*s"]:
    """Encode linear light; values are clipped to 0..1 first."""
    clipped = np.clip(linear, 0.0, 1.0)
    return np.where(clipped <= 0.0031308, 12.92 * clipped, 1.055 * clipped ** (1.0 / 2.4) - 0.055)


_DECODE = srgb_to_linear(np.arange(256) / 255.0).astype(np.float32)


@dataclass(frozen=True)
class Atlas:
    """All textures with their mip levels in one flat array.

    Attributes:
        texels: sRGB and opacity, row-major images one after the other.
        start: first texel of each level of each texture.
        size: ``(height, width)`` of each level.
        levels: number of levels per texture.
    """

    texels: UInt8[np.ndarray, "texels 4"]
    start: Int[np.ndarray, "k levels"]
    size: Int[np.ndarray, "k levels 2"]
    levels: Int[np.ndarray, "k"]


def build_atlas(textures: list[UInt8[np.ndarray, "_h _w 4"]]) -> Atlas:
    """Build mip levels of images by 2x2 averages of linear light, weighted by opacity."""
    count = max(len(textures), 1)
    start = np.zeros((count, _MAX_LEVELS), np.int64)
    size = np.ones((count, _MAX_LEVELS, 2), np.int64)
    levels = np.ones(count, np.int64)
    flat: list[np.ndarray] = []
    offset = 0
    for k, picture in enumerate(textures or [np.full((1, 1, CHANNELS), 255, np.uint8)]):
        level = picture
        for m in range(_MAX_LEVELS):
            start[k, m], size[k, m], levels[k] = offset, level.shape[:2], m + 1
            flat.append(level.reshape(-1, CHANNELS))
            offset += flat[-1].shape[0]
            if min(level.shape[:2]) < 2:
                break
            level = _half_size(level)
    return Atlas(np.concatenate(flat), start, size, levels)


def _half_size(level: UInt8[np.ndarray, "h w 4"]) -> UInt8[np.ndarray, "h2 w2 4"]:
    height, width = (s // 2 for s in level.shape[:2])
    blocks = level[: 2 * height, : 2 * width].reshape(height, 2, width, 2, CHANNELS)
    opacity = blocks[..., 3:].astype(np.float32) / 255.0
    weight = opacity + 1e-4  # not 0: fully transparent blocks keep a color
    linear = (_DECODE[blocks[..., :3]] * weight).sum((1, 3)) / weight.sum((1, 3))
    half = np.concatenate([linear_to_srgb(linear), opacity.mean((1, 3))], -1)
    return (255.0 * half + 0.5).astype(np.uint8)


@_kernel
def sample_texture(texels, start, size, levels, decode, k, u, v, texel_footprint, out):
    """Sample a texture bilinearly, wrapping, at the mip level of ``texel_footprint`` (texels of level 0).

    Args:
        texels, start, size, levels: fields of `Atlas`.
        decode: linear value of every sRGB byte, ``[256]``.
        k: index of the texture.
        u, v: texture coordinates, v pointing down.
        texel_footprint: width of the pixel on the texture.
        out: receives linear RGB and opacity, ``[4]``.
    """
    level = 0
    if texel_footprint > 1.0:
        level = min(int(math.log2(texel_footprint) + 0.5), levels[k] - 1)
    height, width = size[k, level, 0], size[k, level, 1]
    x = (u - math.floor(u)) * width - 0.5
    y = (v - math.floor(v)) * height - 0.5
    x0, y0 = math.floor(x), math.floor(y)
    fx, fy = x - x0, y - y0
    out[0] = out[1] = out[2] = out[3] = 0.0
    for dy in range(2):
        row = (y0 + dy) % height
        wy = fy if dy == 1 else 1.0 - fy
        for dx in range(2):
            weight = wy * (fx if dx == 1 else 1.0 - fx)
            texel = start[k, level] + row * width + (x0 + dx) % width
            opacity = weight * texels[texel, 3] / 255.0
            out[3] += opacity
            for c in range(3):
                out[c] += (opacity + 1e-4 * weight) * decode[texels[texel, c]]
    for c in range(3):
        out[c] /= out[3] + 1e-4


@_kernel
def shade_hits(
    directions, ray_depth, triangle, barycentric, pixel_angle,
    normals, uv, texture, tint, density, shade_uv, shade_texture, shade_density, cutout,
    texels, start, size, levels, decode,
    albedo, opacity, normal_out,
):  # fmt: skip
    """Write linear reflectance, opacity and the normal that faces the camera of every hit; skip misses.

    Args:
        directions: of the rays, ``[n 3]``.
        ray_depth: ray parameter of the hits, ``[n]``.
        triangle: index of the triangle, negative for a miss, ``[n]``.
        barycentric: weights of the second and third corner, ``[n 2]``.
        pixel_angle: width of a pixel at depth 1.
        normals, uv, texture, tint, shade_uv, shade_texture, cutout: fields of `TexturedWorld`.
        density, shade_density: texels per meter of each triangle (`texel_density`).
        texels, start, size, levels: fields of `Atlas`.
        decode: linear value of every sRGB byte, ``[256]``.
        albedo, opacity, normal_out: receive the results, ``[n 3]``, ``[n]``, ``[n 3]``.
    """
    sample = np.zeros(4, np.float32)
    for i in range(directions.shape[0]):
        j = triangle[i]
        if j < 0:
            continue
        b1, b2 = barycentric[i, 0], barycentric[i, 1]
        b0 = 1.0 - b1 - b2
        nx = b0 * normals[j, 0, 0] + b1 * normals[j, 1, 0] + b2 * normals[j, 2, 0]
        ny = b0 * normals[j, 0, 1] + b1 * normals[j, 1, 1] + b2 * normals[j, 2, 1]
        nz = b0 * normals[j, 0, 2] + b1 * normals[j, 1, 2] + b2 * normals[j, 2, 2]
        dx, dy, dz = directions[i, 0], directions[i, 1], directions[i, 2]
        ray_length = math.sqrt(dx * dx + dy * dy + dz * dz)
        facing = (nx * dx + ny * dy + nz * dz) / (ray_length * math.sqrt(nx * nx + ny * ny + nz * nz) + 1e-12)
        scale = (-1.0 if facing > 0.0 else 1.0) / math.sqrt(nx * nx + ny * ny + nz * nz + 1e-20)
        normal_out[i, 0], normal_out[i, 1], normal_out[i, 2] = nx * scale, ny * scale, nz * scale
        # Square root of the foreshortening: a compromise between aliasing and blur on grazing surfaces.
        footprint = ray_depth[i] * ray_length * pixel_angle / math.sqrt(max(abs(facing), 0.05))
        for c in range(3):
            albedo[i, c] = tint[j, c]
        opacity[i] = 1.0
        if texture[j] >= 0:
            u = b0 * uv[j, 0, 0] + b1 * uv[j, 1, 0] + b2 * uv[j, 2, 0]
            v = b0 * uv[j, 0, 1] + b1 * uv[j, 1, 1] + b2 * uv[j, 2, 1]
            sample_texture(texels, start, size, levels, decode, texture[j], u, v, footprint * density[j], sample)
            for c in range(3):
                albedo[i, c] *= sample[c]
            if cutout[j]:
                opacity[i] = sample[3]
        if shade_texture[j] >= 0:
            u = b0 * shade_uv[j, 0, 0] + b1 * shade_uv[j, 1, 0] + b2 * shade_uv[j, 2, 0]
            v = b0 * shade_uv[j, 0, 1] + b1 * shade_uv[j, 1, 1] + b2 * shade_uv[j, 2, 1]
            sample_texture(
                texels, start, size, levels, decode, shade_texture[j], u, v, footprint * shade_density[j], sample
            )
            for c in range(3):
                albedo[i, c] *= sample[c]


@_kernel
def smooth_irradiance(irradiance, normal, position, reach):
    """Average the irradiance of each point over its 5x5 neighbors on the same surface.

    Args:
        irradiance, normal, position: ``[h w 3]``.
        reach: radius in meters, ``[h w]``.
    """
    height, width = irradiance.shape[:2]
    out = np.empty_like(irradiance)
    for y in range(height):
        for x in range(width):
            total = 0.0
            r = g = b = 0.0
            for yy in range(max(y - 2, 0), min(y + 3, height)):
                for xx in range(max(x - 2, 0), min(x + 3, width)):
                    w = _same_surface(normal[y, x], position[y, x], normal[yy, xx], position[yy, xx], reach[y, x])
                    total += w
                    r += w * irradiance[yy, xx, 0]
                    g += w * irradiance[yy, xx, 1]
                    b += w * irradiance[yy, xx, 2]
            out[y, x, 0], out[y, x, 1], out[y, x, 2] = r / total, g / total, b / total
    return out


@_kernel
def spread_irradiance(coarse, coarse_normal, coarse_position, step, rows, columns, normal, position, reach, out):
    """Interpolate irradiance from the coarse points around each ray that are on the same surface.

    ``rows`` and ``columns`` are the rays' image positions in pixels; coarse point ``(i, j)`` lies at pixel center
    ``(step i + 0.5, step j + 0.5)``; ``reach`` in meters per ray. Rays with a zero normal are misses and get 0.
    """
    height, width = coarse.shape[:2]
    for i in range(rows.shape[0]):
        if normal[i, 0] == 0.0 and normal[i, 1] == 0.0 and normal[i, 2] == 0.0:
            continue
        y = (rows[i] - 0.5) / step
        x = (columns[i] - 0.5) / step
        y0, x0 = math.floor(y), math.floor(x)
        total = 1e-8
        r = g = b = 0.0
        for yy in range(y0 - 1, y0 + 3):
            for xx in range(x0 - 1, x0 + 3):
                cy, cx = min(max(yy, 0), height - 1), min(max(xx, 0), width - 1)
                w = _same_surface(normal[i], position[i], coarse_normal[cy, cx], coarse_position[cy, cx], reach[i])
                w *= math.exp(-((yy - y) ** 2 + (xx - x) ** 2)) + 1e-6
                total += w
                r += w * coarse[cy, cx, 0]
                g += w * coarse[cy, cx, 1]
                b += w * coarse[cy, cx, 2]
        out[i, 0], out[i, 1], out[i, 2] = r / total, g / total, b / total


@_kernel
def _same_surface(normal_a, position_a, normal_b, position_b, reach):
    """Weight of two points: near 1 on one smooth surface, tiny otherwise, never 0, so that averages exist."""
    alike = max(normal_a[0] * normal_b[0] + normal_a[1] * normal_b[1] + normal_a[2] * normal_b[2], 0.0)
    d0, d1, d2 = position_b[0] - position_a[0], position_b[1] - position_a[1], position_b[2] - position_a[2]
    off_plane = (d0 * normal_a[0] + d1 * normal_a[1] + d2 * normal_a[2]) / (0.05 * reach)
    apart = (d0 * d0 + d1 * d1 + d2 * d2) / (reach * reach) + off_plane * off_plane
    if alike < 0.1 or apart > 16.0:
        return 1e-6
    alike *= alike
    alike *= alike
    return alike * alike * math.exp(-apart) + 1e-6


def texel_density(
    corners: Float[np.ndarray, "n 3 3"],
    uv: Float[np.ndarray, "n 3 2"],
    texture: Int[np.ndarray, "n"],
    atlas: Atlas,
) -> Float[np.ndarray, "n"]:
    """Texels per meter of every triangle (square root of the area ratio)."""
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=-1)
    a, b = uv[:, 1] - uv[:, 0], uv[:, 2] - uv[:, 0]
    picture = atlas.size[np.maximum(texture, 0), 0].prod(-1)
    return np.sqrt(np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) * picture / np.maximum(area, 1e-12)).astype(np.float32)


def decode_table() -> Float[np.ndarray, "256"]:
    """Linear values of all sRGB bytes."""
    return _DECODE
