"""OpenUSD: the world's Gaussians as a particle field, points as their stand-in, and the cameras of the path, animated.

The schema ``ParticleField3DGaussianSplat`` is that of OpenUSD 26; a program that does not know it shows the points,
whose purpose is ``proxy``. Axes are OpenGL's, y up.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geometry.camera import Camera
from geometry.primitives import Gaussians
from geometry.se3 import quat_from_matrix
from scenes.formats.ply import SH_CONSTANT
from scenes.formats.spz import to_opengl, to_opengl_quats
from scenes.io.atomic_files import replacing

APERTURE = 36.0  # width of the film of a camera, tenths of scene units


def write_usd(path: str | Path, gaussians: Gaussians, cameras: Camera, fps: float, *, metric: bool) -> bool:
    """Write a world as a binary USD file, y up; returns whether it holds a particle field, which older USD lacks.

    Args:
        path: the ``.usdc`` file; replaced if it exists.
        gaussians: of the world; the format has no sky flag.
        cameras: of the path, ``[n]``; the first is the photo's.
        fps: cameras per second.
        metric: whether a scene unit is a meter.

    Raises:
        ImportError: usd-core is not installed.
    """
    usd, geom, volume, gf, vt = load_usd()
    stage = usd.Stage.CreateInMemory()
    geom.SetStageUpAxis(stage, geom.Tokens.y)
    geom.SetStageMetersPerUnit(stage, 1.0 if metric else 0.01)
    stage.SetTimeCodesPerSecond(fps)
    stage.SetFramesPerSecond(fps)
    stage.SetStartTimeCode(0)
    stage.SetEndTimeCode(max(len(cameras) - 1, 0))
    root = geom.Xform.Define(stage, "/world")
    stage.SetDefaultPrim(root.GetPrim())
    means, quats = to_opengl(gaussians.means), to_opengl_quats(gaussians.quats)
    farthest = 3.0 * gaussians.scales.amax(1)
    corners = [(means - farthest[:, None]).amin(0), (means + farthest[:, None]).amax(0)] if len(means) else []
    extent = vt.Vec3fArray.FromNumpy(_array(torch.stack(corners))) if corners else vt.Vec3fArray()
    has_field = hasattr(volume, "ParticleField3DGaussianSplat")
    if has_field:
        field = volume.ParticleField3DGaussianSplat.Define(stage, "/world/splats")
        field.CreatePositionsAttr(vt.Vec3fArray.FromNumpy(_array(means)))
        # The real part comes last in memory.
        field.CreateOrientationsAttr(vt.QuatfArray.FromNumpy(_array(quats[:, [1, 2, 3, 0]])))
        field.CreateScalesAttr(vt.Vec3fArray.FromNumpy(_array(gaussians.scales)))
        field.CreateOpacitiesAttr(vt.FloatArray.FromNumpy(_array(gaussians.opacities)))
        field.CreateRadianceSphericalHarmonicsDegreeAttr(0)
        colors = (gaussians.colors - 0.5) / SH_CONSTANT
        field.CreateRadianceSphericalHarmonicsCoefficientsAttr(vt.Vec3fArray.FromNumpy(_array(colors)))
        field.CreateExtentAttr(extent)
    points = geom.Points.Define(stage, "/world/points")
    points.CreatePointsAttr(vt.Vec3fArray.FromNumpy(_array(means)))
    points.CreateWidthsAttr(vt.FloatArray.FromNumpy(_array(2.0 * gaussians.scales.amax(1))))
    points.CreateDisplayColorAttr(vt.Vec3fArray.FromNumpy(_array(_linear(gaussians.colors))))
    points.GetDisplayColorPrimvar().SetInterpolation(geom.Tokens.vertex)
    points.CreateExtentAttr(extent)
    if has_field:
        points.CreatePurposeAttr(geom.Tokens.proxy)
    for name, shown in (("photo", cameras[:1]), ("path", cameras)):
        add_camera(geom, gf, stage, f"/world/{name}", shown)
    with replacing(Path(path)) as partial:
        # The encoding follows the suffix of the name.
        binary = partial.with_name(f"{partial.name}.usdc")
        stage.GetRootLayer().Export(str(binary))
        binary.replace(partial)
    return has_field


def load_usd(name: str = "usd") -> tuple[Any, Any, Any, Any, Any]:
    """Import the modules Usd, UsdGeom, UsdVol, Gf and Vt of OpenUSD; ``name`` is the format that wants them."""
    try:
        names = ("Usd", "UsdGeom", "UsdVol", "Gf", "Vt")
        usd, geom, volume, gf, vt = (importlib.import_module(f"pxr.{name}") for name in names)
    except ImportError:
        raise ImportError(f"formats: {name} needs a package: pip install 'worldwarp[usd]'") from None
    return usd, geom, volume, gf, vt


def add_camera(geom: Any, gf: Any, stage: Any, name: str, cameras: Camera) -> None:
    """A camera that takes one pose, or all of them, one a frame."""
    camera = geom.Camera.Define(stage, name)
    height, width = cameras.size
    camera.CreateHorizontalApertureAttr(APERTURE)
    camera.CreateVerticalApertureAttr(APERTURE * height / width)
    camera.CreateClippingRangeAttr(gf.Vec2f(0.01, 1e6))
    place, turn = camera.AddTranslateOp(), camera.AddOrientOp()
    lens = camera.CreateFocalLengthAttr()
    positions = to_opengl(cameras.position).tolist()
    quats = to_opengl_quats(quat_from_matrix(cameras.world_from_camera[:, :3, :3]))
    # A camera looks along its own -z: its axes are turned as well as the world's.
    w, x, y, z = quats.unbind(1)
    turned = torch.stack([-x, w, z, -y], 1)
    for k, (position, quat) in enumerate(zip(positions, turned.tolist(), strict=True)):
        time = [k] if len(cameras) > 1 else []
        place.Set(gf.Vec3d(*position), *time)
        turn.Set(gf.Quatf(quat[0], quat[1], quat[2], quat[3]), *time)
        lens.Set(APERTURE * float(cameras.focal_px[k, 0]) / width, *time)


def _linear(colors: Tensor) -> Tensor:
    """Colors without sRGB's curve, as ``displayColor`` holds them."""
    return torch.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)


def _array(values: Tensor) -> np.ndarray:
    return np.ascontiguousarray(values.float().numpy(force=True))
