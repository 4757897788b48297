"""How good are the filled holes? `python -m benchmarks.generator_quality DATA [clips] [weights]`.

Held-out clips (see `worldwarp render-data`): the first frame goes into the Gaussian cache with its true depth, the
cache is rendered for four later frames, and every method fills the same holes:

* `telea`: OpenCV's Telea inpainting of colour and of depth code; * `pull-push`: smooth fill of both;
* `prior`: the copying prior alone; * `generator`: the embedded generator (two and four steps).

Figures: δ1 and AbsRel of depth in holes (sky left out), kernel distance of EfficientNet-Lite0 features between patches
in wide holes and the true patches there (0 = same distribution), PSNR in holes narrower than 8 px and in all holes,
mean colour step across the border of holes over that of the truth (1 = no seam), and local contrast in wide holes over
that of the truth (1 = neither fog nor noise). Every figure of the holes is taken on the same pixels for every method.
"""

from __future__ import annotations

import json
import math
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d
from tqdm import tqdm

from benchmarks.patch_features import PatchFeatures, kernel_distance
from cache3d.gaussians import GaussianCache
from diffusion.condition import Condition, decode, encode
from diffusion.generator import EmbeddedGenerator
from diffusion.noise import NoiseConfig, noise_map
from diffusion.prior import PriorConfig, copy_into_holes
from diffusion.sampler import SamplerConfig, sample
from diffusion.training.clips import list_clips, read_clip
from diffusion.training.guides import thin
from geometry.camera import Camera
from geometry.frame import Chunk, Frame
from geometry.project import smooth_fill

TARGETS = [2, 5, 8, 11]
PATCH_PX = 48
PATCH_HOLE = 0.6  # share of a patch that must lie in a wide hole


@dataclass(frozen=True)
class Scene:
    """A source frame in units of its median depth, what the cache shows of it elsewhere, and the truth there."""

    photo: Frame
    condition: Condition
    truth: Frame


def scenes(data: Path, count: int) -> list[Scene]:
    """Held-out scenes, evenly drawn from the manifest."""
    paths = list_clips(data, "heldout")
    chosen = [paths[i] for i in np.linspace(0, len(paths) - 1, min(count, len(paths))).astype(int)]
    return [_scene(read_clip(path)) for path in tqdm(chosen, desc="guides")]


def _scene(clip: Frame) -> Scene:
    clip = normalised(clip)
    photo, truth = clip[[0]], clip[TARGETS]
    cache = GaussianCache()
    cache.integrate(Chunk(photo, 0, observed=True, confidence=torch.ones_like(photo.depth)))
    guide = cache.render(truth.camera)
    prior = copy_into_holes(guide, photo, torch.Generator().manual_seed(0), PriorConfig())
    return Scene(photo, Condition(guide, prior), truth)


def normalised(clip: Frame) -> Frame:
    """Scene units such that the first frame's median depth is 1."""
    unit = clip.depth[0][~clip.sky[0]].median()
    pose = clip.camera.world_from_camera.clone()
    pose[:, :3, 3] /= unit
    camera = Camera(pose, clip.camera.focal_px, clip.camera.center_px, clip.camera.size)
    depth = torch.where(clip.sky, 100.0, clip.depth / unit)
    return replace(clip, depth=depth, camera=camera, metric=False)


def fillings(scene: Scene, generator: EmbeddedGenerator) -> dict[str, tuple[Tensor, Tensor]]:
    """Colour and depth by every method."""
    condition, prior = scene.condition, scene.condition.prior
    made = {"telea": _telea(scene), "pull-push": _pull_push(scene), "prior": (prior.rgb, prior.depth)}
    memory = generator.start(Chunk(scene.photo, 0, observed=True, confidence=torch.ones_like(scene.photo.depth)))
    sigma = noise_map(condition.guide, prior, NoiseConfig())
    for steps in (2, 4):
        rng = torch.Generator().manual_seed(0)
        out = sample(generator, condition, sigma, memory, rng, SamplerConfig(steps))
        made["generator" if steps == 2 else f"generator {steps} steps"] = (out.rgb, out.depth)
    return made


def _telea(scene: Scene) -> tuple[Tensor, Tensor]:
    prior = scene.condition.prior
    state = encode(prior.rgb, prior.depth, 1.0)
    images = ((state + 1.0) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    filled = []
    for image, hole in zip(images, (prior.copied > 0.5).numpy(), strict=True):
        mask = hole[0].astype(np.uint8)
        colour = cv2.inpaint(np.ascontiguousarray(image[..., :3]), mask, 3, cv2.INPAINT_TELEA)
        code = cv2.inpaint(np.ascontiguousarray(image[..., 3]), mask, 3, cv2.INPAINT_TELEA)
        filled.append(np.concatenate([colour, code[..., None]], -1))
    made = torch.from_numpy(np.stack(filled)).permute(0, 3, 1, 2).float() / 127.5 - 1.0
    hole = prior.copied > 0.5
    rgb, depth, _ = decode(torch.where(hole, made, state), 1.0)
    return rgb, depth


def _pull_push(scene: Scene) -> tuple[Tensor, Tensor]:
    prior = scene.condition.prior
    rgb, depth, _ = decode(smooth_fill(encode(prior.rgb, prior.depth, 1.0), prior.copied <= 0.5), 1.0)
    return rgb, depth


class Tally:
    """Sums of one method's figures over scenes."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.patches: list[Tensor] = []

    def add(self, scene: Scene, rgb: Tensor, depth: Tensor) -> None:
        """Count one scene."""
        truth, hole = scene.truth, scene.condition.prior.copied > 0.5
        narrow = thin(hole)
        ground = hole & ~truth.sky
        ratio = (depth / truth.depth).clamp(1e-3, 1e3)
        error = (rgb - truth.rgb).square().mean(1, keepdim=True)
        border = [(hole.float().diff(dim=axis).abs() > 0, axis) for axis in (-1, -2)]
        wide = avg_pool2d((hole & ~narrow).float(), 8) > 0.5
        figures = {
            "ground": ground.sum(),
            "near": ((torch.maximum(ratio, 1 / ratio) < 1.25) & ground).sum(),
            "relative": ((ratio - 1).abs().clamp(max=20.0) * ground).sum(),
            "hole": hole.sum(), "hole_error": (error * hole).sum(),
            "thin": narrow.sum(), "thin_error": (error * narrow).sum(),
            "step": sum((rgb.diff(dim=a).abs().mean(1, keepdim=True) * b).sum() for b, a in border),
            "true_step": sum((truth.rgb.diff(dim=a).abs().mean(1, keepdim=True) * b).sum() for b, a in border),
            "contrast": (contrast(rgb) * wide).sum(), "true_contrast": (contrast(truth.rgb) * wide).sum(),
        }  # fmt: skip
        for name, value in figures.items():
            self.sums[name] = self.sums.get(name, torch.zeros(())) + value
        self.patches.append(patches(rgb, hole & ~narrow))

    def figures(self) -> dict[str, float]:
        """The means."""
        s = {name: float(value) for name, value in self.sums.items()}
        return {
            "hole_delta1": round(s["near"] / s["ground"], 3),
            "hole_absrel": round(s["relative"] / s["ground"], 3),
            "thin_psnr": round(-10.0 * math.log10(s["thin_error"] / max(s["thin"], 1.0)), 2),
            "hole_psnr": round(-10.0 * math.log10(s["hole_error"] / s["hole"]), 2),
            "seam": round(s["step"] / s["true_step"], 3),
            "contrast": round(s["contrast"] / max(s["true_contrast"], 1e-9), 3),
        }


def contrast(rgb: Tensor) -> Tensor:
    """Local root mean square of what is finer than 3 px, ``[t 1 h/8 w/8]``."""
    fine = rgb - avg_pool2d(rgb, 3, stride=1, padding=1, count_include_pad=False)
    return avg_pool2d(fine.square().mean(1, keepdim=True), 8).sqrt()


def patches(rgb: Tensor, wide: Tensor) -> Tensor:
    """Patches of which enough lies in a wide hole, ``[n 3 48 48]``, on a grid of half their size."""
    size, stride = PATCH_PX, PATCH_PX // 2
    share = avg_pool2d(wide.float(), size, stride=stride)[:, 0] > PATCH_HOLE
    grid = rgb.unfold(2, size, stride).unfold(3, size, stride).permute(0, 2, 3, 1, 4, 5)
    return grid[share]


def sheet(rows: list[tuple[Scene, dict[str, tuple[Tensor, Tensor]]]], path: Path) -> None:
    """What is seen, then every method, then the truth; colours above, depth code below."""
    lines = []
    for scene, made in rows:
        hole = scene.condition.prior.copied[-1:] > 0.5
        seen = torch.where(hole, 0.1, scene.condition.prior.rgb[-1:])
        shown = [(seen, scene.condition.prior.depth[-1:]), *((c[-1:], d[-1:]) for c, d in made.values())]
        shown.append((scene.truth.rgb[-1:], scene.truth.depth[-1:]))
        lines.append(torch.cat([colour[0] for colour, _ in shown], -1))
        lines.append(torch.cat([(0.5 + 0.5 * encode(c, d, 1.0)[0, 3:]).expand(3, -1, -1) for c, d in shown], -1))
    picture = (torch.cat(lines, -2).clamp(0, 1) * 255).to(torch.uint8).permute(1, 2, 0).numpy()
    Image.fromarray(picture).save(path)


def main() -> None:
    """Print the table, write `generator_quality.png` beside the data, end with one JSON line."""
    if len(sys.argv) < 2:
        sys.exit("usage: python -m benchmarks.generator_quality DATA [clips] [weights]")
    data, count = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 24
    generator = EmbeddedGenerator(sys.argv[3] if len(sys.argv) > 3 else None)
    tallies: dict[str, Tally] = {}
    real, shown = [], []
    start = time.perf_counter()
    for scene in tqdm(scenes(data, count), desc="fill"):
        made = fillings(scene, generator)
        hole = scene.condition.prior.copied > 0.5
        real.append(patches(scene.truth.rgb, hole & ~thin(hole)))
        for method, (rgb, depth) in made.items():
            tallies.setdefault(method, Tally()).add(scene, rgb, depth)
        if len(shown) < 8:
            shown.append((scene, made))
    features = PatchFeatures()
    true_features = features(torch.cat(real))
    result: dict[str, dict[str, float]] = {}
    for method, tally in tallies.items():
        distance = kernel_distance(features(torch.cat(tally.patches)), true_features)
        result[method] = {**tally.figures(), "kernel_distance": round(distance, 3)}
        print(f"{method:<18}", "  ".join(f"{name} {value:>7}" for name, value in result[method].items()))
    sheet(shown, data / "generator_quality.png")
    print(f"{len(true_features)} patches, {count} clips, {time.perf_counter() - start:.0f} s")
    print(json.dumps({"benchmark": "generator_quality", "clips": count, "methods": result}))


if __name__ == "__main__":
    main()
