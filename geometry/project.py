"""Projection, unprojection, forward warping and hole filling."""

from __future__ import annotations

import inspect

import numba
import numpy as np
import torch
import torch.nn.functional as functional
from jaxtyping import Bool, Float
from torch import Tensor

from geometry.camera import Camera
from geometry.frame import Frame


def pixel_centers(size: tuple[int, int], like: Tensor) -> Float[Tensor, "2 h w"]:
    """Pixel-centre coordinates ``(x, y)``, at +0.5, in pixels."""
    rows = torch.arange(size[0], dtype=like.dtype, device=like.device) + 0.5
    columns = torch.arange(size[1], dtype=like.dtype, device=like.device) + 0.5
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([x, y])


def unproject(depth: Float[Tensor, "*b 1 h w"], camera: Camera) -> Float[Tensor, "*b 3 h w"]:
    """World points of a depth map; differentiable.

    Args:
        depth: z along the optical axis, scene units.
        camera: cameras of the same batch and size.
    """
    if depth.shape[-2:] != camera.size:
        raise ValueError(f"depth: want the camera's size {camera.size}, got {tuple(depth.shape[-2:])}")
    focal, center = camera.focal_px[..., :, None, None], camera.center_px[..., :, None, None]
    ray = (pixel_centers(camera.size, depth) - center) / focal
    local = torch.cat([ray * depth, depth], dim=-3)
    rotation, translation = camera.world_from_camera[..., :3, :3], camera.world_from_camera[..., :3, 3]
    return torch.einsum("...ij,...jhw->...ihw", rotation, local) + translation[..., :, None, None]


def project(
    points_world: Float[Tensor, "*b n 3"], camera: Camera
) -> tuple[Float[Tensor, "*b n 2"], Float[Tensor, "*b n"]]:
    """Pixels and depth of world points; differentiable. Pixels mean nothing where depth is not positive."""
    pose = camera.camera_from_world
    local = points_world @ pose[..., :3, :3].transpose(-1, -2) + pose[..., None, :3, 3]
    depth = local[..., 2]
    safe = torch.where(depth.abs() < 1e-8, torch.full_like(depth, 1e-8), depth)
    pixels = local[..., :2] / safe[..., None] * camera.focal_px[..., None, :] + camera.center_px[..., None, :]
    return pixels, depth


def normals_from_depth(
    depth: Float[Tensor, "*b 1 h w"], camera: Camera, valid: Bool[Tensor, "*b 1 h w"]
) -> Float[Tensor, "*b 3 h w"]:
    """World unit normals that face the camera, from neighbour differences on the near side; zero where unknown."""
    points = unproject(depth, camera)

    def tangent(axis: int) -> Tensor:
        ahead = torch.roll(points, -1, axis) - points
        behind = points - torch.roll(points, 1, axis)
        bad_ahead = ~torch.roll(valid, -1, axis) | _edge(valid, axis, -1)
        bad_behind = ~torch.roll(valid, 1, axis) | _edge(valid, axis, 0)
        length_ahead = _length(ahead).masked_fill(bad_ahead, torch.inf)
        length_behind = _length(behind).masked_fill(bad_behind, torch.inf)
        chosen = torch.where(length_ahead <= length_behind, ahead, behind)
        return torch.where(bad_ahead & bad_behind, torch.zeros_like(chosen), chosen)

    normal = torch.linalg.cross(tangent(-1), tangent(-2), dim=-3)
    length = _length(normal)
    normal = torch.where((length > 1e-12) & valid, normal / length.clamp_min(1e-12), torch.zeros_like(normal))
    towards = camera.position[..., :, None, None] - points
    facing = (normal * towards).sum(dim=-3, keepdim=True)
    return torch.where(facing < 0, -normal, normal)


def _length(vectors_CHW: Tensor) -> Tensor:
    """Lengths of an image of vectors, ``[..., 1, h, w]``: 50 times faster than torch's norm over such a dimension."""
    return vectors_CHW.square().sum(dim=-3, keepdim=True).sqrt()


def _edge(valid: Tensor, axis: int, position: int) -> Tensor:
    edge = torch.zeros_like(valid)
    edge.select(axis, position).fill_(True)
    return edge


def forward_warp(
    source: Frame, camera: Camera, values: Float[Tensor, "s c h w"]
) -> tuple[Float[Tensor, "t c h2 w2"], Float[Tensor, "t 1 h2 w2"], Bool[Tensor, "t 1 h2 w2"]]:
    """Carry per-pixel values of source frames into target cameras; nearest surface wins. No gradients.

    Each source pixel covers the square that its footprint covers in the target, at least one pixel and at most
    ``MAX_FOOTPRINT``, so that surfaces seen at their own sampling have no cracks.

    Args:
        source: frames ``[s]``; only pixels that are ``valid`` are carried.
        camera: target cameras ``[t]``.
        values: what to carry, of the source's size.

    Returns:
        Values (0 where nothing lands), depth in the target (0 where nothing lands), and where something landed.
    """
    arrays = _warp_arguments(source, camera, values)
    carried, depth, hit = _splat(*arrays)
    return torch.from_numpy(carried), torch.from_numpy(depth)[:, None], torch.from_numpy(hit)[:, None]


MAX_FOOTPRINT = 4.0


def _warp_arguments(source: Frame, camera: Camera, values: Tensor) -> tuple[np.ndarray, ...]:
    if values.shape[0] != len(source) or values.shape[-2:] != source.depth.shape[-2:]:
        raise ValueError(f"values: want [{len(source)} c {source.camera.size}], got {tuple(values.shape)}")
    points = unproject(source.depth, source.camera)
    keep = source.valid[:, 0]
    spacing = (source.depth[:, 0] / source.camera.focal_px[:, :1, None].to(source.depth))[keep]
    flat_points = points.permute(0, 2, 3, 1)[keep]
    flat_values = values.permute(0, 2, 3, 1)[keep]
    size = np.array(camera.size, dtype=np.int64)
    return (
        flat_points.double().numpy(),
        spacing.double().numpy(),
        flat_values.contiguous().float().numpy(),
        camera.camera_from_world.double().contiguous().numpy(),
        camera.focal_px.double().contiguous().numpy(),
        camera.center_px.double().contiguous().numpy(),
        size,
    )


def _splat_reference(
    points: np.ndarray,
    spacing: np.ndarray,
    values: np.ndarray,
    pose: np.ndarray,
    focal: np.ndarray,
    center: np.ndarray,
    size: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rule, readable: for each target, each point paints its square where it is nearest; first point wins ties."""
    targets, height, width = len(pose), int(size[0]), int(size[1])
    out = np.zeros((targets, values.shape[1], height, width), np.float32)
    depth = np.zeros((targets, height, width), np.float32)
    for t in range(targets):
        nearest = np.full((height, width), np.inf)
        for n in range(len(points)):
            px, py, pz = points[n, 0], points[n, 1], points[n, 2]
            z = pose[t, 2, 0] * px + pose[t, 2, 1] * py + pose[t, 2, 2] * pz + pose[t, 2, 3]
            if z <= 1e-4:
                continue
            x = pose[t, 0, 0] * px + pose[t, 0, 1] * py + pose[t, 0, 2] * pz + pose[t, 0, 3]
            y = pose[t, 1, 0] * px + pose[t, 1, 1] * py + pose[t, 1, 2] * pz + pose[t, 1, 3]
            u, v = x / z * focal[t, 0] + center[t, 0], y / z * focal[t, 1] + center[t, 1]
            half = 0.5 * min(max(spacing[n] * focal[t, 0] / z * 1.1, 1.0), MAX_FOOTPRINT)
            for row in range(max(int(np.ceil(v - half - 0.5)), 0), min(int(np.floor(v + half - 0.5)) + 1, height)):
                for col in range(max(int(np.ceil(u - half - 0.5)), 0), min(int(np.floor(u + half - 0.5)) + 1, width)):
                    if z < nearest[row, col]:
                        nearest[row, col], depth[t, row, col], out[t, :, row, col] = z, z, values[n]
    return out, depth, depth > 0


# Shape checkers wrap every function in tests; Numba wants the bare one.
_splat = numba.njit(cache=True)(inspect.unwrap(_splat_reference))


def smooth_fill(values: Float[Tensor, "*b c h w"], known: Bool[Tensor, "*b 1 h w"]) -> Float[Tensor, "*b c h w"]:
    """Push-pull fill: exact where ``known``, elsewhere a smooth blend of what is known around; 0 if nothing is."""
    batch = values.shape[:-3]
    flat, weight = values.reshape(-1, *values.shape[-3:]), known.reshape(-1, *known.shape[-3:]).to(values)
    filled = _push_pull(flat * weight, weight)
    return torch.where(known, values, filled.reshape(*batch, *values.shape[-3:]))


def _push_pull(weighted: Tensor, weight: Tensor) -> Tensor:
    """Pyramid of weighted means; each level fills its unknown pixels from the one above."""
    mean = weighted / weight.clamp_min(1e-8)
    if min(weighted.shape[-2:]) <= 1:
        return mean
    coarse_weight = functional.avg_pool2d(weight, 2, ceil_mode=True, count_include_pad=False)
    coarse_weighted = functional.avg_pool2d(weighted, 2, ceil_mode=True, count_include_pad=False)
    scale = coarse_weight.clamp(max=1.0) / coarse_weight.clamp_min(1e-8)
    coarse = _push_pull(coarse_weighted * scale, coarse_weight * scale)
    smooth = functional.interpolate(coarse, size=weighted.shape[-2:], mode="bilinear", align_corners=False)
    trust = weight.clamp(max=1.0)
    return trust * mean + (1.0 - trust) * smooth
