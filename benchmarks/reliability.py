"""What `Guide.confidence` is worth: `python -m benchmarks.reliability [--quick] [--picture FILE]`.

A cache gets one frame of a walk (the first, one at a quarter, one half way), or every fiftieth, and is asked for views
all along the walk. A pixel is *right* when its colour is within 0.1 of the truth (root mean square over the channels)
and its depth within 5 %; sky must be sky. Told is the share of right pixels by confidence: the reliability curve. The
baseline is a confidence that is the same everywhere (the world's own share of right pixels); `skill` is how much of
its Brier score the confidence saves. The factors in `cache3d.confidence` were fitted on room and street; garden is the
check.
"""

from __future__ import annotations

import argparse
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image, ImageDraw
from torch import Tensor
from tqdm import tqdm

from benchmarks.cache import CHECKS, SIZE
from benchmarks.depth_drift import CACHES
from benchmarks.textured_sites import SITES
from benchmarks.textured_walks import WALKS, GroundTruthWalk, open_walk
from geometry.frame import Chunk, Frame, Guide

COLOR_TOLERANCE = 0.1
DEPTH_TOLERANCE = 0.05
COVERED = 0.5
BINS = 10
LEAST = 200  # pixels that a bin must hold to be told
INKS = {"room": (31, 119, 180), "street": (214, 110, 20), "garden": (44, 140, 60)}


def right(guide: Guide, truth: Frame) -> Bool[Tensor, "t 1 h w"]:
    """Which pixels the guide shows within tolerance."""
    color = (guide.rgb - truth.rgb).square().mean(1, keepdim=True).sqrt() < COLOR_TOLERANCE
    depth = (guide.depth - truth.depth).abs() < DEPTH_TOLERANCE * truth.depth
    sky = guide.sky > 0.5
    return color & torch.where(truth.sky, sky, depth & ~sky)


def collect(walk: GroundTruthWalk, cache_name: str) -> tuple[Float[np.ndarray, "n"], Bool[np.ndarray, "n"]]:
    """Confidence and rightness of the covered pixels of many views."""
    frames, count = walk.frames, len(walk.frames)
    step = count // 8
    seeds: list[list[int]] = [[0], [count // 4], [count // 2], list(range(0, count, step))]
    confidence, correct = [], []
    for seed in tqdm(seeds, desc=f"{walk.name}, {cache_name}", unit="cache"):
        cache = CACHES[cache_name]()
        for index, k in enumerate(seed):
            frame = frames[k : k + 1]
            cache.integrate(Chunk(frame, index, observed=True, confidence=torch.ones_like(frame.depth)))
        for k in range(step // 4, count, step // 2):
            guide = cache.render(frames.camera[k : k + 1])
            shown = guide.coverage >= COVERED
            confidence.append(guide.confidence[shown].numpy())
            correct.append(right(guide, frames[k : k + 1])[shown].numpy())
    return np.concatenate(confidence), np.concatenate(correct)


def curve(confidence: Float[np.ndarray, "n"], correct: Bool[np.ndarray, "n"]) -> list[tuple[float, float, int]]:
    """Mean confidence, share of right pixels and their number, for every tenth that holds enough pixels."""
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    full = [bins == k for k in range(BINS) if (bins == k).sum() >= LEAST]
    return [(float(confidence[b].mean()), float(correct[b].mean()), int(b.sum())) for b in full]


def verdict(confidence: Float[np.ndarray, "n"], correct: Bool[np.ndarray, "n"]) -> dict[str, float | bool]:
    """Expected calibration error, largest fall of the curve, and skill."""
    points = curve(confidence, correct)
    total = sum(count for _, _, count in points)
    shares = [share for _, share, _ in points]
    brier, constant = np.mean((confidence - correct) ** 2), correct.mean() * (1.0 - correct.mean())
    return {
        "right": round(float(correct.mean()), 3),
        "mean_confidence": round(float(confidence.mean()), 3),
        "calibration_error": round(sum(abs(c - share) * n for c, share, n in points) / total, 3),
        "largest_fall": round(max([a - b for a, b in pairwise(shares)] + [0.0]), 3),
        "skill": round(float(1.0 - brier / constant), 3),
    }


def draw(curves: dict[str, dict[str, list[tuple[float, float, int]]]], file: Path) -> None:
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
            pen.line([at(c, share) for c, share, _ in points], fill=ink, width=2 * scale)
            for c, share, _ in points:
                x, y = at(c, share)
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
    rows: dict[str, dict[str, float | bool]] = {}
    curves: dict[str, dict[str, list[tuple[float, float, int]]]] = {name: {} for name in CACHES}
    for world in SITES:
        opened = [open_walk(world, walk, frames=max(checks), checks=checks, size=size) for walk in walks]
        for name in CACHES:
            parts = [collect(walk, name) for walk in opened]
            confidence, correct = (np.concatenate(part) for part in zip(*parts, strict=True))
            curves[name][world] = curve(confidence, correct)
            rows[f"{name}, {world}"] = verdict(confidence, correct)
            print(
                f"{name}, {world}", " ".join(f"{c:.2f}:{share:.2f}" for c, share, _ in curves[name][world]), flush=True
            )
    draw(curves, chosen.picture)
    heads = list(next(iter(rows.values())))
    print("| cache, world | " + " | ".join(heads) + " |\n" + "|---" * (1 + len(heads)) + "|")
    for name, row in rows.items():
        print(f"| {name} | " + " | ".join(str(value) for value in row.values()) + " |")
    print(json.dumps({"benchmark": "reliability", "baseline": "constant confidence", **rows}))


if __name__ == "__main__":
    main()
