"""What the loop works on: its parts, the photo, the state that changes with each chunk, and what a chunk yields."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from cache3d.cache import Integration
from cache3d.world_view import WorldView
from diffusion.condition import Prior
from diffusion.generator import Generator, Memory
from diffusion.inpainting.config import InpaintConfig
from diffusion.noise_map import NoiseConfig
from geometry.depth import DepthEstimator
from geometry.frame import Chunk, Frame, Guide
from geometry.primitives import Gaussians, Points
from worldwarp.notebook import strip_html
from worldwarp.video_guide import VideoGuide

REFERENCE_FRAMES = 4  # the photo and the last frames of three chunks: to copy texture from and to optimize against


@dataclass(frozen=True)
class Components:
    """The parts of the loop besides the cache; each can be replaced (`worldwarp/conf`, `worldwarp.plugins`).

    Attributes:
        generator: completes the views of the world.
        noise: kind and levels of the noise map.
        prior: how holes are inpainted.
        depth: estimates the depth of generated frames, where the generator makes none.
        video: replaces the guide.
        scale: frame size over the size at which a generator of single views works.
        samples: of the cache per pixel of a frame and axis; None: as the cache renders.
    """

    generator: Generator
    noise: NoiseConfig
    prior: InpaintConfig
    depth: DepthEstimator | None = None
    video: VideoGuide | None = None
    scale: int = 1
    samples: int | None = None

    @property
    def per_view(self) -> bool:
        """Whether frames are rendered from the world, and the generator completes only views with holes."""
        return self.generator.capabilities.per_view and self.video is None


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
        guide: the world rendered at its cameras before they were completed, at the generator's size, ``[t]``.
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

    def _repr_html_(self) -> str:
        """The frames of the chunk above the `repr`, for notebooks."""
        return strip_html(self.chunk.frames.rgb, repr(self))


def photo_chunk(photo: Frame) -> Chunk:
    """The photo ``[1]`` as chunk 0: observed, with confidence 1."""
    return Chunk(photo, 0, observed=True, confidence=torch.ones_like(photo.depth))


def reference_of(photo: Frame, last_frames: list[Frame]) -> Frame:
    """The reference frames: the photo ``[1]`` and the newest of the chunks' last frames, ``[1]`` each."""
    return Frame.concatenate([photo, *last_frames[-(REFERENCE_FRAMES - 1) :]])
