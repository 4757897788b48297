"""The tiny decoder: TAEHV's names and shapes, streams against whole clips, strict loading."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from diffusion.wan.tiny import TinyDecoder, load_tiny

WIDTHS = (8, 6, 4, 4)


def _decoder(channels: int, patch: int) -> TinyDecoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return TinyDecoder(channels, patch, WIDTHS)


def _latents(count: int, channels: int) -> Tensor:
    return 2.0 * torch.randn(count, channels, 3, 5, generator=torch.Generator().manual_seed(1))


def _whole(weights: dict[str, Tensor], latents: Tensor, patch: int) -> Tensor:
    """The slow twin, frame by frame and layer by layer, from the weights' names alone."""

    def conv(name: str, x: Tensor) -> Tensor:
        weight = weights[f"decoder.{name}.weight"]
        return nn.functional.conv2d(x, weight, weights.get(f"decoder.{name}.bias"), padding=weight.shape[-1] // 2)

    frames = [conv("1", 3.0 * (latent[None] / 3.0).tanh()).relu() for latent in latents]
    for first, growth in ((3, 1), (9, 2), (15, 2)):
        for block in range(first, first + 3):
            pairs = zip(frames, [torch.zeros_like(frames[0]), *frames[:-1]], strict=True)
            inside = [torch.cat(pair, 1) for pair in pairs]
            for layer in (0, 2, 4):
                inside = [conv(f"{block}.conv.{layer}", x) for x in inside]
                inside = [x.relu() for x in inside] if layer < 4 else inside
            frames = [(x + frame).relu() for x, frame in zip(inside, frames, strict=True)]
        doubled = [frame.repeat_interleave(2, 2).repeat_interleave(2, 3) for frame in frames]
        frames = [part for frame in doubled for part in conv(f"{first + 4}.conv", frame).chunk(growth, 1)]
        frames = [conv(f"{first + 5}", frame) for frame in frames]
    pictures = [nn.functional.pixel_shuffle(conv("22", frame.relu()), patch) for frame in frames]
    return torch.cat(pictures[3:]).clamp(0.0, 1.0)


@pytest.mark.parametrize(("channels", "patch"), [(16, 1), (48, 2)])
def test_pieces_give_the_frames_of_the_whole_clip(channels: int, patch: int) -> None:
    model, latents = _decoder(channels, patch), _latents(4, channels)
    wanted = _whole(model.state_dict(), latents, patch)
    assert wanted.std() > 0.01
    streamed = {}
    for split in ([4], [1, 3], [1, 1, 1, 1]):
        state, made = None, []
        for piece in latents.split(split):
            frames, state = model.decode(piece, state)
            made.append(frames)
        streamed[len(split)] = torch.cat(made)
        assert streamed[len(split)].shape == (13, 3, 24 * patch, 40 * patch)
        torch.testing.assert_close(streamed[len(split)], wanted, rtol=0.0, atol=1e-6)
    assert torch.equal(streamed[1], streamed[4])


def test_older_state_stays_valid() -> None:
    model, latents = _decoder(16, 1), _latents(3, 16)
    _, state = model.decode(latents[:1])
    first, _ = model.decode(latents[1:2], state)
    other, _ = model.decode(latents[2:3], state)
    again, _ = model.decode(latents[1:2], state)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    fresh, _ = model.decode(latents[1:2])
    assert not torch.allclose(first[-1], fresh[-1], atol=1e-4)


@pytest.mark.parametrize(("channels", "patch"), [(16, 1), (48, 2)])
def test_names_and_shapes_are_those_of_taehv(channels: int, patch: int) -> None:
    """As `taehv.py` 115aaa7 builds them: 64 tensors of the decoder."""
    wanted: dict[str, tuple[int, ...]] = {
        "decoder.1.weight": (256, channels, 3, 3),
        "decoder.1.bias": (256,),
        "decoder.7.conv.weight": (256, 256, 1, 1),
        "decoder.8.weight": (128, 256, 3, 3),
        "decoder.13.conv.weight": (256, 128, 1, 1),
        "decoder.14.weight": (64, 128, 3, 3),
        "decoder.19.conv.weight": (128, 64, 1, 1),
        "decoder.20.weight": (64, 64, 3, 3),
        "decoder.22.weight": (3 * patch**2, 64, 3, 3),
        "decoder.22.bias": (3 * patch**2,),
    }
    for first, width in ((3, 256), (9, 128), (15, 64)):
        for block in range(first, first + 3):
            for layer, inputs in ((0, 2 * width), (2, width), (4, width)):
                wanted[f"decoder.{block}.conv.{layer}.weight"] = (width, inputs, 3, 3)
                wanted[f"decoder.{block}.conv.{layer}.bias"] = (width,)
    with torch.device("meta"):
        model = TinyDecoder(channels, patch)
    assert {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()} == wanted
    assert len(wanted) == 64


def test_loading_is_strict(tmp_path: Path) -> None:
    file, model = tmp_path / "taew2_1.safetensors", _decoder(16, 1)
    weights = dict(model.state_dict())
    save_file({**weights, "encoder.0.weight": torch.zeros(8, 3, 3, 3)}, file)
    loaded = load_tiny(file, 16, widths=WIDTHS)
    assert torch.equal(loaded.decode(_latents(2, 16))[0], model.decode(_latents(2, 16))[0])

    missing = {name: tensor for name, tensor in weights.items() if name != "decoder.9.conv.2.bias"}
    save_file(missing, file)
    with pytest.raises(ValueError, match=r"1 missing: decoder\.9\.conv\.2\.bias"):
        load_tiny(file, 16, widths=WIDTHS)
    save_file({**weights, "decoder.6.weight": torch.zeros(1)}, file)
    with pytest.raises(ValueError, match=r"1 unexpected: decoder\.6\.weight"):
        load_tiny(file, 16, widths=WIDTHS)
    save_file(weights, file)
    with pytest.raises(ValueError, match=r"decoder\.1\.weight \[8, 16, 3, 3\], want \[8, 48, 3, 3\].*take taew2_2"):
        load_tiny(file, 48, widths=WIDTHS)


def test_of_more_frames_than_are_used_the_last_are_taken(tmp_path: Path) -> None:
    file, model = tmp_path / "taew2_1.safetensors", _decoder(16, 1)
    weights = dict(model.state_dict())
    rows = weights["decoder.7.conv.weight"]
    save_file({**weights, "decoder.7.conv.weight": torch.cat([torch.ones_like(rows), rows])}, file)
    loaded = load_tiny(file, 16, widths=WIDTHS)
    assert torch.equal(loaded.state_dict()["decoder.7.conv.weight"], rows)


def test_refusals() -> None:
    model = _decoder(16, 1)
    with pytest.raises(ValueError, match="want one or more latents of 16 channels, got 2 of 48"):
        model.decode(_latents(2, 48))
    _, state = model.decode(_latents(1, 16))
    with pytest.raises(ValueError, match="as before in this stream"):
        model.decode(_latents(1, 16)[..., 1:], state)
