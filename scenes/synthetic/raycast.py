"""Renders a textured world by ray casting in Open3D: exact z-depth at pixel centers, supersampled color."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from scenes.io.open3d_library import load_open3d
from scenes.synthetic.shading import (
    build_atlas,
    decode_table,
    linear_to_srgb,
    shade_hits,
    smooth_irradiance,
    spread_irradiance,
    texel_density,
)
from scenes.synthetic.triangle_scene import Lighting, TexturedWorld

# With 8 layers the rays ended inside dense shrubs, which then counted as sky.
MAX_CUTOUT_LAYERS = 32
IRRADIANCE_STEP_PX = 2
Subpixels = tuple[tuple[float, float], ...]
FOUR_SUBPIXELS: Subpixels = ((0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75))
CENTER: Subpixels = ((0.5, 0.5),)


@dataclass(frozen=True)
class View:
    """One pinhole view in numpy: OpenCV axes, pixel centers at +0.5.

    Attributes:
        world_from_camera: rigid transform, translation in meters.
        focal_px: ``(fx, fy)``.
        center_px: ``(cx, cy)``.
        size: ``(H, W)``.
    """

    world_from_camera: Float[np.ndarray, "4 4"]
    focal_px: tuple[float, float]
    center_px: tuple[float, float]
    size: tuple[int, int]

    @property
    def pixel_angle(self) -> float:
        """Width of a pixel at depth 1."""
        return 1.0 / self.focal_px[0]

    def directions(self, rows: Float[np.ndarray, "n"], columns: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n 3"]:
        """World directions of the rays through image points; camera z is 1, so the ray parameter is z-depth."""
        in_camera = np.stack(
            [
                (columns - self.center_px[0]) / self.focal_px[0],
                (rows - self.center_px[1]) / self.focal_px[1],
                np.ones_like(rows),
            ],
            -1,
        )
        return (in_camera @ self.world_from_camera[:3, :3].T).astype(np.float32)


@dataclass(frozen=True)
class RenderedView:
    """A rendered view; depth is z in meters and 0 where ``sky`` is set."""

    rgb: UInt8[np.ndarray, "h w 3"]
    depth: Float[np.ndarray, "h w"]
    sky: Bool[np.ndarray, "h w"]


@dataclass(frozen=True)
class _Hits:
    depth: Float[np.ndarray, "n"]
    triangle: Int[np.ndarray, "n"]
    albedo: Float[np.ndarray, "n 3"]
    normal: Float[np.ndarray, "n 3"]


class WorldRenderer:
    """Casts rays into a textured world, on one thread."""

    def __init__(self, world: TexturedWorld) -> None:
        o3d = load_open3d()
        self.world = world
        self._scene = o3d.t.geometry.RaycastingScene(nthreads=1)
        self._tensor = o3d.core.Tensor
        vertices = np.ascontiguousarray(world.corners.reshape(-1, 3))
        triangles = np.arange(len(vertices), dtype=np.uint32).reshape(-1, 3)
        self._scene.add_triangles(self._tensor(vertices), self._tensor(triangles))
        self._atlas = build_atlas(world.textures)
        self._density = texel_density(world.corners, world.uv, world.texture, self._atlas)
        self._shade_density = texel_density(world.corners, world.shade_uv, world.shade_texture, self._atlas)

    def render(
        self, view: View, lighting: Lighting, rng: np.random.Generator, subpixels: Subpixels = FOUR_SUBPIXELS
    ) -> RenderedView:
        """Render color and exact depth.

        Args:
            view: the camera.
            lighting: light of the scene and exposure.
            rng: jitters the soft shadows.
            subpixels: points of a pixel, of 1, whose colors are averaged.
        """
        height, width = view.size
        origin = view.world_from_camera[:3, 3].astype(np.float32)
        rows, columns = (axis.reshape(-1).astype(np.float64) for axis in np.mgrid[:height, :width])
        center = self._trace(origin, view.directions(rows + 0.5, columns + 0.5), view.pixel_angle)
        # Irradiance is smooth, so the many shadow rays are cast from a coarser grid of pixels.
        light = self._coarse_light(view, center, lighting, rng)
        linear = np.zeros((height * width, 3), np.float32)
        for dy, dx in subpixels:
            directions = view.directions(rows + dy, columns + dx)
            angle = view.pixel_angle / math.sqrt(len(subpixels))
            hits = center if subpixels == CENTER else self._trace(origin, directions, angle)
            color = self._colors(origin, directions, hits, lighting, light, rows + dy, columns + dx, view.pixel_angle)
            # Tone mapping before averaging: one overexposed subpixel must not saturate the whole pixel.
            linear += _tone(lighting.exposure * color) / len(subpixels)
        missed = center.triangle < 0
        return RenderedView(
            rgb=(255.0 * linear_to_srgb(linear) + 0.5).astype(np.uint8).reshape(height, width, 3),
            depth=np.where(missed, 0.0, center.depth).astype(np.float32).reshape(height, width),
            sky=missed.reshape(height, width),
        )

    def radiance_and_depth(self, view: View, lighting: Lighting) -> tuple[np.ndarray, np.ndarray]:
        """Linear color without shadows ``[h w 3]`` and depth ``[h w]`` (0 = sky) at pixel centers; no shadow rays."""
        height, width = view.size
        origin = view.world_from_camera[:3, 3].astype(np.float32)
        rows, columns = (axis.reshape(-1) + 0.5 for axis in np.mgrid[:height, :width])
        directions = view.directions(rows, columns)
        hits = self._trace(origin, directions, view.pixel_angle)
        color = self._colors(origin, directions, hits, lighting, None, rows, columns, view.pixel_angle)
        depth = np.where(hits.triangle < 0, 0.0, hits.depth)
        return color.reshape(height, width, 3), depth.reshape(height, width)

    def ray_depths(self, origin: np.ndarray, directions: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n"]:
        """Ray parameters of the first opaque hits, past transparent texels; infinite where nothing is hit."""
        return self._trace(np.asarray(origin, np.float32), directions.astype(np.float32), 1e-3).depth

    def clearance(self, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n"]:
        """Distance from points to the nearest surface, meters."""
        return self._scene.compute_distance(self._tensor(points.astype(np.float32)), nthreads=1).numpy()

    def _trace(self, origin: np.ndarray, directions: np.ndarray, pixel_angle: float) -> _Hits:
        """First opaque hits of rays from one origin or one each; rays continue behind transparent texels."""
        n = len(directions)
        depth = np.full(n, np.inf, np.float32)
        triangle = np.full(n, -1, np.int64)
        albedo, normal = np.zeros((n, 3), np.float32), np.zeros((n, 3), np.float32)
        active, traveled = np.arange(n), np.zeros(n, np.float32)
        for _ in range(MAX_CUTOUT_LAYERS):
            d = directions[active]
            start = (origin if origin.ndim == 1 else origin[active]) + traveled[active, None] * d
            answer = self._scene.cast_rays(self._tensor(np.concatenate([start, d], -1)), nthreads=1)
            reach = answer["t_hit"].numpy() + traveled[active]
            found = answer["primitive_ids"].numpy().astype(np.int64)
            found[~np.isfinite(reach)] = -1
            barycentric = answer["primitive_uvs"].numpy()
            a, o, m = np.zeros((len(d), 3), np.float32), np.zeros(len(d), np.float32), np.zeros((len(d), 3), np.float32)
            self._shade(d, reach, found, barycentric, pixel_angle, a, o, m)
            solid = (found >= 0) & (o >= 0.5)
            index = active[solid]
            depth[index], triangle[index] = reach[solid], found[solid]
            albedo[index], normal[index] = a[solid], m[solid]
            clear = (found >= 0) & ~solid
            # The step past a transparent face must not hit the same face again.
            traveled[active[clear]] = reach[clear] * (1.0 + 1e-4) + 1e-3
            active = active[clear]
            if not len(active):
                break
        return _Hits(depth, triangle, albedo, normal)

    def _shade(self, directions, depth, triangle, barycentric, pixel_angle, albedo, opacity, normal) -> None:
        w, a = self.world, self._atlas
        shade_hits(
            directions, depth, triangle, barycentric, pixel_angle,
            w.normals, w.uv, w.texture, w.tint, self._density, w.shade_uv, w.shade_texture, self._shade_density,
            w.cutout, a.texels, a.start, a.size, a.levels, decode_table(), albedo, opacity, normal,
        )  # fmt: skip

    def _coarse_light(
        self, view: View, center: _Hits, lighting: Lighting, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Irradiance, normal and position, ``[h2 w2 3]`` each, at every ``IRRADIANCE_STEP_PX``-th pixel."""
        if lighting.occlusion_rays == 0:
            return None
        height, width = view.size
        rows, columns = np.mgrid[:height:IRRADIANCE_STEP_PX, :width:IRRADIANCE_STEP_PX]
        chosen = (rows * width + columns).reshape(-1)
        directions = view.directions(rows.reshape(-1) + 0.5, columns.reshape(-1) + 0.5)
        depth = np.where(center.triangle[chosen] < 0, 1e3, center.depth[chosen])
        position = view.world_from_camera[:3, 3].astype(np.float32) + depth[:, None] * directions
        normal = center.normal[chosen]
        lit = center.triangle[chosen] >= 0
        irradiance = np.zeros_like(position)
        irradiance[lit] = self._irradiance(position[lit], normal[lit], lighting, rng)
        shape = (*rows.shape, 3)
        grids = (irradiance.reshape(shape), normal.reshape(shape), position.astype(np.float32).reshape(shape))
        reach = _smoothing_reach(depth, view.pixel_angle).reshape(rows.shape)
        return smooth_irradiance(grids[0], grids[1], grids[2], reach), grids[1], grids[2]

    def _irradiance(
        self, position: np.ndarray, normal: np.ndarray, lighting: Lighting, rng: np.random.Generator
    ) -> np.ndarray:
        """Irradiance ``[n 3]``: ambient light by cosine-distributed occlusion rays, lamps by jittered shadow rays."""
        start = position + 2e-3 * normal
        n, k = len(position), lighting.occlusion_rays
        sphere = rng.normal(size=(n, k, 3))
        sphere /= np.linalg.norm(sphere, axis=-1, keepdims=True)
        directions = (0.999 * sphere + normal[:, None]).astype(np.float32)
        directions /= np.linalg.norm(directions, axis=-1, keepdims=True) + 1e-9
        reach = self._free_lengths(np.repeat(start, k, 0), directions.reshape(-1, 3)).reshape(n, k)
        openness = np.minimum(reach / lighting.occlusion_reach, 1.0).mean(-1, keepdims=True)
        light = openness * _hemisphere(normal, lighting)
        for lamp, rgb in zip(lighting.lamp_positions, lighting.lamp_rgb, strict=True):
            for _ in range(_SHADOW_RAYS):
                target = lamp + lighting.lamp_radius * rng.normal(size=(n, 3)) / math.sqrt(3.0)
                towards = (target - start).astype(np.float32)
                distance = np.linalg.norm(towards, axis=-1)
                seen = self._free_lengths(start, towards) >= 0.98
                cosine = np.maximum((normal * towards).sum(-1) / distance, 0.0)
                light = light + ((seen * cosine / (distance**2 + 0.3)) / _SHADOW_RAYS)[:, None] * rgb
        return light.astype(np.float32)

    def _sunlight(self, position: np.ndarray, depth: np.ndarray, hits: _Hits, lighting: Lighting) -> np.ndarray:
        """Sunlight on every hit, with sharp shadows; leaves (cut-out faces) transmit half of it."""
        light = np.zeros_like(position)
        if max(lighting.sun_rgb) == 0.0:
            return light
        sun = np.asarray(lighting.sun_direction, np.float32)
        cosine = hits.normal @ sun
        leaf = self.world.cutout[np.maximum(hits.triangle, 0)]
        cosine = np.where(leaf, np.maximum(cosine, -0.5 * cosine), cosine)
        lit = np.flatnonzero((hits.triangle >= 0) & (cosine > 0.0))
        # Offset along the normal, growing with depth as float32 positions get coarser.
        start = position[lit] + (0.01 + 1e-3 * depth[lit, None]) * hits.normal[lit]
        start += 0.02 * leaf[lit, None] * sun
        # `_trace` and not `_free_lengths`: sunlight passes between the leaves of cut-out textures.
        blocked = self._trace(start.astype(np.float32), np.tile(sun, (len(lit), 1)), 2e-3).triangle >= 0
        light[lit] = (cosine[lit] * ~blocked)[:, None] * np.asarray(lighting.sun_rgb, np.float32)
        return light

    def _free_lengths(self, start: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Ray parameters of the first hits, transparent texels included."""
        # Without the search behind transparent texels: occlusion rays are many, and soft.
        rays = np.concatenate([start, directions], -1).astype(np.float32)
        return self._scene.cast_rays(self._tensor(rays), nthreads=1)["t_hit"].numpy()

    def _colors(
        self, origin, directions, hits: _Hits, lighting: Lighting, light, rows, columns, pixel_angle: float
    ) -> np.ndarray:
        """Linear color of every ray, sky included."""
        hit = hits.triangle >= 0
        depth = np.where(hit, hits.depth, 0.0)
        if light is None:
            sun = np.asarray(lighting.sun_direction, np.float32)
            facing = np.clip(0.25 + 0.75 * (hits.normal @ sun), 0.0, 1.0)[:, None]
            irradiance = _hemisphere(hits.normal, lighting) + facing * np.asarray(lighting.sun_rgb, np.float32)
        else:
            irradiance = np.zeros_like(hits.albedo)
            position = (origin + depth[:, None] * directions).astype(np.float32)
            spread_irradiance(
                light[0], light[1], light[2], IRRADIANCE_STEP_PX, rows, columns, hits.normal, position,
                _smoothing_reach(depth, pixel_angle), irradiance,
            )  # fmt: skip
            irradiance += self._sunlight(position, depth, hits, lighting)
        glowing = hit & self.world.emissive[np.maximum(hits.triangle, 0)]
        color = np.where(glowing[:, None], hits.albedo, hits.albedo * irradiance)
        if lighting.haze_per_meter > 0.0:
            length = depth * np.linalg.norm(directions, axis=-1)
            kept = np.exp(-lighting.haze_per_meter * length)[:, None]
            color = kept * color + (1.0 - kept) * np.asarray(lighting.haze_rgb, np.float32)
        sky = ~hit
        color[sky] = self._sky_colors(directions[sky]) / lighting.exposure
        return color

    def _sky_colors(self, directions: np.ndarray) -> np.ndarray:
        """Linear colors of the sky panorama, bilinear, mirrored at every repeat."""
        sky = self.world.sky
        height, width = sky.panorama.shape[:2]
        turn = np.arctan2(directions[:, 0], directions[:, 2]) / (2.0 * math.pi) + 0.5
        along = turn * sky.repeats
        if sky.repeats > 1:
            along = np.abs((along + 1.0) % 2.0 - 1.0)
        elevation = np.arctan2(-directions[:, 1], np.hypot(directions[:, 0], directions[:, 2]))
        x = np.clip(along, 0.0, 1.0) * width - 0.5
        y = np.clip(0.5 - 0.5 * elevation / sky.half_height_rad, 0.0, 1.0) * height - 0.5
        x0, y0 = np.floor(x).astype(int), np.floor(y).astype(int)
        fx, fy = (x - x0)[:, None], (y - y0)[:, None]
        wrap = (lambda c: c % width) if sky.repeats == 1 else (lambda c: np.clip(c, 0, width - 1))
        rows, columns = [np.clip(y0 + d, 0, height - 1) for d in (0, 1)], [wrap(x0 + d) for d in (0, 1)]
        decode, picture = decode_table(), sky.panorama
        upper = (1 - fx) * decode[picture[rows[0], columns[0]]] + fx * decode[picture[rows[0], columns[1]]]
        lower = (1 - fx) * decode[picture[rows[1], columns[0]]] + fx * decode[picture[rows[1], columns[1]]]
        return (1 - fy) * upper + fy * lower


_SHADOW_RAYS = 2
_SMOOTHING_M = 0.25
_SMOOTHING_STEPS = 3.0


def _smoothing_reach(depth: np.ndarray, pixel_angle: float) -> np.ndarray:
    """Radius in meters over which light is averaged: a few light samples, which are farther apart on far surfaces."""
    # A constant 0.25 m, enough in rooms, is less than the distance of light samples on far walls.
    spacing = IRRADIANCE_STEP_PX * pixel_angle * depth
    return np.maximum(_SMOOTHING_M, _SMOOTHING_STEPS * spacing).astype(np.float32)


def _hemisphere(normal: np.ndarray, lighting: Lighting) -> np.ndarray:
    """Ambient light between ground and sky color, by the normal's vertical part (y is down)."""
    up = 0.5 - 0.5 * normal[:, 1:2]
    return up * np.asarray(lighting.sky_rgb, np.float32) + (1.0 - up) * np.asarray(lighting.ground_rgb, np.float32)


def _tone(linear: np.ndarray) -> np.ndarray:
    """Tone curve: identity up to 0.6, then a smooth shoulder to 1."""
    over = np.maximum(linear - 0.6, 0.0)
    return np.where(linear <= 0.6, linear, 0.6 + 0.4 * (1.0 - np.exp(-over / 0.4)))
