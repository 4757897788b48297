"""Help pages of the commands: examples, settings and their defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources


@dataclass(frozen=True)
class Page:
    """Help page of a command.

    Attributes:
        usage: the words after `worldwarp`.
        purpose: one line.
        examples: purpose to command line.
        settings: key to (default as text, description); those of `explore` are in ``worldwarp/conf``.
        notes: further lines.
    """

    usage: str
    purpose: str
    examples: Mapping[str, str]
    settings: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def defaults(self) -> dict[str, str]:
        """The default of each setting."""
        return {key: default for key, (default, _) in self.settings.items()}


_WORKERS = {
    "clips": ("900", "how many"),
    "seed": ("0", "another seed, other clips"),
    "worker": ("0", "which of the workers this one is"),
    "workers": ("1", "how many share the clips"),
}

PAGES = {
    "explore": Page(
        "explore PHOTO PATH",
        "make a world, or continue one (explore DIR)",
        {
            "a first world, in worlds/photo": "worldwarp explore photo.jpg",
            "another path": "worldwarp explore photo.jpg orbit:angle_deg=20 out=worlds/mine",
            "larger frames": "worldwarp explore photo.jpg size=720",
            "drive with the keyboard": "worldwarp explore photo.jpg keys",
            "finish a world that was interrupted": "worldwarp explore worlds/mine",
            "continue from its last frame": 'worldwarp explore worlds/mine "up,orbit"',
        },
    ),
    "view": Page(
        "view DIR",
        "look at a world in Rerun",
        {"in a browser": "worldwarp view worlds/mine mode=web"},
        {
            "mode": ("", "native (a window) or web (a page); by default whether there is a display decides"),
            "port": ("", "of the page or window; by default one that is free"),
        },
    ),
    "export": Page(
        "export DIR",
        "write a world for other programs, and check it by rendering it again",
        {
            "everything": "worldwarp export worlds/mine",
            "Gaussians for a splat viewer": "worldwarp export worlds/mine formats=gaussians_ply",
            "a mesh and a video": 'worldwarp export worlds/mine "formats=glb,mp4" out=taken',
        },
        {
            "formats": (
                "gaussians_ply,points_ply,glb,colmap,nerfstudio,mp4",
                "which to write, joined with commas, in quotes",
            ),
            "out": ("", "folder to write to; by default `exports` in the world's folder"),
        },
    ),
    "undo": Page(
        "undo DIR",
        "take back the last `forget`, or else the last chunk",
        {"once": "worldwarp undo worlds/mine"},
    ),
    "forget": Page(
        "forget DIR",
        "remove the primitives of chunks, or those in a box, from a world",
        {
            "primitives of chunks 3 and 4": 'worldwarp forget worlds/mine "chunks=3,4"',
            "primitives in a box": 'worldwarp forget worlds/mine "region=-1,-1,0.5,1,1,2"',
        },
        {
            "chunks": ("", "numbers of chunks, joined with commas; 0 is the photo"),
            "region": ("", "x,y,z of the low corner, then of the high one (x right, y down, z ahead; scene units)"),
        },
        ("`worldwarp undo DIR` restores the primitives of the last `forget`; exploring there generates new ones.",),
    ),
    "paths": Page("paths", "values of path=", {"the list": "worldwarp paths"}),
    "doctor": Page(
        "doctor", "versions, hardware, weights, and what each missing extra provides", {"check": "worldwarp doctor"}
    ),
    "render-data": Page(
        "render-data",
        "render training clips from freely licensed textured worlds",
        {"streets": "worldwarp render-data plan=towns clips=360"},
        {
            "out": ("runs/data", "folder of the clips"),
            "assets": ("runs/assets", "folder of the worlds that are fetched"),
            **_WORKERS,
            "plan": ("tracks-and-rooms", "tracks-and-rooms, towns, still-lifes or panoramas"),
        },
    ),
    "pack-data": Page(
        "pack-data",
        "compress clips into shards of at most 48 MB that travel",
        {"all clips": "worldwarp pack-data data=runs/data out=runs/shards"},
        {"data": ("runs/data", "folder of the clips"), "out": ("runs/shards", "folder of the shards")},
    ),
    "unpack-data": Page(
        "unpack-data",
        "make clips of shards again",
        {"all shards": "worldwarp unpack-data shards=runs/shards out=runs/data"},
        {"shards": ("runs/shards", "folder of the shards"), "out": ("runs/data", "folder of the clips")},
    ),
    "train": Page(
        "train WHAT",
        "train an embedded network, or continue its training",
        {
            "the depth network": "worldwarp train depth data=runs/data out=runs/depth",
            "the generator, from weights": "worldwarp train generator start=runs/generator/ema.safetensors",
        },
        {
            "data": ("runs/data", "folder of the clips"),
            "out": ("", "folder of the run; by default runs/WHAT"),
            "steps": ("4000", "optimizer steps (trajectories: of the teacher, 256)"),
            "minutes": ("600", "stop after so long, saved"),
            "seed": ("0", "another seed, another run"),
            "device": ("cpu", "cpu or cuda"),
            "ranks": ("", "processes; 2 for depth and generator, else 1"),
            "start": ("", "weights to start from (depth, generator, teacher, student)"),
            "viewer": ("none", "file also records the validations into training.rrd"),
        },
        ("WHAT: depth, generator; or, from many steps to few, teacher, trajectories, initial-student, student.",),
    ),
}

HEAD = """\
WorldWarp: one photo and a camera path in; a live, persistent, exportable 3D world out.

The first command:
  worldwarp explore photo.jpg

Commands (`worldwarp COMMAND --help` tells more of each):
"""
FOOT = "Exit codes: 0 done, 2 bad input, 130 interrupted and saved."


def overview() -> str:
    """The page of `worldwarp --help`."""
    width = max(len(page.usage) for page in PAGES.values())
    commands = "".join(f"  worldwarp {page.usage:<{width}}  {page.purpose}\n" for page in PAGES.values())
    return f"{HEAD}{commands}\n{FOOT}"


def page_of(command: str) -> str:
    """The page of `worldwarp COMMAND --help`."""
    page = PAGES[command]
    lines = [f"worldwarp {page.usage}: {page.purpose}", "", "Examples:"]
    for purpose, example in page.examples.items():
        lines += [f"  {purpose}:", f"    {example}"]
    if command == "explore":
        lines += ["", *_explore_settings()]
    elif page.settings:
        lines += ["", "Settings (key=value; defaults in parentheses):"]
        for key, (default, text) in page.settings.items():
            lines.append(f"  {key:<8} {text}" + (f" ({default})" if default else ""))
    lines += ["", *page.notes] if page.notes else []
    return "\n".join([*lines, "", FOOT])


# Tables of numbers in a file of their own, and what lists them.
_TABLES = {
    "  - policy: integration": "docs/cache.md",
    "  - rendering: primitives": "docs/cache.md",
    "  - edges: alignment": "geometry/depth/policy.py",
}
LONGEST_TABLE = 12  # settings of an option that help prints; the documents list longer tables


def _explore_settings() -> list[str]:
    lines = ["Settings (key=value; the values shown are the defaults):"]
    lines += [f"  {line}" for line in conf_text("explore").partition("_self_\n")[2].strip("\n").splitlines()]
    lines += ["", "Components (component=option; settings below an option are set as component.key=value):"]
    for group, options in sorted(group_options().items()):
        lines.append(f"  {group}={'|'.join(options)}")
        for option in options:
            lines += [f"    {option:<13} {line}" for line in _option_settings(group, option)]
    return lines


def _option_settings(group: str, option: str) -> list[str]:
    """The settings of one option; a long table of numbers is named by the comment above it."""
    text = conf_text(f"{group}/{option}").splitlines()
    hidden = ("_", "#", "defaults:", "kind:", "mode:", "device:", "url: null", "  - _self_")
    shown = [line for line in text if line.strip() and "_target_" not in line and not line.startswith(hidden)]
    if group == "viewer" and option != "auto":  # they are the same for all viewers
        shown = [line for line in shown if not line.startswith(("port:", "open:"))]
    if len(shown) > LONGEST_TABLE:
        return [line.lstrip("# ") for line in text if line.startswith("#")]
    return [
        f"{line.split()[1][:-1] + '.*':<21} # {_TABLES[line]} lists them" if line in _TABLES else line
        for line in shown
        if "${" not in line
    ]


def conf_text(name: str) -> str:
    """The text of ``worldwarp/conf/<name>.yaml``."""
    return resources.files("worldwarp.conf").joinpath(f"{name}.yaml").read_text(encoding="utf-8")


def group_options() -> dict[str, list[str]]:
    """The configuration groups and the options of each."""
    conf = resources.files("worldwarp.conf")
    folders = [entry for entry in conf.iterdir() if entry.is_dir() and not entry.name.startswith("_")]
    return {f.name: sorted(o.name[: -len(".yaml")] for o in f.iterdir() if o.name.endswith(".yaml")) for f in folders}
