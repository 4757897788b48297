"""One pass of a Wan transformer over the latents of a chunk: what is clean, and what is remembered.

The model is diffusers' own; its attention is `diffusion.wan.attention.KVAttention`. Levels are per token wherever they
differ, as Wan 2.2 does for its first frame (``timestep [b tokens]``).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion.flow import velocity_to_clean
from diffusion.wan.attention import KVAttention, Slot
from diffusion.wan.memory import Bounds, Context, LatentBank, Remembered
from diffusion.wan.offload import Placement
from geometry.camera import Camera

if TYPE_CHECKING:
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel


class WanDenoiser:
    """A transformer with everything that its passes share.

    Attributes:
        patch: latent pixels per token, in height and width.
        channels: of the latents that it predicts.
        extra_channels: further input channels.
    """

    def __init__(
        self,
        model: WanTransformer3DModel,
        guidance: float = 1.0,
        *,
        whole_timesteps: bool = False,
        placement: Placement | None = None,
    ) -> None:
        """Take over a model, in place.

        Args:
            model: in evaluation mode from now on.
            guidance: scale of classifier-free guidance; 1 is none. Otherwise every pass has two rows: prompt and
                negative prompt.
            whole_timesteps: tell the model timesteps without a fraction (CausVid).
            placement: of its weights; None: all stay where they are.
        """
        self.model = model.eval().requires_grad_(False)
        self.attention = KVAttention(model)
        config: Any = model.config
        self.patch: int = config.patch_size[-1]
        self.channels: int = config.out_channels
        self.extra_channels: int = config.in_channels - self.channels
        self.guidance = guidance
        self._whole = whole_timesteps
        self._placement = placement or Placement(model.proj_out.weight.device)
        self._placement.stream(list(model.blocks))

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self._placement.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the latents and embeddings that the model takes."""
        return self.model.patch_embedding.weight.dtype

    @torch.no_grad()
    def predict(
        self,
        noisy: Float[Tensor, "f c h w"],
        level: Float[Tensor, "f 1 h w"],
        text: Float[Tensor, "b n d"],
        context: Context,
        extra: Float[Tensor, "f e h w"] | None = None,
    ) -> Float[Tensor, "f c h w"]:
        """Clean latents, float32.

        Args:
            noisy: latents at their levels.
            level: 0..1, one for all latent pixels of a token.
            text: embedded prompt, and with guidance the negative prompt as the second row.
            context: earlier frames that the chunk attends to, and positions.
            extra: further input channels (`extra_channels`); None: zeros.
        """
        velocity = self._pass(noisy, level, text, context, extra)
        if self.guidance != 1.0:
            velocity = velocity[1:] + self.guidance * (velocity[:1] - velocity[1:])
        return velocity_to_clean(noisy, velocity[0].transpose(0, 1), level)

    @torch.no_grad()
    def record(
        self,
        latents: Float[Tensor, "f c h w"],
        text: Float[Tensor, "b n d"],
        context: Context,
        level: float = 0.0,
    ) -> tuple[Slot, ...]:
        """Keys and values of latent frames, from one pass over them; the frames see each other and ``context``.

        Args:
            latents: clean, or noised to ``level``.
            text: as in `predict`.
            context: as in `predict`.
            level: told to the model.
        """
        frames, _, height, width = latents.shape
        tokens = (height // self.patch) * (width // self.patch)
        self._placement.enter(self.model, leave=self.attention.forget)
        like = text.to(self.device, self.dtype)
        slots = self.attention.record(frames, tokens, like)
        self._pass(latents, torch.full_like(latents[:, :1], level), text, context, None)
        self.attention.stop_recording()
        return tuple(self._placement.kept(slot) for slot in slots)

    def extend(
        self,
        bank: LatentBank,
        latents: Float[Tensor, "f c h w"],
        camera: Camera,
        place: int,
        chunk: int,
        text: Float[Tensor, "b n d"],
        bounds: Bounds,
        noised: tuple[Float[Tensor, "f c h w"], float] | None = None,
    ) -> LatentBank:
        """A bank that remembers a finished chunk too.

        Args:
            bank: what was remembered before; it stays as it is.
            latents: of the chunk, clean.
            camera: of its latent frames ``[f]``.
            place: of its first latent frame in the walk.
            chunk: its index.
            text: prompt under which it is remembered.
            bounds: the policy.
            noised: the latents noised, and their level, to remember these; None: the clean ones.
        """
        seen, level = (latents, 0.0) if noised is None else noised
        slots = self.record(seen, text, bank.context(camera, place, bounds), level)
        frames = [Remembered(slot, seen[k], place + k, chunk) for k, slot in enumerate(slots)]
        return bank.extended(frames, camera, bounds)

    def recached(self, bank: LatentBank, text: Float[Tensor, "b n d"], bounds: Bounds) -> LatentBank:
        """The same frames remembered under another prompt, chunk after chunk (LongLive, section 3.1)."""
        made = LatentBank((), bank.camera[:0], bank.unit)
        for frames, camera in bank.by_chunk():
            latents = torch.stack([frame.latent for frame in frames])
            context = made.context(camera, frames[0].place, bounds)
            level = 0.0 if frames[0].chunk == 0 else bounds.context_noise
            slots = self.record(latents, text, context, level)
            anew = [replace(frame, slot=slot) for frame, slot in zip(frames, slots, strict=True)]
            made = made.extended(anew, camera, bounds)
        return made

    def _pass(
        self, noisy: Tensor, level: Tensor, text: Tensor, context: Context, extra: Tensor | None
    ) -> Float[Tensor, "b c f h w"]:
        """The velocity that the model gives, float32."""
        dtype, device, frames = self.dtype, self.device, len(noisy)
        self._placement.enter(self.model, leave=self.attention.forget)
        grid = (noisy.shape[-2] // self.patch, noisy.shape[-1] // self.patch)
        self.attention.load(context.slots, context.positions, frames, grid)
        self.attention.rope.positions = context.at
        self.attention.read(text)
        if extra is None:
            extra = noisy.new_zeros(frames, self.extra_channels, *noisy.shape[-2:])
        rows = len(text)
        clip = torch.cat([noisy, extra], 1).transpose(0, 1)[None].to(device, dtype).expand(rows, -1, -1, -1, -1)
        timestep = 1000.0 * level[:, 0, :: self.patch, :: self.patch].to(device, torch.float32).flatten()
        if self._whole:
            timestep = timestep.round()
        one = (timestep == timestep[0]).all()  # a single timestep needs less than half the activations
        timestep = timestep[0].expand(rows) if one else timestep.expand(rows, -1)
        return self.model(clip, timestep, text.to(device, dtype), return_dict=False)[0].to(noisy.device).float()
