"""What the small video diffuser shows on held-out clips: `python -m benchmarks.quality.small_diffuser MODEL LATENTS
DATA [--teacher MODEL] [--clips N] [--seeds N] [--steps N] [--tables NAME,NAME...] [--out FOLDER] [--sheet FILE]`.

MODEL is a folder as ``generator.pretrained=`` takes it, LATENTS one of `worldwarp train latents` and DATA that of the
clips. Held-out takes are walked chunk after chunk by the parts of the generator (`benchmarks.data.small_walks`), and
their frames compared with those of the clip (`benchmarks.data.small_figures` defines the figures). Tables:

* ``diffuses``: distance of the results of two seeds in holes and in covered regions, and their ratio. `state`: the
  first chunk without a guide, from the truth at level .3 and from full noise; `state alone`: the former decoded.
* ``memory``: a chunk attends to the whole past, the photo alone, or the past in reversed order; ``unguided``: the same
  without a guide, where the past is all that a chunk can go by. Of the first two chunks.
* ``noise``: the shape of the noise map (`benchmarks.data.small_walks.noise_levels`). Whole clips.
* ``cache``: no guide, that of points and that of Gaussians; regions are those of Gaussians for all. Guides of points
  are recorded in LATENTS/points when they are missing. Of the first two chunks.
* ``steps``: MODEL, causal with memory, against ``--teacher`` with 50 steps, causal and all frames at once, on the first
  two chunks with one seed. Processor seconds of one thread, from the photo's latent to frames, with guides at hand:
  medians, and `sooner` and `throughput`, how many times those of MODEL are better. `kernel`: distance of features of
  whole frames from those of true frames (`benchmarks.data.patch_features.kernel_distance`).

Every figure is a mean over clips, after that over seeds, with half of its 95 % interval (Student's t) and the number of
clips that have it; differences are paired. Ratios have 95 % intervals by a bootstrap over clips. JSON line last.

``--out``: finished clips are kept there, so that the same call goes on, and calls for other tables may run beside it; a
folder for each model and number of steps. A clip takes about 8 processor seconds for each seed, and 10 for the teacher.

``--sheet``: six clips, a row each: truth, guide and results of two seeds, in the last frames of the first two chunks.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.data.patch_features import PatchFeatures
from benchmarks.data.small_figures import Judge, Rows
from benchmarks.data.small_session import POINTS, Session, Setting, Walk
from benchmarks.data.small_walks import NOISE_MAPS, PASTS, Take, Walker, timed
from cache3d.point_cache import PointCache
from diffusion.flow import add_noise
from diffusion.wan.schedule import draw
from diffusion.wan.tokens import FRAMES_PER_LATENT
from scenes.dataset.clips import list_clips
from scenes.io.png import write_rgb_png
from worldwarp.training.wan_latents import record_clips

STATE = 0.3  # level of the state that must be read
TEACHER_STEPS = 50
SHOWN = 6  # clips of the sheet


def diffuses(session: Session, rows: Rows) -> None:
    """Two seeds, and a state without a guide."""
    results = [session.frames(Walk(), seed) for seed in session.seeds]
    for one, other in combinations(results, 2):
        rows.add("seeds", session.take.name, session.judge.apart(one, other))
    walker, chunk = session.setting.walker, session.setting.walker.recipe.chunk
    take = session.take.first(1 + chunk)
    for seed in session.seeds:
        noise = draw(take.clean, torch.Generator().manual_seed(seed))
        level = torch.full_like(take.clean[:, :1], STATE)
        state = add_noise(take.clean, noise, level)
        truth = replace(take, guide=take.clean)  # noised to the level by the sampler
        made = {
            "state": torch.cat([*walker.chunks(truth, level, None, seed)]),
            "full noise": torch.cat([*walker.chunks(truth, torch.ones_like(level), None, seed)]),
            "state alone": state[1:],
        }
        for row, latents in made.items():
            off = (walker.frames(take, latents) - take.clip.rgb)[1:].square().mean()
            rows.add(row, take.name, {"psnr": -10.0 * float(off.log10())})


def memory(session: Session, rows: Rows) -> None:
    """Kinds of past."""
    _compare(session, rows, {past: Walk(past=past) for past in PASTS})


def unguided(session: Session, rows: Rows) -> None:
    """Kinds of past without a guide."""
    _compare(session, rows, {past: Walk(past=past, cache="none") for past in PASTS})


def noise(session: Session, rows: Rows) -> None:
    """Kinds of noise maps."""
    _compare(session, rows, {kind: Walk(noise=kind) for kind in NOISE_MAPS})


def cache(session: Session, rows: Rows) -> None:
    """Kinds of guides."""
    _compare(session, rows, {kind: Walk(cache=kind) for kind in ("none", "points", "gaussians")})


def _compare(session: Session, rows: Rows, walks: dict[str, Walk]) -> None:
    for row, walk in walks.items():
        for seed in session.seeds:
            rows.add(row, session.take.name, session.figures(walk, seed))
    rows.add("decoded truth", session.take.name, session.decoded_truth)


def steps(session: Session, rows: Rows) -> None:
    """Seconds, figures and features of model and teacher."""
    setting, take = session.setting, session.take.first(1 + 2 * session.setting.walker.recipe.chunk)
    assert setting.teacher is not None
    judge = Judge(take, setting.features, setting.walker.recipe.chunk)
    runs = {
        "student": timed(setting.walker, take, 0, causal=True),
        "teacher": timed(setting.teacher, take, 0, causal=False),
        "causal teacher": timed(setting.teacher, take, 0, causal=True),
    }
    for row, run in runs.items():
        rows.add(row, take.name, judge.figures(run.frames))
        rows.add(row, take.name, {"first_s": run.first_s, "frames_per_s": (len(run.frames) - 1) / run.whole_s})
    for row, shown in {"truth": take.clip.rgb, **{row: run.frames for row, run in runs.items()}}.items():
        features = setting.features(shown[FRAMES_PER_LATENT::FRAMES_PER_LATENT])
        rows.features.setdefault(row, []).append(features)


TABLES: dict[str, Callable[[Session, Rows], None]] = {
    "diffuses": diffuses,
    "memory": memory,
    "unguided": unguided,
    "noise": noise,
    "cache": cache,
    "steps": steps,
}
REFERENCES = {"diffuses": "full noise", "memory": "whole", "unguided": "whole", "noise": "uniform", "cache": "none"}
_PAST = ("psnr_covered@2", "psnr_hole@2", "border", "border_over_inside", "border_hole", "border_over_inside_hole")
COLUMNS = {
    "diffuses": ("perceptual_hole", "perceptual_covered", "rms_hole", "rms_covered", "rms", "psnr"),
    "memory": _PAST,
    "unguided": _PAST,
    "noise": tuple(
        f"{name}@{k}" for k in (1, 2, 3, 5) for name in ("psnr_covered", "psnr_hole", "perceptual_hole", "warp")
    ),
    "cache": ("psnr_covered", "psnr_hole", "perceptual_hole", "warp", "psnr_covered@2", "psnr_hole@2"),
    "steps": ("first_s", "frames_per_s", "psnr_covered", "psnr_hole", "perceptual_hole", "warp"),
}


def summary(table: str, rows: Rows) -> dict[str, Any]:
    """What is known of a table; see the module."""
    if not rows.values:
        return {}
    found: dict[str, Any] = {"rows": rows.summary()}
    if table in REFERENCES:
        found["differences"] = {"from": REFERENCES[table], **rows.differences(REFERENCES[table])}
    if table == "diffuses":
        for kind in ("perceptual", "rms"):
            found[f"{kind}_hole_over_covered"] = rows.ratio("seeds", f"{kind}_hole", f"{kind}_covered")
    if table == "steps":
        for name in ("first_s", "frames_per_s"):
            found[name] = {row: median(rows.by_clip(row, name).values()) for row in rows.values}
        found["sooner"] = {row: value / found["first_s"]["student"] for row, value in found["first_s"].items()}
        found["throughput"] = {
            row: found["frames_per_s"]["student"] / value for row, value in found["frames_per_s"].items()
        }
        found["kernel"] = {row: rows.kernel(row) for row in rows.values}
        found["kernel_over_teacher"] = {row: rows.kernel("student", row) for row in ("teacher", "causal teacher")}
    return found


def printed(table: str, found: dict[str, Any]) -> None:
    """Print the main columns in Markdown, and whatever is no row."""
    columns = COLUMNS[table]
    print(f"\n{table}\n| row | " + " | ".join(columns) + " |\n|" + "---|" * (len(columns) + 1))
    for kind in ("rows", "differences"):
        for row, figures in found.get(kind, {}).items():
            if row == "from":
                print(f"| less {figures}: |" + " |" * len(columns))
                continue
            cells = (figures.get(name) for name in columns)
            print(f"| {row} | " + " | ".join(f"{c[0]:.4f} ± {c[1]:.4f}" if c else "-" for c in cells) + " |")
    for name in found.keys() - {"rows", "differences"}:
        print(name, _rounded(found[name]))


def sheet_row(session: Session) -> Tensor:
    """Truth, guide and two results side by side, in the last frames of the first two chunks, ``[3 h w]``."""
    walker, take = session.setting.walker, session.take
    guide = walker.frames(take, take.guide[1:])
    made = [session.frames(Walk(), seed) for seed in (0, 1)]
    last = FRAMES_PER_LATENT * walker.recipe.chunk
    columns = [shown[k] for k in (last, 2 * last) for shown in (take.clip.rgb, guide, *made)]
    return torch.cat(columns, -1)


def _rounded(value: Any) -> Any:
    """With five significant digits; what is not finite becomes None."""
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_rounded(part) for part in value]
    if isinstance(value, float):
        return float(f"{value:.5g}") if np.isfinite(value) else None
    return value


def measured(
    setting: Setting, clips: Sequence[Path], tables: Sequence[str], out: Path | None, sheet: Path | None
) -> dict[str, dict[str, Any]]:
    """The chosen tables over all clips; the sheet is written when its last clip is done."""
    rows = {table: Rows() for table in tables}
    shown = {k * len(clips) // SHOWN for k in range(SHOWN)} if sheet else set()
    pictures: list[Tensor] = []
    for number, path in enumerate(tqdm(clips, unit="clip")):
        session = Session(setting, Take.read(setting.latents, path), path)
        for table in tables:
            rows[table].join(_counted(session, table, out))
        if number in shown:
            pictures.append(sheet_row(session))
    if sheet:
        write_rgb_png(sheet, torch.cat(pictures, -2).clamp(0.0, 1.0))
    return {table: summary(table, rows[table]) for table in tables}


def _counted(session: Session, table: str, out: Path | None) -> Rows:
    """One clip of one table, kept in ``out`` or to be found there."""
    kept = None if out is None else out / f"{table}-{session.take.name}-{session.setting.seeds}.json"
    if kept is not None and kept.is_file():
        return Rows.read(kept)
    rows = Rows()
    TABLES[table](session, rows)
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        rows.write(kept)
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables in Markdown, end with one JSON line."""
    parser = argparse.ArgumentParser(description="What the small video diffuser shows on held-out clips")
    parser.add_argument("model", type=Path)
    parser.add_argument("latents", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--teacher", type=Path)
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="of MODEL; by default those of its line")
    parser.add_argument("--tables", default=",".join(TABLES))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--sheet", type=Path)
    given = parser.parse_args(arguments)
    tables = given.tables.split(",")
    if unknown := set(tables) - TABLES.keys():
        parser.error(f"--tables: want some of {', '.join(TABLES)}, got {', '.join(sorted(unknown))}")
    if given.teacher is None and "steps" in tables:
        parser.error("--tables: steps wants --teacher")
    if given.seeds < 2:
        parser.error(f"--seeds: want at least 2, got {given.seeds}")
    torch.set_num_threads(1)
    clips = [path for path in list_clips(given.data, "heldout") if (given.latents / path.name).is_file()][: given.clips]
    if "cache" in tables:
        record_clips(clips, given.model, given.latents / POINTS, make_cache=PointCache)
    timed_against = given.teacher if "steps" in tables else None
    teacher = None if timed_against is None else Walker(timed_against, TEACHER_STEPS)
    setting = Setting(Walker(given.model, given.steps), teacher, given.latents, given.seeds, PatchFeatures())
    found = measured(setting, clips, tables, given.out, given.sheet)
    for table in tables:
        printed(table, found[table])
    line = {"benchmark": "small_diffuser", "clips": len(clips), "seeds": given.seeds, "steps": given.steps}
    print(json.dumps({**line, "tables": _rounded(found)}))


if __name__ == "__main__":
    main()
