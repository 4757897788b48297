"""The walk of the studio: one thread alone touches the session, and takes what the page asks from a short queue."""

from __future__ import annotations

import io
import logging
import queue
import threading
import time
import zipfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import torch

from geometry.camera import Camera
from geometry.primitives import Change, Gaussians, Points
from scenes.formats.export import discs, export
from scenes.io.atomic_files import WorldError
from scenes.io.png import to_bytes
from scenes.store.chunk_files import frame_name
from scenes.store.manifest import ChunkRecord
from viz.recorder import NullRecorder, Recorder
from viz.studio.events import BUSY, Making, Status, Thumbnail, Tile, View
from viz.studio.page import Page
from worldwarp.arguments import WORLDS
from worldwarp.config import compose_config
from worldwarp.gallery import FoundWorld, find_worlds, thumbnail
from worldwarp.plan import collisions
from worldwarp.planned_path import unit_of
from worldwarp.recording import RECORDINGS, open_viewer, record_start, record_step, record_undo
from worldwarp.resume import forget, resume, undo
from worldwarp.session import Session
from worldwarp.state import Step
from worldwarp.studio.making import free_folder, prepared, world_name
from worldwarp.studio.ways import box_of, camera_at, foresee, is_at, toward, unknown_share

WAITING = 8  # tasks that may wait
MOST_TILES = 24  # worlds that the page shows, those that were changed last
MOST_CHUNKS = 64  # of one task: a view that is farther away is walked to in several
NO_WORLD = "there is no world yet; make one of a photo first"

_log = logging.getLogger(__name__)


class Walker:
    """Grows a world as people ask for it in a page; `viz.studio.events.Actions`.

    Everything but the methods of `Actions` runs in one thread of its own, in the order in which it was asked.

    Args:
        page: what shows it.
        open_first: makes the first session, in that thread; None: people choose a photo in the page.
        device: of worlds that are opened.
        worlds: folder of the worlds that are made in the page.
    """

    def __init__(
        self,
        page: Page,
        open_first: Callable[[Callable[[str], object]], Session] | None,
        device: str = "cpu",
        worlds: Path = Path(WORLDS),
    ) -> None:
        self._page, self._open_first, self._device, self._worlds = page, open_first, device, worlds
        self._tasks: queue.Queue[tuple[str, Callable[[], None]]] = queue.Queue(WAITING)
        self._stopping, self._ended = threading.Event(), threading.Event()
        self._session: Session | None = None
        self._planned: tuple[Making, Session] | None = None
        self._recorder: Recorder = NullRecorder()
        self._view: View | None = None  # the newest of whoever steers
        self._seen: View | None = None  # the last that `_follow` looked at
        self._following: float | None = None
        self._progress = Progress()
        self._showing = threading.Lock()  # one status at a time, so that the clock's is never shown after a newer one
        self._thumbnails: list[Thumbnail] = []
        self._chunk_s: float | None = None
        self._figures = ""
        self._found: dict[str, FoundWorld] = {}
        self._thread = threading.Thread(target=self._run, name="studio walk")
        self._clock = threading.Thread(target=self._tick, name="studio clock", daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        if self._open_first is not None:
            self._ask("reading the photo and estimating its depth", self._open)
        else:
            self.list_worlds()
        self._thread.start()
        self._clock.start()

    def close(self) -> None:
        """End after the present chunk, and drop what waits; returns at once, see `join`."""
        self._ended.set()
        self.stop()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait for the end; returns whether it came."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is done and nothing waits."""
        return not self._tasks.unfinished_tasks

    def looked(self, view: View) -> None:
        """See `Actions`."""
        self._view = view

    def grow(self, view: View) -> str | None:
        """See `Actions`."""
        return self._ask("growing", lambda: self._grow(view))

    def follow(self, unknown_share: float | None) -> str | None:
        """See `Actions`."""
        self._following, self._seen = unknown_share, None
        self._page.show_following(unknown_share is not None)
        return None

    def finish(self) -> str | None:
        """See `Actions`."""
        return self._ask("going on", self._finish)

    def stop(self) -> str | None:
        """See `Actions`."""
        self.follow(None)
        self._stopping.set()
        try:
            while True:
                self._tasks.get_nowait()
                self._tasks.task_done()
        except queue.Empty:
            return None

    def walk(self, cameras: Camera) -> str | None:
        """See `Actions`."""
        return self._ask("walking", lambda: self._walk(cameras))

    def forecast(self, cameras: Camera) -> str | None:
        """See `Actions`."""
        return self._ask("looking along the path", lambda: self._foresee(cameras))

    def undo(self) -> str | None:
        """See `Actions`."""
        return self._ask("taking back", self._undo)

    def branch(self, chunk: int) -> str | None:
        """See `Actions`."""
        return self._ask("branching", lambda: self._branch(chunk))

    def forget_chunk(self, chunk: int) -> str | None:
        """See `Actions`."""
        return self._ask("forgetting", lambda: self._forget(chunks=[chunk]))

    def forget_box(self, low: tuple[float, float, float], high: tuple[float, float, float]) -> str | None:
        """See `Actions`."""
        return self._ask("forgetting", lambda: self._forget(region=box_of(low, high)))

    def plan(self, making: Making) -> str | None:
        """See `Actions`."""
        return self._ask("planning: reading the photo and estimating its depth", lambda: self._plan(making))

    def make(self, making: Making) -> str | None:
        """See `Actions`."""
        return self._ask("making a world: reading the photo and estimating its depth", lambda: self._make(making))

    def list_worlds(self) -> str | None:
        """See `Actions`."""
        return self._ask("looking for worlds", self._list_worlds)

    def open(self, folder: str, go_on: bool) -> str | None:
        """See `Actions`."""
        return self._ask("opening a world", lambda: self._open_found(folder, go_on))

    def prompt(self, text: str) -> str | None:
        """See `Actions`."""
        return self._ask("encoding the prompt", lambda: self._prompt(text))

    def export(self, formats: tuple[str, ...], send: Callable[[str, bytes], None]) -> str | None:
        """See `Actions`."""
        return self._ask(f"writing {', '.join(formats)}", lambda: self._export(formats, send))

    def inspect(self) -> str | None:
        """See `Actions`."""
        return self._ask("opening the Rerun view", self._inspect)

    def _ask(self, doing: str, task: Callable[[], None]) -> str | None:
        if self._ended.is_set():
            return "the studio is closing"
        try:
            self._tasks.put_nowait((doing, task))
        except queue.Full:
            return BUSY
        return None

    # From here on: the walk's own thread.

    def _run(self) -> None:
        self._show_status()
        while not self._ended.is_set():
            try:
                task = self._tasks.get(timeout=0.2)
            except queue.Empty:
                self._idle()
                continue
            self._do(*task)
            self._tasks.task_done()
        self._leave()

    def _do(self, doing: str, task: Callable[[], None]) -> None:
        """Do one task; whatever is wrong is told in the page, and the walk goes on with the world as it is stored."""
        self._stopping.clear()
        self._progress.begin(doing)
        try:
            task()
        except (ValueError, OSError, ImportError) as error:
            self._page.tell(str(error), error=True)
            if isinstance(error, WorldError):
                self._recover()
        except Exception as error:
            _log.exception("studio: %s", doing)
            self._page.tell(f"{doing} failed: {error or type(error).__name__}; the terminal says more", error=True)
            self._recover()
        finally:
            self._progress.end()
            self._show_status()

    def _recover(self) -> None:
        """Open the world again as it is stored: what failed may have left the session in between."""
        if self._session is None or self._session.world is None:
            return
        try:
            self._take_over(resume(self._session.world.folder, self._device))
        except (ValueError, OSError) as error:
            self._session = None
            self._page.tell(str(error), error=True)

    def _idle(self) -> None:
        share, view = self._following, self._view
        if share is None or view is None or view is self._seen or self._session is None:
            return
        self._seen = view
        session = self._session
        here = session.cameras[session.state.frames - 1]
        try:
            there = camera_at(view.world_from_camera, here)
        except ValueError:
            return
        if unknown_share(session.state.view.cache, there) > share:
            self._do("growing where you look", lambda: self._grow(view, one_chunk=True))
            self._seen = None  # what is left of the way

    def _open(self) -> None:
        assert self._open_first is not None
        lines: list[str] = []
        self._begin(self._open_first(lines.append))

    def _begin(self, session: Session) -> None:
        """Show a session, from its beginning."""
        self._recorder.close()
        self._recorder, self._session, self._planned = NullRecorder(), session, None
        self._chunk_s, self._figures = None, ""
        self.follow(None)
        photo = to_bytes(session.photo.rgb[0]).permute(1, 2, 0).numpy()
        self._page.takes_prompts = session.takes_prompts
        self._page.begin(session.cameras[0], photo, unit_of(session.photo) or 1.0)
        self._show_world()
        self._show_history()
        self._list_worlds()

    def _list_worlds(self) -> None:
        newest = islice(find_worlds(self._worlds, contents=False), MOST_TILES)
        self._found = {str(world.folder): world for world in newest}
        self._page.show_worlds([_tile(world) for world in self._found.values()])

    def _open_found(self, folder: str, go_on: bool) -> None:
        if folder not in self._found:
            raise ValueError(f"worlds: {folder} is not among the worlds here")
        session = resume(self._found[folder].folder, self._device)
        self._leave_world()
        self._begin(session)
        if go_on:
            self._finish()
            self._list_worlds()

    def _take_over(self, session: Session) -> None:
        """Show another state of the same world."""
        self._session = session
        self._show_world()
        self._show_history()

    def _show_world(self) -> None:
        session = self._there()
        cache = session.state.view.cache
        self._page.show_primitives(cache.ids(), _as_gaussians(cache.snapshot()))
        self._show_walked()

    def _show_walked(self) -> None:
        session = self._there()
        done = session.state.frames
        self._page.show_walked(session.cameras[:done], session.cameras[done:])

    def _show_history(self) -> None:
        session = self._there()
        assert session.world is not None
        self._thumbnails = [
            _thumbnail(session.world.folder, record, session.cameras) for record in session.world.chunks
        ]
        self._page.show_history(self._thumbnails)

    def _there(self) -> Session:
        if self._session is None:
            raise ValueError(f"studio: {NO_WORLD}")
        return self._session

    def _grow(self, view: View, *, one_chunk: bool = False) -> None:
        session = self._there()
        here = session.cameras[session.state.frames - 1]
        there = camera_at(view.world_from_camera, here)
        unit = unit_of(session.photo)
        if is_at(here, there, unit):
            self._page.tell("the world's last camera is here already; fly on, then press G")
            return
        chunk = session.chunk
        cameras = toward(here, there, unit, multiple=chunk, eased=not one_chunk)
        most = chunk * (1 if one_chunk else MOST_CHUNKS)
        if len(cameras) > most and not one_chunk:
            self._page.tell(f"that view is far away; this goes {most} of {len(cameras)} frames toward it")
        self._walk(cameras[:most])

    def _walk(self, cameras: Camera) -> None:
        session = self._there()
        session.redirect(cameras.to(torch.float32))
        if behind := len(collisions(session.photo, cameras)):
            self._page.tell(
                f"{behind} of {len(cameras)} frames lie behind what the photo shows: expect inventions there"
            )
        self._finish()

    def _finish(self) -> None:
        """Make the unfinished part of the path, until it ends or somebody stops it."""
        session = self._there()
        self._show_walked()
        total = len(session.remaining)
        self._progress.chunks(total, self._chunk_s)
        for step in session.steps():
            self._show_step(step)
            if self._stopping.is_set():
                break

    def _show_step(self, step: Step) -> None:
        session, change = self._there(), step.integration.change
        seconds = self._progress.chunk_done()
        self._chunk_s = seconds if self._chunk_s is None else 0.5 * (self._chunk_s + seconds)
        sent = self._page.apply(_as_gaussians_change(change))
        assert session.world is not None
        self._thumbnails = [
            *self._thumbnails,
            _thumbnail(session.world.folder, session.world.chunks[-1], session.cameras),
        ]
        self._page.show_history(self._thumbnails)
        self._show_walked()
        self._figures = (
            f"{len(step.chunk.frames) / seconds:.1f} frames/s · {step.gauges['hole_ratio']:.0%} of chunk "
            f"{step.chunk.index} was new · {sent / 2**20:.1f} MiB sent"
        )
        self._show_status()
        record_step(self._recorder, step)

    def _foresee(self, cameras: Camera) -> None:
        session = self._there()
        self._page.show_forecast(foresee(session.state.view, session.photo, cameras, session.chunk, self._chunk_s))

    def _undo(self) -> None:
        session = self._there()
        chunks, frames = session.state.chunks, session.state.frames
        undo(session)
        self._take_over(session)
        what = "chunk" if session.state.chunks < chunks else "forgetting"
        if session.state.chunks < chunks:
            record_undo(self._recorder, session, chunks, frames)
        self._page.tell(f"took back the last {what}; {session.state.frames} frames are left")

    def _forget(self, chunks: list[int] | None = None, region: torch.Tensor | None = None) -> None:
        session = self._there()
        assert session.world is not None
        count = forget(session, chunks=chunks or [], region=region)
        if not count:
            self._page.tell("nothing to forget: there is nothing of it; the world is as it was")
            return
        for recording in session.world.folder.glob(RECORDINGS):  # they show what was removed
            if isinstance(self._recorder, NullRecorder):
                recording.unlink()
        self._take_over(session)
        self._page.tell(f"forgot {count:,} splats; the frames stay, and U brings them back")

    def _branch(self, chunk: int) -> None:
        session = self._there()
        assert session.world is not None
        folder = free_folder(session.world.folder.with_name(f"{session.world.folder.name}-branch"))
        session.world.branch(folder, chunk)
        branch = resume(folder, self._device)
        branch.redirect(branch.cameras[:0])  # the other world's path is not planned here
        self._begin(branch)
        self._page.tell(f"a new world, {folder}, holds chunks 0 to {chunk}; the other one stays as it is")

    def _plan(self, making: Making) -> None:
        with prepared(making, self._worlds, self._device) as (session, _, lines):
            plan = session.plan()
            self._planned = (making, session)
        text = "\n".join(f"- {' '.join(line.split())}" for line in [*lines, *plan.lines()])
        self._page.show_plan(text)

    def _make(self, making: Making) -> None:
        if self._planned is not None and self._planned[0] == making:
            session = self._planned[1]
            folder = free_folder(self._worlds / world_name(making.name))
            session.store_in(folder)
        else:
            with prepared(making, self._worlds, self._device) as (session, folder, _):
                session.store_in(folder)
        self._leave_world()
        self._begin(session)
        self._page.tell(f"made {folder}; fly somewhere and press G")

    def _prompt(self, text: str) -> None:
        if not text.strip():
            raise ValueError("prompt: want a text, got none")
        self._there().prompt(text.strip())
        self._page.tell(f"from the next chunk on: {text.strip()}")

    def _export(self, formats: tuple[str, ...], send: Callable[[str, bytes], None]) -> None:
        session = self._there()
        assert session.world is not None
        for report in export(session.world, list(formats)):
            name, content = _packed(report.path)
            send(name, content)
            self._page.tell(f"{report.path}, {report.bytes / 2**20:.1f} MiB: {report.note}")

    def _inspect(self) -> None:
        session = self._there()
        assert session.world is not None
        if isinstance(self._recorder, NullRecorder):
            config = compose_config("explore", ["viewer=web", "viewer.open=true"])
            self._recorder = open_viewer(config.viewer, session.world.folder)
            record_start(self._recorder, session)
        self._page.tell(f"Rerun shows how the next chunks are made: {self._recorder.how_to_look}")

    def _leave_world(self) -> None:
        """Finish what belongs to a world that is left: its video and its recording."""
        if self._session is not None and self._session.state.frames > 1:
            self._session.write_video()
        self._recorder.close()
        self._recorder = NullRecorder()

    def _leave(self) -> None:
        self._progress.begin("closing")
        self._show_status()
        try:
            self._leave_world()
        except (ValueError, OSError) as error:
            _log.warning("studio: %s", error)

    def _show_status(self) -> None:
        with self._showing:
            self._page.show_status(self._status())

    def _status(self) -> Status:
        session = self._session
        if session is None or session.world is None:
            doing = self._progress.doing or "No world yet: open one under **Worlds**, or choose a photo under **Make**."
            return Status("", doing, "", self._progress.share)
        doing = self._progress.line or "Look around, then press **G** to grow the world to where you look."
        waiting = self._tasks.qsize()
        doing += f" · {waiting} waiting" if waiting else ""
        size = f"{session.state.frames} frames · {len(session.state.view.cache):,} splats"
        figures = size if not self._figures else f"{size}\n\n{self._figures}"
        return Status(session.world.folder.name, doing, figures, self._progress.share)

    def _tick(self) -> None:
        """Move the progress bar while a chunk is made."""
        while not self._ended.wait(0.5):
            if self._progress.doing:
                self._show_status()


class Progress:
    """How far the present task is. Written by the walk, read by the clock too."""

    def __init__(self) -> None:
        self.doing = ""
        self._total = self._done = 0
        self._chunk_s: float | None = None
        self._begun = 0.0

    def begin(self, doing: str) -> None:
        """Another task begins."""
        self.doing, self._total, self._done, self._chunk_s = doing, 0, 0, None
        self._begun = time.monotonic()

    def chunks(self, total: int, chunk_s: float | None) -> None:
        """The task makes chunks, each of about ``chunk_s`` seconds."""
        self._total, self._done, self._chunk_s, self._begun = total, 0, chunk_s, time.monotonic()

    def chunk_done(self) -> float:
        """Count a chunk; returns the seconds it took."""
        now = time.monotonic()
        seconds = max(now - self._begun, 1e-3)
        self._done, self._begun, self._chunk_s = self._done + 1, now, seconds
        return seconds

    def end(self) -> None:
        """Nothing is done now."""
        self.doing = ""

    @property
    def share(self) -> float | None:
        """Done share, 0..1; None while nothing is done."""
        if not self.doing:
            return None
        expected_s = self._chunk_s or 10.0
        # A chunk that takes longer than expected nears its end and does not reach it.
        part = 1.0 - 0.5 ** ((time.monotonic() - self._begun) / expected_s * 2.0)
        return (self._done + part) / max(self._total, 1) if self._done < max(self._total, 1) else 1.0

    @property
    def line(self) -> str:
        """What is done, in words; empty while nothing is."""
        if not self.doing or not self._total:
            return self.doing
        left = "" if self._chunk_s is None else f" · about {self._chunk_s * (self._total - self._done):.0f} s left"
        return f"{self.doing}: chunk {min(self._done + 1, self._total)} of {self._total}{left}"


def _as_gaussians(rows: Points | Gaussians) -> Gaussians:
    return rows if isinstance(rows, Gaussians) else discs(rows)


def _as_gaussians_change(change: Change) -> Change:
    return Change(change.total, change.index, _as_gaussians(change.rows), change.removed)


def _thumbnail(folder: Path, record: ChunkRecord, cameras: Camera) -> Thumbnail:
    """The last frame of a stored chunk, reduced."""
    last = record.first_frame + record.frames - 1
    new = record.gauges.get("hole_ratio")
    caption = "the photo" if record.index == 0 else "" if new is None else f"{new:.0%} new"
    return Thumbnail(record.index, thumbnail(folder / frame_name(last, record), 160), cameras[last], caption)


def _tile(world: FoundWorld) -> Tile:
    picture = None if world.picture is None else thumbnail(world.picture)
    return Tile(str(world.folder), world.folder.name, picture, world.line, is_unfinished=world.left > 0)


def _packed(path: Path) -> tuple[str, bytes]:
    """Name and content of a file, or of a folder as a ZIP file."""
    if path.is_file():
        return path.name, path.read_bytes()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            archive.write(file, Path(path.name) / file.relative_to(path))
    return f"{path.name}.zip", buffer.getvalue()
