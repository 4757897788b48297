"""Confidence: each factor's shape, and that more confidence means more right pixels in a world with ground truth."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cache3d.gaussian_cache import GaussianCache
from cache3d.point_cache import PointCache
from cache3d.rendering import confidence as trust
from geometry.camera import Camera
from geometry.frame import Chunk, Frame

SIZE = (40, 64)
PILLAR = (-0.35, 0.25, 1.2)  # left, right, depth: stands before a wall at depth 2.5
WALL = 2.5


def look(camera: Camera) -> Frame:
    """A textured wall behind a textured pillar, seen exactly."""
    height, width = camera.size
    rows, columns = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    ray = torch.stack([columns, rows, torch.ones_like(rows)], -1)
    ray[..., :2] = (ray[..., :2] - camera.center_px[0]) / camera.focal_px[0]
    pose = camera.world_from_camera[0]
    world = ray @ pose[:3, :3].T

    def plane(distance: float) -> tuple[Tensor, Tensor]:
        depth = (distance - pose[2, 3]) / world[..., 2]
        return depth, pose[:3, 3] + depth[..., None] * world

    near, on_pillar = plane(PILLAR[2])
    far, on_wall = plane(WALL)
    pillar = (on_pillar[..., 0] > PILLAR[0]) & (on_pillar[..., 0] < PILLAR[1])
    point, depth = torch.where(pillar[..., None], on_pillar, on_wall), torch.where(pillar, near, far)
    rgb = torch.stack([torch.sin(9.0 * point[..., k % 2] + k + 2.0 * pillar) for k in range(3)]) * 0.35 + 0.5
    valid = torch.ones(1, 1, height, width, dtype=torch.bool)
    return Frame(rgb[None], depth[None, None], valid, torch.zeros_like(valid), camera)


def at(x: float, z: float, yaw_deg: float) -> Camera:
    yaw = math.radians(yaw_deg)
    pose = torch.eye(4)
    pose[0, 0], pose[0, 2], pose[2, 0], pose[2, 2] = math.cos(yaw), math.sin(yaw), -math.sin(yaw), math.cos(yaw)
    pose[0, 3], pose[2, 3] = x, z
    return Camera.from_fov(60.0, SIZE, pose[None])


@pytest.mark.parametrize("make", [GaussianCache, PointCache])
def test_accuracy_rises_with_confidence(make: type[GaussianCache]) -> None:
    cache = make()
    seen = look(at(0.0, 0.0, 0.0))
    cache.integrate(Chunk(seen, 0, observed=True, confidence=torch.ones_like(seen.depth)))
    confidence, right = [], []
    for x, z, yaw_deg in ((0.1, 0.0, 0.0), (-0.3, 0.0, 8.0), (0.5, 0.2, -20.0), (-0.8, 0.6, 35.0), (1.4, 1.2, -60.0)):
        truth = look(at(x, z, yaw_deg))
        guide = cache.render(truth.camera)
        rendered = guide.coverage > 0.05
        color = (guide.rgb - truth.rgb).square().mean(1, keepdim=True).sqrt() < 0.1
        depth = (guide.depth - truth.depth).abs() < 0.05 * truth.depth
        confidence.append(guide.confidence[rendered])
        right.append((color & depth)[rendered].float())
    believed, correct = torch.cat(confidence), torch.cat(right)
    shares = [correct[(believed >= low) & (believed < high)] for low, high in ((0.0, 0.5), (0.5, 0.9), (0.9, 1.01))]
    told = [part.mean().item() for part in shares if len(part) >= 30]
    assert len(told) >= 2
    assert all(more > less for less, more in pairwise(told))
    assert told[-1] > 0.9
    assert abs(believed.mean() - correct.mean()) < 0.1


@settings(max_examples=20, deadline=None)
@given(st.floats(0.01, 50.0), st.floats(0.01, 50.0))
def test_sampling_density_falls_with_the_extent(a: float, b: float) -> None:
    closer, farther = trust.sampling_density(torch.tensor([max(a, b), min(a, b)]))
    assert closer <= farther <= 1.0


def test_factors_are_one_without_doubt_and_zero_from_behind() -> None:
    cosine = torch.tensor([1.0, 0.3, 0.0, -0.5])
    assert trust.viewing_angle(cosine, torch.full_like(cosine, 0.3)).tolist() == [1.0, 1.0, 0.0, 0.0]
    none = torch.zeros(1, 1)
    assert trust.depth_agreement(none, none) == 1.0
    assert trust.depth_agreement(none, none + 1.0) == 1.0
    assert trust.depth_agreement(none + 0.3, none) < 0.05
    assert trust.depth_agreement(none, none + 0.5) == 0.25
    assert trust.depth_agreement(none + 0.5, none + 0.99) > 0.95
