"""Projection, warping and filling: exact where geometry decides, and the fast warp equals the readable one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geometry import warping
from geometry.camera import Camera
from geometry.fill import smooth_fill, smooth_fill_reference
from geometry.frame import Frame
from geometry.project import normals_from_depth, pixel_centers, project, unproject
from geometry.se3 import exp
from geometry.warping import forward_warp

SIZE = (12, 20)


def camera_of(*twist: float) -> Camera:
    return Camera.from_fov(60.0, SIZE, exp(torch.tensor([twist], dtype=torch.float32)))


def plane(depth: float = 2.0) -> Frame:
    z = torch.full((1, 1, *SIZE), depth)
    rgb = torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    return Frame(
        rgb, z, torch.ones_like(z, dtype=torch.bool), torch.zeros_like(z, dtype=torch.bool), camera_of(*[0.0] * 6)
    )


@settings(max_examples=15, deadline=None)
@given(st.lists(st.floats(-0.4, 0.4), min_size=6, max_size=6), st.integers(0, 1000))
def test_project_inverts_unproject(twist: list[float], seed: int) -> None:
    camera = camera_of(*twist)
    depth = 1.0 + torch.rand(1, 1, *SIZE, generator=torch.Generator().manual_seed(seed))
    points = unproject(depth, camera).flatten(2).transpose(1, 2)
    pixels, z = project(points, camera)
    centers = pixel_centers(SIZE, depth).flatten(1).T
    assert torch.allclose(z, depth.flatten(1), atol=1e-5)
    assert torch.allclose(pixels[0], centers, atol=1e-3)


def test_depth_is_z_and_not_ray_length() -> None:
    points = unproject(torch.full((1, 1, *SIZE), 3.0), camera_of(*[0.0] * 6))
    assert torch.allclose(points[:, 2], torch.full((1, *SIZE), 3.0))


def test_projection_is_differentiable() -> None:
    depth = torch.full((1, 1, *SIZE), 2.0, dtype=torch.float64, requires_grad=True)
    camera = camera_of(0.1, 0, 0, 0, 0.1, 0).to(torch.float64)
    assert torch.autograd.gradcheck(lambda d: unproject(d, camera).sum(1), (depth,))


def test_warp_to_the_same_camera_is_the_identity() -> None:
    frame = plane()
    values, depth, hit = forward_warp(frame, frame.camera, frame.rgb)
    assert hit.all()
    assert torch.equal(values, frame.rgb)
    assert torch.allclose(depth, frame.depth)


def test_a_sideways_plane_shifts_without_cracks() -> None:
    frame = plane()
    focal = frame.camera.focal_px[0, 0].item()
    target = camera_of(3.0 * 2.0 / focal, 0, 0, 0, 0, 0)  # three pixels to the right
    values, _, hit = forward_warp(frame, target, frame.rgb)
    assert torch.allclose(values[0, :, :, : SIZE[1] - 3], frame.rgb[0, :, :, 3:], atol=1e-6)
    assert hit[0, 0, :, : SIZE[1] - 3].all()
    assert not hit[0, 0, :, SIZE[1] - 2 :].any()


def test_the_nearer_surface_wins() -> None:
    near, far = plane(1.0), plane(2.0)
    both = Frame.concatenate([far, near])
    values, depth, _ = forward_warp(both, far.camera, torch.stack([torch.zeros(1, *SIZE), torch.ones(1, *SIZE)]))
    assert torch.equal(values, torch.ones(1, 1, *SIZE))
    assert torch.allclose(depth, torch.ones(1, 1, *SIZE))


@settings(max_examples=8, deadline=None)
@given(st.lists(st.floats(-0.3, 0.3), min_size=6, max_size=6), st.integers(0, 1000))
def test_fast_warp_equals_the_readable_one(twist: list[float], seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    depth = 1.0 + torch.rand(1, 1, *SIZE, generator=rng)
    valid = torch.rand(1, 1, *SIZE, generator=rng) > 0.2
    frame = Frame(torch.rand(1, 3, *SIZE, generator=rng), depth, valid, torch.zeros_like(valid), camera_of(*[0.0] * 6))
    arguments = warping._warp_arguments(frame, camera_of(*twist), frame.rgb)
    for fast, slow in zip(warping._splat(*arguments), warping._splat_reference(*arguments), strict=True):
        assert np.array_equal(fast, slow)


def test_warp_refuses_values_of_another_size() -> None:
    frame = plane()
    with pytest.raises(ValueError, match="values: want"):
        forward_warp(frame, frame.camera, torch.zeros(1, 3, 5, 5))
    with pytest.raises(ValueError, match="depth: want the camera's size"):
        unproject(torch.ones(1, 1, 5, 5), frame.camera)


@pytest.mark.parametrize("size", [(24, 37), (1, 9), (2, 2), (61, 3)])
def test_smooth_fill_is_that_of_tensor_operations(size: tuple[int, int]) -> None:
    rng = torch.Generator().manual_seed(3)
    values, known = torch.rand(2, 3, *size, generator=rng), torch.rand(2, 1, *size, generator=rng) > 0.3
    known[..., : size[0] // 2, : size[1] // 2] = False
    torch.testing.assert_close(smooth_fill(values, known), smooth_fill_reference(values, known), rtol=0.0, atol=2e-6)


def test_smooth_fill_of_one_color_is_that_color_however_little_is_known() -> None:
    known = torch.zeros(1, 103, 154, dtype=torch.bool)
    known[:, 30:34, 40:50] = True
    for fill in (smooth_fill, smooth_fill_reference):
        torch.testing.assert_close(fill(torch.full((1, 103, 154), 0.25), known), torch.full((1, 103, 154), 0.25))


def test_smooth_fill_keeps_what_is_known_and_stays_within_its_range() -> None:
    rng = torch.Generator().manual_seed(0)
    values, known = torch.rand(2, 3, 17, 23, generator=rng), torch.rand(2, 1, 17, 23, generator=rng) > 0.7
    filled = smooth_fill(values, known)
    where = known.expand_as(values)
    assert torch.equal(filled[where], values[where])
    assert filled.min() >= values[where].min() - 1e-5
    assert filled.max() <= values[where].max() + 1e-5
    assert torch.equal(smooth_fill(values, torch.zeros_like(known)), torch.zeros_like(values))


def test_normals_of_a_plane_face_the_camera() -> None:
    frame = plane()
    normals = normals_from_depth(frame.depth, frame.camera, frame.valid)
    assert torch.allclose(normals, torch.tensor([0.0, 0.0, -1.0])[None, :, None, None].expand_as(normals), atol=1e-4)
    unknown = normals_from_depth(frame.depth, frame.camera, torch.zeros_like(frame.valid))
    assert torch.equal(unknown, torch.zeros_like(unknown))


def test_projection_agrees_with_kornia() -> None:
    perspective = pytest.importorskip("kornia.geometry.camera.perspective")
    camera = camera_of(0.2, -0.1, 0.3, 0.1, -0.2, 0.05)
    points = torch.rand(1, 30, 3, generator=torch.Generator().manual_seed(1)) + torch.tensor([0.0, 0.0, 2.0])
    pixels, depth = project(points, camera)
    local = points @ camera.camera_from_world[:, :3, :3].mT + camera.camera_from_world[:, None, :3, 3]
    assert torch.allclose(pixels, perspective.project_points(local, camera.intrinsics[:, None]), atol=1e-3)
    again = perspective.unproject_points(pixels, depth[..., None], camera.intrinsics[:, None])
    assert torch.allclose(again, local, atol=1e-4)
