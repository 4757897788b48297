"""What walks look like, without choosing: `python -m benchmarks.quality.contact_sheet OUT PHOTO... [--path PATH]
[--generator NAME] [--size HxW] [--chunks N] [--across]`.

Each photograph is walked ten chunks along each of three fixed paths, or those that are given, with seed 0, by the
default generator or each of those that are given. One row per walk: the photograph, then the last frame of every second
chunk. With ``--across`` one row per photograph: itself, then the last frame of each walk. The rows are all there is;
nothing is left out.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from scenes.photos.photo import read_photo
from worldwarp import explore

PATHS = ("forward:distance=0.4", "orbit:angle_deg=20", "left:distance=0.3")
CHUNKS, FRAMES_PER_CHUNK = 10, 8
ROW_PX = 112


def tile(rgb: Tensor) -> Image.Image:
    """A frame ``[3 h w]`` as the sheets show it, one row high."""
    pixels = (rgb.permute(1, 2, 0).numpy() * 255.0).round().astype(np.uint8)
    size = (round(ROW_PX * rgb.shape[2] / rgb.shape[1]), ROW_PX)
    return Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)


def walk_tiles(photo: Path, path: str, generator: str, chunks: int, size: str | None) -> list[Image.Image]:
    """The photograph and frames of one walk."""
    frames = chunks * FRAMES_PER_CHUNK + 1
    settings: dict[str, Any] = {} if size is None else {"size": size}
    steps = explore(image=photo, path=path, generator=generator, frames=frames, viewer="none", seed=0, **settings)
    shown = [step.chunk.frames.rgb[-1] for step in steps if step.chunk.index % 2 == 0]
    return [tile(rgb) for rgb in (read_photo(photo, (shown[0].shape[1], shown[0].shape[2])).rgb, *shown)]


def main() -> None:
    """Write the sheet."""
    parser = argparse.ArgumentParser(description="What walks look like")
    parser.add_argument("out", type=Path)
    parser.add_argument("photos", type=Path, nargs="+")
    parser.add_argument("--path", action="append", help="of the walks, instead of the three; may be repeated")
    parser.add_argument("--generator", action="append", help="instead of retouch; may be repeated, a row for each")
    parser.add_argument("--size", help="of the frames, instead of the default for the photograph")
    parser.add_argument("--chunks", type=int, default=CHUNKS)
    parser.add_argument("--across", action="store_true", help="one row per photograph: the last frame of each walk")
    given = parser.parse_args()
    paths, generators = given.path or PATHS, given.generator or ["retouch"]
    walks = [(photo, path, name) for photo in given.photos for path in paths for name in generators]
    rows = [walk_tiles(*walk, given.chunks, given.size) for walk in tqdm(walks, unit="walk")]
    walks_each = len(paths) * len(generators)
    if given.across:
        groups = (rows[k : k + walks_each] for k in range(0, len(rows), walks_each))
        rows = [[group[0][0], *(row[-1] for row in group)] for group in groups]
    width = max(shown.width for row in rows for shown in row)
    sheet = Image.new("RGB", (width * len(rows[0]), ROW_PX * len(rows)), "white")
    for y, row in enumerate(rows):
        for x, shown in enumerate(row):
            sheet.paste(shown, (width * x, ROW_PX * y))
    sheet.save(given.out, quality=80)
    print(f"{given.out}: {len(walks)} walks; for each photograph {', '.join(paths)}, by {', '.join(generators)}")


if __name__ == "__main__":
    main()
