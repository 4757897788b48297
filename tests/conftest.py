"""Fixtures of several test modules."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.helpers import write_photo


def pytest_configure() -> None:
    """Let tests interrupt programs they start: background jobs of a shell, and what these start, ignore Ctrl-C."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photo of 200x120, smooth; only read."""
    return write_photo(tmp_path_factory.mktemp("photo") / "photo.png")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Embedded prompts go to a folder of the test, not to the user's."""
    monkeypatch.setenv("WORLDWARP_CACHE", str(tmp_path / "cache"))
