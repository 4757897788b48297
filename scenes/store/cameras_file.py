"""``cameras.json``: the finished cameras as nerfstudio's ``transforms.json``, and our own ``worldwarp`` part."""

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
    """The text of one world's file; the part of each chunk is made once, for every chunk writes all of them again."""

    def __init__(self) -> None:
        """Start without a chunk."""
        self._rows: dict[tuple[int, bool], tuple[str, str]] = {}

    def forget(self) -> None:
        """Chunks may have been taken back, and others may come in their place."""
        self._rows.clear()

    def after(self, records: Sequence[ChunkRecord], camera: Camera, *, metric: bool) -> str:
        """The whole file.

        Args:
            records: the chunks so far.
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
        """Compare a file with what it should hold; a missing one is no error.

        Raises:
            WorldError: truncated or changed.
        """
        if not path.is_file() or not records:
            return
        # A process that died right after a commit leaves the file one chunk behind.
        steps = (0, 1) if len(records) > 1 else (0,)
        wanted = [self.after(records[: len(records) - back], camera, metric=metric) for back in steps]
        with contextlib.suppress(UnicodeDecodeError):
            if path.read_text("utf-8") in wanted:
                return
        raise WorldError(f"{path}: truncated or changed; delete it (it is written again with the next chunk)")

    def _rows_of(self, record: ChunkRecord, camera: Camera, *, with_lens: bool) -> tuple[str, str]:
        """The frames of a chunk in nerfstudio's form and their poses in ours, as the insides of two JSON lists."""
        key = (record.index, with_lens)
        if key not in self._rows:
            frames = range(record.first_frame, record.first_frame + record.frames)
            mine = camera[frames.start : frames.stop]
            theirs = transforms_frames(mine, [chunk_files.frame_name(i) for i in frames], with_lens=with_lens)
            for i, frame in zip(frames, theirs, strict=True):
                frame["depth_file_path"] = chunk_files.depth_name(i)
            self._rows[key] = (json.dumps(theirs)[1:-1], json.dumps(mine.world_from_camera.tolist())[1:-1])
        return self._rows[key]
