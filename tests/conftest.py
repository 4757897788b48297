"""Fixtures of several test modules."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers import write_photo


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photo of 200x120, smooth; only read."""
    return write_photo(tmp_path_factory.mktemp("photo") / "photo.png")
