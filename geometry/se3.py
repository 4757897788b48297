"""Rigid transforms: exponential, logarithm, inverse, interpolation, quaternions, and the check that a pose is rigid.

A twist is ``(v, omega)``: translational part first, rotation vector in radians second, as in Eade, "Lie Groups for 2D
and 3D Transformations" (2017). Quaternions are wxyz. Everything is differentiable with finite gradients, the identity
and half turns included (there, along the branch that was taken).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

ORTHOGONALITY_TOLERANCE = 1e-3


def exp(twist: Float[Tensor, "*b 6"]) -> Float[Tensor, "*b 4 4"]:
    """The rigid transform that a twist generates.

    Args:
        twist: ``(v, omega)``, scene units and radians.

    Example:
        >>> exp(torch.zeros(5, 6)).shape
        torch.Size([5, 4, 4])
    """
    # Closed form: torch.linalg.matrix_exp is off by up to 4e-5 in float32 at half a radian.
    v, omega = twist[..., :3], twist[..., 3:]
    (x, y, z), zero = omega.unbind(-1), torch.zeros_like(omega[..., 0])
    hat = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    hat_sq = hat @ hat
    first, second, third = _exp_coefficients((omega * omega).sum(-1)[..., None, None])
    rotation = torch.eye(3).to(twist) + first * hat + second * hat_sq
    translation = v[..., None] + (second * hat + third * hat_sq) @ v[..., None]
    return rigid(rotation, translation[..., 0])


def _exp_coefficients(angle_sq: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``sin a / a``, ``(1 - cos a) / a^2`` and ``(a - sin a) / a^3``, by their series where the quotients cancel."""
    # Below 0.06 the terms left out are under the rounding of float64.
    small = angle_sq < 0.06
    q = torch.where(small, angle_sq, 0.0)
    a = torch.where(small, 1.0, angle_sq).sqrt()
    first = 1 - q / 6 * (1 - q / 20 * (1 - q / 42 * (1 - q / 72 * (1 - q / 110))))
    second = (1 - q / 12 * (1 - q / 30 * (1 - q / 56 * (1 - q / 90 * (1 - q / 132))))) / 2
    third = (1 - q / 20 * (1 - q / 42 * (1 - q / 72 * (1 - q / 110 * (1 - q / 156))))) / 6
    return (
        torch.where(small, first, torch.sin(a) / a),
        torch.where(small, second, 2.0 * (torch.sin(a / 2.0) / a) ** 2),
        torch.where(small, third, (a - torch.sin(a)) / a**3),
    )


def log(transform: Float[Tensor, "*b 4 4"]) -> Float[Tensor, "*b 6"]:
    """The shortest twist ``(v, omega)`` that generates a rigid transform; the rotation angle is at most pi.

    At exactly pi both axes are right and one of them is returned.
    """
    quat, translation = quat_from_matrix(transform[..., :3, :3]), transform[..., :3, 3]
    w, xyz = quat[..., :1], quat[..., 1:]
    square = (xyz * xyz).sum(-1, keepdim=True)

    # 2 atan2(|xyz|, w) / |xyz|, by its series where |xyz| has no derivative. Each branch sees inputs that keep it
    # finite.
    tiny = square < 1e-8
    w_tiny, sine = torch.where(tiny, w, 1.0), torch.where(tiny, 1.0, square).sqrt()
    series = 2.0 / w_tiny * (1.0 - square / (3.0 * w_tiny**2))
    omega = torch.where(tiny, series, 2.0 * torch.atan2(sine, w) / sine) * xyz

    # (1 - a/2 cot(a/2)) / a^2, which cancels for small angles a.
    angle_sq = (omega * omega).sum(-1, keepdim=True)
    # The terms left out are under 1e-15.
    small = angle_sq < 0.06
    a2 = torch.where(small, angle_sq, 0.0)
    series = 1 / 12 + a2 * (1 / 720 + a2 * (1 / 30240 + a2 * (1 / 1209600 + a2 / 47900160)))
    half = torch.where(small, 1.0, angle_sq).sqrt() / 2.0
    closed = (1.0 - half * torch.cos(half) / torch.sin(half)) / (4.0 * half**2)
    turned = torch.linalg.cross(omega, translation)
    v = translation - 0.5 * turned + torch.where(small, series, closed) * torch.linalg.cross(omega, turned)
    return torch.cat([v, omega], -1)


def inverse(transform: Float[Tensor, "*b 4 4"]) -> Float[Tensor, "*b 4 4"]:
    """Rigid inverse: the transposed rotation, not a general matrix inverse."""
    rotation = transform[..., :3, :3].transpose(-1, -2)
    translation = -(rotation @ transform[..., :3, 3:])
    return torch.cat([torch.cat([rotation, translation], -1), transform[..., 3:, :]], -2)


def interpolate(
    start: Float[Tensor, "*a 4 4"], end: Float[Tensor, "*c 4 4"], weight: Float[Tensor, "*d"] | float
) -> Float[Tensor, "*b 4 4"]:
    """The point at ``weight`` (0 = start, 1 = end) on the screw motion between two transforms; batches broadcast.

    Example:
        >>> interpolate(torch.eye(4), torch.eye(4), torch.linspace(0, 1, 9)).shape
        torch.Size([9, 4, 4])
    """
    share = torch.as_tensor(weight, dtype=start.dtype, device=start.device)
    return start @ exp(share[..., None] * log(inverse(start) @ end))


def quat_from_matrix(rotation: Float[Tensor, "*b 3 3"], *, positive_w: bool = True) -> Float[Tensor, "*b 4"]:
    """Unit quaternions wxyz of rotation matrices, with ``w >= 0`` unless the sign is left as it comes.

    Each row of ``4 q q^T`` is the quaternion times one of its entries; the row of the largest entry is accurate.
    """
    (a, b, c), (d, e, f), (g, h, i) = (row.unbind(-1) for row in rotation.unbind(-2))
    one = torch.ones_like(a)
    rows = [
        [one + a + e + i, h - f, c - g, d - b],
        [h - f, one + a - e - i, b + d, c + g],
        [c - g, b + d, one - a + e - i, f + h],
        [d - b, c + g, f + h, one - a - e + i],
    ]
    outer = torch.stack([torch.stack(row, -1) for row in rows], -2)
    best = outer.diagonal(dim1=-2, dim2=-1).argmax(-1)
    quat = torch.take_along_dim(outer, best[..., None, None], -2).squeeze(-2)
    quat = quat / torch.linalg.vector_norm(quat, dim=-1, keepdim=True)
    return torch.where(quat[..., :1] < 0.0, -quat, quat) if positive_w else quat


def matrix_from_quat(quat: Float[Tensor, "*b 4"]) -> Float[Tensor, "*b 3 3"]:
    """Rotation matrices of quaternions wxyz; any length but zero, for they are normalized here."""
    w, x, y, z = (quat / torch.linalg.vector_norm(quat, dim=-1, keepdim=True)).unbind(-1)
    entries = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(entries, -1).unflatten(-1, (3, 3))


def rigid(rotation: Float[Tensor, "*b 3 3"], translation: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 4 4"]:
    """Put a rotation and a translation into one transform."""
    upper = torch.cat([rotation, translation[..., None]], -1)
    return torch.cat([upper, upper.new_tensor([0.0, 0.0, 0.0, 1.0]).expand_as(upper[..., :1, :])], -2)


def checked_rigid(transforms: Float[Tensor, "n 4 4"], field: str) -> Float[Tensor, "n 4 4"]:
    """Refuse what is not rigid and return the rest with rotations made exactly orthonormal.

    Args:
        transforms: candidate rigid transforms.
        field: what the message calls entry ``i``, with ``{}`` for the index, such as ``"frames[{}].transform_matrix"``.

    Raises:
        ValueError: an entry is not finite, has a last row other than ``0 0 0 1``, is not orthonormal to
            ``ORTHOGONALITY_TOLERANCE``, or is left-handed; the message names the first such entry.
    """
    rotation = transforms[:, :3, :3]
    error = (rotation.transpose(-1, -2) @ rotation - torch.eye(3).to(rotation)).abs().amax((-1, -2))
    last_row = (transforms[:, 3] - transforms.new_tensor([0.0, 0.0, 0.0, 1.0])).abs().amax(-1)
    for index in range(len(transforms)):
        name = field.format(index)
        if not transforms[index].isfinite().all():
            raise ValueError(f"{name}: want finite numbers, got NaN or infinity; repair or remove this pose")
        if last_row[index] > 1e-6:
            got = [round(value, 6) for value in transforms[index, 3].tolist()]
            raise ValueError(f"{name}: want the last row 0 0 0 1, got {got}; is the matrix transposed?")
        if error[index] > ORTHOGONALITY_TOLERANCE:
            raise ValueError(
                f"{name}: want a rotation, got a 3x3 part that is off orthonormal by {error[index]:.3g}; "
                "remove scale and shear from this pose"
            )
        if torch.linalg.det(rotation[index]) < 0.0:
            raise ValueError(
                f"{name}: want a right-handed rotation, got determinant -1; an axis of this pose is mirrored"
            )
    return rigid(matrix_from_quat(quat_from_matrix(rotation)), transforms[:, :3, 3])
