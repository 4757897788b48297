"""nerfstudio's two camera files: ``transforms.json`` (a dataset) and ``camera_path.json`` (a path drawn in its viewer).

Both hold camera-to-world matrices in OpenGL axes. The field of view of a camera path is vertical, in degrees.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from geometry.camera import Camera
from geometry.camera_record import (
    OPENGL_AXES,
    CameraRecord,
    Lenses,
    array,
    items,
    lookup,
    number,
    order_by_name,
    require_square_pixels,
)
from geometry.se3 import checked_rigid

DISTORTION = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2")
PINHOLE_MODELS = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE")


def read_transforms(content: dict, size: tuple[int, int]) -> CameraRecord:
    """Read a parsed ``transforms.json``; frames come in the order of their file names, as nerfstudio takes them.

    Args:
        content: the parsed file.
        size: image size ``(H, W)``, to which ``camera_angle_x`` refers where the file has no ``w`` and ``h``.

    Raises:
        ValueError: a distorted or non-pinhole model, or a field that is missing or wrong; the message names it.
    """
    frames = items(content["frames"], "frames")
    matrices = [
        array(lookup(frame, "transform_matrix", f"frames[{i}]"), (4, 4), f"frames[{i}].transform_matrix")
        for i, frame in enumerate(frames)
    ]
    poses = checked_rigid(torch.stack([torch.from_numpy(m) for m in matrices]), "frames[{}].transform_matrix")
    # A frame's own intrinsics override the file's.
    rows = [
        _lens(content | frame, "" if "fl_x" in content else f"frames[{i}].", size) for i, frame in enumerate(frames)
    ]
    lenses = None
    if all(row is not None for row in rows):
        table = torch.tensor(rows, dtype=torch.float64)
        lenses = Lenses(table[:, 0:2], table[:, 2:4], table[:, 4:6], "w, h")
    elif any(row is not None for row in rows):
        first = next(i for i, row in enumerate(rows) if row is None)
        raise ValueError(
            f"frames[{first}].fl_x: missing, while other frames have it; give all frames intrinsics or none"
        )
    names = [frame.get("file_path") for frame in frames]
    order = order_by_name(names) if all(isinstance(name, str) for name in names) else list(range(len(frames)))
    if lenses is not None:
        lenses = Lenses(lenses.focal_px[order], lenses.center_px[order], lenses.image_size[order], "w, h")
    return CameraRecord((poses @ OPENGL_AXES)[order], lenses)


def _lens(fields: dict, where: str, size: tuple[int, int]) -> list[float] | None:
    """``fx fy cx cy h w`` of one frame, or None where the file says nothing."""
    model = fields.get("camera_model", "OPENCV")
    if model not in PINHOLE_MODELS:
        raise ValueError(
            f"{where}camera_model: want a pinhole ({', '.join(PINHOLE_MODELS)}), got {model!r}; undistort it"
        )
    for name in DISTORTION:
        if name in fields and number(fields[name], where + name) != 0.0:
            raise ValueError(
                f"{where}{name}: want an undistorted camera, got {fields[name]}; undistort the images and set it to 0"
            )
    focal_name = "fl_x" if "fl_x" in fields else "camera_angle_x"
    if focal_name not in fields:
        return None
    if "w" in fields and "h" in fields:
        width, height = (number(fields[name], where + name, positive=True) for name in ("w", "h"))
    elif focal_name == "fl_x" or "cx" in fields:
        raise ValueError(
            f"{where}w, {where}h: missing; fl_x and cx are pixels of an image whose size the file must say"
        )
    else:
        height, width = float(size[0]), float(size[1])
    value = number(fields[focal_name], where + focal_name, positive=True)
    if focal_name == "camera_angle_x" and value >= math.pi:
        raise ValueError(f"{where}camera_angle_x: want radians in (0, pi), got {value}")
    focal_x = value if focal_name == "fl_x" else 0.5 * width / math.tan(value / 2.0)
    focal_y = number(fields.get("fl_y", focal_x), where + "fl_y", positive=True)
    center = [number(fields.get("cx", width / 2.0), where + "cx"), number(fields.get("cy", height / 2.0), where + "cy")]
    return [focal_x, focal_y, *center, height, width]


def read_camera_path(content: dict, size: tuple[int, int]) -> CameraRecord:
    """Read a parsed ``camera_path.json``.

    Its lens is an angle, not a number of pixels, so it serves any ``size``: the vertical field of view is kept, as
    nerfstudio itself does when another ``render_width`` is asked for.

    Raises:
        ValueError: a camera that is not perspective, or a field that is missing or wrong; the message names it.
    """
    kind = content.get("camera_type", "perspective")
    if kind != "perspective":
        raise ValueError(f"camera_type: want 'perspective', got {kind!r}; export the path with a perspective camera")
    entries = items(content["camera_path"], "camera_path")
    matrices, focals = [], []
    for index, entry in enumerate(entries):
        where = f"camera_path[{index}]"
        field = f"{where}.camera_to_world"
        matrices.append(torch.from_numpy(array(lookup(entry, "camera_to_world", where), (16,), field)).view(4, 4))
        fov_deg = number(lookup(entry, "fov", where), f"{where}.fov")
        if not 0.0 < fov_deg < 180.0:
            raise ValueError(f"{where}.fov: want vertical degrees in (0, 180), got {fov_deg}")
        focals.append(0.5 * size[0] / math.tan(math.radians(fov_deg / 2.0)))
    poses = checked_rigid(torch.stack(matrices), "camera_path[{}].camera_to_world")
    focal = torch.tensor(focals, dtype=torch.float64)[:, None].expand(-1, 2)
    image_size = torch.tensor(size, dtype=torch.float64).expand(len(entries), 2)
    lenses = Lenses(focal, image_size.flip(-1) / 2.0, image_size, "fov")
    return CameraRecord(poses @ OPENGL_AXES, lenses)


def transforms_content(camera: Camera, file_paths: Sequence[str] | None = None) -> dict:
    """A batch ``[n]`` as the JSON object of a ``transforms.json``.

    Args:
        camera: the cameras to write.
        file_paths: the image of each; ``frames/00000.png`` and so on when not given.
    """
    shared = share_a_lens(camera)
    return transforms_head(camera, with_lens=shared) | {
        "frames": transforms_frames(camera, file_paths, with_lens=not shared)
    }


def transforms_head(camera: Camera, *, with_lens: bool) -> dict:
    """What a ``transforms.json`` says of all its frames; their common lens too, if they have one."""
    top = _lenses(camera[:1])[0] if with_lens else {}
    return {"camera_model": "OPENCV", "w": camera.size[1], "h": camera.size[0], **top}


def transforms_frames(camera: Camera, file_paths: Sequence[str] | None = None, *, with_lens: bool) -> list[dict]:
    """The frames of a ``transforms.json``, each with its own lens or without one."""
    paths = [f"frames/{i:05d}.png" for i in range(len(camera))] if file_paths is None else file_paths
    if len(paths) != len(camera):
        raise ValueError(f"file_paths: want one for each of {len(camera)} cameras, got {len(paths)}")
    matrices = (camera.world_from_camera.double() @ OPENGL_AXES).tolist()
    lenses = _lenses(camera) if with_lens else [{}] * len(camera)
    frames = zip(paths, matrices, lenses, strict=True)
    return [{"file_path": path, "transform_matrix": matrix} | lens for path, matrix, lens in frames]


def share_a_lens(camera: Camera) -> bool:
    """Whether all of a batch ``[n]`` have the same intrinsics."""
    lenses = torch.cat([camera.focal_px, camera.center_px], -1)
    return bool((lenses == lenses[0]).all())


def _lenses(camera: Camera) -> list[dict[str, float]]:
    lenses = torch.cat([camera.focal_px, camera.center_px], -1).tolist()
    return [dict(zip(("fl_x", "fl_y", "cx", "cy"), lens, strict=True)) for lens in lenses]


def camera_path_content(camera: Camera, fps: float) -> dict:
    """A batch ``[n]`` as the JSON object of a ``camera_path.json``.

    Raises:
        ValueError: pixels that are not square or a principal point off the middle, which the format cannot hold.
    """
    require_square_pixels(camera, "a nerfstudio camera path")
    height, width = camera.size
    matrices = (camera.world_from_camera.double() @ OPENGL_AXES).flatten(1).tolist()
    fovs_deg = camera.fov_deg[:, 1].tolist()
    steps = zip(matrices, fovs_deg, strict=True)
    return {
        "camera_type": "perspective",
        "render_height": height,
        "render_width": width,
        "fps": fps,
        "seconds": len(camera) / fps,
        "is_cycle": False,
        "smoothness_value": 0.0,
        "default_fov": fovs_deg[0],
        "keyframes": [],
        "camera_path": [{"camera_to_world": matrix, "fov": fov, "aspect": width / height} for matrix, fov in steps],
    }
