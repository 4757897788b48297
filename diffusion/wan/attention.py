"""Attention of a stock `WanTransformer3DModel` over keys and values of earlier frames, without a fork of the model.

Processors and the rotary module of the model are replaced. Keys are kept *unrotated*: attention depends on differences
of positions alone, so that remembered frames can be put at any position later (LongLive, arXiv 2509.22622, does this
for its endless variant). Before a chunk is denoised, what it recalls is rotated once into one buffer; each pass writes
the chunk's own keys and values behind it and attends to the whole buffer, without a mask and without a concatenation.

Shapes: L blocks, b batch (2 with guidance), n tokens of a latent frame, H heads, E channels of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

if TYPE_CHECKING:
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

Slot = Tensor
"""Keys (unrotated) and values of one latent frame, ``[2 L b n H E]``."""


class FrameRope(nn.Module):
    """Rotary tables of chosen frame positions; takes the place of the model's own, which counts from 0."""

    freqs_cos: Tensor
    freqs_sin: Tensor

    def __init__(self, stock: Any) -> None:
        """Take over the tables of ``stock``, a `WanRotaryPosEmbed`."""
        super().__init__()
        self.register_buffer("freqs_cos", stock.freqs_cos, persistent=False)
        self.register_buffer("freqs_sin", stock.freqs_sin, persistent=False)
        self.parts: list[int] = [stock.t_dim, stock.h_dim, stock.w_dim]
        self.patch: tuple[int, int, int] = tuple(stock.patch_size)
        self.positions: tuple[int, ...] | None = None

    def forward(self, hidden_states: Float[Tensor, "b c f h w"]) -> tuple[Tensor, Tensor]:
        """Cosines and sines ``[1 n 1 E]`` of the latents' tokens, at `positions` (None: from 0)."""
        _, _, frames, height, width = hidden_states.shape
        positions = tuple(range(frames)) if self.positions is None else self.positions
        if len(positions) != frames:
            raise ValueError(f"positions: want one for each of {frames} latents, got {positions}")
        return self.tables(positions, height // self.patch[1], width // self.patch[2])

    def tables(self, positions: Sequence[int], rows: int, columns: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines ``[1 len(positions)*rows*columns 1 E]`` of latent frames at ``positions``.

        Raises:
            ValueError: a position that is not in the table.
        """
        size = len(self.freqs_cos)
        if max(*positions, rows - 1, columns - 1) >= size:
            raise ValueError(
                f"rotary positions: want frames, rows and columns below {size}, got frame {max(positions)} and "
                f"{rows}x{columns} tokens; use relative positions, or smaller frames"
            )
        places = torch.tensor(positions, device=self.freqs_cos.device)
        grid = (len(positions), rows, columns)

        def gathered(table: Tensor) -> Tensor:
            t, y, x = table.split(self.parts, dim=1)
            parts = (t[places][:, None, None], y[:rows][None, :, None], x[:columns][None, None])
            return torch.cat([part.expand(*grid, -1) for part in parts], dim=-1).reshape(1, -1, 1, sum(self.parts))

        return gathered(self.freqs_cos), gathered(self.freqs_sin)


class KVAttention:
    """The attention of a model, and the state that its passes share."""

    def __init__(self, model: WanTransformer3DModel) -> None:
        """Replace processors and rotary module of ``model`` in place.

        Raises:
            ValueError: the model reads image embeddings in its cross-attention.
        """
        config: Any = model.config
        if config.image_dim is not None:
            raise ValueError(
                "model: want one that reads text alone, got one with image embeddings (image_dim is set); "
                "take a text-to-video checkpoint"
            )
        self.rope = FrameRope(model.rope)
        model.rope = self.rope  # pyright: ignore[reportAttributeAccessIssue] (by design not theirs)
        self.blocks: int = config.num_layers
        self.heads, self.head_dim = config.num_attention_heads, config.attention_head_dim
        self._keys: Tensor | None = None
        self._values: Tensor | None = None
        self._loaded: tuple[Sequence[Slot], Sequence[int], int] | None = None
        self._recorded: tuple[Slot, ...] = ()
        self._text: Tensor | None = None
        self._cross: dict[int, tuple[Tensor, Tensor]] = {}
        processors = {}
        for block in range(self.blocks):
            processors[f"blocks.{block}.attn1.processor"] = _SelfAttention(self, block)
            processors[f"blocks.{block}.attn2.processor"] = _CrossAttention(self, block)
        model.set_attn_processor(processors)

    def load(self, slots: Sequence[Slot], positions: Sequence[int], frames: int, grid: tuple[int, int]) -> None:
        """Rotate remembered frames into the buffer that the next passes attend to.

        Args:
            slots: remembered frames; none: passes attend to themselves alone.
            positions: their rotary positions.
            frames: latent frames of the passes to come.
            grid: tokens ``(rows, columns)`` of a latent frame.
        """
        if self._holds(slots, positions, frames):
            return
        self._loaded = (tuple(slots), tuple(positions), frames)
        if not slots:
            self._keys = self._values = None
            return
        device = self.rope.freqs_cos.device  # slots may wait elsewhere (`diffusion.wan.offload`)
        _, blocks, batch, tokens, heads, dim = slots[0].shape
        shape = (blocks, batch, (len(slots) + frames) * tokens, heads, dim)
        if self._keys is None or self._values is None or self._keys.shape != shape:
            self._keys = self._values = None  # frees the old buffer before the new one is made
            self._keys, self._values = (slots[0].new_empty(shape, device=device) for _ in range(2))
        for k, (slot, position) in enumerate(zip(slots, positions, strict=True)):
            here = slice(k * tokens, (k + 1) * tokens)
            self._keys[:, :, here] = rotated(slot[0].to(device), *self.rope.tables([position], *grid))
            self._values[:, :, here] = slot[1].to(device)

    def record(self, frames: int, tokens: int, like: Tensor) -> tuple[Slot, ...]:
        """Slots that the next pass of ``frames`` latent frames fills; ``like [b ...]`` has batch, type and device."""
        shape = (2, self.blocks, len(like), tokens, self.heads, self.head_dim)
        self._recorded = tuple(like.new_empty(shape) for _ in range(frames))
        return self._recorded

    def stop_recording(self) -> None:
        """Leave the recorded slots as they are from now on."""
        self._recorded = ()

    def read(self, text: Tensor) -> None:
        """Make ``text`` what cross-attention reads; its keys and values are computed once."""
        if text is not self._text:
            self._text, self._cross = text, {}

    def forget(self) -> None:
        """Free the buffer, and the keys and values of the text; the next passes make them again."""
        self._keys = self._values = self._loaded = self._text = None
        self._cross = {}

    def _holds(self, slots: Sequence[Slot], positions: Sequence[int], frames: int) -> bool:
        if self._loaded is None:
            return False
        before, places, count = self._loaded
        same = len(before) == len(slots) and all(a is b for a, b in zip(before, slots, strict=True))
        return same and places == tuple(positions) and count == frames

    def self_attention(self, block: int, keys: Tensor, values: Tensor, rope: tuple[Tensor, Tensor]) -> tuple:
        """Keys (rotated) and values that a pass attends to in ``block``, given its own, unrotated."""
        if self._recorded:
            tokens = keys.shape[1] // len(self._recorded)
            for slot, own_keys, own_values in zip(
                self._recorded, keys.split(tokens, 1), values.split(tokens, 1), strict=True
            ):
                slot[0, block], slot[1, block] = own_keys, own_values
        turned = rotated(keys, *rope)
        if self._keys is None or self._values is None:
            return turned, values
        own = keys.shape[1]
        self._keys[block][:, -own:], self._values[block][:, -own:] = turned, values
        return self._keys[block], self._values[block]

    def cross_attention(self, block: int, attn: Any, text: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the text in ``block``."""
        if block not in self._cross:
            self._cross[block] = _keys_values(attn, text)
        return self._cross[block]


class _Processor:
    """What both kinds share; the two attributes are diffusers' (`ModelMixin.set_attention_backend`)."""

    _attention_backend = None
    _parallel_config = None

    def __init__(self, state: KVAttention, block: int) -> None:
        self.state, self.block = state, block

    def attend(self, attn: Any, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        from diffusers.models.attention_dispatch import dispatch_attention_fn

        out = dispatch_attention_fn(query, keys, values, backend=self._attention_backend).flatten(2, 3).type_as(query)
        return attn.to_out[1](attn.to_out[0](out))


class _SelfAttention(_Processor):
    """``attn1``: over the buffer of recalled frames and the pass's own tokens."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,  # noqa: ARG002
        attention_mask: Tensor | None = None,  # noqa: ARG002
        rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        assert rotary_emb is not None
        query = rotated(_query(attn, hidden_states), *rotary_emb)
        keys, values = _keys_values(attn, hidden_states)
        keys, values = self.state.self_attention(self.block, keys, values, rotary_emb)
        return self.attend(attn, query, keys, values)


class _CrossAttention(_Processor):
    """``attn2``: over the prompt, whose keys and values are computed once."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,  # noqa: ARG002
        rotary_emb: tuple[Tensor, Tensor] | None = None,  # noqa: ARG002
    ) -> Tensor:
        assert encoder_hidden_states is not None
        keys, values = self.state.cross_attention(self.block, attn, encoder_hidden_states)
        return self.attend(attn, _query(attn, hidden_states), keys, values)


def rotated(x: Float[Tensor, "*l b n e d"], cos: Float[Tensor, "1 n 1 d"], sin: Float[Tensor, "1 n 1 d"]) -> Tensor:
    """Turn neighboring pairs of channels by the angles of their token (Su et al., arXiv 2104.09864, section 3.2).

    Args:
        x: queries or keys, a head's channels last.
        cos: of the angles, each twice in a row (as diffusers has them).
        sin: likewise.
    """
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = cos[..., 0::2], sin[..., 1::2]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2).type_as(x)


def _query(attn: Any, x: Tensor) -> Tensor:
    return attn.norm_q(attn.to_q(x)).unflatten(2, (attn.heads, -1))


def _keys_values(attn: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    keys, values = attn.norm_k(attn.to_k(x)), attn.to_v(x)
    return keys.unflatten(2, (attn.heads, -1)), values.unflatten(2, (attn.heads, -1))
