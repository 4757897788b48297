"""The wheel has exactly the six packages with all files; shadowed sibling packages are detected."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.helpers import REPOSITORY
from worldwarp.siblings import SIBLINGS, check_siblings, shadowed_packages

PACKAGES = {"worldwarp", *SIBLINGS}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    return zipfile.ZipFile(next(out.glob("*.whl")))


def test_wheel_has_exactly_the_six_packages(wheel: zipfile.ZipFile) -> None:
    top = {name.split("/")[0] for name in wheel.namelist()}
    assert {name for name in top if not name.endswith(".dist-info")} == PACKAGES


def test_wheel_has_every_file_of_the_packages(wheel: zipfile.ZipFile) -> None:
    inside = set(wheel.namelist())
    ours = {
        str(file.relative_to(REPOSITORY))
        for package in PACKAGES
        for file in (REPOSITORY / package).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert ours <= inside, f"missing from the wheel: {sorted(ours - inside)}"


def test_wheel_is_small(wheel: zipfile.ZipFile) -> None:
    assert sum(entry.file_size for entry in wheel.infolist()) < 100e6


def test_no_sibling_is_shadowed() -> None:
    check_siblings()
    assert shadowed_packages(REPOSITORY) == {}


def test_a_shadowed_sibling_is_named(tmp_path: Path) -> None:
    shadowed = shadowed_packages(tmp_path)
    assert set(shadowed) == set(SIBLINGS)
    assert str(REPOSITORY / "geometry" / "__init__.py") == shadowed["geometry"]
    assert shadowed_packages(tmp_path, ("no_such_package_anywhere",)) == {"no_such_package_anywhere": "nowhere"}
