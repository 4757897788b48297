"""USDZ, the package that Quick Look on phones and Macs opens: the textured mesh of a world, y up.

A package is an uncompressed archive of a binary USD file and its texture. Materials are ``UsdPreviewSurface`` whose
texture glows, as a photo carries its own light; the sky is seen from inside alone.
"""

from __future__ import annotations

import importlib
import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from scenes.formats.glb import GLTF_FROM_OPENCV
from scenes.formats.mesh import Mesh, Surface
from scenes.formats.usd import add_camera, load_usd
from scenes.io.atomic_files import replacing

TEXTURE = "pictures.jpg"
LONGEST_TEXTURE_PX = 4096  # what a telephone shows


def write_usdz(path: str | Path, mesh: Mesh) -> None:
    """Write a mesh as USDZ: prims ``world``, ``background``, ``sky`` and the camera ``photo``; a unit is a meter.

    Args:
        path: the ``.usdz`` file; replaced if it exists.
        mesh: of the world.

    Raises:
        ImportError: usd-core is not installed.
    """
    usd, geom, _, gf, _ = load_usd("usdz")
    sdf, utils = (importlib.import_module(f"pxr.{name}") for name in ("Sdf", "UsdUtils"))
    with tempfile.TemporaryDirectory() as scratch, replacing(Path(path)) as partial:
        Path(scratch, TEXTURE).write_bytes(_jpeg(mesh.texture))
        stage = usd.Stage.CreateNew(str(Path(scratch, "world.usdc")))
        geom.SetStageUpAxis(stage, geom.Tokens.y)
        geom.SetStageMetersPerUnit(stage, 1.0)
        root = geom.Xform.Define(stage, "/root")
        stage.SetDefaultPrim(root.GetPrim())
        material = _material(stage)
        parts = {"world": mesh.ground, "background": mesh.background, "sky": mesh.sky}
        for name, surface in parts.items():
            if len(surface.triangles):
                _add_mesh(stage, f"/root/{name}", surface, material, double_sided=name != "sky")
        add_camera(geom, gf, stage, "/root/photo", mesh.camera[None])
        stage.GetRootLayer().Save()
        packed = partial.with_name(f"{partial.name}.usdz")
        if not utils.CreateNewUsdzPackage(sdf.AssetPath(str(Path(scratch, "world.usdc"))), str(packed)):
            raise OSError(f"cannot write {path}: usd-core could not pack it")
        packed.replace(partial)


def _jpeg(texture: np.ndarray) -> bytes:
    image, file = Image.fromarray(texture), io.BytesIO()
    scale = LONGEST_TEXTURE_PX / max(image.size)
    if scale < 1.0:
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    image.save(file, "JPEG", quality=92, subsampling=0)
    return file.getvalue()


def _material(stage: Any) -> Any:
    shade, sdf = (importlib.import_module(f"pxr.{name}") for name in ("UsdShade", "Sdf"))
    types = sdf.ValueTypeNames
    material = shade.Material.Define(stage, "/root/pictures")
    place = shade.Shader.Define(stage, "/root/pictures/place")
    place.CreateIdAttr("UsdPrimvarReader_float2")
    place.CreateInput("varname", types.String).Set("st")
    image = shade.Shader.Define(stage, "/root/pictures/image")
    image.CreateIdAttr("UsdUVTexture")
    image.CreateInput("file", types.Asset).Set(TEXTURE)
    image.CreateInput("sourceColorSpace", types.Token).Set("sRGB")
    for side in ("wrapS", "wrapT"):
        image.CreateInput(side, types.Token).Set("clamp")
    image.CreateInput("st", types.Float2).ConnectToSource(place.CreateOutput("result", types.Float2))
    surface = shade.Shader.Define(stage, "/root/pictures/surface")
    surface.CreateIdAttr("UsdPreviewSurface")
    surface.CreateInput("diffuseColor", types.Color3f).Set((0.0, 0.0, 0.0))
    surface.CreateInput("roughness", types.Float).Set(1.0)
    surface.CreateInput("emissiveColor", types.Color3f).ConnectToSource(image.CreateOutput("rgb", types.Float3))
    material.CreateSurfaceOutput().ConnectToSource(surface.CreateOutput("surface", types.Token))
    return material


def _add_mesh(stage: Any, name: str, surface: Surface, material: Any, *, double_sided: bool) -> None:
    geom, shade, sdf, vt = (importlib.import_module(f"pxr.{part}") for part in ("UsdGeom", "UsdShade", "Sdf", "Vt"))
    mesh = geom.Mesh.Define(stage, name)
    points = np.ascontiguousarray((surface.positions @ GLTF_FROM_OPENCV).astype(np.float32))
    # In USD the second texture coordinate counts from below.
    places = np.ascontiguousarray((surface.places * [1.0, -1.0] + [0.0, 1.0]).astype(np.float32))
    corners = np.ascontiguousarray(surface.triangles.astype(np.int32).reshape(-1))
    mesh.CreatePointsAttr(vt.Vec3fArray.FromNumpy(points))
    mesh.CreateFaceVertexIndicesAttr(vt.IntArray.FromNumpy(corners))
    mesh.CreateFaceVertexCountsAttr(vt.IntArray.FromNumpy(np.full(len(surface.triangles), 3, np.int32)))
    mesh.CreateExtentAttr(vt.Vec3fArray.FromNumpy(np.stack([points.min(0), points.max(0)])))
    mesh.CreateSubdivisionSchemeAttr(geom.Tokens.none)
    mesh.CreateDoubleSidedAttr(double_sided)
    coordinates = geom.PrimvarsAPI(mesh).CreatePrimvar("st", sdf.ValueTypeNames.TexCoord2fArray, geom.Tokens.vertex)
    coordinates.Set(vt.Vec2fArray.FromNumpy(places))
    shade.MaterialBindingAPI.Apply(mesh.GetPrim()).Bind(material)
