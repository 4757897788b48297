"""`path=auto`: chooses where to look next, by what a view would show that is new beside what is known.

Views of the surroundings of the photo's camera are rendered small. Each is worth the unknown that it shows close to
something known, which can be continued from there, less the part of it that would be shown badly. This is the coverage
gain against conflict of COVER, a greedy choice of views by small probes (Liu et al. 2026, *CM-EVS: Sparse Panoramic
RGB-D-Pose Data for Complete Scene Coverage*); here it is divided by the frames that lead to the view.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import Tensor
from torch.nn.functional import normalize

from cache3d.world_view import WorldView
from diffusion.inpainting.masks import distance_px
from geometry.camera import Camera
from geometry.frame import Frame, Guide
from geometry.project import unproject
from geometry.se3 import exp, interpolate, inverse, log
from worldwarp.surroundings import Surroundings, all_around, hidden, small_size


@dataclass(frozen=True)
class AutopilotPolicy:
    """Every number of `path=auto`, with unit and default (settings ``auto.*``).

    Lengths are in median depths of the photo. Figures are of ``python -m benchmarks.quality.autopilot``.

    Attributes:
        radius: how far from the photo's camera the camera goes. Default .3.
        angle_deg: how far from the photo's direction it turns, in any direction. Default 25.
        enough: unknown share of the surroundings at which it stops. Default .005.
        candidates: views of the surroundings that are compared for each leg. Default 48.
        view_px: longer side of the small views. Default 96.
        reach: distance from the known, as share of a view's width, at which the worth of the unknown has fallen to
            1/e. Default .15.
        sky: worth of the unknown that continues the sky, of which there is less to see. Default .3.
        unknown: largest unknown share of a view; beyond it the generator has too little to go on. Default .5.
        conflict: what a view loses per share of it that is seen obliquely, see `conflict`. Default .5.
        oblique_deg: angle between the rays of view and photo at a surface that is seen obliquely. Default 30.
        gain: least worth of a view that is gone to, share of a view. Default .002.
        clearance: distance that the camera keeps from what is known. Default .05.
        step: mean move of the camera per frame, at most; it peaks at 1.5 times that. Default .02.
        turn_deg: the same of its turn. Default 1.5: at 16 frames per second, 24 degrees a second.
        chunk: frames of a chunk, of which a way to a view has a whole number. Default None: as the session has them.
    """

    radius: float = 0.3
    angle_deg: float = 25.0
    enough: float = 0.005
    candidates: int = 48
    view_px: int = 96
    reach: float = 0.15
    sky: float = 0.3
    unknown: float = 0.5
    conflict: float = 0.5
    oblique_deg: float = 30.0
    gain: float = 0.002
    clearance: float = 0.05
    step: float = 0.02
    turn_deg: float = 1.5
    chunk: int | None = None

    def __post_init__(self) -> None:
        """Refuse numbers with which there is nothing to choose from."""
        if not 0.0 <= self.angle_deg <= 180.0:
            raise ValueError(f"auto.angle_deg: want degrees from 0 to 180, got {self.angle_deg:g}")
        for name in ("candidates", "view_px", "reach", "step", "turn_deg"):
            if getattr(self, name) <= 0:
                raise ValueError(f"auto.{name}: want more than 0, got {getattr(self, name)}")


@dataclass(frozen=True)
class Leg:
    """The way to the next view.

    Attributes:
        cameras: ``[n]``, the last is the chosen view.
        gain: unknown share of the chosen view, weighted by closeness to the known.
        unknown: mean unknown share of the surroundings before it.
    """

    cameras: Camera
    gain: float
    unknown: float


def next_leg(
    view: WorldView, photo: Frame, done: Camera, policy: AutopilotPolicy, *, unit: float, chunk: int, left: int
) -> Leg | None:
    """Choose the next view, and the way to it.

    The same world and cameras give the same leg, so that a resumed session goes on as one that never stopped.

    Args:
        view: the world.
        photo: the photo with depth, ``[1]``.
        done: cameras of the finished frames ``[n]``.
        policy: see `AutopilotPolicy`.
        unit: median depth of the photo, scene units.
        chunk: frames of a chunk; a leg has whole chunks.
        left: frames that are left.

    Returns:
        None if enough is known, or no view is worth going to.
    """
    around = Surroundings(photo, policy.radius * unit, policy.angle_deg, policy.clearance * unit)
    small = small_size(done.size, policy.view_px)
    here = all_around(view, done[-1:])
    home = all_around(view, photo.camera)
    # Before it gives up it looks at more views: a few may all be known while others are not.
    for count in (policy.candidates, 4 * policy.candidates):
        targets = around.views(count, skip=policy.candidates * len(done), size=small)
        lens = (done.focal_px[-1:].expand(count, 2), done.center_px[-1:].expand(count, 2))
        targets = Camera(targets.world_from_camera, *lens, done.size)
        shown = view.render(targets.resized(small), 1)
        unknown = shown.hole.float().mean((1, 2, 3))
        if unknown.mean() <= policy.enough:
            continue
        gain = coverage_gain(shown, policy.reach, policy.sky)
        worth = gain - policy.conflict * conflict(shown, photo.camera.position[0], policy.oblique_deg)
        allowed = (unknown <= policy.unknown) & (gain >= policy.gain) & (worth > 0.0)
        allowed &= ~_too_near(shown, around.clearance)
        frames = frames_to(done[-1:], targets, policy, unit, chunk)
        for best in torch.argsort(worth / frames, descending=True, stable=True).tolist():
            if not allowed[best]:
                continue
            frames_there = int(frames[best])
            target = _on_the_way(done[-1:], targets[best : best + 1], min(1.0, left / frames_there))
            way = smooth_way(done, target, min(frames_there, left), ends=frames_there >= left)
            # Nothing may stand between the way and where it starts, nor between it and the photo's place: what was made
            # from above would be seen from below.
            if not (around.blocked(way.position) | hidden(way.position, [*here, *home], around.clearance)).any():
                return Leg(way, float(gain[best]), float(unknown.mean()))
    return None


def coverage_gain(shown: Guide, reach: float, sky: float) -> Float[Tensor, "t"]:
    """Unknown share of each view, less of what lies far from the known, and less of what continues the sky.

    Args:
        shown: views of the world, ``[t]``.
        reach: distance at which the worth of a pixel has fallen to 1/e, as share of a view's width.
        sky: worth of a pixel whose nearest known one is sky.
    """
    height, width = shown.camera.size
    gains = torch.zeros(len(shown))
    for k in range(len(shown)):
        hole, is_sky = shown.hole[k, 0].cpu().numpy(), shown.sky_mask[k, 0].cpu().numpy()
        if hole.any() and not hole.all():
            nearest = ndimage.distance_transform_edt(hole, return_distances=False, return_indices=True)
            rows, columns = np.asarray(nearest)
            worth = np.exp(-distance_px(~hole) / (reach * width)) * np.where(is_sky[rows, columns], sky, 1.0)
            gains[k] = float((hole * worth).sum()) / (height * width)
    return gains


def conflict(shown: Guide, seen_from: Float[Tensor, "3"], angle_deg: float) -> Float[Tensor, "t"]:
    """Mean over each view of how obliquely its surfaces are seen: 1 from ``angle_deg`` aside of the photo's ray.

    What a photo tells of a surface holds for the direction that it was seen from; the farther from that, the more an
    error of its depth shows (Buehler et al. 2001, *Unstructured Lumigraph Rendering*, angular penalty).

    Args:
        shown: views of the world, ``[t]``.
        seen_from: place of the photo's camera.
        angle_deg: angle at the surface, between the rays of view and photo, that counts in full.
    """
    points = unproject(shown.depth, shown.camera)
    rays = normalize(points - shown.camera.position[:, :, None, None], dim=1)
    first = normalize(points - seen_from[:, None, None], dim=1)
    angle = torch.rad2deg(torch.arccos((rays * first).sum(1, keepdim=True).clamp(-1.0, 1.0)))
    return ((angle / angle_deg).clamp_max(1.0) * (shown.covered & ~shown.sky_mask)).mean((1, 2, 3))


def smooth_way(done: Camera, target: Camera, frames: int, *, ends: bool) -> Camera:
    """Cameras ``[frames]`` from the last of the finished ones to ``target [1]``, without a jump of velocity.

    The camera coasts out of its present motion while it turns into the new one; it passes the target in motion.

    Args:
        done: finished cameras ``[n]``.
        target: the last camera.
        frames: of the way.
        ends: whether the camera comes to rest at the target.
    """
    poses = done.world_from_camera.double()
    velocity = log(inverse(poses[-2]) @ poses[-1]) if len(done) > 1 else poses.new_zeros(6)
    time = torch.arange(1, frames + 1, dtype=torch.float64)
    coast = min(4, frames)  # frames in which the present motion comes to rest
    run = torch.clamp(time, max=coast)
    coasting = poses[-1] @ exp((run - run**2 / (2.0 * coast))[:, None] * velocity)
    share = time / frames
    # Speed 0 at the start; at the end the mean of the way and a half of it again, or 0.
    progress = share**2 * (3.0 - 2.0 * share) if ends else share**2 * (1.5 - 0.5 * share)
    across = log(inverse(coasting[-1]) @ target.world_from_camera[0].double())
    # Blended in the axes of the coasting camera: at the end of the way it has come to rest.
    way = coasting @ exp(progress[:, None] * across)
    focal = torch.exp(torch.lerp(done.focal_px[-1:].log(), target.focal_px.log(), progress[:, None].to(done.focal_px)))
    center = torch.lerp(done.center_px[-1:], target.center_px, progress[:, None].to(done.center_px))
    return Camera(way.to(done.world_from_camera.dtype), focal, center, done.size)


def frames_to(here: Camera, targets: Camera, policy: AutopilotPolicy, unit: float, chunk: int) -> Float[Tensor, "t"]:
    """Frames of the way from a camera ``[1]`` to each target ``[t]``: as fast as allowed, whole chunks."""
    twist = log(inverse(here.world_from_camera.double()) @ targets.world_from_camera.double())
    moved, turned = twist[:, :3].norm(dim=-1) / unit, torch.rad2deg(twist[:, 3:].norm(dim=-1))
    frames = torch.maximum(moved / policy.step, turned / policy.turn_deg)
    return (frames / chunk).ceil().clamp_min(1.0) * chunk


def planned_frames(cameras: Camera) -> int:
    """How many of the cameras ``[n]`` of `path=auto` are chosen: those after them repeat the last one."""
    moves = (cameras.world_from_camera[1:] != cameras.world_from_camera[:-1]).flatten(1).any(1)
    return int(moves.nonzero()[-1]) + 2 if moves.any() else 1


def _on_the_way(here: Camera, target: Camera, share: float) -> Camera:
    """The target ``[1]``, or the camera at a share of the way to it."""
    pose = interpolate(here.world_from_camera.double(), target.world_from_camera.double(), share)
    return replace(target, world_from_camera=pose.to(target.world_from_camera.dtype))


def _too_near(shown: Guide, clearance: float) -> Bool[Tensor, "t"]:
    """Views with a surface closer than the clearance; specks of a hundredth of the view are nothing to run into."""
    near = shown.covered & ~shown.sky_mask & (shown.depth < clearance)
    return near.float().mean((1, 2, 3)) > 0.01
