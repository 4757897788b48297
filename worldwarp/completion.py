"""Frames rendered from the world, after the views with holes have been completed and put into it.

For generators that complete single views (`diffusion.generator.Capabilities.per_view`). Only views with holes cost more
than a rendering, and these are inpainted and generated at the generator's own size; the result is enlarged to the size
that is shown, with the detail of what was copied.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from cache3d.cache import Integration
from diffusion.condition import Condition, Prior
from diffusion.generator import Memory
from diffusion.inpainting.config import InpaintConfig
from diffusion.inpainting.detail import copied_detail, enlarged, enlarged_depth
from diffusion.inpainting.lookahead import look_ahead
from diffusion.inpainting.masks import distance_px, thin
from diffusion.inpainting.outpainting import (
    eroded_border,
    looks_beyond,
    outpaint_camera,
    pad_frame,
    photo_with_margin,
)
from diffusion.inpainting.prior import inpaint_prior
from diffusion.noise_map import noise_map
from geometry.camera import Camera
from geometry.fill import smooth_fill
from geometry.frame import Chunk, Frame, Guide, repeated
from geometry.free_space import behind_photo
from geometry.jit import for_each
from geometry.rounding import rounded, to_levels
from worldwarp.alignment import GENERATED_CONFIDENCE, validity, with_depth
from worldwarp.clock import Clock
from worldwarp.state import Components, ExploreState

CROP_PX = 16  # around what is new, where a view enters the world; the rules look at neighbors of a few pixels


@dataclass
class Completed:
    """The frames of a chunk, and what was done for them.

    Attributes:
        chunk: the frames, shown size, ``[t]``, with their confidence; `rounded`.
        guide: the world at each camera before its view was completed, working size, ``[t]``.
        prior: the same with its holes inpainted.
        sigma: noise level at which each pixel started, ``[t 1 h2 w2]``; 0 in views that were not completed.
        integration: what the completed views changed.
        residual: mean of the median depth errors of the completed views.
    """

    chunk: Chunk
    guide: Guide
    prior: Prior
    sigma: Float[Tensor, "t 1 h2 w2"]
    integration: Integration
    residual: float


@dataclass
class _View:
    """One view: ``shown`` at shown size, and ``guide`` at the generator's, before it was completed.

    Attributes:
        shown: the world at the camera, ``[1]``; rendered anew after each change. Of a finished view nothing is kept at
            shown size but its frame, so it is ``guide`` then.
        guide: the same at working size.
        prior, sigma: see `Completed`.
        full: the completed view at shown size; None where nothing was completed.
        changes: what its completion changed.
        residuals: see `Completed`.
    """

    shown: Guide
    guide: Guide
    prior: Prior
    sigma: Tensor
    full: Frame | None = None
    changes: list[Integration] = field(default_factory=list)
    residuals: list[float] = field(default_factory=list)

    @staticmethod
    def of(shown: Guide, scale: int) -> _View:
        """A view of the world as it is."""
        guide = shown.pooled(scale)
        return _View(shown, guide, Prior.known(guide), torch.zeros_like(guide.coverage))


def complete_chunk(cameras: Camera, state: ExploreState, components: Components, clock: Clock) -> Completed:
    """Complete the views of cameras ``[t]`` where they have holes, and render all of them.

    The last view comes first, because it shows most of what is new; then the middle, then what lies between: most views
    have no hole left when their turn comes.
    """
    views: dict[int, _View] = {}
    chunks: dict[int, Chunk] = {}
    solid = components.prior.completion.solid
    changes: list[Integration] = []
    if _wants_margin(cameras, state, components):
        changes.append(add_margin(state, components))
        clock.lap("outpaint")
    order = coarse_to_fine(len(cameras))
    while order:
        # Rendered together, on a thread each; those that come after a change of the world are rendered anew.
        together = order[: torch.get_num_threads()]
        rendered = state.view.render(cameras[together], components.samples)
        fresh = for_each(range(len(together)), lambda k: _View.of(rendered[k : k + 1], components.scale))  # noqa: B023
        ready: list[int] = []
        while fresh:
            ready.append(order.pop(0))
            views[ready[-1]] = fresh.pop(0)
            clock.lap("render")
            if _complete(views[ready[-1]], state, components, clock):
                break
        del rendered, fresh
        chunks |= zip(ready, for_each(ready, lambda index: _finished(views[index], state, solid)), strict=True)
        clock.lap("render")
    ordered = [views[index] for index in range(len(cameras))]
    frames = Frame.concatenate([chunks[index].frames for index in range(len(cameras))])
    confidence = torch.cat([chunks[index].confidence for index in range(len(cameras))])
    return Completed(
        replace(chunks[0], frames=frames, confidence=confidence),
        Guide.concatenate([view.guide for view in ordered]),
        Prior.concatenate([view.prior for view in ordered]),
        torch.cat([view.sigma for view in ordered]),
        _joined(changes + [change for view in views.values() for change in view.changes], state),
        _mean([residual for view in ordered for residual in view.residuals]),
    )


def add_margin(state: ExploreState, components: Components) -> Integration:
    """Complete a margin around the photo, seen from the photo's camera, and put it into the world.

    The first chunk that shows what lies beyond the photo has it made: filled view by view, it would become strips with
    a seam at each chunk. A walk that stays inside the photo never pays for it. What was generated before is kept.
    """
    camera = photo_with_margin(state.reference[:1].pooled(components.scale), components.prior.outpaint).camera
    shown = state.view.render(_finer(camera, components.scale), components.samples)
    return state.view.integrate(complete_wide(shown, state, components))


def _wants_margin(cameras: Camera, state: ExploreState, components: Components) -> bool:
    """Whether cameras ``[t]`` look beyond the photo, and most of the margin around the photo is still a hole."""
    config, photo = components.prior.outpaint, state.reference[:1]
    if not components.generator.capabilities.wide or not looks_beyond(cameras, photo, config):
        return False
    wide = photo_with_margin(photo.pooled(components.scale), config)
    height, width = wide.camera.size
    # Small: only the share of what is open counts.
    seen = state.view.render(wide.camera.resized((height // 4, width // 4)), 1)
    return bool(seen.hole.float().mean() > 0.5 * wide.hole.float().mean())


def coarse_to_fine(count: int) -> list[int]:
    """All of ``0 .. count - 1``: the last first, then the middles of what lies between."""
    order, gaps = [count - 1], [(0, count - 1)]
    while gaps:
        first, last = gaps.pop(0)  # what is left is first .. last - 1
        if first < last:
            middle = (first + last) // 2
            order.append(middle)
            gaps += [(first, middle), (middle + 1, last)]
    return order


def _complete(view: _View, state: ExploreState, components: Components, clock: Clock) -> bool:
    """Complete a view if it has holes; whether that changed the world."""
    scale, config, shown, guide = components.scale, components.prior, view.shown, view.guide
    if not _needs_completion(guide, config):
        return False
    # A hole at the side of a view that stays inside the photo is one behind something near: no strip that grows.
    beyond = components.generator.capabilities.wide and looks_beyond(guide.camera, state.reference[:1], config.outpaint)
    wide = outpaint_camera(guide, config.outpaint) if beyond else None
    if wide is not None:
        # Filled chunk by chunk, such a side would become strips with a seam at each chunk.
        seen = state.view.render(_finer(wide, scale), components.samples)
        view.changes.append(state.view.integrate(complete_wide(seen, state, components).around_valid(CROP_PX)))
        shown = view.shown = state.view.render(shown.camera, components.samples)
        guide = shown.pooled(scale)
        clock.lap("outpaint")
    if _needs_completion(guide, config):
        prior, pictures = _inpainted(shown, guide, state, components)
        clock.lap("inpaint")
        chunk, sigma, residual = _generate(shown, guide, prior[:1], pictures, state.memory, state, components)
        del pictures  # memory peaks in what follows
        clock.lap("denoise")
        view.prior, view.sigma, view.full = prior[:1], sigma, chunk.frames
        view.residuals.append(residual)
        view.changes.append(state.view.integrate(chunk.around_valid(CROP_PX), state.reference))
        view.shown = state.view.render(shown.camera, components.samples)
        clock.lap("integrate")
    return True


def _inpainted(shown: Guide, guide: Guide, state: ExploreState, components: Components) -> tuple[Prior, Tensor]:
    """The prior of a view ``[1]``, and what was copied from at shown size (`_complete_pictures`)."""
    scale, config = components.scale, components.prior
    known, pictures = guide, [shown.rgb]
    ahead = look_ahead(guide, config.look_ahead) if config.fill == "copy" else None
    if ahead is not None:
        further = state.view.render(_finer(ahead, scale), components.samples)
        known, pictures = Guide.concatenate([guide, further.pooled(scale)]), [shown.rgb, further.rgb]
    reference = Frame.concatenate([state.reference[:1], state.reference[-1:]]).pooled(scale)
    prior = inpaint_prior(known, reference, state.rng, config, lock_thin=True)
    return prior, _complete_pictures(pictures, known, prior, state.reference.rgb[:1], scale)


def _needs_completion(guide: Guide, config: InpaintConfig) -> bool:
    """Whether holes are too wide, and too much of the view, to be closed smoothly as the frame is rendered."""
    wide = guide.hole & ~thin(guide.hole, config.completion.closed_px)
    return wide.float().mean().item() > config.min_share


def complete_wide(shown: Guide, state: ExploreState, components: Components) -> Chunk:
    """Complete one wide view ``[1]``; the chunk holds what was open, and has the index of the chunk that comes next."""
    scale, photo = components.scale, state.reference[:1]
    guide = shown.pooled(scale)
    reference = pad_frame(photo.pooled(scale), guide.camera.size)
    prior = inpaint_prior(guide, reference, state.rng, components.prior)
    pictures = _complete_pictures([shown.rgb], guide, prior, pad_frame(photo, shown.camera.size).rgb, scale)
    covered = guide.covered
    depth = torch.where(covered, guide.depth, 1.0)
    known = Frame(prior.rgb, depth, covered, covered & guide.sky_mask, guide.camera, photo.metric)
    # The view has another size than the frames, so the generator gets a separate memory for it.
    memory = components.generator.start(Chunk(known, 0, observed=True, confidence=guide.confidence))
    chunk, _, _ = _generate(shown, guide, prior, pictures, memory, state, components, components.prior.outpaint.ease_px)
    inside = eroded_border(~shown.covered, components.prior.outpaint.border_px * scale)
    return replace(chunk, frames=replace(chunk.frames, valid=chunk.frames.valid & inside))


def _generate(
    shown: Guide,
    guide: Guide,
    prior: Prior,
    pictures: Tensor,
    memory: Memory,
    state: ExploreState,
    components: Components,
    ease_px: int = 0,
) -> tuple[Chunk, Tensor, float]:
    """Generate one view and enlarge it to the shown size; only pixels that the world does not cover are valid.

    Args:
        shown, guide: the world at shown and at working size, ``[1]``.
        prior: the guide with its holes inpainted.
        pictures: what was copied from, complete, at shown size, ``[p 3 h w]``.
        memory: of the generator.
        state, components: of the session.
        ease_px: distance to the known, working size, over which the generator's colors take the place of the prior's.

    Returns:
        The view as a chunk, the noise map, and the median relative depth error after the alignment.
    """
    scale = components.scale
    sigma = noise_map(guide, prior, components.noise)
    made = components.generator.make(Condition(guide, prior), sigma, memory, state.rng)
    rgb, depth, sky, known, residual = with_depth(made, guide, sigma, components.depth)
    if ease_px:
        distance = torch.from_numpy(distance_px(guide.covered[0, 0].cpu().numpy()))
        rgb = torch.lerp(prior.rgb, rgb, (distance / ease_px).clamp_max(1.0).to(rgb))
    colors = enlarged(rgb, scale)
    if prior.source is not None and scale > 1:
        colors = colors + copied_detail(prior.source[0], pictures, scale)
    open_ = ~shown.covered | repeated(prior.copied > 0.5, scale)
    sky = torch.where(open_, repeated(sky, scale), shown.sky_mask)
    front = torch.where(open_, enlarged_depth(depth, scale), shown.depth.clamp_min(1e-6))
    background, seen = repeated(prior.smooth_depth, scale), state.reference[:1]
    limits = components.prior.completion
    depth, free = behind_photo(front, background, sky, shown.camera, seen, limits.in_front, limits.outline_px)
    # What moves to the background takes its color too, or a tree would be painted on the lake behind it.
    colors = torch.where(depth == front, colors, enlarged(prior.smooth_rgb, scale))
    colors = to_levels(torch.where(open_, colors, shown.rgb))
    valid = validity(depth, sky) & repeated(known, scale) & ~shown.covered & free
    level = repeated(sigma, scale)
    confidence = shown.confidence + (1.0 - shown.confidence) * (1.0 - 0.5 * level) * GENERATED_CONFIDENCE
    frames = Frame(colors, depth, valid, sky, shown.camera, state.reference.metric)
    return Chunk(frames, state.chunks, observed=False, confidence=confidence.clamp(0.0, 1.0)), sigma, residual


def _complete_pictures(seen: list[Tensor], guide: Guide, prior: Prior, photo: Tensor, scale: int) -> Tensor:
    """What may be copied from at shown size, ``[p 3 h w]``: the views that were filled together, then the photo."""
    views = torch.cat(seen)
    known = repeated(guide.coverage >= 1.0, scale)
    return torch.cat([torch.where(known, views, enlarged(prior.rgb, scale)), photo])


def _finished(view: _View, state: ExploreState, least: float) -> Chunk:
    """A finished view ``[1]``: as it was rendered, what is still open closed smoothly; `rounded`."""
    shown = view.shown
    rgb, depth, covered = shown.rgb, shown.depth.clamp_min(1e-6), shown.covered
    # In cracks between surfaces that do not meet, a pixel is covered in part, by the outlines of both.
    solid = shown.coverage >= least
    if not solid.all() and solid.any():
        around = smooth_fill(torch.cat([rgb, torch.where(solid, 1.0 / depth, 0.0)], 1), solid)
        rgb, depth = around[:, :3], torch.where(covered, depth, 1.0 / around[:, 3:])
    if view.full is not None:
        rgb = torch.where(covered, rgb, view.full.rgb)
        depth = torch.where(covered, depth, view.full.depth)
    sky = covered & shown.sky_mask
    frame = Frame(rgb, depth.clamp_min(1e-6), covered, sky, shown.camera, state.reference.metric)
    view.shown, view.full = view.guide, None
    # Rounded to the precision of the stored world: that keeps a resumed session on the same bits.
    return rounded(Chunk(frame, state.chunks, observed=False, confidence=shown.confidence * covered))


def _finer(camera: Camera, scale: int) -> Camera:
    """A camera of working size at shown size."""
    return camera.resized((camera.size[0] * scale, camera.size[1] * scale))


def _joined(changes: list[Integration], state: ExploreState) -> Integration:
    """All changes of a chunk as one; of a chunk without any, the empty change."""
    if not changes:
        none = Chunk(state.reference[:0], state.chunks, observed=False, confidence=state.reference.depth[:0])
        return state.view.integrate(none)
    whole = changes[0]
    for change in changes[1:]:
        whole = whole.then(change)
    return whole


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0
