"""`worldwarp train` and the commands that make, pack and unpack its data."""

from __future__ import annotations

from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from worldwarp.arguments import ConfigError, nearest, user_path
from worldwarp.config import (
    check_choice,
    check_missing,
    check_number,
    check_whole,
    checked_size,
    compose_config,
)
from worldwarp.pages import TRAININGS

# Resolved when one is asked for: they need the packages of different extras.
TRAIN_FUNCTIONS = {
    "depth": "worldwarp.training.train_depth:train_depth",
    "generator": "worldwarp.training.train_generator:train_generator",
    "vae": "worldwarp.training.wan_vae:train_vae",
    "latents": "worldwarp.training.wan_latents:record_latents",
    "diffuser": "worldwarp.training.wan_diffuser:train_diffuser",
    "trajectories": "worldwarp.training.wan_trajectories:record_trajectories",
    "initial-student": "worldwarp.training.wan_student:train_initial_student",
    "student": "worldwarp.training.wan_student:train_student",
}
FOLDERS_AND_FILES = (
    "data",
    "out",
    "start",
    "encoder",
    "vae",
    "latents",
    "trajectories",
    "teacher",
)  # settings of `train`


def render_data_command(words: list[str]) -> int:
    """`worldwarp render-data out=DIR assets=DIR`: download freely licensed textured scenes and render clips of them."""
    config = compose_config("render_data", words)
    check_choice(config, "plan", ("tracks-and-rooms", "towns", "still-lifes", "panoramas", "stills", "orbits"))
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


def import_video_command(words: list[str]) -> int:
    """`worldwarp import-video images=DIR cameras=FILE out=DIR`: make clips of a filmed video with its cameras."""
    config = compose_config("import_video", words)
    if "path" in list(config.depth):
        raise ConfigError("depth: want an estimator for the frames of a video, got a file; set depth=embedded")
    check_missing(config)
    for key, wanted in (("images", "a folder of frames"), ("cameras", "the file of the frames' cameras")):
        if config[key] is None:
            raise ConfigError(f"{key}: want {wanted}, got nothing; add {key}=...")
    check_whole(config, "frames", 2, 1024)
    check_whole(config, "every", 1, 1024)
    check_whole(config, "apart", 1, 1_000_000, optional=True)
    check_number(config, "fov_deg", 1.0, 150.0, optional=True)
    check_choice(config, "device", ("cpu", "cuda"))
    size = checked_size(config.size)
    images, cameras, out = (user_path(key, config[key]) for key in ("images", "cameras", "out"))

    from scenes.dataset.posed_video import import_video
    from worldwarp.components import part

    plain = {key: config[key] for key in ("name", "frames", "every", "apart", "convention", "fov_deg", "license")}
    made = import_video(images, cameras, out, part(config, "depth", None), size=size, **plain)
    print(f"{made.written + made.kept} clips of {made.name} ({made.split}) in {out}, {made.kept} of them kept")
    if made.left_out:
        print(
            f"{made.left_out} clips are left out: their cameras do not explain the pictures better than a camera that "
            "only turns (it stands, or its poses or its depth are wrong)"
        )
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
    """`worldwarp train STAGE data=DIR out=DIR`: train a network, or continue its training.

    STAGE is depth or generator; or a stage of the small video diffuser: vae, latents, diffuser, trajectories,
    initial-student, student. `accelerate launch -m worldwarp.cli train STAGE ...` trains on several GPUs.
    `worldwarp train fetch-encoder out=FILE` trains nothing: it downloads the weights of DINOv2.
    """
    stage = words[0] if words else "nothing"
    if stage == "fetch-encoder":
        return _fetch_encoder(words[1:])
    if stage not in TRAININGS:
        raise ConfigError(f"train: want a stage, got {stage}; {nearest(stage, TRAININGS, TRAININGS)}")
    config = compose_config(f"train/{stage}", words[1:])
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

    made = resolve_name(TRAIN_FUNCTIONS[stage])(**settings)
    out, whole = settings["out"], stage not in ("depth", "generator", "vae")
    if isinstance(made, int):
        print(f"{made} {'clips' if stage == 'latents' else stage} in {out}")
    else:
        print(f"{'a model for generator.pretrained=' if whole else 'averaged weights'}: {out}/model")
    return 0


def _fetch_encoder(words: list[str]) -> int:
    out = user_path("out", compose_config("train/fetch-encoder", words).out)

    from worldwarp.training.fetch_encoder import fetch_encoder

    print(fetch_encoder(out))
    return 0


def _converted(key: str, value: str | int | float) -> Path | str | int | float:
    """A setting of `train` as the type that the trainings take."""
    if key in FOLDERS_AND_FILES:
        return user_path(key, str(value))
    return float(value) if key in ("minutes", "learning_rate") else value
