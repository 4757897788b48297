"""A textured triangle mesh of a world: the photo as a relief, extended by surfaces that only later frames show.

Each image is triangulated in its own pixel grid (``scenes.formats.relief``), so the texture keeps the resolution of the
image. The photo comes first; a later frame adds only surfaces that no earlier image shows. What lies behind and around
them all goes on as a background sheet and a sky dome (``scenes.formats.backdrop``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial.transform import Rotation

from geometry.camera import Camera
from geometry.frame import Frame
from geometry.se3 import rigid
from scenes.formats.backdrop import background_sheet, sky_dome, with_margin
from scenes.formats.ply import BEHIND_ALL
from scenes.formats.relief import Relief, only, settled, triangulate
from scenes.formats.shown import Layer, Shown
from scenes.io.png import to_bytes
from scenes.store.world_store import WorldStore

# Medians of the photo's depth; farther surfaces are moved to this depth, beyond which parallax is negligible.
FARTHEST_MEDIANS = 16.0
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
        ground: all surfaces that an image shows, except the sky.
        background: what is made up behind them and around the photo's frame; may have no triangles.
        sky: a sphere about the photo's camera, behind all other surfaces.
        texture: texture atlas of both, ``[H W 3]``, sRGB.
        camera: camera of the photo.
        pictures: number of images in the atlas, the photo included.
    """

    ground: Surface
    background: Surface
    sky: Surface
    texture: UInt8[np.ndarray, "h w 3"]
    camera: Camera
    pictures: int


def mesh_of(world: WorldStore, render: Callable[[Camera], Frame] | None = None) -> Mesh:
    """Make the mesh of a world that holds at least the photo.

    Args:
        world: see above.
        render: what the world's cache shows to cameras ``[t]``; None: the mesh has what the frames show. Views from
            around the photo's camera then add what no frame of the path shows as well.

    Raises:
        ValueError: the photo shows only sky.
        ImportError: Open3D cannot be loaded.
    """
    photo = world.chunk(0).frames[0]
    known = photo.depth[photo.valid & ~photo.sky]
    if not len(known):
        raise ValueError("glb: the photo shows no surface nearer than the sky; there is nothing to mesh")
    median_depth = float(known.median())
    farthest = FARTHEST_MEDIANS * median_depth
    seen = settled(photo, farthest)
    longest_photo_px = 4096  # texture size limit of mobile GPUs
    picture = _resized(to_bytes(world.photo), longest_photo_px)
    scale = picture.shape[-1] / photo.camera.size[1]
    shown = Shown(photo.camera, seen, Layer(triangulate(seen, photo), picture, scale))
    looked_at = 48  # number of later frames to consider, evenly spaced, as neighboring frames show nearly the same
    step = max(1, -(-(len(world) - 1) // looked_at))
    adds = {i: shown.missing(frame, farthest)[1].mean() for i, frame in _frames(world) if i and i % step == 0}
    around = None if render is None else render(views_around(photo.camera, median_depth))
    if around is not None:
        adds |= {len(world) + k: shown.missing(around[k], farthest)[1].mean() for k in range(len(around))}
    smallest_part = 0.002  # smallest share of a frame's pixels worth adding to the mesh
    # Frames that add most come first: in temporal order each frame would add one thin strip of the same surface.
    for index in sorted((i for i, share in adds.items() if share >= smallest_part), key=lambda i: -adds[i]):
        late = index - len(world)
        frame = around[late] if around is not None and late >= 0 else world.frames(index, index + 1)[0]
        picture, wanted = shown.missing(frame, farthest)
        part = only(picture, wanted)
        # Frames added before this one may show its part already.
        if wanted.mean() < smallest_part or not part.kind.any():
            continue
        shown.add(Layer(triangulate(part, frame), to_bytes(frame.rgb)))
    sheet = background_sheet(shown, median_depth, farthest)
    made_up = [sky_dome(shown), *([] if sheet is None else [sheet])]
    return _joined([*shown.layers, *made_up], photo.camera, len(shown.layers))


def views_around(camera: Camera, median_depth: float) -> Camera:
    """Cameras ``[t]``: the photo's with a margin, and such that turn around what it shows at the median depth."""
    wide = with_margin(camera, margin=0.25)
    turns_deg = ((0.0, 0.0), (20.0, 0.0), (-20.0, 0.0), (10.0, -8.0), (-10.0, -8.0), (0.0, -16.0))
    poses = []
    for yaw, pitch in turns_deg:
        rotation = torch.from_numpy(Rotation.from_euler("yx", [yaw, pitch], degrees=True).as_matrix()).float()
        middle = torch.tensor([0.0, 0.0, median_depth])
        poses.append(camera.world_from_camera @ rigid(rotation, middle - rotation @ middle))
    lens = (wide.focal_px.expand(len(poses), 2), wide.center_px.expand(len(poses), 2))
    return Camera(torch.stack(poses), *lens, wide.size)


def _frames(world: WorldStore) -> Iterator[tuple[int, Frame]]:
    for record in world.chunks:
        frames = world.chunk(record.index).frames
        yield from ((record.first_frame + i, frames[i]) for i in range(len(frames)))


def _joined(layers: list[Layer], camera: Camera, pictures: int) -> Mesh:
    """Join layers into one mesh with one texture atlas."""
    boxes, tiles = [], []
    for layer in layers:
        low = np.floor(layer.relief.pixels.min(0)).astype(int)
        high = np.ceil(layer.relief.pixels.max(0)).astype(int)
        boxes.append(low)
        # Only the part of a frame that its triangles use goes into the atlas.
        (left, top), (right, bottom) = (np.round(corner * layer.scale).astype(int) for corner in (low, high))
        tile = layer.image[:, top:bottom, left:right].permute(1, 2, 0).numpy(force=True)
        tiles.append(np.pad(tile, ((PADDING_PX,) * 2, (PADDING_PX,) * 2, (0, 0)), mode="edge"))
    texture, corners = _atlas(tiles)
    size = np.array(texture.shape[1::-1])
    places = [
        (corner + PADDING_PX + (layer.relief.pixels * layer.scale - np.round(low * layer.scale))) / size
        for layer, low, corner in zip(layers, boxes, corners, strict=True)
    ]
    chosen = [
        [
            layer.relief.sky == sky if layer.behind == behind else np.zeros(len(layer.relief.sky), bool)
            for layer in layers
        ]
        for sky, behind in ((False, False), (False, True), (True, False))
    ]
    ground, background, sky = (_surface([layer.relief for layer in layers], places, part) for part in chosen)
    # Sky vertices have length 1 from triangulation; only now is the farthest surface known.
    farthest = max(np.linalg.norm(part.positions, axis=1).max(initial=0.0) for part in (ground, background))
    sky = Surface(sky.positions * BEHIND_ALL * farthest, sky.places, sky.triangles)
    return Mesh(ground, background, sky, _shrunk(texture), camera, pictures)


def _surface(reliefs: list[Relief], places: list[NDArray], chosen: list[NDArray]) -> Surface:
    first = np.cumsum([0, *(len(relief.positions) for relief in reliefs)])
    triangles = np.concatenate(
        [relief.triangles[own] + at for relief, own, at in zip(reliefs, chosen, first, strict=False)]
    )
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
