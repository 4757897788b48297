"""Which frames a memory keeps and recalls."""

from __future__ import annotations

import pytest
import torch

from diffusion.view_selection import frames_kept, frames_recalled, view_distance
from geometry.camera import Camera


def _cameras(x: list[float]) -> Camera:
    pose = torch.eye(4).repeat(len(x), 1, 1)
    pose[:, 0, 3] = torch.tensor(x)
    return Camera.from_fov(60.0, (16, 32), pose)


def test_view_distance_adds_position_and_direction() -> None:
    pose = torch.eye(4).repeat(2, 1, 1)
    pose[1, :3, :3] = torch.diag(torch.tensor([-1.0, 1.0, -1.0]))  # rotated by 180 degrees
    pose[1, 0, 3] = 2.0
    distance = view_distance(Camera.from_fov(60.0, (8, 8), pose), Camera.from_fov(60.0, (8, 8), pose), unit=2.0)
    torch.testing.assert_close(distance, torch.tensor([[0.0, 3.0], [3.0, 0.0]]))


@pytest.mark.parametrize(("sink", "kept"), [(1, [0, 3, 4]), (2, [0, 1, 4]), (0, [2, 3, 4])])
def test_sink_and_recent_stay_and_of_the_others_the_most_different(sink: int, kept: list[int]) -> None:
    camera = _cameras([0.0, 0.1, 0.3, 5.0, 9.0])
    assert frames_kept(camera, 1.0, bank=3, sink=sink, recent=1).tolist() == kept


def test_diversity_recalls_what_differs_from_what_is_recalled_already() -> None:
    camera = _cameras([0.0, 4.0, 4.1, 7.0, 9.0])
    chunk = _cameras([4.05])
    counts = {"sink": 1, "recent": 1, "nearest": 2}
    assert frames_recalled(camera, chunk, 1.0, **counts).tolist() == [0, 1, 2, 4]
    assert frames_recalled(camera, chunk, 1.0, **counts, diversity=0.9).tolist() == [0, 2, 3, 4]
