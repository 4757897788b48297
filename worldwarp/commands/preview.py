"""`worldwarp preview`: what a planned path would show, before it is walked."""

from __future__ import annotations

from pathlib import Path

from tqdm import tqdm

from worldwarp.arguments import (
    BY_ITSELF,
    LIVE,
    ConfigError,
    check_world,
    command_words,
    default_folder,
    pasted,
    user_path,
)
from worldwarp.config import check_explore, compose_config, onward
from worldwarp.console import waiting


def preview_command(words: list[str]) -> int:
    """`worldwarp preview PHOTO PATH [out=FILE]`, or a world's folder: look along the path with what is known now."""
    own = [word for word in words if word.startswith("out=")]
    out = compose_config("preview", own).out
    words = command_words([word for word in words if word not in own])
    config = compose_config("explore", [*words, "viewer=none"])
    if config.path == LIVE:
        raise ConfigError("path: want moves or a camera file to look along, got keys; e.g. orbit:angle_deg=20")
    if config.video is not None:
        raise ConfigError("video: a preview looks along a path from a photo or a world, got a clip; leave it out")
    check_explore(config)
    changes = {}
    if config.resume is not None:
        changes = onward(words, config)
        check_world("preview", user_path("preview", config.resume))
    file = _target(out, config.image, config.resume)

    from worldwarp.prepare import prepare
    from worldwarp.preview import look_along, parts_of, views_for
    from worldwarp.resume import resume

    if config.resume is None:
        with waiting("reading the photo and estimating its depth"):
            session = prepare(config, tell=tqdm.write)
    else:
        with waiting("opening the world"):
            session = resume(Path(config.resume), config.device, changes, tell=tqdm.write, store=False)
    if not session.remaining:
        raise ConfigError(f"preview: {config.resume} is finished; want a path, e.g. {pasted(config.resume, 'orbit')}")
    with waiting("looking along the path (the first run compiles its kernels)"):
        plan = session.plan()
        cameras, text = session.cameras[session.state.frames :], session.settings.path
        if text == BY_ITSELF:
            leg = session.next_leg()
            if leg is None:
                raise ConfigError("path: auto finds nothing to add; want moves, e.g. orbit")
            cameras = leg.cameras
        whole = session.state.frames == 1 or bool(changes)
        parts = parts_of(text if whole else None, len(cameras))
        seen = look_along(session.state.view, session.photo, cameras, views_for(file, parts, len(cameras)))
    for line in plan.lines():
        print(line)
    if text == BY_ITSELF:
        print(f"path     auto chooses as it goes; these are its first {len(cameras)} frames")
    for line in seen.lines(parts):
        print(line)
    seen.write(file, session.settings.fps)
    height, width = seen.rgb.shape[2:]
    print(f"wrote    {file}: {len(seen.frames)} views of {width}x{height}; magenta is not known yet")
    print(f"  walk it    worldwarp {pasted('explore', *_bare(words))}")
    return 0


def _target(out: str | None, image: str | None, folder: str | None) -> Path:
    """The file of the preview.

    Raises:
        ConfigError: a file of another kind.
    """
    if out is None:
        world = default_folder(image) if image is not None else None
        return world.with_name(f"{world.name}-preview.jpg") if world is not None else Path(str(folder)) / "preview.jpg"
    file = user_path("out", out)
    if file.suffix.lower() not in (".jpg", ".jpeg", ".png", ".gif"):
        raise ConfigError(f"out: want a file .jpg, .png or .gif, got '{file}'")
    if file.is_dir():
        raise ConfigError(f"out: {file} is a folder; choose another name for the file")
    return file


def _bare(words: list[str]) -> list[str]:
    """Words of a command as people type them: photo or folder, path, the rest."""
    given = {key: value for key, _, value in (word.partition("=") for word in words)}
    first = [given.pop(key) for key in ("image", "resume", "path") if key in given]
    return [*first, *(f"{key}={value}" for key, value in given.items())]
