"""`worldwarp studio`."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from geometry.trajectory.path_text import PRESETS
from worldwarp.arguments import ConfigError, check_world, command_words, default_folder, user_path
from worldwarp.commands.signals import handled_signals
from worldwarp.config import check_explore, check_whole, compose_config, onward
from worldwarp.pages import conf_text, group_options

if TYPE_CHECKING:
    from viz.studio.page import Page
    from worldwarp.session import Session
    from worldwarp.studio.walker import Walker

OWN = ("host", "port", "open")
GROUPS = ("depth", "generator", "noise", "prior", "cache")


def studio_command(words: list[str]) -> int:
    """`worldwarp studio PHOTO`, or a world's folder: a page in which the world grows where people look."""
    own = [word for word in words if word.partition("=")[0] in OWN]
    config = compose_config("studio", own)
    check_whole(config, "port", 1, 65535, optional=True)
    if config.open not in (None, True, False):
        raise ConfigError(f"open: want true or false, got '{config.open}'")
    first, device = _first([word for word in words if word not in own])
    if find_spec("viser") is None:
        raise ConfigError("studio: want the library viser, found none; pip install worldwarp[studio]")

    from scenes.formats.export import FORMATS
    from viz.studio.events import Choices
    from viz.studio.gate import is_loopback
    from viz.studio.page import Page
    from viz.viewer_process import is_interactive, open_browser
    from worldwarp.studio.walker import Walker

    options = group_options()
    defaults = compose_config("explore", [])
    choices = Choices(
        groups={group: _default_first(options[group], group) for group in GROUPS},
        presets=_presets(),
        formats=tuple(FORMATS),
        fps=float(defaults.fps),
    )
    token = None if is_loopback(config.host) else secrets.token_urlsafe(16)
    page = Page(config.host, config.port, token, choices)
    walker = Walker(page, first, device)
    page.steered_by(walker)
    print(f"studio   {page.address}", flush=True)
    if token is not None:
        print("         whoever has this link steers the studio; the connection is not encrypted", flush=True)
    print("Ctrl-C ends it; the world stays, and `worldwarp studio DIR` opens it again", flush=True)
    if is_interactive() if config.open is None else config.open:
        open_browser(page.address, page.gate.port)
    return _serve(page, walker)


def _serve(page: Page, walker: Walker) -> int:
    """Until somebody ends it: at the first signal after the present chunk, at the second at once."""
    asked = False

    def on_signal(_signal: int, _frame: object) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        print("closing after this chunk (Ctrl-C again stops at once)", file=sys.stderr)
        walker.close()

    walker.start()
    try:
        with handled_signals(on_signal, "SIGINT", "SIGTERM", "SIGHUP"):
            while not walker.join(0.2):
                pass
    finally:
        walker.close()
        page.close()
    return 0


def _first(words: list[str]) -> tuple[Callable[[Callable[[str], object]], Session] | None, str]:
    """What opens the first session, and the device: words are checked now, the photo is read later.

    Raises:
        ConfigError: an invalid setting, a photo that does not exist, or a folder that holds no world.
    """
    words = command_words(words)
    config = compose_config("explore", words)
    if config.image is None and config.resume is None and config.video is None:
        return None, config.device
    if config.resume is not None:
        folder = user_path("resume", config.resume)
        changes = onward(words, config)
        check_world("studio", folder)

        def reopen(tell: Callable[[str], object]) -> Session:
            from worldwarp.resume import resume

            return resume(folder, config.device, changes, tell=tell)

        return reopen, config.device
    if Path(config.image).is_dir():
        check_world("studio", Path(config.image))
    if not any(word.startswith("path=") for word in words):
        config.path = "keys"
    check_explore(config)
    out = user_path("out", config.out or default_folder(config.image))

    def begin(tell: Callable[[str], object]) -> Session:
        from worldwarp.prepare import prepare
        from worldwarp.studio.making import free_folder

        folder = out if config.out else free_folder(out)
        session = prepare(config, out=folder, tell=tell)
        session.store_in(folder)
        return session

    return begin, config.device


def _default_first(options: list[str], group: str) -> list[str]:
    default = next(
        line.partition(": ")[2] for line in conf_text("explore").splitlines() if line.startswith(f"  - {group}: ")
    )
    return [default, *(option for option in options if option != default)]


def _presets() -> dict[str, str]:
    return {name: preset.description for name, preset in PRESETS.items()}
