"""Trajectory files: TUM and RealEstate10K text, and NumPy stacks of poses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from geometry.camera import Camera
from geometry.camera_io.record import OPENGL_AXES, CameraRecord, Lenses, homogeneous, require_path, unit_quat
from geometry.se3 import checked_rigid, inverse, matrix_from_quat, quat_from_matrix, rigid

CONVENTIONS = ("c2w_opencv", "c2w_opengl", "w2c_opencv", "w2c_opengl")
TUM_CONVENTIONS = ("tum_xyzw", "tum_wxyz")
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


def read_text(text: str, image_size: tuple[int, int], convention: str | None = None) -> CameraRecord:
    """Read TUM (8 columns) or RealEstate10K text (a link, then 19 columns); the number of columns decides.

    Args:
        text: the file's content.
        image_size: ``(H, W)`` of the photo; normalized intrinsics refer to its height.
        convention: for 8 columns, ``tum_xyzw`` or ``tum_wxyz``: order of the quaternion; required if the file is
            ambiguous, because some programs write wxyz in files named TUM.

    Raises:
        ValueError: another format, a wrong entry, or an ambiguous quaternion order; the message names line and column.
    """
    lines = [(i, line.replace(",", " ").replace(";", " ").split()) for i, line in enumerate(text.splitlines(), 1)]
    rows = [(i, tokens) for i, tokens in lines if tokens and not tokens[0].startswith("#")]
    if rows and len(rows[0][1]) == 1:  # RealEstate10K begins with the link to its video
        del rows[0]
    if len(rows) > 1 and not any(map(_is_number, rows[0][1])):
        del rows[0]  # names of the columns
    require_path(len(rows), "file")
    first, width = rows[0][0], len(rows[0][1])
    head = text.splitlines()[: first - 1]
    if any("q_RS" in line for line in head) and convention is None:
        raise ValueError(
            f"line {first - 1}: the columns are EuRoC's (q_RS), poses of the sensor's body and not of a camera; "
            "multiply them by the camera's T_BS and save them as TUM; convention=tum_wxyz takes them for a camera's"
        )
    if width not in (len(TUM_COLUMNS), len(REALESTATE_COLUMNS)):
        raise ValueError(
            f"line {first}: want 8 columns (TUM: {' '.join(TUM_COLUMNS)}) or 19 (RealEstate10K: timestamp fx fy "
            f"cx cy 0 0 and a 3x4 world-to-camera matrix), got {width}"
        )
    columns = TUM_COLUMNS if width == len(TUM_COLUMNS) else REALESTATE_COLUMNS
    table = torch.tensor([_numbers(tokens, columns, line) for line, tokens in rows], dtype=torch.float64)
    names = [f"line {line}" for line, _ in rows]
    if columns is TUM_COLUMNS:
        # TUM separates by spaces; commas are a sign of another program.
        spaced = not any(sign in text.splitlines()[first - 1] for sign in ",;")
        return _tum(table, names, _quaternion_order(head, table, spaced, convention))
    refuse_convention(convention)
    return _realestate(table, names, image_size)


def refuse_convention(convention: str | None) -> None:
    """Raise if ``convention`` is given for a file that does not need it."""
    if convention is not None:
        raise ValueError(f"convention: this file says itself what its poses mean; got {convention!r}, remove it")


def _is_number(token: str) -> bool:
    try:
        float(token)
    except ValueError:
        return False
    return True


def _quaternion_order(head: Sequence[str], table: torch.Tensor, spaced: bool, convention: str | None) -> str:
    """``xyzw`` or ``wxyz``, from the names of the columns, the user's convention, or the numbers."""
    if convention is not None and convention not in TUM_CONVENTIONS:
        raise ValueError(f"convention: want {' or '.join(TUM_CONVENTIONS)} for 8 columns, got {convention!r}")
    said = None if convention is None else convention.removeprefix("tum_")
    named = next(filter(None, map(_named_order, head)), None)
    if named and said and named != said:
        raise ValueError(f"convention: the names of the columns say {named}, got {convention!r}; remove one of the two")
    if named or said:
        return named or said or ""
    # Programs that write xyzw start at the identity or have clock times; those that write wxyz (MonST3R, CUT3R)
    # have frame numbers as times. A path that starts with 1 0 0 0 is ambiguous.
    start, times = table[0, 4:].tolist(), table[:, 0]
    # Larger timestamps are nanoseconds or microseconds, which TUM files do not have.
    seconds = spaced and bool((times.abs() < 1e14).all())
    of_a_clock = bool((times != times.round()).any()) and start != [1.0, 0.0, 0.0, 0.0]
    if seconds and (start == [0.0, 0.0, 0.0, 1.0] or of_a_clock):
        return "xyzw"
    raise ValueError(
        "convention: 8 columns may end in qx qy qz qw (TUM, evo, ORB-SLAM) or qw qx qy qz (MonST3R, CUT3R, EuRoC), and "
        "this file does not tell; give convention=tum_xyzw or convention=tum_wxyz"
    )


def _named_order(line: str) -> str | None:
    """Order of the quaternion in a line that names 8 columns; None for other lines."""
    names = re.sub(r"\[[^]]*\]|\([^)]*\)", " ", line.lstrip("#% ").lower()).replace(",", " ").replace(";", " ").split()
    quaternion = [name[-1] for name in names[4:8] if re.fullmatch(r"(q|quat|rot|ori)[\w.]*?[xyzw]", name)]
    order = "".join(quaternion)
    return order if len(names) == len(TUM_COLUMNS) and order in ("xyzw", "wxyz") else None


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


def _tum(table: torch.Tensor, names: list[str], order: str) -> CameraRecord:
    times = table[:, 0].tolist()
    _check_times(times, names)
    columns, field = [4 + order.index(letter) for letter in "wxyz"], " ".join(f"q{letter}" for letter in order)
    quats = [unit_quat(row[columns].numpy(), f"{name}: {field}") for row, name in zip(table, names, strict=True)]
    return CameraRecord(rigid(matrix_from_quat(torch.stack(quats)), table[:, 1:4]), None, times, stamp_s=1.0)


def _realestate(table: torch.Tensor, names: list[str], image_size: tuple[int, int]) -> CameraRecord:
    microsecond = 1e-6
    times = (table[:, 0] * microsecond).tolist()
    _check_times(times, names)
    for row, name in zip(table, names, strict=True):
        if row[1:3].min() <= 0.0:
            raise ValueError(f"{name}: want positive normalized fx and fy, got {row[1:3].tolist()}")
        if row[5:7].abs().max() > 0.0:
            raise ValueError(f"{name}: want k1 and k2 of 0, got {row[5:7].tolist()}; undistort the camera")
    camera_from_world = torch.eye(4, dtype=torch.float64).repeat(len(table), 1, 1)
    camera_from_world[:, :3] = table[:, 7:].unflatten(-1, (3, 4))
    # Pixels are square, so the ratio of the two normalized focal lengths is the aspect of the image.
    height = torch.full((len(table),), float(image_size[0]), dtype=torch.float64)
    width = height * table[:, 2] / table[:, 1]
    extent = torch.stack([width, height], -1)
    lenses = Lenses(table[:, 1:3] * extent, table[:, 3:5] * extent, extent.flip(-1), "fx, fy (normalized)")
    poses = inverse(checked_rigid(camera_from_world, "P (world-to-camera) of pose {}"))
    return CameraRecord(poses, lenses, times, stamp_s=microsecond)


def read_npy(path: Path, convention: str | None) -> CameraRecord:
    """Read a stack of poses ``[n 4 4]`` or ``[n 3 4]`` from a ``.npy``, or from a ``.npz`` of one array.

    ``convention`` is required, because the numbers do not determine it.

    Raises:
        ValueError: no or an unknown convention, another shape or type, a pose that is not rigid, or numbers too coarse
            for the path; the message names it.
    """
    if convention not in CONVENTIONS:
        raise ValueError(
            f"convention: a NumPy stack does not say what its poses mean; give one of {', '.join(CONVENTIONS)} "
            f"(camera-to-world or world-to-camera, camera axes), got {convention!r}"
        )
    stack = _loaded(path)
    if not isinstance(stack, np.ndarray) or stack.ndim != 3 or stack.shape[1:] not in ((4, 4), (3, 4)):
        raise ValueError(
            f"{path.name}: want poses [n 4 4] or [n 3 4], got {getattr(stack, 'shape', type(stack).__name__)}"
        )
    if not (np.issubdtype(stack.dtype, np.floating) or np.issubdtype(stack.dtype, np.integer)):
        raise ValueError(f"{path.name}: want numbers, got dtype {stack.dtype}")
    require_path(len(stack), path.name)
    poses = checked_rigid(homogeneous(torch.from_numpy(stack.astype(np.float64))), "pose {}")
    world_from_axes = inverse(poses) if convention.startswith("w2c") else poses
    if np.issubdtype(stack.dtype, np.floating):
        _check_rounding(world_from_axes[:, :3, 3], stack, path.name)
    return CameraRecord(world_from_axes @ OPENGL_AXES if convention.endswith("opengl") else world_from_axes)


def _loaded(path: Path) -> object:
    """The array of a ``.npy``, or the only one of a ``.npz``."""
    try:
        with path.open("rb") as file:
            found = np.load(file, allow_pickle=False)
            arrays = {name: found[name] for name in found.files} if isinstance(found, np.lib.npyio.NpzFile) else None
    except Exception as error:  # NumPy's header parser raises exceptions of Python's tokenizer and parser
        raise ValueError(f"{path.name}: want a NumPy array of numbers, got a file that does not load") from error
    if arrays is None:
        return found
    if len(arrays) != 1:
        held = ", ".join(f"{name} {list(getattr(value, 'shape', ()))}" for name, value in arrays.items())
        raise ValueError(
            f"{path.name}: want one array in a .npz, got {held or 'none'}; save the poses alone with np.save"
        )
    return next(iter(arrays.values()))


def _check_rounding(positions: torch.Tensor, stack: np.ndarray, name: str) -> None:
    """Raise if steps are lost in rounding: coordinates far from the origin in float32 or float16."""
    farthest = np.abs(stack[:, :3, 3]).max()
    rounding, step = float(np.spacing(farthest)), float(positions.diff(dim=0).norm(dim=-1).mean())
    # A mean step of less than ten rounding steps of the coordinates is lost in rounding.
    if 0.0 < step < 10.0 * rounding:
        raise ValueError(
            f"{name}: want steps that {stack.dtype} can hold, got {step:.3g} per camera at coordinates of "
            f"{farthest:.3g}, which round to {rounding:.3g}; save float64, or poses near the origin"
        )


def npy_stack(camera: Camera, convention: str | None) -> np.ndarray:
    """Float64 poses ``[n 4 4]`` of a batch ``[n]`` in the convention, without intrinsics."""
    if convention not in CONVENTIONS:
        raise ValueError(f"convention: want one of {', '.join(CONVENTIONS)}, got {convention!r}")
    poses = camera.world_from_camera.double()
    poses = poses @ OPENGL_AXES if convention.endswith("opengl") else poses
    return (inverse(poses) if convention.startswith("w2c") else poses).numpy()


def tum_text(camera: Camera, fps: float) -> str:
    """TUM lines of a batch ``[n]``, without intrinsics."""
    pose = camera.world_from_camera.double()
    quats = quat_from_matrix(pose[:, :3, :3]).roll(-1, -1)  # xyzw
    rows = torch.cat([pose[:, :3, 3], quats], -1).tolist()
    lines = [" ".join(map(repr, [i / fps, *row])) + "\n" for i, row in enumerate(rows)]
    return f"# {' '.join(TUM_COLUMNS)}\n" + "".join(lines)


def realestate_text(camera: Camera, fps: float) -> str:
    """RealEstate10K lines of a batch ``[n]``: timestamps in microseconds, intrinsics over width and height."""
    extent = torch.tensor([camera.size[1], camera.size[0]], dtype=torch.float64)
    lens = torch.cat([camera.focal_px / extent, camera.center_px / extent, torch.zeros(len(camera), 2)], -1)
    pose = inverse(camera.world_from_camera.double())[:, :3].flatten(1)
    rows = torch.cat([lens.double(), pose], -1).tolist()
    lines = [f"{round(1e6 * i / fps)} {' '.join(map(repr, row))}\n" for i, row in enumerate(rows)]
    return "# written by WorldWarp\n" + "".join(lines)  # readers take the first line for the link of a video
