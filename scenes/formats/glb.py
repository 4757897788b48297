"""Binary glTF 2.0 with a texture (https://registry.khronos.org/glTF/specs/2.0/glTF-2.0.html)."""

from __future__ import annotations

import io
import json
import struct
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from geometry.camera import Camera
from geometry.se3 import quat_from_matrix
from scenes.formats.mesh import Mesh, Surface
from scenes.io.atomic_files import write_bytes

GLTF_FROM_OPENCV = np.diag([1.0, -1.0, -1.0])  # glTF: x right, y up, z backward
UNLIT = "KHR_materials_unlit"


class GL(IntEnum):
    """Codes of OpenGL that glTF uses."""

    UNSIGNED_INT = 5125
    FLOAT = 5126
    LINEAR = 9729
    LINEAR_MIPMAP_LINEAR = 9987
    CLAMP_TO_EDGE = 33071
    ARRAY_BUFFER = 34962
    ELEMENT_ARRAY_BUFFER = 34963


def write_glb(path: str | Path, mesh: Mesh, path_cameras: Camera | None = None, fps: float = 16.0) -> None:
    """Write a mesh, y up: the texture as JPEG in an unlit material (a photo carries its own light), the photo's camera.

    The nodes are called ``world``, ``background`` (if there is any), ``sky``, ``photo`` (the camera) and ``path`` (the
    camera of the path, animated).

    Args:
        path: the file; replaced if it exists.
        mesh: of the world.
        path_cameras: cameras of the path, ``[n]``; its lens is that of the photo, since glTF animates none.
        fps: cameras per second.
    """
    body, views, accessors, meshes = bytearray(), [], [], []

    def view(content: bytes, **use: int) -> int:
        views.append({"buffer": 0, "byteOffset": len(body), "byteLength": len(content), **use})
        # glTF requires accessors at multiples of 4 bytes.
        body.extend(content + bytes(-len(content) % 4))
        return len(views) - 1

    def accessor(values: NDArray, kind: str, component: int, target: int | None = None, **more: Any) -> int:
        index = view(values.tobytes(), **({} if target is None else {"target": target}))
        accessors.append({"bufferView": index, "componentType": component, "count": len(values), "type": kind, **more})
        return len(accessors) - 1

    def add(name: str, surface: Surface, material: int) -> None:
        positions = (surface.positions @ GLTF_FROM_OPENCV).astype("<f4")
        # Required by glTF for positions.
        limits = {"min": positions.min(0).tolist(), "max": positions.max(0).tolist()}
        attributes = {
            "POSITION": accessor(positions, "VEC3", GL.FLOAT, GL.ARRAY_BUFFER, **limits),
            "TEXCOORD_0": accessor(surface.places.astype("<f4"), "VEC2", GL.FLOAT, GL.ARRAY_BUFFER),
        }
        corners = surface.triangles.astype("<u4").reshape(-1)
        indices = accessor(corners, "SCALAR", GL.UNSIGNED_INT, GL.ELEMENT_ARRAY_BUFFER)
        meshes.append(
            {"name": name, "primitives": [{"attributes": attributes, "indices": indices, "material": material}]}
        )

    for name, surface in {"world": mesh.ground, "background": mesh.background, "sky": mesh.sky}.items():
        if len(surface.triangles):
            add(name, surface, int(name == "sky"))
    picture = io.BytesIO()
    # No chroma subsampling, which would blur colors across the borders of images in the atlas.
    Image.fromarray(mesh.texture).save(picture, "JPEG", quality=95, subsampling=0)
    image = {"bufferView": view(picture.getvalue()), "mimeType": "image/jpeg", "name": "pictures"}
    height, width = mesh.camera.size
    lens = {
        "yfov": float(2.0 * np.arctan(0.5 * height / float(mesh.camera.focal_px[1]))),
        "aspectRatio": width / height,
        "znear": 0.01,
    }
    nodes: list[dict[str, Any]] = [{"name": part["name"], "mesh": i} for i, part in enumerate(meshes)]
    # The world's origin is where the photo was taken, and glTF cameras look along -z: no transform is needed.
    nodes.append({"name": "photo", "camera": 0})
    animations = []
    if path_cameras is not None and len(path_cameras) > 1:
        times = (np.arange(len(path_cameras)) / fps).astype("<f4")
        poses = path_cameras.world_from_camera.double().numpy(force=True)
        places = (poses[:, :3, 3] @ GLTF_FROM_OPENCV).astype("<f4")
        turns = torch.from_numpy(GLTF_FROM_OPENCV @ poses[:, :3, :3] @ GLTF_FROM_OPENCV)
        quats = quat_from_matrix(turns).numpy()[:, [1, 2, 3, 0]].astype("<f4")  # glTF: xyzw
        # Neighbors on one side of the sphere, or a player would turn the long way round.
        flips = np.sign((quats[1:] * quats[:-1]).sum(1, keepdims=True))
        quats[1:] *= np.cumprod(np.where(flips == 0.0, 1.0, flips), axis=0).astype("<f4")
        nodes.append({"name": "path", "camera": 0})
        at = accessor(times, "SCALAR", GL.FLOAT, min=[float(times[0])], max=[float(times[-1])])
        samplers = [
            {"input": at, "output": accessor(values, kind, GL.FLOAT), "interpolation": "LINEAR"}
            for values, kind in ((places, "VEC3"), (quats, "VEC4"))
        ]
        channels = [
            {"sampler": k, "target": {"node": len(nodes) - 1, "path": name}}
            for k, name in enumerate(("translation", "rotation"))
        ]
        animations = [{"name": "path", "samplers": samplers, "channels": channels}]
    material = {
        "name": "pictures",
        "pbrMetallicRoughness": {"baseColorTexture": {"index": 0}, "metallicFactor": 0.0, "roughnessFactor": 1.0},
        "extensions": {UNLIT: {}},
        "doubleSided": True,
    }
    sampler = {"magFilter": GL.LINEAR, "minFilter": GL.LINEAR_MIPMAP_LINEAR}
    sampler |= {"wrapS": GL.CLAMP_TO_EDGE, "wrapT": GL.CLAMP_TO_EDGE}
    tree = {
        "asset": {"version": "2.0", "generator": "WorldWarp"},
        "extensionsUsed": [UNLIT],
        "scene": 0,
        "scenes": [{"nodes": list(range(len(nodes)))}],
        "nodes": nodes,
        "cameras": [{"name": "photo", "type": "perspective", "perspective": lens}],
        "meshes": meshes,
        # From outside the dome would hide the world.
        "materials": [material, material | {"name": "sky", "doubleSided": False}],
        "textures": [{"source": 0, "sampler": 0}],
        "images": [image],
        "samplers": [sampler],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": len(body)}],
    }
    tree |= {"animations": animations} if animations else {}
    text = json.dumps(tree, separators=(",", ":")).encode()
    # Chunks of a GLB are padded to 4 bytes: JSON with spaces, the binary part with zeros.
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(body), b"BIN\0") + bytes(body)
    write_bytes(Path(path), struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks)
