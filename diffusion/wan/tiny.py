"""A small causal decoder of Wan's latents: a fraction of the time and memory of the VAE's, for somewhat softer frames.

It reads the weights of TAEHV (madebyollin/taehv on GitHub, MIT): ``taew2_1`` for latents of 16 channels, ``taew2_2``
for 48. Three stages each double height and width and the second and third also the number of frames; in each, three
residual blocks see the frame before besides their own. A clip of n latents has 4 n frames, of which the first 3 belong
to no frame of the video and are dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffusion.wan.files import listed, stored_tensors
from diffusion.wan.offload import Placement
from diffusion.wan.vae import StreamState

WIDTHS = (256, 128, 64, 64)
GROWTH = (1, 2, 2)  # frames per frame, of each stage
FRAMES_PER_LATENT = 4


class TinyDecoder(nn.Module):
    """Latents to frames, with the interface of `StreamingVAE.decode`.

    Attributes:
        channels: of a latent.
        decoder: layers by TAEHV's names.
        placement: of the weights; None: they stay where they are.
    """

    placement: Placement | None = None

    def __init__(self, channels: int, patch: int = 1, widths: Sequence[int] = WIDTHS) -> None:
        """Random weights.

        Args:
            channels: of a latent, 16 or 48.
            patch: side of the square of pixels that the last layer makes at once: 1 for 16 channels, 2 for 48.
            widths: channels of the three stages and of the last layer.
        """
        super().__init__()
        layers: list[nn.Module] = [_Squash(), _conv(channels, widths[0]), nn.ReLU()]
        for width, following, growth in zip(widths[:-1], widths[1:], GROWTH, strict=True):
            layers += [_FramePair(width), _FramePair(width), _FramePair(width), nn.Upsample(scale_factor=2)]
            layers += [_Grow(width, growth), _conv(width, following, bias=False)]
        layers += [nn.ReLU(), _conv(widths[-1], 3 * patch**2), nn.PixelShuffle(patch)]
        self.channels = channels
        self.decoder = nn.Sequential(*layers)

    @torch.no_grad()
    def decode(
        self, latents: Float[Tensor, "f c hl wl"], state: StreamState | None = None
    ) -> tuple[Float[Tensor, "t 3 h w"], StreamState]:
        """Decode the next latents of a stream, one at a time.

        Args:
            latents: normalized, as `StreamingVAE.encode` returns them.
            state: the state after the latents before; it stays valid. None begins a stream.

        Returns:
            Colors in 0..1 (float32), one frame of the first latent and 4 of each other, and the state.

        Raises:
            ValueError: no latents, or of another model, or another size than before.
        """
        count, channels, *size = latents.shape
        if channels != self.channels or count == 0:
            raise ValueError(
                f"tiny decoder: want one or more latents of {self.channels} channels, got {count} of {channels}; "
                "taew2_1 is for the VAE of Wan 2.1, taew2_2 for that of Wan 2.2"
            )
        if state is None:
            state = StreamState((None,) * len(self.decoder), 0, (size[0], size[1]))
        if state.size != tuple(size):
            raise ValueError(f"tiny decoder: want latents of {state.size} as before in this stream, got {tuple(size)}")
        weight = next(self.parameters())
        placement = self.placement or Placement(weight.device)
        placement.enter(self)
        cache, made = [placement.there(entry) for entry in state.cache], []
        for place, latent in enumerate(latents.split(1), state.latents):
            x = latent.to(placement.device, weight.dtype)
            for k, layer in enumerate(self.decoder):
                if isinstance(layer, _FramePair):
                    last = cache[k] if isinstance(cache[k], Tensor) else torch.zeros_like(x[:1])
                    cache[k] = x[-1:].clone()  # not a view, which would keep all frames of the call
                    x = layer(x, torch.cat([last, x[:-1]]))
                else:
                    x = layer(x)
            made.append(x[FRAMES_PER_LATENT - 1 :] if place == 0 else x)
        kept = tuple(placement.kept(entry) for entry in cache)
        return torch.cat(made).float().clamp(0.0, 1.0), StreamState(kept, state.latents + count, state.size)


def load_tiny(
    file: Path,
    channels: int,
    placement: Placement | None = None,
    dtype: torch.dtype = torch.float32,
    widths: Sequence[int] = WIDTHS,
) -> TinyDecoder:
    """A decoder with TAEHV's weights; those of its encoder are left out.

    Args:
        file: safetensors file with TAEHV's names.
        channels: of the latents it will decode: 16 or 48.
        placement: of its weights; None: on the CPU.
        dtype: of the weights.
        widths: of `TinyDecoder`.

    Raises:
        ValueError: the file is missing or damaged, or a tensor is missing, left over or of another shape.
    """
    stored = stored_tensors(file)
    with torch.device("meta"):
        model = TinyDecoder(channels, 2 if channels == 48 else 1, widths)
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: shape for name, shape in stored.shapes.items() if not name.startswith("encoder.")}
    grown = {f"decoder.{k}.conv.weight" for k, layer in enumerate(model.decoder) if isinstance(layer, _Grow)}

    def fits(name: str) -> bool:
        if name in grown and len(found[name]) == 4:
            # A checkpoint may make more frames than are used at a stage; the last ones are.
            return found[name][1:] == wanted[name][1:] and found[name][0] % wanted[name][0] == 0
        return found[name] == wanted[name]

    faults = {
        "missing": sorted(wanted.keys() - found.keys()),
        "unexpected": sorted(found.keys() - wanted.keys()),
        "of another shape": [
            f"{name} {list(found[name])}, want {list(wanted[name])}"
            for name in sorted(wanted.keys() & found.keys())
            if not fits(name)
        ],
    }
    if any(faults.values()):
        told = "; ".join(f"{len(those)} {kind}: {listed(those)}" for kind, those in faults.items() if those)
        raise ValueError(
            f"{file}: want the {len(wanted)} tensors of a TAEHV decoder of {channels} channels, got {told}; "
            f"take {'taew2_2' if channels == 48 else 'taew2_1'}.safetensors"
        )
    state = {name: tensor for name, tensor in stored.read() if name in wanted}
    placement = placement or Placement("cpu")
    state = {name: tensor[-wanted[name][0] :].to(placement.home, dtype) for name, tensor in state.items()}
    model.load_state_dict(state, assign=True)
    model.placement = placement
    return model.eval().requires_grad_(False)


class _Squash(nn.Module):
    """Keeps latents within -3..3, smoothly."""

    def forward(self, x: Tensor) -> Tensor:
        return 3.0 * torch.tanh(x / 3.0)


class _FramePair(nn.Module):
    """A residual block over a frame and the one before."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            _conv(2 * width, width), nn.ReLU(), _conv(width, width), nn.ReLU(), _conv(width, width)
        )

    def forward(self, x: Float[Tensor, "t c h w"], before: Float[Tensor, "t c h w"]) -> Float[Tensor, "t c h w"]:
        return torch.relu(self.conv(torch.cat([x, before], dim=1)) + x)


class _Grow(nn.Module):
    """Makes ``growth`` frames of each: groups of channels become frames."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width * growth, 1, bias=False)

    def forward(self, x: Float[Tensor, "t c h w"]) -> Float[Tensor, "tg c h w"]:
        return self.conv(x).unflatten(1, (-1, x.shape[1])).flatten(0, 1)


def _conv(width: int, following: int, *, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(width, following, 3, padding=1, bias=bias)
