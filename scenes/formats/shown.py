"""The surfaces that the images of a mesh show so far, queried by ray casting."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from numpy.typing import NDArray
from scipy.ndimage import binary_opening

from geometry.camera import Camera
from geometry.frame import Frame
from geometry.project import pixel_centers
from scenes.formats.relief import GROUND, NOTHING, SKY, Picture, Relief, settled
from scenes.io.open3d_library import load_open3d

SAME_DEPTH = 0.1  # relative difference in depth below which two images show the same surface


@dataclass(frozen=True)
class Layer:
    """Triangles of one image.

    Attributes:
        relief: triangles, with places in pixels of the camera that they were made in.
        image: ``[3 H W]``, sRGB, of the same shape as that camera's image but perhaps finer.
        scale: pixels of ``image`` for one of the camera.
        behind: whether it is the background sheet.
    """

    relief: Relief
    image: UInt8[torch.Tensor, "3 h w"]
    scale: float = 1.0
    behind: bool = False


@dataclass(frozen=True)
class Look:
    """What rays hit first.

    Attributes:
        reach: ``[h w]``, distance in lengths of the ray's direction; infinite in the sky and where nothing is hit.
        kind: ``[h w]``, ``NOTHING``, ``GROUND`` or ``SKY``.
        rgb: ``[h w 3]``, 0..1, black where nothing is hit.
    """

    reach: Float[np.ndarray, "h w"]
    kind: Int[np.ndarray, "h w"]
    rgb: Float[np.ndarray, "h w 3"]


class Shown:
    """The surfaces of some layers.

    Args:
        camera: of the photo.
        photo: the photo's picture, which no other image may contradict.
        layer: the photo's.
    """

    def __init__(self, camera: Camera, photo: Picture, layer: Layer) -> None:
        self.camera, self._photo = camera, photo
        self._open3d = load_open3d()
        self.layers: list[Layer] = []
        self.add(layer)

    def add(self, layer: Layer) -> None:
        """Add a layer to what is shown."""
        self.layers.append(layer)
        self._ground, self._sky = (self._scene(sky) for sky in (False, True))

    def missing(self, frame: Frame, farthest: float) -> tuple[Picture, Bool[np.ndarray, "h w"]]:
        """The picture of one frame, and the mask of its pixels that no image so far shows.

        Pixels that contradict the photo (ground in front of a surface or of the sky that the photo saw) are left out.
        """
        picture = settled(frame, farthest)
        # `settled` closes specks; what a view does not know at all stays open.
        unknown = binary_opening(~frame.valid[0].numpy(force=True), iterations=2)
        picture = replace(picture, kind=np.where(unknown, NOTHING, picture.kind))
        camera = frame.camera
        # Camera z of a ray is 1, so a hit's ray length is its depth.
        directions, origin = rays_of(camera), camera.position.numpy(force=True)
        depth = 1.0 / picture.inverse
        ground = self.reach(origin, directions)
        hidden = np.where(picture.kind == SKY, np.isfinite(ground), ground < depth * (1.0 + SAME_DEPTH))
        # The sky has no position: what matters is whether the photo's sky covers that direction.
        hidden |= (picture.kind == SKY) & np.isfinite(self._cast(self._sky, np.zeros(3), directions)["t_hit"])
        return picture, (picture.kind != NOTHING) & ~hidden & ~self._impossible(
            picture, origin + directions * depth[..., None]
        )

    def reach(self, origin: NDArray, directions: NDArray) -> Float[np.ndarray, "h w"]:
        """Distance to the first surface that is no sky, in lengths of the directions; infinite without one."""
        return self._cast(self._ground, origin, directions)["t_hit"]

    def look(self, directions: Float[np.ndarray, "h w 3"]) -> Look:
        """What is seen along some directions from the place of the photo's camera, the sky included."""
        origin = self.camera.position.numpy(force=True)
        ground, sky = self._cast(self._ground, origin, directions), self._cast(self._sky, np.zeros(3), directions)
        reach = ground["t_hit"]
        kind = np.where(np.isfinite(reach), GROUND, np.where(np.isfinite(sky["t_hit"]), SKY, NOTHING))
        rgb = np.zeros((*kind.shape, 3))
        for is_sky, hits in ((False, ground), (True, sky)):
            hit = kind == (SKY if is_sky else GROUND)
            of = [layer for layer in self.layers if (layer.relief.sky == is_sky).any()]
            for k, layer in enumerate(of):
                own = hit & (hits["geometry_ids"] == k)
                relief, bary = layer.relief, hits["primitive_uvs"][own]
                corners = relief.triangles[relief.sky == is_sky][hits["primitive_ids"][own].astype(int)]
                weights = np.concatenate([1.0 - bary.sum(-1, keepdims=True), bary], -1)
                places = (relief.pixels[corners] * weights[..., None]).sum(1) * layer.scale
                height, width = layer.image.shape[1:]
                column, row = (np.clip(p.astype(int), 0, n - 1) for p, n in zip(places.T, (width, height), strict=True))
                rgb[own] = layer.image.numpy(force=True)[:, row, column].T / 255.0
        return Look(reach, kind, rgb)

    def _impossible(self, picture: Picture, points: NDArray) -> NDArray:
        pose = self.camera.camera_from_world.numpy(force=True)
        x, y, z = np.moveaxis(points @ pose[:3, :3].T + pose[:3, 3], -1, 0)
        focal, center = self.camera.focal_px.numpy(force=True), self.camera.center_px.numpy(force=True)
        height, width = self.camera.size
        ahead = np.maximum(z, 1e-6)
        column, row = focal[0] * x / ahead + center[0], focal[1] * y / ahead + center[1]
        inside = (z > 1e-6) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
        at = tuple(np.where(inside, place, 0.0).astype(int) for place in (row, column))
        # A point in front of what the photo saw there would hide the photo from the photo's own camera.
        nearer = z * self._photo.inverse[at] < 1.0 - SAME_DEPTH
        return inside & (picture.kind == GROUND) & ((self._photo.kind[at] == SKY) | nearer)

    def _scene(self, sky: bool) -> Any:
        scene = self._open3d.t.geometry.RaycastingScene()
        for relief in (layer.relief for layer in self.layers):
            triangles = relief.triangles[relief.sky == sky]
            if len(triangles):
                scene.add_triangles(
                    self._open3d.core.Tensor(relief.positions.astype(np.float32)),
                    self._open3d.core.Tensor(triangles.astype(np.uint32)),
                )
        return scene

    def _cast(self, scene: Any, origin: NDArray, directions: NDArray) -> dict[str, NDArray]:
        """First hits of rays; ``t_hit`` is in lengths of the direction, infinite without a hit."""
        rays = np.concatenate([np.broadcast_to(origin, directions.shape), directions], -1).astype(np.float32)
        hits = scene.cast_rays(self._open3d.core.Tensor(rays))
        return {key: hits[key].numpy() for key in ("t_hit", "geometry_ids", "primitive_ids", "primitive_uvs")}


def rays_of(camera: Camera) -> Float[np.ndarray, "h w 3"]:
    """Directions of the pixels of a camera (no batch) in world axes, of length 1 along its axis."""
    rays = (pixel_centers(camera.size, camera.focal_px).permute(1, 2, 0) - camera.center_px) / camera.focal_px
    rays = torch.cat([rays, torch.ones_like(rays[..., :1])], -1) @ camera.world_from_camera[:3, :3].T
    return rays.numpy(force=True)
