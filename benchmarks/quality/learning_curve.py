"""What more frames would give: `python -m benchmarks.quality.learning_curve LOG... [--frames-per-step N] [--picture
FILE]`.

Each log is the ``log.jsonl`` of a leg of one training; a leg begins where the one before ended. Validation errors in
holes (`made_depth`, `made_color`, against those of the prior) are fitted over the frames of target seen with

    error(n) = floor + scale * n ** -power,   floor, scale >= 0

and carried on to 10 and 100 times the frames. Every leg has a schedule of its own: its error rises when the learning
rate does and falls with it, so that only errors from the *end* of a leg are comparable with each other. The fit that
counts is therefore of each leg's last quarter, where the rate falls; the one of all points stands beside it to show
what the schedule does to it. Intervals (95 %) are from fits to points drawn with
replacement. Points of one leg follow each other and stand on the same held-out clips, and whatever the weights saw
before the first log is not counted: the true intervals are wider.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw
from scipy.optimize import minimize_scalar, nnls
from tqdm import tqdm

from worldwarp.training.train_generator import FULL

FIGURES = ("depth", "color")
TAIL = 0.75  # share of a leg after which its points count
FARTHER = (1, 10, 100)
POWERS = (0.02, 2.0)
DRAWS = 500
INK, PALE, BAND, PRIOR = (31, 119, 180), (170, 190, 205), (215, 230, 242), (190, 60, 60)
PANEL = (520, 340)
MARGIN = (64, 36, 16, 44)  # left, top, right, bottom


@dataclass(frozen=True)
class Points:
    """Validations of one training, in order.

    Attributes:
        frames: frames of target seen before each, over all legs.
        leg: the leg of each.
        share: how far its leg was, 0..1.
        error: by figure and ``made`` or ``prior``.
    """

    frames: Float[np.ndarray, "n"]
    leg: Float[np.ndarray, "n"]
    share: Float[np.ndarray, "n"]
    error: dict[str, Float[np.ndarray, "n"]]


@dataclass(frozen=True)
class Law:
    """``floor + scale * frames ** -power``."""

    floor: float
    scale: float
    power: float

    def __call__(self, frames: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
        """The error after so many frames."""
        return self.floor + self.scale * frames**-self.power


@dataclass(frozen=True)
class Fit:
    """A law, and others fitted to points drawn with replacement."""

    law: Law
    others: list[Law]
    points: int

    def interval(self, frames: float) -> tuple[float, float]:
        """95 % interval of the error after so many frames."""
        return _interval([float(law(np.array(frames))) for law in self.others])


def read_legs(logs: list[Path], frames_per_step: int | None) -> Points:
    """Read consecutive legs, each of which counts as one that reached its end.

    Raises:
        ValueError: a log without validations of the generator, or without samples when ``frames_per_step`` is None.
    """
    rows: list[tuple[float, float, float, dict[str, float]]] = []
    before = 0
    for leg, log in enumerate(logs):
        entries = [json.loads(line) for line in log.read_text().splitlines()]
        # A run that was interrupted repeats what it had not saved: the later entry counts.
        found = {entry["step"]: entry for entry in entries if "made_depth" in entry.get("validation", {})}
        if not found:
            raise ValueError(f"log: want validations with made_depth, got none in {log}; give a generator's log.jsonl")
        last = max(found)
        for step, entry in sorted(found.items()):
            if frames_per_step is None and "samples" not in entry:
                raise ValueError(f"log: want samples in each entry, got none in {log}; do give --frames-per-step")
            frames = entry["samples"] * FULL.targets if frames_per_step is None else step * frames_per_step
            rows.append((before + frames, leg, step / last, entry["validation"]))
        before = int(rows[-1][0])
    frames, legs, shares = (np.array([row[i] for row in rows], dtype=float) for i in range(3))
    names = [f"{who}_{figure}" for figure in FIGURES for who in ("made", "prior")]
    return Points(frames, legs, shares, {name: np.array([row[3][name] for row in rows]) for name in names})


def fit_law(frames: Float[np.ndarray, "n"], error: Float[np.ndarray, "n"]) -> Law:
    """Least squares; floor and scale are linear, so that only the power is searched."""

    def solved(log_power: float) -> tuple[np.ndarray, float]:
        columns = np.stack([np.ones_like(frames), (frames / frames[0]) ** -np.exp(log_power)], axis=1)
        return nnls(columns, error)

    grid = np.linspace(np.log(POWERS[0]), np.log(POWERS[1]), 40)
    best = int(np.argmin([solved(at)[1] for at in grid]))
    around = (grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)])
    nearest: Any = minimize_scalar(lambda at: solved(at)[1], bounds=around, method="bounded")
    floor, scale = solved(nearest.x)[0]
    power = float(np.exp(nearest.x))
    return Law(float(floor), float(scale) * float(frames[0]) ** power, power)


def fit(frames: Float[np.ndarray, "n"], error: Float[np.ndarray, "n"], draws: int) -> Fit:
    """Fit, and fit again to points drawn with replacement.

    Raises:
        ValueError: fewer than five points; three parameters go through three of them, whatever they are.
    """
    if len(frames) < 5:
        raise ValueError(f"points: want at least 5 to fit, got {len(frames)}; give longer logs")
    rng = np.random.default_rng(0)
    others = []
    while len(others) < draws:
        drawn = rng.integers(len(frames), size=len(frames))
        if len(set(drawn.tolist())) > 3:
            others.append(fit_law(frames[drawn], error[drawn]))
    return Fit(fit_law(frames, error), others, len(frames))


def told(fit: Fit, frames: float) -> dict[str, object]:
    """A fit in figures, each with its interval."""
    found: dict[str, object] = {"points": fit.points}
    for name in ("floor", "power"):
        found[name] = [getattr(fit.law, name), *_interval([getattr(law, name) for law in fit.others])]
    for times in FARTHER:
        found[f"x{times}"] = [float(fit.law(np.array(times * frames))), *fit.interval(times * frames)]
    return found


def draw(points: Points, fits: dict[str, Fit]) -> Image.Image:
    """One panel per figure: points (pale: while the rate is high), the law of the ends, its interval, the prior."""
    sheet = Image.new("RGB", (len(fits) * PANEL[0], PANEL[1]), "white")
    for place, (figure, found) in enumerate(fits.items()):
        sheet.paste(_panel(points, figure, found), (place * PANEL[0], 0))
    return sheet


def _panel(points: Points, figure: str, found: Fit) -> Image.Image:
    made, prior = points.error[f"made_{figure}"], float(points.error[f"prior_{figure}"][-1])
    image = Image.new("RGB", PANEL, "white")
    pen = ImageDraw.Draw(image)
    left, top, right, bottom = MARGIN
    span = np.log10([points.frames[0] / 1.5, FARTHER[-1] * points.frames[-1] * 1.2])
    late = np.geomspace(points.frames[points.share >= TAIL].min(), FARTHER[-1] * points.frames[-1], 120)
    band = np.array([found.interval(float(n)) for n in late])
    low = min(float(made.min()), float(band[-1].min()))
    high = max(float(made.max()), prior)
    low, high = low - 0.05 * (high - low), high + 0.05 * (high - low)

    def at(frames: float, error: float) -> tuple[float, float]:
        x = left + (np.log10(frames) - span[0]) / (span[1] - span[0]) * (PANEL[0] - left - right)
        y = top + (high - min(max(error, low), high)) / (high - low) * (PANEL[1] - top - bottom)
        return float(x), float(y)

    edge = [at(n, e) for n, e in zip(late, band[:, 0], strict=True)]
    edge += [at(n, e) for n, e in zip(late[::-1], band[::-1, 1], strict=True)]
    pen.polygon(edge, fill=BAND)
    for power in range(int(np.ceil(span[0])), int(span[1]) + 1):
        x, y = at(10.0**power, low)
        pen.line([(x, top), (x, y)], fill=(235, 235, 235))
        pen.text((x, y + 6), f"1e{power}", fill="black", anchor="mt")
    for error in np.linspace(low, high, 5):
        pen.text((left - 6, at(late[0], error)[1]), f"{error:.3f}", fill="black", anchor="rm")
    pen.line([(left, at(late[0], prior)[1]), at(late[-1], prior)], fill=PRIOR, width=2)
    pen.line([at(n, e) for n, e in zip(late, found.law(late), strict=True)], fill=INK, width=2)
    for n, error, share in zip(points.frames, made, points.share, strict=True):
        x, y = at(n, error)
        pen.ellipse([x - 3, y - 3, x + 3, y + 3], fill=INK if share >= TAIL else PALE)
    pen.rectangle([left, top, PANEL[0] - right, PANEL[1] - bottom], outline=(120, 120, 120))
    pen.text((left, 10), f"{figure} error in holes; red: the prior; pale: early in a leg", fill="black")
    pen.text((PANEL[0] / 2, PANEL[1] - 14), "frames of target seen", fill="black", anchor="mm")
    return image


def _interval(values: list[float]) -> tuple[float, float]:
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _shown(value: object) -> str:
    if not isinstance(value, list):
        return str(value)
    return f"{value[0]:.4f} [{value[1]:.4f}, {value[2]:.4f}]"


def main() -> None:
    """Fit, draw and tell."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n\n")[0])
    parser.add_argument("logs", nargs="+", type=Path, metavar="LOG")
    parser.add_argument("--frames-per-step", type=int, help="of logs that do not count samples: all processes together")
    parser.add_argument("--picture", type=Path, default=Path("runs") / "learning_curve.png")
    options = parser.parse_args()
    points = read_legs(options.logs, options.frames_per_step)
    ends = [int(np.flatnonzero(points.leg == leg)[-1]) for leg in range(len(options.logs))]
    print(_row(["end of leg", "frames", *points.error]))
    print(_row(["---"] * (2 + len(points.error))))
    for leg, at in enumerate(ends):
        cells = [f"{error[at]:.4f}" for error in points.error.values()]
        print(_row([str(leg + 1), f"{points.frames[at]:.0f}", *cells]))
    seen, late = float(points.frames[-1]), points.share >= TAIL
    span = float(points.frames[late].max() / points.frames[late].min())
    print(f"\nthe ends of legs span {span:.1f}-fold frames: what lies far beyond that is a guess within its interval")
    sets = {"ends of legs": late, "all points": np.ones_like(late)}
    fits = {
        (figure, name): fit(points.frames[chosen], points.error[f"made_{figure}"][chosen], DRAWS)
        for figure, (name, chosen) in tqdm([(f, s) for f in FIGURES for s in sets.items()], desc="fits")
    }
    table = {key: told(found, seen) for key, found in fits.items()}
    columns = list(next(iter(table.values())))
    print()
    print(_row(["error", "fitted to", "prior", *columns]))
    print(_row(["---"] * (3 + len(columns))))
    for (figure, name), row in table.items():
        prior = f"{points.error[f'prior_{figure}'][-1]:.4f}"
        print(_row([figure, name, prior, *(_shown(row[column]) for column in columns)]))
    options.picture.parent.mkdir(parents=True, exist_ok=True)
    draw(points, {figure: fits[figure, "ends of legs"] for figure in FIGURES}).save(options.picture)
    laws = {f"{figure}, {name}": {**row, **asdict(fits[figure, name].law)} for (figure, name), row in table.items()}
    result = {"frames": seen, "span_of_ends": round(span, 2), "picture": str(options.picture), "fits": laws}
    print(json.dumps({"benchmark": "learning_curve", **result}))


if __name__ == "__main__":
    main()
