"""How a world's exported mesh looks from aside: `python -m benchmarks.quality.meshes DIR... [--out FOLDER]`.

``mesh.glb`` is read again (trimesh), drawn by ray casting (Open3D) and compared with a rendering of the world itself:
at the photo's camera, and 15 degrees to the left, to the right and above, around the photo's median depth. Beside it
stands a mesh with vertex colors: the pixels of the photo's frame as vertices, cut where depths differ, without a sky.

For each view: dB over the pixels that the world covers (what a mesh lacks is black) and the share of all pixels that a
mesh lacks. ``--out`` gets a picture per world: rows are the world, the mesh, and the mesh with vertex colors.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh
from jaxtyping import Float
from PIL import Image
from scipy.spatial.transform import Rotation
from torch import Tensor

from geometry.camera import Camera
from geometry.frame import Frame
from geometry.project import unproject
from geometry.se3 import rigid
from scenes.io.open3d_library import load_open3d
from worldwarp.api import World
from worldwarp.metrics import agreement_db

ASIDE_DEG = 15.0
SAMPLES = 3  # rays per pixel and axis
FARTHEST_RATIO = 1.08  # of neighboring depths that a triangle of the mesh with vertex colors spans
GLTF_FROM_OPENCV = np.array([1.0, -1.0, -1.0])


@dataclass(frozen=True)
class Drawable:
    """Triangles in world axes, and their colors.

    Attributes:
        positions: ``[v 3]``.
        triangles: ``[f 3]``.
        shade: colors ``[k 3]``, 0..1, of hits, from indices of triangles ``[k]`` and barycentric weights ``[k 3]``.
    """

    positions: np.ndarray
    triangles: np.ndarray
    shade: Callable[[np.ndarray, np.ndarray], np.ndarray]


def textured(path: Path) -> list[Drawable]:
    """The parts of a GLB."""
    scene: Any = trimesh.load(path)
    return [_textured_part(part) for part in scene.geometry.values()]


def _textured_part(part: Any) -> Drawable:
    places = np.asarray(part.visual.uv) * [1.0, -1.0] + [0.0, 1.0]  # trimesh counts v from below
    texture = np.asarray(part.visual.material.baseColorTexture.convert("RGB")) / 255.0
    corners = np.asarray(part.faces)

    def shade(face: np.ndarray, weights: np.ndarray) -> np.ndarray:
        at = (places[corners[face]] * weights[..., None]).sum(1) * texture.shape[1::-1] - 0.5
        low = np.floor(at).astype(int)
        rest, colors = at - low, 0.0
        for dy in (0, 1):
            for dx in (0, 1):
                share = np.abs(1 - dx - rest[:, 0]) * np.abs(1 - dy - rest[:, 1])
                row = np.clip(low[:, 1] + dy, 0, texture.shape[0] - 1)
                colors = colors + share[:, None] * texture[row, np.clip(low[:, 0] + dx, 0, texture.shape[1] - 1)]
        return np.asarray(colors)

    return Drawable(np.asarray(part.vertices) * GLTF_FROM_OPENCV, corners, shade)


def with_vertex_colors(frame: Frame) -> Drawable:
    """One frame ``[]`` with a vertex per pixel, cut where neighboring depths differ; the sky is left out."""
    depth, known = frame.depth[0], (frame.valid & ~frame.sky)[0].flatten().numpy()
    height, width = depth.shape
    index = np.arange(height * width).reshape(height, width)
    a, b, c, d = (part.ravel() for part in (index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]))
    triangles = np.concatenate([np.stack([a, c, b], 1), np.stack([b, c, d], 1)])
    corners = depth.flatten().numpy()[triangles]
    keep = known[triangles].all(1) & (corners.max(1) < FARTHEST_RATIO * corners.min(1))
    triangles = triangles[keep]
    positions, colors = (part.flatten(1).T.numpy() for part in (unproject(frame.depth, frame.camera), frame.rgb))
    return Drawable(positions, triangles, lambda face, w: (colors[triangles[face]] * w[..., None]).sum(1))


def drawn(parts: list[Drawable], camera: Camera) -> tuple[Float[Tensor, "3 h w"], Float[Tensor, "1 h w"]]:
    """Colors on black, and the share of each pixel that is covered, of a camera (no batch)."""
    open3d = load_open3d()
    scene = open3d.t.geometry.RaycastingScene()
    for part in parts:
        positions, triangles = part.positions.astype(np.float32), part.triangles.astype(np.uint32)
        scene.add_triangles(open3d.core.Tensor(positions), open3d.core.Tensor(triangles))
    fine = camera.resized((camera.size[0] * SAMPLES, camera.size[1] * SAMPLES))
    origin = fine.position
    toward = unproject(torch.ones(1, *fine.size), fine) - origin[:, None, None]
    rays = torch.cat([origin[:, None, None].expand_as(toward), toward]).permute(1, 2, 0).contiguous().numpy()
    hits = scene.cast_rays(open3d.core.Tensor(rays.astype(np.float32)))
    which, face, bary = (hits[name].numpy() for name in ("geometry_ids", "primitive_ids", "primitive_uvs"))
    hit = np.isfinite(hits["t_hit"].numpy())
    weights = np.concatenate([1.0 - bary.sum(-1, keepdims=True), bary], -1)
    out = np.zeros((*hit.shape, 4), np.float32)
    for k, part in enumerate(parts):
        own = hit & (which == k)
        out[own, :3] = part.shade(face[own].astype(int), weights[own])
        out[own, 3] = 1.0
    height, width = camera.size
    pooled = out.reshape(height, SAMPLES, width, SAMPLES, 4).mean((1, 3))
    both = torch.from_numpy(pooled).permute(2, 0, 1)
    return both[:3], both[3:]


def views_around(photo: Frame) -> dict[str, Camera]:
    """The photo's camera, and cameras aside of it that look at its middle at the median depth."""
    depth = photo.depth[photo.valid & ~photo.sky].median()
    middle = torch.stack([torch.zeros(()), torch.zeros(()), depth])

    def turned(yaw: float, pitch: float) -> Camera:
        rotation = torch.from_numpy(Rotation.from_euler("yx", [yaw, pitch], degrees=True).as_matrix()).float()
        pose = photo.camera.world_from_camera @ rigid(rotation, middle - rotation @ middle)
        return Camera(pose, photo.camera.focal_px, photo.camera.center_px, photo.camera.size)

    turns = {"photo": (0.0, 0.0), "left": (ASIDE_DEG, 0.0), "right": (-ASIDE_DEG, 0.0), "above": (0.0, -ASIDE_DEG)}
    return {name: turned(*turn) for name, turn in turns.items()}


def compare(folder: Path, out: Path | None) -> dict[str, Any]:
    """Figures of one world; writes its picture."""
    world = World.load(folder)
    photo = world.record.chunk(0).frames[0]
    with tempfile.TemporaryDirectory() as scratch:
        report = world.export(["glb"], scratch)[0]
        meshes = {"textured": textured(report.path), "vertex": [with_vertex_colors(photo)]}
    found: dict[str, Any] = {"world": folder.name, "mib": round(report.bytes / 2**20, 2)}
    columns = []
    for view, camera in views_around(photo).items():
        guide = world.render(camera)
        column = [guide.rgb[0]]
        for name, parts in meshes.items():
            rgb, covered = drawn(parts, camera)
            agreement = agreement_db(rgb[None], guide.rgb, guide.covered)
            missing = (covered < 0.5).float().mean().item()
            found[f"{name}_{view}"] = {"db": round(agreement, 2), "lacking": round(missing, 4)}
            column.append(rgb)
        columns.append(torch.cat(column, 1))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        sheet = (torch.cat(columns, 2).permute(1, 2, 0) * 255.0).round().clamp(0, 255).to(torch.uint8)
        Image.fromarray(sheet.numpy()).save(out / f"{folder.name}.png")
    return found


def main() -> None:
    """Print a line per world, then all as JSON."""
    parser = argparse.ArgumentParser(description="How exported meshes look from aside")
    parser.add_argument("worlds", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, help="folder for a picture of each world")
    given = parser.parse_args()
    rows = []
    for folder in given.worlds:
        rows.append(compare(folder, given.out))
        print(rows[-1]["world"])
        for name in ("textured", "vertex"):
            figures = {view: rows[-1][f"{name}_{view}"] for view in ("photo", "left", "right", "above")}
            print(f"  {name:<9}", *(f"{v} {f['db']:.1f} dB, {f['lacking']:.1%} lacking;" for v, f in figures.items()))
    print(json.dumps({"worlds": rows}))


if __name__ == "__main__":
    main()
