"""A world much larger than memory: `python -m benchmarks.cache.paging [--millions N] [--resident MIB] [--runs N]`.

A facade some kilometers long, built segment by segment and streamed to disk, is walked along sideways at three places,
and then at others, `--runs` times. Before each run the system is told to forget the block files it has read. The
baseline, in the same run and frame by frame, is the same view of a small world that holds only the segments near the
walk, all in memory; pictures are compared to the bit. The longest wait is wall time, on a machine that others may
share: beside it stand its processor time, the same wait of the small world, which has nothing to wait for, and how many
blocks were not at hand when asked for. Then a walk of 106 chunks with storing: chunk 100 against chunk 10, in processor
time. Times are medians in milliseconds; JSON line last.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import shutil
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from cache3d.gaussian_cache import GaussianCache
from geometry.camera import Camera
from geometry.frame import Chunk, Frame
from geometry.primitives import Change, Gaussians
from scenes.store.world_store import WorldStore

SIZE = (192, 320)
FRAMES, STEP = 8, 0.2  # cameras per chunk, scene units from one to the next
CHUNKS = 8  # per place
WIDTH = 8.0  # of a segment, scene units
HEIGHT = 1.2
SPACING = 1.5 * 2.0 * math.tan(math.radians(30.0)) / SIZE[1]  # of a pixel at the facade's distance
WALK_SIZE = (96, 160)


def segment(index: int) -> Gaussians:
    """One stretch of the facade, the same whenever it is asked for."""
    columns, rows = round(WIDTH / SPACING), round(HEIGHT / SPACING)
    y, x = torch.meshgrid(torch.arange(rows) * SPACING - HEIGHT / 2, torch.arange(columns) * SPACING, indexing="ij")
    x = (x + index * WIDTH).reshape(-1)
    means = torch.stack([x, y.reshape(-1), 1.5 + 0.1 * torch.sin(4.0 * x)], dim=-1)
    count = len(means)
    quats = torch.zeros(count, 4)
    quats[:, 1] = 1.0  # half a turn: the normal looks back at the camera
    scales = torch.tensor([0.5 * SPACING, 0.5 * SPACING, 0.05 * SPACING]).repeat(count, 1)
    colors = torch.rand(count, 3, generator=torch.Generator().manual_seed(index))
    sky = torch.zeros(count, dtype=torch.bool)
    chunk = torch.full((count,), index, dtype=torch.int32)
    return Gaussians(
        means,
        quats,
        scales,
        torch.full((count,), 0.99),
        colors,
        chunk,
        ~sky,
        torch.ones(count),
        sky,
        torch.zeros(count),
    )


def add(cache: GaussianCache, rows: Gaussians, total: int) -> int:
    """Add rows as a stored world does; returns the new total."""
    index, none = torch.arange(total, total + len(rows)), torch.zeros(0, dtype=torch.int64)
    cache.apply(Change(total + len(rows), index, rows, none))
    return total + len(rows)


def cameras(start: float, count: int, step: float, size: tuple[int, int] = SIZE) -> Camera:
    """Looking at the facade, moving along it."""
    poses = torch.eye(4).repeat(count, 1, 1)
    poses[:, 0, 3] = start + step * torch.arange(count)
    return Camera.from_fov(60.0, size, poses)


def forget_files(folder: Path) -> None:
    """Let reads come from the disk and not from the system's memory."""
    os.sync()
    for path in folder.rglob("*.block"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@dataclass(frozen=True)
class Timed:
    """One frame.

    Attributes:
        frame_ms: all of it.
        wait_ms: the part of it until all primitives are at hand.
        wait_processor_ms: processor time of that part.
        absent: blocks that were asked for and not in memory yet.
    """

    frame_ms: float
    wait_ms: float
    wait_processor_ms: float
    absent: int


def timed(cache: GaussianCache, camera: Camera, ahead: Camera | None = None) -> tuple[Timed, Tensor]:
    """Show one frame, and fetch what comes after it; what it took, and the picture."""
    store = cache._store
    asked = [store._memory.blocks[number] for number in store._numbers_in_view(camera[0])]
    start, processor = time.perf_counter(), time.thread_time()
    if ahead is not None:
        cache.prefetch(ahead)
    absent = sum(b.room is None and (b.loading is None or not b.loading.done()) for b in asked)
    store.near(camera[0])
    wait_ms, wait_processor_ms = 1e3 * (time.perf_counter() - start), 1e3 * (time.thread_time() - processor)
    rgb = cache.render(camera).rgb
    frame_ms = 1e3 * (time.perf_counter() - start)
    return Timed(frame_ms, wait_ms, wait_processor_ms, absent), rgb


def walked(cache: GaussianCache, segments: int, share: float) -> list[tuple[Timed, Timed, bool]]:
    """Walk at one place of the large world: each frame, the same frame of a small one, whether they are equal."""
    first = int(share * segments)
    begin, length = first * WIDTH, CHUNKS * FRAMES * STEP
    beside = GaussianCache()
    total = 0
    for index in range(max(first - 1, 0), min(first + math.ceil(length / WIDTH) + 1, segments)):
        total = add(beside, segment(index), total)
    parts = [cameras(begin + k * FRAMES * STEP, FRAMES, STEP) for k in range(CHUNKS)]
    for world in (cache, beside):
        world.render(parts[0][:1])  # arriving at a new place is not part of the path
    cache.prefetch(parts[0])
    frames = []
    for k, part in enumerate(tqdm(parts, desc=f"walking at {share:.0%}", leave=False)):
        for i in range(FRAMES):
            ahead = parts[k + 1] if i == 0 and k + 1 < len(parts) else None
            ours, rgb = timed(cache, part[i : i + 1], ahead)
            theirs, expected = timed(beside, part[i : i + 1])
            frames.append((ours, theirs, torch.equal(rgb, expected)))
    return frames


def streamed(cache: GaussianCache, segments: int, folder: Path, runs: int) -> dict[str, float]:
    """Walk at three places per run; medians over all frames, of the longest waits over runs."""
    rounds = []
    for run in range(runs):
        forget_files(folder)
        shares = (place + 0.3 * run / runs for place in (0.05, 0.35, 0.65))
        rounds.append([pair for share in shares for pair in walked(cache, segments, share)])
    every = [pair for frames in rounds for pair in frames]
    frame = statistics.median(ours.frame_ms for ours, _, _ in every)
    baseline = statistics.median(theirs.frame_ms for _, theirs, _ in every)

    def longest(world: int, kind: str) -> float:
        return statistics.median(max(getattr(pair[world], kind) for pair in frames) for frames in rounds)

    return {
        "runs": runs,
        "frame_ms": frame,
        "small_world_frame_ms": baseline,
        "ratio": frame / baseline,
        "until_at_hand_ms": statistics.median(ours.wait_ms for ours, _, _ in every),
        "longest_until_at_hand_ms": longest(0, "wait_ms"),
        "longest_stall_in_frames": longest(0, "wait_ms") / frame,
        "longest_stall_in_frames_processor": longest(0, "wait_processor_ms") / frame,
        "small_world_longest_stall_in_frames": longest(1, "wait_ms") / baseline,
        "blocks_absent_when_asked_for": float(sum(ours.absent for ours, _, _ in every)),
        "slowest_frame_over_median": longest(0, "frame_ms") / frame,
        "small_world_slowest_over_median": longest(1, "frame_ms") / baseline,
        "equal_to_the_bit": float(all(equal for _, _, equal in every)),
    }


def facade_chunk(camera: Camera, index: int) -> Chunk:
    """What the cameras would see of the facade, as a chunk."""
    rows, columns = torch.meshgrid(*(torch.arange(n) + 0.5 for n in camera.size), indexing="ij")
    x = camera.position[:, 0, None, None] + 1.5 * (columns - camera.size[1] / 2) / camera.focal_px[0, 0]
    depth = (1.5 + 0.1 * torch.sin(4.0 * x))[:, None]
    rgb = torch.stack([torch.sin(k * x + 0.2 * rows) for k in (3, 7, 11)], dim=1) * 0.4 + 0.5
    rgb = (rgb * 255.0).round() / 255.0
    valid = torch.ones_like(depth, dtype=torch.bool)
    return Chunk(Frame(rgb, depth, valid, ~valid, camera), index, index == 0, torch.full_like(depth, 0.6))


def flat_walk(folder: Path, chunks: int) -> dict[str, float]:
    """Render, integrate and store a long walk; chunk 100 against chunk 10, in processor time (the disk has moods)."""
    cache, step = GaussianCache(resident_mib=4), 0.06
    path = cameras(0.0, 1 + chunks * FRAMES, step, WALK_SIZE)
    world = WorldStore.create(folder / "walk", path=path, seed=0)
    cache.page_to(folder)
    seconds: dict[str, list[float]] = {"cache": [], "store": []}
    for k in tqdm(range(chunks), desc="a long walk", leave=False):
        camera = cameras(k * FRAMES * step, FRAMES, step, WALK_SIZE)
        chunk = facade_chunk(camera, k)
        start = time.process_time()
        cache.render(camera)
        cache.prefetch(cameras((k + 1) * FRAMES * step, FRAMES, step, WALK_SIZE))
        change = cache.integrate(chunk).change
        middle = time.process_time()
        world.append(chunk, change=change, rng_state=torch.Generator().get_state())
        seconds["cache"].append(middle - start)
        seconds["store"].append(time.process_time() - middle)
    figures: dict[str, float] = {"primitives": len(cache)}
    for name, values in seconds.items():
        early, late = statistics.median(values[5:16]), statistics.median(values[-11:])
        figures |= {
            f"{name}_chunk_10_ms": 1e3 * early,
            f"{name}_chunk_100_ms": 1e3 * late,
            f"{name}_ratio": late / early,
        }
    return figures


def main() -> None:
    """Build, walk, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--millions", type=float, default=100.0)
    parser.add_argument("--resident", type=int, default=512)
    parser.add_argument("--chunks", type=int, default=106)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder, per_segment = Path(name), len(segment(0))
        fits = shutil.disk_usage(folder).free / 2 / 80
        wanted = min(options.millions * 1e6, fits)
        if wanted < options.millions * 1e6:
            print(f"the disk holds {wanted / 1e6:.0f} M primitives and not {options.millions:g} M")
        segments = math.ceil(wanted / per_segment)
        cache, total = GaussianCache(resident_mib=options.resident), 0
        cache.page_to(folder)
        start = time.perf_counter()
        for index in tqdm(range(segments), desc="building", leave=False):
            total = add(cache, segment(index), total)
        build_s = time.perf_counter() - start
        files = list(folder.rglob("*.block"))
        results: dict[str, Any] = {
            "primitives": total,
            "blocks_on_disk": len(files),
            "disk_gib": sum(path.stat().st_size for path in files) / 2**30,
            "build_s": build_s,
            **streamed(cache, segments, folder, options.runs),
            "resident_limit_mib": options.resident,
            "peak_process_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
            "walk": flat_walk(folder, options.chunks),
        }
        del cache
    for key, value in {**results, **results["walk"]}.items():
        if not isinstance(value, dict):
            print(f"{key:<34} {value:,.3f}")
    results |= {"cpu": platform.processor() or platform.machine(), "threads": torch.get_num_threads()}
    print(json.dumps(results))


if __name__ == "__main__":
    main()
