"""Rendering against walking: `python -m benchmarks.speed.render [SIZE ...] [--path orbit:angle_deg=10] [--frames 49]`.

The bundled photo is walked along a path, as `worldwarp explore` does, without a viewer; then the finished world is
rendered along the same path at the same size, as `worldwarp render` does. Both are processes of their own, with
everything they need: start, photo and depth, plan, film. For each size (480x832 if none is given): wall and CPU seconds
of both, and by how much rendering is faster. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import worldwarp

PHOTO = Path(worldwarp.__file__).parent / "photos" / "pagoda.jpg"


def timed(words: list[str]) -> tuple[float, float]:
    """Wall and CPU seconds of a command."""
    begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "worldwarp.cli", *words], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return round(time.perf_counter() - begun, 1), round(cpu, 1)


def main() -> None:
    """Print a row per size, and last one JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("sizes", nargs="*", default=["480x832"])
    parser.add_argument("--path", default="orbit:angle_deg=10")
    parser.add_argument("--frames", type=int, default=49)
    given = parser.parse_args()
    rows = []
    for size in given.sizes:
        with tempfile.TemporaryDirectory() as folder:
            world = str(Path(folder) / "world")
            walk = [str(PHOTO), given.path, f"frames={given.frames}", f"size={size}", f"out={world}", "viewer=none"]
            walked = timed(["explore", *walk])
            rendered = timed(["render", world, given.path, f"frames={given.frames}"])
        ratios = [round(one / other, 2) for one, other in zip(walked, rendered, strict=True)]
        row = {"size": size, "walk_s": walked[0], "render_s": rendered[0], "times_faster": ratios[0]}
        rows.append(row | {"walk_cpu_s": walked[1], "render_cpu_s": rendered[1], "times_less_cpu": ratios[1]})
        print(*(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    print(json.dumps({"benchmark": "render", "path": given.path, "frames": given.frames, "rows": rows}))


if __name__ == "__main__":
    main()
