"""The length of a path: moves in median depths of the photo, files in their own unit times path_scale."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from geometry.camera import Camera
from geometry.camera_io.read_write import rebased, write_cameras
from worldwarp import World, explore
from worldwarp.config import ConfigError, compose_config
from worldwarp.keyboard import move
from worldwarp.prepare import prepare
from worldwarp.resume import resume
from worldwarp.session import Session

SIZE = (48, 80)
QUICK = ["size=[48,80]", "chunk=3", "detail=1", "generator=passthrough", "viewer=none"]
QUICK += ["prior=smooth", "cache.refine_steps=0"]


@pytest.fixture
def six_meters(tmp_path: Path) -> list[str]:
    """Settings of a metric depth of 6 m everywhere."""
    np.save(tmp_path / "depth.npy", np.full(SIZE, 6.0, dtype=np.float32))
    return ["depth=file", f"depth.path={tmp_path / 'depth.npy'}", "depth.unit_m=1.0"]


@pytest.fixture
def ahead(tmp_path: Path) -> Path:
    """A camera file that goes straight ahead by 2 of its units, from far away."""
    poses = torch.eye(4, dtype=torch.float64).repeat(5, 1, 1)
    poses[:, 2, 3] = 1e6 + torch.linspace(0.0, 2.0, 5, dtype=torch.float64)
    write_cameras(tmp_path / "ahead.json", Camera.from_fov(60.0, SIZE, poses), "nerfstudio")
    return tmp_path / "ahead.json"


def ready(photo: Path, *words: str) -> Session:
    return prepare(compose_config("explore", [f"image={photo}", *QUICK, *words]))


def depths(walk: Session) -> list[float]:
    return walk.cameras.position[:, 2].tolist()


@pytest.mark.parametrize("path", ["orbit:angle_deg=6", "spiral", "dolly_zoom", "left+pan,forward:distance=0.1"])
def test_a_distance_of_1_is_the_median_depth_in_meters_too(photo: Path, six_meters: list[str], path: str) -> None:
    units = ready(photo, f"path={path}", "frames=9", "depth=plane").cameras
    walk = ready(photo, f"path={path}", "frames=9", *six_meters)
    torch.testing.assert_close(walk.cameras.position, 6.0 * units.position, atol=1e-5, rtol=0)
    assert torch.equal(walk.cameras.world_from_camera[:, :3, :3], units.world_from_camera[:, :3, :3])
    assert torch.equal(walk.cameras.focal_px, units.focal_px)
    assert "path     distance 1 is 6 m, the photo's median depth" in walk.plan().lines()


def test_a_metric_orbit_circles_what_is_in_the_middle(photo: Path, six_meters: list[str]) -> None:
    position = ready(photo, "path=orbit:angle_deg=6", "frames=5", *six_meters).cameras.position
    torch.testing.assert_close((position - torch.tensor([0.0, 0.0, 6.0])).norm(dim=-1), torch.full((5,), 6.0))
    assert position[-1, 0].item() == pytest.approx(6.0 * math.sin(math.radians(6.0)), abs=1e-5)


def test_keys_move_in_median_depths(photo: Path, six_meters: list[str]) -> None:
    for settings, unit in ((["depth=plane"], 1.0), (six_meters, 6.0)):
        walk = ready(photo, "path=keys", *settings)
        shown = []
        for key in "wd":
            cameras = move(key, walk.cameras[len(walk.cameras) - 1], 3)
            assert cameras is not None
            shown.append(walk.go(cameras).chunk.frames.camera)
        assert len(walk.cameras) == 7
        assert torch.equal(shown[-1].world_from_camera, walk.cameras.world_from_camera[4:])
        expected = torch.tensor([0.12, 0.0, 0.15]) * unit
        torch.testing.assert_close(walk.cameras.position[-1], expected, atol=1e-5, rtol=0)


def test_file_units_are_multiplied_by_path_scale(photo: Path, six_meters: list[str], ahead: Path) -> None:
    for settings in (["depth=plane"], six_meters):
        assert depths(ready(photo, f"path={ahead}", *settings)) == pytest.approx([0.0, 0.5, 1.0, 1.5, 2.0])
        walk = ready(photo, f"path={ahead}", "path_scale=0.2", *settings)
        assert depths(walk) == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
        assert "path     path_scale=0.2" in walk.plan().lines()


def test_path_scale_auto_goes_as_far_as_out_and_back(photo: Path, six_meters: list[str], ahead: Path) -> None:
    assert depths(ready(photo, f"path={ahead}", "path_scale=auto", "depth=plane"))[-1] == pytest.approx(0.4)
    walk = ready(photo, f"path={ahead}", "path_scale=auto", *six_meters)
    assert depths(walk)[-1] == pytest.approx(2.4)
    assert "path     path_scale=1.2" in walk.plan().lines()
    content = json.loads(ahead.read_text())
    for frame in content["frames"]:
        frame["transform_matrix"] = content["frames"][0]["transform_matrix"]
    ahead.write_text(json.dumps(content))  # a path that stays where it is
    assert depths(ready(photo, f"path={ahead}", "path_scale=auto", "depth=plane")) == [0.0] * 5


def test_colliding_path_suggests_a_scale(photo: Path, six_meters: list[str], ahead: Path) -> None:
    def warnings(*words: str) -> list[str]:
        return [line for line in ready(photo, *words, *six_meters).plan().lines() if "passes through" in line]

    (line,) = warnings(f"path={ahead}", "path_scale=10")  # 20 m, through a wall at 6 m
    assert "try path_scale=2 or another direction" in line
    assert warnings(f"path={ahead}", "path_scale=2") == []
    (line,) = warnings("path=forward:distance=2")
    assert "try a smaller distance or another direction" in line


@pytest.mark.parametrize("value", ["0", "-1", "inf", "nan", "true", "large", "[1]"])
def test_invalid_path_scale_is_refused(photo: Path, ahead: Path, value: str) -> None:
    with pytest.raises(ConfigError, match="path_scale: want a positive number or auto"):
        ready(photo, f"path={ahead}", f"path_scale={value}", "depth=plane")


@pytest.mark.parametrize("path", ["orbit", "keys"])
def test_moves_have_no_path_scale(photo: Path, path: str) -> None:
    with pytest.raises(ConfigError, match="path_scale: it is for camera files; remove it, moves have distance="):
        ready(photo, f"path={path}", "path_scale=0.5", "depth=plane")


def test_world_continues_along_scaled_files_and_metric_moves(
    photo: Path, six_meters: list[str], ahead: Path, tmp_path: Path
) -> None:
    walk = ready(photo, "path=forward:distance=0.1", "frames=4", *six_meters)
    walk.store_in(tmp_path / "world")
    list(walk.steps())
    onward = resume(tmp_path / "world", onward={"path": str(ahead), "path_scale": 0.25})
    assert depths(onward) == pytest.approx([*depths(walk), 0.725, 0.85, 0.975, 1.1])
    again = resume(tmp_path / "world")
    assert torch.equal(again.cameras.world_from_camera, onward.cameras.world_from_camera)
    list(again.steps())
    moved = resume(tmp_path / "world", onward={"path": "back:distance=0.1", "frames": 4})
    assert depths(moved)[-1] == pytest.approx(1.1 - 0.6)
    assert World.load(tmp_path / "world").record.config["path_scale"] is None


def test_cameras_from_python_are_taken_relative_to_their_first(photo: Path) -> None:
    poses = torch.eye(4, dtype=torch.float64).repeat(4, 1, 1)
    poses[:, 0, 3] = 5e6 + 0.01 * torch.arange(4, dtype=torch.float64)
    cameras = Camera.from_fov(60.0, SIZE, poses)
    (step,) = explore(image=photo, path=cameras, depth="plane", generator="passthrough", size=SIZE, detail=1)
    expected = torch.tensor([0.01, 0.02, 0.03])
    torch.testing.assert_close(step.chunk.frames.camera.position[:, 0], expected, atol=1e-6, rtol=0)
    assert step.chunk.frames.camera.world_from_camera.dtype == torch.float32
    assert torch.equal(rebased(cameras).world_from_camera[1:], step.chunk.frames.camera.world_from_camera)
