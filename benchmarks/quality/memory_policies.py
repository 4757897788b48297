"""Which memory keeps a walk together? `python -m benchmarks.quality.memory_policies DATA [clips] [OUT]`.

Long held-out clips are walked out for ten chunks of four frames and back again, in the Gaussian cache, with each
memory policy of the packaged generator: off (default), nearest views, noised context, photo alone. Figures: PSNR
and δ1 in chunk 10 and their gain on the default (mean and 95 % interval over clips), brightness and contrast of chunk
10 over the truth's, and the PSNR of the returned views against what was shown the first time. Finished walks are kept
in OUT (DATA/memory_policies): the same call goes on.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch
from tqdm import tqdm

from benchmarks.data.hole_figures import contrast
from benchmarks.data.walks import FRAMES, LAST, delta1, determined, interval, long_clips, psnr, to_and_fro, walk
from cache3d.gaussian_cache import GaussianCache
from diffusion.kv_memory import KVMemory, MemoryPolicy
from diffusion.retouch.generator import RetouchGenerator
from diffusion.retouch.network import Past
from geometry.camera import Camera
from geometry.frame import Frame


class PhotoOnly(RetouchGenerator):
    """Attends to the photo, whatever is remembered."""

    def _recall(self, camera: Camera, memory: KVMemory) -> Past | None:
        return super()._recall(camera, memory[:1])


def generators() -> dict[str, RetouchGenerator]:
    """The policies that are compared; the first is the default."""
    kept = MemoryPolicy(bank=24)
    return {
        "off": RetouchGenerator(),
        "nearest": RetouchGenerator(policy=kept),
        "noised .1": RetouchGenerator(policy=replace(kept, context_noise=0.1)),
        "photo alone": PhotoOnly(policy=kept),
    }


def figures(made: Frame, clip: Frame) -> dict[str, float]:
    """Figures of one walk out and back, ``[80]`` frames without the photo."""
    last, truth = made[LAST - FRAMES : LAST], clip[LAST - FRAMES + 1 : LAST + 1]
    seen, every = determined(clip)[LAST - FRAMES + 1 : LAST + 1], torch.ones_like(truth.sky)
    out, back = made[: LAST - 1], made[LAST : 2 * LAST - 1]
    returned = Frame.concatenate([back[[i]] for i in range(LAST - 2, -1, -1)])
    return {
        "psnr10": psnr(last, truth, every),
        "delta1_10": delta1(last, truth, every),
        "hidden_delta1_10": delta1(last, truth, ~seen),
        "brightness": float(last.rgb.mean() / truth.rgb.mean()),
        "contrast": float(contrast(last.rgb).mean() / contrast(truth.rgb).mean()),
        "return_psnr": psnr(returned, out, torch.ones_like(out.sky)),
    }


def main() -> None:
    """Print the table in Markdown, end with one JSON line."""
    if len(sys.argv) < 2:
        sys.exit("usage: python -m benchmarks.quality.memory_policies DATA [clips] [OUT]")
    data, count = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 6
    out = Path(sys.argv[3]) if len(sys.argv) > 3 else data / "memory_policies"
    out.mkdir(parents=True, exist_ok=True)
    clips, policies = long_clips(data, count), generators()
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in policies}
    for clip_name, name in tqdm([(c, p) for c in clips for p in policies], unit="walk"):
        path = out / f"{name.replace(' ', '-').replace(',', '')}-{clip_name}.json"
        if not path.is_file():
            clip = clips[clip_name]
            cameras = clip.camera[to_and_fro(2 * LAST + 1)[1:]]
            walked = walk(clip, cameras, policies[name], GaussianCache())
            path.write_text(json.dumps(figures(walked.frames, clip)))
        rows[name].append(json.loads(path.read_text()))
    names = list(rows["off"][0])
    table: dict[str, dict[str, tuple[float, float]]] = {}
    for name, walks in rows.items():
        table[name] = {f: interval(torch.tensor([w[f] for w in walks])) for f in names}
        for figure in ("psnr10", "delta1_10"):
            gain = [w[figure] - d[figure] for w, d in zip(walks, rows["off"], strict=True)]
            table[name][f"{figure}_gain"] = interval(torch.tensor(gain))
    columns = list(table["off"])
    print("| policy | " + " | ".join(columns) + " |\n|" + "---|" * (len(columns) + 1))
    for name, row in table.items():
        print(f"| {name} | " + " | ".join(f"{row[c][0]:.3f} ± {row[c][1]:.3f}" for c in columns) + " |")
    print(json.dumps({"benchmark": "memory_policies", "clips": len(clips), "rows": table}))


if __name__ == "__main__":
    main()
