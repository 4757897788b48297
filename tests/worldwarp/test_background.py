"""Storing and recording beside the loop: order, values of the moment, errors at the next step, `world` waits."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest
import torch

from scenes.io.atomic_files import WorldError
from scenes.store.world_store import WorldStore
from tests.helpers import same_bits
from worldwarp.background import Background
from worldwarp.cli import main
from worldwarp.config import compose_config
from worldwarp.prepare import prepare, undo
from worldwarp.session import Session


def test_jobs_run_in_order_on_another_thread() -> None:
    background, seen = Background(), []
    gate = threading.Event()
    background.put(gate.wait)
    for i in range(5):
        background.put(lambda i=i: seen.append((i, threading.current_thread() is threading.main_thread())))
    assert seen == []
    gate.set()
    background.flush()
    assert seen == [(i, False) for i in range(5)]


def test_an_error_is_raised_by_every_flush_and_drops_what_follows() -> None:
    background, seen = Background(), []

    def fail() -> None:
        raise WorldError("the disk is full")

    background.put(fail)
    background.put(lambda: seen.append(1))
    background.settle()
    background.put(lambda: seen.append(2))
    for _ in range(2):
        with pytest.raises(WorldError, match="the disk is full"):
            background.flush()
    assert seen == []


def started(photo: Path, out: Path) -> Session:
    words = ["path=left:distance=0.3", "frames=4", "size=[48,80]", "chunk=1", "depth=plane", "generator=passthrough"]
    session = prepare(compose_config("explore", [f"image={photo}", *words, "viewer=none"]))
    session.store_in(out)
    return session


def test_the_chunk_before_a_yielded_one_is_stored_and_world_waits_for_it(photo: Path, tmp_path: Path) -> None:
    session = started(photo, tmp_path / "w")
    for step in session.steps():
        assert len(WorldStore.load(tmp_path / "w").chunks) >= step.chunk.index
        assert session.world is not None
        assert len(session.world.chunks) == step.chunk.index + 1
        assert same_bits(WorldStore.load(tmp_path / "w").chunk(step.chunk.index), step.chunk)
        assert session.world.rng_state.equal(session.state.rng.get_state())
    assert len(WorldStore.load(tmp_path / "w").chunks) == 4
    undo(session)
    assert len(WorldStore.load(tmp_path / "w").chunks) == 3


def test_storing_sees_the_moment_of_its_chunk(photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session, gate = started(photo, tmp_path / "w"), threading.Event()
    session.background.flush()
    session.background.put(gate.wait)
    for name in ("flush", "settle"):  # the loop runs ahead of the store
        monkeypatch.setattr(session.background, name, lambda: None)
    wanted = torch.zeros(0)
    for _ in session.steps():
        wanted = session.state.rng.get_state()
        session.state.rng.manual_seed(session.state.chunks)
    monkeypatch.undo()
    gate.set()
    session.background.settle()
    assert WorldStore.load(tmp_path / "w").rng_state.equal(wanted)


def test_a_full_disk_is_raised_by_the_next_step(photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = started(photo, tmp_path / "w")
    steps = session.steps()
    next(steps)
    session.background.flush()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    next(steps)
    with pytest.raises(WorldError, match=r"cannot store chunk 2 .* the disk is full.*every earlier chunk is kept"):
        next(steps)
    with pytest.raises(WorldError, match="cannot store chunk 2"):
        _ = session.world
    monkeypatch.undo()
    assert len(WorldStore.load(tmp_path / "w").chunks) == 2
    assert not list((tmp_path / "w").rglob("*.partial"))


def test_a_full_disk_ends_the_command_with_one_sentence(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    append = WorldStore.append

    def full_at_2(self: WorldStore, chunk: object, **more: object) -> None:
        if chunk.index == 2:  # type: ignore[attr-defined]
            raise WorldError("cannot store chunk 2: the disk is full; free some space; every earlier chunk is kept")
        append(self, chunk, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(WorldStore, "append", full_at_2)
    words = ["path=left:distance=0.3", "frames=4", "size=[48,80]", "chunk=1", "depth=plane", "generator=passthrough"]
    status = main(["explore", f"image={photo}", *words, "viewer=file", f"out={tmp_path / 'w'}"])
    assert status not in (0, 130)
    assert "cannot store chunk 2: the disk is full" in capsys.readouterr().err
    assert len(WorldStore.load(tmp_path / "w").chunks) == 2
