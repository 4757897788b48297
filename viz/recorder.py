"""Events of a run, and the `Recorder` protocol that receives them."""

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
    """What one chunk produced, for recorders.

    Attributes:
        index: index of the chunk in the world; the photo is 0, the first generated chunk 1.
        first_frame: global number of the chunk's first frame; the photo is frame 0.
        frames: the generated frames, batch ``[t]``.
        guide: rendered view of the cache at their cameras before the chunk, ``[t]``, at the generator's size; None,
            like ``prior_rgb`` and ``sigma``, for a chunk of a stored world, which does not store them.
        prior_rgb: the guide with its holes inpainted, 0..1, ``[t 3 h2 w2]``.
        sigma: noise level that the sampler started from, 0 = kept, 1 = unknown, ``[t 1 h2 w2]``.
        added: the primitives that this chunk added to the cache.
        ids: their ids, ascending.
        removed: ids of the primitives that it retired, ascending.
        timings_s: seconds per stage, by stage name.
        gauges: metrics of this chunk by name; ``viz.entities.GAUGES`` lists those with a plot.
    """

    index: int
    first_frame: int
    frames: Frame
    guide: Guide | None
    prior_rgb: Float[Tensor, "t 3 h2 w2"] | None
    sigma: Float[Tensor, "t 1 h2 w2"] | None
    added: Points | Gaussians
    ids: Int[Tensor, "n"]
    removed: Int[Tensor, "r"]
    timings_s: dict[str, float] = field(default_factory=dict)
    gauges: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class StartEvent:
    """The world before the first chunk.

    Attributes:
        photo: the photo as a frame, batch ``[1]``.
        picture: the photo's colors at the stored resolution, 0..1, ``[3 h w]``.
        added: the primitives of the photo (on resume: all of the cache).
        ids: their ids, ascending.
        planned: the cameras of the whole path, batch ``[n]``.
        settings_markdown: settings of the run, Markdown.
    """

    photo: Frame
    picture: Float[Tensor, "3 h w"]
    added: Points | Gaussians
    ids: Int[Tensor, "n"]
    planned: Camera
    settings_markdown: str


@dataclass(frozen=True)
class UndoEvent:
    """The last chunk was undone.

    Attributes:
        index: of the undone chunk.
        first_frame: global number of its first frame.
        frames: how many frames it had.
        camera: last camera that is left, no batch axis.
        left: the primitives of the cache after the undo.
        ids: their ids, ascending.
    """

    index: int
    first_frame: int
    frames: int
    camera: Camera
    left: Points | Gaussians
    ids: Int[Tensor, "n"]


@runtime_checkable
class Recorder(Protocol):
    """Receives the events of a run. No method raises or waits for a viewer once the recorder exists.

    Attributes:
        how_to_look: text for the user: where the run is shown or recorded; an address is on its own line.
    """

    how_to_look: str

    def begin(self, event: StartEvent) -> None:
        """Receive the world before the first chunk."""
        ...

    def chunk(self, event: ChunkEvent) -> None:
        """Receive a finished chunk."""
        ...

    def undo(self, event: UndoEvent) -> None:
        """Receive that the last chunk was undone."""
        ...

    def text(self, message: str, level: Level = "INFO") -> None:
        """Receive a line for the log."""
        ...

    def close(self) -> None:
        """Write what is pending, within seconds. May be called twice."""
        ...


class NullRecorder:
    """Ignores all events: ``viewer=none``."""

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
