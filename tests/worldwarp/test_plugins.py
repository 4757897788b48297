"""Replacing components: objects from Python, classes of other packages from the command line, and what is refused."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cache3d.point_cache import PointCache
from geometry.depth import PlaneDepth
from geometry.rounding import rounded_depth
from worldwarp import World, explore
from worldwarp.cli import main
from worldwarp.config import ConfigError, build, compose_config
from worldwarp.plugins import (
    Cadence,
    Capabilities,
    Chunk,
    ChunkEvent,
    Condition,
    Made,
    MemoryPlan,
    NullRecorder,
    PassthroughGenerator,
    Stage,
)

SETTINGS = {"size": (48, 64), "frames": 5, "chunk": 2, "detail": 1, "viewer": "none"}


class RedGenerator(PassthroughGenerator):
    """Fills holes of the guide with red."""

    def __init__(self, strength: float = 1.0) -> None:
        self.strength = strength

    def make(self, condition: Condition, sigma: torch.Tensor, memory: Any, rng: torch.Generator) -> Made:
        made = super().make(condition, sigma, memory, rng)
        red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
        share = self.strength * condition.guide.hole
        return replace(made, rgb=(1.0 - share) * made.rgb + share * red)


class FlatGenerator:
    """Makes colors alone: those of the photo, darker with every chunk, which only its own memory counts."""

    cadence = Cadence(frames=3, size_multiple=16)
    capabilities = Capabilities(depth=False, wide=False)

    def start(self, seed: Chunk) -> torch.Tensor:
        return seed.frames.rgb[0].mean((1, 2))

    def make(self, condition: Condition, sigma: torch.Tensor, memory: torch.Tensor, rng: torch.Generator) -> Made:
        shade = 0.9 * memory + 0.01 * torch.rand(3, generator=rng)
        rgb = torch.where(sigma > 0.0, shade[None, :, None, None], condition.guide.rgb)
        return Made(rgb, None, None, {"shade": shade})

    def remember(self, chunk: Chunk, made: Made, memory: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        return made.carried["shade"]

    def rebuild(self, chunks: Iterable[tuple[Chunk, dict[str, torch.Tensor]]]) -> torch.Tensor:
        stored = list(chunks)
        return stored[-1][1]["shade"] if len(stored) > 1 else self.start(stored[0][0])

    def rehearse(self, frames: int, size: tuple[int, int]) -> None:
        """Nothing to warm up."""

    def plan(self, size: tuple[int, int], frames: int) -> MemoryPlan:  # noqa: ARG002
        return MemoryPlan((Stage("make", {"shades": 12}),))


class ToldGenerator(FlatGenerator):
    """As red as the prompt of the chunk is long."""

    def __init__(self, prompt: Mapping[str, str] | str | None = None) -> None:
        given = prompt if isinstance(prompt, Mapping) else {"0": prompt or ""}
        self.prompts = {int(chunk): text for chunk, text in given.items()}
        self.made = 0

    def prompted(self, text: str, from_chunk: int) -> ToldGenerator:
        kept = {str(chunk): old for chunk, old in self.prompts.items() if chunk < from_chunk}
        changed = ToldGenerator({**kept, str(from_chunk): text})
        changed.made = self.made
        return changed

    def make(self, condition: Condition, sigma: torch.Tensor, memory: torch.Tensor, rng: torch.Generator) -> Made:
        made = super().make(condition, sigma, memory, rng)
        self.made += 1
        red = len(self.prompts[max(chunk for chunk in self.prompts if chunk <= self.made)]) / 100.0
        return replace(made, rgb=torch.full_like(made.rgb, red))

    def rebuild(self, chunks: Iterable[tuple[Chunk, dict[str, torch.Tensor]]]) -> torch.Tensor:
        stored = list(chunks)
        self.made = len(stored) - 1
        return super().rebuild(stored)


class CountingRecorder(NullRecorder):
    """Collects the indices of recorded chunks."""

    def __init__(self) -> None:
        self.chunks: list[int] = []

    def chunk(self, event: ChunkEvent) -> None:
        self.chunks.append(event.index)


def test_components_may_be_objects(photo: Path) -> None:
    recorder, cache = CountingRecorder(), PointCache()
    steps = list(
        explore(
            image=photo, path="left:distance=0.5", generator=RedGenerator(), cache=cache, depth=PlaneDepth(),
            recorder=recorder, **SETTINGS,
        )
    )  # fmt: skip
    assert [step.chunk.index for step in steps] == recorder.chunks == [1, 2]
    assert steps[-1].state.view.cache is cache
    hole = (steps[0].guide.coverage < 0.5).expand(-1, 3, -1, -1)
    red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1).expand_as(steps[0].chunk.frames.rgb)
    assert hole.any()
    assert torch.equal(steps[0].chunk.frames.rgb[hole], red[hole])


def test_a_world_made_with_an_object_continues_with_it_to_the_same_bits(photo: Path, tmp_path: Path) -> None:
    settings = {**SETTINGS, "generator": RedGenerator(), "depth": "plane"}
    whole = list(explore(image=photo, path="left:distance=0.5", out=tmp_path / "whole", **settings))
    interrupted = explore(image=photo, path="left:distance=0.5", out=tmp_path / "parts", **settings)
    next(interrupted)
    del interrupted  # an iterator that is closed early leaves a world that resumes
    rest = list(explore(resume=tmp_path / "parts", generator=RedGenerator(), viewer="none"))
    assert torch.equal(rest[-1].chunk.frames.rgb, whole[-1].chunk.frames.rgb)
    assert World.load(tmp_path / "parts").record.config["generator"]["_target_"].endswith("RedGenerator")


def test_a_generator_without_depth_sets_the_chunks_and_rebuilds_its_memory_from_what_it_stored(
    photo: Path, tmp_path: Path
) -> None:
    settings = {**SETTINGS, "chunk": None, "frames": 7, "generator": FlatGenerator(), "depth": "plane"}
    whole = list(explore(image=photo, path="left:distance=0.5", out=tmp_path / "whole", **settings))
    assert [len(step.chunk.frames) for step in whole] == [3, 3]
    frames, guide = whole[0].chunk.frames, whole[0].guide
    sure = (whole[0].sigma == 0.0) & guide.covered
    assert torch.equal(frames.depth[sure], rounded_depth(guide.depth[sure]))  # what was sure keeps the cache's surface
    assert frames.depth.min() > 0.0
    next(explore(image=photo, path="left:distance=0.5", out=tmp_path / "parts", **settings))
    rest = list(explore(resume=tmp_path / "parts", generator=FlatGenerator(), viewer="none"))
    assert torch.equal(rest[-1].chunk.frames.rgb, whole[-1].chunk.frames.rgb)
    assert torch.equal(rest[-1].chunk.frames.depth, whole[-1].chunk.frames.depth)
    stored = World.load(tmp_path / "parts").record.carried(2)
    assert torch.equal(stored["shade"], whole[-1].carried["shade"])


def test_prompts_are_stored_by_chunk_and_change_on_resume_and_by_keys(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = tmp_path / "world"
    words = ["generator._target_=tests.worldwarp.test_plugins.ToldGenerator"]
    words += ["size=48,64", "detail=1", "depth=plane", "viewer=none", "path=keys", f"out={world}"]
    text = "p" + 40 * "A" + "\x08" + "\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"w{text}dx"))
    assert main(["explore", f"image={photo}", "prompt=a dog", *words]) == 0
    assert World.load(world).record.config["prompt"] == {"0": "a dog", "2": 39 * "A"}
    monkeypatch.setattr(sys, "stdin", io.StringIO("ax"))
    assert main(["explore", f"resume={world}", "prompt=twenty letters or so", "viewer=none"]) == 0
    record = World.load(world).record
    assert record.config["prompt"] == {"0": "a dog", "2": 39 * "A", "3": "twenty letters or so"}
    reds = [round(100.0 * record.chunk(index).frames.rgb[0, 0, 0, 0].item()) for index in (1, 2, 3)]
    assert reds == [5, 39, 20]


def test_a_size_that_the_generator_cannot_take_is_refused_with_the_nearest(photo: Path) -> None:
    generator = FlatGenerator()
    generator.cadence = Cadence(size_multiple=32)
    with pytest.raises(ConfigError, match=r"size: this generator wants multiples of 32, got 48x64; try size=64x64"):
        explore(image=photo, generator=generator, **SETTINGS)


def test_an_object_without_the_methods_of_its_protocol_is_refused(photo: Path) -> None:
    with pytest.raises(ValueError, match=r"generator: want .*plugins\.Generator, got PlaneDepth without .*make"):
        explore(image=photo, generator=PlaneDepth(), **SETTINGS)


def test_a_class_of_another_package_takes_its_own_settings() -> None:
    words = ["image=a.jpg", "generator._target_=collections.Counter", "generator.apples=3"]
    assert build(compose_config("explore", words), "generator") == {"apples": 3}
    with pytest.raises(ConfigError, match=r"generator: want an importable class, got no_such_package\.Thing"):
        build(compose_config("explore", ["image=a.jpg", "generator._target_=no_such_package.Thing"]), "generator")


def test_a_class_that_is_no_generator_is_refused(photo: Path) -> None:
    with pytest.raises(ConfigError, match=r"generator: want .*plugins\.Generator, got Counter without "):
        explore(image=photo, overrides=["generator._target_=collections.Counter"], **SETTINGS)
