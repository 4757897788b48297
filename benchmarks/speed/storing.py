"""What storing and recording take of the loop's time: `python -m benchmarks.speed.storing [HxW ...] [--chunks N]`.

An out-and-back walk on the bundled photo, stored and recorded into a file: once with the loop waiting for every chunk
to be stored and recorded, once with that beside the loop. Tells seconds per chunk of both, and the seconds per chunk
that the loop waits. JSON line last.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import worldwarp
from viz.rerun_recorder import open_recorder
from worldwarp.config import compose_config
from worldwarp.prepare import prepare
from worldwarp.recording import record_start, record_step

PHOTO = Path(worldwarp.__file__).parent / "photos" / "pagoda.jpg"


def walk(size: str, chunks: int, *, beside: bool) -> dict[str, float]:
    """Medians per chunk, seconds, the first chunk left out: in all, and what the loop waits for the disk and recorder.

    Args:
        size: ``HxW``.
        chunks: of 8 frames.
        beside: whether storing and recording run beside the loop; else each chunk is waited for.
    """
    words = [f"image={PHOTO}", "path=out_and_back", f"frames={8 * chunks + 1}", f"size={size}", "viewer=none"]
    session = prepare(compose_config("explore", words))
    session.plan()
    whole, waited = [], []
    with tempfile.TemporaryDirectory() as folder:
        session.store_in(Path(folder) / "world")
        recorder = open_recorder("file", Path(folder) / "recording.rrd")
        record_start(recorder, session)
        session.background.flush()
        last = time.perf_counter()
        for step in session.steps():
            record_step(recorder, session, step)
            if not beside:
                session.background.flush()
            now = time.perf_counter()
            whole.append(now - last)
            waited.append(now - last - sum(step.timings_s.values()))
            last = now
        recorder.close()
    return {"chunk_s": round(statistics.median(whole[1:]), 2), "waits_s": round(statistics.median(waited[1:]), 3)}


def main() -> None:
    """Print a row per size and way and, last, one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", nargs="*", default=["192x320", "480x832"])
    parser.add_argument("--chunks", type=int, default=6)
    given = parser.parse_args()
    rows = {}
    for size in given.sizes:
        for name, beside in (("waiting", False), ("beside", True)):
            rows[f"{size} {name}"] = row = walk(size, given.chunks, beside=beside)
            share = row["waits_s"] / row["chunk_s"]
            print(f"{size} {name:<8} {row['chunk_s']:.2f} s per chunk, {row['waits_s']:.3f} s ({share:.1%}) waiting")
    print(json.dumps({"benchmark": "storing", "chunks": given.chunks, **rows}))


if __name__ == "__main__":
    main()
