"""A world cache of Gaussians: one small disc per new pixel, rendered with anti-aliasing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cache3d.cache import Integration, check_chunk
from cache3d.integration.lifting import lift_gaussians
from cache3d.integration.optimization import TargetView, blend_generated, optimize
from cache3d.integration.policy import DEFAULT_POLICY, IntegrationPolicy
from cache3d.integration.retirement import contradicted, superseded
from cache3d.integration.rules import new_pixels, uncovered
from cache3d.rasterizer.rasterize import rasterize
from cache3d.rasterizer.types import Backend, Raster
from cache3d.rendering.confidence import depth_agreement
from cache3d.rendering.footprint import FOOTPRINT_FLOOR, SAMPLES, footprint_px
from cache3d.rendering.incremental import IncrementalRaster
from cache3d.rendering.rendered_view import RenderedView
from cache3d.rendering.splat_attributes import (
    CHANNELS,
    GAPLESS,
    in_view,
    sharpen_sky_alpha,
    supersampled,
    to_pixels,
    to_splats,
)
from cache3d.rendering.visibility import in_image, visible_from
from cache3d.store.block_store import BlockStore
from cache3d.store.view import View
from geometry.camera import Camera
from geometry.depth import clear_far, mixed
from geometry.frame import SKY, Chunk, Frame, Guide, Observation
from geometry.primitives import Change, Gaussians, Points

FAINTEST = 1.0 / 255.0  # alpha below which a pixel shows nothing
REFINE_STEPS = 6  # half of a chunk of 8 frames and 4 remembered frames, evenly spread
KEPT_RASTERS = 16  # rasters of a guide kept for the integration of its frames; two per frame, one of them of the sky


class GaussianCache:
    """A world cache of surface-aligned Gaussians.

    The third axis of a Gaussian is the surface normal, towards the camera that made it; the first two span its
    footprint. Sky is a far layer, rendered behind everything as if it moved with the camera: it never parallaxes.
    Images are divided by alpha, so that soft coverage neither darkens nor cracks.

    Args:
        device: of the Gaussians; on a CUDA device gsplat rasterizes them.
        rasterizer: `auto`, `cpu`, `gsplat` or `reference`.
        refine_steps: optimization steps per chunk, see `cache3d.integration.optimization`; 0 turns it off.
        resident_mib: bound on the Gaussians in memory, MiB; the rest goes to disk. What one chunk and its remembered
            frames see may exceed it.
        policy: tuned numbers of integration.

    Raises:
        ValueError: for negative ``refine_steps``, or a bound on memory that is not positive.
    """

    def __init__(
        self,
        device: str | torch.device = "cpu",
        rasterizer: Backend = "auto",
        refine_steps: int = REFINE_STEPS,
        resident_mib: float | int = 2048,
        policy: IntegrationPolicy = DEFAULT_POLICY,
    ) -> None:
        if refine_steps < 0:
            raise ValueError(f"refine_steps: want 0 or more, got {refine_steps}; 0 turns refinement off")
        self._device = torch.device(device)
        self._refine_steps = refine_steps
        self._policy = policy
        self._rasterizer: Backend = rasterizer
        self._store = BlockStore(_empty(self._device), resident_mib)
        # Rasters of the last guide, and ids of the Gaussians whose values changed since.
        self._rasters: dict[bytes, IncrementalRaster] = {}
        self._recolored_ids = np.zeros(0, np.int64)

    def __len__(self) -> int:
        return len(self._store)

    @torch.no_grad()
    def integrate(self, chunk: Chunk, remembered: Frame | None = None) -> Integration:
        """Integrate a chunk frame by frame, then optimize; see `cache3d.integration.rules` for the rules.

        Args:
            chunk: frames of one size, on any device.
            remembered: earlier frames ``[k]`` that the optimization also fits; the first of them is the photo.

        Raises:
            ValueError: if its parts disagree in shape, or depth is not positive where valid.
        """
        check_chunk(chunk)
        first, refined = self._store.total, 0
        self._store.near(chunk.frames.camera)  # once for all frames
        for k in range(len(chunk.frames)):
            observation = chunk.observation(k).to(self._device)
            frame = observation.frame
            self._remove_contradicted(observation)
            rendered = self._render_view(frame.camera)
            view = self._store.near(frame.camera)
            blended = blend_generated(view.rows, view.rows.means, rendered, observation, self._policy)
            self._store.put(view, blended)
            self._recolored_ids = np.concatenate([self._recolored_ids, view.ids[blended].cpu().numpy()])
            refined += len(blended)
            new = new_pixels(rendered, observation, self._policy)
            if self._retire_superseded(rendered, observation):
                new |= uncovered(rendered, self._render_view(frame.camera), frame, self._policy)
            if not chunk.observed:
                # Mixed pixels along outlines would stay behind as a ghost of the foreground.
                cleared = clear_far(chunk.frames[k : k + 1].to("cpu"), new[None].cpu())[0]
                observation = replace(observation, frame=cleared.to(self._device))
            self._store.append(lift_gaussians(observation, new, chunk.index, self._policy))
        self._drop_rasters()
        self._optimize(chunk, remembered)
        return Integration(self._store.total - first, refined, len(self), first, self._store.take_change())

    @torch.no_grad()
    def render(self, camera: Camera) -> Guide:
        """Render the cache from a batch ``[t]`` of cameras of any image size; the guide is on the cameras' device."""
        if len(camera.batch_shape) != 1:
            raise ValueError(f"camera: want a batch [t], got batch shape {list(camera.batch_shape)}; stack or index it")
        self._drop_rasters()
        if len(camera) <= KEPT_RASTERS:
            self._store.near(camera)  # one view of the store for all of them
        rendered = [self._render_view(camera[k].to(self._device)) for k in range(len(camera))]
        maps = (
            torch.stack([getattr(s, m) for s in rendered]) for m in ("rgb", "depth", "coverage", "confidence", "sky")
        )
        return Guide(*(m.to(camera.world_from_camera.device) for m in maps), camera=camera)

    def prefetch(self, camera: Camera) -> None:
        """Start to read from disk, in the background, what a batch ``[t]`` of cameras will see."""
        self._store.prefetch(camera)

    def page_to(self, folder: Path) -> None:
        """Write what does not fit in memory to ``folder`` from now on."""
        self._store.page_to(folder)

    @torch.no_grad()
    def apply(self, change: Change) -> None:
        """Apply the change of an `Integration`; afterwards this renders bit-identically to that cache.

        Raises:
            ValueError: for primitives of another kind.
        """
        _check_kind(change.rows)
        self._drop_rasters()
        self._store.apply(change)

    def snapshot(self, first: int = 0) -> Gaussians:
        """A copy of the Gaussians whose ids are at least ``first``, in the order of arrival."""
        return self._store.copy(first)

    def ids(self) -> Int[Tensor, "n"]:
        """Ids of all Gaussians, in the order of arrival."""
        return self._store.ids()

    def load(self, primitives: Points | Gaussians) -> None:
        """Replace the content by a snapshot; renders bit-identically afterwards."""
        _check_kind(primitives)
        self._drop_rasters()
        self._store = self._store.emptied()
        self._store.apply(Change.from_nothing(primitives))

    def _remove_contradicted(self, observation: Observation) -> None:
        """Remove the Gaussians that one frame contradicts."""
        camera = observation.frame.camera
        view = self._store.near(camera)
        inside = in_image(camera, view.rows.means, ~view.rows.sky)
        wrong = contradicted(view.rows, inside, observation, self._policy)
        extent_px = footprint_px(view.rows, wrong.index, camera)
        self._store.remove(view, wrong.index[extent_px > self._policy.resolved_px])

    def _retire_superseded(self, rendered: RenderedView, observation: Observation) -> bool:
        """Remove the Gaussians that one frame supersedes; whether there was any."""
        camera = observation.frame.camera
        view = self._store.near(camera)
        gaussians = view.rows
        visible = visible_from(camera, gaussians.means, ~gaussians.sky, rendered, self._policy.visible_tolerance)
        extent_px = footprint_px(gaussians, visible.index, camera)
        coarse = superseded(gaussians, visible, extent_px, observation, self._policy)
        self._store.remove(view, coarse)
        return len(coarse) > 0

    def _optimize(self, chunk: Chunk, remembered: Frame | None) -> None:
        """Optimize what is stored towards the chunk's frames, then the remembered ones, the photo last."""
        if self._refine_steps == 0:
            return
        frames, confidence = chunk.frames.to(self._device), chunk.confidence.to(self._device)
        targets = [TargetView(frames[k], confidence[k], is_photo=False) for k in range(len(frames))]
        if remembered is not None:
            kept = remembered.to(self._device)
            # Where geometry is generated, the photo's mixed pixels along outlines would stain the surfaces behind.
            certain = torch.ones_like(kept.depth) if chunk.observed else (~mixed(kept)).to(kept.depth)
            targets += [TargetView(kept[k], certain[k], is_photo=k == 0) for k in (*range(1, len(kept)), 0)]
        # One view of the store for all targets: it is gathered once, and changes are stored once.
        view = self._store.near(chunk.frames.camera, *([] if remembered is None else [remembered.camera]))
        changed = optimize(
            view.rows,
            targets,
            observed=chunk.observed,
            steps=self._refine_steps,
            backend=self._rasterizer,
            policy=self._policy,
        )
        self._store.put(view, torch.nonzero(changed)[:, 0])

    def _render_view(self, camera: Camera) -> RenderedView:
        """Render the surfaces, then the sky behind them, for one camera (no batch axis)."""
        view = self._store.near(camera)
        sky_camera = replace(camera, world_from_camera=_at_origin(camera.world_from_camera))
        near, far = self._draw(view, camera, sky=False), self._draw(view, sky_camera, sky=True)
        near = to_pixels(near, camera, sharpen_sky_alpha(near.alpha, far.alpha))
        far = to_pixels(far, sky_camera, torch.ones_like(far.alpha))
        passed = 1.0 - near.alpha
        alpha = near.alpha + passed * far.alpha
        hit = alpha >= FAINTEST
        share = torch.where(hit, 1.0 / alpha.clamp_min(FAINTEST), torch.zeros_like(alpha))
        rgb, confidence, observed, away = (
            ((near.values[:, channels] + passed * far.values[:, channels]) * share)[0]
            for channels in (slice(0, 3), slice(3, 4), slice(4, 5), slice(5, 6))
        )
        sky = (passed * far.alpha * share).clamp(0.0, 1.0)
        spread = _spread(near.values[:, 6:7], near.values[:, 7:8], near.alpha)
        agreement = depth_agreement(spread, sky)
        # The mean of the inverse depth: the little background that shows between samples hardly changes it.
        near_depth = torch.where(near.alpha >= FAINTEST, near.alpha / near.values[:, 8:9].clamp_min(1e-10), 0.0)
        # No surface lies at the mean depth of surface and sky: the pixel takes the depth of its larger part.
        depth = torch.where(sky > SKY, far.depth, near_depth) * hit
        coverage = (alpha / GAPLESS).clamp(max=1.0) * hit
        confidence = (coverage * confidence * agreement).clamp(0.0, 1.0)
        return RenderedView(
            rgb.clamp(0.0, 1.0), depth[0], coverage[0], confidence[0], sky[0], spread[0], observed, away
        )

    def _draw(self, view: View[Gaussians], camera: Camera, *, sky: bool) -> Raster:
        """Rasterize rgb, confidence, observed, away, 1/z, 1/z², and planes of 1/z for one camera, in 2x2 samples.

        Gaussians are composited nearest first, so that a few of those that share a sample hide the rest. Four samples,
        with a footprint floor near a sample's own size, keep the hidden part small: 32 dB instead of 26 at the photo's
        camera.
        """
        gaussians, index = view.rows, in_view(view.rows, camera, sky=sky)
        fine = supersampled(camera)
        if len(index) == 0:
            self._rasters.pop(_key(camera, sky=sky), None)
            zero = gaussians.means.new_zeros(1, 1, 1, 1)
            return Raster(*(zero.expand(1, count, *fine.size) for count in (CHANNELS, 1, 1)))
        if self._rasterizer in ("auto", "cpu") and not gaussians.means.is_cuda:
            return self._raster_of(camera, sky=sky).draw(gaussians, view.ids, index, self._recolored_ids)
        return rasterize(to_splats(gaussians, index, camera), fine[None], self._rasterizer, eps2d=FOOTPRINT_FLOOR)

    def _raster_of(self, camera: Camera, *, sky: bool) -> IncrementalRaster:
        """The raster of one camera, or a new one, which is kept while there are few."""
        key = _key(camera, sky=sky)
        raster = self._rasters.get(key) or IncrementalRaster(camera, SAMPLES, FOOTPRINT_FLOOR)
        if len(self._rasters) < KEPT_RASTERS:
            self._rasters[key] = raster
        return raster

    def _drop_rasters(self) -> None:
        self._rasters, self._recolored_ids = {}, np.zeros(0, np.int64)


def _key(camera: Camera, *, sky: bool) -> bytes:
    parts = (camera.world_from_camera, camera.focal_px, camera.center_px)
    return b"".join(part.contiguous().cpu().numpy().tobytes() for part in parts) + str((camera.size, sky)).encode()


def _spread(mean: Tensor, square: Tensor, alpha: Tensor) -> Tensor:
    """Relative standard deviation from alpha-weighted sums of a quantity and of its square."""
    scale = 1.0 / alpha.clamp_min(FAINTEST)
    mean, square = mean * scale, square * scale
    return torch.sqrt((square - mean**2).clamp_min(0.0)) / mean.clamp_min(1e-10)


def _at_origin(world_from_camera: Float[Tensor, "4 4"]) -> Float[Tensor, "4 4"]:
    rotation_only = world_from_camera.clone()
    rotation_only[:3, 3] = 0.0
    return rotation_only


def _check_kind(primitives: Points | Gaussians) -> None:
    if not isinstance(primitives, Gaussians):
        raise ValueError(f"primitives: want Gaussians, got {type(primitives).__name__}; use the cache that made them")


def _empty(device: torch.device) -> Gaussians:
    flags = torch.zeros(0, dtype=torch.bool, device=device)
    three, four = torch.zeros(0, 3, device=device), torch.zeros(0, 4, device=device)
    one, index = torch.zeros(0, device=device), torch.zeros(0, dtype=torch.int32, device=device)
    return Gaussians(three, four, three, one, three, index, flags, one, flags, one)
