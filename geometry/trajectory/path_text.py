"""Parser of path expressions, without torch: names of moves, their defaults, and their combinations."""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass
from pathlib import Path

PARAMETERS = ("distance", "angle_deg", "frames")


@dataclass(frozen=True)
class Preset:
    """A named move and its defaults; a default of None means that the move lacks the parameter.

    Attributes:
        description: one line for the help text.
        distance: default distance in median depths of the photo.
        angle_deg: default angle in degrees.
        frames: default number of cameras, the first one included.
    """

    description: str
    distance: float | None = None
    angle_deg: float | None = None
    frames: int = 49


PRESETS: dict[str, Preset] = {
    "forward": Preset("move straight ahead", distance=0.35),
    "back": Preset("move straight back", distance=0.35),
    "left": Preset("move to the left, looking ahead", distance=0.3),
    "right": Preset("move to the right, looking ahead", distance=0.3),
    "up": Preset("rise, looking ahead", distance=0.2),
    "down": Preset("sink, looking ahead", distance=0.2),
    "pan": Preset("turn the view to the right on the spot (negative: left)", angle_deg=25.0),
    "tilt": Preset("turn the view up on the spot (negative: down)", angle_deg=12.0),
    "roll": Preset("turn the camera clockwise about its axis (negative: the other way)", angle_deg=12.0),
    "orbit": Preset(
        "circle to the right around the point straight ahead at the distance, facing it (negative angle: to the left)",
        distance=1.0,
        angle_deg=30.0,
    ),
    "arc": Preset(
        "swing to the right, across to the left and back around the point at the distance, facing it",
        distance=1.0,
        angle_deg=15.0,
    ),
    "spiral": Preset(
        "circle in the picture plane out to the distance and back, facing the point at depth 1; the angle is the "
        "whole way round",
        distance=0.2,
        angle_deg=360.0,
    ),
    "dolly_zoom": Preset(
        "move in while the field of view widens by the angle, so that what is at the distance keeps its size "
        "(negative angle: move out)",
        distance=1.0,
        angle_deg=20.0,
    ),
    "look_around": Preset("look right, left and back on the spot, by the angle to each side", angle_deg=20.0),
    "fly_through": Preset(
        "fly ahead by the distance along a gentle bend, looking where it goes; the angle is the largest heading",
        distance=0.8,
        angle_deg=15.0,
    ),
    "out_and_back": Preset("move straight ahead by the distance and return the same way", distance=0.4),
}


@dataclass(frozen=True)
class Term:
    """One preset of an expression with its given parameters; None takes the default."""

    name: str
    distance: float | None = None
    angle_deg: float | None = None
    frames: int | None = None


def parse_legs(text: str) -> list[list[Term]]:
    """The legs of a path expression, each a list of simultaneous moves.

    Raises:
        ValueError: an unknown move, a parameter that it does not have, or a value that is no number.
    """
    return [[_parse_term(term) for term in leg.split("+")] for leg in text.split(",")]


def begins_with_preset(text: str) -> bool:
    """Whether a ``path`` setting starts with the name of a preset and so is an expression, not a file."""
    return re.split("[,+:]", text)[0].strip() in PRESETS


def names_a_file(text: str) -> bool:
    """Whether ``path=text`` means a file or folder; the name of a move takes precedence over that of a file.

    Raises:
        ValueError: the text is neither an existing file nor an expression; one sentence.
    """
    if begins_with_preset(text):
        return False
    if os.path.exists(text):
        return True
    if "/" in text or os.sep in text or Path(text).suffix:
        raise ValueError(f"path: no file or folder {text!r}; check the name, or use a preset such as orbit")
    return False


def _parse_term(text: str) -> Term:
    name, *settings = (part.strip() for part in text.split(":"))
    move = find_preset(name)
    values: dict[str, float | int] = {}
    for setting in settings:
        key, separator, value = setting.partition("=")
        if key not in PARAMETERS or not separator:
            raise ValueError(f"path: want {name}:name=value with a name of {', '.join(PARAMETERS)}; got {setting!r}")
        if key in values:
            raise ValueError(f"path: {name} sets {key} twice; keep one")
        if getattr(move, key) is None:
            raise ValueError(f"{key}: {name} has no {key}; remove it")
        try:
            values[key] = int(value) if key == "frames" else float(value)
        except ValueError:
            kind = "a whole number" if key == "frames" else "a number"
            raise ValueError(f"path: want {kind} for {key} of {name}, got {value!r}") from None
    return Term(name, values.get("distance"), values.get("angle_deg"), values.get("frames"))  # type: ignore[arg-type]


def find_preset(name: str) -> Preset:
    """A preset by name.

    Raises:
        ValueError: no preset has the name; the message gives the nearest names.
    """
    if name in PRESETS:
        return PRESETS[name]
    near = difflib.get_close_matches(name, PRESETS, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(PRESETS)}."
    raise ValueError(f"path: {name!r} is neither a preset nor a file; {hint}")
