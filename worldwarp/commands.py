"""One function per command of `worldwarp`; each returns an exit code."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from io import TextIOBase
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig
from tqdm import tqdm

from worldwarp.config import ONWARD, ConfigError, compose_config, nearest

INTERRUPTED = 130


def explore_command(words: list[str]) -> int:
    """`worldwarp explore image=... path=...`: plan, walk, store, show."""
    from worldwarp.driving import drive
    from worldwarp.exploration import prepare, resume
    from worldwarp.steering import LIVE, introduction, typed
    from worldwarp.watch import after, introduce, open_viewer, show

    config = compose_config("explore", words)
    if config.resume is None:
        folder = Path(config.out or f"worlds/{Path(config.image or 'world').stem}")
        _check_free(folder)
        with _waiting("reading the photo and estimating its depth"):
            exploration = prepare(config, out=folder, tell=tqdm.write)
    else:
        folder = Path(config.resume)
        changes = onward(words, config)
        with _waiting("opening the world"):
            exploration = resume(folder, config.device, changes, tell=tqdm.write)
    with _waiting("looking along the path (the first run compiles its kernels)"):
        plan = exploration.plan()
    steered = exploration.settings.path == LIVE
    for line in introduction(plan, exploration.settings.chunk) if steered else plan.lines():
        tqdm.write(line)
    recorder = open_viewer(config.viewer, folder)
    try:
        if exploration.world is None:
            exploration.store_in(folder)
        introduce(recorder, exploration, plan)
        tqdm.write(f"viewer   {recorder.how_to_look}")
        total, begun = None if steered else plan.frames or None, exploration.walk.frames
        with _stop_after_chunk() as asked_to_stop, tqdm(total=total, unit="frame", smoothing=0.2) as bar:
            steps = exploration.steps()
            if steered:
                keys = typed(cast(TextIOBase, sys.stdin), asked_to_stop)
                steps = drive(exploration, keys, recorder, tqdm.write, _waiting)
            for step in steps:
                show(recorder, step)
                bar.set_postfix_str(f"chunk {step.chunk.index}, {step.gauges['hole_ratio']:.0%} new")
                bar.update(exploration.walk.frames - begun - bar.n)  # a key may have taken some back
                if asked_to_stop():
                    break
        with _waiting("writing the video"):
            exploration.write_video()
    finally:
        recorder.close()
    for line in after(exploration):
        tqdm.write(line)
    return INTERRUPTED if exploration.remaining else 0


def view_command(words: list[str]) -> int:
    """`worldwarp view DIR [mode=native|web] [port=N]`: look at a recording."""
    from viz.viewer import has_display
    from worldwarp.watch import open_world

    defaults = {"mode": "native" if has_display() else "web", "port": ""}
    folder, options = _folder_and_options("view", words, defaults)
    mode, port = options["mode"], _whole("port", options["port"]) if options["port"] else None
    if mode not in ("native", "web"):
        raise ConfigError(f"mode: want native or web, got '{mode}'")
    if port is not None and not 0 < port < 65535:
        raise ConfigError(f"port: want a whole number from 1 to 65534, got '{port}'")
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
    """`worldwarp export DIR formats=[...]`: write a world for other programs and check it by re-rendering."""
    from worldwarp.export import DEFAULT_FORMATS, export_world

    folder, options = _folder_and_options("export", words, {"formats": DEFAULT_FORMATS, "out": ""})
    formats = [name.strip() for name in options["formats"].strip("[]").split(",") if name.strip()]
    for line in export_world(folder, formats, Path(options["out"]) if options["out"] else None):
        print(line)
    return 0


def undo_command(words: list[str]) -> int:
    """`worldwarp undo DIR`: take back the last chunk, or the last `forget`."""
    from worldwarp.api import World

    folder, _ = _folder_and_options("undo", words, {})
    world = World.load(folder)
    world.undo()
    print(f"{folder} holds {len(world.cameras)} frames; go on with `worldwarp explore resume={folder}`")
    return 0


def forget_command(words: list[str]) -> int:
    """`worldwarp forget DIR [chunks=[3,4]] [region=[x,y,z,x,y,z]]`: take primitives out of a world."""
    from worldwarp.api import World

    folder, options = _folder_and_options("forget", words, {"chunks": "", "region": ""})
    chunks, corners = ([part for part in options[key].strip("[]").split(",") if part] for key in ("chunks", "region"))
    try:
        numbers = [float(part) for part in corners]
    except ValueError:
        numbers = []
    if corners and len(numbers) != 6:
        raise ConfigError(f"region: want six numbers, low corner then high corner, got '{options['region']}'")
    x, y, z, x_high, y_high, z_high = numbers or [0.0] * 6
    region = ((x, y, z), (x_high, y_high, z_high)) if corners else None
    world = World.load(folder)
    count = world.forget(chunks=[_whole("chunks", part.strip()) for part in chunks], region=region)
    print(f"forgot {count} primitives; `worldwarp undo {folder}` brings them back")
    return 0


def paths_command(words: list[str]) -> int:
    """`worldwarp paths`: what `path=` can be."""
    from geometry.presets import PRESETS

    _no_more("paths", words)
    print("Moves (set with move:distance=D:angle_deg=A:frames=N; distance 1 = the photo's median depth):")
    for name, preset in PRESETS.items():
        print(f"  {name:<14} {preset.description}")
    print("Join them with ',' one after the other and with '+' at the same time: left,orbit  forward+pan:angle_deg=20")
    print("keys: drive with the keyboard, a chunk per key")
    print("Files: our keyframes, nerfstudio transforms.json and camera_path.json, COLMAP folders, TUM, RealEstate10K")
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
    from scenes.render_data import render_data
    from scenes.textured_assets import fetch_assets

    defaults = {"out": "runs/data", "assets": "runs/assets", "clips": "900", "seed": "0", "worker": "0", "workers": "1",
                "plan": "tracks-and-rooms"}  # fmt: skip
    options = _options("render-data", words, defaults)
    clips, seed, worker, workers = (_whole(key, options[key]) for key in ("clips", "seed", "worker", "workers"))
    assets = fetch_assets(Path(options["assets"]))
    out, plan = Path(options["out"]), options["plan"]
    print(render_data(out, clips, seed, assets=assets, worker=worker, workers=workers, plan=plan))
    return 0


def pack_data_command(words: list[str]) -> int:
    """`worldwarp pack-data data=DIR out=DIR`: compress clips into shards of at most 48 MB that travel."""
    from scenes.shards import pack

    options = _options("pack-data", words, {"data": "runs/data", "out": "runs/shards"})
    shards = pack(Path(options["data"]), Path(options["out"]))
    megabytes = sum(path.stat().st_size for path in shards) / 1e6
    print(f"{len(shards)} shards, {megabytes:.0f} MB, in {options['out']}")
    return 0


def unpack_data_command(words: list[str]) -> int:
    """`worldwarp unpack-data shards=DIR out=DIR`: make clips of shards again."""
    from scenes.shards import unpack

    options = _options("unpack-data", words, {"shards": "runs/shards", "out": "runs/data"})
    print(unpack(Path(options["shards"]), Path(options["out"])))
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
    options = _options(f"train {what}", rest, {**defaults, "device": "cpu", **own})
    viewer = options.pop("viewer", "none")
    settings = {key: _setting(key, text) for key, text in options.items() if text}
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
        return Path(text)
    if key == "minutes":
        return float(_whole(key, text))
    return text if key == "device" else _whole(key, text)


@contextmanager
def _waiting(text: str) -> Iterator[None]:
    """Say what is being waited for, and clear the line after."""
    with tqdm(total=1, desc=text, bar_format="{desc} … {elapsed}", leave=False):
        yield


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
        raise ConfigError(
            f"out: {folder} is not empty; choose another, or go on with `worldwarp explore resume={folder}`"
        )


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
    return {key: config[key] for key in ONWARD if key in given}


def _folder_and_options(command: str, words: list[str], defaults: dict[str, str]) -> tuple[Path, dict[str, str]]:
    """Split `DIR key=value ...`; unknown keys are refused with the nearest valid name."""
    folders = [word for word in words if "=" not in word]
    if len(folders) != 1:
        raise ConfigError(
            f"{command}: want one folder, got {folders or 'none'}; e.g. `worldwarp {command} worlds/pagoda`"
        )
    return Path(folders[0]), _options(command, [word for word in words if "=" in word], defaults)


def _options(command: str, words: list[str], defaults: dict[str, str]) -> dict[str, str]:
    options = dict(defaults)
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise ConfigError(f"{command}: want key=value, got '{word}'")
        if key not in defaults:
            raise ConfigError(f"unknown setting '{key}' of {command}; {nearest(key, defaults)}")
        options[key] = value
    return options


def _whole(key: str, text: str) -> int:
    if not text.isdecimal():
        raise ConfigError(f"{key}: want a whole number, got '{text}'")
    return int(text)


def _no_more(command: str, words: list[str]) -> None:
    if words:
        raise ConfigError(f"{command}: takes no arguments, got {' '.join(words)}")
