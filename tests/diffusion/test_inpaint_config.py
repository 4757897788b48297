"""The configuration of the inpainting prior: the YAML file says what the code's defaults say."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from diffusion.inpainting.config import InpaintConfig
from diffusion.sampler import SamplerConfig
from worldwarp.config import ConfigError, build, compose_config


def _values(config: InpaintConfig) -> dict[str, object]:
    values = asdict(config)
    values["exemplar"]["passes"] = tuple(values["exemplar"]["passes"])
    return values


def test_the_yaml_defaults_are_those_of_the_code() -> None:
    composed = compose_config("explore", ["image=a.jpg"])
    assert _values(build(composed, "prior")) == _values(InpaintConfig())
    assert build(composed, "sampler") == SamplerConfig()


def test_every_number_can_be_set() -> None:
    words = ["prior.exemplar.costs.veto=20.0", "prior.exemplar.passes=[2,1]", "prior.look_ahead.chunks=1", "steps=4"]
    composed = compose_config("explore", ["image=a.jpg", *words, "sampler.lag=1.0"])
    prior = build(composed, "prior")
    assert prior.exemplar.costs.veto == 20.0
    assert tuple(prior.exemplar.passes) == (2, 1)
    assert prior.look_ahead.chunks == 1
    assert build(composed, "sampler") == SamplerConfig(steps=4, lag=1.0)
    with pytest.raises(ConfigError, match=r"prior\.thin_px"):
        compose_config("explore", ["image=a.jpg", "prior.thinpx=4"])
