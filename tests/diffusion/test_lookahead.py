"""The look-ahead view: motion of the chunk continued, its last points kept in the picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from diffusion.inpainting.config import LookAheadConfig
from diffusion.inpainting.lookahead import look_ahead
from geometry.camera import Camera
from geometry.frame import Guide
from geometry.project import project, unproject
from tests.helpers import guide_of

SIZE = (32, 48)
CONFIG = LookAheadConfig()


def posed_guide(poses: Tensor, depth: Tensor, hole: Tensor | None = None) -> Guide:
    """A guide with ``depth`` everywhere except in ``hole``, by default a strip on the left."""
    if hole is None:
        hole = torch.arange(SIZE[1]) < 4
    return guide_of(Camera.from_fov(60.0, SIZE, poses), depth, 0.0, hole)


def moving(step: tuple[float, float, float], count: int = 4) -> Tensor:
    """Poses on a straight line."""
    poses = torch.eye(4).repeat(count, 1, 1)
    poses[:, :3, 3] = torch.arange(float(count))[:, None] * torch.tensor(step)
    return poses


def test_camera_continues_the_motion_of_the_chunk() -> None:
    turn = 0.02 * torch.arange(5.0)
    poses = torch.eye(4).repeat(5, 1, 1)
    poses[:, 0, 0], poses[:, 0, 2], poses[:, 2, 0], poses[:, 2, 2] = turn.cos(), turn.sin(), -turn.sin(), turn.cos()
    poses[:, :3, 3] = torch.stack([torch.sin(turn), 0.2 * turn, torch.cos(turn)], -1)  # a helix, looking outwards
    ahead = look_ahead(posed_guide(poses, torch.tensor(50.0)))
    assert ahead is not None
    assert len(ahead) == 1
    end = 0.08 * (1 + CONFIG.chunks)
    expected = torch.tensor([np.sin(end), 0.2 * end, np.cos(end)], dtype=torch.float32)
    assert torch.allclose(ahead.position[0], expected, atol=1e-5)
    assert torch.allclose(ahead.world_from_camera[0, :3, 2], torch.tensor([np.sin(end), 0.0, np.cos(end)]).float())


@pytest.mark.parametrize("step", [(0.0, 0.0, 0.1), (0.1, 0.0, 0.0), (0.0, -0.05, 0.05)])
def test_view_contains_the_points_of_the_last_frame(step: tuple[float, float, float]) -> None:
    guide = posed_guide(moving(step), torch.linspace(2.0, 6.0, SIZE[0])[:, None])
    ahead = look_ahead(guide)
    assert ahead is not None
    points = unproject(guide.depth[-1:], guide.camera[-1:])[0].flatten(1).T[guide.coverage[-1].flatten() > 0.5]
    pixels, depth = project(points[None], ahead)
    corner = torch.tensor([SIZE[1], SIZE[0]])
    inside = (depth > 0.0) & ((pixels >= -1e-3) & (pixels <= corner + 1e-3)).all(-1)
    assert inside.float().mean() >= CONFIG.kept - 0.01
    assert CONFIG.shortest_focal <= float(ahead.focal_px[0, 0] / guide.camera.focal_px[0, 0]) <= 1.0


def test_focal_length_stays_for_a_static_camera() -> None:
    ahead = look_ahead(posed_guide(torch.eye(4)[None], torch.tensor(2.0)))
    assert ahead is not None
    assert torch.equal(ahead.world_from_camera[0], torch.eye(4))
    assert float(ahead.focal_px[0, 0]) == pytest.approx(float(Camera.from_fov(60.0, SIZE).focal_px[0]), rel=1e-3)


def test_fewer_chunks_ahead_when_the_view_would_pass_the_points() -> None:
    near = look_ahead(posed_guide(moving((0.0, 0.0, 0.1)), torch.tensor(1.0)))
    far = look_ahead(posed_guide(moving((0.0, 0.0, 0.1)), torch.tensor(9.0)))
    assert near is not None
    assert far is not None
    assert 0.3 < near.position[0, 2] < far.position[0, 2]
    assert look_ahead(posed_guide(moving((0.0, 0.0, 0.5)), torch.tensor(1.6))) is None


def test_no_view_when_all_or_nothing_is_covered() -> None:
    hole = torch.zeros(1, 1, *SIZE, dtype=torch.bool)
    assert look_ahead(posed_guide(moving((0.1, 0.0, 0.0)), torch.tensor(2.0), hole)) is None
    assert look_ahead(posed_guide(moving((0.1, 0.0, 0.0)), torch.tensor(2.0), ~hole)) is None
