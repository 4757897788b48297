"""Does a walk hold together? `python -m benchmarks.quality.generator_rollout DATA [clips] [--weights FILE] [--chunks
40]`.

Long held-out clips (41 frames): the loop walks them in chunks of four frames from the first frame, whose true depth is
given, with the packaged generator and with the prior alone; after chunk 10 back again, and so on to and fro. Per chunk:
PSNR of all pixels against the truth, δ1 of depth, local contrast and mean brightness over those of the truth. Stable
means that the last two stay, with no runaway: chunks 21 to 40 show the same cameras as chunks 1 to 20, and their drift
is the ratio of the two. `again`: what is shown there against what was shown the first time.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean

import torch
from tqdm import tqdm

from benchmarks.data.hole_figures import contrast
from benchmarks.data.walks import CHUNKS, FRAMES, delta1, long_clips, psnr, to_and_fro, walk
from cache3d.gaussian_cache import GaussianCache
from diffusion.passthrough import PassthroughGenerator
from diffusion.retouch.generator import RetouchGenerator
from geometry.frame import Frame

SHOWN = (1, 5, 10, 20, 25, 30, 40)
LAPS = 2 * CHUNKS  # chunks until the same cameras come again


def figures(made: Frame, truth: Frame) -> dict[str, float]:
    """Figures of one chunk."""
    every = torch.ones_like(made.sky)
    return {
        "psnr": psnr(made, truth, every),
        "delta1": delta1(made, truth, every),
        "contrast": float(contrast(made.rgb).mean() / contrast(truth.rgb).mean()),
        "brightness": float(made.rgb.mean() / truth.rgb.mean()),
    }


def per_chunk(made: Frame, truth: Frame) -> dict[str, list[float]]:
    """Figures of each chunk of one walk; ``again`` of those whose cameras come for the second time."""
    chunks = [slice(i, i + FRAMES) for i in range(0, len(made), FRAMES)]
    rows = [figures(made[chunk], truth[chunk]) for chunk in chunks]
    table = {name: [row[name] for row in rows] for name in rows[0]}
    later = zip(chunks, chunks[LAPS:], strict=False)
    table["again"] = [psnr(made[back], made[first], torch.ones_like(made.sky[back])) for first, back in later]
    return table


def main() -> None:
    """Print a table of some chunks, and one JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("clips", type=int, nargs="?", default=4)
    parser.add_argument("--weights")
    parser.add_argument("--chunks", type=int, default=CHUNKS)
    given = parser.parse_args()
    clips = list(long_clips(given.data, given.clips).values())
    path = to_and_fro(given.chunks * FRAMES + 1)[1:]
    result: dict[str, dict[str, list[float]]] = {}
    for method, generator in {"prior": PassthroughGenerator(), "generator": RetouchGenerator(given.weights)}.items():
        walks = []
        for clip in tqdm(clips, desc=method, unit="walk"):
            walked = walk(clip, clip.camera[path], generator, GaussianCache())
            walks.append(per_chunk(walked.frames, clip[path]))
        result[method] = {
            name: [round(mean(values), 3) for values in zip(*(w[name] for w in walks), strict=True)]
            for name in walks[0]
        }
        for name, values in result[method].items():
            shown = values if name == "again" else [values[i - 1] for i in SHOWN if i <= given.chunks]
            print(f"{method:<10} {name:<11}", *(f"{value:7.3f}" for value in shown))
    drift = {name: _drift(result["generator"][name]) for name in ("contrast", "brightness")}
    print(json.dumps({"benchmark": "generator_rollout", "clips": len(clips), "drift": drift, "methods": result}))


def _drift(values: list[float]) -> float | None:
    """Largest change of a figure, relative, from one time to the next at the same cameras."""
    ratios = [abs(later / first - 1.0) for first, later in zip(values, values[LAPS:], strict=False)]
    return round(max(ratios), 3) if ratios else None


if __name__ == "__main__":
    main()
