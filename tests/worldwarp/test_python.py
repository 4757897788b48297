"""Worlds from Python: making, stopping, continuing, viewing, undoing, forgetting and exporting."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from geometry.camera import Camera
from scenes.io.video import FPS, read_video
from tests.helpers import same_bits, world_content
from tests.recordings import Recorded
from viz import entities
from worldwarp import World, explore
from worldwarp.cli import main
from worldwarp.recording import open_world, rebuild_recording
from worldwarp.session import VIDEO

SIZE = (48, 80)
SMALL = {"size": SIZE, "chunk": 4, "depth": "plane", "generator": "passthrough", "prior": "smooth"}
WORDS = ["size=[48,80]", "chunk=4", "depth=plane", "generator=passthrough", "prior=smooth"]


@pytest.fixture(scope="module")
def made(photo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished world of 9 frames in 2 chunks, made by the command; tests use copies."""
    folder = tmp_path_factory.mktemp("made") / "world"
    assert main(["explore", f"image={photo}", f"out={folder}", "path=left", "frames=9", *WORDS, "viewer=file"]) == 0
    return folder


@pytest.fixture
def world(made: Path, tmp_path: Path) -> World:
    return World.load(shutil.copytree(made, tmp_path / "copy"))


def test_python_makes_the_world_of_the_command_with_video_and_recording(
    photo: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = list(explore(image=photo, path="left", frames=9, out=tmp_path / "w", **SMALL))
    assert same_bits(world_content(tmp_path / "w"), world_content(made))
    frames, fps = read_video(tmp_path / "w" / VIDEO)
    assert (len(frames), fps) == (9, FPS)
    assert Recorded.read(tmp_path / "w" / "recording.rrd").rows[entities.IMAGE] == 9
    assert capsys.readouterr() == ("", "")
    assert repr(steps[1]).startswith("Step(chunk 2, frames 5 to 8, ")
    assert "tensor" not in repr(steps[1])


def test_a_closed_iterator_leaves_a_video_and_resumes_to_the_same_bits(
    photo: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "w"
    for step in explore(image=photo, path="left", frames=9, out=out, **SMALL):
        assert step.chunk.index == 1
        break
    assert len(World.load(out).cameras) == len(read_video(out / VIDEO)[0]) == 5
    rest = list(explore(resume=out, progress=True))
    assert "4/4" in capsys.readouterr().err
    assert [step.chunk.index for step in rest] == [2]
    assert same_bits(world_content(out), world_content(made))
    assert list(explore(resume=out)) == []  # finished


def test_explore_along_another_path_equals_the_command(world: World, made: Path, tmp_path: Path) -> None:
    other = shutil.copytree(made, tmp_path / "other")
    assert main(["explore", f"resume={other}", "path=up", "frames=5", "viewer=none"]) == 0
    steps = list(world.explore("up", frames=5, viewer="none"))
    assert [len(step.chunk.frames) for step in steps] == [4]
    assert len(world.cameras) == 13
    assert same_bits(world_content(world.folder), world_content(other))


def test_explore_along_cameras_starts_at_the_last_frame(world: World) -> None:
    poses = torch.eye(4).repeat(3, 1, 1)
    poses[:, 1, 3] = torch.tensor([0.0, -0.05, -0.1])
    end = world.cameras.position[-1]
    for _ in world.explore(Camera.from_fov(60.0, SIZE, poses), viewer="none"):
        pass
    assert torch.allclose(world.cameras.position[-1], end + torch.tensor([0.0, -0.1, 0.0]))
    with pytest.raises(ValueError, match=r"path: want cameras of size \(48, 80\), got \(64, 80\)"):
        world.explore(Camera.from_fov(60.0, (64, 80), poses))


@pytest.mark.parametrize("more", [{"image": "photo.jpg"}, {"out": "elsewhere"}])
def test_resume_with_a_photo_or_another_folder_is_refused(world: World, more: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"leave out {next(iter(more))}=, or leave out resume= to start anew"):
        explore(resume=world.folder, **more)


def test_resume_with_other_settings_is_refused(world: World) -> None:
    with pytest.raises(ValueError, match="remove seed="):
        explore(resume=world.folder, seed=3)
    with pytest.raises(ValueError, match="image: want a photo"):
        explore(path="left")


def test_repr_and_html_of_a_world(world: World) -> None:
    count = len(world.primitives)
    assert repr(world) == f"World('{world.folder}', 9 of 9 frames of 80x48 in 3 chunks, {count} primitives)"
    page = world._repr_html_()
    assert "<video" in page
    assert "9 of 9 frames" in page


def test_the_video_is_rewritten_when_the_world_is_newer(world: World) -> None:
    world.video.unlink()
    assert len(read_video(world.video)[0]) == 9
    world.record.undo()
    assert len(read_video(world.video)[0]) == 5


def test_exported_videos_have_the_frame_rate_of_the_world(photo: Path, tmp_path: Path) -> None:
    for _ in explore(image=photo, path="left", frames=3, fps=10, out=tmp_path / "w", viewer="none", **SMALL):
        pass
    world = World.load(tmp_path / "w")
    report = world.export(["mp4"])[0]
    assert [read_video(path)[1] for path in (world.video, report.path)] == [10.0, 10.0]
    assert len(world.export(["points_ply", "mp4"], tmp_path / "out")) == 2
    assert (tmp_path / "out" / "points.ply").is_file()


def test_undo_removes_a_chunk_from_video_and_recording(world: World) -> None:
    assert (world.folder / "recording.rrd").exists()
    world.undo()
    assert len(read_video(world.folder / VIDEO)[0]) == 5
    assert not (world.folder / "recording.rrd").exists()
    path = rebuild_recording(world.record)
    assert Recorded.read(path).rows[entities.IMAGE] == 5
    assert Recorded.read(path).splats == len(world.primitives)


def test_forgotten_primitives_are_in_no_recording(world: World) -> None:
    count = len(world.primitives)
    gone = world.forget(region=((-9.0, -9.0, -9.0), (0.0, 9.0, 9.0)))
    assert 0 < gone < count
    assert not list(world.folder.glob("*.rrd"))
    path = rebuild_recording(world.record)
    assert Recorded.read(path).splats == count - gone
    assert Recorded.read(path).rows[entities.IMAGE] == Recorded.read(path).rows[entities.DEPTH] == 9
    assert entities.GUIDE not in Recorded.read(path).rows


def test_the_commands_undo_and_forget_delete_recordings_and_rewrite_the_video(world: World) -> None:
    assert main(["forget", str(world.folder), "region=[-9,-9,-9,0,9,9]"]) == 0
    assert not list(world.folder.glob("*.rrd"))
    rebuild_recording(World.load(world.folder).record)
    for frames in (9, 5):
        assert main(["undo", str(world.folder)]) == 0
        assert not list(world.folder.glob("*.rrd"))
        assert len(read_video(world.folder / VIDEO)[0]) == frames


def test_view_records_a_world_that_has_no_recording(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []

    def open_nothing(path: Path, mode: str, _port: object) -> tuple[subprocess.Popen[bytes], str]:
        shown.append((path, mode))
        with subprocess.Popen([sys.executable, "-c", ""]) as program:
            return program, "nowhere"

    monkeypatch.setattr("viz.open_recording.open_recording", open_nothing)
    (world.folder / "recording.rrd").unlink()
    open_world(world.folder, "web")
    assert Recorded.read(world.folder / "recording.rrd").rows[entities.IMAGE] == 9
    made = (world.folder / "recording.rrd").stat().st_mtime_ns
    open_world(world.folder, "web")
    assert (world.folder / "recording.rrd").stat().st_mtime_ns == made
    assert shown == [(world.folder, "web")] * 2


def test_continuing_after_undo_records_the_earlier_chunks_too(world: World) -> None:
    world.undo()
    list(world.explore())
    files = sorted(path.name for path in world.folder.glob("*.rrd"))
    assert files == ["recording-2.rrd", "recording.rrd"]
    counts = [Recorded.read(world.folder / name).rows[entities.IMAGE] for name in files]
    assert counts == [1 + 4, 5]  # the photo and the new chunk; the photo and the chunk before it


def test_a_finished_walk_resumed_yields_nothing(world: World) -> None:
    before = len(world.cameras)
    assert list(explore(resume=world.folder)) == []
    assert len(World.load(world.folder).cameras) == before
