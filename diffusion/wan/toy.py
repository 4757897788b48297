"""A random model of a line, small enough for a CPU: it runs every stage without a download. Its pictures are noise."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from diffusion.wan.convert import write_line, write_model
from diffusion.wan.lines import VAES, Line
from diffusion.wan.load import empty_transformer, empty_vae, is_patched
from diffusion.wan.text_encoder import write_toy_text_encoder

_SMALL = {"num_attention_heads": 2, "attention_head_dim": 32, "ffn_dim": 192, "num_layers": 3}
_SMALL |= {"text_dim": 32, "freq_dim": 64}
_SMALL_PATCHED = {"width": 16, "blocks": 1, "fine_width": 8, "fine_blocks": 1}


def make_toy(folder: Path, line: Line, seed: int = 0) -> None:
    """Write a random diffusers folder: transformer of 3 layers, VAE of 8 channels, text encoder of 2 layers.

    Args:
        folder: to write to; must not hold a model.
        line: whose channels, schedule and attention it has.
        seed: another seed, other weights.

    Raises:
        ValueError: ``folder`` is not empty.
    """
    if folder.is_file() or (folder.exists() and any(folder.iterdir())):
        raise ValueError(f"toy: want an empty or new folder, got {folder}; choose another")
    folder.mkdir(parents=True, exist_ok=True)
    rng = torch.Generator().manual_seed(seed)
    config = {**line.transformer_config(), **_SMALL}
    transformer = empty_transformer(config)
    write_model(folder / "transformer", transformer, config, _random(transformer, rng), lambda _: torch.float32)
    published = VAES[line.vae]
    small = _SMALL_PATCHED if is_patched(published) else {"base_dim": 8, "decoder_base_dim": 8}
    config = {**published, **small}
    vae = empty_vae(config)
    write_model(folder / "vae", vae, config, _random(vae, rng), lambda _: torch.float32)
    write_toy_text_encoder(folder, _SMALL["text_dim"], seed)
    write_line(folder, line, "float32", ())


def _random(model: nn.Module, rng: torch.Generator) -> dict[str, Tensor]:
    """Weights that keep the scale of their input; norms are the identity."""
    weights: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        if name.endswith(".gamma") or (tensor.ndim == 1 and name.endswith(".weight")):
            weights[name] = torch.ones(tensor.shape)
        else:
            fan_in = tensor[0].numel() if tensor.ndim > 1 else 1
            scale = 0.02 if tensor.ndim == 1 else fan_in**-0.5
            weights[name] = scale * torch.randn(tensor.shape, generator=rng)
    return weights
