"""Replacing components: objects from Python, classes of other packages from the command line, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from cache3d.point_cache import PointCache
from geometry.depth import PlaneDepth
from worldwarp import World, explore
from worldwarp.config import ConfigError, build, compose_config
from worldwarp.plugins import ChunkEvent, Condition, KVMemory, NullRecorder, PassthroughGenerator

SETTINGS = {"size": (48, 64), "frames": 5, "chunk": 2, "detail": 1, "viewer": "none"}


class RedGenerator(PassthroughGenerator):
    """Fills holes of the guide with red."""

    def __init__(self, strength: float = 1.0) -> None:
        self.strength = strength

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, condition: Condition, memory: KVMemory) -> torch.Tensor:
        clean = super().denoise(x, sigma, condition, memory).clone()
        red = torch.tensor([1.0, -1.0, -1.0]).view(1, 3, 1, 1)
        clean[:, :3] += self.strength * (condition.guide.coverage < 0.5) * (red - clean[:, :3])
        return clean


class CountingRecorder(NullRecorder):
    """Collects the indices of recorded chunks."""

    def __init__(self) -> None:
        self.chunks: list[int] = []

    def chunk(self, event: ChunkEvent) -> None:
        self.chunks.append(event.index)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.linear_gradient("L").convert("RGB").resize((128, 96)).save(path)
    return path


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


def test_an_object_without_the_methods_of_its_protocol_is_refused(photo: Path) -> None:
    with pytest.raises(ValueError, match=r"generator: want .*plugins\.Generator, got PlaneDepth without .*denoise"):
        explore(image=photo, generator=PlaneDepth(), **SETTINGS)


def test_a_class_of_another_package_takes_its_own_settings() -> None:
    words = ["image=a.jpg", "generator._target_=collections.Counter", "generator.apples=3"]
    assert build(compose_config("explore", words), "generator") == {"apples": 3}
    with pytest.raises(ConfigError, match=r"generator: want an importable class, got no_such_package\.Thing"):
        build(compose_config("explore", ["image=a.jpg", "generator._target_=no_such_package.Thing"]), "generator")


def test_a_class_that_is_no_generator_is_refused(photo: Path) -> None:
    with pytest.raises(ConfigError, match=r"generator: want .*plugins\.Generator, got Counter without "):
        explore(image=photo, overrides=["generator._target_=collections.Counter"], **SETTINGS)
