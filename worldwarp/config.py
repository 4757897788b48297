"""Configuration: Hydra groups in `worldwarp/conf`, composed without touching a caller's own Hydra."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import torch
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.singleton import Singleton
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from scenes.framing import STEP

FREE_TEXT = ("image", "path", "out", "resume", "depth.path", "depth.checkpoint", "generator.weights", "depth.weights")

ONWARD = ("path", "frames", "convention", "path_scale")  # what may change when a world goes on

AUTO = "auto"  # the path_scale that fits a path to the photo


class ConfigError(ValueError):
    """A setting that cannot be used; the message says what was wanted and what to do."""


@dataclass(frozen=True)
class Settings:
    """The checked plain settings of `worldwarp explore` (its groups stay in the composed config)."""

    image: str | None
    path: str
    convention: str | None
    path_scale: float | str | None
    frames: int | None
    size: tuple[int, int]
    fov_deg: float
    seed: int
    chunk: int
    steps: int
    detail: float
    fps: float
    device: str
    out: str | None
    resume: str | None


def compose_config(name: str, overrides: Sequence[str]) -> DictConfig:
    """Compose ``conf/<name>.yaml`` with command-line overrides.

    Args:
        name: a primary config (`explore`, `train`, ...).
        overrides: `key=value` strings in Hydra's grammar; free-text values (paths, expressions) need no quoting.

    Raises:
        ConfigError: for an unknown key, group option or unreadable value, with the nearest valid name.
    """
    quoted = [_quote_free_text(text) for text in overrides]
    groups = group_options()
    chosen = [text for text in quoted if _key(text) in groups]
    for text in quoted:
        if "=" not in text:
            raise ConfigError(f"'{text}': want key=value")
    for text in chosen:
        _check_option(_key(text), text.partition("=")[2], groups)
    known = [*_flat_keys(_compose(name, chosen)), *groups]
    for text in quoted:
        if _key(text) not in known:
            raise ConfigError(f"unknown setting '{_key(text)}'; {nearest(_key(text), known)}")
    return _compose(name, quoted)


def explore_settings(config: DictConfig) -> Settings:
    """Check the plain settings of `worldwarp explore`.

    Raises:
        ConfigError: naming the setting, what was wanted and what was got.
    """
    values: dict[str, Any] = {key: config.get(key) for key in Settings.__dataclass_fields__}
    if values["image"] is None and values["resume"] is None:
        raise ConfigError("image: want a photo, e.g. `worldwarp explore image=photo.jpg path=orbit`")
    values["size"] = checked_size(values["size"])
    _check_number(values, "fov_deg", 1.0, 150.0)
    _check_number(values, "detail", 1.0, 4.0)
    _check_number(values, "fps", 1.0, 120.0)
    if values["path_scale"] not in (None, AUTO):
        _check_path_scale(values)
    _check_whole(values, "seed", 0, 2**31 - 1)
    _check_whole(values, "chunk", 1, 64)
    _check_whole(values, "steps", 1, 64)
    if values["frames"] is not None:
        _check_whole(values, "frames", 2, 1_000_000)
    if "refine_steps" in config.cache:
        _check_whole({"cache.refine_steps": config.cache.refine_steps}, "cache.refine_steps", 0, 1000)
    if values["device"] not in ("cpu", "cuda"):
        raise ConfigError(f"device: want cpu or cuda, got '{values['device']}'")
    if values["device"] == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: want a CUDA GPU for device=cuda, found none; leave it out to run on the CPU")
    return Settings(**values)


def checked_size(size: object) -> tuple[int, int]:
    """A frame size ``(H, W)``.

    Raises:
        ConfigError: for anything that is none.
    """
    pair = list(size) if isinstance(size, list | tuple | ListConfig) else []
    if len(pair) != 2 or any(not isinstance(side, int) or side < 32 or side % STEP for side in pair):
        raise ConfigError(f"size: want [H,W], multiples of {STEP} from {2 * STEP}, got {size}")
    return pair[0], pair[1]


def nearest(name: str, valid: Iterable[str]) -> str:
    """A phrase that points from a mistyped ``name`` to what exists."""
    valid = sorted(set(valid))
    close = difflib.get_close_matches(name, valid, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(f'`{c}`' for c in close)}?" if close else f"valid are: {', '.join(valid)}"


def _check_number(values: dict[str, Any], key: str, low: float, high: float) -> None:
    value = values[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ConfigError(f"{key}: want a number from {low:g} to {high:g}, got {value!r}")
    values[key] = float(value)


def _check_path_scale(values: dict[str, Any]) -> None:
    value = values["path_scale"]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 < value < float("inf"):
        raise ConfigError(f"path_scale: want a positive number or {AUTO}, got {value!r}")
    values["path_scale"] = float(value)


def _check_whole(values: dict[str, Any], key: str, low: int, high: int) -> None:
    value = values[key]
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ConfigError(f"{key}: want a whole number from {low} to {high}, got {value!r}")


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _quote_free_text(override: str) -> str:
    """Quote a free-text value, so that commas, spaces and colons reach us untouched by Hydra's grammar."""
    key, equals, value = override.partition("=")
    if key not in FREE_TEXT or not equals or value in ("null", "") or value[0] in "'\"":
        return override
    return f"{key}='" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def group_options() -> dict[str, list[str]]:
    """The configuration groups and the options of each."""
    conf = resources.files("worldwarp.conf")
    folders = [entry for entry in conf.iterdir() if entry.is_dir() and not entry.name.startswith("_")]
    return {f.name: sorted(o.name[: -len(".yaml")] for o in f.iterdir() if o.name.endswith(".yaml")) for f in folders}


def _check_option(group: str, option: str, groups: dict[str, list[str]]) -> None:
    if option not in groups[group]:
        raise ConfigError(f"{group}: there is no '{option}'; {nearest(option, groups[group])}")


def _flat_keys(config: DictConfig, prefix: str = "") -> list[str]:
    keys: list[str] = []
    for key in config:
        keys.append(f"{prefix}{key}")
        if not OmegaConf.is_missing(config, key) and isinstance(config._get_node(key), DictConfig):
            keys += _flat_keys(config[key], f"{prefix}{key}.")
    return keys


def _compose(name: str, overrides: Sequence[str]) -> DictConfig:
    # A caller may run inside a Hydra application of its own: leave its global state as it was.
    state = Singleton.get_state()
    GlobalHydra.instance().clear()
    try:
        with initialize_config_module("worldwarp.conf", version_base="1.3"):
            return compose(name, overrides=list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(str(error).strip().splitlines()[0]) from error
    finally:
        Singleton.set_state(state)
