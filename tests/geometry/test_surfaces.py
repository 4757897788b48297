"""Which depths belong to one surface."""

from __future__ import annotations

import pytest
import torch

from geometry.camera import Camera
from geometry.filters import windows_3x3
from geometry.frame import Frame
from geometry.surfaces import same_surface, similar_neighbors


def test_same_surface_is_relative_to_the_reference() -> None:
    depth, reference = torch.tensor([1.09, 1.11, 109.0, 0.0]), torch.tensor([1.0, 1.0, 100.0, 0.0])
    assert same_surface(depth, reference, 0.1).tolist() == [True, False, True, False]


@pytest.mark.parametrize(
    ("beyond", "corner"), [(0.0, [0, 0, 0, 0, 0, 1, 0, 3, 4]), (None, [0, 0, 1, 0, 0, 1, 3, 3, 4])]
)
def test_windows_hold_each_pixel_in_the_middle(beyond: float | None, corner: list[float]) -> None:
    image = torch.arange(6.0).reshape(1, 2, 3)
    windows = windows_3x3(image, beyond)
    assert torch.equal(windows[:, 4], image)
    assert windows[0, :, 0, 0].tolist() == corner


def test_similar_neighbors_counts_neither_sky_nor_invalid_pixels() -> None:
    depth = torch.full((1, 3, 3), 2.0)
    depth[0, 0, 0] = 3.0
    valid, sky = torch.ones(1, 3, 3, dtype=torch.bool), torch.zeros(1, 3, 3, dtype=torch.bool)
    valid[0, 0, 1], sky[0, 0, 2] = False, True
    frame = Frame(torch.zeros(3, 3, 3), depth, valid, sky, Camera.from_fov(60.0, (3, 3), torch.eye(4)))
    assert similar_neighbors(frame)[0, 1, 1] == 5
    assert similar_neighbors(frame)[0, 0, 0] == 0
