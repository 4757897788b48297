"""What a causal Wan model remembers of a walk: keys and values of latent frames, and the positions they are put at.

A remembered latent frame is one tensor (`diffusion.wan.attention.Slot`) that memory values share by reference: adding
frames copies nothing and changes no older value, and a frame that no value holds any more is freed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion.view_selection import frames_kept, frames_recalled
from diffusion.wan.attention import Slot
from geometry.camera import Camera


@dataclass(frozen=True)
class LatentPolicy:
    """Bounds of a `LatentBank`, in latent frames (4 frames of the video each). None is what the line was trained with.

    A student was trained with windows without gaps: ``nearest`` above 0 is outside of that.

    Attributes:
        sink: oldest frames that stay and are attended to for good.
        recent: newest frames that are attended to.
        nearest: other frames attended to, nearest in view to the chunk.
        bank: frames kept; None: ``sink + recent``, and twice that where ``nearest`` is above 0.
        rotary: ``relative``: positions are counted inside what is attended to, and stay in the span that the line was
            trained on however long the walk; ``absolute``: places in the walk, refused beyond that span. Equal until
            the first frame is dropped. None: ``relative``.
        diversity: share of difference from what is recalled already, against nearness (`frames_recalled`).
        trust: how far keys and values of frames after the sink are moved to the sink's mean and spread of each
            channel, 0..1 (TetherCache, arXiv 2606.13035). Wants a sink.
        context_noise: level at which generated frames are remembered, 0..1 (CausNVS, arXiv 2509.06579).
    """

    sink: int | None = None
    recent: int | None = None
    nearest: int = 0
    bank: int | None = None
    rotary: str | None = None
    diversity: float = 0.0
    trust: float = 0.0
    context_noise: float = 0.0

    def bounds(self, *, chunk: int, span: int, window: int | None = None, sink: int = 0) -> Bounds:
        """The policy with the numbers of a line filled in.

        Args:
            chunk: latents of a chunk.
            span: latents of the longest clip that the line was trained on.
            window: latents that its attention sees at once, the chunk included; None: not limited in training.
            sink: of these, how many stay from the beginning.

        Raises:
            ValueError: bounds that are negative, do not fit into each other or exceed ``span``; shares outside 0..1.
        """
        for name in ("diversity", "trust", "context_noise"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"memory.{name}: want 0..1, got {getattr(self, name)}")
        if self.rotary not in (None, "relative", "absolute"):
            raise ValueError(f"memory.rotary: want 'relative' or 'absolute', got '{self.rotary}'")
        # Latents, the chunk included, that a line without a window of its own attends to (LongLive's).
        student_window = 12
        width = min(span, student_window) if window is None else window
        first = min(3, max(width - chunk - 1, 0)) if window is None else sink
        first = first if self.sink is None else self.sink
        newest = max(width - first - self.nearest - chunk, 1) if self.recent is None else self.recent
        bank = (first + newest) * (2 if self.nearest else 1) if self.bank is None else self.bank
        if first < 0 or newest < 1 or self.nearest < 0 or bank < first + newest + self.nearest:
            raise ValueError(
                "memory: want sink >= 0, recent >= 1, nearest >= 0 and bank >= their sum, got "
                f"sink={first} recent={newest} nearest={self.nearest} bank={bank}"
            )
        if (total := first + newest + self.nearest + chunk) > span:
            raise ValueError(
                f"generator.memory: want sink + recent + nearest + the {chunk} latents of a chunk within the {span} "
                f"that this line was trained on, got {total}; lower memory.recent"
            )
        if self.trust > 0.0 and first == 0:
            raise ValueError("memory.trust: want a sink whose statistics are trusted, got sink=0; set memory.sink=1")
        rotary = self.rotary or "relative"
        return Bounds(first, newest, self.nearest, bank, rotary, self.diversity, self.trust, self.context_noise, span)


@dataclass(frozen=True)
class Bounds:
    """A `LatentPolicy` with every number known, and the ``span`` of positions that the line was trained on."""

    sink: int
    recent: int
    nearest: int
    bank: int
    rotary: str
    diversity: float
    trust: float
    context_noise: float
    span: int


@dataclass(frozen=True)
class Context:
    """What a chunk attends to besides itself.

    Attributes:
        slots: keys and values of earlier latent frames.
        positions: rotary positions of these.
        at: rotary positions of the chunk's own latent frames.
    """

    slots: tuple[Slot, ...]
    positions: tuple[int, ...]
    at: tuple[int, ...]

    @staticmethod
    def none(frames: int, first: int = 0) -> Context:
        """No earlier frames; the chunk's own ``frames`` at positions from ``first`` on."""
        return Context((), (), tuple(range(first, first + frames)))


@dataclass(frozen=True)
class Remembered:
    """A latent frame of the past.

    Attributes:
        slot: its keys (unrotated) and values.
        latent: what it was made from, ``[c h w]``, to remember it anew under another prompt.
        place: of the latent frame in the walk; the photo is 0.
        chunk: in which it was made; the photo is 0.
    """

    slot: Slot
    latent: Float[Tensor, "c h w"]
    place: int
    chunk: int


@dataclass(frozen=True)
class LatentBank:
    """The remembered latent frames, oldest first, their cameras, and the length ``unit`` for distances of views."""

    frames: tuple[Remembered, ...]
    camera: Camera
    unit: float

    def __len__(self) -> int:
        """Number of remembered latent frames."""
        return len(self.frames)

    def __getitem__(self, places: Tensor) -> LatentBank:
        """Select frames."""
        return replace(self, frames=tuple(self.frames[k] for k in places.tolist()), camera=self.camera[places])

    def extended(self, frames: Sequence[Remembered], camera: Camera, bounds: Bounds) -> LatentBank:
        """Append frames, then drop frames until ``bounds.bank`` are left (`frames_kept`).

        Without ``nearest``, what is dropped is what no chunk will attend to.
        """
        joined = LatentBank((*self.frames, *frames), Camera.concatenate([self.camera, camera]), self.unit)
        if len(joined) <= bounds.bank:
            return joined
        counts = {"bank": bounds.bank, "sink": bounds.sink, "recent": bounds.recent}
        return joined[frames_kept(joined.camera, self.unit, **counts)]

    def context(self, camera: Camera, place: int, bounds: Bounds) -> Context:
        """What a chunk attends to: sink, nearest in view and recent, and at which positions.

        Args:
            camera: of the chunk's latent frames ``[f]``.
            place: of the first of them in the walk.
            bounds: the policy.

        Raises:
            ValueError: with absolute positions, when the walk is longer than the span that the line was trained on.
        """
        recalled = self._recalled(camera, bounds)
        slots = _trusted([frame.slot for frame in recalled.frames], bounds.sink, bounds.trust)
        past, count = len(slots), len(camera)
        if bounds.rotary == "relative":
            return Context(tuple(slots), tuple(range(past)), tuple(range(past, past + count)))
        if place + count > bounds.span:
            raise ValueError(
                f"memory.rotary=absolute: want a walk within the {bounds.span} latents that this line was trained on, "
                f"got {place + count}; set memory.rotary=relative"
            )
        places = tuple(frame.place for frame in recalled.frames)
        return Context(tuple(slots), places, tuple(range(place, place + count)))

    def _recalled(self, camera: Camera, bounds: Bounds) -> LatentBank:
        if len(self) <= bounds.sink + bounds.recent + bounds.nearest:
            return self
        counts = {"sink": bounds.sink, "recent": bounds.recent, "nearest": bounds.nearest}
        return self[frames_recalled(self.camera, camera, self.unit, **counts, diversity=bounds.diversity)]

    def by_chunk(self) -> list[tuple[tuple[Remembered, ...], Camera]]:
        """The frames in groups that were made together, oldest first, with their cameras."""
        chunks = torch.tensor([frame.chunk for frame in self.frames])
        groups = [self[(chunks == chunk).nonzero()[:, 0]] for chunk in chunks.unique().tolist()]
        return [(group.frames, group.camera) for group in groups]


def _trusted(slots: list[Slot], sink: int, share: float) -> list[Slot]:
    """Slots after the first ``sink``, moved by ``share`` to the mean and spread of those, per block and channel."""
    if share == 0.0 or len(slots) <= sink:
        return slots
    trusted_KLbNHE = torch.cat(slots[:sink], dim=3).float()
    mean, spread = trusted_KLbNHE.mean(3, keepdim=True), trusted_KLbNHE.std(3, keepdim=True)

    def moved(slot: Slot) -> Slot:
        x = slot.float()
        own_mean, own_spread = x.mean(3, keepdim=True), x.std(3, keepdim=True).clamp_min(1e-6)
        return x.lerp((x - own_mean) / own_spread * spread + mean, share).to(slot)

    return [*slots[:sink], *(moved(slot) for slot in slots[sink:])]
