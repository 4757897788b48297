"""Checkpoints as they are published, at toy size: converted, loaded strictly, and back to the same bits."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffusion.wan import convert as convert_module
from diffusion.wan.convert import convert
from diffusion.wan.files import WEIGHTS
from diffusion.wan.keys import Part, to_original
from diffusion.wan.lines import LINES, VAES
from diffusion.wan.load import (
    LINE_FILE,
    dtype_of,
    empty_transformer,
    empty_vae,
    find_checkpoint,
    frame_rate_shapes,
    load_transformer,
    load_vae,
)

SMALL = {"num_attention_heads": 1, "ffn_dim": 64, "num_layers": 2, "text_dim": 32, "freq_dim": 32}
WIDTH = 128
Weights = dict[str, Tensor]


def random_weights(line: str, seed: int = 0) -> Weights:
    """Weights of a small transformer by diffusers' names."""
    rng = torch.Generator().manual_seed(seed)
    model = empty_transformer({**LINES[line].transformer_config(), **SMALL})
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if line == "skyreels-df":
        shapes |= frame_rate_shapes(WIDTH)
    return {name: torch.randn(shape, generator=rng) for name, shape in shapes.items()}


def original(weights: Weights, front: str = "") -> Weights:
    return {front + to_original(name): tensor for name, tensor in weights.items()}


def sharded_by_fsdp(weights: Weights) -> Weights:
    """Names as they are collected from a model whose root and blocks are wrapped."""
    names = {name: re.sub(r"^(blocks\.\d+\.)", r"\1_fsdp_wrapped_module.", to_original(name)) for name in weights}
    return {f"model._fsdp_wrapped_module.{names[name]}": tensor for name, tensor in weights.items()}


def pickled(top: dict[str, Callable[[Weights], object]]) -> Callable[[Path, Weights], Path]:
    def write(file: Path, weights: Weights) -> Path:
        torch.save({key: make(weights) for key, make in top.items()}, file)
        return file

    return write


def other(weights: Weights) -> Weights:
    """What stands beside the weights and is not to be taken."""
    return {f"model.{name}": torch.zeros(1) for name in list(weights)[:3]}


def flat_pickle(file: Path, weights: Weights) -> Path:
    torch.save(OrderedDict(weights), file)
    return file


def plain(front: str) -> Callable[[Path, Weights], Path]:
    def write(file: Path, weights: Weights) -> Path:
        save_file(original(weights, front), file)
        return file

    return write


# Line to the form in which it is published, at toy size.
PUBLISHED: dict[str, Callable[[Path, Weights], Path]] = {
    "wan": plain(""),
    "ti2v": plain(""),
    "st-diff": flat_pickle,
    "self-forcing": pickled({"generator": other, "critic": other, "generator_ema": sharded_by_fsdp}),
    "causal-forcing": pickled({"generator": lambda weights: original(weights, "model.")}),
    "causal-forcing-frame": pickled({"generator": other, "generator_ema": sharded_by_fsdp}),
    "longlive": pickled({"generator": lambda weights: original(weights, "model.")}),
    "inspatio": plain("model."),
    "causvid": pickled({"generator": lambda weights: original(weights, "model."), "generator_ema": other}),
    "skyreels-df": plain(""),
}
SUFFIX = {"st-diff": ".ckpt", "wan": ".safetensors", "ti2v": ".safetensors", "inspatio": ".safetensors"}
SUFFIX |= {"skyreels-df": ".safetensors"}


def published(line: str, folder: Path, weights: Weights) -> Path:
    return PUBLISHED[line](folder / f"checkpoint{SUFFIX.get(line, '.pt')}", weights)


@pytest.fixture
def refused(tmp_path: Path) -> Callable[..., str]:
    """Convert files that are refused; the one sentence, after which nothing is written."""

    def attempt(file: Path, line: str = "self-forcing", **settings: object) -> str:
        with pytest.raises(ValueError) as error:  # noqa: PT011 (the callers compare the text)
            convert(file, tmp_path / "out", line, **settings)  # type: ignore[arg-type]  # settings by name
        assert "\n" not in str(error.value)
        assert not (tmp_path / "out").exists()
        return str(error.value)

    return attempt


def test_every_published_line_is_tested() -> None:
    assert set(PUBLISHED) == {name for name, line in LINES.items() if line.weights}


@pytest.mark.parametrize("line", PUBLISHED)
def test_a_published_checkpoint_comes_back_to_the_bit(line: str, tmp_path: Path) -> None:
    weights = random_weights(line)
    file = published(line, tmp_path, weights)
    assert convert(file, tmp_path / "out", line, precision="float32") is LINES[line]
    stored = load_file(tmp_path / "out" / "transformer" / WEIGHTS)
    assert stored.keys() == weights.keys()
    assert all(torch.equal(stored[name], weights[name]) for name in weights)
    back = {to_original(name): tensor for name, tensor in stored.items()}
    assert all(torch.equal(back[name], tensor) for name, tensor in original(weights).items())
    model = load_transformer(find_checkpoint(tmp_path / "out"))
    folded = {"condition_embedder.time_proj.bias"} if line == "skyreels-df" else set()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, weights[name]) != (name in folded), name


@pytest.mark.parametrize("precision", [None, "wan", "bf16"])
def test_weights_are_written_in_the_precision_of_the_line(precision: str | None, tmp_path: Path) -> None:
    weights = random_weights("self-forcing")
    file = published("self-forcing", tmp_path, weights)
    convert(file, tmp_path / "out", "self-forcing", precision=precision)  # type: ignore[arg-type]  # settings by name
    profile = precision or LINES["self-forcing"].precision
    for name, tensor in load_file(tmp_path / "out" / "transformer" / WEIGHTS).items():
        assert torch.equal(tensor, weights[name].to(dtype_of(name, profile))), name  # type: ignore[arg-type]  # settings by name
    assert find_checkpoint(tmp_path / "out").precision == profile


def test_the_record_says_line_schedule_license_and_source(tmp_path: Path) -> None:
    file = published("causvid", tmp_path, random_weights("causvid"))
    convert(file, tmp_path / "out", "causvid")
    record = json.loads((tmp_path / "out" / LINE_FILE).read_text())
    assert (record["line"], record["license"], record["commercial"]) == ("causvid", "CC-BY-NC-SA-4.0", False)
    assert record["schedule"]["steps"] == [1000.0, 757.0, 522.0]
    assert record["sources"] == [{"file": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}]


def test_a_file_is_loaded_without_conversion_too(tmp_path: Path) -> None:
    weights = random_weights("inspatio")
    file = published("inspatio", tmp_path, weights)
    checkpoint = find_checkpoint(file)
    assert checkpoint.line.name == "inspatio"  # no other line has its channels
    model = load_transformer(checkpoint, "float32")
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


def test_large_models_are_written_in_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert_module, "SHARD_BYTES", 500_000)
    weights = random_weights("wan")
    convert(published("wan", tmp_path, weights), tmp_path / "out", "wan", precision="float32")
    folder = tmp_path / "out" / "transformer"
    index = json.loads((folder / f"{WEIGHTS}.index.json").read_text())
    files = set(index["weight_map"].values())
    assert len(files) > 2
    assert files == {file.name for file in folder.glob("*.safetensors")}
    assert index["metadata"]["total_size"] == sum(4 * tensor.numel() for tensor in weights.values())
    model = load_transformer(find_checkpoint(tmp_path / "out"))
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    # And shards go in: a folder of them is converted like a file.
    convert(folder, tmp_path / "again", "wan", precision="float32")
    assert len(json.loads((tmp_path / "again" / LINE_FILE).read_text())["sources"]) == len(files) + 2


def test_a_published_lora_is_merged(tmp_path: Path) -> None:
    """LongLive: rank and alpha are 256, so that the update is added as it is."""
    weights = random_weights("longlive")
    file = published("longlive", tmp_path, weights)
    rng = torch.Generator().manual_seed(5)
    down, up = torch.randn(256, WIDTH, generator=rng), torch.randn(WIDTH, 256, generator=rng)
    target = "base_model.model.blocks.1._fsdp_wrapped_module.cross_attn.o"
    lora = tmp_path / "lora.pt"
    torch.save({"generator_lora": {f"{target}.lora_A.weight": down, f"{target}.lora_B.weight": up}}, lora)
    convert(file, tmp_path / "out", "longlive", loras=[lora], precision="float32")
    stored = load_file(tmp_path / "out" / "transformer" / WEIGHTS)
    name = "blocks.1.attn2.to_out.0.weight"
    torch.testing.assert_close(stored[name], weights[name] + up @ down)
    assert all(torch.equal(stored[other], weights[other]) for other in weights if other != name)
    sources = json.loads((tmp_path / "out" / LINE_FILE).read_text())["sources"]
    assert [source["file"] for source in sources] == [file.name, "lora.pt"]


@pytest.mark.parametrize("part", ["vae 2.1", "vae 2.2"])
def test_a_vae_comes_back_to_the_bit(part: Part, tmp_path: Path) -> None:
    rng = torch.Generator().manual_seed(0)
    version = part.removeprefix("vae ")
    shapes = empty_vae({**VAES[version], "base_dim": 4, "decoder_base_dim": 8}).state_dict()
    weights = {name: torch.randn(tensor.shape, generator=rng) for name, tensor in shapes.items()}
    file = tmp_path / "Wan_VAE.pth"
    torch.save({to_original(name, part): tensor for name, tensor in weights.items()}, file)
    line = "ti2v" if part == "vae 2.2" else "wan"
    convert(published(line, tmp_path, random_weights(line)), tmp_path / "out", line)
    assert convert(file, tmp_path / "out") is None
    vae = load_vae(find_checkpoint(tmp_path / "out"))
    assert all(torch.equal(tensor, weights[name]) for name, tensor in vae.state_dict().items())
    assert vae.config["latents_mean"] == VAES[version]["latents_mean"]
    del weights["encoder.conv_out.bias"]
    torch.save({to_original(name, part): tensor for name, tensor in weights.items()}, file)
    with pytest.raises(ValueError, match=r"got 1 missing: encoder.conv_out.bias"):
        convert(file, tmp_path / "other")


# -- Refusals ---------------------------------------------------------------------------------------------------------


def test_tensors_that_do_not_fit_are_named(tmp_path: Path, refused: Callable[..., str]) -> None:
    weights = random_weights("self-forcing")
    file, name = tmp_path / "checkpoint.pt", "blocks.0.attn1.norm_k.weight"
    theirs = "model.blocks.0.self_attn.norm_k.weight"

    def write(tensors: Weights) -> Path:
        torch.save({"generator": original(tensors, "model.")}, file)
        return file

    rest = {key: tensor for key, tensor in weights.items() if key != name}
    assert f"1 missing: {name}" in refused(write(rest))
    assert f"1 missing: {name}; 1 unexpected: model.odd" in refused(write({**rest, "odd": weights[name]}))
    reshaped = {**weights, name: torch.zeros(127)}
    assert f"1 of another shape: {theirs} [127], want [128]" in refused(write(reshaped))
    write(weights)
    tensors = torch.load(file, weights_only=True)["generator"]
    torch.save({"generator": {**tensors, "module.blocks.0.norm3.bias": torch.zeros(128)}}, file)
    assert "got two: model.blocks.0.norm3.bias and module.blocks.0.norm3.bias" in refused(file)


def test_a_missing_last_block_of_a_published_width_is_found(tmp_path: Path, refused: Callable[..., str]) -> None:
    config = {**LINES["self-forcing"].transformer_config(), "ffn_dim": 64, "text_dim": 32, "num_layers": 2}
    shapes = empty_transformer(config).state_dict()
    file = tmp_path / "checkpoint.pt"
    torch.save({name: torch.empty(1).expand(tensor.shape) for name, tensor in shapes.items()}, file)
    assert "756 missing: blocks.2.scale_shift_table" in refused(file)  # 27 a block


class Code:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path, refused: Callable[..., str]) -> None:
    file = tmp_path / "checkpoint.pt"
    torch.save({"generator": random_weights("self-forcing"), "step": Code(tmp_path / "ran")}, file)
    assert f"want a pickle of tensors alone, got one with code: {os.mkdir.__module__}.mkdir" in refused(file)
    assert not (tmp_path / "ran").exists()


def test_damaged_old_and_other_files_are_refused(tmp_path: Path, refused: Callable[..., str]) -> None:
    file = published("self-forcing", tmp_path, random_weights("self-forcing"))
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert "want a whole checkpoint of torch.save" in refused(file)
    file.write_bytes(b"<html>not found</html>")
    assert "download it again" in refused(file) or "it was not run" in refused(file)
    torch.save({"a": torch.zeros(1)}, file, _use_new_zipfile_serialization=False)
    assert "want a whole checkpoint of torch.save (version 1.6 or later)" in refused(file)
    torch.save({"optimizer": {"step": 1}, "epoch": 3}, file)
    assert "want tensors under key=generator_ema, got optimizer, epoch; give key=" in refused(file)
    torch.save({"generator": {"a": torch.zeros(1)}}, file)
    assert "want tensors under key=ema, got generator" in refused(file, key="ema")
    assert "want patch_embedding.weight of 5 dimensions, got none; is it a checkpoint of another model?" in refused(
        file
    )
    safe = tmp_path / "checkpoint.safetensors"
    save_file({"encoder.conv1.weight": torch.zeros(4, 3, 3, 3, 3)}, safe)
    assert "want decoder.conv_out.weight of 5 dimensions, got none" in refused(safe)


def test_a_wrong_line_and_a_line_that_cannot_be_told_are_refused(tmp_path: Path, refused: Callable[..., str]) -> None:
    file = published("self-forcing", tmp_path, random_weights("self-forcing"))
    assert "inspatio has 36 input and 16 output channels, got 16 and 16" in refused(file, "inspatio")
    assert "checkpoint.pt is, got tensors that fit wan, st-diff," in refused(file, "auto")


def test_lora_alone_and_lora_of_a_vae_are_refused(tmp_path: Path, refused: Callable[..., str]) -> None:
    lora, vae = tmp_path / "lora.safetensors", tmp_path / "vae.safetensors"
    save_file({"blocks.0.ffn.0.lora_A.weight": torch.zeros(2, 4)}, lora)
    assert "want a transformer or VAE first, got the LoRA" in refused(lora)
    save_file({"decoder.conv1.bias": torch.zeros(4)}, vae)
    assert "want LoRA of a transformer" in refused(vae, loras=[lora])


def test_what_is_there_already_is_not_overwritten(tmp_path: Path) -> None:
    file = published("self-forcing", tmp_path, random_weights("self-forcing"))
    convert(file, tmp_path / "out", "self-forcing")
    before = (tmp_path / "out" / "transformer" / WEIGHTS).read_bytes()
    with pytest.raises(ValueError, match="want a folder without 'transformer' in it"):
        convert(file, tmp_path / "out", "self-forcing", precision="float32")
    assert (tmp_path / "out" / "transformer" / WEIGHTS).read_bytes() == before


def test_nothing_is_left_of_a_conversion_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(convert_module, "save_file", full)
    file = published("self-forcing", tmp_path, random_weights("self-forcing"))
    with pytest.raises(OSError, match="No space left"):
        convert(file, tmp_path / "out", "self-forcing")
    assert [entry.name for entry in (tmp_path / "out").iterdir()] == [LINE_FILE]
