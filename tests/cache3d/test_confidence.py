"""Confidence: each factor's shape, and that more confidence means more right pixels in a world with ground truth."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cache3d.gaussian_cache import GaussianCache
from cache3d.point_cache import PointCache
from cache3d.rendering import confidence as trust
from tests.helpers import cameras_at, chunk_of, pillar_before_wall, pose_at

SIZE = (40, 64)


@pytest.mark.parametrize("make", [GaussianCache, PointCache])
def test_accuracy_rises_with_confidence(make: type[GaussianCache]) -> None:
    cache = make()
    seen = pillar_before_wall(cameras_at((0.0, 0.0, 0.0), size=SIZE))[0]
    cache.integrate(chunk_of(seen))
    confidence, right = [], []
    for x, z, yaw_deg in ((0.1, 0.0, 0.0), (-0.3, 0.0, 8.0), (0.5, 0.2, -20.0), (-0.8, 0.6, 35.0), (1.4, 1.2, -60.0)):
        truth = pillar_before_wall(cameras_at(pose_at(x, 0.0, z, yaw_deg), size=SIZE))[0]
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
