"""Reads TORCS race tracks (AC3D ``.acc`` text) as textured worlds, and samples positions on the road."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from scenes.synthetic.triangle_scene import NO_TEXTURE, Sky, TexturedWorld, WorldBuilder, face_normals, flip_up

LICENSE = "Free Art License 1.3"
SOURCE = "torcs"
TRACKS = (
    "aalborg", "alpine-1", "alpine-2", "brondehach", "dirt-1", "dirt-2", "dirt-3", "e-track-1", "e-track-2",
    "e-track-3", "e-track-4", "e-track-6", "eroad", "forza", "g-track-1", "g-track-2", "g-track-3", "michigan",
    "mixed-1", "ole-road-1", "ruudskogen", "spring", "street-1", "wheel-1", "wheel-2",
)  # fmt: skip
"""Tracks under the Free Art License that carry a multi-texture model (corkscrew is GPL-2 and left out)."""

HELD_OUT_TRACKS = ("alpine-2", "dirt-3", "e-track-3")
_LARGEST_TEXTURE_PX = 1024
_NO_MAPPING = "empty_texture_no_mapping"


@dataclass
class _Mesh:
    """One AC3D object; a corner of a triangle is ``[vertex index, u, v of each texture layer]``."""

    layers: list[tuple[str, str]] = field(default_factory=list)
    vertices: list[list[float]] = field(default_factory=list)
    triangles: list[tuple[list[float], list[float], list[float]]] = field(default_factory=list)


def load_track(tracks_folder: Path, name: str) -> TexturedWorld:
    """Read one track, in meters, y down.

    Args:
        tracks_folder: the ``torcs`` folder of the unpacked package with ``tracks/*/<name>`` and ``data/textures``.
        name: an entry of ``TRACKS``.

    Raises:
        ValueError: the folder has no such track.
    """
    files = sorted(tracks_folder.glob(f"tracks/*/{name}/{name}.acc"))
    if not files:
        raise ValueError(f"name: want a track of {tracks_folder}, got {name!r}; unpack torcs-data there")
    folder = files[0].parent
    pictures = TextureFolder([folder, tracks_folder / "data" / "textures"])
    builder = WorldBuilder()
    known: dict[str, int] = {_NO_MAPPING: NO_TEXTURE}

    def texture_index(file: str) -> int:
        if file not in known:
            rgba = pictures.read(file)
            known[file] = NO_TEXTURE if rgba is None else builder.add_texture(rgba)
        return known[file]

    for mesh in read_acc(files[0]):
        if not mesh.triangles or not mesh.layers:
            continue
        base = mesh.layers[0][0]
        texture = texture_index(base)
        # Shadow and racing-line decals without their image would be opaque gray sheets over the road.
        if texture == NO_TEXTURE and base != _NO_MAPPING and re.search("shadow|raceline", base):
            continue
        shade_layer = next(
            (i for i, (file, role) in enumerate(mesh.layers) if role == "tiled" and file != _NO_MAPPING), None
        )
        refs = np.asarray(mesh.triangles, np.float64)
        vertices = np.asarray(mesh.vertices)[refs[..., 0].astype(int)]
        corners = flip_up(vertices[..., :3])
        upright = float(np.abs(face_normals(corners)[:, 1]).mean()) < 0.6
        shade = None if shade_layer is None else _layer_uv(refs, shade_layer)
        builder.add_triangles(
            corners,
            normals=flip_up(vertices[..., 3:6]) if vertices.shape[-1] >= 6 else None,
            uv=_layer_uv(refs, 0),
            texture=texture,
            tint=(1.0, 1.0, 1.0) if texture != NO_TEXTURE else (0.25, 0.25, 0.25),
            shade_uv=shade,
            shade_texture=NO_TEXTURE if shade_layer is None else texture_index(mesh.layers[shade_layer][0]),
            # Alpha of ground textures is no opacity; trees and fences are upright or carry no baked shadow.
            cutout=(upright or shade_layer is None) and builder.has_clear_pixels(texture),
        )
    return builder.build(_panorama(folder))


def _layer_uv(refs: Float[np.ndarray, "n 3 c"], layer: int) -> Float[np.ndarray, "n 3 2"] | None:
    """Texture coordinates of a layer, v pointing down; None when the file has none."""
    uv = refs[..., 1 + 2 * layer : 3 + 2 * layer]
    return None if uv.shape[-1] < 2 else uv * [1.0, -1.0]


def read_acc(path: Path) -> list[_Mesh]:
    """Parse AC3D text: objects with texture layers, vertices with normals, polygons and triangle strips."""
    meshes: list[_Mesh] = []
    lines = iter(path.read_text(encoding="latin-1").splitlines())
    flags = 0
    for line in lines:
        key, _, rest = line.partition(" ")
        if key == "OBJECT":
            meshes.append(_Mesh())
        elif key == "texture":
            file, _, role = rest.strip().partition('" ') if rest.startswith('"') else rest.strip().partition(" ")
            meshes[-1].layers.append((file.strip('"'), role.strip()))
        elif key == "numvert":
            meshes[-1].vertices = [[float(x) for x in next(lines).split()] for _ in range(int(rest))]
        elif key == "SURF":
            flags = int(rest, 16) & 0xF
        elif key == "refs":
            corners = [[float(x) for x in next(lines).split()] for _ in range(int(rest))]
            triangle_strip = 4
            meshes[-1].triangles += _triangles(corners, strip=flags == triangle_strip)
    return meshes


def _triangles(corners: list[list[float]], *, strip: bool) -> list[tuple[list[float], list[float], list[float]]]:
    width = max(len(c) for c in corners)
    corners = [c + [0.0] * (width - len(c)) for c in corners]
    if strip:
        return [(corners[i], corners[i + 1], corners[i + 2]) for i in range(len(corners) - 2)]
    return [(corners[0], corners[i], corners[i + 1]) for i in range(1, len(corners) - 1)]


class TextureFolder:
    """Finds and decodes images in a list of folders."""

    def __init__(self, folders: list[Path]) -> None:
        self._folders = folders

    def read(self, name: str) -> UInt8[np.ndarray, "h w 4"] | None:
        """An image as sRGB and opacity, at most ``_LARGEST_TEXTURE_PX`` wide and high; None when no folder has it."""
        for folder in self._folders:
            path = folder / name
            if path.exists():
                image = read_picture(path)
                image.thumbnail((_LARGEST_TEXTURE_PX, _LARGEST_TEXTURE_PX))
                return np.asarray(image)
        return None


def read_picture(path: Path) -> Image.Image:
    """Open an image as RGBA, including gray-with-opacity SGI files, which Pillow refuses."""
    try:
        return Image.open(path).convert("RGBA")
    except ValueError:
        if path.suffix != ".rgb":
            raise
        gray, opacity = _read_sgi_planes(path.read_bytes())
        return Image.fromarray(np.stack([gray, gray, gray, opacity], -1))


def _read_sgi_planes(content: bytes) -> list[UInt8[np.ndarray, "h w"]]:
    """Planes of an 8-bit SGI image, top row first (SGI image file format, version 1.00)."""
    compressed, depth = content[2], content[3]
    width, height, planes = (int.from_bytes(content[i : i + 2], "big") for i in (6, 8, 10))
    if depth != 1:
        raise ValueError(f"SGI picture: want 1 byte per channel, got {depth}")
    pixels = np.zeros((planes, height, width), np.uint8)
    if not compressed:
        raw = np.frombuffer(content, np.uint8, planes * height * width, 512)
        return list(raw.reshape(planes, height, width)[:, ::-1])
    # Run-length encoding: a count byte, whose high bit says that literal pixels follow instead of one repeated.
    starts = np.frombuffer(content, ">u4", planes * height, 512).reshape(planes, height)
    for plane in range(planes):
        for row in range(height):
            at, x = int(starts[plane, row]), 0
            while (count := content[at] & 0x7F) and x < width:
                if content[at] & 0x80:
                    pixels[plane, row, x : x + count] = np.frombuffer(content, np.uint8, count, at + 1)
                    at += count + 1
                else:
                    pixels[plane, row, x : x + count] = content[at + 1]
                    at += 2
                x += count
    return list(pixels[:, ::-1])


def _panorama(folder: Path) -> Sky:
    picture = np.asarray(read_picture(folder / "background.png").convert("RGB"))
    return Sky(np.ascontiguousarray(picture), repeats=1 if picture.shape[1] >= 3 * picture.shape[0] else 4)


def road_points(world: TexturedWorld, rng: np.random.Generator, count: int) -> Float[np.ndarray, "count 3"]:
    """Random points on level faces with a baked-shadow layer, by area; on all level faces when none has one.

    The weight of a face is capped, so that the largest faces do not get nearly all points.
    """
    normal = np.cross(world.corners[:, 1] - world.corners[:, 0], world.corners[:, 2] - world.corners[:, 0])
    area = np.linalg.norm(normal, axis=-1)
    level = np.abs(normal[:, 1]) > 0.85 * area
    weight = np.where(level & (world.shade_texture != NO_TEXTURE), np.minimum(area, 60.0), 0.0)
    if weight.sum() == 0.0:
        weight = np.where(level, np.minimum(area, 60.0), 0.0)
    chosen = rng.choice(len(world), count, p=weight / weight.sum())
    mix = rng.dirichlet([1.0, 1.0, 1.0], count)
    return np.einsum("nk,nkc->nc", mix, world.corners[chosen].astype(np.float64))
