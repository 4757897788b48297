"""Camera files against independent readers and hand-derived numbers, and the refusal of bad ones."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pycolmap
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from geometry.camera import Camera
from geometry.camera_io.colmap import Tracks, write_colmap
from geometry.camera_io.read_write import open_camera_path, read_cameras, rebased, write_cameras
from geometry.se3 import exp
from geometry.trajectory.expressions import parse_path_expression, preset

SIZE = (120, 200)
# A camera at (1, 2, 3) that looks along world +x, its up along world +z.
OPENCV_POSE = [[0.0, 0.0, 1.0, 1.0], [-1.0, 0.0, 0.0, 2.0], [0.0, -1.0, 0.0, 3.0], [0.0, 0.0, 0.0, 1.0]]
OPENGL_POSE = [[0.0, 0.0, -1.0, 1.0], [-1.0, 0.0, 0.0, 2.0], [0.0, 1.0, 0.0, 3.0], [0.0, 0.0, 0.0, 1.0]]
# Its inverse, by hand: x_cam = -(y - 2), y_cam = -(z - 3), z_cam = x - 1.
OPENCV_INVERSE = [[0.0, -1.0, 0.0, 2.0], [0.0, 0.0, -1.0, 3.0], [1.0, 0.0, 0.0, -1.0], [0.0, 0.0, 0.0, 1.0]]
EYE = torch.eye(4).tolist()


def some_cameras(count: int = 5, *, shared: bool = True, centered: bool = False) -> Camera:
    rng = torch.Generator().manual_seed(3)
    pose = exp(torch.randn(count, 6, generator=rng))
    lens = torch.tensor([150.0, 150.0]) if centered else torch.tensor([150.0, 155.0])
    focal = lens.expand(count, 2) + (0.0 if shared else torch.arange(count)[:, None].float())
    center = torch.tensor([100.0, 60.0] if centered else [98.0, 63.0]).expand(count, 2)
    return Camera(pose, focal.clone(), center.clone(), SIZE)


def assert_same(got: Camera, expected: Camera, *, lens: bool = True, tolerance: float = 2e-6) -> None:
    torch.testing.assert_close(got.world_from_camera, expected.world_from_camera, atol=tolerance, rtol=0)
    if lens:
        torch.testing.assert_close(got.focal_px, expected.focal_px, atol=1e-3, rtol=0)
        torch.testing.assert_close(got.center_px, expected.center_px, atol=1e-3, rtol=0)
    assert got.size == expected.size


def as_tensor(matrix: list[list[float]]) -> Tensor:
    return torch.tensor(matrix)


def flat(matrix: list[list[float]]) -> list[float]:
    return [value for row in matrix for value in row]


def save(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def read(path: Path, **settings: object) -> Camera:
    return read_cameras(path, **({"size": SIZE, "fov_deg": 60.0} | settings)).to(torch.float32)  # type: ignore[arg-type]  # settings by name


# --- COLMAP, against pycolmap ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("kind", ["colmap_text", "colmap_binary"])
def test_pycolmap_reads_what_we_write(tmp_path: Path, kind: str, shared: bool) -> None:
    camera = some_cameras(shared=shared)
    write_cameras(tmp_path / "model", camera, kind)
    model = pycolmap.Reconstruction(str(tmp_path / "model"))
    assert model.num_cameras() == (1 if shared else 5)
    images = sorted(model.images.values(), key=lambda image: image.name)
    for index, image in enumerate(images):
        expected = camera.camera_from_world[index, :3].numpy()
        np.testing.assert_allclose(image.cam_from_world().matrix(), expected, atol=2e-6)
        lens = model.cameras[image.camera_id]
        assert (lens.model.name, lens.width, lens.height) == ("PINHOLE", 200, 120)
        np.testing.assert_allclose(lens.calibration_matrix(), camera.intrinsics[index].numpy(), atol=1e-4)
    # Projections agree, so pixel centers do too.
    point = camera.world_from_camera[2].double() @ torch.tensor([0.3, -0.2, 2.0, 1.0], dtype=torch.float64)
    expected = camera.intrinsics[2].double() @ torch.tensor([0.3, -0.2, 2.0], dtype=torch.float64)
    np.testing.assert_allclose(images[2].project_point(point[:3].numpy()), (expected[:2] / 2.0).numpy(), atol=1e-3)


@pytest.mark.parametrize("binary", [False, True])
def test_pycolmap_reads_tracks(tmp_path: Path, binary: bool) -> None:
    camera = some_cameras(3)
    tracks = Tracks(
        positions=np.array([[0.5, -1.0, 2.0], [1.0, 2.0, 3.0]]),
        colors=np.array([[255, 0, 7], [1, 2, 3]], np.uint8),
        image=np.array([2, 0, 2]),
        point=np.array([0, 1, 1]),
        pixels=np.array([[10.25, 20.5], [3.0, 4.0], [5.0, 6.0]]),
        errors_px=np.array([0.125, 0.5]),
    )
    write_colmap(tmp_path, camera, binary=binary, tracks=tracks)
    model = pycolmap.Reconstruction(str(tmp_path))
    assert model.num_points3D() == 2
    first, second = model.points3D[1], model.points3D[2]
    assert (first.xyz.tolist(), first.color.tolist(), first.error) == ([0.5, -1.0, 2.0], [255, 0, 7], 0.125)
    assert [(e.image_id, e.point2D_idx) for e in first.track.elements] == [(3, 0)]
    assert [(e.image_id, e.point2D_idx) for e in second.track.elements] == [(1, 0), (3, 1)]
    keypoints = [(p.xy.tolist(), p.point3D_id) for p in model.images[3].points2D]
    assert keypoints == [([10.25, 20.5], 1), ([5.0, 6.0], 2)]
    assert model.images[2].num_points2D() == 0
    assert_same(read(tmp_path), camera)


def pycolmap_model(camera: Camera, names: list[str], model: str = "PINHOLE") -> pycolmap.Reconstruction:
    reconstruction = pycolmap.Reconstruction()
    height, width = camera.size
    lens = pycolmap.Camera.create_from_model_name(7, model, 150.0, width, height)
    if model == "PINHOLE":
        lens.params = [*camera.focal_px[0].tolist(), *camera.center_px[0].tolist()]
    reconstruction.add_camera_with_trivial_rig(lens)
    for index, name in enumerate(names):
        pose = pycolmap.Rigid3d(camera.camera_from_world[index, :3].double().numpy())
        points = np.arange(2.0 * index).reshape(index, 2)
        image = pycolmap.Image(name=name, keypoints=points, camera_id=7, image_id=index + 1)
        reconstruction.add_image_with_trivial_frame(image, pose)
    return reconstruction


@pytest.mark.parametrize("binary", [True, False])
def test_we_read_what_pycolmap_writes_in_the_order_of_names(tmp_path: Path, binary: bool) -> None:
    camera = some_cameras(3)
    model = pycolmap_model(camera, ["frame 10.png", "frame 9.png", "frame 2.png"])
    (model.write_binary if binary else model.write_text)(str(tmp_path))
    assert_same(read(tmp_path), camera[[2, 1, 0]])
    (tmp_path / "project" / "sparse").mkdir(parents=True)
    (model.write_binary if binary else model.write_text)(str(tmp_path / "project" / "sparse"))
    assert_same(read(tmp_path / "project"), camera[[2, 1, 0]])


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize(
    "model",
    ["SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV", "FOV", "DIVISION", "EUCM"],
)
def test_colmap_models_without_distortion_are_pinholes(tmp_path: Path, model: str, binary: bool) -> None:
    reconstruction = pycolmap_model(some_cameras(2), ["a.png", "b.png"], model)
    if model == "FOV":
        reconstruction.cameras[7].params = [150.0, 150.0, 100.0, 60.0, 0.0]  # pycolmap's own default is not straight
    (reconstruction.write_binary if binary else reconstruction.write_text)(str(tmp_path))
    got = open_camera_path(tmp_path, size=SIZE, fov_deg=None)
    assert got.lens is None
    torch.testing.assert_close(got.cameras.focal_px, torch.full((2, 2), 150.0))
    torch.testing.assert_close(got.cameras.center_px, torch.tensor([[100.0, 60.0]] * 2))


@pytest.mark.parametrize("kept", [4, 100, -30])
def test_a_truncated_binary_model_is_refused(tmp_path: Path, kept: int) -> None:
    write_cameras(tmp_path, some_cameras(), "colmap_binary")
    content = (tmp_path / "images.bin").read_bytes()
    (tmp_path / "images.bin").write_bytes(content[:kept])
    with pytest.raises(ValueError, match=r"images\.bin: truncated at byte"):
        read(tmp_path)


IMAGE = "1 1 0 0 0 0 0 0 1 a.png\n\n2 1 0 0 0 1 0 0 1 b.png\n\n"


@pytest.mark.parametrize(
    ("cameras", "images", "message"),
    [
        ("1 PINHOLE 200 120 150 150 100 60", IMAGE.replace(" 1 b.png", " 2 b.png"), "CAMERA_ID 2"),
        ("1 PINHOLE 200 120 150 150 100 60", IMAGE.replace("1 0 0 0 1", "2 0 0 0 1"), "QW QX QY QZ of b.png"),
        ("1 PINHOLE 200 120 150 150 100 60", IMAGE.replace("0 0 0 1 0 0", "0 0 0 nan 0 0"), "TX TY TZ .*NaN"),
        ("1 PINHOLE 200 120 150 150 100 60", IMAGE.replace("\n\n", "\n"), "POINTS2D"),
        ("1 PINHOLE 200 120 150 150 100 60", IMAGE.replace(" b.png", ""), "image 2: want IMAGE_ID"),
        ("1 PINHOLE 200 120 150 150 100 60", IMAGE.replace("1 0 0 0 1", "x 0 0 0 1"), "image 2: want numbers"),
        ("1 PINHOLE 200 120 150 150 100 60", IMAGE.split("2 1")[0], r"images\.txt: want 2 or more poses, got 1"),
        ("1 PINHOLE 200 120 150 150 100", IMAGE, r"want 4 PARAMS for PINHOLE \(fx fy cx cy\), got 3"),
        ("1 PINHOLE", IMAGE, "camera 1: want CAMERA_ID MODEL WIDTH HEIGHT"),
        ("1", IMAGE, "camera 1: want CAMERA_ID MODEL WIDTH HEIGHT"),
        ("1 PINHOLE 200 120 -150 150 100 60", IMAGE, "positive focal"),
        ("1 PINHOLE 200 0 150 150 100 60", IMAGE, "WIDTH, HEIGHT of the COLMAP cameras: want a positive"),
        ("1 PINHOLE 120 120 150 150 60 60", IMAGE, "WIDTH, HEIGHT of the COLMAP cameras: .*aspect 1.000"),
    ],
)
def test_bad_colmap_text_is_refused_by_field(tmp_path: Path, cameras: str, images: str, message: str) -> None:
    save(tmp_path / "cameras.txt", cameras + "\n")
    save(tmp_path / "images.txt", images)
    with pytest.raises(ValueError, match=message):
        read(tmp_path)


# --- nerfstudio, against matrices derived by hand --------------------------------------------------------------------


def transforms(**changes: object) -> dict:
    frames = [
        {"file_path": "b_10.png", "transform_matrix": EYE},
        {"file_path": "b_9.png", "transform_matrix": OPENGL_POSE},
    ]
    return {"fl_x": 300.0, "fl_y": 310.0, "cx": 190.0, "cy": 125.0, "w": 400, "h": 240, "frames": frames} | changes


def test_transforms_json_by_hand(tmp_path: Path) -> None:
    got = read(save(tmp_path / "t.json", transforms(k1=0.0, camera_model="OPENCV", ply_file_path="x.ply")))
    torch.testing.assert_close(got.world_from_camera[0], as_tensor(OPENCV_POSE))  # frame 9 comes before frame 10
    torch.testing.assert_close(got.world_from_camera[1], torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0])))
    torch.testing.assert_close(
        got.focal_px, torch.tensor([[150.0, 155.0]] * 2)
    )  # half the image, half the focal length
    torch.testing.assert_close(got.center_px, torch.tensor([[95.0, 62.5]] * 2))


def test_transforms_json_with_an_angle_per_frame_lenses_or_no_lens(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    frames = transforms()["frames"]
    blender = read(save(path, {"camera_angle_x": math.radians(90.0), "frames": frames}))
    torch.testing.assert_close(blender.focal_px, torch.tensor([[100.0, 100.0]] * 2))
    own = [frame | {"fl_x": 200.0 + i, "cx": 200.0, "cy": 120.0} for i, frame in enumerate(frames)]
    per_frame = read(save(path, {"w": 400, "h": 240, "frames": own}))
    torch.testing.assert_close(per_frame.focal_px[:, 0], torch.tensor([100.5, 100.0]))
    none = read(save(path, {"frames": frames}), fov_deg=90.0)
    torch.testing.assert_close(none.focal_px, torch.tensor([[100.0, 100.0]] * 2))
    with pytest.raises(ValueError, match="fov_deg: this file holds no intrinsics"):
        read(path, fov_deg=None)


def test_written_transforms_json_is_opengl(tmp_path: Path) -> None:
    lens = torch.tensor([[150.0, 155.0], [151.0, 155.0]])
    camera = Camera(as_tensor(OPENCV_POSE).repeat(2, 1, 1), lens, torch.tensor([[98.0, 63.0]] * 2), SIZE)
    write_cameras(tmp_path / "transforms.json", camera, "nerfstudio", file_paths=["x/1.png", "x/2.png"])
    content = json.loads((tmp_path / "transforms.json").read_text())
    assert content["frames"][1]["transform_matrix"] == OPENGL_POSE
    assert content["frames"][1]["file_path"] == "x/2.png"
    assert [frame["fl_x"] for frame in content["frames"]] == [150.0, 151.0]
    assert (content["w"], content["h"], content["camera_model"]) == (200, 120, "OPENCV")
    assert_same(read(tmp_path), camera)


def camera_path(**changes: object) -> dict:
    steps = [{"camera_to_world": flat(pose), "fov": 90.0, "aspect": 1.0} for pose in (OPENGL_POSE, EYE)]
    top = {"camera_type": "perspective", "render_height": 240, "render_width": 400, "fps": 24, "seconds": 1.0}
    return top | {"camera_path": steps} | changes


def test_camera_path_json_by_hand(tmp_path: Path) -> None:
    got = read(save(tmp_path / "p.json", camera_path()))
    torch.testing.assert_close(got.world_from_camera[0], as_tensor(OPENCV_POSE))
    torch.testing.assert_close(got.fov_deg[:, 1], torch.full((2,), 90.0))  # the angle is vertical
    torch.testing.assert_close(got.focal_px, torch.full((2, 2), 60.0))
    torch.testing.assert_close(got.center_px, torch.tensor([[100.0, 60.0]] * 2))
    wide = read(tmp_path / "p.json", size=(120, 300))  # an angle serves any aspect
    torch.testing.assert_close(wide.focal_px, torch.full((2, 2), 60.0))


def test_written_camera_path_json_is_opengl_with_a_vertical_angle(tmp_path: Path) -> None:
    pose = as_tensor(OPENCV_POSE).repeat(2, 1, 1)
    camera = Camera(pose, torch.full((2, 2), 60.0), torch.tensor([[100.0, 60.0]] * 2), SIZE)
    write_cameras(tmp_path / "p.json", camera, "camera_path", fps=10.0)
    content = json.loads((tmp_path / "p.json").read_text())
    assert content["camera_path"][0]["camera_to_world"] == flat(OPENGL_POSE)
    assert content["camera_path"][0]["fov"] == pytest.approx(90.0)
    assert (content["render_height"], content["render_width"], content["seconds"]) == (120, 200, 0.2)
    with pytest.raises(ValueError, match="camera: a nerfstudio camera path holds square pixels"):
        write_cameras(tmp_path / "q.json", some_cameras(), "camera_path")


# --- trajectories ----------------------------------------------------------------------------------------------------


def test_tum_agrees_with_scipy(tmp_path: Path) -> None:
    camera = some_cameras(4)
    write_cameras(tmp_path / "w.txt", camera, "tum", fps=2.0)
    rows = np.loadtxt(tmp_path / "w.txt")
    np.testing.assert_allclose(rows[:, 0], [0.0, 0.5, 1.0, 1.5])
    np.testing.assert_allclose(rows[:, 1:4], camera.position.numpy(), atol=1e-6)
    np.testing.assert_allclose(
        Rotation.from_quat(rows[:, 4:]).as_matrix(), camera.world_from_camera[:, :3, :3], atol=2e-6
    )
    rotations = Rotation.random(3, rng=np.random.default_rng(1))
    lines = [f"{i} {i} 2 3 " + " ".join(map(str, q)) for i, q in enumerate(rotations.as_quat())]
    got = read(save(tmp_path / "r.txt", "# comment\n" + "\n".join(lines)), convention="tum_xyzw")
    np.testing.assert_allclose(got.world_from_camera[:, :3, :3], rotations.as_matrix(), atol=1e-6)
    torch.testing.assert_close(got.position, torch.tensor([[0.0, 2, 3], [1, 2, 3], [2, 2, 3]]))
    torch.testing.assert_close(got.fov_deg[:, 0], torch.full((3,), 60.0))


def realestate(first: list[list[float]], lens: str = "0.75 1.25 0.475 0.52 0 0") -> str:
    rows = [" ".join(map(str, flat(matrix[:3]))) for matrix in (first, EYE)]
    return "https://www.youtube.com/watch?v=x\n" + "\n".join(f"{1000 * i} {lens} {row}" for i, row in enumerate(rows))


def test_realestate10k_by_hand(tmp_path: Path) -> None:
    got = read(save(tmp_path / "r.txt", realestate(OPENCV_INVERSE)))
    torch.testing.assert_close(got.world_from_camera[0], as_tensor(OPENCV_POSE))
    torch.testing.assert_close(got.focal_px, torch.tensor([[150.0, 150.0]] * 2))
    torch.testing.assert_close(got.center_px, torch.tensor([[95.0, 62.4]] * 2))
    write_cameras(tmp_path / "w.txt", got, "realestate10k", fps=1000.0)
    _, *written = (tmp_path / "w.txt").read_text().splitlines()
    expected = np.array([line.split() for line in realestate(OPENCV_INVERSE).splitlines()[1:]], dtype=float)
    np.testing.assert_allclose(np.array([line.split() for line in written], dtype=float), expected, atol=1e-6)


def test_npy_in_each_convention_by_hand(tmp_path: Path) -> None:
    opengl_inverse = np.linalg.inv(OPENGL_POSE)
    stacks = {
        "c2w_opencv": OPENCV_POSE,
        "c2w_opengl": OPENGL_POSE,
        "w2c_opencv": OPENCV_INVERSE,
        "w2c_opengl": opengl_inverse,
    }
    for convention, matrix in stacks.items():
        for rows in (3, 4):
            np.save(tmp_path / "p.npy", np.array([matrix, matrix])[:, :rows].astype(np.float32))
            got = read(tmp_path / "p.npy", convention=convention)
            torch.testing.assert_close(got.world_from_camera, as_tensor(OPENCV_POSE).repeat(2, 1, 1))
        write_cameras(tmp_path / "w.npy", got, "npy", convention=convention)
        np.testing.assert_allclose(np.load(tmp_path / "w.npy")[1], matrix, atol=1e-7)


@pytest.mark.parametrize("convention", [None, "opencv"])
def test_npy_needs_its_convention(tmp_path: Path, convention: str | None) -> None:
    np.save(tmp_path / "p.npy", np.array([EYE, EYE]))
    with pytest.raises(ValueError, match=r"convention: .*c2w_opencv, c2w_opengl, w2c_opencv, w2c_opengl"):
        read(tmp_path / "p.npy", convention=convention)
    with pytest.raises(ValueError, match="convention: want one of c2w_opencv"):
        write_cameras(tmp_path / "q.npy", some_cameras(), "npy", convention=convention)


# --- our keyframes ---------------------------------------------------------------------------------------------------


def keyframes(**changes: object) -> dict:
    keys = [
        {"time_s": 0.0, "position": [0, 0, 0], "rotation_wxyz": [1, 0, 0, 0], "fov_deg": 60.0},
        {"time_s": 2.0, "position": [1, 2, 3], "rotation_wxyz": [0.5, -0.5, 0.5, -0.5], "fov_deg": 90.0},
    ]
    return {"format": "worldwarp-keyframes", "version": 1, "size": [240, 400], "keyframes": keys} | changes


def test_keyframes_are_sampled_through_the_spline(tmp_path: Path) -> None:
    got = read(save(tmp_path / "k.json", keyframes()), frames=9)
    assert len(got) == 9
    torch.testing.assert_close(got.world_from_camera[0], torch.eye(4))
    torch.testing.assert_close(got.world_from_camera[-1], as_tensor(OPENCV_POSE))
    torch.testing.assert_close(got.fov_deg[[0, -1], 0], torch.tensor([60.0, 90.0]))
    assert len(read(save(tmp_path / "k.json", keyframes(frames=5)))) == 5
    del (plain := keyframes())["keyframes"][1]["fov_deg"], plain["size"]
    assert read(save(tmp_path / "k.json", plain), frames=2, fov_deg=45.0).fov_deg[1, 0].item() == pytest.approx(
        45.0, abs=1e-3
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(version=2), "version: .*update worldwarp"),
        (lambda c: c.update(axes="OpenGL"), "axes: .*OpenCV axes, got 'OpenGL'"),
        (lambda c: c.update(size=[240, 240]), "size: the keyframes are for images of 240x240"),
        (lambda c: c.update(size=[0, 240]), "size: want"),
        (lambda c: c.update(size=9), "size: want 2 numbers"),
        (lambda c: c.update(size=[math.nan, 9]), "size: want a finite number"),
        (lambda c: c.update(keyframes=[]), "keyframes: want 2 or more poses, got 0"),
        (lambda c: c.update(keyframes={}), "keyframes: want a list"),
        (lambda c: c.pop("keyframes"), "keyframes: missing"),
        (lambda c: c["keyframes"].pop(), "keyframes: want 2 or more poses, got 1"),
        (lambda c: c["keyframes"].append(3), r"keyframes\[2\]: want a JSON object"),
        (lambda c: c["keyframes"][1].pop("position"), r"keyframes\[1\]\.position: missing"),
        (
            lambda c: c["keyframes"][1].update(position=[1, 2]),
            r"keyframes\[1\]\.position: want 3 numbers, got \[1, 2\]",
        ),
        (lambda c: c["keyframes"][1].update(position=[1, 2, math.nan]), r"keyframes\[1\]\.position: .*NaN"),
        (lambda c: c["keyframes"][1].update(rotation_wxyz=[1, 1, 0, 0]), r"keyframes\[1\]\.rotation_wxyz: .*unit"),
        (lambda c: c["keyframes"][1].update(time_s=0.0), r"keyframes\[1\]\.time_s: want increasing"),
        (lambda c: c["keyframes"][1].update(time_s="soon"), r"keyframes\[1\]\.time_s: want a number, got 'soon'"),
        (lambda c: c["keyframes"][1].update(fov_deg=200), r"keyframes\[1\]\.fov_deg"),
        (
            lambda c: (c.pop("size"), c["keyframes"][0].update(focal_px=[1, 1])),
            r"size: missing; keyframes\[0\]\.focal_px",
        ),
    ],
)
def test_bad_keyframe_files_are_refused_by_field(
    tmp_path: Path, change: Callable[[dict], object], message: str
) -> None:
    change(content := keyframes())
    with pytest.raises(ValueError, match=message):
        read(save(tmp_path / "k.json", content), frames=8)


def test_keyframe_files_need_a_lens_and_a_number_of_frames(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"frames: .*say how many"):
        read(save(tmp_path / "k.json", keyframes()))
    del (content := keyframes())["keyframes"][0]["fov_deg"]
    with pytest.raises(ValueError, match=r"keyframes\[0\]\.fov_deg: missing"):
        read(save(tmp_path / "k.json", content), frames=4, fov_deg=None)


# --- every format ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    ["keyframes", "nerfstudio", "camera_path", "colmap_text", "colmap_binary", "tum", "realestate10k", "npy"],
)
def test_written_paths_come_back(tmp_path: Path, kind: str) -> None:
    camera = some_cameras(12, shared=kind not in ("tum", "npy"), centered=kind in ("camera_path", "realestate10k"))
    convention = "w2c_opengl" if kind == "npy" else None
    write_cameras(tmp_path / "path", camera, kind, convention=convention)
    got = read(tmp_path / "path", convention=convention)
    assert_same(got, camera, lens=kind not in ("tum", "npy"), tolerance=2e-5 if kind == "keyframes" else 2e-6)
    # Resampled smoothly to more frames, the ends stay; the image's size carries the lens along.
    more = read(tmp_path / "path", convention=convention, frames=30, size=(60, 100))
    assert len(more) == 30
    torch.testing.assert_close(more.position[[0, -1]], got.position[[0, -1]], atol=2e-5, rtol=0)
    torch.testing.assert_close(more.focal_px[0], got.focal_px[0] / 2.0, atol=1e-3, rtol=0)


def test_rebased_paths_start_at_the_photo_and_keep_their_shape() -> None:
    camera = some_cameras()
    moved = rebased(camera)
    assert torch.equal(moved.world_from_camera[0], torch.eye(4))
    torch.testing.assert_close(
        camera.world_from_camera[0] @ moved.world_from_camera, camera.world_from_camera, atol=1e-5, rtol=0
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty"),
        ("\n# only a comment\n", "file: want 2 or more poses, got 0"),
        ("{", "JSON is broken or cut off at line 1"),
        ("[1, 2]", "got another list"),
        ("{}", "frames or camera_path; got none of them"),
        ('{"cameras": 1}', "got cameras"),
        (b"\x89PNG\r\n\x1a\n\0\xff", "another binary file"),
        ("0 0 0 0 0 0 0 1", "file: want 2 or more poses, got 1"),
        ("1 2 3\n4 5 6", "line 1: want 8 columns .*or 19"),
        ("0 0 0 0 0 0 0 1\n1 0 0 0 0 0", "line 2: want 8 columns as in the lines before, got 6"),
        ("0 0 0 0 0 0 0 1\n1 0 0 x 0 0 0 1", "line 2: want a number for tz, got 'x'"),
        ("0 0 0 0 0 0 0 1\n1 0 0 nan 0 0 0 1", "line 2: want a finite number for tz"),
        ("0 0 0 0 0 0 0 1\n0 0 0 0 0 0 0 1", "line 2: want increasing timestamps"),
        ("0 0 0 0 0 0 0 1\n1 0 0 0 0 0 0 2", "line 2: qx qy qz qw: want a unit quaternion"),
        (realestate(EYE, "0.75 1.25 0.5 0.5 0.1 0"), "line 2: want k1 and k2 of 0"),
        (realestate(EYE, "0.75 0.75 0.5 0.5 0 0"), r"fx, fy \(normalized\): .*aspect 1.000"),
        (realestate(EYE, "-0.75 1.25 0.5 0.5 0 0"), "line 2: want positive normalized fx and fy"),
        (realestate((2.0 * torch.eye(4)).tolist()), r"P \(world-to-camera\) of pose 0: want a rotation"),
    ],
)
def test_bad_files_are_refused_in_one_sentence(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = tmp_path / "path"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message) as error:
        read(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


def bent(index: int, change: str) -> list:
    """The golden pose, damaged."""
    pose = np.array(OPENGL_POSE)
    if change == "mirrored":
        pose[:, 0] *= -1
    elif change == "scaled":
        pose[:3, :3] *= 2
    elif change == "nan":
        pose[0, 3] = np.nan
    frames = [{"transform_matrix": EYE}] * index + [{"transform_matrix": pose.tolist()}] + [{"transform_matrix": EYE}]
    return frames


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": bent(1, "mirrored")}, r"frames\[1\]\.transform_matrix: want a right-handed"),
        ({"frames": bent(2, "scaled")}, r"frames\[2\]\.transform_matrix: want a rotation"),
        ({"frames": bent(0, "nan")}, r"frames\[0\]\.transform_matrix: .*NaN"),
        ({"frames": []}, "frames: want 2 or more poses, got 0"),
        ({"frames": bent(0, "")[:1]}, "frames: want 2 or more poses, got 1"),
        ({"frames": [{}, {}]}, r"frames\[0\]\.transform_matrix: missing"),
        (
            {"frames": [{"transform_matrix": [[1, 2], [3]]}] * 2},
            r"frames\[0\]\.transform_matrix: want a matrix of 4x4 or 3x4",
        ),
        ({"k4": 0.1}, "k4: want 0 for a perspective lens, .*got 0.1"),
        ({"camera_model": "EQUIRECTANGULAR"}, "camera_model: want one of .*got 'EQUIRECTANGULAR'"),
        ({"latlong": True}, "latlong: want a perspective or fisheye lens"),
        ({"fl_x": 0}, "fl_x: want a positive number"),
        ({"fl_y": "wide"}, "fl_y: want a number, got 'wide'"),
        ({"w": 240}, "w, h: the intrinsics of camera 0 are for images of 240x240, .*200x120.*; 160x160 fits"),
        ({"h": 0}, "h: want a positive number"),
    ],
)
def test_bad_transforms_are_refused_by_field(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(save(tmp_path / "t.json", transforms(**changes)))


def test_transforms_with_half_a_lens_are_refused(tmp_path: Path) -> None:
    del (content := transforms())["w"]
    with pytest.raises(ValueError, match="w, h: missing"):
        read(save(tmp_path / "t.json", content))
    frames = transforms()["frames"]
    frames[0]["fl_x"] = 3.0
    with pytest.raises(ValueError, match=r"frames\[1\]\.fl_x: missing"):
        read(save(tmp_path / "t.json", {"w": 400, "h": 240, "frames": frames}))
    with pytest.raises(ValueError, match="camera_angle_x: want radians"):
        read(save(tmp_path / "t.json", {"camera_angle_x": 90.0, "frames": frames[1:] * 2}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"camera_type": "fisheye"}, "camera_type: want 'perspective'"),
        ({"camera_path": []}, "camera_path: want 2 or more poses, got 0"),
        (
            {"camera_path": [{"camera_to_world": [1.0] * 15, "fov": 50}] * 2},
            r"camera_path\[0\]\.camera_to_world: want a matrix of 4x4",
        ),
        ({"camera_path": [{"camera_to_world": flat(EYE)}] * 2}, r"camera_path\[0\]\.fov: missing"),
        ({"camera_path": [{"camera_to_world": flat(EYE), "fov": 0}] * 2}, r"camera_path\[0\]\.fov: want vertical"),
        (
            {"camera_path": [{"camera_to_world": flat(OPENGL_POSE[::-1]), "fov": 9}] * 2},
            r"\.camera_to_world: .*last row",
        ),
    ],
)
def test_bad_camera_paths_are_refused_by_field(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(save(tmp_path / "p.json", camera_path(**changes)))


@pytest.mark.parametrize(
    ("stack", "message"),
    [
        (np.zeros((3, 2, 2)), r"want poses \[n 4 4\]"),
        (np.array([EYE]), r"p\.npy: want 2 or more poses, got 1"),
        (np.array([EYE, EYE], dtype=bool), "want numbers, got dtype bool"),
        (np.array([EYE, np.diag([1.0, 1, -1, 1])]), "pose 1: want a right-handed"),
    ],
)
def test_bad_stacks_are_refused(tmp_path: Path, stack: np.ndarray, message: str) -> None:
    np.save(tmp_path / "p.npy", stack)
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "p.npy", convention="c2w_opencv")


def test_a_truncated_or_damaged_stack_and_a_pickle_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "p.npy", np.array([EYE, EYE]))
    (tmp_path / "p.npy").write_bytes((tmp_path / "p.npy").read_bytes()[:200])
    with pytest.raises(ValueError, match="does not load"):
        read(tmp_path / "p.npy", convention="c2w_opencv")
    np.save(tmp_path / "p.npy", np.array([EYE, EYE]))
    (tmp_path / "p.npy").write_bytes((tmp_path / "p.npy").read_bytes().replace(b"}", b"("))
    with pytest.raises(ValueError, match="does not load"):
        read(tmp_path / "p.npy", convention="c2w_opencv")
    np.save(tmp_path / "o.npy", np.array([{}, None], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="does not load"):
        read(tmp_path / "o.npy", convention="c2w_opencv")


def test_other_mistakes_around_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file"):
        read(tmp_path / "missing.json")
    with pytest.raises(ValueError, match="want a folder with COLMAP"):
        read(tmp_path)
    path = save(tmp_path / "p.json", camera_path())
    with pytest.raises(ValueError, match="convention: this file says itself"):
        read(path, convention="c2w_opencv")
    write_cameras(tmp_path / "model", some_cameras(), "colmap_text")
    with pytest.raises(ValueError, match="convention: this file says itself"):
        read(tmp_path / "model", convention="c2w_opencv")
    with pytest.raises(ValueError, match="frames: want 2 or more, got 1"):
        read(path, frames=1)
    with pytest.raises(ValueError, match="format: want one of keyframes"):
        write_cameras(tmp_path / "x", some_cameras(), "bvh")
    with pytest.raises(ValueError, match="file_paths: want one for each of 5 cameras, got 1"):
        write_cameras(tmp_path / "x", some_cameras(), "nerfstudio", file_paths=["a.png"])
    with pytest.raises(ValueError, match="file_paths: want one for each of 5 cameras, got 1"):
        write_cameras(tmp_path / "x", some_cameras(), "colmap_text", file_paths=["a.png"])
    (tmp_path / "cameras.txt").write_bytes(b"\xff\xfa\xfb\xfc")
    (tmp_path / "images.txt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"cameras\.txt: want UTF-8 or UTF-16 text"):
        read(tmp_path)
    (tmp_path / "cameras.bin").write_bytes(struct.pack("<QiiQQ", 1, 1, 99, 4, 4))
    (tmp_path / "images.bin").write_bytes(struct.pack("<Q", 0))
    with pytest.raises(ValueError, match=r"camera 1: want MODEL one of .*got number 99"):
        read(tmp_path)


# --- the one entry ---------------------------------------------------------------------------------------------------


def opened(text_or_file: str | Path, **settings: object) -> Camera:
    settings = {"size": SIZE, "fov_deg": 60.0} | settings
    return open_camera_path(text_or_file, **settings).cameras  # type: ignore[arg-type]  # settings by name


def test_open_takes_presets_and_expressions() -> None:
    assert_same(opened("orbit", frames=9), preset("orbit", size=SIZE, fov_deg=60.0, frames=9))
    assert_same(opened("forward+pan,left"), parse_path_expression("forward+pan,left", size=SIZE, fov_deg=60.0))


def test_open_takes_files_relative_to_their_first_camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "p.json", camera_path())
    for name in (path, str(path)):
        got = opened(name, frames=7)
        assert len(got) == 7
        assert torch.equal(got.world_from_camera[0], torch.eye(4))
        expected = as_tensor(OPENCV_INVERSE) @ torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
        torch.testing.assert_close(got.world_from_camera[-1], expected)
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "orbit", camera_path())
    assert len(opened("orbit")) == 49  # a preset's name wins
    assert len(opened("./orbit")) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("orbti", "'orbti' is neither a preset nor a file; did you mean orbit"),
        ("walk.json", "no file or folder 'walk.json'"),
        ("paths/walk", "no file or folder 'paths/walk'"),
        ("pan_left", "did you mean .*pan"),
    ],
)
def test_open_errors_name_the_expected_input(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        opened(text)
    with pytest.raises(ValueError, match="no such file"):
        opened(Path(text))
    with pytest.raises(ValueError, match="convention: a preset needs none"):
        opened("orbit", convention="c2w_opencv")


# --- far from the origin ---------------------------------------------------------------------------------------------

FAR = torch.tensor([500_000.0, 5_000_000.0, 300.0], dtype=torch.float64)


def far_cameras() -> Camera:
    """Six cameras 0.1 apart, turning by a degree each, where maps put a town."""
    turn = exp(torch.tensor([0.0, 0.0, 0.0, 0.0, math.radians(1.0), 0.0], dtype=torch.float64))
    poses = torch.stack([torch.linalg.matrix_power(turn, i) for i in range(6)])
    poses[:, :3, 3] = FAR + torch.tensor([0.1, 0.0, 0.0], dtype=torch.float64) * torch.arange(6)[:, None]
    lens = torch.tensor([[150.0, 150.0]], dtype=torch.float64).expand(6, 2)
    return Camera(poses, lens, torch.tensor([[100.0, 60.0]], dtype=torch.float64).expand(6, 2), SIZE)


@pytest.mark.parametrize("frames", [None, 6, 11])
@pytest.mark.parametrize(
    "kind",
    ["keyframes", "nerfstudio", "camera_path", "colmap_text", "colmap_binary", "tum", "realestate10k", "npy"],
)
def test_far_from_the_origin_steps_and_positions_are_kept(tmp_path: Path, kind: str, frames: int | None) -> None:
    convention = "w2c_opencv" if kind == "npy" else None
    write_cameras(tmp_path / "path", far_cameras(), kind, convention=convention)
    got = read_cameras(tmp_path / "path", size=SIZE, fov_deg=60.0, frames=frames, convention=convention)
    assert got.world_from_camera.dtype == torch.float64
    torch.testing.assert_close(got.position[0], FAR, atol=1e-6, rtol=0)
    relative = rebased(got)
    assert relative.world_from_camera.dtype == relative.focal_px.dtype == torch.float32
    step = 0.5 / (len(got) - 1)
    steps = relative.position.diff(dim=0).norm(dim=-1)
    torch.testing.assert_close(steps, torch.full_like(steps, step), atol=1e-4, rtol=0)
    # Written again, the cameras are where they were.
    write_cameras(tmp_path / "again", got, kind, convention=convention)
    again = read_cameras(tmp_path / "again", size=SIZE, fov_deg=60.0, frames=frames, convention=convention)
    torch.testing.assert_close(again.position, got.position, atol=1e-6, rtol=0)


def test_a_stack_too_coarse_for_its_path_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "p.npy", far_cameras().world_from_camera.numpy().astype(np.float32))
    with pytest.raises(ValueError, match=r"want steps that float32 can hold, got 0\.\d+ .* which round to 0\.5"):
        read(tmp_path / "p.npy", convention="c2w_opencv")


# --- 8 columns -------------------------------------------------------------------------------------------------------


def eight_columns(order: str, times: list[float], sign: str = " ", first: float = 0.1) -> tuple[str, np.ndarray]:
    """Lines of 8 columns with the quaternion in ``order``, and the rotations they mean."""
    rotations = Rotation.from_rotvec([[0.0, first + 0.1 * i, 0.05 * i] for i in range(len(times))])
    columns = ["xyzw".index(letter) for letter in order]
    rows = [[t, i, 2, 3, *q[columns]] for i, (t, q) in enumerate(zip(times, rotations.as_quat(), strict=True))]
    return "\n".join(sign.join(map(repr, map(float, row))) for row in rows) + "\n", rotations.as_matrix()


CLOCK, COUNT = [1305031102.17, 1305031102.21, 1305031102.24], [0.0, 1.0, 2.0]
XYZW, WXYZ = (
    "# timestamp tx ty tz qx qy qz qw\n",
    "# t [s], p_x [m], p_y [m], p_z [m], q_w [], q_x [], q_y [], q_z []\n",
)


@pytest.mark.parametrize(
    ("head", "order", "times", "sign", "convention"),
    [
        (XYZW, "xyzw", COUNT, " ", None),
        ("# ground truth trajectory\n# file: 'x.bag'\n" + XYZW, "xyzw", CLOCK, " ", None),
        (WXYZ, "wxyz", COUNT, ",", None),
        ("timestamp,x,y,z,qw,qx,qy,qz\n", "wxyz", COUNT, ",", None),
        ("", "xyzw", CLOCK, " ", None),
        ("# made by a program\n", "xyzw", CLOCK, " ", None),
        ("", "xyzw", COUNT, " ", "tum_xyzw"),
        ("", "wxyz", COUNT, " ", "tum_wxyz"),
        ("", "wxyz", CLOCK, ",", "tum_wxyz"),
        (WXYZ, "wxyz", COUNT, " ", "tum_wxyz"),
    ],
)
def test_the_order_of_a_quaternion_is_taken_from_names_clocks_or_the_user(
    tmp_path: Path, head: str, order: str, times: list[float], sign: str, convention: str | None
) -> None:
    text, rotations = eight_columns(order, times, sign)
    got = read(save(tmp_path / "t.txt", head + text), convention=convention)
    np.testing.assert_allclose(got.world_from_camera[:, :3, :3], rotations, atol=1e-6)
    torch.testing.assert_close(got.position[:, 0], torch.tensor([0.0, 1.0, 2.0]))


def test_a_path_that_begins_at_the_identity_of_tum_is_tum(tmp_path: Path) -> None:
    text, rotations = eight_columns("xyzw", COUNT, first=0.0)
    np.testing.assert_allclose(read(save(tmp_path / "t.txt", text)).world_from_camera[:, :3, :3], rotations, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "convention", "message"),
    [
        (eight_columns("xyzw", COUNT)[0], None, "convention=tum_xyzw or convention=tum_wxyz"),
        (eight_columns("wxyz", COUNT)[0], None, "convention=tum_xyzw or convention=tum_wxyz"),
        (eight_columns("wxyz", CLOCK, first=0.0)[0], None, "convention=tum_xyzw or convention=tum_wxyz"),
        (eight_columns("wxyz", CLOCK, ",")[0], None, "convention=tum_xyzw or convention=tum_wxyz"),
        (eight_columns("xyzw", [1e18, 2e18])[0], None, "convention=tum_xyzw or convention=tum_wxyz"),
        (XYZW + eight_columns("wxyz", COUNT)[0], "tum_wxyz", "names of the columns say xyzw, got 'tum_wxyz'"),
        (eight_columns("wxyz", COUNT)[0], "c2w_opencv", "want tum_xyzw or tum_wxyz for 8 columns, got 'c2w_opencv'"),
        (
            "#timestamp [ns],p_RS_R_x [m],p_RS_R_y [m],p_RS_R_z [m],q_RS_w [],q_RS_x [],q_RS_y [],q_RS_z []\n"
            + eight_columns("wxyz", [1.4e18, 1.5e18], ",")[0],
            None,
            "line 1: the columns are EuRoC's .*poses of the sensor's body",
        ),
        (realestate(EYE), "tum_xyzw", "convention: this file says itself"),
    ],
)
def test_ambiguous_8_columns_are_refused(tmp_path: Path, text: str, convention: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(save(tmp_path / "t.txt", text), convention=convention)


# --- how files are written -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_text_is_read_in_the_encodings_of_windows(tmp_path: Path, encoding: str) -> None:
    mark = "" if encoding in ("utf-8-sig", "utf-16") else "\ufeff"
    contents = {
        "t.json": json.dumps(transforms()),
        "t.txt": XYZW + "0 0 0 0 0 0 0 1\n1 0 0 1 0 0 0 1\n",
        "m/cameras.txt": "# CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]\n1 PINHOLE 200 120 150 150 100 60\n",
        "m/images.txt": "# IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME\n" + IMAGE,
    }
    (tmp_path / "m").mkdir()
    for name, content in contents.items():
        (tmp_path / name).write_bytes((mark + content).encode(encoding))
    assert_same(read(tmp_path / "t.json"), read(save(tmp_path / "plain.json", transforms())))
    assert read(tmp_path / "t.txt").position[1].tolist() == [0.0, 0.0, 1.0]
    torch.testing.assert_close(read(tmp_path / "m").position[1], torch.tensor([-1.0, 0.0, 0.0]))


def test_matrices_of_every_shape_are_read(tmp_path: Path) -> None:
    expected = as_tensor(OPENCV_POSE)
    scaled = (0.0012 * np.array(OPENGL_POSE)).tolist()  # homogeneous: the same transform
    for matrix in (OPENGL_POSE, OPENGL_POSE[:3], flat(OPENGL_POSE), flat(OPENGL_POSE[:3]), scaled):
        frames = [{"file_path": f"{i}.png", "transform_matrix": matrix} for i in range(2)]
        got = read(save(tmp_path / "t.json", transforms(frames=frames)))
        torch.testing.assert_close(got.world_from_camera[0], expected)
        steps = [{"camera_to_world": matrix, "fov": 90.0}] * 2
        got = read(save(tmp_path / "p.json", camera_path(camera_path=steps)))
        torch.testing.assert_close(got.world_from_camera[0], expected)
    np.save(tmp_path / "p.npy", np.array([scaled, scaled]))
    got = read(tmp_path / "p.npy", convention="c2w_opengl")
    torch.testing.assert_close(got.world_from_camera[1], expected)


def test_ns_export_cameras_file_is_read(tmp_path: Path) -> None:
    listed = [
        {"file_path": "b_10.png", "transform": EYE[:3]},
        {"file_path": "b_9.png", "transform": OPENGL_POSE[:3]},
    ]
    got = read(save(tmp_path / "transforms_train.json", listed))
    torch.testing.assert_close(got.world_from_camera[0], as_tensor(OPENCV_POSE))
    assert got.fov_deg[0, 0].item() == pytest.approx(60.0, abs=1e-4)


def test_comments_in_json_are_passed_over_or_named(tmp_path: Path) -> None:
    text = json.dumps(transforms(), indent=1)
    assert_same(read(save(tmp_path / "a.json", "// made by X\n" + text)), read(save(tmp_path / "b.json", text)))
    for comment in ("/* made by X */\n", "# made by X\n"):
        with pytest.raises(ValueError, match=r"line 1: JSON has no comments, got .*made by X"):
            read(save(tmp_path / "a.json", comment + text))
    with pytest.raises(ValueError, match=r"line 3: JSON has no comments, got .*// px"):
        read(save(tmp_path / "a.json", text.replace('"fl_y": 310.0,', '"fl_y": 310.0, // px')))


def test_a_npz_is_read_where_it_holds_one_array(tmp_path: Path) -> None:
    poses = np.array([OPENCV_POSE, EYE])
    np.savez(tmp_path / "p.npz", poses=poses)
    got = read(tmp_path / "p.npz", convention="c2w_opencv")
    torch.testing.assert_close(got.world_from_camera[0], as_tensor(OPENCV_POSE))
    with pytest.raises(ValueError, match="convention: a NumPy stack does not say"):
        read(tmp_path / "p.npz")
    np.savez(tmp_path / "p.npz", poses=poses, focal=np.ones(2))
    with pytest.raises(ValueError, match=r"want one array in a \.npz, got poses \[2, 4, 4\], focal \[2\]; save the"):
        read(tmp_path / "p.npz", convention="c2w_opencv")
    (tmp_path / "p.npz").write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(ValueError, match="does not load"):
        read(tmp_path / "p.npz", convention="c2w_opencv")
