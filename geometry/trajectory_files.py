"""Plain trajectories: TUM and RealEstate10K text, and NumPy stacks of poses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from geometry.camera import Camera
from geometry.camera_record import OPENGL_AXES, CameraRecord, Lenses, require_path, unit_quat
from geometry.se3 import checked_rigid, inverse, matrix_from_quat, quat_from_matrix, rigid

CONVENTIONS = ("c2w_opencv", "c2w_opengl", "w2c_opencv", "w2c_opengl")
TUM_COLUMNS = ("timestamp", "tx", "ty", "tz", "qx", "qy", "qz", "qw")
REALESTATE_COLUMNS = (
    "timestamp",
    "fx",
    "fy",
    "cx",
    "cy",
    "k1",
    "k2",
    *(f"P{r}{c}" for r in range(3) for c in range(4)),
)


def read_text(text: str, size: tuple[int, int]) -> CameraRecord:
    """Read TUM (8 columns) or RealEstate10K (19 columns, a link before them) text, told apart by their columns.

    Args:
        text: the file's content.
        size: image size ``(H, W)`` of the frames to make; normalised intrinsics refer to its height.

    Raises:
        ValueError: neither of the two, or a wrong entry; the message names the line and column.
    """
    lines = [line.replace(",", " ").split() for line in text.splitlines()]
    rows = [(i, tokens) for i, tokens in enumerate(lines, 1) if tokens and not tokens[0].startswith("#")]
    if rows and len(rows[0][1]) == 1:  # RealEstate10K begins with the link of its video
        del rows[0]
    require_path(len(rows), "file")
    width = len(rows[0][1])
    if width not in (len(TUM_COLUMNS), len(REALESTATE_COLUMNS)):
        raise ValueError(
            f"line {rows[0][0]}: want 8 columns (TUM: {' '.join(TUM_COLUMNS)}) or 19 (RealEstate10K: timestamp fx fy "
            f"cx cy 0 0 and a 3x4 world-to-camera matrix), got {width}"
        )
    columns = TUM_COLUMNS if width == len(TUM_COLUMNS) else REALESTATE_COLUMNS
    table = torch.tensor([_numbers(tokens, columns, line) for line, tokens in rows], dtype=torch.float64)
    names = [f"line {line}" for line, _ in rows]
    return _tum(table, names) if columns is TUM_COLUMNS else _realestate(table, names, size)


def _numbers(tokens: Sequence[str], columns: Sequence[str], line: int) -> list[float]:
    if len(tokens) != len(columns):
        raise ValueError(
            f"line {line}: want {len(columns)} columns as in the lines before, got {len(tokens)}; is it cut off?"
        )
    values = []
    for token, column in zip(tokens, columns, strict=True):
        try:
            value = float(token)
        except ValueError:
            raise ValueError(f"line {line}: want a number for {column}, got {token!r}") from None
        if not np.isfinite(value):
            raise ValueError(f"line {line}: want a finite number for {column}, got {token}")
        values.append(value)
    return values


def _check_times(times: Sequence[float], names: Sequence[str]) -> None:
    for earlier, later, name in zip(times[:-1], times[1:], names[1:], strict=True):
        if later <= earlier:
            raise ValueError(
                f"{name}: want increasing timestamps, got {later:g} after {earlier:g}; sort or remove lines"
            )


def _tum(table: torch.Tensor, names: list[str]) -> CameraRecord:
    times = table[:, 0].tolist()
    _check_times(times, names)
    quats = [
        unit_quat(row[[7, 4, 5, 6]].numpy(), f"{name}: qx qy qz qw") for row, name in zip(table, names, strict=True)
    ]
    return CameraRecord(rigid(matrix_from_quat(torch.stack(quats)), table[:, 1:4]), None, times)


def _realestate(table: torch.Tensor, names: list[str], size: tuple[int, int]) -> CameraRecord:
    times = (table[:, 0] * 1e-6).tolist()
    _check_times(times, names)
    for row, name in zip(table, names, strict=True):
        if row[1:3].min() <= 0.0:
            raise ValueError(f"{name}: want positive normalised fx and fy, got {row[1:3].tolist()}")
        if row[5:7].abs().max() > 0.0:
            raise ValueError(f"{name}: want k1 and k2 of 0, got {row[5:7].tolist()}; undistort the camera")
    camera_from_world = torch.eye(4, dtype=torch.float64).repeat(len(table), 1, 1)
    camera_from_world[:, :3] = table[:, 7:].unflatten(-1, (3, 4))
    # Pixels are square, so the two normalised focal lengths say what shape the image has.
    height = torch.full((len(table),), float(size[0]), dtype=torch.float64)
    width = height * table[:, 2] / table[:, 1]
    extent = torch.stack([width, height], -1)
    lenses = Lenses(table[:, 1:3] * extent, table[:, 3:5] * extent, extent.flip(-1), "fx, fy (normalised)")
    return CameraRecord(inverse(checked_rigid(camera_from_world, "P (world-to-camera) of pose {}")), lenses, times)


def read_npy(path: Path, convention: str | None) -> CameraRecord:
    """Read a stack of poses ``[n 4 4]`` or ``[n 3 4]``; its convention has to be said, for the numbers do not tell.

    Raises:
        ValueError: no or an unknown convention, another shape or type, or a pose that is not rigid.
    """
    if convention not in CONVENTIONS:
        raise ValueError(
            f"convention: a .npy stack does not say what its poses mean; give one of {', '.join(CONVENTIONS)} "
            f"(camera-to-world or world-to-camera, camera axes), got {convention!r}"
        )
    try:
        stack = np.load(path, allow_pickle=False)
    except Exception as error:  # NumPy's header parser raises what Python's tokenizer and parser do
        raise ValueError(f"{path.name}: want a NumPy array of numbers, got a file that does not load") from error
    if not isinstance(stack, np.ndarray) or stack.ndim != 3 or stack.shape[1:] not in ((4, 4), (3, 4)):
        raise ValueError(
            f"{path.name}: want poses [n 4 4] or [n 3 4], got {getattr(stack, 'shape', type(stack).__name__)}"
        )
    if not (np.issubdtype(stack.dtype, np.floating) or np.issubdtype(stack.dtype, np.integer)):
        raise ValueError(f"{path.name}: want numbers, got dtype {stack.dtype}")
    require_path(len(stack), path.name)
    poses = torch.eye(4, dtype=torch.float64).repeat(len(stack), 1, 1)
    poses[:, : stack.shape[1]] = torch.from_numpy(stack.astype(np.float64))
    poses = checked_rigid(poses, "pose {}")
    world_from_axes = inverse(poses) if convention.startswith("w2c") else poses
    return CameraRecord(world_from_axes @ OPENGL_AXES if convention.endswith("opengl") else world_from_axes)


def npy_stack(camera: Camera, convention: str | None) -> np.ndarray:
    """A batch ``[n]`` as float64 poses ``[n 4 4]`` in the convention; the lens is not in it."""
    if convention not in CONVENTIONS:
        raise ValueError(f"convention: want one of {', '.join(CONVENTIONS)}, got {convention!r}")
    poses = camera.world_from_camera.double()
    poses = poses @ OPENGL_AXES if convention.endswith("opengl") else poses
    return (inverse(poses) if convention.startswith("w2c") else poses).numpy()


def tum_text(camera: Camera, fps: float) -> str:
    """A batch ``[n]`` as TUM lines; the lens is not in them."""
    pose = camera.world_from_camera.double()
    quats = quat_from_matrix(pose[:, :3, :3]).roll(-1, -1)  # xyzw
    rows = torch.cat([pose[:, :3, 3], quats], -1).tolist()
    lines = [" ".join(map(repr, [i / fps, *row])) + "\n" for i, row in enumerate(rows)]
    return f"# {' '.join(TUM_COLUMNS)}\n" + "".join(lines)


def realestate_text(camera: Camera, fps: float) -> str:
    """A batch ``[n]`` as RealEstate10K lines: timestamps in microseconds, intrinsics in shares of width and height."""
    extent = torch.tensor([camera.size[1], camera.size[0]], dtype=torch.float64)
    lens = torch.cat([camera.focal_px / extent, camera.center_px / extent, torch.zeros(len(camera), 2)], -1)
    pose = inverse(camera.world_from_camera.double())[:, :3].flatten(1)
    rows = torch.cat([lens.double(), pose], -1).tolist()
    lines = [f"{round(1e6 * i / fps)} {' '.join(map(repr, row))}\n" for i, row in enumerate(rows)]
    return "# written by WorldWarp\n" + "".join(lines)  # readers take the first line for the link of a video
