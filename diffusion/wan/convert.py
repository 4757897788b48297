"""Published checkpoints into diffusers folders: pickles of tensors, LoRA and the original names go in.

The folder holds ``transformer/`` or ``vae/`` as safetensors with their ``config.json``. Beside a transformer stands
``worldwarp_line.json``: the line, its schedule and license, and the SHA-256 of the files it was made of.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from diffusion.wan.detect import detect_line, transformer_config, vae_config
from diffusion.wan.files import PICKLES, WEIGHTS, read_pickle, stored_tensors
from diffusion.wan.keys import is_lora, merge_lora, renamed, strip_prefixes, to_diffusers, vae_part
from diffusion.wan.lines import LINES, Config, Line, Precision
from diffusion.wan.load import LINE_FILE, check_shapes, dtype_of, empty_transformer, empty_vae

SHARD_BYTES = 5 * 10**9
_LORA_KEYS = ("generator_lora", "lora")


def convert(
    file: Path,
    out: Path,
    line: str = "auto",
    *,
    loras: Sequence[Path] = (),
    key: str | None = None,
    precision: Precision | None = None,
) -> Line | None:
    """Write a published checkpoint as a diffusers folder; nothing is written unless all of it fits.

    Args:
        file: a transformer or a VAE: a pickle of tensors, a safetensors file, or a folder of shards.
        out: folder to write to.
        line: a name in `LINES`, or ``auto``.
        loras: files of updates to merge into the transformer.
        key: where the pickle keeps its tensors; None tries the places that the line lists.
        precision: profile of the transformer's weights; None takes the line's. A VAE is written in float32.

    Returns:
        the line of the transformer; None for a VAE.

    Raises:
        ValueError: a file is no checkpoint of this kind, its tensors are not those of the model, or ``out`` holds one.
    """
    top_keys = LINES[line].top_keys if line in LINES else LINES["self-forcing"].top_keys
    tensors = _tensors(file, top_keys, key)
    if any(strip_prefixes(name).startswith(("encoder.", "decoder.")) for name in tensors):
        if loras:
            raise ValueError(f"convert: want LoRA of a transformer, got {loras[0]} for the VAE {file}; leave it out")
        _convert_vae(file, tensors, out)
        return None
    if is_lora(tensors):
        raise ValueError(f"convert: want a transformer or VAE first, got the LoRA {file}; name its base before it")
    names = renamed(tensors, lambda name: to_diffusers(strip_prefixes(name)))
    weights = {new: tensors[old] for new, old in names.items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    try:
        config = transformer_config(shapes)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    found = detect_line(config, str(file), line)
    model = empty_transformer(config)
    check_shapes(model, shapes, file, names)
    for lora in loras:
        weights = merge_lora(weights, _tensors(lora, _LORA_KEYS, None), found.lora_alpha)
    profile = precision or found.precision
    folder = _free(out / "transformer")
    out.mkdir(parents=True, exist_ok=True)
    write_line(out, found, profile, (file, *loras))
    write_model(folder, model, config, weights, lambda name: dtype_of(name, profile))
    return found


def _convert_vae(file: Path, tensors: Mapping[str, Tensor], out: Path) -> None:
    part = vae_part(tensors)
    names = renamed(tensors, lambda name: to_diffusers(strip_prefixes(name), part))
    weights = {new: tensors[old] for new, old in names.items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    try:
        config = vae_config(shapes, part.removeprefix("vae "))
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    model = empty_vae(config)
    check_shapes(model, shapes, file, names)
    write_model(_free(out / "vae"), model, config, weights, lambda _: torch.float32)


def _tensors(file: Path, top_keys: Sequence[str], key: str | None) -> dict[str, Tensor]:
    if file.is_file() and file.suffix in PICKLES:
        return read_pickle(file, top_keys, key)
    return dict(stored_tensors(file).read())


def _free(folder: Path) -> Path:
    if folder.exists():
        raise ValueError(f"out: want a folder without '{folder.name}' in it, got {folder.parent}; choose another")
    return folder


def write_line(folder: Path, line: Line, precision: Precision, sources: Sequence[Path]) -> None:
    """Write ``worldwarp_line.json``."""
    files = [file for source in sources for file in (sorted(source.iterdir()) if source.is_dir() else [source])]
    record = {
        "line": line.name,
        "license": line.license,
        "commercial": line.commercial,
        "code": line.code,
        "precision": precision,
        "schedule": line.schedule(),
        "sources": [{"file": file.name, "sha256": _sha256(file)} for file in files],
    }
    _write_json(folder / LINE_FILE, record)


def write_model(
    folder: Path, model: nn.Module, config: Config, weights: Mapping[str, Tensor], dtype: Callable[[str], torch.dtype]
) -> None:
    """Write the folder of a model as diffusers does: ``config.json`` and safetensors, in shards if it is large.

    Args:
        folder: appears when all of it is written.
        model: tells the class.
        config: its arguments.
        weights: by diffusers' names.
        dtype: of each.
    """
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        _write_json(partial / "config.json", {"_class_name": type(model).__name__, **config})
        shards = list(_shards(weights, dtype))
        place: dict[str, str] = {}
        for number, names in enumerate(shards, 1):
            name = WEIGHTS if len(shards) == 1 else f"{WEIGHTS[:-12]}-{number:05}-of-{len(shards):05}.safetensors"
            # A copy, since tensors of a pickle may share storage, which safetensors refuses.
            tensors = {
                name: weights[name].to(dtype(name)).clone(memory_format=torch.contiguous_format) for name in names
            }
            save_file(tensors, partial / name, metadata={"format": "pt"})
            place |= dict.fromkeys(names, name)
        if len(shards) > 1:
            size = sum(weights[name].numel() * dtype(name).itemsize for name in weights)
            _write_json(partial / f"{WEIGHTS}.index.json", {"metadata": {"total_size": size}, "weight_map": place})
        os.replace(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _shards(weights: Mapping[str, Tensor], dtype: Callable[[str], torch.dtype]) -> Iterator[list[str]]:
    """Names in groups of at most `SHARD_BYTES`; only one group is in memory at a time."""
    group: list[str] = []
    size = 0
    for name, tensor in weights.items():
        more = tensor.numel() * dtype(name).itemsize
        if group and size + more > SHARD_BYTES:
            yield group
            group, size = [], 0
        group.append(name)
        size += more
    yield group


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
