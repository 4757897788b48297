"""The causal video autoencoder of Wan, piece by piece: a state goes in with each piece and a new one comes out.

Wan's VAE (arXiv 2503.20314, section 4.1) is causal in time: one frame becomes the first latent, then each four frames
become one. The class of diffusers clears what its convolutions remember at both ends of `encode` and `decode`; here it
is the caller's value, so that a walk of any length is encoded and decoded as one clip.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion.wan.offload import Placement

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan


@dataclass(frozen=True)
class StreamState:
    """What one stream has left in the convolutions of an encoder or a decoder.

    An older state stays valid: no call writes into its tensors, so keeping it is a fork of the stream, and running the
    same pieces again from the start gives the same state to the bit.

    Attributes:
        cache: a tensor for each causal convolution: the ends of its last inputs. An entry that no convolution has
            filled is None, and a string marks an upsampler that has passed the first latent alone.
        latents: latents of the stream so far.
        size: ``(H, W)`` of these latents.
    """

    cache: tuple[Tensor | str | None, ...]
    latents: int
    size: tuple[int, int]


class StreamingVAE:
    """An `AutoencoderKLWan` of version 2.1 or 2.2 as a pair of streams.

    The encoder computes in float32 (in bfloat16 its errors add up over a rollout, see FastVideo pull request 1472), the
    decoder in any precision. Pieces are run one latent at a time: half the peak of three at once, and equal to the bit
    to the whole clip.

    Attributes:
        channels: of a latent, 16 (2.1) or 48 (2.2).
        factor: pixels of a frame per latent pixel in height and width, 8 (2.1) or 16 (2.2).
        frames_per_latent: 4; the first latent has one frame.
    """

    def __init__(
        self, vae: AutoencoderKLWan, dtype: torch.dtype = torch.float32, placement: Placement | None = None
    ) -> None:
        """Take over a VAE.

        Args:
            vae: is cast in place: the encoder to float32, the decoder to ``dtype``.
            dtype: precision of the decoder; bfloat16 is for devices that compute in it.
            placement: of its halves; None: both stay where they are.
        """
        from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d

        config: Any = vae.config
        self._vae = vae.eval().requires_grad_(False)
        self._placement = placement or Placement(vae.quant_conv.weight.device)
        self._patch: int = config.patch_size or 1
        self._dtype = dtype
        for module in (vae.encoder, vae.quant_conv):
            module.float()
        for module in (vae.decoder, vae.post_quant_conv):
            module.to(dtype)
        self._slots: dict[torch.nn.Module, int] = {
            half: sum(isinstance(module, WanCausalConv3d) for module in half.modules())
            for half in (vae.encoder, vae.decoder)
        }
        self.channels: int = config.z_dim
        self.factor: int = self._patch * 2 ** (len(config.dim_mult) - 1)
        self.frames_per_latent: int = 2 ** sum(config.temperal_downsample)
        if len(config.latents_mean) != self.channels or len(config.latents_std) != self.channels:
            raise ValueError(
                f"VAE config: want latents_mean and latents_std of z_dim {self.channels} numbers, got "
                f"{len(config.latents_mean)} and {len(config.latents_std)}; take the config.json of these weights"
            )
        self._mean = torch.tensor(config.latents_mean, device=self.device).reshape(1, -1, 1, 1)
        self._std = torch.tensor(config.latents_std, device=self.device).reshape(1, -1, 1, 1)

    @property
    def device(self) -> torch.device:
        """Where the VAE computes; results are there."""
        return self._placement.device

    @property
    def halves(self) -> tuple[tuple[torch.nn.Module, ...], tuple[torch.nn.Module, ...]]:
        """What encodes, and what decodes."""
        return (self._vae.encoder, self._vae.quant_conv), (self._vae.decoder, self._vae.post_quant_conv)

    @torch.no_grad()
    def encode(
        self, frames: Float[Tensor, "t 3 h w"], state: StreamState | None = None
    ) -> tuple[Float[Tensor, "f c hl wl"], StreamState]:
        """Encode the next frames of a stream.

        Args:
            frames: colors in 0..1; height and width are multiples of `factor`. Exactly one frame without ``state``,
                then a multiple of `frames_per_latent`.
            state: the state after the frames before; None begins a stream.

        Returns:
            Latents as the transformer takes them (mode of the posterior, normalized by the mean and the deviation of
            each channel; float32), and the state after ``frames``.

        Raises:
            ValueError: another number of frames, another size than before, or one that is no multiple.
        """
        height, width = frames.shape[-2:]
        check_frames(frames, state, self.factor, self.frames_per_latent)
        encoder = self._vae.encoder
        before = self._before(encoder, state, (height // self.factor, width // self.factor))
        self._placement.enter(encoder, self._vae.quant_conv)
        cache, made = [self._placement.there(entry) for entry in before.cache], []
        for piece in frames.split(self.frames_per_latent):
            clip = 2.0 * piece.to(self.device, torch.float32).transpose(0, 1)[None] - 1.0
            moments = self._vae.quant_conv(encoder(self._patchify(clip), feat_cache=cache, feat_idx=[0]))
            made.append(moments[0, : self.channels].transpose(0, 1))
        latents = (torch.cat(made) - self._mean) / self._std
        return latents, self._after(before, cache, len(made))

    @torch.no_grad()
    def decode(
        self, latents: Float[Tensor, "f c hl wl"], state: StreamState | None = None
    ) -> tuple[Float[Tensor, "t 3 h w"], StreamState]:
        """Decode the next latents of a stream.

        Args:
            latents: normalized, as `encode` returns them. Exactly one without ``state``, then any number.
            state: the state after the latents before; None begins a stream.

        Returns:
            Colors in 0..1 (float32), one frame of the first latent and `frames_per_latent` of each other, and the
            state after ``latents``.

        Raises:
            ValueError: no latent or more than one first, another VAE's latents, or another size than before.
        """
        check_latents(latents, state, self.channels)
        height, width = latents.shape[-2:]
        decoder = self._vae.decoder
        before = self._before(decoder, state, (height, width))
        self._placement.enter(decoder, self._vae.post_quant_conv)
        cache, made = [self._placement.there(entry) for entry in before.cache], []
        for place, latent in enumerate(latents.split(1), before.latents):
            z = latent.to(self.device, torch.float32) * self._std + self._mean
            z = self._vae.post_quant_conv(z.to(self._dtype).transpose(0, 1)[None])
            clip = decoder(z, feat_cache=cache, feat_idx=[0], first_chunk=place == 0)
            made.append(self._unpatchify(clip)[0].transpose(0, 1).float().clamp(-1.0, 1.0))
        return 0.5 * torch.cat(made) + 0.5, self._after(before, cache, len(made))

    def _before(self, half: torch.nn.Module, state: StreamState | None, size: tuple[int, int]) -> StreamState:
        if state is None:
            return StreamState((None,) * self._slots[half], 0, size)
        if len(state.cache) != self._slots[half]:
            raise ValueError(
                f"VAE: want a state of {self._slots[half]} convolutions, got one of {len(state.cache)}; "
                "a state belongs to the encoder or the decoder that returned it"
            )
        check_size(state, size)
        return state

    def _after(self, before: StreamState, cache: list[Any], latents: int) -> StreamState:
        kept = tuple(self._placement.kept(entry) for entry in cache)
        return StreamState(kept, before.latents + latents, before.size)

    def _patchify(self, clip: Float[Tensor, "1 3 t h w"]) -> Tensor:
        from diffusers.models.autoencoders.autoencoder_kl_wan import patchify

        return patchify(clip, self._patch)

    def _unpatchify(self, clip: Tensor) -> Float[Tensor, "1 3 t h w"]:
        from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify

        return unpatchify(clip, self._patch)


def check_frames(
    frames: Float[Tensor, "t 3 h w"], state: StreamState | None, factor: int, frames_per_latent: int
) -> None:
    """Whether frames can follow in a stream of an encoder.

    Raises:
        ValueError: see `StreamingVAE.encode`.
    """
    count, _, height, width = frames.shape
    if state is None and count != 1:
        raise ValueError(f"VAE encode: want one frame first (the photo), got {count}; pass the others afterwards")
    if count == 0 or (state is not None and count % frames_per_latent):
        raise ValueError(f"VAE encode: want a multiple of {frames_per_latent} frames, got {count}; pad them")
    if height % factor or width % factor:
        nearest = "x".join(str(max(1, round(side / factor)) * factor) for side in (width, height))
        raise ValueError(
            f"VAE encode: want width and height in multiples of {factor}, got {width}x{height}; take {nearest}"
        )
    check_size(state, (height // factor, width // factor))


def check_latents(latents: Float[Tensor, "f c hl wl"], state: StreamState | None, wanted: int) -> None:
    """Whether latents can follow in a stream of a decoder.

    Raises:
        ValueError: see `StreamingVAE.decode`.
    """
    count, channels, height, width = latents.shape
    if channels != wanted:
        raise ValueError(
            f"VAE decode: want latents of {wanted} channels, got {channels}, which another VAE made; "
            "decode them with the VAE that belongs to their model"
        )
    if count == 0 or (state is None and count != 1):
        raise ValueError(f"VAE decode: want one latent first (the photo's), got {count}; pass the others afterwards")
    check_size(state, (height, width))


def check_size(state: StreamState | None, size: tuple[int, int]) -> None:
    """Whether latents have the size of those before them.

    Raises:
        ValueError: they do not.
    """
    if state is not None and state.size != size:
        raise ValueError(f"VAE: want latents of {state.size} as before in this stream, got {size}; begin another")
