"""What tests of several packages need: cameras, toy frames and guides, files on disk, comparison to the bit."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from cache3d.rasterizer.types import Splats
from diffusion.condition import Prior
from diffusion.retouch.network import NetworkConfig
from geometry.camera import Camera
from geometry.depth import DepthMap
from geometry.frame import Chunk, Frame, Guide
from geometry.project import unproject
from worldwarp import World

REPOSITORY = Path(__file__).parents[1]
PILLAR, BACK_WALL = (-0.35, 0.25, 1.2), 2.5  # left, right and depth of a pillar; depth of the wall behind it
TOY_NETWORK = NetworkConfig(widths=(8, 8, 8), dim=16, blocks=1, heads=1)


def pose_at(x: float = 0.0, y: float = 0.0, z: float = 0.0, yaw_deg: float = 0.0) -> Float[Tensor, "4 4"]:
    """A camera-to-world transform: a place, and a turn to the right about the vertical axis."""
    yaw = math.radians(yaw_deg)
    pose = torch.eye(4)
    pose[0, 0], pose[0, 2], pose[2, 0], pose[2, 2] = math.cos(yaw), math.sin(yaw), -math.sin(yaw), math.cos(yaw)
    pose[:3, 3] = torch.tensor([x, y, z])
    return pose


def cameras_at(
    *places: tuple[float, float, float] | Float[Tensor, "4 4"], size: tuple[int, int] = (48, 64), fov_deg: float = 60.0
) -> Camera:
    """A batch of cameras at places, looking along +z, or at whole poses."""
    poses = [place if isinstance(place, Tensor) else pose_at(*place) for place in places]
    return Camera.from_fov(fov_deg, size, torch.stack(poses))


def cameras_along(step: float, count: int, size: tuple[int, int], first: int = 0, fov_deg: float = 60.0) -> Camera:
    """Cameras that look along +z and move to the right by ``step``; the first has gone ``first`` steps."""
    return cameras_at(*((step * k, 0.0, 0.0) for k in range(first, first + count)), size=size, fov_deg=fov_deg)


def textured_wall(camera: Camera, distance: float = 2.0, grain: float = 9.0) -> Frame:
    """An endless wall ``z = distance`` of smooth texture, seen exactly."""
    start = camera.position[:, :, None, None]
    rays = unproject(torch.ones(len(camera), 1, *camera.size), camera) - start
    depth = (distance - start[:, 2:]) / rays[:, 2:]
    point = start + depth * rays
    rgb = torch.stack([torch.sin(grain * point[:, k % 2] + k) for k in range(3)], dim=1) * 0.35 + 0.5
    valid = (depth > 0) & torch.isfinite(depth)
    return Frame(rgb, torch.where(valid, depth, torch.ones_like(depth)), valid, torch.zeros_like(valid), camera)


def pillar_before_wall(camera: Camera, skyline: float = -math.inf) -> tuple[Frame, Bool[Tensor, "h w"]]:
    """A pillar before a wall, seen exactly by one camera, and where the pillar is.

    Args:
        skyline: upper edge of the wall (y points down); above it is sky.
    """
    pose, ones = camera.world_from_camera[0], torch.ones(1, 1, *camera.size)
    rays = unproject(ones, camera)[0] - pose[:3, 3, None, None]
    near, far = ((distance - pose[2, 3]) / rays[2] for distance in (PILLAR[2], BACK_WALL))
    across = pose[0, 3] + near * rays[0]
    pillar = (across > PILLAR[0]) & (across < PILLAR[1])
    sky = ~pillar & (pose[1, 3] + far * rays[1] < skyline)
    depth = torch.where(pillar, near, far)
    point = pose[:3, 3, None, None] + depth * rays
    rgb = torch.stack([torch.sin(9.0 * point[k % 2] + k + 2.0 * pillar) for k in range(3)]) * 0.35 + 0.5
    rgb = torch.where(sky, torch.tensor([0.1, 0.2, 0.9])[:, None, None], rgb)
    depth = torch.where(sky, 100.0, depth)
    return Frame(rgb[None], depth[None, None], ones > 0, sky[None, None], camera), pillar


def chunk_of(frames: Frame, index: int = 0, *, observed: bool = True, confidence: float = 1.0) -> Chunk:
    """A chunk of the same confidence everywhere."""
    return Chunk(frames, index, observed, torch.full_like(frames.depth, confidence))


def guide_of(
    camera: Camera,
    depth: float | Float[Tensor, "t 1 h w"],
    rgb: float | Float[Tensor, "t 3 h w"] = 0.5,
    hole: Bool[Tensor, "..."] | None = None,
) -> Guide:
    """A guide that is certain of all but ``hole``, where it is zero; no sky."""
    shape = (len(camera), 1, *camera.size)
    covered = torch.ones(shape) if hole is None else (~hole).expand(shape).float()
    return Guide(
        rgb * covered.expand(-1, 3, -1, -1), depth * covered, covered, covered.clone(), torch.zeros(shape), camera
    )


def prior_of(rgb: Float[Tensor, "t 3 h w"], depth: Float[Tensor, "t 1 h w"], copied: Float[Tensor, "t 1 h w"]) -> Prior:
    """A prior whose smooth copy is the prior itself, no pixel locked."""
    return Prior(rgb, depth, copied, rgb, depth, torch.zeros_like(copied, dtype=torch.bool))


def random_rgb(size: tuple[int, int], frames: int = 1, seed: int = 0) -> Float[Tensor, "t 3 h w"]:
    """Colors drawn for each pixel alone."""
    return torch.rand(frames, 3, *size, generator=torch.Generator().manual_seed(seed))


class GivenDepth:
    """A depth estimator that gives the depth map it was made with."""

    def __init__(self, made: DepthMap) -> None:
        self.made = made

    def estimate(self, rgb: Tensor, focal_px: Tensor | None = None) -> DepthMap:  # noqa: ARG002
        return self.made


def random_splats(count: int, seed: int = 0, channels: int = 3) -> Splats:
    """Gaussians of all shapes and distinct depths, around (0, 0, 3)."""
    rng = torch.Generator().manual_seed(seed)
    means = torch.randn(count, 3, generator=rng) * torch.tensor([1.2, 0.8, 0.8]) + torch.tensor([0.0, 0.0, 3.0])
    return Splats(
        means=means,
        quats=torch.randn(count, 4, generator=rng),
        scales=torch.rand(count, 3, generator=rng) * 0.08 + 0.005,
        opacities=torch.rand(count, generator=rng),
        values=torch.rand(count, channels, generator=rng),
    )


def psnr(a: Tensor, b: Tensor) -> float:
    """Peak signal-to-noise ratio of values in 0..1, in dB."""
    return float(-10.0 * torch.log10(((a - b) ** 2).mean()))


def same_bits(a: object, b: object) -> bool:
    """Whether tensors, and dataclasses and lists of them, are equal to the bit."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, list | tuple):
        return isinstance(b, list | tuple) and len(a) == len(b) and all(map(same_bits, a, b))
    if is_dataclass(a):
        return type(a) is type(b) and all(same_bits(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    return a == b


def world_content(folder: Path) -> list[object]:
    """What a stored world consists of, for ``same_bits``: frames, primitives, random state, and every third view."""
    world = World.load(folder)
    return [world.frames(), world.primitives, world.record.rng_state, world.render(world.cameras[::3])]


def write_photo(path: Path, size: tuple[int, int] = (120, 200)) -> Path:
    """A photo of smooth random colors, ``size = (H, W)``."""
    coarse = np.random.default_rng(0).integers(0, 255, (12, 20, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((size[1], size[0]), Image.Resampling.BICUBIC).save(path)
    return path


def write_clip(folder: Path, rgb: np.ndarray, inverse_depth: np.ndarray, camera: Camera) -> Path:
    """A clip as training reads it, named in the manifest as training and as held-out clip.

    Args:
        rgb: bytes, ``[t 3 h w]``.
        inverse_depth: ``[t 1 h w]``, 0 in the sky.
    """
    tensors = {
        "rgb": torch.from_numpy(np.ascontiguousarray(rgb)),
        "inverse_depth": torch.from_numpy(np.ascontiguousarray(inverse_depth)).half(),
        "world_from_camera": camera.world_from_camera,
        "focal_px": camera.focal_px,
        "center_px": camera.center_px,
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "clip.safetensors")
    clips = [{"file": "clip.safetensors", "split": split} for split in ("train", "heldout")]
    (folder / "manifest.json").write_text(json.dumps({"clips": clips}))
    return folder / "clip.safetensors"


def command_line(words: Sequence[str | bytes]) -> list[str | bytes]:
    """The command ``worldwarp`` of this checkout as a program; to be run in `program_environment`."""
    return [sys.executable, "-m", "worldwarp.cli", *words]


def program_environment(**more: str) -> dict[str, str]:
    """Environment of a program that imports this checkout and writes UTF-8, whatever the locale of the tests."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHONIO", "LC_", "LANG"))}
    return kept | {"PYTHONPATH": str(REPOSITORY), "LANG": "C.UTF-8"} | more


def wait_until(done: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Poll until ``done``."""
    until = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < until, "not done in time"
        time.sleep(0.02)
