"""Exports, each read back by a program that is not ours."""

from __future__ import annotations

import gzip
import importlib
import io
import json
import math
import re
import shutil
import struct
import sys
import zipfile
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pycolmap
import pytest
import torch
import trimesh
from PIL import Image
from plyfile import PlyData

from cache3d.rasterizer.rasterize import rasterize
from cache3d.rasterizer.types import Splats
from geometry.camera import Camera
from geometry.filters import dilate
from geometry.frame import Chunk, Frame
from geometry.primitives import Change, Gaussians, Points
from geometry.project import project, unproject
from scenes.formats.export import FORMATS, as_points, discs, export
from scenes.formats.glb import write_glb
from scenes.formats.mesh import mesh_of
from scenes.formats.outlines import firm_outlines
from scenes.formats.ply import (
    SH_CONSTANT,
    read_gaussians_ply,
    read_points_ply,
    sky_on_sphere,
    write_gaussians_ply,
    write_points_ply,
)
from scenes.formats.relief import settled, triangulate
from scenes.formats.spz import read_compressed_ply, read_spz, write_compressed_ply, write_spz
from scenes.formats.tracks import tracks_of
from scenes.formats.usd import load_usd
from scenes.io.atomic_files import WorldError
from scenes.io.open3d_library import load_open3d
from scenes.io.video import read_video, write_video
from scenes.store.world_store import WorldStore
from tests.helpers import cameras_along, pose_at
from worldwarp.api import World
from worldwarp.export import export_world, reexport_agreement_db

SIZE = (48, 80)
GREEN, RED, BLUE = (51 / 255, 153 / 255, 51 / 255), (204 / 255, 51 / 255, 51 / 255), (128 / 255, 179 / 255, 1.0)


def painted_chunk(index: int, first: int, frames: int) -> Chunk:
    """A green floor one unit below the camera, a red wall four units ahead, blue sky above; seen while moving right."""
    camera = cameras_along(0.05, frames, SIZE, first, fov_deg=70.0)
    position = camera.position[:, :, None, None]
    rays = unproject(torch.ones(frames, 1, *SIZE), camera) - position
    floor = 1.0 / rays[:, 1:2].clamp_min(1e-6)
    is_floor, sky = floor < 4.0, rays[:, 1:2] < -0.25
    depth = torch.where(sky, 100.0, floor.clamp_max(4.0))
    colors = [torch.tensor(c)[None, :, None, None] for c in (GREEN, RED, BLUE)]
    rgb = torch.where(sky, colors[2], torch.where(is_floor, colors[0], colors[1]))
    rgb = (rgb * 255.0).round() / 255.0
    return Chunk(Frame(rgb, depth, torch.ones_like(sky), sky, camera), index, index == 0, torch.ones_like(depth))


def points_of(chunk: Chunk) -> Points:
    f = chunk.frames[0]
    count = SIZE[0] * SIZE[1]
    normals = torch.zeros(3, *SIZE)
    normals[1] = torch.where(f.rgb[0] < 0.4, -1.0, 0.0)
    normals[2] = torch.where(f.rgb[0] > 0.4, -1.0, 0.0)
    world = unproject(f.depth, f.camera)
    positions, colors, flat_normals = (t.flatten(1).t().contiguous() for t in (world, f.rgb, normals))
    radii = (f.depth / f.camera.focal_px[0] / 2.0).flatten()
    ones, chunk_of = torch.ones(count, dtype=torch.bool), torch.zeros(count, dtype=torch.int32)
    return Points(positions, colors, flat_normals, radii, chunk_of, ones, torch.ones(count), f.sky.flatten())


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("worlds") / "w"
    path = Camera.from_fov(70.0, SIZE, torch.eye(4).repeat(13, 1, 1))
    world = WorldStore.create(folder, path=path, seed=0)
    first, points = 0, points_of(painted_chunk(0, 0, 1))
    for index, frames in enumerate((1, 6, 6)):
        chunk = painted_chunk(index, first, frames)
        world.append(chunk, change=Change.from_nothing(points), rng_state=torch.Generator().get_state())
        first += frames
    return folder


@pytest.fixture
def world(saved: Path, tmp_path: Path) -> WorldStore:
    return WorldStore.load(shutil.copytree(saved, tmp_path / "w"))


def random_gaussians(count: int = 50) -> Gaussians:
    rng = torch.Generator().manual_seed(0)
    quats = torch.nn.functional.normalize(torch.randn(count, 4, generator=rng), dim=1)
    scales = torch.rand(count, 3, generator=rng) * 0.1 + 1e-3
    rest = torch.rand(count, 7, generator=rng)
    flag = torch.zeros(count, dtype=torch.bool)
    chunk = torch.zeros(count, dtype=torch.int32)
    return Gaussians(
        rest[:, :3], quats, scales, rest[:, 3], rest[:, 4:], chunk, ~flag, torch.ones(count), flag, torch.zeros(count)
    )


def test_gaussians_in_the_standard_layout(tmp_path: Path) -> None:
    gaussians = random_gaussians()
    write_gaussians_ply(tmp_path / "g.ply", gaussians)
    ply = PlyData.read(str(tmp_path / "g.ply"))
    assert (ply.text, ply.byte_order) == (False, "<")
    vertex = ply["vertex"]
    # The order is part of the layout: several viewers read by offset.
    order = [*"xyz", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"]
    order += ["scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    assert [p.name for p in vertex.properties] == order
    assert {p.val_dtype for p in vertex.properties} == {"f4"}

    def column(*names: str) -> np.ndarray:
        return np.stack([vertex[name] for name in names], 1)

    assert np.array_equal(column("x", "y", "z"), gaussians.means.numpy())
    colors = 0.5 + SH_CONSTANT * column("f_dc_0", "f_dc_1", "f_dc_2")
    assert np.allclose(colors, gaussians.colors, atol=1e-6)
    assert np.allclose(1.0 / (1.0 + np.exp(-vertex["opacity"])), gaussians.opacities, atol=1e-5)
    assert np.allclose(np.exp(column("scale_0", "scale_1", "scale_2")), gaussians.scales, rtol=1e-5)
    assert np.array_equal(column("rot_0", "rot_1", "rot_2", "rot_3"), gaussians.quats.numpy())


def test_gaussians_round_trip(tmp_path: Path) -> None:
    gaussians = random_gaussians()
    gaussians.opacities[:2] = torch.tensor([0.0, 1.0])
    write_gaussians_ply(tmp_path / "g.ply", gaussians)
    read = read_gaussians_ply(tmp_path / "g.ply")
    assert torch.equal(read.means, gaussians.means)
    for name, tolerance in {"quats": 1e-6, "scales": 1e-6, "opacities": 1e-5, "colors": 1e-6}.items():
        assert torch.allclose(getattr(read, name), getattr(gaussians, name), atol=tolerance), name


def test_spz_is_upright_and_comes_back(tmp_path: Path) -> None:
    gaussians = random_gaussians()
    write_spz(tmp_path / "g.spz", gaussians)
    content = gzip.decompress((tmp_path / "g.spz").read_bytes())
    # Niantic's layout: magic, version, count, SH degree, fractional bits, flags; then centers, 24 bits each.
    assert struct.unpack_from("<4sIIBBBB", content) == (b"NGSP", 3, 50, 0, 12, 0, 0)
    assert len(content) == 16 + 50 * (9 + 1 + 3 + 3 + 4)
    first = [int.from_bytes(content[i : i + 3], "little", signed=True) / 4096.0 for i in (16, 19, 22)]
    x, y, z = gaussians.means[0].tolist()
    assert first == pytest.approx([x, -y, -z], abs=1.3e-4)
    read = read_spz(tmp_path / "g.spz")
    assert torch.allclose(read.means, gaussians.means, atol=1.3e-4)
    assert torch.allclose(read.scales, gaussians.scales, rtol=0.04)  # sixteenths of a natural logarithm
    assert torch.allclose(read.colors, gaussians.colors, atol=4e-3)
    assert torch.allclose(read.opacities, gaussians.opacities, atol=4e-3)
    # The same turn: q and -q are one.
    assert torch.allclose((read.quats * gaussians.quats).sum(1).abs(), torch.ones(50), atol=1e-4)
    far = replace(gaussians, means=gaussians.means * 10_000.0)
    write_spz(tmp_path / "far.spz", far)
    assert torch.allclose(read_spz(tmp_path / "far.spz").means, far.means, atol=2e-3)


def test_a_compressed_ply_comes_back_and_has_the_layout_of_playcanvas(tmp_path: Path) -> None:
    gaussians = random_gaussians(600)
    write_compressed_ply(tmp_path / "g.ply", gaussians)
    other = PlyData.read(tmp_path / "g.ply")
    assert [(part.name, part.count) for part in other.elements][:2] == [("chunk", 3), ("vertex", 600)]
    assert other["chunk"]["min_y"].min() == pytest.approx(float(gaussians.means[:, 1].min()), abs=1e-6)  # y as stored
    read = read_compressed_ply(tmp_path / "g.ply")
    nearest = torch.cdist(read.means, gaussians.means).min(1)
    assert nearest.values.max() < 2e-3
    assert nearest.indices.unique().numel() > 590
    of = gaussians[nearest.indices]
    assert (read.scales / of.scales).log().abs().quantile(0.9) < 0.02
    assert (read.colors - of.colors).abs().quantile(0.9) < 0.02
    assert (read.quats * of.quats).sum(1).abs().quantile(0.1) > 0.999


def test_usd_is_upright_and_its_camera_moves_along_the_path(world: WorldStore) -> None:
    usd, geom, volume, gf, _ = load_usd()
    report = export(world, ["usd"])[0]
    stage = usd.Stage.Open(str(report.path))
    assert geom.GetStageUpAxis(stage) == "Y"
    field = volume.ParticleField3DGaussianSplat(stage.GetPrimAtPath("/world/splats"))
    points = geom.Points(stage.GetPrimAtPath("/world/points"))
    own = discs(sky_on_sphere(world.primitives))  # type: ignore[arg-type]  # a world of points
    means = np.array(field.GetPositionsAttr().Get())
    assert means == pytest.approx(own.means.numpy() * [1.0, -1.0, -1.0], abs=1e-5)
    assert np.array(points.GetPointsAttr().Get()) == pytest.approx(means)
    colors = np.array(field.GetRadianceSphericalHarmonicsCoefficientsAttr().Get()) * SH_CONSTANT + 0.5
    assert colors == pytest.approx(own.colors.numpy(), abs=1e-5)
    # The thin axis of a disc on the floor points up.
    floor = int(torch.nonzero((own.colors[:, 1] > 0.5) & (own.colors[:, 0] < 0.3))[0])
    quat = field.GetOrientationsAttr().Get()[floor]
    thin = np.eye(3)[int(own.scales[floor].argmin())]
    up = gf.Rotation(gf.Quatd(quat)).TransformDir(gf.Vec3d(*thin.tolist()))
    assert abs(up[1]) == pytest.approx(1.0, abs=1e-3)
    camera = geom.Camera(stage.GetPrimAtPath("/world/path"))
    for k in (0, 6, 12):
        frustum = camera.GetCamera(float(k)).frustum
        position, ahead = frustum.GetPosition(), frustum.ComputeViewDirection()
        x, y, z = world.cameras.position[k].tolist()
        assert tuple(position) == pytest.approx((x, -y, -z), abs=1e-5)
        assert tuple(ahead) == pytest.approx((0.0, 0.0, -1.0), abs=1e-5)
        assert tuple(frustum.ComputeUpVector()) == pytest.approx((0.0, 1.0, 0.0), abs=1e-5)
    view = camera.GetCamera(0.0)
    assert view.GetFieldOfView(view.FOVHorizontal) == pytest.approx(70.0, abs=0.01)
    assert stage.GetTimeCodesPerSecond() == world.fps


def test_the_camera_of_a_glb_moves_along_the_path(tmp_path: Path, world: WorldStore) -> None:
    poses = torch.stack([pose_at(0.1 * k, 0.02 * k, 0.3 * k, 10.0 * k) for k in range(5)])
    cameras = Camera.from_fov(70.0, SIZE, poses)
    write_glb(tmp_path / "m.glb", mesh_of(world), cameras, 10.0)
    tree, body = read_glb(tmp_path / "m.glb")
    (animation,) = tree["animations"]

    def values(index: int, width: int) -> np.ndarray:
        view = tree["bufferViews"][tree["accessors"][index]["bufferView"]]
        content = body[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]
        return np.frombuffer(content, "<f4").reshape(-1, width)

    times = values(animation["samplers"][0]["input"], 1)[:, 0]
    assert times == pytest.approx(np.arange(5) / 10.0)
    places, quats = (values(part["output"], width) for part, width in zip(animation["samplers"], (3, 4), strict=True))
    assert places == pytest.approx(poses[:, :3, 3].numpy() * [1.0, -1.0, -1.0], abs=1e-6)
    ahead = [trimesh.transformations.quaternion_matrix(q[[3, 0, 1, 2]])[:3, :3] @ [0.0, 0.0, -1.0] for q in quats]
    assert np.array(ahead) == pytest.approx(poses[:, :3, 2].numpy() * [1.0, -1.0, -1.0], abs=1e-5)
    assert ((quats[1:] * quats[:-1]).sum(1) > 0.0).all()
    assert {channel["target"]["path"] for channel in animation["channels"]} == {"translation", "rotation"}
    assert tree["nodes"][animation["channels"][0]["target"]["node"]] == {"name": "path", "camera": 0}


def test_spz_without_its_package_is_refused_first(world: WorldStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gsply", None)
    with pytest.raises(ImportError, match=r"pip install 'worldwarp\[spz\]'"):
        export(world, ["mp4", "spz"])
    assert not (world.folder / "exports").exists()


def test_points_round_trip(tmp_path: Path) -> None:
    points = points_of(painted_chunk(0, 0, 1))
    write_points_ply(tmp_path / "p.ply", points)
    vertex = PlyData.read(str(tmp_path / "p.ply"))["vertex"]
    assert [p.name for p in vertex.properties] == ["x", "y", "z", "nx", "ny", "nz", "red", "green", "blue"]
    assert np.array_equal(np.stack([vertex["x"], vertex["y"], vertex["z"]], 1), points.positions.numpy())
    assert vertex["red"].dtype == np.uint8
    read = read_points_ply(tmp_path / "p.ply")
    for name in ("positions", "normals", "colors"):
        assert torch.equal(getattr(read, name), getattr(points, name)), name


def test_ply_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "g.ply"
    write_gaussians_ply(path, random_gaussians())
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match="truncated: want 50 vertices, got 48"):
        read_gaussians_ply(path)
    path.write_bytes(whole.replace(b"rot_3", b"rot_4"))
    with pytest.raises(ValueError, match="misses the vertex properties rot_3"):
        read_gaussians_ply(path)
    path.write_bytes(whole.replace(b"binary_little_endian", b"ascii"))
    with pytest.raises(ValueError, match="want a binary little-endian PLY"):
        read_gaussians_ply(path)
    path.write_bytes(whole.replace(b"property float rot_3", b"property list uchar int x"))
    with pytest.raises(ValueError, match="want plain vertex properties"):
        read_gaussians_ply(path)


def test_sky_is_projected_to_the_smallest_enclosing_sphere(world: WorldStore) -> None:
    points = world.primitives
    assert isinstance(points, Points)
    moved = sky_on_sphere(points)
    assert isinstance(moved, Points)
    camera = world.cameras[0]
    before, after = (project(p.positions, camera)[0] for p in (points, moved))
    assert torch.allclose(before, after, atol=1e-3)
    distance = moved.positions.norm(dim=1)
    farthest = points.positions[~points.sky].norm(dim=1).max()  # about 5; the cache's own sky is at 100 and more
    assert torch.allclose(distance[points.sky], 1.05 * farthest.expand(int(points.sky.sum())), rtol=1e-5)
    assert torch.equal(moved.positions[~points.sky], points.positions[~points.sky])
    angle = points.radii / points.positions.norm(dim=1)
    assert torch.allclose(moved.radii / distance, angle, rtol=1e-4)
    land, sky = points[~points.sky], points[points.sky]
    assert sky_on_sphere(land) is land
    alone = sky_on_sphere(sky)
    assert isinstance(alone, Points)
    assert torch.allclose(alone.positions.norm(dim=1), sky.positions.norm(dim=1).max(), rtol=1e-5)


def test_cameras_are_exported_with_gaussians(world: WorldStore) -> None:
    path = export(world, ["gaussians_ply"])[0].path
    cameras = json.loads((path.parent / "cameras.json").read_text())
    assert [camera["id"] for camera in cameras] == list(range(13))
    focal = 40.0 / math.tan(math.radians(35.0))
    assert cameras[0] == {
        "id": 0,
        "img_name": "00000",
        "width": 80,
        "height": 48,
        "position": [0.0, 0.0, 0.0],
        "rotation": [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
        "fx": pytest.approx(focal, rel=1e-5),
        "fy": pytest.approx(focal, rel=1e-5),
    }
    assert cameras[12]["position"] == pytest.approx([0.6, 0.0, 0.0])
    # A splat of the photo falls, by these numbers alone, on the pixel whose color it has.
    vertex = PlyData.read(str(path))["vertex"]
    assert "looking along +z" in "".join(PlyData.read(str(path)).comments)
    xyz, dc = (np.array([vertex[name][-1] for name in names]) for names in ("xyz", ("f_dc_0", "f_dc_1", "f_dc_2")))
    at = np.array(cameras[12]["rotation"]).T @ (xyz - cameras[12]["position"])
    x, y = (cameras[12][f] * at[i] / at[2] + side / 2.0 for i, (f, side) in enumerate((("fx", 80), ("fy", 48))))
    frame = world.frames(12, 13)[0]
    assert np.allclose(0.5 + SH_CONSTANT * dc, frame.rgb[:, int(y), int(x)], atol=1e-5)


def test_export_into_the_world_folder_is_refused(world: WorldStore) -> None:
    before = (world.folder / "cameras.json").read_bytes()
    with pytest.raises(ValueError, match=r"out: .* is the world itself"):
        export(world, ["gaussians_ply"], world.folder / "exports" / "..")
    assert (world.folder / "cameras.json").read_bytes() == before


def test_points_and_gaussians_convert_to_each_other() -> None:
    points = points_of(painted_chunk(0, 0, 1))[:500]
    tilted = torch.nn.functional.normalize(torch.randn(500, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    points = Points(
        points.positions,
        points.colors,
        tilted,
        points.radii + 0.01,
        *(points.chunk, points.observed),
        points.confidence,
        points.sky,
    )
    back = as_points(discs(points))
    assert torch.allclose((back.normals * tilted).sum(1).abs(), torch.ones(500), atol=1e-5)
    assert torch.allclose(back.radii, points.radii)
    unknown = discs(
        Points(
            points.positions,
            points.colors,
            torch.zeros(500, 3),
            points.radii,
            points.chunk,
            points.observed,
            points.confidence,
            points.sky,
        )
    )
    assert torch.equal(unknown.scales, points.radii[:, None].expand(-1, 3))
    assert torch.allclose(unknown.quats.norm(dim=1), torch.ones(500))


def test_splats_and_points_of_a_world(world: WorldStore) -> None:
    reports = export(world, ["gaussians_ply", "points_ply"])
    assert [r.format for r in reports] == ["gaussians_ply", "points_ply"]
    assert all(r.bytes == r.path.stat().st_size and "y down" in r.note for r in reports)
    gaussians, points = read_gaussians_ply(reports[0].path), read_points_ply(reports[1].path)
    assert len(gaussians) == len(points) == len(world.primitives)
    assert torch.equal(gaussians.means, points.positions)
    readme = (world.folder / "exports" / "README.txt").read_text()
    assert readme.startswith("gaussians.ply: 3D Gaussian Splatting PLY")
    assert "points.ply: " in readme
    export(world, ["points_ply"])  # again: one line each
    assert (world.folder / "exports" / "README.txt").read_text().count("points.ply: ") == 1


def test_plain_compositing_shows_outlines_of_an_export_firm_before_the_sky() -> None:
    chunk = painted_chunk(0, 0, 1)
    frame, gaussians = chunk.frames[0], discs(points_of(chunk))
    # As the cache has them: no thinner than half a pixel, so that they reach beyond their outline.
    gaussians = replace(gaussians, opacities=torch.full_like(gaussians.opacities, 0.95))
    firm = firm_outlines(gaussians, [frame])

    def error(shown: Gaussians, where: torch.Tensor) -> float:
        on = sky_on_sphere(shown)
        assert isinstance(on, Gaussians)
        splats = Splats(on.means, on.quats, on.scales, on.opacities, on.colors)
        rgb = rasterize(splats, frame.camera[None], "cpu", eps2d=0.3).values
        return (rgb[0] - frame.rgb).abs().mean(0)[where].mean().item()

    sky = frame.sky[0]
    above = sky & (dilate((~sky).float()[None], 1)[0] > 0.0)
    deep = dilate(sky.float()[None], 4)[0] == 0.0
    assert error(firm, above) < 0.9 * error(gaussians, above)
    assert error(firm, deep) == pytest.approx(error(gaussians, deep), abs=1e-4)
    assert torch.equal(firm.means, gaussians.means)
    indoors = replace(gaussians, sky=torch.zeros_like(gaussians.sky))
    assert firm_outlines(indoors, [frame]) is indoors


def read_glb(path: Path) -> tuple[dict, bytes]:
    content = path.read_bytes()
    length = struct.unpack_from("<I", content, 12)[0]
    return json.loads(content[20 : 20 + length]), content[28 + length :]


def parts_of(path: Path) -> dict[str, Any]:
    scene: Any = trimesh.load(path)
    return scene.geometry


def looked_at(mesh: Any, rays: np.ndarray, origin: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> tuple:
    """Along rays in OpenCV axes: how far each goes to the mesh, and the color of the texture there, 0..255."""
    open3d = load_open3d()
    core, scene = open3d.core, open3d.t.geometry.RaycastingScene()
    vertices = np.asarray(mesh.vertices) * [1.0, -1.0, -1.0]
    scene.add_triangles(core.Tensor(vertices.astype(np.float32)), core.Tensor(mesh.faces.astype(np.uint32)))
    both = np.concatenate([np.broadcast_to(origin, rays.shape), rays], -1).astype(np.float32)
    hits = scene.cast_rays(core.Tensor(both))
    reach, face, bary = (hits[name].numpy() for name in ("t_hit", "primitive_ids", "primitive_uvs"))
    hit = np.isfinite(reach)
    weights = np.concatenate([1.0 - bary.sum(-1, keepdims=True), bary], -1)[hit]
    places = (np.asarray(mesh.visual.uv)[np.asarray(mesh.faces)[face[hit]]] * weights[..., None]).sum(1)
    texture = np.asarray(mesh.visual.material.baseColorTexture.convert("RGB"))
    row = ((1.0 - places[:, 1]) * texture.shape[0]).astype(int)  # trimesh counts v from below
    colors = np.zeros((*hit.shape, 3))
    colors[hit] = texture[row, (places[:, 0] * texture.shape[1]).astype(int)]
    return reach, colors


def rays_of(camera: Camera) -> np.ndarray:
    """Through all pixels, a little off their centers, where rays could slip between two triangles."""
    beside = replace(camera, center_px=camera.center_px - 0.1)
    rays = unproject(torch.ones(1, *camera.size), beside) - camera.position[:, None, None]
    return rays.permute(1, 2, 0).numpy()


def test_mesh_has_the_depth_and_colors_of_the_photo(world: WorldStore) -> None:
    report = export(world, ["glb"])[0]
    parts = parts_of(report.path)
    ground, sky = parts["world"], parts["sky"]
    frame = world.chunk(0).frames[0]
    reach, colors = looked_at(ground, rays_of(frame.camera))
    seen = ~frame.sky[0].numpy()
    assert np.isfinite(reach[seen]).all()  # no gap, along depth edges neither
    assert not np.isfinite(reach[~seen]).any()
    behind = looked_at(parts["background"], rays_of(frame.camera))[0]
    assert (behind > 0.97 * reach)[seen & np.isfinite(behind)].all()
    wanted = frame.rgb.permute(1, 2, 0).numpy() * 255.0
    inside = far_from_color_edges(frame)
    assert np.abs(reach - frame.depth[0].numpy())[seen].max() < 0.12  # the floor falls by 0.28 from row to row
    assert np.abs(colors - wanted)[seen & inside].max() <= 8.0  # JPEG
    sky_reach, sky_colors = looked_at(sky, rays_of(frame.camera))
    assert np.isfinite(sky_reach[~seen]).all()
    assert np.abs(sky_colors - wanted)[~seen & inside].max() <= 8.0
    radius = np.linalg.norm(sky.vertices, axis=1)
    # The pieces of pictures are before the dome.
    assert radius.max() == pytest.approx(1.02 * radius.min(), rel=1e-5)
    farthest = max(np.linalg.norm(parts[name].vertices, axis=1).max() for name in ("world", "background"))
    assert farthest < radius.min() < 1.1 * farthest
    # Outward is towards the viewer, y up: the floor looks up, the wall towards +z.
    centers, normals = np.asarray(ground.triangles_center), np.asarray(ground.face_normals)
    up, towards = normals[np.abs(centers[:, 1] + 1.0) < 0.01][:, 1], normals[np.abs(centers[:, 2] + 4.0) < 0.01][:, 2]
    assert np.median(up) > 0.99
    assert np.median(towards) > 0.99
    assert min(up.min(), towards.min()) >= 0.0


def far_from_color_edges(frame: Frame) -> np.ndarray:
    """Pixels whose neighbors all have their color."""
    rgb = np.pad(frame.rgb.permute(1, 2, 0).numpy(), ((1, 1), (1, 1), (0, 0)), mode="edge")
    height, width = frame.camera.size
    around = [rgb[i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return (np.ptp(np.stack(around), 0) == 0).all(-1)


def test_mesh_adds_surfaces_of_later_frames(world: WorldStore) -> None:
    ground = parts_of(export(world, ["glb"])[0].path)["world"]
    frame = world.frames(12, 13)[0]  # 0.6 units to the right of the photo
    reach, colors = looked_at(ground, rays_of(frame.camera), (0.6, 0.0, 0.0))
    seen = ~frame.sky[0].numpy()
    assert np.isfinite(reach[seen]).mean() > 0.99
    hit = seen & np.isfinite(reach) & far_from_color_edges(frame)
    assert np.abs(colors - frame.rgb.permute(1, 2, 0).numpy() * 255.0)[hit].max() <= 8.0
    edge = np.asarray(ground.vertices)[:, 0].max()
    right = unproject(frame.depth, frame.camera)[0][~frame.sky[0]].max()
    assert edge == pytest.approx(float(right), abs=0.1)


def test_glb_conforms_to_the_format(world: WorldStore) -> None:
    report = export(world, ["glb"])[0]
    tree, body = read_glb(report.path)
    assert report.bytes == struct.unpack_from("<I", report.path.read_bytes(), 8)[0]
    assert tree["buffers"] == [{"byteLength": len(body)}]
    assert tree["extensionsUsed"] == ["KHR_materials_unlit"]
    assert [node["name"] for node in tree["nodes"]] == ["world", "background", "sky", "photo", "path"]
    height, width = SIZE
    lens = tree["cameras"][0]["perspective"]
    assert lens["aspectRatio"] == pytest.approx(width / height)
    assert lens["yfov"] == pytest.approx(2.0 * math.atan(math.tan(math.radians(35.0)) * height / width), rel=1e-4)
    for part in tree["meshes"]:
        primitive = part["primitives"][0]
        targets = {}
        for name, index in {**primitive["attributes"], "indices": primitive["indices"]}.items():
            view = tree["bufferViews"][tree["accessors"][index]["bufferView"]]
            targets[name] = view["target"]
            assert view["byteOffset"] % 4 == 0
        assert targets == {"POSITION": 34962, "TEXCOORD_0": 34962, "indices": 34963}
        material = tree["materials"][primitive["material"]]
        assert material["extensions"] == {"KHR_materials_unlit": {}}
        assert material["pbrMetallicRoughness"]["baseColorTexture"] == {"index": 0}
    picture = tree["bufferViews"][tree["images"][0]["bufferView"]]
    assert body[picture["byteOffset"] :][:3] == b"\xff\xd8\xff"  # a JPEG


def frame_of(depth: torch.Tensor, sky: torch.Tensor | None = None) -> Frame:
    size = (depth.shape[-2], depth.shape[-1])
    sky = torch.zeros(1, *size, dtype=torch.bool) if sky is None else sky
    return Frame(torch.zeros(3, *size), depth, torch.ones_like(sky), sky, Camera.from_fov(60.0, size))


def test_a_plain_wall_is_few_triangles_and_a_depth_edge_is_cut() -> None:
    wall = frame_of(torch.full((1, 64, 96), 2.0))
    relief = triangulate(settled(wall, 100.0), wall)
    assert len(relief.triangles) < 1500  # of 11970; only the border is fine
    assert np.allclose(relief.positions[:, 2], 2.0)
    depth = torch.full((1, 64, 96), 2.0)
    depth[:, :, 40:] = 4.0
    step = frame_of(depth)
    relief = triangulate(settled(step, 100.0), step)
    across = np.ptp(relief.positions[relief.triangles][..., 2], axis=1)
    assert across.max() == pytest.approx(0.0, abs=1e-9)  # no triangle hangs between the two
    assert set(relief.positions[:, 2].round(6)) == {2.0, 4.0}


def test_the_outline_of_a_slanted_edge_has_no_saw_teeth() -> None:
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(96.0), indexing="ij")
    place = 30.0 + 0.3 * (rows + 0.5)
    frame = frame_of(torch.where(columns + 0.5 < place, 2.0, 4.0)[None])
    relief = triangulate(settled(frame, 100.0), frame)
    near = relief.positions[:, 2] < 3.0
    x, y = relief.pixels.T
    # Rows inside: the cut of the two surfaces is at one place in the image.
    cut = np.array([x[near & (np.abs(y - row) < 0.3)].max() for row in np.arange(4.5, 60.0)])
    assert np.abs(cut - (30.0 + 0.3 * np.arange(4.5, 60.0))).max() < 0.4  # saw-teeth of pixels are 0.5 and more
    assert cut == pytest.approx([x[~near & (np.abs(y - row) < 0.3)].min() for row in np.arange(4.5, 60.0)], abs=0.6)


def test_ground_up_to_its_horizon_is_one_surface_and_specks_join_it() -> None:
    rows = torch.arange(64.0)[:, None].expand(64, 96) + 0.5
    depth = (60.0 / (rows - 20.0).clamp_min(0.6))[None]
    sky = rows[None] < 23.0
    speck = depth.clone()
    speck[:, 40, 50], speck[:, 50:52, 20:22] = 0.2, 30.0  # one pixel in the air, four in the ground
    frame = frame_of(speck, sky)
    picture = settled(frame, 100.0)
    pieces = picture.pieces()
    assert len(np.unique(pieces)) == 2
    assert 1.0 / picture.inverse[40, 50] == pytest.approx(float(depth[0, 40, 50]), rel=0.1)
    assert 1.0 / picture.inverse[50, 20] == pytest.approx(float(depth[0, 50, 20]), rel=0.1)


def test_surface_that_contradicts_the_photo_is_left_out(tmp_path: Path) -> None:
    chunk = painted_chunk(1, 1, 6)
    depth, sky = chunk.frames.depth.clone(), chunk.frames.sky.clone()
    depth[:, :, 2:10, 20:50], sky[:, :, 2:10, 20:50] = 1.5, False  # a board before the sky
    depth[:, :, 18:26, 30:50] = 1.0  # and one before the wall
    board = Frame(chunk.frames.rgb, depth, chunk.frames.valid, sky, chunk.frames.camera)
    path = Camera.from_fov(70.0, SIZE, torch.eye(4).repeat(7, 1, 1))
    world = WorldStore.create(tmp_path / "w", path=path, seed=0)
    change = Change.from_nothing(points_of(painted_chunk(0, 0, 1)))
    state = torch.Generator().get_state()
    world.append(painted_chunk(0, 0, 1), change=change, rng_state=state)
    world.append(Chunk(board, 1, False, chunk.confidence), change=change, rng_state=state)
    vertices = parts_of(export(world, ["glb"])[0].path)["world"].vertices
    assert np.linalg.norm(vertices, axis=1).min() > 1.0
    assert not ((vertices[:, 1] > -0.5) & (vertices[:, 2] > -3.0)).any()


def test_a_photo_alone_without_sky_is_a_mesh_and_a_model(tmp_path: Path) -> None:
    chunk = painted_chunk(0, 0, 1)
    wall = replace(chunk.frames, depth=torch.full_like(chunk.frames.depth, 2.0), sky=torch.zeros_like(chunk.frames.sky))
    chunk = replace(chunk, frames=wall)
    world = WorldStore.create(tmp_path / "w", path=wall.camera, seed=0)
    change = Change.from_nothing(points_of(chunk))
    world.append(chunk, change=change, rng_state=torch.Generator().get_state())
    mesh, colmap = export(world, ["glb", "colmap"])
    assert [node["name"] for node in read_glb(mesh.path)[0]["nodes"]] == ["world", "background", "sky", "photo"]
    low, high = parts_of(mesh.path)["world"].bounds
    side = 2.0 * math.tan(math.radians(35.0))
    assert low == pytest.approx([-side, -0.6 * side, -2.0], abs=1e-4)  # the whole picture, to its border
    assert high == pytest.approx([side, 0.6 * side, -2.0], abs=1e-4)
    model = pycolmap.Reconstruction(str(colmap.path / "sparse" / "0"))
    assert model.num_points3D() == model.compute_num_observations() == SIZE[0] * SIZE[1]


def board_before_a_wall() -> Frame:
    """A gray board two units ahead of the camera, before a wall whose color goes from left to right."""
    frame = frame_of(torch.full((1, 64, 96), 4.0))
    rgb = torch.linspace(0.2, 0.8, 96).expand(3, 64, 96) * torch.tensor([1.0, 0.5, 0.2])[:, None, None]
    depth = frame.depth.clone()
    depth[:, 16:48, 36:60] = 2.0
    rgb = (torch.where(depth < 3.0, torch.tensor(0.5), rgb) * 255.0).round() / 255.0
    return replace(frame, rgb=rgb, depth=depth)


def stored_photo(folder: Path, frame: Frame) -> WorldStore:
    batch = Frame(frame.rgb[None], frame.depth[None], frame.valid[None], frame.sky[None], frame.camera[None])
    world = WorldStore.create(folder, path=batch.camera, seed=0)
    chunk = Chunk(batch, 0, True, torch.ones_like(batch.depth))
    change = Change.from_nothing(points_of(painted_chunk(0, 0, 1)))
    world.append(chunk, change=change, rng_state=torch.Generator().get_state())
    return world


def test_from_aside_the_wall_goes_on_behind_a_board_and_beyond_the_frame(tmp_path: Path) -> None:
    frame = board_before_a_wall()
    mesh = mesh_of(stored_photo(tmp_path / "w", frame))
    write_glb(tmp_path / "m.glb", mesh)
    sheet = parts_of(tmp_path / "m.glb")["background"]
    for x in (-0.6, 0.6):
        rays = rays_of(frame.camera)
        ground = looked_at(parts_of(tmp_path / "m.glb")["world"], rays, (x, 0.0, 0.0))[0]
        reach, colors = looked_at(sheet, rays, (x, 0.0, 0.0))
        lacking = ~np.isfinite(ground)
        assert lacking.mean() > 0.05
        assert np.isfinite(reach[lacking]).mean() > 0.98
        assert reach[lacking & np.isfinite(reach)] == pytest.approx(4.0, abs=0.15)
        # The wall's colors and not the board's, whose parts are equal.
        hit = lacking & np.isfinite(reach)
        assert (colors[hit][:, 0] > 1.5 * colors[hit][:, 1]).all()
    sky = mesh.sky
    assert np.linalg.norm(sky.positions, axis=1).min() > np.linalg.norm(mesh.background.positions, axis=1).max()


def test_a_view_of_the_cache_adds_what_no_frame_shows_and_nothing_for_what_it_does_not_know(tmp_path: Path) -> None:
    frame = board_before_a_wall()
    world = stored_photo(tmp_path / "w", frame)

    def render(cameras: Camera) -> Frame:
        count, (height, width) = len(cameras), cameras.size
        depth = torch.full((count, 1, height, width), 4.0)
        # Every view stands where the photo was taken, and knows the wall on the right alone.
        place = replace(cameras, world_from_camera=frame.camera.world_from_camera.expand(count, 4, 4))
        valid = torch.zeros_like(depth, dtype=torch.bool)
        valid[..., width // 2 :] = True
        rgb = torch.tensor([0.0, 1.0, 0.0])[:, None, None].expand(count, 3, height, width)
        return Frame(rgb, depth, valid, torch.zeros_like(valid), place)

    plain, more = (mesh_of(world, render=given) for given in (None, render))
    sides = [(mesh.ground.positions[:, 0].min(), mesh.ground.positions[:, 0].max()) for mesh in (plain, more)]
    assert sides[0][0] == pytest.approx(sides[1][0])
    assert sides[1][1] > 1.3 * sides[0][1]
    assert (plain.pictures, more.pictures) == (1, 2)


def test_the_dome_is_sky_above_and_ground_below_and_goes_all_around(world: WorldStore) -> None:
    sky = parts_of(export(world, ["glb"])[0].path)["sky"]
    around = np.array(
        [
            [[1.0, -0.5, 0.0], [0.05, -1.0, -0.1], [-1.0, -0.4, -1.0]],
            [[1.0, 0.5, 0.0], [0.1, 1.0, 0.0], [-1.0, 0.6, -1.0]],
        ]
    )
    reach, colors = looked_at(sky, around)
    assert np.isfinite(reach).all()
    assert colors[0] / 255.0 == pytest.approx(np.broadcast_to(BLUE, (3, 3)), abs=0.05)
    assert (colors[1][:, 2] < 120.0).all()  # green and red, no blue


def test_usdz_is_what_quick_look_asks_for(world: WorldStore) -> None:
    usd, geom, _, _, _ = load_usd()
    mesh = mesh_of(world)
    report = export(world, ["usdz"])[0]
    with zipfile.ZipFile(report.path) as package:
        names = package.namelist()
        assert names[0].endswith(".usdc")
        assert [Path(name).suffix for name in names[1:]] == [".jpg"]
        for entry in package.infolist():
            assert entry.compress_type == zipfile.ZIP_STORED
            # The content begins at a multiple of 64 bytes, after a header of 30 bytes, the name and padding.
            assert package.fp is not None
            package.fp.seek(entry.header_offset + 26)
            name, extra = struct.unpack("<HH", package.fp.read(4))
            assert (entry.header_offset + 30 + name + extra) % 64 == 0
        picture = Image.open(io.BytesIO(package.read(names[1])))
        assert picture.size == (mesh.texture.shape[1], mesh.texture.shape[0])
    stage = usd.Stage.Open(str(report.path))
    assert (geom.GetStageUpAxis(stage), geom.GetStageMetersPerUnit(stage)) == ("Y", 1.0)
    assert [prim.GetName() for prim in stage.GetDefaultPrim().GetChildren()] == [
        *("pictures", "world", "background", "sky", "photo"),
    ]
    part = geom.Mesh(stage.GetPrimAtPath("/root/world"))
    points = np.array(part.GetPointsAttr().Get())
    assert points == pytest.approx(mesh.ground.positions * [1.0, -1.0, -1.0], abs=1e-4)
    places = np.array(geom.PrimvarsAPI(part).GetPrimvar("st").Get())
    assert places[:, 1] == pytest.approx(1.0 - mesh.ground.places[:, 1], abs=1e-6)
    assert np.array(part.GetFaceVertexIndicesAttr().Get()).reshape(-1, 3) == pytest.approx(mesh.ground.triangles)
    assert not geom.Mesh(stage.GetPrimAtPath("/root/sky")).GetDoubleSidedAttr().Get()
    validation = importlib.import_module("pxr.UsdValidation")
    validators = validation.ValidationRegistry().GetOrLoadAllValidators()
    assert len(validators) > 10
    errors = validation.ValidationContext(validators).Validate(stage)
    assert [error.GetErrorAsString() for error in errors] == []


def test_photo_of_only_sky_is_refused(tmp_path: Path) -> None:
    chunk = painted_chunk(0, 0, 1)
    frames = replace(chunk.frames, sky=torch.ones_like(chunk.frames.sky))
    world = WorldStore.create(tmp_path / "w", path=chunk.frames.camera, seed=0)
    change = Change.from_nothing(points_of(chunk))
    world.append(replace(chunk, frames=frames), change=change, rng_state=torch.Generator().get_state())
    with pytest.raises(ValueError, match="nothing to mesh"):
        export(world, ["glb"])


def test_colmap_model(world: WorldStore) -> None:
    report = export(world, ["colmap"])[0]
    model = pycolmap.Reconstruction(str(report.path / "sparse" / "0"))
    assert model.num_images() == len(world) == 13
    assert len(model.cameras) == 1
    images = sorted(model.images.values(), key=lambda image: image.name)
    assert [image.name for image in images] == sorted(p.name for p in (report.path / "images").iterdir())
    for image, camera in zip(images, [world.cameras[i] for i in range(13)], strict=True):
        assert np.allclose(image.cam_from_world().matrix(), camera.camera_from_world[:3], atol=1e-5)
    # A point of the photo, drawn by COLMAP, lands on a pixel of its color.
    point = next(p for p in model.points3D.values() if p.xyz[2] > 3.9)
    pixel = images[5].project_point(point.xyz)
    assert pixel is not None
    with Image.open(report.path / "images" / images[5].name) as picture:
        assert picture.getpixel((int(pixel[0]), int(pixel[1]))) == tuple(point.color)


def test_colmap_points_have_tracks(world: WorldStore) -> None:
    model = pycolmap.Reconstruction(str(export(world, ["colmap"])[0].path / "sparse" / "0"))
    assert 0.9 < model.num_points3D() / int((~world.primitives.sky).sum()) <= 1.0
    assert 5.0 < model.compute_mean_track_length() <= 8.0  # of 13 frames; no track is longer than 8
    assert model.compute_num_observations() == sum(point.track.length() for point in model.points3D.values())
    for image in model.images.values():
        keypoints = [point for point in image.points2D if point.has_point3D()]
        assert len(keypoints) == image.num_points2D() > 300
        frame = world.frames(image.image_id - 1, image.image_id)[0]
        for keypoint in keypoints[::50]:
            point = model.points3D[keypoint.point3D_id]
            assert any(element.image_id == image.image_id for element in point.track.elements)
            assert np.linalg.norm(image.project_point(point.xyz) - keypoint.xy) < 0.01
            x, y = keypoint.xy.astype(int)
            assert (image.cam_from_world() * point.xyz)[2] == pytest.approx(float(frame.depth[0, y, x]), rel=0.03)
    errors = np.array([point.error for point in model.points3D.values()])
    model.update_point_3d_errors()
    measured = np.array([point.error for point in model.points3D.values()])
    assert np.allclose(errors, measured, atol=1e-4)
    assert 0.0 < measured.max() < 0.01


def test_occluded_point_has_no_observation(world: WorldStore) -> None:
    points = world.primitives
    assert isinstance(points, Points)
    behind = replace(points[:1], positions=torch.tensor([[0.0, 0.0, 6.0]]), sky=torch.tensor([False]))
    before = replace(behind, positions=torch.tensor([[0.0, 0.0, 4.0]]))
    tracks = tracks_of(world, Points.concatenate([behind, before]))
    assert tracks.positions.tolist() == [[0.0, 0.0, 4.0]]
    assert tracks.image.tolist() == [0, 2, 4, 5, 7, 9, 10, 12]
    focal = 40.0 / math.tan(math.radians(35.0))
    assert tracks.pixels[-1] == pytest.approx([40.0 - 0.6 * focal / 4.0, 24.0], abs=0.006)


def test_nerfstudio_dataset(world: WorldStore) -> None:
    report = export(world, ["nerfstudio"])[0]
    content = json.loads((report.path / "transforms.json").read_text())
    assert len(content["frames"]) == 13
    frame = content["frames"][12]
    with Image.open(report.path / frame["file_path"]) as image:
        assert image.size == (content["w"], content["h"]) == (80, 48)
    # Re-project a depth pixel with nerfstudio's own rules: OpenGL axes, depth in thousandths.
    with Image.open(report.path / frame["depth_file_path"]) as image:
        depth = np.asarray(image) * 1e-3
    assert depth.max() <= 4.001  # the sky is 0
    row, column = 46, 11
    z = depth[row, column]
    x, y = (column + 0.5 - content["cx"]) / content["fl_x"] * z, -(row + 0.5 - content["cy"]) / content["fl_y"] * z
    point = np.asarray(frame["transform_matrix"]) @ [x, y, -z, 1.0]
    assert point[1] == pytest.approx(1.0, abs=2e-3)  # the floor; world axes stay OpenCV's


def test_video_of_a_world(world: WorldStore) -> None:
    report = export(world, ["mp4"])[0]
    with av.open(str(report.path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt, stream.average_rate) == ("h264", "yuv420p", Fraction(16))
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert len(frames) == 13
    wanted = (world.frames().rgb * 255).permute(0, 2, 3, 1).numpy()
    error = np.square(np.stack(frames).astype(np.float64) - wanted).mean()
    assert 10 * np.log10(255**2 / error) > 26.0  # chroma at half resolution blurs the hard edges of this picture
    head = report.path.read_bytes()
    assert head.find(b"moov") < head.find(b"mdat")  # it starts to play before it is loaded


def test_video_of_odd_size_and_other_rate(tmp_path: Path) -> None:
    frames = torch.zeros(5, 3, 33, 47)
    frames[:, 0], frames[:, 1] = 0.8, 0.4
    write_video(tmp_path / "a.mp4", frames, fps=29.97)
    read, fps = read_video(tmp_path / "a.mp4")
    assert read.shape == (5, 3, 34, 48)
    assert fps == pytest.approx(29.97)
    assert torch.allclose(read[2, :, 16, 24], torch.tensor([0.8, 0.4, 0.0]), atol=0.02)


def test_video_refuses(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one"):
        write_video(tmp_path / "a.mp4", [])
    with pytest.raises(ValueError, match="one size"):
        write_video(tmp_path / "a.mp4", [torch.zeros(3, 16, 16), torch.zeros(3, 16, 32)])
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(WorldError, match="cannot write"):
        write_video(tmp_path / "none" / "a.mp4", [torch.zeros(3, 16, 16)])


def test_formats_are_checked_before_anything_is_written(world: WorldStore) -> None:
    with pytest.raises(ValueError, match=r"there is no 'gaussian_ply'; did you mean gaussians_ply\?"):
        export(world, ["mp4", "gaussian_ply"])
    names = "gaussians_ply, points_ply, spz, compressed_ply, usd, glb, usdz, colmap, nerfstudio, html, mp4"
    with pytest.raises(ValueError, match=f"want some of {names}"):
        export(world, ["qqq"])
    with pytest.raises(ValueError, match="got none"):
        export(world, [])
    assert not (world.folder / "exports").exists()


def test_export_to_another_folder_can_be_repeated(world: WorldStore, tmp_path: Path) -> None:
    for _ in range(2):
        reports = export(world, list(FORMATS), tmp_path / "elsewhere" / "out")
        assert len(reports) == len(FORMATS)
        assert all(r.path.is_relative_to(tmp_path / "elsewhere") and r.bytes > 0 for r in reports)
    assert not (world.folder / "exports").exists()
    WorldStore.load(world.folder)  # exporting changes nothing in a world


def test_export_says_name_path_size_and_agreement_on_a_line(tmp_path: Path) -> None:
    chunk = painted_chunk(0, 0, 1)
    config = {"cache": {"_target_": "cache3d.point_cache.PointCache"}}
    world = WorldStore.create(tmp_path / "w", path=chunk.frames.camera, seed=0, config=config)
    world.append(chunk, change=Change.from_nothing(points_of(chunk)), rng_state=torch.Generator().get_state())
    points, mesh, read = export_world(world.folder, ["points_ply", "glb"])
    folder = world.folder / "exports"
    found = re.fullmatch(r"points_ply    (\S+)  0\.\d MiB  (\d+\.\d) dB against the live cache", points)
    assert found is not None
    assert found[1] == str(folder / "points.ply")
    agreement = reexport_agreement_db(World.load(world.folder), "points_ply", folder / "points.ply")
    assert float(found[2]) == pytest.approx(agreement, abs=0.051)
    assert re.fullmatch(rf"glb           {folder / 'mesh.glb'}  0\.\d MiB", mesh)
    assert read == f"read          {folder / 'README.txt'}: axes, units and limits of each"
    assert "16 times the photo's median depth" in (folder / "README.txt").read_text()


def test_unwritable_output_and_empty_world(world: WorldStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(WorldError, match="cannot write"):
        export(world, ["mp4"], tmp_path / "file")
    empty = WorldStore.create(tmp_path / "e", path=world.path, seed=0)
    with pytest.raises(ValueError, match="no chunk is finished yet"):
        export(empty, ["mp4"])
