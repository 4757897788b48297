"""From the command to the first new frame: `python -m benchmarks.speed.startup [--baseline COMMIT] [--cold]`.

`worldwarp explore` on the bundled photo, one chunk, no viewer, each run in a new process. Tells the seconds from the
start of the process until everything is imported, until the photo is a world, until the plan is printed and until the
first new frame is made, and of `worldwarp --help`. ``--cold`` adds one run with an empty cache of kernels.
``--baseline`` runs another commit of this repository too, taking turns with this one; ``--runs`` is 3.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
WORDS = ["explore", "image=worldwarp/photos/pagoda.jpg", "path=out_and_back", "frames=9", "viewer=none"]
STAGES = ("help", "imported", "prepared", "planned", "first_frame")
# Runs in the checkout: tells when the functions that end the stages return, seconds of the clock on the wall.
MARKED = """
import json, sys, time
import worldwarp.cli
import worldwarp.driving, worldwarp.prepare, worldwarp.recording, worldwarp.session
marks = {"imported": time.time()}
def mark(owner, name, stage):
    function = getattr(owner, name)
    def marked(*args, **kwargs):
        result = function(*args, **kwargs)
        marks.setdefault(stage, time.time())
        return result
    setattr(owner, name, marked)
mark(worldwarp.prepare, "prepare", "prepared")
mark(worldwarp.session.Session, "plan", "planned")
mark(worldwarp.recording, "record_step", "first_frame")
code = worldwarp.cli.main(sys.argv[1:])
print(json.dumps(marks))
sys.exit(code)
"""


def run(root: Path, kernels: Path | None = None) -> dict[str, float]:
    """Seconds to the end of each stage of one run of the checkout ``root``; ``kernels`` replaces its cache."""
    environment = os.environ | {"PYTHONPATH": str(root)}
    begun = time.time()
    subprocess.run(
        [sys.executable, "-m", "worldwarp.cli", "--help"], cwd=root, env=environment, check=True, capture_output=True
    )
    seconds = {"help": time.time() - begun}
    if kernels is not None:
        environment["NUMBA_CACHE_DIR"] = str(kernels)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", MARKED, *WORDS, f"out={folder}"]
        begun = time.time()
        done = subprocess.run(command, cwd=root, env=environment, check=True, capture_output=True, text=True)
    marks = json.loads(done.stdout.splitlines()[-1])
    return seconds | {stage: marks[stage] - begun for stage in STAGES[1:]}


def main() -> None:
    """Print a table and, last, one JSON line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--baseline", help="a commit to compare with")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--cold", action="store_true")
    options = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads; medians of {options.runs}")
    with tempfile.TemporaryDirectory() as folder:
        roots = {"this": ROOT}
        if options.baseline is not None:
            roots["baseline"] = Path(folder) / "baseline"
            roots["baseline"].mkdir()
            archive = subprocess.run(["git", "archive", options.baseline], cwd=ROOT, check=True, capture_output=True)
            subprocess.run(["tar", "-x", "-C", roots["baseline"]], input=archive.stdout, check=True)
        rows: dict[str, dict[str, float]] = {}
        for name, root in roots.items():  # also fills the caches of kernels and bytecode
            first = run(root, Path(folder) / f"{name}-kernels") if options.cold else {}
            rows |= {f"{name}, first run": first} if options.cold else {}
            run(root)
        taken: dict[str, list[dict[str, float]]] = {name: [] for name in roots}
        for _ in range(options.runs):
            for name, root in roots.items():
                taken[name].append(run(root))
    rows |= {name: {s: statistics.median(one[s] for one in runs) for s in STAGES} for name, runs in taken.items()}
    for name, row in rows.items():
        print(f"{name:<20}", "  ".join(f"{stage} {seconds:.2f} s" for stage, seconds in row.items()))
    ratio = rows["baseline"]["first_frame"] / rows["this"]["first_frame"] if options.baseline else None
    print(json.dumps({"benchmark": "startup", "runs": options.runs, "ratio": ratio and round(ratio, 2), **rows}))


if __name__ == "__main__":
    main()
