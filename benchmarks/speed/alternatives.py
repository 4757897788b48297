"""A view of a finished world, and what one would take instead: `python -m benchmarks.speed.alternatives [HxW ...]`.

The bundled photo, one chunk walked to the left, so that the world holds the photo and a margin that was made. Then the
chunk's cameras again, nothing new in view, milliseconds per frame: walking them again (render, check, finish, round,
measure); rendering alone, "lift once, only render"; Open3D's projection of the same primitives as points; points in
tensor operations with a depth buffer, as one would write it with PyTorch3D, with and without closing the holes by
OpenCV's Telea inpainting. Points have no soft edges and no texture: dB tells how near each comes to the walk's frames.
Wall time and processor time of all threads, medians. JSON line last.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

import worldwarp
from benchmarks.speed.rasterizer import processor, wall_and_cpu
from geometry.camera import Camera
from geometry.primitives import Gaussians
from scenes.io.open3d_library import load_open3d
from scenes.io.png import to_bytes
from worldwarp.config import compose_config
from worldwarp.loop import complete_views
from worldwarp.metrics import agreement_db
from worldwarp.prepare import prepare
from worldwarp.session import Session

PHOTO = Path(worldwarp.__file__).parent / "photos" / "pagoda.jpg"


def depth_buffered(points: Tensor, colors: Tensor, camera: Camera) -> tuple[Tensor, Tensor]:
    """Points ``[n 3]`` as one pixel each: the nearest one's color ``[3 h w]``, and where there is any ``[h w]``."""
    height, width = camera.size
    pose = camera.camera_from_world
    x, y, z = (points @ pose[:3, :3].T + pose[:3, 3]).unbind(-1)
    column = (x / z * camera.focal_px[0] + camera.center_px[0]).floor().long()
    row = (y / z * camera.focal_px[1] + camera.center_px[1]).floor().long()
    inside = (z > 1e-3) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    place, z = (row * width + column)[inside], z[inside]
    nearest = torch.full((height * width,), torch.inf).scatter_reduce(0, place, z, "amin")
    front = z <= nearest[place]
    image = torch.zeros(height * width, 3)
    image[place[front]] = colors[inside][front]
    return image.T.reshape(3, height, width), nearest.isfinite().reshape(height, width)


def closed(image: Tensor, known: Tensor) -> Tensor:
    """An image whose holes are closed by Telea's method."""
    pixels = np.ascontiguousarray(to_bytes(image[None])[0].permute(1, 2, 0).numpy())
    filled = cv2.inpaint(pixels, (~known).numpy().astype(np.uint8), 3, cv2.INPAINT_TELEA)
    return torch.from_numpy(filled).permute(2, 0, 1).float() / 255.0


def open3d_projection(world: Gaussians) -> Any:
    """A function from a camera to Open3D's image of the points, ``[3 h w]``."""
    o3d: Any = load_open3d()
    cloud = o3d.t.geometry.PointCloud(o3d.core.Tensor(world.means.numpy()))
    cloud.point["colors"] = o3d.core.Tensor(world.colors.numpy())

    def project(camera: Camera) -> Tensor:
        height, width = camera.size
        lens, pose = (o3d.core.Tensor(m.double().numpy()) for m in (camera.intrinsics, camera.camera_from_world))
        image = cloud.project_to_rgbd_image(width, height, lens, pose, depth_scale=1.0, depth_max=1e9)
        return torch.from_numpy(image.color.as_tensor().numpy()).permute(2, 0, 1)

    return project


def measure(session: Session, repeats: int) -> dict[str, float]:
    """One row of the table; milliseconds per frame."""
    walked = next(iter(session.steps()))
    cameras, state, parts = walked.chunk.frames.camera, session.state, session.components
    world = state.view.cache.snapshot()
    assert isinstance(world, Gaussians)
    project = open3d_projection(world)
    again = complete_views(cameras, None, state, parts).chunk.frames.rgb
    everywhere, count = torch.ones(len(cameras), 1, *cameras.size, dtype=torch.bool), len(cameras)

    def each(view: Any) -> Tensor:
        return torch.stack([view(cameras[k]) for k in range(count)])

    def with_holes(camera: Camera) -> Tensor:
        return depth_buffered(world.means, world.colors, camera)[0]

    def without_holes(camera: Camera) -> Tensor:
        return closed(*depth_buffered(world.means, world.colors, camera))

    runs = {
        "walk_again": lambda: complete_views(cameras, None, state, parts).chunk.frames.rgb,
        "render": lambda: state.view.render(cameras, parts.samples).rgb,
        "open3d_points": lambda: each(project),
        "tensor_points": lambda: each(with_holes),
        "tensor_points_telea": lambda: each(without_holes),
    }
    row: dict[str, float] = {"primitives": len(world)}
    for name, run in runs.items():
        row[f"{name}_db"] = agreement_db(run(), again, everywhere)
        row |= {key: value / count for key, value in wall_and_cpu(name, run, repeats).items()}
    return row


def main() -> None:
    """Measure, print a table, and one JSON line last."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.alternatives")
    parser.add_argument("sizes", nargs="*", default=["480x832"])
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    rows = {}
    for size in given.sizes:
        words = [f"image={PHOTO}", "path=left:distance=0.1", "frames=9", f"size=[{size.replace('x', ',')}]"]
        session = prepare(compose_config("explore", [*words, "viewer=none"]))
        rows[size] = {name: round(value, 1) for name, value in measure(session, given.repeats).items()}
        print(size)
        for name, value in rows[size].items():
            print(f"  {name:28s} {value:10.1f}")
    machine = {"processor": processor(), "threads": torch.get_num_threads(), "load": round(os.getloadavg()[0], 1)}
    print(json.dumps({"benchmark": "alternatives", **machine, "rows": rows}))


if __name__ == "__main__":
    main()
