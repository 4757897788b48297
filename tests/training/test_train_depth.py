"""Training the depth network: the loss falls, a training starts from weights; clips and haze."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from geometry.depth.embedded import load_depth_network, save_depth_network
from geometry.depth.network import STRIDE, DepthNetwork
from scenes.dataset.clips import list_clips, read_clip
from tests.helpers import cameras_along, write_clip
from worldwarp.training import train_depth as depth_training
from worldwarp.training.accelerated import LOG
from worldwarp.training.train_depth import WEIGHTS, DepthStage, bend_loss, hazed, train_depth


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of one clip that is both trained on and held out: a floor that rises to a wall."""
    monkeypatch.setattr(depth_training, "FRAMES_PER_CLIP", 1)  # a quicker batch
    inverse = torch.linspace(0.1, 1.0, 48)[:, None].expand(2, 1, 48, 80).contiguous()
    rgb = (255 * inverse).expand(2, 3, 48, 80).to(torch.uint8)
    write_clip(tmp_path, rgb.numpy(), inverse.numpy(), cameras_along(0.0, 2, (48, 80)))
    return tmp_path


@pytest.fixture
def start(tmp_path: Path) -> Path:
    """Random weights of a narrow network."""
    torch.manual_seed(0)
    path = tmp_path / "start.safetensors"
    save_depth_network(DepthNetwork(channels=8), path, {})
    return path


def test_training_starts_from_given_weights(data: Path, start: Path, tmp_path: Path) -> None:
    train_depth(data, tmp_path / "out", start, steps=2, batch=1)
    before, after = load_depth_network(start), load_depth_network(tmp_path / "out" / "model" / WEIGHTS)
    assert after.channels == 8
    moved = {name for name, value in after.state_dict().items() if not torch.equal(value, before.state_dict()[name])}
    assert any(name.startswith("head") for name in moved)
    assert not any(name.startswith(("encoder._conv_stem", "encoder._blocks.0.")) for name in moved)
    last = json.loads((tmp_path / "out" / LOG).read_text().splitlines()[-1])
    assert last["validation"]["clips"] == 1.0
    assert np.isfinite(last["validation"]["absrel"])
    assert (tmp_path / "out" / "sheet.png").is_file()


def test_a_few_steps_lower_the_loss(data: Path, start: Path) -> None:
    stage = DepthStage(data, start)
    stage.size = (STRIDE, 2 * STRIDE)
    batch = {name: value[None] for name, value in stage.draw(np.random.default_rng(0)).items()}
    optimizer = torch.optim.Adam([p for p in stage.network.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for _ in range(8):
        loss = stage.loss(stage.network, batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_images_of_a_step_have_one_size_and_those_of_others_another(data: Path, start: Path) -> None:
    stage = DepthStage(data, start)
    sizes = []
    for step in range(12):
        stage.set_step(step)
        drawn = [stage.draw(np.random.default_rng(number)) for number in range(2)]
        assert {tuple(sample["rgb"].shape) for sample in drawn} == {(1, 3, *stage.size)}
        sizes.append(stage.size)
    assert all(side % STRIDE == 0 for size in sizes for side in size)
    assert len(set(sizes)) > 2


def test_a_bent_wall_costs_what_a_turned_one_does_not() -> None:
    inverse = torch.linspace(0.5, 2.0, 48).expand(1, 1, 40, 48)
    truth, where = -inverse.log(), torch.ones(1, 1, 40, 48, dtype=torch.bool)
    turned = -torch.linspace(1.5, 0.6, 48).expand(1, 1, 40, 48).log()
    assert bend_loss(turned, truth, where) < 1e-5
    across = torch.linspace(-1.0, 1.0, 48)
    bent = (truth + 0.2 * across**2).requires_grad_()
    loss = bend_loss(bent, truth, where)
    assert loss > 0.01
    loss.backward()
    assert bent.grad is not None
    assert bent.grad.abs().sum() > 0.0
    # Nothing is asked of a surface that is bent in truth.
    assert bend_loss(truth, bent.detach(), where) < 0.2 * loss


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
