"""What the rollout benchmarks share: long held-out clips, seeded walks, and which pixels the truth decides."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from safetensors import safe_open
from scipy import stats
from torch import Tensor

from benchmarks.quality.generator_quality import normalized
from cache3d.cache import WorldCache
from diffusion.generator import Generator
from diffusion.inpainting.config import InpaintConfig
from diffusion.noise_map import NoiseConfig
from geometry.camera import Camera
from geometry.frame import Frame
from geometry.project import project, unproject
from scenes.dataset.clips import list_clips, read_clip
from worldwarp.loop import explore, start
from worldwarp.state import Components, LiftedPhoto

CHUNKS, FRAMES = 10, 4
LAST = CHUNKS * FRAMES
SAME_DEPTH = 0.03  # relative difference up to which two depths are one surface


@dataclass(frozen=True)
class Walked:
    """The frames of a walk without the photo, and the mean seconds per chunk."""

    frames: Frame
    seconds: float


def long_clips(data: Path, count: int) -> dict[str, Frame]:
    """The first ``count`` held-out clips of more than 40 frames by name, in units of their first median depth."""
    paths = [path for path in list_clips(data, "heldout") if _frames(path) > LAST]
    return {path.stem: normalized(read_clip(path)) for path in paths[:count]}


def to_and_fro(frames: int) -> list[int]:
    """Indices of a clip of ``LAST + 1`` frames, walked to its end and back again, over and over."""
    lap = [*range(LAST), *range(LAST, 0, -1)]
    return [lap[i % len(lap)] for i in range(frames)]


def walk(
    clip: Frame,
    cameras: Camera,
    generator: Generator,
    cache: WorldCache,
    noise: NoiseConfig = NoiseConfig(),  # noqa: B008 (frozen)
    seed: int = 0,
) -> Walked:
    """Walk along ``cameras [t]`` in chunks of four from the first frame of ``clip``, whose true depth is given."""
    components = Components(generator, noise, InpaintConfig())
    photo = LiftedPhoto(clip[[0]], clip[[0]], clip.rgb[0])
    state = start(photo, cache, components, torch.Generator().manual_seed(seed))
    chunks = [cameras[i : i + FRAMES] for i in range(0, len(cameras), FRAMES)]
    begun = time.process_time()
    made = [step.chunk.frames for step in explore(state, chunks, components)]
    return Walked(Frame.concatenate(made), (time.process_time() - begun) / len(chunks))


def determined(clip: Frame) -> Bool[Tensor, "t 1 h w"]:
    """Pixels of each frame that show a surface which the first frame shows too, by the true geometry."""
    height, width = clip.camera.size
    count = len(clip)
    points = unproject(clip.depth, clip.camera).flatten(2).transpose(1, 2)
    pixels, depth = project(points.reshape(1, -1, 3), clip.camera[:1])
    column, row = pixels[0].floor().long().unbind(-1)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height) & (depth[0] > 0.0)
    column, row = column.clamp(0, width - 1), row.clamp(0, height - 1)
    there, sky = clip.depth[0, 0, row, column], clip.sky[0, 0, row, column]
    same = ((depth[0] - there).abs() < SAME_DEPTH * there) & ~sky
    seen = inside & torch.where(clip.sky.permute(0, 2, 3, 1).reshape(-1), sky, same)
    return seen.reshape(count, height, width)[:, None]


def psnr(made: Frame, truth: Frame, where: Bool[Tensor, "t 1 h w"]) -> float:
    """Colors against the truth over the pixels ``where``, in dB."""
    error = (made.rgb - truth.rgb).square().mean(1, keepdim=True)
    return float(-10.0 * torch.log10(error[where].mean()))


def delta1(made: Frame, truth: Frame, where: Bool[Tensor, "t 1 h w"]) -> float:
    """Share of the pixels ``where`` (sky left out) whose depth is within a factor of 1.25 of the truth."""
    ratio = (made.depth / truth.depth).clamp(1e-3, 1e3)[where & ~truth.sky]
    return float((torch.maximum(ratio, 1.0 / ratio) < 1.25).float().mean())


def interval(values: Float[Tensor, "n"]) -> tuple[float, float]:
    """Mean and half the width of its 95 % interval (Student's t); values that are not finite are left out."""
    values = values[values.isfinite()]
    if len(values) < 2:
        return float(values.mean()), float("nan")
    reach = float(stats.t.ppf(0.975, len(values) - 1))
    return float(values.mean()), float(reach * values.std() / len(values) ** 0.5)


def _frames(path: Path) -> int:
    with safe_open(path, framework="pt") as file:
        return file.get_slice("world_from_camera").get_shape()[0]
