"""Encode prompts by UMT5: loaded one file at a time, used, and freed; and a random toy of the same classes."""

from __future__ import annotations

import gc
import json
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from geometry.input_files import reason_of

try:
    from transformers import AutoTokenizer, T5Tokenizer, UMT5Config, UMT5EncoderModel
except ImportError as error:
    raise ImportError("prompts need the extra: pip install 'worldwarp[wan]'") from error

TABLES = ("shared.weight", "encoder.embed_tokens.weight")  # two names of one tensor, the table of token embeddings
INDEX = "model.safetensors.index.json"
NAMED = 5  # names listed in a message
SHOWN = 60  # characters of a prompt shown in a message


@torch.no_grad()
def encode(
    texts: Sequence[str], folder: Path, tokens: int, dtype: torch.dtype, device: str
) -> list[Float[Tensor, "n d"]]:
    """Embeddings of cleaned texts, one row per token with the end token; the encoder is freed on return.

    The originals pad before encoding and mask the padding in attention, which is the same as no padding. Texts are
    encoded one by one, so that an embedding does not depend on the others.

    Args:
        texts: cleaned.
        folder: of a diffusers model, with ``text_encoder/`` and ``tokenizer/``.
        tokens: the most that a text may have, end token included.
        dtype: precision of the encoder and of the result.
        device: where the encoder runs; the result is on the CPU.

    Raises:
        ValueError: a text is too long, or the folder cannot be loaded; one sentence.
    """
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder / "tokenizer")
    except Exception as error:  # by package and version: OSError, ValueError, those of JSON and of the Rust library
        raise ValueError(f"prompt: the tokenizer in {str(folder)!r} cannot be loaded: {reason_of(error)}") from None
    ids = [tokenizer(text).input_ids for text in texts]
    for text, row in zip(texts, ids, strict=True):  # before 10.6 GiB are loaded for nothing
        if len(row) > tokens:
            shown = text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
            raise ValueError(f"prompt: want at most {tokens} tokens, got {len(row)} in {shown!r}; shorten it")
    model: Any = load_encoder(folder / "text_encoder", dtype)
    model.to(device)
    rows = [model(torch.tensor([row], device=device)).last_hidden_state[0].cpu() for row in ids]
    del model
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()
    return rows


def load_encoder(folder: Path, dtype: torch.dtype) -> UMT5EncoderModel:
    """Read a UMT5 encoder; never holds more than the result and one file's tensor in another precision.

    transformers warns of missing weights and leaves them random; here every name and shape must fit. The table of
    embeddings may be stored under either of its names, or under both if they are equal.

    Raises:
        ValueError: a file is missing or damaged, or the weights are not those of the configuration; one sentence.
    """
    name = f"prompt: the text encoder in {str(folder)!r}"
    try:
        stated = json.loads((folder / "config.json").read_text())
        if stated["model_type"] != "umt5":
            raise ValueError(f"want model_type umt5, got {stated['model_type']}")
        config = UMT5Config.from_dict(stated)
        with torch.device("meta"):
            model = UMT5EncoderModel(config)
    except Exception as error:  # by version: OSError, ValueError, KeyError, TypeError, those of JSON and validation
        raise ValueError(f"{name} has no configuration of UMT5: {reason_of(error)}") from None
    wanted = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    state: dict[str, Tensor] = {}
    for file in _weights(folder, name):
        try:
            with safe_open(file, "pt") as opened:
                state |= {key: opened.get_tensor(key).to(dtype) for key in opened.keys() if key in wanted}  # noqa: SIM118
                _refuse(name, "does not know", [key for key in opened.keys() if key not in wanted])  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{name}: {file.name} is missing or damaged ({error}); download it again") from None
    tables = [state[key] for key in TABLES if key in state]
    if tables:
        if not torch.equal(tables[0], tables[-1]):
            raise ValueError(f"{name} has two different tables of token embeddings; download it again")
        state |= dict.fromkeys(TABLES, tables[0])
    _refuse(name, "lacks", [key for key in wanted if key not in state])
    _refuse(name, "has other shapes of", [key for key in wanted if tuple(state[key].shape) != wanted[key]])
    model.load_state_dict(state, assign=True)
    model.tie_weights()  # assigning gives each name a parameter of its own
    return model.eval().requires_grad_(False)


def _weights(folder: Path, name: str) -> list[Path]:
    """Files of the weights: those of the index, or the only one."""
    if not (folder / INDEX).is_file():
        return [folder / "model.safetensors"]
    try:
        index = json.loads((folder / INDEX).read_text())
        return [folder / file for file in sorted(set(index["weight_map"].values()))]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{name}: {INDEX} is damaged; download it again") from None


def _refuse(name: str, fault: str, keys: list[str]) -> None:
    if keys:
        more = f" and {len(keys) - NAMED} more" if len(keys) > NAMED else ""
        raise ValueError(f"{name} {fault} {', '.join(keys[:NAMED])}{more}; download it again, or convert it")


def write_toy_text_encoder(folder: Path, dim: int, seed: int) -> None:
    """Write a random UMT5 encoder of two layers and a tokenizer of single characters, so that any prompt can be used.

    Characters beyond ASCII are the unknown token. A prompt may have 510 characters.

    Args:
        folder: gets ``text_encoder/`` and ``tokenizer/``, as in a diffusers model.
        dim: of an embedding; a multiple of 4.
        seed: of the weights.
    """
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    characters = string.ascii_letters + string.digits + string.punctuation
    tokenizer = T5Tokenizer(vocab=special + [(one, -3.0) for one in characters], extra_ids=0)
    tokenizer.save_pretrained(folder / "tokenizer")
    config = UMT5Config(vocab_size=len(tokenizer), d_model=dim, d_kv=dim // 4, d_ff=2 * dim, num_layers=2, num_heads=4)
    with torch.device("meta"):  # transformers draws from the global random generator
        model = UMT5EncoderModel(config)
    rng = torch.Generator().manual_seed(seed)
    state = {
        key: torch.ones(shape)
        if key.endswith("layer_norm.weight")
        else torch.randn(shape, generator=rng) * shape[-1] ** -0.5
        for key, shape in ((key, tensor.shape) for key, tensor in model.state_dict().items())
    }
    del state[TABLES[1]]
    config.save_pretrained(folder / "text_encoder")
    save_file(state, folder / "text_encoder" / "model.safetensors")
