"""Held-out takes, walked by a model of the Wan class chunk after chunk: what the tables of the small diffuser share.

A take is what `worldwarp.training.wan_latents` recorded of a clip: latents of the truth and of the guide, and what the
guide knows. A walk begins with the true latent of the photo and goes on as `WanGenerator` does, through the denoiser,
the memory and the sampler of the generator; that guides need not be rendered is all that it saves.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float, UInt8
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import avg_pool2d

from diffusion.wan.generator import WanGenerator
from diffusion.wan.lines import Line
from diffusion.wan.memory import Context, LatentBank
from diffusion.wan.sampling import sample
from diffusion.wan.tokens import FRAMES_PER_LATENT, expanded
from geometry.frame import Frame
from scenes.dataset.clips import read_clip

NOISE_MAPS = ("uniform", "temporal", "spatial", "binary", "confidence", "regions")
PASTS = ("whole", "photo", "reversed")


@dataclass(frozen=True)
class Take:
    """A recorded take with its clip; the first latent is the photo's, the first frame the photo.

    Attributes:
        name: of the clip.
        clip: true frames ``[1 + 4 (f - 1)]``.
        clean: latents of the truth.
        guide: latents of the guide.
        known: share of a latent pixel that the guide shows, 0..255, by frame of a latent.
        hole: tokens with a pixel that it does not show.
        copied: whether holes of the guide hold copies.
    """

    name: str
    clip: Frame
    clean: Float[Tensor, "f c h w"]
    guide: Float[Tensor, "f c h w"]
    known: UInt8[Tensor, "f 4 h w"]
    hole: Bool[Tensor, "f 1 ht wt"]
    copied: bool

    @staticmethod
    def read(latents: Path, clip: Path) -> Take:
        """The first take of a clip, the one that is not mirrored.

        Raises:
            ValueError: the clip is damaged, or its frames and latents differ in number.
        """
        rows = {name: value[0] for name, value in load_file(latents / clip.name).items()}
        frames = read_clip(clip)
        if len(frames) != 1 + FRAMES_PER_LATENT * (len(rows["clean"]) - 1):
            raise ValueError(
                f"{latents / clip.name}: want the latents of {len(frames)} frames, got {len(rows['clean'])} latents; "
                "record them again"
            )
        colors = rows["clean"].float(), rows["guide"].float()
        return Take(clip.stem, frames, *colors, rows["known"], rows["hole"], bool(rows["copied"]))

    def first(self, latents: int) -> Take:
        """Its first ``latents`` latents."""
        return replace(
            self,
            clip=self.clip[: 1 + FRAMES_PER_LATENT * (latents - 1)],
            clean=self.clean[:latents],
            guide=self.guide[:latents],
            known=self.known[:latents],
            hole=self.hole[:latents],
        )

    @property
    def extra(self) -> Float[Tensor, "f e h w"]:
        """What the model reads beside noisy latents: what is known, and the guide."""
        return torch.cat([self.known.float() / 255.0, self.guide], 1)


def noise_levels(take: Take, line: Line, kind: str, chunk: int) -> Float[Tensor, "f 1 h w"]:
    """The level at which each latent pixel starts.

    ``regions`` are the levels of the line, by which it was trained: ``seen``, and in holes ``copied`` or ``unknown``.
    ``binary``: 1 in all holes. ``uniform``, ``temporal``, ``spatial``: its mean over a chunk, over a latent frame, over
    the latent frames of a chunk. ``confidence``: between ``seen`` and 1 by the share of a token that is not known.

    Args:
        take: whose holes.
        line: its levels.
        kind: one of `NOISE_MAPS`.
        chunk: latents of a chunk.
    """
    binary = torch.where(take.hole, 1.0, line.seen)
    if kind == "regions":
        level = torch.where(take.hole, line.copied if take.copied else line.unknown, line.seen)
    elif kind == "confidence":
        patch = take.known.shape[-1] // take.hole.shape[-1]
        share = avg_pool2d(take.known.float().mean(1, keepdim=True) / 255.0, patch)
        level = 1.0 - (1.0 - line.seen) * share
    elif kind == "binary":
        level = binary
    else:
        over = {"uniform": (1, 2, 3, 4), "temporal": (2, 3, 4), "spatial": (1,)}[kind]
        chunks = binary[1:].unflatten(0, (-1, chunk))
        level = torch.cat([binary[:1], chunks.mean(over, keepdim=True).expand_as(chunks).flatten(0, 1)])
    return expanded(level, take.known.shape[-1] // take.hole.shape[-1])


def _recalled(bank: LatentBank, past: str) -> LatentBank:
    """What is left of the past, in the order in which it is put before a chunk."""
    places = torch.arange(len(bank))
    return bank[{"whole": places, "photo": places[:1], "reversed": places.flip(0)}[past]]


class Walker:
    """A model, loaded as the generator does, that walks takes."""

    def __init__(self, model: Path, steps: int | None = None) -> None:
        """Load it.

        Args:
            model: as ``generator.pretrained=`` takes it; of a causal line that reads guide and coverage.
            steps: of the schedule; None: those of its line.

        Raises:
            ValueError: there is no such model, or it is of another kind.
        """
        generator = WanGenerator(model, steps=steps)
        self.recipe, self.parts = generator.recipe, generator.parts
        line = self.recipe.line
        if self.recipe.bounds is None or line.extra_channels == 0 or not self.recipe.mixes:
            raise ValueError(f"model: want a causal line that reads the guide, with levels by token, got {line.name}")
        self.bounds = self.recipe.bounds
        self.text = self.parts.prompts.at(0)[None].to(self.parts.denoiser.dtype)
        self._photos: dict[str, LatentBank] = {}  # memory of the photo alone, by clip

    def chunks(
        self,
        take: Take,
        level: Float[Tensor, "f 1 h w"],
        extra: Float[Tensor, "f e h w"] | None,
        seed: int,
        past: str = "whole",
        begun: Sequence[Float[Tensor, "c f2 h w"]] = (),
    ) -> Iterator[Float[Tensor, "f2 c h w"]]:
        """The latents of each chunk of a walk with memory, rounded as they are stored; other draws for each chunk.

        Args:
            take: the guide, and the first clean latent.
            level: at which each latent pixel starts.
            extra: further input channels; None: no guide, nothing known.
            seed: of the noise.
            past: one of `PASTS`: which remembered frames a chunk attends to.
            begun: chunks that are made already; they are remembered, and come first.
        """
        size, camera = self.recipe.chunk, take.clip.camera[::FRAMES_PER_LATENT]
        bank = self._photo(take)
        for number, first in enumerate(range(1, len(take.clean), size), 1):
            part = slice(first, first + size)
            if number <= len(begun):
                latents = begun[number - 1]
            else:
                context = _recalled(bank, past).context(camera[part], first, self.bounds)
                latents = self._sampled(take, part, level, extra, context, _draws(take.name, seed, number))
            yield latents
            if part.stop < len(take.clean):
                bank = self._extended(bank, latents, take, number)

    def forget(self) -> None:
        """Remember photos anew, as a walk must that is timed."""
        self._photos = {}

    def clip(
        self, take: Take, level: Float[Tensor, "f 1 h w"], extra: Float[Tensor, "f e h w"], seed: int
    ) -> Float[Tensor, "f2 c h w"]:
        """The latents after the photo, all made at once and seeing each other."""
        context = Context.none(len(take.clean))
        return self._sampled(take, slice(1, None), level, extra, context, _draws(take.name, seed, 0), 1)

    def frames(self, take: Take, latents: Float[Tensor, "f2 c h w"]) -> Float[Tensor, "t 3 h w"]:
        """The frames of a walk, the photo as the VAE gives it first."""
        photo, stream = self.parts.vae.decode(_stored(take.clean[:1]))
        return torch.cat([photo, self.parts.vae.decode(latents, stream)[0]])

    def _photo(self, take: Take) -> LatentBank:
        if take.name not in self._photos:
            bank = LatentBank((), take.clip.camera[:0], take.clip[:1].median_depth())
            self._photos[take.name] = self._extended(bank, _stored(take.clean[:1]), take, 0)
        return self._photos[take.name]

    def _extended(self, bank: LatentBank, latents: Tensor, take: Take, number: int) -> LatentBank:
        place = 0 if number == 0 else 1 + (number - 1) * self.recipe.chunk
        camera = take.clip.camera[::FRAMES_PER_LATENT][place : place + len(latents)]
        return self.parts.denoiser.extend(bank, latents, camera, place, number, self.text, self.bounds)

    def _sampled(
        self,
        take: Take,
        part: slice,
        level: Tensor,
        extra: Tensor | None,
        context: Context,
        draws: torch.Generator,
        held: int = 0,
    ) -> Tensor:
        """The latents ``part`` of a walk; the first ``held`` of the take are in the pass too, and stay."""
        told = None if extra is None else extra[part]
        if told is not None:
            told = torch.cat([torch.zeros_like(told[:1]).expand(held, -1, -1, -1), told])

        def predict(noisy: Tensor, now: Tensor) -> Tensor:
            return self.parts.denoiser.predict(noisy, now, self.text, context, told)

        photo = _stored(take.clean[:held])
        return _stored(sample(predict, self.recipe, photo, take.guide[part], level[part], draws))


def _stored(latents: Tensor) -> Tensor:
    """As the generator remembers and stores latents."""
    return latents.bfloat16().float()


def _draws(name: str, seed: int, chunk: int) -> torch.Generator:
    return torch.Generator().manual_seed(zlib.crc32(f"{name} {seed} {chunk}".encode()))


@dataclass(frozen=True)
class Timed:
    """Frames with the photo, and processor seconds: until those of the first chunk are there, and until all are."""

    frames: Float[Tensor, "t 3 h w"]
    first_s: float
    whole_s: float


def timed(walker: Walker, take: Take, seed: int, *, causal: bool) -> Timed:
    """A walk from the photo's latent to frames, chunk after chunk or all at once; guides are there already."""
    level = noise_levels(take, walker.recipe.line, "regions", walker.recipe.chunk)
    walker.forget()
    begun, first = time.process_time(), None
    photo, stream = walker.parts.vae.decode(_stored(take.clean[:1]))
    if causal:
        chunks = walker.chunks(take, level, take.extra, seed)
    else:
        chunks = iter(walker.clip(take, level, take.extra, seed).split(walker.recipe.chunk))
    made = [photo]
    for latents in chunks:
        frames, stream = walker.parts.vae.decode(latents, stream)
        made.append(frames)
        first = time.process_time() - begun if first is None else first
    assert first is not None
    return Timed(torch.cat(made), first, time.process_time() - begun)
