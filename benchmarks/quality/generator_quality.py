"""How good are the filled holes? `python -m benchmarks.quality.generator_quality DATA [clips] [weights] [--seeds N]`.

Held-out clips (see `worldwarp render-data`): the first frame goes into the Gaussian cache with its true depth, the
cache is rendered for four later frames, and every method fills the same holes of the same guide:

* `Telea`: OpenCV's Telea inpainting of color and of depth code; * `pull-push`: smooth fill of both;
* `prior`: the copying prior alone; * `generator`: the packaged generator on that prior, as the program runs it;
* `classical`: whichever of the first three is best at a figure, row by row.

Figures as `benchmarks.data.hole_figures` defines them, of all clips together, mean over seeds (a seed is that of
copying and of sampling; the first two methods have none), and these two of EfficientNet-Lite0 features of patches in
wide holes:

* Kernel distance to the true patches there (0 = same distribution). Below the table stands that of the untouched first
  frame, looked at in the same places: what no copy of it can be expected to undercut by better texture alone.
* Blind choice: the share of clips (with patches) on which a judge who has seen other scenes only prefers the
  method to the prior (`benchmarks.quality.blind_choice`). The truth's share is printed below the table and says how
  much the judge sees: the nearer to 1, the more its choice is worth.

± is 1.96 standard errors by a bootstrap over clips: all figures are taken on the same draws of clips with replacement,
the seeds of a clip together; the range of the generator's seeds is in the last line. `met` is of the means.

Beside the data: `generator_quality.png`, eight clips with every method; `generator_pairs.png`, 40 pairs for the eye,
each what is known, then prior and generator in a random order that `generator_pairs.json` tells. Which clips and frames
these are does not depend on what was made.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from benchmarks.data.hole_figures import figures, patches, sums, texture, total
from benchmarks.data.patch_features import PatchFeatures, kernel_distances
from benchmarks.quality.blind_choice import choices
from benchmarks.quality.generator_goals import METHODS, resampled, shown, spread, table
from cache3d.gaussian_cache import GaussianCache
from diffusion.condition import Condition
from diffusion.inpainting.config import InpaintConfig
from diffusion.inpainting.masks import thin
from diffusion.inpainting.prior import inpaint_prior
from diffusion.noise_map import NoiseConfig, noise_map
from diffusion.retouch.generator import RetouchGenerator
from diffusion.rgbd_state import decode, encode
from diffusion.sampler import SamplerConfig, sample
from geometry.camera import Camera
from geometry.fill import smooth_fill
from geometry.frame import Chunk, Frame
from scenes.dataset.clips import MANIFEST, list_clips, read_clip

TARGETS = [2, 5, 8, 11]
SHEET_ROWS, PAIRS = 8, 40

Filling = tuple[Tensor, Tensor]  # color, depth


@dataclass(frozen=True)
class Scene:
    """A source frame in units of its median depth, what the cache shows of it elsewhere, and the truth there."""

    photo: Frame
    condition: Condition
    truth: Frame

    @property
    def hole(self) -> Tensor:
        """What every method fills, ``[t 1 h w]``."""
        return self.condition.prior.copied > 0.5


def scenes(clip: Frame, seeds: int) -> Iterator[Scene]:
    """One guide, completed by copying with each of the seeds."""
    clip = normalized(clip)
    photo, truth = clip[[0]], clip[TARGETS]
    cache = GaussianCache()
    cache.integrate(Chunk(photo, 0, observed=True, confidence=torch.ones_like(photo.depth)))
    guide = cache.render(truth.camera)
    for seed in range(seeds):
        prior = inpaint_prior(guide, photo, torch.Generator().manual_seed(seed), InpaintConfig())
        yield Scene(photo, Condition(guide, prior), truth)


def normalized(clip: Frame) -> Frame:
    """Scene units such that the first frame's median depth is 1."""
    unit = clip.depth[0][~clip.sky[0]].median()
    pose = clip.camera.world_from_camera.clone()
    pose[:, :3, 3] /= unit
    camera = Camera(pose, clip.camera.focal_px, clip.camera.center_px, clip.camera.size)
    depth = torch.where(clip.sky, 100.0, clip.depth / unit)
    return replace(clip, depth=depth, camera=camera, metric=False)


def generated(scene: Scene, generator: RetouchGenerator, seed: int) -> Filling:
    """As the program runs the generator on its first chunk."""
    condition = scene.condition
    memory = generator.start(Chunk(scene.photo, 0, observed=True, confidence=torch.ones_like(scene.photo.depth)))
    sigma = noise_map(condition.guide, condition.prior, NoiseConfig())
    out = sample(generator, condition, sigma, memory, torch.Generator().manual_seed(seed), SamplerConfig())
    return out.rgb, out.depth


def telea(scene: Scene) -> Filling:
    """Telea inpainting of colors and depth code."""
    prior = scene.condition.prior
    rgb, depth, _ = decode(inpainted(encode(prior.rgb, prior.depth, 1.0), prior.copied > 0.5), 1.0)
    return rgb, depth


def inpainted(state: Tensor, hole: Tensor) -> Tensor:
    """States ``[t 4 h w]`` with holes ``[t 1 h w]`` filled by Telea's method."""
    images = ((state + 1.0) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    filled = []
    for image, open_ in zip(images, hole.numpy(), strict=True):
        mask = open_[0].astype(np.uint8)
        parts = (np.ascontiguousarray(part) for part in (image[..., :3], image[..., 3]))
        filled.append(np.dstack([cv2.inpaint(part, mask, 3, cv2.INPAINT_TELEA) for part in parts]))
    made = torch.from_numpy(np.stack(filled)).permute(0, 3, 1, 2).float() / 127.5 - 1.0
    return torch.where(hole, made, state)


def pull_push(scene: Scene) -> Filling:
    """Smooth fill of colors and depth code."""
    prior = scene.condition.prior
    rgb, depth, _ = decode(smooth_fill(encode(prior.rgb, prior.depth, 1.0), prior.copied <= 0.5), 1.0)
    return rgb, depth


@dataclass
class Measured:
    """What the table needs of each method: sums and features by seed and clip."""

    rows: dict[str, list[list[dict[str, float]]]] = field(default_factory=dict)
    features: dict[str, list[list[Tensor]]] = field(default_factory=dict)
    texture: dict[str, list[list[Tensor]]] = field(default_factory=dict)

    def add(self, method: str, seed: int, row: dict[str, float], features: Tensor, fine: Tensor) -> None:
        """Count one clip."""
        for kept, new in ((self.rows, row), (self.features, features), (self.texture, fine)):
            by_seed: list[list] = kept.setdefault(method, [])
            by_seed.extend([] for _ in range(seed + 1 - len(by_seed)))
            by_seed[seed].append(new)


@dataclass
class Run:
    """A pass over clips: figures are kept, pictures only where they are shown."""

    generator: RetouchGenerator
    extract: PatchFeatures = field(default_factory=PatchFeatures)
    measured: Measured = field(default_factory=Measured)
    real: list[Tensor] = field(default_factory=list)  # features of the truth in wide holes, by clip
    real_texture: list[Tensor] = field(default_factory=list)  # of what is nothing but hole
    photo: list[Tensor] = field(default_factory=list)  # features of the first frame in the places of the holes
    shown: list[tuple[Scene, dict[str, Filling]]] = field(default_factory=list)
    pairs: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)  # known, prior, generator

    def add(self, clip: Frame, seeds: int) -> None:
        """Fill the holes of one clip by every method and with every seed."""
        for seed, scene in enumerate(scenes(clip, seeds)):
            prior = scene.condition.prior
            made = {"Telea": telea(scene), "pull-push": pull_push(scene)} if seed == 0 else {}
            made |= {"prior": (prior.rgb, prior.depth), "generator": generated(scene, self.generator, seed)}
            wide = scene.hole & ~thin(scene.hole)
            for method, (rgb, depth) in made.items():
                row = sums(scene.truth, scene.hole, rgb, depth)
                self.measured.add(method, seed, row, self.extract(patches(rgb, wide)), self.extract(texture(rgb, wide)))
            if seed == 0:
                self.real.append(self.extract(patches(scene.truth.rgb, wide)))
                self.real_texture.append(self.extract(texture(scene.truth.rgb, wide)))
                self.photo.append(self.extract(patches(scene.photo.rgb.expand_as(scene.truth.rgb), wide)))
                self._keep(scene, made)

    def _keep(self, scene: Scene, made: dict[str, Filling]) -> None:
        if len(self.shown) < SHEET_ROWS:
            self.shown.append((scene, made))
        frame = len(self.real) % len(TARGETS)
        if scene.hole[frame].float().mean() > 0.05:
            known = torch.where(scene.hole, 0.1, scene.condition.prior.rgb)
            pictures = (known, made["prior"][0], made["generator"][0])
            a, b, c = ((part[frame].clamp(0, 1) * 255).to(torch.uint8) for part in pictures)
            self.pairs.append((a, b, c))


def summary(run: Run, places: list[str], weights: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    """Each figure of each method, ``[seeds, draws]``; of the truth only the blind choice."""
    found: dict[str, dict[str, np.ndarray]] = {}
    measured, drawn = run.measured, torch.from_numpy(weights).float()
    for method in METHODS:
        by_seed = [figures(total(rows, weights)) for rows in measured.rows[method]]
        found[method] = {name: np.stack([part[name] for part in by_seed]) for name in by_seed[0]}
        kernel = [kernel_distances(by_clip, run.real, drawn).numpy() for by_clip in measured.features[method]]
        found[method]["kernel_distance"] = np.stack(kernel)
    for seed in range(len(measured.texture["generator"])):
        for method, chosen in choices(_of_seed(measured.texture, seed), run.real_texture, places, "prior").items():
            some = np.isfinite(chosen)
            with np.errstate(invalid="ignore"):
                share = weights[:, some] @ chosen[some] / weights[:, some].sum(1)
            earlier = found.setdefault(method, {}).get("choice", np.zeros((0, len(weights))))
            found[method]["choice"] = np.concatenate([earlier, share[None]])
    return found


def _of_seed(features: dict[str, list[list[Tensor]]], seed: int) -> dict[str, list[Tensor]]:
    """Each method's features; those of the first seed where there are no others."""
    return {method: by_seed[min(seed, len(by_seed) - 1)] for method, by_seed in features.items()}


def sheet(rows: list[tuple[Scene, dict[str, Filling]]], path: Path) -> None:
    """What is seen, then every method, then the truth; colors above, depth code below."""
    lines = []
    for scene, made in rows:
        hole = scene.hole[-1:]
        seen = torch.where(hole, 0.1, scene.condition.prior.rgb[-1:])
        shown = [(seen, scene.condition.prior.depth[-1:]), *((c[-1:], d[-1:]) for c, d in made.values())]
        shown.append((scene.truth.rgb[-1:], scene.truth.depth[-1:]))
        lines.append(torch.cat([color[0] for color, _ in shown], -1))
        lines.append(torch.cat([(0.5 + 0.5 * encode(c, d, 1.0)[0, 3:]).expand(3, -1, -1) for c, d in shown], -1))
    picture = (torch.cat(lines, -2).clamp(0, 1) * 255).to(torch.uint8).permute(1, 2, 0).numpy()
    Image.fromarray(picture).save(path)


def pair_sheet(pairs: list[tuple[Tensor, Tensor, Tensor]], path: Path) -> None:
    """Numbered rows of two pairs, and beside the sheet the key: on which side the generator is."""
    sides = np.random.default_rng(0).integers(0, 2, len(pairs))
    tiles = []
    for number, ((known, prior, generator), right) in enumerate(zip(pairs, sides, strict=True), 1):
        tile = torch.cat([known, *((prior, generator) if right else (generator, prior))], -1).permute(1, 2, 0).numpy()
        tile = cv2.copyMakeBorder(tile, 14, 2, 2, 2, cv2.BORDER_CONSTANT, value=(255, 255, 255))
        tiles.append(cv2.putText(tile, f"{number}: known, left, right", (4, 11), 0, 0.4, (0, 0, 0), 1, cv2.LINE_AA))
    if tiles:
        tiles += [np.full_like(tiles[0], 255)] * (len(tiles) % 2)
        rows = [np.concatenate(tiles[i : i + 2], 1) for i in range(0, len(tiles), 2)]
        Image.fromarray(np.concatenate(rows)).save(path)
        key = {number: "right" if right else "left" for number, right in enumerate(sides, 1)}
        path.with_suffix(".json").write_text(json.dumps({"generator": key}, indent=1))


def spaced(items: list, count: int) -> list:
    """At most ``count`` items, evenly drawn."""
    return [items[i] for i in np.linspace(0, len(items) - 1, min(count, len(items))).astype(int)]


def main() -> None:
    """Print the table, write the sheets beside the data, end with one JSON line."""
    parser = argparse.ArgumentParser(description="Filled holes of held-out clips against the truth")
    parser.add_argument("data", type=Path)
    parser.add_argument("clips", type=int, nargs="?", default=24)
    parser.add_argument("weights", nargs="?", help="weights of the generator (the package's)")
    parser.add_argument("--seeds", type=int, default=1)
    given = parser.parse_args()
    scene_of = {clip["file"]: clip["scene"] for clip in json.loads((given.data / MANIFEST).read_text())["clips"]}
    chosen = spaced(list_clips(given.data, "heldout"), given.clips)
    run, start = Run(RetouchGenerator(given.weights)), time.perf_counter()
    for path in tqdm(chosen, unit="clip"):
        run.add(read_clip(path), given.seeds)
    seconds = (time.perf_counter() - start) / (len(chosen) * given.seeds)
    weights, places = resampled(len(chosen)), [scene_of[path.name] for path in chosen]
    by_seed = summary(run, places, weights)
    found = {method: {name: value.mean(0) for name, value in row.items()} for method, row in by_seed.items()}
    print("\n".join(table(found)))
    print(f"blind choice of the truth over the prior: {shown(found['truth']['choice'])}")
    photo = kernel_distances(run.photo, run.real, torch.from_numpy(weights).float()).numpy()
    print(f"kernel distance of the first frame in the places of the holes: {shown(photo)}")
    sheet(run.shown, given.data / "generator_quality.png")
    pair_sheet(spaced(run.pairs, PAIRS), given.data / "generator_pairs.png")
    count = sum(map(len, run.real))
    print(f"{len(chosen)} clips, {given.seeds} seeds, {count} patches, {seconds:.1f} s per clip and seed")
    methods = {
        method: {name: [round(float(d[0]), 4), round(spread(d), 4)] for name, d in row.items()}
        for method, row in found.items()
    }
    apart = {name: round(float(np.ptp(value[:, 0])), 4) for name, value in by_seed["generator"].items()}
    first = [round(float(photo[0]), 4), round(spread(photo), 4)]
    last = {"clips": len(chosen), "seeds": given.seeds, "methods": methods, "seeds_apart": apart, "first_frame": first}
    print(json.dumps({"benchmark": "generator_quality", **last}))


if __name__ == "__main__":
    main()
