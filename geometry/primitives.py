"""Points and Gaussians in natural units, with their provenance, and changes of a growing set of them."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Points:
    """Colored world points with provenance.

    Attributes:
        positions: ``[n 3]``, world, scene units.
        colors: ``[n 3]``, 0..1.
        normals: ``[n 3]``, unit, world; all zero where unknown.
        radii: ``[n]``, scene units: half the footprint of the pixel that made the point.
        chunk: ``[n]`` int32, index of the chunk it came from.
        observed: ``[n]``, True when a camera saw it, False when it was generated.
        confidence: ``[n]``, 0..1.
        sky: ``[n]``, True for the far layer that never parallaxes.
    """

    positions: Float[Tensor, "n 3"]
    colors: Float[Tensor, "n 3"]
    normals: Float[Tensor, "n 3"]
    radii: Float[Tensor, "n"]
    chunk: Int[Tensor, "n"]
    observed: Bool[Tensor, "n"]
    confidence: Float[Tensor, "n"]
    sky: Bool[Tensor, "n"]

    def __len__(self) -> int:
        """Number of points."""
        return self.positions.shape[0]

    def __getitem__(self, index: slice | Tensor) -> Points:
        """Select primitives by slice, index or mask."""
        return Points(*(getattr(self, f.name)[index] for f in fields(self)))

    @staticmethod
    def concatenate(parts: list[Points]) -> Points:
        """Join, in order."""
        return Points(*(torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Points)))


@dataclass(frozen=True)
class Gaussians:
    """3D Gaussians in natural units with provenance.

    Attributes:
        means: ``[n 3]``, world, scene units.
        quats: ``[n 4]``, unit quaternions, wxyz, world from Gaussian.
        scales: ``[n 3]``, linear standard deviations, scene units, positive.
        opacities: ``[n]``, 0..1.
        colors: ``[n 3]``, 0..1 (constant over direction).
        chunk: ``[n]`` int32, index of the chunk it came from.
        observed: ``[n]``, True when a camera saw it, False when it was generated.
        confidence: ``[n]``, 0..1.
        sky: ``[n]``, True for the far layer that never parallaxes.
        n_updates: ``[n]``, updates of its color and geometry so far; a frame that shows it smaller than a pixel counts
            as the square of its size.
    """

    means: Float[Tensor, "n 3"]
    quats: Float[Tensor, "n 4"]
    scales: Float[Tensor, "n 3"]
    opacities: Float[Tensor, "n"]
    colors: Float[Tensor, "n 3"]
    chunk: Int[Tensor, "n"]
    observed: Bool[Tensor, "n"]
    confidence: Float[Tensor, "n"]
    sky: Bool[Tensor, "n"]
    n_updates: Float[Tensor, "n"]

    def __len__(self) -> int:
        """Number of Gaussians."""
        return self.means.shape[0]

    def __getitem__(self, index: slice | Tensor) -> Gaussians:
        """Select primitives by slice, index or mask."""
        return Gaussians(*(getattr(self, f.name)[index] for f in fields(self)))

    @staticmethod
    def concatenate(parts: list[Gaussians]) -> Gaussians:
        """Join, in order."""
        return Gaussians(*(torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Gaussians)))


@dataclass(frozen=True)
class Change:
    """The difference between two states of a growing set of primitives.

    The id of a primitive is its place in the order of arrival; it never changes and is never used again.

    Attributes:
        total: number of ids given so far, afterwards.
        index: ``[m]`` int64, ascending: ids of the rows to write; from the former ``total`` on they are new.
        rows: their content.
        removed: ``[r]`` int64, ascending: ids of the rows to remove.
    """

    total: int
    index: Int[Tensor, "m"]
    rows: Points | Gaussians
    removed: Int[Tensor, "r"]

    @staticmethod
    def from_nothing(rows: Points | Gaussians) -> Change:
        """The change from an empty set to ``rows``."""
        return Change(len(rows), torch.arange(len(rows)), rows, torch.zeros(0, dtype=torch.int64))

    def then(self, later: Change) -> Change:
        """Both changes as one."""
        # Of a row that both write the later content holds.
        kept = ~torch.isin(self.index, torch.cat([later.index, later.removed]))
        index, order = torch.cat([self.index[kept], later.index]).sort()
        columns = (
            torch.cat([getattr(self.rows, f.name)[kept], getattr(later.rows, f.name)])[order]
            for f in fields(later.rows)
        )
        removed = torch.cat([self.removed, later.removed]).unique()
        return Change(later.total, index, type(later.rows)(*columns), removed)
