"""Figures of walked takes against the true frames, by region and chunk, and their means with intervals over clips.

* Regions: `hole`, pixels of which the guide shows less than half; `covered`, tokens without any such pixel nor a part
  of one. What lies between is in neither.
* `psnr`: dB. `perceptual`: mean squared distance of the unit-length activations of three layers of EfficientNet-Lite0
  (`benchmarks.data.patch_features`), as LPIPS has it, but all channels weigh alike; in the last frame of each latent.
* `warp`: root mean square difference between a frame and the one before, carried there by true depth and cameras, where
  both show the same surface. `border`: of the first frame of the second chunk; `inside`: of the first frame of each
  latent in the middle of the first two chunks, where the VAE begins anew as well. `..._hole`: in holes alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, grid_sample, interpolate, normalize

from benchmarks.data.patch_features import PatchFeatures, kernel_distances
from benchmarks.data.small_walks import Take
from benchmarks.data.walks import SAME_DEPTH, interval
from diffusion.wan.tokens import FRAMES_PER_LATENT
from geometry.frame import Frame
from geometry.project import project, unproject

DRAWS = 2000  # of clips with replacement

Figures = dict[str, float]


class Judge:
    """What figures of one take are computed with."""

    def __init__(self, take: Take, features: PatchFeatures, chunk: int) -> None:
        """Compute what all walks of the take share.

        Args:
            take: with the true frames.
            features: for perceptual distances.
            chunk: latents of a chunk.
        """
        self.truth, self.features, self.chunk = take.clip.rgb, features, FRAMES_PER_LATENT * chunk
        self.hole, self.covered = regions(take)
        self.grid, self.same = carried(take.clip)
        self.true_maps = self._maps(self.truth)

    def figures(self, made: Float[Tensor, "t 3 h w"]) -> Figures:
        """Figures of the first two chunks; ``@k``: of the k-th chunk alone. Regions that a chunk lacks are NaN."""
        count = len(made) - 1
        error = (made - self.truth[: len(made)]).square().mean(1, keepdim=True)[1:]
        step = self._step(made)
        maps = self._maps(made)
        found: Figures = {}
        spans = {"": (0, 2 * self.chunk)}
        spans |= {f"@{k + 1}": (k * self.chunk, (k + 1) * self.chunk) for k in range(-(-count // self.chunk))}
        for name, (start, stop) in spans.items():
            part = slice(start, min(stop, count))
            for place, where in (("covered", self.covered[part]), ("hole", self.hole[part])):
                found[f"psnr_{place}{name}"] = -10.0 * float(error[part][where].mean().log10())
                latents = slice(start // FRAMES_PER_LATENT, part.stop // FRAMES_PER_LATENT)
                found[f"perceptual_{place}{name}"] = _distance(maps, self.true_maps, self._shown(where), latents)
            found[f"warp{name}"] = _rms(step[part], self.same[part])
        return found | self.steps(made)

    def steps(self, made: Float[Tensor, "t 3 h w"]) -> Figures:
        """Differences between successive frames at the border of the first two chunks, and inside them."""
        step = self._step(made)[: 2 * self.chunk]
        frames = torch.arange(len(step))
        border = (frames % self.chunk == 0) & (frames > 0)
        inside = (frames % FRAMES_PER_LATENT == 0) & (frames % self.chunk != 0)
        found: Figures = {}
        for end, where in (("", self.same), ("_hole", self.same & self.hole)):
            for name, places in (("border", border), ("inside", inside)):
                found[f"{name}{end}"] = _rms(step[places], where[: len(step)][places])
            found[f"border_over_inside{end}"] = found[f"border{end}"] / found[f"inside{end}"]
        return found

    def apart(self, one: Float[Tensor, "t 3 h w"], other: Float[Tensor, "t 3 h w"]) -> Figures:
        """How far two results are from each other, by region."""
        error, maps = (one - other).square().mean(1, keepdim=True)[1:], (self._maps(one), self._maps(other))
        found = {"rms": float(error.mean().sqrt())}
        for place, whole in (("hole", self.hole), ("covered", self.covered)):
            where = whole[: len(error)]
            found[f"rms_{place}"] = _rms(error, where)
            found[f"perceptual_{place}"] = _distance(*maps, self._shown(where), slice(None))
        return found

    def _maps(self, rgb: Tensor) -> list[Tensor]:
        shown = rgb[FRAMES_PER_LATENT::FRAMES_PER_LATENT]
        return [normalize(x, dim=1) for x in self.features.maps(shown)]

    def _shown(self, where: Tensor) -> Tensor:
        """Of a mask of frames those whose activations are compared."""
        return where[FRAMES_PER_LATENT - 1 :: FRAMES_PER_LATENT]

    def _step(self, made: Float[Tensor, "t 3 h w"]) -> Float[Tensor, "t-1 1 h w"]:
        """Squared difference between each frame and the one before, carried there."""
        before = grid_sample(made[:-1], self.grid[: len(made) - 1], padding_mode="border", align_corners=False)
        return (made[1:] - before).square().mean(1, keepdim=True)


def regions(take: Take) -> tuple[Bool[Tensor, "t 1 h w"], Bool[Tensor, "t 1 h w"]]:
    """Pixels of the frames after the photo that are holes, and that are covered."""
    size = take.clip.camera.size
    known = take.known[1:].flatten(0, 1)[:, None].float() / 255.0
    free = ~take.hole[1:].repeat_interleave(FRAMES_PER_LATENT, 0)
    return interpolate(known, size) < 0.5, interpolate(free.float(), size) > 0.5


def carried(clip: Frame) -> tuple[Float[Tensor, "t h w 2"], Bool[Tensor, "t 1 h w"]]:
    """Where each pixel of the frames after the first lies in the frame before, -1..1, and whether it is seen there."""
    height, width = clip.camera.size
    points = unproject(clip.depth[1:], clip.camera[1:]).flatten(2).transpose(1, 2)
    pixels, depth = project(points, clip.camera[:-1])
    scale = torch.tensor([2.0 / width, 2.0 / height])
    grid = (pixels * scale - 1.0).unflatten(1, (height, width))
    there = grid_sample(clip.depth[:-1], grid, mode="nearest", align_corners=False)
    near = (depth.unflatten(1, (height, width))[:, None] - there).abs() < SAME_DEPTH * there
    return grid, near & (grid.abs() <= 1.0).all(-1)[:, None] & (there > 0.0)


def _rms(squared: Tensor, where: Tensor) -> float:
    return float(squared[where].mean().sqrt())


def _distance(a: Sequence[Tensor], b: Sequence[Tensor], where: Tensor, frames: slice) -> float:
    """Mean over layers of the squared distance of activations in the pixels ``where`` of ``frames``."""
    found = []
    for one, other in zip(a, b, strict=True):
        weight = adaptive_avg_pool2d(where.float(), (one.shape[-2], one.shape[-1]))
        off = (one[frames] - other[frames][: len(one[frames])]).square().sum(1, keepdim=True)
        found.append((off * weight).sum() / weight.sum())
    return float(torch.stack(found).mean())


class Rows:
    """Figures of a table, by row, figure and clip, a value for each seed; and features of frames, by row and clip."""

    def __init__(self) -> None:
        self.values: dict[str, dict[str, dict[str, list[float]]]] = {}
        self.features: dict[str, list[Tensor]] = {}

    def add(self, row: str, clip: str, figures: Mapping[str, float]) -> None:
        """Count one walk."""
        for name, value in figures.items():
            self.values.setdefault(row, {}).setdefault(name, {}).setdefault(clip, []).append(value)

    def join(self, other: Rows) -> None:
        """Count what was counted elsewhere, of other clips."""
        for row, found in other.values.items():
            for name, by_clip in found.items():
                self.values.setdefault(row, {}).setdefault(name, {}).update(by_clip)
        for row, features in other.features.items():
            self.features.setdefault(row, []).extend(features)

    def write(self, path: Path) -> None:
        """Keep them as JSON."""
        features = {row: [part.tolist() for part in parts] for row, parts in self.features.items()}
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps({"values": self.values, "features": features}))
        partial.replace(path)

    @staticmethod
    def read(path: Path) -> Rows:
        """What was kept."""
        rows, kept = Rows(), json.loads(path.read_text())
        rows.values = kept["values"]
        rows.features = {row: [torch.tensor(part) for part in parts] for row, parts in kept["features"].items()}
        return rows

    def by_clip(self, row: str, figure: str) -> dict[str, float]:
        """The mean over seeds for each clip."""
        return {clip: float(np.mean(values)) for clip, values in self.values[row][figure].items()}

    def summary(self) -> dict[str, dict[str, list[float]]]:
        """Mean over clips, half its 95 % interval and number of clips, of each figure of each row."""
        return {row: {name: _summed(self.by_clip(row, name)) for name in found} for row, found in self.values.items()}

    def differences(self, reference: str) -> dict[str, dict[str, list[float]]]:
        """The same of each row less ``reference``, clip by clip."""
        made: dict[str, dict[str, list[float]]] = {}
        for row, found in self.values.items():
            for name in found.keys() & self.values[reference].keys() if row != reference else ():
                own, other = self.by_clip(row, name), self.by_clip(reference, name)
                made.setdefault(row, {})[name] = _summed({clip: own[clip] - other[clip] for clip in own})
        return made

    def ratio(self, row: str, above: str, below: str) -> list[float]:
        """The ratio of the means of two figures over clips, with its 95 % interval."""
        a, b = self.by_clip(row, above), self.by_clip(row, below)
        pairs = np.array([[a[clip], b[clip]] for clip in a if np.isfinite(a[clip]) and np.isfinite(b[clip])])
        return bootstrapped(len(pairs), lambda weights: np.divide(*(weights @ pairs).T))

    def kernel(self, row: str, other: str | None = None) -> list[float]:
        """The kernel distance of a row's features from those of `truth`, over that of ``other``; 95 % interval."""

        def distance(name: str, weights: np.ndarray) -> np.ndarray:
            drawn = torch.from_numpy(weights).float()
            return kernel_distances(self.features[name], self.features["truth"], drawn).numpy()

        def figure(weights: np.ndarray) -> np.ndarray:
            found = distance(row, weights)
            return found if other is None else found / distance(other, weights)

        return bootstrapped(len(self.features[row]), figure)


def bootstrapped(clips: int, figure: Callable[[np.ndarray], np.ndarray]) -> list[float]:
    """A figure of all clips, and its 95 % interval by a bootstrap over clips; NaN where there is no clip.

    Args:
        clips: their number.
        figure: its values ``[d]``, given how often each clip counts ``[d clips]``.
    """
    if clips == 0:
        return [float("nan")] * 3
    draws = np.random.default_rng(0).multinomial(clips, np.full(clips, 1.0 / clips), DRAWS).astype(float)
    low, high = np.quantile(figure(draws), [0.025, 0.975])
    return [float(figure(np.ones((1, clips)))[0]), float(low), float(high)]


def _summed(by_clip: Mapping[str, float]) -> list[float]:
    values = torch.tensor([*by_clip.values()])
    return [*interval(values), int(values.isfinite().sum())]
