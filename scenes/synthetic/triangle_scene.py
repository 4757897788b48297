"""Textured triangle meshes: the arrays that loaders fill and the ray caster renders.

The world's axes are those of a level camera: x right, y DOWN, z forward, in meters;
``flip_up`` turns y-up models into it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int, UInt8

NO_TEXTURE = -1

Rgb = tuple[float, float, float]


@dataclass(frozen=True)
class Sky:
    """Background of rays that hit nothing.

    Attributes:
        panorama: sRGB image whose width spans ``1 / repeats`` of the full turn, the horizon at half height;
            mirrored at every repeat so that no seam shows.
        repeats: number of images around the full turn.
        half_height_rad: elevation of the image's upper border.
    """

    panorama: UInt8[np.ndarray, "h w 3"]
    repeats: int = 1
    half_height_rad: float = 0.7


@dataclass(frozen=True)
class Lighting:
    """Light of one clip, linear RGB.

    Attributes:
        sky_rgb: ambient light on surfaces that face up.
        ground_rgb: ambient light on surfaces that face down.
        sun_direction: unit vector towards the sun.
        sun_rgb: light of the sun on a surface that faces it; it casts shadows where ``occlusion_rays`` are asked for
            (tracks carry baked ones).
        lamp_positions: lamps in the world; they cast soft shadows.
        lamp_rgb: light of each lamp on a facing surface one meter away.
        lamp_radius: meters; larger is softer.
        occlusion_rays: rays per shading point that measure how much ambient light arrives; 0 turns all shadow rays off.
        occlusion_reach: meters.
        haze_rgb: color that far surfaces fade to.
        haze_per_meter: extinction.
        exposure: factor before the tone curve.
    """

    sky_rgb: Rgb
    ground_rgb: Rgb
    sun_direction: tuple[float, float, float] = (0.0, -1.0, 0.0)
    sun_rgb: Rgb = (0.0, 0.0, 0.0)
    lamp_positions: Float[np.ndarray, "k 3"] = field(default_factory=lambda: np.zeros((0, 3), np.float32))
    lamp_rgb: Float[np.ndarray, "k 3"] = field(default_factory=lambda: np.zeros((0, 3), np.float32))
    lamp_radius: float = 0.25
    occlusion_rays: int = 0
    occlusion_reach: float = 1.5
    haze_rgb: Rgb = (0.6, 0.68, 0.78)
    haze_per_meter: float = 0.0
    exposure: float = 1.0


@dataclass(frozen=True)
class TexturedWorld:
    """One scene as flat arrays; ``n`` triangles, three corners each.

    Attributes:
        corners: triangle corners in the world, meters.
        normals: unit shading normals at the corners; either side may face the viewer.
        uv: texture coordinates at the corners, v downwards from the image's upper border; they wrap.
        texture: index into ``textures`` or ``NO_TEXTURE``.
        tint: linear RGB factor on the texture (the color itself without one).
        emissive: the tinted texture is light, not reflectance.
        textures: sRGB and opacity images; a triangle with ``cutout`` is transparent where opacity < 0.5.
        shade_uv: coordinates of a second image that multiplies the first (baked shadows), zero where there is none.
        shade_texture: index of that image or ``NO_TEXTURE``.
        cutout: whether opacity of the triangle's texture counts.
        sky: background.
    """

    corners: Float[np.ndarray, "n 3 3"]
    normals: Float[np.ndarray, "n 3 3"]
    uv: Float[np.ndarray, "n 3 2"]
    texture: Int[np.ndarray, "n"]
    tint: Float[np.ndarray, "n 3"]
    emissive: np.ndarray
    textures: list[UInt8[np.ndarray, "_h _w 4"]]
    shade_uv: Float[np.ndarray, "n 3 2"]
    shade_texture: Int[np.ndarray, "n"]
    cutout: np.ndarray
    sky: Sky

    def __len__(self) -> int:
        """Number of triangles."""
        return len(self.corners)


def as_rgb(values: Float[np.ndarray, "3"]) -> Rgb:
    """Three numbers as a tuple of floats."""
    return float(values[0]), float(values[1]), float(values[2])


def flip_up(points: Float[np.ndarray, "*b 3"]) -> Float[np.ndarray, "*b 3"]:
    """Turn y-up axes (z backward) into the world's y-down axes (z forward), a half turn about x; exact."""
    return points * np.array([1.0, -1.0, -1.0], points.dtype)


def face_normals(corners: Float[np.ndarray, "n 3 3"]) -> Float[np.ndarray, "n 3"]:
    """Unit normals of triangles; zero for degenerate ones."""
    # Written out: ``np.cross`` takes longer to set up than to compute on the small pieces of a town.
    a, b = (corners[:, 1] - corners[:, 0]).T, (corners[:, 2] - corners[:, 0]).T
    normal = np.stack([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]], -1)
    return normal / np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-12)


def gradient_sky(zenith: Rgb, horizon: Rgb) -> Sky:
    """A sky that fades between two sRGB colors (0..1), and a dim ground color below the horizon."""
    height = np.linspace(1.0, -1.0, 256)[:, None]
    above = np.asarray(horizon) + (np.asarray(zenith) - np.asarray(horizon)) * np.clip(height, 0.0, 1.0) ** 0.7
    rows = np.where(height > 0.0, above, 0.55 * np.asarray(horizon))
    return Sky(np.repeat((255.0 * rows)[:, None], 8, 1).astype(np.uint8), half_height_rad=1.5)


class WorldBuilder:
    """Collects triangles and textures, then builds one ``TexturedWorld``."""

    def __init__(self) -> None:
        self._pieces: list[dict[str, np.ndarray]] = []
        self._textures: list[np.ndarray] = []

    def add_texture(self, rgba: UInt8[np.ndarray, "h w 4"]) -> int:
        """Add an sRGB+opacity image and return its index."""
        self._textures.append(np.ascontiguousarray(rgba))
        return len(self._textures) - 1

    def has_clear_pixels(self, texture: int) -> bool:
        """Whether a noticeable part of the image is transparent."""
        return texture != NO_TEXTURE and float((self._textures[texture][..., 3] < 128).mean()) > 0.002

    def add_triangles(
        self,
        corners: Float[np.ndarray, "n 3 3"],
        *,
        normals: Float[np.ndarray, "n 3 3"] | None = None,
        uv: Float[np.ndarray, "n 3 2"] | None = None,
        texture: int = NO_TEXTURE,
        tint: Rgb = (1.0, 1.0, 1.0),
        emissive: bool = False,
        shade_uv: Float[np.ndarray, "n 3 2"] | None = None,
        shade_texture: int = NO_TEXTURE,
        cutout: bool = False,
    ) -> None:
        """Add triangles of one material.

        Normals default to those of the faces, which also replace normals that deviate by more than 53 degrees.
        """
        n = len(corners)
        flat = np.repeat(face_normals(corners)[:, None], 3, 1)
        if normals is None:
            normals = flat
        else:
            length = np.linalg.norm(normals, axis=-1, keepdims=True)
            normals = normals / np.maximum(length, 1e-12)
            aligned = (normals * flat).sum(-1, keepdims=True)
            normals = np.where(np.abs(aligned) > 0.6, normals * np.sign(aligned), flat)
        zeros = np.zeros((n, 3, 2), np.float32)
        self._pieces.append(
            {
                "corners": corners.astype(np.float32),
                "normals": normals.astype(np.float32),
                "uv": zeros if uv is None else uv.astype(np.float32),
                "texture": np.full(n, texture, np.int32),
                "tint": np.tile(np.asarray(tint, np.float32), (n, 1)),
                "emissive": np.full(n, emissive),
                "shade_uv": zeros if shade_uv is None else shade_uv.astype(np.float32),
                "shade_texture": np.full(n, shade_texture if shade_uv is not None else NO_TEXTURE, np.int32),
                "cutout": np.full(n, cutout),
            }
        )

    def add_quad(
        self,
        corner: Float[np.ndarray, "3"],
        along: Float[np.ndarray, "3"],
        down: Float[np.ndarray, "3"],
        *,
        tiles: tuple[float, float] = (1.0, 1.0),
        texture: int = NO_TEXTURE,
        tint: Rgb = (1.0, 1.0, 1.0),
        emissive: bool = False,
    ) -> None:
        """Add the parallelogram ``corner + a along + b down``; the image repeats ``tiles`` times along each side."""
        corner, along, down = (np.asarray(v, np.float32) for v in (corner, along, down))
        p = np.stack([corner, corner + along, corner + along + down, corner + down])
        q = np.array([[0, 0], [tiles[0], 0], [tiles[0], tiles[1]], [0, tiles[1]]], np.float32)
        order = np.array([[0, 1, 2], [0, 2, 3]])
        self.add_triangles(p[order], uv=q[order], texture=texture, tint=tint, emissive=emissive)

    def build(self, sky: Sky) -> TexturedWorld:
        """Concatenate everything that was added; degenerate triangles are dropped.

        Raises:
            ValueError: nothing was added.
        """
        if not self._pieces:
            raise ValueError("world: want at least one triangle, got none; check the scene's files")
        joined = {key: np.concatenate([piece[key] for piece in self._pieces]) for key in self._pieces[0]}
        corners = joined["corners"]
        area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=-1)
        kept = {key: values[area > 1e-10] for key, values in joined.items()}
        return TexturedWorld(textures=self._textures, sky=sky, **kept)  # type: ignore[arg-type]
