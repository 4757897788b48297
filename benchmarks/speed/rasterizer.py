"""How fast the CPU rasterizer is: `python -m benchmarks.speed.rasterizer [--repeats N]`.

One Gaussian per pixel of an invented relief (k = 0.5, opacity 0.95), or three of a third of the area, seen from 0.1 to
the side. Times are medians in milliseconds; the baselines, in the same run and on the same threads, are gsplat's own
kernels compiled for the host and Open3D projecting the same centers as points. JSON line last.

The arithmetic bound is what compositing would take if every lane it issues cost its additions and multiplications
at the speed that a kernel of nothing but independent multiply-adds reaches here.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from cache3d.rasterizer import cpu as rasterizer_cpu
from cache3d.rasterizer import tile_kernels
from cache3d.rasterizer.cpu import warm_up
from cache3d.rasterizer.rasterize import rasterize
from cache3d.rasterizer.simd import load, splat, store
from cache3d.rasterizer.types import Splats
from geometry.camera import Camera
from geometry.jit import compiled
from scenes.io.open3d_library import load_open3d
from tests.oracles.gsplat_host import GsplatHost, why_not

# Additions and multiplications of one lane of `tile_kernels.composite`, besides two per channel.
FLOP_PER_LANE = 22


def median_ms(run: Callable[[], object], repeats: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """Median time of ``run`` in milliseconds, after one call that does not count."""
    run()
    times = []
    for _ in range(repeats):
        start = clock()
        run()
        times.append(clock() - start)
    return 1e3 * statistics.median(times)


def wall_and_cpu(name: str, run: Callable[[], object], repeats: int) -> dict[str, float]:
    """Wall time, and processor time of all threads, which says more where other programs are busy."""
    return {f"{name}_ms": median_ms(run, repeats), f"{name}_cpu_ms": median_ms(run, repeats, time.process_time)}


def make_scene(size: tuple[int, int], per_axis: float = 1.0) -> tuple[Splats, Camera]:
    """One Gaussian per pixel (``per_axis`` squared of them, smaller) and a camera beside the one that saw them."""
    pose = torch.eye(4)[None].clone()
    pose[0, 0, 3] = 0.1
    camera = Camera.from_fov(60.0, size, pose)
    rows, columns = torch.meshgrid(
        *((torch.arange(round(side * per_axis)) + 0.5) / per_axis for side in size), indexing="ij"
    )
    z = 1.5 + 0.5 * torch.sin(columns / 40) * torch.cos(rows / 30)
    focal, center = camera.focal_px[0], camera.center_px[0]
    x, y = (columns - center[0]) / focal[0] * z, (rows - center[1]) / focal[1] * z
    means = torch.stack([x, y, z], dim=-1).reshape(-1, 3)
    scales = (0.5 / per_axis * means[:, 2:] / focal[0]).expand(-1, 3).contiguous()
    quats = torch.zeros(len(means), 4)
    quats[:, 0] = 1.0
    colors = torch.rand(len(means), 3, generator=torch.Generator().manual_seed(0))
    return Splats(means, quats, scales, torch.full((len(means),), 0.95), colors), camera


def stages_ms(splats: Splats, camera: Camera, repeats: int) -> dict[str, float]:
    """Medians of the forward stages in processor time on one thread, and nanoseconds per tile entry."""
    height, width = camera.size
    parts = [t.numpy() for t in vars(splats).values()]
    row = rasterizer_cpu.camera_row(camera.camera_from_world[0], camera.focal_px[0], camera.center_px[0])
    tiles = (-(-height // tile_kernels.TILE), -(-width // tile_kernels.TILE))
    flat, box = rasterizer_cpu.project(parts, row, camera.size, 0.3)
    ordered = rasterizer_cpu.depth_order(flat, box)
    starts, ids, _, _ = rasterizer_cpu.tile_lists(*ordered, tiles)
    images = [np.empty((4, height, width), np.float32), np.empty((height, width), np.float32)]
    last = np.empty((height, width), np.int32)
    stages = {
        "project": median_ms(lambda: rasterizer_cpu.project(parts, row, camera.size, 0.3), repeats, time.process_time),
        "sort": median_ms(lambda: rasterizer_cpu.depth_order(flat, box), repeats, time.process_time),
        "lists": median_ms(lambda: rasterizer_cpu.tile_lists(*ordered, tiles), repeats, time.process_time),
        "composite": median_ms(
            lambda: tile_kernels.composite(
                np.arange(tiles[0] * tiles[1]), tiles[1], width, height, starts, ids, flat, *images, last
            ),
            repeats,
            time.process_time,
        ),
    }
    lanes = issued_lanes(flat, box)
    bound_ms = lanes * (FLOP_PER_LANE + 2 * images[0].shape[0]) / (1e6 * peak_gflops())
    return stages | {
        "entries": len(ids),
        "composite_ns_per_entry": 1e6 * stages["composite"] / len(ids),
        "share_of_bound": bound_ms / stages["composite"],
    }


def issued_lanes(flat: np.ndarray, box: np.ndarray) -> float:
    """Pixels that compositing computes: rows of a footprint times groups of eight; the borders of tiles add some."""
    seen = flat[box >= 0]
    return float(((2 * seen[:, 7] + 1) * 8 * np.ceil(2 * seen[:, 6] / 8)).sum())


@compiled
def _multiply_adds(out, count):
    a, b = load(out, 0), load(out, 8)  # not constants: LLVM would fold rounds into one
    x0, x1, x2, x3 = splat(out[0]), splat(out[1]), splat(out[2]), splat(out[3])
    x4, x5, x6, x7 = splat(out[4]), splat(out[5]), splat(out[6]), splat(out[7])
    for _ in range(count):
        x0, x1, x2, x3 = x0 * a + b, x1 * a + b, x2 * a + b, x3 * a + b
        x4, x5, x6, x7 = x4 * a + b, x5 * a + b, x6 * a + b, x7 * a + b
    store(out, 0, (x0 + x1) + (x2 + x3) + ((x4 + x5) + (x6 + x7)))


@cache
def peak_gflops() -> float:
    """What one thread reaches with eight independent chains of multiply-adds of eight lanes."""
    out, count = np.full(16, 0.5, np.float32), 200_000
    return count * 8 * 8 * 2 / (1e6 * median_ms(lambda: _multiply_adds(out, count), 9, time.process_time))


def gsplat_ms(splats: Splats, camera: Camera, repeats: int) -> dict[str, float]:
    """Median times of gsplat's kernels on the host, on as many threads; nothing where they cannot be built."""
    if why_not() is not None:
        return {}
    host = GsplatHost(splats, camera[0], torch.get_num_threads())
    drawn = host.draw()
    ones, nothing = np.ones_like(drawn.image), np.zeros_like(drawn.alpha)
    return wall_and_cpu("gsplat_forward", host.draw, repeats) | wall_and_cpu(
        "gsplat_forward_backward", lambda: host.pull_back(host.draw(), ones, nothing), repeats
    )


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


def measure(size: tuple[int, int], per_axis: float, repeats: int) -> dict[str, float]:
    """One row of the table."""
    splats, camera = make_scene(size, per_axis)
    threads = torch.get_num_threads()
    row = wall_and_cpu("forward", lambda: rasterize(splats, camera), repeats)
    torch.set_num_threads(1)
    row |= stages_ms(splats, camera, repeats)
    torch.set_num_threads(threads)
    leaves = Splats(*(t.clone().requires_grad_() for t in vars(splats).values()))

    def both_ways() -> None:
        raster = rasterize(leaves, camera)
        (raster.values.sum() + raster.depth.sum()).backward()

    row |= wall_and_cpu("forward_backward", both_ways, repeats)
    row["open3d_points_ms"] = open3d_ms(splats, camera, repeats)
    row["forward_over_open3d"] = row["forward_ms"] / row["open3d_points_ms"]
    row |= gsplat_ms(splats, camera, max(repeats // 5, 1))
    if "gsplat_forward_ms" in row:
        for way in ("forward", "forward_backward"):
            row[f"gsplat_over_{way}"] = row[f"gsplat_{way}_cpu_ms"] / row[f"{way}_cpu_ms"]
    return row


def processor() -> str:
    """The processor's name, as the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    names = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    named = [line.partition(":")[2].strip() for line in names if line.startswith("model name")]
    return named[0] if named else platform.processor()


def main() -> None:
    """Measure, print a table, and one JSON line last."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.rasterizer")
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    warm_up(gradients=True)
    threads = torch.get_num_threads()
    load = os.getloadavg()[0]
    print(f"{processor()}, {os.cpu_count()} CPUs, {threads} threads, torch {torch.__version__}, load {load:.1f}")
    rows = {}
    for size, per_axis in tqdm([((256, 448), 1.0), ((480, 720), 1.0), ((480, 720), 3**0.5)], desc="sizes"):
        name = f"{size[0]}x{size[1]}_{round(size[0] * size[1] * per_axis**2 / 1000)}k"
        rows[name] = {key: round(value, 2) for key, value in measure(size, per_axis, options.repeats).items()}
        print(name)
        for key, value in rows[name].items():
            print(f"  {key:24s} {value:8.2f}")
    print(json.dumps({"benchmark": "rasterizer", "processor": processor(), "threads": threads, "load": load, **rows}))


if __name__ == "__main__":
    main()
