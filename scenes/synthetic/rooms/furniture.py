"""Reads the Sweet Home 3D furniture catalogues: sizes, categories, and models as triangles."""

from __future__ import annotations

import io
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from scenes.synthetic.shading import srgb_to_linear

LICENSES = {
    "BlendSwap-CC-0": "CC0-1.0",
    "BlendSwap-CC-BY": "CC-BY-3.0",
    "KatorLegaz": "CC-BY-3.0",
    "Reallusion": "CC-BY-3.0",
    "Scopia": "CC-BY-3.0",
}
_MAX_TRIANGLES = 60_000


@dataclass(frozen=True)
class Furniture:
    """One catalogue entry, meters.

    Attributes:
        catalogue: name of the ``.sh3f`` file, a key of ``LICENSES``.
        model: path of the OBJ file inside it.
        name: English name.
        category: category in the catalogue.
        size: width (x), height (y), depth (z).
        elevation: height of its bottom above the floor.
        top: height of its surface for smaller items, above its bottom; 0 when it has none.
        rotation: row-major 3x3 rotation from the model's axes to y-up axes with the front towards +z.
    """

    catalogue: str
    model: str
    name: str
    category: str
    size: tuple[float, float, float]
    elevation: float
    top: float
    rotation: tuple[float, ...]


@dataclass(frozen=True)
class FurniturePart:
    """Triangles of one material: y up, bottom at y = 0, centered in x and z, meters."""

    corners: Float[np.ndarray, "n 3 3"]
    normals: Float[np.ndarray, "n 3 3"]
    uv: Float[np.ndarray, "n 3 2"] | None
    picture: UInt8[np.ndarray, "h w 4"] | None
    tint: tuple[float, float, float]


def unpack_catalogues(furniture_folder: Path, cache: Path) -> Path:
    """Unzip every ``.sh3f`` file of a folder into ``cache`` unless that is done, and return ``cache``."""
    for archive in sorted(furniture_folder.glob("*.sh3f")):
        target = cache / archive.stem
        if not (target / "PluginFurnitureCatalog.properties").exists():
            with zipfile.ZipFile(io.BytesIO(archive.read_bytes())) as content:
                content.extractall(target)
    return cache


def read_catalogues(cache: Path) -> list[Furniture]:
    """All entries of the unpacked catalogues, in a fixed order.

    Raises:
        ValueError: the folder holds no catalogue.
    """
    found: list[Furniture] = []
    for catalogue in sorted(LICENSES):
        path = cache / catalogue / "PluginFurnitureCatalog.properties"
        if path.exists():
            found += _read_properties(catalogue, path.read_text(encoding="latin-1"))
    if not found:
        raise ValueError(
            f"cache: want unpacked furniture catalogues, got none in {cache}; run the asset download first"
        )
    return found


def _read_properties(catalogue: str, text: str) -> list[Furniture]:
    entries: dict[int, dict[str, str]] = {}
    for key, number, value in re.findall(r"^(\w+)#(\d+)=(.*)$", text, re.MULTILINE):
        entries.setdefault(int(number), {})[key] = value.strip()
    found = []
    for _, entry in sorted(entries.items()):
        if not {"model", "width", "depth", "height", "name", "category"} <= entry.keys():
            continue
        width, height, depth = (float(entry[key]) / 100.0 for key in ("width", "height", "depth"))
        drop = float(entry.get("dropOnTopElevation", 100.0 * height))
        rotation = tuple(float(x) for x in entry.get("modelRotation", "1 0 0 0 1 0 0 0 1").split())
        found.append(
            Furniture(
                catalogue,
                entry["model"].lstrip("/"),
                entry["name"],
                entry["category"],
                (width, height, depth),
                float(entry.get("elevation", 0.0)) / 100.0,
                max(drop, 0.0) / 100.0,
                rotation,
            )
        )
    return found


def load_furniture(cache: Path, item: Furniture) -> list[FurniturePart]:
    """Read a model, scaled to its catalogue size, without its transparent parts; empty above ``_MAX_TRIANGLES``."""
    import trimesh

    loaded: Any = trimesh.load(cache / item.catalogue / item.model, process=False)
    meshes = [m for m in (loaded.geometry.values() if hasattr(loaded, "geometry") else [loaded]) if len(m.faces)]
    if not meshes or sum(len(m.faces) for m in meshes) > _MAX_TRIANGLES:
        return []
    turn = np.asarray(item.rotation).reshape(3, 3)
    every = np.concatenate([m.vertices[m.faces].reshape(-1, 3) @ turn.T for m in meshes])
    low, high = every.min(0), every.max(0)
    scale = np.asarray(item.size) / np.maximum(high - low, 1e-6)
    foot = np.array([(low[0] + high[0]) / 2.0, low[1], (low[2] + high[2]) / 2.0])
    parts = []
    for mesh in meshes:
        picture, tint, opacity = _material(mesh.visual)
        see_through = 0.45
        if opacity >= see_through:
            faces = mesh.faces
            coordinates = getattr(mesh.visual, "uv", None)
            parts.append(
                FurniturePart(
                    corners=((mesh.vertices[faces] @ turn.T) - foot) * scale,
                    normals=(mesh.vertex_normals[faces] @ turn.T) / np.maximum(scale, 1e-6),
                    uv=None if coordinates is None else np.asarray(coordinates)[faces] * [1.0, -1.0],
                    picture=picture if coordinates is not None else None,
                    tint=tint,
                )
            )
    return parts


def _material(visual: Any) -> tuple[UInt8[np.ndarray, "h w 4"] | None, tuple[float, float, float], float]:
    """Texture image, linear tint and opacity of a trimesh OBJ material."""
    material = getattr(visual, "material", None)
    diffuse = np.asarray(getattr(material, "diffuse", (180, 180, 180, 255)), np.float64)[:3] / 255.0
    values = getattr(material, "kwargs", {}) or {}
    opacity = float(np.ravel(values.get("d", values.get("tr", 1.0)))[0])
    image = getattr(material, "image", None)
    if image is None:
        # Reflectance of 0.04 to 0.9: no material is fully black or white.
        tint = 0.04 + 0.86 * srgb_to_linear(diffuse)
        return None, (float(tint[0]), float(tint[1]), float(tint[2])), opacity
    image = image.convert("RGBA")
    image.thumbnail((512, 512), Image.Resampling.BOX)
    bright = float(np.clip(diffuse.mean(), 0.7, 0.9))
    return np.asarray(image), (bright, bright, bright), opacity
