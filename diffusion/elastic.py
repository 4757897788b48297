"""Go on from what is known as a sheet does that is stretched, or a plate that is bent."""

from __future__ import annotations

import torch
from jaxtyping import Float
from scipy import sparse
from scipy.sparse.linalg import splu
from torch import Tensor

HOLD = 10.0  # how firmly known values hold, against what bends or stretches
SLIGHT = 1e-9  # keeps what nothing holds defined


def elastic_fill(
    values: Float[Tensor, "c h w"], weight: Float[Tensor, "h w"], *, bending: float, tension: float
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
    for price, difference in ((bending, _second_difference), (tension, _first_difference)):
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
