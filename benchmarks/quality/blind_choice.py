"""A judge who does not see the truth: which of two fills of a clip's wide holes looks more like something real?

The judge is Fisher's linear discriminant between features (`benchmarks.data.patch_features`) of the true patches in
wide holes and of the patches that *all* methods made there, Telea's fog as well as copies and what the generator made,
taken from all **other scenes**: of the clip that is judged it has seen neither the truth nor any fill. Patches are 32
px wide and nothing but wide hole, so that what surrounds them tells nothing. A clip goes to the method whose patches
have the higher mean score.

That it can judge at all is measured by letting it choose between the truth and the prior, and between fog and the prior
(`benchmarks.quality.generator_quality` prints all of them). Distances to real patches of other scenes, to the nearest
or to the set, cannot: they prefer the prior to the truth, because smoother patches lie nearer to everything.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

RIDGE = 0.1  # of the mean variance, added to the scatter within the two kinds


def realness(real: Float[Tensor, "n c"], made: Float[Tensor, "m c"]) -> Float[Tensor, "c"]:
    """The direction of features along which real patches differ most from made ones; more is more real."""
    spread = real.std(0).clamp_min(1e-6)
    within = 0.5 * ((real / spread).T.cov() + (made / spread).T.cov())
    within = within + RIDGE * within.diagonal().mean() * torch.eye(len(within))
    return torch.linalg.solve(within, (real.mean(0) - made.mean(0)) / spread) / spread


def choices(
    fills: dict[str, list[Float[Tensor, "_ c"]]], real: list[Float[Tensor, "_ c"]], scenes: list[str], rival: str
) -> dict[str, np.ndarray]:
    """By method, and of the ``truth``: 1 for each clip on which it is preferred to ``rival``, 0 where not, .5 a tie.

    Args:
        fills: features of each method's patches, by clip.
        real: of the true ones at the same places, by clip.
        scenes: what each clip shows; clips of one scene are judged without any of them.
        rival: the method against which all are held.

    Returns:
        ``[clips]`` for each method; NaN for clips without patches, and for all when there are no other scenes.
    """
    judged = {**fills, "truth": real}
    chosen = {method: np.full(len(real), np.nan) for method in judged}
    for scene in sorted(set(scenes)):
        others = [i for i, place in enumerate(scenes) if place != scene and len(real[i])]
        if not others:
            continue
        made = torch.cat([parts[i] for parts in fills.values() for i in others])
        score = realness(torch.cat([real[i] for i in others]), made)
        for i in (i for i, place in enumerate(scenes) if place == scene and len(real[i])):
            against = (fills[rival][i] @ score).mean()
            for method, parts in judged.items():
                chosen[method][i] = 0.5 + 0.5 * float(((parts[i] @ score).mean() - against).sign())
    return chosen
