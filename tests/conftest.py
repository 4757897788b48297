"""Fixtures of several test modules."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers import write_photo


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photo of 200x120, smooth; only read."""
    return write_photo(tmp_path_factory.mktemp("photo") / "photo.png")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Embedded prompts go to a folder of the test, not to the user's."""
    monkeypatch.setenv("WORLDWARP_CACHE", str(tmp_path / "cache"))
