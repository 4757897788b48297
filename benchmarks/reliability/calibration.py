"""What `Guide.confidence` is worth: `python -m benchmarks.reliability.calibration [--quick] [--picture FILE]`.

A cache gets one frame of a walk (the first, one at a quarter, one half way), or every fiftieth, and is asked for views
all along the walk. A pixel is *right* when its color is within 0.1 of the truth (root mean square over the channels)
and its depth within 5 %; sky must be sky. Told is the share of right pixels by confidence: the reliability curve. The
baseline is a confidence that is the same everywhere (the world's own share of right pixels); `skill` is how much of its
Brier score the confidence saves. Pixels of one view are right or wrong together, so that the 95 % interval of each
share comes from the scatter between views, and a fall of the curve counts as far as it exceeds it. The factors in
`cache3d.rendering.confidence` were fitted on room and street; garden is the check.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from PIL import Image, ImageDraw
from torch import Tensor
from tqdm import tqdm

from benchmarks.cache.depth_drift import CACHES
from benchmarks.cache.held_out_views import CHECKS, SIZE
from benchmarks.data.textured_sites import SITES
from benchmarks.data.textured_walks import WALKS, GroundTruthWalk, open_walk
from geometry.frame import Chunk, Frame, Guide

COLOR_TOLERANCE = 0.1
DEPTH_TOLERANCE = 0.05
COVERED = 0.5
BINS = 10
LEAST = 200  # pixels that a bin must hold to be told
INKS = {"room": (31, 119, 180), "street": (214, 110, 20), "garden": (44, 140, 60)}


@dataclass(frozen=True)
class Asked:
    """Covered pixels of many views: confidence, whether each is right, and the view it is of, ``[n]`` each."""

    confidence: Float[np.ndarray, "n"]
    correct: Bool[np.ndarray, "n"]
    view: Int[np.ndarray, "n"]


@dataclass(frozen=True)
class Bin:
    """One point of a curve; ``interval`` is half of the 95 % interval of the share."""

    confidence: float
    share: float
    interval: float
    count: int


def right(guide: Guide, truth: Frame) -> Bool[Tensor, "t 1 h w"]:
    """Which pixels the guide shows within tolerance."""
    color = (guide.rgb - truth.rgb).square().mean(1, keepdim=True).sqrt() < COLOR_TOLERANCE
    depth = (guide.depth - truth.depth).abs() < DEPTH_TOLERANCE * truth.depth
    sky = guide.sky > 0.5
    return color & torch.where(truth.sky, sky, depth & ~sky)


def collect(walk: GroundTruthWalk, cache_name: str) -> list[Asked]:
    """Confidence and rightness of the covered pixels, view by view."""
    frames, count = walk.frames, len(walk.frames)
    step = count // 8
    seeds: list[list[int]] = [[0], [count // 4], [count // 2], list(range(0, count, step))]
    views: list[Asked] = []
    for seed in tqdm(seeds, desc=f"{walk.name}, {cache_name}", unit="cache"):
        cache = CACHES[cache_name]()
        for index, k in enumerate(seed):
            frame = frames[k : k + 1]
            cache.integrate(Chunk(frame, index, observed=True, confidence=torch.ones_like(frame.depth)))
        for k in range(step // 4, count, step // 2):
            guide = cache.render(frames.camera[k : k + 1])
            rendered = guide.coverage >= COVERED
            correct = right(guide, frames[k : k + 1])[rendered].numpy()
            views.append(Asked(guide.confidence[rendered].numpy(), correct, np.zeros(len(correct), np.int64)))
    return views


def together(views: list[Asked]) -> Asked:
    """All pixels of many views, which are numbered."""
    numbers = np.repeat(np.arange(len(views)), [len(v.correct) for v in views])
    confidence, correct = (np.concatenate([getattr(v, part) for v in views]) for part in ("confidence", "correct"))
    return Asked(confidence, correct, numbers)


def curve(asked: Asked) -> list[Bin]:
    """The point of every tenth that holds enough pixels.

    The interval is that of a ratio estimator over clusters (Cochran, *Sampling techniques*, 1977, section 3.12).
    """
    bins = np.minimum((asked.confidence * BINS).astype(int), BINS - 1)
    points = []
    for k in range(BINS):
        inside = bins == k
        total = int(inside.sum())
        if total < LEAST:
            continue
        share = float(asked.correct[inside].mean())
        sizes = np.bincount(asked.view[inside])
        hits = np.bincount(asked.view[inside], asked.correct[inside])[sizes > 0]
        sizes = sizes[sizes > 0]
        clusters = len(sizes)
        scatter = ((hits - share * sizes) ** 2).sum() * clusters / max(clusters - 1, 1)
        interval = 1.96 * math.sqrt(scatter) / total if clusters > 1 else 1.0
        points.append(Bin(float(asked.confidence[inside].mean()), share, interval, total))
    return points


def verdict(asked: Asked) -> dict[str, float]:
    """Expected calibration error, largest fall of the curve, what of it exceeds its interval, and skill."""
    points, correct = curve(asked), asked.correct
    total = sum(p.count for p in points)
    falls = [(a.share - b.share, math.hypot(a.interval, b.interval)) for a, b in pairwise(points)]
    brier, constant = np.mean((asked.confidence - correct) ** 2), correct.mean() * (1.0 - correct.mean())
    return {
        "right": round(float(correct.mean()), 3),
        "mean_confidence": round(float(asked.confidence.mean()), 3),
        "calibration_error": round(sum(abs(p.confidence - p.share) * p.count for p in points) / total, 3),
        "largest_fall": round(max([fall for fall, _ in falls] + [0.0]), 3),
        "sure_fall": round(max([fall - interval for fall, interval in falls] + [0.0]), 3),
        "skill": round(float(1.0 - brier / constant), 3),
    }


def draw(curves: dict[str, dict[str, list[Bin]]], file: Path) -> None:
    """One panel per cache: share of right pixels over confidence, a curve per world, and the diagonal."""
    side, gap, scale = 300, 56, 2
    image = Image.new("RGB", (scale * (len(curves) * (side + gap) + gap // 2), scale * (side + 70)), "white")
    pen = ImageDraw.Draw(image)

    def text(x: float, y: float, words: str, ink: tuple[int, int, int] = (40, 40, 40)) -> None:
        pen.text((scale * x, scale * y), words, fill=ink, font_size=scale * 12)

    for panel, (name, worlds) in enumerate(curves.items()):
        left, top = gap + panel * (side + gap) - 10, 30

        def at(x: float, y: float, left: int = left, top: int = top) -> tuple[float, float]:
            return scale * (left + x * side), scale * (top + (1.0 - y) * side)

        text(left, 8, f"{name}: share of right pixels over confidence")
        for tick in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
            pen.line([at(tick, 0.0), at(tick, 1.0)], fill=(225, 225, 225), width=scale)
            pen.line([at(0.0, tick), at(1.0, tick)], fill=(225, 225, 225), width=scale)
            text(left + tick * side - 8, top + side + 6, f"{tick:.1f}")
            text(left - 26, top + (1.0 - tick) * side - 7, f"{tick:.1f}")
        pen.line([at(0.0, 0.0), at(1.0, 1.0)], fill=(150, 150, 150), width=scale)
        for k, (world, points) in enumerate(worlds.items()):
            ink = INKS[world]
            pen.line([at(p.confidence, p.share) for p in points], fill=ink, width=2 * scale)
            for p in points:
                low, high = max(p.share - p.interval, 0.0), min(p.share + p.interval, 1.0)
                pen.line([at(p.confidence, low), at(p.confidence, high)], fill=ink, width=scale)
                x, y = at(p.confidence, p.share)
                pen.ellipse([x - 3 * scale, y - 3 * scale, x + 3 * scale, y + 3 * scale], fill=ink)
            text(left + side - 110, top + side - 60 + 16 * k, world + (" (check)" if world == "garden" else ""), ink)
    file.parent.mkdir(parents=True, exist_ok=True)
    image.resize((image.width // scale, image.height // scale), Image.Resampling.LANCZOS).save(file, optimize=True)


def main() -> None:
    """Print a Markdown table, draw the curves and, last, print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one walk of 60 frames per world, small")
    parser.add_argument("--picture", type=Path, default=Path("runs") / "confidence.png")
    chosen = parser.parse_args()
    checks, walks, size = ((30, 60), WALKS[:1], (72, 120)) if chosen.quick else (CHECKS, WALKS, SIZE)
    rows: dict[str, dict[str, float]] = {}
    curves: dict[str, dict[str, list[Bin]]] = {name: {} for name in CACHES}
    for world in SITES:
        opened = [open_walk(world, walk, frames=max(checks), checks=checks, size=size) for walk in walks]
        for name in CACHES:
            asked = together([view for walk in opened for view in collect(walk, name)])
            curves[name][world] = curve(asked)
            rows[f"{name}, {world}"] = verdict(asked)
            told = (f"{p.confidence:.2f}:{p.share:.2f}±{p.interval:.2f}({p.count})" for p in curves[name][world])
            print(f"{name}, {world}", *told, flush=True)
    draw(curves, chosen.picture)
    heads = list(next(iter(rows.values())))
    print("| cache, world | " + " | ".join(heads) + " |\n" + "|---" * (1 + len(heads)) + "|")
    for name, row in rows.items():
        print(f"| {name} | " + " | ".join(str(value) for value in row.values()) + " |")
    print(json.dumps({"benchmark": "reliability", "baseline": "constant confidence", **rows}))


if __name__ == "__main__":
    main()
