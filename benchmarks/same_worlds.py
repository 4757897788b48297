"""Does a change keep every bit of a world? `python -m benchmarks.same_worlds record FILE`, later `... compare FILE`.

Makes five short worlds as a user does, with the command, from two photos: Gaussians; points; driven by keys; continued
along another path; undone and made again. Of each it takes SHA-256 digests of frames, depth, masks, confidence,
cameras, primitives, the state of the random generator, and of the exported files. ``record`` writes them to FILE as
JSON; ``compare`` makes the worlds again and names what differs. A refactor must differ in nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

import torch
from PIL import Image, ImageOps
from torch import Tensor

from worldwarp import World

PHOTO = Path(__file__).parents[1] / "worldwarp" / "photos" / "pagoda.jpg"
LANDSCAPE, PORTRAIT = "size=96,160", "size=144,96"
EXPORTS = "gaussians_ply,points_ply,glb,colmap,nerfstudio"


def make_worlds(folder: Path) -> dict[str, Path]:
    """Make the five worlds below ``folder``; returns their folders by name."""
    upright = folder / "upright.png"
    with Image.open(PHOTO) as photo:
        ImageOps.mirror(ImageOps.fit(photo.convert("RGB"), (400, 600), centering=(0.2, 0.5))).save(upright)
    worlds = {name: folder / name for name in ("gaussians", "points", "keys", "resumed", "undone")}
    _explore(worlds["gaussians"], f"image={PHOTO}", LANDSCAPE, "path=left,orbit:angle_deg=20", "frames=17")
    _explore(
        worlds["points"], f"image={upright}", PORTRAIT, "path=forward+pan:angle_deg=10", "frames=9", "cache=points"
    )
    _explore(worlds["keys"], f"image={upright}", PORTRAIT, "path=keys", "chunk=4", keys="wqdx")
    _explore(worlds["resumed"], f"image={PHOTO}", LANDSCAPE, "path=right", "frames=9", "seed=3")
    _explore(worlds["resumed"], f"resume={worlds['resumed']}", "path=up,pan", "frames=9")
    _explore(worlds["undone"], f"image={PHOTO}", LANDSCAPE, "path=back", "frames=17", "noise=binary", "chunk=4")
    _run("undo", str(worlds["undone"]))
    _run("forget", str(worlds["undone"]), "chunks=1")
    _explore(worlds["undone"], f"resume={worlds['undone']}")
    for world in worlds.values():
        _run("export", str(world), f"formats={EXPORTS}")
    return worlds


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 digests of what a world holds, by name."""
    world = World.load(folder)
    found: dict[str, Iterable[Tensor]] = {}
    frames, primitives = world.frames(), world.primitives
    for name in ("rgb", "depth", "valid", "sky"):
        found[f"frames.{name}"] = [getattr(frames, name)]
    found["cameras"] = [world.cameras.world_from_camera, world.cameras.focal_px, world.cameras.center_px]
    found["confidence"] = [world.record.chunk(index).confidence for index in range(len(world.record.chunks))]
    for field in fields(primitives):
        found[f"primitives.{field.name}"] = [getattr(primitives, field.name)]
    found["rng_state"] = [world.record.rng_state]
    guide = world.render(world.cameras[-1:])
    for name in ("rgb", "depth", "coverage", "confidence", "sky"):
        found[f"guide.{name}"] = [getattr(guide, name)]
    result = {name: _digest(tensors) for name, tensors in found.items()}
    for path in sorted((folder / "exports").rglob("*")):
        # PNG and video encoders are not ours; their pixels are compared above.
        if path.is_file() and path.suffix in (".ply", ".glb", ".bin", ".json"):
            name = path.relative_to(folder).as_posix()
            result[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return result


def differences(before: dict[str, dict[str, str]], after: dict[str, dict[str, str]]) -> list[str]:
    """Names of digests that differ or exist on one side only, as ``world/name``."""
    return [
        f"{world}/{name}"
        for world in sorted({*before, *after})
        for name in sorted({*before.get(world, {}), *after.get(world, {})})
        if before.get(world, {}).get(name) != after.get(world, {}).get(name)
    ]


def _digest(tensors: Iterable[Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(str((tuple(tensor.shape), tensor.dtype)).encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _explore(folder: Path, *words: str, keys: str = "") -> None:
    out = [] if any(word.startswith("resume=") for word in words) else [f"out={folder}"]
    _run("explore", *words, *out, "viewer=none", keys=keys)


def _run(*words: str, keys: str = "") -> None:
    command = [sys.executable, "-m", "worldwarp.cli", *words]
    done = subprocess.run(command, input=keys, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")


def main(arguments: list[str] | None = None) -> int:
    """Record the digests, or compare; 1 when anything differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("action", choices=("record", "compare"))
    parser.add_argument("file", type=Path)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        found = {name: digests(world) for name, world in make_worlds(Path(folder)).items()}
    count = sum(map(len, found.values()))
    if given.action == "record":
        given.file.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
        print(json.dumps({"recorded": count, "file": str(given.file)}))
        return 0
    differing = differences(json.loads(given.file.read_text()), found)
    for name in differing:
        print(f"differs  {name}")
    print(json.dumps({"compared": count, "differing": len(differing)}))
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
