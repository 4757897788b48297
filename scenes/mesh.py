"""A coloured triangle mesh of a world: RGB-D fusion (Curless and Levoy 1996), written as GLB."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from geometry.frame import Frame
from geometry.project import unproject
from scenes.files import replacing
from scenes.open3d_library import load_open3d

VOXELS_PER_PIXEL = 0.5  # a voxel is twice the footprint of a pixel at the median depth
TRUNCATION_VOXELS = 5.0
FAR_MEDIANS = 8.0  # farther surfaces are so coarsely sampled that they fuse into noise
MAX_BLOCKS = 8_000  # of 16^3 voxels of 20 bytes; bounds memory to about 1 GiB
BLOCK_VOXELS = 16
MIN_COMPONENT = 0.002  # share of all triangles below which a loose piece is dropped

# glTF: x right, y up, z towards the viewer.
GLTF_FROM_OPENCV = np.diag([1.0, -1.0, -1.0])


@dataclass(frozen=True)
class Mesh:
    """Coloured triangles in the world's axes (OpenCV).

    Attributes:
        vertices: ``[v 3]``, scene units.
        colors: ``[v 3]``, 0..1, sRGB-encoded.
        triangles: ``[f 3]`` indices, counter-clockwise seen from outside.
        voxel: edge of the voxels it was made from, scene units.
    """

    vertices: NDArray[np.float64]
    colors: NDArray[np.float64]
    triangles: NDArray[np.int64]
    voxel: float


def fuse(chunks: Iterable[Frame]) -> Mesh:
    """Fuse RGB-D frames into one surface; the sky and what lies far off are left out.

    Args:
        chunks: batches ``[t]`` of frames, read twice; give something that can be iterated again.

    Raises:
        ValueError: no surface comes out.
        ImportError: Open3D cannot be loaded.
    """
    open3d = load_open3d()
    voxel, far = _scale(chunks)
    grid = open3d.t.geometry.VoxelBlockGrid(
        attr_names=("tsdf", "weight", "color"),
        attr_dtypes=(open3d.core.float32,) * 3,
        attr_channels=((1,), (1,), (3,)),
        voxel_size=voxel,
        block_resolution=BLOCK_VOXELS,
        block_count=MAX_BLOCKS,
    )
    for frames in chunks:
        for i in range(len(frames)):
            _integrate(open3d, grid, frames[i], far)
    mesh = grid.extract_triangle_mesh(weight_threshold=0.5).to_legacy()
    labels, sizes, _ = mesh.cluster_connected_triangles()
    labels, sizes = np.asarray(labels), np.asarray(sizes)
    if len(labels):
        mesh.remove_triangles_by_mask(sizes[labels] < MIN_COMPONENT * len(labels))
        mesh.remove_unreferenced_vertices()
    if not len(mesh.triangles):
        raise ValueError("glb: the frames show no surface nearer than the sky; there is nothing to mesh")
    triangles = np.asarray(mesh.triangles).astype(np.int64)
    return Mesh(np.asarray(mesh.vertices), np.asarray(mesh.vertex_colors), triangles, voxel)


def write_glb(path: str | Path, mesh: Mesh) -> None:
    """Write a mesh as binary glTF: y up, linear vertex colours, an unlit material (a photo carries its own light)."""
    import trimesh
    from trimesh.exchange.gltf import export_glb

    colors = np.concatenate([_linear(mesh.colors), np.ones((len(mesh.colors), 1))], 1)
    model = trimesh.Trimesh(
        mesh.vertices @ GLTF_FROM_OPENCV,
        mesh.triangles,
        vertex_colors=(colors * 255.0).round().astype(np.uint8),
        process=False,
    )
    content = export_glb(trimesh.Scene(model), include_normals=False, tree_postprocessor=_make_unlit)
    with replacing(Path(path)) as partial:
        partial.write_bytes(content)


def _scale(chunks: Iterable[Frame]) -> tuple[float, float]:
    """Voxel size and far limit for these frames, in scene units."""
    samples = [(f, f.depth[f.valid & ~f.sky][:: max(1, f.depth.numel() // 4096)]) for f in chunks]
    depths = torch.cat([s for _, s in samples]) if samples else torch.zeros(0)
    if not len(depths):
        raise ValueError("glb: the frames show no surface nearer than the sky; there is nothing to mesh")
    median = float(depths.median())
    far = FAR_MEDIANS * median
    focal = float(samples[0][0].camera.focal_px.mean())
    voxel = median / focal / VOXELS_PER_PIXEL
    points = np.concatenate([_coarse_points(f, far) for f, _ in samples])
    while len(np.unique(np.floor(points / (BLOCK_VOXELS * voxel)).astype(np.int64), axis=0)) > MAX_BLOCKS:
        voxel *= 1.25
    return voxel, far


def _coarse_points(frames: Frame, far: float) -> NDArray[np.float64]:
    """World points ``[n 3]`` of every fourth pixel of every fourth frame."""
    some = frames[::4]
    points = unproject(some.depth, some.camera)[:, :, ::4, ::4].movedim(1, -1)
    kept = (some.valid & ~some.sky & (some.depth < far))[:, 0, ::4, ::4]
    return points[kept].double().numpy()


def _integrate(open3d: Any, grid: Any, frame: Frame, far: float) -> None:
    """Fuse one frame into Open3D's voxel grid."""
    known = frame.valid & ~frame.sky & (frame.depth < far)
    if not bool(known.any()):
        return
    image, tensor = open3d.t.geometry.Image, open3d.core.Tensor
    depth = image(torch.where(known, frame.depth, torch.zeros_like(frame.depth))[0].contiguous().numpy())
    color = image(frame.rgb.permute(1, 2, 0).contiguous().numpy())
    intrinsics = frame.camera.intrinsics.double()
    intrinsics[:2, 2] -= 0.5  # Open3D's pixel centres lie on whole numbers
    lens, view = tensor(intrinsics.numpy()), tensor(frame.camera.camera_from_world.double().numpy())
    limits = (1.0, far, TRUNCATION_VOXELS)  # depth scale, depth limit, truncation
    grid.integrate(grid.compute_unique_block_coordinates(depth, lens, view, *limits), depth, color, lens, view, *limits)


def _linear(srgb: NDArray[np.float64]) -> NDArray[np.float64]:
    """sRGB-encoded colours as the linear ones that glTF wants at vertices (IEC 61966-2-1)."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def _make_unlit(tree: dict[str, Any]) -> None:
    unlit = "KHR_materials_unlit"
    tree["materials"] = [
        {
            "pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 1.0},
            "extensions": {unlit: {}},
            "doubleSided": True,
        }
    ]
    tree["extensionsUsed"] = [*tree.get("extensionsUsed", []), unlit]
    for mesh in tree["meshes"]:
        for primitive in mesh["primitives"]:
            primitive["material"] = 0
