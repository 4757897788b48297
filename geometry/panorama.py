"""Panoramas and stereo pairs from pinhole cameras.

A panorama is equirectangular: longitude along a row, latitude along a column, the middle where the camera looks. It is
rendered as the six faces of a cube (Greene 1986, *Environment mapping*) and looked up in them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.nn.functional import grid_sample

from geometry.camera import Camera
from geometry.frame import COVERED, Guide

BORDER_PX = 2  # of a face beyond its quarter turn, so that bilinear lookups at its edges stay inside

# Rotations from a face to the camera: ahead, right, behind, left, up, down. Columns are the axes of the face.
_FACES = torch.tensor(
    [
        [[1.0, 0, 0], [0, 1, 0], [0, 0, 1]],
        [[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]],
        [[-1.0, 0, 0], [0, 1, 0], [0, 0, -1]],
        [[0.0, 0, -1], [0, 1, 0], [1, 0, 0]],
        [[1.0, 0, 0], [0, 0, -1], [0, 1, 0]],
        [[1.0, 0, 0], [0, 0, 1], [0, -1, 0]],
    ]
)


@dataclass(frozen=True)
class Panorama:
    """Looks up an equirectangular panorama of one size in cube faces.

    Attributes:
        size: ``(H, W)``, pixels; a whole sphere has ``W = 2 H``.
        side: of a face, pixels.
    """

    size: tuple[int, int]
    side: int
    _pixels: tuple[Int[Tensor, "_"], ...]
    _places: tuple[Float[Tensor, "_ 2"], ...]
    _lengths: tuple[Float[Tensor, "_"], ...]

    @staticmethod
    def of(size: tuple[int, int]) -> Panorama:
        """A panorama with faces as fine as its equator."""
        width = size[1]
        side = math.ceil(width / math.pi) + 2 * BORDER_PX
        reach = side / (side - 2 * BORDER_PX)  # tangent of half of a face's angle
        rays = panorama_rays(size).reshape(-1, 3)
        along = rays @ _FACES[:, :, 2].T  # cosine between each ray and each face's axis
        nearest = along.argmax(1)
        pixels, places, lengths = [], [], []
        for face in range(len(_FACES)):
            index = torch.nonzero(nearest == face)[:, 0]
            local = rays[index] @ _FACES[face]
            pixels.append(index)
            places.append(local[:, :2] / local[:, 2:] / reach)
            lengths.append(1.0 / local[:, 2])
        return Panorama(size, side, tuple(pixels), tuple(places), tuple(lengths))

    def faces(self, camera: Camera) -> Camera:
        """The six cameras ``[6]`` of the faces around one camera (no batch axis), of which only the pose counts."""
        pose = camera.world_from_camera.repeat(len(_FACES), 1, 1)
        pose[:, :3, :3] = camera.world_from_camera[:3, :3] @ _FACES.to(pose)
        angle = 2.0 * math.degrees(math.atan(self.side / (self.side - 2 * BORDER_PX)))
        return Camera.from_fov(angle, (self.side, self.side), pose)

    def look_up(self, guide: Guide, camera: Camera) -> Guide:
        """The panorama ``[1]`` from the rendered faces ``[6]``; its depth is the distance from the camera.

        Args:
            guide: rendered for `faces`.
            camera: what the panorama was taken with, no batch axis; kept in the result.
        """
        weighted = torch.cat([guide.rgb, guide.confidence, guide.sky], 1) * guide.coverage
        smooth = self._sampled(torch.cat([weighted, guide.coverage], 1), "bilinear")
        coverage = smooth[5:].clamp(0.0, 1.0)
        over = coverage.clamp_min(1e-6)
        rgb, confidence, sky = (smooth[:5] / over).split([3, 1, 1])
        # Depth is not mixed over outlines.
        near = self._sampled(torch.cat([guide.depth, guide.coverage], 1), "nearest")
        lengths = torch.empty(self.size[0] * self.size[1])
        for pixels, length in zip(self._pixels, self._lengths, strict=True):
            lengths[pixels] = length
        depth = near[:1] * lengths.reshape(1, *self.size) * (near[1:] >= COVERED)
        pose = replace(camera, size=self.size)[None]
        return Guide(rgb[None], depth[None], coverage[None], confidence[None], sky[None], pose)

    def _sampled(self, faces: Float[Tensor, "6 c n n"], mode: str) -> Float[Tensor, "c h w"]:
        out = faces.new_empty(faces.shape[1], self.size[0] * self.size[1])
        for face, (pixels, place) in enumerate(zip(self._pixels, self._places, strict=True)):
            grid = place[None, None].to(faces)
            looked_up = grid_sample(faces[face : face + 1], grid, mode=mode, padding_mode="border", align_corners=False)
            out[:, pixels] = looked_up[0, :, 0]
        return out.reshape(-1, *self.size)


def panorama_rays(size: tuple[int, int]) -> Float[Tensor, "h w 3"]:
    """Unit vectors of the pixels of an equirectangular panorama in camera axes."""
    height, width = size
    longitude = ((torch.arange(width) + 0.5) / width - 0.5) * (2.0 * math.pi)
    latitude = (0.5 - (torch.arange(height) + 0.5) / height) * math.pi
    level = latitude.cos()[:, None]
    up = latitude.sin()[:, None].expand(height, width)
    return torch.stack([level * longitude.sin(), -up, level * longitude.cos()], -1)


def stereo_pair(camera: Camera, eye_distance: float, convergence: float) -> tuple[Camera, Camera]:
    """The left and the right eye of cameras ``[t]``: parallel axes, images shifted against each other.

    Shifted lenses and not turned cameras, which would shear the depth (Woods et al. 1993, *Image distortions in
    stereoscopic video systems*).

    Args:
        camera: in the middle between the eyes.
        eye_distance: scene units.
        convergence: depth at which both eyes see the same image point: the plane of the screen, scene units.
    """
    eyes = []
    for side in (-0.5, 0.5):
        pose, center = camera.world_from_camera.clone(), camera.center_px.clone()
        pose[..., :3, 3] += side * eye_distance * pose[..., :3, 0]
        center[..., 0] += side * eye_distance / convergence * camera.focal_px[..., 0]
        eyes.append(replace(camera, world_from_camera=pose, center_px=center))
    return eyes[0], eyes[1]


def side_by_side(left: Shaped[Tensor, "t c h w"], right: Shaped[Tensor, "t c h w"]) -> Shaped[Tensor, "t c h w2"]:
    """Both images of a stereo pair as one, the left eye's on the left."""
    return torch.cat([left, right], -1)
