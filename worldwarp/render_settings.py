"""The settings of `worldwarp render`, checked before torch is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig

from geometry.trajectory.path_text import begins_with_preset, names_a_file, parse_legs
from worldwarp.arguments import LIVE, SAME, ConfigError, frame_size, nearest, user_path
from worldwarp.config import AUTO, check_choice, check_number, check_whole

VIDEOS = ("mp4", "webm", "gif")
PICTURES = ("png", "depth_exr", "depth_png")
FORMATS = (*VIDEOS, *PICTURES)
VIEWS, UNKNOWN, ALPHA = ("mono", "stereo", "360"), ("fill", "show"), ("none", "known", "surface")
LONGEST_SIDE = 16384  # pixels; WebP, in which frames wait, ends at 16383


@dataclass(frozen=True)
class RenderSettings:
    """What is rendered of a world, and to which files.

    Attributes:
        path: moves or a camera file; None is the path that was walked.
        begin: frame of the world at which moves and files begin; negative: counted from the last.
        frames: number of frames; None: as long as when walked, of a camera file one per camera.
        convention: of camera files that do not tell theirs.
        path_scale: factor on the positions of a camera file, ``auto``, or None.
        size: longer side, ``(H, W)``, or None for the world's; of one eye where there are two.
        fov_deg: horizontal field of view, degrees; None: the world's, cropped to the shape of ``size``.
        fps: frames per second; None: the world's.
        view: ``mono``, ``stereo`` or ``360``.
        eye_distance: of the two eyes, in median depths of the photo.
        unknown: how pixels that no frame saw are shown: ``fill`` or ``show``.
        alpha: what is transparent: ``none``, ``known`` (what no frame saw) or ``surface`` (the sky, too).
        samples: per pixel and axis; None: as the world's frames were made.
        formats: some of `FORMATS`.
        out: folder or file; None: in the world's folder.
    """

    path: str | None = None
    begin: int = 0
    frames: int | None = None
    convention: str | None = None
    path_scale: float | str | None = None
    size: int | tuple[int, int] | None = None
    fov_deg: float | None = None
    fps: float | None = None
    view: str = "mono"
    eye_distance: float = 0.02
    unknown: str = "fill"
    alpha: str = "none"
    samples: int | None = None
    formats: tuple[str, ...] = ("mp4",)
    out: Path | None = None

    @property
    def to_file(self) -> bool:
        """Whether `out` is one file, and not a folder."""
        return self.out is not None and self.out.suffix.lower().removeprefix(".") in VIDEOS


def render_settings(config: DictConfig) -> RenderSettings:
    """The settings of a composed ``conf/render.yaml``.

    Raises:
        ConfigError: an invalid setting; the message names it, the wanted and the given value.
        ValueError: a path that is neither a file nor an expression.
    """
    check_whole(config, "begin", -1_000_000, 1_000_000)
    check_whole(config, "frames", 1, 1_000_000, optional=True)
    check_number(config, "fov_deg", 1.0, 150.0, optional=True)
    check_number(config, "fps", 1.0, 240.0, optional=True)
    check_number(config, "eye_distance", 0.0, 1.0)
    check_whole(config, "samples", 1, 4, optional=True)
    for key, choices in (("unknown", UNKNOWN), ("alpha", ALPHA)):
        check_choice(config, key, choices)
    view = str(config.view)  # 360 is read as a number
    if view not in VIEWS:
        raise ConfigError(f"view: want mono, stereo or 360, got '{view}'")
    if config.path_scale not in (None, AUTO):
        check_number(config, "path_scale", 1e-9, 1e9)
    _check_path(config.path, config.path_scale)
    size = _size(config.size, view)
    out = None if config.out is None else user_path("out", config.out)
    values: dict[str, Any] = {key: config[key] for key in RenderSettings.__dataclass_fields__}
    values |= {"view": view, "size": size, "out": out}
    values |= {key: float(values[key]) for key in ("fov_deg", "fps", "eye_distance") if values[key] is not None}
    values["formats"] = _formats(list(config.formats), out, config.alpha)
    return RenderSettings(**values)


def _check_path(path: str | None, path_scale: object) -> None:
    if path in (LIVE, SAME):
        raise ConfigError(f"path: {path} makes new frames; want moves or a camera file, e.g. path=orbit")
    if path is not None and not names_a_file(path):
        parse_legs(path)
    if path_scale is not None and (path is None or begins_with_preset(path)):
        raise ConfigError("path_scale: it is for camera files; remove it, moves have distance= (orbit:distance=0.5)")


def _size(value: object, view: str) -> int | tuple[int, int] | None:
    size = frame_size(list(value) if isinstance(value, ListConfig) else value)
    for side in (size,) if isinstance(size, int) else size or ():
        if not 16 <= side < LONGEST_SIDE // (2 if view == "stereo" else 1):
            raise ConfigError(f"size: want sides from 16 to {LONGEST_SIDE - 1} pixels, got {side}")
    if view == "360" and isinstance(size, tuple) and size[1] != 2 * size[0]:
        raise ConfigError(f"size: a sphere is twice as wide as high, got {size[0]}x{size[1]}; try size={2 * size[0]}")
    return size


def _formats(formats: list[str], out: Path | None, alpha: str) -> tuple[str, ...]:
    if out is not None and out.suffix.lower().removeprefix(".") in VIDEOS:
        of_file = out.suffix.lower().removeprefix(".")
        if formats not in (["mp4"], [of_file]):
            raise ConfigError(f"formats: {out} holds {of_file} alone, got {','.join(formats)}; let out= be a folder")
        formats = [of_file]
    if not formats:
        raise ConfigError(f"formats: want some of {', '.join(FORMATS)}, got none")
    for name in formats:
        if name not in FORMATS:
            raise ConfigError(f"formats: there is no '{name}'; {nearest(name, FORMATS)}")
    if alpha != "none" and "mp4" in formats:
        raise ConfigError(f"alpha: MP4 holds none, got alpha={alpha}; set formats=webm (or png, gif), or out=NAME.webm")
    if alpha != "none" and not set(formats) & {"webm", "gif", "png"}:
        raise ConfigError(f"alpha: depth images hold none, got alpha={alpha}; leave it out, or add formats=png")
    return tuple(dict.fromkeys(formats))
