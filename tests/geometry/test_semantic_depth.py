"""The depth network with DINOv2 at toy size: it learns, resumes to the bit, and works on pictures of any shape."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from geometry.depth import EmbeddedDepth
from geometry.depth.dino import DinoEncoder, load_encoder, save_encoder
from geometry.depth.embedded import load_depth_network, save_depth_network
from geometry.depth.network import STRIDE, DepthNetwork
from geometry.depth.semantic_network import SemanticDepthNetwork
from geometry.quantized import dequantized, quantized
from tests.helpers import cameras_along, random_rgb, write_clip
from worldwarp.training import train_depth as depth_training
from worldwarp.training.accelerated import CHECKPOINT
from worldwarp.training.train_depth import WEIGHTS, DepthStage, train_depth


def _encoder() -> DinoEncoder:
    torch.manual_seed(1)
    return DinoEncoder(channels=8, layers=4, heads=2, grid=3).eval()


def _network() -> SemanticDepthNetwork:
    """A network that listens to its encoder, unlike a new one."""
    torch.manual_seed(2)
    network = SemanticDepthNetwork(8, 8, _encoder()).eval()
    for parameter in network.inject.parameters():
        torch.nn.init.normal_(parameter)
    return network


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of a clip that is both trained on and held out, an encoder, and weights without one."""
    monkeypatch.setattr(depth_training, "FRAMES_PER_CLIP", 1)
    monkeypatch.setattr(DepthStage, "set_step", lambda self, _: setattr(self, "size", (STRIDE, 2 * STRIDE)))
    inverse = torch.linspace(0.1, 1.0, 48)[:, None].expand(2, 1, 48, 80).contiguous()
    rgb = (255 * inverse).expand(2, 3, 48, 80).to(torch.uint8)
    write_clip(tmp_path, rgb.numpy(), inverse.numpy(), cameras_along(0.0, 2, (48, 80)))
    save_encoder(_encoder(), tmp_path / "dino.safetensors", {})
    torch.manual_seed(0)
    save_depth_network(DepthNetwork(channels=8), tmp_path / "start.safetensors", {})
    return tmp_path


def test_training_with_an_encoder_teaches_the_network_to_hear_it(data: Path) -> None:
    out = data / "out"
    train_depth(data, out, data / "start.safetensors", data / "dino.safetensors", steps=3, batch=1)
    trained = load_depth_network(out / "model" / WEIGHTS)
    assert isinstance(trained, SemanticDepthNetwork)
    assert all(parameter.abs().sum() > 0.0 for parameter in trained.inject.parameters())
    stored, before = load_file(out / CHECKPOINT), load_encoder(data / "dino.safetensors").state_dict()
    assert all(torch.equal(stored[f"network.dino.{name}"], value) for name, value in before.items())
    # Weights that have an encoder keep it, and go on.
    train_depth(data, data / "on", out / "model" / WEIGHTS, steps=1, batch=1)
    assert isinstance(load_depth_network(data / "on" / "model" / WEIGHTS), SemanticDepthNetwork)


def test_a_new_network_is_the_one_that_it_starts_from() -> None:
    torch.manual_seed(0)
    before = DepthNetwork(channels=8).eval()
    after = SemanticDepthNetwork(8, 8, _encoder()).eval()
    after.load_state_dict(before.state_dict(), strict=False)
    rgb = random_rgb((64, 96))
    with torch.no_grad():
        for a, b in zip(before(rgb), after(rgb), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("size", [(32, 48), (100, 37), (15, 90)])
def test_a_picture_of_any_shape_gives_the_same_bits_again(size: tuple[int, int], tmp_path: Path) -> None:
    save_depth_network(_network(), tmp_path / "depth.safetensors", {})
    depth = EmbeddedDepth(tmp_path / "depth.safetensors", short_side_px=32, detail_side_px=64)
    rgb = random_rgb(size)
    first, second = depth.estimate(rgb), depth.estimate(rgb)
    assert first.depth.shape == (1, 1, *size)
    assert torch.equal(first.depth, second.depth)


def test_stored_weights_are_small_and_close(tmp_path: Path) -> None:
    network, rgb = _network(), random_rgb((64, 96))
    save_depth_network(network, tmp_path / "depth.safetensors", {"steps": "7"})
    again = load_depth_network(tmp_path / "depth.safetensors")
    stored = load_file(tmp_path / "depth.safetensors")
    assert {v.dtype for k, v in stored.items() if k.startswith("dino.layers") and k.endswith("fc1.weight")} == {
        torch.int8
    }
    with torch.no_grad():
        for a, b in zip(network(rgb), again(rgb), strict=True):
            torch.testing.assert_close(a, b, atol=0.05, rtol=0.05)


def test_a_row_is_stored_to_a_two_hundred_and_fiftieth_of_its_largest_value() -> None:
    state = {"a": torch.randn(5, 3, 2, 2), "b": torch.randn(4, 6), "c": torch.randn(7), "n": torch.arange(3)}
    stored = quantized(state, lambda name: name == "a")
    assert (stored["a"].dtype, stored["b"].dtype, stored["n"].dtype) == (torch.int8, torch.float16, torch.int64)
    back = dequantized(stored)
    assert back.keys() == state.keys()
    largest = state["a"].flatten(1).abs().amax(1)
    assert ((back["a"] - state["a"]).flatten(1).abs().amax(1) <= largest / 250.0).all()
    assert torch.equal(back["n"], state["n"])


def test_another_file_is_no_encoder(tmp_path: Path) -> None:
    save_depth_network(DepthNetwork(channels=8), tmp_path / "depth.safetensors", {})
    for name in ("depth.safetensors", "none.safetensors"):
        with pytest.raises(ValueError, match="want a file of `worldwarp train fetch-encoder`"):
            load_encoder(tmp_path / name)
