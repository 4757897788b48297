"""The whole loop on a GPU with a model of true size: `python -m benchmarks.speed.gpu [--chunks N] [--size HxW]`.

1. gsplat against the CPU rasterizer: difference of the images and time, on one Gaussian per pixel.
2. The architecture of Wan 2.1 1.3B and its VAE with random weights, run as line `self-forcing` through the loop: frames
   per second, time to the first new frame, share of the geometry, peak memory against the plan; once with the VAE's
   decoder and once with a random tiny decoder, the baseline being the first. Pictures are noise; times are not.

`--rehearse` runs the same on the CPU at toy size. JSON line last.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import worldwarp
from benchmarks.speed.rasterizer import make_scene
from benchmarks.speed.wan_memory import random_transformer
from cache3d.rasterizer.rasterize import rasterize
from cache3d.rasterizer.types import Splats
from diffusion.memory_plan import GIB, MemoryPlan
from diffusion.wan.generator import Parts, WanGenerator
from diffusion.wan.lines import LINES, VAES
from diffusion.wan.load import empty_vae
from diffusion.wan.plan import WanSetup, plan_wan
from diffusion.wan.settings import WanSettings
from diffusion.wan.tiny import TinyDecoder
from diffusion.wan.vae import StreamingVAE
from worldwarp import explore

PHOTO = Path(worldwarp.__file__).parent / "photos" / "pagoda.jpg"
LINE = LINES["self-forcing"]
GEOMETRY = ("render", "outpaint", "inpaint", "align", "integrate")  # stages of a chunk besides the generator's
TOY = {"num_attention_heads": 2, "attention_head_dim": 32, "ffn_dim": 192, "num_layers": 3, "text_dim": 32}


class RandomPrompt:
    """One random embedding for every chunk."""

    def __init__(self, width: int, device: str) -> None:
        self._embedding = torch.randn(512, width, generator=torch.Generator().manual_seed(0)).to(device)

    def at(self, chunk: int) -> Tensor:  # noqa: ARG002
        """The embedding."""
        return self._embedding

    def negative(self) -> None:
        """No guidance."""


class RandomWan(WanGenerator):
    """A model with random weights that plans its memory as one with published weights does."""

    setup: WanSetup

    def plan(self, size: tuple[int, int], frames: int) -> MemoryPlan:  # noqa: ARG002
        """The plan of the architecture."""
        return plan_wan(self.setup)


def random_wan(size: tuple[int, int], device: str, *, tiny: bool, rehearse: bool) -> RandomWan:
    """The models of `LINE` with random weights on ``device``."""
    recipe = WanSettings().of(LINE)
    assert recipe.bounds is not None
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    small = TOY if rehearse else {}
    config, vae_config = LINE.transformer_config() | small, dict(VAES[LINE.vae]) | ({"base_dim": 8} if rehearse else {})
    setup = WanSetup(
        config, vae_config, size, recipe.chunk, recipe.bounds.sink + recipe.bounds.recent, recipe.bounds.recent,
        recipe.bounds.bank, per_token=recipe.mixes, precision="bf16" if device == "cuda" else "float32",
        decoder_dtype=dtype, tiny=tiny,
    )  # fmt: skip
    rng = torch.Generator().manual_seed(0)
    denoiser = random_transformer(setup, rng, device)
    vae = empty_vae(vae_config)
    weights = {name: _drawn(tensor, rng) for name, tensor in vae.state_dict().items()}
    vae.load_state_dict(weights, assign=True)
    # diffusers wraps `to` in a decorator that loses its types.
    streaming = StreamingVAE(vae.to(device), dtype)  # pyright: ignore[reportArgumentType]
    decoder = TinyDecoder(streaming.channels).to(device, dtype).eval() if tiny else None
    generator = RandomWan.of(Parts(denoiser, streaming, RandomPrompt(config["text_dim"], device), decoder), recipe)
    assert isinstance(generator, RandomWan)
    generator.setup = setup
    return generator


def _drawn(tensor: Tensor, rng: torch.Generator) -> Tensor:
    if tensor.ndim <= 1 or 1 in (tensor.numel() // tensor.shape[0],):
        return torch.ones(tensor.shape)
    return torch.randn(tensor.shape, generator=rng) * tensor[0].numel() ** -0.5


def rasterizers(size: tuple[int, int], device: str, repeats: int = 10) -> dict[str, float]:
    """gsplat (with ``device=cuda``) against the CPU kernels on the same Gaussians: largest difference, milliseconds."""
    splats, camera = make_scene(size)
    there = Splats(*(part.to(device) for part in vars(splats).values()))
    ours, theirs = rasterize(splats, camera, "cpu"), rasterize(there, camera.to(device))
    difference = (ours.values - theirs.values.cpu()).abs()
    return {
        "largest_difference": round(difference.max().item(), 5),
        "mean_difference": round(difference.mean().item(), 7),
        "cpu_ms": round(_median_ms(lambda: rasterize(splats, camera, "cpu"), repeats, "cpu"), 2),
        f"{device}_ms": round(_median_ms(lambda: rasterize(there, camera.to(device)), repeats, device), 2),
    }


def _median_ms(run: Any, repeats: int, device: str) -> float:
    times = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - began))
    return statistics.median(times[1:])


def loop(size: tuple[int, int], chunks: int, device: str, *, tiny: bool, rehearse: bool) -> dict[str, float]:
    """Explore the bundled photo; figures of all chunks after the first."""
    generator = random_wan(size, device, tiny=tiny, rehearse=rehearse)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    frames, last, seconds, geometry = 1 + generator.cadence.frames * chunks, time.perf_counter(), [], []
    settings = {"size": size, "frames": frames, "viewer": "none", "device": device, "prior": "smooth"}
    steps = explore(image=PHOTO, path="left:distance=0.3", generator=generator, **settings)
    prepared = time.perf_counter() - last
    for step in steps:
        now = time.perf_counter()
        seconds.append(now - last)
        geometry.append(sum(step.timings_s.get(stage, 0.0) for stage in GEOMETRY))
        last = now
    steady = statistics.median(seconds[1:])
    found = {
        "prepare_s": round(prepared, 2),
        "first_chunk_s": round(seconds[0] - prepared, 2),
        "frames_per_s": round(generator.cadence.frames / steady, 2),
        "geometry_share": round(statistics.median(geometry[1:]) / steady, 3),
        "planned_gib": round(generator.plan(size, frames).peak / GIB, 2),
    }
    if device == "cuda":
        found["peak_gib"] = round(torch.cuda.max_memory_allocated() / GIB, 2)
        found["planned_over_peak"] = round(found["planned_gib"] / found["peak_gib"], 3)
    return found


def main() -> None:
    """Print a row per part and one JSON line last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=8)
    parser.add_argument("--size", default="480x832")
    parser.add_argument("--rehearse", action="store_true")
    options = parser.parse_args()
    device = "cpu" if options.rehearse else "cuda"
    height, width = (int(side) for side in ("64x96" if options.rehearse else options.size).split("x"))
    name = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()
    rows = {"rasterizer": rasterizers((height, width), device)}
    for tiny in (False, True):
        rows["tiny" if tiny else "full"] = loop(
            (height, width), options.chunks, device, tiny=tiny, rehearse=options.rehearse
        )
    for row, figures in rows.items():
        print(f"{row:<12}", "  ".join(f"{key} {value}" for key, value in figures.items()))
    ratio = round(rows["tiny"]["frames_per_s"] / rows["full"]["frames_per_s"], 2)
    print(json.dumps({"benchmark": "gpu", "hardware": name, "size": [height, width], "tiny_over_full": ratio, **rows}))


if __name__ == "__main__":
    main()
