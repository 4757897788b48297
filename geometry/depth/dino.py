"""DINOv2 ViT-S/14 (Oquab et al. 2023), an encoder whose features tell what a picture shows; for images of any size.

Shapes: B batch, H W pixels, ``h w`` patches of `PATCH` pixels, C channels.
"""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import gelu, interpolate, scaled_dot_product_attention

FORMAT = "worldwarp-dino-1"
PATCH = 14
TAPS = 4  # layers whose features are returned
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, by which its input is normalized


class _Attention(nn.Module):
    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(channels, channels) for _ in range(4))

    def forward(self, x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        query, key, value = (
            part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        return self.out(scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class _Layer(nn.Module):
    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(channels, eps=1e-6) for _ in range(2))
        self.attention = _Attention(channels, heads)
        self.scale1, self.scale2 = (nn.Parameter(torch.ones(channels)) for _ in range(2))
        self.fc1, self.fc2 = nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, channels)

    def forward(self, x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        x = x + self.scale1 * self.attention(self.norm1(x))
        return x + self.scale2 * self.fc2(gelu(self.fc1(self.norm2(x))))


class DinoEncoder(nn.Module):
    """Patch features after each quarter of its layers.

    Args:
        channels: width, 384 for ViT-S.
        layers: depth, 12 for ViT-S.
        heads: attention heads, 6 for ViT-S.
        grid: side of the learned grid of positions, 37 for the published weights.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, channels: int = 384, layers: int = 12, heads: int = 6, grid: int = 37) -> None:
        super().__init__()
        self.shape = (channels, layers, heads, grid)
        self.patches = nn.Conv2d(3, channels, PATCH, PATCH)
        self.first = nn.Parameter(torch.zeros(1, 1, channels))  # the class token
        self.first_position = nn.Parameter(torch.zeros(1, 1, channels))
        self.positions = nn.Parameter(torch.zeros(1, channels, grid, grid))
        self.layers = nn.ModuleList(_Layer(channels, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATION)[:, None, None], persistent=False)

    def forward(self, rgb: Float[Tensor, "b 3 H W"]) -> list[Float[Tensor, "b c h w"]]:
        """Normalized patch features, early ones first, of colors in 0..1.

        Raises:
            ValueError: a side is no multiple of `PATCH`.
        """
        height, width = rgb.shape[-2:]
        if height % PATCH or width % PATCH:
            raise ValueError(f"rgb: want sides that are multiples of {PATCH}, got {height}x{width}; resize it")
        x = self.patches((rgb - self.mean) / self.deviation)
        size = x.shape[-2:]
        x = x + interpolate(self.positions, size, mode="bicubic", align_corners=False)
        first = (self.first + self.first_position).expand(len(x), -1, -1)
        x = torch.cat([first, x.flatten(2).transpose(1, 2)], 1)
        found = []
        read = {len(self.layers) * quarter // TAPS for quarter in range(1, TAPS + 1)}
        for number, layer in enumerate(self.layers, 1):
            x = layer(x)
            if number in read:
                found.append(self.norm(x)[:, 1:].transpose(1, 2).unflatten(-1, size))
        return found


def save_encoder(encoder: DinoEncoder, path: Path, notes: dict[str, str]) -> None:
    """Write weights as float16 with their architecture and ``notes`` on their source."""
    shape = ",".join(map(str, encoder.shape))
    state = {name: value.half().contiguous() for name, value in encoder.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path, {**notes, "format": FORMAT, "shape": shape})


def load_encoder(path: Path) -> DinoEncoder:
    """Read weights of `save_encoder`.

    Raises:
        ValueError: the file is missing or holds something else.
    """
    try:
        with safe_open(path, "pt") as file:
            notes = file.metadata() or {}
        if notes.get("format") != FORMAT:
            raise ValueError(f"its format is {notes.get('format')}")
        encoder = DinoEncoder(*map(int, notes["shape"].split(",")))
        encoder.load_state_dict({name: value.float() for name, value in load_file(path).items()})
    except (OSError, SafetensorError, RuntimeError, ValueError, KeyError) as error:
        raise ValueError(
            f"encoder: want a file of `worldwarp train fetch-encoder` ({FORMAT}), got {path} ({error})"
        ) from None
    return encoder.eval()
