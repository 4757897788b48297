"""Let a better look improve the guesses that are already stored."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cache3d.insertion import CLEARLY, Shown
from cache3d.visibility import seen_by
from geometry.frame import Frame
from geometry.primitives import Gaussians, Points

STEP = 0.25
GUESS_LIMIT = 0.9  # a guess that was confirmed again and again is still a guess


def refine_guesses(
    primitives: Gaussians | Points,
    positions: Float[Tensor, "n 3"],
    shown: Shown,
    frame: Frame,
    confidence: Float[Tensor, "1 h w"],
) -> Int[Tensor, "k"]:
    """Move colours and confidences of generated primitives towards a frame that knows better; in place.

    A primitive takes a quarter of the step between what is shown where it lies and the frame's pixel, when it is the
    surface shown there, the frame's depth agrees, and the frame is more confident than the primitive. (Not to the
    pixel's own colour: what is stored is crisper than what it shows, and would get softer with each look that finds
    nothing wrong.) Its confidence takes a quarter step too, so that repeated looks converge. Observed primitives, sky
    and positions stay as they are.

    Args:
        primitives: views into a store.
        positions: where they are.
        shown: what the cache shows to the frame's camera.
        frame: one frame, no batch axis.
        confidence: trust in the frame's pixels.

    Returns:
        Indices of the refined primitives.
    """
    seen = seen_by(frame.camera, positions, ~primitives.observed & ~primitives.sky, shown)
    guesses, pixel, z = seen.index, seen.pixel, seen.z
    depth = frame.depth.reshape(-1)[pixel]
    limit = torch.full_like(z, GUESS_LIMIT)
    better = torch.minimum(confidence.reshape(-1)[pixel], limit) - primitives.confidence[guesses]
    chosen = (frame.valid & ~frame.sky).reshape(-1)[pixel] & (better > 0.01)
    chosen &= (depth - z).abs() < CLEARLY * z
    guesses, pixel, better = guesses[chosen], pixel[chosen], better[chosen]
    off = (frame.rgb - shown.rgb).reshape(3, -1)[:, pixel].T
    primitives.colors[guesses] = (primitives.colors[guesses] + STEP * off).clamp(0.0, 1.0)
    primitives.confidence[guesses] += STEP * better
    return guesses
