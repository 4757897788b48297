"""Settings: defaults, groups, and the messages for invalid ones."""

from __future__ import annotations

import pytest
from hydra.core.global_hydra import GlobalHydra

from cache3d.integration.policy import IntegrationPolicy
from cache3d.rendering.policy import DiscPolicy, RenderingPolicy
from geometry.depth.policy import EdgeAlignPolicy
from worldwarp.config import ConfigError, build, compose_config, explore_settings, group_options

FRAMED = ["image=a.jpg", "size=[96,160]", "fov_deg=60"]


def test_defaults_are_a_complete_configuration() -> None:
    settings = explore_settings(compose_config("explore", FRAMED))
    assert settings.size == (96, 160)
    assert settings.path == "out_and_back"


def test_free_text_needs_no_quoting() -> None:
    words = [*FRAMED, "image=my photo (1), it's.jpg", "path=left:distance=0.2,orbit+forward"]
    settings = explore_settings(compose_config("explore", words))
    assert settings.image == "my photo (1), it's.jpg"
    assert settings.path == "left:distance=0.2,orbit+forward"


@pytest.mark.parametrize("group", sorted(group_options()))
def test_every_option_of_every_group_composes(group: str) -> None:
    for option in group_options()[group]:
        assert compose_config("explore", ["image=a.jpg", f"{group}={option}"])[group] is not None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["imag=a.jpg"], "did you mean `image`"),
        (["image=a.jpg", "cache=gausians"], "did you mean `gaussians`"),
        (["image=a.jpg", "depth=file", "depth.pth=x"], "did you mean `depth.path`"),
        (["image=a.jpg", "orbit"], "want key=value"),
        (["image=a.jpg", "size=[100,320]"], "multiples of 16"),
        (["image=a.jpg", "size=320"], "want height and width"),
        (["image=a.jpg", "frames=1"], "frames: want a whole number"),
        (["image=a.jpg", "fov_deg=200"], "fov_deg: want a number from 1 to 150"),
        (["image=a.jpg", "seed=-1"], "seed: want"),
        (["image=a.jpg", "device=tpu"], "device: want cpu or cuda"),
        (["image=a.jpg", "cache.refine_steps=-1"], "cache.refine_steps: want a whole number"),
        (["image=a.jpg", "cache.policy.superseded=2"], "did you mean `cache.policy.superseded_px`"),
        (["image=a.jpg", "cache.policy.depth_tolerance=nan"], "depth_tolerance: want a number of 0 or more, got 'nan'"),
        (["image=a.jpg", "cache.policy=none"], "cache.policy: want one of its settings, e.g. cache.policy.depth_tol"),
        (["image=a.jpg", "prior.exemplar=1"], "prior.exemplar: want one of its settings"),
        (["image=a.jpg", "prior.thin_px=true"], "prior.thin_px: want a whole number of 0 or more, got 'true'"),
        (["image=a.jpg", "prior.thin_px=1.5"], "prior.thin_px: want a whole number of 0 or more"),
        (["image=a.jpg", "prior.exemplar.passes=4,b"], "prior.exemplar.passes: want a whole number .* got 'b'"),
        (["image=a.jpg", "prior.exemplar.passes="], "prior.exemplar.passes: want"),
        (["image=a.jpg", "prior.exemplar.costs.depth=-1"], "prior.exemplar.costs.depth: want a number of 0 or more"),
        (["image=a.jpg", "generator.policy.bank=-1"], "generator.policy.bank: want a whole number of 0 or more"),
        (["image=a.jpg", "sampler.shift=inf"], "sampler.shift: want a number of 0 or more"),
        (["image=a.jpg", "depth.device=mars"], "no setting 'depth.device'; every part runs where the walk does"),
        ([], "image: want a photo"),
    ],
)
def test_a_wrong_setting_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        explore_settings(compose_config("explore", [*FRAMED[1:], *words]))


@pytest.mark.parametrize("cache", ["gaussians", "points"])
def test_policy_fields_reach_the_cache(cache: str) -> None:
    words = ["image=a.jpg", f"cache={cache}"]
    assert build(compose_config("explore", words), "cache")._policy == IntegrationPolicy()
    changed = compose_config("explore", [*words, "cache.policy.superseded_px=2.5"])
    assert build(changed, "cache")._policy == IntegrationPolicy(superseded_px=2.5)


@pytest.mark.parametrize("cache", ["gaussians", "points"])
def test_rendering_fields_reach_the_cache(cache: str) -> None:
    words = ["image=a.jpg", f"cache={cache}"]
    assert build(compose_config("explore", words), "cache")._rendering == RenderingPolicy()
    changed = compose_config("explore", [*words, "cache.rendering.mixed_sky=2.5", "cache.rendering.discs.unfit=0.02"])
    assert build(changed, "cache")._rendering == RenderingPolicy(mixed_sky=2.5, discs=DiscPolicy(unfit=0.02))


def test_the_policy_files_list_every_field() -> None:
    config = compose_config("explore", ["image=a.jpg"])
    for listed, policy in (
        (config.cache.policy, IntegrationPolicy()),
        (config.cache.rendering, RenderingPolicy()),
        (config.depth.edges, EdgeAlignPolicy()),
    ):
        values = {key: listed[key] for key in listed if key not in ("_target_", "discs")}
        assert values == {key: value for key, value in vars(policy).items() if key != "discs"}
    discs = config.cache.rendering.discs
    assert {key: discs[key] for key in discs if key != "_target_"} == DiscPolicy()._asdict()


def test_the_hydra_state_of_a_caller_is_restored() -> None:
    before = GlobalHydra.instance().is_initialized()
    compose_config("explore", ["image=a.jpg"])
    assert GlobalHydra.instance().is_initialized() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["generator._target_=nowhere.Nothing"], r"generator: want an importable class, got nowhere.Nothing \(.*\);"),
        (
            ["generator._target_=diffusion.passthrough.PassthroughGenerator", "generator.foo=1"],
            "unexpected keyword.*'foo'",
        ),
    ],
)
def test_a_foreign_class_that_cannot_be_built_is_refused_in_one_line(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refusal:
        build(compose_config("explore", ["image=a.jpg", *words]), "generator")
    assert "\n" not in str(refusal.value)
