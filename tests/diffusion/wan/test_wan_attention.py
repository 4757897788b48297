"""Attention over remembered frames against the stock model, a mask, and a concatenation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.transformers.transformer_skyreels_v2 import SkyReelsV2Transformer3DModel
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import Tensor

from diffusion.wan.attention import KVAttention, rotated
from diffusion.wan.denoiser import WanDenoiser
from diffusion.wan.memory import Context
from diffusion.wan.tokens import expanded, token_levels

Make = Callable[..., WanTransformer3DModel]
GRID = (4, 6)


def _latents(frames: int, seed: int = 1) -> Tensor:
    return torch.randn(frames, 16, 8, 12, generator=torch.Generator().manual_seed(seed))


def _constant(latents: Tensor, *levels: float) -> Tensor:
    each = torch.tensor(levels).repeat_interleave(len(latents) // len(levels))
    return each.reshape(-1, 1, 1, 1).expand(-1, 1, *latents.shape[-2:])


def _clean(latents: Tensor, level: Tensor, velocity: Tensor) -> Tensor:
    return latents - level * velocity[0].transpose(0, 1)


def test_one_chunk_without_memory_is_the_stock_forward_to_the_bit(transformer: Make, text: Tensor) -> None:
    latents = _latents(3)
    level = _constant(latents, 0.7)
    stock = transformer()(latents.transpose(0, 1)[None], torch.tensor([700.0]), text, return_dict=False)[0]
    made = WanDenoiser(transformer()).predict(latents, level, text, Context.none(3))
    assert torch.equal(made, _clean(latents, level, stock))


def test_a_constant_level_per_token_is_the_level_of_all(transformer: Make, text: Tensor) -> None:
    model, clip = transformer(), _latents(3).transpose(0, 1)[None]
    one = model(clip, torch.tensor([700.0]), text, return_dict=False)[0]
    each = model(clip, torch.full((1, 3 * 24), 700.0), text, return_dict=False)[0]
    torch.testing.assert_close(each, one, rtol=0.0, atol=2e-6)


def test_levels_of_tokens_reach_the_model_in_the_order_of_its_tokens(transformer: Make, text: Tensor) -> None:
    latents = _latents(2)
    level = torch.rand(2, 1, *GRID, generator=torch.Generator().manual_seed(2))
    wide = level.repeat_interleave(2, -1).repeat_interleave(2, -2)
    stock = transformer()(latents.transpose(0, 1)[None], 1000.0 * level.reshape(1, -1), text, return_dict=False)[0]
    made = WanDenoiser(transformer()).predict(latents, wide, text, Context.none(2))
    assert torch.equal(made, _clean(latents, wide, stock))


def test_levels_of_frames_are_those_of_the_class_that_takes_one_per_frame(transformer: Make, text: Tensor) -> None:
    """SkyReels-V2 (diffusion forcing) has the weights of Wan and reads ``timestep [b f]``."""
    model, latents, levels = transformer(), _latents(3), torch.tensor([0.2, 0.6, 0.9])
    sizes: Any = {key: value for key, value in model.config.items() if not key.startswith("_")}
    with torch.random.fork_rng():
        theirs = SkyReelsV2Transformer3DModel(**sizes, inject_sample_info=False).eval()
    theirs.load_state_dict(model.state_dict())
    clip, timestep = latents.transpose(0, 1)[None], 1000.0 * levels[None]
    with torch.no_grad():
        wanted = theirs(clip, timestep, text, enable_diffusion_forcing=True, return_dict=False)[0]
    sigma = levels.reshape(3, 1, 1, 1).repeat_interleave(4, 0).expand(12, 1, 64, 96)[3:]  # the photo is latent 0
    level = expanded(token_levels(sigma, 8))
    made = WanDenoiser(model).predict(latents, level, text, Context.none(3))
    torch.testing.assert_close(made, _clean(latents, level, wanted), rtol=0.0, atol=5e-6)


class _Masked:
    """A stock processor with a block-causal mask over chunks of ``tokens`` tokens: the slow twin of the buffer."""

    _attention_backend = None
    _parallel_config = None

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    def __call__(self, attn, x, _text, _mask, rope) -> Tensor:
        q, k = (
            norm(to(x)).unflatten(2, (attn.heads, -1))
            for norm, to in ((attn.norm_q, attn.to_q), (attn.norm_k, attn.to_k))
        )
        chunk = torch.arange(x.shape[1]) // self.tokens
        mask = chunk[:, None] >= chunk[None]
        v = attn.to_v(x).unflatten(2, (attn.heads, -1))
        out = dispatch_attention_fn(rotated(q, *rope), rotated(k, *rope), v, attn_mask=mask)
        return attn.to_out[0](out.flatten(2, 3))


@pytest.mark.parametrize("shift", [0, 7, 500, 1000])
def test_chunks_with_memory_are_one_pass_under_a_block_causal_mask_wherever_they_stand(
    transformer: Make, text: Tensor, shift: int
) -> None:
    latents = _latents(6)
    level = _constant(latents, 0.0, 0.7)
    masked: Any = transformer()
    for block in masked.blocks:
        block.attn1.set_processor(_Masked(3 * 24))
    timestep = 1000.0 * level[:, 0, ::2, ::2].reshape(1, -1)
    whole = masked(latents.transpose(0, 1)[None], timestep, text, return_dict=False)[0]

    denoiser = WanDenoiser(transformer())
    slots = denoiser.record(latents[:3], text, Context.none(3, shift))
    past, now = tuple(range(shift, shift + 3)), tuple(range(shift + 3, shift + 6))
    made = denoiser.predict(latents[3:], level[3:], text, Context(slots, past, now))
    torch.testing.assert_close(made, _clean(latents, level, whole)[3:], rtol=0.0, atol=2e-6)


@pytest.mark.parametrize("rows", [1, 2])
def test_the_buffer_is_the_concatenation_of_any_recalled_frames(transformer: Make, text: Tensor, rows: int) -> None:
    texts = torch.cat([text, 0.5 * text])[:rows]
    guidance = 1.0 if rows == 1 else 4.0
    latents, level = _latents(2, seed=5), torch.full((2, 1, 8, 12), 0.6)
    denoiser = WanDenoiser(transformer(), guidance)
    slots = denoiser.record(_latents(5), texts, Context.none(5))
    chosen, places, at = tuple(slots[k] for k in (4, 0, 3)), (2, 9, 4), (11, 12)
    made = denoiser.predict(latents, level, texts, Context(chosen, places, at))

    twin = WanDenoiser(transformer(), guidance)

    class Joined(KVAttention):
        def self_attention(self, block: int, keys: Tensor, values: Tensor, rope: tuple[Tensor, Tensor]) -> tuple:
            past = [rotated(s[0, block], *self.rope.tables([p], *GRID)) for s, p in zip(chosen, places, strict=True)]
            return torch.cat([*past, rotated(keys, *rope)], 1), torch.cat([*(s[1, block] for s in chosen), values], 1)

    twin.attention.__class__ = Joined
    assert torch.equal(made, twin.predict(latents, level, texts, Context((), (), at)))


def test_a_prompt_is_projected_once_and_a_new_one_again(transformer: Make, text: Tensor) -> None:
    model: Any = transformer()
    latents, level = _latents(1), torch.ones(1, 1, 8, 12)
    calls: list[int] = []
    model.blocks[0].attn2.to_k.register_forward_hook(lambda *_: calls.append(1))
    denoiser = WanDenoiser(model)
    first = denoiser.predict(latents, level, text, Context.none(1))
    assert torch.equal(first, denoiser.predict(latents, level, text, Context.none(1)))
    assert len(calls) == 1
    other = denoiser.predict(latents, level, 0.5 * text, Context.none(1))
    assert len(calls) == 2
    assert not torch.equal(first, other)
    assert torch.equal(first, denoiser.predict(latents, level, text, Context.none(1)))


def test_guidance_extrapolates_from_the_negative_prompt(transformer: Make, text: Tensor) -> None:
    latents, level, negative = _latents(1), torch.full((1, 1, 8, 12), 0.6), torch.zeros_like(text)
    plain = WanDenoiser(transformer())
    positive, other = (plain.predict(latents, level, t, Context.none(1)) for t in (text, negative))
    guided = WanDenoiser(transformer(), guidance=5.0)
    made = guided.predict(latents, level, torch.cat([text, negative]), Context.none(1))
    torch.testing.assert_close(made, other + 5.0 * (positive - other), rtol=0.0, atol=1e-5)
    assert (made - positive).abs().max() > 1e-3


def test_whole_timesteps_are_told_where_a_line_wants_them(transformer: Make, text: Tensor) -> None:
    latents, told = _latents(1), []
    model = transformer()
    model.condition_embedder.register_forward_pre_hook(lambda _, given: told.append(given[0]))
    WanDenoiser(model, whole_timesteps=True).predict(latents, 0 * latents[:, :1] + 28 / 37, text, Context.none(1))
    assert told[0].tolist() == [757.0]


def test_the_backend_that_the_user_chose_runs(transformer: Make, text: Tensor) -> None:
    model = transformer()
    denoiser = WanDenoiser(model)
    model.set_attention_backend("_native_math")
    backends = {str(p._attention_backend.value) for p in model.attn_processors.values()}  # pyright: ignore
    assert backends == {"_native_math"}
    assert denoiser.predict(_latents(1), torch.ones(1, 1, 8, 12), text, Context.none(1)).isfinite().all()
    model.set_attention_backend("native")  # diffusers keeps the last choice for all models


def test_positions_outside_the_table_and_models_with_image_embeddings_are_refused(
    transformer: Make, text: Tensor
) -> None:
    denoiser = WanDenoiser(transformer())
    with pytest.raises(ValueError, match="below 1024"):
        denoiser.record(_latents(2), text, Context.none(2, 1023))
    with pytest.raises(ValueError, match="one for each of 2"):
        denoiser.record(_latents(2), text, Context.none(3))
    with pytest.raises(ValueError, match="image_dim"):
        KVAttention(transformer(image_dim=8, added_kv_proj_dim=48))
