"""The shared training loop: resumes exactly, averages, refuses what does not belong to it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from diffusion.training.clips import list_clips, read_clip
from diffusion.training.train_depth import hazed
from diffusion.training.trainer import CHECKPOINT, TrainConfig, Trainer, run_ranks


class Line:
    """Learn y = 2 x + 1."""

    def batch(self, progress: float, rng: np.random.Generator) -> Tensor:  # noqa: ARG002
        return torch.from_numpy(rng.uniform(-1, 1, (16, 1))).float()

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


def config(steps: int, **more: float) -> TrainConfig:
    return TrainConfig(steps=steps, learning_rate=0.05, warmup=5, ema=0.9, **more)  # type: ignore[arg-type]


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


def train_in(folder: Path) -> None:
    Trainer(line(), Line(), config(5), folder).run()


def test_one_rank_runs_here(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    try:
        run_ranks(lambda: train_in(tmp_path), 1)
    finally:
        torch.set_num_threads(threads)
    assert (tmp_path / CHECKPOINT).exists()


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


def test_air_takes_the_colour_of_what_is_far_and_leaves_the_sky() -> None:
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
