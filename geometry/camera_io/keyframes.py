"""WorldWarp's own camera file: keyframes in JSON, OpenCV axes, interpolated by a spline."""

from __future__ import annotations

from dataclasses import replace

import torch

from geometry.camera import Camera
from geometry.camera_io.record import array, check_aspect, cropped, dotted, items, lookup, number, unit_quat
from geometry.se3 import checked_rigid, matrix_from_quat, quat_from_matrix, rigid
from geometry.trajectory.spline import CameraSpline, Keyframe

FORMAT = "worldwarp-keyframes"
VERSION = 1
AXES = "OpenCV camera axes (x right, y down, z forward); position and rotation are camera to world"


def read_keyframes(
    content: dict,
    size: tuple[int, int],
    fov_deg: float | None,
    frames: int | None,
    photo_size: tuple[int, int] | None = None,
) -> Camera:
    """Cameras ``[frames]`` in float64 through the keyframes of a parsed file, for images of ``size``.

    Intrinsics refer to images of the file's ``size``, which are cropped about their center; without a ``size`` they
    refer to the frames.

    Args:
        content: the parsed file.
        size: image size ``(H, W)`` of the frames to make.
        fov_deg: horizontal field of view, degrees, of keyframes without intrinsics.
        frames: number of cameras; the number in the file when None.
        photo_size: as in ``CameraRecord.camera``.

    Raises:
        ValueError: an unsupported version, axes, field or lens; the message names the field.
    """
    version = lookup(content, "version", "")
    if version != VERSION:
        raise ValueError(f"version: this program reads {FORMAT} version {VERSION}, got {version!r}; update worldwarp")
    if not str(content.get("axes", "OpenCV")).startswith("OpenCV"):
        raise ValueError(f"axes: {FORMAT} is in OpenCV axes, got {content['axes']!r}; convert the file")
    count = frames if frames is not None else content.get("frames")
    if not isinstance(count, int) or isinstance(count, bool):
        raise ValueError("frames: this file holds keyframes only; say how many frames to make")
    file_size = _file_size(content, size, photo_size)
    entries = items(lookup(content, "keyframes", ""), "keyframes")
    keyframes = [_read_keyframe(entry, f"keyframes[{i}]", fov_deg, file_size) for i, entry in enumerate(entries)]
    # In pixels of the file's images: lenses are interpolated before they are cropped.
    spline = CameraSpline(keyframes, file_size or size, constant_speed=content.get("constant_speed") is True)
    camera = spline.sample(count)
    extent = camera.focal_px.new_tensor(camera.size).expand(len(camera), 2)
    focal, center = cropped(camera.focal_px, camera.center_px, extent, size)
    return replace(camera, focal_px=focal, center_px=center, size=size)


def keyframes_content(camera: Camera, fps: float) -> dict:
    """The JSON object of a file with every camera of a batch ``[n]`` as a keyframe."""
    quats = quat_from_matrix(camera.world_from_camera[:, :3, :3].double())
    keyframes = [
        {
            "time_s": index / fps,
            "position": camera.position[index].tolist(),
            "rotation_wxyz": quats[index].tolist(),
            "focal_px": camera.focal_px[index].tolist(),
            "center_px": camera.center_px[index].tolist(),
        }
        for index in range(len(camera))
    ]
    return {
        "format": FORMAT,
        "version": VERSION,
        "axes": AXES,
        "size": list(camera.size),
        "frames": len(camera),
        "keyframes": keyframes,
    }


def _file_size(content: dict, size: tuple[int, int], photo_size: tuple[int, int] | None) -> tuple[int, int] | None:
    if "size" not in content:
        return None
    entries = array(content["size"], (2,), "size").tolist()
    height, width = (int(number(value, "size")) for value in entries)
    if min(height, width) < 1:
        raise ValueError(f"size: want [height, width] in pixels, got {content['size']}")
    check_aspect((float(height), float(width)), size, photo_size, "size", "the keyframes are")
    return height, width


def _read_keyframe(entry: object, where: str, fov_deg: float | None, file_size: tuple[int, int] | None) -> Keyframe:
    time_s = float(array(lookup(entry, "time_s", where), (), dotted(where, "time_s")))  # the spline checks its order
    position = torch.from_numpy(array(lookup(entry, "position", where), (3,), dotted(where, "position")))
    field = dotted(where, "rotation_wxyz")
    quat = unit_quat(array(lookup(entry, "rotation_wxyz", where), (4,), field), field)
    pose = checked_rigid(rigid(matrix_from_quat(quat), position)[None], dotted(where, "position"))[0]
    assert isinstance(entry, dict)
    if "focal_px" not in entry:
        fov = number(entry["fov_deg"], dotted(where, "fov_deg")) if "fov_deg" in entry else fov_deg
        if fov is None:
            raise ValueError(f"{where}.fov_deg: missing; add it to the file or give fov_deg")
        return Keyframe(time_s, pose, fov_deg=fov)
    if file_size is None:
        raise ValueError(f"size: missing; {where}.focal_px is in pixels of an image whose size the file must say")
    focal = array(entry["focal_px"], (2,), dotted(where, "focal_px")).tolist()
    center = array(entry["center_px"], (2,), dotted(where, "center_px")).tolist() if "center_px" in entry else None
    return Keyframe(time_s, pose, focal_px=tuple(focal), center_px=tuple(center) if center else None)
