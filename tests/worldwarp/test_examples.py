"""The examples run as documented in their first lines."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers import REPOSITORY, program_environment


def started(folder: Path, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run an example in ``folder``."""
    command = [sys.executable, str(REPOSITORY / "examples" / f"{name}.py"), *arguments]
    return subprocess.run(command, cwd=folder, env=program_environment(), capture_output=True, text=True, check=False)


@pytest.mark.timeout(480)
def test_examples(tmp_path: Path) -> None:
    def run(name: str, *arguments: str) -> str:
        done = started(tmp_path, name, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    world = tmp_path / "world"
    assert "chunk 2:" in run("first_world", str(world))
    assert "of the view is known" in run("look_again", str(world), str(tmp_path / "again.png"))
    with Image.open(tmp_path / "again.png") as picture:
        assert picture.size == (320, 192)
    assert "frames 1 to 8 done" in run(
        "own_path", str(REPOSITORY / "worldwarp" / "photos" / "pagoda.jpg"), str(tmp_path / "own")
    )
    assert "chunk 2" in run("own_generator", str(REPOSITORY / "worldwarp" / "photos" / "pagoda.jpg"))
    path = json.loads((tmp_path / "own" / "path.json").read_text())
    assert len(path["frames"]) == 9


@pytest.mark.parametrize("name", ["look_again", "own_path", "own_generator"])
def test_examples_without_arguments_print_their_usage(tmp_path: Path, name: str) -> None:
    done = started(tmp_path, name)
    assert done.returncode == 1
    assert f"python {name}.py" in done.stderr
    assert "Traceback" not in done.stderr
