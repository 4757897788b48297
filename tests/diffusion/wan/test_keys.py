"""Names of the original programs and of diffusers, in both directions, and LoRA."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from diffusion.wan.keys import Part, is_lora, merge_lora, renamed, strip_prefixes, to_diffusers, to_original, vae_part
from diffusion.wan.lines import LINES, VAES
from diffusion.wan.load import empty_transformer, empty_vae

GOLDEN = Path(__file__).parents[2] / "fixtures" / "wan"
SMALL = {"num_attention_heads": 2, "attention_head_dim": 24, "ffn_dim": 96, "num_layers": 2}
SMALL |= {"text_dim": 32, "freq_dim": 64}
IMAGE = {"image_dim": 20, "added_kv_proj_dim": 48, "pos_embed_seq_len": 4}
VAE_21 = {**VAES["2.1"], "base_dim": 4}
VAE_22 = {**VAES["2.2"], "base_dim": 4, "decoder_base_dim": 4}


def names_of(part: Part, image: bool = False) -> list[str]:
    if part == "transformer":
        return list(
            empty_transformer({**LINES["wan"].transformer_config(), **SMALL, **(IMAGE if image else {})}).state_dict()
        )
    return list(empty_vae(VAE_21 if part == "vae 2.1" else VAE_22).state_dict())


@pytest.mark.parametrize(("file", "part"), [("wan21", "transformer"), ("vae21", "vae 2.1")])
def test_names_of_the_original_programs_become_those_of_diffusers(file: str, part: Part) -> None:
    with safe_open(GOLDEN / f"{file}.safetensors", framework="pt") as stored:
        original = [name.removeprefix("w.") for name in stored.keys() if name.startswith("w.")]  # noqa: SIM118
    assert {to_diffusers(name, part) for name in original} == set(names_of(part))


@pytest.mark.parametrize("image", [False, True])
@pytest.mark.parametrize("part", ["transformer", "vae 2.1", "vae 2.2"])
def test_every_name_goes_there_and_back(part: Part, image: bool) -> None:
    names = names_of(part, image)
    original = [to_original(name, part) for name in names]
    assert len(set(original)) == len(names)
    assert [to_diffusers(name, part) for name in original] == names
    assert [to_diffusers(name, part) for name in names] == names  # idempotent
    same = {name for name, other in zip(names, original, strict=True) if name == other}
    assert same <= {"patch_embedding.weight", "patch_embedding.bias"}


def test_known_pairs() -> None:
    pairs = {
        "blocks.11.norm3.weight": "blocks.11.norm2.weight",
        "blocks.1.cross_attn.k_img.bias": "blocks.1.attn2.add_k_proj.bias",
        "blocks.1.cross_attn.norm_k_img.weight": "blocks.1.attn2.norm_added_k.weight",
        "img_emb.proj.4.bias": "condition_embedder.image_embedder.norm2.bias",
        "head.modulation": "scale_shift_table",
        "fps_projection.2.bias": "fps_projection.net.2.bias",
    }
    assert {name: to_diffusers(name) for name in pairs} == pairs
    assert (
        to_diffusers("decoder.upsamples.7.time_conv.bias", "vae 2.1")
        == "decoder.up_blocks.1.upsamplers.0.time_conv.bias"
    )
    assert (
        to_diffusers("decoder.upsamples.2.upsamples.3.resample.1.bias", "vae 2.2")
        == "decoder.up_blocks.2.upsampler.resample.1.bias"
    )


def test_the_two_vae_layouts_are_told_apart() -> None:
    for part in ("vae 2.1", "vae 2.2"):
        names = names_of(part)
        assert vae_part(names) == part
        assert vae_part([to_original(name, part) for name in names]) == part


def test_wrappers_are_stripped_at_any_depth() -> None:
    name = "model._fsdp_wrapped_module.blocks.0._checkpoint_wrapped_module._fsdp_wrapped_module.ffn.0.weight"
    assert strip_prefixes(name) == "blocks.0.ffn.0.weight"
    assert strip_prefixes("module._orig_mod.model.diffusion_model.head.head.bias") == "head.head.bias"
    assert strip_prefixes("base_model.model.model.blocks.3.self_attn.q") == "blocks.3.self_attn.q"


def test_two_tensors_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match=r"got two: model\.a and module\.a"):
        renamed(["model.a", "module.a"], strip_prefixes)


# -- LoRA -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def weights() -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(0)
    shapes = {
        "blocks.0.attn1.to_q.weight": (6, 6),
        "blocks.0.attn1.to_q.bias": (6,),
        "blocks.0.norm2.weight": (6,),
        "blocks.0.scale_shift_table": (1, 6, 6),
        "patch_embedding.weight": (6, 2, 1, 2, 2),
    }
    return {name: torch.randn(shape, generator=rng) for name, shape in shapes.items()}


def halves(rank: int, out: int = 6, into: int = 6) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(1)
    return torch.randn(rank, into, generator=rng), torch.randn(out, rank, generator=rng)


@pytest.mark.parametrize("alpha", [None, 8.0])
@pytest.mark.parametrize("form", ["{}.lora_{}.weight", "base_model.model.{}.lora_{}.default.weight"])
def test_peft_updates(weights: dict[str, Tensor], form: str, alpha: float | None) -> None:
    down, up = halves(rank=2)
    target = "blocks.0.self_attn.q"
    lora = {form.format(target, "A"): down, form.format(target, "B"): up}
    assert is_lora(lora)
    merged = merge_lora(weights, lora, alpha)
    name = "blocks.0.attn1.to_q.weight"
    torch.testing.assert_close(merged[name], weights[name] + (alpha or 2.0) / 2.0 * up @ down)
    assert all(merged[other] is weights[other] for other in weights if other != name)


def test_updates_with_down_up_alpha_and_differences(weights: dict[str, Tensor]) -> None:
    down, up = halves(rank=2)
    front = "diffusion_model.blocks.0"
    difference = torch.full((6,), 0.5)
    lora = {
        f"{front}.self_attn.q.lora_down.weight": down,
        f"{front}.self_attn.q.lora_up.weight": up,
        f"{front}.self_attn.q.alpha": torch.tensor(1.0),
        f"{front}.self_attn.q.diff_b": difference,
        f"{front}.norm3.diff": 2.0 * difference,
        f"{front}.diff_m": torch.ones(1, 6, 6),
    }
    merged = merge_lora(weights, lora, alpha=100.0)  # its own alpha counts
    expected = {
        "blocks.0.attn1.to_q.weight": 0.5 * up @ down,
        "blocks.0.attn1.to_q.bias": difference,
        "blocks.0.norm2.weight": 2.0 * difference,
        "blocks.0.scale_shift_table": torch.ones(1, 6, 6),
    }
    for name, update in expected.items():
        torch.testing.assert_close(merged[name], weights[name] + update)


def test_an_update_of_a_convolution_and_of_half_precision(weights: dict[str, Tensor]) -> None:
    weights["patch_embedding.weight"] = weights["patch_embedding.weight"].bfloat16()
    down, up = halves(rank=3, into=8)
    lora = {
        "patch_embedding.lora_A.weight": down.reshape(3, 2, 1, 2, 2),
        "patch_embedding.lora_B.weight": up[..., None],
    }
    merged = merge_lora(weights, lora)["patch_embedding.weight"]
    exact = weights["patch_embedding.weight"].float() + (up @ down).reshape(6, 2, 1, 2, 2)
    assert torch.equal(merged, exact.bfloat16())


def test_updates_that_fit_nothing_are_named(weights: dict[str, Tensor]) -> None:
    down, up = halves(rank=2)
    faults = {
        "blocks.7.self_attn.q": {"blocks.7.self_attn.q.lora_A.weight": down, "blocks.7.self_attn.q.lora_B.weight": up},
        "blocks.0.norm3.weight": {"blocks.0.norm3.diff": torch.ones(5)},
        "blocks.0.self_attn.q": {"blocks.0.self_attn.q.lora_A.weight": down},
        "blocks.0.self_attn.q.lora_magnitude_vector": {"blocks.0.self_attn.q.lora_magnitude_vector": torch.ones(6)},
    }
    for name, lora in faults.items():
        with pytest.raises(ValueError, match=f"got 1 that fit none: {name}"):
            merge_lora(weights, lora)
