"""Projection and unprojection between world and pixels, and normals of a depth map."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geometry.camera import Camera


def pixel_centers(size: tuple[int, int], like: Tensor) -> Float[Tensor, "2 h w"]:
    """Pixel-center coordinates ``(x, y)``, at +0.5, in pixels."""
    rows = torch.arange(size[0], dtype=like.dtype, device=like.device) + 0.5
    columns = torch.arange(size[1], dtype=like.dtype, device=like.device) + 0.5
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([x, y])


def pixel_rays(camera: Camera, like: Tensor) -> Float[Tensor, "*b 2 h w"]:
    """Ray ``(x, y, 1)`` through each pixel center in camera axes, without its last component."""
    focal, center = camera.focal_px[..., :, None, None], camera.center_px[..., :, None, None]
    return (pixel_centers(camera.size, like) - center) / focal


def to_camera(points_world: Float[Tensor, "*b n 3"], camera: Camera) -> Float[Tensor, "*b n 3"]:
    """World points in camera axes; differentiable."""
    pose = camera.camera_from_world
    return points_world @ pose[..., :3, :3].transpose(-1, -2) + pose[..., None, :3, 3]


def unproject(depth: Float[Tensor, "*b 1 h w"], camera: Camera) -> Float[Tensor, "*b 3 h w"]:
    """World points of a depth map; differentiable.

    Args:
        depth: z along the optical axis, scene units.
        camera: cameras of the same batch and size.
    """
    if depth.shape[-2:] != camera.size:
        raise ValueError(f"depth: want the camera's size {camera.size}, got {tuple(depth.shape[-2:])}")
    local = torch.cat([pixel_rays(camera, depth) * depth, depth], dim=-3)
    rotation, translation = camera.world_from_camera[..., :3, :3], camera.world_from_camera[..., :3, 3]
    return torch.einsum("...ij,...jhw->...ihw", rotation, local) + translation[..., :, None, None]


def project(
    points_world: Float[Tensor, "*b n 3"], camera: Camera
) -> tuple[Float[Tensor, "*b n 2"], Float[Tensor, "*b n"]]:
    """Pixels and depth of world points; differentiable. Pixels are meaningless where depth is not positive."""
    local = to_camera(points_world, camera)
    depth = local[..., 2]
    safe = torch.where(depth.abs() < 1e-8, torch.full_like(depth, 1e-8), depth)
    pixels = local[..., :2] / safe[..., None] * camera.focal_px[..., None, :] + camera.center_px[..., None, :]
    return pixels, depth


def normals_from_depth(
    depth: Float[Tensor, "*b 1 h w"], camera: Camera, valid: Bool[Tensor, "*b 1 h w"]
) -> Float[Tensor, "*b 3 h w"]:
    """World unit normals that face the camera, zero where unknown.

    Each tangent is the shorter of the two one-sided differences, so that it does not cross a depth edge.
    """
    points = unproject(depth, camera)

    def tangent(axis: int) -> Tensor:
        ahead = torch.roll(points, -1, axis) - points
        behind = points - torch.roll(points, 1, axis)
        bad_ahead = ~torch.roll(valid, -1, axis) | _edge(valid, axis, -1)
        bad_behind = ~torch.roll(valid, 1, axis) | _edge(valid, axis, 0)
        length_ahead = _length(ahead).masked_fill(bad_ahead, torch.inf)
        length_behind = _length(behind).masked_fill(bad_behind, torch.inf)
        shorter = torch.where(length_ahead <= length_behind, ahead, behind)
        return torch.where(bad_ahead & bad_behind, torch.zeros_like(shorter), shorter)

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
