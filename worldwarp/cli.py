"""The `worldwarp` command."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

HELP = """\
WorldWarp: one photo and a camera path in; a live, persistent, exportable 3D world out.

  worldwarp explore image=PHOTO path=PATH   make a world
  worldwarp explore resume=DIR [path=PATH]  finish a world that was interrupted; or go on along another path
  worldwarp view DIR                        look at it in Rerun (mode=native|web)
  worldwarp export DIR formats=[...]        gaussians_ply, points_ply, glb, colmap, nerfstudio, mp4
  worldwarp undo DIR                        take back the last chunk, or the last `forget`
  worldwarp forget DIR chunks=[...]         take out what chunks added (or region=[x,y,z,x,y,z], a box)
  worldwarp paths                           what path= can be
  worldwarp doctor                          versions, backends, what each missing extra would give
  worldwarp render-data out=DIR             render training clips from freely licensed textured worlds
  worldwarp pack-data data=DIR out=DIR      compress clips into shards that travel; unpack-data makes clips of them
  worldwarp train WHAT data=DIR out=DIR     train a network (WHAT: depth, generator, teacher, ..., student)

Settings of `explore` (key=value, defaults shown):
{settings}
Groups (group=option; options of a group are set as group.key=value):
{groups}
Exit codes: 0 done, 2 bad input, 130 interrupted and saved."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    if not words or words[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if words[0] in ("-V", "--version"):
        from importlib.metadata import version

        print(f"worldwarp {version('worldwarp')}")
        return 0
    return _run(words[0], words[1:])


def _run(name: str, words: list[str]) -> int:
    from worldwarp import commands
    from worldwarp.config import ConfigError, nearest

    table: dict[str, Callable[[list[str]], int]] = {
        "explore": commands.explore_command,
        "view": commands.view_command,
        "export": commands.export_command,
        "undo": commands.undo_command,
        "forget": commands.forget_command,
        "paths": commands.paths_command,
        "doctor": commands.doctor_command,
        "render-data": commands.render_data_command,
        "pack-data": commands.pack_data_command,
        "unpack-data": commands.unpack_data_command,
        "train": commands.train_command,
    }
    try:
        if name not in table:
            raise ConfigError(f"there is no command '{name}'; {nearest(name, table)}")
        if words and words[0] in ("-h", "--help"):
            print(_help())
            return 0
        return table[name](words)
    except (ValueError, OSError, ImportError) as error:
        # What a user can put right arrives as one sentence; anything else is our bug and keeps its traceback.
        print(f"worldwarp: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _help() -> str:
    from importlib import resources

    from worldwarp.config import group_options

    text = resources.files("worldwarp.conf").joinpath("explore.yaml").read_text(encoding="utf-8")
    settings = text.partition("_self_\n")[2].strip("\n")
    indented = "".join(f"  {line}\n" for line in settings.splitlines())
    groups = "".join(f"  {group:<10} {', '.join(options)}\n" for group, options in sorted(group_options().items()))
    return HELP.format(settings=indented, groups=groups)


if __name__ == "__main__":
    sys.exit(main())
