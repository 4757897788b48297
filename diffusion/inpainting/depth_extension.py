"""Depth of what nobody has seen: extend the surfaces at the border of the hole, from behind at a disocclusion."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import ndimage, sparse
from scipy.sparse.linalg import splu
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from geometry.fill import smooth_fill

HOLD = 10.0  # how firmly known values hold, against what bends or stretches
SLIGHT = 1e-9  # keeps what nothing holds defined

COARSE_PX = 8  # surfaces are extended on a grid this coarse
STIFFNESS = 0.02  # share of membrane in the plate: keeps the extension from running away
SKY = 1.0 / 30.0  # inverse depth, in units of the median, under which copied texture is sky
AGREE = 0.35  # difference of log depths up to which a copied thing may be what was extended
SETTLE_PX = 12.0  # how broadly copied depth follows the extended surface
SPECK = 0.002  # share of the picture
LOG_STEP, SAME_SURFACE = 0.001, 0.08  # grid of log inverse depth; difference between neighbors on one surface


def fill_inverse_depth(inverse: Float[Tensor, "1 h w"], known: Bool[Tensor, "1 h w"]) -> Float[Tensor, "1 h w"]:
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


def settle_inverse_depth(
    copied: Float[Tensor, "1 h w"],
    extended: Float[Tensor, "1 h w"],
    hole: Bool[Tensor, "1 h w"],
) -> Float[Tensor, "1 h w"]:
    """Depth for copied texture: its own steps, on the surfaces that go on from around the hole.

    Where both agree roughly, the copied depth follows the extended surface at large and keeps its own detail, so that
    planes go on as planes. Where they do not, the copied thing is another one than what was extended, and keeps its
    depth.

    Args:
        copied: inverse depth that came with the texture, positive.
        extended: inverse depth of the extended surfaces, positive.
        hole: the copied pixels.

    Returns:
        Positive inverse depth in the hole.
    """
    sky = copied < SKY
    solid = (hole & ~sky).to(copied)
    difference = torch.where(hole & ~sky, extended.clamp_min(1e-4).log() - copied.clamp_min(1e-4).log(), 0.0)
    weight = solid * torch.exp(-((difference / AGREE) ** 2))
    low = _blur(difference * weight) / _blur(weight).clamp_min(1e-3)
    low = low * torch.exp(-((low / AGREE) ** 2))
    locked = copied * low.exp()
    return torch.where(hole & ~sky, locked, copied)


def without_specks(inverse: Float[Tensor, "1 h w"], hole: Bool[Tensor, "1 h w"]) -> Float[Tensor, "1 h w"]:
    """Inverse depth whose pieces in the hole are no smaller than ``SPECK`` of the picture.

    A patch of another depth amid copied texture is a mistake more often than a thing, and as soon as the camera moves
    one looks past it. Specks take the depth of the nearest pixel that is none.
    """
    steps = (inverse[0].log().numpy() / LOG_STEP).round().astype(np.int16)
    gone = np.iinfo(np.int16).min
    kept, _ = cv2.filterSpeckles(steps, gone, round(SPECK * steps.size), round(SAME_SURFACE / LOG_STEP))
    small = kept == gone
    speck = torch.from_numpy(small)[None] & hole
    if not speck.any() or small.all():
        return inverse
    nearest = np.asarray(ndimage.distance_transform_edt(small, return_distances=False, return_indices=True))
    return torch.where(speck, inverse[:, nearest[0], nearest[1]], inverse)


def _blur(values: Float[Tensor, "1 h w"]) -> Float[Tensor, "1 h w"]:
    return torch.from_numpy(ndimage.gaussian_filter(values.numpy(), (0, SETTLE_PX, SETTLE_PX)))


def _thin_plate(inverse: Float[Tensor, "1 h w"], known: Bool[Tensor, "1 h w"]) -> Float[Tensor, "1 h w"]:
    """Least bending through block means of the known part, solved on the coarse grid, sampled at pixels."""
    weight = avg_pool2d(known.float()[None], COARSE_PX, ceil_mode=True)[0, 0]
    mean = avg_pool2d(torch.where(known, inverse, 0.0)[None], COARSE_PX, ceil_mode=True)[0, 0] / weight.clamp_min(1e-6)
    solved = thin_plate_fill(mean[None], weight, bending=1.0, membrane=STIFFNESS)
    height, width = inverse.shape[-2:]
    full = interpolate(solved[None], scale_factor=COARSE_PX, mode="bilinear", align_corners=False)
    return full[0, :, :height, :width].to(inverse)


def thin_plate_fill(
    values: Float[Tensor, "c h w"], weight: Float[Tensor, "h w"], *, bending: float, membrane: float
) -> Float[Tensor, "c h w"]:
    """The smoothest values through what is known.

    Args:
        values: anything where ``weight`` is 0.
        weight: how much of each value is known, 0..1.
        bending: price of second differences: planes go on as planes.
        tension: price of first differences: values go on as they are.
    """
    rows, columns = weight.shape
    system = sparse.csr_matrix((rows * columns, rows * columns))
    for price, difference in ((bending, _second_difference), (membrane, _first_difference)):
        along_y = sparse.kron(difference(rows), sparse.eye(columns))
        along_x = sparse.kron(sparse.eye(rows), difference(columns))
        system = system + price * (along_y.T @ along_y + along_x.T @ along_x)
    data = weight.double().numpy().ravel() * HOLD
    solve = splu((system + sparse.diags(data + SLIGHT)).tocsc()).solve
    solved = solve((data * values.double().numpy().reshape(len(values), -1)).T)
    return torch.from_numpy(solved.T.reshape(values.shape).copy())


def _second_difference(count: int) -> sparse.spmatrix:
    if count < 3:
        return sparse.csr_matrix((1, count))
    return sparse.eye(count - 2, count) - 2.0 * sparse.eye(count - 2, count, k=1) + sparse.eye(count - 2, count, k=2)


def _first_difference(count: int) -> sparse.spmatrix:
    if count < 2:
        return sparse.csr_matrix((1, count))
    return sparse.eye(count - 1, count, k=1) - sparse.eye(count - 1, count)
