"""A picture that follows what it shows: after a few Gaussians came or went, only the tiles they touch are drawn again.

One chunk shows the cache to the same camera up to three times: as a guide, before a frame is integrated, and after what
it retired. In between a few primitives of some hundred thousands change.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from cache3d.rasterizer import tile_kernels as tiles
from cache3d.rasterizer.cpu import TILE_BLOCK, aligned_rows, depth_order, project, tile_lists
from cache3d.rasterizer.projection_kernels import FLAT, touch
from cache3d.rasterizer.types import Raster, camera_row
from cache3d.rendering.splat_attributes import to_splats
from geometry.camera import Camera
from geometry.jit import compiled, for_blocks
from geometry.primitives import Gaussians

Array = NDArray[Any]


class IncrementalRaster:
    """What Gaussians show to one camera, on a CPU; always the bits of a picture drawn anew.

    What has gone stays in the lists, with no opacity.

    Args:
        camera: whose confidence and footprints are shown (no batch axis).
        samples: per pixel and axis.
        eps2d: as in `rasterize`.
    """

    def __init__(self, camera: Camera, samples: int, eps2d: float) -> None:
        self._camera, self._eps2d = camera, eps2d
        fine = camera.resized((camera.size[0] * samples, camera.size[1] * samples))
        self._row, self._size = camera_row(fine.camera_from_world, fine.focal_px, fine.center_px), fine.size
        self._tiles = (-(-fine.size[0] // tiles.TILE), -(-fine.size[1] // tiles.TILE))
        self._names: Array | None = None

    def draw(self, part: Gaussians, names: Int[Tensor, "n"], chosen: Int[Tensor, "k"], recolored: Array) -> Raster:
        """Show the chosen Gaussians.

        Args:
            part: Gaussians.
            names: of each, ascending; what has a name keeps its place.
            chosen: which to show, ascending.
            recolored: names of those with other colors or confidences than when last drawn.
        """
        wanted = names[chosen].numpy()
        if self._names is None:
            touched = self._start(part, chosen, wanted)
        else:
            touched = self._follow(part, chosen, wanted, recolored)
        self._composite(np.flatnonzero(touched))
        sums, alpha = torch.from_numpy(self._sums)[None], torch.from_numpy(1.0 - self._transmittance)[None, None]
        return Raster(sums[:, :-1], sums[:, -1:] / alpha.clamp_min(1e-10), alpha)

    def _start(self, part: Gaussians, chosen: Tensor, wanted: Array) -> Array:
        """Lay out everything; which tiles to draw: all."""
        self._names = wanted
        self._flat, self._box, self._channels = self._projected(part, chosen)
        self._starts, self._ids = self._lists(self._flat, self._box)
        self._sums = np.empty((self._channels + 1, *self._size), np.float32)
        self._transmittance = np.empty(self._size, np.float32)
        self._last = np.empty(self._size, np.int32)
        return np.full(self._tiles[0] * self._tiles[1], True)

    def _follow(self, part: Gaussians, chosen: Tensor, wanted: Array, recolored: Array) -> Array:
        """Take away and add what differs; which tiles to draw."""
        assert self._names is not None
        touched = np.full(self._tiles[0] * self._tiles[1], False)
        gone, added = np.full(len(self._names), False), np.full(len(wanted), False)
        compare(self._names, wanted, gone, added)
        changed = np.flatnonzero(np.isin(wanted, recolored) & ~added) if len(recolored) else np.zeros(0, np.int64)
        if len(changed):
            rows = np.searchsorted(self._names, wanted[changed])
            values = to_splats(part, chosen[torch.from_numpy(changed)], self._camera).values.numpy()
            self._flat[rows, FLAT : FLAT + self._channels] = values
            touch(self._box[rows], self._tiles[1], touched)
        lost = np.flatnonzero(gone)
        self._flat[lost, 5] = 0.0
        touch(self._box[lost], self._tiles[1], touched)
        if added.any():
            self._append(part, chosen[torch.from_numpy(added)], wanted[added], touched)
        return touched

    def _append(self, part: Gaussians, chosen: Tensor, names: Array, touched: Array) -> None:
        """Add Gaussians to the lists."""
        assert self._names is not None
        first = len(self._names)
        flat, box, _ = self._projected(part, chosen)
        starts, ids = self._lists(flat, box)
        touch(box, self._tiles[1], touched)
        self._names = np.concatenate([self._names, names])
        together = aligned_rows(first + len(flat), flat.shape[1])
        self._flat = np.concatenate([self._flat, flat], out=together)
        self._box = np.concatenate([self._box, box])
        merged_starts, merged_ids = self._starts + starts, np.empty(len(self._ids) + len(ids), np.int32)
        for_blocks(
            len(touched),
            TILE_BLOCK,
            lambda i, j: merge_lists(
                i, j, self._flat, self._starts, self._ids, starts, ids, first, merged_starts, merged_ids
            ),
        )
        self._starts, self._ids = merged_starts, merged_ids

    def _projected(self, part: Gaussians, chosen: Tensor) -> tuple[Array, Array, int]:
        parts = [t.numpy() for t in vars(to_splats(part, chosen, self._camera)).values()]
        return *project(parts, self._row, self._size, self._eps2d), parts[-1].shape[1]

    def _lists(self, flat: Array, box: Array) -> tuple[Array, Array]:
        return tile_lists(*depth_order(flat, box), self._tiles)[:2]

    def _composite(self, which: Array) -> None:
        height, width = self._size
        for_blocks(
            len(which),
            TILE_BLOCK,
            lambda i, j: tiles.composite(
                which[i:j], self._tiles[1], width, height, self._starts, self._ids, self._flat,
                self._sums, self._transmittance, self._last,
            ),
        )  # fmt: skip


@compiled
def compare(old, new, gone, added):
    """Mark which of the ``old`` numbers are missing in ``new``, and which of ``new`` in ``old``; both ascend."""
    j = 0
    for i in range(len(old)):
        while j < len(new) and new[j] < old[i]:
            added[j] = True
            j += 1
        if j < len(new) and new[j] == old[i]:
            j += 1
        else:
            gone[i] = True
    added[j:] = True


@compiled
def merge_lists(start, stop, flat, starts, ids, more_starts, more_ids, first, out_starts, out_ids):
    """Merge two lists of Gaussians for each of the tiles ``start:stop``, nearest first, at equal depth the first list.

    Args:
        start, stop: tiles.
        flat: projected Gaussians.
        starts, ids: the first lists.
        more_starts, more_ids: the second lists; they count Gaussians from ``first`` on.
        first: see above.
        out_starts: where each merged list begins.
        out_ids: gets them.
    """
    for tile in range(start, stop):
        i, j = starts[tile], more_starts[tile]
        for to in range(out_starts[tile], out_starts[tile + 1]):
            take = j == more_starts[tile + 1]
            if not take and i < starts[tile + 1]:
                take = flat[ids[i], 8] <= flat[first + more_ids[j], 8]
            if take:
                out_ids[to] = ids[i]
                i += 1
            else:
                out_ids[to] = first + more_ids[j]
                j += 1
