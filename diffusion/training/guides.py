"""Training samples: what the generator would be shown of a clip, and what it should make of it."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, max_pool2d

from diffusion.condition import encode
from diffusion.training.corruption import copy_far, copy_near, doubtful, hairlines, smooth_noise
from geometry.camera import Camera
from geometry.frame import Frame
from geometry.project import forward_warp, smooth_fill

THIN_PX = 8  # holes narrower than this are determined by what surrounds them


@dataclass(frozen=True)
class Sample:
    """One sequence: context frames first, then the frames to make. States are in the code of `diffusion.condition`.

    Attributes:
        truth: clean states ``[t 4 h w]``.
        prior, smooth: complete states ``[t 4 h w]``; the truth in context frames.
        coverage, confidence, copied: maps ``[t 1 h w]``.
        determined: 1 where the truth can be known from what is shown, 0 where it must be invented, ``[t 1 h w]``.
        world_from_camera: ``[t 4 4]``.
        intrinsics: ``[t 3 3]``, pixels.
        unit: scene units per length unit, ``[]``.
    """

    truth: Float[Tensor, "*b t 4 h w"]
    prior: Float[Tensor, "*b t 4 h w"]
    smooth: Float[Tensor, "*b t 4 h w"]
    coverage: Float[Tensor, "*b t 1 h w"]
    confidence: Float[Tensor, "*b t 1 h w"]
    copied: Float[Tensor, "*b t 1 h w"]
    determined: Float[Tensor, "*b t 1 h w"]
    world_from_camera: Float[Tensor, "*b t 4 4"]
    intrinsics: Float[Tensor, "*b t 3 3"]
    unit: Float[Tensor, "*b"]

    @staticmethod
    def stack(samples: list[Sample]) -> Sample:
        """Join samples of one shape into a batch."""
        return Sample(*(torch.stack([getattr(s, f.name) for s in samples]) for f in fields(Sample)))


@dataclass(frozen=True)
class SampleConfig:
    """Shape of the samples.

    Attributes:
        size: crop ``(H, W)`` in pixels.
        halved: whether the clip is taken at half its resolution.
        context: frames that are only attended to.
        targets: frames to make.
    """

    size: tuple[int, int]
    halved: bool
    context: int = 2
    targets: int = 4


def warped_sample(clip: Frame, config: SampleConfig, rng: np.random.Generator) -> Sample:
    """A sample whose guide is a warp of earlier frames and whose holes are filled by a spoiled copy.

    Args:
        clip: at least ``context + targets`` frames.
        config: shape of the sample.
        rng: the only randomness.
    """
    frames = _augmented(_crop(clip[_choose(len(clip), config, rng)], config, rng), rng)
    context, targets = frames[: config.context], frames[config.context :]
    usable = context.valid & ~context.sky
    unit = context.depth[usable].median().item() if usable.any() else 1.0
    truth = encode(frames.rgb, frames.depth, unit)
    target_truth = truth[config.context :]
    seen, known, confidence = _warp(context, targets.camera, unit, rng)
    known = known & ~_extra_holes(known, rng)
    smooth = smooth_fill(seen, known)
    prior, determined = _fill(target_truth, seen, known, smooth, rng)
    prior[:, :3] = torch.where(known, doubtful(prior[:, :3], confidence, rng), prior[:, :3])
    smooth = torch.where(known, prior, smooth)
    return _joined(truth, config.context, prior, smooth, known, confidence, determined, frames.camera, unit)


def thin(hole: Bool[Tensor, "t 1 h w"], width_px: int = THIN_PX) -> Bool[Tensor, "t 1 h w"]:
    """The parts of holes that are narrower than ``width_px`` in some direction."""
    radius = width_px // 2
    size = 2 * radius + 1
    core = -max_pool2d(-hole.float(), size, stride=1, padding=radius)
    return hole & ~(max_pool2d(core, size, stride=1, padding=radius) > 0.5)


def _choose(count: int, config: SampleConfig, rng: np.random.Generator) -> list[int]:
    """Context frames around a moment, then targets that run away from it: close ones for thin strips, far for wide."""
    total = config.context + config.targets
    if count < total:
        raise ValueError(f"clip: want at least {total} frames, got {count}")
    stride = int(rng.integers(1, (count - 1) // (total - 1) + 1))
    span = stride * (total - 1) + 1
    start = int(rng.integers(0, count - span + 1))
    order = list(range(start, start + span, stride))
    return order[::-1] if rng.random() < 0.5 else order


def _crop(clip: Frame, config: SampleConfig, rng: np.random.Generator) -> Frame:
    """A random crop, at half resolution if so configured."""
    rgb, depth, valid, sky, camera = clip.rgb, clip.depth, clip.valid, clip.sky, clip.camera
    if config.halved:
        rgb, depth, valid, sky = avg_pool2d(rgb, 2), depth[..., ::2, ::2], valid[..., ::2, ::2], sky[..., ::2, ::2]
        camera = camera.resized((depth.shape[-2], depth.shape[-1]))
    height, width = config.size
    if camera.size[0] < height or camera.size[1] < width:
        raise ValueError(f"clip: want frames of at least {config.size}, got {camera.size}")
    top = int(rng.integers(0, camera.size[0] - height + 1))
    left = int(rng.integers(0, camera.size[1] - width + 1))
    area = (..., slice(top, top + height), slice(left, left + width))
    center = camera.center_px - torch.tensor([float(left), float(top)])
    moved = Camera(camera.world_from_camera, camera.focal_px, center, config.size)
    return Frame(rgb[area], depth[area], valid[area], sky[area], moved, clip.metric)


def _augmented(frames: Frame, rng: np.random.Generator) -> Frame:
    """Mirror and recolour a clip as a whole."""
    if rng.random() < 0.5:
        mirror = torch.diag(torch.tensor([-1.0, 1.0, 1.0, 1.0]))
        center = frames.camera.center_px.clone()
        center[:, 0] = frames.camera.size[1] - center[:, 0]
        pose = mirror @ frames.camera.world_from_camera @ mirror
        camera = Camera(pose, frames.camera.focal_px, center, frames.camera.size)
        frames = Frame(
            frames.rgb.flip(-1), frames.depth.flip(-1), frames.valid.flip(-1), frames.sky.flip(-1), camera, frames.metric
        )
    rgb = frames.rgb
    if rng.random() < 0.3:
        rgb = rgb[:, rng.permutation(3)]
    gamma = float(np.exp(rng.normal(0.0, 0.2)))
    gain = torch.from_numpy(np.exp(rng.normal(0.0, 0.1, (1, 3, 1, 1))).astype(np.float32))
    return replace(frames, rgb=(rgb.clamp_min(1e-3) ** gamma * gain).clamp(0.0, 1.0))


def _warp(
    context: Frame, camera: Camera, unit: float, rng: np.random.Generator
) -> tuple[Float[Tensor, "t 4 h w"], Bool[Tensor, "t 1 h w"], Float[Tensor, "t 1 h w"]]:
    """What the targets see of the context, its depth slightly wrong: states, where known, and confidence."""
    source = context[:1] if rng.random() < 0.6 else context
    shape = (len(source), 1, *camera.size)
    wrong = torch.exp(float(rng.uniform(0.0, 0.06)) * smooth_noise(shape, 4, rng))
    depth = source.depth * wrong
    if rng.random() < 0.4:
        depth = 1.0 / avg_pool2d(1.0 / depth, 3, stride=1, padding=1, count_include_pad=False)
    source = replace(source, depth=torch.where(source.sky, source.depth, depth))
    values, depth, hit = forward_warp(source, camera, source.rgb)
    state = encode(values, torch.where(hit, depth, unit), unit)
    # A pixel wide cracks are no disocclusions: a cache has none.
    near = conv2d(hit.float(), torch.ones(1, 1, 3, 3), padding=1)
    crack = ~hit & (near >= 5.0)
    state = torch.where(crack, smooth_fill(state, hit), state)
    confidence = 1.0 - float(rng.uniform(0.0, 0.8)) * smooth_noise((len(camera), 1, *camera.size), 5, rng).clamp_min(0.0)
    return state, hit | crack, torch.where(crack, 0.7 * confidence, confidence)


def _extra_holes(known: Bool[Tensor, "t 1 h w"], rng: np.random.Generator) -> Bool[Tensor, "t 1 h w"]:
    """Holes that no warp makes: a side of the image, or blobs."""
    hole = torch.zeros_like(known)
    height, width = known.shape[2:]
    if rng.random() < 0.5:
        share = rng.uniform(0.1, 0.45)
        side = rng.integers(0, 4)
        rows, columns = int(share * height), int(share * width)
        area = ((slice(0, rows), slice(None)), (slice(-rows, None), slice(None)), (slice(None), slice(0, columns)),
                (slice(None), slice(-columns, None)))[side]  # fmt: skip
        hole[(..., *area)] = True
    if rng.random() < 0.3:
        hole |= smooth_noise((len(known), 1, height, width), int(rng.integers(4, 10)), rng) > rng.uniform(0.35, 0.6)
    return hole


def _fill(
    truth: Float[Tensor, "t 4 h w"],
    seen: Float[Tensor, "t 4 h w"],
    known: Bool[Tensor, "t 1 h w"],
    smooth: Float[Tensor, "t 4 h w"],
    rng: np.random.Generator,
) -> tuple[Float[Tensor, "t 4 h w"], Float[Tensor, "t 1 h w"]]:
    """A spoiled prior, and where the truth is determined."""
    hole = ~known
    narrow = thin(hole)
    kind = rng.choice(["near", "far", "smooth"], p=[0.45, 0.45, 0.1])
    if kind == "near":
        filled, made = copy_near(truth, rng), hole
    elif kind == "far":
        filled, made = copy_far(seen, known, rng)
    else:
        filled, made = smooth, hole
    if rng.random() < 0.3:
        filled = torch.cat([hairlines(filled[:, :3], hole, rng), filled[:, 3:]], 1)
    rgb = torch.where(made & ~narrow, filled[:, :3], smooth[:, :3])
    depth = torch.where(hole, smooth[:, 3:] if rng.random() < 0.8 else copy_near(truth, rng)[:, 3:], seen[:, 3:])
    prior = torch.cat([torch.where(known, seen[:, :3], rgb), depth], 1)
    determined = torch.ones_like(known) if kind == "near" else ~hole | narrow
    return prior, determined.float()


def _joined(
    truth: Tensor,
    context: int,
    prior: Tensor,
    smooth: Tensor,
    known: Tensor,
    confidence: Tensor,
    determined: Tensor,
    camera: Camera,
    unit: float,
) -> Sample:
    """Put the clean context frames before the targets."""
    clean, one = truth[:context], torch.ones_like(truth[:context, :1])
    coverage = known.float()
    return Sample(
        truth=truth,
        prior=torch.cat([clean, prior]),
        smooth=torch.cat([clean, smooth]),
        coverage=torch.cat([one, coverage]),
        confidence=torch.cat([one, confidence * coverage]),
        copied=torch.cat([0.0 * one, 1.0 - coverage]),
        determined=torch.cat([one, determined]),
        world_from_camera=camera.world_from_camera,
        intrinsics=camera.intrinsics,
        unit=torch.tensor(unit),
    )
