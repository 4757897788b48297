"""Exploring by command and from Python: interruption, resuming, valid and invalid input."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import torch

from scenes.store.world_store import WorldStore
from tests.helpers import command_line, program_environment, same_bits, wait_until, world_content
from worldwarp import Camera, World, explore
from worldwarp.cli import main
from worldwarp.config import compose_config
from worldwarp.prepare import prepare
from worldwarp.resume import resume

SMALL = ["size=[48,80]", "chunk=4", "depth=plane", "generator=passthrough", "viewer=none"]


def words(photo: Path, out: Path, *more: str) -> list[str]:
    return ["explore", f"image={photo}", f"out={out}", "path=left,back", "frames=9", *SMALL, *more]


@pytest.fixture(scope="module")
def made(photo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished world of 9 frames, made by the command; tests that change it use copies."""
    out = tmp_path_factory.mktemp("made") / "world"
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main(words(photo, out)) == 0
    (out.parent / "printed.txt").write_text(printed.getvalue())
    return out


def test_the_command_makes_a_world(made: Path) -> None:
    out = made
    assert {"world.json", "cameras.json", "photo.png", "frames", "chunks", "cache", "video.mp4"} <= {
        p.name for p in out.iterdir()
    }
    world = World.load(out)
    assert len(world.cameras) == 9
    assert torch.equal(world.cameras.world_from_camera[0], torch.eye(4))
    guide = world.render(world.cameras[0])
    assert guide.rgb.shape == (1, 3, 48, 80)
    assert guide.coverage.mean() > 0.9
    alone = world.cache.render(world.cameras[:1])
    errors = [(shown.rgb - world.frames(0, 1).rgb)[..., 2:-2, 2:-2].square().mean() for shown in (guide, alone)]
    assert errors[0] < 0.5 * errors[1]  # in the photo's own colors
    text = (out.parent / "printed.txt").read_text()
    assert "plan" in text
    assert "worldwarp export" in text


def test_one_seed_gives_one_world_to_the_bit(photo: Path, made: Path, tmp_path: Path) -> None:
    assert main(words(photo, tmp_path / "again")) == 0
    assert same_bits(world_content(tmp_path / "again"), world_content(made))


def test_a_stopped_session_resumes_to_the_same_bits(photo: Path, made: Path, tmp_path: Path) -> None:
    session = prepare(compose_config("explore", words(photo, tmp_path / "parts")[1:]))
    session.store_in(tmp_path / "parts")
    next(session.steps())
    rest = resume(tmp_path / "parts")
    assert len(rest.remaining) == 1
    list(rest.steps())
    assert same_bits(world_content(tmp_path / "parts"), world_content(made))


def test_a_finished_world_continues_along_another_path(made: Path, tmp_path: Path) -> None:
    out = shutil.copytree(made, tmp_path / "world")
    before = World.load(out)
    assert main(["explore", f"resume={out}", "path=up", "frames=6", "viewer=none"]) == 0
    world = World.load(out)
    assert len(world.cameras) == 9 + 5
    assert torch.equal(world.cameras.world_from_camera[:9], before.cameras.world_from_camera)
    assert torch.equal(world.frames(0, 9).rgb, before.frames().rgb)
    climbed = world.cameras.position[-1] - world.cameras.position[8]
    assert climbed[1] < 0  # y points down
    assert climbed.abs()[[0, 2]].max() < 1e-5 < -climbed[1]
    assert len(list(out.glob("path-*"))) == 1


def test_an_unfinished_world_with_a_new_path_resumes_to_the_same_bits(photo: Path, tmp_path: Path) -> None:
    session = prepare(compose_config("explore", words(photo, tmp_path / "whole")[1:]))
    session.store_in(tmp_path / "whole")
    next(session.steps())
    shutil.copytree(tmp_path / "whole", tmp_path / "parts")
    list(resume(tmp_path / "whole", onward={"path": "right", "frames": 9}).steps())
    next(resume(tmp_path / "parts", onward={"path": "right", "frames": 9}).steps())
    list(resume(tmp_path / "parts").steps())
    assert same_bits(world_content(tmp_path / "whole"), world_content(tmp_path / "parts"))


@pytest.mark.parametrize(("path", "prior"), [("pan:angle_deg=80", "copy"), ("left:distance=0.8", "smooth")])
def test_uncovered_sides_are_outpainted_and_resume_to_the_same_bits(
    photo: Path, tmp_path: Path, path: str, prior: str
) -> None:
    more = (f"path={path}", f"prior={prior}", "chunk=2", "detail=1")  # 4 chunks
    session = prepare(compose_config("explore", words(photo, tmp_path / "whole", *more)[1:]))
    session.store_in(tmp_path / "whole")
    steps = []
    for step in session.steps():
        steps.append(step)
        if len(steps) == 1:
            assert session.world is not None  # which waits until the chunk is stored
            shutil.copytree(tmp_path / "whole", tmp_path / "parts")  # what a session that stops here leaves
    list(resume(tmp_path / "parts").steps())
    wide = [step for step in steps if "outpaint" in step.timings_s]
    assert wide
    assert all((step.chunk.confidence > 0.0).float().mean() > 0.95 for step in wide)
    assert max(step.gauges["hole_ratio"] for step in wide) > 0.05  # measured before outpainting
    assert same_bits(world_content(tmp_path / "whole"), world_content(tmp_path / "parts"))
    rows = WorldStore.load(tmp_path / "whole").primitives
    assert set(rows.chunk.tolist()) <= set(range(len(steps) + 1))
    pixels = sum(step.chunk.frames.depth[0].numel() for step in wide)
    assert int(torch.isin(rows.chunk, torch.tensor([s.chunk.index for s in wide])).sum()) > 0.2 * pixels


def test_resume_with_an_invalid_path_changes_nothing(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shutil.copytree(made, tmp_path / "world")
    before = (out / "world.json").read_bytes()
    assert main(["explore", f"resume={out}", "path=upp", "viewer=none"]) == 2
    assert "did you mean" in capsys.readouterr().err
    assert main(["explore", f"resume={out}", "frames=30", "viewer=none"]) == 2
    assert "give path= as well" in capsys.readouterr().err
    assert (out / "world.json").read_bytes() == before


@pytest.mark.timeout(600)
def test_a_killed_session_resumes_to_the_same_bits(photo: Path, tmp_path: Path) -> None:
    more = ("frames=9", "chunk=1", "detail=1")
    out = tmp_path / "killed"
    process = subprocess.Popen(
        command_line(words(photo, out, *more)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=program_environment(),
    )
    wait_until(lambda: _chunks(out) >= 3, timeout_s=240.0)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = _chunks(out)
    assert 3 <= finished < 9
    assert main(["explore", f"resume={out}", "viewer=none"]) == 0
    assert main(words(photo, tmp_path / "whole", *more)) == 0
    assert same_bits(world_content(tmp_path / "whole"), world_content(out))


def _chunks(folder: Path) -> int:
    try:
        return len(json.loads((folder / "world.json").read_text())["chunks"])
    except (FileNotFoundError, ValueError):
        return 0


@pytest.mark.timeout(600)
def test_ctrl_c_finishes_the_chunk_and_saves(photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "stopped"
    command = command_line(words(photo, out, "frames=401", "chunk=1", "detail=1", "prior=smooth"))
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=program_environment()
    )
    wait_until(lambda: _chunks(out) >= 3, timeout_s=240.0)  # kernels may have to be compiled first
    process.send_signal(signal.SIGINT)
    text, _ = process.communicate(timeout=180)
    assert process.returncode == 130, text
    assert "stopped and saved" in text
    assert 3 <= len(World.load(out).cameras) < 401
    assert (out / "video.mp4").exists()


def test_python_explores_without_storing(photo: Path) -> None:
    steps = list(explore(image=photo, path="orbit", frames=5, overrides=SMALL))
    assert [step.chunk.index for step in steps] == [1]
    assert steps[0].chunk.frames.rgb.shape == (4, 3, 48, 80)
    assert not steps[0].chunk.observed
    assert set(steps[0].gauges) >= {"hole_ratio", "seam_error", "warp_agreement_db", "depth_residual"}


def test_python_takes_cameras(photo: Path) -> None:
    poses = torch.eye(4).repeat(3, 1, 1)
    poses[:, 0, 3] = torch.tensor([0.0, 0.05, 0.1])
    step = next(explore(image=photo, path=Camera.from_fov(60.0, (48, 80), poses), overrides=SMALL))
    assert torch.equal(step.chunk.frames.camera.world_from_camera, poses[1:])


def test_returning_to_a_view_adds_almost_no_primitives(photo: Path) -> None:
    steps = list(explore(image=photo, path="right:distance=1.2,left:distance=1.2", frames=9, overrides=SMALL))
    added = [step.integration.added for step in steps]
    assert added[0] > 0
    assert added[-1] <= 0.05 * added[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("image=/nowhere/photo.jpg", "no file"),
        ("path=orbitt", "orbit"),
        ("path=cameras.json", "no file or folder"),
        ("depth=fil", "did you mean `file`"),
        ("fov_deg=0", "fov_deg"),
        ("chunk=0", "chunk"),
        ("sise=[48,80]", "did you mean `size`"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(
    change: str, message: str, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "world"
    assert main([*words(photo, out), change]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not out.exists()


def test_an_output_folder_that_is_not_empty_is_refused(
    photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("dear")
    assert main(words(photo, tmp_path / "mine")) == 2
    assert "not empty" in capsys.readouterr().err
    assert os.listdir(tmp_path / "mine") == ["thesis.txt"]


def test_resume_refuses_other_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explore", f"resume={tmp_path}", "seed=3"]) == 2
    assert "remove seed=" in capsys.readouterr().err
    assert main(["explore", f"resume={tmp_path / 'none'}"]) == 2
    assert "no such folder" in capsys.readouterr().err


def test_help_paths_and_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    for command, expected in (
        ("--help", "worldwarp explore PHOTO"),
        ("paths", "dolly_zoom"),
        ("doctor", "torch"),
    ):
        assert main([command]) == 0
        assert expected in capsys.readouterr().out
    assert main(["exlpore"]) == 2
    assert "did you mean `explore`" in capsys.readouterr().err
