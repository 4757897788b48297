"""Estimates the memory and disk that a session needs, and compares them with what is available."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import torch
from omegaconf import DictConfig

from diffusion.generator import Generator, Licensed
from diffusion.memory_plan import MemoryPlan, in_words
from scenes.photos.framing import STEP
from worldwarp.config import ConfigError, Settings

MIB = 2**20

MANY_FRAMES = 1000  # with keys the number of frames is unknown
WARNED_RATIO = 0.8  # warned above this ratio of needed to available


@dataclass(frozen=True)
class Costs:
    """Memory and disk of the parts of a session.

    Peaks were measured with getrusage on x86-64 Linux with torch 2.13 (`docs/results.md`, Memory and disk of a
    session).

    Attributes:
        base_mib: memory of libraries, compiled kernels, weights.
        pixel_bytes: memory per pixel of one frame, independent of the chunk size.
        primitive_bytes: memory in the cache, including spare capacity and the copies for rendering and storing.
        chunk_pixel_bytes: memory per pixel of all frames of a chunk: guide, prior, the network's activations.
        rendered_pixel_bytes: the same where only views with holes are completed, recording included.
        depth_mib: least peak of memory, that of the depth network.
        margin: primitives around the photo, per pixel of a frame.
        photo_bytes: disk, compressed, per primitive of the photo.
        frame_bytes: disk, compressed, per pixel of a stored frame: primitives, depth, colors.
        rendered_frame_bytes: the same where only views with holes are completed: little enters the cache.
        recorded_primitive_bytes: disk of the recording, per primitive of the photo.
        recorded_frame_bytes: disk of the recording, per pixel of a frame.
        recorded_rendered_bytes: the same where only views with holes are completed.
    """

    base_mib: float = 900.0
    pixel_bytes: float = 1000.0
    primitive_bytes: float = 400.0
    chunk_pixel_bytes: float = 830.0
    rendered_pixel_bytes: float = 230.0
    depth_mib: float = 1400.0
    margin: float = 1.5
    photo_bytes: float = 27.0
    frame_bytes: float = 5.6
    rendered_frame_bytes: float = 3.0
    recorded_primitive_bytes: float = 34.0
    recorded_frame_bytes: float = 7.0
    recorded_rendered_bytes: float = 1.2


@dataclass(frozen=True)
class Needs:
    """Memory and disk of a session.

    Attributes:
        size: frame size ``(H, W)``.
        frames: frames of the path, the photo included.
        chunk: frames made together.
        scale: resolution of the photo in the cache over the frame size.
        generator: the memory plan of the generator by frame size and frames, `Generator.plan`; None: it has its own.
        recorded: whether the session is recorded for the viewer.
        done: frames that are already stored.
        per_view: whether frames are rendered from the world, and the generator completes single views.
        costs: measured memory and disk of the parts.
    """

    size: tuple[int, int]
    frames: int
    chunk: int
    scale: float
    generator: Callable[[tuple[int, int], int], MemoryPlan] | None = None
    recorded: bool = True
    done: int = 0
    per_view: bool = False
    costs: Costs = Costs()

    @property
    def memory_mib(self) -> float:
        """Peak memory of the process, MiB."""
        pixels = self.size[0] * self.size[1]
        per_chunk = min(self.chunk, self.planned_frames - 1)
        generator_bytes = 0 if self.generator is None else self.generator(self.size, self.planned_frames).peak
        costs = self.costs
        of_frame = costs.rendered_pixel_bytes if self.per_view else costs.chunk_pixel_bytes
        of_cache = costs.primitive_bytes * (self.scale**2 + costs.margin)
        bytes_per_pixel = costs.pixel_bytes + of_cache + of_frame * per_chunk
        return max(costs.depth_mib, costs.base_mib + (bytes_per_pixel * pixels + generator_bytes) / MIB)

    @property
    def disk_mib(self) -> float:
        """Growth of the world's folder, without exports, MiB."""
        fixed = self._fixed_disk if self.done == 0 else 0.0
        return (fixed + (self.frames - self.done) * self._disk_per_frame) / MIB

    def lines(self, out: Path | None) -> list[str]:
        """A line with needed and available memory and disk, and a warning if they are close.

        Args:
            out: folder of the world; None if nothing is stored.

        Raises:
            ConfigError: more than available; the message has the size or the number of frames that would fit.
        """
        memory = available_memory_mib()
        wanted = self.memory_mib
        self._refuse("memory", wanted, memory, lambda: self._less_memory(memory))
        parts = [f"memory about {in_gib(wanted)} of {in_gib(memory)}"]
        close = wanted > WARNED_RATIO * memory
        if out is not None:
            disk = free_disk_mib(out)
            spare = WARNED_RATIO * disk - replace(self, frames=self.done).disk_mib
            more = int(spare * MIB / self._disk_per_frame)

            def less() -> str:
                fewer = f"set frames={self.done + more}, which fits"
                return fewer if more > 1 else self._smaller(disk, lambda needs: needs.disk_mib)

            self._refuse(f"disk in {out}", self.disk_mib, disk, less)
            parts.append(f"disk about {in_gib(self.disk_mib)} of {in_gib(disk)}")
            close |= self.disk_mib > WARNED_RATIO * disk
        lines = [f"needs    {self._frames_text}: {', '.join(parts)} free"]
        if close:
            lines.append("warning  that is close; a smaller size= or fewer frames= would leave room")
        return lines

    @property
    def _fixed_disk(self) -> float:
        primitives = (self.scale**2 + self.costs.margin) * self.size[0] * self.size[1]
        return primitives * (self.costs.photo_bytes + self.recorded * self.costs.recorded_primitive_bytes)

    @property
    def _disk_per_frame(self) -> float:
        costs = self.costs
        stored = costs.rendered_frame_bytes if self.per_view else costs.frame_bytes
        shown = costs.recorded_rendered_bytes if self.per_view else costs.recorded_frame_bytes
        return self.size[0] * self.size[1] * (stored + self.recorded * shown)

    def _refuse(self, what: str, wanted_mib: float, there_mib: float, advice: Callable[[], str]) -> None:
        refused_ratio = 1.2  # of needed to available; above 1, since estimates are inexact
        if wanted_mib > refused_ratio * there_mib:
            wanted, there = in_gib(wanted_mib), in_gib(there_mib)
            raise ConfigError(f"{what}: want about {wanted} free for {self._frames_text}, got {there}; {advice()}")

    @property
    def _frames_text(self) -> str:
        frames = f"{self.frames} frames" if self.frames > 1 else "frames"
        return f"{frames} of {self.size[1]}x{self.size[0]}"

    def _less_memory(self, there_mib: float) -> str:
        """The least that the generator would change to fit, else the largest size that fits, as advice."""
        if self.generator is not None:
            loop_mib = replace(self, generator=None).memory_mib
            plan = self.generator(self.size, self.planned_frames)
            change = plan.smallest_change(int((there_mib - loop_mib) * MIB))
            if change is not None:
                return f"set {change.setting}, which fits"
            if plan.changes:  # smaller sizes are among them
                return "no single setting is enough; take a smaller model or a machine with more"
        return self._smaller(there_mib, lambda needs: needs.memory_mib)

    @property
    def planned_frames(self) -> int:
        """Frames to plan for: with keys their number is unknown, and the path holds the photo alone."""
        return MANY_FRAMES if self.frames == 1 else self.frames

    def _smaller(self, there_mib: float, needed: Callable[[Needs], float]) -> str:
        """The largest size of the same shape that fits, as advice."""
        for share in (step / 100 for step in range(99, 0, -1)):
            height, width = (max(2 * STEP, STEP * math.floor(share * side / STEP)) for side in self.size)
            if needed(replace(self, size=(height, width))) <= WARNED_RATIO * there_mib:
                return f"set size=[{height},{width}], which fits"
        return "no size fits; free some first"


def needs_of(config: DictConfig, settings: Settings, generator: Generator, frames: int, scale: float) -> Needs:
    """The needs of a session.

    Args:
        config: its configuration.
        settings: the plain settings of ``config``.
        generator: of its chunks.
        frames: of the whole path.
        scale: resolution of the photo in the cache over the frame size; below 1 counts as 1.
    """
    return Needs(
        settings.size,
        frames,
        settings.chunk or generator.cadence.frames,
        max(scale, 1.0),
        generator=generator.plan if settings.device == "cpu" else None,
        recorded=config.viewer.mode != "none",
        per_view=generator.capabilities.per_view and config.video is None,
    )


def announce(lines: list[str], needs: Needs, generator: Generator, tell: Callable[[str], object]) -> None:
    """Tell the lines of a session's needs, then what the generator's license allows, and its memory by stage."""
    terms = [f"model    {generator.terms}"] if isinstance(generator, Licensed) else []
    plan = generator.plan(needs.size, needs.planned_frames)
    stages = [f"{stage.name} {in_words(stage.bytes)}" for stage in plan.stages]
    waiting = f"; {in_words(plan.waiting)} wait in main memory" if plan.waiting else ""
    memory = [f"memory   of the model, one after the other: {', '.join(stages)}{waiting}"] if len(stages) > 1 else []
    for line in (*lines, *terms, *memory):
        tell(line)


def check_gpu(settings: Settings, generator: Generator, frames: int) -> None:
    """Refuse a generator that does not fit into the free memory of the GPU, or of the machine where it waits there.

    Raises:
        ValueError: naming the stage, and the smallest change that would fit.
    """
    if settings.device == "cuda":
        plan = generator.plan(settings.size, frames)
        plan.check(torch.cuda.mem_get_info()[0], "GPU memory")
        free = int(available_memory_mib() * MIB)
        if plan.waiting > free:
            raise ConfigError(
                f"memory: want about {in_words(plan.waiting)} for what waits while other stages run on the GPU, got "
                f"{in_words(free)}; leave generator.offload out, or take a smaller model"
            )


def available_memory_mib() -> float:
    """Memory available to this process, what it uses included, MiB: of the machine or of its container."""
    own = psutil.Process().memory_info().rss
    available = [psutil.virtual_memory().available, *_cgroup_available(Path("/sys/fs/cgroup"), _cgroup_of_self())]
    return (min(available) + own) / MIB


def free_disk_mib(folder: Path) -> float:
    """Free space of the disk of ``folder``, which need not exist yet, MiB."""
    there = next(place for place in [folder.absolute(), *folder.absolute().parents] if place.exists())
    return shutil.disk_usage(there).free / MIB


def _cgroup_of_self() -> str:
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return ""
    return next((line.rpartition(":")[2] for line in lines if line.startswith("0::") or ":memory:" in line), "")


def _cgroup_available(root: Path, group: str) -> Iterator[float]:
    """Bytes left in each of the memory-limited control groups that hold this process (versions 1 and 2)."""
    for base, limit, used in (
        (root, "memory.max", "memory.current"),
        (root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        inner = base / group.lstrip("/")
        for folder in [inner, *inner.parents]:
            if not folder.is_relative_to(base):
                break
            try:
                most, now = (folder / limit).read_text().strip(), int((folder / used).read_text())
                stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            except (OSError, ValueError):
                continue
            if most.isdecimal():  # "max" is no limit
                # The page cache counts as used but can be reclaimed.
                yield max(0, int(most) - now + int(stat.get("inactive_file", 0)))


def in_gib(mib: float) -> str:
    """A size in words."""
    return f"{mib / 1024:.1f} GiB" if mib >= 1000 else f"{mib:.0f} MiB"
