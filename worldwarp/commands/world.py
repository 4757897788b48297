"""Commands on stored worlds: `list`, `view`, `export`, `undo`, `forget`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from worldwarp.arguments import (
    WORLDS,
    ConfigError,
    check_world,
    folder_and_settings,
    pasted,
    split_words,
    user_path,
    whole,
)
from worldwarp.commands.signals import handled_signals
from worldwarp.config import check_choice, check_number, check_whole, compose_config


def list_command(words: list[str]) -> int:
    """`worldwarp list [DIR]`: the worlds in a folder."""
    folders, settings = split_words(words)
    if settings or len(folders) > 1:
        raise ConfigError(f"list: want one folder at most, got {' '.join(words)}; name one")
    folder = user_path("list", folders[0] if folders else WORLDS)
    if folders and not folder.is_dir():
        raise ConfigError(f"list: no such folder '{folder}'; want one that holds worlds")

    from worldwarp.gallery import find_worlds
    from worldwarp.needs import MIB

    count = disk_bytes = damaged = 0
    for world in find_worlds(folder):
        print(*world.lines(), sep="\n", flush=True)
        count, damaged = count + 1, damaged + (world.trouble is not None)
        disk_bytes += world.disk_bytes
    if not count:
        print(f"no world in {folder}; make one: worldwarp explore photo.jpg")
        return 0
    worlds = "1 world" if count == 1 else f"{count} worlds"
    print(f"{worlds}, {disk_bytes / MIB:.0f} MiB" + (f"; {damaged} damaged" if damaged else ""))
    return 0


def view_command(words: list[str]) -> int:
    """`worldwarp view DIR [mode=native|web] [port=N]`: open a recording."""
    folder, settings = folder_and_settings("view", words)
    config = compose_config("view", settings)
    check_choice(config, "mode", ("auto", "native", "web"))
    check_whole(config, "port", 1, 65534, optional=True)
    if not folder.exists():
        raise ConfigError(f"view: no such folder or file '{folder}'; want a world's folder, or an .rrd file")

    from viz.viewer_process import has_display
    from worldwarp.recording import open_world

    native = has_display() if config.mode == "auto" else config.mode == "native"
    # The page's server is a process of its own and would outlive this command.
    with _ended_by_signals():
        program, where = open_world(folder, "native" if native else "web", config.port)
        print(f"look at {where}", flush=True)
        if native:
            return 0
        print("Ctrl-C ends it", flush=True)
        try:
            code = program.wait()
        finally:
            program.terminate()
            program.wait()
    raise ConfigError(f"view: the page's server has ended (exit code {code}); start it again")


def export_command(words: list[str]) -> int:
    """`worldwarp export DIR formats=a,b`: write a world for other programs and check it by re-rendering."""
    folder, settings = folder_and_settings("export", words)
    config = compose_config("export", settings)
    out = None if config.out is None else user_path("out", config.out)
    check_number(config, "html_mib", 0.01, 1000.0)
    check_world("export", folder)

    from worldwarp.export import export_world

    for line in export_world(folder, list(config.formats), out, float(config.html_mib)):
        print(line)
    return 0


def undo_command(words: list[str]) -> int:
    """`worldwarp undo DIR`: undo the last chunk, or the last `forget`."""
    folder, settings = folder_and_settings("undo", words)
    if settings:
        raise ConfigError(f"undo: want a folder alone, got {' '.join(settings)} too; leave that out")
    check_world("undo", folder)

    from worldwarp.api import World

    world = World.load(folder)
    # What was undone is told by comparing: undo takes the last change, whichever kind it was.
    before = world.record.chunks
    world.undo()
    after = world.record.chunks
    if len(after) < len(before):
        taken = f"took back chunk {before[-1].index} of {before[-1].frames} frames"
    else:
        taken = f"took back the last forget ({after[-1].primitives - before[-1].primitives} primitives are here again)"
    print(f"{taken}; {folder} holds {len(world.cameras)} frames in chunks 0 to {len(after) - 1} (0 is the photo)")
    print(f"  go on      worldwarp {pasted('explore', folder)}")
    return 0


def forget_command(words: list[str]) -> int:
    """`worldwarp forget DIR [chunks=3,4] [region=x,y,z,x,y,z]`: remove primitives from a world."""
    folder, settings = folder_and_settings("forget", words)
    config = compose_config("forget", settings)
    chunks = [whole("chunks", part) for part in config.chunks]
    corners = _corners(config.region)
    if not chunks and corners is None:
        raise ConfigError("forget: want chunks=3,4 or region=x,y,z,x,y,z, got neither; say what to take out")
    check_world("forget", folder)

    from worldwarp.api import World

    world = World.load(folder)
    count = world.forget(chunks=chunks, region=corners)
    what = [f"of chunk {chunk}" if chunk else "of the photo (chunk 0), all that it showed" for chunk in chunks]
    what += ["in the region"] if corners else []
    if not count:
        print(f"nothing to forget: there is no primitive {' or '.join(what)}; the world is as it was")
        return 0
    print(f"forgot {count} primitives {' and '.join(what)}; the frames stay")
    print(f"  brings them back: worldwarp {pasted('undo', folder)}")
    return 0


def _corners(parts: Sequence[str]) -> tuple[tuple[float, float, float], tuple[float, float, float]] | None:
    """The low and the high corner of ``region=``; None if it is empty."""
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        numbers = []
    if parts and len(numbers) != 6:
        raise ConfigError(f"region: want six numbers, low corner then high corner, got '{','.join(parts)}'")
    return ((numbers[0], numbers[1], numbers[2]), (numbers[3], numbers[4], numbers[5])) if parts else None


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Exit by exception at SIGTERM and SIGHUP, so that started processes are ended as well."""

    def leave(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    with handled_signals(leave, "SIGTERM", "SIGHUP"):
        yield
