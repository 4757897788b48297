"""Fewer Gaussians that look alike: those that no camera sees go, and neighbors of one color become one."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cache3d.rasterizer.rasterize import rasterize
from cache3d.rendering.policy import DEFAULT_RENDERING
from cache3d.rendering.splat_attributes import in_view, to_splats
from geometry.camera import Camera
from geometry.primitives import Gaussians

SAME_DEPTH = 0.05  # relative depth difference up to which neighbors may become one
UNSEEN = 1e-3  # pixels, over all views, that a Gaussian fills at most if it is not seen


def contribution(gaussians: Gaussians, cameras: Camera) -> Float[Tensor, "n"]:
    """Sum of the compositing weights of each Gaussian over the pixels of cameras ``[t]``; the sky is seen by itself.

    The weights are the derivatives of the composited picture by the values that are composited.
    """
    total = torch.zeros(len(gaussians))
    for k in range(len(cameras)):
        for sky in (False, True):
            camera = cameras[k]
            if sky:  # it is seen from the origin
                pose = camera.world_from_camera.clone()
                pose[:3, 3] = 0.0
                camera = replace(camera, world_from_camera=pose)
            index = in_view(gaussians, camera, sky=sky)
            if len(index) == 0:
                continue
            ones = torch.ones(len(index), 1, requires_grad=True)
            splats = replace(to_splats(gaussians, index, camera), values=ones)
            raster = rasterize(splats, camera[None], eps2d=DEFAULT_RENDERING.footprint_floor)
            raster.values.sum().backward()
            assert ones.grad is not None
            total[index] += ones.grad[:, 0]
    return total


def thinned(gaussians: Gaussians, weights: Float[Tensor, "n"], count: int, camera: Camera) -> Gaussians:
    """At most ``count`` Gaussians that look as much like the given ones as can be.

    Those that are not seen go first. Then neighbors in the picture of one camera, at one depth, become one, where their
    colors differ least: in cells of 2x2 pixels, then of 4x4, and so on.

    Args:
        gaussians: of a world.
        weights: of each, see `contribution`.
        count: wanted.
        camera: no batch axis; the photo's, around which the path lies.
    """
    order = weights.argsort(descending=True, stable=True)
    seen = max(count, int((weights > UNSEEN).sum()))
    kept = order[:seen].sort().values
    shown, weights = gaussians[kept], weights[kept].clamp_min(UNSEEN)
    cell = 1.0
    while len(shown) > count:
        cell *= 2.0
        shown, weights = _merged(shown, weights, count, _cells(shown, camera, cell))
        if cell > max(camera.size):  # whatever is left lies apart
            order = weights.argsort(descending=True, stable=True)[:count].sort().values
            shown, weights = shown[order], weights[order]
    return shown


def _cells(gaussians: Gaussians, camera: Camera, cell_px: float) -> Int[Tensor, "n"]:
    """A number for each Gaussian, the same for those that may become one."""
    # About the origin, with both axes and the side that it lies on: behind the camera there are cells as well.
    local = (gaussians.means - camera.position) @ camera.world_from_camera[:3, :3]
    ahead = local[:, 2].abs().clamp_min(1e-6)
    distance = local.norm(dim=1).clamp_min(1e-6)
    columns = [
        (local[:, 0] / ahead * camera.focal_px[0] / cell_px).clamp(-1e6, 1e6).floor(),
        (local[:, 1] / ahead * camera.focal_px[1] / cell_px).clamp(-1e6, 1e6).floor(),
        (distance.log() / SAME_DEPTH).floor(),
        (local[:, 2] > 0.0).float(),
        gaussians.sky.float(),
    ]
    return torch.unique(torch.stack(columns, 1), dim=0, return_inverse=True)[1]


def _merged(
    gaussians: Gaussians, weights: Float[Tensor, "n"], count: int, cells: Int[Tensor, "n"]
) -> tuple[Gaussians, Float[Tensor, "m"]]:
    """Gaussians and weights with whole cells as one each, the most uniform first, until ``count`` are left."""
    number = int(cells.max()) + 1
    total = torch.zeros(number).index_add_(0, cells, weights)
    members = torch.bincount(cells, minlength=number)

    def mean(values: Tensor) -> Tensor:
        weighted = values * weights.unflatten(0, (-1, *[1] * (values.ndim - 1)))
        summed = torch.zeros(number, *values.shape[1:]).index_add_(0, cells, weighted)
        return summed / total.unflatten(0, (-1, *[1] * (values.ndim - 1)))

    colors = mean(gaussians.colors)
    error = torch.zeros(number).index_add_(0, cells, weights * (gaussians.colors - colors[cells]).square().sum(1))
    several = torch.nonzero(members > 1)[:, 0]
    fewer = members[several] - 1
    best = (error[several] / fewer).argsort(stable=True)
    needed = int(torch.searchsorted(fewer[best].cumsum(0), len(gaussians) - count)) + 1
    chosen = torch.zeros(number, dtype=torch.bool)
    chosen[several[best[:needed]]] = True
    # The heaviest of a cell stands for all, in the middle of them and as large as they are together.
    heaviest = torch.full((number,), -1.0).scatter_reduce_(0, cells, weights, "amax")
    index = torch.arange(len(gaussians))
    first = torch.full((number,), len(gaussians)).scatter_reduce_(
        0, cells, torch.where(weights >= heaviest[cells], index, len(gaussians)), "amin"
    )
    stays = ~chosen[cells] | (index == first[cells])
    one = chosen[cells] & stays
    of = cells[one]
    grown = gaussians.scales.clone()
    order = gaussians.scales[one].argsort(dim=1)
    factor = torch.ones(int(one.sum()), 3).scatter_(1, order[:, 1:], members[of].float().sqrt()[:, None].expand(-1, 2))
    grown[one] *= factor
    means, rgb, heavy = gaussians.means.clone(), gaussians.colors.clone(), weights.clone()
    means[one], rgb[one], heavy[one] = mean(gaussians.means)[of], colors[of], total[of]
    return replace(gaussians, means=means, scales=grown, colors=rgb)[stays], heavy[stays]
