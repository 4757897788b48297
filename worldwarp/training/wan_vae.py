"""Training of the small causal autoencoder: clips in, the same clips out.

The linear maps are the principal components of squares of the clips and stay so: latents that were recorded once stay
valid. What is trained is the decoder's correction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from safetensors.torch import load_file
from torch import Tensor, nn

from diffusion.wan.fresh import write_part
from diffusion.wan.lines import LINES, VAES
from diffusion.wan.patch_vae import FACTOR, FRAMES_PER_LATENT, PatchVAE
from scenes.dataset.clips import list_clips
from scenes.io.png import write_rgb_png
from worldwarp.training.accelerated import Pace, train

LINE = LINES["tiny"]
SLOPE, CHANGE = 1.0, 0.5  # weights of the differences between neighbors in space and in time
NOISE = 0.2  # most noise on the latents, of their deviation: a diffuser's are not exact either
HELD_OUT = 6  # clips of a validation
MOST_SQUARES = 100_000  # that components are computed of
CLIP_SQUARES = 1000  # of one clip


class _Autoencoder(nn.Module):
    """Encodes and decodes in one pass, which is what several processes can share."""

    def __init__(self, vae: PatchVAE) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, clip: Float[Tensor, "b t 3 h w"], noise: Float[Tensor, "b f c hl wl"]) -> Tensor:
        """Colors in -1..1 in and out, with noise on the latents between."""
        return self.vae.decoded(self.vae.encoded(clip, first=True) + noise, first=True)[0]


@torch.no_grad()
def set_components(vae: PatchVAE, clips: Sequence[UInt8[Tensor, "t 3 h w"]], rng: np.random.Generator) -> None:
    """Make the encoder the principal components of squares of the clips, of deviation 1, and the decoder its inverse.

    Args:
        vae: changed in place; these maps need no gradients from then on.
        clips: of 5 or more frames.
        rng: which squares.
    """
    for kind, count in (("first", 1), ("later", FRAMES_PER_LATENT)):
        rows = [_squares(clips[k], count, rng) for k in rng.permutation(len(clips))[: MOST_SQUARES // CLIP_SQUARES]]
        squares = torch.cat(rows)
        mean = squares.mean(0)
        power, axes = torch.linalg.eigh((squares - mean).T @ (squares - mean) / len(squares))
        axes, std = axes[:, -vae.channels :], power[-vae.channels :].clamp_min(1e-6).sqrt()
        encoder, inverse = vae.encoder[kind], vae.inverse[kind]
        assert isinstance(encoder, nn.Conv2d)
        assert isinstance(inverse, nn.Conv2d)
        assert encoder.bias is not None
        assert inverse.bias is not None
        into = (axes / std).T
        encoder.weight.copy_(into.reshape(encoder.weight.shape))
        encoder.bias.copy_(-into @ mean)
        inverse.weight.copy_((axes * std)[:, :, None, None])
        inverse.bias.copy_(mean)
        encoder.requires_grad_(False)
        inverse.requires_grad_(False)


def _squares(clip: UInt8[Tensor, "t 3 h w"], count: int, rng: np.random.Generator) -> Float[Tensor, "n d"]:
    """Squares of ``count`` frames at random places, in -1..1, flat in the order of the encoder's weights."""
    rows = []
    for _ in range(CLIP_SQUARES):
        t, y, x = (int(rng.integers(n + 1)) for n in (len(clip) - count, *(n - FACTOR for n in clip.shape[-2:])))
        rows.append(clip[t : t + count, :, y : y + FACTOR, x : x + FACTOR].reshape(-1))
    return torch.stack(rows).float() / 127.5 - 1.0


class VaeStage:
    """Pieces of clips, from random places, mirrored and reversed in half of the draws each."""

    def __init__(self, data: Path, frames: int = 9, crop: int = 96, seed: int = 0, **changed: int) -> None:
        """Read the clips.

        Args:
            data: folder of clips; those of panoramas are taken too.
            frames: of a piece, 1 + 4 n.
            crop: height and width of a piece, pixels; a multiple of 8.
            seed: of the squares whose components the maps are.
            **changed: arguments of `PatchVAE` that differ.

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
        vae = PatchVAE(**{**VAES[LINE.vae], **changed})
        set_components(vae, self.clips, np.random.default_rng(seed))
        self.network = _Autoencoder(vae)

    def draw(self, rng: np.random.Generator) -> dict[str, Tensor]:
        """A piece of a clip."""
        clip = self.clips[rng.integers(len(self.clips))]
        room = np.array(clip.shape) - (self.frames, 0, self.crop, self.crop)
        t, _, y, x = (int(rng.integers(side + 1)) for side in room)
        piece = clip[t : t + self.frames, :, y : y + self.crop, x : x + self.crop]
        mirrored, reverse = rng.random(2) < 0.5
        axes = [axis for axis, wanted in ((-1, mirrored), (0, reverse)) if wanted]
        piece = piece.flip(axes) if axes else piece
        vae = self.network.vae
        shape = (1 + (self.frames - 1) // FRAMES_PER_LATENT, vae.channels, self.crop // FACTOR, self.crop // FACTOR)
        noise = NOISE * rng.random() * rng.standard_normal(shape, np.float32)
        return {"clip": (piece.float() / 127.5 - 1.0).contiguous(), "noise": torch.from_numpy(noise).float()}

    def loss(self, network: Any, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Absolute errors of colors and of their differences in space and time."""
        error = network(batch["clip"], batch["noise"]) - batch["clip"]
        color = error.abs().mean()
        slope = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        change = error.diff(dim=1).abs().mean()
        loss = color + SLOPE * slope + CHANGE * change
        terms = {"loss": loss, "color": color, "slope": slope, "change": change}
        return {name: value if name == "loss" else value.detach() for name, value in terms.items()}

    def validate(self, network: Any, folder: Path) -> dict[str, float]:  # noqa: ARG002
        """PSNR of held-out clips."""
        vae = self.network.vae
        errors, rows, latents = [], [], []
        for clip in self.held_out:
            colors = (clip.float() / 127.5 - 1.0)[None, : 1 + (len(clip) - 1) // 4 * 4].to(vae.device)
            encoded = vae.encoded(colors, first=True)
            made, _ = vae.decoded(encoded, first=True)
            made = made.clamp(-1.0, 1.0)
            errors.append(float((0.5 * (made - colors)).square().mean()))
            latents.append(encoded[0].transpose(0, 1).flatten(1))
            rows.append(torch.cat([torch.cat([part[0, 0], part[0, -1]], -1) for part in (colors, made)], -2))
        write_rgb_png(folder / "sheet.png", (0.5 * torch.cat(rows[:3], -2).cpu() + 0.5).clamp(0.0, 1.0))
        return {
            "psnr_db": float(-10.0 * np.log10(np.mean(errors))),
            "latents_std": float(torch.cat(latents, 1).std(1).mean()),
        }

    def save(self, weights: Mapping[str, Tensor], folder: Path) -> None:
        """``vae/``, as the models of this line have it."""
        vae = self.network.vae
        stripped = {name.removeprefix("vae."): value for name, value in weights.items()}
        write_part(folder / "vae", vae, vae.config, stripped, torch.float16)


def train_vae(
    data: Path,
    out: Path,
    steps: int = 8000,
    batch: int = 4,
    learning_rate: float = 1e-3,
    minutes: float = 600.0,
    seed: int = 0,
) -> None:
    """Train the small VAE, or go on with it; ``out/model/vae`` has its averaged weights.

    Args:
        data: folder of clips (`worldwarp render-data`) of 9 or more frames, 96x96 pixels or more.
        out: folder of the run.
        steps: see `Pace`, as all that follow.
        batch: pieces of 9 frames.
        learning_rate: peak.
        minutes: of this run.
        seed: of all draws.
    """
    pace = Pace(steps, batch, learning_rate, ema=0.998, weight_decay=0.0, minutes=minutes, seed=seed)
    train(lambda: VaeStage(data, seed=seed), pace, out)


def _colors(path: Path) -> UInt8[Tensor, "t 3 h w"]:
    return load_file(path)["rgb"]
