"""Incremental rasterization: after a few Gaussians changed, only the tiles that they touch are composited again.

During one chunk the cache is rendered from the same camera up to three times: for the guide, before a frame is
integrated, and after its retirements. In between, a few of some hundred thousand primitives change.
"""

from __future__ import annotations

import threading

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from cache3d.rasterizer import tile_kernels as tiles
from cache3d.rasterizer.cpu import TILE_BLOCK, aligned_rows, depth_order, project, tile_lists
from cache3d.rasterizer.projection_kernels import FLAT, touch
from cache3d.rasterizer.types import Array, Raster, camera_row
from cache3d.rendering.policy import DEFAULT_RENDERING, RenderingPolicy
from cache3d.rendering.splat_attributes import supersampled, to_splats
from geometry.camera import Camera
from geometry.jit import compiled, for_blocks
from geometry.primitives import Gaussians


class IncrementalRaster:
    """The raster of one camera, on the CPU; bit-identical to rasterizing all Gaussians again.

    Removed Gaussians stay in the tile lists, with opacity 0.

    Args:
        camera: no batch axis.
        policy: samples per pixel, footprints and confidence.
    """

    def __init__(self, camera: Camera, policy: RenderingPolicy = DEFAULT_RENDERING) -> None:
        self._camera, self._policy = camera, policy
        fine = supersampled(camera, policy)
        self._row, self._size = camera_row(fine.camera_from_world, fine.focal_px, fine.center_px), fine.size
        self._tiles = (-(-fine.size[0] // tiles.TILE), -(-fine.size[1] // tiles.TILE))
        self._ids: Array | None = None
        self.lock = threading.Lock()  # to hold while drawing, where several threads may

    def draw(
        self, gaussians: Gaussians, ids: Int[Tensor, "n"], index: Int[Tensor, "k"], recolored_ids: Array
    ) -> Raster:
        """Rasterize Gaussians.

        Args:
            gaussians: all of them.
            ids: of each, ascending; the geometry of an id never changes between calls.
            index: which to rasterize, ascending.
            recolored_ids: those whose colors or confidences may have changed since the last call.
        """
        shown_ids = ids[index].numpy()
        if self._ids is None:
            touched = self._start(gaussians, index, shown_ids)
        else:
            touched = self._update(gaussians, index, shown_ids, recolored_ids)
        self._composite(np.flatnonzero(touched))
        sums, alpha = torch.from_numpy(self._sums)[None], torch.from_numpy(1.0 - self._transmittance)[None, None]
        return Raster(sums[:, :-1], sums[:, -1:] / alpha.clamp_min(1e-10), alpha)

    def _start(self, gaussians: Gaussians, index: Tensor, shown_ids: Array) -> Array:
        """Project everything; returns the tiles to composite: all."""
        self._ids = shown_ids
        self._flat, self._box, self._channels = self._projected(gaussians, index)
        self._starts, self._entries = self._lists(self._flat, self._box)
        self._sums = np.empty((self._channels + 1, *self._size), np.float32)
        self._transmittance = np.empty(self._size, np.float32)
        self._last = np.empty(self._size, np.int32)
        return np.full(self._tiles[0] * self._tiles[1], True)

    def _update(self, gaussians: Gaussians, index: Tensor, shown_ids: Array, recolored_ids: Array) -> Array:
        """Remove and add the Gaussians that differ; returns the tiles to composite."""
        assert self._ids is not None
        touched = np.full(self._tiles[0] * self._tiles[1], False)
        gone, added = np.full(len(self._ids), False), np.full(len(shown_ids), False)
        compare(self._ids, shown_ids, gone, added)
        changed = (
            np.flatnonzero(np.isin(shown_ids, recolored_ids) & ~added) if len(recolored_ids) else np.zeros(0, np.int64)
        )
        if len(changed):
            rows = np.searchsorted(self._ids, shown_ids[changed])
            # The geometry of an id never changes: values alone are written again.
            recolored = to_splats(gaussians, index[torch.from_numpy(changed)], self._camera, self._policy)
            self._flat[rows, FLAT : FLAT + self._channels] = recolored.values.numpy()
            touch(self._box[rows], self._tiles[1], touched)
        lost = np.flatnonzero(gone)
        # Opacity 0: compositing skips it, and the tile lists need no change.
        self._flat[lost, 5] = 0.0
        touch(self._box[lost], self._tiles[1], touched)
        if added.any():
            self._append(gaussians, index[torch.from_numpy(added)], shown_ids[added], touched)
        return touched

    def _append(self, gaussians: Gaussians, index: Tensor, ids: Array, touched: Array) -> None:
        """Add Gaussians to the tile lists, and mark the tiles that they touch."""
        assert self._ids is not None
        first = len(self._ids)
        flat, box, _ = self._projected(gaussians, index)
        starts, entries = self._lists(flat, box)
        touch(box, self._tiles[1], touched)
        # Ids arrive ascending, so that appending keeps all of them in order.
        self._ids = np.concatenate([self._ids, ids])
        together = aligned_rows(first + len(flat), flat.shape[1])
        self._flat = np.concatenate([self._flat, flat], out=together)
        self._box = np.concatenate([self._box, box])
        merged_starts, merged_entries = self._starts + starts, np.empty(len(self._entries) + len(entries), np.int32)
        for_blocks(
            len(touched),
            TILE_BLOCK,
            lambda i, j: merge_lists(
                i, j, self._flat, self._starts, self._entries, starts, entries, first, merged_starts, merged_entries
            ),
        )
        self._starts, self._entries = merged_starts, merged_entries

    def _projected(self, gaussians: Gaussians, index: Tensor) -> tuple[Array, Array, int]:
        parts = [t.numpy() for t in vars(to_splats(gaussians, index, self._camera, self._policy)).values()]
        return *project(parts, self._row, self._size, self._policy.footprint_floor), parts[-1].shape[1]

    def _lists(self, flat: Array, box: Array) -> tuple[Array, Array]:
        return tile_lists(*depth_order(flat, box), self._tiles)[:2]

    def _composite(self, which: Array) -> None:
        height, width = self._size
        for_blocks(
            len(which),
            TILE_BLOCK,
            lambda i, j: tiles.composite(
                which[i:j], self._tiles[1], width, height, self._starts, self._entries, self._flat,
                self._sums, self._transmittance, self._last,
            ),
        )  # fmt: skip


@compiled
def compare(old, new, gone, added):
    """Compare two ascending lists of ids.

    Args:
        old, new: ``[n]`` and ``[m]`` ids.
        gone: ``[n]`` bool, False; gets True for ids missing in ``new``.
        added: ``[m]`` bool, False; gets True for ids missing in ``old``.
    """
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
    """Merge two lists of Gaussians for each of the tiles ``start:stop``: nearest first, at equal depth the first list.

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
                # At equal depth the older one first, which is storage order.
                take = flat[ids[i], 8] <= flat[first + more_ids[j], 8]
            if take:
                out_ids[to] = ids[i]
                i += 1
            else:
                out_ids[to] = first + more_ids[j]
                j += 1
