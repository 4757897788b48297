"""Augmentation of training priors with the typical errors of exemplar-based inpainting.

Copying texture into a hole leaves seams between patches, patches that are shifted, mirrored, too bright or blurred, and
hairlines along the border of the hole. The truth (or its visible part) is corrupted in these ways, so that a network
learns to keep the texture and to remove the errors.

All images are ``[t c h w]`` in the code of `diffusion.rgbd_state`; randomness comes from a NumPy generator.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, max_pool2d


def smooth_noise(shape: tuple[int, int, int, int], cells: int, rng: np.random.Generator) -> Float[Tensor, "t c h w"]:
    """Smooth random maps in -1..1, bicubic over a grid of ``cells`` x ``cells + 2`` random values."""
    coarse = torch.from_numpy(rng.uniform(-1.0, 1.0, (*shape[:2], cells, cells + 2)).astype(np.float32))
    return interpolate(coarse, size=shape[2:], mode="bicubic", align_corners=True).clamp(-1.0, 1.0)


def patch_map(size: tuple[int, int], patches: int, rng: np.random.Generator) -> np.ndarray:
    """A random partition of an image into patches with ragged borders, ``[h w]`` int."""
    height, width = size
    row, column = np.mgrid[0:height, 0:width].astype(np.float32)
    # Ragged borders, as the seams of copies have.
    wobble = cv2.resize(rng.normal(0.0, 0.05 * width, (2, 6, 8)).astype(np.float32).transpose(1, 2, 0), (width, height))
    seed_row, seed_column = rng.uniform(0, height, patches), rng.uniform(0, width, patches)
    distance = (row[..., None] + wobble[..., :1] - seed_row) ** 2 + (
        column[..., None] + wobble[..., 1:] - seed_column
    ) ** 2
    return distance.argmin(axis=-1)


def copy_near(truth: Float[Tensor, "t c h w"], rng: np.random.Generator) -> Float[Tensor, "t c h w"]:
    """Copy the truth in patches that are slightly displaced, tinted, blurred or doubled; the target is known."""
    size = (truth.shape[2], truth.shape[3])
    patches = int(rng.integers(3, 14))
    layout = _Layout.draw(size, patches, rng)
    frames = []
    for frame in truth:
        frames.append(layout.spoil(frame))
        # Errors of the prior stay for some frames and then change.
        if rng.random() < 0.5:
            layout = _Layout.draw(size, patches, rng)
    out = torch.stack(frames)
    if rng.random() < 0.3:  # ghosting
        out[:, :3] = torch.lerp(
            out[:, :3], torch.roll(out[:, :3], tuple(rng.integers(-6, 7, 2).tolist()), (2, 3)), 0.35
        )
    if rng.random() < 0.4:  # patches of a coarser view
        soft = avg_pool2d(out, 3, stride=1, padding=1, count_include_pad=False)
        out = torch.where(torch.from_numpy(np.isin(layout.label, rng.permutation(patches)[: patches // 2])), soft, out)
    return out.clamp(-1.0, 1.0)


@dataclass(frozen=True)
class _Layout:
    """Patches with a displacement in pixels, a tint and a contrast factor each."""

    label: np.ndarray
    shift: np.ndarray
    tint: np.ndarray
    scale: np.ndarray

    @staticmethod
    def draw(size: tuple[int, int], patches: int, rng: np.random.Generator) -> _Layout:
        tint = rng.normal(0.0, rng.uniform(0.0, 0.12), (patches, 3)) + rng.normal(0.0, 0.03, (patches, 1))
        shift = rng.normal(0.0, rng.uniform(0.5, 4.0), (patches, 2)).round()
        return _Layout(patch_map(size, patches, rng), shift, tint, 1.0 + rng.normal(0.0, 0.08, patches))

    def spoil(self, image: Tensor) -> Tensor:
        out = _fetch(image, self.label, self.shift)
        tint = torch.from_numpy(np.moveaxis(self.tint[self.label], -1, 0).astype(np.float32))
        out[:3] = out[:3] * torch.from_numpy(self.scale[self.label].astype(np.float32)) + tint
        return out


def copy_far(
    seen: Float[Tensor, "t c h w"], known: Bool[Tensor, "t 1 h w"], rng: np.random.Generator
) -> tuple[Float[Tensor, "t c h w"], Bool[Tensor, "t 1 h w"]]:
    """Fill holes with random patches from visible parts of the frame: implausible content with real texture.

    Args:
        seen: images, undefined outside ``known``.
        known: mask of visible pixels.
        rng: random generator.

    Returns:
        The filled images, and the mask of copied pixels (a pixel whose source is a hole stays empty).
    """
    height, width = seen.shape[2:]
    out, copied = seen.clone(), torch.zeros_like(known)
    for frame in range(len(seen)):
        hole = ~known[frame, 0].numpy()
        if not hole.any():
            continue
        label = patch_map((height, width), int(rng.integers(2, 9)), rng)
        shift = np.zeros((label.max() + 1, 2))
        for patch in np.unique(label[hole]):
            rows, columns = np.nonzero(hole & (label == patch))
            tries = np.stack([rng.normal(0.0, 0.12 * height, 24), rng.normal(0.0, 0.4 * width, 24)], 1).round()
            lands = [
                (~hole[np.clip(rows + int(dy), 0, height - 1), np.clip(columns + int(dx), 0, width - 1)]).mean()
                for dy, dx in tries
            ]
            # The displacement that finds most visible pixels, as a search for sources would.
            shift[patch] = tries[int(np.argmax(lands))]
        fetched = _fetch(torch.cat([seen[frame], known[frame].to(seen)]), label, shift)
        landed = (fetched[-1:] > 0.5) & ~known[frame]
        out[frame] = torch.where(landed, fetched[:-1], seen[frame])
        copied[frame] = landed
    return out, copied


def hairlines(
    rgb: Float[Tensor, "t 3 h w"], hole: Bool[Tensor, "t 1 h w"], rng: np.random.Generator
) -> Float[Tensor, "t 3 h w"]:
    """Add dark or bright lines of one pixel just inside the borders of holes, on random parts of the borders."""
    # One pixel wide, inside the hole: where copied and rendered texture meet.
    border = hole & (max_pool2d((~hole).float(), 3, stride=1, padding=1) > 0.5)
    where = border & (smooth_noise((len(rgb), 1, rgb.shape[2], rgb.shape[3]), 6, rng) > 0.0)
    amount = 0.3 * rng.normal(-0.5, 0.6)
    return torch.where(where, (rgb + amount).clamp(-1.0, 1.0), rgb)


def doubtful(
    rgb: Float[Tensor, "t 3 h w"], confidence: Float[Tensor, "t 1 h w"], rng: np.random.Generator
) -> Float[Tensor, "t 3 h w"]:
    """Degrade colors as confidence falls: blur, tint and grain."""
    soft = avg_pool2d(rgb, 3, stride=1, padding=1, count_include_pad=False)
    worse = soft + torch.from_numpy(rng.normal(0.0, 0.1, (1, 3, 1, 1)).astype(np.float32))
    worse = worse + torch.from_numpy(rng.normal(0.0, 0.05, tuple(rgb.shape)).astype(np.float32))
    return torch.lerp(worse, rgb, confidence).clamp(-1.0, 1.0)


def spoil_seen(
    rgb: Float[Tensor, "t 3 h w"], rng: np.random.Generator
) -> tuple[Float[Tensor, "t 3 h w"], Float[Tensor, "t 1 h w"]]:
    """Apply one typical error of a cache: uncertain colors, blocks of a magnified view, or another exposure.

    Returns:
        The corrupted images, and the factor on the confidence of each pixel.
    """
    height, width = rgb.shape[2:]
    trust = torch.full((len(rgb), 1, height, width), float(rng.uniform(0.3, 0.7)))
    kind = rng.choice(["doubtful", "blocky", "exposure"])
    if kind == "doubtful":
        trust = 0.5 + 0.5 * smooth_noise((len(rgb), 1, height, width), int(rng.integers(3, 7)), rng)
        return doubtful(rgb, trust, rng), trust
    if kind == "blocky":
        blocks = avg_pool2d(rgb, int(rng.integers(2, 5)), ceil_mode=True)
        return interpolate(blocks, size=(height, width), mode="nearest"), trust
    gain = torch.from_numpy(np.exp(rng.normal(0.0, 0.1) + rng.normal(0.0, 0.04, (3, 1, 1))).astype(np.float32))
    return (gain * (rgb + 1.0) - 1.0).clamp(-1.0, 1.0), trust


def _fetch(image: Tensor, label: np.ndarray, shift: np.ndarray) -> Tensor:
    """Sample each pixel at the shift ``(dy, dx)`` of its patch; reflected at the image border."""
    height, width = label.shape
    row, column = np.mgrid[0:height, 0:width].astype(np.float32)
    moved = shift[label].astype(np.float32)
    planes = np.ascontiguousarray(image.numpy().transpose(1, 2, 0))
    fetched = cv2.remap(
        planes, column + moved[..., 1], row + moved[..., 0], cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT_101
    )
    return torch.from_numpy(fetched.reshape(height, width, -1)).permute(2, 0, 1)
