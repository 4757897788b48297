"""SE(3): group axioms, agreement with SciPy, and the singular points."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from torch import Tensor

from geometry.se3 import checked_rigid, exp, interpolate, inverse, log, matrix_from_quat, quat_from_matrix, rigid

quick = settings(max_examples=40, deadline=None)
coordinate = st.floats(-3.0, 3.0, width=32)
# Angles that matter: nothing, below float's square root, ordinary, just short of a half turn.
angle = st.one_of(st.sampled_from([0.0, 1e-12, 1e-8, 1e-4, 1e-2, 0.2449, 0.245, math.pi - 1e-6]), st.floats(0.0, 3.1))


@st.composite
def twists(draw: st.DrawFn) -> Tensor:
    axis = torch.tensor(draw(st.tuples(coordinate, coordinate, coordinate)), dtype=torch.float64)
    axis = axis + torch.tensor([0.0, 0.0, 7.0], dtype=torch.float64)
    moved = torch.tensor(draw(st.tuples(coordinate, coordinate, coordinate)), dtype=torch.float64)
    return torch.cat([moved, draw(angle) * axis / axis.norm()])


def close(a: Tensor, b: Tensor, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(a, b, atol=tolerance, rtol=0.0)


@quick
@given(twists(), twists(), twists())
def test_group_axioms(a: Tensor, b: Tensor, c: Tensor) -> None:
    x, y, z, identity = exp(a), exp(b), exp(c), torch.eye(4, dtype=torch.float64)
    close((x @ y) @ z, x @ (y @ z))
    close(x @ inverse(x), identity)
    close(inverse(x @ y), inverse(y) @ inverse(x))
    close(exp(-a), inverse(x))
    close(checked_rigid((x @ y)[None], "{}")[0], x @ y)


@quick
@given(twists())
def test_exp_and_log_agree_with_scipy_and_undo_each_other(twist: Tensor) -> None:
    x, y, z = twist[3:].tolist()
    generator = np.zeros((4, 4))
    generator[:3, :3] = [[0, -z, y], [z, 0, -x], [-y, x, 0]]
    generator[:3, 3] = twist[:3]
    transform = exp(twist)
    np.testing.assert_allclose(transform.numpy(), scipy.linalg.expm(generator), atol=1e-12)
    np.testing.assert_allclose(
        transform[:3, :3].numpy(), Rotation.from_rotvec(twist[3:].numpy()).as_matrix(), atol=1e-12
    )
    # Near a half turn the axis hangs on the square root of the rounding; elsewhere log is accurate to rounding.
    close(log(transform), twist, 1e-8)


@quick
@given(twists())
def test_float32_round_trip(twist: Tensor) -> None:
    # The worst of 1000 random twists was 1.7e-6; near a half turn the sign of the axis may flip, so compare transforms.
    close(exp(log(exp(twist.float()))), exp(twist).float(), 2e-5)


@pytest.mark.parametrize("axis", [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.6, 0.0, -0.8)])
def test_log_at_exactly_half_a_turn(axis: tuple[float, float, float]) -> None:
    transform = torch.eye(4, dtype=torch.float64)
    n = torch.tensor(axis, dtype=torch.float64)
    transform[:3, :3] = 2.0 * torch.outer(n, n) - torch.eye(3)
    transform[:3, 3] = torch.tensor([1.0, -2.0, 0.5])
    assert log(transform)[3:].norm().item() == pytest.approx(math.pi, abs=1e-7)
    close(exp(log(transform)), transform)


@pytest.mark.parametrize("size", [0.0, 1e-9, 1e-4, 0.1, 1.0, math.pi - 1e-4, math.pi])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_everywhere(size: float, dtype: torch.dtype) -> None:
    twist = torch.tensor([0.3, -0.2, 0.9, 0.0, size, 0.0], dtype=dtype, requires_grad=True)
    log(exp(twist)).sum().backward()
    assert twist.grad is not None
    assert twist.grad.isfinite().all()


@pytest.mark.parametrize("size", [0.0, 1e-3, 0.2, 0.3, 2.5])
def test_gradients_are_right(size: float) -> None:
    twist = torch.tensor([0.3, -0.2, 0.9, 0.6 * size, 0.0, 0.8 * size], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(exp, (twist,))
    assert torch.autograd.gradcheck(lambda t: log(exp(t)), (twist,), atol=1e-5)


@quick
@given(twists(), twists(), st.floats(0.0, 1.0))
def test_interpolation_goes_from_one_to_the_other_along_a_screw(a: Tensor, b: Tensor, weight: float) -> None:
    x, y = exp(a), exp(b)
    close(interpolate(x, y, 0.0), x, 1e-7)
    close(interpolate(x, y, 1.0), y, 1e-7)
    middle = interpolate(x, y, weight)
    # Each part of the way is that share of the whole twist.
    close(log(inverse(x) @ middle), weight * log(inverse(x) @ y), 1e-6)


def test_interpolation_broadcasts_over_weights() -> None:
    quarter = exp(torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, math.pi / 2]))
    path = interpolate(torch.eye(4), quarter, torch.linspace(0, 1, 3))
    assert path.shape == (3, 4, 4)
    close(path[1, :3, 0], torch.tensor([0.5**0.5, 0.5**0.5, 0.0]), 1e-6)


@quick
@given(twists())
def test_quaternions_agree_with_scipy(twist: Tensor) -> None:
    rotation = exp(twist)[:3, :3]
    quat = quat_from_matrix(rotation)
    expected = Rotation.from_matrix(rotation.numpy()).as_quat(canonical=True, scalar_first=True)
    assert quat[0] >= 0.0
    np.testing.assert_allclose(np.abs(quat.numpy() @ expected), 1.0, atol=1e-12)
    close(matrix_from_quat(3.0 * quat), rotation)


def test_quaternions_of_the_four_half_turns_keep_their_batch() -> None:
    turns = torch.stack(
        [torch.eye(3), *(torch.diag(torch.tensor(d)) for d in ([1.0, -1, -1], [-1.0, 1, -1], [-1.0, -1, 1]))]
    )
    close(quat_from_matrix(turns.view(2, 2, 3, 3)).view(4, 4).abs(), torch.eye(4))


def _turned(change: str) -> Tensor:
    pose = torch.eye(4, dtype=torch.float64)
    if change == "nan":
        pose[1, 3] = math.nan
    elif change == "scale":
        pose[:3, :3] *= 1.01
    elif change == "mirror":
        pose[0, 0] = -1.0
    elif change == "transposed":
        pose[3, 0] = 2.0
    return pose


@pytest.mark.parametrize(
    ("change", "message"),
    [("nan", "NaN"), ("scale", "off orthonormal"), ("mirror", "right-handed"), ("transposed", "last row")],
)
def test_poses_that_are_not_rigid_are_refused_by_name(change: str, message: str) -> None:
    good = torch.eye(4, dtype=torch.float64)
    with pytest.raises(ValueError, match=rf"frames\[1\]\.matrix: .*{message}"):
        checked_rigid(torch.stack([good, _turned(change)]), "frames[{}].matrix")


def test_rounded_rotations_are_made_orthonormal() -> None:
    rotation = exp(torch.tensor([0.0, 0.0, 0.0, 0.4, -0.9, 0.2], dtype=torch.float64))[:3, :3]
    rounded = rigid((rotation * 1000).round() / 1000, torch.ones(3, dtype=torch.float64))
    fixed = checked_rigid(rounded[None], "{}")[0, :3, :3]
    close(fixed.T @ fixed, torch.eye(3, dtype=torch.float64), 1e-12)
    close(fixed, rotation, 2e-3)
