"""Toy transformers of the real class, and the golden tensors of the original programs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import Tensor

TEXT = 32


@pytest.fixture
def transformer() -> Callable[..., WanTransformer3DModel]:
    """Makes toy transformers; the same weights each time."""

    def make(**config: Any) -> WanTransformer3DModel:
        sizes = {"num_attention_heads": 2, "attention_head_dim": 24, "num_layers": 3, "ffn_dim": 96, "freq_dim": 64}
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = WanTransformer3DModel(**{**sizes, "text_dim": TEXT, **config})  # pyright: ignore
        return model.eval().requires_grad_(False)

    return make


@pytest.fixture
def text() -> Tensor:
    """An embedded prompt of 20 tokens, padded."""
    embedded = torch.zeros(1, 512, TEXT)
    embedded[:, :20] = torch.randn(1, 20, TEXT, generator=torch.Generator().manual_seed(7))
    return embedded


@pytest.fixture
def vae() -> Callable[[str], AutoencoderKLWan]:
    """Makes toy VAEs of version 2.1 or 2.2; the same weights each time."""
    small = {"base_dim": 4, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1}
    residual = {"decoder_base_dim": 4, "is_residual": True, "in_channels": 12, "out_channels": 12, "patch_size": 2}
    residual |= {"z_dim": 48, "scale_factor_spatial": 16, "latents_mean": [0.0] * 48, "latents_std": [1.0] * 48}

    def make(version: str) -> AutoencoderKLWan:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return AutoencoderKLWan(**{**small, **(residual if version == "2.2" else {})})  # pyright: ignore

    return make
