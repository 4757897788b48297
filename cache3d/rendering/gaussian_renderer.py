"""Renders Gaussians from one camera to the maps that guides and the integration rules need."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from cache3d.rasterizer.rasterize import rasterize
from cache3d.rasterizer.types import Backend, Raster
from cache3d.rendering.incremental import IncrementalRaster
from cache3d.rendering.pixels import blended, blended_shown
from cache3d.rendering.policy import DEFAULT_RENDERING, RenderingPolicy
from cache3d.rendering.rendered_view import RenderedView
from cache3d.rendering.splat_attributes import CHANNELS, SHOWN, in_view, supersampled, to_splats
from cache3d.store.view import View
from geometry.camera import Camera
from geometry.frame import Guide
from geometry.primitives import Gaussians


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
        self._rasters: dict[tuple[bytes, bool], IncrementalRaster] = {}
        self._recolored_ids = np.zeros(0, np.int64)
        self._shown_sky: tuple[tuple[bytes, bool], Tensor, Raster] | None = None

    def forget_surfaces(self) -> None:
        """Drop the kept rasters but the last of the sky: cameras that only move have the same one."""
        self._rasters = dict([(key, raster) for key, raster in self._rasters.items() if key[1]][-1:])

    def forget_others(self, cameras: Camera) -> None:
        """Drop the kept rasters of surfaces but those of cameras ``[t]``, rendered at the policy's samples."""
        wanted = {_key(cameras[k], self._policy.samples, sky=False) for k in range(len(cameras))}
        self._rasters = {key: raster for key, raster in self._rasters.items() if key[1] or key in wanted}

    def recolored(self, ids: Int[Tensor, "k"]) -> None:
        """Mark Gaussians whose colors or confidences changed since the kept rasters were made."""
        self._recolored_ids = np.concatenate([self._recolored_ids, ids.cpu().numpy()])

    def render(self, view: View[Gaussians], camera: Camera, samples: int | None = None) -> RenderedView:
        """Render the surfaces, then the sky behind them, for one camera (no batch axis).

        Args:
            view: the Gaussians.
            camera: see above.
            samples: per pixel and axis, instead of the policy's.
        """
        policy = self._policy if samples is None else replace(self._policy, samples=samples)
        # The sky is composited on its own, from the origin: it never parallaxes.
        sky_camera = replace(camera, world_from_camera=_at_origin(camera.world_from_camera))
        near = self._rasterize(view, camera, policy, sky=False)
        far = self._rasterize(view, sky_camera, policy, sky=True)
        if near is None:
            zero = view.rows.means.new_zeros(1, 1, 1, 1)
            size = supersampled(camera, policy).size
            near = Raster(*(zero.expand(1, count, *size) for count in (CHANNELS, 1, 1)))
        return blended(near, far, camera, policy)

    def show(self, view: View[Gaussians], camera: Camera, samples: int | None = None) -> Guide:
        """Colors, depth, coverage and sky of `render`, to the same bits, without what only integration needs.

        Its confidence, which is not computed, is its coverage.
        """
        policy = self._policy if samples is None else replace(self._policy, samples=samples)
        sky_camera = replace(camera, world_from_camera=_at_origin(camera.world_from_camera))
        near = self._rasterize_shown(view, camera, policy, sky=False)
        far = self._rasterize_shown(view, sky_camera, policy, sky=True)
        if near is None:
            zero = view.rows.means.new_zeros(1, 1, 1, 1)
            size = supersampled(camera, policy).size
            near = Raster(*(zero.expand(1, count, *size) for count in (len(SHOWN), 1, 1)))
        rgb, depth, coverage, sky = (part[None] for part in blended_shown(near, far, camera, policy))
        return Guide(rgb, depth, coverage, coverage, sky, camera=camera[None])

    def _rasterize_shown(
        self, view: View[Gaussians], camera: Camera, policy: RenderingPolicy, *, sky: bool
    ) -> Raster | None:
        """The raster of the channels `SHOWN`; None where nothing is in view."""
        index = in_view(view.rows, camera, sky=sky)
        if len(index) == 0:
            return None
        key, ids = _key(camera, policy.samples, sky=sky), view.ids[index]
        # Cameras that only move have the same sky.
        if sky and (kept := self._shown_sky) is not None and kept[0] == key and kept[1].equal(ids):
            return kept[2]
        splats = to_splats(view.rows, index, camera, policy)
        splats = replace(splats, values=splats.values[:, SHOWN])
        raster = rasterize(splats, supersampled(camera, policy)[None], self._backend, eps2d=policy.footprint_floor)
        if sky:
            self._shown_sky = key, ids, raster
        return raster

    @property
    def shows(self) -> bool:
        """Whether `show` can be used: on the CPU."""
        return self._backend in ("auto", "cpu")

    def _rasterize(self, view: View[Gaussians], camera: Camera, policy: RenderingPolicy, *, sky: bool) -> Raster | None:
        """Rasterize the values of `to_splats` for one camera, in 2x2 samples; None where nothing is in view.

        Gaussians are composited nearest first, so that a few of those that share a sample hide the rest. Four samples,
        with a footprint floor near a sample's own size, keep the hidden part small: 32 dB instead of 26 at the photo's
        camera.
        """
        gaussians, index = view.rows, in_view(view.rows, camera, sky=sky)
        if len(index) == 0:
            # A kept raster knows nothing of an empty view: the next one starts anew.
            self._rasters.pop(_key(camera, policy.samples, sky=sky), None)
            return None
        if self._backend in ("auto", "cpu") and not gaussians.means.is_cuda:
            raster = self._raster_of(camera, policy, sky=sky)
            with raster.lock:  # views that are rendered at the same time share the raster of their sky
                return raster.draw(gaussians, view.ids, index, self._recolored_ids)
        splats = to_splats(gaussians, index, camera, policy)
        return rasterize(splats, supersampled(camera, policy)[None], self._backend, eps2d=policy.footprint_floor)

    def _raster_of(self, camera: Camera, policy: RenderingPolicy, *, sky: bool) -> IncrementalRaster:
        """The raster of one camera, or a new one, which is kept while there are few."""
        key = _key(camera, policy.samples, sky=sky)
        kept = self._rasters.get(key)
        if kept is not None:
            return kept
        raster = IncrementalRaster(camera, policy)
        return raster if len(self._rasters) >= self._kept_rasters else self._rasters.setdefault(key, raster)


def _key(camera: Camera, samples: int, *, sky: bool) -> tuple[bytes, bool]:
    # All bits: an almost equal camera has another raster.
    fields = (camera.world_from_camera, camera.focal_px, camera.center_px)
    exact = b"".join(field.contiguous().cpu().numpy().tobytes() for field in fields)
    return exact + str((camera.size, samples)).encode(), sky


def _at_origin(world_from_camera: Float[Tensor, "4 4"]) -> Float[Tensor, "4 4"]:
    """The pose without its translation: the sky moves with the camera."""
    rotation_only = world_from_camera.clone()
    rotation_only[:3, 3] = 0.0
    return rotation_only
