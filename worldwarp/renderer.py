"""Renders frames of a world as `worldwarp render` wants them: holes filled or shown, alpha, two eyes, a sphere."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cache3d.world_view import WorldView
from diffusion.inpainting.masks import thin
from geometry.camera import Camera
from geometry.fill import background_fill, smooth_fill
from geometry.frame import COVERED, SKY, Guide
from geometry.jit import for_each
from geometry.panorama import Panorama, side_by_side, stereo_pair
from scenes.photos.framing import PIXELS
from scenes.store.world_store import WorldStore
from worldwarp.render_path import frame_size_of
from worldwarp.render_settings import RenderSettings
from worldwarp.working_size import LARGEST

THIN = 200  # a hole thinner than this part of the shorter side is a crack
FARTHEST = 10.0  # depth of the sky over that of the farthest surface, when holes are filled from what is behind
GROUP_PIXELS = 4_000_000  # of frames that are rendered together; each pixel takes 28 bytes
MAGENTA = (1.0, 0.0, 1.0)


@dataclass(frozen=True)
class Picture:
    """One finished frame.

    Attributes:
        rgb: colors in 0..1, with alpha as fourth channel where that is wanted, ``[c h w]``.
        depth: scene units, ``[1 h w]``; of a sphere, along the ray.
        known: whether the world covers the pixel, ``[1 h w]``.
        sky: whether it is sky, ``[1 h w]``.
    """

    rgb: Float[Tensor, "c h w"]
    depth: Float[Tensor, "1 h w"]
    known: Tensor
    sky: Tensor

    @property
    def unknown(self) -> float:
        """Share of pixels that the world does not cover."""
        return 1.0 - self.known.float().mean().item()


class Renderer:
    """Renders frames of a world as its settings want them.

    Args:
        world: the world.
        view: its cache and photo.
        settings: see `RenderSettings`.
    """

    def __init__(self, world: WorldStore, view: WorldView, settings: RenderSettings) -> None:
        self._view, self._settings = view, settings
        photo = world.chunk(0).frames
        self._unit = photo.median_depth()
        size = frame_size_of(world, settings)
        self._panorama = Panorama.of(size) if settings.view == "360" else None
        self._samples = samples_for(world, size) if settings.samples is None else settings.samples
        solid = world.config.get("prior", {}).get("completion", {}).get("solid", 0.9)
        self._solid = float(solid)

    @torch.no_grad()
    def pictures(self, cameras: Camera) -> Iterator[Picture]:
        """The frames of cameras ``[n]``."""
        height, width = cameras.size
        # Neighbors see the same primitives, which are gathered once for all of a group.
        group = max(1, min(8, GROUP_PIXELS // (height * width)))
        for k in range(0, len(cameras), group):
            yield from self._group(cameras[k : k + group])

    def _group(self, cameras: Camera) -> Iterator[Picture]:
        if self._panorama is not None:
            for k in range(len(cameras)):
                faces = self._view.show(self._panorama.faces(cameras[k]), self._samples)
                yield self._finished(self._panorama.look_up(faces, cameras[k]), wraps=True)
        elif self._settings.view == "stereo":
            eyes = stereo_pair(cameras, self._settings.eye_distance * self._unit, self._unit)
            guides = self._view.show(Camera.concatenate(list(eyes)), self._samples)
            for k in range(len(cameras)):
                left, right = (self._finished(guides[i : i + 1]) for i in (k, len(cameras) + k))
                parts = zip(vars(left).values(), vars(right).values(), strict=True)
                yield Picture(*(side_by_side(one[None], other[None])[0] for one, other in parts))
        else:
            guides = self._view.show(cameras, self._samples)
            yield from for_each(range(len(guides)), lambda k: self._finished(guides[k : k + 1]))

    def _finished(self, guide: Guide, *, wraps: bool = False) -> Picture:
        """A rendered view as it is wanted; ``wraps``: its sides meet."""
        rgb, known, sky = guide.rgb, guide.covered, guide.sky_mask & guide.covered
        if wraps:
            half = known.shape[-1] // 2
            parts = (rgb, guide.depth, guide.coverage, guide.sky)
            wide = [torch.cat([part[..., -half:], part, part[..., :half]], -1) for part in parts]
            filled = self._filled(*wide)[..., half : half + known.shape[-1]]
        else:
            filled = self._filled(rgb, guide.depth, guide.coverage, guide.sky)
        if self._settings.alpha != "none":
            visible = guide.coverage * (1.0 - guide.sky) if self._settings.alpha == "surface" else guide.coverage
            filled = torch.cat([filled, visible.clamp(0.0, 1.0)], 1)
        elif self._settings.unknown == "show":
            filled = torch.where(known, filled, rgb.new_tensor(MAGENTA)[:, None, None])
        return Picture(filled[0], guide.depth[0], known[0], sky[0])

    def _filled(self, rgb: Tensor, depth: Tensor, coverage: Tensor, sky: Tensor) -> Tensor:
        """Colors ``[1 3 h w]``: what is covered in part and thin holes from around, wide holes from what is behind."""
        solid, hole = coverage >= self._solid, coverage < COVERED
        if solid.all() or not solid.any():
            return rgb
        # Pixels that are covered in part would otherwise show as dark lines along cracks.
        filled = smooth_fill(rgb, solid)
        wide = hole & ~thin(hole, max(2, min(hole.shape[-2:]) // THIN))
        if wide.any():
            far = torch.where(sky > SKY, FARTHEST * depth.max(), depth.clamp_min(1e-6))
            filled = torch.where(wide, background_fill(rgb, far, solid), filled)
        return filled


def samples_for(world: WorldStore, size: tuple[int, int]) -> int | None:
    """Samples per pixel and axis for frames of a size: as the loop renders frames, fewer the larger they are."""
    samples = world.config.get("cache", {}).get("rendering", {}).get("samples")
    if samples is None:
        return None
    # See `worldwarp.working_size`: the cache's samples are those of a frame at the generator's own size.
    scale = math.ceil(math.sqrt(size[0] * size[1] / (LARGEST * PIXELS)))
    return max(1, int(samples) // scale)
