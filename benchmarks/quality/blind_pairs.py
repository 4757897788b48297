"""Which generator's pictures do people prefer? `python -m benchmarks.quality.blind_pairs make DATA OUT`, look at
``OUT/sheet_*.png`` and write down a letter for each pair (A left, B right, - no preference), then
`python -m benchmarks.quality.blind_pairs count OUT LETTERS`.

The first frames of held-out clips are walked by two generators, everything else alike: what is shown are the middle and
the last frame of each, one generator beside the other in an order that a seed has drawn. Clips, paths and order are
fixed before anything is made. JSON line last.
"""

from __future__ import annotations

import argparse
import json
from math import comb
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm

from scenes.dataset.clips import list_clips
from scenes.io.png import read_rgb, write_rgb_png
from worldwarp import explore

PATHS = ("left:distance=0.3", "orbit:angle_deg=20", "right:distance=0.3", "back:distance=0.3")
FRAMES = 17  # of a walk
ROWS = 10  # pairs of a sheet
GAP = 6  # pixels


def walked(photo: Path, path: str, size: tuple[int, int], generator: str) -> Float[Tensor, "t 3 h w"]:
    """All frames of a walk after the photo."""
    steps = explore(image=photo, path=path, frames=FRAMES, size=size, generator=generator, seed=0, viewer="none")
    return torch.cat([step.chunk.frames.rgb for step in steps])


def make(data: Path, out: Path, generators: tuple[str, str], pairs: int) -> None:
    """Walk what is missing, and write sheets and key."""
    out.mkdir(parents=True, exist_ok=True)
    clips = list_clips(data, "heldout")
    order = np.random.default_rng(0)
    chosen = [clips[k] for k in order.permutation(len(clips))[:pairs]]
    flipped = (order.random(pairs) < 0.5).tolist()
    rows = []
    for number, clip in enumerate(tqdm(chosen, desc="pairs", unit="pair")):
        kept = out / f"pair_{number:02}.png"
        if not kept.exists():
            rgb = load_file(clip)["rgb"][0].float() / 255.0
            write_rgb_png(out / "photo.png", rgb)
            size = (rgb.shape[-2], rgb.shape[-1])
            made = [walked(out / "photo.png", PATHS[number % len(PATHS)], size, name) for name in generators]
            shown = [torch.cat([frames[len(frames) // 2], frames[-1]], -1) for frames in made]
            gap = torch.ones(3, size[0], GAP)
            write_rgb_png(kept, torch.cat([shown[flipped[number]], gap, shown[not flipped[number]]], -1))
        rows.append(read_rgb(kept))
    (out / "key.json").write_text(json.dumps({"generators": generators, "flipped": flipped}))
    for first in range(0, len(rows), ROWS):
        write_rgb_png(out / f"sheet_{first // ROWS}.png", torch.cat(rows[first : first + ROWS], -2))
    print(json.dumps({"pairs": len(rows), "look_at": str(out / "sheet_*.png")}))


def count(out: Path, letters: str) -> dict[str, object]:
    """How often each generator was preferred, and how likely that is by chance (sign test, two-sided).

    Raises:
        ValueError: another number of letters than there are pairs, or others than A, B and -.
    """
    key = json.loads((out / "key.json").read_text())
    if len(letters) != len(key["flipped"]) or set(letters) - set("AB-"):
        raise ValueError(f"letters: want {len(key['flipped'])} of A, B and -, got {letters}")
    first, second = key["generators"]
    wins = {first: 0, second: 0}
    for letter, flipped in zip(letters, key["flipped"], strict=True):
        if letter != "-":
            wins[second if (letter == "B") != flipped else first] += 1
    total, most = sum(wins.values()), max(wins.values())
    chance = min(1.0, 2.0 * sum(comb(total, k) for k in range(most, total + 1)) / 2**total)
    return {"preferred": wins, "undecided": letters.count("-"), "chance": chance}


def main() -> None:
    """Parse the command line, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True)
    making = actions.add_parser("make")
    making.add_argument("data", type=Path)
    making.add_argument("out", type=Path)
    making.add_argument("--generators", nargs=2, default=("retouch", "tiny"))
    making.add_argument("--pairs", type=int, default=40)
    counting = actions.add_parser("count")
    counting.add_argument("out", type=Path)
    counting.add_argument("letters")
    given = parser.parse_args()
    if given.action == "make":
        make(given.data, given.out, tuple(given.generators), given.pairs)
    else:
        print(json.dumps(count(given.out, given.letters)))


if __name__ == "__main__":
    main()
