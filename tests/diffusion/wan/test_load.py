"""The strict loader: golden tensors of the original programs, precision, faults, and what is found where."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_skyreels_v2 import SkyReelsV2Transformer3DModel
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from safetensors.torch import load_file, save_file

from diffusion.wan.files import WEIGHTS, download
from diffusion.wan.generator import TEXT_ENCODER_BYTES, WanGenerator
from diffusion.wan.keys import to_original
from diffusion.wan.lines import BASES, LINES, VAES, Line
from diffusion.wan.load import (
    FLOAT32_LAYERS,
    LINE_FILE,
    dtype_of,
    empty_transformer,
    empty_vae,
    find_checkpoint,
    load_transformer,
    load_vae,
)
from diffusion.wan.toy import make_toy

GOLDEN = Path(__file__).parents[2] / "fixtures" / "wan"
GOLDEN_SIZES = {"num_attention_heads": 2, "attention_head_dim": 24, "ffn_dim": 96, "num_layers": 2}
GOLDEN_SIZES |= {"text_dim": 32, "freq_dim": 64}


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    make_toy(tmp_path / "toy", LINES["self-forcing"])
    return tmp_path / "toy"


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    """A diffusers folder with the weights of the golden tensors, by their original names."""
    for part, file, config in (
        ("transformer", "wan21", {**LINES["wan"].transformer_config(), **GOLDEN_SIZES}),
        ("vae", "vae21", {**VAES["2.1"], "base_dim": 4}),
    ):
        (tmp_path / part).mkdir()
        stored = load_file(GOLDEN / f"{file}.safetensors")
        weights = {name.removeprefix("w."): stored[name] for name in stored if name.startswith("w.")}
        save_file(weights, tmp_path / part / WEIGHTS)
        (tmp_path / part / "config.json").write_text(json.dumps(config))
    return tmp_path


@torch.no_grad()
def test_transformer_computes_what_the_original_program_does(golden: Path) -> None:
    stored = load_file(GOLDEN / "wan21.safetensors")
    model = load_transformer(find_checkpoint(golden, "wan"), "float32")
    text = torch.zeros(1, 512, 32)
    text[:, : stored["text"].shape[1]] = stored["text"]
    velocity = model(stored["x"], stored["t"], text).sample
    torch.testing.assert_close(velocity, stored["out"], rtol=0.0, atol=2e-5)


@torch.no_grad()
def test_vae_computes_what_the_original_program_does(golden: Path) -> None:
    stored = load_file(GOLDEN / "vae21.safetensors")
    vae = load_vae(find_checkpoint(golden, "wan"))
    assert isinstance(vae, AutoencoderKLWan)
    latents = vae.encode(stored["x"], return_dict=False)[0].mode()
    torch.testing.assert_close(latents, stored["latent"], rtol=0.0, atol=2e-5)
    frames = vae.decode(stored["latent"], return_dict=False)[0]
    torch.testing.assert_close(frames, stored["out"], rtol=0.0, atol=2e-5)


@torch.no_grad()
def test_models_of_skyreels_keep_their_frame_rate(tmp_path: Path) -> None:
    """Its class adds an embedded frame rate to the projected timestep, ours the same numbers to the bias."""
    line = LINES["skyreels-df"]
    config = {**line.transformer_config(), **GOLDEN_SIZES}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = SkyReelsV2Transformer3DModel(**config, inject_sample_info=True).eval()
    theirs.save_pretrained(tmp_path / "transformer")
    checkpoint = find_checkpoint(tmp_path)
    assert checkpoint.line is line
    ours = load_transformer(checkpoint, "float32")
    rng = torch.Generator().manual_seed(0)
    latents, text = torch.randn(1, 16, 2, 4, 6, generator=rng), torch.randn(1, 512, 32, generator=rng)
    step = torch.tensor([500.0])
    expected = theirs(latents, step, text, fps=[1], return_dict=False)[0]
    torch.testing.assert_close(ours(latents, step, text).sample, expected, rtol=0.0, atol=1e-5)
    other = theirs(latents, step, text, fps=[0], return_dict=False)[0]
    assert (other - expected).abs().max() > 1e-2


# -- Precision --------------------------------------------------------------------------------------------------------


def test_profile_of_wan_keeps_what_diffusers_keeps_in_float32(toy: Path) -> None:
    assert set(WanTransformer3DModel._keep_in_fp32_modules or []) == FLOAT32_LAYERS
    theirs = WanTransformer3DModel.from_pretrained(toy / "transformer", torch_dtype=torch.bfloat16)
    ours = load_transformer(find_checkpoint(toy), "wan")
    assert {n: t.dtype for n, t in ours.named_parameters()} == {n: t.dtype for n, t in theirs.named_parameters()}
    for name, tensor in ours.named_parameters():
        assert torch.equal(tensor, theirs.get_parameter(name)), name


@pytest.mark.parametrize("precision", ["wan", "bf16", "float32"])
def test_rotary_tables_are_float32_under_every_profile(toy: Path, precision: str) -> None:
    model = load_transformer(find_checkpoint(toy), precision)  # type: ignore[arg-type]  # a parameter is any text
    fresh = WanTransformer3DModel(**{**find_checkpoint(toy).config})
    tables = dict(model.named_buffers())
    assert tables.keys() == {"rope.freqs_cos", "rope.freqs_sin"}
    for name, table in fresh.named_buffers():
        assert torch.equal(tables[name], table)
        assert tables[name].dtype == torch.float32
    assert all(tensor.dtype == dtype_of(name, precision) for name, tensor in model.named_parameters())  # type: ignore[arg-type]  # a parameter is any text
    assert not any(tensor.requires_grad for tensor in model.parameters())


def test_a_folder_is_loaded_in_the_precision_it_was_written_in(toy: Path) -> None:
    assert find_checkpoint(toy).precision == "float32"
    (toy / LINE_FILE).unlink()
    assert find_checkpoint(toy, "wan").precision == LINES["wan"].precision


# -- Toys -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", ["self-forcing", "st-diff", "inspatio", "ti2v"])
@torch.no_grad()
def test_a_toy_of_each_kind_of_line_runs(tmp_path: Path, line: str) -> None:
    make_toy(tmp_path / "toy", LINES[line])
    checkpoint = find_checkpoint(tmp_path / "toy")
    assert checkpoint.line is LINES[line]
    model, vae = load_transformer(checkpoint), load_vae(checkpoint)
    assert isinstance(vae, AutoencoderKLWan)
    assert sum(p.numel() for p in model.parameters()) < 300_000
    frames = torch.rand(1, 3, 5, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latents = vae.encode(frames, return_dict=False)[0].mode()
    assert latents.shape[1] == checkpoint.line.latent_channels
    assert vae.decode(latents, return_dict=False)[0].shape == frames.shape
    state = torch.zeros(1, checkpoint.line.in_channels, *latents.shape[2:])
    state[:, : latents.shape[1]] = latents
    text = torch.randn(1, 20, checkpoint.config["text_dim"], generator=torch.Generator().manual_seed(0))
    velocity = model(state, torch.tensor([500.0]), text).sample
    assert velocity.shape == latents.shape
    assert 0.1 < velocity.std() < 10.0


def test_a_toy_is_made_by_its_seed_and_read_by_diffusers_too(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        make_toy(tmp_path / name, LINES["self-forcing"], seed)
    files = ("transformer/" + WEIGHTS, "vae/" + WEIGHTS, "text_encoder/model.safetensors", LINE_FILE)
    a, b, c = ([(tmp_path / name / file).read_bytes() for file in files] for name in "abc")
    assert a == b
    assert all(x != y for x, y in zip(a[:3], c[:3], strict=True))
    theirs = AutoencoderKLWan.from_pretrained(tmp_path / "a" / "vae")
    ours = load_vae(find_checkpoint(tmp_path / "a"))
    assert all(torch.equal(t, theirs.get_parameter(n)) for n, t in ours.named_parameters())
    for taken in (tmp_path / "a", tmp_path / "a" / LINE_FILE):
        with pytest.raises(ValueError, match="want an empty or new folder"):
            make_toy(taken, LINES["self-forcing"])


# -- Faults -----------------------------------------------------------------------------------------------------------


def refused(folder: Path, line: str = "auto") -> str:
    """The one sentence with which a folder is refused."""
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the callers compare the text)
        load_transformer(find_checkpoint(folder, line))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("original_names", [False, True])
def test_missing_unexpected_and_reshaped_tensors_are_named(toy: Path, original_names: bool) -> None:
    file = toy / "transformer" / WEIGHTS
    weights = load_file(file)
    stored = {to_original(name) if original_names else name: tensor for name, tensor in weights.items()}
    query, table = "blocks.1.attn1.to_q.weight", "blocks.2.scale_shift_table"
    name = to_original(query) if original_names else query
    save_file({other: tensor for other, tensor in stored.items() if other != name}, file)
    assert f"1 missing: {query}" in refused(toy)
    save_file({"blocks.1.strange" if other == name else other: tensor for other, tensor in stored.items()}, file)
    assert f"1 missing: {query}; 1 unexpected: blocks.1.strange" in refused(toy)
    name = to_original(table) if original_names else table
    save_file({**stored, name: torch.zeros(1, 5, 64)}, file)
    assert f"1 of another shape: {name} [1, 5, 64], want [1, 6, 64]" in refused(toy)


def test_an_error_names_ten_of_many(toy: Path) -> None:
    file = toy / "transformer" / WEIGHTS
    save_file({name: tensor for name, tensor in load_file(file).items() if ".ffn." not in name}, file)
    message = refused(toy)
    assert "12 missing: " in message
    assert message.count(".ffn.") == 10
    assert "and 2 more" in message


def test_a_name_without_tensor_does_not_stay_random(toy: Path) -> None:
    """What the loader of diffusers lets pass with a warning."""
    file = toy / "vae" / WEIGHTS
    weights = load_file(file)
    del weights["decoder.conv_in.bias"]
    save_file(weights, file)
    with pytest.raises(
        ValueError, match=r"vae: want the \d+ tensors of a AutoencoderKLWan, got 1 missing: decoder.conv_in"
    ):
        load_vae(find_checkpoint(toy))


def test_half_a_download_is_refused(toy: Path) -> None:
    file = toy / "transformer" / WEIGHTS
    whole = file.read_bytes()
    for size in (len(whole) // 2, 100, 0):
        file.write_bytes(whole[:size])
        assert re.search(rf"{WEIGHTS}: want a whole safetensors file, .*; download it again", refused(toy))


def sharded(folder: Path) -> Path:
    """The toy's transformer in two files with an index."""
    file = folder / "transformer" / WEIGHTS
    weights = load_file(file)
    file.unlink()
    names = sorted(weights)
    place = {name: f"part-{1 + (i % 2)}.safetensors" for i, name in enumerate(names)}
    for shard in ("part-1.safetensors", "part-2.safetensors"):
        save_file({name: weights[name] for name in names if place[name] == shard}, folder / "transformer" / shard)
    (folder / "transformer" / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": place}))
    return folder


def test_shards_are_read_and_a_missing_one_is_named(toy: Path) -> None:
    whole = load_transformer(find_checkpoint(toy)).state_dict()
    sharded(toy)
    parts = load_transformer(find_checkpoint(toy)).state_dict()
    assert all(torch.equal(parts[name], whole[name]) for name in whole)
    (toy / "transformer" / "part-2.safetensors").unlink()
    assert "got all but part-2.safetensors; download the rest" in refused(toy)


def test_a_folder_without_weights_and_one_of_another_model_are_refused(toy: Path, tmp_path: Path) -> None:
    (toy / "transformer" / WEIGHTS).unlink()
    assert "want one safetensors file, or shards with an index, got config.json" in refused(toy)
    config = toy / "transformer" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "_class_name": "HeliosTransformer3DModel"}))
    assert "want a WanTransformer3DModel, got a HeliosTransformer3DModel" in refused(toy)
    config.write_text("[]")
    assert "want a JSON object, got a list" in refused(toy)
    config.write_text('{"half')
    assert "want JSON, got something else" in refused(toy)
    (tmp_path / "empty").mkdir()
    assert "want config.json in it, got none" in refused(tmp_path / "empty")


def test_a_pickle_is_sent_to_the_converter(tmp_path: Path) -> None:
    file = tmp_path / "self_forcing_dmd.pt"
    torch.save({}, file)
    assert f"got a pickle; run `worldwarp models convert {file}` once" in refused(file)


# -- Lines ------------------------------------------------------------------------------------------------------------


def test_a_line_that_does_not_fit_is_refused(toy: Path) -> None:
    assert "was made for self-forcing, got line=inspatio; leave line= out" in refused(toy, "inspatio")
    (toy / LINE_FILE).unlink()
    assert "line: inspatio has 36 input and 16 output channels, got 16 and 16; want line=wan or" in refused(
        toy, "inspatio"
    )
    assert "line: ti2v has 48 input and 48 output channels, got 16 and 16" in refused(toy, "ti2v")
    assert "line: want one of wan, " in refused(toy, "wann")
    assert "got tensors that fit wan, st-diff, self-forcing" in refused(toy)


def test_latents_of_another_vae_are_refused(toy: Path, tmp_path: Path) -> None:
    make_toy(tmp_path / "other", LINES["ti2v"])
    (toy / "vae").rename(tmp_path / "away")
    (tmp_path / "other" / "vae").rename(toy / "vae")
    with pytest.raises(ValueError, match="self-forcing wants latents of 16 channels, got a VAE of 48"):
        load_vae(find_checkpoint(toy))


PUBLISHED = [line for line in LINES.values() if line.weights]


@pytest.mark.parametrize("line", PUBLISHED, ids=lambda line: line.name)
def test_published_files_and_repositories_tell_their_line(line: Line) -> None:
    from diffusion.wan.detect import detect_line

    config = line.transformer_config()
    for where in [f"/data/{file}" for file in line.files[:1]] or [line.weights]:
        assert detect_line(config, where) is line


def test_a_name_that_two_lines_share_does_not_tell() -> None:
    from diffusion.wan.detect import detect_line

    with pytest.raises(ValueError, match="fit tiny, tiny-student; give line="):
        detect_line(LINES["tiny"].transformer_config(), "/data/model.safetensors")
    config = LINES["self-forcing"].transformer_config()
    with pytest.raises(ValueError, match="fit causal-forcing, causal-forcing-frame; give line="):
        detect_line(config, "/data/causal_forcing.pt")
    assert detect_line(config, "me/Wan2.1-T2V-1.3B-Self-Forcing").name == "self-forcing"
    with pytest.raises(ValueError, match=r"longlive is published as 1.3B, got the width of 14B; want line=wan or sky"):
        detect_line(LINES["wan"].transformer_config("14B"), "", "longlive")
    with pytest.raises(ValueError, match="self-forcing reads no embedding of an image"):
        detect_line({**config, "image_dim": 1280}, "", "self-forcing")
    with pytest.raises(ValueError, match="got 20 input and 16 output channels of width 1536"):
        detect_line({**config, "in_channels": 20}, "")


@pytest.mark.parametrize("name", BASES)
def test_architectures_have_the_published_number_of_parameters(name: str) -> None:
    model = empty_transformer(BASES[name].config)
    assert sum(parameter.numel() for parameter in model.parameters()) == BASES[name].parameters


@pytest.mark.parametrize(
    ("version", "millions", "tensors"), [("2.1", 126.9, 194), ("2.2", 704.7, 196), ("tiny", 2.2, 98)]
)
def test_vaes_have_the_published_number_of_parameters(version: str, millions: float, tensors: int) -> None:
    vae = empty_vae(VAES[version])
    parameters = sum(parameter.numel() for parameter in vae.parameters())
    assert (round(parameters / 1e6, 1), len(vae.state_dict())) == (millions, tensors)
    if version != "tiny":  # whose latents have mean 0 and deviation 1
        config: Any = vae.config
        assert len(config["latents_mean"]) == len(config["latents_std"]) == config["z_dim"]


# -- Hugging Face -----------------------------------------------------------------------------------------------------


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of Hugging Face's cache, empty, with no network."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_without_network_an_id_is_refused_in_a_sentence(offline: Path) -> None:
    with pytest.raises(
        ValueError, match=r"^nobody/model: want it from Hugging Face, as there is no such folder, got no"
    ) as error:
        find_checkpoint("nobody/model")
    assert "\n" not in str(error.value)
    assert not offline.exists()


def test_the_text_encoder_of_an_id_is_planned_where_it_would_be_loaded(
    offline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its embeddings are known by the encoder's files, which are looked for in the Hub's cache and nowhere else."""
    monkeypatch.setenv("WORLDWARP_CACHE", str(tmp_path / "cache"))
    home, commit = offline / "models--nobody--model", "0" * 40
    make_toy(home / "snapshots" / commit, LINES["longlive"])
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(commit)

    def text_stage(prompt: str) -> int:
        plan = WanGenerator("nobody/model", prompt=prompt).plan((32, 64), 5)
        return sum(stage.parts["text encoder"] for stage in plan.stages if stage.name == "text")

    weights = home / "snapshots" / commit / "text_encoder" / "model.safetensors"
    assert 0.45 < text_stage("a lake") / weights.stat().st_size < 0.5  # float32 on disk, bfloat16 in memory
    assert WanGenerator("nobody/model", prompt="a lake").parts.prompts.at(0).shape == (512, 32)
    assert text_stage("a lake") == 0
    assert text_stage("a road") > 0
    weights.parent.rename(tmp_path / "gone")  # the base of the line has it, and is not in the cache
    assert text_stage("a lake") == TEXT_ENCODER_BYTES


def test_an_id_in_the_cache_is_used_without_network(offline: Path, toy: Path) -> None:
    home = offline / "models--nobody--model"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text("0" * 40)
    (home / "snapshots").mkdir()
    shutil.rmtree(toy / "text_encoder")
    toy.rename(home / "snapshots" / ("0" * 40))
    checkpoint = find_checkpoint("nobody/model")
    assert (checkpoint.line.name, checkpoint.repository) == ("self-forcing", "nobody/model")
    load_transformer(checkpoint)
    load_vae(checkpoint)
    with pytest.raises(ValueError, match=r"^Wan-AI/Wan2.1-T2V-1.3B-Diffusers: want it from Hugging Face"):
        checkpoint.folder_with("text_encoder", "tokenizer")


def test_an_id_that_is_none_is_refused(offline: Path, toy: Path) -> None:
    assert not offline.exists()
    with pytest.raises(ValueError, match="want a folder, a file or a Hugging Face id"):
        find_checkpoint("models/of/mine")
    with pytest.raises(ValueError, match="want a folder or a Hugging Face id, got neither"):
        find_checkpoint("no body/model")
    with pytest.raises(ValueError, match=r"which holds checkpoints/self_forcing_dmd.pt; download that and run"):
        find_checkpoint("gdhe17/Self-Forcing")
    (toy / "vae").rename(toy / "other")
    with pytest.raises(ValueError, match="want it from Hugging Face, as there is no such folder, got no"):
        load_vae(find_checkpoint(toy))


def test_a_full_disk_is_not_called_a_lost_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def full(*_: object, **__: object) -> str:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", full)
    with pytest.raises(OSError, match="No space left"):
        download("nobody/model", ["*"])
