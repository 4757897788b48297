"""A small causal autoencoder with the latents' shape of Wan 2.1: one linear map in, a convolutional network out.

The encoder maps squares of 8x8 pixels, of one frame at first and of four frames at once from then on, to their 16
principal components. These alone keep more of a clip than a convolutional VAE of 2.5 M weights after hours of training
on a CPU (docs/training.md has the figures). The decoder adds a correction to the inverse of that map: blocks over a
latent and the one before it at an eighth of the size, then finer ones at a quarter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion.wan.offload import Placement
from diffusion.wan.vae import StreamState, check_frames, check_latents

FRAMES_PER_LATENT, FACTOR = 4, 8


class PatchVAE(nn.Module):
    """Frames to latents and back, with the interface of `StreamingVAE`.

    Attributes:
        channels: of a latent.
        factor: pixels of a frame per latent pixel in height and width, 8.
        frames_per_latent: 4; the first latent has one frame.
        placement: of the weights; None: they stay where they are.
        config: the arguments, for ``config.json``.
    """

    factor, frames_per_latent = FACTOR, FRAMES_PER_LATENT
    placement: Placement | None = None

    def __init__(
        self, z_dim: int = 16, width: int = 192, blocks: int = 8, fine_width: int = 64, fine_blocks: int = 2
    ) -> None:
        """Random weights.

        Args:
            z_dim: channels of a latent.
            width: channels at an eighth of the size.
            blocks: there.
            fine_width: channels at a quarter of the size.
            fine_blocks: there.
        """
        super().__init__()
        self.config = {
            "z_dim": z_dim,
            "width": width,
            "blocks": blocks,
            "fine_width": fine_width,
            "fine_blocks": fine_blocks,
        }
        self.channels = z_dim
        pixels = 3 * FACTOR**2
        kinds = {"first": 1, "later": FRAMES_PER_LATENT}  # frames of a latent
        self.encoder = nn.ModuleDict({kind: nn.Conv2d(3 * t, z_dim, FACTOR, FACTOR) for kind, t in kinds.items()})
        self.inverse = nn.ModuleDict({kind: nn.Conv2d(z_dim, t * pixels, 1) for kind, t in kinds.items()})
        self.enter = nn.ModuleDict({kind: nn.Conv2d(z_dim, width, 3, padding=1) for kind in kinds})
        self.blocks = nn.ModuleList(_Block(width) for _ in range(blocks))
        self.rise = nn.Conv2d(width, 4 * fine_width, 1)
        self.fine_blocks = nn.ModuleList(_Block(fine_width) for _ in range(fine_blocks))
        self.leave = nn.ModuleDict(
            {kind: nn.Conv2d(fine_width, t * pixels // 4, 3, padding=1) for kind, t in kinds.items()}
        )
        for layer in self.leave.values():
            assert isinstance(layer, nn.Conv2d)
            assert layer.bias is not None
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    @property
    def halves(self) -> tuple[tuple[nn.Module, ...], tuple[nn.Module, ...]]:
        """What encodes, and what decodes."""
        return (self.encoder,), tuple(module for name, module in self.named_children() if name != "encoder")

    @property
    def device(self) -> torch.device:
        """Where it computes; results are there."""
        return next(self.parameters()).device if self.placement is None else self.placement.device

    def encoded(self, clips: Float[Tensor, "b t 3 h w"], *, first: bool) -> Float[Tensor, "b f c hl wl"]:
        """Latents of frames in -1..1; with ``first`` the first of them is a latent of its own."""
        made = [self._encode(clips[:, :1], "first")] if first else []
        later = clips[:, 1:] if first else clips
        if later.shape[1]:
            made.append(self._encode(later, "later"))
        return torch.cat(made, 1)

    def _encode(self, clips: Float[Tensor, "b t 3 h w"], kind: str) -> Float[Tensor, "b f c hl wl"]:
        x = clips.unflatten(1, (-1, 1 if kind == "first" else FRAMES_PER_LATENT))
        return self.encoder[kind](x.flatten(2, 3).flatten(0, 1)).unflatten(0, x.shape[:2])

    def decoded(
        self,
        latents: Float[Tensor, "b f c hl wl"],
        before: Sequence[Any] | None = None,
        *,
        first: bool,
    ) -> tuple[Float[Tensor, "b t 3 h w"], tuple[Tensor, ...]]:
        """Frames in about -1..1 of latents, and what the blocks remember of the last one, ``[b c h w]`` each.

        Args:
            latents: of clips.
            before: what was remembered of the latent before; None at the beginning of clips.
            first: whether the first latent is that of a single frame.
        """
        batch, count = latents.shape[:2]
        memory, kept = before or (None,) * (len(self.blocks) + len(self.fine_blocks)), []
        parts = {"first": latents[:, :1], "later": latents[:, 1:]} if first else {"later": latents}
        parts = {kind: part for kind, part in parts.items() if part.shape[1]}
        x = torch.cat(
            [self.enter[kind](part.flatten(0, 1)).unflatten(0, (batch, -1)) for kind, part in parts.items()], 1
        )
        for place, block in enumerate([*self.blocks, *self.fine_blocks]):
            if place == len(self.blocks):
                x = F.pixel_shuffle(self.rise(x.flatten(0, 1)), 2).unflatten(0, (batch, count))
            last = torch.zeros_like(x[:, :1]) if (old := memory[place]) is None else old[:, None]
            kept.append(x[:, -1].clone())  # not a view, which would keep all frames of the call
            earlier = torch.cat([last, x[:, :-1]], 1)
            x = block(x.flatten(0, 1), earlier.flatten(0, 1)).unflatten(0, (batch, count))
        made, done = [], 0
        for kind, part in parts.items():
            rows = part.shape[1]
            coarse = F.pixel_shuffle(self.inverse[kind](part.flatten(0, 1)), FACTOR)
            fine = F.pixel_shuffle(self.leave[kind](x[:, done : done + rows].flatten(0, 1)), FACTOR // 2)
            made.append((coarse + fine).unflatten(1, (-1, 3)).unflatten(0, (batch, rows)).flatten(1, 2))
            done += rows
        return torch.cat(made, 1), tuple(kept)

    @torch.no_grad()
    def encode(
        self, frames: Float[Tensor, "t 3 h w"], state: StreamState | None = None
    ) -> tuple[Float[Tensor, "f c hl wl"], StreamState]:
        """See `StreamingVAE.encode`; a latent depends on its own frames alone."""
        size = (frames.shape[-2] // FACTOR, frames.shape[-1] // FACTOR)
        check_frames(frames, state, FACTOR, FRAMES_PER_LATENT)
        self._have(0)
        latents = self.encoded(2.0 * frames.to(self.device, torch.float32)[None] - 1.0, first=state is None)[0]
        return latents, StreamState((), (0 if state is None else state.latents) + len(latents), size)

    @torch.no_grad()
    def decode(
        self, latents: Float[Tensor, "f c hl wl"], state: StreamState | None = None
    ) -> tuple[Float[Tensor, "t 3 h w"], StreamState]:
        """See `StreamingVAE.decode`."""
        check_latents(latents, state, self.channels)
        self._have(1)
        placement = self.placement or Placement(self.device)
        before = None if state is None else tuple(placement.there(entry) for entry in state.cache)
        made, done = [], 0 if state is None else state.latents
        for latent in latents.split(1):  # one at a time, so that pieces of any length give the same bits
            frames, before = self.decoded(latent.to(self.device, torch.float32)[None], before, first=done == 0)
            made.append(frames[0].clamp(-1.0, 1.0))
            done += 1
        kept = tuple(placement.kept(entry) for entry in before or ())
        return 0.5 * torch.cat(made) + 0.5, StreamState(kept, done, (latents.shape[-2], latents.shape[-1]))

    def _have(self, half: int) -> None:
        if self.placement is not None:
            self.placement.enter(*self.halves[half])


class _Block(nn.Module):
    """A residual block over features and those of the latent before: a depthwise convolution, then two layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.spread = nn.Conv2d(2 * width, 2 * width, 5, padding=2, groups=2 * width)
        self.norm = nn.LayerNorm(2 * width)
        self.first, self.second = nn.Linear(2 * width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Float[Tensor, "n c h w"], before: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        inside = self.spread(torch.cat([x, before], 1)).permute(0, 2, 3, 1)
        return x + self.second(F.gelu(self.first(self.norm(inside)))).permute(0, 3, 1, 2)
