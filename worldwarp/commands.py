"""One function per command of `worldwarp`; each returns an exit code."""

from __future__ import annotations

import signal
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from io import TextIOBase
from pathlib import Path
from shutil import get_terminal_size
from typing import Any, cast

from omegaconf import DictConfig
from tqdm import tqdm

from worldwarp.arguments import (
    LIVE,
    MANIFEST,
    ConfigError,
    check_world,
    command_words,
    default_folder,
    folder_and_options,
    items,
    options,
    pasted,
    user_path,
    whole,
)
from worldwarp.config import ONWARD, check_explore, compose_config, escaped
from worldwarp.console import Progress, waiting
from worldwarp.pages import PAGES

INTERRUPTED = 130
PATH_EXAMPLES = {
    "out_and_back": "a safe first look: ahead and back",
    "orbit:angle_deg=15": "around a subject, less than by default",
    "left:distance=0.15,right:distance=0.3": "from side to side",
    "forward+pan:angle_deg=20": "ahead while looking to the right",
    "look_around,forward:frames=33": "turn on the spot, then walk on slowly",
    "keys": "drive with the keyboard, a chunk per key",
    "camera_path.json": "along a camera path of nerfstudio",
}


def explore_command(words: list[str]) -> int:
    """`worldwarp explore PHOTO PATH`, or a world's folder: plan, walk, store, show."""
    words = command_words(words)
    config = compose_config("explore", words)
    check_explore(config)
    changes: dict[str, Any] = {}
    if config.resume is None:
        folder = user_path("out", config.out or default_folder(config.image))
        _check_free(folder)
    else:
        folder = user_path("resume", config.resume)
        changes = onward(words, config)
        check_world("resume", folder)

    from worldwarp.driving import drive
    from worldwarp.exploration import prepare, resume
    from worldwarp.steering import introduction, typed
    from worldwarp.watch import after, introduce, open_viewer, show

    if config.resume is None:
        with waiting("reading the photo and estimating its depth"):
            exploration = prepare(config, out=folder, tell=tqdm.write)
    else:
        with waiting("opening the world"):
            exploration = resume(folder, config.device, changes, tell=tqdm.write)
    steered = exploration.settings.path == LIVE
    if not exploration.remaining and not steered:
        print(f"already finished: {exploration.walk.frames} frames in {folder}")
        print(f"  look       worldwarp {pasted('view', folder)}")
        print(f"  take away  worldwarp {pasted('export', folder)}")
        print(f"  go on      worldwarp {pasted('explore', folder, 'up,orbit')}")
        return 0
    with waiting("looking along the path (the first run compiles its kernels)"):
        plan = exploration.plan()
    for line in introduction(plan, exploration.settings.chunk) if steered else plan.lines():
        print(line)
    recorder = open_viewer(config.viewer, folder)
    try:
        if exploration.world is None:
            exploration.store_in(folder)
        introduce(recorder, exploration, plan)
        print(f"viewer   {recorder.how_to_look}")
        total, begun = None if steered else plan.frames or None, exploration.walk.frames
        with _stop_after_chunk() as asked_to_stop, Progress(total) as progress:
            steps = exploration.steps()
            if steered:
                keys = typed(cast(TextIOBase, sys.stdin), asked_to_stop)
                steps = drive(exploration, keys, recorder, tqdm.write, waiting)
            for step in steps:
                show(recorder, step)
                new = f"chunk {step.chunk.index}, {step.gauges['hole_ratio']:.0%} new"
                progress.reach(exploration.walk.frames - begun, new)  # a key may have taken some back
                if asked_to_stop():
                    break
        with waiting("writing the video"):
            exploration.write_video()
    finally:
        recorder.close()
    for line in after(exploration):
        print(line)
    return INTERRUPTED if exploration.remaining else 0


def view_command(words: list[str]) -> int:
    """`worldwarp view DIR [mode=native|web] [port=N]`: look at a recording."""
    folder, options = folder_and_options("view", words, PAGES["view"].defaults)
    mode, port = options["mode"], whole("port", options["port"]) if options["port"] else None
    if mode not in ("native", "web", ""):
        raise ConfigError(f"mode: want native or web, got '{mode}'")
    if port is not None and not 0 < port < 65535:
        raise ConfigError(f"port: want a whole number from 1 to 65534, got '{port}'")
    if not folder.exists():
        raise ConfigError(f"view: no such folder or file '{folder}'; want a world's folder, or an .rrd file")

    from viz.viewer import has_display
    from worldwarp.watch import open_world

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
    """`worldwarp undo DIR`: take back the last chunk, or the last `forget`."""
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
    """`worldwarp forget DIR [chunks=3,4] [region=x,y,z,x,y,z]`: take primitives out of a world."""
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
    """The low and the high corner that ``region=`` names; None when nothing is said."""
    parts = items(text)
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        numbers = []
    if parts and len(numbers) != 6:
        raise ConfigError(f"region: want six numbers, low corner then high corner, got '{text}'")
    return ((numbers[0], numbers[1], numbers[2]), (numbers[3], numbers[4], numbers[5])) if parts else None


def paths_command(words: list[str]) -> int:
    """`worldwarp paths`: what `path=` can be."""
    from geometry.path_text import PRESETS

    _no_more("paths", words)
    print("Moves, with their defaults (distance 1 is the photo's median depth):")
    width = max(get_terminal_size().columns - 1, 60)
    for name, preset in PRESETS.items():
        given = {"distance": preset.distance, "angle_deg": preset.angle_deg, "frames": preset.frames}
        shown = " ".join(f"{key}={value:g}" for key, value in given.items() if value is not None)
        print(f"  {name:<13} {shown}")
        print(textwrap.fill(preset.description, width, initial_indent=" " * 16, subsequent_indent=" " * 16))
    print("Set them with colons, join moves with ',' (one after the other) and '+' (at the same time):")
    for path, purpose in PATH_EXAMPLES.items():
        print(f"  path={path:<38} {purpose}")
    print("Files: our keyframes, nerfstudio transforms.json and camera_path.json, COLMAP folders, TUM, RealEstate10K,")
    print("  .npy pose stacks with convention=c2w_opencv|c2w_opengl|w2c_opencv|w2c_opengl")
    print("  8 columns that do not tell the order of their quaternion with convention=tum_xyzw|tum_wxyz")
    print("  path_scale=0.2 (or auto) fits a file's unit to the photo's: its median depth, or a metre for metric depth")
    return 0


def doctor_command(words: list[str]) -> int:
    """`worldwarp doctor`: what is here and what is missing."""
    from worldwarp.doctor import diagnosis

    _no_more("doctor", words)
    for line in diagnosis():
        print(line)
    return 0


def render_data_command(words: list[str]) -> int:
    """`worldwarp render-data out=DIR assets=DIR`: fetch freely licensed textured worlds and render training clips."""
    values = options("render-data", words, PAGES["render-data"].defaults)
    clips, seed, worker, workers = (whole(key, values[key]) for key in ("clips", "seed", "worker", "workers"))
    out, plan = user_path("out", values["out"]), values["plan"]

    from scenes.render_data import render_data
    from scenes.textured_assets import fetch_assets

    assets = fetch_assets(user_path("assets", values["assets"]))
    print(render_data(out, clips, seed, assets=assets, worker=worker, workers=workers, plan=plan))
    return 0


def pack_data_command(words: list[str]) -> int:
    """`worldwarp pack-data data=DIR out=DIR`: compress clips into shards of at most 48 MB that travel."""
    values = options("pack-data", words, PAGES["pack-data"].defaults)
    data, out = user_path("data", values["data"]), user_path("out", values["out"])

    from scenes.shards import pack

    shards = pack(data, out)
    megabytes = sum(path.stat().st_size for path in shards) / 1e6
    print(f"{len(shards)} shards, {megabytes:.0f} MB, in {out}")
    return 0


def unpack_data_command(words: list[str]) -> int:
    """`worldwarp unpack-data shards=DIR out=DIR`: make clips of shards again."""
    values = options("unpack-data", words, PAGES["unpack-data"].defaults)
    shards, out = user_path("shards", values["shards"]), user_path("out", values["out"])

    from scenes.shards import unpack

    print(unpack(shards, out))
    return 0


def train_command(words: list[str]) -> int:
    """`worldwarp train WHAT data=DIR out=DIR device=cpu|cuda ranks=N`: train an embedded network, or go on training it.

    WHAT is depth, generator, or a stage of the way from many steps to few: teacher, trajectories, initial-student,
    student. ``viewer=file`` also records the validations into ``training.rrd``.
    """
    from diffusion.training.clips import list_clips
    from diffusion.training.machine import check_machine
    from diffusion.training.run import TrainingRun
    from diffusion.training.train_depth import train_depth
    from diffusion.training.train_generator import train_generator
    from diffusion.training.train_student import train_initial_student, train_student
    from diffusion.training.train_teacher import train_teacher
    from diffusion.training.trajectories import record_trajectories
    from worldwarp.training_guides import record_guides
    from worldwarp.training_watch import TrainingWatch

    teacher, alone = {"teacher": "runs/teacher/ema.safetensors"}, {"ranks": "1", "viewer": "none"}
    two = {**alone, "ranks": "2"}
    trainings: dict[str, tuple[Callable[..., None], dict[str, str]]] = {
        "depth": (train_depth, {"start": "", **two}),
        "generator": (train_generator, {"start": "", **two}),
        "teacher": (train_teacher, {"start": "", **alone}),
        "trajectories": (record_trajectories, {**teacher, "steps": "256"}),
        "initial-student": (train_initial_student, {**teacher, "trajectories": "runs/trajectories", **alone}),
        "student": (train_student, {**teacher, "start": "runs/initial-student/ema.safetensors", **alone}),
    }
    if not words or words[0] not in trainings:
        raise ConfigError(f"train: want one of {', '.join(trainings)}, got {words[0] if words else 'nothing'}")
    what, rest = words[0], words[1:]
    train, own = trainings[what]
    defaults = {"data": "runs/data", "out": f"runs/{what}", "steps": "4000", "minutes": "600", "seed": "0"}
    values = options(f"train {what}", rest, {**defaults, "device": "cpu", **own})
    viewer = values.pop("viewer", "none")
    settings = {key: _setting(key, text) for key, text in values.items() if text}
    if viewer not in ("none", "file"):
        raise ConfigError(f"viewer: want none or file (then look at it with `worldwarp view FILE.rrd`), got '{viewer}'")
    watch = TrainingWatch(settings["out"]) if viewer == "file" else None
    told = [field.name for field in fields(TrainingRun) if field.name in settings]
    run = TrainingRun(**{name: settings.pop(name) for name in told}, watch=watch)
    check_machine(run.device, run.ranks)  # before the guides, which take long
    if what not in ("depth", "initial-student"):
        record_guides(list_clips(run.data, "train") + list_clips(run.data, "estimated"), run.data / "guides")
    train(run, **settings)
    print(f"written to {run.out}" if what == "trajectories" else f"averaged weights: {run.out / 'ema.safetensors'}")
    return 0


def _setting(key: str, text: str) -> Any:
    """A setting of `train` in its type."""
    if key in ("data", "out", "teacher", "trajectories", "start"):
        return user_path(key, text)
    if key == "minutes":
        return float(whole(key, text))
    return text if key == "device" else whole(key, text)


@contextmanager
def _stop_after_chunk() -> Iterator[Callable[[], bool]]:
    """Ctrl-C once: finish the chunk and save. Twice: stop at once (what was committed is safe)."""
    asked = False

    def on_interrupt(_signal: int, _frame: object) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        tqdm.write("stopping after this chunk (Ctrl-C again stops at once)", file=sys.stderr)

    with _handled(on_interrupt, "SIGINT", "SIGTERM", "SIGHUP"):
        yield lambda: asked


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Leave in order, so that what was started is ended as well, when asked to or when the terminal closes."""

    def leave(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    with _handled(leave, "SIGTERM", "SIGHUP"):
        yield


@contextmanager
def _handled(handler: Callable[[int, object], None], *names: str) -> Iterator[None]:
    """Handle signals: those that this system has, and that nobody (``nohup``) asked to ignore."""
    numbers = [signal.Signals[name] for name in names if name in signal.Signals.__members__]
    before = {number: signal.getsignal(number) for number in numbers}
    before = {number: handled for number, handled in before.items() if handled is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, handled in before.items():
            signal.signal(number, handled)


def _check_free(folder: Path) -> None:
    """Refuse an output that holds something before any work is done (`World.create` checks again)."""
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        there = (folder / MANIFEST).is_file()
        others = f", or go on with `worldwarp {pasted('explore', folder)}`" if there else ""
        raise ConfigError(f"out: {folder} is not empty; choose another with out={others}")


def onward(words: list[str], config: DictConfig) -> dict[str, Any]:
    """What `explore resume=DIR` says of the way on; it may say where to run and who watches, and nothing else."""
    given = {word.partition("=")[0] for word in words}
    for key in sorted(given):
        if key not in (*ONWARD, "resume", "device", "viewer") and not key.startswith("viewer."):
            raise ConfigError(
                f"resume: the world goes on with its own settings; remove {key}= (or start anew with out=)"
            )
    if given & set(ONWARD) and "path" not in given:
        raise ConfigError("resume: frames=, convention= and path_scale= belong to a new path; give path= as well")
    values = {key: config[key] for key in ONWARD if key in given}
    return {key: escaped(value) if isinstance(value, str) else value for key, value in values.items()}


def _no_more(command: str, words: list[str]) -> None:
    if words:
        raise ConfigError(f"{command}: takes no arguments, got {' '.join(words)}")
