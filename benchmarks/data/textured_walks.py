"""Three textured worlds with ground truth, and walks of any length through them; drawn here, nothing downloaded.

`open_walk` renders a walk once and keeps its frames under `runs/walks`; a later call reads them back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from tqdm import tqdm

from benchmarks.data.textured_sites import SITES
from geometry.camera import Camera
from geometry.depth.estimator import far_sky
from geometry.frame import Frame
from scenes.synthetic.camera_moves import level_camera
from scenes.synthetic.raycast import View, WorldRenderer

KEPT = Path("runs") / "walks"
WALKS = ("out_and_back", "figure_eight")
FOV_DEG = 70.0
HELD_OUT_PER_CHECK = 4
ASIDE = 0.05  # of the walk's reach: how far beside the path held-out views stand
SURFACE = 0.02  # relative depth within which two views look at one surface


@dataclass(frozen=True)
class HeldOut:
    """A view beside the path that the cache never gets.

    Attributes:
        frame: ``[1]`` ground truth.
        seen: ``[1 1 h w]``, what the walk has shown until then; the rest nobody can know.
    """

    frame: Frame
    seen: Bool[torch.Tensor, "1 1 h w"]


@dataclass(frozen=True)
class GroundTruthWalk:
    """Exact frames of a walk that ends where it began, and held-out views.

    Attributes:
        name: world and walk.
        frames: ``[t]``, exact RGB-D; the last pose is the first.
        held_out: by number of frames walked so far.
    """

    name: str
    frames: Frame
    held_out: dict[int, list[HeldOut]]


def open_walk(world: str, walk: str, *, frames: int, checks: tuple[int, ...], size: tuple[int, int]) -> GroundTruthWalk:
    """Render a walk, or read it back.

    Args:
        world: a key of `SITES`.
        walk: one of `WALKS`.
        frames: length.
        checks: numbers of frames after which held-out views are asked for.
        size: ``(H, W)``.

    Raises:
        ValueError: an unknown world or walk.
    """
    if world not in SITES or walk not in WALKS:
        raise ValueError(f"walk: want one of {sorted(SITES)} and one of {WALKS}, got {world!r} and {walk!r}")
    path = walk_poses(walk, SITES[world].reach, np.asarray(SITES[world].start), frames)
    beside = np.concatenate([_beside(path, check, SITES[world].reach) for check in checks])
    everything = _rendered(f"{world}_{walk}_{frames}", world, np.concatenate([path, beside]), size)
    walked, views = everything[:frames], everything[frames:]
    held_out: dict[int, list[HeldOut]] = {}
    for k, check in enumerate(checks):
        chosen = [views[i : i + 1] for i in range(k * HELD_OUT_PER_CHECK, (k + 1) * HELD_OUT_PER_CHECK)]
        held_out[check] = [HeldOut(view, seen_before(view, walked[: check : max(1, check // 40)])) for view in chosen]
    return GroundTruthWalk(f"{world} {walk}", walked, held_out)


def walk_poses(walk: str, reach: float, start: np.ndarray, frames: int) -> Float[np.ndarray, "t 4 4"]:
    """Poses that begin and end at ``start``, looking along +z: out and back, or a figure eight; looks swing about."""
    u = np.linspace(0.0, 1.0, frames)
    turn = 2.0 * math.pi * u
    if walk == "out_and_back":
        ahead, swing = reach * np.sin(math.pi * u) ** 2, np.sin(turn)
        right, yaw = 0.15 * reach * swing, math.radians(25.0) * np.sin(2.0 * turn)
    else:
        ahead, right = 0.35 * reach * (1.0 - np.cos(turn)), 0.22 * reach * np.sin(2.0 * turn)
        yaw = math.radians(35.0) * np.sin(turn)
    up, tilt = 0.05 * reach * np.sin(turn) ** 2, math.radians(-4.0) * np.sin(turn) ** 2
    offset = np.stack([right, -up, ahead], -1)
    return np.stack([level_camera(start + offset[i], yaw[i], tilt[i]) for i in range(frames)])


def seen_before(view: Frame, walked: Frame) -> Bool[torch.Tensor, "1 1 h w"]:
    """Which pixels of a view ``[1]`` look at what some frame of ``walked`` shows; sky counts as seen."""
    camera, (height, width) = view.camera[0], view.camera.size
    rows, columns = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    ray_x = (columns - camera.center_px[0]) / camera.focal_px[0]
    ray_y = (rows - camera.center_px[1]) / camera.focal_px[1]
    local = torch.stack([ray_x, ray_y, torch.ones_like(ray_x)], -1) * view.depth[0, 0, ..., None]
    points = (local @ camera.world_from_camera[:3, :3].T + camera.position).reshape(-1, 3)
    seen = view.sky[0, 0].reshape(-1).clone()
    for k in range(len(walked)):
        other = walked.camera[k]
        x, y, z = (points @ other.camera_from_world[:3, :3].T + other.camera_from_world[:3, 3]).unbind(-1)
        column, row = other.focal_px[0] * x / z + other.center_px[0], other.focal_px[1] * y / z + other.center_px[1]
        inside = (z > 0.01) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
        pixel = row[inside].long() * width + column[inside].long()
        there = walked.depth[k].reshape(-1)[pixel]
        seen[inside] |= (there - z[inside]).abs() < SURFACE * z[inside]
    return seen.reshape(1, 1, height, width)


def _beside(path: np.ndarray, check: int, reach: float) -> Float[np.ndarray, "k 4 4"]:
    """Views at the end, and after three, two and one quarters of the path so far: shifted aside and turned a little."""
    poses = []
    for k in range(HELD_OUT_PER_CHECK):
        pose = path[(check * (HELD_OUT_PER_CHECK - k)) // HELD_OUT_PER_CHECK - 1].copy()
        side = 1.0 if k % 2 == 0 else -1.0
        pose[:3, 3] += pose[:3, :3] @ np.array([side * ASIDE * reach, -0.4 * ASIDE * reach, 0.0])
        poses.append(pose @ level_camera(np.zeros(3), math.radians(-3.0 * side), math.radians(1.5)))
    return np.stack(poses)


def _rendered(name: str, world: str, poses: Float[np.ndarray, "t 4 4"], size: tuple[int, int]) -> Frame:
    camera = Camera.from_fov(FOV_DEG, size, torch.from_numpy(poses).float())
    file = KEPT / f"{name}_{size[0]}x{size[1]}.npz"
    kept = dict(np.load(file)) if file.exists() else {}
    if not kept or not np.array_equal(kept["poses"], poses):
        site = SITES[world]
        renderer = WorldRenderer(site.build(np.random.default_rng(3)))
        focal, center = camera.focal_px[0].tolist(), camera.center_px[0].tolist()
        views = [
            renderer.render(View(pose, tuple(focal), tuple(center), size), site.lighting, np.random.default_rng(0))
            for pose in tqdm(poses, desc=f"render {name}", unit="frame")
        ]
        parts = {part: np.stack([getattr(v, part) for v in views]) for part in ("rgb", "depth", "sky")}
        kept = {**parts, "poses": poses}
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, rgb=parts["rgb"], depth=parts["depth"], sky=parts["sky"], poses=poses)
    sky = torch.from_numpy(kept["sky"])[:, None]
    valid = torch.ones_like(sky)
    rgb = torch.from_numpy(kept["rgb"]).permute(0, 3, 1, 2).float().div(255.0).contiguous()
    return Frame(rgb, far_sky(torch.from_numpy(kept["depth"])[:, None], sky, valid), valid, sky, camera, metric=True)
