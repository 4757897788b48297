"""A path is looked along before it is walked: nothing is made, what is unknown is counted and shown."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers import world_content
from worldwarp import World, explore
from worldwarp.cli import main
from worldwarp.preview import Preview, parts_of, views_for

TOY = ("size=48x64", "chunk=2", "detail=1", "depth=plane", "generator=passthrough", "prior=smooth")


def test_a_photo_is_seen_along_its_path_and_nothing_is_stored(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["preview", str(photo), "forward:distance=0.1,pan:angle_deg=60", "frames=13", *TOY]) == 0
    out = capsys.readouterr().out
    forward, pan = (line for line in out.splitlines() if line.startswith("unknown"))
    assert re.sub(" +", " ", forward) == "unknown forward:distance=0.1 frames 1 to 6: 0% on average, 0% at most"
    share = int(pan.rpartition(", ")[2].partition("%")[0])
    assert share > 60  # turned by as much as the view is wide, of which a margin of the photo is none
    assert "plan     12 frames of 64x48" in out
    assert "explore" in out.splitlines()[-1]
    with Image.open(tmp_path / "worlds" / "photo-preview.jpg") as sheet:
        assert sheet.size == (4 * 70 + 6, 3 * 70 + 6)
        colors = np.asarray(sheet.crop((216, 146, 280, 194)), np.float32)
    magenta = np.abs(colors - (255.0, 0.0, 255.0)).max(-1) < 60.0
    assert magenta.mean() == pytest.approx(share / 100, abs=0.05)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["photo-preview.jpg"]


def test_a_world_stays_as_it_is(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world, gif = tmp_path / "world", tmp_path / "flight.gif"
    steps = explore(image=photo, path="left", frames=5, out=world, overrides=TOY)
    next(steps)
    steps.close()  # type: ignore[attr-defined]  # a generator, which its type does not say
    before, manifest = world_content(world), (world / "world.json").read_bytes()
    assert main(["preview", str(world), "up:frames=9", f"out={gif}"]) == 0
    assert "plan     8 frames" in capsys.readouterr().out
    with Image.open(gif) as flight:
        assert flight.info["duration"] == 60
        flight.seek(7)
        with pytest.raises(EOFError):
            flight.seek(8)
    assert main(["preview", str(world)]) == 0  # what is left of its own path
    assert "plan     2 frames" in capsys.readouterr().out
    assert (world / "preview.jpg").is_file()
    assert (world / "world.json").read_bytes() == manifest
    assert len(World.load(world).record.path) == 5
    list(World.load(world).explore())
    assert main(["preview", str(world)]) == 2
    assert "is finished; want a path" in capsys.readouterr().err
    assert len(before) == len(world_content(world))


def test_parts_are_legs_or_quarters() -> None:
    legs = parts_of("left:frames=9,orbit", 40)
    assert [(part.first, part.last) for part in legs] == [(1, 6), (7, 40)]
    assert [(part.first, part.last) for part in parts_of("orbit", 10)] == [(1, 2), (3, 5), (6, 8), (9, 10)]
    assert [(part.first, part.last) for part in parts_of(None, 2)] == [(1, 1), (2, 2)]
    # Of a short leg beside a long one there are still a few views.
    count = views_for(Path("sheet.png"), legs, 40)
    assert count * 6 / 40 >= 3


def test_views_that_collide_are_framed_in_red() -> None:
    gray = torch.full((2, 3, 30, 40), 0.5)
    sheet = Preview(gray, (1, 2), (0.0, 0.25), (False, True)).sheet()
    assert sheet.getpixel((6, 20)) == (128, 128, 128)
    assert sheet.getpixel((6 + 46, 20)) == (255, 40, 40)
    # No caption reaches into the margin beside its view.
    assert not np.asarray(sheet)[36:, 6 + 40 : 6 + 46].max() > 24


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["preview", "photo.png", "keys"], "want moves or a camera file to look along"),
        (["preview", "photo.png", "orbit", "out=a.mp4"], "want a file .jpg, .png or .gif, got 'a.mp4'"),
        (["preview", "photo.png", "orbitt"], "did you mean orbit"),
        (["preview", "nowhere", "orbit"], "no file 'nowhere'"),
        (["preview"], "want a photo"),
    ],
)
def test_what_cannot_be_looked_along_is_refused(
    photo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    monkeypatch.chdir(photo.parent)
    assert main(words) == 2
    assert message in capsys.readouterr().err
