"""PLY files: 3D Gaussians in the layout of the original 3D Gaussian Splatting, and plain colored points.

Gaussians are ``x y z nx ny nz f_dc_0..2 opacity scale_0..2 rot_0..3``, float32, binary little endian: color as the
constant spherical harmonic, opacity as a logit, scales as natural logarithms, quaternions wxyz (Kerbl et al. 2023).
World axes are OpenCV's, as everywhere in WorldWarp and as in scenes that were trained from COLMAP: y points down.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from geometry.primitives import Gaussians, Points
from scenes.io.atomic_files import replacing
from scenes.io.png import from_bytes, to_bytes

SH_CONSTANT = 0.28209479177387814  # of the spherical harmonic Y_00
OPACITY_MARGIN = 1e-6  # keeps the logit finite
BEHIND_ALL = 1.05  # radius of the sky sphere over the distance of the farthest primitive
LOOK = "start at the origin, looking along +z with -y up: the photo was taken there"

GAUSSIAN_FIELDS = (
    *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"),
    *("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
)
POINT_FIELDS = ("x", "y", "z", "nx", "ny", "nz")
COLOR_FIELDS = ("red", "green", "blue")
TYPES = {"char": "i1", "uchar": "u1", "short": "<i2", "ushort": "<u2", "int": "<i4", "uint": "<u4", "float": "<f4"}
TYPES |= {"double": "<f8", "int8": "i1", "uint8": "u1", "int16": "<i2", "uint16": "<u2", "int32": "<i4"}
TYPES |= {"uint32": "<u4", "float32": "<f4", "float64": "<f8"}


def write_gaussians_ply(path: str | Path, gaussians: Gaussians) -> None:
    """Write Gaussians in the standard 3DGS layout, which cannot hold provenance and the sky flag."""
    opacities = gaussians.opacities.clamp(OPACITY_MARGIN, 1.0 - OPACITY_MARGIN)
    columns = [
        gaussians.means,
        # Normals: unused by 3DGS viewers, but part of the layout.
        torch.zeros_like(gaussians.means),
        (gaussians.colors - 0.5) / SH_CONSTANT,
        opacities.logit()[:, None],
        gaussians.scales.log(),
        gaussians.quats,
    ]
    table = torch.cat([c.float().cpu() for c in columns], 1).contiguous().numpy()
    rows = table.view(np.dtype([(name, "<f4") for name in GAUSSIAN_FIELDS]))[:, 0]
    _write(Path(path), rows, "3D Gaussians made by WorldWarp; axes x right, y down, z forward")


def read_gaussians_ply(path: str | Path) -> Gaussians:
    """Read a 3DGS PLY; fields that it lacks get defaults: chunk 0, observed, confidence 1, no sky, no updates.

    Raises:
        ValueError: not a 3DGS PLY, or a truncated one; the message names the file.
    """
    rows = _read(Path(path))
    table = _columns(rows, GAUSSIAN_FIELDS, path)
    return from_columns(table[:, 0:3], table[:, 13:17], table[:, 10:13], table[:, 9], table[:, 6:9])


def from_columns(
    means: Float[Tensor, "n 3"],
    quats: Float[Tensor, "n 4"],
    log_scales: Float[Tensor, "n 3"],
    logits: Float[Tensor, "n"],
    sh0: Float[Tensor, "n 3"],
) -> Gaussians:
    """Gaussians from the columns of 3DGS files; fields that they lack get the defaults of `read_gaussians_ply`.

    Args:
        means: world, scene units.
        quats: wxyz, of any length.
        log_scales: natural logarithms of standard deviations, scene units.
        logits: of opacities.
        sh0: colors as coefficients of the constant spherical harmonic.
    """
    count = len(means)
    return Gaussians(
        means=means,
        quats=quats / quats.norm(dim=1, keepdim=True).clamp_min(1e-12),
        scales=log_scales.exp(),
        opacities=logits.sigmoid(),
        colors=(sh0 * SH_CONSTANT + 0.5).clamp(0.0, 1.0),
        chunk=torch.zeros(count, dtype=torch.int32),
        observed=torch.ones(count, dtype=torch.bool),
        confidence=torch.ones(count),
        sky=torch.zeros(count, dtype=torch.bool),
        n_updates=torch.zeros(count),
    )


def write_points_ply(path: str | Path, points: Points) -> None:
    """Write points as ``x y z nx ny nz`` (float32) and ``red green blue`` (8 bits); world axes are OpenCV's."""
    types = [(name, "<f4") for name in POINT_FIELDS] + [(name, "u1") for name in COLOR_FIELDS]
    rows = np.empty(len(points), np.dtype(types))
    geometry = torch.cat([points.positions, points.normals], 1).cpu().numpy()
    colors = to_bytes(points.colors.t()[None, :, :, None])[0, :, :, 0].t().cpu().numpy()
    for i, name in enumerate(POINT_FIELDS):
        rows[name] = geometry[:, i]
    for i, name in enumerate(COLOR_FIELDS):
        rows[name] = colors[:, i]
    _write(Path(path), rows, "points made by WorldWarp; axes x right, y down, z forward")


def read_points_ply(path: str | Path) -> Points:
    """Read a colored point PLY; fields that it lacks get defaults: radius 0, chunk 0, observed, confidence 1, no sky.

    Raises:
        ValueError: not a PLY of colored points, or a truncated one; the message names the file.
    """
    rows = _read(Path(path))
    geometry = _columns(rows, POINT_FIELDS, path)
    colors = _columns(rows, COLOR_FIELDS, path).to(torch.uint8)
    count = len(geometry)
    return Points(
        positions=geometry[:, :3],
        colors=from_bytes(colors.t()[None, :, :, None])[0, :, :, 0].t(),
        normals=geometry[:, 3:],
        radii=torch.zeros(count),
        chunk=torch.zeros(count, dtype=torch.int32),
        observed=torch.ones(count, dtype=torch.bool),
        confidence=torch.ones(count),
        sky=torch.zeros(count, dtype=torch.bool),
    )


def sky_on_sphere(primitives: Points | Gaussians) -> Points | Gaussians:
    """Project the sky onto the smallest sphere about the photo's camera that encloses all other primitives.

    The cache renders the sky relative to the camera, but other formats have no sky. On the sphere it occludes nothing,
    and seen from the photo's camera each primitive keeps its direction and angular size.
    """
    sky = primitives.sky
    if not bool(sky.any()):
        return primitives
    positions = primitives.means if isinstance(primitives, Gaussians) else primitives.positions
    distance = positions.norm(dim=1)
    # A world that is all sky has no farthest surface.
    radius = BEHIND_ALL * distance[~sky].max() if bool((~sky).any()) else distance.max()
    grown = torch.where(sky, radius / distance.clamp_min(1e-6), torch.ones_like(distance))[:, None]
    if isinstance(primitives, Gaussians):
        return replace(primitives, means=positions * grown, scales=primitives.scales * grown)
    return replace(primitives, positions=positions * grown, radii=primitives.radii * grown[:, 0])


def _write(path: Path, rows: np.ndarray, comment: str) -> None:
    names = {"<f4": "float", "|u1": "uchar"}
    assert rows.dtype.names is not None
    properties = [f"property {names[rows.dtype[name].str]} {name}" for name in rows.dtype.names]
    comments = [f"comment {line}" for line in (comment, LOOK)]
    header = ["ply", "format binary_little_endian 1.0", *comments, f"element vertex {len(rows)}"]
    text = "\n".join([*header, *properties, "end_header"]) + "\n"
    with replacing(path) as partial, partial.open("wb") as file:
        file.write(text.encode("ascii"))
        file.write(rows.tobytes())


def _read(path: Path) -> np.ndarray:
    """Read the vertices of a binary little-endian PLY."""
    content = path.read_bytes()
    header, end, body = content.partition(b"end_header\n")
    lines = [line.split() for line in header.decode("ascii", "replace").splitlines()]
    # Text and big-endian files are valid PLY too; 3DGS writes this encoding.
    if not end or lines[:2] != [["ply"], ["format", "binary_little_endian", "1.0"]]:
        raise ValueError(f"{path}: want a binary little-endian PLY; convert it first")
    elements = [line for line in lines if line[:1] == ["element"]]
    if not elements or elements[0][1] != "vertex":
        raise ValueError(f"{path}: want vertices first, got {elements[0][1] if elements else 'no element'}")
    # Faces may follow the vertices; their properties must not be mixed in.
    start = lines.index(elements[0])
    stop = lines.index(elements[1]) if len(elements) > 1 else len(lines)
    fields = [line[1:] for line in lines[start:stop] if line[:1] == ["property"]]
    unknown = [" ".join(f) for f in fields if len(f) != 2 or f[0] not in TYPES]
    if unknown:
        raise ValueError(f"{path}: want plain vertex properties, got {unknown[0]!r}")
    layout = np.dtype([(name, TYPES[kind]) for kind, name in fields])
    count = int(elements[0][2])
    if len(body) < count * layout.itemsize:
        raise ValueError(f"{path}: truncated: want {count} vertices, got {len(body) // layout.itemsize}")
    return np.frombuffer(body, layout, count)


def _columns(rows: np.ndarray, names: tuple[str, ...], path: str | Path) -> Tensor:
    missing = [name for name in names if name not in (rows.dtype.names or ())]
    if missing:
        raise ValueError(f"{path}: misses the vertex properties {', '.join(missing)}")
    return torch.from_numpy(np.stack([rows[name].astype(np.float32) for name in names], 1))
