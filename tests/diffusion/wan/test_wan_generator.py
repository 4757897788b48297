"""Chunks of a walk through toy models of the real classes: levels, memory, streams, prompts, replay."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diffusion.condition import Condition, Prior
from diffusion.generator import Made
from diffusion.wan.denoiser import WanDenoiser
from diffusion.wan.generator import Parts, WanGenerator, WanMemory, over_seen
from diffusion.wan.lines import LINES
from diffusion.wan.memory import LatentPolicy
from diffusion.wan.settings import WanSettings
from diffusion.wan.tiny import TinyDecoder
from diffusion.wan.toy import make_toy
from diffusion.wan.vae import StreamingVAE
from geometry.camera import Camera
from geometry.frame import Chunk, Frame, Guide
from tests.helpers import cameras_along, guide_of, prior_of, random_rgb

SIZE = (32, 64)


@dataclass
class _Prompts:
    """A prompt for each chunk by the index of its first, and a negative one."""

    texts: dict[int, Tensor]

    def at(self, chunk: int) -> Tensor:
        return self.texts[max(start for start in self.texts if start <= chunk)].clone()

    def negative(self) -> Tensor:
        return torch.zeros(512, 32)


@pytest.fixture
def generator(transformer: Callable[..., Any], vae: Callable[..., Any], text: Tensor) -> Callable[..., WanGenerator]:
    """Makes toy generators of a line."""

    def make(name: str, texts: dict[int, Tensor] | None = None, **settings: Any) -> WanGenerator:
        line = LINES[name]
        recipe = WanSettings(**{"steps": 2, **settings}).of(line)
        model = transformer(num_layers=2, in_channels=line.in_channels, out_channels=line.latent_channels)
        denoiser = WanDenoiser(model, recipe.guidance, whole_timesteps=not line.warped)
        parts = Parts(denoiser, StreamingVAE(vae(line.vae)), _Prompts(texts or {0: text[0]}))
        return WanGenerator.of(parts, recipe)

    return make


def _camera(frames: int, first: float = 0.0) -> Camera:
    pose = torch.eye(4).repeat(frames, 1, 1)
    pose[:, 0, 3] = first + 0.1 * torch.arange(frames)
    return Camera.from_fov(60.0, SIZE, pose)


def _photo() -> Chunk:
    rgb = torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(3))
    one = torch.ones(1, 1, *SIZE)
    return Chunk(Frame(rgb, 2.0 * one, one > 0, one < 0, _camera(1)), 0, observed=True, confidence=one)


def _condition(frames: int, index: int) -> Condition:
    rgb = torch.rand(frames, 3, *SIZE, generator=torch.Generator().manual_seed(10 + index))
    one = torch.ones(frames, 1, *SIZE)
    coverage = one.clone()
    coverage[..., 32:] = 0.0
    guide = Guide(rgb * coverage, one, coverage, coverage, 0.0 * one, _camera(frames, 1.2 * index))
    return Condition(guide, Prior(rgb, one, 1.0 - coverage, rgb, one, one < 0))


def _finished(made: Made, condition: Condition, index: int) -> Chunk:
    """What the loop stores: 8-bit frames."""
    one = torch.ones(len(made.rgb), 1, *SIZE)
    rgb = (255.0 * made.rgb).round() / 255.0
    return Chunk(Frame(rgb, one, one > 0, one < 0, condition.guide.camera), index, observed=False, confidence=one)


def _walk(
    generator: WanGenerator, lengths: list[int], sigma: float | None = None
) -> tuple[list[tuple[Chunk, dict[str, Tensor]]], list[WanMemory]]:
    """Chunks with what is stored of them, and the memory after each; ``sigma``: at all pixels, else holes are 1."""
    stored: list[tuple[Chunk, dict[str, Tensor]]] = [(_photo(), {})]
    memories, rng = [generator.start(_photo())], torch.Generator().manual_seed(5)
    for index, length in enumerate(lengths, 1):
        condition = _condition(length, index)
        level = 1.0 - condition.guide.coverage if sigma is None else torch.full_like(condition.guide.coverage, sigma)
        made = generator.make(condition, level, memories[-1], rng)
        chunk = _finished(made, condition, index)
        stored.append((chunk, made.carried))
        memories.append(generator.remember(chunk, made, memories[-1]))
    return stored, memories


def _assert_same(a: Any, b: Any) -> None:
    """Every tensor of two memories is equal to the bit."""
    if isinstance(a, Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            _assert_same(x, y)
    elif hasattr(a, "__dataclass_fields__"):
        for name in a.__dataclass_fields__:
            _assert_same(getattr(a, name), getattr(b, name))
    else:
        assert a == b


CASES = [
    pytest.param("self-forcing", {"chunk": 2}, id="causal"),
    pytest.param("causal-forcing-frame", {"memory": LatentPolicy(sink=1, recent=1, nearest=1)}, id="nearest"),
    pytest.param("longlive", {"chunk": 1, "memory": LatentPolicy(recent=1, context_noise=0.1)}, id="noised"),
    pytest.param("inspatio", {"chunk": 1}, id="reference"),
    pytest.param("self-forcing", {"chunk": 1, "guide_history": "generated"}, id="generated"),
    pytest.param("inspatio", {"chunk": 1, "guide_history": "generated"}, id="reference-generated"),
    pytest.param("st-diff", {"chunk": 1, "guidance": 1.0}, id="overlap"),
    pytest.param("ti2v", {"chunk": 1}, id="vae-2.2-guided"),
]


@pytest.mark.parametrize(("line", "settings"), CASES)
def test_a_walk_is_replayed_from_what_is_stored_to_the_bit(
    generator: Callable[..., WanGenerator], line: str, settings: dict[str, Any], text: Tensor
) -> None:
    texts = {0: text[0], 2: 0.5 * text[0]}  # the prompt changes before the second chunk
    one = generator(line, texts, **settings)
    frames = one.cadence.frames
    stored, memories = _walk(one, [frames - 1, frames])
    assert [len(chunk.frames) for chunk, _ in stored] == [1, frames - 1, frames]
    for chunk, _ in stored:
        assert chunk.frames.rgb.isfinite().all()
        assert 0.0 <= chunk.frames.rgb.min() <= chunk.frames.rgb.max() <= 1.0
    _assert_same(generator(line, texts, **settings).rebuild(iter(stored)), memories[-1])


def test_a_guide_is_encoded_after_the_guides_before_it_or_after_what_was_made_of_them(
    generator: Callable[..., WanGenerator],
) -> None:
    own, generated = (
        generator("causal-forcing-frame", guide_history=history, mode="uniform") for history in (None, "generated")
    )
    (stored, memories), (others, remembered) = _walk(own, [4]), _walk(generated, [4])
    assert torch.equal(stored[1][1]["latents"], others[1][1]["latents"])  # the first guide comes after the photo
    _assert_same(memories[-1].bank, remembered[-1].bank)
    vae, first = own.parts.vae, stored[1][1]["latents"].float()
    photo, encoder = vae.encode(_photo().frames.rgb)
    frames, _ = vae.decode(first, vae.decode(photo.bfloat16().float())[1])
    shown = _condition(4, 1).prior.rgb.mul(255.0).round() / 255.0
    for memory, past in ((memories[-1], shown), (remembered[-1], frames)):
        assert memory.streams is not None
        _assert_same(memory.streams.encoder, vae.encode(past, encoder)[1])
    assert stored[1][1].keys() == {"latents", "guide"}
    assert others[1][1].keys() == {"latents"}
    condition, sure = _condition(4, 2), torch.zeros(4, 1, *SIZE)
    kept = [generator("causal-forcing-frame", guide_history=h).make(condition, sure, m[-1], torch.Generator()).carried
            for h, m in (("own", memories), ("generated", remembered))]  # fmt: skip
    after = remembered[-1].streams
    assert after is not None
    shown = condition.prior.rgb.mul(255.0).round() / 255.0
    assert torch.equal(kept[1]["latents"], vae.encode(shown, after.encoder)[0].bfloat16())  # level 0 keeps the guide
    assert not torch.equal(kept[0]["latents"], kept[1]["latents"])


@pytest.mark.parametrize(
    ("line", "settings"),
    [
        ("causal-forcing-frame", {}),
        ("causal-forcing-frame", {"guide_history": "generated"}),
        ("inspatio", {"chunk": 1}),
        ("st-diff", {"chunk": 1}),
    ],
)
def test_frames_of_another_generator_are_encoded_for_the_memory(
    generator: Callable[..., WanGenerator], line: str, settings: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    one, condition = generator(line, guidance=1.0, **settings), _condition(7, 1)
    foreign = _finished(Made(condition.prior.rgb, None, None), condition, 1)  # 7 frames, where this one makes 4
    memory = one.rebuild([(_photo(), {}), (foreign, {})])
    assert ("1 chunks of this world have no latents" in caplog.text) == (line != "st-diff")
    assert memory.chunks == 2
    next_one = _condition(4, 2)
    made = one.make(next_one, torch.ones(4, 1, *SIZE), memory, torch.Generator().manual_seed(4))
    own = _finished(made, next_one, 2)
    stored = [(_photo(), {}), (foreign, {"keys": torch.zeros(2)}), (own, made.carried)]
    _assert_same(one.rebuild(stored), one.remember(own, made, memory))
    if memory.streams is None:
        return
    assert (memory.latents, memory.streams.encoder.latents, memory.streams.decoder.latents) == (3, 3, 3)
    _, state = one.parts.vae.encode(_photo().frames.rgb)
    rgb = foreign.frames.rgb
    latents, state = one.parts.vae.encode(torch.cat([rgb, rgb[-1:]]), state)  # the last frame fills the chunk up
    remembered = memory.seen[-1] if memory.bank is None else torch.stack([f.latent for f in memory.bank.frames[1:]])
    assert torch.equal(remembered, latents.bfloat16().float()[-len(remembered) :])
    _assert_same(memory.streams.encoder, state)


def test_a_later_chunk_changes_nothing_in_an_older_memory(generator: Callable[..., WanGenerator]) -> None:
    one = generator("longlive", chunk=1)
    _, memories = _walk(one, [4])
    before = deepcopy(memories[-1])
    condition = _condition(4, 2)
    made = one.make(condition, torch.ones(4, 1, *SIZE), memories[-1], torch.Generator().manual_seed(1))
    after = one.remember(_finished(made, condition, 2), made, memories[-1])
    assert after.chunks == memories[-1].chunks + 1
    _assert_same(memories[-1], before)
    again = one.make(condition, torch.ones(4, 1, *SIZE), memories[-1], torch.Generator().manual_seed(1))
    assert torch.equal(again.rgb, made.rgb)


@pytest.mark.parametrize(("line", "settings"), [("longlive", {"chunk": 1}), ("st-diff", {"chunk": 1, "guidance": 1.0})])
def test_at_level_zero_a_chunk_is_its_guide_through_the_vae(
    generator: Callable[..., WanGenerator], line: str, settings: dict[str, Any]
) -> None:
    one, condition = generator(line, **settings), _condition(4, 1)
    memory = one.start(_photo())
    made = one.make(condition, torch.zeros(4, 1, *SIZE), memory, torch.Generator().manual_seed(2))
    vae = one.parts.vae
    photo, encoder = vae.encode(_photo().frames.rgb)
    _, decoder = vae.decode(photo.bfloat16().float() if line == "longlive" else photo)
    guide, _ = vae.encode((255.0 * condition.prior.rgb).round() / 255.0, encoder)
    assert torch.equal(made.rgb, vae.decode(guide.bfloat16().float(), decoder)[0])


def test_unknown_pixels_take_nothing_from_the_guide(generator: Callable[..., WanGenerator]) -> None:
    one = generator("causal-forcing-frame")
    memory, condition = one.start(_photo()), _condition(4, 1)
    other = replace(condition, prior=replace(condition.prior, rgb=1.0 - condition.prior.rgb))
    made = [
        one.make(c, torch.ones(4, 1, *SIZE), memory, torch.Generator().manual_seed(2)).rgb for c in (condition, other)
    ]
    assert torch.equal(*made)


def test_inspatio_reads_what_the_world_shows_and_which_of_it_is_known(
    generator: Callable[..., WanGenerator], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, condition, seen = generator("inspatio", chunk=1), _condition(4, 1), []
    predict = WanDenoiser.predict
    monkeypatch.setattr(WanDenoiser, "predict", lambda self, *a: seen.append(a) or predict(self, *a))
    one.make(condition, torch.ones(4, 1, *SIZE), one.start(_photo()), torch.Generator().manual_seed(2))
    _, _, _, context, extra = seen[0]
    assert extra.shape == (1, 20, 4, 8)
    assert extra[0, :4, :, :3].min() == 1.0
    assert extra[0, :4, :, 5:].max() == 0.0
    vae = one.parts.vae
    _, encoder = vae.encode(_photo().frames.rgb)
    shown = torch.where(condition.guide.covered, condition.guide.rgb, 0.0)
    assert torch.equal(extra[:, 4:], vae.encode((255.0 * shown).round() / 255.0, encoder)[0])
    assert context.positions == (0,)
    assert context.at == (2,)


def test_another_prompt_makes_the_memory_anew_under_it(generator: Callable[..., WanGenerator], text: Tensor) -> None:
    settings = {"chunk": 1, "memory": LatentPolicy(sink=1, recent=2)}
    switched = generator("longlive", {0: text[0], 2: 0.5 * text[0]}, **settings)
    stored, memories = _walk(switched, [4, 4])
    always = generator("longlive", {0: 0.5 * text[0]}, **settings).rebuild(iter(stored))
    assert memories[-1].bank is not None
    _assert_same(memories[-1].bank, always.bank)
    assert torch.equal(memories[-1].text, always.text)


def test_the_overlap_is_the_last_frames_of_the_world(generator: Callable[..., WanGenerator]) -> None:
    one = generator("st-diff", chunk=1, guidance=1.0)
    stored, memories = _walk(one, [3, 4])
    frames = torch.cat([chunk.frames.rgb for chunk, _ in stored])
    assert [len(memory.overlap) for memory in memories if memory.overlap is not None] == [1, 1, 5]
    assert memories[-1].overlap is not None
    assert torch.equal(memories[-1].overlap, frames[-5:])


def test_cadence_and_capabilities_are_the_line_s(generator: Callable[..., WanGenerator]) -> None:
    student, published = generator("self-forcing"), generator("ti2v", chunk=1)
    assert (student.cadence.frames, student.cadence.size_multiple) == (12, 16)
    assert (published.cadence.frames, published.cadence.size_multiple) == (4, 32)
    assert not student.capabilities.depth
    assert not student.capabilities.wide
    assert generator("st-diff").capabilities.noise.seen == 0.9515
    student.rehearse(2, SIZE)


def test_what_a_line_cannot_do_is_refused(
    generator: Callable[..., WanGenerator], vae: Callable[..., Any], text: Tensor
) -> None:
    one = generator("causal-forcing-frame")
    memory, photo = one.start(_photo()), _photo()
    with pytest.raises(ValueError, match="want 1 to 4 frames, got 5"):
        one.make(_condition(5, 1), torch.ones(5, 1, *SIZE), memory, torch.Generator())
    with pytest.raises(ValueError, match="at least the photo"):
        one.rebuild([])
    parts = (photo.frames.rgb, photo.frames.depth, photo.frames.valid, photo.frames.sky)
    small = Frame(*(part[..., :24, :] for part in parts), camera=replace(photo.frames.camera, size=(24, 64)))
    with pytest.raises(ValueError, match="multiples of 16, got 24x64; take 32x64"):
        one.start(replace(photo, frames=small))
    with pytest.raises(ValueError, match=r"16 channels.*got 48"):
        Parts(one.parts.denoiser, StreamingVAE(vae("2.2")), _Prompts({0: text[0]}))


def test_timesteps_are_read_from_a_command_line_too() -> None:
    for steps in ("1000,500", "1000 500", "[1000, 500]", [1000.0, 500.0], 2):
        levels = WanSettings(steps=steps).of(LINES["longlive"]).levels
        torch.testing.assert_close(levels, torch.tensor([1.0, 2.5 / 3.0, 0.0], dtype=torch.float64))


def test_a_folder_is_planned_without_loading_and_makes_a_chunk(tmp_path: Path) -> None:
    make_toy(tmp_path / "toy", LINES["longlive"])
    one = WanGenerator(tmp_path / "toy", prompt="a square at noon", steps=1, chunk=1, memory=LatentPolicy(recent=2))
    plans = [one.plan(SIZE, frames) for frames in (5, 100)]
    assert [stage.name for stage in plans[1].stages] == ["text", "encode", "denoise", "decode", "remember"]
    kept = [plan.stages[1].parts["keys and values of remembered latents"] for plan in plans]
    assert kept[1] == kept[0] / 2 * 5  # a sink of 3 and 2 recent, against the photo and one chunk
    assert one._loaded is None
    made = one.make(_condition(4, 1), torch.ones(4, 1, *SIZE), one.start(_photo()), torch.Generator().manual_seed(1))
    assert made.rgb.shape == (4, 3, *SIZE)
    again = WanGenerator(tmp_path / "toy", prompt="a square at noon", steps=1, chunk=1)
    assert again.plan(SIZE, 5).stages[0].name == "encode"  # the prompt was encoded before
    with pytest.raises(ValueError, match="taew2_1"):
        WanGenerator(tmp_path / "toy", decoder="tiny")


def test_a_tiny_decoder_decodes_the_same_stream(
    generator: Callable[..., WanGenerator],
) -> None:
    one = generator("causal-forcing-frame")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tiny = TinyDecoder(16, widths=(8, 6, 4, 4)).eval()
    small = WanGenerator.of(replace(one.parts, tiny=tiny), one.recipe)
    stored, memories = _walk(small, [4, 4])
    latents = [carried["latents"].float() for _, carried in stored[1:]]
    photo, _ = one.parts.vae.encode(_photo().frames.rgb)
    frames, _ = tiny.decode(torch.cat([photo.bfloat16().float(), *latents]))
    assert torch.equal(
        torch.cat([(255.0 * f).round() / 255.0 for f in frames[1:, None]]),
        torch.cat([chunk.frames.rgb for chunk, _ in stored[1:]]),
    )
    _assert_same(small.rebuild(iter(stored)), memories[-1])


@pytest.mark.parametrize(
    ("line", "settings", "word"),
    [
        ("longlive", {"mode": "mask"}, "noise mode"),
        ("inspatio", {"mode": "blend"}, "noise mode"),
        ("longlive", {"mode": "none"}, "noise mode"),
        ("st-diff", {"chunk": 20}, "within the 21 latents"),
        ("st-diff", {"overlap": 0}, "overlap"),
        ("longlive", {"memory": LatentPolicy(recent=20)}, "lower memory.recent"),
        ("longlive", {"steps": 0}, "steps"),
        ("longlive", {"steps": "many"}, "want a whole number"),
        ("longlive", {"pooling": "median"}, "pooling"),
        ("longlive", {"guide_history": "made"}, "guide_history: want one of own, generated, got 'made'"),
        ("st-diff", {"guide_history": "own"}, "guide_history: want 'generated' for st-diff"),
    ],
)
def test_settings_that_a_line_cannot_have_are_refused(line: str, settings: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        WanSettings(**settings).of(LINES[line])


def test_what_is_seen_stays_and_generated_colors_begin_at_its_border() -> None:
    covered = torch.arange(48).expand(2, 1, 16, 48) < 20
    covered = torch.stack([covered[0], torch.zeros_like(covered[0])])
    rgb = random_rgb((16, 48), 2)
    guide = guide_of(cameras_along(0.1, 2, (16, 48)), 2.0, rgb, ~covered)
    condition = Condition(guide, prior_of(rgb, guide.depth, (~covered).float()))
    sigma = torch.where(covered, 0.4, 1.0)
    sigma[0, :, :, :4] = 0.7  # covered, but not sure
    made = over_seen(torch.full_like(rgb, 0.25), condition, sigma, 0.4)
    assert torch.equal(made[0, :, :, 4:20], rgb[0, :, :, 4:20])
    assert torch.equal(made[0, :, :, 28:], torch.full((3, 16, 20), 0.25))
    torch.testing.assert_close(made[0, :, :, 20], torch.lerp(rgb[0, :, :, 20], torch.tensor(0.25), 1.0 / 8.0))
    assert (made[0, :, :, :4] != rgb[0, :, :, :4]).any()
    assert torch.equal(made[1], torch.full((3, 16, 48), 0.25))  # nothing is seen
