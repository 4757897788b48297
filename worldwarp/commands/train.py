"""`worldwarp train` and the commands that make, pack and unpack its data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from worldwarp.arguments import ConfigError, nearest, user_path
from worldwarp.config import check_choice, check_number, check_whole, checked_size, compose_config
from worldwarp.pages import TRAININGS

FOLDERS_AND_FILES = ("data", "out", "start", "vae", "latents", "trajectories", "teacher")  # settings of `train`
ACCELERATED = TRAININGS[2:]  # stages of the models of the Wan class, which run on accelerate


def render_data_command(words: list[str]) -> int:
    """`worldwarp render-data out=DIR assets=DIR`: download freely licensed textured scenes and render clips of them."""
    config = compose_config("render_data", words)
    check_choice(config, "plan", ("tracks-and-rooms", "towns", "still-lifes", "panoramas"))
    check_whole(config, "clips", 1, 1_000_000)
    check_whole(config, "seed", 0, 2**31 - 1)
    check_whole(config, "workers", 1, 1024)
    check_whole(config, "worker", 0, config.workers - 1)
    check_whole(config, "frames", 5, 1024)
    size = checked_size(config.size)
    out = user_path("out", config.out)

    from scenes.dataset.render import render_data
    from scenes.synthetic.assets import fetch_assets

    assets = fetch_assets(user_path("assets", config.assets))
    share = {key: config[key] for key in ("worker", "workers", "plan", "frames")}
    print(render_data(out, config.clips, config.seed, assets=assets, size=size, **share))
    return 0


def pack_data_command(words: list[str]) -> int:
    """`worldwarp pack-data data=DIR out=DIR`: compress clips into shards of at most 48 MB that travel."""
    config = compose_config("pack_data", words)
    data, out = user_path("data", config.data), user_path("out", config.out)

    from scenes.dataset.shards import pack

    shards = pack(data, out)
    megabytes = sum(path.stat().st_size for path in shards) / 1e6
    print(f"{len(shards)} shards, {megabytes:.0f} MB, in {out}")
    return 0


def unpack_data_command(words: list[str]) -> int:
    """`worldwarp unpack-data shards=DIR out=DIR`: make clips of shards again."""
    config = compose_config("unpack_data", words)
    shards, out = user_path("shards", config.shards), user_path("out", config.out)

    from scenes.dataset.shards import unpack

    print(unpack(shards, out))
    return 0


def train_command(words: list[str]) -> int:
    """`worldwarp train STAGE data=DIR out=DIR device=cpu|cuda ranks=N`: train a network, or continue its training.

    STAGE is depth or generator; ``viewer=file`` also records the validations into ``training.rrd``. Or a stage of the
    small video diffuser, which `accelerate launch` runs in several processes: vae, latents, diffuser, trajectories,
    initial-student, student.
    """
    stage = words[0] if words else "nothing"
    if stage not in TRAININGS:
        raise ConfigError(f"train: want a stage, got {stage}; {nearest(stage, TRAININGS, TRAININGS)}")
    config = compose_config(f"train/{stage}", words[1:])
    if stage in ACCELERATED:
        return _train_accelerated(stage, config)
    check_choice(config, "device", ("cpu", "cuda"), "; say which GPUs with CUDA_VISIBLE_DEVICES")
    check_whole(config, "seed", 0, 2**31 - 1)
    check_whole(config, "steps", 0, 2**31 - 1)
    check_number(config, "minutes", 0.0, 1e9)
    check_whole(config, "ranks", 1, 1024)
    check_choice(config, "viewer", ("none", "file"), "; look at the file with `worldwarp view FILE.rrd`")
    settings: dict[str, Any] = {
        str(key): _converted(str(key), config[key]) for key in config if config[key] is not None
    }
    viewer = settings.pop("viewer", "none")

    from scenes.dataset.clips import list_clips
    from worldwarp.recording import TrainingWatch
    from worldwarp.training.distributed import check_machine
    from worldwarp.training.record_guides import record_guides
    from worldwarp.training.run import TrainingRun
    from worldwarp.training.train_depth import train_depth
    from worldwarp.training.train_generator import train_generator

    trainings: dict[str, Callable[..., None]] = {
        "depth": train_depth,
        "generator": train_generator,
    }
    watch = TrainingWatch(settings["out"]) if viewer == "file" else None
    of_run = [field.name for field in fields(TrainingRun) if field.name in settings]
    run = TrainingRun(**{name: settings.pop(name) for name in of_run}, watch=watch)
    check_machine(run.device, run.ranks)  # before recording guides, which takes long
    if stage == "generator":
        record_guides(list_clips(run.data, "train") + list_clips(run.data, "estimated"), run.data / "guides")
    trainings[stage](run, **settings)
    print(f"averaged weights: {run.out / 'ema.safetensors'}")
    return 0


def _train_accelerated(stage: str, config: DictConfig) -> int:
    """A stage of the small video diffuser, in as many processes as `accelerate launch` started."""
    check_whole(config, "seed", 0, 2**31 - 1)
    for key in ("steps", "batch", "takes", "samples"):
        if key in config:
            check_whole(config, key, 1, 2**31 - 1)
    for key in ("minutes", "learning_rate"):
        if key in config:
            check_number(config, key, 0.0, 1e9)
    if "lora" in config:
        check_whole(config, "lora", 0, 4096)
    settings: dict[str, Any] = {
        str(key): _converted(str(key), config[key]) for key in config if config[key] is not None
    }

    from worldwarp.training.wan_diffuser import train_diffuser
    from worldwarp.training.wan_latents import record_latents
    from worldwarp.training.wan_student import train_initial_student, train_student
    from worldwarp.training.wan_trajectories import record_trajectories
    from worldwarp.training.wan_vae import train_vae

    trainings: dict[str, Callable[..., None]] = {
        "vae": train_vae,
        "diffuser": train_diffuser,
        "initial-student": train_initial_student,
        "student": train_student,
    }
    out = settings["out"]
    if stage == "latents":
        print(f"{record_latents(**settings)} clips in {out}")
    elif stage == "trajectories":
        print(f"{record_trajectories(**settings)} trajectories in {out}")
    else:
        trainings[stage](**settings)
        print(f"averaged weights: {out}/model" if stage == "vae" else f"a model for generator.pretrained=: {out}/model")
    return 0


def _converted(key: str, value: str | int | float) -> Path | str | int | float:
    """A setting of `train` as the type that the trainings take."""
    if key in FOLDERS_AND_FILES:
        return user_path(key, str(value))
    return float(value) if key in ("minutes", "learning_rate") else value
