"""Clips of photographed panoramas, which show what lies beyond the border of a frame.

Two kinds: in a pan, every frame is a crop of the panorama. In any other move, the first frame is a crop and the others
are that frame warped to other cameras, so that the disocclusions are those of real outlines at estimated depth. Colors
are exact, depth is estimated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch.nn.functional import conv2d

from geometry.camera import Camera
from geometry.depth.estimator import DepthEstimator
from geometry.fill import smooth_fill
from geometry.frame import Frame
from geometry.warping import forward_warp
from scenes.synthetic.camera_moves import level_camera, move_path

SOURCE, LICENSE = "panorama", "CC0-1.0"
NAMES = (
    "empty_warehouse_01", "forest_slope", "kiara_1_dawn", "lebombo", "potsdamer_platz", "rooitou_park",
    "st_fagans_interior", "venice_sunset",
)  # fmt: skip
"""Panoramas of Poly Haven by daylight or lamplight."""
UNKNOWN = -1.0  # inverse depth of invalid pixels
REACH_M = 4.0  # assumed median distance: the estimated depth has no metric scale

_VIEWS, _VIEW_SIZE = 8, (288, 256)
_STEEPEST = math.radians(14.0)


@dataclass(frozen=True)
class Panorama:
    """An equirectangular panorama.

    Attributes:
        rgb: colors 0..1; column 0 is backward (-z), the middle column forward (+z).
        inverse_distance: 1 / distance along the ray, 1/meter; 0 = sky.
    """

    rgb: Float[np.ndarray, "h w 3"]
    inverse_distance: Float[np.ndarray, "h w"]
    license: str = LICENSE

    def film(self, *, move: str, frames: int, seed: int, size: tuple[int, int]) -> dict[str, np.ndarray]:
        """See `film_panorama`."""
        return film_panorama(self, move=move, frames=frames, seed=seed, size=size)


def load_panorama(path: Path, estimator: DepthEstimator) -> Panorama:
    """Read a panorama and estimate its distances.

    Raises:
        ValueError: the image is not twice as wide as high.
    """
    rgb = np.asarray(Image.open(path).convert("RGB"), np.float32) / 255.0
    height, width = rgb.shape[:2]
    if width != 2 * height:
        raise ValueError(f"{path}: want a panorama twice as wide as high, got {width}x{height}")
    return Panorama(rgb, _distances(rgb, estimator))


def film_panorama(
    panorama: Panorama, *, move: str, frames: int, seed: int, size: tuple[int, int]
) -> dict[str, np.ndarray]:
    """Render a clip: crops for a ``pan``, warps of the first frame for any other move.

    Args:
        panorama: the panorama.
        move: a key of ``scenes.synthetic.camera_moves.MOVES``.
        frames: length of the clip.
        seed: seed of all random choices.
        size: ``(H, W)``.

    Returns:
        The arrays of a clip file (see `scenes.dataset.clips`); inverse depth is ``UNKNOWN`` where a frame is
        invalid.
    """
    rng = np.random.default_rng(seed)
    focal = 0.5 * size[1] / math.tan(0.5 * math.radians(rng.uniform(70.0, 95.0)))
    start = level_camera(np.zeros(3), rng.uniform(-math.pi, math.pi), rng.uniform(-_STEEPEST, 0.5 * _STEEPEST))
    first = _cropped(panorama, _cameras(start[None], focal, size))
    reach = float(first.depth[~first.sky].median()) if (~first.sky).any() else REACH_M
    poses, turning = move_path(move, start, frames, reach, 1.0, rng), move == "pan"
    if turning:
        poses[:, :3, 3] = 0.0  # a panorama has no parallax: the sway of the move is dropped
    cameras = _cameras(poses, focal, size)
    shown = _cropped(panorama, cameras) if turning else _warped_from_first(first, cameras)
    inverse = torch.where(shown.sky, 0.0, 1.0 / shown.depth)
    inverse = torch.where(shown.valid, inverse, UNKNOWN)
    relative = np.linalg.inv(start) @ cameras.world_from_camera.double().numpy()
    return {
        "rgb": (shown.rgb * 255.0).round().clamp(0.0, 255.0).to(torch.uint8).numpy(),
        "inverse_depth": inverse.half().numpy(),
        "world_from_camera": relative.astype(np.float32),
        "focal_px": cameras.focal_px.numpy(),
        "center_px": cameras.center_px.numpy(),
    }


def _cameras(poses: np.ndarray, focal: float, size: tuple[int, int]) -> Camera:
    count = len(poses)
    center = torch.tensor([[0.5 * size[1], 0.5 * size[0]]]).repeat(count, 1)
    return Camera(torch.from_numpy(poses).float(), torch.full((count, 2), focal), center, size)


def _cropped(panorama: Panorama, cameras: Camera) -> Frame:
    """Crops of the panorama for cameras at its center."""
    both = np.concatenate([panorama.rgb, panorama.inverse_distance[..., None]], axis=-1)
    rays = _rays(cameras)
    parts = torch.from_numpy(np.stack([_sample(both, world) for world in rays])).permute(0, 3, 1, 2)
    # From distance along the ray to depth along the optical axis.
    axis = cameras.world_from_camera[:, :3, 2].numpy()
    cosine = torch.from_numpy(np.einsum("thwc,tc->thw", rays, axis).astype(np.float32))[:, None]
    sky = parts[:, 3:] <= 0.0
    depth = torch.where(sky, 100.0 * REACH_M, cosine / parts[:, 3:].clamp_min(1e-6))
    return Frame(parts[:, :3].clamp(0.0, 1.0), depth, torch.ones_like(sky), sky, cameras, metric=False)


def _warped_from_first(first: Frame, cameras: Camera) -> Frame:
    """The first frame, then its warps to the other cameras; disoccluded pixels are invalid."""
    values = torch.cat([first.rgb, first.sky.float(), 1.0 / first.depth], dim=1)
    carried, _, hit = forward_warp(first, cameras[1:], values)
    carried = smooth_fill(carried, hit)
    crack = 5.0  # pixels of a 3x3 window that must be hit to close a crack in a warped frame
    # Cracks of one pixel come from warping and are no disocclusions.
    hit = hit | (conv2d(hit.float(), torch.ones(1, 1, 3, 3), padding=1) >= crack)
    return Frame(
        torch.cat([first.rgb, carried[:, :3]]),
        torch.cat([first.depth, 1.0 / carried[:, 4:]]),
        torch.cat([first.valid, hit]),
        torch.cat([first.sky, hit & (carried[:, 3:4] > 0.5)]),
        cameras,
        metric=False,
    )


def _rays(cameras: Camera) -> Float[np.ndarray, "t h w 3"]:
    """Unit ray directions of all pixels in the world."""
    height, width = cameras.size
    row, column = np.mgrid[0:height, 0:width] + 0.5
    rays = []
    for pose, focal, center in zip(cameras.world_from_camera, cameras.focal_px, cameras.center_px, strict=True):
        local = np.stack(
            [
                (column - float(center[0])) / float(focal[0]),
                (row - float(center[1])) / float(focal[1]),
                np.ones_like(row),
            ],
            -1,
        )
        world = local @ pose[:3, :3].double().numpy().T
        rays.append(world / np.linalg.norm(world, axis=-1, keepdims=True))
    return np.stack(rays)


def _sample(values: Float[np.ndarray, "h w c"], rays: Float[np.ndarray, "h2 w2 3"]) -> Float[np.ndarray, "h2 w2 c"]:
    """Sample colors bicubically and the last channel (inverse distance) at the nearest pixel.

    Interpolated distances at an outline would be on neither surface.
    """
    height, width = values.shape[:2]
    column = (np.arctan2(rays[..., 0], rays[..., 2]) / (2.0 * math.pi) + 0.5) * width - 0.5
    row = (np.arcsin(rays[..., 1].clip(-1.0, 1.0)) / math.pi + 0.5) * height - 0.5
    at = (column.astype(np.float32), row.astype(np.float32).clip(0.0, height - 1.0))
    rgb = cv2.remap(np.ascontiguousarray(values[..., :3], np.float32), *at, cv2.INTER_CUBIC, borderMode=cv2.BORDER_WRAP)
    near = cv2.remap(
        np.ascontiguousarray(values[..., 3], np.float32), *at, cv2.INTER_NEAREST, borderMode=cv2.BORDER_WRAP
    )
    return np.concatenate([rgb, near[..., None]], axis=-1)


def _distances(rgb: Float[np.ndarray, "h w 3"], estimator: DepthEstimator) -> Float[np.ndarray, "h w"]:
    """Inverse distance ``[h w]``: depth of a ring of views around the horizon, aligned in scale where they overlap."""
    height, width = rgb.shape[:2]
    view_fov = 90.0
    focal = 0.5 * _VIEW_SIZE[1] / math.tan(0.5 * math.radians(view_fov))
    blank = Panorama(rgb, np.zeros((height, width), np.float32))
    turns = np.stack([level_camera(np.zeros(3), 2.0 * math.pi * i / _VIEWS, 0.0) for i in range(_VIEWS)])
    cameras = _cameras(turns, focal, _VIEW_SIZE)
    estimate = estimator.estimate(_cropped(blank, cameras).rgb, cameras.focal_px)
    row, column = np.mgrid[0:height, 0:width] + 0.5
    latitude, longitude = (row / height - 0.5) * math.pi, (column / width - 0.5) * 2.0 * math.pi
    rays = np.stack([np.cos(latitude) * np.sin(longitude), np.sin(latitude), np.cos(latitude) * np.cos(longitude)], -1)
    logs, weights = zip(
        *(_on_sphere(rays, cameras[[i]], estimate.depth[i, 0], estimate.sky[i, 0]) for i in range(_VIEWS)),
        strict=True,
    )
    logs = _align_scales(np.stack(logs), np.stack(weights))
    weight, known = (
        np.stack(weights) ** 4 + 1e-12,
        np.isfinite(logs),
    )  # power 4: nearly one view per pixel, since means blur outlines
    mean = np.average(np.where(known, logs, 0.0), axis=0, weights=weight * known + 1e-20)
    sky = np.average(~known, axis=0, weights=weight) > 0.5
    mean -= np.median(mean[~sky]) + math.log(REACH_M) if (~sky).any() else 0.0
    return np.where(sky, 0.0, np.exp(mean)).astype(np.float32)


def _on_sphere(
    rays: np.ndarray, camera: Camera, depth: torch.Tensor, sky: torch.Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """Log inverse distance of one view at each direction (not finite: sky), and its weight.

    Directions above and below the view take the values of its upper and lower border.
    """
    local = rays @ camera.world_from_camera[0, :3, :3].double().numpy()
    ahead = np.maximum(local[..., 2], 1e-3)
    height, width = camera.size
    column = local[..., 0] / ahead * float(camera.focal_px[0, 0]) + 0.5 * width - 0.5
    row = (local[..., 1] / ahead * float(camera.focal_px[0, 1]) + 0.5 * height - 0.5).clip(0.0, height - 1.0)
    at = (column.astype(np.float32), row.astype(np.float32))
    z = cv2.remap(depth.numpy(), *at, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
    far = cv2.remap(sky.numpy().astype(np.uint8), *at, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE) > 0
    weight = np.clip(1.0 - np.abs(column + 0.5 - 0.5 * width) / (0.5 * width), 0.0, 1.0) * (local[..., 2] > 1e-3)
    with np.errstate(divide="ignore"):
        return np.where(far, -np.inf, -np.log(np.maximum(z, 1e-6) / np.maximum(ahead, 0.3))), weight


def _align_scales(logs: Float[np.ndarray, "v h w"], weights: Float[np.ndarray, "v h w"]) -> Float[np.ndarray, "v h w"]:
    """Shift the views so that neighbors agree in the median; the remainder of the full turn is distributed evenly."""
    steps = []
    for i in range(len(logs)):
        a, b = i, (i + 1) % len(logs)
        both = (weights[a] > 0.0) & (weights[b] > 0.0) & np.isfinite(logs[a]) & np.isfinite(logs[b])
        steps.append(float(np.median(logs[a][both] - logs[b][both])) if both.any() else 0.0)
    steps = np.array(steps) - np.mean(steps)
    shift = np.concatenate([[0.0], np.cumsum(steps)[:-1]])
    return logs + shift[:, None, None]
