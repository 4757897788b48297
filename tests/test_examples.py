"""The examples run as their first lines say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

HOME = Path(__file__).parent.parent


def run(name: str, *arguments: str) -> str:
    command = [sys.executable, f"examples/{name}.py", *arguments]
    done = subprocess.run(command, cwd=HOME, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.timeout(240)
def test_examples(tmp_path: Path) -> None:
    world = tmp_path / "world"
    assert "chunk 2:" in run("first_world", str(world))
    assert "of the view is known" in run("look_again", str(world), str(tmp_path / "again.png"))
    with Image.open(tmp_path / "again.png") as picture:
        assert picture.size == (320, 192)
    assert "frames 1 to 8 done" in run("own_path", "worldwarp/photos/pagoda.jpg", str(tmp_path / "own"))
    path = json.loads((tmp_path / "own" / "path.json").read_text())
    assert len(path["frames"]) == 9
