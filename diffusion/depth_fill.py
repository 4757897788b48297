"""Depth of what nobody has seen: extend the surfaces at the border of the hole, from behind at a disocclusion."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import ndimage, sparse
from scipy.sparse.linalg import spsolve
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from geometry.project import smooth_fill

COARSE_PX = 8  # surfaces are extended on a grid this coarse
STIFFNESS = 0.02  # share of membrane in the plate: keeps the extension from running away
FRONT_RATIO = 1.12  # inverse depth this much above what lies behind belongs to a surface in front
FRONT_REACH_PX = 12  # how far from the hole its far side is looked for
FRONT_SPAN_PX = 64  # how far into the surface in front what hides is followed
FARTHEST = 1e-2  # inverse depth of the sky, in units of the median


def fill_inverse_depth(
    inverse: Float[Tensor, "1 h w"], known: Bool[Tensor, "1 h w"]
) -> Float[Tensor, "1 h w"]:
    """Complete inverse depth: a thin plate over the known part (planes go on as planes), exact on known pixels.

    Args:
        inverse: inverse depth, positive where ``known``.
        known: the pixels to extend.

    Returns:
        Positive inverse depth within the range of what is known (a little nearer at most).
    """
    if not known.any():
        return torch.ones_like(inverse)
    plate = _thin_plate(inverse, known)
    detail = smooth_fill((inverse - plate)[None], known[None])[0]
    low, high = inverse[known].min().item(), inverse[known].max().item()
    return torch.where(known, inverse, (plate + detail).clamp(max(0.5 * low, 1e-6), 1.5 * high))


def in_front(
    inverse: Float[Tensor, "1 h w"], known: Bool[Tensor, "1 h w"], disoccluded: Bool[Tensor, "1 h w"]
) -> Bool[Tensor, "1 h w"]:
    """Known pixels that hide what lies behind a disoccluded hole: nearer than the far side of its border.

    Args:
        inverse: inverse depth, meaningful where ``known``.
        known: pixels with geometry.
        disoccluded: hole pixels which an earlier camera looked at but could not see.
    """
    if not disoccluded.any() or not known.any():
        return torch.zeros_like(known)
    size = 2 * FRONT_REACH_PX + 1
    values = np.where(known[0].numpy(), inverse[0].numpy(), np.inf)
    behind = ndimage.minimum_filter(values, size)
    near_hole = ndimage.maximum_filter(disoccluded[0].numpy(), size)
    rim = near_hole & np.isfinite(values) & (values > FRONT_RATIO * behind + 1e-3)
    if not rim.any():
        return torch.zeros_like(known)
    # The rim belongs to a surface: follow it as far as it stays in front of what the rim hides.
    distance, nearest = ndimage.distance_transform_edt(~rim, return_indices=True)
    hidden = behind[tuple(nearest)]
    surface = np.isfinite(values) & (values > FRONT_RATIO * hidden + 1e-3) & (distance <= FRONT_SPAN_PX)
    labels, _ = ndimage.label(surface)
    return torch.from_numpy(np.isin(labels, np.unique(labels[rim])) & surface)[None]


def _thin_plate(inverse: Float[Tensor, "1 h w"], known: Bool[Tensor, "1 h w"]) -> Float[Tensor, "1 h w"]:
    """Least bending through block means of the known part, solved on the coarse grid, sampled at pixels."""
    weight = avg_pool2d(known.float()[None], COARSE_PX, ceil_mode=True)[0, 0]
    mean = avg_pool2d(torch.where(known, inverse, 0.0)[None], COARSE_PX, ceil_mode=True)[0, 0] / weight.clamp_min(1e-6)
    rows, columns = weight.shape
    bend_y = sparse.kron(_second_difference(rows), sparse.eye(columns))
    bend_x = sparse.kron(sparse.eye(rows), _second_difference(columns))
    slope_y = sparse.kron(_first_difference(rows), sparse.eye(columns))
    slope_x = sparse.kron(sparse.eye(rows), _first_difference(columns))
    system = bend_y.T @ bend_y + bend_x.T @ bend_x + STIFFNESS * (slope_y.T @ slope_y + slope_x.T @ slope_x)
    data = weight.double().numpy().ravel() * 10.0
    matrix = (system + sparse.diags(data + 1e-9)).tocsc()
    solved = spsolve(matrix, data * mean.double().numpy().ravel()).reshape(1, 1, rows, columns)
    height, width = inverse.shape[-2:]
    full = interpolate(torch.from_numpy(solved), scale_factor=COARSE_PX, mode="bilinear", align_corners=False)
    return full[0, :, :height, :width].to(inverse)


def _second_difference(count: int) -> sparse.spmatrix:
    if count < 3:
        return sparse.csr_matrix((1, count))
    return sparse.diags([1.0, -2.0, 1.0], [0, 1, 2], shape=(count - 2, count))


def _first_difference(count: int) -> sparse.spmatrix:
    if count < 2:
        return sparse.csr_matrix((1, count))
    return sparse.diags([-1.0, 1.0], [0, 1], shape=(count - 1, count))
