"""Weights of a line into the classes of diffusers, strictly: every tensor is there, none is left over, shapes agree.

The loaders of diffusers leave a missing tensor random or without storage and only warn of a surplus one, and reading a
single file casts layers that must stay in float32. Here a model is built without storage, and what the files hold is
compared with it by name and shape before anything is read.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn

from diffusion.wan.detect import Shapes, base_repository, detect_line, transformer_config
from diffusion.wan.files import StoredTensors, download, downloaded, listed, read_json, stored_tensors
from diffusion.wan.keys import Part, renamed, strip_prefixes, to_diffusers, vae_part
from diffusion.wan.lines import LINES, PRECISIONS, VAES, Config, Line, Precision
from diffusion.wan.offload import Placement
from diffusion.wan.patch_vae import PatchVAE
from diffusion.wan.vae import StreamingVAE
from geometry.input_files import reason_of

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

LINE_FILE = "worldwarp_line.json"
# Layers that the original program computes in float32: the profile `wan` keeps their weights in it.
FLOAT32_LAYERS = frozenset({"rope", "time_embedder", "scale_shift_table", "norm1", "norm2", "norm3"})
_CLASSES = ("WanTransformer3DModel", "SkyReelsV2Transformer3DModel")
_Model = TypeVar("_Model", bound=nn.Module)


@dataclass(frozen=True)
class Checkpoint:
    """A model that was found: its line, its architecture, and where its parts are.

    Attributes:
        line: how it is run.
        config: arguments of ``WanTransformer3DModel``.
        precision: profile in which it was written, or else the line's.
        base: Hugging Face id that parts are taken from which it does not have itself.
        file: safetensors file of the transformer, if it comes as one file.
        folder: folder on this machine, if it comes as one.
        repository: Hugging Face id, if it comes from there; parts are fetched when they are asked for.
    """

    line: Line
    config: Config
    precision: Precision
    base: str
    file: Path | None = None
    folder: Path | None = None
    repository: str | None = None

    def folder_with(self, *parts: str) -> Path:
        """The folder that holds parts of the model, fetched if need be.

        Args:
            parts: ``transformer``, ``vae``, or ``text_encoder`` and ``tokenizer``.

        Raises:
            ValueError: they are nowhere, or cannot be fetched.
        """
        wanted = f"want {' and '.join(parts)} in {self.repository or self.folder or self.file}"
        try:
            found = self._found(download, parts)
        except ValueError as error:
            if self.repository is not None:
                raise
            raise ValueError(f"pretrained: {wanted}, got none; nor from its base: {error}") from None
        if found is None:
            raise ValueError(f"pretrained: {wanted}, got none; name another folder")
        return found

    def folder_at_hand_with(self, *parts: str) -> Path | None:
        """The folder that holds parts of the model, if nothing has to be fetched for it."""
        return self._found(downloaded, parts)

    def _found(self, look: Callable[[str, Sequence[str]], Path | None], parts: Sequence[str]) -> Path | None:
        """The first of the model's folder, its repository and that of its base that has parts."""
        fetched = (look(name, [f"{part}/*" for part in parts]) for name in (self.repository, self.base) if name)
        for folder in chain([self.folder], fetched):
            if folder is not None and all((folder / part).is_dir() for part in parts):
                return folder
        return None


def packaged_model() -> Path:
    """The folder of the small model that comes with the package."""
    return Path(str(resources.files("diffusion"))) / "weights" / "tiny"


def find_checkpoint(pretrained: str | Path, line: str = "auto") -> Checkpoint:
    """Find out what ``pretrained`` is, and which line. Of a Hugging Face id only small files are fetched.

    Args:
        pretrained: a diffusers folder, a folder that `worldwarp models convert` or `toy` wrote, a safetensors file of
            a transformer, or the Hugging Face id of a diffusers folder.
        line: a name in `LINES`, or ``auto``.

    Raises:
        ValueError: there is nothing of the kind, or the line does not fit or cannot be told.
    """
    path = Path(pretrained).expanduser()
    if path.is_file():
        stored = stored_tensors(path)
        config = transformer_config(renamed_shapes(stored, "transformer")[0])
        found = detect_line(config, str(path), line)
        return Checkpoint(found, config, found.precision, base_repository(found, config), file=path)
    if path.is_dir():
        folder, repository = path, None
    else:
        repository = _repository(str(pretrained))
        folder = download(repository, [LINE_FILE, "model_index.json", "transformer/*.json"])
    config, kind = _stored_config(folder / "transformer")
    record = read_json(folder / LINE_FILE) if (folder / LINE_FILE).is_file() else {}
    if line not in ("auto", record.get("line", line)):
        raise ValueError(f"line: {pretrained} was made for {record['line']}, got line={line}; leave line= out")
    told = "skyreels-df" if line == "auto" and kind == _CLASSES[1] else line
    found = detect_line(config, str(pretrained), record.get("line", told))
    precision = record.get("precision", found.precision)
    if precision not in PRECISIONS:
        raise ValueError(f"{folder / LINE_FILE}: want a precision of {PRECISIONS}, got {precision}")
    local = path if repository is None else None
    return Checkpoint(found, config, precision, base_repository(found, config), folder=local, repository=repository)


def _repository(name: str) -> str:
    """A Hugging Face id, checked before anything is asked of the network."""
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ValueError(
            f"pretrained: want a folder, a file or a Hugging Face id (owner/name), got '{name}'; check the name"
        )
    for line in LINES.values():
        if line.files and line.weights.lower() == name.lower():
            raise ValueError(
                f"pretrained: want a diffusers folder, got {name}, which holds {' and '.join(line.files)}; download "
                f"that and run `worldwarp models convert FILE line={line.name}`"
            )
    return name


def _stored_config(folder: Path) -> tuple[Config, str]:
    """Arguments of the transformer, and the name of its class."""
    stored, defaults = read_json(folder / "config.json"), LINES["wan"].transformer_config()
    kind = stored.get("_class_name", _CLASSES[0])
    if kind not in _CLASSES:
        raise ValueError(f"{folder}: want a {_CLASSES[0]}, got a {kind}; `worldwarp models list` has what runs")
    return {**defaults, **{key: value for key, value in stored.items() if key in defaults}}, kind


def load_transformer(
    checkpoint: Checkpoint, precision: Precision | None = None, device: str | torch.device = "cpu"
) -> WanTransformer3DModel:
    """The transformer with its weights, in evaluation mode, without gradients.

    The frame rate that SkyReels-V2 models embed is a constant here and is added to the bias of the time projection.

    Args:
        checkpoint: what `find_checkpoint` found.
        precision: profile; None takes that of the checkpoint.
        device: where to put it.

    Raises:
        ValueError: a file is missing or damaged, or its tensors are not those of the model.
    """
    profile = precision or checkpoint.precision
    model = empty_transformer(checkpoint.config)
    stored = stored_tensors(checkpoint.file or checkpoint.folder_with("transformer") / "transformer")
    state = _read(stored, "transformer", model, lambda name: dtype_of(name, profile), device)
    if frame_rate := {name: state.pop(name).float() for name in frame_rate_shapes(1) if name in state}:
        bias = state["condition_embedder.time_proj.bias"]
        state["condition_embedder.time_proj.bias"] = (bias + _frame_rate_bias(frame_rate, checkpoint.line.fps)).to(bias)
    return _filled(model, state, device)


def load_vae(checkpoint: Checkpoint, device: str | torch.device = "cpu") -> AutoencoderKLWan | PatchVAE:
    """The VAE with its weights in float32, in evaluation mode, without gradients.

    Args:
        checkpoint: what `find_checkpoint` found.
        device: where to put it.

    Raises:
        ValueError: a file is missing or damaged, its tensors are not those of the model, or its latents are another
            line's.
    """
    folder = checkpoint.folder_with("vae") / "vae"
    model = empty_vae(stored_vae_config(folder, checkpoint.line))
    stored = stored_tensors(folder)
    return _filled(model, _read(stored, vae_part(stored.shapes), model, lambda _: torch.float32, device), device)


def stored_vae_config(folder: Path, line: Line) -> Config:
    """Arguments of a VAE in a folder; what its file leaves out are the defaults of the class, which are those of 2.1.

    Raises:
        ValueError: no such file, or a VAE whose latents are another line's.
    """
    stored = read_json(folder / "config.json")
    wanted = "PatchVAE" if is_patched(VAES[line.vae]) else "AutoencoderKLWan"
    if (kind := stored.get("_class_name", wanted)) != wanted:
        raise ValueError(f"{folder}: want a {wanted}, as {line.name} has, got a {kind}; take the VAE of the model")
    config = {**VAES["2.1" if line.vae == "2.2" else line.vae], **stored}
    if config["z_dim"] != line.latent_channels:
        raise ValueError(
            f"{folder}: {line.name} wants latents of {line.latent_channels} channels, got a VAE of {config['z_dim']}; "
            "take the VAE that belongs to the model"
        )
    return config


def empty_transformer(config: Config) -> WanTransformer3DModel:
    """A transformer without storage, on the meta device."""
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

    return _empty(WanTransformer3DModel, config)


def is_patched(config: Config) -> bool:
    """Whether a VAE's arguments are those of a `PatchVAE`."""
    return "fine_width" in config


def streaming(
    vae: AutoencoderKLWan | PatchVAE, dtype: torch.dtype = torch.float32, placement: Placement | None = None
) -> StreamingVAE | PatchVAE:
    """A VAE as a pair of streams; see `StreamingVAE` for the arguments. A `PatchVAE` stays in float32."""
    if not isinstance(vae, PatchVAE):
        return StreamingVAE(vae, dtype, placement)
    vae.placement = placement
    return vae.eval().requires_grad_(False)


def empty_vae(config: Config) -> AutoencoderKLWan | PatchVAE:
    """A VAE without storage, on the meta device."""
    if is_patched(config):
        return _empty(PatchVAE, config)
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    return _empty(AutoencoderKLWan, config)


def _empty(kind: type[_Model], config: Config) -> _Model:
    accepted = inspect.signature(kind.__init__).parameters
    try:
        with torch.device("meta"):
            model = kind(**{key: value for key, value in config.items() if key in accepted})
    except Exception as error:  # of any kind: the class computes with what it is given
        raise ValueError(
            f"want the configuration of a {kind.__name__}, got one it cannot be made of ({reason_of(error)}); "
            "download config.json again"
        ) from None
    return model.eval().requires_grad_(False)


def dtype_of(name: str, precision: Precision) -> torch.dtype:
    """The dtype of a tensor of the transformer, by diffusers' name, under a precision profile."""
    if precision == "float32" or (precision == "wan" and not FLOAT32_LAYERS.isdisjoint(name.split("."))):
        return torch.float32
    return torch.bfloat16


def renamed_shapes(stored: StoredTensors, part: Part) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """Shapes by diffusers' names, and the stored name of each."""
    names = renamed(stored.shapes, lambda name: to_diffusers(strip_prefixes(name), part))
    return {new: stored.shapes[old] for new, old in names.items()}, names


def check_shapes(model: nn.Module, found: Shapes, where: Path, names: Mapping[str, str]) -> None:
    """Compare tensors with those of a model.

    Args:
        model: without storage.
        found: shapes by diffusers' names.
        where: file or folder, for the message.
        names: the stored name of each, for the message.

    Raises:
        ValueError: one is missing, left over or of another shape; the first ten of each kind are named.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if not frame_rate_shapes(1).keys().isdisjoint(found):
        wanted |= frame_rate_shapes(wanted["patch_embedding.weight"][0])
    other = [name for name in found if name in wanted and found[name] != wanted[name]]
    faults = {
        "missing": [name for name in wanted if name not in found],
        "unexpected": [names[name] for name in found if name not in wanted],
        "of another shape": [f"{names[name]} {list(found[name])}, want {list(wanted[name])}" for name in other],
    }
    if any(faults.values()):
        told = "; ".join(f"{len(those)} {kind}: {listed(those)}" for kind, those in faults.items() if those)
        raise ValueError(f"{where}: want the {len(wanted)} tensors of a {type(model).__name__}, got {told}")


def frame_rate_shapes(width: int) -> dict[str, tuple[int, ...]]:
    """Tensors by which SkyReels-V2 models of 1.3B read the frame rate, which the class here does not have."""
    first, second = "fps_projection.net.0.proj", "fps_projection.net.2"
    return {
        "fps_embedding.weight": (2, width),
        f"{first}.weight": (width, width),
        f"{first}.bias": (width,),
        f"{second}.weight": (6 * width, width),
        f"{second}.bias": (6 * width,),
    }


def _frame_rate_bias(weights: Mapping[str, Tensor], fps: int) -> Tensor:
    """What a frame rate adds to the projected timestep: 16 frames per second have entry 0, any other entry 1."""
    embedding, first, first_bias, second, second_bias = (weights[name] for name in frame_rate_shapes(1))
    row = embedding[0 if fps == 16 else 1]
    return second @ nn.functional.silu(first @ row + first_bias) + second_bias


def _read(
    stored: StoredTensors, part: Part, model: nn.Module, dtype: Callable[[str], torch.dtype], device: str | torch.device
) -> dict[str, Tensor]:
    """The tensors of a model by diffusers' names, once all of them are known to be there."""
    shapes, names = renamed_shapes(stored, part)
    check_shapes(model, shapes, stored.where, names)
    new_names = {old: new for new, old in names.items()}
    return {new_names[old]: tensor.to(device, dtype(new_names[old])) for old, tensor in stored.read()}


def _filled(model: _Model, state: Mapping[str, Tensor], device: str | torch.device) -> _Model:
    model.load_state_dict(state, strict=True, assign=True)
    if (rotary := getattr(model, "rope", None)) is not None:  # its tables are no part of a checkpoint
        made = type(rotary)(rotary.attention_head_dim, rotary.patch_size, rotary.max_seq_len)
        model.add_module("rope", made.to(device))
    assert not any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))
    return model.requires_grad_(False)
