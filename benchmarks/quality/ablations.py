"""What do the cache and the shape of the noise bring? `python -m benchmarks.quality.ablations DATA [clips] [OUT]`.

WorldWarp's table 3 and our extension: cache none / points / Gaussians x noise uniform / temporal / spatial / binary /
confidence. Long held-out clips are walked for ten chunks of four frames, with three seeds each, from a first frame
whose true depth is given. Figures: PSNR and δ1 in chunk 10, of all pixels and of those that the first frame shows
(where the truth is determined); kernel distance of patch features in what it does not show (wide parts of the last
frames of chunks 4, 7 and 10; against the truth there); color step along the border of those parts over the truth's;
processor seconds per chunk. Mean over clips and seeds with the 95 % interval over clips, of the kernel distance over
seeds.

Without a cache nothing is covered, so all maps of the noise are the same map: there is one such row. The rows
``blind`` repeat the Gaussian ones (first seed) with a network that is not told what is covered: it learns that from
the noise level alone, as a video model does. Finished walks are kept in OUT (DATA/ablations): the same call goes on,
and an interrupt prints the table of what is finished.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.data.hole_figures import patches
from benchmarks.data.patch_features import PatchFeatures, kernel_distance
from benchmarks.data.walks import FRAMES, LAST, Walked, delta1, determined, interval, long_clips, psnr, walk
from cache3d.cache import Integration, WorldCache
from cache3d.gaussian_cache import GaussianCache
from cache3d.point_cache import PointCache
from diffusion.condition import Condition
from diffusion.inpainting.masks import thin
from diffusion.kv_memory import KVMemory
from diffusion.noise_map import NoiseConfig
from diffusion.retouch.generator import RetouchGenerator
from geometry.frame import Chunk, Frame

SEEDS = (0, 1, 2)
KINDS = ("uniform", "temporal", "spatial", "binary", "confidence")
BLIND_KINDS = ("uniform", "binary", "confidence")
FIGURES = ("psnr10", "delta1_10", "seen_psnr10", "seen_delta1_10", "seam", "seconds")


class NoCache(PointCache):
    """A cache to which nothing is ever shown, so that it shows nothing."""

    def integrate(self, chunk: Chunk, remembered: Frame | None = None) -> Integration:  # noqa: ARG002
        """Nothing is added."""
        return super().integrate(replace(chunk, frames=replace(chunk.frames, valid=chunk.frames.valid & False)))


class BlindGenerator(RetouchGenerator):
    """The packaged generator, told that nothing is covered: only the noise level says what may change."""

    def denoise(self, x: Tensor, sigma: Tensor, condition: Condition, memory: KVMemory) -> Tensor:
        """Predict the clean state without coverage and confidence."""
        none = torch.zeros_like(condition.guide.coverage)
        guide = replace(condition.guide, coverage=none, confidence=none)
        prior = replace(condition.prior, copied=torch.ones_like(none))
        return super().denoise(x, sigma, Condition(guide, prior), memory)


@dataclass(frozen=True)
class Cell:
    """A row of the table."""

    cache: str
    kind: str
    blind: bool = False

    @property
    def name(self) -> str:
        """As shown."""
        return f"{self.cache} {self.kind}" + (" blind" if self.blind else "")

    def world(self) -> WorldCache:
        """An empty cache."""
        return {"none": NoCache, "points": PointCache, "gaussians": GaussianCache}[self.cache]()


CELLS = [
    Cell("none", "uniform"),
    *(Cell("points", kind) for kind in KINDS),
    *(Cell("gaussians", kind) for kind in KINDS),
    *(Cell("gaussians", kind, blind=True) for kind in BLIND_KINDS),
]


def figures(walked: Walked, clip: Frame) -> dict[str, float]:
    """Figures of chunk 10 of one walk."""
    last = slice(LAST - FRAMES, LAST)
    made, truth = walked.frames[last], clip[1 : LAST + 1][last]
    seen, every = determined(clip)[1 : LAST + 1][last], torch.ones_like(truth.sky)
    return {
        "psnr10": psnr(made, truth, every),
        "delta1_10": delta1(made, truth, every),
        "seen_psnr10": psnr(made, truth, seen),
        "seen_delta1_10": delta1(made, truth, seen),
        "seam": seam(made.rgb, truth.rgb, ~seen),
        "seconds": walked.seconds,
    }


def seam(made: Tensor, truth: Tensor, hole: Tensor) -> float:
    """Mean color step across the border of ``hole`` over that of the truth."""
    steps = [0.0, 0.0]
    for axis in (-1, -2):
        border = hole.float().diff(dim=axis).abs() > 0
        for i, rgb in enumerate((made, truth)):
            steps[i] += float((rgb.diff(dim=axis).abs().mean(1, keepdim=True) * border).sum())
    return steps[0] / max(steps[1], 1e-6)


def wide_patches(frames: Frame, clip: Frame) -> Tensor:
    """Patches of the last frames of chunks 4, 7 and 10 in wide parts that the first frame does not show."""
    at = [FRAMES * chunk - 1 for chunk in (4, 7, 10)]
    hidden = ~determined(clip)[1 : LAST + 1][at]
    return patches(frames.rgb[at], hidden & ~thin(hidden))


def run(clips: dict[str, Frame], out: Path) -> None:
    """Walk whatever is not yet in ``out``; cells are innermost, so that a stopped run compares like with like."""
    out.mkdir(parents=True, exist_ok=True)
    sees = {False: RetouchGenerator(), True: BlindGenerator()}
    features = PatchFeatures()
    jobs = [(seed, name, cell) for seed in SEEDS for name in clips for cell in CELLS if seed == 0 or not cell.blind]
    for seed, name, cell in tqdm(jobs, unit="walk"):
        path = _path(out, cell, (seed, name))
        if path.is_file():
            continue
        clip, noise = clips[name], NoiseConfig(kind=cell.kind)
        walked = walk(clip, clip.camera[1 : LAST + 1], sees[cell.blind], cell.world(), noise, seed)
        row = {"figures": figures(walked, clip), "features": features(wide_patches(walked.frames, clip))}
        partial = path.with_suffix(".partial")
        torch.save(row, partial)
        partial.replace(path)


def summary(
    cell: Cell, done: list[tuple[int, str]], real: dict[str, Tensor], out: Path
) -> dict[str, tuple[float, float]]:
    """Mean and interval of each figure of one cell over ``done`` (seed, clip); empty when none is."""
    default = Cell("gaussians", "confidence")
    rows = {job: torch.load(_path(out, cell, job)) for job in done if job[0] == 0 or not cell.blind}
    if not rows:
        return {}

    def over_clips(values: dict[tuple[int, str], float]) -> tuple[float, float]:
        clips = {name for _, name in values}
        return interval(torch.tensor([mean(v for (_, n), v in values.items() if n == name) for name in sorted(clips)]))

    figure_of = {figure: {job: row["figures"][figure] for job, row in rows.items()} for figure in FIGURES}
    less = {
        job: v - torch.load(_path(out, default, job))["figures"]["psnr10"] for job, v in figure_of["psnr10"].items()
    }
    kernel = []
    for seed in sorted({seed for seed, _ in rows}):
        names = [name for s, name in rows if s == seed]
        made = torch.cat([rows[seed, name]["features"] for name in names])
        kernel.append(kernel_distance(made, torch.cat([real[name] for name in names])))
    means = {figure: over_clips(values) for figure, values in figure_of.items()}
    return {**means, "less_default": over_clips(less), "kernel": interval(torch.tensor(kernel))}


def _path(out: Path, cell: Cell, job: tuple[int, str]) -> Path:
    seed, clip = job
    return out / f"{cell.name.replace(' ', '-')}-{clip}-{seed}.pt"


def main() -> None:
    """Print the table in Markdown, end with one JSON line."""
    if len(sys.argv) < 2:
        sys.exit("usage: python -m benchmarks.quality.ablations DATA [clips] [OUT]")
    data, count = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 6
    out = Path(sys.argv[3]) if len(sys.argv) > 3 else data / "ablations"
    clips = long_clips(data, count)
    try:
        run(clips, out)
    except KeyboardInterrupt:
        print("stopped; of what is finished:")
    plain = [cell for cell in CELLS if not cell.blind]
    jobs = [(seed, name) for seed in SEEDS for name in clips]
    done = [job for job in jobs if all(_path(out, cell, job).is_file() for cell in (plain if job[0] else CELLS))]
    features = PatchFeatures()
    real = {name: features(wide_patches(clip[1 : LAST + 1], clip)) for name, clip in clips.items()}
    table = {cell.name: summary(cell, done, real, out) for cell in CELLS}
    columns = list(table[CELLS[0].name])
    print("| cache, noise | " + " | ".join(columns) + " |\n|" + "---|" * (len(columns) + 1))
    for name, row in table.items():
        print(f"| {name} | " + " | ".join(f"{row[c][0]:.3f} ± {row[c][1]:.3f}" if row else "-" for c in columns) + " |")
    patch_count = sum(len(part) for part in real.values())
    print(json.dumps({"benchmark": "ablations", "walks_per_row": len(done), "patches": patch_count, "rows": table}))


if __name__ == "__main__":
    main()
