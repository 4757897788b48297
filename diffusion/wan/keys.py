"""Names of Wan's tensors: from the original programs to diffusers and back, without wrappers; LoRA merged in.

A rule is a pair of name prefixes, in which ``#`` stands for a number. The first rule that fits is applied, once; a name
that no rule fits stays as it is. No rule fits a name of the other side, so that renaming is idempotent.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

Rules = tuple[tuple[str, str], ...]
Part = Literal["transformer", "vae 2.1", "vae 2.2"]

# The original's norm3 comes before cross-attention and is the only norm of a block with parameters; diffusers counts
# the norms in the order of use, so that it is norm2 there.
_TRANSFORMER: Rules = (
    ("text_embedding.0", "condition_embedder.text_embedder.linear_1"),
    ("text_embedding.2", "condition_embedder.text_embedder.linear_2"),
    ("time_embedding.0", "condition_embedder.time_embedder.linear_1"),
    ("time_embedding.2", "condition_embedder.time_embedder.linear_2"),
    ("time_projection.1", "condition_embedder.time_proj"),
    ("img_emb.proj.0", "condition_embedder.image_embedder.norm1"),
    ("img_emb.proj.1", "condition_embedder.image_embedder.ff.net.0.proj"),
    ("img_emb.proj.3", "condition_embedder.image_embedder.ff.net.2"),
    ("img_emb.proj.4", "condition_embedder.image_embedder.norm2"),
    ("img_emb.emb_pos", "condition_embedder.image_embedder.pos_embed"),
    ("blocks.#.modulation", "blocks.#.scale_shift_table"),
    *(
        (f"blocks.#.{theirs}.{name}", f"blocks.#.{ours}.{renamed}")
        for theirs, ours in (("self_attn", "attn1"), ("cross_attn", "attn2"))
        for name, renamed in (
            *((letter, f"to_{letter}") for letter in "qkv"),
            ("o", "to_out.0"),
            ("norm_q", "norm_q"),
            ("norm_k", "norm_k"),
        )
    ),
    ("blocks.#.cross_attn.k_img", "blocks.#.attn2.add_k_proj"),
    ("blocks.#.cross_attn.v_img", "blocks.#.attn2.add_v_proj"),
    ("blocks.#.cross_attn.norm_k_img", "blocks.#.attn2.norm_added_k"),
    ("blocks.#.norm3", "blocks.#.norm2"),
    ("blocks.#.ffn.0", "blocks.#.ffn.net.0.proj"),
    ("blocks.#.ffn.2", "blocks.#.ffn.net.2"),
    ("head.modulation", "scale_shift_table"),
    ("head.head", "proj_out"),
    ("fps_projection.0", "fps_projection.net.0.proj"),
    ("fps_projection.2", "fps_projection.net.2"),
)


def _residual(theirs: str, ours: str) -> Rules:
    """Rules of a residual block of the VAE."""
    layers = ("residual.0", "norm1"), ("residual.2", "conv1"), ("residual.3", "norm2"), ("residual.6", "conv2")
    return tuple((f"{theirs}.{a}", f"{ours}.{b}") for a, b in (*layers, ("shortcut", "conv_shortcut")))


_VAE: Rules = (
    ("conv1", "quant_conv"),
    ("conv2", "post_quant_conv"),
    *(
        rule
        for side in ("encoder", "decoder")
        for rule in (
            (f"{side}.conv1", f"{side}.conv_in"),
            (f"{side}.head.0", f"{side}.norm_out"),
            (f"{side}.head.2", f"{side}.conv_out"),
            *_residual(f"{side}.middle.0", f"{side}.mid_block.resnets.0"),
            (f"{side}.middle.1", f"{side}.mid_block.attentions.0"),
            *_residual(f"{side}.middle.2", f"{side}.mid_block.resnets.1"),
        )
    ),
)
# 2.1 numbers all layers of the encoder, and of the decoder, in one list; a stage of the decoder is three residual
# blocks and an upsampler. 2.2 nests them: in a stage the resampling layer comes after two (decoder: three) blocks.
_STAGES = 4
_VAE_21: Rules = (
    *_VAE,
    *_residual("encoder.downsamples.#", "encoder.down_blocks.#"),
    ("encoder.downsamples.#", "encoder.down_blocks.#"),
    *(
        rule
        for stage in range(_STAGES)
        for layer in range(3)
        for rule in _residual(f"decoder.upsamples.{4 * stage + layer}", f"decoder.up_blocks.{stage}.resnets.{layer}")
    ),
    *((f"decoder.upsamples.{4 * stage + 3}", f"decoder.up_blocks.{stage}.upsamplers.0") for stage in range(_STAGES)),
)
_VAE_22: Rules = (
    *_VAE,
    *_residual("encoder.downsamples.#.downsamples.#", "encoder.down_blocks.#.resnets.#"),
    ("encoder.downsamples.#.downsamples.2", "encoder.down_blocks.#.downsampler"),
    *_residual("decoder.upsamples.#.upsamples.#", "decoder.up_blocks.#.resnets.#"),
    ("decoder.upsamples.#.upsamples.3", "decoder.up_blocks.#.upsampler"),
)
_RULES: Mapping[str, Rules] = {"transformer": _TRANSFORMER, "vae 2.1": _VAE_21, "vae 2.2": _VAE_22}

_WRAPPERS = {"_fsdp_wrapped_module", "_orig_mod", "_checkpoint_wrapped_module", "module"}
_LEADING = {"base_model", "model", "diffusion_model", "transformer"}


def strip_prefixes(name: str) -> str:
    """A name without what training wrappers added: some at any depth, others in front.

    ``model._fsdp_wrapped_module.blocks.0._fsdp_wrapped_module.norm3.bias`` becomes ``blocks.0.norm3.bias``.
    """
    words = [word for word in name.split(".") if word not in _WRAPPERS]
    while len(words) > 1 and words[0] in _LEADING:
        words.pop(0)
    return ".".join(words)


@lru_cache
def _patterns(part: str, back: bool) -> tuple[tuple[re.Pattern[str], str], ...]:
    pairs = ((b, a) if back else (a, b) for a, b in _RULES[part])
    return tuple((re.compile(re.escape(a).replace(r"\#", r"(\d+)") + r"(?=\.|$)"), b) for a, b in pairs)


def _renamed(name: str, part: str, back: bool) -> str:
    for pattern, prefix in _patterns(part, back):
        if found := pattern.match(name):
            for number in found.groups():
                prefix = prefix.replace("#", number, 1)
            return prefix + name[found.end() :]
    return name


def to_diffusers(name: str, part: Part = "transformer") -> str:
    """The name that diffusers gives a tensor; a name of diffusers stays as it is."""
    return _renamed(name, part, back=False)


def to_original(name: str, part: Part = "transformer") -> str:
    """The name that the original program gives a tensor; the inverse of `to_diffusers`."""
    return _renamed(name, part, back=True)


def vae_part(names: Iterable[str]) -> Part:
    """Which of the two VAE layouts names belong to, in either naming."""
    nested = ("encoder.downsamples.0.downsamples.", "encoder.down_blocks.0.resnets.")
    return "vae 2.2" if any(strip_prefixes(name).startswith(nested) for name in names) else "vae 2.1"


def renamed(names: Iterable[str], rename: Callable[[str], str]) -> dict[str, str]:
    """New name to old name.

    Raises:
        ValueError: two names become one.
    """
    result: dict[str, str] = {}
    for name in names:
        new = rename(name)
        if new in result:
            raise ValueError(
                f"want one tensor for {new}, got two: {result[new]} and {name}; give a checkpoint of one model"
            )
        result[new] = name
    return result


_LORA = re.compile(
    r"(?P<target>.+?)\.(?P<kind>lora_A|lora_B|lora_down|lora_up|alpha|diff|diff_b|diff_m)(\.default)?(\.weight)?"
)
_ADDED = {"diff": ".weight", "diff_b": ".bias", "diff_m": ".modulation"}
LISTED = 10  # names that an error lists


def is_lora(names: Iterable[str]) -> bool:
    """Whether tensors are updates of weights rather than weights."""
    return any(_LORA.fullmatch(name) for name in names)


@torch.no_grad()
def merge_lora(
    weights: Mapping[str, Tensor], lora: Mapping[str, Tensor], alpha: float | None = None
) -> dict[str, Tensor]:
    """Weights with low-rank updates and full differences added.

    ``weight += alpha / rank * up @ down`` (Hu et al. 2021, "LoRA", section 4.1), ``weight += diff``,
    ``bias += diff_b``, ``modulation += diff_m``. Sums are in float32; the result has the dtype of the weight.

    Args:
        weights: by diffusers' names; not changed.
        lora: as stored by PEFT (``lora_A``, ``lora_B``) or with ``lora_down``, ``lora_up``, ``alpha``, ``diff``,
            ``diff_b``, ``diff_m``; in either naming, wrapped or not.
        alpha: for updates that carry none; None: their rank, so that the factor is 1.

    Raises:
        ValueError: a tensor is no update, lacks its other half, or fits no weight.
    """
    parts: dict[str, dict[str, Tensor]] = {}
    unknown: list[str] = []
    for name, tensor in lora.items():
        found = _LORA.fullmatch(strip_prefixes(name))
        if found is None:
            unknown.append(name)
            continue
        kind = {"lora_A": "lora_down", "lora_B": "lora_up"}.get(found["kind"], found["kind"])
        parts.setdefault(found["target"], {})[kind] = tensor
    result = dict(weights)
    for target, given in parts.items():
        updates = {_ADDED[kind]: tensor.float() for kind, tensor in given.items() if kind in _ADDED}
        if ("lora_down" in given) != ("lora_up" in given):
            unknown.append(target)
            continue
        if "lora_down" in given:
            down, up = given["lora_down"].float().flatten(1), given["lora_up"].float().flatten(1)
            rank = down.shape[0]
            scale = (float(given["alpha"]) if "alpha" in given else alpha or rank) / rank
            updates[".weight"] = updates.get(".weight", 0.0) + scale * (up @ down)
        for suffix, update in updates.items():
            name = to_diffusers(target + suffix)
            if name not in result or update.numel() != result[name].numel():
                unknown.append(target + suffix)
                continue
            weight = result[name]
            result[name] = (weight.float() + update.reshape(weight.shape)).to(weight.dtype)
    if unknown:
        shown = ", ".join(unknown[:LISTED]) + (" and others" if len(unknown) > LISTED else "")
        raise ValueError(f"LoRA: want updates of this model's weights, got {len(unknown)} that fit none: {shown}")
    return result
