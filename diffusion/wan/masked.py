"""Passes of a Wan transformer in training: chosen positions, and a mask of which latent frame sees which.

In use a chunk attends to keys and values that were recorded before (`diffusion.wan.attention`). In training one pass
computes all of it: under a mask by which each latent frame sees its chunk and those before, that gives the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from diffusers.models.transformers.transformer_wan import WanAttnProcessor
from jaxtyping import Bool, Float
from torch import Tensor

from diffusion.wan.attention import FrameRope

if TYPE_CHECKING:
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel


class MaskedAttention:
    """The attention of a model under a mask that each pass sets; replaces the model's own in place."""

    def __init__(self, model: WanTransformer3DModel) -> None:
        """Take over a model with its stock attention."""
        self.rope = FrameRope(model.rope)
        model.rope = self.rope  # pyright: ignore[reportAttributeAccessIssue] (by design not theirs)
        self.mask: Bool[Tensor, "b 1 n n"] | None = None
        shared, stock = _Masked(self), WanAttnProcessor()
        processors: Any = {name: shared if ".attn1." in name else stock for name in model.attn_processors}
        model.set_attn_processor(processors)
        config: Any = model.config
        self.patch: int = config.patch_size[-1]

    def velocity(
        self,
        network: Any,
        noisy: Float[Tensor, "b f c h w"],
        level: Float[Tensor, "b f 1 h w"],
        text: Float[Tensor, "b n d"],
        sees: Bool[Tensor, "#b f f"] | None = None,
        positions: Sequence[int] | None = None,
    ) -> Float[Tensor, "b f c2 h w"]:
        """The velocities that the model predicts, all frames in one pass.

        Args:
            network: the model, or what wraps it for several devices.
            noisy: latents with the further input channels, if any.
            level: 0..1, one for all latent pixels of a token.
            text: embedded prompts.
            sees: whether a frame (row) attends to another (column); None: all to all.
            positions: rotary positions of the frames; None: from 0.
        """
        self.rope.positions = tuple(range(noisy.shape[1]) if positions is None else positions)
        self.mask = None
        if sees is not None:
            tokens = (noisy.shape[-2] // self.patch) * (noisy.shape[-1] // self.patch)
            self.mask = sees.repeat_interleave(tokens, -2).repeat_interleave(tokens, -1)[:, None]
        timestep = 1000.0 * level[:, :, 0, :: self.patch, :: self.patch].flatten(1)
        return network(noisy.transpose(1, 2), timestep, text, return_dict=False)[0].transpose(1, 2)


class _Masked(WanAttnProcessor):
    """Self-attention under the mask of its pass."""

    def __init__(self, state: MaskedAttention) -> None:
        super().__init__()
        self.state = state

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,  # noqa: ARG002
        rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        return super().__call__(attn, hidden_states, encoder_hidden_states, self.state.mask, rotary_emb)


def block_causal(blocks: Sequence[int]) -> Bool[Tensor, "f f"]:
    """Which frame sees which, given the block of each: its own block, and those before."""
    of = torch.tensor(blocks)
    return of <= of[:, None]
