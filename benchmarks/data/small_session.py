"""One held-out clip of the small diffuser, walked in several ways; each walk is made once for all tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.data.patch_features import PatchFeatures
from benchmarks.data.small_figures import Figures, Judge
from benchmarks.data.small_walks import Take, Walker, noise_levels

POINTS = "points"  # folder of the guides of points, in that of the latents


@dataclass(frozen=True)
class Walk:
    """How a take is walked; without arguments as the program does it.

    Attributes:
        noise: one of `NOISE_MAPS`.
        past: one of `PASTS`. Other kinds than the whole are walked for two chunks.
        cache: ``gaussians``, ``points`` or ``none``: full noise and nothing known. The latter two for two chunks.
    """

    noise: str = "regions"
    past: str = "whole"
    cache: str = "gaussians"


@dataclass(frozen=True)
class Setting:
    """What all clips share.

    Attributes:
        walker: the model.
        teacher: what its speed is compared with, if that is asked for.
        latents: folder of the takes.
        seeds: number of seeds, from 0.
        features: for perceptual distances.
    """

    walker: Walker
    teacher: Walker | None
    latents: Path
    seeds: int
    features: PatchFeatures


@dataclass
class Session:
    """One clip.

    Attributes:
        setting: what it shares with others.
        take: as the Gaussians show it.
        path: of the clip.
        made: latents of walks by seed, ``[f c h w]``.
        found: their figures.
    """

    setting: Setting
    take: Take
    path: Path
    made: dict[tuple[Walk, int], Tensor] = field(default_factory=dict)
    found: dict[tuple[Walk, int], Figures] = field(default_factory=dict)

    @property
    def seeds(self) -> range:
        """All of them."""
        return range(self.setting.seeds)

    @cached_property
    def judge(self) -> Judge:
        """Of the take as the Gaussians show it."""
        return Judge(self.take, self.setting.features, self.setting.walker.recipe.chunk)

    @cached_property
    def points(self) -> Take:
        """The take as points show it."""
        return Take.read(self.setting.latents / POINTS, self.path)

    @cached_property
    def decoded_truth(self) -> Figures:
        """Figures of the truth as the VAE gives it back: what no walk can be expected to exceed."""
        return self.judge.figures(self.setting.walker.frames(self.take, self.take.clean[1:]))

    def latents(self, walk: Walk, seed: int) -> Tensor:
        """What a walk makes, ``[f c h w]``."""
        if walk.noise == "binary" and not self.take.copied and self.setting.walker.recipe.line.unknown == 1.0:
            walk = replace(walk, noise="regions")  # the same levels
        if (walk, seed) not in self.made:
            self.made[walk, seed] = torch.cat([*self._chunks(walk, seed)])
        return self.made[walk, seed]

    def frames(self, walk: Walk, seed: int) -> Tensor:
        """Its frames with the photo, ``[t 3 h w]``."""
        return self.setting.walker.frames(self.take, self.latents(walk, seed))

    def figures(self, walk: Walk, seed: int) -> Figures:
        """Its figures."""
        if (walk, seed) not in self.found:
            self.found[walk, seed] = self.judge.figures(self.frames(walk, seed))
        return self.found[walk, seed]

    def _chunks(self, walk: Walk, seed: int) -> Iterator[Tensor]:
        walker, whole = self.setting.walker, replace(walk, past="whole")
        take = self.points if walk.cache == "points" else self.take
        if walk.past != "whole" or walk.cache != "gaussians":
            take = take.first(1 + 2 * walker.recipe.chunk)
        level = noise_levels(take, walker.recipe.line, walk.noise, walker.recipe.chunk)
        extra = take.extra
        if walk.cache == "none":
            level, extra = torch.ones_like(level), None
        # The first chunk has the photo alone before it, in every order.
        begun = [] if walk == whole else self.latents(whole, seed).split(walker.recipe.chunk)[:1]
        return walker.chunks(take, level, extra, seed, walk.past, begun)
