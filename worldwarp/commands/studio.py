"""`worldwarp studio`."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from geometry.trajectory.path_text import PRESETS
from worldwarp.arguments import LIVE, ConfigError, check_world, command_words, default_folder, user_path
from worldwarp.commands.signals import handled_signals
from worldwarp.config import check_explore, check_whole, compose_config, onward
from worldwarp.pages import conf_text, group_options

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from viz.studio.page import Page
    from worldwarp.session import Session
    from worldwarp.studio.walker import Walker

OWN = ("host", "port", "open")
FORMAT_LABELS = {
    "gaussians_ply": "Gaussian splats (PLY)",
    "points_ply": "Points (PLY)",
    "spz": "Gaussian splats, small (SPZ)",
    "html": "Page that opens anywhere (HTML)",
    "glb": "Mesh (GLB)",
    "usd": "Universal Scene Description",
    "usdz": "Mesh for Quick Look (USDZ)",
    "colmap": "COLMAP",
    "nerfstudio": "nerfstudio",
    "mp4": "Video (MP4)",
}
OF_ONE_WORLD = ("image", "out", "resume", "path", "frames", "convention", "path_scale", "device", "viewer")
GROUPS = ("depth", "generator", "noise", "prior", "cache")


def studio_command(words: list[str]) -> int:
    """`worldwarp studio PHOTO`, or a world's folder: a page in which the world grows where people look."""
    own = [word for word in words if word.partition("=")[0] in OWN]
    config = compose_config("studio", own)
    check_whole(config, "port", 1, 65535, optional=True)
    if config.open not in (None, True, False):
        raise ConfigError(f"open: want true or false, got '{config.open}'")
    words = command_words([word for word in words if word not in own])
    explore = compose_config("explore", words)
    first = _first(words, explore)
    if find_spec("viser") is None:
        raise ConfigError("studio: want the library viser, found none; pip install 'worldwarp[studio]'")

    from scenes.formats.export import FORMATS
    from viz.studio.events import Choices
    from viz.studio.gate import is_loopback
    from viz.studio.page import Page
    from viz.viewer_process import is_interactive, open_browser
    from worldwarp.studio.walker import Walker

    given = {key: value for key, _, value in (word.partition("=") for word in words)}
    choices = Choices(
        groups={group: _options(group, given.get(group)) for group in GROUPS},
        presets={name: preset.description for name, preset in PRESETS.items()},
        settings={key: value for key, value in given.items() if key not in (*GROUPS, *OF_ONE_WORLD)},
        formats={name: FORMAT_LABELS.get(name, name) for name in FORMATS},
        fps=float(explore.fps),
    )
    token = None if is_loopback(config.host) else secrets.token_urlsafe(16)
    page = Page(config.host, config.port, token, choices)
    walker = Walker(page, first, explore.device)
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


def _first(words: list[str], config: DictConfig) -> Callable[[Callable[[str], object]], Session] | None:
    """What opens the first session: words are checked now, the photo is read later; None without a photo.

    Raises:
        ConfigError: an invalid setting, a photo that does not exist, or a folder that holds no world.
    """
    if config.resume is not None:
        folder = user_path("resume", config.resume)
        changes = onward(words, config)
        check_world("studio", folder)

        def reopen(tell: Callable[[str], object]) -> Session:
            from worldwarp.resume import resume

            return resume(folder, config.device, changes, tell=tell)

        return reopen
    if config.image is None and config.video is None:
        return None
    if config.video is not None:
        raise ConfigError("video: the studio starts from a photo, got a clip; use `worldwarp explore`")
    image = str(config.image)
    if Path(image).is_dir():
        check_world("studio", Path(image))
    config.path = LIVE
    check_explore(config)
    out = user_path("out", config.out or default_folder(image))

    def begin(tell: Callable[[str], object]) -> Session:
        from worldwarp.studio.making import begun, free_folder

        folder = out if config.out else free_folder(out)
        session = begun(config, folder, tell)
        session.store_in(folder)
        return session

    return begin


def _options(group: str, given: str | None) -> list[str]:
    """The options of a part of the loop, the given or the default one first."""
    line = next(line for line in conf_text("explore").splitlines() if line.startswith(f"  - {group}: "))
    first = given or line.partition(": ")[2]
    return [first, *(option for option in group_options()[group] if option != first)]
