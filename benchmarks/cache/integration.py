"""What integration keeps out and what refinement brings: `python -m benchmarks.cache.integration [--data FOLDER]`.

Exact RGB-D of a textured room (or of clips that `worldwarp render-data` made) enters the Gaussian cache in chunks;
every second frame of the walk is held back. Naive accumulation, one Gaussian per valid pixel of every frame, is the
baseline in the same run. PSNR over covered pixels, dB; wall and processor seconds per chunk are medians. JSON line
last.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from cache3d.gaussian_cache import GaussianCache
from cache3d.integration.lifting import lift_gaussians
from cache3d.rasterizer.cpu import warm_up
from geometry.camera import Camera
from geometry.frame import Chunk, Frame, Observation
from geometry.primitives import Gaussians
from scenes.dataset.clips import read_clip
from scenes.synthetic.camera_moves import level_camera
from scenes.synthetic.raycast import View, WorldRenderer
from scenes.synthetic.triangle_scene import Lighting, TexturedWorld, WorldBuilder, gradient_sky

SIZE = (192, 320)
CHUNK = 8
LIGHT = Lighting(sky_rgb=(0.9, 0.9, 0.9), ground_rgb=(0.6, 0.6, 0.6))


def textured_room() -> TexturedWorld:
    """A closed room of 6 x 3 x 8 m with two boxes; every face has grain from meters down to millimeters."""
    builder = WorldBuilder()
    boxes = (
        ((-3.0, -3.0, -4.0), (3.0, 0.0, 4.0)),
        ((-0.9, -1.0, 1.5), (0.1, 0.0, 2.5)),
        ((1.0, -1.6, 2.2), (1.8, 0.0, 3.0)),
    )
    for number, (low, high) in enumerate(boxes):
        start, extent = np.array(low), np.diag(np.array(high) - np.array(low))
        for axis in range(3):
            along, down = extent[(axis + 1) % 3], extent[(axis + 2) % 3]
            for side, corner in enumerate((start, start + extent[axis])):
                builder.add_quad(corner, along, down, texture=builder.add_texture(_grain(6 * number + 2 * axis + side)))
    return builder.build(gradient_sky((0.3, 0.5, 0.9), (0.8, 0.85, 0.9)))


def _grain(seed: int) -> np.ndarray:
    """Noise of all sizes, 1024 pixels square."""
    rng = torch.Generator().manual_seed(seed)
    picture = torch.zeros(1, 3, 1024, 1024)
    for octave in range(2, 10):
        noise = torch.rand(1, 3, 2**octave, 2**octave, generator=rng) - 0.5
        picture += torch.nn.functional.interpolate(noise, (1024, 1024), mode="bicubic") * 0.75 ** (octave - 2)
    rgb = (255 * (0.5 + 0.5 * picture[0]).clamp(0, 1)).permute(1, 2, 0).to(torch.uint8).numpy()
    return np.concatenate([rgb, np.full((1024, 1024, 1), 255, np.uint8)], -1)


def walk_through_room(count: int) -> Frame:
    """Towards the boxes, turning, to the side, and back to the start."""
    renderer, frames = WorldRenderer(textured_room()), []
    for k in tqdm(range(count), desc="rendering the room", leave=False):
        u = 0.5 - 0.5 * math.cos(2 * math.pi * k / (count - 1))  # out and back
        side = math.sin(2 * math.pi * k / (count - 1))
        pose = level_camera(np.array([0.8 * side, -1.4, -2.8 + 3.2 * u]), 0.35 * side, 0.05)
        view = View(pose, (0.8 * SIZE[1], 0.8 * SIZE[1]), (SIZE[1] / 2, SIZE[0] / 2), SIZE)
        shot = renderer.render(view, LIGHT, np.random.default_rng(k))
        frames.append((torch.from_numpy(shot.rgb).permute(2, 0, 1) / 255, torch.from_numpy(shot.depth)[None], pose))
    rgb, depth = torch.stack([f[0] for f in frames]), torch.stack([f[1] for f in frames])
    poses = torch.stack([torch.from_numpy(f[2]).float() for f in frames])
    focal = torch.tensor([0.8 * SIZE[1]] * 2).expand(count, 2)
    camera = Camera(poses, focal, torch.tensor([SIZE[1] / 2, SIZE[0] / 2]).expand(count, 2), SIZE)
    on = torch.ones_like(depth, dtype=torch.bool)
    return Frame(rgb, depth, on, ~on, camera, metric=True)


def psnr(cache: GaussianCache, truth: Frame) -> float:
    """PSNR over the covered pixels of some frames, dB."""
    guide = cache.render(truth.camera)
    error = ((guide.rgb - truth.rgb) ** 2)[(guide.coverage > 0.5).expand(-1, 3, -1, -1)]
    return float(-10 * torch.log10(error.mean()))


Seconds = list[tuple[float, float]]


def naive(frames: Frame) -> tuple[GaussianCache, Seconds]:
    """Every valid pixel of every frame."""
    parts: list[Gaussians] = []
    for k in range(len(frames)):
        frame = frames[k]
        parts.append(lift_gaussians(Observation(frame, torch.ones_like(frame.depth), True), frame.valid, 0))
    cache = GaussianCache()
    cache.load(Gaussians.concatenate(parts))
    return cache, [(0.0, 0.0)]


def ours(frames: Frame, **options: Any) -> tuple[GaussianCache, Seconds]:
    """Chunk by chunk through `GaussianCache.integrate`."""
    cache, seconds = GaussianCache(**options), []
    for index, first in enumerate(range(0, len(frames), CHUNK)):
        part = frames[first : first + CHUNK]
        start = time.perf_counter(), time.process_time()
        remembered = frames[[0, *range(max(first - 1 - 2 * CHUNK, 0), first, CHUNK)]] if first else None
        cache.integrate(Chunk(part, index, True, torch.ones_like(part.depth)), remembered)
        seconds.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    return cache, seconds


def compare(frames: Frame) -> dict[str, dict[str, float]]:
    """One row per way to build the world."""
    given, held = frames[0::2], frames[1::2]
    ways = {"naive": naive(given), "rules": ours(given, refine_steps=0), "refined": ours(given)}
    rows = {}
    for name, (cache, seconds) in ways.items():
        wall_s, processor_s = (statistics.median(column) for column in zip(*seconds, strict=True))
        rows[name] = {
            "primitives": int((cache.snapshot().opacities > 0).sum()),
            "stored": len(cache),
            "given_db": psnr(cache, given[::3]),
            "held_db": psnr(cache, held[::3]),
            "wall_s": wall_s,
            "processor_s": processor_s,
        }
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of clips; the built-in room when left out")
    parser.add_argument("--clips", type=int, default=6)
    parser.add_argument("--frames", type=int, default=64)
    args = parser.parse_args()
    warm_up(gradients=True)
    if args.data:
        walks = {path.stem: read_clip(path) for path in sorted(args.data.glob("clip_*"))[::7][: args.clips]}
    else:
        walks = {"room": walk_through_room(args.frames)}
    table = {}
    for name, frames in walks.items():
        table[name] = compare(frames)
        for way, row in table[name].items():
            print(f"{name:<12} {way:<12} " + "  ".join(f"{k} {v:,.2f}" for k, v in row.items()))
    print(json.dumps(table))


if __name__ == "__main__":
    main()
