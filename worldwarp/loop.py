"""The loop: render the world, fill what is unknown, put it back. Everything else watches or stores."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from cache3d.cache import Integration, WorldCache
from cache3d.photo_texture import PhotoTexture
from diffusion.condition import Condition, Prior
from diffusion.generator import Generator
from diffusion.inpainting.lookahead import look_ahead
from diffusion.inpainting.outpainting import eroded_border, outpaint_camera, pad_frame, photo_with_margin
from diffusion.inpainting.prior import PriorConfig, inpaint_prior
from diffusion.kv_memory import KVMemory
from diffusion.noise_map import NoiseConfig, noise_map
from diffusion.sampler import Generated, SamplerConfig, sample
from geometry.camera import Camera
from geometry.depth import align_depth, clean_discontinuities
from geometry.frame import Chunk, Frame, Guide
from geometry.primitives import Gaussians, Points
from worldwarp.metrics import measure

REFERENCE_FRAMES = 4
KEEP_EVERY = 2
GENERATED_CONFIDENCE = 0.6  # a generated pixel is never trusted like one that a camera saw


@dataclass(frozen=True)
class Parts:
    """What the loop is made of; each is exchangeable (see `worldwarp/conf`)."""

    cache: WorldCache
    generator: Generator
    noise: NoiseConfig
    prior: PriorConfig
    sampler: SamplerConfig


@dataclass
class Walk:
    """Where a walk stands between two chunks; this and the cache are all that a resumed walk needs."""

    memory: KVMemory
    texture: PhotoTexture  # the photo, to be shown wherever the cache shows what it saw
    reference: Frame  # the photo and the last frames of recent chunks, to copy texture from and to refine against
    rng: torch.Generator
    chunks: int  # finished chunks; the photo is chunk 0
    frames: int  # finished frames; the photo is frame 0


@dataclass(frozen=True)
class Step:
    """Everything that one chunk produced, for viewers, recorders and gauges."""

    chunk: Chunk
    first_frame: int
    guide: Guide
    prior: Prior
    sigma: Float[Tensor, "t 1 h w"]
    integration: Integration
    added: Points | Gaussians
    timings_s: dict[str, float]
    gauges: dict[str, float]
    walk: Walk = field(repr=False)

    def __repr__(self) -> str:
        """What it is in a line, without its tensors."""
        last = self.first_frame + len(self.chunk.frames) - 1
        return (
            f"Step(chunk {self.chunk.index}, frames {self.first_frame} to {last}, "
            f"{self.gauges['hole_ratio']:.1%} new, {self.integration.total} primitives)"
        )


def begin(seed: Chunk, seed_detail: Chunk, sharp: Float[Tensor, "3 h w"], parts: Parts, rng: torch.Generator) -> Walk:
    """Start a world from its photo and from what is made up around it, once and for all.

    Args:
        seed: the photo at frame size, as chunk 0 of one frame.
        seed_detail: the same photo as the cache should hold it, at frame size or finer.
        sharp: its colors as fine as there are, for what the walk comes close to.
        parts: what the loop is made of; its cache must be empty.
        rng: the one source of randomness of the walk.
    """
    parts.cache.integrate(seed_detail)
    texture = PhotoTexture.of(seed.frames, sharp)
    walk = Walk(parts.generator.start(seed), texture, seed.frames, rng, chunks=1, frames=1)
    around = _made_up(photo_with_margin(seed.frames), walk, parts)
    parts.cache.integrate(replace(around, index=0))  # like the photo
    return walk


def explore_chunks(walk: Walk, chunks: Iterable[Camera], parts: Parts) -> Iterator[Step]:
    """Walk along the cameras; yields one `Step` per chunk and advances ``walk`` in place.

    Args:
        walk: where to start, from `begin` or from a saved world.
        chunks: batches ``[t]`` of cameras; may be endless. Of a list, the cache fetches ahead what the next will see.
        parts: what the loop is made of.
    """
    for position, cameras in enumerate(chunks):
        clock = _Clock()
        with clock("render"):
            known = guide = walk.texture.onto(parts.cache.render(cameras))
            if isinstance(chunks, Sequence) and position + 1 < len(chunks):
                parts.cache.prefetch(chunks[position + 1])
        around = None
        if (wider := outpaint_camera(guide)) is not None:
            with clock("surroundings"):
                view = walk.texture.onto(parts.cache.render(wider))
                around = parts.cache.integrate(_made_up(view, walk, parts))
                guide = walk.texture.onto(parts.cache.render(cameras))
        with clock("copy"):
            seen = guide
            if (ahead := look_ahead(guide)) is not None:
                seen = Guide.concatenate([guide, walk.texture.onto(parts.cache.render(ahead))])
            prior = inpaint_prior(seen, walk.reference, walk.rng, parts.prior, lock_thin=True)[: len(cameras)]
        with clock("denoise"):
            sigma = noise_map(guide, prior, parts.noise)
            made = sample(parts.generator, Condition(guide, prior), sigma, walk.memory, walk.rng, parts.sampler)
        with clock("align"):
            chunk, residual = _as_chunk(made, guide, sigma, walk)
        with clock("integrate"):
            kept = thinned(chunk)
            integration = parts.cache.integrate(kept, walk.reference)
            integration = integration if around is None else around.then(integration)
        with clock("remember"):
            walk.memory = parts.generator.remember(kept, walk.memory)
        first_frame = walk.frames
        walk.chunks, walk.frames = walk.chunks + 1, walk.frames + len(cameras)
        earlier = [walk.reference[i : i + 1] for i in range(1, len(walk.reference))]
        walk.reference = reference_of(walk.reference[:1], [*earlier, chunk.frames[-1:]])
        gauges = measure(known, chunk.frames, residual, integration.total)
        added = integration.change.rows[integration.change.index >= integration.first]
        yield Step(chunk, first_frame, guide, prior, sigma, integration, added, clock.seconds, gauges, walk)


def _made_up(guide: Guide, walk: Walk, parts: Parts) -> Chunk:
    """What lies in the open parts of one wide view ``[1]``; of the chunk that comes next."""
    photo = walk.reference[:1]
    prior = inpaint_prior(guide, pad_frame(photo, guide.camera.size), walk.rng, parts.prior)
    sigma = noise_map(guide, prior, parts.noise)
    seen = guide.coverage > 0.5
    depth = torch.where(seen, guide.depth, 1.0)
    known = Frame(prior.rgb, depth, seen, seen & (guide.sky > 0.5), guide.camera, photo.metric)
    memory = parts.generator.start(Chunk(known, 0, observed=True, confidence=guide.confidence))
    made = sample(parts.generator, Condition(guide, prior), sigma, memory, walk.rng, parts.sampler)
    chunk, _ = _as_chunk(made, guide, sigma, walk)
    return replace(chunk, frames=replace(chunk.frames, valid=eroded_border(chunk.frames.valid & ~seen)))


def thinned(chunk: Chunk) -> Chunk:
    """What of a chunk the world and the generator keep: every second frame and always the last.

    What lies between shows nothing more, and costs as much.
    """
    kept = list(range((len(chunk.frames) - 1) % KEEP_EVERY, len(chunk.frames), KEEP_EVERY))
    return replace(chunk, frames=chunk.frames[kept], confidence=chunk.confidence[kept])


def _as_chunk(made: Generated, guide: Guide, sigma: Tensor, walk: Walk) -> tuple[Chunk, float]:
    """Make a chunk of what was generated: depth aligned to the world, no flying pixels, 8-bit colors."""
    seen = guide.coverage * guide.confidence * (1.0 - guide.sky)
    aligned = align_depth(made.depth, ~made.sky, guide.depth, seen)
    depth = torch.where(made.sky, made.depth, aligned.depth)
    valid = made.sky | clean_discontinuities(depth, ~made.sky)
    # Frames are stored losslessly as 8-bit images: rounding here keeps a resumed walk on the same bits.
    rgb = (made.rgb * 255.0).round().clamp(0.0, 255.0) / 255.0
    confidence = guide.confidence + (1.0 - guide.confidence) * (1.0 - 0.5 * sigma) * GENERATED_CONFIDENCE
    frames = Frame(rgb, depth, valid, made.sky, guide.camera, walk.reference.metric)
    return Chunk(frames, walk.chunks, observed=False, confidence=confidence.clamp(0.0, 1.0)), aligned.residual


def reference_of(photo: Frame, last_frames: list[Frame]) -> Frame:
    """What texture may be copied from: the photo ``[1]`` and the newest of the chunks' last frames ``[1]`` each."""
    return Frame.concatenate([photo, *last_frames[-(REFERENCE_FRAMES - 1) :]])


class _Clock:
    """Wall time by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[stage] = time.perf_counter() - start
