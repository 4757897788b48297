"""Commands on a stored world: `view`, `export`, `undo`, `forget`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from worldwarp.arguments import (
    ConfigError,
    check_world,
    folder_and_options,
    items,
    pasted,
    user_path,
    whole,
)
from worldwarp.commands.signals import handled_signals
from worldwarp.pages import PAGES


def view_command(words: list[str]) -> int:
    """`worldwarp view DIR [mode=native|web] [port=N]`: open a recording."""
    folder, options = folder_and_options("view", words, PAGES["view"].defaults)
    mode, port = options["mode"], whole("port", options["port"]) if options["port"] else None
    if mode not in ("native", "web", ""):
        raise ConfigError(f"mode: want native or web, got '{mode}'")
    if port is not None and not 0 < port < 65535:
        raise ConfigError(f"port: want a whole number from 1 to 65534, got '{port}'")
    if not folder.exists():
        raise ConfigError(f"view: no such folder or file '{folder}'; want a world's folder, or an .rrd file")

    from viz.viewer_process import has_display
    from worldwarp.recording import open_world

    mode = mode or ("native" if has_display() else "web")
    with _ended_by_signals():
        program, where = open_world(folder, "web" if mode == "web" else "native", port)
        print(f"look at {where}", flush=True)
        if mode == "native":
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
    folder, options = folder_and_options("export", words, PAGES["export"].defaults)
    formats, out = items(options["formats"]), user_path("out", options["out"]) if options["out"] else None
    check_world("export", folder)

    from worldwarp.export import export_world

    for line in export_world(folder, formats, out):
        print(line)
    return 0


def undo_command(words: list[str]) -> int:
    """`worldwarp undo DIR`: undo the last chunk, or the last `forget`."""
    folder, _ = folder_and_options("undo", words, {})
    check_world("undo", folder)

    from worldwarp.api import World

    world = World.load(folder)
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
    folder, options = folder_and_options("forget", words, PAGES["forget"].defaults)
    chunks = [whole("chunks", part) for part in items(options["chunks"])]
    corners = _corners(options["region"])
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


def _corners(text: str) -> tuple[tuple[float, float, float], tuple[float, float, float]] | None:
    """The low and the high corner of ``region=``; None if it is empty."""
    parts = items(text)
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        numbers = []
    if parts and len(numbers) != 6:
        raise ConfigError(f"region: want six numbers, low corner then high corner, got '{text}'")
    return ((numbers[0], numbers[1], numbers[2]), (numbers[3], numbers[4], numbers[5])) if parts else None


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Exit by exception at SIGTERM and SIGHUP, so that started processes are ended as well."""

    def leave(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    with handled_signals(leave, "SIGTERM", "SIGHUP"):
        yield
