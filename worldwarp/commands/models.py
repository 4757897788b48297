"""`worldwarp models`: published video models, and folders made of their files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from diffusion.wan.lines import LINES, PRECISIONS, Line, Precision
from worldwarp.arguments import ConfigError, nearest, pasted, split_words, user_path
from worldwarp.config import check_choice, check_whole, compose_config

ROW = "{:<22}{:<31}{:<12}{:<10}{:<8}{}"


def models_command(words: list[str]) -> int:
    """`worldwarp models list`, `convert FILE ...` or `toy DIR`."""
    commands: dict[str, Callable[[Sequence[str]], int]] = {"list": _list, "convert": _convert, "toy": _toy}
    if not words or words[0] not in commands:
        given = words[0] if words else "nothing"
        raise ConfigError(f"models: want what to do, got {given}; {nearest(given, commands, commands)}")
    return commands[words[0]](words[1:])


def _list(words: Sequence[str]) -> int:
    if words:
        raise ConfigError(f"models list: takes no arguments, got {' '.join(words)}")
    print(ROW.format("line", "license of the weights", "commercial", "download", "VRAM", "tried here"))
    for line in LINES.values():
        print(_row(line))
        print(f"    {line.title}")
        if line.weights:
            print(f"    https://huggingface.co/{line.weights}" + "".join(f" {file}" for file in line.files))
    print("Download: the transformer; its text encoder and VAE (23 GB) come once for all lines of a size.")
    print(
        "VRAM: by the memory plan or as published, at 480x832 (ti2v: 704x1280), prompts encoded before; - is not known."
    )
    print("Tried here: whether published weights were run with this program, and not only random ones of their shapes.")
    return 0


def _row(line: Line) -> str:
    commercial = {True: "yes", False: "no", None: "unclear"}[line.commercial]
    download = f"{line.download_gb:g} GB" if line.download_gb else "-"
    memory = f"{line.vram_gib:.0f} GiB" if line.vram_gib else "-"
    return ROW.format(line.name, line.license, commercial, download, memory, "yes" if line.verified else "no")


def _convert(words: Sequence[str]) -> int:
    bare, settings = split_words(words)
    config = compose_config("models/convert", settings)
    check_choice(config, "line", ("auto", *LINES))
    check_choice(config, "precision", ("line", *PRECISIONS))
    if not bare:
        raise ConfigError("models convert: want a file, got none; e.g. `worldwarp models convert self_forcing_dmd.pt`")
    files = [user_path("models convert", word) for word in bare]
    for file in files:
        if not file.exists():
            raise ConfigError(f"models convert: no file or folder '{file}'; check the name")
    out = Path("models") / files[0].stem if config.out is None else user_path("out", config.out)
    precision: Precision | None = next((name for name in PRECISIONS if name == config.precision), None)

    from diffusion.wan.convert import convert

    line = convert(files[0], out, config.line, loras=files[1:], key=config.key, precision=precision)
    if line is None:
        print(f"the VAE is in {out}")
        return 0
    print(f"{line.name}: the transformer is in {out}")
    print(f"  {line.terms}")
    return 0


def _toy(words: Sequence[str]) -> int:
    bare, settings = split_words(words)
    config = compose_config("models/toy", settings)
    check_choice(config, "line", tuple(LINES))
    check_whole(config, "seed", 0, 2**31 - 1)
    if len(bare) != 1:
        raise ConfigError(f"models toy: want one folder, got {', '.join(bare) or 'none'}; e.g. models/toy")
    folder, line = user_path("models toy", bare[0]), LINES[config.line]

    from diffusion.wan.toy import make_toy

    make_toy(folder, line, config.seed)
    print(f"a random model of {line.name} is in {folder}; its pictures are noise")
    print(f"  try it     worldwarp {pasted('explore', 'photo.jpg', 'generator=wan', f'generator.pretrained={folder}')}")
    return 0
