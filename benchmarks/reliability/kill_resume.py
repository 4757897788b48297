"""Killed again and again, and still the same world: `python -m benchmarks.reliability.kill_resume [--kills N] [--chunks
N]`.

A walk runs in a process of its own, which is killed (SIGKILL) after a random time and resumed, over and over, so that a
walk survives several kills; walks are started anew until the kills are used up. Every finished world is compared,
primitives, frames and random state, with one that never stopped. JSON line last.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from scenes.io.atomic_files import WorldError
from scenes.store.world_store import WorldStore

SETTINGS = [
    "path=pan:angle_deg=170", "size=[48,80]", "chunk=1", "depth=plane", "generator=passthrough", "viewer=none",
    "cache.resident_mib=0.6",  # so that some kills come while blocks are on disk
]  # fmt: skip
# A process that has loaded the libraries and forks for every walk: reads `SECONDS WORDS`, answers the exit status.
NURSERY = """
import os, signal, sys, time
import cache3d.gaussian_cache, scenes.store.world_store, worldwarp.commands, worldwarp.prepare, worldwarp.recording
from worldwarp.cli import main
for line in sys.stdin:
    limit, *words = line.split()
    deadline = time.monotonic() + float(limit)
    child = os.fork()
    if child == 0:
        null = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(null, stream)
        os._exit(main(words))
    done, status = os.waitpid(child, os.WNOHANG)
    while not done and time.monotonic() < deadline:
        time.sleep(0.001)
        done, status = os.waitpid(child, os.WNOHANG)
    if not done:
        os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


class Nursery:
    """Runs `worldwarp` in a process of its own, again and again."""

    def __init__(self) -> None:
        environment = os.environ | {"NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", NURSERY]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def run(self, words: list[str], limit_s: float) -> bool:
        """Run one command for at most some seconds; whether it had to be killed."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(" ".join([str(limit_s), *words]) + "\n")
        stdin.flush()
        code = int(stdout.readline())
        if code not in (0, -signal.SIGKILL):
            raise RuntimeError(f"`worldwarp {' '.join(words)}` ended with exit code {code}")
        return code != 0

    def close(self) -> None:
        """End it."""
        self._process.communicate()


def bits(folder: Path) -> list[torch.Tensor]:
    """Everything that a world holds."""
    world = WorldStore.load(folder)
    frames, primitives = world.frames(), world.primitives
    columns = [getattr(primitives, name) for name in primitives.__dataclass_fields__]
    return [frames.rgb, frames.depth, frames.valid, world.rng_state, *columns]


def chunks_of(folder: Path) -> int:
    """How many chunks are finished; 0 where there is no world yet."""
    try:
        return len(WorldStore.load(folder).chunks)
    except WorldError:
        if (folder / "world.json").exists():
            raise
        return 0


def main() -> None:
    """Walk once undisturbed, then with kills."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--chunks", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, nursery = random.Random(options.seed), Nursery()
    kills, worlds, chunks_at_kill = 0, 0, []
    with tempfile.TemporaryDirectory() as name, tqdm(total=options.kills, unit="kill") as bar:
        folder = Path(name)
        pixels = np.random.default_rng(0).integers(0, 255, (12, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((200, 120), Image.Resampling.BICUBIC).save(folder / "photo.png")
        begin = ["explore", f"image={folder}/photo.png", f"frames={options.chunks + 1}", *SETTINGS]
        nursery.run([*begin, f"out={folder}/warm"], 1e9)
        start = time.perf_counter()
        nursery.run([*begin, f"out={folder}/whole"], 1e9)
        whole_s, whole = time.perf_counter() - start, bits(folder / "whole")
        while kills < options.kills:
            out, more = folder / f"world{worlds}", True
            while more:
                finished = chunks_of(out)
                if finished == 0:
                    shutil.rmtree(out, ignore_errors=True)
                words = [*begin, f"out={out}"] if finished == 0 else ["explore", f"resume={out}", "viewer=none"]
                more = nursery.run(words, rng.uniform(0.0, 0.5 * whole_s) if kills < options.kills else 1e9)
                if more:
                    kills += 1
                    chunks_at_kill.append(chunks_of(out))
                    bar.update()
            if not all(torch.equal(a, b) for a, b in zip(whole, bits(out), strict=True)):
                raise SystemExit(f"world {worlds} differs from the one that never stopped")
            worlds += 1
    nursery.close()
    results = {
        "kills": kills,
        "worlds": worlds,
        "chunks": options.chunks,
        "different_moments": len(set(chunks_at_kill)),
        "before_the_first_chunk": chunks_at_kill.count(0),
        "undisturbed_s": whole_s,
        "equal_to_the_bit": True,
    }
    for key, value in results.items():
        print(f"{key:<24} {value}")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
