"""Few steps from many: `python -m benchmarks.quality.distillation DATA [--teacher FILE] [--student FILE] [--seeds 3]`.

Held-out clips at half their size: the first frame goes into the Gaussian cache with its true depth, and eight later
frames are made from what the cache and the copying prior show there, the same for all:

* `teacher`: all eight frames at once, 50 steps and 4, from full noise; * `student`, and every `--other NAME=FILE`:
  chunks of two frames, 4 steps each, from full noise, each remembering the ones before; * `package`: the weights of the
  package in the same chunks, at the levels and steps the program uses; * `prior`: no network.

Figures of the holes as in `benchmarks.data.hole_figures`, means over seeds (of copying and of sampling); `apart` is how
far the kernel distances of the seeds lie apart; `to_teacher` is the kernel distance to what the teacher makes in 50
steps instead of to the truth. Times are the networks' alone, on one thread, over a walk of 24 frames (the eight, three
times): processor seconds until the first frames are finished, and frames per processor second; medians of three clips.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d
from tqdm import tqdm

from benchmarks.data.hole_figures import Tally, patches
from benchmarks.data.patch_features import PatchFeatures, kernel_distance
from benchmarks.quality.generator_quality import Scene, normalized, sheet
from cache3d.gaussian_cache import GaussianCache
from diffusion.condition import Condition
from diffusion.inpainting.config import InpaintConfig
from diffusion.inpainting.masks import thin
from diffusion.inpainting.prior import inpaint_prior
from diffusion.kv_memory import MemoryPolicy
from diffusion.noise_map import NoiseConfig, noise_map
from diffusion.retouch.generator import RetouchGenerator, load_network, package_weights
from diffusion.sampler import SamplerConfig, sample
from geometry.frame import Chunk, Frame, Guide
from scenes.dataset.clips import list_clips, read_clip
from worldwarp.training.flow_matching import FULL_NOISE
from worldwarp.training.train_student import STUDENT
from worldwarp.training.train_teacher import STEPS

TARGETS = list(range(4, 12))
_LAPS, _TIMED = 3, 3  # how often the frames are walked where time is taken, and on how many clips
_SHEET_ROWS = 6
MANY, FEW = "teacher, 50 steps", "student, 4 steps"


@dataclass(frozen=True)
class Method:
    """How frames are made: whose weights, how many at a time (0: all), in how many steps, from which levels."""

    weights: Path
    chunk: int
    steps: int
    noise: NoiseConfig


@dataclass(frozen=True)
class Made:
    """Frames, and processor seconds until the first chunk and until the end."""

    rgb: Tensor
    depth: Tensor
    first_s: float
    whole_s: float


def scene(clip: Frame, seed: int) -> Scene:
    """The clip at half its size, seen from its first frame."""
    rows, columns = clip.camera.size
    clip = normalized(
        Frame(
            avg_pool2d(clip.rgb, 2),
            clip.depth[..., ::2, ::2],
            clip.valid[..., ::2, ::2],
            clip.sky[..., ::2, ::2],
            clip.camera.resized((rows // 2, columns // 2)),
            clip.metric,
        )
    )
    photo, truth = clip[[0]], clip[TARGETS]
    cache = GaussianCache()
    cache.integrate(Chunk(photo, 0, observed=True, confidence=torch.ones_like(photo.depth)))
    guide = cache.render(truth.camera)
    prior = inpaint_prior(guide, photo, torch.Generator().manual_seed(seed), InpaintConfig())
    return Scene(photo, Condition(guide, prior), truth)


def make(method: Method, generator: RetouchGenerator, scene: Scene, seed: int, laps: int = 1) -> Made:
    """Frames by one method, ``laps`` times over, through the program's own sampler and memory."""
    rng, levels = torch.Generator().manual_seed(seed), SamplerConfig(method.steps)
    started, first_s, parts = time.process_time(), 0.0, []
    memory = generator.start(Chunk(scene.photo, 0, observed=True, confidence=torch.ones_like(scene.photo.depth)))
    order = list(range(len(scene.truth))) * laps
    chunk = method.chunk or len(order)
    for index, begin in enumerate(range(0, len(order), chunk)):
        condition = _cut(scene.condition, order[begin : begin + chunk])
        sigma = noise_map(condition.guide, condition.prior, method.noise)
        out = sample(generator, condition, sigma, memory, rng, levels)
        parts.append(out)
        first_s = first_s or time.process_time() - started
        if begin + chunk < len(order):
            valid = torch.ones_like(out.sky)
            frames = Frame(out.rgb, out.depth, valid, out.sky, condition.guide.camera)
            memory = generator.extended(
                Chunk(frames, index + 1, observed=False, confidence=torch.ones_like(out.depth)), memory
            )
    rgb, depth = torch.cat([part.rgb for part in parts]), torch.cat([part.depth for part in parts])
    return Made(rgb, depth, first_s, time.process_time() - started)


def _cut(condition: Condition, frames: list[int]) -> Condition:
    guide = Guide(**{name: value[frames] for name, value in vars(condition.guide).items()})
    return Condition(guide, condition.prior[frames])


def methods(teacher: Path, student: Path, others: dict[str, Path]) -> dict[str, Method]:
    """What is compared."""
    program = 1
    found = {
        "package": Method(package_weights(), STUDENT.chunk, program, NoiseConfig()),
        MANY: Method(teacher, 0, STEPS, FULL_NOISE),
        "teacher, 4 steps": Method(teacher, 0, STUDENT.steps, FULL_NOISE),
        FEW: Method(student, STUDENT.chunk, STUDENT.steps, FULL_NOISE),
    }
    return found | {name: Method(path, STUDENT.chunk, STUDENT.steps, FULL_NOISE) for name, path in others.items()}


def _figures(tallies: dict[str, Tally], made: dict[str, Tensor], true: Tensor) -> dict[str, dict[str, float]]:
    """Figures of each method, from what it made and the features of its patches and of the true ones."""
    result = {}
    for name, tally in tallies.items():
        result[name] = {**tally.figures(), "kernel_distance": kernel_distance(made[name], true)}
        if name != MANY:
            result[name]["to_teacher"] = kernel_distance(made[name], made[MANY])
    return result


def main() -> None:
    """Print the table, write a contact sheet beside the data, end with one JSON line."""
    parser = argparse.ArgumentParser(description="Bidirectional teacher of 50 steps against causal student of 4")
    parser.add_argument("data", type=Path)
    parser.add_argument("--teacher", type=Path, default=Path("weights/teacher.safetensors"))
    parser.add_argument("--student", type=Path, default=Path("weights/student.safetensors"))
    parser.add_argument("--other", action="append", default=[], metavar="NAME=FILE", help="another causal student")
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--seeds", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(1)
    others = {name: Path(path) for name, _, path in (text.partition("=") for text in given.other)}
    compared = methods(given.teacher, given.student, others)
    policy = MemoryPolicy(bank=24)
    generators = {name: RetouchGenerator.of(load_network(method.weights), policy) for name, method in compared.items()}
    paths = list_clips(given.data, "heldout")
    chosen = [paths[i] for i in np.linspace(0, len(paths) - 1, min(given.clips, len(paths))).astype(int)]
    first: dict[str, list[float]] = {name: [] for name in compared}
    whole: dict[str, list[float]] = {name: [] for name in compared}
    features, count = PatchFeatures(), 0
    rounds: list[dict[str, dict[str, float]]] = []
    shown: list[tuple[Scene, dict[str, tuple[Tensor, Tensor]]]] = []
    for seed in range(given.seeds):
        tallies, real = {name: Tally() for name in ("prior", *compared)}, []
        for path in tqdm(chosen, desc=f"seed {seed}", unit="clip"):
            seen = scene(read_clip(path), seed)
            made = {"prior": (seen.condition.prior.rgb, seen.condition.prior.depth)}
            for name, method in compared.items():
                out = make(method, generators[name], seen, seed)
                made[name] = (out.rgb, out.depth)
                if len(first[name]) < _TIMED:
                    timed = make(method, generators[name], seen, seed, _LAPS)
                    first[name].append(timed.first_s)
                    whole[name].append(timed.whole_s)
            for name, (rgb, depth) in made.items():
                tallies[name].add(seen.truth, seen.hole, rgb, depth)
            real.append(patches(seen.truth.rgb, seen.hole & ~thin(seen.hole)))
            if seed == 0:
                shown.append((seen, made))
        true = features(torch.cat(real))
        count += len(true)
        rounds.append(_figures(tallies, {name: features(torch.cat(t.patches)) for name, t in tallies.items()}, true))
    result: dict[str, dict[str, float]] = {}
    for name in rounds[0]:
        values = {figure: [done[name][figure] for done in rounds] for figure in rounds[0][name]}
        result[name] = {figure: round(mean(value), 3) for figure, value in values.items()}
        result[name]["apart"] = round(max(values["kernel_distance"]) - min(values["kernel_distance"]), 3)
        if name in compared:
            result[name] |= {
                "first_s": round(median(first[name]), 3),
                "frames_per_s": round(_LAPS * len(TARGETS) / median(whole[name]), 2),
            }
        print(f"{name:<22}", "  ".join(f"{key} {value:>6}" for key, value in result[name].items()))
    sheet(shown[:: max(1, len(shown) // _SHEET_ROWS)][:_SHEET_ROWS], given.data / "distillation.png")
    many, few = result[MANY], result[FEW]
    ratios = {
        "first_chunk": round(many["first_s"] / few["first_s"], 1),
        "throughput": round(few["frames_per_s"] / many["frames_per_s"], 1),
        "kernel_distance": round(few["kernel_distance"] / many["kernel_distance"], 2),
    }
    print(f"student against teacher: {ratios}; {count} patches, {len(chosen)} clips, {given.seeds} seeds")
    summary = {"clips": len(chosen), "seeds": given.seeds, "patches": count, "methods": result, "ratios": ratios}
    print(json.dumps({"benchmark": "distillation", **summary}))


if __name__ == "__main__":
    main()
