"""Lenses of camera files: cropped with the photo, from angles, and with distortion, against COLMAP's projections."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pycolmap
import pytest
import torch
from PIL import Image

from geometry.camera import Camera
from geometry.camera_io.read_write import open_camera_path, read_cameras, write_cameras
from geometry.lens_distortion import DistortedLens
from scenes.photos.photo import decode_photo, read_photo
from worldwarp.config import compose_config
from worldwarp.prepare import prepare

QUICK = ["depth=plane", "generator=passthrough", "viewer=none", "detail=1", "chunk=2"]
QUICK += ["prior=smooth", "cache.refine_steps=0"]


def write_transforms(path: Path, **fields: object) -> Path:
    """A transforms.json of two cameras, the second 0.1 to the right."""
    poses = torch.eye(4).repeat(2, 1, 1)
    poses[1, 0, 3] = 0.1
    frames = [{"file_path": f"{i}.png", "transform_matrix": pose.tolist()} for i, pose in enumerate(poses)]
    path.write_text(json.dumps(fields | {"frames": frames}))
    return path


def colmap(path: Path, model: str, width: int, height: int, params: list[float]) -> Path:
    path.mkdir(exist_ok=True)
    (path / "cameras.txt").write_text(f"1 {model} {width} {height} {' '.join(map(str, params))}\n")
    (path / "images.txt").write_text("1 1 0 0 0 0 0 0 1 a.png\n\n2 1 0 0 0 -0.1 0 0 1 b.png\n\n")
    return path


def gray_photo(path: Path, size: tuple[int, int]) -> Path:
    rows, columns = np.mgrid[: size[0], : size[1]]
    gray = (128 + 60 * np.sin(rows / 9.0) * np.cos(columns / 11.0)).astype(np.uint8)
    Image.fromarray(np.stack([gray, np.roll(gray, 3), gray], -1)).save(path)
    return path


# --- one factor for both axes ----------------------------------------------------------------------------------------


def written(folder: Path, kind: str) -> Path:
    """Cameras of a 1920x1080 photo, fx = fy = 1500, principal point 60 px right of and 20 px below the middle."""
    poses = torch.eye(4).repeat(3, 1, 1)
    poses[:, 0, 3] = 0.1 * torch.arange(3)
    center = torch.tensor([1020.0, 560.0]) if kind != "camera_path" else torch.tensor([960.0, 540.0])
    camera = Camera(poses, torch.full((3, 2), 1500.0), center.repeat(3, 1), (1080, 1920))
    write_cameras(folder / kind, camera, kind)
    return folder / kind


@pytest.mark.parametrize(
    "kind", ["keyframes", "nerfstudio", "camera_path", "colmap_text", "colmap_binary", "realestate10k"]
)
def test_square_pixels_stay_square_and_the_crop_is_centered(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path, kind)
    off = torch.tensor([60.0, 20.0]) if kind != "camera_path" else torch.zeros(2)
    # 336x192: the photo loses 15 px left and right, and shrinks by 192 / 1080.
    got = read_cameras(path, size=(192, 336), frames=3, photo_size=(1080, 1920))
    torch.testing.assert_close(got.focal_px, torch.full((3, 2), 1500 * 192 / 1080).double(), atol=1e-3, rtol=0)
    expected = torch.tensor([168.0, 96.0]) + off * 192 / 1080
    torch.testing.assert_close(got.center_px, expected.repeat(3, 1).double(), atol=1e-3, rtol=0)
    # A square in the middle of the photo.
    square = read_cameras(path, size=(108, 108), frames=3, photo_size=(1080, 1920))
    torch.testing.assert_close(square.focal_px, torch.full((3, 2), 150.0).double(), atol=1e-3, rtol=0)
    torch.testing.assert_close(square.center_px[0], (torch.tensor([54.0, 54.0]) + off / 10).double(), atol=1e-3, rtol=0)


def test_files_of_another_shape_than_the_photo_or_the_frames_are_refused(tmp_path: Path) -> None:
    path = write_transforms(tmp_path / "t.json", w=640, h=480, fl_x=500.0)
    with pytest.raises(ValueError, match=r"w, h: .*640x480.*the photo is 1920x1080, of another shape; give the whole"):
        read_cameras(path, size=(192, 336), photo_size=(1080, 1920))
    with pytest.raises(ValueError, match=r"the frames to make are 336x192, .*; 304x224 fits \(size=\[224,304\]\)"):
        read_cameras(path, size=(192, 336))
    assert len(read_cameras(path, size=(224, 304))) == 2
    keys = written(tmp_path, "keyframes")
    with pytest.raises(ValueError, match=r"size: the keyframes are for images of 1920x1080, .*224x128 fits"):
        read_cameras(keys, size=(160, 160))


def test_exploration_crops_cameras_like_the_photo(tmp_path: Path) -> None:
    photo = gray_photo(tmp_path / "p.png", (270, 480))
    path = write_transforms(tmp_path / "t.json", w=1920, h=1080, fl_x=1500.0, fl_y=1500.0)
    walk = prepare(compose_config("explore", [f"image={photo}", f"path={path}", "size=[96,96]", *QUICK]))
    assert walk.cameras.focal_px[0].tolist() == pytest.approx([1500 * 96 / 1080] * 2)
    free = prepare(compose_config("explore", [f"image={photo}", f"path={path}", *QUICK]))
    focal = max(free.cameras.size[0] / 1080, free.cameras.size[1] / 1920) * 1500
    assert free.cameras.focal_px[0].tolist() == pytest.approx([focal] * 2)


# --- fields of nerfstudio --------------------------------------------------------------------------------------------


def test_angles_of_both_axes_are_taken(tmp_path: Path) -> None:
    def focal(**fields: object) -> list[float]:
        return read_cameras(write_transforms(tmp_path / "t.json", **fields), size=(240, 320)).focal_px[0].tolist()

    of_x, of_y = 160 / math.tan(0.6), 120 / math.tan(0.45)
    assert focal(camera_angle_x=1.2, w=640, h=480) == pytest.approx([of_x, of_x])
    assert focal(camera_angle_x=1.2, camera_angle_y=0.9, w=640, h=480) == pytest.approx([of_x, of_y])
    assert focal(camera_angle_y=0.9, w=640, h=480) == pytest.approx([of_y, of_y])
    assert focal(camera_angle_y=0.9) == pytest.approx([of_y, of_y])  # of the photo, which the file does not measure
    assert focal(fl_y=500.0, w=640, h=480) == pytest.approx([250.0, 250.0])
    assert focal(fl_x=500.0, camera_angle_x=2 * math.atan(0.64), w=640, h=480) == pytest.approx([250.0, 250.0])


def test_a_frames_own_focal_length_overrides_the_files(tmp_path: Path) -> None:
    content = json.loads(write_transforms(tmp_path / "t.json", fl_x=500.0, w=640, h=480).read_text())
    content["frames"][1]["camera_angle_x"] = 1.2
    (tmp_path / "t.json").write_text(json.dumps(content))
    focal = read_cameras(tmp_path / "t.json", size=(240, 320)).focal_px
    assert focal[:, 0].tolist() == pytest.approx([250.0, 160 / math.tan(0.6)])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"fl_x": 500.0, "camera_angle_x": 1.5, "w": 640, "h": 480}, "camera_angle_x: want the angle of fl_x = 500"),
        ({"camera_angle_y": 40.0}, r"camera_angle_y: want radians in \(0, pi\)"),
        ({"camera_angle_x": 1.0, "w": 640}, "w, h: missing"),
        ({"cx": 320.0, "w": 640, "h": 480}, "fl_x: missing, while there is cx"),
        ({"k1": 0.1, "w": 640, "h": 480}, "fl_x: missing, while there is distortion"),
        ({"fl_x": 500.0, "w": 640, "h": 480, "k5": 0.1}, "k5: want 0 for a perspective lens"),
        ({"fl_x": 500.0, "w": 640, "h": 480, "is_fisheye": True, "p1": 0.1}, "p1: want 0 for a fisheye lens"),
    ],
)
def test_lens_fields_that_contradict_or_lack_something_are_refused(tmp_path: Path, fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_cameras(write_transforms(tmp_path / "t.json", **fields), size=(240, 320), fov_deg=60.0)


def test_is_fisheye_and_the_fisheye_model_are_no_pinholes(tmp_path: Path) -> None:
    for fields in ({"is_fisheye": True}, {"camera_model": "OPENCV_FISHEYE"}):
        path = write_transforms(tmp_path / "t.json", fl_x=500.0, w=640, h=480, k1=0.0, **fields)
        lens = open_camera_path(path, size=(240, 320), fov_deg=None).lens
        assert lens is not None
        assert (lens.model, lens.fisheye) == ("OPENCV_FISHEYE", True)


# --- distortion, against pycolmap ------------------------------------------------------------------------------------

WIDTH, HEIGHT = 480, 320
LENSES = {
    "SIMPLE_RADIAL": [400.0, 236.0, 164.0, -0.12],
    "RADIAL": [400.0, 236.0, 164.0, 0.1, -0.03],
    "OPENCV": [400.0, 410.0, 236.0, 164.0, -0.1, 0.02, 0.003, -0.002],
    "FULL_OPENCV": [400.0, 410.0, 236.0, 164.0, -0.1, 0.02, 0.003, -0.002, 0.01, 0.02, 0.0, 0.0],
    "OPENCV_FISHEYE": [250.0, 252.0, 236.0, 164.0, 0.02, -0.01, 0.0, 0.0],
    "SIMPLE_RADIAL_FISHEYE": [250.0, 236.0, 164.0, 0.02],
    "RADIAL_FISHEYE": [250.0, 236.0, 164.0, 0.02, -0.01],
    "THIN_PRISM_FISHEYE": [250.0, 252.0, 236.0, 164.0, 0.02, -0.01, 0.0, 0.0, 0.001, 0.0, 0.0, 0.0],
    "SIMPLE_FISHEYE": [250.0, 236.0, 164.0],
    "RAD_TAN_THIN_PRISM_FISHEYE": [250.0, 252.0, 236.0, 164.0, 0.02, -0.01, 0.002, 0.001, *[0.0] * 8],
}


@pytest.mark.parametrize("model", LENSES)
def test_a_straightened_photo_shows_each_ray_where_the_pinhole_sees_it(tmp_path: Path, model: str) -> None:
    theirs = pycolmap.Camera.create_from_model_name(1, model, 400.0, WIDTH, HEIGHT)
    theirs.params = LENSES[model]
    path = colmap(tmp_path / "m", model, WIDTH, HEIGHT, LENSES[model])
    found = open_camera_path(path, size=(HEIGHT, WIDTH), fov_deg=None)
    lens, camera = found.lens, found.cameras[0]
    assert lens is not None
    # A photo whose colors are its own coordinates.
    columns, rows = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    ramps = np.stack([columns / WIDTH, rows / HEIGHT, np.zeros_like(rows)], -1)
    Image.fromarray((ramps * 255.0).round().astype(np.uint8)).save(tmp_path / "p.png")
    photo = decode_photo(tmp_path / "p.png", lens.straightened).at((HEIGHT, WIDTH)).rgb.numpy()
    checked = 0
    for u, v in [(20, 20), (460, 300), (100, 250), (240, 160), (400, 30), (30, 290)]:
        ray = [*((np.array([u + 0.5, v + 0.5]) - camera.center_px.numpy()) / camera.focal_px.numpy()), 1.0]
        expected = np.asarray(theirs.img_from_cam(np.array(ray)))
        got = photo[:2, v, u] * [WIDTH, HEIGHT]
        np.testing.assert_allclose(got, expected, atol=1.6)  # a level of the ramps is up to 1.9 px
        checked += float(np.abs(expected - [u + 0.5, v + 0.5]).max()) > 3.0
    assert checked >= 2  # the distortion is more than the tolerance


def test_undistortion_crops_pixels_outside_the_pinhole(tmp_path: Path) -> None:
    """k1 > 0: at the corner, x = 0.6 and y = 0.4, rays are shown 1.052 times as far out as the pinhole shows them."""
    lens = DistortedLens("RADIAL", False, (0.1, 0.0, 0.0, 0.0), (400.0, 400.0), (240.0, 160.0), (320.0, 480.0))
    # Along x the border is met first: s (1 + 0.1 ((0.6 s)^2 + (0.4 s)^2)) = 1 has the solution s = 0.9538.
    assert lens.kept == pytest.approx(0.9538, abs=2 / 128)
    assert lens.straightened(np.zeros((320, 480, 3), np.uint8)).shape[:2] == (
        round(320 * lens.kept),
        round(480 * lens.kept),
    )
    path = colmap(tmp_path / "m", "RADIAL", 480, 320, [400.0, 240.0, 160.0, 0.1, 0.0])
    focal = read_cameras(path, size=(320, 480)).focal_px[0]
    assert focal.tolist() == pytest.approx([400 / lens.kept] * 2)
    folded = DistortedLens("RADIAL", False, (-0.9, 0.0, 0.0, 0.0), (150.0, 150.0), (240.0, 160.0), (320.0, 480.0))
    with pytest.raises(ValueError, match="distortion of RADIAL: want one that leaves 50%"):
        _ = folded.kept


@pytest.mark.parametrize(
    ("model", "params", "message"),
    [
        ("FOV", [400.0, 400.0, 240.0, 160.0, 0.9], "got FOV with omega 0.9"),
        ("THIN_PRISM_FISHEYE", [*LENSES["THIN_PRISM_FISHEYE"][:6], 0.1, *[0.0] * 5], "THIN_PRISM_FISHEYE with p1 0.1"),
        ("SIMPLE_DIVISION", [400.0, 240.0, 160.0, -0.2], "SIMPLE_DIVISION with k -0.2"),
        ("EUCM", [400.0, 400.0, 240.0, 160.0, 0.5, 1.0], "EUCM with alpha 0.5"),
        ("EQUIRECTANGULAR", [480.0, 320.0], "got EQUIRECTANGULAR; a photo of all directions"),
        ("KANNALA", [1.0], "want MODEL one of COLMAP's"),
    ],
)
def test_distortions_unknown_to_opencv_are_refused_by_name(
    tmp_path: Path, model: str, params: list[float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        read_cameras(colmap(tmp_path / "m", model, 480, 320, params), size=(320, 480))


def test_exploration_undistorts_its_photo_with_a_remark(tmp_path: Path) -> None:
    photo = gray_photo(tmp_path / "p.png", (320, 480))
    path = colmap(tmp_path / "m", "OPENCV", 480, 320, LENSES["OPENCV"])
    small = [f"image={photo}", f"path={path}", "size=[64,96]", *QUICK]
    walk = prepare(compose_config("explore", small))
    lens = open_camera_path(path, size=(64, 96), fov_deg=None).lens
    assert lens is not None
    expected = decode_photo(photo, lens.straightened).at((64, 96)).rgb
    assert torch.equal(walk.photo.rgb[0], expected)
    assert (expected - read_photo(photo, (64, 96)).rgb).abs().max() > 0.05
    assert any("OPENCV distortion; it is straightened" in line for line in walk.plan().lines())
    np.save(tmp_path / "d.npy", np.ones((320, 480), np.float32))
    with pytest.raises(ValueError, match="depth: a depth file shows the photo as it is, but its lens has OPENCV"):
        prepare(compose_config("explore", [*small[:3], "depth=file", f"depth.path={tmp_path / 'd.npy'}", *QUICK[1:]]))
