"""A world cache of Gaussians: one small disc per new pixel, rendered with anti-aliasing."""

from __future__ import annotations

from dataclasses import replace

import torch

from cache3d.cache import Integration, check_chunk
from cache3d.integration.lifting import lift_gaussians
from cache3d.integration.optimization import TargetView, blend_generated, optimize
from cache3d.integration.policy import DEFAULT_POLICY, IntegrationPolicy
from cache3d.integration.retirement import contradicted, superseded
from cache3d.integration.rules import new_pixels, uncovered
from cache3d.rasterizer.types import Backend
from cache3d.rendering.footprint import footprint_px
from cache3d.rendering.gaussian_renderer import GaussianRenderer
from cache3d.rendering.policy import DEFAULT_RENDERING, RenderingPolicy
from cache3d.rendering.rendered_view import RenderedView, to_guide
from cache3d.rendering.visibility import in_image, visible_from
from cache3d.stored_cache import StoredCache
from geometry.camera import Camera
from geometry.depth import clear_far, mixed
from geometry.frame import Chunk, Frame, Guide, Observation
from geometry.jit import for_each
from geometry.primitives import Change, Gaussians, Points

REFINE_STEPS = 6


class GaussianCache(StoredCache[Gaussians]):
    """A world cache of surface-aligned Gaussians.

    The third axis of a Gaussian is the surface normal, towards the camera that made it; the first two span its
    footprint. Sky is a far layer, rendered behind everything as if it moved with the camera: it never parallaxes.
    Images are divided by alpha, so that soft coverage neither darkens nor cracks.

    Args:
        device: of the Gaussians; on a CUDA device gsplat rasterizes them.
        rasterizer: `auto`, `cpu`, `gsplat` or `reference`.
        refine_steps: optimization steps per chunk, see `cache3d.integration.optimization`; 0 turns it off, None
            is 6: half of a chunk of 8 frames and 4 remembered frames, evenly spread.
        resident_mib: bound on the Gaussians in memory, MiB; the rest goes to disk. What one chunk and its remembered
            frames see may exceed it.
        policy: tuned numbers of integration.
        rendering: tuned numbers of rendering.

    Raises:
        ValueError: for negative ``refine_steps``, or a bound on memory that is not positive.
    """

    def __init__(
        self,
        device: str | torch.device = "cpu",
        rasterizer: Backend = "auto",
        refine_steps: int | None = None,
        resident_mib: float | int = 2048,
        policy: IntegrationPolicy = DEFAULT_POLICY,
        rendering: RenderingPolicy = DEFAULT_RENDERING,
    ) -> None:
        refine_steps = REFINE_STEPS if refine_steps is None else refine_steps
        if refine_steps < 0:
            raise ValueError(f"refine_steps: want 0 or more, got {refine_steps}; 0 turns refinement off")
        self._device = torch.device(device)
        super().__init__(_empty(self._device), resident_mib)
        self._refine_steps = refine_steps
        self._policy = policy
        self._rendering = rendering
        self._rasterizer: Backend = rasterizer
        self._renderer = GaussianRenderer(rasterizer, rendering)

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
        self._renderer.forget_others(chunk.frames.camera)
        for k in range(len(chunk.frames)):
            observation = chunk.observation(k).to(self._device)
            frame = observation.frame
            # First, so that what the frame sees through is not rendered in front of what it shows.
            self._remove_contradicted(observation)
            with self._store.edit(frame.camera) as edit:
                gaussians = edit.view.rows
                rendered = self._renderer.render(edit.view, frame.camera)
                edit.written = blend_generated(gaussians, gaussians.means, rendered, observation, self._policy)
            self._renderer.recolored(edit.view.ids[edit.written])
            refined += len(edit.written)
            new = new_pixels(rendered, observation, self._policy)
            # What replaces coarser primitives must leave no gap: render again, and fill what lost its surface.
            if self._retire_superseded(rendered, observation):
                after = self._renderer.render(self._store.near(frame.camera), frame.camera)
                new |= uncovered(rendered, after, frame, self._policy)
            if k + 1 == len(chunk.frames):
                # Before lifting, which is where memory peaks. Besides, optimization moves Gaussians, and kept rasters
                # rely on geometry that stays.
                self._renderer.forget()
            if not chunk.observed:
                # Mixed pixels along outlines would stay behind as a ghost of the foreground.
                cleared = clear_far(chunk.frames[k : k + 1].to("cpu"), new[None].cpu())[0]
                observation = replace(observation, frame=cleared.to(self._device))
            self._store.append(lift_gaussians(observation, new, chunk.index, self._policy, self._rendering))
        self._optimize(chunk, remembered)
        return Integration(self._store.total - first, refined, len(self), first, self._store.take_change())

    @torch.no_grad()
    def render(self, camera: Camera, samples: int | None = None) -> Guide:
        """Render the cache from a batch ``[t]`` of cameras of any image size; the guide is on the cameras' device.

        Args:
            camera: see above.
            samples: per pixel and axis, instead of the rendering policy's.
        """
        if len(camera.batch_shape) != 1:
            raise ValueError(f"camera: want a batch [t], got batch shape {list(camera.batch_shape)}; stack or index it")
        # Rasters are kept from a guide to the integration of its frames, and no longer.
        self._renderer.forget_surfaces()
        # One view of the store for the cameras of a chunk; of a long path several, so that not all need be in memory.
        rendered: list[RenderedView] = []
        for first in range(0, len(camera), 16):
            part = camera[first : first + 16]
            view, cameras = self._store.near(part), [part[k].to(self._device) for k in range(len(part))]
            rendered += for_each(cameras, lambda one: self._renderer.render(view, one, samples))  # noqa: B023 (used at once)
        return to_guide(rendered, camera)

    @torch.no_grad()
    def show(self, camera: Camera, samples: int | None = None) -> Guide:
        """`render` for eyes alone, in half of the time: the same bits, but the coverage in place of the confidence.

        Args:
            camera: as of `render`.
            samples: as of `render`.
        """
        if self._device.type != "cpu" or not self._renderer.shows:
            return self.render(camera, samples)
        shown: list[Guide] = []
        for first in range(0, len(camera), 16):
            part = camera[first : first + 16]
            view = self._store.near(part)
            shown += for_each(range(len(part)), lambda k: self._renderer.show(view, part[k], samples))  # noqa: B023 (used at once)
        return Guide.concatenate(shown)

    def apply(self, change: Change) -> None:
        """As `StoredCache.apply`; kept rasters are out of date then."""
        self._renderer.forget()
        super().apply(change)

    def load(self, primitives: Points | Gaussians) -> None:
        """As `StoredCache.load`; kept rasters are out of date then."""
        self._renderer.forget()
        super().load(primitives)

    def _remove_contradicted(self, observation: Observation) -> None:
        """Remove the Gaussians that one frame contradicts."""
        camera = observation.frame.camera
        with self._store.edit(camera) as edit:
            gaussians = edit.view.rows
            inside = in_image(camera, gaussians.means, ~gaussians.sky)
            wrong = contradicted(gaussians, inside, observation, self._policy)
            extent_px = footprint_px(gaussians, wrong.index, camera, self._rendering)
            # A frame that samples it more coarsely may have missed it.
            edit.removed = wrong.index[extent_px > self._policy.resolved_px]

    def _retire_superseded(self, rendered: RenderedView, observation: Observation) -> bool:
        """Remove the Gaussians that one frame supersedes; whether there was any."""
        camera = observation.frame.camera
        with self._store.edit(camera) as edit:
            gaussians = edit.view.rows
            visible = visible_from(camera, gaussians.means, ~gaussians.sky, rendered, self._policy.visible_tolerance)
            extent_px = footprint_px(gaussians, visible.index, camera, self._rendering)
            edit.removed = superseded(gaussians, visible, extent_px, observation, self._policy, self._rendering)
        return len(edit.removed) > 0

    def _optimize(self, chunk: Chunk, remembered: Frame | None) -> None:
        """Optimize what is stored towards the chunk's frames, then the remembered ones, the photo last."""
        if self._refine_steps == 0 or len(chunk.frames) == 0:
            return
        frames, confidence = chunk.frames.to(self._device), chunk.confidence.to(self._device)
        targets = [TargetView(frames[k], confidence[k], is_photo=False) for k in range(len(frames))]
        if remembered is not None:
            kept = remembered.to(self._device)
            # Where geometry is generated, the photo's mixed pixels along outlines would stain the surfaces behind.
            certain = torch.ones_like(kept.depth) if chunk.observed else (~mixed(kept)).to(kept.depth)
            targets += [TargetView(kept[k], certain[k], is_photo=k == 0) for k in (*range(1, len(kept)), 0)]
        # One view of the store for all targets: it is gathered once, and changes are stored once.
        with self._store.edit(chunk.frames.camera, *([] if remembered is None else [remembered.camera])) as edit:
            changed = optimize(
                edit.view.rows,
                targets,
                observed=chunk.observed,
                steps=self._refine_steps,
                backend=self._rasterizer,
                policy=self._policy,
                rendering=self._rendering,
            )
            edit.written = torch.nonzero(changed)[:, 0]


def _empty(device: torch.device) -> Gaussians:
    flags = torch.zeros(0, dtype=torch.bool, device=device)
    three, four = torch.zeros(0, 3, device=device), torch.zeros(0, 4, device=device)
    one, index = torch.zeros(0, device=device), torch.zeros(0, dtype=torch.int32, device=device)
    return Gaussians(three, four, three, one, three, index, flags, one, flags, one)
