"""What a checkpoint is: its architecture from the shapes of its tensors, its line from that and from its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffusion.wan.lines import BASES, LINES, VAES, Config, Line, line_named

HEAD_DIM = 128  # of every published model of this architecture
# What the name of a file or repository contains that holds weights of a line; by default the line's name.
_HINTS = {"wan": "wan21t2v", "ti2v": "wan22ti2v", "st-diff": "worldwarplatest", "skyreels-df": "skyreelsv2df"}

Shapes = Mapping[str, tuple[int, ...]]


def detect_line(config: Config, where: str, line: str = "auto") -> Line:
    """The line of a transformer.

    Args:
        config: arguments of ``WanTransformer3DModel``.
        where: file, folder or repository; a published name in it tells lines apart that have the same shapes.
        line: a name in `LINES` to be checked, or ``auto``.

    Raises:
        ValueError: the line does not fit, or several do.
    """
    fitting = [candidate for candidate in LINES.values() if _misfit(candidate, config) is None]
    if line != "auto":
        wanted = line_named(line)
        if reason := _misfit(wanted, config):
            others = f"; want line={' or '.join(fit.name for fit in fitting)}" if fitting else ""
            raise ValueError(f"line: {reason}{others}")
        return wanted
    if not fitting:
        raise ValueError(
            f"line: want a model of a line in `worldwarp models list`, got {config['in_channels']} input and "
            f"{config['out_channels']} output channels of width {width_of(config)}"
        )
    # A width of no published model fits any line; our own is known by its width alone.
    fitting = [fit for fit in fitting if fit.weights] or fitting
    if len(fitting) == 1:
        return fitting[0]
    where = where.replace("\\", "/")
    published = [fit for fit in fitting if fit.files and where.endswith(fit.files)]
    named = published or [fit for fit in fitting if _is_named(fit, where)]
    if len(named) > 1:  # a student is named after its base as well
        named = [fit for fit in named if fit.name != "wan"]
    if len(named) != 1:
        names = ", ".join(fit.name for fit in named or fitting)
        raise ValueError(f"line: want to know which line {where} is, got tensors that fit {names}; give line=")
    return named[0]


def _is_named(line: Line, where: str) -> bool:
    last = where.rsplit("/", 1)[-1]
    same_file = any(last == file.rsplit("/", 1)[-1] and not last.startswith("model.") for file in line.files)
    return same_file or _letters(_HINTS.get(line.name, line.name)) in _letters(where)


def _letters(text: str) -> str:
    return "".join(character for character in text.lower() if character.isalnum())


def width_of(config: Config) -> int:
    """Channels of a token."""
    return config["num_attention_heads"] * config["attention_head_dim"]


def _misfit(line: Line, config: Config) -> str | None:
    """Why a line cannot run a transformer; None if it can. A width of no published model fits any line."""
    given, wanted = (config["in_channels"], config["out_channels"]), (line.in_channels, line.latent_channels)
    if given != wanted:
        return f"{line.name} has {wanted[0]} input and {wanted[1]} output channels, got {given[0]} and {given[1]}"
    if config.get("image_dim") is not None:
        return f"{line.name} reads no embedding of an image, got a model that does"
    base = next((name for name, base in BASES.items() if base.width == width_of(config)), None)
    if base is not None and base not in line.bases:
        return f"{line.name} is published as {' and '.join(line.bases)}, got the width of {base}"
    return None


def base_repository(line: Line, config: Config) -> str:
    """Hugging Face id of the text encoder and the VAE that belong to a transformer."""
    bases = [BASES[name] for name in line.bases]
    return next((base.repository for base in bases if base.width == width_of(config)), bases[0].repository)


def transformer_config(shapes: Shapes) -> dict[str, Any]:
    """Arguments of ``WanTransformer3DModel``, from shapes by diffusers' names.

    Of a published width the number of blocks is the published one, so that a missing last block is found.

    Raises:
        ValueError: no transformer of this kind.
    """
    patch, head = _shape(shapes, "patch_embedding.weight", 5), _shape(shapes, "proj_out.weight", 2)
    feed_forward = _shape(shapes, "blocks.0.ffn.net.0.proj.weight", 2)
    text = _shape(shapes, "condition_embedder.text_embedder.linear_1.weight", 2)
    time = _shape(shapes, "condition_embedder.time_embedder.linear_1.weight", 2)
    width, channels, *patch_size = patch
    if width % HEAD_DIM:
        raise ValueError(
            f"want a transformer of heads of {HEAD_DIM} channels, got a width of {width}; name the folder of the "
            "model, whose config.json tells them"
        )
    image = shapes.get("condition_embedder.image_embedder.norm1.weight")
    position = shapes.get("condition_embedder.image_embedder.pos_embed")
    layers = 1 + max(int(name.split(".")[1]) for name in shapes if name.startswith("blocks."))
    published = [base.config["num_layers"] for base in BASES.values() if base.width == width]
    return {
        **LINES["wan"].transformer_config(),
        "patch_size": patch_size,
        "num_attention_heads": width // HEAD_DIM,
        "in_channels": channels,
        "out_channels": head[0] // (patch_size[0] * patch_size[1] * patch_size[2]),
        "text_dim": text[1],
        "freq_dim": time[1],
        "ffn_dim": feed_forward[0],
        "num_layers": published[0] if published else layers,
        "image_dim": image[0] if image else None,
        "added_kv_proj_dim": width if "blocks.0.attn2.add_k_proj.weight" in shapes else None,
        "pos_embed_seq_len": position[1] if position else None,
    }


def vae_config(shapes: Shapes, version: str) -> dict[str, Any]:
    """Arguments of ``AutoencoderKLWan`` version 2.1 or 2.2, from shapes by diffusers' names.

    Raises:
        ValueError: no VAE of this kind.
    """
    encoder, decoder = _shape(shapes, "encoder.conv_in.weight", 5), _shape(shapes, "decoder.conv_out.weight", 5)
    channels, published = _shape(shapes, "post_quant_conv.weight", 5)[0], VAES[version]
    if channels != published["z_dim"]:
        raise ValueError(f"want a VAE with latents of {published['z_dim']} channels, as {version} has, got {channels}")
    return {**published, "base_dim": encoder[0], "decoder_base_dim": decoder[1]}


def _shape(shapes: Shapes, name: str, dimensions: int) -> tuple[int, ...]:
    shape = shapes.get(name, ())
    if len(shape) != dimensions:
        got = f"shape {list(shape)}" if shape else "none"
        raise ValueError(f"want {name} of {dimensions} dimensions, got {got}; is it a checkpoint of another model?")
    return shape
