"""Renders clips of a scene: draws a viewpoint, lighting and a collision-free path of a move."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from scenes.synthetic import torcs
from scenes.synthetic.camera_moves import (
    ORBITS,
    STILLS,
    is_good_path,
    level_camera,
    move_path,
    orbit_poses,
    probe_view,
)
from scenes.synthetic.raycast import CENTER, RenderedView, View, WorldRenderer
from scenes.synthetic.triangle_scene import Lighting, as_rgb

_ATTEMPTS = 200
_SHORT_FRAMES = 24
_LEAST_GROUND = 0.3  # share of a view that must not be sky


@dataclass(frozen=True)
class Stage:
    """A scene that clips can be rendered from.

    Attributes:
        renderer: ray caster of the scene.
        lighting: lighting of the scene; None to draw daylight per clip.
        license: license of its images.
        low: low corner of the box of possible camera positions; None outdoors.
        high: high corner of the box.
        standpoint: draws a camera position and a point to look at; None for tracks and rooms.
    """

    renderer: WorldRenderer
    lighting: Lighting | None
    license: str
    low: tuple[float, float, float] | None = None
    high: tuple[float, float, float] | None = None
    standpoint: Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]] | None = None

    def film(self, *, move: str, frames: int, seed: int, size: tuple[int, int]) -> dict[str, np.ndarray] | None:
        """See `film_clip`; of ``STILLS``, `take_stills`."""
        if move == STILLS:
            return take_stills(self, frames=frames, seed=seed, size=size)
        return film_clip(self, move=move, frames=frames, seed=seed, size=size)


def film_clip(
    stage: Stage, *, move: str, frames: int, seed: int, size: tuple[int, int]
) -> dict[str, np.ndarray] | None:
    """Draw a viewpoint and a collision-free path of the move, and render it.

    Args:
        stage: the scene.
        move: a key of ``scenes.synthetic.camera_moves.MOVES``, or ``ORBITS``.
        frames: length of the clip; long clips move farther. Orbits have one for each of their angles.
        seed: seed of all random choices; the same seed gives the same clip.
        size: ``(H, W)``.

    Returns:
        The arrays of a clip file (see ``scenes.dataset.render``), or None when no collision-free path is found.
    """
    rng = np.random.default_rng(seed)
    for attempt in range(_ATTEMPTS):
        lighting = stage.lighting or _weather(rng)
        first = _first_view(stage, size, rng)
        if first is None:
            continue
        radiance, depth = stage.renderer.radiance_and_depth(probe_view(first), lighting)
        # Mostly sky: the median depth would say little about the scale of the scene.
        if (depth > 0).mean() < _LEAST_GROUND:
            continue
        reach = float(np.median(depth[depth > 0]))
        # Every third attempt repeats the full strength; those between try shorter paths, which collide less.
        strength = (1.15 if frames <= _SHORT_FRAMES else 1.5) * 0.7 ** (attempt % 3)
        start = first.world_from_camera
        poses = orbit_poses(start, reach) if move == ORBITS else move_path(move, start, frames, reach, strength, rng)
        views = _views(first, poses)
        nearest, most_sky = _limits(stage)
        if _inside(stage, views) and is_good_path(stage.renderer, views, lighting, nearest=nearest, most_sky=most_sky):
            exposed = replace(lighting, exposure=_exposure(stage, views[0], lighting, radiance, depth, rng))
            # A generator per frame: a frame does not depend on how many were rendered before it.
            rendered = [
                stage.renderer.render(v, exposed, np.random.default_rng([seed, i])) for i, v in enumerate(views)
            ]
            return _arrays(views, rendered)
    return None


def take_stills(stage: Stage, *, frames: int, seed: int, size: tuple[int, int]) -> dict[str, np.ndarray] | None:
    """Unrelated views of a scene, each with a light of its own, one sample a pixel, to be shown at half the size.

    Args and what is returned: see `film_clip`; there are fewer than ``frames`` views where few viewpoints are free.
    """
    views: list[View] = []
    rendered: list[RenderedView] = []
    nearest, _ = _limits(stage)
    for number in range(frames):
        rng = np.random.default_rng([seed, number])
        for _ in range(_ATTEMPTS // frames):
            lighting = stage.lighting or _weather(rng)
            view = _first_view(stage, size, rng)
            if view is None or not _inside(stage, [view]):
                continue
            radiance, depth = stage.renderer.radiance_and_depth(probe_view(view), lighting)
            if (depth > 0).mean() > _LEAST_GROUND and np.quantile(depth[depth > 0], 0.01) > nearest:
                exposed = replace(lighting, exposure=_exposure(stage, view, lighting, radiance, depth, rng))
                views.append(view)
                rendered.append(stage.renderer.render(view, exposed, rng, CENTER))
                break
    return _arrays(views, rendered) if views else None


def _limits(stage: Stage) -> tuple[float, float]:
    """How near a surface may come to the camera, in meters, and the largest share of sky."""
    return (0.22, 0.25) if stage.low is not None else (0.7, 0.45) if stage.standpoint is None else (0.25, 0.62)


def _framed(
    position: np.ndarray, target: np.ndarray, focal: float, size: tuple[int, int], rng: np.random.Generator
) -> View:
    """An almost level camera with its target near the image center."""
    offset = target - position
    rise = math.atan2(-offset[1], math.hypot(offset[0], offset[2]))
    tilt = float(np.clip(rise, -0.35, 0.42)) * rng.uniform(0.5, 1.0) + math.radians(3.0 * rng.normal())
    yaw = math.atan2(offset[0], offset[2]) + 0.1 * rng.normal()
    pose = level_camera(position, yaw, tilt, math.radians(1.2 * rng.normal()))
    return View(pose, (focal, focal), (0.5 * size[1], 0.5 * size[0]), size)


def _views(first: View, poses: np.ndarray) -> list[View]:
    return [replace(first, world_from_camera=pose) for pose in poses]


def _first_view(stage: Stage, size: tuple[int, int], rng: np.random.Generator) -> View | None:
    """Draw a camera at eye height, at times higher, that looks along the road, across the room or at a subject."""
    fov = math.radians(rng.uniform(*((45.0, 85.0) if stage.standpoint is None else (40.0, 90.0))))
    focal = 0.5 * size[1] / math.tan(0.5 * fov)
    tilt, roll = math.radians(rng.uniform(-14.0, 4.0)), math.radians(rng.normal() * 1.0)
    if stage.low is not None and stage.high is not None:
        low, high = np.asarray(stage.low), np.asarray(stage.high)
        position = rng.uniform(low, high)
        position[1] = -rng.uniform(0.9, 1.75)
        target = rng.uniform(0.7 * low, 0.7 * high)
    elif stage.standpoint is not None:
        position, target = stage.standpoint(rng)
        # Reject viewpoints whose target is occluded or missing.
        if not 0.7 < stage.renderer.ray_depths(position, (target - position)[None])[0] < 1.5:
            return None
        return _framed(position, target, focal, size, rng)
    else:
        points = torcs.road_points(stage.renderer.world, rng, 400)
        position, distance = points[0], np.linalg.norm(points[1:] - points[0], axis=-1)
        target = points[1 + int(np.argmin(np.abs(distance - rng.uniform(15.0, 80.0))))]
        if rng.random() < 0.3:
            target = position + np.array([rng.normal(), 0.0, rng.normal()])
        height = rng.uniform(1.2, 2.6) if rng.random() < 0.7 else rng.uniform(2.6, 9.0)
        up = np.array([[0.0, -1.0, 0.0]])
        if stage.renderer.ray_depths(position + 0.05 * up[0], up)[0] < height + 1.0:
            return None
        position = position + height * up[0]
        tilt -= math.radians(2.0) * max(height - 2.6, 0.0)
    offset = target - position
    yaw = math.atan2(offset[0], offset[2]) + 0.2 * rng.normal()
    pose = level_camera(position, yaw, tilt, roll)
    return View(pose, (focal, focal), (0.5 * size[1], 0.5 * size[0]), size)


def _inside(stage: Stage, views: list[View]) -> bool:
    """Indoors: whether all cameras are within the room. Outdoors: whether ground is not far below each of them."""
    positions = np.stack([v.world_from_camera[:3, 3] for v in views])
    if stage.low is not None and stage.high is not None:
        return bool((positions > stage.low).all() and (positions < stage.high).all())
    down = np.array([[0.0, 1.0, 0.0]])
    lowest = 0.5 if stage.standpoint is None else 0.2
    return all(lowest < float(stage.renderer.ray_depths(p, down)[0]) < 40.0 for p in positions)


def _weather(rng: np.random.Generator) -> Lighting:
    """Draw daylight from overcast to sunny, with a little haze."""
    azimuth, elevation = rng.uniform(0, 2 * math.pi), math.radians(rng.uniform(20.0, 70.0))
    clear = rng.uniform(0.2, 1.0)
    warm = rng.uniform(0.0, 0.25)
    sun = clear * np.array([1.0, 0.96 - 0.4 * warm, 0.9 - warm])
    sky = (1.0 - 0.45 * clear) * np.array([0.85, 0.93, 1.05])
    direction = (
        math.cos(elevation) * math.sin(azimuth), -math.sin(elevation), math.cos(elevation) * math.cos(azimuth),
    )  # fmt: skip
    return Lighting(
        sky_rgb=as_rgb(sky),
        ground_rgb=as_rgb(0.5 * sky),
        sun_direction=direction,
        sun_rgb=as_rgb(sun),
        haze_per_meter=float(np.exp(rng.uniform(math.log(1 / 6000), math.log(1 / 500)))),
    )


def _exposure(
    stage: Stage, view: View, lighting: Lighting, radiance: np.ndarray, depth: np.ndarray, rng: np.random.Generator
) -> float:
    """Draw an exposure: bright parts of a view (quantile 0.85 or 0.9) reach 0.38 to 0.62 of linear white."""
    # Sky is left out: an exposure for sky and ground together made overcast scenes too dark.
    if lighting.occlusion_rays:
        preview = stage.renderer.render(probe_view(view), lighting, np.random.default_rng(0))
        bright = float(np.quantile((preview.rgb[~preview.sky].mean(-1) / 255.0) ** 2.2, 0.85))
    else:
        bright = float(np.quantile(radiance.mean(-1)[depth > 0], 0.9))
    return float(np.clip(rng.uniform(0.38, 0.62) / max(bright, 1e-3), 0.4, 5.0))


def _arrays(views: list[View], rendered: list[RenderedView]) -> dict[str, np.ndarray]:
    poses = np.stack([v.world_from_camera for v in views])
    with np.errstate(divide="ignore"):
        inverse = np.stack([np.where(r.sky, 0.0, 1.0 / np.maximum(r.depth, 1e-6)) for r in rendered])
    return {
        "rgb": np.ascontiguousarray(np.stack([r.rgb for r in rendered]).transpose(0, 3, 1, 2)),
        "inverse_depth": inverse[:, None].astype(np.float16),
        "world_from_camera": (np.linalg.inv(poses[0]) @ poses).astype(np.float32),
        "focal_px": np.asarray([v.focal_px for v in views], np.float32),
        "center_px": np.asarray([v.center_px for v in views], np.float32),
    }
