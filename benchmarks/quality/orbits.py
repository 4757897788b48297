"""Does depth hold when one walks around things? `python -m benchmarks.quality.orbits DATA [--weights FILE...]`.

DATA holds orbits of held-out rooms, towns and tracks: `worldwarp render-data out=DATA plan=orbits clips=45
size=224x352`. Of each, one photo is given, with its field of view; the other views, 10°, 20° and 30° to both sides
about the point at the median depth ahead, are asked for. Each of the weights (the package's when none are named) gives
a row:

- *landing*: how far from its true place a pixel of the photo lands in the other view, % of the width, depth scaled by
  the median; sky left out; clamped to half the width
- *bend*: how far a straight edge is from straight in the views at 30°: deviation of its pixels from their best line, %
  of its length. Edges are random straight lines of the photo along which true inverse depth is straight as well
- *PSNR*: of the view rendered from the lifted photo, over the pixels that the photo shows in truth; what the points
  leave open is filled smoothly

Means over clips; ± is 1.96 standard errors of the mean, of the difference to the first row where there are more.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from cache3d.point_cache import PointCache
from geometry.camera import Camera
from geometry.depth import EmbeddedDepth, lift_photo
from geometry.depth.estimator import DepthEstimator
from geometry.fill import smooth_fill
from geometry.frame import Chunk, Frame
from geometry.project import project, unproject
from scenes.dataset.clips import list_clips, read_clip
from scenes.synthetic.camera_moves import ORBIT_DEGREES

FARTHEST = 20.0  # medians; beyond, all is the same to a viewer
LINES, SAMPLES = 150, 25  # straight lines of a photo, and pixels of each
STRAIGHT = 0.006  # largest relative deviation of true inverse depth along a line
VISIBLE = 0.03  # relative difference of depth to which a pixel of another view is one that the photo shows


def main() -> None:
    """Print a table and, last, one JSON line."""
    parser = argparse.ArgumentParser(description="Depth on orbits against the truth")
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", nargs="*", default=["package"], help="weights of the depth network")
    given = parser.parse_args()
    rows: dict[str, list[dict[str, float]]] = {}
    estimators = {name: EmbeddedDepth(None if name == "package" else name) for name in given.weights}
    for path in tqdm(list_clips(given.data, "heldout"), unit="clip"):
        clip = read_clip(path)
        lines = straight_lines(clip[:1], np.random.default_rng(len(rows)))
        for name, estimator in estimators.items():
            rows.setdefault(name, []).append(figures(clip, estimator, lines))
    table = {name: summary(part, rows[given.weights[0]]) for name, part in rows.items()}
    for name, row in table.items():
        print(name)
        print("  ".join(f"{key} {mean:.3f} ± {half:.3f}" for key, (mean, half) in row.items()))
    print(json.dumps({"benchmark": "orbits", "clips": len(rows[given.weights[0]]), **table}))


def figures(clip: Frame, estimator: DepthEstimator, lines: Tensor) -> dict[str, float]:
    """Of one orbit, see the module; ``lines`` are of `straight_lines`."""
    photo, ground = clip[:1], ~clip.sky[:1]
    made = lift_photo(photo.rgb, estimator, photo.camera)
    median = photo.depth[ground].median()
    truth = (photo.depth / median).clamp(max=FARTHEST)
    # The estimate's own sky is far away, as far as the truth is concerned.
    depth = (made.depth / made.depth[ground].median()).clamp(max=FARTHEST)
    cache = PointCache()
    lifted = Frame(photo.rgb, depth, made.valid, made.sky, photo.camera, metric=False)
    cache.integrate(Chunk(lifted, 0, True, torch.ones_like(depth)))
    out: dict[str, list[float]] = {}
    for index, degrees in enumerate(ORBIT_DEGREES[1:], 1):
        camera = scaled(clip.camera[index : index + 1], float(median))
        true, landed = (places(values, photo.camera, camera) for values in (truth, depth))
        away = (landed - true).norm(dim=0)[ground[0, 0]].clamp(max=0.5 * true.shape[-1]).mean() / true.shape[-1]
        out.setdefault(f"landing_{abs(degrees):.0f}", []).append(100.0 * away.item())
        shown = shown_by_photo(clip[index : index + 1], photo)
        guide = cache.render(camera)
        rgb = smooth_fill(guide.rgb, guide.coverage > 0)
        error = (rgb - clip.rgb[index : index + 1]).square().mean(1, keepdim=True)[shown]
        if len(error):
            out.setdefault(f"psnr_{abs(degrees):.0f}", []).append(-10.0 * math.log10(max(error.mean().item(), 1e-6)))
        if abs(degrees) == max(ORBIT_DEGREES) and len(lines):
            out.setdefault("bend_30", []).append(100.0 * bend(landed[:, lines[..., 0], lines[..., 1]]))
    return {key: float(np.mean(values)) for key, values in out.items()}


def scaled(camera: Camera, unit: float) -> Camera:
    """The camera with its translation in multiples of ``unit``."""
    pose = camera.world_from_camera.clone()
    pose[..., :3, 3] /= unit
    return Camera(pose, camera.focal_px, camera.center_px, camera.size)


def places(depth: Tensor, source: Camera, target: Camera) -> Tensor:
    """Where pixels ``[1 1 h w]`` of the source land in the target, ``[2 h w]`` pixels."""
    points = unproject(depth, source).flatten(-2).transpose(-1, -2)
    pixels, _ = project(points, target)
    return pixels[0].T.unflatten(-1, depth.shape[-2:])


def shown_by_photo(view: Frame, photo: Frame) -> Tensor:
    """Pixels ``[1 1 h w]`` of a view, with true depth, that the photo shows too."""
    points = unproject(view.depth, view.camera).flatten(-2).transpose(-1, -2)
    pixels, depth = project(points, photo.camera)
    height, width = photo.camera.size
    column, row = pixels[0].floor().long().T
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width) & (depth[0] > 0)
    seen = photo.depth[0, 0][row.clamp(0, height - 1), column.clamp(0, width - 1)]
    same = inside & ((seen / depth[0].clamp_min(1e-6) - 1.0).abs() < VISIBLE)
    return same.view_as(view.depth) & ~view.sky


def straight_lines(photo: Frame, rng: np.random.Generator) -> Tensor:
    """Rows and columns ``[n SAMPLES 2]`` of straight lines along which true surfaces are straight."""
    inverse, ground = 1.0 / photo.depth[0, 0].numpy(), ~photo.sky[0, 0].numpy()
    height, width = inverse.shape
    count = 20 * LINES
    length, angle = rng.uniform(0.12, 0.35, count) * width, rng.uniform(0.0, math.pi, count)
    along = np.linspace(-0.5, 0.5, SAMPLES)
    columns = rng.uniform(0, width, count)[:, None] + along * (length * np.cos(angle))[:, None]
    rows = rng.uniform(0, height, count)[:, None] + along * (length * np.sin(angle))[:, None]
    inside = ((rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)).all(1)
    rows, columns = rows[inside].astype(int), columns[inside].astype(int)
    values = inverse[rows, columns].astype(float)
    # A line on a plane has an inverse depth that is linear along it.
    way = np.hypot(rows - rows[:, :1], columns - columns[:, :1])
    middle, mean = way - way.mean(1, keepdims=True), values.mean(1, keepdims=True)
    slope = (middle * values).sum(1, keepdims=True) / (middle**2).sum(1, keepdims=True)
    off = np.abs(values / (mean + slope * middle) - 1.0).max(1)
    chosen = np.flatnonzero((off < STRAIGHT) & ground[rows, columns].all(1))[:LINES]
    return torch.from_numpy(np.stack([rows[chosen], columns[chosen]], -1))


def bend(lines: Tensor) -> float:
    """Mean deviation of points ``[2 n k]`` from the best line through each ``k``, over its length."""
    points = (lines - lines.mean(-1, keepdim=True)).permute(1, 0, 2).double()
    across, along = torch.linalg.eigvalsh(points @ points.transpose(-1, -2)).clamp_min(1e-9).sqrt().unbind(-1)
    # A uniform line of length 1 deviates by 1 / sqrt(12) along itself.
    return (across / along / math.sqrt(12.0)).mean().item()


def summary(rows: list[dict[str, float]], first: list[dict[str, float]]) -> dict[str, tuple[float, float]]:
    """Mean and 1.96 standard errors, of the difference to ``first`` unless it is the same."""
    out = {}
    for key in ("landing_10", "landing_20", "landing_30", "bend_30", "psnr_10", "psnr_20", "psnr_30"):
        values = np.array([row[key] for row in rows if key in row])
        spread = values if rows is first else values - np.array([row[key] for row in first if key in row])
        out[key] = (float(values.mean()), float(1.96 * spread.std(ddof=1) / math.sqrt(len(spread))))
    return out


if __name__ == "__main__":
    main()
