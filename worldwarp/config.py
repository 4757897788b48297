"""Configuration: Hydra groups in `worldwarp/conf`, composed without touching a caller's own Hydra.

Hydra selects the options of the groups; values are set afterwards, so that file names need no Hydra quoting.
"""

from __future__ import annotations

import copy
import inspect
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.singleton import Singleton
from hydra.errors import HydraException
from hydra.utils import get_object
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from geometry.input_files import reason_of
from geometry.trajectory.path_text import names_a_file, parse_legs
from scenes.photos.framing import QUALITIES, STEP
from worldwarp.arguments import (
    BY_ITSELF,
    LIVE,
    SAME,
    ConfigError,
    check_image,
    check_video,
    frame_size,
    items,
    nearest,
)
from worldwarp.pages import conf_text, group_options
from worldwarp.stored_config import current_options

FREE_TEXT = (
    *("image", "path", "out", "resume", "depth.path", "depth.checkpoint", "generator.weights", "depth.weights"),
    *("prompt", "video", "generator.pretrained", "generator.negative", "generator.decoder"),
    *("data", "assets", "shards", "start", "teacher", "trajectories", "images", "cameras", "name", "license"),
)
# Files and folders that a stored world reads again, from wherever it is continued.
READ_AGAIN = (
    "video",
    "depth.checkpoint",
    "depth.weights",
    "generator.weights",
    "generator.pretrained",
    "generator.decoder",
)
# Of `explore`, listed when no setting has a similar name.
MAIN = ("image", "path", "frames", "size", "out", "resume", "device", "seed")
VIEWERS = ("auto", "native", "web", "remote", "file", "none")  # values of viewer.mode

ONWARD = ("path", "frames", "convention", "path_scale", "prompt")  # settings that may change on resume

AUTO = "auto"  # path_scale that fits a path to the photo


@dataclass(frozen=True)
class Settings:
    """The checked plain settings of `worldwarp explore` (its groups stay in the composed config)."""

    image: str | None
    video: str | None
    video_level: float
    path: str
    convention: str | None
    path_scale: float | str | None
    frames: int | None
    quality: str
    size: tuple[int, int]
    fov_deg: float
    seed: int
    chunk: int | None
    steps: int | str | None
    detail: float
    fps: float
    device: str
    out: str | None
    resume: str | None


def compose_config(name: str, overrides: Sequence[str]) -> DictConfig:
    """Compose ``conf/<name>.yaml`` with command-line overrides.

    Args:
        name: a primary config: that of a command (`explore`, `render_data`), or of a training (`train/depth`).
        overrides: `key=value` strings; values of paths are taken literally (`~` expanded). A setting that is a section
            with a `mode` stands for that: `viewer=web` is `viewer.mode=web`.

    Raises:
        ConfigError: for an unknown key, group option or unreadable value, with the nearest valid name.
    """
    # The last value of a setting counts, as in Hydra.
    groups, given = group_options(name), dict[str, str]()
    for text in current_options(overrides):
        key, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"'{text}': want key=value")
        given[key] = value
    # A class of another package replaces a whole group; its parameters are unknown here, so all keys are accepted.
    foreign = {key.removesuffix("._target_") for key in given if key.removesuffix("._target_") in groups} - {*given}
    chosen = {key: value for key, value in given.items() if key in groups}
    for group, option in chosen.items():
        if option not in groups[group]:
            raise ConfigError(f"{group}: there is no '{option}'; {nearest(option, groups[group])}")
    config = _compose(name, [f"{group}={option}" for group, option in chosen.items()])
    if "video" in given and "path" not in given:
        config.path = SAME
    for group in foreign:
        config[group] = {"_target_": given[f"{group}._target_"]}
    if "prompt" in given and "generator" in foreign:
        OmegaConf.update(config, "generator.prompt", "${prompt}", force_add=True)
    known, missing = _flat_keys(config), OmegaConf.missing_keys(config)
    for key, value in given.items():
        if key in chosen:
            continue
        if key.partition(".")[0] in foreign:
            OmegaConf.update(config, key, _value(key, value, None), force_add=True)
            continue
        if key not in known or key in groups or _is_device_of_a_part(key):
            raise ConfigError(f"there is no setting '{key}'; {_hint(key, known)}")
        if key.startswith("sampler.") and "generator" not in foreign and "sampler" not in config.generator:
            own = key.replace("sampler.", "generator.")
            instead = f"give {own}=" if own in known else f"leave {key}= out"
            raise ConfigError(f"{key}: only generator=retouch takes it, got another generator; {instead}")
        if key in missing and _value(key, value, None) is None:
            continue  # no value: `check_explore` says what is wanted
        default = OmegaConf.select(config, key, throw_on_missing=False)
        # Stored worlds and programs hold the section; people type the mode alone.
        if isinstance(default, DictConfig) and "mode" in default:
            key, default = f"{key}.mode", default.mode
        if isinstance(default, DictConfig):
            raise ConfigError(
                f"{key}: want one of its settings, e.g. {key}.{_flat_keys(default)[0]}=..., got '{value}'"
            )
        OmegaConf.update(config, key, _value(key, value, default))
    if (unused := [key for key in given if key.startswith("auto.")]) and config.get("path") not in (None, BY_ITSELF):
        raise ConfigError(f"{unused[0]}: it is for path={BY_ITSELF}, got path={config.path}; leave it out")
    return config


def check_explore(config: DictConfig) -> None:
    """Refuse invalid settings before the photo is read and before torch is loaded.

    Raises:
        ConfigError: an invalid setting; the message names it, the wanted and the given value.
        ValueError: a path that is neither a file nor an expression.
    """
    check_missing(config)
    _check_values(config)
    check_viewer(config.viewer)
    if config.resume is None and config.video is None:
        check_image(config.image)
    if config.image is not None and config.video is not None:
        raise ConfigError(
            f"video: want a clip or a photo, got both, '{config.image}' as the photo; leave it out, and give cameras "
            "by path="
        )
    if config.video is not None:
        check_video(config.video, config.path)
    elif config.path not in (LIVE, SAME, BY_ITSELF) and not names_a_file(config.path):
        parse_legs(config.path)
    if config.resume is None and config.prompt is not None and "prompt" not in config.generator:
        raise ConfigError("prompt: this generator takes no text; leave prompt= out, or set generator=wan")


def check_missing(config: DictConfig) -> None:
    """Refuse an option that lacks a value.

    Raises:
        ConfigError: a setting that is ``???`` in the option's file was not given.
    """
    # ??? in a file: the option cannot work without a value of the user's.
    for key in sorted(OmegaConf.missing_keys(config)):
        group, told = key.partition(".")[0], {option: text for option, value, text in _in_conf(key) if value == "???"}
        # Several options may want it: the one that was chosen has the settings that there are.
        option = next((name for name in told if _has_settings(group, name, config[group])), next(iter(told)))
        meaning = told[option]
        raise ConfigError(f"{key}: {key.partition('.')[0]}={option} needs one ({meaning}); add {key}=...")


def _check_values(config: DictConfig) -> None:
    if config.image is None and config.resume is None and config.video is None:
        raise ConfigError("image: want a photo, e.g. `worldwarp explore photo.jpg orbit`")
    wanted = frame_size(_plain(config.size))
    if isinstance(wanted, tuple):
        checked_size(wanted)
    elif wanted is not None and wanted < 2 * STEP:
        raise ConfigError(f"size: want a longer side of {2 * STEP} pixels or more, got {wanted}")
    check_number(config, "fov_deg", 1.0, 150.0, optional=True)
    check_number(config, "detail", 1.0, 4.0)
    check_number(config, "video_level", 0.0, 1.0)
    check_number(config, "fps", 1.0, 120.0)
    if config.get("path_scale") not in (None, AUTO):
        _check_path_scale(config.path_scale)
    check_whole(config, "seed", 0, 2**31 - 1)
    check_whole(config, "chunk", 1, 1_000_000, optional=True)  # how many it can be, the generator says
    _check_steps(config)
    check_whole(config, "frames", 2, 1_000_000, optional=True)
    # Settings of generator=wan whose default, null, tells no type.
    for key in ("guidance", "shift"):
        check_number(config, f"generator.{key}", 0.0, 1000.0, optional=True)
    check_number(config, "generator.smoothing", 0.0, 1.0, optional=True)
    for key in ("chunk", "overlap", "memory.sink", "memory.recent", "memory.bank"):
        check_whole(config, f"generator.{key}", 0, 1_000_000, optional=True)
    if "refine_steps" in config.cache:
        check_whole(config, "cache.refine_steps", 0, 1000, optional=True)
    unit_m = config.depth.get("unit_m")
    if unit_m is not None and not (isinstance(unit_m, int | float) and unit_m > 0):
        raise ConfigError(f"depth.unit_m: want a positive number of meters per unit, got {unit_m!r}")
    check_choice(config, "device", ("cpu", "cuda"))
    check_choice(config, "quality", tuple(QUALITIES))


def _check_steps(config: DictConfig) -> None:
    """A number of steps, or for a generator with a schedule of its own falling timesteps, which it checks itself."""
    if not ("steps" in config.generator and isinstance(config.steps, str)):
        check_whole(config, "steps", 1, 64, optional=True)


def check_viewer(viewer: DictConfig) -> None:
    """Refuse invalid settings of the viewer.

    Raises:
        ConfigError: an unknown mode, a remote viewer without its address, or an invalid port.
    """
    if viewer.mode not in VIEWERS:
        raise ConfigError(f"viewer: there is no '{viewer.mode}'; {nearest(str(viewer.mode), VIEWERS)}")
    if viewer.mode == "remote" and viewer.url is None:
        raise ConfigError("viewer.url: viewer=remote needs one (rerun+http://HOST:9876/proxy); add viewer.url=...")
    if viewer.port is not None and not (isinstance(viewer.port, int) and 0 < viewer.port < 65535):
        raise ConfigError(f"viewer.port: want a whole number from 1 to 65534, got '{viewer.port}'")
    if viewer.open not in (None, True, False):
        raise ConfigError(f"viewer.open: want true or false, got '{viewer.open}'")


def check_number(config: DictConfig, key: str, low: float, high: float, optional: bool = False) -> None:
    """Refuse a setting outside ``low``..``high``; ``optional`` accepts None.

    Raises:
        ConfigError: it is outside, or no number.
    """
    value = OmegaConf.select(config, key)
    if optional and value is None:
        return
    if not _is_number(value) or not low <= value <= high:  # nan is not in any range
        raise ConfigError(f"{key}: want a number from {low:g} to {high:g}, got {value!r}")


def check_whole(config: DictConfig, key: str, low: int, high: int, optional: bool = False) -> None:
    """Refuse a setting that is no whole number in ``low``..``high``; ``optional`` accepts None.

    Raises:
        ConfigError: it is none.
    """
    value = OmegaConf.select(config, key)
    if optional and value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ConfigError(f"{key}: want a whole number from {low} to {high}, got {value!r}")


def check_choice(config: DictConfig, key: str, choices: Sequence[str], advice: str = "") -> None:
    """Refuse a setting that is none of ``choices``; ``advice`` is appended to the message.

    Raises:
        ConfigError: it is none of them.
    """
    if config[key] not in choices:
        listed = f"{', '.join(choices[:-1])} or {choices[-1]}"
        raise ConfigError(f"{key}: want {listed}, got '{config[key]}'{advice}")


def explore_settings(config: DictConfig) -> Settings:
    """The plain settings of `worldwarp explore`, from a configuration with frame size and field of view.

    Raises:
        ConfigError: an invalid setting; the message names it, the wanted and the given value.
    """
    _check_values(config)
    if config.device == "cuda":
        # Imported here alone: refusals and help have to be quick, and torch takes seconds to load.
        import torch

        if not torch.cuda.is_available():
            raise ConfigError("device: want a CUDA GPU for device=cuda, found none; leave it out to run on the CPU")
    values: dict[str, Any] = {key: config.get(key) for key in Settings.__dataclass_fields__}
    fractions = ("fov_deg", "detail", "fps", "path_scale", "video_level")
    values |= {key: float(values[key]) for key in fractions if isinstance(values[key], int)}
    values["size"] = checked_size(config.size)
    return Settings(**values)


def checked_size(size: object) -> tuple[int, int]:
    """A frame size ``(H, W)``.

    Raises:
        ConfigError: not a valid frame size.
    """
    sides = frame_size(_plain(size))
    if not isinstance(sides, tuple):
        raise ConfigError(f"size: want height and width, got {size}")
    if any(side < 2 * STEP or side % STEP for side in sides):
        height, width = (max(2 * STEP, STEP * round(side / STEP)) for side in sides)
        raise ConfigError(
            f"size: want multiples of {STEP} from {2 * STEP}, got {sides[0]}x{sides[1]}; try size={height}x{width}"
        )
    return sides


def build(config: DictConfig | dict[str, Any], group: str) -> Any:
    """The object of a group: its ``_target_``, called with the group's settings; its own errors pass through.

    Raises:
        ConfigError: a class that cannot be imported, or does not take the settings.
    """
    part = config[group]
    try:
        target = get_object(part["_target_"])
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"{group}: want an importable class, got {part['_target_']} ({reason_of(error)}); "
            "install the package it belongs to"
        ) from error
    # Nested groups are built first, as their objects are arguments.
    arguments = {str(key): _built(part[key], group) for key in part if key != "_target_"}
    try:
        inspect.signature(target).bind(**arguments)
    except TypeError as error:
        raise ConfigError(f"{group}: {part['_target_']} does not take these settings: {error}") from error
    return target(**arguments)


def _built(value: Any, group: str) -> Any:
    """A setting as an argument of its class: nested configurations are built, lists become tuples."""
    if isinstance(value, DictConfig) and "_target_" in value:
        return build({group: value}, group)
    return tuple(value) if isinstance(value, ListConfig) else value


def _hint(key: str, known: Sequence[str]) -> str:
    """Where an unknown setting belongs, what it was meant to be, or which the main ones are."""
    if _is_device_of_a_part(key):
        return "every part runs where the session does; set device=cpu or device=cuda"
    group = key.partition(".")[0]
    if homes := [option for option, _, _ in _in_conf(key)]:
        return f"it belongs to {' and '.join(f'{group}={option}' for option in homes)}; add that"
    names = [name for name in known if not _is_device_of_a_part(name)]
    main = [*MAIN, "... (see --help)"] if "image" in known else names
    return nearest(key, names, [name for name in names if name.startswith(f"{group}.")] or main)


def _is_device_of_a_part(key: str) -> bool:
    return key.endswith(".device")


def _in_conf(key: str) -> list[tuple[str, str, str]]:
    """The options of a group that have a setting, as (option, default, description)."""
    group, _, name = key.partition(".")
    found: list[tuple[str, str, str]] = []
    for option in group_options().get(group, []) if name and not name.startswith("_") else []:
        line = re.search(rf"^{re.escape(name)}: (\S+)(?: *# (.*))?$", conf_text(f"{group}/{option}"), re.MULTILINE)
        found += [(option, line.group(1), line.group(2) or "")] if line else []
    return found


def _has_settings(group: str, option: str, part: DictConfig) -> bool:
    """Whether an option has just the settings of a group."""
    return set(re.findall(r"^(\w+):", conf_text(f"{group}/{option}"), re.MULTILINE)) - {"defaults"} == {*map(str, part)}


def _value(key: str, text: str, default: object) -> object:
    """The value of a setting; names of files keep every character."""
    is_number = _is_number(default)
    if text in ("", "null", "None") and not is_number and not isinstance(default, ListConfig):
        if isinstance(default, str):
            raise ConfigError(f"{key}: want a value, got none; leave {key}= out for {default}")
        return None
    if key in FREE_TEXT:
        if text[0] in "'\"" and text[-1] == text[0] and len(text) > 2 and not os.path.exists(text):
            text = text[1:-1]  # cmd.exe does not remove single quotes
        text = os.path.expanduser(text)
        if key in READ_AGAIN and text not in ("full", "tiny") and os.path.exists(text):
            text = os.path.abspath(text)
        return escaped(text)
    if key == "size":
        size = frame_size(text)
        return list(size) if isinstance(size, tuple) else size
    # Names and numbers of unknown count are checked by the command, which knows what they are.
    if isinstance(default, ListConfig) and not (default and _is_number(default[0])):
        return [escaped(part) for part in items(text)]
    if isinstance(default, ListConfig):
        return [_checked(key, part, default[0]) for part in items(text)] or [_checked(key, text, default[0])]
    if "." in key and is_number:
        return _checked(key, text, default)
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    number = _number(text)
    if is_number and isinstance(number, str):
        raise ConfigError(f"{key}: want a number, got '{text}'")
    if not isinstance(number, str):
        return number
    return escaped(text)


def _checked(key: str, text: str, default: object) -> int | float:
    """A number of a part: finite, 0 or more, and whole where its default is.

    Raises:
        ConfigError: it is none.
    """
    # A size in MiB may be a fraction although its default is whole.
    is_whole = isinstance(default, int) and key != "cache.resident_mib"
    number = _number(text)
    if isinstance(number, str) or not 0 <= number < math.inf or (is_whole and not isinstance(number, int)):
        raise ConfigError(f"{key}: want a {'whole number' if is_whole else 'number'} of 0 or more, got '{text}'")
    return number


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(text: str) -> int | float | str:
    """A text as a number if it is one."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def escaped(text: str) -> str:
    """A text with ``${`` escaped, which OmegaConf would interpolate."""
    return re.sub(r"(\\*)\$\{", lambda found: 2 * found.group(1) + r"\${", text)


def _plain(value: object) -> object:
    return list(value) if isinstance(value, ListConfig) else value


def _check_path_scale(value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 < value < math.inf:
        raise ConfigError(f"path_scale: want a positive number or {AUTO}, got {value!r}")


def _flat_keys(config: DictConfig, prefix: str = "") -> list[str]:
    keys: list[str] = []
    for key in config:
        if not str(key).startswith("_"):  # keys with an underscore are for Hydra
            keys.append(f"{prefix}{key}")
        if not OmegaConf.is_missing(config, key) and isinstance(config._get_node(key), DictConfig):
            keys += _flat_keys(config[key], f"{prefix}{key}.")
    return keys


def _compose(name: str, overrides: Sequence[str]) -> DictConfig:
    return copy.deepcopy(_composed(name, tuple(overrides)))


@cache  # one composition takes 0.25 s, and a process may ask for the same one many times
def _composed(name: str, overrides: tuple[str, ...]) -> DictConfig:
    # The caller may itself be a Hydra application: restore its global state.
    state = Singleton.get_state()
    GlobalHydra.instance().clear()
    try:
        with initialize_config_module("worldwarp.conf", version_base="1.3"):
            return compose(name, overrides=list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(reason_of(error)) from error
    finally:
        Singleton.set_state(state)


def onward(words: list[str], config: DictConfig) -> dict[str, Any]:
    """Settings of the new path of `explore resume=DIR`; besides them only device and viewer are accepted."""
    given = {word.partition("=")[0] for word in words}
    for key in sorted(given):
        if key not in (*ONWARD, "resume", "device", "viewer", "auto") and not key.startswith(("viewer.", "auto.")):
            raise ConfigError(f"resume: the world keeps its own settings; remove {key}= (or start anew with out=)")
    # They would silently change nothing: the stored path is already sampled.
    if given & {"frames", "convention", "path_scale"} and "path" not in given:
        raise ConfigError("resume: frames=, convention= and path_scale= belong to a new path; give path= as well")
    values = {key: config[key] for key in ONWARD if key in given}
    if config.path == BY_ITSELF:
        values["auto"] = config.auto
    return {key: escaped(value) if isinstance(value, str) else value for key, value in values.items()}
