"""Parses command lines without torch or Hydra: settings, lists, files, folders, and corrections of wrong names."""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from geometry.trajectory.path_text import PRESETS, names_a_file

LIVE = "keys"  # value of `path=` for keyboard control
BY_ITSELF = "auto"  # value of `path=` for a path that the program chooses as it goes
STUDIO = "studio"  # stored as `path` of a world that grew in the studio: it goes on as planned there
SAME = "same"  # value of `path=` with `video=`: the camera stands still

# Names of settings in other programs: our name, or a sentence where there is none.
SYNONYMS = {
    "picture": "image", "photo": "image", "input": "image", "file": "image",
    "output": "out", "output_dir": "out", "outdir": "out", "folder": "out", "dir": "out",
    "resolution": "size", "quality": "size", "width": "size", "height": "size", "long_side": "size",
    "trajectory": "path", "camera": "path", "cameras": "path", "move": "path", "motion": "path",
    "fov": "fov_deg", "length": "frames", "num_frames": "frames", "n_frames": "frames",
    "gpu": "device", "cuda": "device", "continue": "resume", "world": "resume", "format": "formats",
    "estimator": "depth", "model": "generator", "version": "--version", "play": "view", "open": "view", "show": "view",
    "run": "explore", "walk": "explore", "generate": "explore", "create": "explore", "delete": "forget",
    "text": "prompt", "caption": "prompt", "clip": "video", "strength": "video_level",
    "ls": "list", "worlds": "list", "gallery": "list",
    "negative_prompt": "generator.negative",
}  # fmt: skip
VIDEOS = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v")
IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".heic", ".heif", ".bmp", ".gif", ".avif")
MANIFEST = "world.json"
WORLDS = "worlds"  # folder of the worlds that are made without `out=`


class ConfigError(ValueError):
    """An invalid setting; the message says what is wanted, what was given, and what to do."""


def nearest(name: str, valid: Iterable[str], main: Iterable[str] = ()) -> str:
    """A hint for an unknown ``name``: the nearest valid names, or a list of valid ones.

    Args:
        name: as typed.
        valid: all valid names.
        main: names to list when none is near; default ``valid``.
    """
    valid = sorted(set(valid))
    meant = SYNONYMS.get(name.lower().lstrip("-").replace("-", "_"))
    if meant is not None and " " in meant:
        return meant
    # A known synonym is surer than a similar spelling.
    close = [meant] if meant in valid else difflib.get_close_matches(name, valid, n=3, cutoff=0.7)
    if close:
        return f"did you mean {' or '.join(f'`{c}`' for c in close)}?"
    return f"valid are: {', '.join(main or valid)}"


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Bare words, and ``key=value`` words; a file that exists, or ``orbit:angle_deg=20``, is a bare word."""
    # Photos may have `=` in their names, and moves have parameters with `=`.
    settings = [word for word in words if re.match(r"[A-Za-z_][\w.-]*=", word) and not os.path.exists(word)]
    return [word for word in words if word not in settings], settings


def folder_and_settings(command: str, words: Sequence[str]) -> tuple[Path, list[str]]:
    """Split ``DIR key=value ...`` into the folder and the settings.

    Raises:
        ConfigError: no or several folders.
    """
    folders, settings = split_words(words)
    if len(folders) != 1:
        got = ", ".join(folders) or "none"
        advice = "put what holds spaces or commas in quotes" if folders else f"e.g. `worldwarp {command} worlds/pagoda`"
        raise ConfigError(f"{command}: want one folder, got {got}; {advice}")
    return user_path(command, folders[0]), settings


def items(text: str) -> list[str]:
    """The parts of a list: ``a,b`` or ``[a,b]``."""
    return [part.strip() for part in text.strip().removeprefix("[").removesuffix("]").split(",") if part.strip()]


def whole(key: str, text: str) -> int:
    """A whole number.

    Raises:
        ConfigError: not a whole number.
    """
    if not (text.isascii() and text.isdecimal()):
        raise ConfigError(f"{key}: want a whole number, got '{text}'")
    return int(text)


def frame_size(value: object) -> int | tuple[int, int] | None:
    """The value of ``size=``, e.g. ``720``, ``480,720``, ``480x720``, ``[480,720]``: longer side, ``(H, W)``, or None.

    Raises:
        ConfigError: none of these.
    """
    if value is None:
        return None
    # 480x720 and 480X720, as sizes are written elsewhere.
    parts = items(re.sub(r"(?<=\d)\s*[xX]\s*(?=\d)", ",", value)) if isinstance(value, str) else value
    parts = list(parts) if isinstance(parts, Sequence) else [parts]
    numbers = [int(p) if isinstance(p, str) and p.isascii() and p.isdecimal() else p for p in parts]
    sides = [n for n in numbers if isinstance(n, int) and not isinstance(n, bool) and n > 0]
    if len(sides) == len(numbers) == 1:
        return sides[0]
    if len(sides) == len(numbers) == 2:
        return sides[0], sides[1]
    got = value if isinstance(value, str | int | float) else list(parts)
    raise ConfigError(f"size: want the longer side (size=720) or height and width (size=480x720), got {got}")


def user_path(key: str, text: str | Path) -> Path:
    """A folder or file from user input, `~` expanded.

    Raises:
        ConfigError: a name that is not UTF-8, which cannot be stored in a world.
    """
    # Shells expand `~` only at the start of a word, not after `out=`.
    path = os.path.expanduser(str(text))
    if not is_utf8(path):
        shown = path.encode("utf-8", "backslashreplace").decode()
        raise ConfigError(f"{key}: want a name of UTF-8 characters, got '{shown}'; choose or rename to another")
    return Path(path)


def is_utf8(name: str) -> bool:
    """Whether a file name is UTF-8 (Python keeps other bytes as lone surrogates)."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def default_folder(image: str) -> Path:
    """The default folder of a photo's world."""
    stem = Path(image).stem
    return Path(WORLDS) / (stem if is_utf8(stem) else stem.encode("ascii", "replace").decode().replace("?", "_"))


def check_image(image: str) -> None:
    """Refuse a file that is no photo, with a message by its kind, before it is opened.

    Raises:
        ConfigError: an address, several files, a video, a folder, or a file that does not exist.
    """
    path = Path(image)
    if path.is_file() and path.suffix.lower() not in VIDEOS:
        return
    if re.match(r"[a-z]+://", image, re.IGNORECASE):
        raise ConfigError(f"image: want a file on this machine, got {image}; download it first")
    if path.suffix.lower() in VIDEOS:
        raise ConfigError(f"image: want one photo, got the video '{image}'; save one of its frames, or set video=")
    if path.is_dir():
        raise ConfigError(f"image: want one photo, got the folder '{image}'; name the file in it")
    # `explore orbit`: the path is there and the photo was forgotten.
    if re.split("[,+:]", image)[0] in PRESETS:
        raise ConfigError(
            f"image: want a photo first, got the path '{image}'; e.g. `worldwarp explore photo.jpg orbit`"
        )
    if len(items(image)) > 1 and sum(part.lower().endswith(IMAGES) for part in items(image)) > 1:
        raise ConfigError(f"image: want one photo, got {len(items(image))} files in '{image}'; choose one")
    raise ConfigError(f"image: no file '{image}'; check the name")


def check_video(video: str, path: str) -> None:
    """Refuse a clip that does not exist, and a path that is not the clip's own.

    Raises:
        ConfigError: naming what is wanted.
    """
    if not Path(video).is_file():
        raise ConfigError(f"video: no file '{video}'; check the name")
    if path != SAME and not names_a_file(path):
        raise ConfigError(f"path: with video=, want {SAME} (the camera stands still) or a camera file, got '{path}'")


def check_world(command: str, folder: Path) -> None:
    """Refuse a folder that is no world, before anything is loaded.

    Raises:
        ConfigError: the folder does not exist, or is no world.
    """
    if not folder.is_dir():
        raise ConfigError(f"{command}: no such folder '{folder}'; want that of a world that `worldwarp explore` made")
    if not (folder / MANIFEST).is_file():
        raise ConfigError(f"{command}: '{folder}' is no world: it holds no {MANIFEST}; check the name")


def pasted(*words: object) -> str:
    """Words of a command, quoted to be pasted into any shell (PowerShell splits at unquoted commas)."""
    text = [str(word) for word in words]
    if sys.platform == "win32":
        return " ".join(f'"{word}"' if re.search(r"[^\w.:=/\\+-]", word) else word for word in text)
    return " ".join(
        word if re.fullmatch(r"[\w.:=/+-]+", word) else "'" + word.replace("'", "'\"'\"'") + "'" for word in text
    )


def command_words(words: Sequence[str]) -> list[str]:
    """The words of `explore` with bare words as settings: the photo (or a world's folder), then the path.

    Raises:
        ConfigError: more bare words than these two, or several photos.
    """
    bare, settings = split_words(words)
    named = {word.partition("=")[0] for word in settings}
    free = [key for key in ("image", "path") if key not in named and not (key == "image" and "resume" in named)]
    if len(bare) > 1 and sum(word.lower().endswith(IMAGES) for word in bare) > 1:
        raise ConfigError(f"image: want one photo, got {' '.join(bare)}; choose one")
    if len(bare) > len(free):
        extra = bare[len(free)]
        raise ConfigError(
            f"explore: want PHOTO PATH and key=value, got '{extra}' too; join moves with commas, in quotes"
        )
    given = dict(zip(free, bare, strict=False))
    # `explore DIR` continues: a folder with a manifest cannot be a photo.
    if "image" in given and os.path.isfile(os.path.join(os.path.expanduser(given["image"]), MANIFEST)):
        given["resume"] = given.pop("image")
    return [*(f"{key}={value}" for key, value in given.items()), *settings]
