"""A textured triangle mesh of a world: the photo as a relief, extended by surfaces that only later frames show.

Each image is triangulated in its own pixel grid (``scenes.formats.relief``), so the texture keeps the resolution of the
image. The photo comes first; a later frame adds only surfaces that no earlier image shows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from numpy.typing import NDArray
from PIL import Image

from geometry.camera import Camera
from geometry.frame import Frame
from geometry.project import pixel_centers
from scenes.formats.ply import BEHIND_ALL
from scenes.formats.relief import GROUND, SKY, Picture, Relief, only, settled, triangulate
from scenes.io.open3d_library import load_open3d
from scenes.io.png import to_bytes
from scenes.store.world_store import WorldStore

# Medians of the photo's depth; farther surfaces are moved to this depth, beyond which parallax is negligible.
FARTHEST_MEDIANS = 16.0
SAME_DEPTH = 0.1  # relative difference in depth below which two images show the same surface
PADDING_PX = 4  # around each image in the texture, so that mip levels do not mix images
LONGEST_TEXTURE_PX = 8192  # texture size limit of desktop GPUs


@dataclass(frozen=True)
class Surface:
    """Textured triangles.

    Attributes:
        positions: ``[v 3]``, world (OpenCV axes), scene units.
        places: ``[v 2]``, texture coordinates ``(u, v)``, 0..1 from the top left corner.
        triangles: ``[f 3]``, counter-clockwise seen from outside.
    """

    positions: Float[np.ndarray, "v 3"]
    places: Float[np.ndarray, "v 2"]
    triangles: Int[np.ndarray, "f 3"]


@dataclass(frozen=True)
class Mesh:
    """A textured mesh.

    Attributes:
        ground: all surfaces except the sky.
        sky: part of a sphere about the photo's camera, behind all other surfaces; may have no triangles.
        texture: texture atlas of both, ``[H W 3]``, sRGB.
        camera: camera of the photo.
        pictures: number of images in the atlas, the photo included.
    """

    ground: Surface
    sky: Surface
    texture: UInt8[np.ndarray, "h w 3"]
    camera: Camera
    pictures: int


def mesh_of(world: WorldStore) -> Mesh:
    """Make the mesh of a world that holds at least the photo.

    Raises:
        ValueError: the photo shows only sky.
        ImportError: Open3D cannot be loaded.
    """
    photo = world.chunk(0).frames[0]
    known = photo.depth[photo.valid & ~photo.sky]
    if not len(known):
        raise ValueError("glb: the photo shows no surface nearer than the sky; there is nothing to mesh")
    farthest = FARTHEST_MEDIANS * float(known.median())
    seen = settled(photo, farthest)
    longest_photo_px = 4096  # texture size limit of mobile GPUs
    layers = [(triangulate(seen, photo), _resized(to_bytes(world.photo), longest_photo_px))]
    shown = _Shown(photo.camera, seen, layers[0][0])
    looked_at = 48  # number of later frames to consider, evenly spaced, as neighboring frames show nearly the same
    step = max(1, -(-(len(world) - 1) // looked_at))
    adds = {i: shown.missing(frame, farthest)[1].mean() for i, frame in _frames(world) if i and i % step == 0}
    smallest_part = 0.002  # smallest share of a frame's pixels worth adding to the mesh
    # Frames that add most come first: in temporal order each frame would add one thin strip of the same surface.
    for index in sorted((i for i, share in adds.items() if share >= smallest_part), key=lambda i: -adds[i]):
        frame = world.frames(index, index + 1)[0]
        picture, wanted = shown.missing(frame, farthest)
        part = only(picture, wanted)
        # Frames added before this one may show its part already.
        if wanted.mean() < smallest_part or not part.kind.any():
            continue
        relief = triangulate(part, frame)
        shown.add(relief)
        layers.append((relief, to_bytes(frame.rgb)))
    return _joined(layers, photo.camera)


class _Shown:
    """The surfaces that the images so far show, queried by ray casting."""

    def __init__(self, camera: Camera, photo: Picture, relief: Relief) -> None:
        self._camera, self._photo = camera, photo
        self._open3d = load_open3d()
        self._reliefs: list[Relief] = []
        self.add(relief)

    def add(self, relief: Relief) -> None:
        self._reliefs.append(relief)
        self._ground, self._sky = (self._scene(sky) for sky in (False, True))

    def missing(self, frame: Frame, farthest: float) -> tuple[Picture, Bool[np.ndarray, "h w"]]:
        """The picture of one frame, and the mask of its pixels that no image so far shows.

        Pixels that contradict the photo (ground in front of a surface or of the sky that the photo saw) are left out.
        """
        picture = settled(frame, farthest)
        camera = frame.camera
        rays = (pixel_centers(camera.size, camera.focal_px).permute(1, 2, 0) - camera.center_px) / camera.focal_px
        rays = torch.cat([rays, torch.ones_like(rays[..., :1])], -1) @ camera.world_from_camera[:3, :3].T
        # Camera z of a ray is 1, so a hit's ray length is its depth.
        directions, origin = rays.numpy(force=True), camera.position.numpy(force=True)
        depth = 1.0 / picture.inverse
        ground = self._cast(self._ground, origin, directions)
        hidden = np.where(picture.kind == SKY, np.isfinite(ground), ground < depth * (1.0 + SAME_DEPTH))
        # The sky has no position: what matters is whether the photo's sky covers that direction.
        hidden |= (picture.kind == SKY) & np.isfinite(self._cast(self._sky, np.zeros(3), directions))
        return picture, (picture.kind != 0) & ~hidden & ~self._impossible(
            picture, origin + directions * depth[..., None]
        )

    def _impossible(self, picture: Picture, points: NDArray) -> NDArray:
        pose = self._camera.camera_from_world.numpy(force=True)
        x, y, z = np.moveaxis(points @ pose[:3, :3].T + pose[:3, 3], -1, 0)
        focal, center = self._camera.focal_px.numpy(force=True), self._camera.center_px.numpy(force=True)
        height, width = self._camera.size
        ahead = np.maximum(z, 1e-6)
        column, row = focal[0] * x / ahead + center[0], focal[1] * y / ahead + center[1]
        inside = (z > 1e-6) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
        at = tuple(np.where(inside, place, 0.0).astype(int) for place in (row, column))
        # A point in front of what the photo saw there would hide the photo from the photo's own camera.
        nearer = z * self._photo.inverse[at] < 1.0 - SAME_DEPTH
        return inside & (picture.kind == GROUND) & ((self._photo.kind[at] == SKY) | nearer)

    def _scene(self, sky: bool) -> Any:
        scene = self._open3d.t.geometry.RaycastingScene()
        for relief in self._reliefs:
            triangles = relief.triangles[relief.sky == sky]
            if len(triangles):
                scene.add_triangles(
                    self._open3d.core.Tensor(relief.positions.astype(np.float32)),
                    self._open3d.core.Tensor(triangles.astype(np.uint32)),
                )
        return scene

    def _cast(self, scene: Any, origin: NDArray, directions: NDArray) -> NDArray:
        """Distance to the first hit of each ray, in lengths of its direction; infinite without a hit."""
        rays = np.concatenate([np.broadcast_to(origin, directions.shape), directions], -1).astype(np.float32)
        return scene.cast_rays(self._open3d.core.Tensor(rays))["t_hit"].numpy()


def _frames(world: WorldStore) -> Iterator[tuple[int, Frame]]:
    for record in world.chunks:
        frames = world.chunk(record.index).frames
        yield from ((record.first_frame + i, frames[i]) for i in range(len(frames)))


def _joined(layers: list[tuple[Relief, UInt8[torch.Tensor, "3 h w"]]], camera: Camera) -> Mesh:
    """Join reliefs and their images into one mesh with one texture atlas."""
    boxes, tiles = [], []
    for relief, picture in layers:
        scale = picture.shape[-1] / camera.size[1]
        low = np.floor(relief.pixels.min(0)).astype(int)
        high = np.ceil(relief.pixels.max(0)).astype(int)
        boxes.append((low, scale))
        # Only the part of a frame that its triangles use goes into the atlas.
        (left, top), (right, bottom) = (np.round(corner * scale).astype(int) for corner in (low, high))
        tile = picture[:, top:bottom, left:right].permute(1, 2, 0).numpy(force=True)
        tiles.append(np.pad(tile, ((PADDING_PX,) * 2, (PADDING_PX,) * 2, (0, 0)), mode="edge"))
    texture, corners = _atlas(tiles)
    size = np.array(texture.shape[1::-1])
    places = [
        (corner + PADDING_PX + (relief.pixels * scale - np.round(low * scale))) / size
        for (relief, _), (low, scale), corner in zip(layers, boxes, corners, strict=True)
    ]
    reliefs = [relief for relief, _ in layers]
    ground, sky = (_surface(reliefs, places, is_sky) for is_sky in (False, True))
    # Sky vertices have length 1 from triangulation; only now is the farthest surface known.
    radius = BEHIND_ALL * np.linalg.norm(ground.positions, axis=1).max()
    sky = Surface(sky.positions * radius, sky.places, sky.triangles)
    return Mesh(ground, sky, _shrunk(texture), camera, len(layers))


def _surface(reliefs: list[Relief], places: list[NDArray], sky: bool) -> Surface:
    first = np.cumsum([0, *(len(relief.positions) for relief in reliefs)])
    triangles = np.concatenate([r.triangles[r.sky == sky] + at for r, at in zip(reliefs, first, strict=False)])
    used, triangles = np.unique(triangles, return_inverse=True)
    positions = np.concatenate([relief.positions for relief in reliefs])
    return Surface(positions[used], np.concatenate(places)[used], triangles.reshape(-1, 3))


def _atlas(tiles: list[NDArray]) -> tuple[NDArray, list[NDArray]]:
    """Pack images on shelves as wide as the widest image; returns the atlas and the corner ``(x, y)`` of each."""
    width = max(tile.shape[1] for tile in tiles)
    corners, x, y, shelf = {}, 0, 0, 0
    # Tallest first: shelves waste little height.
    for index in sorted(range(len(tiles)), key=lambda i: -tiles[i].shape[0]):
        height, needed = tiles[index].shape[:2]
        if x + needed > width:
            x, y, shelf = 0, y + shelf, 0
        corners[index] = np.array([x, y])
        x, shelf = x + needed, max(shelf, height)
    atlas = np.zeros((y + shelf, width, 3), np.uint8)
    for index, (x, y) in corners.items():
        atlas[y : y + tiles[index].shape[0], x : x + tiles[index].shape[1]] = tiles[index]
    return atlas, [corners[index] for index in range(len(tiles))]


def _shrunk(texture: NDArray) -> NDArray:
    longest = max(texture.shape[:2])
    if longest <= LONGEST_TEXTURE_PX:
        return texture
    scale = LONGEST_TEXTURE_PX / longest
    size = (round(texture.shape[1] * scale), round(texture.shape[0] * scale))
    return np.asarray(Image.fromarray(texture).resize(size, Image.Resampling.LANCZOS))


def _resized(picture: UInt8[torch.Tensor, "3 h w"], longest: int) -> UInt8[torch.Tensor, "3 h w"]:
    """Downsample an image so that its longer side is at most ``longest`` pixels."""
    scale = longest / max(picture.shape[1:])
    if scale >= 1.0:
        return picture
    image = Image.fromarray(picture.permute(1, 2, 0).numpy(force=True))
    size = (round(image.width * scale), round(image.height * scale))
    return torch.from_numpy(np.array(image.resize(size, Image.Resampling.LANCZOS))).permute(2, 0, 1)
