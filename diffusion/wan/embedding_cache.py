"""Embeddings of prompts on disk, so that a text is encoded once."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import warnings
from pathlib import Path

from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

SAMPLES, SAMPLE_BYTES = 64, 4096  # read of each file of weights: hashing all of 22 GB would take longer than encoding
WHOLE = 64 * 2**20  # bytes; smaller files are hashed whole


def cache_folder() -> Path:
    """The user's folder for files that can be made again: ``$WORLDWARP_CACHE``, or as the system's convention says."""
    named = os.environ.get("WORLDWARP_CACHE")
    if named:
        return Path(named)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "worldwarp" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "worldwarp"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "worldwarp"


def encoder_revision(folder: Path) -> str:
    """Digest of a text encoder and its tokenizer: another checkpoint has another one.

    Of files over 64 MiB the size and ``SAMPLES`` evenly spaced blocks are read, first and last included.

    Args:
        folder: of a diffusers model, with ``text_encoder/`` and ``tokenizer/``.

    Raises:
        ValueError: one of the two is missing.
    """
    digest = hashlib.sha256()
    for part in ("text_encoder", "tokenizer"):
        files = sorted(file for file in (folder / part).glob("*") if file.is_file())
        if not files:
            raise ValueError(
                f"prompt: want a folder {part!r} in {str(folder)!r}, got none; download the whole model, or the "
                "text encoder and tokenizer of Wan-AI/Wan2.1-T2V-1.3B-Diffusers into it"
            )
        for file in files:
            digest.update(f"{part}/{file.name} {file.stat().st_size}\n".encode())
            digest.update(_sampled(file))
    return digest.hexdigest()


def _sampled(file: Path) -> bytes:
    size = file.stat().st_size
    if size <= WHOLE:
        return hashlib.sha256(file.read_bytes()).digest()
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        for sample in range(SAMPLES):
            opened.seek((size - SAMPLE_BYTES) * sample // (SAMPLES - 1))
            digest.update(opened.read(SAMPLE_BYTES))
    return digest.digest()


class EmbeddingCache:
    """Files of embeddings without padding, named by the SHA-256 of what they depend on (8 KiB per token of UMT5-XXL).

    Args:
        folder: None takes ``prompts`` in `cache_folder`; made when something is put into it.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = cache_folder() / "prompts" if folder is None else folder

    def path(self, *key: str) -> Path:
        """File of a key; its parts are told apart by their lengths."""
        parts = "".join(f"{len(part)}:{part}" for part in key)
        return self.folder / f"{hashlib.sha256(parts.encode()).hexdigest()}.safetensors"

    def get(self, *key: str) -> Float[Tensor, "n d"] | None:
        """The embedding of a key; None if it is not there or damaged."""
        try:
            return load(self.path(*key).read_bytes())["embedding"]
        except (OSError, SafetensorError, KeyError):
            return None

    def put(self, embedding: Float[Tensor, "n d"], *key: str) -> None:
        """Write an embedding atomically; a folder that cannot be written is a warning, because nothing is lost."""
        path, content = self.path(*key), save({"embedding": embedding.contiguous()})
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            # A name of its own: two walks may encode the same prompt at the same time.
            with tempfile.NamedTemporaryFile(dir=self.folder, suffix=".partial", delete=False) as partial:
                try:
                    partial.write(content)
                    partial.close()
                    os.replace(partial.name, path)
                except BaseException:
                    partial.close()
                    Path(partial.name).unlink(missing_ok=True)
                    raise
        except OSError as error:
            warnings.warn(
                f"prompts are encoded anew next time: {self.folder} cannot be written ({error.strerror or error}); "
                "set WORLDWARP_CACHE to a folder that can",
                stacklevel=2,
            )
