"""How fast the CPU rasterizer is: `python -m benchmarks.rasterizer [--full] [--repeats N]`.

One Gaussian per pixel of an invented relief (k = 0.5, opacity 0.95), seen from 0.1 to the side. Times are medians in
milliseconds; the baseline, in the same run, is Open3D projecting the same centres as points. JSON line last.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cache3d import projection_kernels, rasterizer_cpu, tile_kernels
from cache3d.rasterizer import Splats, rasterize
from cache3d.rasterizer_cpu import warm_up
from geometry.camera import Camera
from scenes.open3d_library import load_open3d


def median_ms(run: Callable[[], object], repeats: int) -> float:
    """Median wall time of ``run`` in milliseconds, after one call that does not count."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def make_scene(size: tuple[int, int]) -> tuple[Splats, Camera]:
    """One Gaussian per pixel and a camera beside the one that saw them."""
    height, width = size
    pose = torch.eye(4)[None].clone()
    pose[0, 0, 3] = 0.1
    camera = Camera.from_fov(60.0, size, pose)
    rows, columns = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    z = 1.5 + 0.5 * torch.sin(columns / 40) * torch.cos(rows / 30)
    focal, center = camera.focal_px[0], camera.center_px[0]
    x, y = (columns - center[0]) / focal[0] * z, (rows - center[1]) / focal[1] * z
    means = torch.stack([x, y, z], dim=-1).reshape(-1, 3)
    scales = (0.5 * means[:, 2:] / focal[0]).expand(-1, 3).contiguous()
    quats = torch.zeros(len(means), 4)
    quats[:, 0] = 1.0
    colors = torch.rand(len(means), 3, generator=torch.Generator().manual_seed(0))
    return Splats(means, quats, scales, torch.full((len(means),), 0.95), colors), camera


def stages_ms(splats: Splats, camera: Camera, repeats: int) -> dict[str, float]:
    """Medians of the forward stages on one thread, and nanoseconds per tile entry."""
    height, width = camera.size
    parts = [t.numpy() for t in (splats.means, splats.quats, splats.scales, splats.opacities)]
    values = splats.values.numpy()
    row = rasterizer_cpu.camera_row(camera.camera_from_world[0], camera.focal_px[0], camera.center_px[0])
    tiles = (-(-height // tile_kernels.TILE), -(-width // tile_kernels.TILE))
    flat, box = rasterizer_cpu.project(parts, row, camera.size, 0.3)
    order = rasterizer_cpu.depth_order(flat, box)
    starts, ids, _, _ = rasterizer_cpu.tile_lists(order, box, tiles, slots=False)
    images = [np.empty((4, height, width), np.float32), np.empty((height, width), np.float32)]
    last = np.empty((height, width), np.int32)
    stages = {
        "project": median_ms(lambda: rasterizer_cpu.project(parts, row, camera.size, 0.3), repeats),
        "sort": median_ms(lambda: rasterizer_cpu.depth_order(flat, box), repeats),
        "lists": median_ms(lambda: rasterizer_cpu.tile_lists(order, box, tiles, slots=False), repeats),
        "composite": median_ms(
            lambda: tile_kernels.composite(
                0, tiles[0] * tiles[1], tiles[1], width, height, starts, ids, flat, values, *images, last
            ),
            repeats,
        ),
    }
    return stages | {"composite_ns_per_entry": 1e6 * stages["composite"] / len(ids)}


def open3d_ms(splats: Splats, camera: Camera, repeats: int) -> float:
    """Median time of Open3D's projection of the same points to an RGB-D image."""
    o3d: Any = load_open3d()
    cloud = o3d.t.geometry.PointCloud(o3d.core.Tensor(splats.means.numpy()))
    cloud.point["colors"] = o3d.core.Tensor(splats.values.numpy())
    intrinsics, pose = (o3d.core.Tensor(m[0].double().numpy()) for m in (camera.intrinsics, camera.camera_from_world))
    height, width = camera.size
    return median_ms(
        lambda: cloud.project_to_rgbd_image(width, height, intrinsics, pose, depth_scale=1.0, depth_max=100.0), repeats
    )


def measure(size: tuple[int, int], repeats: int) -> dict[str, float]:
    """One row of the table."""
    splats, camera = make_scene(size)
    threads = torch.get_num_threads()
    row = {"forward_ms": median_ms(lambda: rasterize(splats, camera), repeats)}
    torch.set_num_threads(1)
    row["forward_1_thread_ms"] = median_ms(lambda: rasterize(splats, camera), repeats)
    row |= stages_ms(splats, camera, repeats)
    torch.set_num_threads(threads)
    leaves = Splats(*(t.clone().requires_grad_() for t in vars(splats).values()))

    def both_ways() -> None:
        raster = rasterize(leaves, camera)
        (raster.values.sum() + raster.depth.sum()).backward()

    row["forward_backward_ms"] = median_ms(both_ways, repeats)
    row["open3d_points_ms"] = open3d_ms(splats, camera, repeats)
    row["forward_over_open3d"] = row["forward_ms"] / row["open3d_points_ms"]
    return row


def processor() -> str:
    """The processor's name, as the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    names = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    named = [line.partition(":")[2].strip() for line in names if line.startswith("model name")]
    return named[0] if named else platform.processor()


def main() -> None:
    """Measure, print a table, and one JSON line last."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rasterizer")
    parser.add_argument("--full", action="store_true", help="also 480x720 with 346k Gaussians")
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    warm_up(gradients=True)
    threads = torch.get_num_threads()
    load = os.getloadavg()[0]
    print(f"{processor()}, {os.cpu_count()} CPUs, {threads} threads, torch {torch.__version__}, load {load:.1f}")
    rows = {}
    for size in [(256, 448), (480, 720)][: 1 + options.full]:
        name = f"{size[0]}x{size[1]}_{size[0] * size[1] // 1000}k"
        rows[name] = {key: round(value, 2) for key, value in measure(size, options.repeats).items()}
        print(name)
        for key, value in rows[name].items():
            print(f"  {key:24s} {value:8.2f}")
    print(json.dumps({"benchmark": "rasterizer", "processor": processor(), "threads": threads, "load": load, **rows}))


if __name__ == "__main__":
    main()
