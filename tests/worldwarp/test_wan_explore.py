"""`generator=wan` through the whole loop, on random models of a few kilobytes: resume, prompts, lines, video."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from diffusion.generator import Cadence
from diffusion.memory_plan import MemoryPlan, Stage
from diffusion.passthrough import PassthroughGenerator
from diffusion.wan.generator import WanGenerator
from diffusion.wan.lines import LINES
from diffusion.wan.toy import make_toy
from scenes.io.video import write_video
from worldwarp import World, explore
from worldwarp.cli import main
from worldwarp.config import compose_config
from worldwarp.needs import MANY_FRAMES
from worldwarp.prepare import prepare
from worldwarp.resume import resume, undo

SIZE = (48, 64)
SETTINGS: Mapping[str, Any] = {
    "path": "left:distance=0.3", "size": SIZE, "detail": 1, "depth": "plane", "prior": "smooth", "viewer": "none",
    "steps": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random model for each way in which the past reaches a chunk."""
    folder = tmp_path_factory.mktemp("models")
    for line in ("self-forcing", "st-diff", "inspatio", "tiny"):
        make_toy(folder / line, LINES[line])
    return folder


def made(out: Path, photo: Path, model: Path, **more: Any) -> World:
    """A world of two chunks; the second one is short."""
    overrides = [f"generator.pretrained={model}", *more.pop("overrides", ())]
    settings = {**SETTINGS, "frames": 18, **more}
    list(explore(image=photo, out=out, generator="wan", overrides=overrides, **settings))
    return World.load(out)


@pytest.mark.parametrize(
    ("line", "overrides"),
    [
        ("self-forcing", ["generator.memory.context_noise=0.1"]),
        ("st-diff", ["generator.chunk=3", "generator.guidance=2.0"]),
        ("inspatio", ["prior=copy"]),
        ("self-forcing", ["generator.guide_history=generated"]),
    ],
)
def test_a_world_that_was_interrupted_continues_to_the_same_bits(
    tmp_path: Path, photo: Path, models: Path, line: str, overrides: list[str]
) -> None:
    whole = made(tmp_path / "whole", photo, models / line, overrides=overrides)
    assert [record.frames for record in whole.record.chunks] == [1, 12, 5]
    words = [f"generator.pretrained={models / line}", *overrides]
    next(explore(image=photo, out=tmp_path / "parts", generator="wan", overrides=words, **SETTINGS, frames=18))
    list(explore(resume=tmp_path / "parts", viewer="none"))
    frames, again = whole.frames(), World.load(tmp_path / "parts").frames()
    assert torch.equal(frames.rgb, again.rgb)
    assert torch.equal(frames.depth, again.depth)
    assert frames.rgb[1:].std() > 0.01
    carried = whole.record.carried(1)
    if line == "st-diff":  # remembers frames
        assert carried == {}
    else:
        assert carried["latents"].shape == (3, 16, SIZE[0] // 8, SIZE[1] // 8)
        assert carried["latents"].dtype == torch.bfloat16


def test_the_same_seed_gives_the_same_frames_and_another_prompt_others(
    tmp_path: Path, photo: Path, models: Path
) -> None:
    a, b, c = (
        made(tmp_path / name, photo, models / "self-forcing", frames=13, prompt=prompt).frames().rgb
        for name, prompt in (("a", "a lake"), ("b", "a lake"), ("c", "a busy street at night"))
    )
    assert torch.equal(a, b)
    assert not torch.equal(a[1:], c[1:])


def test_a_prompt_changes_at_a_chunk_and_is_rebuilt_with_it(tmp_path: Path, photo: Path, models: Path) -> None:
    file = tmp_path / "prompts.yaml"
    file.write_text("chunks: {0: a lake, 2: a busy street}")
    scheduled = made(tmp_path / "scheduled", photo, models / "self-forcing", prompt=str(file), frames=37)
    file.unlink()  # the world has the texts
    assert scheduled.record.config["prompt"] == {"0": "a lake", "2": "a busy street"}
    words = [f"generator.pretrained={models / 'self-forcing'}"]
    live = tmp_path / "live"
    next(
        explore(image=photo, out=live, generator="wan", overrides=words, **{**SETTINGS, "frames": 37}, prompt="a lake")
    )
    next(explore(resume=live, prompt="a busy street", viewer="none"))
    list(explore(resume=live, viewer="none"))  # rebuilds a memory that was made under two prompts
    assert torch.equal(World.load(live).frames().rgb, scheduled.frames().rgb)


def test_a_captioner_describes_the_photo_once(tmp_path: Path, photo: Path, models: Path) -> None:
    class Sees:
        def caption(self, rgb: torch.Tensor) -> str:
            return f"a picture of {rgb.shape[-1]} columns"

    generator = WanGenerator(models / "self-forcing", steps=2, captioner=Sees())
    list(explore(image=photo, out=tmp_path / "w", generator=generator, **{**SETTINGS, "frames": 13, "steps": None}))
    assert World.load(tmp_path / "w").record.config["prompt"] == {"0": "a picture of 64 columns"}


def test_a_clip_is_streamed_through_the_model_from_its_level(tmp_path: Path, models: Path) -> None:
    rows = torch.linspace(0.1, 0.9, SIZE[0])[:, None].expand(SIZE)
    write_video(tmp_path / "clip.mp4", [torch.stack([rows, rows.roll(k, 0), rows.flip(0)]) for k in range(13)])
    words = [f"generator.pretrained={models / 'self-forcing'}"]
    settings = {**SETTINGS, "path": None}
    near, far = (
        next(explore(video=tmp_path / "clip.mp4", video_level=level, generator="wan", overrides=words, **settings))
        for level in (0.0, 1.0)
    )
    assert len(near.chunk.frames) == 12
    assert not torch.equal(near.chunk.frames.rgb, far.chunk.frames.rgb)


def test_what_the_model_cannot_take_is_refused_in_one_sentence(
    tmp_path: Path, photo: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = models / "self-forcing"
    words = ["explore", str(photo), "generator=wan", "viewer=none", "depth=plane", f"out={tmp_path / 'w'}"]
    for more, message in (
        ([f"generator.pretrained={model}", "generator.line=inspatio"], "line: "),
        ([f"generator.pretrained={tmp_path / 'none'}"], "pretrained: "),
        ([f"generator.pretrained={model}", "generator.guidance=abc"], "generator.guidance: want a number"),
        ([f"generator.pretrained={model}", "generator.memory.sink=x"], "generator.memory.sink: want a whole number"),
        ([f"generator.pretrained={model}", "generator.attention=flashy", "size=48,64"], "attention: want native or"),
        (
            [f"generator.pretrained={model}", "generator.precision=fp8"],
            "precision: want one of wan, bf16, float32, got",
        ),
        ([f"generator.pretrained={model}", "generator.chunk=40"], "got 40 + 0; lower generator.chunk"),
        ([f"generator.pretrained={model}", "chunk=13"], "chunk: this generator makes at most 12 frames, got 13"),
        ([f"generator.pretrained={model}", "steps=500 1000"], "steps: want falling timesteps in 0..1000"),
        (["generator=retouch", "steps=1000 500"], "steps: want a whole number from 1 to 64, got '1000 500'"),
        (["generator=retouch", "chunk=65"], "chunk: this generator makes at most 64 frames, got 65"),
        ([f"generator.pretrained={model}", "size=64x96", "prompt=" + 600 * "x"], "prompt: want at most 512 tokens"),
    ):
        assert main([*words, *more]) == 2
        told = capsys.readouterr().err.strip().splitlines()[-1]
        assert message in told
        assert not (tmp_path / "w").exists()


def test_the_small_diffuser_is_in_the_package_and_continues_to_the_same_bits(
    tmp_path: Path, photo: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["explore", str(photo), "left:distance=0.3", "generator=tiny", "viewer=none", "depth=plane", "detail=1"]
    words += ["size=48x64", "steps=2"]
    assert main([*words, "frames=5", f"out={tmp_path / 'packaged'}"]) == 0
    assert "model    tiny, license of the weights: Apache-2.0" in capsys.readouterr().out
    frames = World.load(tmp_path / "packaged").frames().rgb
    assert len(frames) == 5
    near = torch.nn.functional.avg_pool2d(frames, 16)
    assert (near[1:] - near[:1]).abs().mean() < 0.15  # on the average of a token even a photo of noise is gray
    model = f"generator.pretrained={models / 'tiny'}"
    assert main([*words, "frames=14", model, "prompt=a lake", f"out={tmp_path / 'none'}"]) == 2
    assert "this generator takes no text" in capsys.readouterr().err
    settings = {**SETTINGS, "prior": "copy", "frames": 14}
    list(explore(image=photo, out=tmp_path / "whole", generator="tiny", overrides=[model], **settings))
    next(explore(image=photo, out=tmp_path / "parts", generator="tiny", overrides=[model], **settings))
    list(explore(resume=tmp_path / "parts", viewer="none"))
    whole, parts = World.load(tmp_path / "whole"), World.load(tmp_path / "parts")
    assert [record.frames for record in whole.record.chunks] == [1, 8, 5]
    assert torch.equal(whole.frames().rgb, parts.frames().rgb)
    assert whole.record.carried(1)["latents"].shape == (2, 16, 6, 8)


def test_a_model_that_is_not_whole_is_refused_by_what_is_wrong_with_it(
    tmp_path: Path, photo: Path, models: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(repository: str, patterns: object) -> Path:
        raise ValueError(f"{repository}: want {patterns} from Hugging Face, got no connection")

    monkeypatch.setattr("diffusion.wan.load.download", unreachable)
    words = [
        "explore",
        str(photo),
        "generator=wan",
        "viewer=none",
        "depth=plane",
        f"out={tmp_path / 'w'}",
        "size=48x64",
    ]

    def refused(model: Path | str) -> str:
        assert main([*words, f"generator.pretrained={model}"]) == 2
        assert not (tmp_path / "w").exists()
        return capsys.readouterr().err.strip().splitlines()[-1]

    def copy(name: str, without: str) -> Path:
        shutil.copytree(models / "self-forcing", tmp_path / name, ignore=shutil.ignore_patterns(without))
        return tmp_path / name

    told = refused(copy("half", "vae"))
    assert f"pretrained: want vae in {tmp_path / 'half'}, got none; nor from its base: Wan-AI/" in told
    assert "got no connection" in told
    make_toy(tmp_path / "larger", LINES["ti2v"])
    other = copy("other", "vae")
    shutil.copytree(tmp_path / "larger" / "vae", other / "vae")
    assert "self-forcing wants latents of 16 channels, got a VAE of 48; take the VAE that belongs" in refused(other)
    pickled = copy("pickled", "nothing") / "transformer"
    (pickled / "diffusion_pytorch_model.safetensors").rename(pickled / "model.bin")
    assert f"run `worldwarp models convert {pickled / 'model.bin'}` once" in refused(pickled.parent)
    odd = copy("odd", "nothing") / "transformer" / "config.json"
    odd.write_text(odd.read_text().replace('"num_layers": 3', '"num_layers": "three"'))
    assert "got one it cannot be made of ('str' object" in refused(odd.parents[1])


def test_steps_are_timesteps_and_a_chunk_is_as_long_as_the_model_makes_it(
    photo: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = MemoryPlan((Stage("denoise", {"process": 0}),))  # 20 latents take long to measure
    monkeypatch.setattr(WanGenerator, "plan", lambda *_: nothing)
    words = ["generator=wan", f"generator.pretrained={models / 'st-diff'}", f"image={photo}", "frames=81", "chunk=80"]
    words += ["steps=1000 750.5", "depth=plane", "detail=1", "size=48x64", "generator.chunk=20", "generator.overlap=1"]
    session = prepare(compose_config("explore", words))
    assert [len(cameras) for cameras in session.remaining] == [80]
    generator = session.components.generator
    assert isinstance(generator, WanGenerator)
    listed = WanGenerator(models / "st-diff", steps=[1000.0, 750.5], chunk=20, overlap=1)
    assert torch.equal(generator.recipe.levels, listed.recipe.levels)
    assert len(generator.recipe.levels) == 3


def test_license_and_memory_by_stage_are_told_once_a_run_from_any_folder(
    tmp_path: Path, photo: Path, models: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "w"
    words = ["explore", str(photo), "left:distance=0.1", "generator=wan", "viewer=none", "depth=plane", f"out={out}"]
    words += ["generator.pretrained=self-forcing", "size=48,64", "frames=3", "steps=1"]
    again = ["explore", str(out), "left:distance=0.1", "frames=2", "viewer=none"]
    for folder, command in ((models, words), (tmp_path, again)):
        monkeypatch.chdir(folder)
        assert main(command) == 0
        told = capsys.readouterr().out.splitlines()
        terms = [line for line in told if line.startswith("model ")]
        assert terms == ["model    self-forcing, license of the weights: Apache-2.0; commercial use: allowed"]
        assert any(line.endswith("generator WanGenerator, noise confidence, device cpu") for line in told)
        (memory,) = (line for line in told if line.startswith("memory "))
        assert re.search(r"encode \d+ MiB, denoise \d+ MiB, decode \d+ MiB, remember \d+ MiB$", memory)


def test_a_world_goes_on_under_a_file_of_prompts_and_a_prompt_that_is_refused_changes_nothing(
    tmp_path: Path, photo: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made(tmp_path / "w", photo, models / "self-forcing", frames=2, prompt="a lake")
    before = (tmp_path / "w" / "world.json").read_bytes()
    words = ["explore", str(tmp_path / "w"), "left:distance=0.1", "frames=2", "viewer=none"]
    assert main([*words, "prompt=" + 600 * "x"]) == 2
    assert "prompt: want at most 512 tokens" in capsys.readouterr().err
    assert (tmp_path / "w" / "world.json").read_bytes() == before
    (tmp_path / "later.yaml").write_text("chunks: {0: a road, 1: a busy street, 3: rain}")
    assert main([*words, f"prompt={tmp_path / 'later.yaml'}"]) == 0
    prompts = World.load(tmp_path / "w").record.config["prompt"]
    assert prompts == {"0": "a lake", "2": "a busy street", "3": "rain"}


def test_a_world_of_another_generator_goes_on_with_a_video_model(
    tmp_path: Path, photo: Path, models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def went_on(out: Path, stops: int) -> torch.Tensor:
        start = {**SETTINGS, "steps": None, "frames": 9}
        list(explore(image=photo, out=out, generator="passthrough", **start))
        first, path = WanGenerator(models / "self-forcing", steps=2), {"path": "right:distance=0.2", "frames": 25}
        for _ in range(stops):
            next(explore(resume=out, generator=first, viewer="none", **path))
            path = {}
        list(explore(resume=out, generator=first, viewer="none", **path))
        return World.load(out).frames().rgb

    at_once, with_a_stop = went_on(tmp_path / "a", 0), went_on(tmp_path / "b", 1)
    assert len(at_once) > 20
    assert torch.equal(at_once, with_a_stop)
    assert "have no latents of this model: their frames were encoded again" in caplog.text


def test_undo_keeps_the_loaded_models(tmp_path: Path, photo: Path, models: Path) -> None:
    words = ["generator=wan", f"generator.pretrained={models / 'self-forcing'}", f"image={photo}", "frames=14"]
    words += [f"{key}={value}" for key, value in SETTINGS.items() if key != "size"]
    session = prepare(compose_config("explore", [*words, "size=48,64"]))
    session.store_in(tmp_path / "w")
    first, second = (step.chunk.frames for step in session.steps())
    generator = session.components.generator
    undo(session)
    assert session.components.generator is generator
    assert session.state.frames == 13
    (again,) = session.steps([second.camera])
    assert len(first) == 12
    assert torch.equal(again.chunk.frames.rgb, second.rgb)


@pytest.mark.parametrize("size", [None, 112])
def test_a_size_that_follows_from_the_photo_is_one_that_the_model_takes(photo: Path, size: int | None) -> None:
    class Coarse(PassthroughGenerator):
        cadence = Cadence(size_multiple=32, pixels=20_000)

    words = [f"image={photo}", "depth=plane", "detail=1", "prior=smooth", "cache.refine_steps=0", "frames=2"]
    words += [] if size is None else [f"size={size}"]
    session = prepare(compose_config("explore", words), given={"generator": Coarse()})
    assert all(side % 32 == 0 for side in session.settings.size)


def test_a_walk_by_keys_is_planned_as_a_long_one_and_says_the_license_when_it_goes_on(
    tmp_path: Path, photo: Path
) -> None:
    planned: list[int] = []
    told: list[str] = []

    class Counts(PassthroughGenerator):
        terms = "of our own"

        def plan(self, size: tuple[int, int], frames: int) -> MemoryPlan:
            planned.append(frames)
            return super().plan(size, frames)

    words = [f"image={photo}", "depth=plane", "detail=1", "size=48,64", "path=keys"]
    session = prepare(compose_config("explore", words), given={"generator": Counts()}, tell=told.append)
    session.store_in(tmp_path / "w")
    assert session.world is not None  # which waits until the photo is stored
    assert told[-1] == "model    of our own"
    resume(tmp_path / "w", given={"generator": Counts()}, tell=told.append)
    assert told[-1] == told[-2] == "model    of our own"
    assert set(planned) == {MANY_FRAMES}


def test_a_vae_whose_configuration_leaves_everything_out_is_refused(
    tmp_path: Path, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_toy(tmp_path / "toy", LINES["self-forcing"])
    (tmp_path / "toy" / "vae" / "config.json").write_text("{}")
    words = ["explore", str(photo), "generator=wan", "viewer=none", "depth=plane", f"out={tmp_path / 'w'}"]
    assert main([*words, f"generator.pretrained={tmp_path / 'toy'}", "size=48,64"]) == 2
    assert "tensors of a AutoencoderKLWan, got" in capsys.readouterr().err
