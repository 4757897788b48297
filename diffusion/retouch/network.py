"""The packaged network: a small causal RGB-D network in pixel space that corrects the inpainted prior.

Pixels are unshuffled by 2, a convolutional U-Net works on each frame alone down to 1/16, and there transformer blocks
attend over the frames of a chunk and over remembered frames. It predicts the clean state as *base + residual*: the base
is the prior, with a learned share of the smooth fill where copying fails and with weaker or stronger fine detail; the
residual corrects it. Both vanish where nothing is uncertain, so that observed pixels stay as they are.

Shapes: B batch, T frames, S remembered frames, L blocks, N tokens per frame, C channels, H W pixels.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle, silu

from diffusion.retouch.attention import (
    CameraAttention,
    CameraMatrices,
    RMSNorm,
    block_causal,
    camera_matrices,
    rotary,
)
from geometry.filters import dilate, mean

STRIDE = 16  # pixels per token
# The weights were trained with these; other values need other weights.
_INSIDE_PX = 7  # copied pixels farther than this from known ones are scaled and tinted, not drawn
# Strengthening of the two bands of detail (see `detail`) that copying weakens. On 116 held-out clips .22 of the middle
# band takes the spectrum's error from .240 to about .14; any strengthening of the fine band is judged worse.
_RESTORED = (0.0, 0.22)


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes of the network.

    Attributes:
        widths: channels at 1/2, 1/4 and 1/8, multiples of 8.
        dim: channels of the transformer at 1/16.
        blocks: transformer blocks.
        heads: attention heads; ``dim / heads`` is a multiple of 8.
        draws: whether the network may synthesize pixels deep inside copied regions, as one that starts from full noise
            must. Else colors are tinted and texture is scaled there, both smoothly: a small network draws dots.
    """

    widths: tuple[int, int, int] = (48, 96, 160)
    dim: int = 256
    blocks: int = 6
    heads: int = 4
    draws: bool = True

    def to_text(self) -> dict[str, str]:
        """The sizes as string metadata of a weights file."""
        return {key: json.dumps(value) for key, value in asdict(self).items()}

    @staticmethod
    def from_text(text: dict[str, str]) -> NetworkConfig:
        """The inverse of `to_text`; other keys are ignored, a missing ``draws`` is True (older files).

        Raises:
            KeyError: another missing key.
        """
        text = {"draws": "true", **text}
        values = {field.name: json.loads(text[field.name]) for field in fields(NetworkConfig)}
        return NetworkConfig(**{**values, "widths": tuple(values["widths"])})


@dataclass(frozen=True)
class Inputs:
    """Input of the network, T frames; states are RGB in -1..1 and the depth code of `diffusion.rgbd_state`.

    Attributes:
        state: noisy state, ``[B T 4 H W]``.
        prior: complete prior, ``[B T 4 H W]``.
        smooth: smooth fill, ``[B T 4 H W]``.
        coverage, confidence, copied, sigma: maps in 0..1, ``[B T 1 H W]``.
        world_from_camera: ``[B T 4 4]``.
        intrinsics: K in pixels, ``[B T 3 3]``.
        unit: scene units per length unit, ``[B]``.
    """

    state: Tensor
    prior: Tensor
    smooth: Tensor
    coverage: Tensor
    confidence: Tensor
    copied: Tensor
    sigma: Tensor
    world_from_camera: Tensor
    intrinsics: Tensor
    unit: Tensor

    @property
    def uncertainty(self) -> Tensor:
        """How far each pixel may be changed, 0..1: 1 where it was copied, 1 - confidence where it was rendered."""
        return (self.copied + (1.0 - self.copied) * (1.0 - self.coverage * self.confidence)).clamp(0.0, 1.0)


@dataclass(frozen=True)
class Past:
    """Remembered frames: keys and values ``[B S L N C]``, poses ``[B S 4 4]`` and intrinsics ``[B S 3 3]``."""

    keys: Tensor
    values: Tensor
    world_from_camera: Tensor
    intrinsics: Tensor


class DenoiserNetwork(nn.Module):
    """Predicts clean RGB-D states; see the module's docstring."""

    def __init__(self, config: NetworkConfig = NetworkConfig()) -> None:
        """Initialize at random; the head starts small, so that the first prediction is nearly the prior."""
        super().__init__()
        self.config = config
        w2, w4, w8 = config.widths
        self.stem = nn.Conv2d(4 * 18, w2, 3, padding=1)
        self.down = nn.ModuleList([_ResBlock(w2), _ResBlock(w4), _ResBlock(w8)])
        self.shrink = nn.ModuleList(
            [nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in ((w2, w4), (w4, w8), (w8, config.dim))]
        )
        self.blocks = nn.ModuleList([_Block(config.dim, config.heads) for _ in range(config.blocks)])
        self.grow = nn.ModuleList([nn.Conv2d(a, 4 * b, 1) for a, b in ((config.dim, w8), (w8, w4), (w4, w2))])
        self.up = nn.ModuleList([_ResBlock(w8), _ResBlock(w4), _ResBlock(w2)])
        self.head = nn.Conv2d(w2, 4 * 7, 3, padding=1)
        nn.init.normal_(self.head.weight, std=0.004)
        assert self.head.bias is not None
        nn.init.zeros_(self.head.bias)

    def forward(
        self, inputs: Inputs, past: Past | None = None, chunk_of_frame: Tensor | None = None, first: int = 0
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Predict the clean state of every frame from ``first`` on.

        Args:
            inputs: the frames; any image size, padded here to multiples of 16.
            past: keys and values that earlier calls returned, of frames of earlier chunks.
            chunk_of_frame: chunk index of each frame ``[T]``; frames attend to their own chunk and earlier ones. None:
                one chunk.
            first: frames before it are only attended to, not predicted.

        Returns:
            Clean state ``[B T-first 4 H W]``; keys and values of all frames, ``[B T L N C]``.
        """
        batch, frames, _, height, width = inputs.state.shape
        features = nn.functional.pad(
            _channels(inputs).flatten(0, 1), (0, -width % STRIDE, 0, -height % STRIDE), mode="replicate"
        )
        x = self.stem(pixel_unshuffle(features, 2).to(memory_format=torch.channels_last))
        skips = []
        for block, shrink in zip(self.down, self.shrink, strict=True):
            x = block(x)
            skips.append(x.unflatten(0, (batch, frames))[:, first:].flatten(0, 1))
            x = shrink(x)
        x, keys, values = self._attend(x.unflatten(0, (batch, frames)), inputs, past, chunk_of_frame)
        if first == frames:
            return inputs.prior[:, first:], keys, values
        x = x[:, first:].flatten(0, 1)
        for grow, block, skip in zip(self.grow, self.up, reversed(skips), strict=True):
            x = block(pixel_shuffle(grow(x), 2) + skip)
        raw = pixel_shuffle(self.head(silu(x)), 2)[..., :height, :width].unflatten(0, (batch, frames - first))
        draws = self.config.draws
        made = _prior_plus_residual(
            inputs, raw.to(inputs.prior), first, draws=draws, restores=not (draws or self.training)
        )
        return made, keys, values

    def _attend(
        self, x_BTCHW: Tensor, inputs: Inputs, past: Past | None, chunk_of_frame: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run the transformer blocks at 1/16."""
        rows, columns = x_BTCHW.shape[-2:]
        size = (inputs.state.shape[-2], inputs.state.shape[-1])
        x_BTNC = x_BTCHW.flatten(3).transpose(2, 3)
        origin = inputs.world_from_camera[:, -1]
        frames = camera_matrices(inputs.world_from_camera, inputs.intrinsics, size, origin, inputs.unit)
        past_frames = past and camera_matrices(past.world_from_camera, past.intrinsics, size, origin, inputs.unit)
        mask = None
        if chunk_of_frame is not None:
            if past is not None:
                raise ValueError("chunk_of_frame: want None together with a past, which belongs to earlier chunks")
            mask = block_causal(chunk_of_frame, chunk_of_frame, rows * columns)
        code = rotary(rows, columns, self.config.dim // self.config.heads // 2, x_BTNC)
        keys, values = [], []
        for index, block in enumerate(self.blocks):
            layer = None
            if past is not None and past_frames is not None:
                layer = (past.keys[:, :, index], past.values[:, :, index], past_frames)
            x_BTNC, key, value = block(x_BTNC, code, frames, layer, mask)
            keys.append(key)
            values.append(value)
        x = x_BTNC.transpose(2, 3).unflatten(3, (rows, columns))
        return x, torch.stack(keys, dim=2), torch.stack(values, dim=2)


class _ResBlock(nn.Module):
    """Two convolutions behind a group normalization, added to the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, channels)
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.normal_(self.second.weight, std=0.3 / (9 * channels) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(silu(self.first(silu(self.norm(x)))))


class _Block(nn.Module):
    """A transformer block with pre-normalization."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm_attention = RMSNorm(dim, eps=1e-6)
        self.attention = CameraAttention(dim, heads)
        self.norm_mlp = RMSNorm(dim, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(
        self,
        x_BTNC: Tensor,
        code: tuple[Tensor, Tensor],
        frames: CameraMatrices,
        past: tuple[Tensor, Tensor, CameraMatrices] | None,
        mask: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        attended, keys, values = self.attention(self.norm_attention(x_BTNC), code, frames, past, mask)
        x_BTNC = x_BTNC + attended
        return x_BTNC + self.mlp(self.norm_mlp(x_BTNC)), keys, values


def _channels(inputs: Inputs) -> Tensor:
    """States, maps and the ray of each pixel, concatenated, ``[B T 18 H W]``."""
    batch, frames, _, height, width = inputs.state.shape
    k = inputs.intrinsics
    column = torch.arange(width, device=k.device, dtype=k.dtype) + 0.5
    row = torch.arange(height, device=k.device, dtype=k.dtype) + 0.5
    ray_x = (column - k[..., 0, 2, None]) / k[..., 0, 0, None]
    ray_y = (row - k[..., 1, 2, None]) / k[..., 1, 1, None]
    rays = torch.stack(
        [
            ray_x[..., None, :].expand(batch, frames, height, width),
            ray_y[..., :, None].expand(batch, frames, height, width),
        ],
        dim=2,
    )
    maps = [inputs.coverage, inputs.confidence, inputs.copied, inputs.sigma]
    return torch.cat([inputs.state, inputs.prior, inputs.smooth, *maps, rays], dim=2)


def _prior_plus_residual(inputs: Inputs, raw: Tensor, first: int, *, draws: bool, restores: bool) -> Tensor:
    """Base plus residual; both vanish where nothing is uncertain or no noise is left.

    Rendered pixels keep their detail: to blur what is uncertain minimizes the mean error, and over many chunks becomes
    fog.

    Args:
        inputs: input of the network.
        raw: output of the head, ``[B T-first 7 H W]``: RGB and depth residual, share of the smooth fill, gains of two
            bands of detail.
        first: frames before it are not predicted.
        draws: see `NetworkConfig`.
        restores: strengthen deep copies by `_RESTORED`. Not in training, where the network would learn to undo it.

    Returns:
        Clean state, ``[B T-first 4 H W]``.
    """
    prior, smooth, sigma = inputs.prior[:, first:], inputs.smooth[:, first:], inputs.sigma[:, first:]
    half_sigma = 0.02  # noise level at which the residual has half its strength
    freedom = inputs.uncertainty[:, first:] * sigma / (sigma + half_sigma)
    copied = inputs.copied[:, first:] > 0.5
    drawn = torch.cat([raw[:, :, :3], raw[:, :, 5:]], dim=2)
    deep = inside(copied) & (not draws)
    calm_px = 4  # radius of the mean that makes scaling and tint smooth there
    drawn = torch.where(deep, mean(drawn, calm_px), drawn)
    share = torch.sigmoid(raw[:, :, 4:5] - 3.0) * freedom * copied
    rgb = torch.lerp(prior[:, :, :3], smooth[:, :, :3], share)
    fine, middle = (band.view_as(rgb) for band in detail(prior[:, :, :3].flatten(0, 1)))
    gain = torch.tanh(drawn[:, :, 3:])
    gain = torch.where(copied, gain, gain.clamp_min(0.0))
    if restores:
        gain = gain + deep * gain.new_tensor(_RESTORED).reshape(2, 1, 1)
    gain = freedom * gain
    base = torch.cat([rgb + gain[:, :, :1] * fine + gain[:, :, 1:] * middle, prior[:, :, 3:]], dim=2)
    return base + freedom * torch.cat([drawn[:, :, :3], raw[:, :, 3:4]], dim=2)


def inside(copied: Bool[Tensor, "*n 1 h w"]) -> Bool[Tensor, "*n 1 h w"]:
    """Copied pixels farther than `_INSIDE_PX` from known ones: the inside of wide holes."""
    return dilate((~copied).float(), _INSIDE_PX) < 0.5


def detail(rgb: Float[Tensor, "n 3 h w"]) -> tuple[Tensor, Tensor]:
    """Two bands of detail ``[n 3 h w]``: finer than 3 px, and from there to 9 px."""
    soft = mean(rgb, 1)
    softer = mean(soft, 3)
    return rgb - soft, soft - softer
