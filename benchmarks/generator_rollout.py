"""Does a walk hold together? `python -m benchmarks.generator_rollout DATA [clips] [weights]`.

Long held-out clips (41 frames): the loop walks ten chunks of four frames from the first frame, whose true depth is
given, with the embedded generator and with the prior alone. Per chunk: PSNR of all pixels against the truth, δ1 of
depth, local contrast and mean brightness over those of the truth. Stable means that contrast stays near 1 and
brightness near 1, with no runaway.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from tqdm import tqdm

from benchmarks.generator_quality import normalised
from benchmarks.hole_figures import contrast
from cache3d.gaussians import GaussianCache
from diffusion.generator import EmbeddedGenerator, Generator, PassthroughGenerator
from diffusion.noise import NoiseConfig
from diffusion.prior import PriorConfig
from diffusion.sampler import SamplerConfig
from diffusion.training.clips import list_clips, read_clip
from geometry.frame import Chunk, Frame
from worldwarp.loop import Parts, begin, explore_chunks

CHUNKS, FRAMES = 10, 4


def walk(clip: Frame, generator: Generator) -> list[dict[str, float]]:
    """Figures of each chunk of one walk."""
    parts = Parts(GaussianCache(), generator, NoiseConfig(), PriorConfig(), SamplerConfig())
    seed = Chunk(clip[[0]], 0, observed=True, confidence=torch.ones_like(clip.depth[:1]))
    state = begin(seed, seed, parts, torch.Generator().manual_seed(0))
    starts = range(1, 1 + CHUNKS * FRAMES, FRAMES)
    cameras = [clip.camera[start : start + FRAMES] for start in starts]
    figures = []
    for start, step in zip(starts, explore_chunks(state, cameras, parts), strict=True):
        made, truth = step.chunk.frames, clip[start : start + FRAMES]
        ground = ~truth.sky
        ratio = (made.depth / truth.depth).clamp(1e-3, 1e3)
        near = (torch.maximum(ratio, 1 / ratio) < 1.25) & ground
        mse = (made.rgb - truth.rgb).square().mean()
        figures.append(
            {
                "psnr": (-10.0 * torch.log10(mse)).item(),
                "delta1": (near.sum() / ground.sum()).item(),
                "contrast": (contrast(made.rgb).mean() / contrast(truth.rgb).mean()).item(),
                "brightness": (made.rgb.mean() / truth.rgb.mean()).item(),
            }
        )
    return figures


def main() -> None:
    """Print a table of chunks 1, 5 and 10, and one JSON line."""
    if len(sys.argv) < 2:
        sys.exit("usage: python -m benchmarks.generator_rollout DATA [clips] [weights]")
    data, count = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 4
    clips = [c for c in (read_clip(path) for path in list_clips(data, "heldout")) if len(c) > CHUNKS * FRAMES]
    clips = [normalised(clip) for clip in clips[:: max(1, len(clips) // count)][:count]]
    weights = sys.argv[3] if len(sys.argv) > 3 else None
    generators = {"prior": PassthroughGenerator(), "generator": EmbeddedGenerator(weights)}
    result: dict[str, dict[str, list[float]]] = {}
    for method, generator in generators.items():
        walks = [walk(clip, generator) for clip in tqdm(clips, desc=method)]
        result[method] = {
            name: [round(sum(w[i][name] for w in walks) / len(walks), 3) for i in range(CHUNKS)] for name in walks[0][0]
        }
        for name, values in result[method].items():
            print(f"{method:<10} {name:<11}", *(f"{value:7.3f}" for value in values))
    print(json.dumps({"benchmark": "generator_rollout", "clips": len(clips), "methods": result}))


if __name__ == "__main__":
    main()
