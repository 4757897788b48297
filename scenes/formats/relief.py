"""Triangulate one RGB-D image: cut along depth edges, with few triangles on smooth surfaces.

Inside a surface the triangles are those of a right-triangulated irregular network (Evans, Kirkpatrick and
Townsend 2001, *Right-triangulated irregular networks*): a grid of ``2^k`` cells whose triangles are halved until the
error of surface and texture is below a tolerance. Along a depth edge each cell is cut between its pixels, and the cut
is smoothed in the image in the same way for both surfaces, so the image's own camera sees no gap.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from geometry.frame import Frame

NOTHING, GROUND, SKY = 0, 1, 2


@dataclass(frozen=True)
class ReliefPolicy:
    """Tuned numbers of the triangulation.

    Attributes:
        edge_ratio: of neighboring depths above which they are on two surfaces, unless the surface slopes.
        steeper: ratio of a depth step to the steps beside it above which it is an edge and not a slope.
        beside_px: distance to the steps compared; estimated depth edges are blurred over several pixels.
        steepest: ratio of neighboring depths above which it is never a slope; ground reaches it only at the horizon.
        smallest: share of the image below which a piece of surface is treated as depth noise.
        tolerance_px: largest error of the triangles in surface or texture, pixels of the image.
        sideways: share of an error along the ray that is visible from 15 degrees aside.
        smoothings: of the cuts, one after the other.
        farthest_shift_px: largest shift of a cut by smoothing; it must stay between its two pixels.
    """

    edge_ratio: float = 1.08
    steeper: float = 2.5
    beside_px: int = 4
    steepest: float = 1.5
    smallest: float = 0.0008
    tolerance_px: float = 0.25
    sideways: float = 0.25
    smoothings: int = 8
    farthest_shift_px: float = 0.45


@dataclass(frozen=True)
class Picture:
    """Inverse depth and kind of surface per pixel.

    Attributes:
        inverse: ``[h w]``, 1 / scene unit; undefined in the sky.
        kind: ``[h w]``, ``NOTHING``, ``GROUND`` or ``SKY``.
        policy: tuned numbers.
    """

    inverse: Float[np.ndarray, "h w"]
    kind: Int[np.ndarray, "h w"]
    policy: ReliefPolicy = ReliefPolicy()

    def cuts(self) -> tuple[Bool[np.ndarray, "h _"], Bool[np.ndarray, "_ w"]]:
        """Masks of depth edges: between each pixel and its right neighbor, and between each pixel and the one below."""
        right = _cut(self.inverse, self.kind, self.policy)
        return right, _cut(self.inverse.T, self.kind.T, self.policy).T

    def pieces(self) -> Int[np.ndarray, "h w"]:
        """Labels of the connected pieces of surface between the cuts."""
        right, down = self.cuts()
        index = np.arange(self.kind.size).reshape(self.kind.shape)
        first = np.concatenate([index[:, :-1][~right], index[:-1][~down]])
        second = np.concatenate([index[:, 1:][~right], index[1:][~down]])
        graph = coo_array((np.ones(len(first), bool), (first, second)), shape=(index.size,) * 2)
        return connected_components(graph, directed=False)[1].reshape(self.kind.shape)


@dataclass(frozen=True)
class Relief:
    """Triangles of one picture.

    Attributes:
        positions: ``[v 3]``, world (OpenCV axes), scene units; of the sky, directions of length 1 from the origin.
        pixels: ``[v 2]``, position ``(x, y)`` of each vertex in the image.
        triangles: ``[f 3]``, counter-clockwise seen from the camera.
        sky: ``[f]``, whether a triangle is sky.
    """

    positions: Float[np.ndarray, "v 3"]
    pixels: Float[np.ndarray, "v 2"]
    triangles: Int[np.ndarray, "f 3"]
    sky: Bool[np.ndarray, "f"]


def settled(frame: Frame, farthest: float) -> Picture:
    """The picture of one frame without specks: pieces below `ReliefPolicy.smallest` join the nearest larger surface.

    Depth estimates leave single pixels and thin slices between surfaces; as triangles they would be floaters.

    Args:
        frame: one frame, no batch.
        farthest: upper limit of the depth, scene units; farther surfaces are moved there.
    """
    depth, valid, sky = (part[0].numpy(force=True) for part in (frame.depth, frame.valid, frame.sky))
    kind = np.where(valid, np.where(sky, SKY, GROUND), NOTHING)
    picture = Picture(1.0 / np.clip(depth.astype(np.float64), 1e-6, farthest), kind)
    pieces = picture.pieces()
    small = (np.bincount(pieces.ravel())[pieces] < picture.policy.smallest * kind.size) | (kind == NOTHING)
    if small.all():
        return picture
    # Depth and kind of the nearest larger piece, so that a speck becomes a part of a surface and not a hole.
    nearest = tuple(np.asarray(distance_transform_edt(small, return_distances=False, return_indices=True)))
    return replace(picture, inverse=picture.inverse[nearest], kind=kind[nearest])


def only(picture: Picture, wanted: Bool[np.ndarray, "h w"]) -> Picture:
    """Restrict a picture to a mask, dilated by one pixel on the same surface, without the smallest pieces."""
    around = wanted.copy()
    right, down = picture.cuts()
    around[:, 1:] |= wanted[:, :-1] & ~right
    around[:, :-1] |= wanted[:, 1:] & ~right
    around[1:] |= wanted[:-1] & ~down
    around[:-1] |= wanted[1:] & ~down
    part = replace(picture, kind=np.where(around, picture.kind, NOTHING))
    pieces = part.pieces()
    large = np.bincount(pieces[wanted], minlength=pieces.max() + 1) >= picture.policy.smallest * wanted.size
    return replace(part, kind=np.where(large[pieces], part.kind, NOTHING))


def triangulate(picture: Picture, frame: Frame) -> Relief:
    """Triangulate a picture in the camera of its frame (no batch)."""
    camera = frame.camera
    focal, center = (part.double().numpy(force=True) for part in (camera.focal_px, camera.center_px))
    world_from_camera = camera.world_from_camera.double().numpy(force=True)
    height, width = picture.kind.shape
    # The outermost vertices are on the image border, not half a pixel inside.
    rows, columns = np.arange(height) + 0.5, np.arange(width) + 0.5
    rows[[0, -1]], columns[[0, -1]] = (0.0, height), (0.0, width)
    pixels = np.stack(np.meshgrid(columns, rows), -1)

    def seen(pixels: NDArray, inverse: NDArray, sky: NDArray) -> NDArray:
        """Camera space; the sky at distance 1."""
        rays = np.concatenate([(pixels - center) / focal, np.ones_like(pixels[..., :1])], -1)
        length = np.linalg.norm(rays, axis=-1)
        return rays * np.where(sky, 1.0 / length, 1.0 / inverse)[..., None]

    right, down = picture.cuts()
    picture = replace(picture, inverse=_to_border(picture.inverse, right, down))
    edges = [right[:-1], down[:, 1:], right[1:], down[:, :-1]]  # of each cell: above, right, below, left
    code = np.sum([edge.astype(int) << i for i, edge in enumerate(edges)], axis=0)
    is_cut = np.sum(edges, axis=0) >= 2
    policy = picture.policy
    errors = _errors(seen(pixels, picture.inverse, picture.kind == SKY), is_cut, float(focal.mean()), policy.sideways)
    whole = _whole_triangles(errors, is_cut, policy.tolerance_px)
    cut = _CutCells(picture, pixels, right, down, np.where(is_cut, code, 0))
    names, triangles = np.unique(np.concatenate([whole, *cut.triangles]), return_inverse=True)
    places, inverse, kind = cut.vertices(names)
    triangles = triangles.reshape(-1, 3)
    # All corners of a triangle have one kind, as triangles never cross a cut.
    triangles = triangles[kind[triangles[:, 0]] != NOTHING]
    used, triangles = np.unique(triangles, return_inverse=True)
    places, inverse, sky = places[used], inverse[used], kind[used] == SKY
    positions = seen(places, inverse, sky) @ world_from_camera[:3, :3].T
    positions += np.where(sky[:, None], 0.0, world_from_camera[:3, 3])
    triangles = triangles.reshape(-1, 3)
    return Relief(positions, places, triangles, sky[triangles[:, 0]])


def _to_border(inverse: NDArray, right: NDArray, down: NDArray) -> NDArray:
    """Extrapolate inverse depth linearly by half a pixel, so that the outermost values are at the image border."""
    out = inverse.copy()
    for values, cut in ((out, down), (out[::-1], down[::-1]), (out.T, right.T), (out.T[::-1], right.T[::-1])):
        ahead = np.where(cut[0], 0.0, 0.5 * (values[0] - values[1]))
        # Limited, since a noisy slope at the border would be extended as a spike.
        values[0] += np.clip(ahead, -0.1 * values[0], 0.1 * values[0])
    return out


def _cut(inverse: NDArray, kind: NDArray, policy: ReliefPolicy) -> NDArray:
    """Mask of depth edges between each pixel and its right neighbor."""
    other = kind[:, :-1] != kind[:, 1:]
    ground = (kind[:, :-1] == GROUND) & (kind[:, 1:] == GROUND)
    step = np.abs(np.diff(inverse, axis=1))
    reach = policy.beside_px
    padded = np.pad(np.where(ground, step, np.inf), ((0, 0), (reach, reach)), constant_values=np.inf)
    width = step.shape[1]
    lowest = [
        np.min([padded[:, reach + by : reach + by + width] for by in side], axis=0)
        for side in (range(-reach, 0), range(1, reach + 1))
    ]
    # At the border of a surface one side has no steps; the step itself stands in.
    beside = 0.5 * sum(np.where(np.isfinite(low), low, step) for low in lowest)
    ratio = np.maximum(inverse[:, :-1], inverse[:, 1:]) / np.minimum(inverse[:, :-1], inverse[:, 1:])
    is_edge = (step > policy.steeper * beside) | (ratio > policy.steepest)
    return other | (ground & (ratio > policy.edge_ratio) & is_edge)


def _errors(points: NDArray, is_cut: NDArray, focal_px: float, sideways: float) -> NDArray:
    """Error of the surface in pixels if a vertex is omitted; infinite where it must stay, ``[2^k+1 2^k+1]``.

    An error is never less than those of the vertices that depend on this one, so that no gap opens between triangles.
    """
    height, width = points.shape[:2]
    side = 1 << int(np.ceil(np.log2(max(height, width, 2) - 1)))
    errors = np.zeros((side + 1, side + 1))
    for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
        errors[i : height - 1 + i, j : width - 1 + j][is_cut] = np.inf
    # Triangles that cross the image border are split until they end at it.
    errors[height - 1 : height + 1, :width] = errors[:height, width - 1 : width + 1] = np.inf
    grid = np.pad(points, ((0, side + 1 - height), (0, side + 1 - width), (0, 0)), mode="edge")

    def off(middle: NDArray, one: NDArray, other: NDArray) -> NDArray:
        error = 0.5 * (one + other) - middle
        # The part of an error along the ray is invisible from the image's own camera; `sideways` of it counts.
        across = error[..., :2] - middle[..., :2] / middle[..., 2:] * error[..., 2:]
        return focal_px * np.hypot(np.linalg.norm(across, axis=-1), sideways * error[..., 2]) / middle[..., 2]

    step = 1
    while step < side:
        for turn in (lambda array: array, lambda array: array.swapaxes(0, 1)):  # edges along rows, then along columns
            e, g = turn(errors), turn(grid)
            middle = e[:: 2 * step, step :: 2 * step]
            own = off(
                g[:: 2 * step, step :: 2 * step], g[:: 2 * step, : -1 : 2 * step], g[:: 2 * step, 2 * step :: 2 * step]
            )
            np.maximum(middle, own, out=middle)
            if step > 1:
                inner = e[step // 2 :: step, step // 2 :: step]
                pairs = np.pad(np.maximum(inner[:, ::2], inner[:, 1::2]), ((1, 1), (0, 0)))
                np.maximum(middle, np.maximum(pairs[::2], pairs[1::2]), out=middle)
        corners = [grid[i :: 2 * step, j :: 2 * step] for i in (0, 2 * step) for j in (0, 2 * step)]
        count = side // (2 * step)
        corners = [corner[:count, :count] for corner in corners]
        center, at = errors[step :: 2 * step, step :: 2 * step], grid[step :: 2 * step, step :: 2 * step]
        for own in (
            off(at, corners[0], corners[3]),
            off(at, corners[1], corners[2]),
            errors[: -1 : 2 * step, step :: 2 * step],
            errors[2 * step :: 2 * step, step :: 2 * step],
            errors[step :: 2 * step, : -1 : 2 * step],
            errors[step :: 2 * step, 2 * step :: 2 * step],
        ):
            np.maximum(center, own, out=center)
        step *= 2
    return errors


def _whole_triangles(errors: NDArray, is_cut: NDArray, tolerance_px: float) -> NDArray:
    """Triangles ``[f 3]`` of vertex numbers where nothing is cut, the hypotenuse first."""
    side, (height, width) = len(errors) - 1, (is_cut.shape[0] + 1, is_cut.shape[1] + 1)
    corners = {"top": (0, 0), "bottom": (side, side)}
    rest = np.array([[corners["bottom"], corners["top"], (side, 0)], [corners["top"], corners["bottom"], (0, side)]])
    done = []
    while len(rest):
        double = rest[:, 0] + rest[:, 1]
        # Newest-vertex bisection: the midpoint of the hypotenuse becomes the apex of both halves.
        middle = double // 2
        split = (double % 2 == 0).all(1) & (errors[middle[:, 0], middle[:, 1]] > tolerance_px)
        done.append(rest[~split])
        first, second, apex = rest[split].swapaxes(0, 1)
        rest = np.concatenate([np.stack([apex, first, middle[split]], 1), np.stack([second, apex, middle[split]], 1)])
    triangles = np.concatenate(done)
    triangles = triangles[((triangles[..., 0] < height) & (triangles[..., 1] < width)).all(1)]
    cell = triangles.min(1)
    unit = (triangles.max(1) - cell == 1).all(1)
    triangles = triangles[~(unit & is_cut[tuple(np.minimum(cell, np.array(is_cut.shape) - 1).T)])]
    return triangles[..., 0] * width + triangles[..., 1]


class _CutCells:
    """Cells that depth edges cross; each surface in a cell is a triangle fan about the point where the cuts meet.

    Vertices are numbered: first pixels; then the middle of each edge, twice, once for the surface on either side; then
    the center of each cell, once for each surface that starts at one of its corners.
    """

    def __init__(self, picture: Picture, pixels: NDArray, right: NDArray, down: NDArray, code: NDArray) -> None:
        self._picture, self._pixels = picture, pixels
        height, width = picture.kind.shape
        self._first = np.cumsum([0, height * width, 2 * right.size, 2 * down.size])
        self._across, self._along, self._centers = _smooth_cuts(pixels, right, down, code, picture.policy)
        self._group = np.zeros((code.size, 4))
        self.triangles: list[NDArray] = []
        for pattern in range(1, 16):
            starts = [i for i in range(4) if pattern >> (i - 1) % 4 & 1]
            # A single cut edge ends inside the cell and separates nothing.
            if len(starts) >= 2:
                rows, columns = np.nonzero(code == pattern)
                for start in starts:
                    self._add(rows, columns, pattern, start)

    def vertices(self, names: NDArray) -> tuple[NDArray, NDArray, NDArray]:
        """Position ``[n 2]`` in the image, inverse depth and kind ``[n]`` of vertices, by number."""
        width = self._picture.kind.shape[1]
        which = np.searchsorted(self._first, names, side="right") - 1
        rest = names - self._first[which]
        half = rest // 2
        place, pixel = np.empty((len(names), 2)), np.empty(len(names), np.int64)
        is_pixel, is_across, is_along, is_center = (which == i for i in range(4))
        pixel[is_pixel] = rest[is_pixel]
        place[is_pixel] = self._pixels.reshape(-1, 2)[rest[is_pixel]]
        row, column = half[is_across] // (width - 1), half[is_across] % (width - 1)
        pixel[is_across] = row * width + column + rest[is_across] % 2
        place[is_across] = self._across[row, column]
        pixel[is_along] = half[is_along] + width * (rest[is_along] % 2)
        place[is_along] = self._along.reshape(-1, 2)[half[is_along]]
        cell, start = rest[is_center] // 4, rest[is_center] % 4
        row, column = cell // (width - 1) + (start >= 2), cell % (width - 1) + ((start == 1) | (start == 2))
        pixel[is_center] = row * width + column
        place[is_center] = self._centers.reshape(-1, 2)[cell]
        inverse = self._picture.inverse.reshape(-1)[pixel]
        inverse[is_center] = self._group[cell, start]
        return place, inverse, self._picture.kind.reshape(-1)[pixel]

    def _add(self, rows: NDArray, columns: NDArray, pattern: int, start: int) -> None:
        """Add, for all cells with one pattern of cuts, the surface whose first corner, clockwise, is ``start``."""
        group = [start]
        while not pattern >> group[-1] & 1:
            group.append((group[-1] + 1) % 4)
        width = self._picture.kind.shape[1]
        corners = [(rows + (i >= 2)) * width + columns + (i in (1, 2)) for i in group]
        ring = [
            self._edge(rows, columns, (start - 1) % 4, start),
            *corners,
            self._edge(rows, columns, group[-1], group[-1]),
        ]
        cell = rows * (width - 1) + columns
        center = self._first[3] + 4 * cell + start
        # The center belongs to each surface once, at the mean inverse depth of that surface's corners.
        self._group[cell, start] = np.mean([self._picture.inverse.reshape(-1)[corner] for corner in corners], 0)
        self.triangles += [np.stack([center, after, before], 1) for before, after in pairwise(ring)]

    def _edge(self, rows: NDArray, columns: NDArray, edge: int, corner: int) -> NDArray:
        """Vertex numbers of the middles of an edge of some cells, on the side of one of its corners."""
        width = self._picture.kind.shape[1]
        if edge in (0, 2):
            index = (rows + (edge == 2)) * (width - 1) + columns
            return self._first[1] + 2 * index + (corner in (1, 2))
        return self._first[2] + 2 * (rows * width + columns + (edge == 1)) + (corner in (2, 3))


def _smooth_cuts(
    pixels: NDArray, right: NDArray, down: NDArray, code: NDArray, policy: ReliefPolicy
) -> tuple[NDArray, NDArray, NDArray]:
    """Where cuts cross the edges between pixels, along rows and along columns, and where they meet in each cell.

    Cuts start at the midpoint and are smoothed along the cut, which removes the staircase of an outline.
    """
    start = (0.5 * (pixels[:, 1:] + pixels[:, :-1]), 0.5 * (pixels[1:] + pixels[:-1]))
    is_cell = code > 0
    moves = right.copy(), down.copy()  # cuts that continue into a cell on either side; only these are smoothed
    moves[0][[0, -1]] = False
    moves[0][1:-1] &= is_cell[:-1] & is_cell[1:]
    moves[1][:, [0, -1]] = False
    moves[1][:, 1:-1] &= is_cell[:, :-1] & is_cell[:, 1:]
    weights = [edge[..., None].astype(float) for edge in (right[:-1], right[1:], down[:, :-1], down[:, 1:])]
    total = np.maximum(np.sum(weights, axis=0), 1.0)

    def centers(across: NDArray, along: NDArray) -> NDArray:
        parts = (across[:-1], across[1:], along[:, :-1], along[:, 1:])
        return np.sum([weight * part for weight, part in zip(weights, parts, strict=True)], axis=0) / total

    farthest_px = policy.farthest_shift_px
    across, along = (middle.copy() for middle in start)
    for _ in range(policy.smoothings):
        middle = centers(across, along)
        # A cut stays on the line between its two pixels, so that no triangle can fold.
        for values, axis, towards in (
            (across[1:-1], 0, 0.5 * (middle[:-1] + middle[1:])),
            (along[:, 1:-1], 1, 0.5 * (middle[:, :-1] + middle[:, 1:])),
        ):
            inner = (slice(1, -1),) if axis == 0 else (slice(None), slice(1, -1))
            first = start[axis][inner][..., axis]
            moved = np.where(moves[axis][inner], 0.5 * (values + towards)[..., axis], values[..., axis])
            values[..., axis] = first + np.clip(moved - first, -farthest_px, farthest_px)
    return across, along, centers(across, along)
