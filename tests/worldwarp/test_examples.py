"""The examples do what their first lines say."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import worldwarp
from tests.helpers import REPOSITORY
from worldwarp import Step

PHOTO = str(REPOSITORY / "worldwarp" / "photos" / "pagoda.jpg")


@pytest.mark.timeout(480)
def test_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(name: str, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
        runpy.run_path(str(REPOSITORY / "examples" / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    def small(**settings: Any) -> Iterator[Step]:
        """The examples as they are, but for the size of their worlds."""
        quick: dict[str, Any] = {"depth": "plane", "detail": 1, "prior": "smooth"}
        if isinstance(settings["path"], str):  # cameras have a size of their own
            quick["size"] = (48, 80)
        return explore(**settings | quick)

    explore = worldwarp.explore
    monkeypatch.setattr(worldwarp, "explore", small)
    world = tmp_path / "world"
    assert "chunk 2:" in run("first_world", str(world))
    assert "of the view is known" in run("look_again", str(world), str(tmp_path / "again.png"))
    with Image.open(tmp_path / "again.png") as picture:
        assert picture.size == (320, 192)
    assert "frames 1 to 8 done" in run("own_path", PHOTO, str(tmp_path / "own"))
    assert "chunk 2" in run("own_generator", PHOTO)
    path = json.loads((tmp_path / "own" / "path.json").read_text())
    assert len(path["frames"]) == 9


@pytest.mark.parametrize("name", ["look_again", "own_path", "own_generator"])
def test_examples_without_arguments_end_with_their_usage(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [f"{name}.py"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(REPOSITORY / "examples" / f"{name}.py"), run_name="__main__")
    assert f"python {name}.py" in str(end.value.code)
