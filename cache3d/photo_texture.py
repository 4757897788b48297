"""The photo as a projective texture of the world: guides get its full resolution where they show what it saw.

Projective texture mapping (Segal et al. 1992, *Fast shadows and lighting effects using texture mapping*), from a
pyramid of the photo (Williams 1983, *Pyramidal parametrics*). A cache keeps one slightly blurred color per sample, and
some are wrong. Where the cache renders a point at the depth that the photo has there, the color is looked up in the
photo; elsewhere, and along outlines, the rendered color stays.

Kernels on the CPU; the functions named ``_reference``, and what they call, are the same in tensor operations and
OpenCV, used for guides on other devices. OpenCV rounds positions to 1/32 of a pixel, the kernels do not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from cache3d.photo_kernels import locate_in_photo, show_photo
from geometry.camera import Camera
from geometry.checks import check_numbers
from geometry.depth import mixed
from geometry.filters import erode
from geometry.frame import Frame, Guide
from geometry.jit import for_blocks, for_each
from geometry.project import project, unproject
from geometry.surfaces import far_from_edges

ROWS = 16  # per call of a kernel


@dataclass(frozen=True)
class TexturePolicy:
    """Where the photo's pixels are shown.

    Attributes:
        same_depth: relative depth difference from which a point is not on the photo's surface. Default .03; .02 and .05
            do as well, 28.72 and 28.71 instead of 28.73 dB (log: The photograph as a texture).
        bend: relative second difference of the photo's inverse depth from which it is an outline. Default .06; .02 and
            .15: 28.72, 28.73 dB (same entry).
        outline_px: distance from an outline up to which the photo's pixels are mixtures. Default 1; not measured.
        pure_sky: share of sky from which a pixel is sky alone. Default .98; not measured.
        coarsest: resolution of the pyramid's last level over the frame's. Default 1/4; not measured.
    """

    same_depth: float = 0.03
    bend: float = 0.06
    outline_px: int = 1
    pure_sky: float = 0.98
    coarsest: float = 0.25

    def __post_init__(self) -> None:
        check_numbers(self, ("same_depth", "coarsest"))


DEFAULT_TEXTURE = TexturePolicy()


@dataclass(frozen=True)
class PhotoTexture:
    """The photo with its depth and camera, and a pyramid of its colors.

    Attributes:
        photo: at frame size, ``[1]``.
        scales: resolution of each level of the pyramid over the frame's, descending.
        levels: colors of each level, ``[3 h w]``.
        policy: where the photo's pixels are shown.
    """

    photo: Frame
    scales: tuple[float, ...]
    levels: tuple[Tensor, ...]
    policy: TexturePolicy = DEFAULT_TEXTURE

    @staticmethod
    def of(photo: Frame, full_res: Float[Tensor, "3 h w"], policy: TexturePolicy = DEFAULT_TEXTURE) -> PhotoTexture:
        """A texture from the photo ``[1]`` at frame size; ``full_res`` is the same image at full resolution."""
        height, width = photo.camera.size
        max_scale, scale = full_res.shape[-2] / height, 1.0
        while scale * 2.0 <= max_scale:
            scale *= 2.0
        # The photo's own resolution, then powers of two of the frame's.
        scales = [max_scale] if max_scale > scale else []
        while scale >= policy.coarsest:
            scales.append(scale)
            scale *= 0.5
        sizes = [(round(height * scale), round(width * scale)) for scale in scales]
        # Nothing is resampled where the photo's own pixels are at hand.
        known = {tuple(rgb.shape[-2:]): rgb for rgb in (full_res, photo.rgb[0])}
        levels = [known[size] if size in known else _resized(full_res, size) for size in sizes]
        return PhotoTexture(photo, tuple(scales), tuple(levels), policy)

    @property
    def full_res(self) -> Float[Tensor, "3 h w"]:
        """The photo at full resolution."""
        return self.levels[0]

    @torch.no_grad()
    def apply(self, guide: Guide) -> Guide:
        """The guide with the photo's colors, at confidence 1, where it shows the photo's surface. No gradients."""
        if guide.rgb.device.type != "cpu":
            return self.apply_reference(guide)
        masks, pyramid = [mask[0].float().contiguous().numpy(force=True) for mask in self.masks], self._pyramid
        rgb, confidence = guide.rgb.float().clone(), guide.confidence.float().clone()
        for_each(
            range(len(guide)),
            lambda k: self._show(guide[k : k + 1], masks, pyramid, rgb[k].numpy(), confidence[k, 0].numpy()),
        )
        return replace(guide, rgb=rgb, confidence=confidence)

    def _show(
        self,
        guide: Guide,
        masks: list[np.ndarray],
        pyramid: tuple[np.ndarray, ...],
        rgb: np.ndarray,
        confidence: np.ndarray,
    ) -> None:
        """Write the photo's colors and its confidence into ``rgb [3 h w]`` and ``confidence [h w]`` of one view."""
        height, width = guide.camera.size
        photo_camera, photo = self.photo.camera[0], _lens(self.photo.camera[0])
        limits = np.float32(self.policy.same_depth), np.float32(self.policy.pure_sky)
        places, weight = np.empty((height, width, 2), np.float32), np.empty((height, width), np.float32)
        maps = [part[0, 0].float().contiguous().numpy() for part in (guide.depth, guide.coverage, guide.sky)]
        camera = guide.camera[0]
        # In float64: differences of two poses far from the origin.
        motion = photo_camera.to("cpu").camera_from_world.double() @ camera.world_from_camera.double()
        fixed = (*maps, motion[:3].float().numpy(), _lens(camera), photo, *masks, *limits, places, weight)
        for_blocks(height, ROWS, lambda i, j: locate_in_photo(i, j, *fixed))
        for_blocks(height, ROWS, lambda i, j: show_photo(i, j, places, weight, *pyramid, rgb, confidence))

    @torch.no_grad()
    def apply_reference(self, guide: Guide) -> Guide:
        """`apply` in tensor operations and OpenCV."""
        # Any depth where nothing is rendered: those pixels are left out below.
        depth = torch.where(guide.coverage > 0.0, guide.depth, torch.ones_like(guide.depth))
        points = unproject(depth, guide.camera).flatten(2).transpose(1, 2)
        camera = Camera.concatenate([self.photo.camera] * len(guide))
        pixels, z = (part.unflatten(1, guide.camera.size) for part in project(points, camera))
        share = self._same_surface(guide, pixels, z[:, None])
        colors = self._colors(pixels, share[:, 0] > 0.0).to(guide.rgb)
        confidence = torch.lerp(guide.confidence, torch.ones_like(guide.confidence), share)
        return replace(guide, rgb=torch.lerp(guide.rgb, colors, share), confidence=confidence)

    def _same_surface(
        self, guide: Guide, pixels: Float[Tensor, "t h w 2"], z: Float[Tensor, "t 1 h w"]
    ) -> Float[Tensor, "t 1 h w"]:
        """Weight, 0..1, of the photo in each pixel: 1 where the pixel lies on the photo's surface.

        Args:
            guide: of the world cache.
            pixels: position of each pixel in the photo, pixels.
            z: depth of each pixel in the photo's camera.
        """
        height, width = self.photo.camera.size
        inverse, ground, sky = self.masks
        place = 2.0 * pixels / pixels.new_tensor([width, height]) - 1.0

        def at(values: Tensor, mode: str) -> Tensor:
            image = values.to(place).expand(len(guide), 1, -1, -1)
            return grid_sample(image, place, mode=mode, padding_mode="border", align_corners=False)

        # Inverse depth is linear over the image of a plane, so that it is what to interpolate.
        apart = (z * at(inverse, "bilinear") - 1.0).abs() / self.policy.same_depth
        # Full weight up to half of the tolerance, none from it on; between them it fades.
        same = (2.0 - 2.0 * apart).clamp(0.0, 1.0) * at(ground, "nearest") * (guide.sky < 1.0 - self.policy.pure_sky)
        inside = (place.abs() < 1.0).all(dim=-1)[:, None] & (z > 0.0) & (guide.coverage > 0.0)
        return torch.maximum(same, at(sky, "nearest") * (guide.sky > self.policy.pure_sky)) * inside

    def _colors(self, pixels: Float[Tensor, "t h w 2"], wanted: Bool[Tensor, "t h w"]) -> Float[Tensor, "t 3 h w"]:
        """Colors from the photo: the mean of four samples per pixel, blended between the two nearest pyramid levels.

        Args:
            pixels: position of each pixel in the photo at frame size, pixels.
            wanted: pixels to look up; others are 0.
        """
        right, down = _step(pixels, 2), _step(pixels, 1)
        log_step = torch.maximum(_length(right), _length(down)).clamp_min(1e-6).log2()
        positions = np.log2(self.scales)[::-1]
        # Twice as fine as the pixels of the guide, for four samples: one trilinear sample is softer than the Gaussians.
        at = (1.0 - log_step).numpy(force=True)
        out = np.zeros((*wanted.shape, 3), np.float32)
        for level, scale, of_level in zip(self._images, self.scales, np.eye(len(positions))[::-1], strict=True):
            share = np.where(wanted.numpy(force=True), np.interp(at, positions, of_level), 0.0).astype(np.float32)
            # Where pixels of this level are as large as the guide's, the four samples coincide.
            apart = 0.25 * (log_step + float(np.log2(scale))).clamp(0.0, 1.0)[..., None]
            for frame in np.flatnonzero(share.any(axis=(1, 2))):
                samples = [
                    _sampled(level, scale * (pixels[frame] + apart[frame] * (i * right[frame] + j * down[frame])) - 0.5)
                    for i in (-1, 1)
                    for j in (-1, 1)
                ]
                out[frame] += 0.25 * share[frame, ..., None] * sum(samples)
        return torch.from_numpy(out).permute(0, 3, 1, 2).clamp(0.0, 1.0)

    @cached_property
    def masks(self) -> tuple[Float[Tensor, "1 h w"], Bool[Tensor, "1 h w"], Float[Tensor, "1 h w"]]:
        """Inverse depth of the photo, and where its pixels are pure surface and pure sky, ``[1 h w]``."""
        photo = self.photo
        usable = photo.surface[0]
        inverse = torch.where(usable, 1.0 / photo.depth[0], 0.0)
        own = ~mixed(photo)[0]
        ground = far_from_edges(photo.depth[0], usable, self.policy.outline_px, self.policy.bend) & own
        return inverse, ground, erode(photo.sky[0].float(), self.policy.outline_px) * own

    @cached_property
    def _pyramid(self) -> tuple[np.ndarray, ...]:
        """Colors of all levels in one row, coarsest first, and where each begins, its size, scale and position."""
        levels, scales = self.levels[::-1], np.array(self.scales[::-1], np.float32)
        sizes = np.array([level.shape[-2:] for level in levels], np.int64)
        firsts = np.concatenate([[0], np.cumsum(3 * sizes.prod(axis=1))])
        colors = np.empty(firsts[-1], np.float32)
        for level, first, last in zip(levels, firsts, firsts[1:], strict=False):
            colors[first:last] = level.permute(1, 2, 0).flatten().numpy(force=True)
        return colors, firsts[:-1], sizes, scales, np.log2(scales)

    @cached_property
    def _images(self) -> list[np.ndarray]:
        return [level.permute(1, 2, 0).contiguous().numpy(force=True) for level in self.levels]


def _lens(camera: Camera) -> np.ndarray:
    return torch.cat([camera.focal_px, camera.center_px]).float().numpy(force=True)


def _sampled(image: np.ndarray, places: Float[Tensor, "h w 2"]) -> np.ndarray:
    """Colors of an image at ``(x, y)``; whole numbers are centers of its pixels."""
    x, y = (part.contiguous().numpy(force=True) for part in places.unbind(-1))
    return cv2.remap(image, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def _step(pixels: Float[Tensor, "t h w 2"], axis: int) -> Float[Tensor, "t h w 2"]:
    """Difference to the nearer of the two neighbors along an axis, so that it does not cross an outline."""
    between = pixels.diff(dim=axis)
    last = between.shape[axis] - 1
    ahead = torch.cat([between, between.narrow(axis, last, 1)], dim=axis)
    behind = torch.cat([between.narrow(axis, 0, 1), between], dim=axis)
    return torch.where((_length(ahead) <= _length(behind))[..., None], ahead, behind)


def _length(vectors: Float[Tensor, "*b 2"]) -> Float[Tensor, "*b"]:
    return (vectors[..., 0].square() + vectors[..., 1].square()).sqrt()


def _resized(rgb: Float[Tensor, "3 h w"], size: tuple[int, int]) -> Float[Tensor, "3 h2 w2"]:
    return interpolate(rgb[None], size, mode="bilinear", antialias=True, align_corners=False)[0]
