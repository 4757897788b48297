"""The trainer on accelerate: the loss falls, a run goes on to the bit, two processes do what one does."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from worldwarp.training.accelerated import CHECKPOINT, LOG, Pace, train

PACE = Pace(steps=24, batch=4, learning_rate=0.03, warmup=2, ema=0.9)
TWO = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_accelerated import PACE, Line
from worldwarp.training.accelerated import train
train(Line, PACE, Path(sys.argv[2]))
"""


class Line:
    """Fits a line; two layers, so that gradients depend on all weights."""

    def __init__(self, wide: int = 3) -> None:
        self.network = nn.Sequential(nn.Linear(2, wide), nn.Tanh(), nn.Linear(wide, 1))

    def draw(self, rng: np.random.Generator) -> dict[str, Tensor]:
        x = torch.from_numpy(rng.standard_normal(2, np.float32))
        return {"x": x, "y": x.sum(0, keepdim=True)}

    def loss(self, network: Any, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"loss": (network(batch["x"]) - batch["y"]).square().mean()}

    def validate(self, network: Any, folder: Path) -> dict[str, float]:
        assert folder.is_dir()
        return {"at_one": float(network(torch.ones(1, 2)))}

    def save(self, weights: Mapping[str, Tensor], folder: Path) -> None:
        torch.save(dict(weights), folder.with_suffix(".pt"))


def half_below(name: str) -> float:
    """Half of the rate for the first layer."""
    return 0.5 if name.startswith("0.") else 1.0


def checkpoint(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / CHECKPOINT)


def entries(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / LOG).read_text().splitlines()]


def test_the_loss_falls_and_the_averaged_weights_are_those_that_are_saved(tmp_path: Path) -> None:
    figures = train(Line, Pace(steps=120, batch=4, learning_rate=0.03, ema=0.9), tmp_path)
    logged = [entry["loss"] for entry in entries(tmp_path) if "loss" in entry]
    assert logged[-1] < 0.3 * logged[0]
    assert abs(figures["at_one"] - 2.0) < 0.7
    saved, state = torch.load(tmp_path / "model.pt"), checkpoint(tmp_path)
    assert all(torch.equal(value, state[f"average.{name}"]) for name, value in saved.items())
    assert not torch.equal(state["average.0.weight"], state["network.0.weight"])


@pytest.mark.parametrize("ends", [1, 11])
def test_a_run_that_was_interrupted_goes_on_to_the_bit(ends: int, tmp_path: Path) -> None:
    class Interrupted(Line):
        drawn = 0

        def draw(self, rng: np.random.Generator) -> dict[str, Tensor]:
            if self.drawn == ends * PACE.batch:
                raise KeyboardInterrupt
            self.drawn += 1
            return super().draw(rng)

    train(Line, PACE, tmp_path / "whole", half_below)
    every_step = Pace(steps=24, batch=4, learning_rate=0.03, warmup=2, ema=0.9, checkpoint_s=0.0)
    with pytest.raises(KeyboardInterrupt):
        train(Interrupted, every_step, tmp_path / "parts", half_below)
    assert entries(tmp_path / "parts")[-1]["step"] == ends
    train(Line, PACE, tmp_path / "parts", half_below)
    whole, parts = checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_rates_differ_by_the_names_of_parameters(tmp_path: Path) -> None:
    starts: list[dict[str, Tensor]] = []

    def make() -> Line:
        line = Line()
        starts.append({name: value.clone() for name, value in line.network.state_dict().items()})
        return line

    pace = Pace(steps=1, batch=4, learning_rate=0.01, warmup=1, weight_decay=0.0)
    train(make, pace, tmp_path / "one", half_below)
    after = checkpoint(tmp_path / "one")
    for name, value in starts[0].items():  # the first step of Adam is as long as its rate
        step = torch.full_like(value, 0.01 * half_below(name))
        torch.testing.assert_close((after[f"network.{name}"] - value).abs(), step, rtol=1e-3, atol=0.0)


def test_a_stage_is_told_the_step_before_its_samples_are_drawn(tmp_path: Path) -> None:
    class Counted(Line):
        told: ClassVar[list[int]] = []

        def set_step(self, step: int) -> None:
            self.told.append(step)

        def draw(self, rng: np.random.Generator) -> dict[str, Tensor]:
            self.told.append(-1)
            return super().draw(rng)

    train(Counted, Pace(steps=2, batch=2, learning_rate=0.01), tmp_path)
    assert Counted.told == [0, -1, -1, 1, -1, -1]


def test_the_rate_falls_only_at_the_end_and_the_time_limit_ends_a_run(tmp_path: Path) -> None:
    pace = Pace(steps=1000, batch=4, learning_rate=1.0, warmup=10, minutes=0.0)
    assert [pace.rate(step) for step in (0, 9, 500, 800, 900)] == [0.1, 1.0, 1.0, 1.0, 0.5]
    assert train(Line, pace, tmp_path) == {}
    assert not [*tmp_path.iterdir()]


def test_another_seed_network_or_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    train(Line, PACE, tmp_path)
    with pytest.raises(ValueError, match="was trained with seed 0, got 5"):
        train(Line, Pace(steps=24, batch=4, learning_rate=0.03, seed=5), tmp_path)
    with pytest.raises(ValueError, match="of another network"):
        train(lambda: Line(wide=4), PACE, tmp_path)
    (tmp_path / CHECKPOINT).write_bytes(b"cut")
    with pytest.raises(ValueError, match="damaged"):
        train(Line, PACE, tmp_path)


def test_two_gloo_processes_do_what_one_does(tmp_path: Path) -> None:
    train(Line, PACE, tmp_path / "one")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", TWO, str(Path(__file__).parent), str(tmp_path / "two")],
            env={**os.environ, **told, "RANK": str(k), "LOCAL_RANK": str(k), "OMP_NUM_THREADS": "1"},
        )
        for k in range(2)
    ]
    assert [rank.wait(300) for rank in ranks] == [0, 0]
    one, two = checkpoint(tmp_path / "one"), checkpoint(tmp_path / "two")
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-4, atol=1e-6)
    assert [entry["step"] for entry in entries(tmp_path / "two")] == [20, 24]
