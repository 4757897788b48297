"""The surroundings of a photo: views from near its camera, and how much of them the world does not know."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize

from cache3d.world_view import WorldView
from geometry.camera import Camera
from geometry.frame import Frame, Guide
from geometry.project import project
from geometry.se3 import rigid

JUDGES = 1 << 20  # views to count the unknown in begin here, so that they are none of those that were gone to


@dataclass(frozen=True)
class Surroundings:
    """The views around the photo's camera: places in a ball, directions in a cone, no roll.

    Attributes:
        photo: the photo with depth, ``[1]``.
        radius: of the ball, scene units.
        angle_deg: between the photo's direction and that of a view, at most.
        clearance: from the surfaces of the photo at which a place begins to count, scene units.
    """

    photo: Frame
    radius: float
    angle_deg: float
    clearance: float

    def views(self, count: int, skip: int = 0, size: tuple[int, int] | None = None) -> Camera:
        """Views ``[count]``, evenly scattered, with the photo's lens, none of them behind the photo's surfaces.

        Args:
            count: how many.
            skip: how many to leave out first: another ``skip`` gives other views.
            size: of the pictures, ``(H, W)``; that of the photo when None.
        """
        draws = torch.quasirandom.SobolEngine(5)
        draws.fast_forward(1 + skip)  # the first point is a corner
        camera = self.photo.camera if size is None else self.photo.camera.resized(size)
        found: list[Tensor] = []
        # Of a photo of something very near all places may be blocked; then the last ones are taken all the same.
        for attempt in range(8):
            poses = camera.world_from_camera @ self._poses(draws.draw(count))
            blocked = self.blocked(poses[:, :3, 3]) if attempt < 7 else torch.zeros(count, dtype=torch.bool)
            found.append(poses[~blocked])
            if sum(map(len, found)) >= count:
                break
        world_from_camera = torch.cat(found)[:count]
        lens = (camera.focal_px.expand(count, 2), camera.center_px.expand(count, 2))
        return Camera(world_from_camera, *lens, camera.size)

    def blocked(self, places: Float[Tensor, "n 3"]) -> Bool[Tensor, "n"]:
        """Which places lie behind what the photo shows, or closer than the clearance before it."""
        photo = self.photo
        return behind(places, photo.camera, photo.depth, photo.valid, self.clearance)

    def _poses(self, draws: Float[Tensor, "n 5"]) -> Float[Tensor, "n 4 4"]:
        """Poses in the photo's axes of points of the unit cube."""
        distance = self.radius * draws[:, 0] ** (1.0 / 3.0)
        place = distance[:, None] * _direction(1.0 - 2.0 * draws[:, 1], draws[:, 2])
        ahead = _direction(1.0 - draws[:, 3] * (1.0 - math.cos(math.radians(self.angle_deg))), draws[:, 4])
        right = torch.linalg.cross(torch.tensor([0.0, 1.0, 0.0]).expand_as(ahead), ahead)
        right = normalize(right, dim=-1)
        return rigid(torch.stack([right, torch.linalg.cross(ahead, right), ahead], -1), place)


def all_around(view: WorldView, camera: Camera, side_px: int = 64) -> list[Guide]:
    """What the world shows from the place of a camera ``[1]``, in the six directions of a cube."""
    ahead, up = torch.eye(3), torch.tensor([0.0, -1.0, 0.0])
    guides = []
    for axis in (*ahead, *-ahead):
        right = torch.linalg.cross(axis, ahead[2] if axis[1].abs() > 0.5 else up)
        face = rigid(torch.stack([right, torch.linalg.cross(axis, right), axis], -1), torch.zeros(3))
        guides.append(view.render(Camera.from_fov(90.0, (side_px, side_px), camera.world_from_camera @ face), 1))
    return guides


def hidden(places: Float[Tensor, "n 3"], around: list[Guide], clearance: float) -> Bool[Tensor, "n"]:
    """Which places lie behind what is seen all around a camera, or closer than ``clearance`` before it.

    Args:
        places: in the world.
        around: from `all_around`.
        clearance: scene units.
    """
    masks = [behind(places, seen.camera, seen.depth, seen.covered & ~seen.sky_mask, clearance) for seen in around]
    return torch.stack(masks).any(0)


def unknown_share(view: WorldView, cameras: Camera) -> Float[Tensor, "t"]:
    """Share of unknown pixels of each view of cameras ``[t]``."""
    shares = [view.render(cameras[k : k + 1]).hole.float().mean() for k in range(len(cameras))]
    return torch.stack(shares).cpu()


def behind(
    places: Float[Tensor, "n 3"],
    camera: Camera,
    depth: Float[Tensor, "1 1 h w"],
    known: Bool[Tensor, "1 1 h w"],
    clearance: float,
) -> Bool[Tensor, "n"]:
    """Which places lie behind the surfaces that one camera ``[1]`` sees, or closer than ``clearance`` before them."""
    pixels, z = project(places[None], camera)
    height, width = camera.size
    column, row = pixels[0].nan_to_num(-1.0).floor().long().unbind(-1)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height) & (z[0] > 1e-3)
    row, column = row.clamp(0, height - 1), column.clamp(0, width - 1)
    return inside & known[0, 0, row, column] & (z[0] > depth[0, 0, row, column] - clearance)


def small_size(size: tuple[int, int], longer: int) -> tuple[int, int]:
    """The size of a picture of about the same shape, whose longer side has ``longer`` pixels."""
    factor = longer / max(size)
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _direction(height: Float[Tensor, "n"], around: Float[Tensor, "n"]) -> Float[Tensor, "n 3"]:
    """Unit vectors at a ``height`` of -1..1 along z, and a share of the whole way ``around`` it."""
    radius, angle = (1.0 - height**2).clamp_min(0.0).sqrt(), 2.0 * math.pi * around
    return torch.stack([radius * torch.cos(angle), radius * torch.sin(angle), height], -1)
