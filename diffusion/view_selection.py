"""Which frames of the past a bounded memory keeps, and which of them a chunk attends to, by what their cameras see."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from geometry.camera import Camera


def frames_kept(camera: Camera, unit: float, *, bank: int, sink: int, recent: int) -> Int[Tensor, "k"]:
    """Drop frames until ``bank`` are left, first the one whose view is nearest to that of another that is kept.

    Args:
        camera: of the remembered frames, oldest first.
        unit: length in scene units that counts as much as a right angle.
        bank: at least ``sink + recent``.
        sink: oldest frames that are never dropped.
        recent: newest frames that are never dropped, at least 1.

    Returns:
        Places of the frames that stay, oldest first.
    """
    distance = view_distance(camera, camera, unit).double()
    distance.fill_diagonal_(torch.inf)
    kept = torch.ones(len(camera), dtype=torch.bool)
    for _ in range(len(camera) - bank):
        nearest = distance.masked_fill(~kept[None, :], torch.inf).amin(dim=1)
        nearest[~kept] = torch.inf
        nearest[:sink] = nearest[-recent:] = torch.inf
        kept[nearest.argmin()] = False
    return kept.nonzero()[:, 0]


def frames_recalled(
    camera: Camera, chunk: Camera, unit: float, *, sink: int, recent: int, nearest: int, diversity: float = 0.0
) -> Int[Tensor, "k"]:
    """The sink, the newest frames, and of the others those nearest in view to a chunk.

    Args:
        camera: of the remembered frames, oldest first; more than ``sink + recent + nearest``.
        chunk: cameras ``[t]`` of the chunk.
        unit: length in scene units that counts as much as a right angle.
        sink: oldest frames, always recalled.
        recent: newest frames, always recalled; at least 1.
        nearest: number of others.
        diversity: share in 0..1 of difference from what is already recalled, against nearness to the chunk (maximal
            marginal relevance, as in TetherCache, arXiv 2606.13035); 0 recalls the nearest.

    Returns:
        Places of the recalled frames, oldest first.
    """
    apart = view_distance(camera, camera, unit)
    to_chunk = view_distance(camera, chunk, unit).amin(dim=1)
    chosen = torch.zeros(len(camera), dtype=torch.bool)
    chosen[:sink] = chosen[-recent:] = True
    for _ in range(nearest):
        score = (1.0 - diversity) * to_chunk - diversity * apart[:, chosen].amin(dim=1)
        chosen[score.masked_fill(chosen, torch.inf).argmin()] = True
    return chosen.nonzero()[:, 0]


def view_distance(a: Camera, b: Camera, unit: float) -> Float[Tensor, "a b"]:
    """Distance of two views: between camera centers, in units, plus one minus the cosine between optical axes."""
    apart = (a.position[:, None] - b.position[None]).norm(dim=-1) / unit
    axes = a.world_from_camera[:, :3, 2] @ b.world_from_camera[:, :3, 2].T
    return apart + (1.0 - axes)
