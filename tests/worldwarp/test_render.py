"""Rendering a finished world along other paths, at other sizes, to files."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import OpenEXR
import pytest
import torch
from PIL import Image, ImageSequence

from geometry.camera_io.read_write import read_cameras, write_cameras
from scenes.io.video import read_video, write_gif, write_webm
from tests.helpers import psnr
from worldwarp import World
from worldwarp import render as rendering
from worldwarp.cli import main
from worldwarp.config import ConfigError, compose_config
from worldwarp.render import Job
from worldwarp.render_settings import RenderSettings, render_settings
from worldwarp.renderer import MAGENTA, Picture, Renderer

SIZE = (48, 80)
WORDS = ["size=[48,80]", "chunk=4", "depth=plane", "generator=passthrough", "prior=smooth", "viewer=none"]


@pytest.fixture(scope="module")
def made(photo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished world of 5 frames; tests use copies."""
    folder = tmp_path_factory.mktemp("made") / "world"
    assert main(["explore", f"image={photo}", f"out={folder}", "path=left", "frames=5", *WORDS]) == 0
    return folder


@pytest.fixture
def world(made: Path, tmp_path: Path) -> World:
    return World.load(shutil.copytree(made, tmp_path / "copy"))


def checked(*words: str) -> RenderSettings:
    return render_settings(compose_config("render", words))


def test_the_walked_path_is_rendered_as_it_was_walked(world: World) -> None:
    done = world.render_path()
    assert [file.name for file in done.files] == ["video.mp4", "cameras.json", "render.json"]
    assert done.files[0].parent == world.folder / "renders" / "walked-80x48"
    frames, fps = read_video(done.files[0])
    assert (len(frames), fps) == (5, world.record.fps)
    renderer = Renderer(world.record, world.rendered, RenderSettings())
    for k in range(1, 5):
        shown = next(renderer.pictures(world.cameras[k : k + 1])).rgb
        assert psnr(shown, world.frames().rgb[k]) > 35.0
        assert psnr(frames[k], shown) > 20.0  # the photo is noise, which the film cannot keep
    poses = read_cameras(done.files[1], size=SIZE).world_from_camera.float()
    torch.testing.assert_close(poses, world.cameras.world_from_camera, atol=1e-5, rtol=0.0)


def test_a_path_lasts_as_long_at_any_frame_rate_and_begins_at_any_frame(world: World) -> None:
    rate = world.record.fps
    assert len(world.cameras_along()) == 5
    slow = world.cameras_along(fps=2.0 * rate)
    assert len(slow) == 9
    torch.testing.assert_close(slow.world_from_camera[::2], world.cameras.world_from_camera, atol=1e-5, rtol=0.0)
    assert len(world.cameras_along("orbit", fps=rate)) == 49
    assert len(world.cameras_along("orbit", fps=2.0 * rate)) == 97
    assert len(world.cameras_along("orbit", frames=3)) == 3
    assert len(world.cameras_along("orbit", frames=1)) == 1
    turned = world.cameras_along("pan", frames=2, begin=-1)
    assert turned.world_from_camera[0].equal(world.cameras.world_from_camera[-1])
    assert turned.position[0].equal(turned.position[1])


def test_frames_of_another_shape_are_cropped_from_what_the_world_shows(world: World) -> None:
    square, wide, large = (world.cameras_along(frames=2, size=size) for size in ([64, 64], [48, 160], 160))
    whole = world.cameras.fov_deg[0]
    assert square.size == (64, 64)
    torch.testing.assert_close(square.fov_deg[0, 1], whole[1])  # as high, less wide
    assert square.fov_deg[0, 0] < whole[0]
    torch.testing.assert_close(wide.fov_deg[0, 0], whole[0])
    assert wide.fov_deg[0, 1] < whole[1]
    assert large.size == (96, 160)
    torch.testing.assert_close(large.fov_deg[0], whole)
    torch.testing.assert_close(
        world.cameras_along("left", frames=2, fov_deg=30.0).fov_deg[:, 0], torch.full((2,), 30.0)
    )


def test_a_camera_file_begins_at_the_photo(world: World, tmp_path: Path) -> None:
    cameras = world.cameras_along("orbit:angle_deg=5", frames=4)
    write_cameras(tmp_path / "path.json", cameras, "keyframes", fps=24.0)
    read = world.cameras_along(tmp_path / "path.json", frames=4)
    torch.testing.assert_close(read.world_from_camera, cameras.world_from_camera, atol=1e-5, rtol=0.0)
    half = world.cameras_along(tmp_path / "path.json", frames=4, path_scale=0.5)
    torch.testing.assert_close(half.position, 0.5 * cameras.position, atol=1e-5, rtol=0.0)


def test_pictures_depth_and_alpha_say_what_is_known(world: World, tmp_path: Path) -> None:
    path = "pan:angle_deg=30"
    formats = ["png", "webm", "gif", "depth_png", "depth_exr"]
    done = world.render_path(path, tmp_path / "r", frames=3, alpha="known", formats=formats)
    guide = world.rendered.render(world.cameras_along(path, frames=3))
    assert done.unknown == pytest.approx(guide.hole.float().mean((1, 2, 3)).tolist(), abs=1e-6)
    assert done.unknown[2] > 0.2
    picture = np.array(Image.open(tmp_path / "r" / "png" / "00002.png"))
    hole = guide.hole[2, 0].numpy()
    assert picture.shape == (*SIZE, 4)
    assert (picture[..., 3][hole] < 128).all()
    assert (picture[..., 3][~hole] >= 127).all()
    depth = np.array(Image.open(tmp_path / "r" / "depth_png" / "00002.png"))
    with OpenEXR.File(str(tmp_path / "r" / "depth_exr" / "00002.exr")) as file:
        exact = np.array(file.channels()["Z"].pixels)
    assert (depth[hole] == 0).all()
    assert (exact[hole] == 0.0).all()
    assert exact[~hole] == pytest.approx(guide.depth[2, 0].numpy()[~hole])
    assert depth[~hole] == pytest.approx(1000.0 * exact[~hole], abs=0.51)
    with Image.open(tmp_path / "r" / "video.gif") as gif:
        pictures = ImageSequence.all_frames(gif)
        assert len(pictures) == 3
        assert (np.array(pictures[2].convert("RGBA"))[..., 3] == 0).mean() == pytest.approx(done.unknown[2], abs=0.01)
    with av.open(str(tmp_path / "r" / "video.webm")) as film:
        decoder = av.CodecContext.create("libvpx-vp9", "r")  # the decoder that reads the alpha plane
        seen = [frame.to_ndarray(format="rgba") for packet in film.demux(video=0) for frame in decoder.decode(packet)]
    assert len(seen) == 3
    assert (seen[2][..., 3] < 128).mean() == pytest.approx(done.unknown[2], abs=0.03)


def test_unknown_pixels_are_shown_in_magenta_or_filled(world: World) -> None:
    camera = world.cameras_along("pan:angle_deg=30", frames=2)[1:]
    hole = world.rendered.render(camera).hole[0, 0]
    pictures = {
        how: next(Renderer(world.record, world.rendered, RenderSettings(unknown=how)).pictures(camera))
        for how in ("fill", "show")
    }
    magenta = torch.tensor(MAGENTA)[:, None]
    assert (pictures["show"].rgb[:, hole] == magenta).all()
    assert not (pictures["fill"].rgb[:, hole] == magenta).all(0).any()
    filled, seen = pictures["fill"].rgb[:, hole], pictures["fill"].rgb[:, ~hole]
    assert (filled.amax(1) <= seen.amax(1) + 1e-4).all()
    assert (filled.mean(1) >= seen.amin(1)).all()
    assert pictures["fill"].unknown == pictures["show"].unknown > 0.2


def test_stereo_is_side_by_side_and_a_sphere_shows_the_photo_in_its_middle(world: World, tmp_path: Path) -> None:
    done = world.render_path("left", tmp_path / "eyes", frames=2, view="stereo", formats=["png", "depth_png"])
    assert done.size == (48, 160)
    pair = np.array(Image.open(tmp_path / "eyes" / "png" / "00000.png")).astype(float) / 255.0
    mono = next(Renderer(world.record, world.rendered, RenderSettings()).pictures(world.cameras[:1])).rgb
    eyes = (torch.from_numpy(part).permute(2, 0, 1).float() for part in (pair[:, :80], pair[:, 80:]))
    # The wall of this world is the plane of the screen: both eyes see it in one place.
    assert all(psnr(eye[..., 8:-8], mono[..., 8:-8]) > 25.0 for eye in eyes)
    done = world.render_path("left", tmp_path / "sphere", frames=1, view="360", size=256, formats=["png"])
    assert done.size == (128, 256)
    assert 0.5 < done.unknown[0] < 0.97
    assert not (tmp_path / "sphere" / "cameras.json").exists()


def test_an_interrupted_rendering_goes_on_to_the_same_bits(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["render", str(world.folder), "arc", "frames=6", "formats=mp4,depth_png"]
    assert main([*words, f"out={tmp_path / 'whole'}"]) == 0
    drawn: list[int] = []
    store = Job._store

    def interrupted(self: Job, k: int, picture: Picture) -> None:
        if len(drawn) == 3:
            raise KeyboardInterrupt
        drawn.append(k)
        store(self, k, picture)

    capsys.readouterr()
    monkeypatch.setattr(Job, "_store", interrupted)
    assert main([*words, f"out={tmp_path / 'parts'}"]) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert not (tmp_path / "parts").exists()
    # A line that the end of the program cut off, and a frame whose file is gone, are made again.
    waiting = tmp_path / "parts.partial"
    with (waiting / rendering.UNKNOWN).open("a") as file:
        file.write("5")
    (waiting / "frames" / "00001.npy").unlink()
    drawn[:] = []
    monkeypatch.setattr(Job, "_store", lambda self, k, picture: (drawn.append(k), store(self, k, picture)))
    assert main([*words, f"out={tmp_path / 'parts'}"]) == 0
    assert drawn == [1, 3, 4, 5]
    assert not waiting.exists()
    assert (tmp_path / "parts" / "video.mp4").read_bytes() == (tmp_path / "whole" / "video.mp4").read_bytes()
    pictures = [sorted((tmp_path / name / "depth_png").iterdir()) for name in ("parts", "whole")]
    assert [file.read_bytes() for file in pictures[0]] == [file.read_bytes() for file in pictures[1]]
    reports = [json.loads((tmp_path / name / "render.json").read_text()) for name in ("parts", "whole")]
    assert reports[0]["unknown"] == pytest.approx(reports[1]["unknown"], abs=1e-6)


def test_frames_of_another_rendering_or_world_are_not_used(world: World, tmp_path: Path) -> None:
    job = Job.of(world.record, lambda: world.rendered, RenderSettings(path="arc", frames=2, out=tmp_path / "r"))
    job._start()
    job._store(0, next(Renderer(world.record, world.rendered, job.settings).pictures(job.cameras[:1])))
    (job.waiting / rendering.UNKNOWN).write_text("0 0.25\n")
    assert job._done() == {0: 0.25}
    assert replace(job, settings=replace(job.settings, unknown="show"))._done() == {}
    assert replace(job, cameras=job.cameras[:1])._done() == {}
    world.forget(region=((-9.0, -9.0, 0.0), (0.0, 9.0, 9.0)))
    assert replace(job, world=World.load(world.folder).record)._done() == {}


def test_an_earlier_rendering_is_replaced_and_anything_else_is_not(world: World, tmp_path: Path) -> None:
    for frames in (2, 3):
        assert world.render_path("left", tmp_path / "r", frames=frames, formats=["png"]).frames == frames
        assert len(list((tmp_path / "r" / "png").iterdir())) == frames
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary.txt").write_text("dear")
    with pytest.raises(ConfigError, match="mine is not empty, and no earlier rendering"):
        world.render_path("left", tmp_path / "mine", frames=2)
    (tmp_path / "film.mp4.partial").mkdir()
    (tmp_path / "film.mp4.partial" / "diary.txt").write_text("dear")
    with pytest.raises(ConfigError, match="in the way"):
        world.render_path("left", tmp_path / "film.mp4", frames=2)
    assert sorted(os.listdir(tmp_path / "mine")) == ["diary.txt"]


def test_frames_that_would_fill_the_disk_wait_compressed(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    films = []
    for most in (1e9, 0.0):
        monkeypatch.setattr(rendering, "WAITING_MIB", most)
        films.append(world.render_path("left", tmp_path / f"{most}.mp4", frames=3).files[0].read_bytes())
    assert films[0] == films[1]


def test_one_file_is_written_where_a_file_is_named(world: World, tmp_path: Path) -> None:
    for name in ("film.mp4", "film.webm", "film.gif"):
        done = world.render_path("left", tmp_path / name, frames=2)
        assert done.files == (tmp_path / name,)
        assert av.open(str(tmp_path / name)).streams.video[0].codec_context.width == 80
    assert sorted(path.name for path in tmp_path.glob("film*")) == ["film.gif", "film.mp4", "film.webm"]


def test_the_plan_comes_first_and_a_disk_that_is_too_small_is_told(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["render", str(world.folder), "pan:angle_deg=60", "frames=2", "size=2:1".replace("2:1", "96x96")]) == 0
    out = capsys.readouterr().out
    assert out.index("plan     2 frames of 96x96") < out.index("path     unknown along it:") < out.index("wrote    ")
    assert "much of some views was never seen" in out
    monkeypatch.setattr(rendering, "free_disk_mib", lambda _folder: 0.001)
    assert main(["render", str(world.folder), "pan", "frames=3"]) == 2
    assert "set a smaller size= or fewer frames=" in capsys.readouterr().err
    monkeypatch.setattr(rendering, "available_memory_mib", lambda: 10.0)
    assert main(["render", str(world.folder), "pan", "frames=3"]) == 2
    assert "memory: want about" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["view=vr"], "view: want mono, stereo or 360, got 'vr'"),
        (["alpha=known"], "alpha: MP4 holds none"),
        (["alpha=known", "formats=depth_png"], "add formats=png"),
        (["formats=avi"], "formats: there is no 'avi'"),
        (["formats=png", "out=film.webm"], "holds webm alone, got png"),
        (["size=8"], "size: want sides from 16"),
        (["size=[64,64]", "view=360"], "a sphere is twice as wide as high, got 64x64; try size=128"),
        (["path=keys"], "path: keys makes new frames"),
        (["path=orbitt"], "did you mean orbit"),
        (["path=orbit", "path_scale=2"], "path_scale: it is for camera files"),
        (["unknown=hide"], "unknown: want fill or show, got 'hide'"),
        (["samples=9"], "samples: want a whole number from 1 to 4"),
        (["fps=0"], "fps: want a number from 1 to 240"),
    ],
)
def test_invalid_settings_are_refused_in_a_sentence(words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]*$") as error:
        checked(*words)
    assert message in str(error.value)


def test_a_frame_that_does_not_exist_is_refused(world: World) -> None:
    with pytest.raises(ConfigError, match=r"begin: want a frame from 0 to 4, .* got 5"):
        world.cameras_along("left", begin=5)
    with pytest.raises(ConfigError, match="convention: a preset needs none"):
        world.cameras_along("left", convention="tum_xyzw")


def test_a_gif_keeps_the_time_of_frames_that_it_cannot_time_exactly(tmp_path: Path) -> None:
    frames = [torch.full((3, 8, 8), k / 40.0) for k in range(31)]
    write_gif(tmp_path / "a.gif", frames, fps=30.0)
    write_gif(tmp_path / "b.gif", frames, fps=60.0)
    for name, count, total in (("a", 31, 1030), ("b", 16, 530)):
        with Image.open(tmp_path / f"{name}.gif") as gif:
            durations = [picture.info["duration"] for picture in ImageSequence.all_frames(gif)]
        assert len(durations) == count
        assert sum(durations) == pytest.approx(total, abs=10)
        assert set(durations) <= {30, 40}


def test_a_webm_of_odd_sides_has_the_colors_that_went_in(tmp_path: Path) -> None:
    ramp = torch.linspace(0.1, 0.9, 63).expand(3, 47, 63)
    write_webm(tmp_path / "a.webm", [ramp, ramp], 24.0)
    frames, fps = read_video(tmp_path / "a.webm")
    assert frames.shape == (2, 3, 48, 64)
    assert fps == 24.0
    assert (frames[1, :, :47, :63] - ramp).abs().max() < 0.03
