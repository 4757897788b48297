"""Duplicates: samples of one surface nearer to each other than their footprints need, found by a voxel hash.

A Gaussian's voxel is as wide as its smaller extent along the surface (half of its sampling distance), rounded down to a
power of two, so that neighbours of one frame share none. The key is the size, the three indices, and the octant of the
normal: two faces of a thin wall stay apart. Sky merges with nothing.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cache3d.reference import rotation_matrices
from geometry.primitives import Gaussians

# The usual ones of spatial hashing (Teschner et al. 2003), and two more.
_PRIMES = (73856093, 19349663, 83492791, 2654435761, 40503)


def voxel_keys(
    positions: Float[Tensor, "n 3"], normals: Float[Tensor, "n 3"], extent: Float[Tensor, "n"]
) -> Int[Tensor, "n"]:
    """A 64-bit key per sample; equal for equal voxels, and for others once in 10¹⁹ pairs or so.

    Args:
        positions: world, scene units.
        normals: unit, world.
        extent: width of the voxel before it is rounded down, scene units.
    """
    level = torch.floor(torch.log2(extent.clamp_min(1e-12)))
    cell = torch.floor(positions / torch.exp2(level)[:, None]).long()
    octant = ((normals > 0).long() * torch.tensor([1, 2, 4], device=normals.device)).sum(-1)
    key = torch.zeros_like(octant)
    for part, prime in zip((*cell.unbind(-1), level.long(), octant), _PRIMES, strict=True):
        key = (key ^ (part * prime)) * 0x1E3779B97F4A7C15
    return key


def merge(stored: Gaussians, new: Gaussians) -> tuple[Bool[Tensor, "s"], Bool[Tensor, "n"]]:
    """What goes when new Gaussians meet stored ones.

    Of the Gaussians of one voxel the first stays, unless it is a guess and the new one was observed.

    Args:
        stored: those that the new ones can meet.
        new: the new ones.

    Returns:
        Which of the stored ones are superseded, and which of the new ones are kept.
    """
    new_keys, stored_keys = _keys(new), _keys(stored)
    # Only a voxel that something new enters changes: stored ones that share one stay as they are.
    met = torch.nonzero(torch.isin(stored_keys, new_keys))[:, 0]
    both, keys = Gaussians.concatenate([stored[met], new]), torch.cat([stored_keys[met], new_keys])
    # In one voxel: what was observed comes first, then what was stored first.
    order = torch.argsort((~both.observed).long(), stable=True)
    order = order[torch.argsort(keys[order], stable=True)]
    repeats = torch.zeros_like(both.observed)
    repeats[1:] = keys[order][1:] == keys[order][:-1]
    later = torch.empty_like(repeats)
    later[order] = repeats
    later &= ~both.sky
    superseded = torch.zeros_like(stored.observed)
    superseded[met] = (later & ~both.observed)[: len(met)]
    return superseded, ~later[len(met) :]


def _keys(part: Gaussians) -> Int[Tensor, "n"]:
    return voxel_keys(part.means, rotation_matrices(part.quats)[:, :, 2], part.scales[:, :2].amax(-1))
