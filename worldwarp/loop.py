"""The loop: render the world, fill its holes, integrate the result. Viewers and storage only receive its steps."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from cache3d.cache import Integration, WorldCache
from cache3d.photo_texture import PhotoTexture
from cache3d.world_view import WorldView
from diffusion.condition import Condition, Prior
from diffusion.generator import Generator, Made, Memory
from diffusion.inpainting.config import InpaintConfig
from diffusion.inpainting.lookahead import look_ahead
from diffusion.inpainting.outpainting import eroded_border, outpaint_camera, pad_frame, photo_with_margin
from diffusion.inpainting.prior import inpaint_prior
from diffusion.noise_map import NoiseConfig, noise_map
from geometry.camera import Camera
from geometry.depth import DepthEstimator, align_depth, clean_discontinuities
from geometry.frame import Chunk, Frame, Guide, every_second
from geometry.primitives import Gaussians, Points
from worldwarp.metrics import measure
from worldwarp.video_guide import VideoGuide

REFERENCE_FRAMES = 4  # the photo and the last frames of three chunks: to copy texture from and to optimize against
GENERATED_CONFIDENCE = 0.6  # of a generated pixel at noise level 0; an observed pixel has 1


@dataclass(frozen=True)
class Components:
    """The parts of the loop besides the cache; each can be replaced (`worldwarp/conf`, `worldwarp.plugins`).

    ``depth`` estimates the depth of generated frames, where the generator makes none; ``video`` replaces the guide.
    """

    generator: Generator
    noise: NoiseConfig
    prior: InpaintConfig
    depth: DepthEstimator | None = None
    video: VideoGuide | None = None


@dataclass(frozen=True)
class LiftedPhoto:
    """The photo with its depth, at the three resolutions that a session needs.

    Attributes:
        frame: at frame size, ``[1]``: frame 0 of the world.
        detail: at frame size or finer, ``[1]``: what enters the cache.
        full_res: colors in 0..1, ``[3 h w]``, at the finest resolution that is shown: the photo texture.
    """

    frame: Frame
    detail: Frame
    full_res: Float[Tensor, "3 h w"]


@dataclass
class ExploreState:
    """The state that changes with each chunk; a resumed session needs nothing else.

    Attributes:
        view: the world: cache and photo texture.
        memory: of the generator.
        reference: the photo and the last frames of recent chunks, ``[r]``.
        rng: the only source of randomness.
        chunks: finished chunks; the photo is chunk 0.
        frames: finished frames; the photo is frame 0.
    """

    view: WorldView
    memory: Memory
    reference: Frame
    rng: torch.Generator
    chunks: int
    frames: int


@dataclass(frozen=True)
class Step:
    """The results of one chunk, for viewers, recorders and metrics.

    Attributes:
        chunk: the finished frames with their confidence.
        carried: what the generator stores with the chunk, see `diffusion.generator.Made`.
        first_frame: index of its first frame in the world.
        guide: the world rendered at its cameras before the chunk, ``[t]``.
        prior: the guide with its holes inpainted.
        sigma: the noise level that the sampler started from, ``[t 1 h w]``.
        integration: the change of the cache.
        added: the primitives that it added.
        timings_s: seconds per stage.
        gauges: metrics of the chunk, see `worldwarp.metrics.measure`.
        state: of the session after the chunk.
    """

    chunk: Chunk
    carried: dict[str, Tensor] = field(repr=False)
    first_frame: int
    guide: Guide
    prior: Prior
    sigma: Float[Tensor, "t 1 h w"]
    integration: Integration
    added: Points | Gaussians
    timings_s: dict[str, float]
    gauges: dict[str, float]
    state: ExploreState = field(repr=False)

    def __repr__(self) -> str:
        """The chunk in one line, without its tensors."""
        last = self.first_frame + len(self.chunk.frames) - 1
        return (
            f"Step(chunk {self.chunk.index}, frames {self.first_frame} to {last}, "
            f"{self.gauges['hole_ratio']:.1%} new, {self.integration.total} primitives)"
        )


def start(photo: LiftedPhoto, cache: WorldCache, components: Components, rng: torch.Generator) -> ExploreState:
    """Start a world from its photo, and outpaint a margin around the photo once if the generator makes wide views.

    Args:
        photo: the photo with depth.
        cache: an empty cache.
        components: the parts of the loop.
        rng: the only source of randomness.
    """
    view = WorldView(cache, PhotoTexture.of(photo.frame, photo.full_res))
    view.integrate(photo_chunk(photo.detail))
    memory = components.generator.start(photo_chunk(photo.frame))
    state = ExploreState(view, memory, photo.frame, rng, chunks=1, frames=1)
    if components.generator.capabilities.wide:
        margin = _generate_open_parts(photo_with_margin(photo.frame, components.prior.outpaint), state, components)
        view.integrate(replace(margin, index=0))  # the margin belongs to the photo's chunk
    return state


def explore(state: ExploreState, chunks: Iterable[Camera], components: Components) -> Iterator[Step]:
    """Explore along a path; yields one `Step` per chunk and advances ``state`` in place.

    Args:
        state: from `start` or from a stored world.
        chunks: batches ``[t]`` of cameras; may be endless.
        components: the parts of the loop.
    """
    for cameras, upcoming in _with_next(chunks):
        clock = _Clock()
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
        noise = components.noise
        sigma = noise_map(guide, prior, noise) if components.video is None else components.video.sigma(guide)
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
        carried = made.carried
        yield Step(chunk, carried, first_frame, guide, prior, sigma, integration, added, clock.seconds, gauges, state)


def photo_chunk(photo: Frame) -> Chunk:
    """The photo ``[1]`` as chunk 0: observed, with confidence 1."""
    return Chunk(photo, 0, observed=True, confidence=torch.ones_like(photo.depth))


def reference_of(photo: Frame, last_frames: list[Frame]) -> Frame:
    """The reference frames: the photo ``[1]`` and the newest of the chunks' last frames, ``[1]`` each."""
    return Frame.concatenate([photo, *last_frames[-(REFERENCE_FRAMES - 1) :]])


def _with_next(chunks: Iterable[Camera]) -> Iterator[tuple[Camera, Camera | None]]:
    """Each chunk of cameras with the next one, or None where it is unknown.

    An iterator is not read ahead: with keyboard control, the next chunk depends on the user's reaction to this one.
    """
    if not isinstance(chunks, list):
        yield from ((cameras, None) for cameras in chunks)
        return
    yield from zip(chunks, [*chunks[1:], None], strict=False)  # no chunks: nothing, not even the None


def _outpaint(known: Guide, state: ExploreState, components: Components) -> Integration | None:
    """Outpaint one wide view from the chunk's last camera if whole sides of the guide are uncovered; else None.

    Filled chunk by chunk, such a side would become strips with a seam at each chunk.
    """
    if components.video is not None or not components.generator.capabilities.wide:
        return None
    wide = outpaint_camera(known, components.prior.outpaint)
    if wide is None:
        return None
    return state.view.integrate(_generate_open_parts(state.view.render(wide), state, components))


def _inpaint(guide: Guide, state: ExploreState, components: Components) -> Prior:
    """The prior of a chunk; a view further along the path is filled with it, so that a hole is filled as one region."""
    copies = components.prior.fill == "copy"
    ahead = look_ahead(guide, components.prior.look_ahead) if copies else None
    views = guide if ahead is None else Guide.concatenate([guide, state.view.render(ahead)])
    prior = inpaint_prior(views, state.reference, state.rng, components.prior, lock_thin=True)
    return prior[: len(guide)]


def _generate_open_parts(guide: Guide, state: ExploreState, components: Components) -> Chunk:
    """Generate the uncovered part of one wide view ``[1]``; the chunk has the index of the chunk that comes next."""
    photo = state.reference[:1]
    prior = inpaint_prior(guide, pad_frame(photo, guide.camera.size), state.rng, components.prior)
    sigma = noise_map(guide, prior, components.noise)
    covered = guide.coverage > 0.5
    depth = torch.where(covered, guide.depth, 1.0)
    known = Frame(prior.rgb, depth, covered, covered & (guide.sky > 0.5), guide.camera, photo.metric)
    # The view has another size than the frames, so the generator gets a separate memory for it.
    memory = components.generator.start(Chunk(known, 0, observed=True, confidence=guide.confidence))
    made = components.generator.make(Condition(guide, prior), sigma, memory, state.rng)
    chunk, _ = _to_chunk(made, guide, sigma, state, components)
    valid = eroded_border(chunk.frames.valid & ~covered, components.prior.outpaint.border_px)
    return replace(chunk, frames=replace(chunk.frames, valid=valid))


def _to_chunk(
    made: Made, guide: Guide, sigma: Tensor, state: ExploreState, components: Components
) -> tuple[Chunk, float]:
    """Generated frames as a chunk: depth aligned to the guide, mixed pixels at edges invalid, 8-bit colors.

    Returns:
        The chunk and the median relative depth error after the alignment.
    """
    # Frames are stored losslessly as 8-bit images: rounding here keeps a resumed session on the same bits.
    rgb = (made.rgb * 255.0).round().clamp(0.0, 255.0) / 255.0
    if made.depth is None:
        depth, sky, valid, residual = _estimated_depth(rgb, guide, sigma, components)
    else:
        sky = guide.covered & guide.sky_mask if made.sky is None else made.sky
        depth, residual = _aligned(made.depth, sky, guide)
        valid = sky | clean_discontinuities(depth, ~sky)
    confidence = guide.confidence + (1.0 - guide.confidence) * (1.0 - 0.5 * sigma) * GENERATED_CONFIDENCE
    frames = Frame(rgb, depth, valid, sky, guide.camera, state.reference.metric)
    return Chunk(frames, state.chunks, observed=False, confidence=confidence.clamp(0.0, 1.0)), residual


def _aligned(depth: Tensor, sky: Tensor, guide: Guide) -> tuple[Tensor, float]:
    """Depth whose surfaces are scaled and shifted to the guide's, and the median relative error after it."""
    weight = guide.coverage * guide.confidence * (1.0 - guide.sky)
    aligned = align_depth(depth, ~sky, guide.depth, weight)
    return torch.where(sky, depth, aligned.depth), aligned.residual


def _estimated_depth(
    rgb: Tensor, guide: Guide, sigma: Tensor, components: Components
) -> tuple[Tensor, Tensor, Tensor, float]:
    """Depth, sky and validity of frames whose generator makes none, and the error of the alignment.

    Estimated for the frames that enter the cache; the others have the guide's depth, and none in holes.

    Raises:
        ValueError: there is no estimator.
    """
    if components.depth is None:
        raise ValueError(
            "generator: this one makes no depth, and there is no estimator for the depth of its frames; "
            "set depth=embedded or another one"
        )
    kept = every_second(len(rgb))
    part = guide[kept]
    estimated = components.depth.estimate(rgb[kept], part.camera.focal_px)
    known = estimated.valid.to(rgb.device)
    made = torch.where(known, estimated.depth.to(rgb), estimated.depth[estimated.valid].median().to(rgb))
    part_sky = estimated.sky.to(rgb.device)
    part_depth, residual = _aligned(made, part_sky, part)
    # What was sure keeps the surface that the cache has there.
    sure = (sigma[kept] == 0.0) & part.covered
    part_depth = torch.where(sure, part.depth, part_depth)
    part_sky = torch.where(sure, part.sky_mask, part_sky)
    depth, sky, valid = guide.depth.clamp_min(1e-6), guide.covered & guide.sky_mask, guide.covered.clone()
    depth[kept], sky[kept] = part_depth, part_sky
    valid[kept] = part_sky | (known & clean_discontinuities(part_depth, ~part_sky))
    return depth, sky, valid, residual


def _advance(state: ExploreState, chunk: Chunk) -> int:
    """Count a finished chunk and update the reference frames; returns the index of the chunk's first frame."""
    first_frame = state.frames
    state.chunks, state.frames = state.chunks + 1, state.frames + len(chunk.frames)
    earlier = [state.reference[i : i + 1] for i in range(1, len(state.reference))]
    state.reference = reference_of(state.reference[:1], [*earlier, chunk.frames[-1:]])
    return first_frame


class _Clock:
    """Wall time by stage, seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Record the time since the last lap under ``stage``."""
        now = time.perf_counter()
        self.seconds[stage], self._last = now - self._last, now
