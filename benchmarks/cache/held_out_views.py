"""The world cache against ground truth: `python -m benchmarks.cache.held_out_views [--quick] [--worlds room,street]
[--caches ...]`.

Exact RGB-D frames of walks through three textured worlds go into the cache, four at a time, together with the first
frame and those that ended the last chunks, to keep to, as in the loop. After 50, 200 and 400 frames it is asked for
views beside the path, all along the path so far, that it never got; at the end for the first frame again. Numbers
count only what the walk has shown until then. A pixel that the cache leaves open counts as mid-gray and as a depth
error of 1. The baseline `no cache` knows the last frame only. Medians over views, then means over walks.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from kornia.metrics import ssim
from torch import Tensor
from tqdm import tqdm

from benchmarks.data.textured_sites import SITES
from benchmarks.data.textured_walks import WALKS, GroundTruthWalk, HeldOut, open_walk
from cache3d.cache import WorldCache
from cache3d.gaussian_cache import GaussianCache
from cache3d.point_cache import PointCache
from geometry.camera import Camera
from geometry.frame import Chunk, Frame, Guide
from worldwarp.state import reference_of

SIZE = (144, 240)
CHUNK = 4
CHECKS = (50, 200, 400)
BASELINE = "no cache"
OPEN_GREY = 0.5


class LastFrameOnly:
    """No cache: whatever was last shown is all that there is to warp from."""

    def __init__(self) -> None:
        self._cache = GaussianCache()

    def integrate(self, chunk: Chunk, remembered: Frame | None = None) -> None:  # noqa: ARG002
        """Forget everything but the last frame."""
        self._cache = GaussianCache()
        self._cache.integrate(Chunk(chunk.frames[-1:], chunk.index, chunk.observed, chunk.confidence[-1:]))

    def render(self, camera: Camera) -> Guide:
        """Warp the last frame."""
        return self._cache.render(camera)

    def __len__(self) -> int:
        return len(self._cache)


def caches() -> dict[str, Callable[[], WorldCache | LastFrameOnly]]:
    """What is compared."""
    return {
        BASELINE: LastFrameOnly,
        "points": PointCache,
        "Gaussians unrefined": lambda: GaussianCache(refine_steps=0),
        "Gaussians refined": GaussianCache,
    }


@dataclass(frozen=True)
class WalkResult:
    """What one cache did on one walk.

    Attributes:
        views: by check: median PSNR (dB), SSIM and depth AbsRel of the views beside the path.
        first_view_db: PSNR of the first frame, shown again at the end.
        seconds: processor time to render and integrate, per chunk.
        primitives: after each chunk.
    """

    views: dict[int, dict[str, float]]
    first_view_db: float
    seconds: list[float]
    primitives: list[int]


def as_chunks(frames: Frame) -> Iterator[Chunk]:
    """Exact frames as chunks of `CHUNK`, all observed."""
    for index, start in enumerate(range(0, len(frames), CHUNK)):
        part = frames[start : start + CHUNK]
        yield Chunk(part, index, observed=True, confidence=torch.ones_like(part.depth))


def walk_through(cache: WorldCache | LastFrameOnly, walk: GroundTruthWalk, label: str) -> WalkResult:
    """Feed a walk to an empty cache and measure."""
    views, seconds, primitives = {}, [], []
    checks = {-(-check // CHUNK): check for check in walk.held_out}
    chunks, remembered = list(as_chunks(walk.frames)), walk.frames[:1]
    for done, chunk in enumerate(tqdm(chunks, desc=f"{walk.name}, {label}", unit="chunk", mininterval=1.0), start=1):
        start = time.process_time()
        cache.render(chunk.frames.camera)
        cache.integrate(chunk, remembered)
        seconds.append(time.process_time() - start)  # of the processor: others may share the machine
        remembered = reference_of(walk.frames[:1], [c.frames[-1:] for c in chunks[1:done]])
        primitives.append(len(cache))
        if done in checks:
            views[checks[done]] = held_out_scores(cache, walk.held_out[checks[done]])
    first = walk.frames[:1]
    everywhere = torch.ones_like(first.sky)
    first_view_db = scores(cache.render(first.camera), first, everywhere)["psnr_db"]
    return WalkResult(views, first_view_db, seconds, primitives)


def held_out_scores(cache: WorldCache | LastFrameOnly, views: list[HeldOut]) -> dict[str, float]:
    """Medians of `scores` over views."""
    found = [scores(cache.render(view.frame.camera), view.frame, view.seen) for view in views]
    return {key: statistics.median(score[key] for score in found) for key in found[0]}


def scores(guide: Guide, truth: Frame, where: Tensor) -> dict[str, float]:
    """PSNR (dB), SSIM and depth AbsRel (sky left out) of one view ``[1]`` on the pixels ``where``, ``[1 1 h w]``."""
    rgb = guide.rgb * guide.coverage + OPEN_GREY * (1.0 - guide.coverage)
    error = (rgb - truth.rgb).square().mean(1, keepdim=True)[where].mean()
    similar = ssim(rgb, truth.rgb, 11).mean(1, keepdim=True)[where].mean()
    ground = where & ~truth.sky
    rendered = torch.where(guide.coverage >= 0.5, guide.depth, torch.zeros_like(guide.depth))
    off = ((rendered - truth.depth).abs() / truth.depth).clamp(max=1.0)[ground].mean()
    return {"psnr_db": -10.0 * torch.log10(error).item(), "ssim": similar.item(), "abs_rel": off.item()}


def summary(results: list[WalkResult]) -> dict[str, float]:
    """Means over walks of quality, medians over neighboring chunks of cost."""
    row: dict[str, float] = {}
    for check in results[0].views:
        for key in ("psnr_db", "ssim", "abs_rel"):
            row[f"{key}_{check}"] = round(statistics.mean(r.views[check][key] for r in results), 4)
    row["first_view_db"] = round(statistics.mean(r.first_view_db for r in results), 2)
    row["first_view_least_db"] = round(min(r.first_view_db for r in results), 2)
    chunks = len(results[0].seconds)
    early, late = slice(7, 13), slice(chunks - 6, chunks)
    near = statistics.median(statistics.median(r.seconds[early]) for r in results)
    far = statistics.median(statistics.median(r.seconds[late]) for r in results)
    row |= {"chunk_10_s": round(near, 4), f"chunk_{chunks}_s": round(far, 4), "flat": round(far / near, 3)}
    for chunk in (10, chunks):
        row[f"primitives_{chunk}"] = round(statistics.mean(r.primitives[chunk - 1] for r in results))
    row["chunk_s"] = round(statistics.median(s for r in results for s in r.seconds), 4)
    return row


def _table(rows: dict[str, dict[str, float]], checks: tuple[int, ...]) -> str:
    last = max(checks)
    chunks = -(-last // CHUNK)
    head = [f"frame {check}: PSNR / SSIM / AbsRel" for check in checks]
    head += ["first view, mean (least)", "primitives", "chunk, median", f"chunk {chunks} / 10", f"dB over {BASELINE}"]
    lines = ["| cache | " + " | ".join(head) + " |", "|---" * (len(head) + 1) + "|"]
    for name, row in rows.items():
        cells = [f"{row[f'psnr_db_{c}']:.2f} / {row[f'ssim_{c}']:.3f} / {row[f'abs_rel_{c}']:.4f}" for c in checks]
        cells += [
            f"{row['first_view_db']:.1f} ({row['first_view_least_db']:.1f}) dB",
            f"{row[f'primitives_{chunks}'] / 1e3:.0f} k",
            f"{1e3 * row['chunk_s']:.0f} ms",
            f"{row['flat']:.2f}",
            f"{row[f'over_baseline_db_{last}']:+.2f}",
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Print a Markdown table and, last, one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one walk of 60 frames per world, small")
    parser.add_argument("--worlds", default=",".join(SITES), help="some of the worlds, separated by commas")
    parser.add_argument("--caches", default=",".join(caches()), help="some of the caches, separated by commas")
    chosen = parser.parse_args()
    checks, walks, size = ((30, 60), WALKS[:1], (72, 120)) if chosen.quick else (CHECKS, WALKS, SIZE)
    made = caches()
    results: dict[str, list[WalkResult]] = {name: [] for name in chosen.caches.split(",")}
    for world in chosen.worlds.split(","):
        for walk_name in walks:
            walk = open_walk(world, walk_name, frames=max(checks), checks=checks, size=size)
            for name, done in results.items():
                done.append(walk_through(made[name](), walk, name))
                print(walk.name, name, json.dumps(summary(done[-1:])), flush=True)
    rows = {name: summary(done) for name, done in results.items()}
    last = max(checks)
    reference = rows.get(BASELINE, next(iter(rows.values())))
    for row in rows.values():
        row[f"over_baseline_db_{last}"] = round(row[f"psnr_db_{last}"] - reference[f"psnr_db_{last}"], 2)
    print(f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, {size[0]}x{size[1]}, chunks of {CHUNK}\n")
    print(_table(rows, checks))
    print(json.dumps({"benchmark": "cache", "size": size, "frames": last, "baseline": BASELINE, **rows}))


if __name__ == "__main__":
    main()
