"""Tracks of points: which frames of a world observe which points, in the form of structure from motion."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geometry.camera_io.colmap import Tracks
from geometry.frame import Frame
from geometry.primitives import Points
from geometry.project import project
from scenes.io.png import to_bytes
from scenes.store.world_store import WorldStore

MAX_TRACK = 8  # observations per point, spread over the frames that observe it
STEP_PX = 0.01  # keypoints are rounded to this grid


def tracks_of(world: WorldStore, points: Points) -> Tracks:
    """Tracks of the points that at least two frames observe (one frame, in a world of one frame).

    Keypoints are the projections of the points, so the errors are only those of rounding.

    Args:
        world: world whose frames' depth decides which points each frame observes.
        points: points of the world; sky points are left out.
    """
    points = points[~points.sky]
    max_points = 100_000  # more points slow the reading programs without a benefit to training
    # Every n-th point: ids follow the order of arrival, so all chunks keep their share.
    points = points[:: max(1, -(-len(points) // max_points))]
    positions = points.positions.double()
    seen = np.zeros((len(world), len(points)), bool)
    for record in world.chunks:
        frames = world.chunk(record.index).frames
        for i in range(len(frames)):
            seen[record.first_frame + i] = _seen(frames[i], positions)
    counts = seen.sum(0)
    kept = np.flatnonzero(counts >= min(2, len(world)))
    seen, counts = seen[:, kept], counts[kept]
    rank = seen.cumsum(0, dtype=np.int32) - 1
    few, first = np.minimum(counts, MAX_TRACK), np.arange(len(kept)) % counts
    # Select MAX_TRACK observations, evenly spaced; the offset differs between points, so that all frames are used.
    seen &= (rank * few + first) // counts != ((rank - 1) * few + first) // counts
    image, point = np.nonzero(seen)
    positions = positions[torch.from_numpy(kept)]
    exact = np.empty((len(image), 2))
    for i, of_image in enumerate(np.split(np.arange(len(image)), np.searchsorted(image, np.arange(1, len(world))))):
        exact[of_image] = project(positions[point[of_image]], world.cameras[i].to(torch.float64))[0].numpy()
    pixels = np.round(exact / STEP_PX) * STEP_PX
    errors = np.bincount(point, np.linalg.norm(pixels - exact, axis=1), len(kept)) / np.maximum(seen.sum(0), 1)
    colors = to_bytes(points.colors[torch.from_numpy(kept)].t()[None, :, :, None])[0, :, :, 0].t().numpy()
    return Tracks(positions.numpy(), np.ascontiguousarray(colors), image, point, pixels.round(2), errors)


def _seen(frame: Frame, positions: Float[Tensor, "n 3"]) -> Bool[np.ndarray, "n"]:
    """Mask of the points that one frame observes: inside the image, and at the depth of the frame there."""
    height, width = frame.camera.size
    pixels, z = project(positions, frame.camera.to(torch.float64))
    x, y = pixels.unbind(-1)
    inside = (z > 1e-6) & (x >= 0.0) & (x < width) & (y >= 0.0) & (y < height)
    place = torch.where(inside, y.long() * width + x.long(), 0)
    depth, known = (part.reshape(-1)[place] for part in (frame.depth, frame.valid & ~frame.sky))
    same_depth = 0.03  # relative difference between a point's depth and the frame's depth below which it is observed
    return (inside & known & ((depth - z).abs() < same_depth * z)).numpy()
