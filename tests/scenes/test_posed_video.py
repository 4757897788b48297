"""Clips from filmed video: frames find their cameras, positions their scale, and latents are made of the clips."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from diffusion.wan.fresh import write_part
from diffusion.wan.patch_vae import PatchVAE
from geometry.camera import Camera
from geometry.camera_io.read_write import scaled, write_cameras
from geometry.depth import DepthMap, PlaneDepth
from geometry.depth.pose_scale import find_pose_scale
from geometry.frame import Frame
from scenes.dataset.clips import MANIFEST, list_clips, read_clip
from scenes.dataset.posed_frames import open_posed_frames
from scenes.dataset.posed_video import Imported, import_video, split_of
from scenes.io.png import write_rgb_png
from tests.helpers import cameras_along, cameras_at, pillar_before_wall, psnr, textured_wall
from worldwarp.cli import main
from worldwarp.training.wan_latents import record_latents

SIZE, COUNT, UNIT = (48, 64), 9, 0.04  # frames of a video; positions in its camera file are these times UNIT


class TrueDepth:
    """Depth of known frames, found by their colors, times a factor of their own; as a network gives it: up to scale."""

    def __init__(self, frames: Frame) -> None:
        self.frames = frames

    def estimate(self, rgb: Tensor, focal_px: Tensor | None = None) -> DepthMap:  # noqa: ARG002
        rows = [int((self.frames.rgb - image).abs().mean((1, 2, 3)).argmin()) for image in rgb]
        factor = torch.tensor([1.0 + 0.1 * row for row in rows])[:, None, None, None]
        depth = factor * self.frames.depth[rows]
        return DepthMap(depth, depth > 0.0, depth > 50.0, metric=False)


def pillar_video(cameras: Camera) -> Frame:
    """A pillar before a wall, above which is the sky."""
    return Frame.concatenate([pillar_before_wall(cameras[k : k + 1], skyline=-0.5)[0] for k in range(len(cameras))])


def film(folder: Path, frames: Frame, *, names: list[str] | None = None) -> Path:
    """Write frames as images, named by microseconds at 25 frames a second if not otherwise; returns their folder."""
    (folder / "images").mkdir(parents=True)
    for k, rgb in enumerate(frames.rgb):
        write_rgb_png(folder / "images" / (names[k] if names else f"{40_000 * k}.png"), rgb)
    return folder / "images"


def realestate(folder: Path, cameras: Camera) -> Path:
    """A RealEstate10K file of cameras whose unit is not that of the scene."""
    write_cameras(folder / "video.txt", scaled(cameras, UNIT), "realestate10k", fps=25.0)
    return folder / "video.txt"


@pytest.mark.parametrize("shift", [(1.0, 0.0, 0.0), (0.3, 0.2, 0.9)])
def test_the_scale_of_positions_is_found(shift: tuple[float, float, float]) -> None:
    (x, y, z), steps = shift, torch.linspace(0.0, 0.5, COUNT).tolist()
    cameras = cameras_at(*((step * x, step * y, step * z) for step in steps), size=SIZE)
    frames = textured_wall(cameras, grain=20.0)
    for unit in (1e-4, 1.0, 300.0):
        found = find_pose_scale(frames[:1], frames.rgb[1:], scaled(cameras, unit)[1:])
        assert found is not None
        assert found.factor * unit == pytest.approx(1.0, rel=0.01)
        assert found.gain > 0.7
    still = replace(cameras, world_from_camera=cameras.world_from_camera[:1].expand(COUNT, 4, 4))
    assert find_pose_scale(frames[:1], frames.rgb[1:], still[1:]) is None


def test_a_realestate_video_becomes_clips(tmp_path: Path) -> None:
    cameras = cameras_along(0.05, 2 * COUNT, SIZE)
    frames = pillar_video(cameras)
    images, file = film(tmp_path, frames), realestate(tmp_path, cameras)
    first = images / "0.png"
    first.rename(first.with_name("0000.png"))  # a time stamp all the same
    made = import_video(images, file, tmp_path / "clips", TrueDepth(frames), size=SIZE, frames=COUNT, name="a b")
    assert made == Imported("a-b", split_of("a-b"), 2, 0, 0)
    (path, _) = list_clips(tmp_path / "clips", made.split)
    clip, truth = read_clip(path), frames[:COUNT]
    assert clip.valid.all()
    torch.testing.assert_close(clip.rgb, truth.rgb, rtol=0.0, atol=0.003)
    assert (clip.sky == truth.sky).float().mean() > 0.98
    # In median depths of the first frame, positions and all depths alike.
    unit = truth[:1].median_depth()
    torch.testing.assert_close(unit * clip.camera.position, truth.camera.position, rtol=0.05, atol=1e-4)
    both = truth.surface & clip.surface
    wrong = (unit * clip.depth / truth.depth).log().abs()
    assert max(float(wrong[k][both[k]].median()) for k in range(COUNT)) < 0.05
    torch.testing.assert_close(clip.camera.focal_px, truth.camera.focal_px)
    with safe_open(path, "np") as stored:
        fields = stored.metadata()
    assert float(fields["pose_scale"]) == pytest.approx(1.0 / (unit * UNIT), rel=0.05)
    assert (fields["license"], fields["scene"], fields["index"]) == ("not stated", "a-b", "0")


def test_shuffled_poses_are_left_out_and_what_is_there_is_kept(tmp_path: Path) -> None:
    cameras = cameras_along(0.08, COUNT, SIZE)
    frames = textured_wall(cameras)
    images, out = film(tmp_path, frames), tmp_path / "clips"
    order = torch.tensor([0, 6, 2, 8, 4, 1, 7, 3, 5])
    shuffled = realestate(tmp_path, cameras[order])
    made = import_video(images, shuffled, out, PlaneDepth(), size=SIZE, frames=COUNT)
    assert (made.written, made.left_out, made.name) == (0, 1, f"{tmp_path.name}-images")
    assert json.loads((out / MANIFEST).read_text())["clips"] == []
    right = realestate(tmp_path, cameras)
    made = import_video(images, right, out, PlaneDepth(), size=SIZE, frames=COUNT)
    assert (made.written, made.kept, made.left_out) == (1, 0, 0)
    (listed,) = json.loads((out / MANIFEST).read_text())["clips"]
    assert listed["frames"] == COUNT
    before = (out / listed["file"]).stat().st_mtime_ns
    made = import_video(images, right, out, PlaneDepth(), size=SIZE, frames=COUNT)
    assert (made.written, made.kept) == (0, 1)
    assert (out / listed["file"]).stat().st_mtime_ns == before


def test_frames_are_named_by_transforms_and_cropped_with_their_cameras(tmp_path: Path) -> None:
    cameras = cameras_along(0.05, 2 * COUNT, (48, 96))
    frames = textured_wall(cameras, grain=20.0)
    names = [f"frame_{k + 1}.png" for k in range(2 * COUNT)]
    images = film(tmp_path, frames, names=names)
    file = tmp_path / "transforms.json"
    write_cameras(file, scaled(cameras, UNIT), "nerfstudio", file_paths=[f"other/{name}" for name in names])
    (images / names[3]).unlink()  # cameras without a frame are passed over
    video = open_posed_frames(images, file, size=(32, 48))
    assert [path.name for path in video.files] == names[:3] + names[4:]
    taken = [0, 1, 2, *range(4, 2 * COUNT)]
    torch.testing.assert_close(video.cameras.position[:, 0].float(), UNIT * cameras.position[taken, 0])
    made = import_video(images, file, tmp_path / "clips", PlaneDepth(), size=(32, 48), frames=5, every=2, apart=4)
    assert (made.written, made.left_out) == (3, 0)
    clip = read_clip(list_clips(tmp_path / "clips", made.split)[0])
    torch.testing.assert_close(clip.camera.focal_px, cameras.focal_px[:5] * 2.0 / 3.0)
    assert clip.camera.center_px.tolist() == 5 * [[24.0, 16.0]]
    # Frames 0, 2, 5, 7 and 9, where one is missing; the wall is one unit away.
    steps = torch.tensor([0.0, 2.0, 5.0, 7.0, 9.0])
    torch.testing.assert_close(clip.camera.position[:, 0], 0.05 * steps / 2.0, rtol=0.05, atol=1e-4)


def test_frames_of_a_lens_with_distortion_are_straightened(tmp_path: Path) -> None:
    # As DL3DV has them: a distorted lens, and images of another folder and size than the file says.
    size, bend = (96, 160), {"k1": -0.12, "k2": 0.02}
    cameras = cameras_along(0.08, COUNT, size)
    focal, pixels = float(cameras.focal_px[0, 0]), np.stack(np.meshgrid(np.arange(160.0), np.arange(96.0)), -1)
    matrix = np.array([[focal, 0.0, 79.5], [0.0, focal, 47.5], [0.0, 0.0, 1.0]])
    rays = cv2.undistortPoints(pixels.reshape(-1, 1, 2), matrix, np.array([*bend.values(), 0.0, 0.0])).reshape(
        96, 160, 2
    )
    names, rgb = [f"frame_{k + 1:05d}.png" for k in range(COUNT)], []
    for x in cameras.position[:, 0].tolist():  # the wall of `textured_wall`, at 2
        wall = 2.0 * torch.from_numpy(rays).float().permute(2, 0, 1) + torch.tensor([x, 0.0])[:, None, None]
        rgb.append(torch.stack([torch.sin(9.0 * wall[k % 2] + k) for k in range(3)]) * 0.35 + 0.5)
    images = film(tmp_path, replace(textured_wall(cameras), rgb=torch.stack(rgb)), names=names)
    file = tmp_path / "transforms.json"
    write_cameras(file, scaled(cameras.resized((384, 640)), UNIT), "nerfstudio", file_paths=[f"4k/{n}" for n in names])
    file.write_text(json.dumps(json.loads(file.read_text()) | bend))
    made = import_video(images, file, tmp_path / "clips", PlaneDepth(), frames=COUNT)
    clip = read_clip(list_clips(tmp_path / "clips", made.split)[0])
    pinholes = replace(clip.camera, world_from_camera=cameras.world_from_camera)
    assert psnr(clip.rgb, textured_wall(pinholes).rgb) > 45.0
    torch.testing.assert_close(clip.camera.position, cameras.position / 2.0, rtol=0.01, atol=1e-5)


def test_time_stamps_that_are_numbers_of_frames_match_by_order(tmp_path: Path) -> None:
    cameras = cameras_along(0.05, COUNT, SIZE)
    images = film(tmp_path, textured_wall(cameras), names=[f"{k}.png" for k in range(COUNT)])
    write_cameras(tmp_path / "path.txt", cameras, "tum", fps=10.0)
    with pytest.raises(ValueError, match=r"path\.txt: fov_deg: this file holds no intrinsics"):
        open_posed_frames(images, tmp_path / "path.txt", size=SIZE)
    video = open_posed_frames(images, tmp_path / "path.txt", size=SIZE, fov_deg=60.0)
    assert [path.stem for path in video.files] == [str(k) for k in range(COUNT)]
    torch.testing.assert_close(video.cameras.focal_px.float(), cameras.focal_px)
    (images / "0.png").unlink()
    with pytest.raises(ValueError, match="as many frames as cameras, got 9 cameras and 8 frames"):
        open_posed_frames(images, tmp_path / "path.txt", size=SIZE, fov_deg=60.0)


def test_frames_of_two_sizes_and_a_short_video_are_refused(tmp_path: Path) -> None:
    cameras = cameras_along(0.05, COUNT, SIZE)
    frames = textured_wall(cameras)
    images, file = film(tmp_path, frames), realestate(tmp_path, cameras)
    with pytest.raises(ValueError, match="want a video of 17 frames or more for clips of 9"):
        import_video(images, file, tmp_path / "clips", PlaneDepth(), size=SIZE, frames=9, every=2)
    write_rgb_png(images / "80000.png", frames.rgb[0, :, :40])
    with pytest.raises(ValueError, match="want frames of one size, 64x48, got 64x40"):
        import_video(images, file, tmp_path / "clips", PlaneDepth(), size=SIZE, frames=9)
    with pytest.raises(ValueError, match="images: want a folder of frames"):
        open_posed_frames(tmp_path / "nope", file, size=SIZE)


def test_one_video_in_ten_is_held_out() -> None:
    held_out = sum(split_of(f"video-{k}") == "heldout" for k in range(1000))
    assert held_out == pytest.approx(100, abs=30)


def test_latents_are_recorded_of_what_the_command_makes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cameras = cameras_along(0.1, 5, (32, 48))
    images = film(tmp_path, textured_wall(cameras, grain=20.0))
    words = [f"images={images}", f"cameras={realestate(tmp_path, cameras)}", f"out={tmp_path / 'clips'}"]
    assert main(["import-video", *words, "size=32x48", "frames=5", "depth=plane", "license=CC0-1.0", "name=wall"]) == 0
    assert f"1 clips of wall ({split_of('wall')})" in capsys.readouterr().out
    torch.manual_seed(0)
    vae = PatchVAE(width=16, blocks=1, fine_width=8, fine_blocks=1)
    write_part(tmp_path / "vae", vae, vae.config, vae.state_dict())
    assert record_latents(tmp_path / "clips", tmp_path, tmp_path / "latents") == 1
    with safe_open(tmp_path / "latents" / "clip_wall_00000.safetensors", "pt") as rows:
        known = rows.get_tensor("known")[0].float() / 255.0
    assert 0.5 < float(known[1].mean()) < 0.95  # the wall goes on where the first frame ended
