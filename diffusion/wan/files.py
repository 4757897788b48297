"""Files of weights: safetensors whole or in shards, pickles of tensors alone, parts of Hugging Face repositories."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from diffusion.wan.keys import LISTED

WEIGHTS = "diffusion_pytorch_model.safetensors"
PICKLES = (".pt", ".pth", ".ckpt", ".bin")


@dataclass(frozen=True)
class StoredTensors:
    """Names and shapes of the tensors in safetensors files; the tensors are read when they are asked for.

    Attributes:
        where: the file or folder, for messages.
        files: name of a tensor to its file.
        shapes: name of a tensor to its shape.
    """

    where: Path
    files: Mapping[str, Path]
    shapes: Mapping[str, tuple[int, ...]]

    def read(self) -> Iterator[tuple[str, Tensor]]:
        """Name and tensor, file by file."""
        for file in dict.fromkeys(self.files.values()):
            with _opened(file) as tensors:
                for name in tensors.keys():  # noqa: SIM118 (no mapping)
                    yield name, tensors.get_tensor(name)


def stored_tensors(path: Path) -> StoredTensors:
    """What a safetensors file holds, or the folder of a model: one file, or shards with an index.

    Raises:
        ValueError: nothing there, a pickle, a damaged file, or a shard that is missing.
    """
    if path.suffix in PICKLES and path.is_file():
        raise ValueError(f"{path}: want safetensors, got a pickle; run `worldwarp models convert {path}` once")
    if path.is_file():
        return _described(path, [path])
    if not path.is_dir():
        raise ValueError(f"{path}: want a file or folder of weights, got none; check the name")
    indices = sorted(path.glob("*.safetensors.index.json"))
    if indices:
        names = sorted(set(read_json(indices[0]).get("weight_map", {}).values()))
        absent = [name for name in names if not (path / name).is_file()]
        if absent or not names:
            raise ValueError(
                f"{path}: want the {len(names)} files that {indices[0].name} lists, got all but {listed(absent)}; "
                "download the rest"
            )
        return _described(path, [path / name for name in names])
    files = sorted(path.glob("*.safetensors"))
    files = [file for file in files if file.name == WEIGHTS] or files
    pickles = sorted(file for file in path.iterdir() if file.suffix in PICKLES)
    if not files and pickles:
        raise ValueError(f"{path}: want safetensors, got a pickle; run `worldwarp models convert {pickles[0]}` once")
    if len(files) != 1:
        found = listed([file.name for file in sorted(path.iterdir())]) or "nothing"
        raise ValueError(f"{path}: want one safetensors file, or shards with an index, got {found}; download the rest")
    return _described(path, files)


def _described(where: Path, paths: Sequence[Path]) -> StoredTensors:
    files: dict[str, Path] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for path in paths:
        with _opened(path) as tensors:
            for name in tensors.keys():  # noqa: SIM118 (no mapping)
                files[name], shapes[name] = path, tuple(tensors.get_slice(name).get_shape())
    return StoredTensors(where, files, shapes)


def _opened(path: Path) -> Any:
    try:
        return safe_open(str(path), framework="pt")
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path}: want a whole safetensors file, got a damaged or incomplete one ({error}); download it again"
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        ValueError: no such file, or no JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path.parent}: want {path.name} in it, got none; name the folder of a model") from None
    except ValueError as error:
        raise ValueError(f"{path}: want JSON, got something else ({error}); download it again") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: want a JSON object, got a {type(content).__name__}; download it again")
    return content


def read_pickle(path: Path, top_keys: Sequence[str], key: str | None = None) -> dict[str, Tensor]:
    """The tensors of a pickled checkpoint, mapped from disk. Nothing in the file is ever executed.

    Args:
        path: file of ``torch.save``.
        top_keys: where the tensors may be, in order of preference; otherwise they are at the top.
        key: the only place to look at.

    Raises:
        ValueError: the file holds anything but tensors in plain containers, is damaged, or lacks ``key``.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"code: {found[1]}" if found else "something else"
        raise ValueError(
            f"{path}: want a pickle of tensors alone, got one with {what}; it was not run: look for safetensors instead"
        ) from None
    except (RuntimeError, EOFError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{path}: want a whole checkpoint of torch.save (version 1.6 or later), got something else ({reason}); "
            "download it again"
        ) from None
    top = content
    if isinstance(content, Mapping):
        places = [key] if key is not None else [name for name in top_keys if isinstance(content.get(name), Mapping)]
        top = content.get(places[0]) if places else content
    if not isinstance(top, Mapping) or not top or not all(isinstance(value, Tensor) for value in top.values()):
        keys = listed([str(name) for name in content]) if isinstance(content, Mapping) else type(content).__name__
        raise ValueError(f"{path}: want tensors under key={key or top_keys[0]}, got {keys or 'nothing'}; give key=")
    return {str(name): value for name, value in top.items()}


def downloaded(repository: str, patterns: Sequence[str]) -> Path | None:
    """The folder of a Hugging Face repository in its cache, as far as it is there; asks nothing of the network."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
    except ImportError:
        return None
    try:
        return Path(snapshot_download(repository, allow_patterns=list(patterns), local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError):
        return None


def download(repository: str, patterns: Sequence[str]) -> Path:
    """Files of a Hugging Face repository that fit patterns, from its cache where they are in it.

    Returns:
        the folder that stands for the repository.

    Raises:
        ValueError: there is no such repository, no access, or no connection.
        ImportError: the extra ``wan`` is not installed.
    """
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import (
            GatedRepoError,
            HFValidationError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
        )
    except ImportError:
        raise ImportError("pretrained: a Hugging Face id needs more: pip install 'worldwarp[wan]'") from None
    try:
        return Path(snapshot_download(repository, allow_patterns=list(patterns)))
    except GatedRepoError:
        raise ValueError(f"{repository}: want access, got none; accept its license and run `hf auth login`") from None
    except (RepositoryNotFoundError, HFValidationError):
        raise ValueError(f"{repository}: want a folder or a Hugging Face id, got neither; check the name") from None
    except Exception as error:
        # The client reports a lost connection by errors of several libraries; a full disk is not one of them.
        if isinstance(error, OSError) and not isinstance(error, LocalEntryNotFoundError | ConnectionError):
            raise
        raise ValueError(
            f"{repository}: want it from Hugging Face, as there is no such folder, got no connection "
            f"({type(error).__name__}); connect, or download it elsewhere and name the folder"
        ) from None


def listed(names: Sequence[str]) -> str:
    """The first names, and how many there are more."""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
