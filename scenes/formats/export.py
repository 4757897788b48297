"""Export a world for other programs.

| format | file in ``exports/`` | for | axes |
|---|---|---|---|
| ``gaussians_ply`` | ``gaussians.ply``, ``cameras.json`` | gsplat, SuperSplat, Blender | world as stored: y down |
| ``points_ply`` | ``points.ply`` | MeshLab, CloudCompare, Open3D | world as stored: y down |
| ``spz`` | ``world.spz`` | phones, Spark, Niantic's tools | OpenGL: y up, z backward |
| ``compressed_ply`` | ``world.compressed.ply`` | SuperSplat, PlayCanvas | world as stored: y down |
| ``usd`` | ``world.usdc`` | Omniverse, usdview, Houdini, Blender | OpenGL: y up, z backward |
| ``glb`` | ``mesh.glb`` | Blender, game engines, browsers | glTF: y up, z backward |
| ``usdz`` | ``world.usdz`` | Quick Look on telephones and Macs | y up, z backward |
| ``colmap`` | ``colmap/`` | 3DGS and NeRF training | world-to-camera, OpenCV camera axes |
| ``nerfstudio`` | ``nerfstudio/`` | nerfstudio | camera-to-world, OpenGL camera axes |
| ``html`` | ``world.html`` | anybody with a browser | its own: y up |
| ``mp4`` | ``video.mp4`` | people | |
"""

from __future__ import annotations

import difflib
import functools
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from geometry.camera import Camera
from geometry.camera_io.colmap import write_colmap
from geometry.frame import Frame
from geometry.primitives import Gaussians, Points
from geometry.se3 import matrix_from_quat
from scenes.formats.glb import write_glb
from scenes.formats.html import MIB, PhotoLayer, write_html
from scenes.formats.mesh import FARTHEST_MEDIANS, Mesh, mesh_of
from scenes.formats.outlines import OutlinePolicy, firm_outlines
from scenes.formats.ply import sky_on_sphere, write_gaussians_ply, write_points_ply
from scenes.formats.spz import load_gsply, write_compressed_ply, write_spz
from scenes.formats.tracks import MAX_TRACK, tracks_of
from scenes.formats.usd import load_usd, write_usd
from scenes.formats.usdz import write_usdz
from scenes.io.atomic_files import disk_errors, write_bytes
from scenes.io.png import write_depth_png, write_rgb_png
from scenes.io.video import write_video
from scenes.store.world_store import WorldStore

README = "README.txt"
HOME_CAMERAS = "cameras.json"
SKY_NOTE = "the sky is a sphere about the photo's camera, just behind everything else"

FARTHEST_NOTE = f"farther than {FARTHEST_MEDIANS:g} times the photo's median depth all is drawn at that depth"


@dataclass(frozen=True)
class ExportOptions:
    """What some formats can be told.

    Attributes:
        html_mib: largest size of ``html``.
        photo: what the photo shows, for ``html``; None: the page shows the splats alone.
        thinned: fewer Gaussians that look like those of the world, as many as it is given; for ``html``.
        render: what the world's cache shows to cameras ``[t]``, for the mesh; None: a mesh has what the frames show.
        mesh: the textured mesh, for ``glb`` and ``usdz``; None: `export` makes it of the frames and ``render``, once
            for both.
    """

    html_mib: float = 10.0
    photo: Callable[[], PhotoLayer] | None = None
    thinned: Callable[[int], Gaussians] | None = None
    render: Callable[[Camera], Frame] | None = None
    mesh: Callable[[], Mesh] | None = None


@dataclass(frozen=True)
class ExportReport:
    """One finished export.

    Attributes:
        format: a key of ``FORMATS``.
        path: the file or folder written.
        bytes: total size of its files.
        note: one sentence on conventions and on content that was left out.
    """

    format: str
    path: Path
    bytes: int
    note: str


def export(
    world: WorldStore,
    formats: Sequence[str],
    out: str | Path | None = None,
    options: ExportOptions = ExportOptions(),
) -> list[ExportReport]:
    """Write a world in formats that other programs read.

    Args:
        world: a world with at least the photo.
        formats: names from ``FORMATS``.
        out: folder to write to; the world's ``exports`` folder when None. Earlier exports of the same format are
            replaced.
        options: of some formats.

    Raises:
        ValueError: no format, an unknown one, or the world's own folder as ``out``, before anything is written; or a
            world without a finished chunk.
        ImportError: Open3D (for ``glb`` and ``usdz``), gsply (``spz``, ``compressed_ply``) or usd-core (``usd``,
            ``usdz``) is missing.
    """
    if not formats:
        raise ValueError(f"formats: want some of {', '.join(FORMATS)}, got none")
    for name in formats:
        if name not in FORMATS:
            close = difflib.get_close_matches(name, FORMATS, n=1, cutoff=0.3)
            hint = f"did you mean {close[0]}?" if close else f"want some of {', '.join(FORMATS)}"
            raise ValueError(f"formats: there is no {name!r}; {hint}")
    # Raise before anything is written if a package is missing.
    for name in {"spz", "compressed_ply"} & set(formats):
        load_gsply(name)
    for name in {"usd", "usdz"} & set(formats):
        load_usd(name)
    if not world.chunks:
        raise ValueError(f"{world.folder}: no chunk is finished yet; there is nothing to export")
    folder = world.folder / "exports" if out is None else Path(out)
    # `_fresh` deletes the folders that an export replaces.
    if folder.resolve() == world.folder.resolve():
        raise ValueError(f"out: {folder} is the world itself, whose files an export would replace; name another folder")
    options = replace(options, mesh=options.mesh or functools.cache(lambda: mesh_of(world, options.render)))
    reports = []
    with disk_errors(f"cannot write {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        # Each format once, in the order given.
        for name in dict.fromkeys(formats):
            path, note = FORMATS[name](world, folder, options)
            reports.append(ExportReport(name, path, _bytes(path), note))
            _note(folder, path, note)
    return reports


def _export_gaussians(world: WorldStore, folder: Path, _options: ExportOptions) -> tuple[Path, str]:
    primitives = world.primitives
    write_gaussians_ply(folder / "gaussians.ply", _for_others(world))
    write_bytes(folder / HOME_CAMERAS, json.dumps(_home_cameras(world), indent=1).encode())
    made = "" if isinstance(primitives, Gaussians) else "made from points, as flat discs; "
    note = (
        "3D Gaussian Splatting PLY, world axes x right, y down, z forward (turn it by 180 degrees about x for y up); "
        f"{made}{SKY_NOTE}; {HOME_CAMERAS} beside it holds the cameras of all frames as 3DGS training writes them "
        "(rotation: world from camera, OpenCV axes), the photo's first: start there; what no frame saw is empty, so "
        "holes show a step off the path (`worldwarp complete` this world's folder closes those "
        "around the photo); inside the photo's frame splats are finer than those made up around it, so "
        "its outline shows as a seam"
    )
    return folder / "gaussians.ply", note


def _export_spz(world: WorldStore, folder: Path, _options: ExportOptions) -> tuple[Path, str]:
    write_spz(folder / "world.spz", _for_others(world))
    note = (
        f"3D Gaussians as SPZ version 3, y up, z backward (as it asks); {SKY_NOTE}; the photo was taken at the origin"
    )
    return folder / "world.spz", f"{note}, looking along -z; limits as of gaussians.ply"


def _export_compressed_ply(world: WorldStore, folder: Path, _options: ExportOptions) -> tuple[Path, str]:
    target = folder / "world.compressed.ply"
    write_compressed_ply(target, _for_others(world))
    note = "3D Gaussians in 16 bytes each, for SuperSplat and PlayCanvas; axes and limits as of gaussians.ply; "
    return target, note + SKY_NOTE


def _export_usd(world: WorldStore, folder: Path, _options: ExportOptions) -> tuple[Path, str]:
    metric = world.manifest.metric
    has_field = write_usd(folder / "world.usdc", _for_others(world), world.cameras, world.fps, metric=metric)
    field = "3D Gaussians as ParticleField3DGaussianSplat (OpenUSD 26), with points as their proxy"
    note = (
        f"OpenUSD, y up: {field if has_field else 'points'}; cameras `photo` (start there) and `path` (animated, "
        f"{world.fps:g} a second); {SKY_NOTE}"
    )
    return folder / "world.usdc", note


def _export_points(world: WorldStore, folder: Path, _options: ExportOptions) -> tuple[Path, str]:
    points = as_points(sky_on_sphere(world.primitives))
    write_points_ply(folder / "points.ply", points)
    note = "points with normals and 8-bit colors, world axes x right, y down, z forward; "
    return folder / "points.ply", f"{note}{SKY_NOTE}; the photo was taken at the origin, looking along z"


def _export_glb(world: WorldStore, folder: Path, options: ExportOptions) -> tuple[Path, str]:
    assert options.mesh is not None
    mesh = options.mesh()
    write_glb(folder / "mesh.glb", mesh, world.cameras, world.fps)
    height, width = mesh.texture.shape[:2]
    note = (
        f"glTF mesh, y up, {_triangles(mesh)} triangles with a {width}x{height} texture; unlit; "
        f"{_parts_note(mesh)} and `path` (the camera of the path, animated); "
    )
    return folder / "mesh.glb", note + FARTHEST_NOTE


def _export_usdz(_world: WorldStore, folder: Path, options: ExportOptions) -> tuple[Path, str]:
    assert options.mesh is not None
    mesh = options.mesh()
    write_usdz(folder / "world.usdz", mesh)
    note = (
        f"textured mesh for Quick Look, y up, a scene unit is a meter; {_triangles(mesh)} triangles; its texture "
        f"glows, as a photo carries its own light; {_parts_note(mesh)}; "
    )
    return folder / "world.usdz", note + FARTHEST_NOTE


def _triangles(mesh: Mesh) -> int:
    return sum(len(part.triangles) for part in (mesh.ground, mesh.background, mesh.sky))


def _parts_note(mesh: Mesh) -> str:
    return (
        f"`world` ({mesh.pictures} pictures: the photo, and frames and views of the cache where it is blind), "
        "`background` (made up: what goes on behind things and around the photo), `sky` (a sphere around everything, "
        "seen from inside; delete it if it is in the way), `photo` (the camera that took the photo; start there)"
    )


def _export_colmap(world: WorldStore, folder: Path, _options: ExportOptions) -> tuple[Path, str]:
    target, model = _fresh(folder / "colmap"), folder / "colmap" / "sparse" / "0"
    (target / "images").mkdir()
    model.mkdir(parents=True)
    names = [f"{i:05d}.png" for i in range(len(world))]
    for i, frame in enumerate(_frames(world)):
        write_rgb_png(target / "images" / names[i], frame.rgb)
    tracks = tracks_of(world, as_points(world.primitives))
    write_colmap(model, world.cameras, names, binary=False, tracks=tracks)
    note = (
        f"COLMAP text model in sparse/0 (world-to-camera, OpenCV axes) and images/; {len(tracks.positions)} points, "
        f"{len(tracks.image)} observations of them, at most {MAX_TRACK} each, in frames whose depth shows the point; "
        "keypoints are the points' own projections, so ERROR is rounding alone and says nothing of how well the world "
        "is known; sky, and what fewer than two frames see, is left out"
    )
    return target, note


def _export_nerfstudio(world: WorldStore, folder: Path, _options: ExportOptions) -> tuple[Path, str]:
    target = _fresh(folder / "nerfstudio")
    for part in ("frames", "depth"):
        (target / part).mkdir()
    content = json.loads(world.cameras_text())
    for i, (entry, frame) in enumerate(zip(content["frames"], _frames(world), strict=True)):
        # PNG, which every program reads; a world stores what is smallest.
        entry["file_path"], entry["depth_file_path"] = f"frames/{i:05d}.png", f"depth/{i:05d}.png"
        write_rgb_png(target / entry["file_path"], frame.rgb)
        write_depth_png(target / entry["depth_file_path"], frame.depth, frame.surface)
    write_bytes(target / "transforms.json", (json.dumps(content) + "\n").encode())
    note = "nerfstudio dataset: camera-to-world, OpenGL camera axes; depth is 16-bit, 0.001 units a count, "
    return target, note + "0 where unknown, sky or beyond 65.5 units"


def _export_html(world: WorldStore, folder: Path, options: ExportOptions) -> tuple[Path, str]:
    primitives = world.primitives
    gaussians = primitives if isinstance(primitives, Gaussians) else discs(primitives)
    photo = world.chunk(0).frames
    nothing = torch.zeros(photo.camera.size)
    layer = PhotoLayer(world.photo, nothing, nothing > 0.0, nothing > 0.0, 0.03, 0.98)
    kept = write_html(
        folder / "world.html",
        gaussians,
        world.cameras,
        photo=layer if options.photo is None else options.photo(),
        title=world.folder.resolve().name,
        fps=world.fps,
        pivot=photo.median_depth(),
        rendering=world.config.get("cache", {}).get("rendering", {}),
        largest_bytes=options.html_mib * MIB,
        thinned=options.thinned,
    )
    share = "" if len(kept) == len(gaussians) else f" in place of {len(gaussians)}"
    note = (
        f"one file that shows the world in any browser with WebGL2 (of 2023 or later), from the disk, offline: "
        f"{len(kept)} Gaussians{share}, the photo's own pixels over what it saw; starts at the photo's camera and "
        "plays the path; drag, pinch, scroll or W A S D to look around; what no frame saw is filled smoothly (the "
        "round button shows it)"
    )
    return folder / "world.html", note


def _export_mp4(world: WorldStore, folder: Path, _options: ExportOptions) -> tuple[Path, str]:
    frames = (rgb for chunk in _Chunks(world) for rgb in chunk.rgb)
    write_video(folder / "video.mp4", frames, world.fps)
    return folder / "video.mp4", f"H.264, {world.fps:g} frames per second, the photo first"


FORMATS: dict[str, Callable[[WorldStore, Path, ExportOptions], tuple[Path, str]]] = {
    "gaussians_ply": _export_gaussians,
    "points_ply": _export_points,
    "spz": _export_spz,
    "compressed_ply": _export_compressed_ply,
    "usd": _export_usd,
    "glb": _export_glb,
    "usdz": _export_usdz,
    "colmap": _export_colmap,
    "nerfstudio": _export_nerfstudio,
    "html": _export_html,
    "mp4": _export_mp4,
}


def _for_others(world: WorldStore) -> Gaussians:
    """The world for programs that know neither a sky nor our renderer's rule for outlines before it."""
    primitives = world.primitives
    gaussians = primitives if isinstance(primitives, Gaussians) else discs(primitives)
    index = np.unique(np.linspace(0, len(world) - 1, min(OutlinePolicy.frames, len(world))).round().astype(int))
    firm = firm_outlines(gaussians, (world.frames(i, i + 1)[0] for i in index.tolist()))
    placed = sky_on_sphere(firm)
    assert isinstance(placed, Gaussians)
    return placed


def discs(points: Points) -> Gaussians:
    """Convert points to flat, opaque Gaussians normal to the points' normals (isotropic if the normal is unknown)."""
    z = torch.nn.functional.normalize(points.normals, dim=1)
    # The shortest rotation from (0, 0, 1) to the normal; a disc has no front, so the sign is chosen with z >= 0.
    z = torch.where(z[:, 2:] < 0.0, -z, z)
    # Half-angle form: (1 + cos, axis * sin) is the quaternion of the rotation, up to its length.
    quats = torch.stack([1.0 + z[:, 2], -z[:, 1], z[:, 0], torch.zeros_like(z[:, 0])], 1)
    disc_thickness = 0.02  # thickness of a Gaussian made from a point, as a share of its radius
    # Not thickness 0, whose logarithm the PLY format cannot hold.
    flat = points.radii[:, None] * points.radii.new_tensor([1.0, 1.0, disc_thickness])
    known = z.abs().sum(1, keepdim=True) > 0.0
    scales = torch.where(known, flat, points.radii[:, None].expand(-1, 3)).clamp_min(1e-9)
    return Gaussians(
        points.positions,
        torch.nn.functional.normalize(quats, dim=1),
        scales,
        torch.ones(len(points)),
        points.colors,
        points.chunk,
        points.observed,
        points.confidence,
        points.sky,
        n_updates=torch.zeros(len(points)),
    )


def as_points(primitives: Points | Gaussians) -> Points:
    """Convert primitives to points; a Gaussian gives its center, its shortest axis as normal and its largest scale."""
    if isinstance(primitives, Points):
        return primitives
    g = primitives
    columns = matrix_from_quat(g.quats).transpose(1, 2)
    normals = columns[torch.arange(len(g)), g.scales.argmin(1)]
    return Points(g.means, g.colors, normals, g.scales.amax(1), g.chunk, g.observed, g.confidence, g.sky)


def _home_cameras(world: WorldStore) -> list[dict[str, Any]]:
    """The cameras of all frames, in the layout of ``cameras.json`` of 3D Gaussian Splatting (Kerbl et al. 2023)."""
    height, width = world.cameras.size
    poses, focals = world.cameras.world_from_camera.tolist(), world.cameras.focal_px.tolist()
    return [
        {
            "id": i,
            "img_name": f"{i:05d}",
            "width": width,
            "height": height,
            "position": [row[3] for row in pose[:3]],
            "rotation": [row[:3] for row in pose[:3]],
            "fx": fx,
            "fy": fy,
        }
        for i, (pose, (fx, fy)) in enumerate(zip(poses, focals, strict=True))
    ]


def _frames(world: WorldStore) -> Iterator[Frame]:
    """Every finished frame, with one chunk in memory."""
    return (frames[k] for frames in _Chunks(world) for k in range(len(frames)))


class _Chunks:
    """Iterates over the frames of a world, chunk by chunk, with one chunk in memory."""

    def __init__(self, world: WorldStore) -> None:
        self._world = world

    def __iter__(self) -> Iterator[Frame]:
        for record in self._world.chunks:
            yield self._world.chunk(record.index).frames


def _fresh(folder: Path) -> Path:
    """Make an empty folder; an existing one is deleted."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    return folder


def _bytes(path: Path) -> int:
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return sum(file.stat().st_size for file in files)


def _note(folder: Path, path: Path, note: str) -> None:
    """Write the note of an export to ``README.txt``, one line per export."""
    readme = folder / README
    lines = readme.read_text("utf-8").splitlines() if readme.is_file() else []
    # An export that is repeated replaces its own note and keeps the others.
    kept = [line for line in lines if line and not line.startswith(f"{path.name}: ")]
    write_bytes(readme, ("\n".join([*kept, f"{path.name}: {note}"]) + "\n").encode())
