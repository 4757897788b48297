"""Sampling inside training: chunk by chunk, each after the finished chunks before it, as the loop does it.

All chunks of a clip are in one pass of the transformer, under a mask; in use they attend to recorded keys and values
(`diffusion.wan.attention`), which gives the same. What is random comes in as an argument, so that a step of a training
depends on its number alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from diffusion.flow import add_noise
from diffusion.wan.lines import Line
from diffusion.wan.masked import block_causal
from diffusion.wan.schedule import schedule_levels

Predict = Callable[[Tensor, Tensor, Tensor, Bool[Tensor, "f f"]], Tensor]


def student_levels(line: Line) -> list[float]:
    """Levels of the steps of a few-step line, from 1 to 0."""
    return schedule_levels(line.steps if isinstance(line.steps, int) else [*line.steps], line.shift).tolist()


def chunk_of(frames: int, size: int) -> list[int]:
    """The chunk of each latent of a clip: 0 is the photo, then ``size`` latents each."""
    return [0, *(1 + k // size for k in range(frames - 1))]


def roll_out(
    predict: Predict,
    line: Line,
    guide: Float[Tensor, "b f c h w"],
    extra: Float[Tensor, "b f e h w"],
    start: Float[Tensor, "b f 1 h w"],
    noise: Float[Tensor, "b s f c h w"],
    stop: int | None = None,
) -> Float[Tensor, "b f c h w"]:
    """Latents of clips as a few-step model makes them; the first one, the photo, is that of the guide.

    Args:
        predict: clean latents, given latents of a beginning of the clip, their levels, their further channels, and
            which latent sees which.
        line: chunk, steps and shift; noise is drawn afresh after each step (``renoise``).
        guide: latents of what the world shows.
        extra: further channels of the guide (`guide_channels`), zero for the photo.
        start: level at which each token starts; 0 for the photo.
        noise: for the start and for each step but the last.
        stop: step, from 0, whose prediction ends every chunk; only it has gradients, as in Self Forcing (Huang et al.,
            arXiv 2506.08009). None: the last, and gradients as they are.
    """
    levels = student_levels(line)
    blocks = chunk_of(guide.shape[1], line.chunk)
    made = guide[:, :1]
    for chunk in range(1, max(blocks) + 1):
        first, end = blocks.index(chunk), len(blocks) - blocks[::-1].index(chunk)
        own = slice(first, end)
        # Finished latents are told without their guides, as the loop remembers them.
        clean = made if stop is None else made.detach()
        past = [torch.zeros_like(part[:, :first]) for part in (extra, start)]
        more = torch.cat([past[0], extra[:, own]], 1)
        sees = block_causal(blocks[:end]).to(guide.device)
        follow = _Following(predict, clean, past[1], more, sees)
        state = _sampled(follow, levels, guide[:, own], start[:, own], noise[:, :, own], stop)
        made = torch.cat([made, state], 1)
    return made


@dataclass(frozen=True)
class _Following:
    """Predicts the clean latents of a chunk after finished ones."""

    predict: Predict
    finished: Float[Tensor, "b p c h w"]
    past: Float[Tensor, "b p 1 h w"]
    extra: Float[Tensor, "b f e h w"]
    sees: Bool[Tensor, "f f"]

    def __call__(self, state: Float[Tensor, "b n c h w"], level: Float[Tensor, "b n 1 h w"]) -> Tensor:
        rows = torch.cat([self.past, level], 1)
        made = self.predict(torch.cat([self.finished, state], 1), rows, self.extra, self.sees)
        return made[:, self.past.shape[1] :]


def _sampled(
    follow: _Following,
    levels: list[float],
    guide: Float[Tensor, "b n c h w"],
    start: Float[Tensor, "b n 1 h w"],
    noise: Float[Tensor, "b s n c h w"],
    stop: int | None,
) -> Float[Tensor, "b n c h w"]:
    """The clean latents of one chunk after the last step, or after ``stop``."""
    level = start.clamp(max=levels[0])
    state = add_noise(guide, noise[:, 0], level)
    last = len(levels) - 2 if stop is None else stop
    for step, then in enumerate(levels[1 : last + 1]):
        with torch.set_grad_enabled(torch.is_grad_enabled() and stop is None):
            clean = follow(state, level)
        following = level.clamp(max=then)
        state = torch.where(following < level, add_noise(clean, noise[:, step + 1], following), state)
        level = following
    return follow(state, level)
