"""Kernels that a second process compiles during the first run."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from diffusion.inpainting import disocclusion, patchmatch
from worldwarp import first_run


def test_the_toy_walk_calls_the_kernels_of_every_stage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(first_run.tempfile, "tempdir", str(tmp_path))
    first_run.walk_a_toy()
    kernels = (patchmatch.improve, patchmatch.vote, disocclusion._compare_sides)
    assert all(kernel.signatures for kernel in kernels)
    assert not list(tmp_path.iterdir())  # the toy is gone


def test_nothing_is_started_where_kernels_are_compiled_or_cannot_be_stored(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lines: list[str] = []
    (tmp_path / "patchmatch.improve-1.py311.nbi").touch()
    for folder in (str(tmp_path), None):
        monkeypatch.setattr(patchmatch.improve.stats.__class__, "cache_path", folder, raising=False)
        with first_run.kernels_beside(lines.append):
            pass
    assert lines == []


@pytest.mark.parametrize("cores", [1, 2])
def test_the_second_process_ends_with_the_first_run(cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []

    class Recorded(subprocess.Popen):
        def __init__(self, *arguments, **options) -> None:
            super().__init__(*arguments, **options)
            started.append(self)

    monkeypatch.setattr(first_run, "_is_compiled", lambda: False)
    monkeypatch.setattr(first_run.subprocess, "Popen", Recorded)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    lines: list[str] = []
    with pytest.raises(ZeroDivisionError), first_run.kernels_beside(lines.append):
        raise ZeroDivisionError
    assert len(lines) == 1
    assert len(started) == cores - 1
    assert all(program.poll() is not None for program in started)
