"""Bounded key/value memory of a causal generator: what past frames contribute to attention.

The first frame is always kept (the *sink*), the newest frames are kept while they are recent, and of the others the
memory keeps those whose views differ most. A chunk attends to the sink, the recent frames and the other frames nearest
in view. Generated frames can be remembered slightly noised, after CausNVS (arXiv 2509.06579, section 3).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion.view_selection import frames_kept, frames_recalled
from geometry.camera import Camera
from geometry.frame import Chunk


@dataclass(frozen=True)
class MemoryPolicy:
    """Bounds of a `KVMemory`. Figures: ``docs/results.md``, *Memory policies* (three clips, ten chunks out and back).

    Attributes:
        bank: frames kept, the sink and the recent ones included; 0 turns the memory off: no keys are stored and
            `Generator.remember` runs no network. Default 0: for the packaged network no memory is within the interval
            of the nearest views (PSNR -.03 +- .07 dB, delta1 -.001 +- .012). A causal network that
            was trained with memory needs it; 24 was used for every figure.
        recent: newest frames that are always kept and always attended to. Default 2; not tuned.
        nearest: other frames attended to, nearest in view first. Default 2; the photo alone (0 of each) is within the
            interval (-.10 +- .40 dB).
        context_noise: noise level in 0..1 at which generated frames are remembered. Default 0; .1 gains .02 +- .03 dB.
    """

    bank: int = 0
    recent: int = 2
    nearest: int = 2
    context_noise: float = 0.0

    def __post_init__(self) -> None:
        """Reject a bank that cannot hold the sink and the recent frames, and a level outside 0..1."""
        if not 0.0 <= self.context_noise <= 1.0:
            raise ValueError(f"memory policy: want context_noise in 0..1, got {self.context_noise}")
        if self.recent < 1 or self.nearest < 0 or (self.bank != 0 and self.bank < 1 + self.recent):
            raise ValueError(
                "memory policy: want recent >= 1, nearest >= 0 and bank 0 (off) or >= 1 + recent, "
                f"got bank={self.bank} recent={self.recent} nearest={self.nearest}"
            )


@dataclass(frozen=True)
class KVMemory:
    """Keys and values of past frames, oldest first; frame 0 is the photo.

    Attributes:
        keys: ``[frames blocks tokens channels]``, without any camera transform, so that they do not depend on a world
            frame.
        values: like ``keys``.
        camera: cameras of the frames, ``[frames]``.
        unit: median depth of the photo in scene units: the length the generator works in.
    """

    keys: Float[Tensor, "f l n c"]
    values: Float[Tensor, "f l n c"]
    camera: Camera
    unit: float

    @staticmethod
    def empty(seed: Chunk, keys: tuple[int, int, int] = (0, 0, 0), dtype: torch.dtype = torch.float32) -> KVMemory:
        """A memory without frames, in the unit of the photo.

        Args:
            seed: the photo (chunk 0); its median depth is the unit.
            keys: blocks, tokens and channels of the keys of each frame to come.
            dtype: of the keys.
        """
        none = torch.zeros(0, *keys, dtype=dtype)
        return KVMemory(none, none, seed.frames.camera[:0], seed.frames.median_depth())

    def __len__(self) -> int:
        """Number of remembered frames."""
        return self.keys.shape[0]

    def __getitem__(self, index: Tensor | slice) -> KVMemory:
        """Select frames."""
        return replace(self, keys=self.keys[index], values=self.values[index], camera=self.camera[index])

    def extended(
        self, keys: Float[Tensor, "t l n c"], values: Float[Tensor, "t l n c"], camera: Camera, policy: MemoryPolicy
    ) -> KVMemory:
        """Append ``t`` frames, then drop frames until ``policy.bank`` are left.

        The frame whose view is nearest to that of another frame is dropped first; the sink and the newest
        ``policy.recent`` frames are never dropped.

        Raises:
            ValueError: for another number of tokens, blocks or channels than already remembered.
        """
        if keys.shape[1:] != self.keys.shape[1:]:
            raise ValueError(
                f"memory: want frames of [blocks tokens channels] = {list(self.keys.shape[1:])}, got "
                f"{list(keys.shape[1:])}; a walk keeps one frame size and one generator"
            )
        joined = KVMemory(
            torch.cat([self.keys, keys.to(self.keys)]),
            torch.cat([self.values, values.to(self.values)]),
            Camera.concatenate([self.camera, camera]),
            self.unit,
        )
        if len(joined) <= policy.bank:
            return joined
        return joined[frames_kept(joined.camera, self.unit, bank=policy.bank, sink=1, recent=policy.recent)]

    def recall(self, camera: Camera, policy: MemoryPolicy) -> KVMemory:
        """The frames that a chunk seen from ``camera [t]`` attends to, oldest first: sink, nearest in view, recent."""
        if len(self) <= 1 + policy.recent + policy.nearest:
            return self
        counts = {"sink": 1, "recent": policy.recent, "nearest": policy.nearest}
        return self[frames_recalled(self.camera, camera, self.unit, **counts)]

    def to_tensors(self) -> dict[str, Tensor]:
        """Everything as named tensors (for safetensors files); `from_tensors` restores the same bits."""
        return {
            "keys": self.keys,
            "values": self.values,
            "world_from_camera": self.camera.world_from_camera,
            "focal_px": self.camera.focal_px,
            "center_px": self.camera.center_px,
            "size": torch.tensor(self.camera.size),
            "unit": torch.tensor(self.unit, dtype=torch.float64),
        }

    @staticmethod
    def from_tensors(tensors: dict[str, Tensor]) -> KVMemory:
        """Inverse of `to_tensors`.

        Raises:
            ValueError: when a tensor is missing or the frame counts disagree.
        """
        wanted = {"keys", "values", "world_from_camera", "focal_px", "center_px", "size", "unit"}
        if missing := sorted(wanted - tensors.keys()):
            raise ValueError(f"memory: want tensors {sorted(wanted)}, missing {missing}; restore the world from a copy")
        frames = {name: len(tensors[name]) for name in sorted(wanted - {"size", "unit"})}
        if len(set(frames.values())) != 1:
            raise ValueError(f"memory: want the same number of frames in every tensor, got {frames}")
        height, width = tensors["size"].tolist()
        camera = Camera(tensors["world_from_camera"], tensors["focal_px"], tensors["center_px"], (height, width))
        return KVMemory(tensors["keys"], tensors["values"], camera, tensors["unit"].item())
