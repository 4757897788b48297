"""A few minutes of training on a GPU: `python -m benchmarks.speed.gpu_training pack LATENTS PACK [--mib 60]`, then on
the machine with the GPU `python -m benchmarks.speed.gpu_training train PACK OUT [--start MODEL] [--minutes 8]`.

`pack` copies held-out clips and as many others as fit, with the log of the run so far, so that little has to travel.
`train` goes on from a model (the packaged one if none is given) and leaves a new one in ``OUT/model``: errors of
held-out latents before, what the curve of the log foretells for as many samples as were seen, and the errors after.
`--rehearse` makes a few steps on whatever there is. JSON line last.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.quality.learning_curve import fit_law
from diffusion.wan.load import packaged_model
from scenes.dataset.clips import MANIFEST, list_clips
from worldwarp.training.accelerated import LOG, MODEL, Pace, train
from worldwarp.training.wan_diffuser import MEASURED, DiffuserStage

FORETOLD = ("in_holes_0.8", "elsewhere_0.8")  # figures of a validation
REHEARSED = 6  # steps


@dataclass(frozen=True)
class Curve:
    """Validations of a run: samples seen, and errors by figure."""

    samples: list[int]
    errors: dict[str, list[float]]

    @classmethod
    def read(cls, log: Path) -> Curve:
        """The validations of a ``log.jsonl``."""
        entries = [json.loads(line) for line in log.read_text().splitlines()]
        rows = [entry for entry in entries if entry["samples"] and FORETOLD[0] in entry.get("validation", {})]
        errors = {name: [row["validation"][name] for row in rows] for name in FORETOLD}
        return cls([row["samples"] for row in rows], errors)

    def after(self, more: int) -> dict[str, float]:
        """What the laws fitted to the curve foretell for so many more samples; nothing for fewer than five points."""
        if len(self.samples) < 5:
            return {}
        seen = np.array(self.samples, dtype=float)
        laws = {name: fit_law(seen, np.array(errors)) for name, errors in self.errors.items()}
        return {name: float(law(np.array(seen[-1] + more))) for name, law in laws.items()}


def pack(latents: Path, out: Path, mib: float, log: Path | None) -> int:
    """Copy held-out clips and then as many others as fit; returns how many clips there are."""
    out.mkdir(parents=True, exist_ok=True)
    others = [path for split in ("train", "estimated") for path in list_clips(latents, split)]
    order = np.random.default_rng(0).permutation(len(others))
    left, count = mib * 2**20, 0
    for path in [*list_clips(latents, "heldout")[:MEASURED], *(others[k] for k in order)]:
        left -= path.stat().st_size
        if left < 0.0:
            break
        shutil.copy(path, out)
        count += 1
    shutil.copy(latents / MANIFEST, out)
    if log is not None:
        shutil.copy(log, out / LOG)
    return count


def go_on(packed: Path, out: Path, start: Path, minutes: float, batch: int, rehearse: bool) -> dict[str, object]:
    """Train, and tell what was foretold and what came."""
    stage = DiffuserStage(packed, start=start)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network: Any = stage.network  # whose `to` is typed for other arguments
    with torch.no_grad():
        before = stage.validate(network.to(device).eval(), out)
    del stage
    pace = Pace(REHEARSED if rehearse else 10**6, batch, 3e-4, warmup=20, ema=0.998, minutes=minutes, checkpoint_s=60.0)
    started = time.monotonic()
    after = train(lambda: DiffuserStage(packed, start=start), pace, out)
    seconds = time.monotonic() - started
    samples = json.loads((out / "progress.json").read_text())["samples"]
    log = packed / LOG
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "samples": samples,
        "samples_per_s": samples / seconds,
        "before": {name: before[name] for name in FORETOLD},
        "foretold": Curve.read(log).after(samples) if log.exists() else {},
        "after": {name: after[name] for name in FORETOLD},
        "model": str(out / MODEL),
    }


def main() -> None:
    """Parse the command line, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True)
    packing = actions.add_parser("pack")
    packing.add_argument("latents", type=Path)
    packing.add_argument("out", type=Path)
    packing.add_argument("--mib", type=float, default=60.0)
    packing.add_argument("--log", type=Path)
    training = actions.add_parser("train")
    training.add_argument("packed", type=Path)
    training.add_argument("out", type=Path)
    training.add_argument("--start", type=Path, default=packaged_model())
    training.add_argument("--minutes", type=float, default=8.0)
    training.add_argument("--batch", type=int, default=64)
    training.add_argument("--rehearse", action="store_true")
    given = parser.parse_args()
    if given.action == "pack":
        print(json.dumps({"clips": pack(given.latents, given.out, given.mib, given.log)}))
    else:
        given.out.mkdir(parents=True, exist_ok=True)
        print(json.dumps(go_on(given.packed, given.out, given.start, given.minutes, given.batch, given.rehearse)))


if __name__ == "__main__":
    main()
