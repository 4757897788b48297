"""Worlds that are made in the page: from an uploaded photo and settings, which are checked as on the command line."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from omegaconf import DictConfig

from viz.studio.events import Making
from worldwarp.arguments import IMAGES
from worldwarp.config import ConfigError, check_explore, compose_config
from worldwarp.prepare import prepare
from worldwarp.session import Session

# Files and classes of the machine are not for people in a browser; the path is where they fly.
CLOSED = ("image", "out", "resume", "video", "viewer", "path", "convention", "frames", "device")


@contextmanager
def prepared(making: Making, worlds: Path, device: str) -> Iterator[tuple[Session, Path, list[str]]]:
    """Prepare a session for an uploaded photo; nothing is stored yet.

    Yields:
        The session, a free folder for its world, and lines about memory and disk.

    Raises:
        ValueError: no photo, or an invalid setting.
    """
    for key in making.settings:
        if key.partition(".")[0] in CLOSED or any(part.startswith("_") for part in key.split(".")):
            raise ConfigError(f"{key}: cannot be set in the page; give it to `worldwarp studio`")
    suffix = Path(making.name).suffix.lower()
    folder, lines = free_folder(worlds / world_name(making.name)), list[str]()
    with tempfile.TemporaryDirectory(prefix="worldwarp-studio-") as uploads:
        photo = Path(uploads) / f"photo{suffix if suffix in IMAGES else ''}"
        photo.write_bytes(making.photo)
        words = [f"{key}={value}" for key, value in making.settings.items()]
        config = compose_config("explore", [*words, f"image={photo}", "path=keys", "viewer=none", f"device={device}"])
        check_explore(config)
        try:
            session = begun(config, folder, lines.append)
        except ValueError as error:
            # The upload's place on this machine says nothing to whoever looks at the page.
            raise ConfigError(str(error).replace(str(photo), making.name)) from error
        yield session, folder, lines


def begun(config: DictConfig, folder: Path, tell: Callable[[str], object]) -> Session:
    """A session for the studio, of a checked configuration; nothing is stored yet.

    Raises:
        ValueError: as `prepare`.
    """
    session = prepare(config, out=folder, tell=tell)
    session.redirect(session.cameras[:0])
    return session


def world_name(name: str) -> str:
    """The name of a world's folder, from that of an uploaded file: letters, digits, dashes."""
    stem = Path(name.replace("\\", "/")).stem
    kept = "".join(character if character.isalnum() and character.isascii() else "-" for character in stem)
    return "-".join(part for part in kept.split("-") if part)[:60] or "photo"


def free_folder(wanted: Path) -> Path:
    """``wanted``, or the first of ``wanted-2``, ``wanted-3``, ... that does not exist or is empty."""
    number, folder = 1, wanted
    while folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        number += 1
        folder = wanted.with_name(f"{wanted.name}-{number}")
    return folder
