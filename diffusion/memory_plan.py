"""What a generator will need in memory, stage by stage, told before anything is loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

GIB = 2**30


@dataclass(frozen=True)
class Stage:
    """One stage of the work, and what is in memory at its peak.

    Attributes:
        name: of the stage, such as ``decode``.
        parts: bytes by what they hold.
    """

    name: str
    parts: Mapping[str, int]

    @property
    def bytes(self) -> int:
        """All parts together."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class Change:
    """A setting that lowers the peak.

    Attributes:
        setting: what to set, as a user writes it.
        plan: the plan with it; computed only when it is asked for.
    """

    setting: str
    plan: Callable[[], MemoryPlan]


@dataclass(frozen=True)
class MemoryPlan:
    """Stages that follow each other, so that the largest one decides.

    Attributes:
        stages: in the order of the work.
        changes: what would lower the peak, the one that costs least first.
        waiting: most bytes that wait in main memory while the stages run on a GPU.
    """

    stages: tuple[Stage, ...]
    changes: tuple[Change, ...] = field(default=(), compare=False)
    waiting: int = 0

    @property
    def largest(self) -> Stage:
        """The stage that needs most."""
        return max(self.stages, key=lambda stage: stage.bytes)

    @property
    def peak(self) -> int:
        """Bytes of the largest stage."""
        return self.largest.bytes

    def lines(self) -> Iterator[str]:
        """A line for each stage: its bytes, then its parts, largest first."""
        width = max(len(stage.name) for stage in self.stages)
        for stage in self.stages:
            parts = sorted(stage.parts.items(), key=lambda part: -part[1])
            told = ", ".join(f"{what} {in_words(size)}" for what, size in parts if size > 0)
            yield f"{stage.name:<{width}}  {in_words(stage.bytes)}: {told}"

    def smallest_change(self, limit_bytes: int) -> Change | None:
        """The first change with which the peak is within ``limit_bytes``; None if no single one is enough."""
        return next((change for change in self.changes if change.plan().peak <= limit_bytes), None)

    def check(self, limit_bytes: int, where: str = "memory") -> None:
        """Refuse work that would not fit.

        Args:
            limit_bytes: what is there.
            where: the kind of memory, for the message.

        Raises:
            ValueError: the peak is above the limit; the message has the stage, and the smallest change that would fit.
        """
        if self.peak <= limit_bytes:
            return
        change = self.smallest_change(limit_bytes)
        if change is not None:
            advice = f"set {change.setting}, which takes {in_words(change.plan().peak)}"
        else:
            advice = "no single setting is enough; take a smaller model or a machine with more"
        raise ValueError(
            f"{where}: want about {in_words(self.peak)} ({self.largest.name}), got {in_words(limit_bytes)}; {advice}"
        )


def in_words(size: int) -> str:
    """Bytes as GiB or MiB."""
    return f"{size / GIB:.1f} GiB" if size >= 1000 * 2**20 else f"{size / 2**20:.0f} MiB"
