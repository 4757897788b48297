"""Prompts: schedules and their files, embeddings, the cache on disk, and UMT5 as the originals use it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffusion.wan.embedding_cache import EmbeddingCache, cache_folder, encoder_revision
from diffusion.wan.prompts import (
    TOKENS,
    CachedTextEncoder,
    Prompts,
    PromptSource,
    clean_prompt,
    read_prompts,
)
from diffusion.wan.text_encoder import encode, load_encoder, write_toy_text_encoder

DIM = 32
TEXTS = ("A red bench in the rain.", "Two towers & a bridge, seen from the river at dawn")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy with the classes of a real diffusers folder."""
    made = tmp_path_factory.mktemp("toy")
    write_toy_text_encoder(made, DIM, seed=3)
    return made


class Counts:
    """Embeds a text as rows of its length; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def __call__(self, texts: Sequence[str]) -> list[torch.Tensor]:
        self.asked.append(list(texts))
        return [torch.full((1 + len(text), 4), float(len(text))) for text in texts]


def test_prompts_are_cleaned_as_the_originals_do() -> None:
    pipeline = pytest.importorskip("diffusers.pipelines.wan.pipeline_wan")
    for text in ("  a  cat \n on\ta mat ", "Tom &amp;amp; Ann", "cafÃ© â€” “quoted”", "夜景  ", ""):
        assert clean_prompt(text) == pipeline.prompt_clean(text)
    assert clean_prompt("cafÃ© &amp;  bar ") == "café & bar"


def test_one_text_describes_every_chunk() -> None:
    prompts = read_prompts(" a  lake ", 12)
    assert [prompts.at(chunk) for chunk in (0, 1, 99)] == ["a lake"] * 3
    with pytest.raises(ValueError, match="chunk: want 0 or more, got -1"):
        prompts.at(-1)


@pytest.mark.parametrize(
    ("unit", "second", "first_chunk"), [("chunks", 4, 4), ("frames", 25, 3), ("frames", 24, 2), ("frames", 1, 1)]
)
def test_a_file_switches_prompts_at_chunks(tmp_path: Path, unit: str, second: int, first_chunk: int) -> None:
    file = tmp_path / "prompts.yaml"
    file.write_text(f"{unit}:\n  0: noon\n  {second}: |\n    night,\n    with ${{lanterns}}\n")
    prompts = read_prompts(str(file), 12)
    assert prompts.at(first_chunk - 1) == "noon"
    assert prompts.at(first_chunk) == prompts.at(first_chunk + 7) == "night, with ${lanterns}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("chunks: {1: a}", "first one at 0, got 1"),
        ("frames: {5: a}", "first one at 0, got 5"),
        ("chunks: {}", "first one at 0, got none"),
        ("0: a", "want `chunks:` or `frames:` alone .* got the keys"),
        ("chunks: {0: a}\nframes: {0: b}", "alone"),
        ("- a\n- b", "got a list"),
        ("chunks: a", "want a mapping under `chunks:`"),
        ("chunks: {0: 5}", "want an index and its text .* got 0: 5"),
        ("chunks: {zero: a}", "got 'zero': 'a'"),
        ("chunks: {true: a}", "got True"),
        ("chunks: {0: a, -2: b}", "got -2"),
        ("chunks: {0: a, 0: b}", "not YAML that can be read: the key 0 is there twice"),
        ("chunks: {0: a", "not YAML that can be read"),
        ("frames: {0: a, 14: b, 20: c}", "two texts in one chunk of 12 frames, at frames 14 and 20"),
        ("", "empty"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "prompts.yml"
    file.write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        read_prompts(str(file), 12)
    assert "\n" not in str(error.value)


def test_bytes_and_missing_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(ValueError, match="not YAML"):
        read_prompts(str(tmp_path / "p.yaml"), 12)
    with pytest.raises(ValueError, match="no file"):
        read_prompts(str(tmp_path / "other.yaml"), 12)


def test_setting_a_prompt_changes_no_earlier_chunk_and_no_older_value() -> None:
    encode_texts = Counts()
    old = PromptSource.of(Prompts.of({0: "a", 3: "bb", 9: "ccc"}), encode_texts, negative_text="dull ")
    new = old.set("  dddd", 5)
    assert [old.prompts.at(chunk) for chunk in (2, 3, 5, 9)] == ["a", "bb", "bb", "ccc"]
    assert [new.prompts.at(chunk) for chunk in (2, 3, 5, 9)] == ["a", "bb", "dddd", "dddd"]
    assert Prompts.of(new.prompts.by_chunk()) == new.prompts
    assert encode_texts.asked == [["a", "bb", "ccc", "dull"], ["dddd"]]
    assert torch.equal(new.at(4), old.at(4))
    assert new.at(5)[0, 0] == 4.0
    assert "dddd" not in old.embedded


def test_an_embedding_has_512_tokens_with_zeros_after_the_text() -> None:
    source = PromptSource.of(Prompts.of({0: "abc"}), Counts(), negative_text="")
    made, negative = source.at(0), source.negative()
    assert made.shape == (TOKENS, 4) == (512, 4)
    assert (made[:4] == 3.0).all()
    assert not made[4:].any()
    assert negative is not None
    assert negative.shape == (512, 4)
    assert PromptSource.of(Prompts.of({0: "abc"}), Counts()).negative() is None


def test_embeddings_equal_those_of_the_pipeline(folder: Path) -> None:
    pipeline = pytest.importorskip("diffusers.pipelines.wan.pipeline_wan")
    from transformers import AutoTokenizer, UMT5EncoderModel

    model = UMT5EncoderModel.from_pretrained(folder / "text_encoder").eval()
    own = SimpleNamespace(
        tokenizer=AutoTokenizer.from_pretrained(folder / "tokenizer"),
        text_encoder=model,
        _execution_device=torch.device("cpu"),
    )
    texts = [*TEXTS, "  café &amp; bar\n", "", "x" * 500]
    with torch.no_grad():
        theirs = pipeline.WanPipeline._get_t5_prompt_embeds(own, texts, max_sequence_length=512)
    source = PromptSource.of(Prompts.of(dict(enumerate(texts))), CachedTextEncoder(folder, torch.float32, cache=None))
    ours = torch.stack([source.at(chunk) for chunk in range(len(texts))])
    assert ours.abs().max() > 0.5
    assert torch.allclose(ours, theirs, atol=2e-6)
    assert torch.equal(ours == 0.0, theirs == 0.0)


def test_weights_load_as_transformers_loads_them(folder: Path) -> None:
    from transformers import UMT5EncoderModel

    theirs = UMT5EncoderModel.from_pretrained(folder / "text_encoder", dtype=torch.bfloat16)
    ours = load_encoder(folder / "text_encoder", torch.bfloat16)
    assert {key: t.dtype for key, t in ours.state_dict().items()} == {
        key: t.dtype for key, t in theirs.state_dict().items()
    }
    assert all(torch.equal(t, theirs.state_dict()[key]) for key, t in ours.state_dict().items())
    assert ours.shared.weight is ours.encoder.embed_tokens.weight


def rewritten(folder: Path, to: Path, change: Any) -> Path:
    """A copy of the text encoder whose state dict went through ``change``."""
    to.mkdir()
    (to / "config.json").write_bytes((folder / "text_encoder" / "config.json").read_bytes())
    save_file(change(load_file(folder / "text_encoder" / "model.safetensors")), to / "model.safetensors")
    return to


def test_either_name_of_the_table_will_do(folder: Path, tmp_path: Path) -> None:
    def renamed(state: dict) -> dict:
        table = state.pop("shared.weight")
        return {**state, "encoder.embed_tokens.weight": table}

    both = rewritten(
        folder, tmp_path / "both", lambda s: {**s, "encoder.embed_tokens.weight": s["shared.weight"].clone()}
    )
    plain = load_encoder(folder / "text_encoder", torch.float32)
    for other in (rewritten(folder, tmp_path / "renamed", renamed), both):
        made = load_encoder(other, torch.float32)
        assert torch.equal(made.encoder.embed_tokens.weight, plain.encoder.embed_tokens.weight)
        assert made.shared.weight is made.encoder.embed_tokens.weight


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {**s, "encoder.embed_tokens.weight": 2.0 * s["shared.weight"]}, "two different tables"),
        (lambda s: {k: v for k, v in s.items() if k != "shared.weight"}, "lacks shared.weight, encoder.embed"),
        (lambda s: {k: v for k, v in s.items() if "wi_0" not in k}, "lacks encoder.block.0.*wi_0"),
        (lambda s: {**s, "lm_head.weight": torch.zeros(2, 2)}, "does not know lm_head.weight"),
        (
            lambda s: {**s, "encoder.final_layer_norm.weight": torch.ones(7)},
            "other shapes of encoder.final_layer_norm.weight",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(folder: Path, tmp_path: Path, change: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_encoder(rewritten(folder, tmp_path / "bad", change), torch.float32)


def test_several_files_are_one_encoder_and_half_a_download_is_refused(folder: Path, tmp_path: Path) -> None:
    state = load_file(folder / "text_encoder" / "model.safetensors")
    parts = tmp_path / "text_encoder"
    parts.mkdir()
    (parts / "config.json").write_bytes((folder / "text_encoder" / "config.json").read_bytes())
    weight_map = {}
    for number, keys in enumerate((list(state)[::2], list(state)[1::2])):
        name = f"model-{number}.safetensors"
        save_file({key: state[key] for key in keys}, parts / name)
        weight_map |= dict.fromkeys(keys, name)
    (parts / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    whole, made = load_encoder(folder / "text_encoder", torch.float32), load_encoder(parts, torch.float32)
    assert all(torch.equal(t, made.state_dict()[key]) for key, t in whole.state_dict().items())
    half = (parts / "model-1.safetensors").read_bytes()
    (parts / "model-1.safetensors").write_bytes(half[: len(half) // 2])
    with pytest.raises(ValueError, match=r"model-1.safetensors is missing or damaged .* download it again"):
        load_encoder(parts, torch.float32)
    (parts / "model-1.safetensors").unlink()
    with pytest.raises(ValueError, match=r"model-1.safetensors is missing or damaged"):
        load_encoder(parts, torch.float32)
    (parts / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(ValueError, match=r"index.json is damaged"):
        load_encoder(parts, torch.float32)
    (parts / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(ValueError, match="want model_type umt5, got t5"):
        load_encoder(parts, torch.float32)
    (parts / "config.json").unlink()
    with pytest.raises(ValueError, match="no configuration of UMT5"):
        load_encoder(parts, torch.float32)


def test_a_prompt_of_too_many_tokens_is_refused_before_weights_are_read(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer").symlink_to(folder / "tokenizer")
    with pytest.raises(ValueError, match=r"want at most 512 tokens, got 612 in 'x{60}…'; shorten it"):
        encode(["x" * 610], tmp_path, TOKENS, torch.float32, "cpu")
    assert len(encode(["x" * 510], folder, TOKENS, torch.float32, "cpu")[0]) == 512


def test_a_broken_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match=r"tokenizer in .* cannot be loaded") as error:
        encode(["a"], tmp_path, TOKENS, torch.float32, "cpu")
    assert "\n" not in str(error.value)


def test_a_second_run_never_imports_the_text_encoder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed = CachedTextEncoder(folder, cache=EmbeddingCache(tmp_path / "cache"))
    prompts = Prompts.of({0: TEXTS[0], 2: TEXTS[1]})
    first = PromptSource.of(prompts, embed, negative_text="dull")
    for name in [name for name in sys.modules if name.split(".")[0] in ("transformers", "tokenizers")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("transformers", "tokenizers"):
        monkeypatch.setitem(sys.modules, name, None)  # an import of it raises ImportError
    monkeypatch.delitem(sys.modules, "diffusion.wan.text_encoder")
    second = PromptSource.of(prompts, embed, negative_text="dull")
    assert first.at(0).dtype == torch.bfloat16
    assert all(torch.equal(first.embedded[text], second.embedded[text]) for text in (*TEXTS, "dull"))
    with pytest.raises(ImportError, match=r"worldwarp\[wan\]"):
        second.set("a text that was never encoded", 4)


def test_the_cache_holds_real_lengths_and_tells_encoders_apart(folder: Path, tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path / "cache")
    (made,) = CachedTextEncoder(folder, cache=cache)([TEXTS[0]])
    (stored,) = (tmp_path / "cache").iterdir()
    assert torch.equal(load_file(stored)["embedding"], made)
    assert made.shape == (len(TEXTS[0].replace(" ", "")) + TEXTS[0].count(" ") + 2, DIM)
    other = tmp_path / "other"
    write_toy_text_encoder(other, DIM, seed=4)
    assert encoder_revision(other) != encoder_revision(folder)
    (another,) = CachedTextEncoder(other, cache=cache)([TEXTS[0]])
    (precise,) = CachedTextEncoder(folder, torch.float32, cache=cache)([TEXTS[0]])
    assert not torch.equal(another, made)
    assert precise.dtype == torch.float32
    assert len(list((tmp_path / "cache").iterdir())) == 3


def test_a_damaged_entry_is_made_again(folder: Path, tmp_path: Path) -> None:
    embed = CachedTextEncoder(folder, cache=EmbeddingCache(tmp_path))
    (made,) = embed([TEXTS[0]])
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:50])
    (again,) = embed([TEXTS[0]])
    assert torch.equal(made, again)
    assert torch.equal(load_file(file)["embedding"], made)


def test_a_cache_that_cannot_be_written_costs_time_alone(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="cannot be written .* WORLDWARP_CACHE"):
        (made,) = CachedTextEncoder(folder, cache=EmbeddingCache(tmp_path / "file" / "cache"))([TEXTS[0]])
    assert made.shape[1] == DIM


def test_large_files_are_told_apart_by_samples(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffusion.wan.embedding_cache.WHOLE", 5000)
    write_toy_text_encoder(tmp_path, DIM, seed=4)
    assert encoder_revision(folder) == encoder_revision(folder) != encoder_revision(tmp_path)


def test_a_folder_without_text_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"want a folder 'text_encoder' .* download"):
        CachedTextEncoder(tmp_path, cache=None)(["a"])


def test_the_cache_is_where_the_system_keeps_such_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("WORLDWARP_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "worldwarp"
    monkeypatch.setenv("WORLDWARP_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    assert EmbeddingCache().folder == tmp_path / "own" / "prompts"
    monkeypatch.delenv("WORLDWARP_CACHE")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_folder() == Path.home() / "Library" / "Caches" / "worldwarp"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert cache_folder() == tmp_path / "local" / "worldwarp" / "Cache"


def test_the_toy_encoder_is_the_same_for_a_seed(folder: Path, tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    write_toy_text_encoder(tmp_path, DIM, seed=3)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert encoder_revision(tmp_path) == encoder_revision(folder)
    one, two = encode([*TEXTS], folder, TOKENS, torch.float32, "cpu")
    assert one.std() > 0.5
    assert not torch.allclose(one[:20], two[:20], atol=0.1)
