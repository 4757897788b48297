"""Configurations with former names: stored worlds open, former options work with a warning."""

from __future__ import annotations

import importlib
import logging
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from cache3d.gaussian_cache import GaussianCache
from geometry.camera import Camera
from scenes.store import world_store
from worldwarp import World
from worldwarp.config import compose_config
from worldwarp.stored_config import RENAMED_TARGETS, current_config


def test_every_renamed_target_exists() -> None:
    for target in RENAMED_TARGETS.values():
        module, _, name = target.rpartition(".")
        assert isinstance(getattr(importlib.import_module(module), name), type)


def test_targets_are_replaced_at_any_depth_and_nothing_else() -> None:
    stored = {
        "seed": 0,
        "image": "cache3d.points.PointCache",
        "cache": {"_target_": "cache3d.points.PointCache", "resident_mib": 9},
        "group": {"part": {"_target_": "diffusion.noise.NoiseConfig"}},
        "depth": {"_target_": "somewhere.else.Depth"},
    }
    before = repr(stored)
    current = current_config(stored)
    assert current["cache"] == {"_target_": "cache3d.point_cache.PointCache", "resident_mib": 9}
    assert current["group"]["part"]["_target_"] == "diffusion.noise_map.NoiseConfig"
    assert (current["image"], current["depth"]) == (stored["image"], stored["depth"])
    assert repr(stored) == before


def test_numbers_of_the_former_extension_of_the_sky_are_dropped() -> None:
    sky = {"_target_": "diffusion.inpainting.config.SkyConfig", "border_px": 8, "mixed_px": 2, "sideways": 16}
    stored = {"prior": {"thin_px": 5, "sky": sky}}
    assert current_config(stored) == {"prior": {"thin_px": 5, "sky": {"_target_": sky["_target_"]}}}
    composed = compose_config("explore", ["image=a.jpg"])
    present = OmegaConf.to_container(composed)
    assert isinstance(present, dict)
    assert current_config({str(key): part for key, part in present.items()})["prior"]["sky"] == composed.prior.sky


def test_a_world_stored_under_old_names_opens(tmp_path: Path) -> None:
    config = {"cache": {"_target_": "cache3d.gaussians.GaussianCache", "device": "${device}", "refine_steps": 6}}
    camera = Camera.from_fov(60.0, (32, 48), torch.eye(4)[None])
    world_store.WorldStore.create(tmp_path / "w", path=camera, seed=0, config=config, metric=False)
    assert isinstance(World.load(tmp_path / "w").cache, GaussianCache)


def test_the_old_generator_option_works_and_warns_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        config = compose_config("explore", ["image=a.jpg", "generator=embedded", "generator.weights=w.safetensors"])
    assert config.generator._target_.endswith("RetouchGenerator")
    assert caplog.messages == ["generator=embedded is called generator=retouch now"]
