"""The memory and disk that a walk will take, from its settings alone, against what this machine has."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from scenes.photos.framing import STEP
from worldwarp.config import ConfigError

MIB = 2**20

# Peaks were measured with getrusage on x86-64 Linux with torch 2.13 (`docs/results.md`, Memory and disk of a walk).
BASE_MIB = 900.0  # libraries, compiled kernels, weights
BYTES_PER_PIXEL = 1000.0  # of one frame, whatever the chunk
BYTES_PER_PRIMITIVE = 400.0  # in the cache, with its growth and the copies that are drawn and stored
BYTES_PER_CHUNK_PIXEL = 830.0  # of all frames of a chunk: guide, prior, the network's activations
REMEMBERED_BYTES = 48.0 * 2.5  # per pixel of a remembered frame: keys and values, and the copies made to extend them
REMEMBERED_FRAMES = 24  # at most, half the frames of a walk
DEPTH_MIB = 1400.0  # least peak, that of the depth network

PHOTO_BYTES = 25.0  # compressed, per primitive of the photo
MARGIN = 1.5  # primitives around the photo, per pixel of a frame
FRAME_BYTES = 8.5  # compressed, per pixel of a stored frame: primitives, exact depth, images
RECORDED_PRIMITIVE_BYTES = 44.0
RECORDED_FRAME_BYTES = 7.0  # per pixel

TOO_MUCH = 1.2  # an estimate may be off by so much
CLOSE = 0.8


@dataclass(frozen=True)
class Needs:
    """What a walk will take.

    Attributes:
        size: frame size ``(H, W)``.
        frames: frames of the walk, the photo included.
        chunk: frames made together.
        scale: how many times finer than a frame the photo enters the cache.
        remembers: whether the generator keeps frames in memory.
        recorded: whether the walk is recorded for the viewer.
        done: frames that are stored already.
    """

    size: tuple[int, int]
    frames: int
    chunk: int
    scale: float
    remembers: bool = True
    recorded: bool = True
    done: int = 0

    @property
    def memory_mib(self) -> float:
        """Peak memory of the process, MiB."""
        pixels = self.size[0] * self.size[1]
        per_chunk, remembered = min(self.chunk, self.frames - 1), min(REMEMBERED_FRAMES, 1 + self.frames // 2)
        if self.frames == 1:  # keys ask for more, no one knows how many
            per_chunk, remembered = self.chunk, REMEMBERED_FRAMES
        bytes_per_pixel = (
            BYTES_PER_PIXEL
            + BYTES_PER_PRIMITIVE * (self.scale**2 + MARGIN)
            + BYTES_PER_CHUNK_PIXEL * per_chunk
            + REMEMBERED_BYTES * remembered * self.remembers
        )
        return max(DEPTH_MIB, BASE_MIB + bytes_per_pixel * pixels / MIB)

    @property
    def disk_mib(self) -> float:
        """What the world's folder will grow by, without exports, MiB."""
        fixed = self._fixed_disk if self.done == 0 else 0.0
        return (fixed + (self.frames - self.done) * self._disk_per_frame) / MIB

    def lines(self, out: Path | None) -> list[str]:
        """What is needed and what there is, in a line, and a warning where it is close.

        Args:
            out: where the world will be stored; None when nothing is.

        Raises:
            ConfigError: more than there is, with the size or the number of frames that would fit.
        """
        memory = available_memory_mib()
        self._refuse("memory", self.memory_mib, memory, self._smaller(memory, lambda needs: needs.memory_mib))
        parts = [f"memory about {_gib(self.memory_mib)} of {_gib(memory)}"]
        close = self.memory_mib > CLOSE * memory
        if out is not None:
            disk = free_disk_mib(out)
            spare = CLOSE * disk - replace(self, frames=self.done).disk_mib
            more = int(spare * MIB / self._disk_per_frame)
            smaller = self._smaller(disk, lambda needs: needs.disk_mib)
            way_out = f"set frames={self.done + more}, which fits" if more > 1 else smaller
            self._refuse(f"disk in {out}", self.disk_mib, disk, way_out)
            parts.append(f"disk about {_gib(self.disk_mib)} of {_gib(disk)}")
            close |= self.disk_mib > CLOSE * disk
        lines = [f"needs    {self._walk}: {', '.join(parts)} free"]
        if close:
            lines.append("warning  that is close; a smaller size= or fewer frames= would leave room")
        return lines

    @property
    def _fixed_disk(self) -> float:
        primitives = (self.scale**2 + MARGIN) * self.size[0] * self.size[1]
        return primitives * (PHOTO_BYTES + self.recorded * RECORDED_PRIMITIVE_BYTES)

    @property
    def _disk_per_frame(self) -> float:
        return self.size[0] * self.size[1] * (FRAME_BYTES + self.recorded * RECORDED_FRAME_BYTES)

    def _refuse(self, what: str, wanted_mib: float, there_mib: float, way_out: str) -> None:
        if wanted_mib > TOO_MUCH * there_mib:
            raise ConfigError(
                f"{what}: want about {_gib(wanted_mib)} free for {self._walk}, got {_gib(there_mib)}; {way_out}"
            )

    @property
    def _walk(self) -> str:
        frames = f"{self.frames} frames" if self.frames > 1 else "frames"
        return f"{frames} of {self.size[1]}x{self.size[0]}"

    def _smaller(self, there_mib: float, needed: Callable[[Needs], float]) -> str:
        """The largest size of the same shape that fits, as advice."""
        for share in (step / 100 for step in range(99, 0, -1)):
            height, width = (max(2 * STEP, STEP * math.floor(share * side / STEP)) for side in self.size)
            if needed(replace(self, size=(height, width))) <= CLOSE * there_mib:
                return f"set size=[{height},{width}], which fits"
        return "no size fits; free some first"


def available_memory_mib() -> float:
    """Memory that this process may have in all, its own included, MiB: of the machine, or of the container it is in."""
    own = psutil.Process().memory_info().rss
    rooms = [psutil.virtual_memory().available, *_cgroup_room(Path("/sys/fs/cgroup"), _cgroup_of_self())]
    return (min(rooms) + own) / MIB


def free_disk_mib(folder: Path) -> float:
    """Free space where ``folder`` is or will be, MiB."""
    there = next(place for place in [folder.absolute(), *folder.absolute().parents] if place.exists())
    return shutil.disk_usage(there).free / MIB


def _cgroup_of_self() -> str:
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return ""
    return next((line.rpartition(":")[2] for line in lines if line.startswith("0::") or ":memory:" in line), "")


def _cgroup_room(root: Path, group: str) -> Iterator[float]:
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
            if most.isdecimal():  # and not "max"
                # The page cache counts as used but gives way.
                yield max(0, int(most) - now + int(stat.get("inactive_file", 0)))


def _gib(mib: float) -> str:
    return f"{mib / 1024:.1f} GiB" if mib >= 1000 else f"{mib:.0f} MiB"
