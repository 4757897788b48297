"""How fast a world is shown: `python -m benchmarks.speed.view [--repeats N]`.

One Gaussian per pixel of an invented relief under a sky, 480x720 of them, seen from the side with one sample
per pixel, and the photo that saw it laid over as a texture. Processor time of all threads in milliseconds per frame,
medians, since other programs may be busy; wall time beside it. The baselines, in the same run, are the tensor
operations that the kernels replace. JSON line last.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import replace

import torch
from tqdm import tqdm

from benchmarks.speed.rasterizer import processor, wall_and_cpu
from cache3d.gaussian_cache import GaussianCache
from cache3d.photo_texture import PhotoTexture
from cache3d.rasterizer.types import Raster
from cache3d.rendering.pixels import blended, blended_reference
from cache3d.rendering.policy import DEFAULT_RENDERING
from geometry.camera import Camera
from geometry.frame import Chunk, Frame

PHOTO = (480, 720)
SIZES = ((192, 320), (480, 832), (720, 1280))


def make_world() -> tuple[GaussianCache, PhotoTexture]:
    """A cache of one photo of a relief under a sky, and the texture of that photo."""
    camera = Camera.from_fov(60.0, PHOTO, torch.eye(4)[None])
    rows, columns = torch.meshgrid(*(torch.arange(side, dtype=torch.float32) for side in PHOTO), indexing="ij")
    sky = (rows < 0.25 * PHOTO[0])[None, None]
    depth = (1.5 + 0.5 * torch.sin(columns / 40) * torch.cos(rows / 30))[None, None]
    rgb = torch.rand(1, 3, *PHOTO, generator=torch.Generator().manual_seed(0))
    photo = Frame(rgb, torch.where(sky, 1000.0, depth), torch.ones_like(sky), sky, camera)
    cache = GaussianCache(refine_steps=0)
    cache.integrate(Chunk(photo, 0, observed=True, confidence=torch.ones_like(depth)))
    return cache, PhotoTexture.of(photo, rgb[0])


def measure(cache: GaussianCache, texture: PhotoTexture, size: tuple[int, int], repeats: int) -> dict[str, float]:
    """One row of the table."""
    pose = torch.eye(4)[None].clone()
    pose[0, 0, 3] = 0.1
    camera, policy = Camera.from_fov(60.0, size, pose), replace(DEFAULT_RENDERING, samples=1)
    generator = torch.Generator().manual_seed(1)
    near, far = (
        Raster(*(torch.rand(1, channels, *size, generator=generator) for channels in (11, 1, 1))) for _ in range(2)
    )
    guide = cache.render(camera, samples=1)
    row = wall_and_cpu("render", lambda: cache.render(camera, samples=1), repeats)
    row |= wall_and_cpu("blend", lambda: blended(near, far, camera[0], policy), repeats)
    row |= wall_and_cpu("blend_tensors", lambda: blended_reference(near, far, camera[0], policy), repeats)
    row |= wall_and_cpu("texture", lambda: texture.apply(guide), repeats)
    row |= wall_and_cpu("texture_tensors", lambda: texture.apply_reference(guide), repeats)
    for name in ("render", "blend", "texture"):
        row[f"{name}_cpu_ns_per_pixel"] = 1e6 * row[f"{name}_cpu_ms"] / (size[0] * size[1])
    row["textured_share"] = float((texture.apply(guide).confidence != guide.confidence).float().mean())
    return row


def main() -> None:
    """Measure, print a table, and one JSON line last."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.view")
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    cache, texture = make_world()
    threads, load = torch.get_num_threads(), os.getloadavg()[0]
    print(f"{processor()}, {threads} threads, torch {torch.__version__}, load {load:.1f}, {len(cache)} Gaussians")
    rows = {}
    for size in tqdm(SIZES, desc="sizes"):
        name = f"{size[0]}x{size[1]}"
        rows[name] = {key: round(value, 2) for key, value in measure(cache, texture, size, options.repeats).items()}
        print(name)
        for key, value in rows[name].items():
            print(f"  {key:26s} {value:8.2f}")
    print(json.dumps({"benchmark": "view", "processor": processor(), "threads": threads, "load": load, **rows}))


if __name__ == "__main__":
    main()
