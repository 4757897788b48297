"""Training of the small video diffuser by flow matching: a level for each token, under guides of the actual cache.

A sample is what the sampler meets at some point of its way (`diffusion.wan.sampling`, mode ``hold``): each frame has a
level of the schedule, each token starts at a level of its own, full noise where nothing is known and less where the
guide shows or copies something, and until the schedule has come down to that level the token waits. Half of the samples
are bidirectional, the other half block-causal with a clean past: one network is the teacher of both.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from safetensors.torch import load_file
from torch import Tensor, nn

from diffusion.flow import add_noise, clean_to_velocity, velocity_to_clean
from diffusion.wan.convert import write_line
from diffusion.wan.fresh import fresh_transformer, write_part
from diffusion.wan.keys import merge_lora
from diffusion.wan.lines import LINES, Line, line_named
from diffusion.wan.load import find_checkpoint, load_transformer
from diffusion.wan.masked import MaskedAttention, block_causal
from diffusion.wan.prompts import CachedTextEncoder, NoPrompts, padded
from diffusion.wan.schedule import denoise, draw, schedule_levels, shifted, staggered, token_rows
from diffusion.wan.tokens import expanded
from scenes.dataset.clips import list_clips
from worldwarp.training.accelerated import Pace, train

LINE = LINES["tiny"]
CAUSAL = 0.5  # share of samples under a block-causal mask
UNGUIDED = 0.1  # share of samples without a guide
MEASURED = 24  # held-out clips of a validation
LEVELS = (0.2, 0.4, 0.6, 0.8, 0.95)  # of a validation
SOFT = 0.04  # squared level at which an error of the velocity counts half: lower ones say little about the picture


def start_levels(
    hole: Bool[Tensor, "f 1 ht wt"], copied: bool, rng: np.random.Generator, line: Line = LINE
) -> Float[Tensor, "f 1 ht wt"]:
    """Levels at which tokens start: in half of the draws those of the line, else any, and other regions in some."""

    def one(usual: float, low: float) -> float:
        kind = rng.random()
        return usual if kind < 0.5 else float(rng.uniform(low, 1.0)) if kind < 0.8 else 1.0

    shown, filled = one(line.seen, 0.1), one(line.copied if copied else line.unknown, 0.6)
    if rng.random() < 0.15:  # regions of any shape, as other noise maps draw them
        coarse = torch.from_numpy(rng.random((len(hole), 1, 3, 3), np.float32))
        hole = nn.functional.interpolate(coarse, hole.shape[-2:], mode="bilinear") < float(rng.uniform(0.2, 0.8))
    return torch.where(hole, filled, shown)


def on_the_way(
    clean: Float[Tensor, "f c h w"],
    guide: Float[Tensor, "f c h w"],
    start: Float[Tensor, "f 1 h w"],
    row: Float[Tensor, "f 1 1 1"],
    noise: Float[Tensor, "f c h w"],
) -> tuple[Float[Tensor, "f c h w"], Float[Tensor, "f 1 h w"]]:
    """The state of tokens between their noised guide at ``start`` and the truth at 0, and their levels.

    A perfect sampler moves on the straight line between these two: at a share ``s = level / start`` of the way it holds
    ``(1 - s)`` of the truth and ``s`` of the noised guide.
    """
    level = torch.minimum(start, row)
    share = level / start.clamp_min(1e-6)
    return torch.lerp(clean, add_noise(guide, noise, start), share), level


class DiffuserStage:
    """Flow matching of the transformer of a line on recorded latents."""

    def __init__(
        self,
        latents: Path,
        vae: Path | None = None,
        line: Line | None = None,
        start: str | Path | None = None,
        lora: int = 0,
        **changed: Any,
    ) -> None:
        """Read the latents, and make a network or read one.

        Args:
            latents: folder of `worldwarp.training.wan_latents.record_latents`.
            vae: folder with the ``vae/`` that they were encoded with; None: that of ``start``.
            line: whose network, levels and shift; None: that of ``start``, or else ``tiny``.
            start: model whose weights it starts with, as ``generator.pretrained=`` takes it; None: random ones.
            lora: rank of low-rank updates, which alone are trained (Hu et al., arXiv 2106.09685); 0: all weights.
            **changed: arguments of a random network that differ from the line's.

        Raises:
            ValueError: no latents to train on, or none held out; no model, or one that has no VAE with it.
        """
        checkpoint = None if start is None else find_checkpoint(start)
        line = line or (LINE if checkpoint is None else checkpoint.line)
        takes = {split: _takes(latents, split) for split in ("train", "estimated", "heldout")}
        # All samples have the length of the longest that the line takes, so that they can be stacked.
        span = min(line.trained_span, max((len(take["clean"]) for many in takes.values() for take in many), default=0))
        self.takes = _cut([*takes["train"], *takes["estimated"]], span)
        self.held_out = _cut(takes["heldout"], span)[:MEASURED]
        if not self.takes or not self.held_out:
            raise ValueError(
                f"latents: want clips to train on and held-out ones in {latents}, got {len(self.takes)} and "
                f"{len(self.held_out)}; record them with `worldwarp train latents`"
            )
        self.line = line
        if checkpoint is None:
            if line.reads_text:
                raise ValueError(f"start: want a model with its text encoder for {line.name}, got none; set start=")
            if vae is None:
                raise ValueError(
                    "vae: want the folder of the VAE that the latents were encoded with, got none; set vae="
                )
            self.network, self.vae = fresh_transformer(line, **changed), vae
        else:
            self.network = load_transformer(checkpoint, "float32").requires_grad_(lora == 0)
            self.vae = vae or checkpoint.folder_with("vae")
        if lora:
            self.network.add_adapter(lora_config(lora))
        self.attention = MaskedAttention(self.network)
        config: Any = self.network.config
        self.texts = None
        self.text = NoPrompts(config.text_dim).at(0)[None]
        if line.reads_text:  # all samples have the empty prompt
            assert checkpoint is not None
            self.texts = checkpoint.folder_with("text_encoder", "tokenizer")
            self.text = padded(CachedTextEncoder(self.texts)([""])[0])[None]

    def draw(self, rng: np.random.Generator) -> dict[str, Tensor]:
        """A clip at random levels; its first frame, the photo, is clean."""
        take = self.takes[rng.integers(len(self.takes))]
        frames = len(take["clean"])
        # 1. Which frames are clean, which see which, and the level of each.
        if self.line.attention == "causal" and rng.random() < CAUSAL:
            size = int(rng.choice([1, 2, 4]))
            blocks = [0, *(1 + k // size for k in range(frames - 1))]
            first = 1 + size * int(rng.integers(-(-(frames - 1) // size)))
            sees = block_causal(blocks)
            own = rng.random(max(blocks) + 1)[blocks]
        else:
            first = 1 if rng.random() < 0.75 else int(rng.integers(1, frames))
            sees = torch.ones(frames, frames, dtype=torch.bool)
            own = rng.random(frames) if rng.random() < 0.5 else np.repeat(rng.random(), frames)
        later = torch.arange(frames).reshape(-1, 1, 1, 1) >= first
        row = torch.where(later, shifted(torch.from_numpy(own).float(), self.line.shift).reshape(-1, 1, 1, 1), 0.0)
        # 2. Where each token starts, and how far it has come.
        guided = rng.random() >= UNGUIDED
        start = start_levels(take["hole"], bool(take["copied"]), rng, self.line)
        start = expanded(start if guided else torch.ones_like(start))
        clean = take["clean"].float()
        noise = torch.from_numpy(rng.standard_normal(clean.shape, np.float32))
        noisy, level = on_the_way(clean, take["guide"].float(), start, row, noise)
        # 3. Clean frames carry no guide: they are remembered without one.
        extra = self.extra(take) * (later & guided)
        return {
            "noisy": torch.cat([noisy, extra], 1),
            "clean": clean,
            "level": level,
            "sees": sees,
            "hole": expanded(take["hole"].float()),
        }

    def loss(self, network: Any, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weighted squared error of the velocity; for the log that of the clean latents, in holes and elsewhere."""
        level, clean, hole = batch["level"], batch["clean"], batch["hole"]
        state = batch["noisy"][:, :, : clean.shape[2]]
        text = self.text.to(clean).expand(len(clean), -1, -1)
        velocity = self.attention.velocity(network, batch["noisy"], level, text, batch["sees"])
        weight = level.square() / (level.square() + SOFT)
        error = (velocity - clean_to_velocity(state, clean, level)).square().mean(2, keepdim=True)
        moving = (level > 0.0).float()

        def mean(value: Tensor, where: Tensor) -> Tensor:
            return ((value * where).flatten(1).sum(1) / where.flatten(1).sum(1).clamp_min(1.0)).mean()

        off = (velocity_to_clean(state, velocity, level) - clean).square().mean(2, keepdim=True).detach()
        terms = {"in_holes": mean(off, moving * hole), "elsewhere": mean(off, moving * (1.0 - hole))}
        return {"loss": mean(weight * error, moving), **terms}

    def validate(self, network: Any, folder: Path) -> dict[str, float]:  # noqa: ARG002
        """Squared error of the clean latents by level, of held-out clips whose tokens all start at full noise."""
        figures: dict[str, list[float]] = {}
        for number, take in enumerate(self.held_out):
            clean, hole = take["clean"].float(), expanded(take["hole"].float())[1:] > 0.0
            noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(number))
            rows = torch.tensor(LEVELS).reshape(-1, 1, 1, 1, 1).expand(-1, len(clean), 1, *clean.shape[-2:]).clone()
            rows[:, 0] = 0.0
            noisy = torch.cat([add_noise(clean, noise, row)[None] for row in rows])
            extra = self.extra(take)
            extra[0] = 0.0
            device = next(self.network.parameters()).device
            made = self.predict(network, noisy.to(device), rows.to(device), extra.to(device)).cpu()
            off = (made - clean).square().mean(2, keepdim=True)[:, 1:]
            for row, value in zip(LEVELS, off, strict=True):
                figures.setdefault(f"elsewhere_{row}", []).append(float(value[~hole].mean()))
                if hole.any():
                    figures.setdefault(f"in_holes_{row}", []).append(float(value[hole].mean()))
        return {name: float(np.mean(values)) for name, values in figures.items()}

    def predict(
        self,
        network: Any,
        noisy: Float[Tensor, "b f c h w"],
        level: Float[Tensor, "b f 1 h w"],
        extra: Float[Tensor, "f e h w"],
    ) -> Float[Tensor, "b f c h w"]:
        """Clean latents of whole clips, all frames seeing each other."""
        text = self.text.to(noisy).expand(len(noisy), -1, -1)
        more = extra.expand(len(noisy), *extra.shape)
        velocity = self.attention.velocity(network, torch.cat([noisy, more], 2), level, text)
        return velocity_to_clean(noisy, velocity, level)

    @torch.no_grad()
    def sample(
        self, network: Any, take: Mapping[str, Tensor], steps: int, rng: torch.Generator
    ) -> Float[Tensor, "f c h w"]:
        """The clip of a take as the network makes it of its photo and guide, all frames seeing each other.

        Args:
            network: `network`.
            take: of `takes` or `held_out`; of the clean latents only the first is used.
            steps: of Euler, at the line's shift.
            rng: of the noise.
        """
        photo = is_photo(len(take["clean"]))
        guide = torch.where(photo, take["clean"].float(), take["guide"].float())
        start = torch.where(photo, 0.0, usual_start(take, self.line))
        extra = torch.where(photo, 0.0, self.extra(take))
        rows = staggered(schedule_levels(steps, self.line.shift), len(guide), 0.0)

        def predict(noisy: Tensor, level: Tensor) -> Tensor:
            return self.predict(network, noisy[None], level[None], extra)[0]

        return denoise(predict, add_noise(guide, draw(guide, rng), start), token_rows(rows, start))

    def save(self, weights: Mapping[str, Tensor], folder: Path) -> None:
        """A model as `generator.pretrained=` takes it: transformer in float16, VAE and line."""
        write_diffuser(folder, self.network, merged(weights), self.line, self.vae, self.texts)

    def extra(self, take: Mapping[str, Tensor]) -> Float[Tensor, "f e h w"]:
        """The further input channels of the line."""
        return guide_channels(take) if self.line.extra_channels else take["guide"].float()[:, :0]


def is_photo(frames: int) -> Bool[Tensor, "f 1 1 1"]:
    """Which latent of a clip is the photo's: the first."""
    return torch.arange(frames).reshape(-1, 1, 1, 1) == 0


def usual_start(take: Mapping[str, Tensor], line: Line) -> Float[Tensor, "f 1 h w"]:
    """The levels at which the tokens of a take start in the loop."""
    filled = line.copied if take["copied"] else line.unknown
    return expanded(torch.where(take["hole"], filled, line.seen))


def write_diffuser(
    folder: Path, network: Any, weights: Mapping[str, Tensor], line: Line, vae: Path, texts: Path | None = None
) -> None:
    """Write a model folder: transformer (float16 for lines of float32, else bfloat16), VAE, line.

    Args:
        folder: to write to.
        network: tells class and configuration.
        weights: by diffusers' names.
        line: of the model.
        vae: folder whose ``vae/`` is copied.
        texts: folder whose text encoder and tokenizer, which may be large, are linked to.
    """
    dtype = torch.float16 if line.precision == "float32" else torch.bfloat16
    write_part(folder / "transformer", network, network.config, weights, dtype)
    if not (folder / "vae").exists():
        shutil.copytree(vae / "vae", folder / "vae")
    if texts is not None:
        for part in ("text_encoder", "tokenizer"):
            if not (folder / part).exists():
                (folder / part).symlink_to((texts / part).resolve())
    write_line(folder, line, line.precision, ())


def lora_config(rank: int) -> Any:
    """Low-rank updates of all attention."""
    try:
        from peft import LoraConfig
    except ImportError:
        raise ImportError("lora: peft is missing; pip install 'worldwarp[wan]'") from None
    return LoraConfig(r=rank, lora_alpha=rank, target_modules=["to_q", "to_k", "to_v", "to_out.0"])


def merged(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a network whose layers may have low-rank updates, by the names that it has without."""
    own = {name.replace(".base_layer", ""): value for name, value in weights.items() if ".lora_" not in name}
    updates = {name.replace(".default", ""): value for name, value in weights.items() if ".lora_" in name}
    return merge_lora(own, updates) if updates else own


def guide_channels(take: Mapping[str, Tensor]) -> Float[Tensor, "f 20 h w"]:
    """What the network reads beside the noisy latents: which pixels are known, then the guide."""
    return torch.cat([take["known"].float() / 255.0, take["guide"].float()], 1)


def _takes(latents: Path, split: str) -> list[dict[str, Tensor]]:
    """The takes of the clips of a split."""
    takes: list[dict[str, Tensor]] = []
    for path in list_clips(latents, split):
        rows = load_file(path)
        takes += [{name: value[k] for name, value in rows.items()} for k in range(len(rows["clean"]))]
    return takes


def _cut(takes: list[dict[str, Tensor]], frames: int) -> list[dict[str, Tensor]]:
    """The first latents of the takes that have as many."""
    return [
        {name: value[:frames] if value.ndim else value for name, value in take.items()}
        for take in takes
        if len(take["clean"]) >= frames > 1
    ]


def train_diffuser(
    latents: Path,
    out: Path,
    vae: Path | None = None,
    start: str | Path | None = None,
    line: str = "auto",
    lora: int = 0,
    steps: int = 100_000,
    batch: int = 4,
    learning_rate: float = 5e-4,
    minutes: float = 600.0,
    seed: int = 0,
) -> None:
    """Train a diffuser, or go on with it; ``out/model`` is a model for ``generator.pretrained=``.

    Args:
        latents: folder of `worldwarp.training.wan_latents.record_latents`.
        out: folder of the run.
        vae: folder with the ``vae/`` that they were encoded with; None: that of ``start``.
        start: see `DiffuserStage`, as ``lora``.
        line: name of a line; ``auto``: that of ``start``, or ``tiny``.
        lora: rank.
        steps: see `Pace`, as all that follow.
        batch: clips.
        learning_rate: peak.
        minutes: of this run.
        seed: of all draws.
    """
    pace = Pace(steps, batch, learning_rate, ema=0.998, minutes=minutes, seed=seed)
    own = None if line == "auto" else line_named(line)
    train(lambda: DiffuserStage(latents, vae, own, start, lora), pace, out)
