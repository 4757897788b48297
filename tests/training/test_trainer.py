"""The shared training loop: resumes exactly, averages, refuses what does not belong to it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from scenes.dataset.clips import list_clips, read_clip
from worldwarp.training.distributed import check_machine, device_of, moved, run_ranks
from worldwarp.training.train_depth import hazed
from worldwarp.training.trainer import CHECKPOINT, LOG, TrainConfig, Trainer, Validation


class Line:
    """Learn y = 2 x + 1."""

    def batch(self, progress: float, rng: np.random.Generator) -> Tensor:  # noqa: ARG002
        return torch.from_numpy(rng.uniform(-1, 1, (16, 1))).float()

    def frames(self, batch: Tensor) -> int:
        return len(batch)

    def loss(self, network: nn.Module, batch: Tensor, rng: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:  # noqa: ARG002
        loss = (network(batch) - (2.0 * batch + 1.0)).square().mean()
        return loss, {"square": loss.detach()}

    def validate(self, network: nn.Module, folder: Path) -> dict[str, float]:  # noqa: ARG002
        return {"weight": next(network.parameters()).item()}

    def save(self, network: nn.Module, path: Path, notes: dict[str, str]) -> None:
        save_file(dict(network.state_dict()), path, notes)


def line() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(1, 1)


def config(steps: int, **more: Any) -> TrainConfig:
    return TrainConfig(steps=steps, learning_rate=0.05, warmup=5, ema=0.9, **more)


def test_it_learns(tmp_path: Path) -> None:
    figures = Trainer(line(), Line(), config(300), tmp_path).run()
    assert figures["weight"] == pytest.approx(2.0, abs=0.1)
    assert load_file(tmp_path / "ema.safetensors")["weight"].item() == pytest.approx(2.0, abs=0.1)
    assert json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])["step"] == 20


def test_resuming_gives_the_same_bits(tmp_path: Path) -> None:
    whole = line()
    Trainer(whole, Line(), config(30), tmp_path / "whole").run()
    first = Trainer(line(), Line(), config(30), tmp_path / "parts")
    for _ in range(11):
        first._advance()
    first._save_and_validate()
    rest = line()
    Trainer(rest, Line(), config(30), tmp_path / "parts").run()
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), rest.state_dict().values(), strict=True))


def test_a_share_of_zero_freezes(tmp_path: Path) -> None:
    network = line()
    before = network.state_dict()["bias"].clone()
    Trainer(network, Line(), config(20), tmp_path, learning_rate_of=lambda name: 0.0 if name == "bias" else 1.0).run()
    assert torch.equal(network.state_dict()["bias"], before)


def test_the_time_budget_ends_it(tmp_path: Path) -> None:
    trainer = Trainer(line(), Line(), config(10**9, minutes=0.0), tmp_path)
    trainer.run()
    assert trainer.step == 0


def test_a_damaged_or_foreign_checkpoint_is_refused(tmp_path: Path) -> None:
    Trainer(line(), Line(), config(3), tmp_path).run()
    with pytest.raises(ValueError, match="seed"):
        Trainer(line(), Line(), config(3), tmp_path, seed=5)
    with pytest.raises(ValueError, match="another network"):
        Trainer(nn.Linear(2, 2), Line(), config(3), tmp_path)
    (tmp_path / CHECKPOINT).write_bytes(b"cut")
    with pytest.raises(ValueError, match="damaged"):
        Trainer(line(), Line(), config(3), tmp_path)


def entries(folder: Path) -> list[dict]:
    return [json.loads(text) for text in (folder / LOG).read_text().splitlines()]


def test_log_holds_frames_and_time_shares(tmp_path: Path) -> None:
    class SlowToLoad(Line):
        def batch(self, progress: float, rng: np.random.Generator) -> Tensor:
            time.sleep(0.02)
            return super().batch(progress, rng)

    first = Trainer(line(), SlowToLoad(), config(40), tmp_path)
    for _ in range(19):
        first._advance()
    first._save_and_validate()
    Trainer(line(), SlowToLoad(), config(40), tmp_path).run()
    saved, early, late, last = entries(tmp_path)
    assert [entry["frames"] for entry in (saved, early, late, last)] == [16 * 19, 16 * 20, 16 * 40, 16 * 40]
    assert 0.5 < late["loading"] <= 1.0
    assert late["bound"] == "loading"
    assert 0.0 < late["frames_per_s"] < 16 / 0.02
    assert "weight" in last["validation"]


def test_watch_is_called_with_validations(tmp_path: Path) -> None:
    seen: list[Validation] = []
    Trainer(line(), Line(), config(3, watch=seen.append), tmp_path).run()
    assert [(v.step, v.frames, v.folder) for v in seen] == [(3, 48, tmp_path)]
    assert seen[0].figures.keys() == {"weight"}


def train_in(folder: Path, ends: int) -> None:
    """Train up to a step; a run that ends early stands for one that was interrupted."""
    trainer = Trainer(line(), Line(), config(6), folder)
    for _ in range(ends - trainer.step):
        trainer._advance()
    trainer._save_and_validate()


def train_whole_and_in_parts(folder: Path, device: torch.device) -> None:
    assert device.type == "cpu"
    for name, ends in (("whole", 6), ("parts", 2), ("parts", 6)):
        train_in(folder / name, ends)
        dist.barrier()
    if dist.get_rank() == 1:
        sys.exit(3)


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_one_rank_runs_here() -> None:
    told: list[torch.device] = []
    run_ranks(told.append, 1)
    assert told == [torch.device("cpu")]


@pytest.mark.usefixtures("threads")
def test_ranks_share_gradients_resume_to_the_bit_and_fail_together(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="training stopped: a process ended with exit code 3"):
        run_ranks(partial(train_whole_and_in_parts, tmp_path), 2)
    train_in(tmp_path / "alone", 6)
    whole, parts, alone = (load_file(tmp_path / name / CHECKPOINT) for name in ("whole", "parts", "alone"))
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())
    assert not torch.equal(whole["network.weight"], alone["network.weight"])
    assert entries(tmp_path / "parts")[-1]["frames"] == 2 * 16 * 6


def test_a_machine_without_the_gpus_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="device: want cpu or cuda, got 'tpu'"):
        check_machine("tpu", 1)
    with pytest.raises(ValueError, match="ranks: want at least 1"):
        check_machine("cpu", 0)
    check_machine("cpu", 64)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"device: want a GPU .* got none; do .* device=cpu"):
        run_ranks(print, 1, "cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_machine("cuda", 2)
    with pytest.raises(ValueError, match="want a GPU per rank, got 2 for 3 ranks; do give ranks=2"):
        run_ranks(print, 3, "cuda")


def test_batches_move_whole() -> None:
    """Onto a device that holds no values, so that a tensor left behind shows."""

    @dataclass(frozen=True)
    class Pair:
        left: Tensor
        right: Tensor

    nowhere = torch.device("meta")
    both, count = moved((Pair(torch.ones(2), torch.ones(3)), 5), nowhere)
    assert count == 5
    assert both.left.device == both.right.device == nowhere
    assert both.right.shape == (3,)
    assert device_of(nn.Linear(1, 1)) == torch.device("cpu")


def test_clips_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"manifest\.json"):
        list_clips(tmp_path, "train")
    entries = [{"file": "a.safetensors", "split": "train"}, {"file": "gone.safetensors", "split": "train"}]
    (tmp_path / "manifest.json").write_text(json.dumps({"clips": entries}))
    inverse = torch.full((2, 1, 4, 6), 0.5).half()
    inverse[:, :, 0] = 0.0
    clip = {
        "rgb": torch.zeros(2, 3, 4, 6, dtype=torch.uint8),
        "inverse_depth": inverse,
        "world_from_camera": torch.eye(4).repeat(2, 1, 1),
        "focal_px": torch.full((2, 2), 5.0),
        "center_px": torch.tensor([[3.0, 2.0]] * 2),
    }
    save_file(clip, tmp_path / "a.safetensors")
    paths = list_clips(tmp_path, "train")
    assert [p.name for p in paths] == ["a.safetensors"]
    frames = read_clip(paths[0])
    assert frames.sky[:, :, 0].all()
    assert frames.depth[~frames.sky].unique().tolist() == [2.0]
    assert frames.depth[frames.sky].unique().tolist() == [200.0]
    save_file({"rgb": clip["rgb"]}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="missing"):
        read_clip(paths[0])
    (tmp_path / "a.safetensors").write_bytes(b"cut")
    with pytest.raises(ValueError, match="damaged"):
        read_clip(paths[0])


def test_haze_blends_distant_colors_and_leaves_the_sky() -> None:
    rgb = torch.rand(40, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    log_depth = torch.linspace(-2.0, 3.0, 6).expand(40, 1, 4, 6)
    sky = torch.zeros(40, 1, 4, 6, dtype=torch.bool)
    sky[:, :, 0] = True
    seen = hazed(rgb, log_depth, sky, np.random.default_rng(0))
    assert torch.equal(seen[:, :, 0], rgb[:, :, 0])
    veiled = (seen != rgb).flatten(1).any(1)
    assert 0.2 < veiled.float().mean() < 0.8
    spread = seen[veiled][:, :, 1:].std(2).mean((0, 1)) / rgb[veiled][:, :, 1:].std(2).mean((0, 1))
    assert (spread.diff() < 0).all()  # contrast falls with distance
    assert spread[0] > 0.95
