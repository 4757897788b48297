"""A local frame for adding solids to a town: boxes, surfaces of revolution, panels and beams; meters, y up."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from scenes.synthetic.triangle_scene import NO_TEXTURE, Rgb, WorldBuilder, face_normals

Number = float | int
Point = tuple[Number, Number, Number]


@dataclass(frozen=True)
class Material:
    """Material of a surface.

    Attributes:
        texture: index of a texture of the world or ``NO_TEXTURE``.
        meters: width and height of one repeat of the texture, meters.
        tint: linear RGB factor.
        cutout: whether transparent pixels are holes.
    """

    texture: int = NO_TEXTURE
    meters: tuple[float, float] = (1.0, 1.0)
    tint: Rgb = (1.0, 1.0, 1.0)
    cutout: bool = False

    def tinted(self, factor: float) -> Material:
        """The same material with its tint multiplied by ``factor``."""
        return replace(self, tint=(factor * self.tint[0], factor * self.tint[1], factor * self.tint[2]))


def plain(red: Number, green: Number, blue: Number) -> Material:
    """A material of one linear color."""
    return Material(tint=(float(red), float(green), float(blue)))


def quads(grid: Float[np.ndarray, "r c k"]) -> Float[np.ndarray, "n 3 k"]:
    """Two triangles per cell of a grid of points or texture coordinates."""
    a, b, c, d = grid[:-1, :-1], grid[:-1, 1:], grid[1:, 1:], grid[1:, :-1]
    return np.stack([np.stack([a, b, c], -2), np.stack([a, c, d], -2)], 2).reshape(-1, 3, grid.shape[-1])


@dataclass(frozen=True)
class Site:
    """A local frame in the world: x right, y up, z forward, rotated by ``yaw_rad`` about the vertical.

    Attributes:
        builder: collects the triangles.
        position: the frame's origin in the world (y DOWN), meters.
        yaw_rad: rotation about the vertical.
    """

    builder: WorldBuilder
    position: Float[np.ndarray, "3"]
    yaw_rad: Number = 0.0

    def moved(self, x: Number, up: Number, z: Number, yaw_rad: Number = 0.0) -> Site:
        """A frame at a position, and with a yaw, in this one."""
        return Site(self.builder, self.to_world(np.array([x, up, z])), self.yaw_rad + yaw_rad)

    def to_world(self, points: Float[np.ndarray, "*b 3"]) -> Float[np.ndarray, "*b 3"]:
        """Transform local points (y up) to the world (y down)."""
        return self.position + self._turn(points)

    def _turn(self, vectors: Float[np.ndarray, "*b 3"]) -> Float[np.ndarray, "*b 3"]:
        cosine, sine = math.cos(self.yaw_rad), math.sin(self.yaw_rad)
        x, up, z = vectors[..., 0], vectors[..., 1], vectors[..., 2]
        return np.stack([cosine * x + sine * z, -up, cosine * z - sine * x], -1)

    def faces(
        self,
        corners: Float[np.ndarray, "n 3 3"],
        material: Material,
        *,
        uv_meters: Float[np.ndarray, "n 3 2"] | None = None,
        normals: Float[np.ndarray, "n 3 3"] | None = None,
    ) -> None:
        """Add triangles; textures are mapped in meters, upright on walls, unless ``uv_meters`` is given."""
        uv = _upright_uv(corners) if uv_meters is None else uv_meters
        self.builder.add_triangles(
            self.to_world(corners),
            normals=None if normals is None else self._turn(normals),
            uv=uv / np.asarray(material.meters),
            texture=material.texture,
            tint=material.tint,
            cutout=material.cutout,
        )

    def quad(self, a: Point, b: Point, c: Point, d: Point, material: Material) -> None:
        """Add a planar quadrilateral."""
        self.faces(np.array([[a, b, c], [a, c, d]], np.float64), material)

    def panel(self, a: Point, b: Point, height: Number, material: Material, tiles: tuple[Number, Number]) -> None:
        """Add a vertical face above the line ``a``-``b`` on which the texture repeats ``tiles`` times."""
        (ax, ay, az), (bx, by, bz) = a, b
        grid = np.array([[[ax, ay + height, az], [bx, by + height, bz]], [[ax, ay, az], [bx, by, bz]]])
        uv = np.array([[[0.0, 0.0], [tiles[0], 0.0]], [[0.0, tiles[1]], [tiles[0], tiles[1]]]])
        self.faces(quads(grid), material, uv_meters=quads(uv) * np.asarray(material.meters))

    def box(self, low: Point, high: Point, material: Material, top: Material | None = None) -> None:
        """Add an axis-aligned box without a bottom."""
        (x0, y0, z0), (x1, y1, z1) = low, high
        ring = np.array([(x0, z0), (x1, z0), (x1, z1), (x0, z1), (x0, z0)], np.float64)
        grid = np.stack([np.insert(ring, 1, up, axis=1) for up in (y1, y0)])
        lid = np.array([[(x0, y1, z0), (x1, y1, z0)], [(x0, y1, z1), (x1, y1, z1)]], np.float64)
        if top is None:
            self.faces(np.concatenate([quads(grid), quads(lid)]), material)
        else:
            self.faces(quads(grid), material)
            self.faces(quads(lid), top)

    def turned(
        self,
        profile: list[tuple[Number, Number]],
        material: Material,
        *,
        sides: int = 12,
        stretch: tuple[Number, Number] = (1.0, 1.0),
    ) -> None:
        """Add a surface of revolution from (radius, height) pairs, bottom first."""
        angle = np.linspace(0.0, 2.0 * math.pi, sides + 1) + math.pi / sides
        radius, up = (np.array([p[i] for p in profile])[:, None] for i in (0, 1))
        grid = np.stack(
            [radius * np.sin(angle) * stretch[0], np.repeat(up, sides + 1, 1), radius * np.cos(angle) * stretch[1]], -1
        )
        slant = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(radius[:, 0]), np.diff(up[:, 0])))])
        around = np.broadcast_to(float(radius.max()) * (angle - angle[0]), grid.shape[:2])
        uv = np.stack([around, np.broadcast_to(-slant[:, None], grid.shape[:2])], -1)
        normals = None
        if sides > 8:  # round shapes are shaded smoothly, polygons flat
            out = np.stack([np.sin(angle), np.zeros_like(angle), np.cos(angle)], -1)
            normals = quads(np.broadcast_to(out, grid.shape))
        self.faces(quads(grid), material, uv_meters=quads(uv), normals=normals)

    def beam(self, start: Point, end: Point, radius: Number, material: Material, *, end_radius: Number = -1.0) -> None:
        """Add a six-sided rod between two points, tapered when ``end_radius`` is given."""
        a, b = np.asarray(start), np.asarray(end)
        axis = (b - a) / max(float(np.linalg.norm(b - a)), 1e-6)
        side = np.cross(axis, [0.0, 0.0, 1.0] if abs(axis[2]) < 0.9 else [1.0, 0.0, 0.0])
        side /= np.linalg.norm(side)
        angle = np.linspace(0.0, 2.0 * math.pi, 7)[:, None]
        ring = np.cos(angle) * side + np.sin(angle) * np.cross(axis, side)
        far = radius if end_radius < 0.0 else end_radius
        length = float(np.linalg.norm(b - a))
        uv = np.stack([np.stack([np.linspace(0, 6.28 * radius, 7), np.full(7, v)], -1) for v in (0.0, length)])
        self.faces(quads(np.stack([a + radius * ring, b + far * ring])), material, uv_meters=quads(uv))


def _upright_uv(corners: Float[np.ndarray, "n 3 3"]) -> Float[np.ndarray, "n 3 2"]:
    """Texture coordinates in meters: along each face horizontally and down its slope; x and z on level faces."""
    normal = face_normals(corners)
    level = np.hypot(normal[:, 0], normal[:, 2]) < 0.05
    across = np.where(
        level[:, None], [1.0, 0.0, 0.0], np.stack([-normal[:, 2], np.zeros(len(normal)), normal[:, 0]], 1)
    )
    across = across / np.linalg.norm(across, axis=-1, keepdims=True)
    # The cross product of the normal with a level vector.
    nx, ny, nz = normal.T
    down = np.stack([ny * across[:, 2], nz * across[:, 0] - nx * across[:, 2], -ny * across[:, 0]], -1)
    down = np.where(down[:, 1:2] > 0.0, -down, down)
    return np.stack([(corners * across[:, None]).sum(-1), (corners * down[:, None]).sum(-1)], -1)
