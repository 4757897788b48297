"""What the generator remembers: keys and values of finished frames, bounded, chosen by view.

The first frame stays for ever (the *sink*), the *recent* frames stay while they are recent, and of the others the bank
keeps those that show something different. A new chunk attends to the sink, the recent frames and the *nearest* other
views. Three numbers of the policy change that: ``diversity`` recalls by maximal marginal relevance, ``trust`` moves
what generated frames left towards the statistics of the photo (both after TetherCache, arXiv 2606.13035), and
``context_noise`` remembers generated frames slightly noised (CausNVS, arXiv 2509.06579, section 3).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from geometry.camera import Camera


@dataclass(frozen=True)
class MemoryPolicy:
    """Bounds of a `KVMemory`, in frames.

    Attributes:
        bank: frames kept, the sink and the recent ones included.
        recent: newest frames that are always kept and always attended to.
        nearest: other frames attended to, nearest in view first.
        diversity: share of difference from what is already recalled against nearness to the chunk, 0..1; 0 recalls
            the nearest.
        trust: how far keys and values of later frames are moved to the photo's mean and spread, 0..1.
        context_noise: noise level at which generated frames are remembered, 0..1.
    """

    bank: int = 24
    recent: int = 2
    nearest: int = 2
    diversity: float = 0.0
    trust: float = 0.0
    context_noise: float = 0.0

    def __post_init__(self) -> None:
        """Refuse bounds that leave no room for the sink and the recent frames, and shares outside 0..1."""
        for name in ("diversity", "trust", "context_noise"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"memory policy: want {name} in 0..1, got {getattr(self, name)}")
        if self.recent < 1 or self.nearest < 0 or self.bank < 1 + self.recent:
            raise ValueError(
                "memory policy: want recent >= 1, nearest >= 0 and bank >= 1 + recent, "
                f"got bank={self.bank} recent={self.recent} nearest={self.nearest}"
            )


@dataclass(frozen=True)
class KVMemory:
    """Keys and values of past frames, oldest first; frame 0 is the photo.

    Attributes:
        keys: ``[frames blocks tokens channels]``, before any camera is applied, so that they outlive every world frame.
        values: like ``keys``.
        camera: cameras of the frames, ``[frames]``.
        unit: median depth of the photo in scene units: the length the generator works in.
    """

    keys: Float[Tensor, "f l n c"]
    values: Float[Tensor, "f l n c"]
    camera: Camera
    unit: float

    def __len__(self) -> int:
        """Number of remembered frames."""
        return self.keys.shape[0]

    def __getitem__(self, index: Tensor | slice) -> KVMemory:
        """Select frames."""
        return replace(self, keys=self.keys[index], values=self.values[index], camera=self.camera[index])

    def extended(
        self, keys: Float[Tensor, "t l n c"], values: Float[Tensor, "t l n c"], camera: Camera, policy: MemoryPolicy
    ) -> KVMemory:
        """Remember ``t`` more frames and forget what ``policy`` has no room for.

        Forgotten first is the frame whose view is most like that of another remembered frame, never the sink nor one of
        the newest ``policy.recent``.

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
        distance = view_distance(joined.camera, joined.camera, self.unit).double()
        distance.fill_diagonal_(torch.inf)
        kept = torch.ones(len(joined), dtype=torch.bool)
        for _ in range(len(joined) - policy.bank):
            nearest = distance.masked_fill(~kept[None, :], torch.inf).amin(dim=1)
            nearest[~kept] = torch.inf
            nearest[0] = nearest[-policy.recent :] = torch.inf
            kept[nearest.argmin()] = False
        return joined[kept.nonzero()[:, 0]]

    def recall(self, camera: Camera, policy: MemoryPolicy) -> KVMemory:
        """The frames that a chunk seen from ``camera [t]`` attends to, oldest first."""
        if len(self) <= 1 + policy.recent + policy.nearest:
            return self._trusted(policy.trust)
        apart = view_distance(self.camera, self.camera, self.unit)
        to_chunk = view_distance(self.camera, camera, self.unit).amin(dim=1)
        chosen = torch.zeros(len(self), dtype=torch.bool)
        chosen[0] = chosen[-policy.recent :] = True
        for _ in range(policy.nearest):
            redundant = apart[:, chosen].amin(dim=1)
            score = (1.0 - policy.diversity) * to_chunk - policy.diversity * redundant
            chosen[score.masked_fill(chosen, torch.inf).argmin()] = True
        return self[chosen.nonzero()[:, 0]]._trusted(policy.trust)

    def _trusted(self, share: float) -> KVMemory:
        """Keys and values of the frames after the first, moved to its mean and spread per block and channel."""
        if share == 0.0 or len(self) < 2:
            return self

        def moved(x_FLNC: Tensor) -> Tensor:
            mean, spread = x_FLNC.mean(2, keepdim=True), x_FLNC.std(2, keepdim=True).clamp_min(1e-6)
            return x_FLNC.lerp((x_FLNC - mean) / spread * spread[:1] + mean[:1], share)

        return replace(
            self,
            keys=torch.cat([self.keys[:1], moved(self.keys)[1:]]),
            values=torch.cat([self.values[:1], moved(self.values)[1:]]),
        )

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
        """Restore what `to_tensors` gave.

        Raises:
            ValueError: when a tensor is missing or the frame counts disagree.
        """
        wanted = {"keys", "values", "world_from_camera", "focal_px", "center_px", "size", "unit"}
        if missing := sorted(wanted - tensors.keys()):
            raise ValueError(f"memory: want tensors {sorted(wanted)}, missing {missing}; the world is incomplete")
        frames = {name: len(tensors[name]) for name in sorted(wanted - {"size", "unit"})}
        if len(set(frames.values())) != 1:
            raise ValueError(f"memory: want the same number of frames in every tensor, got {frames}")
        height, width = tensors["size"].tolist()
        camera = Camera(tensors["world_from_camera"], tensors["focal_px"], tensors["center_px"], (height, width))
        return KVMemory(tensors["keys"], tensors["values"], camera, tensors["unit"].item())


def view_distance(a: Camera, b: Camera, unit: float) -> Float[Tensor, "a b"]:
    """How differently two cameras look: distance of the centers in units plus one minus the cosine of their axes."""
    apart = (a.position[:, None] - b.position[None]).norm(dim=-1) / unit
    axes = a.world_from_camera[:, :3, 2] @ b.world_from_camera[:, :3, 2].T
    return apart + (1.0 - axes)
