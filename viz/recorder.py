"""What a recorder is told. The loop's side of every viewer, file and gauge."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from geometry.camera import Camera
from geometry.frame import Frame, Guide
from geometry.primitives import Gaussians, Points

Level = Literal["INFO", "WARN", "ERROR"]


@dataclass(frozen=True)
class ChunkEvent:
    """Everything one chunk produced, as far as somebody who looks on is concerned.

    Attributes:
        index: the chunk's position in the world's history; the photo is 0, so the first generated chunk is 1.
        first_frame: global number of the chunk's first frame; the photo is frame 0.
        frames: the generated frames, batch ``[t]``.
        guide: what the cache showed to their cameras before they were made, batch ``[t]``; None, like ``prior_rgb``
            and ``sigma``, for a chunk that is read from a stored world, which does not keep them.
        prior_rgb: the guide with its holes filled by copied texture, 0..1, ``[t 3 h w]``.
        sigma: noise level the sampler started from, 0 = kept, 1 = unknown, ``[t 1 h w]``.
        added: the primitives that this chunk put into the cache (only what is new).
        names: their names, ascending.
        removed: names of those that it took away, ascending.
        timings_s: seconds per stage, by stage name.
        gauges: figures of this chunk by name; ``viz.entities.GAUGES`` lists those that have a plot of their own.
    """

    index: int
    first_frame: int
    frames: Frame
    guide: Guide | None
    prior_rgb: Float[Tensor, "t 3 h w"] | None
    sigma: Float[Tensor, "t 1 h w"] | None
    added: Points | Gaussians
    names: Int[Tensor, "n"]
    removed: Int[Tensor, "r"]
    timings_s: dict[str, float] = field(default_factory=dict)
    gauges: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class StartEvent:
    """What there is before the first chunk.

    Attributes:
        photo: the photo as a frame, batch ``[1]``.
        picture: the photo's colors as fine as they are kept, 0..1, ``[3 h w]``.
        added: the primitives that the photo put into the cache (on resume: all that the cache holds).
        names: their names, ascending.
        planned: the cameras of the whole walk, batch ``[n]``.
        settings_markdown: what the run was asked to do, for a human.
    """

    photo: Frame
    picture: Float[Tensor, "3 h w"]
    added: Points | Gaussians
    names: Int[Tensor, "n"]
    planned: Camera
    settings_markdown: str


@dataclass(frozen=True)
class UndoEvent:
    """The last chunk was taken back.

    Attributes:
        index: of the chunk that is gone.
        first_frame: global number of its first frame.
        frames: how many frames it had.
        camera: where the walk stands now, no batch axis.
        left: the primitives that the cache holds now.
        names: their names, ascending.
    """

    index: int
    first_frame: int
    frames: int
    camera: Camera
    left: Points | Gaussians
    names: Int[Tensor, "n"]


@runtime_checkable
class Recorder(Protocol):
    """Receives the events of a run. No method raises or waits for a viewer once the recorder exists.

    Attributes:
        how_to_look: tells the user where the run is shown or recorded; an address has a line of its own.
    """

    how_to_look: str

    def begin(self, event: StartEvent) -> None:
        """Tell what there is before the first chunk."""
        ...

    def chunk(self, event: ChunkEvent) -> None:
        """Tell what a chunk produced."""
        ...

    def undo(self, event: UndoEvent) -> None:
        """Tell that the last chunk was taken back."""
        ...

    def text(self, message: str, level: Level = "INFO") -> None:
        """Tell a line for the log."""
        ...

    def close(self) -> None:
        """Write out what is pending, within seconds. May be called twice."""
        ...


class NullRecorder:
    """Looks away: ``viewer=none``."""

    how_to_look = "nothing is shown or recorded"

    def begin(self, event: StartEvent) -> None:
        """Ignore it."""

    def chunk(self, event: ChunkEvent) -> None:
        """Ignore it."""

    def undo(self, event: UndoEvent) -> None:
        """Ignore it."""

    def text(self, message: str, level: Level = "INFO") -> None:
        """Ignore it."""

    def close(self) -> None:
        """Nothing to do."""
