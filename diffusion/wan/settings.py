"""How a line is run: what was published for it, with what a user changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from jaxtyping import Float
from torch import Tensor

from diffusion.wan.lines import Line, NoiseMode
from diffusion.wan.memory import Bounds, LatentPolicy
from diffusion.wan.schedule import schedule_levels, token_rows
from diffusion.wan.tokens import FRAMES_PER_LATENT, Pooling

GuideHistory = Literal["own", "generated"]


@dataclass(frozen=True)
class WanSettings:
    """What differs from run to run. None is what the line was published with.

    Attributes:
        steps: a number of even steps, or falling timesteps in 0..1000; as text, "1000 500" or "1000,500".
        shift: of the schedule.
        lag: steps by which each latent frame of a chunk trails the one before it; for models that were trained with a
            level per frame (Diffusion Forcing).
        guidance: scale of classifier-free guidance; 1 is none.
        mode: what a noise level does (`Line.noise_mode`).
        pooling: of levels over the pixels of a token (`diffusion.wan.tokens.token_levels`).
        chunk: new latents of a chunk, 4 frames each.
        overlap: latents of the past that a line without memory holds at level 0 before a chunk.
        smoothing: level to which a line without memory noises a chunk once more, after it was averaged with the chunk
            before (`diffusion.wan.sampling`); 0: no second pass.
        memory: what a causal line remembers.
        guide_history: what the guide of a chunk is encoded after. ``own``: the guides of the chunks before, one endless
            clip beside the generated one. ``generated``: the frames that were made of them, as in the training clips
            of ST-Diff; they are encoded too, which costs as much again as the guide. Lines without memory begin each
            clip with generated frames, so that they have ``generated`` and no other. None: ``own`` where there is one.
    """

    steps: int | str | Sequence[float] | None = None
    shift: float | None = None
    lag: float = 0.0
    guidance: float | None = None
    mode: str | None = None
    pooling: str = "max"
    chunk: int | None = None
    overlap: int | None = None
    smoothing: float = 0.0
    memory: LatentPolicy = field(default_factory=LatentPolicy)
    guide_history: str | None = None

    def of(self, line: Line) -> Recipe:
        """The settings with what the line was published with filled in.

        Raises:
            ValueError: settings that the line cannot have.
        """
        mode = self.mode or line.noise_mode
        if mode not in get_args(NoiseMode):
            raise ValueError(f"noise mode: want one of {', '.join(get_args(NoiseMode))}, got '{mode}'")
        if (mode == "mask") != (line.noise_mode == "mask"):
            raise ValueError(f"noise mode: want '{line.noise_mode}' for {line.name}, got '{mode}'; leave it out")
        if self.pooling not in get_args(Pooling):
            raise ValueError(f"pooling: want one of {', '.join(get_args(Pooling))}, got '{self.pooling}'")
        chunk = line.chunk if self.chunk is None else self.chunk
        overlap = line.overlap if self.overlap is None else self.overlap
        if chunk < 1 or overlap < 0 or (line.attention == "bidirectional" and overlap < 1):
            raise ValueError(f"chunk, overlap: want at least 1 latent of each, got {chunk} and {overlap}")
        if chunk + overlap > line.trained_span:
            raise ValueError(
                f"chunk: want chunk + overlap within the {line.trained_span} latents that {line.name} was trained on, "
                f"got {chunk} + {overlap}; lower generator.chunk"
            )
        if not 0.0 <= self.smoothing <= 1.0:
            raise ValueError(f"smoothing: want a level in 0..1, got {self.smoothing}")
        if self.smoothing > 0.0 and line.attention != "bidirectional":
            raise ValueError(
                f"smoothing: want 0 for {line.name}, which remembers the chunk before, got {self.smoothing}; leave "
                "generator.smoothing out"
            )
        history = self.guide_history or ("generated" if line.attention == "bidirectional" else "own")
        if history not in get_args(GuideHistory):
            raise ValueError(f"guide_history: want one of {', '.join(get_args(GuideHistory))}, got '{history}'")
        if history == "own" and line.attention == "bidirectional":
            raise ValueError(
                f"guide_history: want 'generated' for {line.name}, whose chunks begin with generated frames, got "
                "'own'; leave generator.guide_history out"
            )
        bounds = None
        if line.attention == "causal":
            bounds = self.memory.bounds(chunk=chunk, span=line.trained_span, window=line.window, sink=line.sink)
        steps = line.steps if self.steps is None else _steps(self.steps)
        shift = line.shift if self.shift is None else self.shift
        levels = schedule_levels(steps, shift, warped=line.warped, last=line.table_end)
        guidance = line.guidance if self.guidance is None else self.guidance
        sampling = (line, levels, self.lag, guidance, mode, self.pooling)
        return Recipe(*sampling, chunk, overlap, self.smoothing, bounds, history)


@dataclass(frozen=True)
class Recipe:
    """A line and how it is run, every number known; attributes as in `WanSettings`."""

    line: Line
    levels: Float[Tensor, "r"]
    lag: float
    guidance: float
    mode: str
    pooling: str
    chunk: int
    overlap: int
    smoothing: float
    bounds: Bounds | None
    guide_history: str

    @property
    def frames(self) -> int:
        """Frames of a chunk."""
        return FRAMES_PER_LATENT * self.chunk

    @property
    def mixes(self) -> bool:
        """Whether tokens start at levels of their own, rather than all at 1."""
        return self.mode in ("hold", "scale")

    def rows(self, start: Float[Tensor, "f 1 h w"], schedule: Float[Tensor, "r f"]) -> Float[Tensor, "r f 1 h w"]:
        """The level of every latent pixel in every step, from its first one."""
        return token_rows(schedule, start, "scale" if self.mode == "scale" else "hold")

    def overlap_frames(self, available: int) -> int:
        """Frames of as many latents of overlap as there are: one for the first and four for each further latent."""
        latents = min(self.overlap, (available - 1) // FRAMES_PER_LATENT + 1)
        return 1 + FRAMES_PER_LATENT * (latents - 1)


def _steps(steps: int | str | Sequence[float]) -> int | list[float]:
    """A number of steps or timesteps, from what a configuration or a command line holds."""
    if isinstance(steps, int):
        return steps
    words = steps.strip("[] ").replace(",", " ").split() if isinstance(steps, str) else steps
    try:
        return [float(step) for step in words]
    except ValueError:
        raise ValueError(f"steps: want a whole number, or timesteps such as '1000 500', got '{steps}'") from None
