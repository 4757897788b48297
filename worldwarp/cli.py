"""The `worldwarp` command."""

from __future__ import annotations

import logging
import os
import sys
from importlib import import_module
from pathlib import Path

from worldwarp.arguments import IMAGES, ConfigError, nearest, pasted
from worldwarp.console import open_console
from worldwarp.pages import PAGES, overview, page_of

MODULES = {
    "explore": "explore",
    "studio": "studio",
    "preview": "preview",
    "list": "world",
    "view": "world",
    "export": "world",
    "render": "render",
    "undo": "world",
    "forget": "world",
    "complete": "complete",
    "paths": "info",
    "doctor": "info",
    "models": "models",
    "render-data": "train",
    "import-video": "train",
    "pack-data": "train",
    "unpack-data": "train",
    "train": "train",
}
HELP = ("-h", "--help", "-?", "/?")


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    open_console()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    try:
        return _run(words)
    except BrokenPipeError:  # the reader closed the pipe (`worldwarp paths | head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError, ImportError) as error:
        # An error that the user can correct is one sentence; any other is a bug and keeps its traceback.
        print(f"worldwarp: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _run(words: list[str]) -> int:
    name, rest = (words[0], words[1:]) if words else ("help", [])
    wants_help = any(word in HELP for word in words)
    if name in PAGES and wants_help:
        print(page_of(name))
        return 0
    if name == "help" and rest and rest[0] in PAGES:
        print(page_of(rest[0]))
        return 0
    if name == "help" or wants_help:
        print(overview())
        return 0
    if name in ("-V", "--version"):
        from importlib.metadata import version

        print(f"worldwarp {version('worldwarp')}")
        return 0
    if name not in PAGES:
        if name.lower().endswith(IMAGES) or Path(name).exists():
            raise ConfigError(f"there is no command '{name}'; did you mean `worldwarp explore {pasted(*words)}`?")
        raise ConfigError(f"there is no command '{name}'; {nearest(name, [*PAGES, '--version'], PAGES)}")
    module = import_module(f"worldwarp.commands.{MODULES[name]}")  # imported late, since each loads heavy libraries
    command = getattr(module, f"{name.replace('-', '_')}_command")
    return command(rest)


if __name__ == "__main__":
    sys.exit(main())
