"""What the embedded depth makes of photographs: `python -m benchmarks.quality.depth_sheet OUT PHOTO... [--other
WEIGHTS]`.

One row per photograph: it, what other weights make of it when some are given, and what the package's make of it. Red is
near and blue is far, evenly in log depth between the first and the last hundredth of the ground; the sky is white.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from geometry.depth import EmbeddedDepth
from geometry.depth.estimator import DepthMap
from scenes.photos.photo import read_photo

SIZE = (336, 560)
SHOWN = (192, 320)


def colored(made: DepthMap) -> np.ndarray:
    """A depth map ``[1 1 h w]`` as a picture ``[h w 3]``."""
    log_depth, sky = made.depth[0, 0].log().numpy(), made.sky[0, 0].numpy()
    if sky.all():
        return np.full((*sky.shape, 3), 255, np.uint8)
    near, far = np.quantile(log_depth[~sky], (0.01, 0.99))
    share = np.clip((far - log_depth) / max(far - near, 1e-6), 0.0, 1.0)
    picture = cv2.applyColorMap((255.0 * share).astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]
    return np.where(sky[..., None], 255, picture).astype(np.uint8)


def main() -> None:
    """Write the sheet."""
    parser = argparse.ArgumentParser(description="Photographs and their embedded depth")
    parser.add_argument("out", type=Path)
    parser.add_argument("photos", type=Path, nargs="+")
    parser.add_argument("--other", help="weights to compare with")
    given = parser.parse_args()
    estimators = [EmbeddedDepth(weights) for weights in ([given.other] if given.other else []) + [None]]
    rows = []
    for path in tqdm(given.photos, unit="photo"):
        rgb = read_photo(path, SIZE).rgb
        pixels = (rgb.permute(1, 2, 0).numpy() * 255.0).round().astype(np.uint8)
        rows.append(np.concatenate([pixels, *(colored(e.estimate(rgb[None])) for e in estimators)], 1))
    sheet = Image.fromarray(np.concatenate(rows))
    sheet = sheet.resize((SHOWN[1] * (1 + len(estimators)), SHOWN[0] * len(rows)), Image.Resampling.LANCZOS)
    sheet.save(given.out, quality=85)
    print(f"{given.out}: {len(rows)} photographs")


if __name__ == "__main__":
    main()
