"""The notebook runs from top to bottom in a kernel of its own, and shows pictures."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers import REPOSITORY
from worldwarp.notebook import strip_html


@pytest.mark.timeout(480)
def test_the_notebook_runs_and_shows_its_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(REPOSITORY / "examples" / "notebook.ipynb", as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells)  # committed without what it prints
    nbclient.NotebookClient(notebook, timeout=400, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown: list[Any] = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output for output in shown if output.output_type == "error"]
    html = [output.data["text/html"] for output in shown if "text/html" in output.get("data", {})]
    assert sum("Step(chunk" in text and "image/jpeg" in text for text in html) == 2
    assert sum("<video" in text for text in html) == 1
    (page,) = (text for text in html if "<iframe srcdoc" in text)
    assert len(page) < 3 * 2**20
    pictures = [output.data["image/png"] for output in shown if "image/png" in output.get("data", {})]
    before, after = (_magenta(base64.b64decode(picture)) for picture in pictures)
    assert after < 0.5 * before
    assert (tmp_path / "worlds" / "notebook" / "exports" / "gaussians.ply").is_file()


def test_a_strip_of_pictures_keeps_their_colors_and_escapes_its_caption() -> None:
    rgb = torch.full((3, 3, 32, 48), 0.25)
    rgb[1] = 0.75
    text = strip_html(rgb, "a < b", height_px=16)
    assert "a &lt; b" in text
    with Image.open(io.BytesIO(base64.b64decode(text.partition("base64,")[2].partition('"')[0]))) as picture:
        assert picture.size == (72, 16)
        grays = [picture.convert("L").crop((x, 4, x + 8, 12)).resize((1, 1)).tobytes()[0] for x in (8, 32, 56)]
    assert all(abs(gray - wanted) < 6 for gray, wanted in zip(grays, (64, 191, 64), strict=True))


def _magenta(png: bytes) -> float:
    """Share of pixels of a picture that are magenta."""
    with Image.open(io.BytesIO(png)) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    return float((pixels == (255, 0, 255)).all(-1).mean())
