"""`worldwarp train` and the commands that make, pack and unpack its data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from worldwarp.arguments import (
    ConfigError,
    options,
    user_path,
    whole,
)
from worldwarp.pages import PAGES


def render_data_command(words: list[str]) -> int:
    """`worldwarp render-data out=DIR assets=DIR`: fetch freely licensed textured worlds and render training clips."""
    values = options("render-data", words, PAGES["render-data"].defaults)
    clips, seed, worker, workers = (whole(key, values[key]) for key in ("clips", "seed", "worker", "workers"))
    out, plan = user_path("out", values["out"]), values["plan"]

    from scenes.dataset.render import render_data
    from scenes.synthetic.assets import fetch_assets

    assets = fetch_assets(user_path("assets", values["assets"]))
    print(render_data(out, clips, seed, assets=assets, worker=worker, workers=workers, plan=plan))
    return 0


def pack_data_command(words: list[str]) -> int:
    """`worldwarp pack-data data=DIR out=DIR`: compress clips into shards of at most 48 MB that travel."""
    values = options("pack-data", words, PAGES["pack-data"].defaults)
    data, out = user_path("data", values["data"]), user_path("out", values["out"])

    from scenes.dataset.shards import pack

    shards = pack(data, out)
    megabytes = sum(path.stat().st_size for path in shards) / 1e6
    print(f"{len(shards)} shards, {megabytes:.0f} MB, in {out}")
    return 0


def unpack_data_command(words: list[str]) -> int:
    """`worldwarp unpack-data shards=DIR out=DIR`: make clips of shards again."""
    values = options("unpack-data", words, PAGES["unpack-data"].defaults)
    shards, out = user_path("shards", values["shards"]), user_path("out", values["out"])

    from scenes.dataset.shards import unpack

    print(unpack(shards, out))
    return 0


def train_command(words: list[str]) -> int:
    """`worldwarp train WHAT data=DIR out=DIR device=cpu|cuda ranks=N`: train a network, or continue its training.

    WHAT is depth, generator, or a stage of the distillation from many steps to few: teacher, trajectories,
    initial-student, student. ``viewer=file`` also records the validations into ``training.rrd``.
    """
    from scenes.dataset.clips import list_clips
    from worldwarp.recording import TrainingWatch
    from worldwarp.training.distributed import check_machine
    from worldwarp.training.record_guides import record_guides
    from worldwarp.training.run import TrainingRun
    from worldwarp.training.train_depth import train_depth
    from worldwarp.training.train_generator import train_generator
    from worldwarp.training.train_student import train_initial_student, train_student
    from worldwarp.training.train_teacher import train_teacher
    from worldwarp.training.trajectories import record_trajectories

    teacher, single = {"teacher": "runs/teacher/ema.safetensors"}, {"ranks": "1", "viewer": "none"}
    two = {**single, "ranks": "2"}
    trainings: dict[str, tuple[Callable[..., None], dict[str, str]]] = {
        "depth": (train_depth, {"start": "", **two}),
        "generator": (train_generator, {"start": "", **two}),
        "teacher": (train_teacher, {"start": "", **single}),
        "trajectories": (record_trajectories, {**teacher, "steps": "256"}),
        "initial-student": (train_initial_student, {**teacher, "trajectories": "runs/trajectories", **single}),
        "student": (train_student, {**teacher, "start": "runs/initial-student/ema.safetensors", **single}),
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
    of_run = [field.name for field in fields(TrainingRun) if field.name in settings]
    run = TrainingRun(**{name: settings.pop(name) for name in of_run}, watch=watch)
    check_machine(run.device, run.ranks)  # before recording guides, which takes long
    if what not in ("depth", "initial-student"):
        record_guides(list_clips(run.data, "train") + list_clips(run.data, "estimated"), run.data / "guides")
    train(run, **settings)
    print(f"written to {run.out}" if what == "trajectories" else f"averaged weights: {run.out / 'ema.safetensors'}")
    return 0


def _setting(key: str, text: str) -> Any:
    """A setting of `train` converted to its type."""
    if key in ("data", "out", "teacher", "trajectories", "start"):
        return user_path(key, text)
    if key == "minutes":
        return float(whole(key, text))
    return text if key == "device" else whole(key, text)
