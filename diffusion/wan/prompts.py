"""Prompts of a walk: which text describes which chunk, and its embedding.

A text is encoded once and its embedding stays on disk (`diffusion.wan.embedding_cache`); the text encoder
(`diffusion.wan.text_encoder`, 10.6 GiB for UMT5-XXL) is imported only for a text that is not there, and freed before
the generator is loaded.
"""

from __future__ import annotations

import html
import re
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
import yaml
from jaxtyping import Float
from torch import Tensor

from diffusion.wan.embedding_cache import EmbeddingCache, encoder_revision
from geometry.input_files import read_head

TOKENS = 512  # tokens of a prompt that the models were trained with: cross-attention has no mask, so the number counts
YAML = (".yaml", ".yml")
UNITS = ("chunks", "frames")
EXAMPLE = "e.g. `chunks: {0: a square at noon, 4: the same square at night}`"

EncodeTexts = Callable[[Sequence[str]], "list[Float[Tensor, 'n d']]"]


@runtime_checkable
class Captioner(Protocol):
    """Describes a picture; used where no prompt is given."""

    def caption(self, rgb: Float[Tensor, "3 h w"]) -> str:
        """Text for colors in 0..1."""
        ...


def clean_prompt(text: str) -> str:
    """Text as the models were trained on it: broken encodings and HTML entities resolved, white space collapsed.

    Source: Wan-Video/Wan2.1, ``wan/modules/tokenizers.py``.

    Raises:
        ImportError: ftfy is missing; without it the same prompt would have another embedding.
    """
    try:
        import ftfy
    except ImportError as error:
        raise ImportError("prompts need the extra: pip install 'worldwarp[wan]'") from error
    unescaped = html.unescape(html.unescape(ftfy.fix_text(text)))
    return re.sub(r"\s+", " ", unescaped).strip()


@dataclass(frozen=True)
class Prompts:
    """Which text describes which chunk.

    Attributes:
        starts: index of the first chunk of each text, ascending from 0.
        texts: cleaned.
    """

    starts: tuple[int, ...]
    texts: tuple[str, ...]

    @classmethod
    def of(cls, by_chunk: Mapping[int, str]) -> Prompts:
        """Prompts by the index of the chunk at which each begins.

        Raises:
            ValueError: nothing begins at chunk 0, or a chunk is negative.
        """
        starts = tuple(sorted(by_chunk))
        if not starts or starts[0] != 0:
            raise ValueError(f"prompts: want the first one at 0, got {starts[0] if starts else 'none'}; add one for 0")
        return cls(starts, tuple(clean_prompt(by_chunk[start]) for start in starts))

    def at(self, chunk: int) -> str:
        """Text of a chunk; chunk 0 is the photo."""
        if chunk < 0:
            raise ValueError(f"chunk: want 0 or more, got {chunk}")
        return self.texts[bisect_right(self.starts, chunk) - 1]

    def set(self, text: str, from_chunk: int) -> Prompts:
        """Prompts with ``text`` from a chunk on; what was to begin there or later is dropped."""
        return self.then(Prompts.of({0: text}), from_chunk)

    def then(self, others: Prompts, from_chunk: int) -> Prompts:
        """Prompts that are those of ``others`` from a chunk on, counted from the photo as well."""
        kept = {start: text for start, text in self.by_chunk().items() if start < from_chunk}
        later = {start: text for start, text in others.by_chunk().items() if start > from_chunk}
        return Prompts.of({**kept, from_chunk: others.at(from_chunk), **later})

    def by_chunk(self) -> dict[int, str]:
        """Texts by the chunk at which each begins; `Prompts.of` makes the same prompts of it."""
        return dict(zip(self.starts, self.texts, strict=True))


def read_prompts(prompt: str, chunk_frames: int) -> Prompts:
    """One text for the whole walk, or those of a YAML file.

    The file has one mapping, ``chunks`` or ``frames``, from the index of the first chunk or frame to a text:
    ``chunks: {0: a square at noon, 4: the same square at night}``. Chunk 0 and frame 0 are the photo. A text that is
    given for a frame holds from the chunk of that frame on: a chunk has one prompt.

    Args:
        prompt: the text, or the path of a ``.yaml`` or ``.yml`` file.
        chunk_frames: frames of each chunk after the photo.

    Raises:
        ValueError: a file that is missing or is no such mapping; one sentence.
    """
    if not prompt.strip().lower().endswith(YAML):
        return Prompts.of({0: prompt})
    path = Path(prompt.strip())
    read_head(path, "prompt")
    unit, texts = _mapping(path)
    as_given = Prompts.of(texts)  # refuses indices as they stand in the file
    if unit == "chunks":
        return as_given
    by_chunk: dict[int, str] = {}
    frame_of: dict[int, int] = {}
    for frame in sorted(texts):
        chunk = -(-frame // chunk_frames)  # frame 0 is chunk 0, and frames 1 to chunk_frames are chunk 1
        if chunk in by_chunk:
            raise ValueError(
                f"prompt: {path.name!r} begins two texts in one chunk of {chunk_frames} frames, at frames "
                f"{frame_of[chunk]} and {frame}; leave one of them out"
            )
        by_chunk[chunk], frame_of[chunk] = texts[frame], frame
    return Prompts.of(by_chunk)


def _mapping(path: Path) -> tuple[str, dict[int, str]]:
    try:
        content = path.read_text(encoding="utf-8")
        _refuse_repeated_keys(yaml.compose(content, yaml.SafeLoader))
        loaded: Any = yaml.safe_load(content)
    except (yaml.YAMLError, ValueError, OSError) as error:
        raise ValueError(
            f"prompt: {str(path)!r} is not YAML that can be read: {' '.join(str(error).split())}"
        ) from None
    if not isinstance(loaded, dict) or len(loaded) != 1 or next(iter(loaded)) not in UNITS:
        got = f"the keys {list(loaded)[:5]}" if isinstance(loaded, dict) else f"a {type(loaded).__name__}"
        raise ValueError(f"prompt: want `chunks:` or `frames:` alone in {str(path)!r}, got {got}; {EXAMPLE}")
    ((unit, texts),) = loaded.items()
    if not isinstance(texts, dict):
        raise ValueError(f"prompt: want a mapping under `{unit}:` in {str(path)!r}, got {texts!r}; {EXAMPLE}")
    for start, text in texts.items():
        if type(start) is not int or start < 0 or not isinstance(text, str):
            raise ValueError(f"prompt: want an index and its text in {str(path)!r}, got {start!r}: {text!r}; {EXAMPLE}")
    return unit, texts


def _refuse_repeated_keys(node: yaml.Node | None) -> None:
    """YAML's loader keeps the last of equal keys without a word."""
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise ValueError(f"the key {key} is there twice; leave one of them out")
        for _, value in node.value:
            _refuse_repeated_keys(value)


@dataclass(frozen=True)
class PromptSource:
    """Embeddings of the prompts of a walk.

    Attributes:
        prompts: which text describes which chunk.
        negative_text: prompt of the unconditional half of classifier-free guidance; None without guidance.
        encode: embeds texts without padding, each ``[n d]`` with ``n <= TOKENS``.
        embedded: embeddings of the texts of ``prompts``, and of ``negative_text``.
    """

    prompts: Prompts
    negative_text: str | None
    encode: EncodeTexts = field(repr=False)
    embedded: Mapping[str, Tensor] = field(repr=False)

    @classmethod
    def of(cls, prompts: Prompts, encode: EncodeTexts, negative_text: str | None = None) -> PromptSource:
        """Encode all prompts at once, so that the text encoder is loaded once at most."""
        negative = None if negative_text is None else clean_prompt(negative_text)
        return cls(prompts, negative, encode, {})._complete()

    def at(self, chunk: int) -> Float[Tensor, "512 d"]:
        """Embedding for a chunk, zeros after its last token; chunk 0 is the photo."""
        return padded(self.embedded[self.prompts.at(chunk)])

    def negative(self) -> Float[Tensor, "512 d"] | None:
        """Embedding of ``negative_text``."""
        return None if self.negative_text is None else padded(self.embedded[self.negative_text])

    def set(self, text: str, from_chunk: int) -> PromptSource:
        """A source with ``text`` from a chunk on (`Prompts.set`); this one does not change."""
        return replace(self, prompts=self.prompts.set(text, from_chunk))._complete()

    def _complete(self) -> PromptSource:
        wanted = [*self.prompts.texts, *([] if self.negative_text is None else [self.negative_text])]
        missing = [text for text in dict.fromkeys(wanted) if text not in self.embedded]
        made = dict(zip(missing, self.encode(missing), strict=True)) if missing else {}
        return replace(self, embedded={**self.embedded, **made})


@dataclass(frozen=True)
class NoPrompts:
    """What a model is given that reads no text: one token of zeros.

    Attributes:
        dim: channels of an embedded token.
    """

    dim: int

    def at(self, chunk: int) -> Float[Tensor, "1 d"]:  # noqa: ARG002
        """The same for all chunks."""
        return torch.zeros(1, self.dim)

    def negative(self) -> None:
        """There is nothing to be led away from."""


def padded(embedding: Float[Tensor, "n d"]) -> Float[Tensor, "512 d"]:
    """Zeros appended up to ``TOKENS``."""
    return torch.cat([embedding, embedding.new_zeros(TOKENS - len(embedding), embedding.shape[1])])


@dataclass(frozen=True)
class CachedTextEncoder:
    """Embeds texts by the text encoder of a diffusers folder, which is loaded only for texts that the cache lacks.

    Attributes:
        folder: has ``text_encoder/`` and ``tokenizer/``.
        dtype: precision of the encoder and of the embeddings.
        device: where the encoder runs; the embeddings are on the CPU.
        cache: None keeps nothing on disk.
    """

    folder: Path
    dtype: torch.dtype = torch.bfloat16
    device: str = "cpu"
    cache: EmbeddingCache | None = field(default_factory=EmbeddingCache)

    def has(self, texts: Sequence[str]) -> bool:
        """Whether no text has to be encoded."""
        cache, revision = self.cache, encoder_revision(self.folder)
        return cache is not None and all(
            cache.get(text, revision, str(TOKENS), str(self.dtype)) is not None for text in texts
        )

    def __call__(self, texts: Sequence[str]) -> list[Float[Tensor, "n d"]]:
        """Embeddings of cleaned texts, without padding.

        Raises:
            ValueError: a text has more than ``TOKENS`` tokens, or the folder has no text encoder that can be loaded.
            ImportError: a text has to be encoded and the packages of the extra are missing.
        """
        revision = encoder_revision(self.folder)
        key = lambda text: (text, revision, str(TOKENS), str(self.dtype))  # noqa: E731
        found = {text: self.cache.get(*key(text)) if self.cache else None for text in texts}
        missing = [text for text, embedding in found.items() if embedding is None]
        if missing:
            from diffusion.wan.text_encoder import encode  # imports transformers, and loads 10.6 GiB

            for text, embedding in zip(
                missing, encode(missing, self.folder, TOKENS, self.dtype, self.device), strict=True
            ):
                found[text] = embedding
                if self.cache:
                    self.cache.put(embedding, *key(text))
        return [embedding for text in texts if (embedding := found[text]) is not None]
