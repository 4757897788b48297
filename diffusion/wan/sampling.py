"""The latents of one chunk: noised guide and schedule; for lines without memory a smooth border to the chunk before."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion.flow import add_noise
from diffusion.wan.schedule import Predict, blended, denoise, draw, staggered
from diffusion.wan.settings import Recipe


def sample(
    predict: Predict,
    recipe: Recipe,
    held: Float[Tensor, "o c h w"],
    guide: Float[Tensor, "f c h w"],
    level: Float[Tensor, "f 1 h w"],
    rng: torch.Generator,
) -> Float[Tensor, "f c h w"]:
    """Clean latents of a chunk.

    With ``recipe.smoothing`` the pass makes the overlap again, as frames that the world shows; the new latents are
    moved towards the overlap as it is (`continued`), noised to that level and denoised once more.

    Args:
        predict: clean latents of overlap and chunk, given noisy latents and their levels.
        recipe: schedule, mode and smoothing.
        held: latents of the overlap, none for lines with memory; held at level 0 in the last pass.
        guide: latents of the guide.
        level: at which each latent pixel of the chunk starts, 0..1.
        rng: of all noise.
    """
    overlap, known = len(held), torch.cat([held, guide])
    schedule = staggered(recipe.levels, len(guide), recipe.lag)
    schedule = torch.cat([schedule[:, :1].expand(-1, overlap), schedule], 1)
    sure = torch.zeros_like(held[:, :1])

    def run(clean: Tensor, start: Tensor, level: Tensor) -> Tensor:
        noisy = add_noise(clean, draw(clean, rng), start)
        follow = blended(predict, known, level) if recipe.mode == "blend" else predict
        return denoise(follow, noisy, recipe.rows(start, schedule), rng if recipe.line.stepper == "renoise" else None)

    start = level if recipe.mixes else torch.ones_like(level)
    if overlap == 0 or recipe.smoothing == 0.0:
        return run(known, torch.cat([sure, start]), torch.cat([sure, level]))[overlap:]
    seen = torch.full_like(sure, recipe.line.seen)
    again = seen if recipe.mixes else torch.ones_like(seen)
    made = run(known, torch.cat([again, start]), torch.cat([seen, level]))
    moved = continued(held, made[:overlap], made[overlap:], level)
    start = torch.cat([sure, start.clamp(max=recipe.smoothing)])
    return run(torch.cat([held, moved]), start, torch.cat([sure, level]))[overlap:]


def continued(
    before: Float[Tensor, "o c h w"],
    again: Float[Tensor, "o c h w"],
    made: Float[Tensor, "f c h w"],
    level: Float[Tensor, "f 1 h w"],
) -> Float[Tensor, "f c h w"]:
    """Average two segments across their border.

    Voyager (arXiv 2506.04225) averages two segments over the frames they share. Those of the first have been shown by
    then, so the average is taken over as many frames after the border: of the second segment, and of the first one
    continued by the motion of the second, the latter with a weight that falls from the border on.

    Args:
        before: the shared latents as the first segment made them.
        again: the same as the second segment made them.
        made: those that follow in the second segment.
        level: 0..1; latents of level 0 stay, they are the guide.
    """
    shared = min(len(before), len(made))
    weight = made.new_zeros(len(made), 1, 1, 1)
    weight[:shared, 0, 0, 0] = 1.0 - torch.arange(1, shared + 1).to(made) / (shared + 1)
    return made + level * weight * (before[-1] - again[-1])
