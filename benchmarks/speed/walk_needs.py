"""What a walk takes against what was foretold: `python -m benchmarks.speed.walk_needs [HxW ...] [--frames N]
[key=value]`.

Each size is walked on the bundled photo in a process of its own, stored and recorded; tells peak memory and the size of
the folder beside the estimates of `worldwarp.needs`. JSON line last.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import worldwarp

PHOTO = Path(worldwarp.__file__).parent / "photos" / "pagoda.jpg"
MIB_OF = {"MiB": 1.0, "GiB": 1024.0}


def walk(size: tuple[int, int], frames: int, words: list[str], folder: Path) -> dict[str, float]:
    """Walk once; estimates and measurements, MiB."""
    command = [sys.executable, "-m", "worldwarp.cli", "explore", f"image={PHOTO}", "path=orbit", "viewer=file",
               f"size=[{size[0]},{size[1]}]", f"frames={frames}", f"out={folder}", *words]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} ended with status {status}")
    numbers = re.findall(r"(memory|disk) about ([\d.]+) (MiB|GiB)", told)
    foretold = {f"{what}_foretold_mib": float(number) * MIB_OF[unit] for what, number, unit in numbers}
    parts = {path.name: _bytes(path) / 2**20 for path in folder.iterdir()}
    print("  ".join(f"{name} {mib:.1f}" for name, mib in sorted(parts.items()) if mib > 0.05))
    return foretold | {"memory_mib": usage.ru_maxrss / 1024, "disk_mib": sum(parts.values())}


def _bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file())


def main() -> None:
    """Print a row per size and, last, one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", nargs="*", default=["192x304", "480x720"])
    parser.add_argument("--frames", type=int, default=17)
    options, words = parser.parse_known_args()
    words += [size for size in options.sizes if "=" in size]
    rows = {}
    for text in (size for size in options.sizes if "=" not in size):
        height, width = (int(side) for side in text.split("x"))
        with tempfile.TemporaryDirectory() as folder:
            rows[text] = walk((height, width), options.frames, words, Path(folder) / "world")
        print(text, "  ".join(f"{key} {value:.0f}" for key, value in rows[text].items()))
    print(json.dumps({"benchmark": "walk_needs", "frames": options.frames, **rows}))


if __name__ == "__main__":
    main()
