"""`worldwarp models`: the list, a toy, and a conversion from the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from diffusion.wan.keys import to_original
from diffusion.wan.lines import LINES
from worldwarp.cli import main


def test_the_list_says_license_use_size_and_source_of_every_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list"]) == 0
    printed = capsys.readouterr().out.splitlines()
    for line in LINES.values():
        row = next(text for text in printed if text.startswith(f"{line.name} "))
        assert line.license in row
        assert {True: " yes ", False: " no ", None: " unclear "}[line.commercial] in row
        assert row.endswith("yes" if line.verified else "no")
        assert any(line.weights in text and all(file in text for file in line.files) for text in printed)
    assert max(map(len, printed)) <= 120


def test_a_toy_and_a_conversion_of_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["models", "toy", "toy", "line=ti2v", "seed=3"]) == 0
    assert "a random model of ti2v is in toy" in capsys.readouterr().out
    assert main(["models", "toy", "toy"]) == 2
    assert "want an empty or new folder" in capsys.readouterr().err
    vae = load_file("toy/vae/diffusion_pytorch_model.safetensors")
    torch.save({to_original(name, "vae 2.2"): tensor for name, tensor in vae.items()}, "Wan2.2_VAE.pth")
    assert main(["models", "convert", "Wan2.2_VAE.pth"]) == 0
    assert capsys.readouterr().out == f"the VAE is in {Path('models', 'Wan2.2_VAE')}\n"
    back = load_file("models/Wan2.2_VAE/vae/diffusion_pytorch_model.safetensors")
    assert back.keys() == vae.keys()
    assert all(torch.equal(back[name], vae[name]) for name in vae)
    assert main(["models", "convert", "Wan2.2_VAE.pth"]) == 2
    assert "want a folder without 'vae' in it" in capsys.readouterr().err


def test_importing_worldwarp_and_the_lines_does_not_import_diffusers() -> None:
    code = "import sys, worldwarp.session, diffusion.wan.load; print('diffusers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
