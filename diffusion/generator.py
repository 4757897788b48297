"""The generator protocol: what the loop asks of a model that completes the views of a world.

A generator owns the state space it works in (RGB-D pixels, or latents of a video autoencoder), its sampling and its
memory of past chunks. The loop gives it the rendered guide, the guide with filled holes and the noise map, and receives
finished frames. `PassthroughGenerator` returns the prior; `diffusion.retouch` and `diffusion.wan` hold networks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from diffusion.condition import Condition
from diffusion.memory_plan import MemoryPlan
from diffusion.noise_map import NoiseConfig
from geometry.frame import Chunk

Memory: TypeAlias = Any  # what a generator knows of past chunks; only the generator looks into it


@dataclass(frozen=True)
class Cadence:
    """How a generator divides a path and which frames it takes.

    Attributes:
        frames: frames of one chunk. A shorter chunk is allowed; it may cost as much as a whole one.
        longest: most frames that a chunk may have; None: any number.
        size_multiple: height and width of a frame are multiples of it, pixels.
        pixels: pixels of a frame that the generator was trained for; None: any.
    """

    frames: int = 8
    longest: int | None = None
    size_multiple: int = 16
    pixels: int | None = None


@dataclass(frozen=True)
class Capabilities:
    """What a generator does itself.

    Attributes:
        depth: makes depth and sky. If not, the loop estimates both and aligns the depth to the guide.
        wide: completes one wide view of another size: the margin of the photo and outpainted sides. If not, the loop
            leaves them to the chunks.
        noise: kind and levels of the noise map where the configuration gives none.
        per_view: completes single views of the world, and what it makes stands still. The loop then asks only for views
            with holes, puts them into the world and renders all frames from there. If not, every frame is shown as the
            generator makes it.
    """

    depth: bool = True
    wide: bool = True
    noise: NoiseConfig = NoiseConfig()  # noqa: RUF009 (frozen)
    per_view: bool = False


@dataclass(frozen=True)
class Made:
    """The frames of one chunk, as a generator made them.

    Attributes:
        rgb: colors in 0..1, ``[t 3 h w]``.
        depth: z in scene units, positive everywhere, ``[t 1 h w]``; None if the generator makes none.
        sky: the sky mask, ``[t 1 h w]``; None if the generator makes none.
        carried: tensors by name that are stored with the chunk, so that `Generator.rebuild` restores the memory to the
            bit; empty if the frames themselves are enough.
    """

    rgb: Float[Tensor, "t 3 h w"]
    depth: Float[Tensor, "t 1 h w"] | None
    sky: Bool[Tensor, "t 1 h w"] | None
    carried: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class MadeRGBD(Made):
    """`Made` by a generator of RGB-D frames."""

    depth: Float[Tensor, "t 1 h w"]
    sky: Bool[Tensor, "t 1 h w"]


@runtime_checkable
class TakesPrompts(Protocol):
    """A generator that text describes the frames to."""

    @property
    def prompts(self) -> Mapping[int, str]:
        """Texts by the chunk at which each begins; chunk 0 is the photo."""
        ...

    def prompted(self, text: str, from_chunk: int) -> Generator:
        """The generator with another text from a chunk on; this one does not change.

        Raises:
            ValueError: a text that it cannot take.
        """
        ...


@runtime_checkable
class Licensed(Protocol):
    """A generator whose weights have terms of their own."""

    @property
    def terms(self) -> str:
        """Model, license and what it allows, in a line that a user is shown."""
        ...


@runtime_checkable
class Generator(Protocol):
    """Completes chunks of frames, one after the other. Memories are immutable: `remember` returns a new one."""

    @property
    def cadence(self) -> Cadence:
        """How the loop divides a path for this generator."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """What the generator does itself."""
        ...

    def start(self, seed: Chunk) -> Memory:
        """The memory after the photo (chunk 0)."""
        ...

    def make(self, condition: Condition, sigma: Float[Tensor, "t 1 h w"], memory: Memory, rng: torch.Generator) -> Made:
        """Make the frames of a chunk.

        Args:
            condition: guide and prior of ``t`` cameras.
            sigma: noise level at which each pixel starts, 0..1.
            memory: of past chunks; not changed.
            rng: the only source of randomness; equal states give equal frames.
        """
        ...

    def remember(self, chunk: Chunk, made: Made, memory: Memory) -> Memory:
        """The memory after a finished chunk: its frames as they were stored, and as the generator made them.

        A generator of single views gets the frames at the size at which it works, and for ``made`` the same again.
        """
        ...

    def rebuild(self, chunks: Iterable[tuple[Chunk, dict[str, Tensor]]]) -> Memory:
        """The memory after stored chunks, each with what it ``carried``, to the same bits as `start` and `remember`.

        The first chunk is the photo.
        """
        ...

    def rehearse(self, frames: int, size: tuple[int, int]) -> None:
        """Make one blank chunk of ``frames`` frames of ``size = (H, W)``: warm-up, and for timing."""
        ...

    def plan(self, size: tuple[int, int], frames: int) -> MemoryPlan:
        """The memory that the generator needs, besides the loop's, before it loads anything large.

        Args:
            size: frame size ``(H, W)``.
            frames: frames of the path, the photo included.
        """
        ...
