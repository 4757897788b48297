"""Training the depth network goes on from weights, at toy size."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from geometry.depth.embedded import load_depth_network, save_depth_network
from geometry.depth.network import DepthNetwork
from tests.helpers import cameras_along, write_clip
from worldwarp.training import train_depth as depth_training
from worldwarp.training.run import TrainingRun
from worldwarp.training.trainer import LOG


def _data(folder: Path) -> Path:
    """A folder of one clip that is both trained on and held out: a floor that rises to a wall."""
    inverse = torch.linspace(0.1, 1.0, 48)[:, None].expand(2, 1, 48, 80).contiguous()
    rgb = (255 * inverse).expand(2, 3, 48, 80).to(torch.uint8)
    write_clip(folder, rgb.numpy(), inverse.numpy(), cameras_along(0.0, 2, (48, 80)))
    return folder


def test_training_starts_from_given_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(depth_training, "FRAMES_PER_CLIP", 1)  # a quicker batch
    monkeypatch.setattr(depth_training, "DepthTask", partial(depth_training.DepthTask, clips=1))
    torch.manual_seed(0)
    start = tmp_path / "start.safetensors"
    save_depth_network(DepthNetwork(channels=8), start, {})
    depth_training.train_depth(TrainingRun(_data(tmp_path), tmp_path / "out", steps=2), start=start)
    before, after = load_depth_network(start), load_depth_network(tmp_path / "out" / "ema.safetensors")
    assert after.channels == 8
    moved = {name for name, value in after.state_dict().items() if not torch.equal(value, before.state_dict()[name])}
    assert any(name.startswith("head") for name in moved)
    assert not any(name.startswith(("encoder._conv_stem", "encoder._blocks.0.")) for name in moved)
    last = json.loads((tmp_path / "out" / LOG).read_text().splitlines()[-1])
    assert last["validation"]["clips"] == 1.0
    assert np.isfinite(last["validation"]["absrel"])
