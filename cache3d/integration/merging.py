"""Duplicates: samples of one surface nearer to each other than their footprints need, found by a voxel hash.

A Gaussian's voxel is as wide as its smaller extent along the surface (half of its sampling distance), rounded down to a
power of two, so that neighbors of one frame hardly share any: on a surface seen aslant the larger extent spans several
of them. The key is the size, the three indices, and the octant of the normal: two faces of a thin wall stay apart. Sky
merges with nothing.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cache3d.rendering.view_kernels import LEAN, voxels
from geometry.jit import for_blocks
from geometry.primitives import Gaussians
from geometry.se3 import matrix_from_quat

# The usual ones of spatial hashing (Teschner et al. 2003), and two more.
_PRIMES = (73856093, 19349663, 83492791, 2654435761, 40503)
_MIX = 0x1E3779B97F4A7C15
BLOCK = 16384


def voxel_keys(
    positions: Float[Tensor, "n 3"], normals: Float[Tensor, "n 3"], extent: Float[Tensor, "n"]
) -> Int[Tensor, "n"]:
    """A 64-bit key per sample; equal for equal voxels, and for others once in 10¹⁹ pairs or so.

    Args:
        positions: world, scene units.
        normals: unit, world.
        extent: width of the voxel before it is rounded down, scene units.
    """
    level = torch.frexp(extent.clamp_min(1e-12)).exponent - 1
    cell = torch.floor(positions / torch.exp2(level.float())[:, None]).long()
    octant = ((normals > LEAN).long() * torch.tensor([1, 2, 4], device=normals.device)).sum(-1)
    key = torch.zeros_like(octant)
    for part, prime in zip((*cell.unbind(-1), level.long(), octant), _PRIMES, strict=True):
        key = (key ^ (part * prime)) * _MIX
    return key


def merge(stored: Gaussians, near: Int[Tensor, "k"], new: Gaussians) -> tuple[Int[Tensor, "m"], Bool[Tensor, "n"]]:
    """What goes when new Gaussians meet stored ones.

    Of the Gaussians of one voxel the first stays, unless it is a guess and the new one was observed.

    Args:
        stored: all of them.
        near: indices of those that the new ones can meet, ascending.
        new: the new ones.

    Returns:
        Indices of the stored ones that are superseded, and which of the new ones are kept.
    """
    new_keys, stored_keys = _keys(new, torch.arange(len(new), device=near.device)), _keys(stored, near)
    # Only a voxel that something new enters changes: stored ones that share one stay as they are.
    shared = torch.isin(stored_keys, new_keys)
    met = near[shared]
    both, keys = Gaussians.concatenate([stored[met], new]), torch.cat([stored_keys[shared], new_keys])
    # In one voxel: what was observed comes first, then what was stored first.
    order = torch.argsort((~both.observed).long(), stable=True)
    order = order[torch.argsort(keys[order], stable=True)]
    repeats = torch.zeros_like(both.observed)
    repeats[1:] = keys[order][1:] == keys[order][:-1]
    later = torch.empty_like(repeats)
    later[order] = repeats
    later &= ~both.sky
    return met[(later & ~both.observed)[: len(met)]], ~later[len(met) :]


def _keys(part: Gaussians, chosen: Int[Tensor, "k"]) -> Int[Tensor, "k"]:
    """Voxel keys of the chosen Gaussians."""
    if part.means.is_cuda:
        rows = part[chosen]
        return voxel_keys(rows.means, matrix_from_quat(rows.quats)[:, :, 2], rows.scales[:, :2].amin(-1))
    out = np.empty(len(chosen), np.int64)
    arrays = [t.numpy() for t in (chosen, part.means, part.quats, part.scales)]
    for_blocks(len(chosen), BLOCK, lambda i, j: voxels(i, j, *arrays, _PRIMES, _MIX, out))
    return torch.from_numpy(out)
