"""The loop: render the world, fill its holes, integrate the result. Viewers and storage only receive its steps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from cache3d.cache import Integration, WorldCache
from cache3d.photo_texture import PhotoTexture
from cache3d.world_view import WorldView
from diffusion.condition import Condition, Prior
from diffusion.generator import Made
from diffusion.inpainting.lookahead import look_ahead
from diffusion.inpainting.outpainting import outpaint_camera
from diffusion.inpainting.prior import inpaint_prior
from diffusion.noise_map import noise_map
from geometry.camera import Camera
from geometry.frame import Chunk, Frame, Guide
from geometry.rounding import rounded
from worldwarp.alignment import GENERATED_CONFIDENCE, with_depth
from worldwarp.clock import Clock
from worldwarp.completion import complete_chunk, complete_wide
from worldwarp.metrics import measure
from worldwarp.state import Components, ExploreState, LiftedPhoto, Step, photo_chunk, reference_of


def start(photo: LiftedPhoto, cache: WorldCache, components: Components, rng: torch.Generator) -> ExploreState:
    """Start a world from its photo.

    Args:
        photo: the photo with depth.
        cache: an empty cache.
        components: the parts of the loop.
        rng: the only source of randomness.
    """
    view = WorldView(cache, PhotoTexture.of(photo.frame, photo.full_res))
    view.integrate(photo_chunk(photo.detail))
    memory = components.generator.start(photo_chunk(photo.frame).pooled(components.scale))
    return ExploreState(view, memory, photo.frame, rng, chunks=1, frames=1)


def explore(state: ExploreState, chunks: Iterable[Camera], components: Components) -> Iterator[Step]:
    """Explore along a path; yields one `Step` per chunk and advances ``state`` in place.

    Args:
        state: from `start` or from a stored world.
        chunks: batches ``[t]`` of cameras; may be endless.
        components: the parts of the loop.
    """
    advance = complete_views if components.per_view else generate_frames
    for cameras, upcoming in _with_next(chunks):
        yield advance(cameras, upcoming, state, components)


def complete_views(cameras: Camera, upcoming: Camera | None, state: ExploreState, components: Components) -> Step:
    """One chunk of a generator of single views: the views with holes are completed, all frames are rendered."""
    clock = Clock()
    state.view.prefetch(upcoming)
    done = complete_chunk(cameras, state, components, clock)
    chunk, small = done.chunk, done.chunk.pooled(components.scale)
    made = Made(small.frames.rgb, small.frames.depth, small.frames.sky)
    state.memory = components.generator.remember(small, made, state.memory)
    clock.lap("remember")
    first_frame = _advance(state, chunk)
    integration = done.integration
    gauges = measure(done.guide, small.frames, done.residual, integration.total)
    added = integration.change.rows[integration.change.index >= integration.first]
    return Step(
        chunk, {}, first_frame, done.guide, done.prior, done.sigma, integration, added, clock.seconds, gauges, state
    )


def generate_frames(cameras: Camera, upcoming: Camera | None, state: ExploreState, components: Components) -> Step:
    """One chunk of a generator of video, or of a clip: every frame is shown as the generator makes it."""
    clock = Clock()
    known = state.view.render(cameras)
    state.view.prefetch(upcoming)
    clock.lap("render")
    outpainted = _outpaint(known, state, components)
    guide = known if outpainted is None else state.view.render(cameras)
    guide = guide if components.video is None else components.video.over(guide)
    if guide is not known:
        clock.lap("outpaint" if components.video is None else "video")
    prior = _inpaint(guide, state, components)
    clock.lap("inpaint")
    sigma = noise_map(guide, prior, components.noise) if components.video is None else components.video.sigma(guide)
    made = components.generator.make(Condition(guide, prior), sigma, state.memory, state.rng)
    clock.lap("denoise")
    chunk, residual = _to_chunk(made, guide, sigma, state, components)
    clock.lap("align")
    integration = state.view.integrate(chunk.every_second(), state.reference)
    integration = integration if outpainted is None else outpainted.then(integration)
    clock.lap("integrate")
    state.memory = components.generator.remember(chunk, made, state.memory)
    clock.lap("remember")
    first_frame = _advance(state, chunk)
    gauges = measure(known, chunk.frames, residual, integration.total)
    added = integration.change.rows[integration.change.index >= integration.first]
    return Step(chunk, made.carried, first_frame, guide, prior, sigma, integration, added, clock.seconds, gauges, state)


def _with_next(chunks: Iterable[Camera]) -> Iterator[tuple[Camera, Camera | None]]:
    """Each chunk of cameras with the next one, or None where it is unknown.

    An iterator is not read ahead: with keyboard control, the next chunk depends on the user's reaction to this one.
    """
    if not isinstance(chunks, list):
        yield from ((cameras, None) for cameras in chunks)
        return
    yield from zip(chunks, [*chunks[1:], None], strict=False)  # no chunks: nothing, not even the None


def _outpaint(known: Guide, state: ExploreState, components: Components) -> Integration | None:
    """Outpaint one wide view from the chunk's last camera if whole sides of the guide are uncovered; else None."""
    if components.video is not None or not components.generator.capabilities.wide:
        return None
    wide = outpaint_camera(known, components.prior.outpaint)
    if wide is None:
        return None
    return state.view.integrate(complete_wide(state.view.render(wide), state, components))


def _inpaint(guide: Guide, state: ExploreState, components: Components) -> Prior:
    """The prior of a chunk; a view further along the path is filled with it, so that a hole is filled as one region."""
    copies = components.prior.fill == "copy"
    ahead = look_ahead(guide, components.prior.look_ahead) if copies else None
    views = guide if ahead is None else Guide.concatenate([guide, state.view.render(ahead)])
    prior = inpaint_prior(views, state.reference, state.rng, components.prior, lock_thin=True)
    return prior[: len(guide)]


def _to_chunk(
    made: Made, guide: Guide, sigma: Tensor, state: ExploreState, components: Components
) -> tuple[Chunk, float]:
    """Generated frames as a chunk: depth aligned to the guide, mixed pixels at edges invalid, `rounded`.

    Returns:
        The chunk and the median relative depth error after the alignment.
    """
    rgb, depth, sky, valid, residual = with_depth(made, guide, sigma, components.depth)
    confidence = guide.confidence + (1.0 - guide.confidence) * (1.0 - 0.5 * sigma) * GENERATED_CONFIDENCE
    frames = Frame(rgb, depth, valid, sky, guide.camera, state.reference.metric)
    # Rounded to the precision of the stored world: that keeps a resumed session on the same bits.
    return rounded(Chunk(frames, state.chunks, observed=False, confidence=confidence.clamp(0.0, 1.0))), residual


def _advance(state: ExploreState, chunk: Chunk) -> int:
    """Count a finished chunk and update the reference frames; returns the index of the chunk's first frame."""
    first_frame = state.frames
    state.chunks, state.frames = state.chunks + 1, state.frames + len(chunk.frames)
    earlier = [state.reference[i : i + 1] for i in range(1, len(state.reference))]
    state.reference = reference_of(state.reference[:1], [*earlier, chunk.frames[-1:]])
    return first_frame
