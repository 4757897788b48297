"""Camera moves by name, and expressions that put them together.

A path always begins at the photo's camera, starts and stops at rest, and speaks as its viewer sees it: ``left`` moves
the camera to its own left (things in the picture go right), ``pan`` by a positive angle looks to the right, ``tilt``
looks up, ``roll`` turns the camera clockwise. Distances are scene units: the photo's median depth is 1.
"""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from geometry.camera import Camera
from geometry.se3 import rigid

PARAMETERS = ("distance", "angle_deg", "frames")


@dataclass(frozen=True)
class Motion:
    """Poses relative to where a move starts, ``[n 4 4]``, and the factor on the focal length, ``[n]``."""

    start_from_camera: Float[Tensor, "n 4 4"]
    focal_scale: Float[Tensor, "n"]


@dataclass(frozen=True)
class Preset:
    """A named move and its defaults; a default of None says that the move has no such parameter.

    Attributes:
        description: one line for people.
        move: ``(progress [n] from 0 to 1, distance, angle_rad, fov_rad) -> Motion``; the identity at progress 0.
        distance: scene units.
        angle_deg: degrees.
        frames: number of cameras, the first one included.
    """

    description: str
    move: Callable[[Tensor, float, float, float], Motion]
    distance: float | None = None
    angle_deg: float | None = None
    frames: int = 49


@dataclass(frozen=True)
class Term:
    """One preset of an expression with the parameters that were written; None takes the default."""

    name: str
    distance: float | None = None
    angle_deg: float | None = None
    frames: int | None = None


def _motion(
    progress: Tensor,
    *,
    right: Tensor | float = 0.0,
    down: Tensor | float = 0.0,
    forward: Tensor | float = 0.0,
    pan: Tensor | float = 0.0,
    tilt: Tensor | float = 0.0,
    roll: Tensor | float = 0.0,
    focal_scale: Tensor | float = 1.0,
) -> Motion:
    """A motion from offsets along the start's axes and angles in radians, turned in the order pan, tilt, roll."""

    def column(value: Tensor | float) -> Tensor:
        return torch.as_tensor(value, dtype=progress.dtype).expand(progress.shape)

    def turn(axis: int, angle: Tensor) -> Tensor:
        matrix = torch.eye(3, dtype=progress.dtype).repeat(len(progress), 1, 1)
        a, b = (axis + 1) % 3, (axis + 2) % 3
        matrix[:, a, a] = matrix[:, b, b] = torch.cos(angle)
        matrix[:, b, a], matrix[:, a, b] = torch.sin(angle), -torch.sin(angle)
        return matrix

    rotation = turn(1, column(pan)) @ turn(0, column(tilt)) @ turn(2, column(roll))
    position = torch.stack([column(right), column(down), column(forward)], -1)
    return Motion(rigid(rotation, position), column(focal_scale))


def _line(axis: str, sign: float) -> Callable[[Tensor, float, float, float], Motion]:
    return lambda u, distance, _angle, _fov: _motion(u, **{axis: sign * distance * u})


def _turn(axis: str) -> Callable[[Tensor, float, float, float], Motion]:
    return lambda u, _distance, angle, _fov: _motion(u, **{axis: angle * u})


def _circle(u: Tensor, distance: float, around: Tensor) -> Motion:
    """On the horizontal circle around the point at ``distance``; a positive angle goes to the camera's right."""
    _require_depth(distance)
    return _motion(u, right=distance * torch.sin(around), forward=distance * (1.0 - torch.cos(around)), pan=-around)


def _require_depth(distance: float) -> None:
    if distance <= 0.0:
        raise ValueError(f"distance: want the depth of the subject, more than 0, got {distance}")


def _spiral(u: Tensor, distance: float, angle: float, _fov: float) -> Motion:
    """A circle in the picture plane that widens to ``distance`` and narrows back, facing the point at depth 1."""
    radius = distance * torch.sin(math.pi * u) ** 2
    right, down = radius * torch.cos(angle * u), radius * torch.sin(angle * u)
    return _motion(u, right=right, down=down, pan=-torch.atan(right), tilt=torch.atan2(down, torch.sqrt(1 + right**2)))


def _dolly_zoom(u: Tensor, distance: float, angle: float, fov: float) -> Motion:
    """Move until the wider lens shows the subject at its old size; the focal length follows the distance left."""
    _require_depth(distance)
    end_fov = fov + angle
    if not math.radians(2.0) <= end_fov <= math.radians(170.0):
        raise ValueError(
            f"angle_deg: want a dolly_zoom that ends with a field of view from 2 to 170 degrees, got "
            f"{math.degrees(end_fov):.1f}; change angle_deg"
        )
    travel = distance * (1.0 - math.tan(fov / 2.0) / math.tan(end_fov / 2.0))
    return _motion(u, forward=travel * u, focal_scale=1.0 - travel * u / distance)


def _look_around(u: Tensor, _distance: float, angle: float, _fov: float) -> Motion:
    return _motion(u, pan=angle * torch.sin(2 * math.pi * u), tilt=angle / 3.0 * torch.sin(4 * math.pi * u))


def _fly_through(u: Tensor, distance: float, angle: float, _fov: float) -> Motion:
    """A bend to the right and back that looks where it goes; ``angle`` is the largest heading."""
    if abs(angle) > math.radians(80.0):
        raise ValueError(f"angle_deg: want a heading within 80 degrees, got {math.degrees(angle):g}")
    bend = math.tan(angle)
    heading = torch.atan(bend * torch.sin(2 * math.pi * u))
    sideways = distance * bend / (2 * math.pi) * (1.0 - torch.cos(2 * math.pi * u))
    return _motion(u, right=sideways, forward=distance * u, pan=heading)


PRESETS: dict[str, Preset] = {
    "forward": Preset("move straight ahead", _line("forward", 1.0), distance=0.35),
    "back": Preset("move straight back", _line("forward", -1.0), distance=0.35),
    "left": Preset("move to the left, looking ahead", _line("right", -1.0), distance=0.3),
    "right": Preset("move to the right, looking ahead", _line("right", 1.0), distance=0.3),
    "up": Preset("rise, looking ahead", _line("down", -1.0), distance=0.2),
    "down": Preset("sink, looking ahead", _line("down", 1.0), distance=0.2),
    "pan": Preset("turn the view to the right on the spot (negative: left)", _turn("pan"), angle_deg=25.0),
    "tilt": Preset("turn the view up on the spot (negative: down)", _turn("tilt"), angle_deg=12.0),
    "roll": Preset("turn the camera clockwise about its axis (negative: the other way)", _turn("roll"), angle_deg=12.0),
    "orbit": Preset(
        "circle to the right around the point straight ahead at the distance, facing it (negative angle: to the left)",
        lambda u, distance, angle, _fov: _circle(u, distance, angle * u),
        distance=1.0,
        angle_deg=30.0,
    ),
    "arc": Preset(
        "swing to the right, across to the left and back around the point at the distance, facing it",
        lambda u, distance, angle, _fov: _circle(u, distance, angle * torch.sin(2 * math.pi * u)),
        distance=1.0,
        angle_deg=15.0,
    ),
    "spiral": Preset(
        "circle in the picture plane out to the distance and back, facing the point at depth 1; the angle is the "
        "whole way round",
        _spiral,
        distance=0.2,
        angle_deg=720.0,
    ),
    "dolly_zoom": Preset(
        "move in while the field of view widens by the angle, so that what is at the distance keeps its size "
        "(negative angle: move out)",
        _dolly_zoom,
        distance=1.0,
        angle_deg=20.0,
    ),
    "look_around": Preset(
        "look right, left and back on the spot, by the angle to each side", _look_around, angle_deg=20.0
    ),
    "fly_through": Preset(
        "fly ahead by the distance along a gentle bend, looking where it goes; the angle is the largest heading",
        _fly_through,
        distance=0.8,
        angle_deg=15.0,
    ),
    "out_and_back": Preset(
        "move straight ahead by the distance and return the same way",
        lambda u, distance, _angle, _fov: _motion(u, forward=distance * torch.sin(math.pi * u) ** 2),
        distance=0.4,
    ),
}


def preset(
    name: str,
    *,
    size: tuple[int, int],
    fov_deg: float | None = None,
    frames: int | None = None,
    distance: float | None = None,
    angle_deg: float | None = None,
    start: Camera | None = None,
) -> Camera:
    """Cameras ``[frames]`` of one named move.

    Args:
        name: a key of ``PRESETS``.
        size: image size ``(H, W)``.
        fov_deg: horizontal field of view of the first camera, degrees; not needed with ``start``.
        frames: number of cameras, the first included; the preset's own when not given.
        distance: scene units, as the preset describes it.
        angle_deg: degrees, as the preset describes it.
        start: the unbatched camera to begin with (resampled to ``size``); the identity pose when not given.

    Raises:
        ValueError: an unknown name (the message gives the nearest ones), a parameter that the preset does not have or
            that is out of range, fewer than two frames, or neither ``fov_deg`` nor ``start``.
    """
    return _compose([[Term(name, distance, angle_deg, frames)]], size, fov_deg, frames, start)


def parse_path_expression(
    text: str,
    *,
    size: tuple[int, int],
    fov_deg: float | None = None,
    frames: int | None = None,
    start: Camera | None = None,
) -> Camera:
    """Cameras of an expression such as ``forward``, ``orbit:angle_deg=40:distance=1`` or ``forward+pan,out_and_back``.

    ``,`` puts legs one after the other, each starting and stopping at rest and relative to where the last one ended.
    ``+`` makes moves at the same time, each in the camera frame that those before it give: ``forward+pan`` goes
    straight and looks away, ``orbit+forward`` spirals in. ``:name=value`` sets ``distance``, ``angle_deg``, ``frames``.

    Args:
        text: the expression.
        size: image size ``(H, W)``.
        fov_deg: horizontal field of view of the first camera, degrees; not needed with ``start``.
        frames: total number of cameras, shared between the legs in proportion to their own; their sum when not given.
        start: the unbatched camera to begin with; the identity pose when not given.

    Raises:
        ValueError: as ``preset``, or text that is not such an expression.
    """
    legs = [[_parse_term(term) for term in leg.split("+")] for leg in text.split(",")]
    return _compose(legs, size, fov_deg, frames, start)


def _parse_term(text: str) -> Term:
    name, *settings = (part.strip() for part in text.split(":"))
    _find(name)
    values: dict[str, float | int] = {}
    for setting in settings:
        key, separator, value = setting.partition("=")
        if key not in PARAMETERS or not separator:
            raise ValueError(f"path: want {name}:name=value with a name of {', '.join(PARAMETERS)}; got {setting!r}")
        if key in values:
            raise ValueError(f"path: {name} sets {key} twice; keep one")
        try:
            values[key] = int(value) if key == "frames" else float(value)
        except ValueError:
            kind = "a whole number" if key == "frames" else "a number"
            raise ValueError(f"path: want {kind} for {key} of {name}, got {value!r}") from None
    return Term(name, values.get("distance"), values.get("angle_deg"), values.get("frames"))  # type: ignore[arg-type]


def _find(name: str) -> Preset:
    if name in PRESETS:
        return PRESETS[name]
    near = difflib.get_close_matches(name, PRESETS, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(PRESETS)}."
    raise ValueError(f"path: {name!r} is neither a preset nor a file; {hint}")


def _compose(
    legs: list[list[Term]], size: tuple[int, int], fov_deg: float | None, frames: int | None, start: Camera | None
) -> Camera:
    """Walk the legs one after the other; within a leg multiply the motions of its terms."""
    if start is None:
        if fov_deg is None:
            raise ValueError("fov_deg: want the horizontal field of view in degrees, or a start camera; got neither")
        start = Camera.from_fov(fov_deg, size)
    if start.batch_shape:
        raise ValueError(f"start: want one camera without batch dimensions, got {tuple(start.batch_shape)}")
    start = start.resized(size)
    pose, focal = start.world_from_camera.double(), start.focal_px.double()
    poses, focals = [pose[None]], [focal[None]]
    for leg, steps in zip(legs, _steps([_leg_frames(leg) for leg in legs], frames), strict=True):
        progress = _eased(torch.arange(1, steps + 1, dtype=torch.float64) / steps)
        leg_poses, scale = pose.expand(steps, 4, 4), torch.ones_like(progress)
        for term in leg:
            fov_rad = 2.0 * math.atan(size[1] / (2.0 * focal[0].item()))
            motion = _checked_move(term, progress, fov_rad)
            leg_poses, scale = leg_poses @ motion.start_from_camera, scale * motion.focal_scale
        poses.append(leg_poses)
        focals.append(focal * scale[:, None])
        pose, focal = leg_poses[-1], focals[-1][-1]
    path, lens = torch.cat(poses).float(), torch.cat(focals).float()
    return Camera(path, lens, start.center_px.float().expand(len(path), 2).clone(), size)


def _checked_move(term: Term, progress: Tensor, fov_rad: float) -> Motion:
    found = _find(term.name)
    for field in ("distance", "angle_deg"):
        given, default = getattr(term, field), getattr(found, field)
        if given is not None and default is None:
            raise ValueError(f"{field}: {term.name} has no {field}; remove it")
        if given is not None and not math.isfinite(given):
            raise ValueError(f"{field}: want a finite number for {term.name}, got {given}")
    distance = found.distance if term.distance is None else term.distance
    angle_deg = found.angle_deg if term.angle_deg is None else term.angle_deg
    return found.move(progress, distance or 0.0, math.radians(angle_deg or 0.0), fov_rad)


def _leg_frames(leg: list[Term]) -> int:
    counts = [_find(term.name).frames if term.frames is None else term.frames for term in leg]
    if min(counts) < 2:
        raise ValueError(f"frames: want 2 or more, got {min(counts)}; one pose is not a path")
    return max(counts)


def _steps(leg_frames: list[int], frames: int | None) -> list[int]:
    """Steps of each leg; a path of n frames has n - 1 steps, for legs share the frames in which they meet."""
    total = sum(count - 1 for count in leg_frames) if frames is None else frames - 1
    if total < len(leg_frames):
        raise ValueError(f"frames: want {len(leg_frames) + 1} or more for this path, got {total + 1}")
    ends = torch.tensor(leg_frames, dtype=torch.float64).sub(1).cumsum(0)
    spare = total - len(leg_frames)
    bounds = [0, *(round(spare * share) for share in (ends / ends[-1]).tolist())]
    return [end - begin + 1 for begin, end in itertools.pairwise(bounds)]


def _eased(progress: Tensor) -> Tensor:
    """Smootherstep: velocity and acceleration are zero at both ends."""
    return progress**3 * (progress * (6.0 * progress - 15.0) + 10.0)
