"""Training samples: inputs of the generator made from clips, and the true frames."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d

from diffusion.inpainting.masks import thin
from diffusion.rgbd_state import encode
from geometry.camera import Camera
from geometry.fill import smooth_fill
from geometry.frame import Frame
from geometry.warping import forward_warp
from worldwarp.training.augmentation import copy_far, copy_near, doubtful, hairlines, smooth_noise, spoil_seen

SPOILED_SHARE = 0.3  # share of recorded guides that are corrupted, as they contain few errors by themselves


@dataclass(frozen=True)
class Sample:
    """One sequence: context frames, then target frames. States are in the code of `diffusion.rgbd_state`.

    Attributes:
        truth: clean states ``[t 4 h w]``.
        prior, smooth: complete states ``[t 4 h w]``; the truth in context frames.
        coverage, confidence, copied: maps ``[t 1 h w]``.
        determined: 1 where the inputs determine the truth, 0 where it must be invented, ``[t 1 h w]``.
        world_from_camera: ``[t 4 4]``.
        intrinsics: ``[t 3 3]``, pixels.
        unit: scene units per length unit of the depth code, ``[]``.
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
        """Stack samples of one shape into a batch ``[b]``."""
        return Sample(*(torch.stack([getattr(s, f.name) for s in samples]) for f in fields(Sample)))


@dataclass(frozen=True)
class SampleConfig:
    """Shape of the samples.

    Attributes:
        size: crop ``(H, W)`` in pixels.
        halved: whether the clip is downsampled by 2 first.
        context: number of given frames.
        targets: number of frames to generate.
    """

    size: tuple[int, int]
    halved: bool
    context: int = 2
    targets: int = 4


def warped_sample(clip: Frame, config: SampleConfig, rng: np.random.Generator) -> Sample:
    """A sample whose guide is a warp of the context frames and whose holes are filled by corrupted copies.

    Args:
        clip: at least ``context + targets`` frames.
        config: shape of the sample.
        rng: the only source of randomness.
    """
    # One window for all frames: a crop per frame would be a camera move that the poses do not have.
    window = _Window.draw(clip.camera.size, config, rng)
    frames = window.frames(clip[_choose(len(clip), config, rng)])
    context, targets = frames[: config.context], frames[config.context :]
    usable = context.valid & ~context.sky
    unit = context.depth[usable].median().item() if usable.any() else 1.0
    truth = encode(frames.rgb, frames.depth, unit)
    target_truth = truth[config.context :]
    seen, known, confidence = _warp(context, targets.camera, unit, rng)
    # Short moves open thin holes only; in use whole sides of an image are unknown.
    known = known & ~_extra_holes(known, rng)
    smooth = smooth_fill(seen, known)
    prior, determined = _fill(target_truth, seen, known, smooth, rng)
    prior[:, :3] = torch.where(known, doubtful(prior[:, :3], confidence, rng), prior[:, :3])
    smooth = torch.where(known, prior, smooth)
    # Whatever is not covered was filled by a copy here, hence 1 - coverage for `copied`.
    coverage = known.float()
    return _joined(
        truth, config.context, prior, smooth, coverage, confidence * coverage, 1.0 - coverage, determined,
        frames.camera, unit,
    )  # fmt: skip


def recorded_sample(clip: Frame, recorded: Path, config: SampleConfig, rng: np.random.Generator) -> Sample:
    """A sample with guide and prior recorded from the cache and the inpainting (`worldwarp.training.record_guides`).

    Args:
        clip: the clip that the guides were recorded from.
        recorded: safetensors file with ``target`` and ``source`` (frame indices), ``prior_rgb``, ``smooth_rgb``
            (uint8), ``prior_depth``, ``smooth_depth`` (float16, depth code) and ``coverage``, ``confidence``,
            ``copied`` (uint8), one row per guide; rows of one source follow each other.
        config: shape of the sample; of its context only one frame, the guide's source, is used and repeated.
        rng: the only source of randomness.
    """
    rows = load_file(recorded)
    count = len(rows["target"])
    first = int(rng.integers(0, count))
    same = (rows["source"] == rows["source"][first]).nonzero()[:, 0]
    chosen = same[torch.from_numpy(np.sort(rng.choice(len(same), config.targets, replace=len(same) < config.targets)))]
    source, targets = int(rows["source"][first]), rows["target"][chosen].tolist()
    window = _Window.draw(clip.camera.size, config, rng)
    frames = window.frames(clip[[source] * config.context + targets])
    whole = clip[source]
    usable = whole.valid & ~whole.sky
    unit = whole.depth[usable].median().item() if usable.any() else 1.0
    frames = replace(frames, depth=torch.where(frames.valid, frames.depth, unit))  # as for frames in the KV memory

    def maps(name: str) -> Tensor:
        return window.shares(rows[name][chosen].float() / 255.0)

    def state(name: str) -> Tensor:
        rgb = window.colors(rows[f"{name}_rgb"][chosen].float() / 255.0)
        return torch.cat([2.0 * rgb - 1.0, window.surfaces(rows[f"{name}_depth"][chosen].float())], 1)

    coverage, copied = maps("coverage"), maps("copied")
    # Thin holes are determined by both of their sides; wide ones are not.
    hole = copied > 0.5
    determined = (~hole | thin(hole)).float()
    truth = encode(frames.rgb, frames.depth, unit)
    prior, smooth, confidence = state("prior"), state("smooth"), maps("confidence")
    if rng.random() < SPOILED_SHARE:
        worse, trust = spoil_seen(prior[:, :3], rng)
        prior[:, :3] = torch.where(hole, prior[:, :3], worse)
        smooth[:, :3] = torch.where(hole, smooth[:, :3], worse)
        confidence = confidence * trust
    return _joined(truth, config.context, prior, smooth, coverage, confidence, copied, determined, frames.camera, unit)


def _choose(count: int, config: SampleConfig, rng: np.random.Generator) -> list[int]:
    """Indices of context and target frames at a random stride (small strides give thin holes) and direction."""
    total = config.context + config.targets
    if count < total:
        raise ValueError(f"clip: want at least {total} frames, got {count}")
    stride = int(rng.integers(1, (count - 1) // (total - 1) + 1))
    span = stride * (total - 1) + 1
    start = int(rng.integers(0, count - span + 1))
    order = list(range(start, start + span, stride))
    # Backward as well: a camera that retreats uncovers the sides of the image.
    return order[::-1] if rng.random() < 0.5 else order


@dataclass(frozen=True)
class _Window:
    """Crop of a clip for a sample, with halving, mirroring and color changes."""

    config: SampleConfig
    top: int
    left: int
    mirror: bool
    channels: tuple[int, int, int]
    gamma: float
    gain: Float[Tensor, "3 1 1"]

    @staticmethod
    def draw(size: tuple[int, int], config: SampleConfig, rng: np.random.Generator) -> _Window:
        """A random window of frames of ``size``, which must be at least ``config.size`` (twice that when halved)."""
        size = (size[0] // 2, size[1] // 2) if config.halved else size
        if size[0] < config.size[0] or size[1] < config.size[1]:
            raise ValueError(f"clip: want frames of at least {config.size} (after halving, if any), got {size}")
        return _Window(
            config,
            top=int(rng.integers(0, size[0] - config.size[0] + 1)),
            left=int(rng.integers(0, size[1] - config.size[1] + 1)),
            mirror=bool(rng.random() < 0.5),
            # Permuted channels: few scenes have few palettes.
            channels=((0, 1, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))[int(rng.choice(4, p=(0.7, 0.1, 0.1, 0.1)))],
            gamma=float(np.exp(rng.normal(0.0, 0.2))),
            gain=torch.from_numpy(np.exp(rng.normal(0.0, 0.1, (3, 1, 1))).astype(np.float32)),
        )

    def colors(self, rgb: Float[Tensor, "t 3 h w"]) -> Float[Tensor, "t 3 h2 w2"]:
        """Crop colors: halved by averaging, then recolored."""
        rgb = self._part(avg_pool2d(rgb, 2) if self.config.halved else rgb)[:, list(self.channels)]
        return (rgb.clamp_min(1e-3) ** self.gamma * self.gain).clamp(0.0, 1.0)

    def shares(self, values: Float[Tensor, "t c h w"]) -> Float[Tensor, "t c h2 w2"]:
        """Crop maps in 0..1: halved by averaging."""
        return self._part(avg_pool2d(values, 2) if self.config.halved else values)

    def surfaces(self, values: Tensor) -> Tensor:
        """Crop depth or masks: halved by subsampling, which does not mix values across edges."""
        return self._part(values[..., ::2, ::2] if self.config.halved else values)

    def camera(self, camera: Camera) -> Camera:
        """The camera of the crop."""
        if self.config.halved:
            camera = camera.resized((camera.size[0] // 2, camera.size[1] // 2))
        center = camera.center_px - torch.tensor([float(self.left), float(self.top)])
        pose = camera.world_from_camera
        if self.mirror:
            # Mirrored images need mirrored poses, or the camera would move the wrong way.
            flip = torch.diag(torch.tensor([-1.0, 1.0, 1.0, 1.0]))
            pose = flip @ pose @ flip
            center = torch.stack([self.config.size[1] - center[:, 0], center[:, 1]], 1)
        return Camera(pose, camera.focal_px, center, self.config.size)

    def frames(self, clip: Frame) -> Frame:
        """Crop the frames of a clip."""
        return Frame(
            self.colors(clip.rgb),
            self.surfaces(clip.depth),
            self.surfaces(clip.valid),
            self.surfaces(clip.sky),
            self.camera(clip.camera),
            clip.metric,
        )

    def _part(self, values: Tensor) -> Tensor:
        (height, width), top, left = self.config.size, self.top, self.left
        part = values[..., top : top + height, left : left + width]
        return part.flip(-1) if self.mirror else part


def _warp(
    context: Frame, camera: Camera, unit: float, rng: np.random.Generator
) -> tuple[Float[Tensor, "t 4 h w"], Bool[Tensor, "t 1 h w"], Float[Tensor, "t 1 h w"]]:
    """Warp the context, with errors added to its depth, to the targets: states, mask of known pixels, confidence."""
    # Mostly from one frame, as in use from the photo.
    source = context[:1] if rng.random() < 0.6 else context
    shape = (len(source), 1, *camera.size)
    wrong = torch.exp(float(rng.uniform(0.0, 0.06)) * smooth_noise(shape, 4, rng))
    depth = source.depth * wrong
    # Blurred inverse depth: the soft edges of estimated depth.
    if rng.random() < 0.4:
        depth = 1.0 / avg_pool2d(1.0 / depth, 3, stride=1, padding=1, count_include_pad=False)
    source = replace(source, depth=torch.where(source.sky, source.depth, depth))
    values, depth, hit = forward_warp(source, camera, source.rgb)
    state = encode(values, torch.where(hit, depth, unit), unit)
    # Cracks of one pixel are artifacts of warping that a cache does not have; they are filled.
    near = conv2d(hit.float(), torch.ones(1, 1, 3, 3), padding=1)
    crack = ~hit & (near >= 5.0)
    state = torch.where(crack, smooth_fill(state, hit), state)
    confidence = 1.0 - float(rng.uniform(0.0, 0.8)) * smooth_noise((len(camera), 1, *camera.size), 5, rng).clamp_min(
        0.0
    )
    return state, hit | crack, torch.where(crack, 0.7 * confidence, confidence)


def _extra_holes(known: Bool[Tensor, "t 1 h w"], rng: np.random.Generator) -> Bool[Tensor, "t 1 h w"]:
    """Random extra holes: one side of the image, or blobs."""
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
    """Fill holes with corrupted copies: the prior, and the mask of pixels whose truth is determined."""
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
    coverage: Tensor,
    confidence: Tensor,
    copied: Tensor,
    determined: Tensor,
    camera: Camera,
    unit: float,
) -> Sample:
    """Make a sample: prepend the clean context frames to the targets."""
    clean, one = truth[:context], torch.ones_like(truth[:context, :1])
    return Sample(
        truth=truth,
        prior=torch.cat([clean, prior]),
        smooth=torch.cat([clean, smooth]),
        coverage=torch.cat([one, coverage]),
        confidence=torch.cat([one, confidence]),
        copied=torch.cat([0.0 * one, copied]),
        determined=torch.cat([one, determined]),
        world_from_camera=camera.world_from_camera,
        intrinsics=camera.intrinsics,
        unit=torch.tensor(unit),
    )
