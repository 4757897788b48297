"""``cameras.json``: the finished cameras as nerfstudio's ``transforms.json``, with an extra key ``worldwarp``."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

from geometry.camera import Camera
from geometry.camera_io.nerfstudio import share_a_lens, transforms_frames, transforms_head
from scenes.io.atomic_files import WorldError
from scenes.store import chunk_files
from scenes.store.manifest import ChunkRecord


class CamerasText:
    """Makes the text of ``cameras.json``; the rows of each chunk are cached, as every new chunk rewrites the file."""

    def __init__(self) -> None:
        """Start with an empty cache of rows."""
        self._rows: dict[tuple[int, bool], tuple[str, str]] = {}

    def forget(self) -> None:
        """Clear the cached rows; required after chunks were undone, because their indices are used again."""
        self._rows.clear()

    def after(self, records: Sequence[ChunkRecord], camera: Camera, *, metric: bool) -> str:
        """The text of the whole file.

        Args:
            records: the committed chunks, in order.
            camera: cameras ``[n]``, at least those of the chunks.
            metric: whether a scene unit is a meter.
        """
        camera = camera[: sum(record.frames for record in records)]
        shared = share_a_lens(camera)
        rows = [self._rows_of(record, camera, with_lens=not shared) for record in records]
        ours = {
            "world_from_camera": [],
            "axes": "OpenCV: x right, y down, z forward",
            "chunk": [record.index for record in records for _ in range(record.frames)],
            "metric": metric,
        }
        text = json.dumps(transforms_head(camera, with_lens=shared) | {"frames": [], "worldwarp": ours}) + "\n"
        for part, key in enumerate(("frames", "world_from_camera")):
            text = text.replace(f'"{key}": []', f'"{key}": [{", ".join(row[part] for row in rows)}]', 1)
        return text

    def check(self, path: Path, records: Sequence[ChunkRecord], camera: Camera, *, metric: bool) -> None:
        """Compare a file with its expected text; a missing file is accepted.

        Raises:
            WorldError: truncated or changed.
        """
        if not path.is_file() or not records:
            return
        # A process that dies between the commit and this file leaves the file one chunk behind.
        steps = (0, 1) if len(records) > 1 else (0,)
        wanted = [self.after(records[: len(records) - back], camera, metric=metric) for back in steps]
        with contextlib.suppress(UnicodeDecodeError):
            if path.read_text("utf-8") in wanted:
                return
        raise WorldError(f"{path}: truncated or changed; delete it (it is written again with the next chunk)")

    def _rows_of(self, record: ChunkRecord, camera: Camera, *, with_lens: bool) -> tuple[str, str]:
        """Entries of a chunk for ``frames`` and ``world_from_camera``, as JSON text without the list brackets."""
        key = (record.index, with_lens)
        if key not in self._rows:
            frames = range(record.first_frame, record.first_frame + record.frames)
            mine = camera[frames.start : frames.stop]
            theirs = transforms_frames(mine, [chunk_files.frame_name(i, record) for i in frames], with_lens=with_lens)
            for i, frame in zip(frames, theirs, strict=True):
                depth = chunk_files.older_depth_name(i, record)
                if depth is not None:
                    frame["depth_file_path"] = depth
            self._rows[key] = (json.dumps(theirs)[1:-1], json.dumps(mine.world_from_camera.tolist())[1:-1])
        return self._rows[key]
