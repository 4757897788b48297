"""Depth with an estimator's errors instead of ground truth: `python -m benchmarks.cache.depth_drift [--quick] [--cache
...]`.

The figure-eight walks of `benchmarks.cache.held_out_views`, but every chunk after the first brings the depth of a
simulated estimator: its scale drifts by 10 % over the walk, scale and shift of inverse depth jump from chunk to chunk,
the map is blurred, and 2 % of its pixels are wrong by up to a factor of two. It enters the cache as it is, or aligned
to what the cache shows (`geometry.depth.align_depth`), as in the loop. Told are the scale error of the depth that
enters (median of its ratio to the truth, per chunk) and PSNR of held-out views. No scale or shift can undo blur and
outliers, so `undrifted`, the same depth without drift and jumps, is what alignment can reach: `recovered` is its share
of the way there from `estimated`. The baseline is `exact`.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from kornia.filters import gaussian_blur2d
from torch import Tensor
from tqdm import tqdm

from benchmarks.cache.held_out_views import CHECKS, as_chunks, held_out_scores
from benchmarks.data.textured_sites import SITES
from benchmarks.data.textured_walks import GroundTruthWalk, open_walk
from cache3d.cache import WorldCache
from cache3d.gaussian_cache import GaussianCache
from cache3d.point_cache import PointCache
from geometry.depth import align_depth, clean_discontinuities
from geometry.frame import Chunk, Frame

CACHES: dict[str, Callable[[], WorldCache]] = {"gaussians": GaussianCache, "points": PointCache}
SIZE = (72, 120)
DRIFT = 0.10
JUMP = 0.03  # deviation of the scale from chunk to chunk
SHIFT = 0.03  # deviation of the shift, in units of the median inverse depth
BLUR_PX = 1.0
OUTLIERS = 0.02
WAYS = ("exact", "undrifted", "estimated", "aligned")


@dataclass(frozen=True)
class Drift:
    """What became of one walk: PSNR of held-out views in dB at the last check, and scale errors per chunk."""

    psnr_db: float
    scale_errors: list[float]


def estimated(frames: Frame, progress: float, rng: torch.Generator, *, drifts: bool) -> Tensor:
    """Depth ``[t 1 h w]`` as an estimator would give it; sky stays as it is."""
    inverse = 1.0 / frames.depth
    middle = inverse[~frames.sky].median()
    scale = (1.0 + JUMP * torch.randn((), generator=rng)) / (1.0 + DRIFT * progress)
    shift = SHIFT * middle * torch.randn((), generator=rng)
    if not drifts:
        scale, shift = torch.ones_like(scale), torch.zeros_like(shift)
    size = 2 * round(3 * BLUR_PX) + 1
    inverse = scale * gaussian_blur2d(inverse, size, (BLUR_PX, BLUR_PX)) + shift
    wrong = torch.rand(inverse.shape, generator=rng) < OUTLIERS
    factor = torch.exp2(2.0 * torch.rand(inverse.shape, generator=rng) - 1.0)
    inverse = torch.where(wrong, inverse * factor, inverse).clamp_min(1e-3 * middle)
    return torch.where(frames.sky, frames.depth, 1.0 / inverse)


def walk_through(cache: WorldCache, walk: GroundTruthWalk, way: str) -> Drift:
    """Feed a walk with one kind of depth."""
    rng = torch.Generator().manual_seed(7)
    errors: list[float] = []
    chunks = list(as_chunks(walk.frames))
    for chunk in tqdm(chunks, desc=f"{walk.name}, {way}", unit="chunk", mininterval=1.0):
        frames, truth = chunk.frames, chunk.frames.depth
        if way != "exact" and chunk.index > 0:
            depth = estimated(frames, chunk.index / len(chunks), rng, drifts=way != "undrifted")
            if way == "aligned":
                depth = aligned(cache, frames, depth)
            valid = frames.sky | clean_discontinuities(depth, ~frames.sky)
            frames = replace(frames, depth=depth, valid=valid)
        ratio = (frames.depth / truth)[~frames.sky].median().item()
        errors.append(abs(ratio - 1.0))
        cache.integrate(Chunk(frames, chunk.index, observed=True, confidence=chunk.confidence))
    return Drift(held_out_scores(cache, walk.held_out[max(walk.held_out)])["psnr_db"], errors)


def aligned(cache: WorldCache, frames: Frame, depth: Tensor) -> Tensor:
    """Depth brought to what the cache shows, as the loop does it."""
    guide = cache.render(frames.camera)
    seen = guide.coverage * guide.confidence * (1.0 - guide.sky)
    made = align_depth(depth, ~frames.sky, guide.depth, seen)
    return torch.where(frames.sky, depth, made.depth)


def _row(found: dict[str, Drift]) -> dict[str, float]:
    lost = found["undrifted"].psnr_db - found["estimated"].psnr_db
    row = {f"{way}_psnr_db": round(found[way].psnr_db, 2) for way in WAYS}
    for way in WAYS[2:]:
        row[f"{way}_drift_end"] = round(statistics.median(found[way].scale_errors[-5:]), 4)
        row[f"{way}_drift_worst"] = round(max(found[way].scale_errors), 4)
    row["recovered"] = round((found["aligned"].psnr_db - found["estimated"].psnr_db) / max(lost, 1e-3), 3)
    return row


def main() -> None:
    """Print a Markdown table and, last, one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="walks of 60 frames")
    parser.add_argument("--cache", default="points", choices=sorted(CACHES))
    parser.add_argument("--worlds", default=",".join(SITES), help="some of the worlds, separated by commas")
    chosen = parser.parse_args()
    checks = (30, 60) if chosen.quick else CHECKS
    rows = {}
    for world in chosen.worlds.split(","):
        walk = open_walk(world, "figure_eight", frames=max(checks), checks=checks, size=SIZE)
        rows[walk.name] = _row({way: walk_through(CACHES[chosen.cache](), walk, way) for way in WAYS})
    print(f"| walk, {max(checks)} frames, {chosen.cache} | " + " | ".join(next(iter(rows.values()))) + " |")
    print("|---" * (1 + len(next(iter(rows.values())))) + "|")
    for name, row in rows.items():
        print(f"| {name} | " + " | ".join(str(value) for value in row.values()) + " |")
    print(json.dumps({"benchmark": "depth_drift", "cache": chosen.cache, "baseline": "exact", **rows}))


if __name__ == "__main__":
    main()
