"""Renders Gaussians from one camera to the maps that guides and the integration rules need."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cache3d.rasterizer.rasterize import rasterize
from cache3d.rasterizer.types import Backend, Raster
from cache3d.rendering.confidence import depth_agreement
from cache3d.rendering.incremental import IncrementalRaster
from cache3d.rendering.policy import DEFAULT_RENDERING, RenderingPolicy
from cache3d.rendering.rendered_view import RenderedView
from cache3d.rendering.splat_attributes import (
    CHANNELS,
    in_view,
    sharpen_sky_alpha,
    supersampled,
    to_pixels,
    to_splats,
)
from cache3d.store.view import View
from geometry.camera import Camera
from geometry.frame import SKY
from geometry.primitives import Gaussians

FAINTEST = 1.0 / 255.0  # alpha below which a pixel shows nothing


class GaussianRenderer:
    """Renders views of a store, and updates the rasters of its first cameras instead of repeating them.

    Args:
        backend: which rasterizer.
        policy: footprints and confidence.
        kept_rasters: rasters that are kept, two per camera, one of them of the sky. The default is that of a chunk of 8
            frames, whose guide's cameras are those that integrate it.
    """

    def __init__(self, backend: Backend, policy: RenderingPolicy = DEFAULT_RENDERING, kept_rasters: int = 16) -> None:
        self._backend: Backend = backend
        self._policy = policy
        self._kept_rasters = kept_rasters
        self.forget()

    def forget(self) -> None:
        """Drop the kept rasters."""
        self._rasters: dict[bytes, IncrementalRaster] = {}
        self._recolored_ids = np.zeros(0, np.int64)

    def recolored(self, ids: Int[Tensor, "k"]) -> None:
        """Mark Gaussians whose colors or confidences changed since the kept rasters were made."""
        self._recolored_ids = np.concatenate([self._recolored_ids, ids.cpu().numpy()])

    def render(self, view: View[Gaussians], camera: Camera) -> RenderedView:
        """Render the surfaces, then the sky behind them, for one camera (no batch axis)."""
        # The sky is composited on its own, from the origin: it never parallaxes.
        sky_camera = replace(camera, world_from_camera=_at_origin(camera.world_from_camera))
        near, far = self._rasterize(view, camera, sky=False), self._rasterize(view, sky_camera, sky=True)
        near = to_pixels(near, camera, sharpen_sky_alpha(near.alpha, far.alpha, self._policy), self._policy)
        far = to_pixels(far, sky_camera, torch.ones_like(far.alpha), self._policy)
        passed = 1.0 - near.alpha
        alpha = near.alpha + passed * far.alpha
        hit = alpha >= FAINTEST
        # Divided by alpha, so that soft coverage neither darkens nor cracks.
        share = torch.where(hit, 1.0 / alpha.clamp_min(FAINTEST), torch.zeros_like(alpha))
        rgb, confidence, observed, away = (
            ((near.values[:, channels] + passed * far.values[:, channels]) * share)[0]
            for channels in (slice(0, 3), slice(3, 4), slice(4, 5), slice(5, 6))
        )
        sky = (passed * far.alpha * share).clamp(0.0, 1.0)
        spread = _spread(near.values[:, 6:7], near.values[:, 7:8], near.alpha)
        agreement = depth_agreement(spread, sky, self._policy)
        # The mean of the inverse depth: the little background that shows between samples hardly changes it.
        near_depth = torch.where(near.alpha >= FAINTEST, near.alpha / near.values[:, 8:9].clamp_min(1e-10), 0.0)
        # No surface lies at the mean depth of surface and sky: the pixel takes the depth of its larger part.
        depth = torch.where(sky > SKY, far.depth, near_depth) * hit
        coverage = (alpha / self._policy.gapless_alpha).clamp(max=1.0) * hit
        confidence = (coverage * confidence * agreement).clamp(0.0, 1.0)
        return RenderedView(
            rgb.clamp(0.0, 1.0), depth[0], coverage[0], confidence[0], sky[0], spread[0], observed, away
        )

    def _rasterize(self, view: View[Gaussians], camera: Camera, *, sky: bool) -> Raster:
        """Rasterize rgb, confidence, observed, away, 1/z, 1/z², and planes of 1/z for one camera, in 2x2 samples.

        Gaussians are composited nearest first, so that a few of those that share a sample hide the rest. Four samples,
        with a footprint floor near a sample's own size, keep the hidden part small: 32 dB instead of 26 at the photo's
        camera.
        """
        gaussians, index = view.rows, in_view(view.rows, camera, sky=sky)
        fine = supersampled(camera, self._policy)
        if len(index) == 0:
            # A kept raster knows nothing of an empty view: the next one starts anew.
            self._rasters.pop(_key(camera, sky=sky), None)
            zero = gaussians.means.new_zeros(1, 1, 1, 1)
            return Raster(*(zero.expand(1, count, *fine.size) for count in (CHANNELS, 1, 1)))
        if self._backend in ("auto", "cpu") and not gaussians.means.is_cuda:
            return self._raster_of(camera, sky=sky).draw(gaussians, view.ids, index, self._recolored_ids)
        splats = to_splats(gaussians, index, camera, self._policy)
        return rasterize(splats, fine[None], self._backend, eps2d=self._policy.footprint_floor)

    def _raster_of(self, camera: Camera, *, sky: bool) -> IncrementalRaster:
        """The raster of one camera, or a new one, which is kept while there are few."""
        key = _key(camera, sky=sky)
        raster = self._rasters.get(key) or IncrementalRaster(camera, self._policy)
        if len(self._rasters) < self._kept_rasters:
            self._rasters[key] = raster
        return raster


def _key(camera: Camera, *, sky: bool) -> bytes:
    # All bits: an almost equal camera has another raster.
    fields = (camera.world_from_camera, camera.focal_px, camera.center_px)
    return b"".join(field.contiguous().cpu().numpy().tobytes() for field in fields) + str((camera.size, sky)).encode()


def _spread(mean: Tensor, square: Tensor, alpha: Tensor) -> Tensor:
    """Relative standard deviation, from alpha-weighted sums of a quantity and of its square."""
    scale = 1.0 / alpha.clamp_min(FAINTEST)
    mean, square = mean * scale, square * scale
    return torch.sqrt((square - mean**2).clamp_min(0.0)) / mean.clamp_min(1e-10)


def _at_origin(world_from_camera: Float[Tensor, "4 4"]) -> Float[Tensor, "4 4"]:
    """The pose without its translation: the sky moves with the camera."""
    rotation_only = world_from_camera.clone()
    rotation_only[:3, 3] = 0.0
    return rotation_only
