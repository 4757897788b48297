"""What the page is shown, and what it asks for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8

from geometry.camera import Camera

Shape = Literal["splats", "points"]
Tint = Literal["color", "confidence", "provenance", "chunk"]
BUSY = "the queue is full; wait until something is done, or press Stop"


@dataclass(frozen=True)
class View:
    """Where somebody looks from, in the page.

    Attributes:
        world_from_camera: rigid, OpenCV axes, world, scene units, ``[4 4]`` float64.
        fov_deg: vertical field of view, degrees.
        time_s: when it was taken, seconds of any clock.
    """

    world_from_camera: Float[np.ndarray, "4 4"]
    fov_deg: float
    time_s: float


@dataclass(frozen=True)
class Status:
    """One moment of the walk.

    Attributes:
        title: name of the world; empty before there is one.
        doing: what is done now, or what can be done next.
        figures: a line of numbers.
        share: how much of the present task is done, 0..1; None while nothing is done.
    """

    title: str = ""
    doing: str = ""
    figures: str = ""
    share: float | None = None


@dataclass(frozen=True)
class Thumbnail:
    """A finished chunk in the history.

    Attributes:
        chunk: its index; 0 is the photo.
        picture: its last frame, reduced, ``[h w 3]`` bytes.
        camera: that frame's camera, no batch axis.
        caption: a few words.
    """

    chunk: int
    picture: UInt8[np.ndarray, "h w 3"]
    camera: Camera
    caption: str


@dataclass(frozen=True)
class Tile:
    """A world that was found.

    Attributes:
        folder: by which the walk knows it.
        name: of the world.
        picture: the photo, reduced, ``[h w 3]`` bytes; None for a damaged world, which cannot be opened.
        line: what it is, or what is wrong with it.
        is_unfinished: whether planned frames are left.
    """

    folder: str
    name: str
    picture: UInt8[np.ndarray, "h w 3"] | None
    line: str
    is_unfinished: bool


@dataclass(frozen=True)
class Forecast:
    """What a planned way would show, before anything is made.

    Attributes:
        unknown: share of each view that the world does not show yet, 0..1, at evenly spaced cameras of the way.
        collides: at which of them the camera is behind a surface of the photo.
        line: the same in words, with frames and seconds.
        sheet: some of the views, magenta where unknown, ``[h w 3]`` bytes; None where none were rendered.
    """

    unknown: tuple[float, ...]
    collides: tuple[bool, ...]
    line: str
    sheet: UInt8[np.ndarray, "h w 3"] | None = None


@dataclass(frozen=True)
class Making:
    """Settings of a world that is to be made from a photo.

    Attributes:
        photo: content of the uploaded file.
        name: its name, as the browser tells it.
        settings: of `worldwarp explore`, by name.
    """

    photo: bytes
    name: str
    settings: dict[str, str]


@dataclass(frozen=True)
class Choices:
    """What the page offers.

    Attributes:
        groups: options of the parts of the loop, by name of the part; the first is the default.
        presets: named moves, with a description.
        formats: export formats, with what people call them.
        settings: of a new world, as they are at first: ``quality``, ``size`` and so on; texts.
        fps: frames per second of a walk.
    """

    groups: dict[str, list[str]] = field(default_factory=dict)
    presets: dict[str, str] = field(default_factory=dict)
    formats: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    fps: float = 16.0


@runtime_checkable
class Actions(Protocol):
    """What the page asks for. Every method returns at once: None, or a sentence that says why it is refused."""

    def looked(self, view: View) -> None:
        """Somebody who steers looks from here now."""
        ...

    def grow(self, view: View) -> str | None:
        """Continue the world from its last camera to a view."""
        ...

    def follow(self, unknown_share: float | None) -> str | None:
        """Grow by itself wherever more than a share of the view is unknown; None ends it."""
        ...

    def finish(self) -> str | None:
        """Walk the rest of the planned path."""
        ...

    def stop(self) -> str | None:
        """End what is done after the present chunk, and drop what waits."""
        ...

    def walk(self, cameras: Camera) -> str | None:
        """Continue the world along cameras ``[t]``."""
        ...

    def forecast(self, cameras: Camera) -> str | None:
        """Estimate what a way would show; the answer is a `Forecast`."""
        ...

    def undo(self) -> str | None:
        """Take back the last chunk, or the last forgetting."""
        ...

    def branch(self, chunk: int) -> str | None:
        """Go on in a new world with the chunks up to this one."""
        ...

    def forget_chunk(self, chunk: int) -> str | None:
        """Remove what a chunk added."""
        ...

    def forget_box(self, low: tuple[float, float, float], high: tuple[float, float, float]) -> str | None:
        """Remove what is in a box, world, scene units."""
        ...

    def plan(self, making: Making) -> str | None:
        """Prepare a world and tell what it will cost; the answer is a text."""
        ...

    def make(self, making: Making) -> str | None:
        """Make a world of a photo, and show it instead of the present one."""
        ...

    def list_worlds(self) -> str | None:
        """Look for worlds that can be opened; the answer is their tiles."""
        ...

    def open(self, folder: str, go_on: bool) -> str | None:
        """Show a world that was found instead of the present one, and finish its path if ``go_on``."""
        ...

    def prompt(self, text: str) -> str | None:
        """Describe the chunks that come by a text."""
        ...

    def export(self, formats: tuple[str, ...], send: Any) -> str | None:
        """Write the world for other programs, and call ``send(name, content)`` with each file."""
        ...

    def inspect(self) -> str | None:
        """Open the Rerun view of this walk; the answer is its address."""
        ...
