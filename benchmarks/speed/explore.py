"""End to end on this machine: `python -m benchmarks.speed.explore [chunks]`.

An out-and-back walk on the bundled photo with the packaged parts, no viewer, nothing stored. Tells frames per second in
steady state, time to the first new frame, whether the cost of a chunk stays flat (chunk 40 against chunk 5), and peak
memory. The baseline is the same walk without a generator (`generator=passthrough`).
"""

from __future__ import annotations

import json
import platform
import resource
import statistics
import sys
import time
from pathlib import Path

import torch

import worldwarp
from worldwarp.config import compose_config
from worldwarp.prepare import prepare

PHOTO = Path(worldwarp.__file__).parent / "photos" / "pagoda.jpg"


def walk(generator: str, chunks: int) -> tuple[float, list[float]]:
    """Seconds until the first chunk is done (after start-up), and seconds of each chunk."""
    frames = 8 * chunks + 1
    words = [f"image={PHOTO}", "path=out_and_back", f"frames={frames}", "size=[192,320]", "viewer=none"]
    session = prepare(compose_config("explore", [*words, f"generator={generator}"]))
    session.plan()
    start = time.perf_counter()
    seconds, last = [], start
    for _ in session.steps():
        now = time.perf_counter()
        seconds.append(now - last)
        last = now
    return seconds[0], seconds


def main() -> None:
    """Print a table and, last, one JSON line."""
    chunks = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    hardware = f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
    print(f"{hardware}, 192x320, {chunks} chunks of 8 frames")
    rows: dict[str, dict[str, float]] = {}
    for generator in ("passthrough", "retouch"):
        first, seconds = walk(generator, chunks)
        near = statistics.median(seconds[2:8])
        far = statistics.median(seconds[-min(8, len(seconds) // 3) :])
        rows[generator] = {
            "first_chunk_s": round(first, 2),
            "frames_per_s": round(8.0 / statistics.median(seconds[2:]), 2),
            "chunk_5_s": round(near, 2),
            "last_chunk_s": round(far, 2),
            "last_over_chunk_5": round(far / near, 2),
        }
        print(f"{generator:<12}", "  ".join(f"{key} {value}" for key, value in rows[generator].items()))
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    ratio = rows["retouch"]["frames_per_s"] / rows["passthrough"]["frames_per_s"]
    print(f"peak memory {peak_mib:.0f} MiB; retouch runs at {ratio:.2f}x the speed of passthrough")
    print(
        json.dumps(
            {"benchmark": "explore", "chunks": chunks, "peak_mib": round(peak_mib), "ratio": round(ratio, 2), **rows}
        )
    )


if __name__ == "__main__":
    main()
