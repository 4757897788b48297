"""Noise levels from 1 to 0, for each token, and the loop that follows them.

A level is a ``sigma`` of flow matching (`diffusion.flow`); a model is told the timestep ``1000 * sigma``. A schedule is
a falling list of levels that ends at 0. `token_rows` gives every token its own version of it: a token that starts at a
lower level waits until the schedule reaches it (``hold``), or follows a schedule scaled to its start (``scale``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import ceil
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion.flow import add_noise, step

Predict = Callable[[Tensor, Tensor], Tensor]


def shifted(level: Float[Tensor, "*b"], shift: float) -> Float[Tensor, "*b"]:
    """Move levels towards 1 for a ``shift`` above 1; 0 and 1 stay (Esser et al., arXiv 2403.03206, equation 23)."""
    return shift * level / (1.0 + (shift - 1.0) * level)


def schedule_levels(
    steps: int | Sequence[float], shift: float, *, warped: bool = True, last: float = 0.0
) -> Float[Tensor, "r"]:
    """The levels of a schedule, float64; the last one is 0.

    Args:
        steps: a number of even steps, or falling timesteps in 0..1000 as they are published.
        shift: of the table of levels; positive.
        warped: whether the timesteps are places in the shifted table (750 is level .9375 for shift 5). If not, each is
            taken as the nearest of the 1000 levels of that table.
        last: place of the last even step before the shift; 0: one step short of 0. The table of diffusers' scheduler
            ends at its own shifted ``1 / 1000``.

    Raises:
        ValueError: for no step, timesteps that do not fall inside 0..1000, or a shift that is not positive.
    """
    if shift <= 0.0:
        raise ValueError(f"shift: want a positive number, got {shift}")
    if isinstance(steps, int):
        if steps < 1:
            raise ValueError(f"steps: want at least 1, got {steps}")
        even = torch.linspace(1.0, 0.0, steps + 1, dtype=torch.float64)[:-1]
        places = torch.linspace(1.0, last, steps, dtype=torch.float64) if last > 0.0 else even
    else:
        places = torch.tensor([*steps], dtype=torch.float64) / 1000.0
        if len(places) == 0 or places[0] > 1.0 or places[-1] <= 0.0 or (places.diff() >= 0.0).any():
            raise ValueError(f"steps: want falling timesteps in 0..1000 without 0, got {[*steps]}")
    if warped:
        levels = shifted(places, shift)
    else:
        table = shifted(torch.linspace(1.0, 0.0, 1001, dtype=torch.float64)[:-1], shift)
        levels = table[(table[None] - places[:, None]).abs().argmin(1)]
    return torch.cat([levels, levels.new_zeros(1)])


def staggered(levels: Float[Tensor, "r"], frames: int, lag: float) -> Float[Tensor, "rows {frames}"]:
    """A schedule for each frame, ``lag`` steps behind that of the frame before it (Diffusion Forcing).

    Between two levels it is linear; for whole lags and even steps it is `diffusion.sampler.schedule_matrix`.

    Args:
        levels: the schedule of the first frame.
        frames: number of frames.
        lag: 0 treats all frames alike.

    Raises:
        ValueError: a negative lag.
    """
    if lag < 0.0:
        raise ValueError(f"lag: want 0 or more steps, got {lag}")
    steps = len(levels) - 1
    rows = torch.arange(steps + ceil(lag * (frames - 1)) + 1, dtype=torch.float64)
    place = (rows[:, None] - lag * torch.arange(frames)[None]).clamp(0.0, steps)
    before = place.floor().long()
    return torch.lerp(levels[before], levels[(before + 1).clamp(max=steps)], place - before)


def token_rows(
    rows: Float[Tensor, "r f"], start: Float[Tensor, "f 1 h w"], mode: Literal["hold", "scale"] = "hold"
) -> Float[Tensor, "r f 1 h w"]:
    """The level of each token in each row of a schedule; float32.

    Args:
        rows: the schedule of each frame.
        start: level at which a token begins; 0 stays 0.
        mode: ``hold``: the smaller of start and row, so that the token waits; ``scale``: their product.
    """
    row = rows.to(start)[:, :, None, None, None]
    return torch.minimum(start, row) if mode == "hold" else start * row


def denoise(
    predict: Predict,
    noisy: Float[Tensor, "f c h w"],
    rows: Float[Tensor, "r f 1 h w"],
    renoise: torch.Generator | None = None,
) -> Float[Tensor, "f c h w"]:
    """Follow the rows of levels down.

    Args:
        predict: clean latents, given noisy latents and their levels ``[f 1 h w]``.
        noisy: latents at the levels of the first row.
        rows: falling levels; elements whose level does not change keep their bits, those that reach 0 are what
            ``predict`` gave there.
        renoise: source of fresh noise for models that were distilled to jump: the clean prediction is noised to the
            next level. One draw per transition that does not end at 0 everywhere, in order. None: an Euler step.
    """
    for now, then in pairwise(rows):
        if torch.equal(now, then):
            continue
        clean = predict(noisy, now)
        if renoise is None:
            noisy = step(noisy, clean, now, then)
            continue
        moved = add_noise(clean, draw(noisy, renoise), then) if then.any() else clean
        noisy = torch.where(then < now, moved, noisy)
    return noisy


def draw(like: Float[Tensor, "*b"], rng: torch.Generator) -> Float[Tensor, "*b"]:
    """Normal noise of the shape, type and device of ``like``, drawn on the generator's device."""
    return torch.randn(like.shape, generator=rng, dtype=like.dtype, device=rng.device).to(like.device)


def blended(
    predict: Predict, guide: Float[Tensor, "f c h w"], level: Float[Tensor, "f 1 h w"]
) -> Callable[[Tensor, Tensor], Tensor]:
    """Let ``guide`` replace the share ``1 - level`` of each prediction: for models that know one level for all tokens.

    Where the level is 0 the result of a schedule is exactly the guide.
    """

    def mixed(noisy: Tensor, now: Tensor) -> Tensor:
        return (1.0 - level) * guide + level * predict(noisy, now)

    return mixed
