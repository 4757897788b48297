"""What is asked of the generator on held-out clips, and the table that says whether it is met.

Figures come as draws ``[1 + n]``: the mean, then that of each bootstrap draw of clips (`resampled`), the same draws for
every method, so that the interval of a difference or ratio is that of paired clips.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.data.hole_figures import BANDS

CLASSICAL = ("Telea", "pull-push", "prior")
METHODS = (*CLASSICAL, "generator")
DRAWS = 1000


def resampled(clips: int, draws: int = DRAWS) -> np.ndarray:
    """How often each clip is drawn, ``[1 + draws, clips]``; first every clip once, which gives the mean."""
    drawn = np.random.default_rng(0).multinomial(clips, np.full(clips, 1.0 / clips), draws)
    return np.concatenate([np.ones((1, clips)), drawn])


@dataclass(frozen=True)
class Goal:
    """A row of the table: a figure, what is best of it, and what is asked of the generator.

    ``loss`` falls as the figure gets better (None: the figure is itself a comparison with the prior); a bar is a text
    and a test of (generator, classical); ``against`` is how the generator is compared with the classical method.
    """

    title: str
    figure: str
    loss: Callable[[float], float] | None
    must: tuple[str, Callable[[float, float], bool]] | None = None
    goal: tuple[str, Callable[[float, float], bool]] | None = None
    against: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None


def _low(value: float) -> float:
    return value


def _high(value: float) -> float:
    return -value


def _like_truth(value: float) -> float:
    return abs(value - 1.0)


_WITHIN = (("within 25 %", lambda v, _: abs(v - 1.0) <= 0.25), ("within 10 %", lambda v, _: abs(v - 1.0) <= 0.10))
_SPECTRUM = (("≤ log 1.25", lambda v, _: v <= np.log(1.25)), ("≤ log 1.1", lambda v, _: v <= np.log(1.1)))
GOALS = [
    Goal(
        "wide: kernel distance", "kernel_distance", _low,
        ("≤ 0.8 x classical", lambda v, c: v <= 0.8 * c), ("≤ 0.4 x", lambda v, c: v <= 0.4 * c), np.divide,
    ),
    Goal("wide: seam / truth's", "seam", _like_truth, *_WITHIN),
    Goal("wide: repetition / truth's", "repetition", _like_truth, *_WITHIN),
    Goal("wide: contrast / truth's", "contrast", _like_truth, *_WITHIN),
    Goal("wide: spectrum, abs log ratio", "spectrum", _low, *_SPECTRUM),
    Goal(
        "thin: PSNR, dB", "thin_psnr", _high,
        ("≥ classical + 0.3", lambda v, c: v >= c + 0.3), ("≥ + 1.5", lambda v, c: v >= c + 1.5), np.subtract,
    ),
    Goal(
        "all holes: depth δ1", "hole_delta1", _high,
        ("≥ classical + .10", lambda v, c: v >= c + 0.10), ("≥ .88", lambda v, _: v >= 0.88), np.subtract,
    ),
    Goal(
        "wide: blind choice over prior", "choice", None,
        ("≥ .70", lambda v, _: v >= 0.70), ("≥ .90", lambda v, _: v >= 0.90),
    ),
    *(
        Goal(f"power / truth's, {low:.2f} to {high:.2f} cycles/px", f"octave{band}", _like_truth)
        for band, (low, high) in enumerate(BANDS)
    ),
    Goal("all holes: depth AbsRel", "hole_absrel", _low, against=np.subtract),
    Goal("all holes: PSNR, dB", "hole_psnr", _high, against=np.subtract),
]  # fmt: skip


def table(found: dict[str, dict[str, np.ndarray]]) -> list[str]:
    """Lines of Markdown."""
    columns = ["figure", *METHODS, "classical", "generator against classical", "must", "goal", "met: must, goal"]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in GOALS:
        values = {method: found[method][row.figure] for method in METHODS}
        best = best_classical(row, values)
        ours, classical = values["generator"], values[best]
        against = shown(row.against(ours, classical)) if row.against else ""
        bars = [bar for bar in (row.must, row.goal) if bar]
        met = ["yes" if test(float(ours[0]), float(classical[0])) else "no" for _, test in bars]
        asked = [text for text, _ in bars] or ["", ""]
        cells = [row.title, *map(shown, values.values()), best, against, *asked, ", ".join(met)]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def best_classical(row: Goal, values: dict[str, np.ndarray]) -> str:
    """The method that the generator is held against in this row."""
    loss = row.loss
    return "prior" if loss is None else min(CLASSICAL, key=lambda method: loss(float(values[method][0])))


def spread(draws: np.ndarray) -> float:
    """Half the width of the 95 % interval: 1.96 standard deviations of what was drawn."""
    return float(1.96 * np.nanstd(draws[1:]))


def shown(draws: np.ndarray) -> str:
    """Mean and interval."""
    return f"{draws[0]:.3f} ± {spread(draws):.3f}"
