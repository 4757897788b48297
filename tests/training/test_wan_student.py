"""The road from the teacher to a causal student of few steps, at toy size on one clip."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.speed.gpu_training import go_on, pack
from diffusion.wan.denoiser import WanDenoiser
from diffusion.wan.fresh import write_part
from diffusion.wan.lines import LINES
from diffusion.wan.load import find_checkpoint, load_transformer
from diffusion.wan.memory import LatentBank, LatentPolicy
from diffusion.wan.patch_vae import PatchVAE
from diffusion.wan.prompts import NoPrompts
from diffusion.wan.schedule import denoise, schedule_levels, staggered, token_rows
from diffusion.wan.toy import make_toy
from geometry.camera import Camera
from scenes.io.png import to_bytes
from tests.helpers import cameras_along, pillar_before_wall, write_clip
from worldwarp.training.accelerated import LOG, Pace, train
from worldwarp.training.wan_diffuser import DiffuserStage, guide_channels, is_photo, usual_start
from worldwarp.training.wan_latents import record_latents
from worldwarp.training.wan_rollout import roll_out, student_levels
from worldwarp.training.wan_student import (
    InitialStudentStage,
    StudentStage,
    clean_end,
    matching_gradient,
    train_initial_student,
    train_student,
)
from worldwarp.training.wan_trajectories import list_trajectories, record_trajectories

STUDENT = LINES["tiny-student"]
SMALL: dict[str, Any] = {"num_attention_heads": 2, "attention_head_dim": 12, "ffn_dim": 32, "num_layers": 2}


@pytest.fixture(scope="module")
def latents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One take of a clip of 17 frames, to train on and held out."""
    folder = tmp_path_factory.mktemp("road")
    cameras = cameras_along(0.1, 17, (32, 48))
    frames = [pillar_before_wall(cameras[k : k + 1])[0] for k in range(17)]
    rgb, depth = (torch.cat(rows).numpy() for rows in zip(*((to_bytes(f.rgb), f.depth) for f in frames), strict=True))
    (folder / "clips").mkdir()
    write_clip(folder / "clips", rgb, 1.0 / depth, cameras)
    torch.manual_seed(0)
    vae = PatchVAE(width=16, blocks=1, fine_width=8, fine_blocks=1)
    write_part(folder / "vae", vae, vae.config, vae.state_dict())
    record_latents(folder / "clips", folder, folder / "latents")
    return folder / "latents"


@pytest.fixture(scope="module")
def teacher(latents: Path) -> Path:
    """A model that was trained for a moment."""
    folder = latents.parent / "teacher"
    train(lambda: DiffuserStage(latents, latents.parent, **SMALL), Pace(30, 4, 5e-3, warmup=5, ema=0.5), folder)
    return folder / "model"


@pytest.fixture(scope="module")
def trajectories(latents: Path, teacher: Path) -> Path:
    folder = latents.parent / "trajectories"
    assert record_trajectories(latents, teacher, folder, samples=3, steps=8) == 3
    return folder


def test_a_trajectory_is_the_teachers_way_at_the_students_levels(
    latents: Path, teacher: Path, trajectories: Path
) -> None:
    rows = load_file(list_trajectories(trajectories)[0])
    stage = DiffuserStage(latents, start=teacher)
    start, extra = rows["start"], rows["extra"].float()
    assert not start[0].any()
    levels = student_levels(STUDENT)
    assert rows["states"].shape[0] == len(levels) - 1

    def predict(noisy: Tensor, level: Tensor) -> Tensor:
        return stage.predict(stage.network, noisy[None], level[None], extra)[0]

    # From any of the states the rest of the way leads to the same end.
    whole = token_rows(staggered(schedule_levels(8, STUDENT.shift), 5, 0.0), start)
    with torch.no_grad():
        for k in range(4):
            end = denoise(predict, rows["states"][k].float(), whole[2 * k :])
            torch.testing.assert_close(end, rows["clean"].float(), rtol=1e-2, atol=2e-2)
    before = [path.read_bytes() for path in list_trajectories(trajectories)]
    record_trajectories(latents, teacher, trajectories, samples=4, steps=8)
    assert [path.read_bytes() for path in list_trajectories(trajectories)][:3] == before
    with pytest.raises(ValueError, match="multiple of the student's 4, got 6"):
        record_trajectories(latents, teacher, trajectories, steps=6)


@torch.no_grad()
def test_a_rollout_is_what_the_loop_does_chunk_by_chunk(latents: Path, teacher: Path) -> None:
    stage = DiffuserStage(latents, start=teacher, line=STUDENT)
    take = stage.held_out[0]
    photo = is_photo(5)
    guide = torch.where(photo, take["clean"].float(), take["guide"].float())
    extra = torch.where(photo, 0.0, guide_channels(take))
    start = torch.where(photo, 0.0, usual_start(take, STUDENT))
    noise = torch.randn(4, *guide.shape, generator=torch.Generator().manual_seed(0))
    made = roll_out(
        partial(clean_end, stage, stage.network), STUDENT, guide[None], extra[None], start[None], noise[None]
    )[0]
    assert torch.equal(made[0], guide[0])
    # The slow twin: a bank of keys and values, and the product's own steps with the same noise.
    denoiser, text = WanDenoiser(load_transformer(find_checkpoint(teacher))), NoPrompts(16).at(0)[None]
    bounds = LatentPolicy().bounds(chunk=2, span=5, window=5, sink=1)
    camera = Camera.from_fov(60.0, (32, 48), torch.eye(4).repeat(2, 1, 1))
    bank = denoiser.extend(LatentBank((), camera[:0], 1.0), guide[:1], camera[:1], 0, 0, text, bounds)
    levels = student_levels(STUDENT)
    for first in (1, 3):
        own = slice(first, first + 2)
        level = start[own]
        state = level * noise[0, own] + (1.0 - level) * guide[own]
        context = bank.context(camera, first, bounds)
        for step, then in enumerate(levels[1:], 1):
            clean = denoiser.predict(state, level, text, context, extra[own])
            following = level.clamp(max=then)
            fresh = following * noise[min(step, 3), own] + (1.0 - following) * clean
            state, level = torch.where(following < level, fresh, state), following
        torch.testing.assert_close(made[own], state, rtol=1e-3, atol=1e-4)
        bank = denoiser.extend(bank, made[own], camera, first, 1 + first // 3, text, bounds)


def test_the_initial_student_learns_the_ends_and_is_a_model_of_its_own_line(
    latents: Path, teacher: Path, trajectories: Path, tmp_path: Path
) -> None:
    def make() -> InitialStudentStage:
        return InitialStudentStage(latents, trajectories, teacher, STUDENT)

    for number in range(20):
        sample = make().draw(np.random.default_rng(number))
        level = sample["level"].flatten(1).amax(1)
        assert level[0] == 0.0
        assert (level[1:3].max() == 0.0) or not sample["sees"][1, 3]
        assert not sample["noisy"][level == 0.0, 16:].any()  # what is finished is told without a guide
    train(make, Pace(60, 4, 2e-3, warmup=5, ema=0.5), tmp_path)
    logged = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert logged[2]["loss"] < 0.9 * logged[0]["loss"]
    assert set(logged[-1]["validation"]) == {"in_holes", "elsewhere"}
    assert find_checkpoint(tmp_path / "model").line is STUDENT


def test_student_and_critic_are_trained_in_turns_and_go_on_to_the_bit(
    latents: Path, teacher: Path, tmp_path: Path
) -> None:
    class Interrupted(StudentStage):
        def set_step(self, step: int) -> None:
            if step == 3:
                raise KeyboardInterrupt
            super().set_step(step)

    def make() -> StudentStage:
        return StudentStage(latents, teacher, teacher, STUDENT)

    pace = Pace(6, 2, 1e-3, warmup=1, ema=0.5)
    train(make, replace(pace, steps=5), tmp_path / "critic")
    train(make, pace, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(
            lambda: Interrupted(latents, teacher, teacher, STUDENT), replace(pace, checkpoint_s=0.0), tmp_path / "parts"
        )
    start = load_transformer(find_checkpoint(teacher)).state_dict()
    critic, whole = (load_file(tmp_path / name / "checkpoint.safetensors") for name in ("critic", "whole"))

    def changed(state: dict[str, Tensor], part: str) -> bool:
        return any(not torch.equal(state[f"network.{part}.{name}"], value) for name, value in start.items())

    assert changed(critic, "critic")
    assert not changed(critic, "student")
    assert changed(whole, "student")
    train(make, pace, tmp_path / "parts")
    parts = load_file(tmp_path / "parts" / "checkpoint.safetensors")
    assert all(torch.equal(parts[name], value) for name, value in whole.items())
    assert find_checkpoint(tmp_path / "whole" / "model").line is STUDENT
    saved = load_transformer(find_checkpoint(tmp_path / "whole" / "model")).state_dict()
    for name, value in saved.items():
        torch.testing.assert_close(value, whole[f"average.student.{name}"], rtol=1e-3, atol=1e-4)


def test_a_published_architecture_goes_the_same_road(latents: Path, tmp_path: Path) -> None:
    """From bidirectional Wan 2.1 with many steps to a causal student of four, on a toy of it."""
    toy, own = tmp_path / "toy", tmp_path / "latents"
    make_toy(toy, LINES["wan"])
    record_latents(latents.parent / "clips", toy, own, line="self-forcing")
    assert record_trajectories(own, toy, tmp_path / "ways", samples=1, steps=4, line="self-forcing") == 1
    rows = load_file(list_trajectories(tmp_path / "ways")[0])
    assert rows["extra"].shape[1] == 0  # reads no guide
    assert (rows["start"][1:] <= 1.0).all()
    common: dict[str, Any] = {"batch": 1, "learning_rate": 1e-3, "line": "self-forcing"}
    train_initial_student(own, tmp_path / "ways", toy, tmp_path / "initial", steps=4, **common)
    start = tmp_path / "initial" / "model"
    train_student(own, toy, start, tmp_path / "student", steps=6, **common)
    made = find_checkpoint(tmp_path / "student" / "model")
    assert made.line.name == "self-forcing"
    before, after = (load_transformer(c, "float32").state_dict() for c in (find_checkpoint(start), made))
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_a_gpu_would_go_on_with_what_is_packed_and_tell_what_was_foretold(
    latents: Path, teacher: Path, tmp_path: Path
) -> None:
    log = [{"samples": n, "validation": {"in_holes_0.8": n**-0.5, "elsewhere_0.8": 1.0}} for n in (4, 8, 16, 32, 64)]
    (tmp_path / LOG).write_text("".join(json.dumps(entry) + "\n" for entry in log))
    assert pack(latents, tmp_path / "packed", 60.0, tmp_path / LOG) == 2  # one to train on, one held out
    told: dict[str, Any] = go_on(tmp_path / "packed", tmp_path / "run", teacher, 1.0, 2, rehearse=True)
    assert told["samples"] == 12
    assert told["foretold"]["in_holes_0.8"] == pytest.approx((64 + 12) ** -0.5, rel=0.02)
    assert told["after"] != told["before"]
    assert find_checkpoint(tmp_path / "run" / "model").line.name == "tiny"
    assert pack(latents, tmp_path / "nothing", 0.0, None) == 0


def test_the_matching_gradient_leads_to_the_teachers_distribution() -> None:
    """One number for each latent pixel, Gaussians for both distributions: the scores are known, and descent matches."""
    rng = torch.Generator().manual_seed(0)
    aim, mean = 2.0, torch.zeros(())
    weight = torch.ones(512, 1, 1, 1, 1)
    for _ in range(200):
        made = mean + torch.randn(512, 1, 1, 1, 1, generator=rng)
        level = torch.rand(512, 1, 1, 1, 1, generator=rng)
        noisy = (1.0 - level) * made + level * torch.randn(made.shape, generator=rng)
        # Posterior means of x given the noisy x, for x ~ N(m, 1).
        gain = (1.0 - level) / ((1.0 - level).square() + level.square())
        real, fake = (m + gain * (noisy - (1.0 - level) * m) for m in (aim, mean))
        mean = mean - 0.05 * matching_gradient(made, real, fake, weight).mean()
    assert mean.item() == pytest.approx(aim, abs=0.15)
