"""Training of the small causal VAE: clips in, the same clips out.

Compared once for the same seconds of one CPU core: a convolutional autoencoder of TAEHV's kind (no norms, squares of
4x4 pixels at once, 4.0 M weights) came to an absolute error of colors of .23 in a minute, the VAE of the real class
here, whose shortcuts carry averages past its layers from the start, to .25; without these shortcuts it stayed at the
mean color (.35) for two minutes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from safetensors.torch import load_file
from torch import Tensor, nn

from diffusion.wan.fresh import fresh_vae, write_part
from diffusion.wan.lines import LINES
from scenes.dataset.clips import list_clips
from scenes.io.png import write_rgb_png
from worldwarp.training.accelerated import Pace, train

LINE = LINES["tiny"]
KL = (
    3e-4  # per latent element; keeps the latents' scale, and leaves a posterior deviation that a diffuser's error is in
)
LATENTS = LINE.latent_channels
FIRST_LOGVAR = -5.0
SLOPE, CHANGE = 1.0, 0.5  # weights of the differences between neighbors in space and in time
HELD_OUT, MEASURED = 4, 16  # clips of a validation; of the statistics of latents


class _Autoencoder(nn.Module):
    """Encodes, samples and decodes in one pass, which is what several processes can share."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, clip: Float[Tensor, "b 3 t h w"], noise: Float[Tensor, "b c f hl wl"]) -> tuple[Tensor, Tensor]:
        """Colors in -1..1 in and out, and the divergence of the posterior from a standard normal, per element."""
        posterior = self.vae.encode(clip).latent_dist
        mean, spread = posterior.mean, posterior.std
        made = self.vae.decode(mean + spread * noise).sample
        return made, 0.5 * (mean.square() + posterior.var - 1.0 - posterior.logvar)


class VaeStage:
    """Pieces of clips, from random places, mirrored and reversed in half of the draws each."""

    def __init__(self, data: Path, frames: int = 5, crop: int = 64) -> None:
        """Read the clips.

        Args:
            data: folder of clips; those of panoramas are taken too.
            frames: of a piece, 1 + 4 n.
            crop: height and width of a piece, pixels; a multiple of 8.

        Raises:
            ValueError: there are no clips, or shorter or smaller ones.
        """
        self.clips = [_colors(path) for split in ("train", "estimated") for path in list_clips(data, split)]
        self.held_out = [_colors(path) for path in list_clips(data, "heldout")[:HELD_OUT]]
        if not self.clips or not self.held_out:
            raise ValueError(
                f"data: want clips to train on and held-out ones in {data}, got {len(self.clips)} and "
                f"{len(self.held_out)}; render more with `worldwarp render-data`"
            )
        if any(len(clip) < frames or min(clip.shape[-2:]) < crop for clip in self.clips):
            raise ValueError(
                f"data: want clips of {frames} frames of {crop} pixels or more, got smaller ones in {data}"
            )
        self.frames, self.crop = frames, crop
        self.network = _Autoencoder(fresh_vae(LINE))
        with torch.no_grad():  # at a deviation of 1 the first hundreds of steps would go into the noise
            self.network.vae.quant_conv.bias[LATENTS:] = FIRST_LOGVAR
        self.statistics: tuple[Tensor, Tensor] | None = None

    def draw(self, rng: np.random.Generator) -> dict[str, Tensor]:
        """A piece of a clip."""
        clip = self.clips[rng.integers(len(self.clips))]
        room = np.array(clip.shape) - (self.frames, 0, self.crop, self.crop)
        t, _, y, x = (int(rng.integers(side + 1)) for side in room)
        piece = clip[t : t + self.frames, :, y : y + self.crop, x : x + self.crop]
        mirrored, reverse = rng.random(2) < 0.5
        axes = [axis for axis, wanted in ((-1, mirrored), (0, reverse)) if wanted]
        piece = piece.flip(axes) if axes else piece
        shape = (LATENTS, 1 + (self.frames - 1) // 4, self.crop // 8, self.crop // 8)
        return {
            "clip": (piece.transpose(0, 1).float() / 127.5 - 1.0).contiguous(),
            "noise": torch.from_numpy(rng.standard_normal(shape, np.float32)),
        }

    def loss(self, network: Any, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Absolute errors of colors and of their differences in space and time, and the divergence."""
        clip = batch["clip"]
        made, divergence = network(clip, batch["noise"])
        error = made - clip
        color = error.abs().mean()
        slope = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        change = error.diff(dim=2).abs().mean()
        loss = color + SLOPE * slope + CHANGE * change + KL * divergence.mean()
        terms = {"loss": loss, "color": color, "slope": slope, "change": change, "divergence": divergence.mean()}
        return {name: value if name == "loss" else value.detach() for name, value in terms.items()}

    def validate(self, network: Any, folder: Path) -> dict[str, float]:  # noqa: ARG002
        """PSNR of held-out clips through the mode of the posterior; measures the latents for `save`."""
        vae = self.network.vae
        errors, rows = [], []
        for clip in self.held_out:
            colors = (clip.transpose(0, 1).float() / 127.5 - 1.0)[None, :, : 1 + (len(clip) - 1) // 4 * 4]
            colors = colors.to(vae.device)
            made = vae.decode(vae.encode(colors).latent_dist.mode()).sample
            errors.append(float((0.5 * (made - colors)).square().mean()))
            rows.append(torch.cat([torch.cat([part[0, :, 0], part[0, :, -1]], -1) for part in (colors, made)], -2))
        write_rgb_png(folder / "sheet.png", (0.5 * torch.cat(rows[:3], -2).cpu() + 0.5).clamp(0.0, 1.0))
        pick = np.random.default_rng(0).choice(len(self.clips), min(MEASURED, len(self.clips)), replace=False)
        latents = []
        for number in pick:
            clip = self.clips[number]
            colors = (clip.transpose(0, 1).float() / 127.5 - 1.0)[None, :, : 1 + (len(clip) - 1) // 4 * 4]
            latents.append(vae.encode(colors.to(vae.device)).latent_dist.mode()[0].flatten(1))
        every = torch.cat(latents, 1)
        self.statistics = every.mean(1).cpu(), every.std(1).cpu()
        return {"psnr_db": float(-10.0 * np.log10(np.mean(errors))), "latents_std": float(every.std(1).mean())}

    def save(self, weights: Mapping[str, Tensor], folder: Path) -> None:
        """The VAE in diffusers' layout, with the mean and deviation of its latents."""
        assert self.statistics is not None
        mean, std = (part.tolist() for part in self.statistics)
        vae = self.network.vae
        stripped = {name.removeprefix("vae."): value for name, value in weights.items()}
        write_part(folder / "vae", vae, {**vae.config, "latents_mean": mean, "latents_std": std}, stripped)


def train_vae(
    data: Path,
    out: Path,
    steps: int = 4000,
    batch: int = 2,
    learning_rate: float = 1e-3,
    minutes: float = 600.0,
    seed: int = 0,
) -> None:
    """Train the small VAE, or go on with it; ``out/model/vae`` has its averaged weights.

    Args:
        data: folder of clips (`worldwarp render-data`) of 5 or more frames, 64x64 pixels or more.
        out: folder of the run.
        steps: see `Pace`, as all that follow.
        batch: pieces of 5 frames.
        learning_rate: peak.
        minutes: of this run.
        seed: of all draws.
    """
    pace = Pace(steps, batch, learning_rate, ema=0.995, weight_decay=0.0, minutes=minutes, seed=seed)
    train(lambda: VaeStage(data), pace, out)


def _colors(path: Path) -> UInt8[Tensor, "t 3 h w"]:
    return load_file(path)["rgb"]
