"""Driving with the keyboard: each key a chunk, and the world remembers the way."""

from __future__ import annotations

import io
import os
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from geometry.camera import Camera
from worldwarp import World
from worldwarp.cli import main
from worldwarp.steering import MOVES, moves, typed

SIZE = (48, 80)


def test_a_key_is_a_move_from_where_the_walk_stands() -> None:
    walked = [Camera.from_fov(60.0, SIZE)]
    for cameras in moves("w?ex", lambda: walked[-1], chunk=4):  # noqa: B023 (grows on purpose)
        assert len(cameras) == 4
        walked += [cameras[i] for i in range(4)]
    assert len(walked) == 9  # `?` means nothing, `x` ends
    forward, turned = walked[4], walked[8]
    assert forward.position[2] > 0.1
    assert torch.allclose(turned.position, forward.position, atol=1e-6)
    assert turned.world_from_camera[0, 2] > 0.1  # looks to the right


def test_every_key_moves() -> None:
    start = Camera.from_fov(60.0, SIZE)
    for key in MOVES:
        (cameras,) = moves(key, lambda: start, chunk=2)
        assert not torch.allclose(cameras.world_from_camera[-1], start.world_from_camera, atol=1e-3), key


def test_keys_come_from_a_pipe_until_it_ends_or_the_walk_is_stopped() -> None:
    assert list(typed(io.StringIO("Wad"), lambda: False)) == ["w", "a", "d"]
    assert list(typed(io.StringIO("wad"), lambda: True)) == []


@pytest.mark.skipif(sys.platform == "win32", reason="terminals of its own kind")
def test_a_terminal_gives_each_key_at_once_and_is_left_as_it_was() -> None:
    import termios

    ours, theirs = os.openpty()
    with os.fdopen(theirs, "r") as terminal, os.fdopen(ours, "wb", buffering=0) as keyboard:
        before = termios.tcgetattr(terminal)
        stop = threading.Event()
        keys = typed(terminal, stop.is_set)
        timer = threading.Timer(0.1, keyboard.write, [b"wd"])
        timer.start()
        assert [next(keys), next(keys)] == ["w", "d"]  # no Enter was typed
        timer.join()
        stop.set()
        assert list(keys) == []
        assert termios.tcgetattr(terminal) == before


def test_the_command_walks_by_keys_and_goes_on_by_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (120, 200, 3), dtype=np.uint8)).save(photo)
    small = ["size=[48,80]", "chunk=3", "depth=plane", "generator=passthrough", "viewer=none"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("wx"))
    assert main(["explore", f"image={photo}", f"out={tmp_path / 'w'}", "path=keys", *small]) == 0
    assert "w a s d move" in capsys.readouterr().out
    assert len(World.load(tmp_path / "w").cameras) == 4
    monkeypatch.setattr(sys, "stdin", io.StringIO("dd"))
    assert main(["explore", f"resume={tmp_path / 'w'}", "viewer=none"]) == 0
    world = World.load(tmp_path / "w")
    assert len(world.cameras) == 10
    assert world.cameras.position[-1][0] > 0.2
    assert len(world.record.path) == 10
