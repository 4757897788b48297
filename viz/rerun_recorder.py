"""Records a session with Rerun: to a file, to a viewer, or to both."""

from __future__ import annotations

import logging
import secrets
import subprocess
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import rerun as rr
import torch
from jaxtyping import Int
from torch import Tensor

from geometry.primitives import Gaussians, Points
from viz import entities
from viz import viewer_process as viewer
from viz.blueprint import HOW_TO_READ, make_blueprint
from viz.live_stream import LiveStream, within
from viz.log_entries import (
    LogEntry,
    Scale,
    TimePoint,
    chunk_entries,
    opening_entries,
    photo_entries,
    text_entry,
    undo_entries,
)
from viz.logged_primitives import LoggedPrimitives
from viz.recorder import ChunkEvent, Level, NullRecorder, Recorder, StartEvent, UndoEvent
from viz.viewer_targets import LiveTarget, native_target, remote_target, web_target

log = logging.getLogger(__name__)

APPLICATION = "worldwarp"
IDENTITY = "recording.id"  # file next to the recordings that stores their recording id
ViewerMode = Literal["auto", "native", "web", "remote", "file", "none"]

_FLUSH_S = 10.0


def open_recorder(
    mode: ViewerMode,
    recording: Path | None,
    *,
    port: int | None = None,
    url: str | None = None,
    browser: bool | None = False,
) -> Recorder:
    """Make the recorder for ``viewer=mode``; invalid settings are refused here, before any work.

    Args:
        mode: ``native`` opens a window, ``web`` serves a page, ``remote`` sends to the viewer at ``url``, ``file``
            only writes, ``none`` records nothing; ``auto`` is ``native`` where there is a display, else ``file``.
        recording: the ``.rrd`` file to write, which must not exist; None for no file.
        port: of the window or of the web page, whose data comes from the next one; None for the default or a free one.
        url: ``rerun+http://HOST:PORT/proxy``, for ``remote``.
        browser: whether ``web`` opens a browser; None to open one if `is_interactive`.

    Raises:
        ValueError: port in use, viewer of another version, malformed address, or the recording exists.
    """
    if mode == "none":
        return NullRecorder()
    if recording is not None and recording.exists():
        raise ValueError(f"recording: want a new file, got {recording}, which exists; choose another folder")
    chosen, why = mode, ""
    if mode == "auto":
        chosen, why = (
            ("native", "auto, there is a display: ") if viewer.has_display() else ("file", "auto, no display: ")
        )
    target = None
    if chosen == "native":
        target = native_target(port)
    elif chosen == "web":
        target = web_target(port, browser)
    elif chosen == "remote":
        target = remote_target(url)
    recorder = RerunRecorder(recording, target)
    recorder.how_to_look = why + recorder.how_to_look
    return recorder


def new_recording_path(folder: Path) -> Path:
    """File of the next recording of a world: ``recording.rrd``, and ``recording-2.rrd`` on the first resume."""
    path, count = folder / "recording.rrd", 1
    while path.exists():
        count += 1
        path = folder / f"recording-{count}.rrd"
    return path


def identity_of(folder: Path, fresh: str) -> str:
    """The recording id that all recordings of a world's folder share: the stored one, else ``fresh``, which is stored.

    Rerun shows recordings with one id as one. The id is not copied to a branch of a world, so a branch gets a new one.

    Raises:
        OSError: the folder cannot be read or written.
    """
    file = folder / IDENTITY
    if not file.is_file():
        file.write_text(f"{fresh}\n", encoding="ascii")
    return file.read_text(encoding="ascii").strip() or fresh


@dataclass(frozen=True)
class _Added:
    """Primitives that the cache added, and their ids."""

    added: Points | Gaussians
    ids: Int[Tensor, "n"]


def _where_recorded(recording: Path | None) -> str:
    if recording is None:
        return "nothing is shown or recorded"
    return f"recording only; look at it with `worldwarp view {recording.parent}`"


class RerunRecorder:
    """Two streams of one recording: the file gets all primitives, the viewer a bounded number.

    They are separate, since a stalled viewer on a shared stream would also stop the file.
    """

    def __init__(
        self,
        recording: Path | None,
        target: LiveTarget | None = None,
        *,
        live_update_limit: int = 200_000,
        live_limit: int = 2_000_000,
    ) -> None:
        """Store the settings; ``begin`` opens file and viewer.

        Args:
            recording: file to write, None for none.
            target: live viewer, None for none.
            live_update_limit: most primitives in one update of the viewer.
            live_limit: most primitives in the viewer; beyond that the oldest generated chunks are cleared.
        """
        self.recording = recording
        self.how_to_look = target.how_to_look if target else _where_recorded(recording)
        self._recording_id = secrets.token_hex(16)
        self._target = target
        self._live_update_limit, self._live_limit = live_update_limit, live_limit
        self._file: rr.RecordingStream | None = None
        self._live: LiveStream | None = None
        self._program: subprocess.Popen[bytes] | None = None
        self._shown: deque[tuple[int, int]] = deque()  # (chunk, primitives) that the viewer holds
        self._take = 0  # number of undos
        self._in_file, self._in_viewer = LoggedPrimitives(None), LoggedPrimitives(live_update_limit)
        self._scale = Scale(1.0, (0.0, 2.0))
        self._now = TimePoint(0, 0)
        self._position = torch.zeros(3)
        self._warned: set[str] = set()

    def begin(self, event: StartEvent) -> None:
        """Open file and live view; record the world before the first chunk (see ``Recorder``)."""
        self._guarded(self._identify)
        self._scale = Scale.of(event.photo)
        self._position = event.photo.camera.position[0].cpu()
        self._guarded(lambda: self._open_file(event))
        self._guarded(lambda: self._open_live(event))
        self._guarded(lambda: self._begin(event))

    def chunk(self, event: ChunkEvent) -> None:
        """Record a chunk (see ``Recorder``)."""
        self._guarded(lambda: self._chunk(event))
        if self._program is not None and self._program.poll() is not None:
            self._warn("viewer", f"it is gone (exit code {self._program.returncode}); exploration goes on without it")

    def undo(self, event: UndoEvent) -> None:
        """Record that the last chunk was undone (see ``Recorder``)."""
        self._guarded(lambda: self._undo(event))

    def text(self, message: str, level: Level = "INFO") -> None:
        """Record a line of the log (see ``Recorder``)."""
        self._guarded(lambda: self._write([text_entry(message, level, self._now)]))

    def close(self) -> None:
        """Finish the file and send what is queued to the viewer; takes seconds at most and never raises."""
        # The file first: it must be complete even if the viewer does not answer.
        self._guarded(self._close_file)
        if self._live is not None and not self._live.close():
            self._warn("viewer", "it did not receive the last updates in time; the recording has them")
            # Rerun's own exit hook would wait for that viewer, for ever if it is frozen.
            rr.unregister_shutdown()
        self._live = None
        if self._program is not None and self._target is not None and self._target.ends_with_run:
            self._program.terminate()
            self._program.wait()
        self._program = None

    def _identify(self) -> None:
        if self.recording is not None:
            self._recording_id = identity_of(self.recording.parent, self._recording_id)

    def _open_file(self, event: StartEvent) -> None:
        if self.recording is not None:
            file = rr.RecordingStream(APPLICATION, recording_id=self._recording_id)
            recording, layout = self.recording, make_blueprint(event.photo, self._scale, following=False)
            # On a full disk, Rerun may block for ever while it writes the layout.
            within(_FLUSH_S, lambda: file.save(recording, layout))
            self._file = file

    def _open_live(self, event: StartEvent) -> None:
        target = self._target
        if target is None:
            return
        layout = make_blueprint(event.photo, self._scale, following=True)

        def connect() -> rr.RecordingStream:
            stream = rr.RecordingStream(APPLICATION, recording_id=self._recording_id, send_properties=False)
            stream.set_sinks(target.make_sink(), default_blueprint=layout)
            self._program = target.show()
            return stream

        self._live = LiveStream(connect)

    def _begin(self, event: StartEvent) -> None:
        self._write(list(opening_entries(event, self._scale, HOW_TO_READ)), _Added(event.added, event.ids))
        self._write(list(photo_entries(event.photo, self._scale)))

    def _chunk(self, event: ChunkEvent) -> None:
        self._now = TimePoint(event.first_frame + len(event.frames) - 1, event.index)
        self._write(
            list(chunk_entries(event, self._scale, self._position)), _Added(event.added, event.ids), event.removed
        )
        self._position = event.frames.camera.position[-1].cpu()

    def _undo(self, event: UndoEvent) -> None:
        self._write(list(undo_entries(event, self._scale, self._take)))
        self._take += 1
        self._in_file, self._in_viewer = (
            LoggedPrimitives(None, self._take),
            LoggedPrimitives(self._live_update_limit, self._take),
        )
        self._shown.clear()
        self._now = TimePoint(event.first_frame - 1, event.index - 1)
        self._position = event.camera.position.cpu()
        self._write([], _Added(event.left, event.ids))

    def _write(
        self, entries: list[LogEntry], new: _Added | None = None, removed: Int[Tensor, "r"] | None = None
    ) -> None:
        gone = torch.zeros(0, dtype=torch.int64) if removed is None else removed.cpu()
        if self._file is not None:
            primitives = self._in_file.retire(gone, self._now)
            if new is not None:
                primitives += self._in_file.put(new.added, new.ids.cpu(), self._now)
            for entry in (*entries, *primitives):
                entry.log_to(self._file)
        if self._live is not None:
            if new is not None:
                self._live.offer(self._live_entries(new, gone))
            self._live.offer(entries)

    def _live_entries(self, new: _Added, gone: Int[Tensor, "r"]) -> list[LogEntry]:
        """Entries for the viewer: new primitives, subsampled, and clears of old chunks, which bound its memory."""
        entries = self._in_viewer.retire(gone, self._now)
        entries += self._in_viewer.put(new.added, new.ids.cpu(), self._now)
        self._shown.append((self._now.chunk, min(len(new.added), self._live_update_limit)))
        while sum(count for _, count in self._shown) > self._live_limit and len(self._shown) > 2:
            # The first one, the photo's, is never cleared.
            chunk = self._shown[1][0]
            del self._shown[1]
            for path in (entities.cache(chunk, self._take), entities.sky(chunk, self._take)):
                entries += self._in_viewer.clear(path, self._now)
        return entries

    def _close_file(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None

            def finish() -> None:
                file.flush(timeout_sec=_FLUSH_S)
                file.disconnect()

            within(2.0 * _FLUSH_S, finish)

    def _guarded(self, record: Callable[[], None]) -> None:
        try:
            record()
        except Exception as error:  # an error of the recorder must not end the session
            self._warn("recorder", f"{type(error).__name__}: {error}; exploration goes on, its recording has a gap")

    def _warn(self, source: str, message: str) -> None:
        if source not in self._warned:
            self._warned.add(source)
            log.warning("%s: %s", source, message)
