"""The stages of the small video diffuser at toy size: clips to a VAE, to latents, to a model that generates."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from diffusion.flow import add_noise, step, velocity_to_clean
from diffusion.wan.denoiser import WanDenoiser
from diffusion.wan.fresh import fresh_transformer, read_vae, write_part
from diffusion.wan.lines import LINES
from diffusion.wan.load import find_checkpoint, load_transformer
from diffusion.wan.masked import MaskedAttention, block_causal
from diffusion.wan.memory import LatentBank, LatentPolicy
from diffusion.wan.patch_vae import PatchVAE
from diffusion.wan.prompts import NoPrompts
from diffusion.wan.toy import make_toy
from geometry.camera import Camera
from scenes.io.png import to_bytes
from tests.helpers import cameras_along, pillar_before_wall, write_clip
from worldwarp.training.accelerated import LOG, Pace, train
from worldwarp.training.wan_diffuser import DiffuserStage, on_the_way
from worldwarp.training.wan_latents import encoded, record_latents
from worldwarp.training.wan_vae import VaeStage, train_vae

LINE = replace(LINES["tiny"], trained_span=3)
SMALL_VAE = {"width": 16, "blocks": 1, "fine_width": 8, "fine_blocks": 1}
SMALL: dict[str, Any] = {"num_attention_heads": 2, "attention_head_dim": 12, "ffn_dim": 32, "num_layers": 2}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one clip of 9 frames, to train on and held out."""
    cameras = cameras_along(0.1, 9, (32, 48))
    frames = [pillar_before_wall(cameras[k : k + 1])[0] for k in range(9)]
    rgb = torch.cat([to_bytes(frame.rgb) for frame in frames]).numpy()
    depth = torch.cat([frame.depth for frame in frames]).numpy()
    folder = tmp_path_factory.mktemp("clips")
    write_clip(folder, rgb, 1.0 / depth, cameras)
    return folder


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random VAE."""
    torch.manual_seed(0)
    model, folder = PatchVAE(**SMALL_VAE), tmp_path_factory.mktemp("random")
    write_part(folder / "vae", model, model.config, model.state_dict())
    return folder


@pytest.fixture(scope="module")
def latents(clips: Path, vae: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two takes of the clip."""
    folder = tmp_path_factory.mktemp("latents")
    assert record_latents(clips, vae, folder, takes=2) == 2  # in both splits
    return folder


def test_the_autoencoder_starts_at_components_and_learns_to_correct_them(clips: Path, tmp_path: Path) -> None:
    def make() -> VaeStage:
        return VaeStage(clips, frames=9, crop=32, **SMALL_VAE)

    start = make()
    vae, (clip,) = start.network.vae, start.clips
    latents = vae.encoded(clip.float()[None] / 127.5 - 1.0, first=True)
    assert latents.std() == pytest.approx(1.0, abs=0.3)
    # No other map to as many numbers and back is closer to the clip in the mean square, least of all a random one.
    with torch.no_grad():
        squares = clip[1:5].float().unflatten(2, (-1, 8)).unflatten(4, (-1, 8)).permute(2, 4, 0, 1, 3, 5).flatten(2)
        rows = squares.flatten(0, 1) / 127.5 - 1.0
        left = torch.linalg.svdvals(rows - rows.mean(0))[16:].square().sum() / rows.numel()
        made, _ = vae.decoded(latents[:, :2], first=True)
        off = (made[0, 1:] - (clip[1:5].float() / 127.5 - 1.0)).square().mean()
    assert float(left) <= float(off)
    train(make, Pace(100, 1, 5e-3, warmup=5, ema=0.5), tmp_path)
    logged = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert logged[-2]["loss"] < 0.85 * logged[0]["loss"]
    assert logged[-1]["validation"]["psnr_db"] > 20.0
    model = read_vae(tmp_path / "model")
    rgb = clip.float() / 255.0
    torch.testing.assert_close(encoded(model, rgb), latents[0], rtol=5e-3, atol=5e-3)  # as before, in float16
    with pytest.raises(ValueError, match="want clips of 9 frames of 96 pixels or more"):
        train_vae(clips, tmp_path / "other")


def test_latents_are_those_of_the_clip_and_of_what_the_cache_shows_of_it(latents: Path, vae: Path, clips: Path) -> None:
    rows = load_file(latents / "clip.safetensors")
    assert {name: tuple(value.shape) for name, value in rows.items()} == {
        "clean": (2, 3, 16, 4, 6),
        "guide": (2, 3, 16, 4, 6),
        "known": (2, 3, 4, 4, 6),
        "hole": (2, 3, 1, 2, 3),
        "copied": (2,),
    }
    rgb = load_file(clips / "clip.safetensors")["rgb"].float() / 255.0
    for take, seen in enumerate((rgb, rgb.flip(-1))):
        clean = encoded(read_vae(vae), seen)
        torch.testing.assert_close(rows["clean"][take].float(), clean, rtol=2e-3, atol=2e-3)
    # The photo is known everywhere, and what the pillar hid in it is not.
    assert (rows["known"][:, 0] == 255).all()
    assert not rows["hole"][:, 0].any()
    assert rows["hole"][:, 1:].any()
    torch.testing.assert_close(rows["guide"][:, 0], rows["clean"][:, 0])
    assert not torch.equal(rows["guide"][:, 1:], rows["clean"][:, 1:])


def test_the_state_of_a_sample_is_what_a_perfect_sampler_holds() -> None:
    clean, guide, noise = torch.randn(3, 2, 16, 4, 6, generator=torch.Generator().manual_seed(0)).unbind()
    start = torch.tensor([0.4, 1.0]).reshape(2, 1, 1, 1).expand(2, 1, 4, 6)
    now = torch.full((2, 1, 1, 1), 1.0)
    state, level = on_the_way(clean, guide, start, now, noise)
    torch.testing.assert_close(state, add_noise(guide, noise, start))  # before it moves
    assert torch.equal(level, start)
    for row in (0.7, 0.3, 0.1):  # .4 waits at .7
        then = torch.minimum(start, torch.tensor(row))
        state, level = step(state, clean, level, then), then
        expected, told = on_the_way(clean, guide, start, torch.full_like(now, row), noise)
        assert torch.equal(told, level)
        torch.testing.assert_close(state, expected, rtol=1e-5, atol=1e-6)


def test_samples_have_a_clean_photo_levels_by_token_and_a_clean_past_without_a_guide(latents: Path, vae: Path) -> None:
    stage = DiffuserStage(latents, vae, LINE, **SMALL)
    kinds = set()
    for number in range(60):
        sample = stage.draw(np.random.default_rng(number))
        state, extra = sample["noisy"].split([16, 20], 1)
        level, sees = sample["level"], sample["sees"]
        clean = level.flatten(1).amax(1) == 0.0
        assert clean[0]
        assert torch.equal(state[clean], sample["clean"][clean])
        assert not extra[clean].any()
        assert torch.equal(level, level[:, :, ::2, ::2].repeat_interleave(2, 2).repeat_interleave(2, 3))
        assert (level <= 1.0).all()
        assert sees[:, 0].all()
        kinds.add((bool(sees.all()), bool(extra.any())))
        if not sees.all():
            assert not sees[0, 1:].any()
    assert kinds == {(True, True), (True, False), (False, True), (False, False)}


def test_the_diffuser_learns_goes_on_to_the_bit_and_is_a_model_that_the_generator_loads(
    latents: Path, vae: Path, tmp_path: Path
) -> None:
    class Interrupted(DiffuserStage):
        def draw(self, rng: np.random.Generator) -> dict[str, Tensor]:
            self.drawn = getattr(self, "drawn", 0) + 1
            if self.drawn == 9:  # in the third step
                raise KeyboardInterrupt
            return super().draw(rng)

    def make() -> DiffuserStage:
        return DiffuserStage(latents, vae, LINE, **SMALL)

    pace = Pace(120, 4, 5e-3, warmup=5, ema=0.5)
    train(make, pace, tmp_path / "whole")
    logged = [json.loads(line) for line in (tmp_path / "whole" / LOG).read_text().splitlines()]
    assert logged[-2]["loss"] < 0.8 * logged[0]["loss"]
    assert all(math.isfinite(value) for value in logged[-1]["validation"].values())
    train(make, replace(pace, steps=3), tmp_path / "once")
    with pytest.raises(KeyboardInterrupt):
        train(
            lambda: Interrupted(latents, vae, LINE, **SMALL),
            replace(pace, steps=3, checkpoint_s=0.0),
            tmp_path / "parts",
        )
    train(make, replace(pace, steps=3), tmp_path / "parts")
    parts, once = (load_file(tmp_path / name / "checkpoint.safetensors") for name in ("parts", "once"))
    assert all(torch.equal(parts[name], once[name]) for name in once)
    checkpoint = find_checkpoint(tmp_path / "whole" / "model")
    assert checkpoint.line.name == "tiny"
    saved = load_transformer(checkpoint).state_dict()
    average = load_file(tmp_path / "whole" / "checkpoint.safetensors")
    for name, value in saved.items():
        torch.testing.assert_close(value, average[f"average.{name}"], rtol=1e-3, atol=1e-4)  # float16


def test_a_block_causal_pass_is_what_the_generator_does_chunk_by_chunk() -> None:
    models = []
    for _ in range(2):  # each kind of attention takes over a stock model
        torch.manual_seed(0)
        models.append(fresh_transformer(LINE, **SMALL))
    clean, noisy = torch.randn(2, 5, 16, 4, 6).unbind()
    extra, level = torch.randn(5, 20, 4, 6), torch.rand(5, 1, 1, 1).expand(-1, 1, 4, 6).clone()
    text = NoPrompts(16).at(0)[None]
    # Photo, then two chunks of two latents; the first chunk is finished when the second is made.
    past = torch.arange(5).reshape(-1, 1, 1, 1) < 3
    state = torch.where(past, clean, noisy)
    level, extra = torch.where(past, 0.0, level), torch.where(past, 0.0, extra)
    attention = MaskedAttention(models[0])
    sees = block_causal([0, 1, 1, 2, 2])
    with torch.no_grad():
        velocity = attention.velocity(models[0], torch.cat([state, extra], 1)[None], level[None], text, sees[None])[0]
    expected = velocity_to_clean(state, velocity, level)[3:]
    denoiser = WanDenoiser(models[1])
    bounds = LatentPolicy().bounds(chunk=2, span=5, window=5, sink=1)
    camera = Camera.from_fov(60.0, (32, 48), torch.eye(4).repeat(2, 1, 1))
    bank = LatentBank((), camera[:0], 1.0)
    bank = denoiser.extend(bank, clean[:1], camera[:1], 0, 0, text, bounds)
    bank = denoiser.extend(bank, clean[1:3], camera, 1, 1, text, bounds)
    made = denoiser.predict(noisy[3:], level[3:], text, bank.context(camera, 3, bounds), extra[3:])
    torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("lora", [0, 4])
def test_a_published_line_is_trained_on_by_low_rank_updates_or_all_of_it(
    lora: int, clips: Path, tmp_path: Path
) -> None:
    toy = tmp_path / "toy"
    make_toy(toy, LINES["st-diff"])
    record_latents(clips, toy, tmp_path / "latents", line="st-diff")
    pace = Pace(40, 2, 5e-3, warmup=5, ema=0.5)
    train(lambda: DiffuserStage(tmp_path / "latents", start=toy, lora=lora), pace, tmp_path / "run")
    logged = [json.loads(line) for line in (tmp_path / "run" / LOG).read_text().splitlines()]
    assert logged[1]["loss"] < logged[0]["loss"]
    made = find_checkpoint(tmp_path / "run" / "model")
    assert made.line.name == "st-diff"
    before, after = (load_transformer(c, "float32").state_dict() for c in (find_checkpoint(toy), made))
    changed = {name for name, value in before.items() if not torch.allclose(after[name], value, rtol=0.01, atol=1e-3)}
    attention = {name for name in before if ".to_" in name and name.endswith("weight")}
    assert changed
    assert (changed <= attention) == (lora > 0)
    # The updates are merged: the model computes what the network with updates computes.
    stage = DiffuserStage(tmp_path / "latents", start=tmp_path / "run" / "model")
    with torch.no_grad():
        again = stage.validate(stage.network, tmp_path)["elsewhere_0.6"]
    assert again == pytest.approx(logged[-1]["validation"]["elsewhere_0.6"], rel=0.02)


def test_what_is_missing_is_named(clips: Path, vae: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="as `worldwarp render-data` makes it"):
        DiffuserStage(tmp_path, vae)
    record_latents(clips, vae, tmp_path)
    with pytest.raises(ValueError, match="start: want a model with its text encoder for st-diff, got none"):
        DiffuserStage(tmp_path, vae, LINES["st-diff"])
    assert {len(take["clean"]) for take in DiffuserStage(tmp_path, vae).takes} == {3}  # the line takes up to 5
    (tmp_path / "clip.safetensors").unlink()
    with pytest.raises(ValueError, match="got 0 and 0; record them with `worldwarp train latents`"):
        DiffuserStage(tmp_path, vae)
