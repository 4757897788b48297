"""The pinhole camera that every room speaks of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Camera:
    """A batch of pinhole cameras of one image size.

    Axes are OpenCV's: x right, y down, z forward. Pixel centers lie at +0.5: the image spans ``[0, W] x [0, H]``.

    Attributes:
        world_from_camera: rigid camera-to-world transforms, ``[*b 4 4]``, translation in scene units.
        focal_px: focal lengths ``(fx, fy)`` in pixels, ``[*b 2]``, positive.
        center_px: principal point ``(cx, cy)`` in pixels, ``[*b 2]``.
        size: image size ``(H, W)`` in pixels.
    """

    world_from_camera: Float[Tensor, "*b 4 4"]
    focal_px: Float[Tensor, "*b 2"]
    center_px: Float[Tensor, "*b 2"]
    size: tuple[int, int]

    @property
    def batch_shape(self) -> torch.Size:
        """Leading batch dimensions ``*b``."""
        return self.world_from_camera.shape[:-2]

    @property
    def camera_from_world(self) -> Float[Tensor, "*b 4 4"]:
        """World-to-camera transforms (rigid inverse)."""
        rotation = self.world_from_camera[..., :3, :3].transpose(-1, -2)
        translation = -(rotation @ self.world_from_camera[..., :3, 3:])
        inverse = torch.zeros_like(self.world_from_camera)
        inverse[..., :3, :3] = rotation
        inverse[..., :3, 3:] = translation
        inverse[..., 3, 3] = 1.0
        return inverse

    @property
    def intrinsics(self) -> Float[Tensor, "*b 3 3"]:
        """The matrix K, in pixels."""
        k = self.focal_px.new_zeros(*self.focal_px.shape[:-1], 3, 3)
        k[..., 0, 0], k[..., 1, 1] = self.focal_px[..., 0], self.focal_px[..., 1]
        k[..., :2, 2] = self.center_px
        k[..., 2, 2] = 1.0
        return k

    @property
    def position(self) -> Float[Tensor, "*b 3"]:
        """Camera centers in the world."""
        return self.world_from_camera[..., :3, 3]

    @property
    def fov_deg(self) -> Float[Tensor, "*b 2"]:
        """Horizontal and vertical field of view in degrees."""
        size = self.focal_px.new_tensor([self.size[1], self.size[0]])
        return 2.0 * torch.rad2deg(torch.atan(size / (2.0 * self.focal_px)))

    def __len__(self) -> int:
        """Length of the first batch dimension."""
        return self.batch_shape[0]

    def __getitem__(self, index: int | slice | Tensor | list[int] | None) -> Camera:
        """Index the first batch dimension; an int removes it, None adds one."""
        return self._each(lambda t: t[index])

    def to(self, target: torch.device | torch.dtype | str) -> Camera:
        """Move or cast every tensor, as ``Tensor.to``."""
        if isinstance(target, torch.dtype):
            return self._each(lambda t: t.to(dtype=target))
        return self._each(lambda t: t.to(device=target))

    def resized(self, size: tuple[int, int]) -> Camera:
        """The same camera with its image resampled to ``size = (H, W)``; intrinsics follow the image."""
        scale = self.focal_px.new_tensor([size[1] / self.size[1], size[0] / self.size[0]])
        return replace(self, focal_px=self.focal_px * scale, center_px=self.center_px * scale, size=size)

    def pooled(self, factor: int) -> Camera:
        """The same camera with pixels of ``factor`` x ``factor`` of its own."""
        return self.resized((self.size[0] // factor, self.size[1] // factor))

    def cropped(self, rows: slice, columns: slice) -> Camera:
        """The same camera with a part of its image; both slices have bounds inside it and no step."""
        corner = self.center_px.new_tensor([columns.start, rows.start])
        size = (rows.stop - rows.start, columns.stop - columns.start)
        return replace(self, center_px=self.center_px - corner, size=size)

    @staticmethod
    def from_fov(fov_deg: float, size: tuple[int, int], world_from_camera: Tensor | None = None) -> Camera:
        """A camera of square pixels with horizontal field of view ``fov_deg`` and a centered principal point.

        Args:
            fov_deg: horizontal field of view in degrees, in (0, 180).
            size: image size ``(H, W)``.
            world_from_camera: ``[*b 4 4]``; the identity, unbatched, when not given.
        """
        if not 0.0 < fov_deg < 180.0:
            raise ValueError(f"fov_deg: want a value in (0, 180), got {fov_deg}")
        pose = torch.eye(4) if world_from_camera is None else world_from_camera
        height, width = size
        focal = 0.5 * width / torch.tan(torch.deg2rad(pose.new_tensor(fov_deg / 2.0)))
        batch = pose.shape[:-2]
        center = pose.new_tensor([width / 2.0, height / 2.0])
        return Camera(pose, focal.expand(*batch, 2).clone(), center.expand(*batch, 2).clone(), size)

    @staticmethod
    def concatenate(cameras: list[Camera]) -> Camera:
        """Join batches ``[t_i]`` of one image size into one ``[sum t_i]``."""
        if len({c.size for c in cameras}) != 1:
            raise ValueError(f"cameras: want one image size, got {sorted({c.size for c in cameras})}")
        return Camera(
            torch.cat([c.world_from_camera for c in cameras]),
            torch.cat([c.focal_px for c in cameras]),
            torch.cat([c.center_px for c in cameras]),
            cameras[0].size,
        )

    def _each(self, change: Callable[[Tensor], Tensor]) -> Camera:
        return Camera(change(self.world_from_camera), change(self.focal_px), change(self.center_px), self.size)
