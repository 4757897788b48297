"""Worlds in a folder: what each is, how to go on, and what is wrong with damaged ones."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from worldwarp import World, explore
from worldwarp.cli import main
from worldwarp.gallery import find_worlds, thumbnail

TOY = {"size": (48, 64), "chunk": 2, "detail": 1, "depth": "plane", "generator": "passthrough", "prior": "smooth"}


@pytest.fixture(scope="module")
def half(photo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world of 5 frames of which 3 are made."""
    out = tmp_path_factory.mktemp("half") / "half"
    steps = explore(image=photo, path="left", frames=5, out=out, **TOY)
    next(steps)
    steps.close()  # type: ignore[attr-defined]  # a generator, which its type does not say
    return out


@pytest.fixture(scope="module")
def made(half: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two worlds: one is finished, and was changed last."""
    folder = tmp_path_factory.mktemp("made")
    shutil.copytree(half, folder / "half")
    World.load(half).branch(folder / "deep" / "whole", 0)
    list(World.load(folder / "deep" / "whole").explore("up", frames=3))
    os.utime(folder / "half" / "world.json", (1e9, 1e9))
    return folder


@pytest.fixture
def worlds(made: Path, tmp_path: Path) -> Path:
    """A copy of them."""
    return shutil.copytree(made, tmp_path / "some worlds")


def test_worlds_are_found_with_what_is_left_of_them(worlds: Path) -> None:
    whole, half = find_worlds(worlds)
    assert (whole.folder, half.folder) == (worlds / "deep" / "whole", worlds / "half")
    assert (whole.size, whole.frames, whole.left, whole.photo) == ((48, 64), 3, 0, "photo.png")
    assert (half.frames, half.left) == (3, 2)
    assert half.changed.year == 2001
    assert half.disk_bytes == sum(file.stat().st_size for file in half.folder.rglob("*") if file.is_file())
    assert whole.command == f"worldwarp explore '{whole.folder}' 'up,orbit'"
    assert half.command == f"worldwarp explore '{half.folder}'"
    assert half.picture is not None
    shown = thumbnail(half.picture)
    assert shown.shape == (240, 320, 3)
    wanted = World.load(half.folder).frames(0, 1).rgb[0].permute(1, 2, 0).numpy()
    assert np.abs(shown.mean((0, 1)) / 255.0 - wanted.mean((0, 1))).max() < 0.01
    assert [world.folder for world in find_worlds(half.folder)] == [half.folder]
    assert not list(find_worlds(worlds / "nothing"))


def damage_manifest(world: Path) -> None:
    (world / "world.json").write_text((world / "world.json").read_text()[:-40])


def of_a_later_version(world: Path) -> None:
    content = json.loads((world / "world.json").read_text())
    (world / "world.json").write_text(json.dumps(content | {"version": 99}))


def flip_a_byte(world: Path) -> None:
    file = world / "chunks" / "0001.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


DAMAGES = {
    "a cut manifest": (damage_manifest, "world.json: truncated or not JSON"),
    "no manifest": (lambda world: (world / "world.json").unlink(), "world.json: missing"),
    "a folder for a manifest": (
        lambda world: ((world / "world.json").unlink(), (world / "world.json").mkdir()),
        "world.json: cannot be read",
    ),
    "a later version": (of_a_later_version, "is of version 99"),
    "a missing frame": (lambda world: (world / "frames" / "00001.webp").unlink(), "00001.webp: missing"),
    "a cut file": (lambda world: os.truncate(world / "cache" / "0001.safetensors", 9), "truncated: want"),
    "other bytes": (flip_a_byte, "0001.safetensors: was changed"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_world_is_named_with_the_reason(
    worlds: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    break_it, reason = DAMAGES[damage]
    break_it(worlds / "half")
    (broken,) = (world for world in find_worlds(worlds) if world.trouble is not None)
    assert broken.folder == worlds / "half"
    assert reason in (broken.trouble or "")
    quick = {world.folder.name: world.trouble for world in find_worlds(worlds, contents=False)}
    assert (quick["half"] is None) == (damage == "other bytes")  # its length alone is as it was
    assert main(["list", str(worlds)]) == 0
    out = capsys.readouterr().out
    assert "damaged: " in out
    assert reason in out
    assert "2 worlds, 1 MiB; 1 damaged" in out
    assert f"go on      worldwarp explore '{worlds / 'deep' / 'whole'}' 'up,orbit'" in out


def test_list_reads_worlds_and_names_another_folder(
    half: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["list"]) == 0
    assert "no world in worlds; make one" in capsys.readouterr().out
    shutil.copytree(half, tmp_path / "worlds" / "half")
    assert main(["list"]) == 0
    assert "3 frames of 64x48, 2 planned ones are left; of photo.png" in capsys.readouterr().out
    assert main(["list", "nowhere"]) == 2
    assert "no such folder 'nowhere'" in capsys.readouterr().err
    assert main(["list", "worlds", "size=3"]) == 2


def test_a_world_that_died_before_its_photo_says_so(worlds: Path) -> None:
    from scenes.store.world_store import WorldStore

    WorldStore.create(worlds / "empty", path=World.load(worlds / "half").record.path, seed=0)
    (empty,) = (world for world in find_worlds(worlds) if world.folder.name == "empty")
    assert "stopped before its photo was stored" in (empty.trouble or "")
