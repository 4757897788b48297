"""Numba kernels that bring a picture up to date; see `cache3d.canvas`."""

from __future__ import annotations

from cache3d.compiled import compiled


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
