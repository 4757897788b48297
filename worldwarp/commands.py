"""One function per command of `worldwarp`; each returns an exit code."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from worldwarp.config import ConfigError, compose_config, nearest

INTERRUPTED = 130


def explore_command(words: list[str]) -> int:
    """`worldwarp explore image=... path=...`: plan, walk, store, show."""
    from worldwarp.exploration import prepare, resume
    from worldwarp.watch import after, introduce, open_viewer, show

    config = compose_config("explore", words)
    if config.resume is None:
        folder = Path(config.out or f"worlds/{Path(config.image or 'world').stem}")
        _check_free(folder)
        with _waiting("reading the photo and estimating its depth"):
            exploration = prepare(config)
    else:
        folder = Path(config.resume)
        _check_resume_words(words)
        with _waiting("opening the world"):
            exploration = resume(folder, config.device)
    with _waiting("looking along the path (the first run compiles its kernels)"):
        plan = exploration.plan()
    for line in plan.lines():
        tqdm.write(line)
    recorder = open_viewer(config.viewer, folder)
    try:
        if exploration.world is None:
            exploration.store_in(folder)
        introduce(recorder, exploration, plan)
        with _stop_after_chunk() as asked_to_stop, tqdm(total=plan.frames, unit="frame", smoothing=0.2) as bar:
            for step in exploration.steps():
                show(recorder, step)
                bar.set_postfix_str(f"chunk {step.chunk.index}, {step.gauges['hole_ratio']:.0%} new")
                bar.update(len(step.chunk.frames))
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
    """`worldwarp view DIR [mode=native|web]`: look at a recording."""
    from viz.view import open_recording
    from viz.viewer import has_display

    folder, options = _folder_and_options("view", words, {"mode": "native" if has_display() else "web"})
    mode = options["mode"]
    if mode not in ("native", "web"):
        raise ConfigError(f"mode: want native or web, got '{mode}'")
    program, where = open_recording(folder, "web" if mode == "web" else "native")
    print(f"look at {where}")
    if mode == "web":
        print("Ctrl-C ends it")
        program.wait()
    return 0


def export_command(words: list[str]) -> int:
    """`worldwarp export DIR formats=[...]`: write a world for other programs and check it by re-rendering."""
    from worldwarp.export import DEFAULT_FORMATS, export_world

    folder, options = _folder_and_options("export", words, {"formats": DEFAULT_FORMATS, "out": ""})
    formats = [name.strip() for name in options["formats"].strip("[]").split(",") if name.strip()]
    for line in export_world(folder, formats, Path(options["out"]) if options["out"] else None):
        print(line)
    return 0


def paths_command(words: list[str]) -> int:
    """`worldwarp paths`: what `path=` can be."""
    from geometry.presets import PRESETS

    _no_more("paths", words)
    print("Moves (set with move:distance=D:angle_deg=A:frames=N; distance 1 = the photo's median depth):")
    for name, preset in PRESETS.items():
        print(f"  {name:<14} {preset.description}")
    print("Join them with ',' one after the other and with '+' at the same time: left,orbit  forward+pan:angle_deg=20")
    print("Files: our keyframes, nerfstudio transforms.json and camera_path.json, COLMAP folders, TUM, RealEstate10K")
    print("  .npy pose stacks with convention=c2w_opencv|c2w_opengl|w2c_opencv|w2c_opengl")
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


def train_command(words: list[str]) -> int:
    """`worldwarp train depth|generator data=DIR out=DIR`: train an embedded network, or go on training it."""
    from diffusion.training.train_depth import train_depth
    from diffusion.training.train_generator import train_generator

    trainings = {"depth": train_depth, "generator": train_generator}
    if not words or words[0] not in trainings:
        raise ConfigError(f"train: want depth or generator, got {words[0] if words else 'nothing'}")
    what, rest = words[0], words[1:]
    defaults = {
        "data": "runs/data",
        "out": f"runs/{what}",
        "steps": "4000",
        "minutes": "600",
        "ranks": "2",
        "seed": "0",
    }
    options = _options(f"train {what}", rest, defaults)
    whole = {key: _whole(key, options[key]) for key in ("steps", "minutes", "ranks", "seed")}
    trainings[what](Path(options["data"]), Path(options["out"]), **whole)
    print(f"averaged weights: {Path(options['out']) / 'ema.safetensors'}")
    return 0


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

    handlers = {number: signal.signal(number, on_interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _check_free(folder: Path) -> None:
    """Refuse an output that holds something before any work is done (`World.create` checks again)."""
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise ConfigError(
            f"out: {folder} is not empty; choose another, or go on with `worldwarp explore resume={folder}`"
        )


def _check_resume_words(words: list[str]) -> None:
    """A world goes on with the settings it was made with; only where it runs and who watches can change."""
    for word in words:
        key = word.partition("=")[0]
        if key not in ("resume", "device", "viewer") and not key.startswith("viewer."):
            raise ConfigError(
                f"resume: the world goes on with its own settings; remove {key}= (or start anew with out=)"
            )


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
