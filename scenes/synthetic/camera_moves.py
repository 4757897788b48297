"""Camera paths of the preset moves, scaled by the depth of the scene, and checks that they are collision-free."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

from scenes.synthetic.raycast import View, WorldRenderer
from scenes.synthetic.triangle_scene import Lighting

MOVES: dict[str, float] = {
    "forward": 0.16, "back": 0.15, "left": 0.09, "right": 0.09, "up": 0.06, "orbit": 0.17, "pan": 0.12, "mixed": 0.16,
}  # fmt: skip
"""Moves and their shares of the clips; back, sideways moves and orbits disocclude most."""

STILLS = "stills"
"""No move: unrelated views of a scene."""

ORBITS = "orbits"
ORBIT_DEGREES = (0.0, -10.0, -20.0, -30.0, 10.0, 20.0, 30.0)
"""Views of an ``ORBITS`` clip, see `orbit_poses`."""

_PROBE_SHRINK = 4
_LEAST_EDGES = 0.02


def choose_move(rng: np.random.Generator) -> str:
    """Draw a move with the probabilities of ``MOVES``."""
    names = list(MOVES)
    shares = np.array([MOVES[n] for n in names])
    return names[int(rng.choice(len(names), p=shares / shares.sum()))]


def level_camera(
    position: Float[np.ndarray, "3"], yaw_rad: float, tilt_up_rad: float, roll_rad: float = 0.0
) -> Float[np.ndarray, "4 4"]:
    """``world_from_camera`` of a camera that looks along +z turned right by the yaw, then up by the tilt."""
    pose = np.eye(4)
    pose[:3, :3] = _turn(1, yaw_rad) @ _turn(0, tilt_up_rad) @ _turn(2, roll_rad)
    pose[:3, 3] = position
    return pose


def _turn(axis: int, angle_rad: float) -> Float[np.ndarray, "3 3"]:
    cosine, sine = math.cos(angle_rad), math.sin(angle_rad)
    a, b = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[a, a] = matrix[b, b] = cosine
    matrix[b, a], matrix[a, b] = sine, -sine
    return matrix


def move_path(
    move: str, start: Float[np.ndarray, "4 4"], frames: int, reach: float, strength: float, rng: np.random.Generator
) -> Float[np.ndarray, "t 4 4"]:
    """Poses of a smooth move that begins at ``start``.

    Args:
        move: a key of ``MOVES``.
        start: ``world_from_camera`` of the first frame.
        frames: number of poses.
        reach: median depth of the first frame, meters; distances are fractions of it.
        strength: factor on distances and angles.
        rng: draws distances, angles, signs and pacing.

    Raises:
        ValueError: an unknown move.
    """
    if move not in MOVES:
        raise ValueError(f"move: want one of {', '.join(MOVES)}, got {move!r}")
    u = np.linspace(0.0, 1.0, frames)
    if rng.random() < 0.5:  # half of the moves ease in and out
        u = u * u * (3.0 - 2.0 * u)
    right, down, ahead, pan, tilt = _offsets(move, u, rng)
    sway = 0.01 * rng.normal(size=2)[:, None] * np.sin(2.0 * math.pi * u * rng.uniform(0.5, 1.5))
    poses = np.repeat(start[None], frames, 0)
    for i in range(frames):
        local = strength * reach * np.array([right[i] + sway[0, i], down[i] + sway[1, i], ahead[i]])
        poses[i, :3, 3] = start[:3, 3] + start[:3, :3] @ local
        poses[i, :3, :3] = start[:3, :3] @ _turn(1, strength * pan[i]) @ _turn(0, strength * tilt[i])
    return poses


def orbit_poses(start: Float[np.ndarray, "4 4"], reach: float) -> Float[np.ndarray, "7 4 4"]:
    """Poses turned by ``ORBIT_DEGREES`` about the point ``reach`` ahead of ``start``; positive ones to the right.

    Args:
        start: ``world_from_camera`` of the first frame.
        reach: distance of the point, meters.
    """
    poses = np.repeat(start[None], len(ORBIT_DEGREES), 0)
    for pose, angle in zip(poses, np.radians(ORBIT_DEGREES), strict=True):
        local = reach * np.array([np.sin(angle), 0.0, 1.0 - np.cos(angle)])
        pose[:3, 3] = start[:3, 3] + start[:3, :3] @ local
        pose[:3, :3] = start[:3, :3] @ _turn(1, -angle)
    return poses


def _offsets(move: str, u: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Right, down and forward in units of reach, pan and tilt in radians, for each progress value."""
    zero = np.zeros_like(u)
    sign = float(rng.choice([-1.0, 1.0]))
    if move == "forward":
        return [zero, zero, rng.uniform(0.2, 0.55) * u, zero, zero]
    if move == "back":
        return [zero, zero, -rng.uniform(0.2, 0.6) * u, zero, zero]
    if move in ("left", "right"):
        side = -1.0 if move == "left" else 1.0
        return [side * rng.uniform(0.12, 0.45) * u, zero, zero, side * rng.uniform(-0.15, 0.05) * u, zero]
    if move == "up":
        rise = rng.uniform(0.1, 0.3) * u
        return [zero, -rise, zero, zero, -rng.uniform(0.0, 0.6) * rise]
    if move == "pan":
        return [zero, zero, zero, sign * math.radians(rng.uniform(12.0, 38.0)) * u, math.radians(rng.normal() * 3) * u]
    if move == "orbit":
        radius, angle = rng.uniform(0.6, 1.1), sign * math.radians(rng.uniform(12.0, 40.0)) * u
        return [radius * np.sin(angle), zero, radius * (1.0 - np.cos(angle)), -angle, zero]
    bend = sign * rng.uniform(0.05, 0.3) * u
    return [
        bend, rng.uniform(-0.12, 0.04) * u, rng.uniform(-0.35, 0.4) * u,
        math.radians(rng.uniform(-20.0, 20.0)) * u, math.radians(rng.uniform(-6.0, 4.0)) * u,
    ]  # fmt: skip


def probe_view(view: View) -> View:
    """The same camera at a quarter of the resolution, for cheap checks."""
    k = _PROBE_SHRINK
    return View(
        view.world_from_camera,
        (view.focal_px[0] / k, view.focal_px[1] / k),
        (view.center_px[0] / k, view.center_px[1] / k),
        (view.size[0] // k, view.size[1] // k),
    )


def is_good_path(
    renderer: WorldRenderer,
    views: list[View],
    lighting: Lighting,
    *,
    nearest: float,
    most_sky: float,
    least_contrast: float = 0.055,
) -> bool:
    """Whether no view collides and the path is usable for training.

    Args:
        renderer: ray caster of the scene.
        views: views along the path.
        lighting: lighting, for the contrast of the first view.
        nearest: smallest distance from a camera to a surface, meters.
        most_sky: largest share of sky.
        least_contrast: smallest standard deviation of the square root of brightness in the first view.
    """
    positions = np.stack([v.world_from_camera[:3, 3] for v in views])
    if renderer.clearance(positions).min() < nearest:
        return False
    steps = np.diff(positions, axis=0)
    # Clearance is checked at the frames; a thin surface may still be crossed between two of them.
    for position, step in zip(positions[:-1], steps, strict=True):
        if np.linalg.norm(step) > 1e-6 and renderer.ray_depths(position, step[None])[0] < 1.0:
            return False
    first_median = previous_median = 0.0
    for i, view in enumerate(views):
        radiance, depth = renderer.radiance_and_depth(probe_view(view), lighting)
        hit = depth > 0.0
        if 1.0 - hit.mean() > most_sky:
            return False
        median = float(np.median(depth[hit]))
        if i == 0:
            first_median = previous_median = median
            brightness = np.sqrt(np.clip(radiance.mean(-1), 0.0, 1.5))
            if brightness[hit].std() < least_contrast or _is_flat(depth, hit) or _edge_share(depth) < _LEAST_EDGES:
                return False
        # A jump of the median depth from frame to frame means that something passed in front of the camera.
        close = float(np.quantile(depth[hit], 0.02))
        jump = max(median / previous_median, previous_median / median)
        drift = max(median / first_median, first_median / median)
        if close < max(0.12 * first_median if first_median < 8.0 else 0.9, nearest) or jump > 1.6 or drift > 3.0:
            return False
        previous_median = median
    return True


def _is_flat(depth: np.ndarray, hit: np.ndarray) -> bool:
    """Whether almost all depths are alike, as before a wall."""
    low, high = np.quantile(depth[hit], [0.1, 0.9])
    return bool(high / low < 1.35)


def _edge_share(depth: np.ndarray) -> float:
    """Share of neighboring pixel pairs, without sky, at a depth discontinuity, where disocclusions appear."""
    jumps = 0
    for a, b in ((depth[1:], depth[:-1]), (depth[:, 1:], depth[:, :-1])):
        both = (a > 0.0) & (b > 0.0)
        jumps += int((both & (np.maximum(a, b) > 1.25 * np.minimum(a, b))).sum())
    return jumps / depth.size
