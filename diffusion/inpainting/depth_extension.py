"""Depth of holes: the surfaces around them extended by a thin plate, and copied depth fitted to the extension."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import ndimage, sparse
from scipy.sparse.linalg import splu
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from diffusion.inpainting.config import DepthConfig
from diffusion.rgbd_state import SKY_BEYOND
from geometry.fill import smooth_fill

_LOG_STEP = 0.001  # OpenCV's speckle filter takes 16-bit integers: log inverse depth in these steps


def fill_inverse_depth(
    inverse: Float[Tensor, "1 h w"], known: Bool[Tensor, "1 h w"], config: DepthConfig
) -> Float[Tensor, "1 h w"]:
    """Complete inverse depth by a thin plate over the known part: planes are extended as planes.

    Args:
        inverse: inverse depth, positive where ``known``.
        known: the pixels to extend.
        config: grid and stiffness of the plate.

    Returns:
        Positive inverse depth, exact on known pixels, elsewhere .5 times the smallest to 1.5 times the largest known.
    """
    if not known.any():
        return torch.ones_like(inverse)
    plate = _thin_plate(inverse, known, config)
    detail = smooth_fill((inverse - plate)[None], known[None])[0]
    low, high = inverse[known].min().item(), inverse[known].max().item()
    nearest, farthest = 1.5, 0.5  # bounds of extended inverse depth, of the largest and smallest known
    return torch.where(known, inverse, (plate + detail).clamp(max(farthest * low, 1e-6), nearest * high))


def fit_copied_depth(
    copied: Float[Tensor, "1 h w"],
    extended: Float[Tensor, "1 h w"],
    hole: Bool[Tensor, "1 h w"],
    config: DepthConfig,
) -> Float[Tensor, "1 h w"]:
    """Inverse depth of copied texture: its own detail, on the surfaces extended from around the hole.

    Where both agree roughly, the copied depth follows the extended surface at low frequencies and keeps its own detail.
    Where they do not, the copied object is another one than what was extended, and keeps its depth.

    Args:
        copied: inverse depth that came with the texture, positive, in units of the median.
        extended: inverse depth of the extended surfaces, positive.
        hole: the copied pixels.
        config: agreement and smoothing.

    Returns:
        Positive inverse depth in the hole.
    """
    sky = copied < 1.0 / SKY_BEYOND
    solid = (hole & ~sky).to(copied)
    difference = torch.where(hole & ~sky, extended.clamp_min(1e-4).log() - copied.clamp_min(1e-4).log(), 0.0)
    weight = solid * torch.exp(-((difference / config.agreement) ** 2))

    def smoothed(values: Tensor) -> Tensor:
        return torch.from_numpy(ndimage.gaussian_filter(values.numpy(), (0, config.follow_px, config.follow_px)))

    low = smoothed(difference * weight) / smoothed(weight).clamp_min(1e-3)
    low = low * torch.exp(-((low / config.agreement) ** 2))
    return torch.where(hole & ~sky, copied * low.exp(), copied)


def without_specks(
    inverse: Float[Tensor, "1 h w"], hole: Bool[Tensor, "1 h w"], config: DepthConfig
) -> Float[Tensor, "1 h w"]:
    """Inverse depth in which small pieces of another depth in the hole take the depth of the nearest larger piece.

    A small patch of another depth amid copied texture is more often a mistake than an object, and becomes a floater as
    soon as the camera moves.
    """
    steps = (inverse[0].log().numpy() / _LOG_STEP).round().astype(np.int16)
    gone = np.iinfo(np.int16).min
    largest = round(config.speck * steps.size)
    kept, _ = cv2.filterSpeckles(steps, gone, largest, round(config.same_surface / _LOG_STEP))
    small = kept == gone
    speck = torch.from_numpy(small)[None] & hole
    if not speck.any() or small.all():
        return inverse
    nearest = np.asarray(ndimage.distance_transform_edt(small, return_distances=False, return_indices=True))
    return torch.where(speck, inverse[:, nearest[0], nearest[1]], inverse)


def _thin_plate(
    inverse: Float[Tensor, "1 h w"], known: Bool[Tensor, "1 h w"], config: DepthConfig
) -> Float[Tensor, "1 h w"]:
    """The plate of least bending through cell means of the known part, interpolated to pixels."""
    cell = config.cell_px
    weight = avg_pool2d(known.float()[None], cell, ceil_mode=True)[0, 0]
    mean = avg_pool2d(torch.where(known, inverse, 0.0)[None], cell, ceil_mode=True)[0, 0] / weight.clamp_min(1e-6)
    solved = thin_plate_fill(mean[None], weight, bending=1.0, membrane=config.membrane, data_weight=config.data_weight)
    height, width = inverse.shape[-2:]
    full = interpolate(solved[None], scale_factor=cell, mode="bilinear", align_corners=False)
    return full[0, :, :height, :width].to(inverse)


def thin_plate_fill(
    values: Float[Tensor, "c h w"],
    weight: Float[Tensor, "h w"],
    *,
    bending: float,
    membrane: float,
    data_weight: float = DepthConfig.data_weight,
) -> Float[Tensor, "c h w"]:
    """The smoothest values through the known ones: a sparse least-squares problem, solved exactly.

    Args:
        values: known values; any number where ``weight`` is 0.
        weight: share of each value that is known, 0..1.
        bending: weight of squared second differences: planes are extended as planes.
        membrane: weight of squared first differences: values are extended as constants.
        data_weight: weight of squared differences from known values.
    """
    rows, columns = weight.shape
    system = sparse.csr_matrix((rows * columns, rows * columns))
    for factor, difference in ((bending, _second_difference), (membrane, _first_difference)):
        along_y = sparse.kron(difference(rows), sparse.eye(columns))
        along_x = sparse.kron(sparse.eye(rows), difference(columns))
        system = system + factor * (along_y.T @ along_y + along_x.T @ along_x)
    known = weight.double().numpy().ravel() * data_weight
    regularizer = 1e-9  # keeps the system regular where neither data nor energy determines a value
    solve = splu((system + sparse.diags(known + regularizer)).tocsc()).solve
    solved = solve((known * values.double().numpy().reshape(len(values), -1)).T)
    return torch.from_numpy(solved.T.reshape(values.shape).copy())


def _second_difference(count: int) -> sparse.spmatrix:
    if count < 3:
        return sparse.csr_matrix((1, count))
    return sparse.eye(count - 2, count) - 2.0 * sparse.eye(count - 2, count, k=1) + sparse.eye(count - 2, count, k=2)


def _first_difference(count: int) -> sparse.spmatrix:
    if count < 2:
        return sparse.csr_matrix((1, count))
    return sparse.eye(count - 1, count, k=1) - sparse.eye(count - 1, count)
