"""Speed of a walk by size: `python -m benchmarks.speed.explore [SIZE ...] [--frames 49] [--baseline COMMIT]`.

The bundled photo, out and back, with the packaged parts, no viewer, nothing stored; then the same cameras again, where
nothing is new. For each size (192x320 if none is given): frames per second of both, the first chunk, seconds of
preparation, peak memory, and the share of each stage; ``key_s`` is what a key takes that shows nothing new, a chunk of
four frames. With ``--baseline`` the same walks are made by another commit of this repository in the same run. Each walk
is a process of its own, with ``--threads`` threads. From two sizes on: by which power of the number of pixels seconds
and memory grow (least squares in logarithms). The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).parents[2]

# Runs in either commit: only what both have is used.
WORKER = """
import json, resource, statistics, sys, time
from pathlib import Path
import torch
import worldwarp
from worldwarp.config import compose_config
from worldwarp.prepare import prepare
height, width, frames, threads = (int(word) for word in sys.argv[1:5])
generator = sys.argv[5]
torch.set_num_threads(threads)
photo = Path(worldwarp.__file__).parent / "photos" / "pagoda.jpg"
words = [f"image={photo}", "path=out_and_back", f"frames={frames}", f"size=[{height},{width}]", "viewer=none"]
begun = time.perf_counter()
session = prepare(compose_config("explore", [*words, f"generator={generator}"]))
session.plan()
prepared, chunks, seconds, stages = time.perf_counter() - begun, session.remaining, [], {}
last = time.perf_counter()
for step in session.steps():
    now = time.perf_counter()
    seconds.append(now - last)
    for name, took in step.timings_s.items():
        stages[name] = stages.get(name, 0.0) + took
    last = time.perf_counter()
# Of a session that goes on along the same cameras; chunks are numbered on.
again, last = [], time.perf_counter()
for step in session.steps(chunks[: max(2, len(chunks) // 3)]):
    again.append(time.perf_counter() - last)
    last = time.perf_counter()
count, keys = len(chunks[0]), []
for _ in range(3):
    last = time.perf_counter()
    next(iter(session.steps([chunks[0][:4]])))
    keys.append(time.perf_counter() - last)
print(json.dumps({
    "fps": round((frames - 1) / sum(seconds), 3), "revisit_fps": round(count / statistics.median(again), 3),
    "median_chunk_fps": round(count / statistics.median(seconds), 3), "first_chunk_s": round(seconds[0], 2),
    "key_s": round(statistics.median(keys), 2), "prepare_s": round(prepared, 2),
    "primitives": len(session.state.view.cache),
    "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    "stages": {name: round(took / sum(seconds), 3) for name, took in stages.items()},
}))
"""


def walk(tree: Path, size: tuple[int, int], frames: int, threads: int, generator: str) -> dict[str, Any]:
    """One walk by the code in ``tree``, in a process of its own."""
    words = [str(size[0]), str(size[1]), str(frames), str(threads), generator]
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    done = subprocess.run(
        [sys.executable, "-c", WORKER, *words], cwd=tree, env=environment, check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def extracted(commit: str, folder: Path) -> Path:
    """The files of a commit of this repository."""
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive, check=True)
    return folder


def growth(rows: list[tuple[int, dict[str, Any]]]) -> dict[str, float]:
    """Powers of the number of pixels by which the figures of rows ``(pixels, row)`` grow."""
    pixels = np.log([count for count, _ in rows])
    seconds = {"frame": [1.0 / row["fps"] for _, row in rows], "revisit": [1.0 / row["revisit_fps"] for _, row in rows]}
    taken = seconds | {name: [row[name] for _, row in rows] for name in ("prepare_s", "peak_mib")}
    return {name: round(float(np.polyfit(pixels, np.log(values), 1)[0]), 2) for name, values in taken.items()}


def main() -> None:
    """Print a row per size, generator and commit, and last one JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("sizes", nargs="*", default=["192x320"])
    parser.add_argument("--frames", type=int, default=49)
    parser.add_argument("--baseline", help="a commit to compare with")
    parser.add_argument("--generators", default="retouch", help="e.g. passthrough,retouch")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    machine = f"{platform.processor() or platform.machine()}, {given.threads} of {os.cpu_count()} threads"
    print(f"{machine}, {given.frames} frames out and back")
    result: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        trees = {"now": ROOT} | (
            {given.baseline: extracted(given.baseline, Path(folder))} if given.baseline is not None else {}
        )
        for text in given.sizes:
            height, width = (int(side) for side in text.split("x"))
            for generator in given.generators.split(","):
                for name, tree in trees.items():
                    row = walk(tree, (height, width), given.frames, given.threads, generator)
                    result[f"{text} {generator} {name}"] = row
                    print(f"{text:<10} {generator:<12} {name:<10}", *(f"{k} {v}" for k, v in row.items()), flush=True)
    powers: dict[str, dict[str, float]] = {}
    for kind in dict.fromkeys(name.split(" ", 1)[1] for name in result):
        sized = [(text, row) for name, row in result.items() for text, rest in [name.split(" ", 1)] if rest == kind]
        if len(sized) > 1:
            powers[kind] = growth([(math.prod(int(side) for side in text.split("x")), row) for text, row in sized])
            print(f"{'growth':<10} {kind:<23}", *(f"{name} {power}" for name, power in powers[kind].items()))
    rows = {"rows": result, "growth": powers}
    print(json.dumps({"benchmark": "explore", "frames": given.frames, "threads": given.threads, **rows}))


if __name__ == "__main__":
    main()
