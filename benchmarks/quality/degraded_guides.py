"""Does regional noise earn its place where the guide is wrong? `python -m benchmarks.quality.degraded_guides DATA
[clips]`.

One chunk of four later views of held-out clips, seen through a Gaussian cache of the first frame; the guide is spoiled
on purpose and every shape of the noise starts from it, with three seeds. What is spoiled:

* `as it is`: nothing, the price of refinement;
* `doubtful`: softer, tinted, grainy where a smooth random confidence says so, as in training;
* `soft edges`: depth edges of the first frame blurred over five pixels, so that surfaces grow tails and combs;
* `blocky`: the first frame in blocks of three pixels, as a zoom shows it;
* `exposure`: brighter by 15 % and warmer (the photo in the memory is not).

Of the last three the generator is told half the confidence, as a cache that watches its own error would. It gets the
guide as the program gives it, in the photo's colors where it shows what the photo saw. Figures per shape of the noise:
PSNR of covered pixels and its gain on the guide itself (``untouched``; mean and 95 % interval over clips), local
contrast there over the truth's, error of the depth code there, PSNR and δ1 in holes. ``binary`` starts covered pixels
at level 0. The rows ``blind`` are not told what is covered: the network learns it from the noise level alone.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate
from tqdm import tqdm

from benchmarks.data.hole_figures import contrast
from benchmarks.data.walks import delta1, interval, psnr
from benchmarks.quality.ablations import BLIND_KINDS, KINDS, SEEDS, BlindGenerator
from benchmarks.quality.generator_quality import TARGETS, normalized
from cache3d.gaussian_cache import GaussianCache
from cache3d.photo_texture import PhotoTexture
from diffusion.condition import Condition
from diffusion.generator import MadeRGBD
from diffusion.inpainting.prior import inpaint_prior
from diffusion.noise_map import NoiseConfig, noise_map
from diffusion.retouch.generator import RetouchGenerator
from diffusion.rgbd_state import encode
from diffusion.sampler import sample
from geometry.frame import Chunk, Frame, Guide
from scenes.dataset.clips import list_clips, read_clip
from worldwarp.training.augmentation import doubtful, smooth_noise

SPOILED = ("as it is", "doubtful", "soft edges", "blocky", "exposure")
TOLD = 0.5  # share of the confidence that is left when the guide is known to be bad
BLOCK = 3
UNTOUCHED = "untouched"


def spoiled_photo(photo: Frame, how: str) -> Frame:
    """The first frame as the cache gets it."""
    if how == "soft edges":
        soft = 1.0 / avg_pool2d(1.0 / photo.depth, 5, stride=1, padding=2, count_include_pad=False)
        return replace(photo, depth=torch.where(photo.sky, photo.depth, soft))
    if how == "blocky":
        size = (photo.rgb.shape[-2], photo.rgb.shape[-1])
        return replace(photo, rgb=interpolate(avg_pool2d(photo.rgb, BLOCK, ceil_mode=True), size=size, mode="nearest"))
    return photo


def spoiled_guide(guide: Guide, how: str, rng: np.random.Generator) -> Guide:
    """The guide as the generator gets it."""
    if how == "as it is":
        return guide
    if how == "doubtful":
        height, width = guide.camera.size
        trust = 0.5 + 0.5 * smooth_noise((len(guide), 1, height, width), 4, rng)
        rgb = 0.5 * (doubtful(2.0 * guide.rgb - 1.0, trust, rng) + 1.0)
        return replace(guide, rgb=rgb * (guide.coverage > 0), confidence=guide.confidence * trust)
    rgb = guide.rgb
    if how == "exposure":
        rgb = (rgb * torch.tensor([1.2, 1.15, 1.1]).reshape(3, 1, 1)).clamp(0.0, 1.0)
    return replace(guide, rgb=rgb, confidence=TOLD * guide.confidence)


def figures(made: MadeRGBD, condition: Condition, truth: Frame) -> dict[str, float]:
    """Figures of one chunk."""
    covered, hole = condition.prior.copied < 0.5, condition.prior.copied > 0.5
    frame = replace(truth, rgb=made.rgb, depth=made.depth)
    error = (encode(made.rgb, made.depth, 1.0) - encode(truth.rgb, truth.depth, 1.0))[:, 3:].abs()
    share = avg_pool2d(covered.float(), 8) > 0.99
    return {
        "seen_psnr": psnr(frame, truth, covered),
        "seen_contrast": float((contrast(made.rgb) * share).sum() / (contrast(truth.rgb) * share).sum()),
        "seen_depth_error": float(error[covered].mean()),
        "hole_psnr": psnr(frame, truth, hole),
        "hole_delta1": delta1(frame, truth, hole),
    }


def fillings(clip: Frame, how: str, seed: int, generators: dict[str, RetouchGenerator]) -> dict[str, dict[str, float]]:
    """Figures of every shape of the noise, of one clip spoiled in one way; generators by what their rows end on."""
    clean, truth = clip[[0]], clip[TARGETS]
    one = torch.ones_like(clean.depth)
    cache = GaussianCache()
    photo = spoiled_photo(clean, how)
    cache.integrate(Chunk(photo, 0, observed=True, confidence=one))
    spoiled = spoiled_guide(cache.render(truth.camera), how, np.random.default_rng(seed))
    guide = PhotoTexture.of(replace(clean, depth=photo.depth), clean.rgb[0]).apply(spoiled)
    prior = inpaint_prior(guide, photo, torch.Generator().manual_seed(seed))
    condition = Condition(guide, prior)
    left = MadeRGBD(torch.where(spoiled.coverage > 0.5, spoiled.rgb, prior.rgb), prior.depth, guide.sky > 0.5)
    made = {UNTOUCHED: figures(left, condition, truth)}
    for name, generator in generators.items():
        memory = generator.start(Chunk(clean, 0, observed=True, confidence=one))
        for kind in BLIND_KINDS if name else KINDS:
            sigma = noise_map(guide, prior, NoiseConfig(kind=kind))
            rng = torch.Generator().manual_seed(seed)
            made[kind + name] = figures(sample(generator, condition, sigma, memory, rng), condition, truth)
    return made


def main() -> None:
    """Print a table per way of spoiling in Markdown, end with one JSON line."""
    if len(sys.argv) < 2:
        sys.exit("usage: python -m benchmarks.quality.degraded_guides DATA [clips]")
    data, count = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 6
    paths = list_clips(data, "heldout")
    chosen = [paths[i] for i in np.linspace(0, len(paths) - 1, min(count, len(paths))).astype(int)]
    clips = [normalized(read_clip(path)) for path in chosen]
    generators = {"": RetouchGenerator(), " blind": BlindGenerator()}
    result: dict[str, dict[str, dict[str, tuple[float, float]]]] = {}
    for how in SPOILED:
        jobs = [(seed, clip) for seed in SEEDS for clip in clips]
        rows = [fillings(clip, how, seed, generators) for seed, clip in tqdm(jobs, desc=how)]

        def over_clips(kind: str, figure: str, rows: list = rows) -> Tensor:
            return torch.tensor([row[kind][figure] for row in rows]).reshape(len(SEEDS), -1).mean(0)

        result[how] = {}
        for kind, first in rows[0].items():
            row = {figure: interval(over_clips(kind, figure)) for figure in first}
            row["seen_psnr_gain"] = interval(over_clips(kind, "seen_psnr") - over_clips(UNTOUCHED, "seen_psnr"))
            result[how][kind] = row
        columns = list(result[how][UNTOUCHED])
        print(f"\n| {how} | " + " | ".join(columns) + " |\n|" + "---|" * (len(columns) + 1))
        for kind, row in result[how].items():
            print(f"| {kind} | " + " | ".join(f"{row[c][0]:.3f} ± {row[c][1]:.3f}" for c in columns) + " |", flush=True)
    print(json.dumps({"benchmark": "degraded_guides", "clips": len(clips), "spoiled": result}))


if __name__ == "__main__":
    main()
