"""The generator protocol, and the generator that returns its prior."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion.condition import Condition
from diffusion.kv_memory import KVMemory
from diffusion.rgbd_state import encode, median_depth
from geometry.frame import Chunk


@runtime_checkable
class Generator(Protocol):
    """A causal RGB-D denoiser with a key/value memory. Memories are immutable; `remember` returns a new one."""

    def start(self, seed: Chunk) -> KVMemory:
        """The memory after the photo (chunk 0)."""
        ...

    def denoise(
        self,
        x: Float[Tensor, "t 4 h w"],
        sigma: Float[Tensor, "t 1 h w"],
        condition: Condition,
        memory: KVMemory,
    ) -> Float[Tensor, "t 4 h w"]:
        """Predict the clean state (see `diffusion.rgbd_state.encode`) of ``x``, which is at noise levels ``sigma``."""
        ...

    def remember(self, chunk: Chunk, memory: KVMemory) -> KVMemory:
        """The memory after a finished chunk."""
        ...

    def rehearse(self, frames: int, size: tuple[int, int]) -> None:
        """Run one `denoise` on a blank chunk of ``frames`` frames of ``size = (H, W)``: warm-up, and for timing."""
        ...


class PassthroughGenerator:
    """Returns the inpainted prior unchanged: no network, for ablations and tests."""

    def start(self, seed: Chunk) -> KVMemory:
        """An empty memory in the photo's unit."""
        return empty_memory(seed)

    def denoise(
        self,
        x: Float[Tensor, "t 4 h w"],  # noqa: ARG002
        sigma: Float[Tensor, "t 1 h w"],  # noqa: ARG002
        condition: Condition,
        memory: KVMemory,
    ) -> Float[Tensor, "t 4 h w"]:
        """The prior, encoded."""
        return encode(condition.prior.rgb, condition.prior.depth, memory.unit)

    def remember(self, chunk: Chunk, memory: KVMemory) -> KVMemory:  # noqa: ARG002
        """The memory unchanged."""
        return memory

    def rehearse(self, frames: int, size: tuple[int, int]) -> None:
        """Nothing to warm up."""


def empty_memory(seed: Chunk, keys: tuple[int, int, int] = (0, 0, 0), dtype: torch.dtype = torch.float32) -> KVMemory:
    """A memory without frames, in the unit of the photo.

    Args:
        seed: the photo (chunk 0); its median depth is the unit.
        keys: blocks, tokens and channels of the keys of each frame to come.
        dtype: of the keys.
    """
    none = torch.zeros(0, *keys, dtype=dtype)
    return KVMemory(none, none, seed.frames.camera[:0], median_depth(seed.frames))
