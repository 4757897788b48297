"""How good is the embedded depth? `python -m benchmarks.quality.depth_maps DATA [--motorcycle WHEEL] [--aloe FOLDER]`.

On the first frame of every held-out clip of DATA (`make data`), and on two real stereo pairs: the Middlebury 2014
motorcycle (Scharstein et al.) as scikit-image 0.16.2 carries it: `pip download --no-deps --only-binary :all:
--python-version 3.8 --platform manylinux1_x86_64 --abi cp38 scikit-image==0.16.2` gives the WHEEL; and the Middlebury
2006 aloe (Hirschmueller and Scharstein), `examples/data` of Debian's `opencv-doc`. Median-scaled AbsRel and δ1, sky
left out; the baseline is one depth everywhere. Edges: median distance in pixels from a true depth edge to the nearest
estimated one. Normals: mean angle in degrees between true and estimated surface normals away from true edges, for bent
surfaces. The aloe comes without its camera: what is told is how well inverse depth and disparity correlate.
"""

from __future__ import annotations

import argparse
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor
from torch.nn.functional import interpolate
from tqdm import tqdm

from geometry.camera import Camera
from geometry.depth import EmbeddedDepth, snap_depth_edges
from geometry.project import unproject
from scenes.dataset.clips import list_clips, read_clip

FOCAL_PX, BASELINE_MM, OFFSET_PX = 994.978, 193.001, 31.086  # calibration of the motorcycle at quarter size
EDGE_RATIO = 1.15
FARTHEST = 20.0  # medians; beyond, sky included, depth is all the same to a viewer
SHORT_SIDE_PX = 288


def figures(made: Tensor, truth: Tensor, ground: Tensor) -> dict[str, float]:
    """AbsRel, δ1 and edge distance of depth maps ``[1 1 h w]`` where ``ground``."""
    ratio = (made / made[ground].median()).clamp(max=FARTHEST) / (truth / truth[ground].median()).clamp(max=FARTHEST)
    true_edges, made_edges = edges(truth, ground), edges(made, ground)
    away = (
        np.asarray(ndimage.distance_transform_edt(~made_edges))[true_edges] if made_edges.any() else np.full(1, np.inf)
    )
    return {
        "absrel": (ratio - 1.0).abs()[ground].mean().item(),
        "delta1": (torch.maximum(ratio, 1.0 / ratio)[ground] < 1.25).float().mean().item(),
        "edge_px": float(np.median(away)) if len(away) else 0.0,
    }


def normal_deg(made: Tensor, truth: Tensor, ground: Tensor, camera: Camera) -> float:
    """Mean angle between the normals of two depth maps ``[1 1 h w]`` where ``ground``, away from true edges."""
    near_edges = np.asarray(ndimage.binary_dilation(edges(truth, ground) | ~ground[0, 0].numpy(), iterations=2), bool)
    one, other = (_normals(depth / depth[ground].median(), camera) for depth in (made, truth))
    angles = torch.rad2deg((one * other).sum(1).clamp(-1.0, 1.0).acos())[0]
    return angles[torch.from_numpy(~near_edges[:-1, :-1])].mean().item()


def _normals(depth: Tensor, camera: Camera) -> Tensor:
    points = unproject(depth, camera)
    right, down = points[..., :-1, 1:] - points[..., :-1, :-1], points[..., 1:, :-1] - points[..., :-1, :-1]
    return torch.nn.functional.normalize(torch.linalg.cross(right, down, dim=1), dim=1)


def edges(depth: Tensor, ground: Tensor) -> np.ndarray:
    """Pixels whose right or lower neighbor lies on another surface."""
    log_depth, known = depth[0, 0].log().numpy(), ground[0, 0].numpy()
    out = np.zeros(log_depth.shape, bool)
    for axis in (0, 1):
        step = np.abs(np.diff(log_depth, axis=axis)) > np.log(EDGE_RATIO)
        both = known.take(range(1, known.shape[axis]), axis) & known.take(range(known.shape[axis] - 1), axis)
        out[tuple(slice(0, size) for size in step.shape)] |= step & both
    return out


def summary(pictures: list[dict[str, float]]) -> dict[str, float | None]:
    """Means over pictures, the median for the edges; None where there are no edges at all."""
    row: dict[str, float | None] = {"pictures": len(pictures)}
    for key in pictures[0]:
        values = [picture[key] for picture in pictures]
        value = float(np.median(values) if key == "edge_px" else np.mean(values))
        row[key] = round(value, 3) if np.isfinite(value) else None
    return row


def motorcycle(wheel: Path) -> tuple[Tensor, Tensor, Tensor]:
    """Colors, depth in millimeters and where it is known, of the left picture."""
    with zipfile.ZipFile(wheel) as archive:
        picture = Image.open(io.BytesIO(archive.read("skimage/data/motorcycle_left.png"))).convert("RGB")
        disparity = np.load(io.BytesIO(archive.read("skimage/data/motorcycle_disp.npz")))["arr_0"]
    rgb = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)[None].float() / 255.0
    known = torch.from_numpy(np.isfinite(disparity))[None, None]
    depth = FOCAL_PX * BASELINE_MM / (torch.from_numpy(disparity)[None, None].nan_to_num(1.0, 1.0, 1.0) + OFFSET_PX)
    return _small(rgb, depth, known)


def aloe(folder: Path) -> tuple[Tensor, Tensor, Tensor]:
    """Colors, disparity in pixels of the full size and where it is known, of the left picture."""
    picture, disparity = (Image.open(folder / name) for name in ("aloeL.jpg", "aloeGT.png"))
    rgb = torch.from_numpy(np.asarray(picture.convert("RGB")).copy()).permute(2, 0, 1)[None].float() / 255.0
    values = torch.from_numpy(np.asarray(disparity).copy())[None, None].float()
    return _small(rgb, values, values > 0)


def _small(rgb: Tensor, values: Tensor, known: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    size = [round(side * SHORT_SIDE_PX / min(rgb.shape[-2:])) for side in rgb.shape[-2:]]
    return (
        interpolate(rgb, size, mode="bilinear", antialias=True),
        interpolate(values, size, mode="nearest-exact"),
        interpolate(known.float(), size, mode="nearest-exact") > 0.5,
    )


def main() -> None:
    """Print a table and, last, one JSON line."""
    parser = argparse.ArgumentParser(description="Embedded depth against the truth")
    parser.add_argument("data", type=Path)
    parser.add_argument("--motorcycle", type=Path, help="wheel of scikit-image 0.16.2")
    parser.add_argument("--aloe", type=Path, help="folder with aloeL.jpg and aloeGT.png")
    parser.add_argument("--weights", help="weights of the depth network (the package's)")
    given = parser.parse_args()
    estimator = EmbeddedDepth(given.weights)

    def estimate(rgb: Tensor) -> Tensor:
        made = estimator.estimate(rgb)
        return snap_depth_edges(made.depth, rgb, made.sky)

    rows: dict[str, list[dict[str, float]]] = {"clips": [], "clips, one depth": []}
    for path in tqdm(list_clips(given.data, "heldout"), unit="clip"):
        frame = read_clip(path)[:1]
        ground = ~frame.sky
        if ground.float().mean() > 0.05:
            made = estimate(frame.rgb)
            normals = {"normal_deg": normal_deg(made, frame.depth, ground, frame.camera)}
            rows["clips"].append(figures(made, frame.depth, ground) | normals)
            rows["clips, one depth"].append(figures(torch.ones_like(frame.depth), frame.depth, ground))
    if given.motorcycle:
        rgb, depth, known = motorcycle(given.motorcycle)
        rows["motorcycle"] = [figures(estimate(rgb), depth, known)]
        rows["motorcycle, one depth"] = [figures(torch.ones_like(depth), depth, known)]
    if given.aloe:
        rgb, disparity, known = aloe(given.aloe)
        pair = torch.stack([1.0 / estimate(rgb)[known], disparity[known]])
        rows["aloe"] = [{"correlation": torch.corrcoef(pair)[0, 1].item()}]
    table = {name: summary(part) for name, part in rows.items() if part}
    for name, row in table.items():
        print(f"{name:<24}", "  ".join(f"{key} {value}" for key, value in row.items()))
    ours, flat = (np.mean([picture["absrel"] for picture in rows[name]]) for name in ("clips", "clips, one depth"))
    ratio = round(float(ours / flat), 3)
    print(json.dumps({"benchmark": "depth", "absrel_over_one_depth": ratio, **table}))


if __name__ == "__main__":
    main()
