"""New models of the Wan class with random weights, to be trained, and the folder that trained ones are written to."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from diffusion.wan.convert import write_model
from diffusion.wan.lines import LINES, Config, Line
from diffusion.wan.load import Checkpoint, load_vae, streaming
from diffusion.wan.patch_vae import PatchVAE
from diffusion.wan.vae import StreamingVAE

if TYPE_CHECKING:
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel


def fresh_transformer(line: Line, **changed: Any) -> WanTransformer3DModel:
    """The transformer of a line, with weights of torch's random generator.

    Args:
        line: the first of its bases.
        **changed: arguments of the class that differ.
    """
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

    return WanTransformer3DModel(**{**line.transformer_config(), **changed})


def write_part(
    folder: Path, model: nn.Module, config: Config, weights: Mapping[str, Tensor], dtype: torch.dtype = torch.float32
) -> None:
    """Write a model as a part of a diffusers folder, in place of what was there.

    Args:
        folder: e.g. ``.../vae``.
        model: tells the class.
        config: its arguments, without those that begin with an underscore.
        weights: by diffusers' names.
        dtype: of all of them.
    """
    shutil.rmtree(folder, ignore_errors=True)
    stated = {key: value for key, value in config.items() if not key.startswith("_")}
    write_model(folder, model, stated, weights, lambda _: dtype)


def read_vae(folder: Path, line: Line = LINES["tiny"]) -> StreamingVAE | PatchVAE:
    """The VAE in ``folder/vae``, of a line.

    Raises:
        ValueError: there is none, or its file is damaged or of another model.
    """
    return streaming(load_vae(Checkpoint(line, {}, "float32", "", folder=folder)))
