"""The readable rasterizer: dense, pure torch, any float dtype, differentiable by autograd."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cache3d.rasterizer.projection_kernels import FAR, MIN_ALPHA, NEAR
from cache3d.rasterizer.types import Raster, Splats
from geometry.camera import Camera
from geometry.project import pixel_centers, to_camera
from geometry.se3 import matrix_from_quat


def rasterize_reference(splats: Splats, camera: Camera, eps2d: float = 0.3) -> Raster:
    """See `rasterize`; memory and time grow with Gaussians x pixels: for a few thousand and small images."""
    images = [_one_camera(splats, camera[k], eps2d) for k in range(len(camera))]
    return Raster(*(torch.stack([image[j] for image in images]) for j in range(3)))


def project_reference(
    splats: Splats, camera: Camera, eps2d: float = 0.3
) -> tuple[Float[Tensor, "n 2"], Float[Tensor, "n 2 2"], Float[Tensor, "n"], Bool[Tensor, "n"]]:
    """Project Gaussians to one camera: image means (px), covariances (px²), depths, and a mask of the visible ones."""
    rotation = camera.camera_from_world[:3, :3]
    x, y, z = to_camera(splats.means, camera).unbind(-1)
    given = (splats.means, splats.quats, splats.scales, splats.opacities[:, None])
    usable = torch.stack([torch.isfinite(part).all(dim=-1) for part in given]).all(dim=0)
    usable = usable & (z >= NEAR) & (z <= FAR) & (splats.opacities >= MIN_ALPHA)
    z = torch.where(usable, z, torch.ones_like(z))  # no infinities in the gradients
    height, width = camera.size
    (fx, fy), (cx, cy) = camera.focal_px.unbind(-1), camera.center_px.unbind(-1)
    means = torch.stack([fx * x / z + cx, fy * y / z + cy], dim=-1)
    # The linearization is clamped a little outside the image, as in gsplat, because it diverges farther out.
    u = torch.clamp(x / z, -cx / fx - 0.15 * width / fx, (width - cx) / fx + 0.15 * width / fx)
    v = torch.clamp(y / z, -cy / fy - 0.15 * height / fy, (height - cy) / fy + 0.15 * height / fy)
    zero = torch.zeros_like(z)
    jacobian = torch.stack([fx / z, zero, -fx * u / z, zero, fy / z, -fy * v / z], dim=-1).reshape(-1, 2, 3)
    root = jacobian @ rotation @ (matrix_from_quat(splats.quats) * splats.scales[:, None, :])
    covariance = root @ root.transpose(-1, -2) + eps2d * torch.eye(2, dtype=root.dtype, device=root.device)
    return means, covariance, z, usable


def _one_camera(splats: Splats, camera: Camera, eps2d: float) -> tuple[Tensor, Tensor, Tensor]:
    height, width = camera.size
    means, covariance, z, usable = project_reference(splats, camera, eps2d)
    kept = torch.nonzero(usable & (torch.linalg.det(covariance.detach()) > 0))[:, 0]
    # Stable: equal depths keep storage order.
    order = kept[torch.sort(z.detach()[kept], stable=True).indices]
    means, conic, z = means[order], torch.linalg.inv(covariance[order]), z[order]
    xs, ys = pixel_centers((height, width), z)
    dx, dy = means[:, 0, None, None] - xs[:1], means[:, 1, None, None] - ys[:, :1]
    a, b, c = (conic[:, i, j, None, None] for i, j in ((0, 0), (0, 1), (1, 1)))
    s = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
    max_alpha = 0.999
    alpha = torch.clamp(splats.opacities[order, None, None] * torch.exp(-s), max=max_alpha)
    alpha = torch.where((s >= 0) & (alpha >= MIN_ALPHA), alpha, torch.zeros_like(alpha))
    passed = torch.cumprod(1 - alpha, dim=0)
    stop = 1e-4
    # Detached: which Gaussians a pixel shows is no part of the gradient, as in the kernels.
    alive = torch.cumprod((passed.detach() > stop).to(alpha.dtype), dim=0)
    alpha = alpha * alive
    passed = torch.cat([alpha.new_ones(1, height, width), torch.cumprod(1 - alpha, dim=0)])
    weights = alpha * passed[:-1]
    values = torch.einsum("nhw,nc->chw", weights, splats.values[order])
    covered = 1 - passed[-1]
    depth = torch.einsum("nhw,n->hw", weights, z) / covered.clamp_min(1e-10)
    return values, depth[None], covered[None]
