"""The generator that returns its prior: no network, for ablations and tests."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion.condition import Condition
from diffusion.generator import Cadence, Capabilities, Made
from diffusion.kv_memory import KVMemory
from diffusion.memory_plan import MemoryPlan, Stage
from diffusion.rgbd_state import encode
from diffusion.sampler import sample
from geometry.frame import Chunk


class PassthroughGenerator:
    """Returns the inpainted prior unchanged."""

    cadence = Cadence(frames=8, size_multiple=16)
    capabilities = Capabilities(per_view=True)

    def start(self, seed: Chunk) -> KVMemory:
        """An empty memory in the photo's unit."""
        return KVMemory.empty(seed)

    def denoise(
        self,
        x: Float[Tensor, "t 4 h w"],  # noqa: ARG002
        sigma: Float[Tensor, "t 1 h w"],  # noqa: ARG002
        condition: Condition,
        memory: KVMemory,
    ) -> Float[Tensor, "t 4 h w"]:
        """The prior, encoded."""
        return encode(condition.prior.rgb, condition.prior.depth, memory.unit)

    def make(
        self, condition: Condition, sigma: Float[Tensor, "t 1 h w"], memory: KVMemory, rng: torch.Generator
    ) -> Made:
        """The prior, by way of the sampler: the same random numbers are drawn as for a network."""
        return sample(self, condition, sigma, memory, rng)

    def remember(self, chunk: Chunk, made: Made, memory: KVMemory) -> KVMemory:  # noqa: ARG002
        """The memory unchanged."""
        return memory

    def rebuild(self, chunks: Iterable[tuple[Chunk, dict[str, Tensor]]]) -> KVMemory:
        """An empty memory in the photo's unit."""
        return self.start(next(iter(chunks))[0])

    def rehearse(self, frames: int, size: tuple[int, int]) -> None:
        """Nothing to warm up."""

    def plan(self, size: tuple[int, int], frames: int) -> MemoryPlan:  # noqa: ARG002
        """Nothing besides the loop."""
        return MemoryPlan((Stage("denoise", {}),))
