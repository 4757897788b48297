"""Rerun recordings read back."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from rerun import chunk as rerun_chunk


@dataclass(frozen=True)
class Recorded:
    """A recording read back.

    Attributes:
        rows: number of rows by entity.
        chunks: stored chunks by entity.
        application: application id of the first recording.
        blueprints: number of blueprints.
    """

    rows: Counter[str]
    chunks: dict[str, list[rerun_chunk.Chunk]]
    application: str
    blueprints: int

    @staticmethod
    def read(path: Path) -> Recorded:
        """Read a whole file."""
        reader = rerun_chunk.RrdReader(path)
        rows: Counter[str] = Counter()
        chunks: dict[str, list[rerun_chunk.Chunk]] = {}
        for chunk in reader.stream():
            entity = chunk.entity_path.lstrip("/")
            rows[entity] += chunk.num_rows
            chunks.setdefault(entity, []).append(chunk)
        return Recorded(rows, chunks, reader.recordings()[0].application_id, len(reader.blueprints()))

    def column(self, entity: str, name: str) -> list:
        """All values of a column of an entity."""
        found = []
        for chunk in self.chunks[entity]:
            batch = chunk.to_record_batch()
            if name in batch.schema.names:
                found += batch.column(name).to_pylist()
        return found

    @property
    def splats(self) -> int:
        """Number of all splats that were logged."""
        rows = [row for entity in self.chunks for row in self.column(entity, "GaussianSplats3D:centers") if row]
        return sum(map(len, rows))
