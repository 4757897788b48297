"""Generators: what turns a prior into finished frames and remembers them."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion.condition import Condition
from diffusion.kv_memory import KVMemory, MemoryPolicy
from diffusion.rgbd_state import encode
from geometry.frame import Chunk


@runtime_checkable
class Generator(Protocol):
    """A causal denoiser with a memory. Memories are values: nothing that is remembered changes an older memory."""

    def start(self, seed: Chunk) -> KVMemory:
        """A memory that holds the photo (chunk 0)."""
        ...

    def denoise(
        self,
        x: Float[Tensor, "t 4 h w"],
        sigma: Float[Tensor, "t 1 h w"],
        condition: Condition,
        memory: KVMemory,
    ) -> Float[Tensor, "t 4 h w"]:
        """The clean state (see `diffusion.rgbd_state.encode`) of a noisy one at the levels ``sigma``."""
        ...

    def remember(self, chunk: Chunk, memory: KVMemory) -> KVMemory:
        """The memory with a finished chunk added."""
        ...

    def rehearse(self, frames: int, size: tuple[int, int]) -> None:
        """Do the work of one `denoise` call on a blank chunk: warms up, and lets a plan time it."""
        ...


class PassthroughGenerator:
    """Returns the prior: no diffusion, for ablations and tests."""

    def start(self, seed: Chunk) -> KVMemory:
        """A memory that knows only the unit and the cameras."""
        return _empty_memory(seed, blocks=0, tokens=0, channels=0, dtype=torch.float32).extended(
            *_no_keys(seed), seed.frames.camera, MemoryPolicy()
        )

    def denoise(
        self,
        x: Float[Tensor, "t 4 h w"],  # noqa: ARG002
        sigma: Float[Tensor, "t 1 h w"],  # noqa: ARG002
        condition: Condition,
        memory: KVMemory,
    ) -> Float[Tensor, "t 4 h w"]:
        """The prior, encoded."""
        return encode(condition.prior.rgb, condition.prior.depth, memory.unit)

    def remember(self, chunk: Chunk, memory: KVMemory) -> KVMemory:
        """The memory with the chunk's cameras added."""
        return memory.extended(*_no_keys(chunk), chunk.frames.camera, MemoryPolicy())

    def rehearse(self, frames: int, size: tuple[int, int]) -> None:
        """Nothing to warm up."""


def _empty_memory(seed: Chunk, blocks: int, tokens: int, channels: int, dtype: torch.dtype) -> KVMemory:
    """A memory without frames, in the unit of the photo: its median depth where it is known and not sky."""
    frames = seed.frames
    usable = frames.valid & ~frames.sky
    unit = frames.depth[usable].median().item() if usable.any() else 1.0
    none = torch.zeros(0, blocks, tokens, channels, dtype=dtype)
    return KVMemory(none, none, frames.camera[:0], unit)


def _no_keys(chunk: Chunk) -> tuple[Tensor, Tensor]:
    none = torch.zeros(len(chunk.frames), 0, 0, 0)
    return none, none
