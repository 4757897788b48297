"""Settings: defaults, groups, and the messages for invalid ones."""

from __future__ import annotations

import inspect
from pkgutil import resolve_name

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import get_object
from omegaconf import OmegaConf

from cache3d.integration.policy import IntegrationPolicy
from cache3d.rendering.policy import DiscPolicy, RenderingPolicy
from geometry.depth.policy import EdgeAlignPolicy
from scenes.dataset.plans import PLANS
from scenes.dataset.posed_video import import_video
from scenes.dataset.render import render_data
from scenes.formats.export import FORMATS
from scenes.io.video import FPS
from worldwarp.commands.train import TRAIN_FUNCTIONS
from worldwarp.config import ConfigError, build, checked_size, compose_config, explore_settings, group_options
from worldwarp.pages import TRAININGS

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
        (["image=a.jpg", "generator=wan", "sampler.shift=2"], "sampler.shift: only generator=retouch takes it"),
        (["image=a.jpg", "sampler.shift=inf"], "sampler.shift: want a number of 0 or more"),
        (["image=a.jpg", "depth.device=mars"], "no setting 'depth.device'; every part runs where the session does"),
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


def test_viewer_is_short_for_viewer_mode_and_is_stored_as_before() -> None:
    words = ["image=a.jpg", "viewer=web", "viewer.port=9000"]
    assert compose_config("explore", words).viewer == {"mode": "web", "url": None, "port": 9000, "open": None}
    assert compose_config("explore", ["image=a.jpg", "viewer.mode=file"]).viewer.mode == "file"
    assert compose_config("explore", ["image=a.jpg"]).viewer.mode == "auto"


@pytest.mark.parametrize("stage", TRAININGS)
def test_the_settings_of_a_training_are_the_arguments_of_its_function(stage: str) -> None:
    assert set(TRAIN_FUNCTIONS) == set(TRAININGS)
    config = compose_config(f"train/{stage}", [])
    assert config.out == f"runs/{stage}"
    arguments = inspect.signature(resolve_name(TRAIN_FUNCTIONS[stage])).parameters
    assert set(config) == set(arguments)
    for key, argument in arguments.items():
        assert argument.default in (inspect.Parameter.empty, config[key]), key


def test_the_defaults_of_render_data_are_those_of_the_code() -> None:
    config = compose_config("render_data", [])
    parameters = inspect.signature(render_data).parameters
    for key in ("seed", "worker", "workers", "plan", "frames"):
        assert config[key] == parameters[key].default
    assert checked_size(config.size) == parameters["size"].default
    assert compose_config("render_data", ["plan=towns", "clips=3"]).plan in PLANS


def test_the_settings_of_import_video_are_the_arguments_of_its_function() -> None:
    config = compose_config("import_video", [])
    arguments = inspect.signature(import_video).parameters
    assert set(config) - {"device"} == set(arguments)
    for key in ("name", "frames", "every", "apart", "convention", "fov_deg", "license"):
        assert config[key] == arguments[key].default
    assert checked_size(config.size) == arguments["size"].default
    assert config.depth == compose_config("explore", ["image=a.jpg"]).depth
    assert compose_config("import_video", ["name=007"]).name == "007"


def test_the_defaults_of_export_are_formats_that_exist() -> None:
    with_extras = {"spz", "compressed_ply", "usd", "usdz"}  # these need a package more
    assert set(compose_config("export", []).formats) | with_extras == set(FORMATS)
    for words in (["formats=glb,mp4"], ["formats=[glb, mp4]"]):
        assert compose_config("export", words).formats == ["glb", "mp4"]


def test_lists_and_files_of_every_command_are_read_as_those_of_explore() -> None:
    forget = compose_config("forget", ["chunks=3,4", "region=-1,-1,0.5,1,1,2"])
    assert (forget.chunks, forget.region) == (["3", "4"], ["-1", "-1", "0.5", "1", "1", "2"])
    assert compose_config("train/depth", ["data=a ${x} (1)=b", "start=null"]).data == "a ${x} (1)=b"
    assert compose_config("train/generator", ["minutes=.5"]).minutes == 0.5


OPTIONS = [(group, option) for group, options in group_options().items() for option in options]
PRESETS = {
    "regions",
    "binary",
    "spatial",
    "temporal",
    "uniform",
    "smooth",
    "none",
    "complete",
}  # options that only change other values


@pytest.mark.parametrize(("group", "option"), [pair for pair in OPTIONS if pair[1] not in PRESETS])
def test_the_defaults_of_a_component_are_those_of_its_class(group: str, option: str) -> None:
    config = compose_config("explore", ["image=a.jpg", f"{group}={option}"])
    part = config[group]
    parameters = inspect.signature(get_object(part["_target_"])).parameters
    for key in part:
        default = parameters[key].default if key in parameters else None
        if key == "_target_" or OmegaConf.is_missing(part, key) or not isinstance(default, int | float | str):
            continue
        if part[key] is not None:  # null: the generator decides
            assert part[key] == default, f"{group}={option}: {key}"


def test_videos_have_one_default_frame_rate() -> None:
    assert compose_config("explore", ["image=a.jpg"]).fps == FPS


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
