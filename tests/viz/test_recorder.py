"""Recorders: what is written, and that a failing viewer never blocks a session."""

from __future__ import annotations

import io
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import rerun as rr
import torch
from PIL import Image
from rerun import chunk as rerun_chunk
from torch import Tensor

from geometry.frame import Frame, Guide
from geometry.primitives import Gaussians, Points
from tests.helpers import cameras_along, command_line, program_environment, wait_until
from tests.recordings import Recorded
from viz import entities
from viz import viewer_process as viewer
from viz.colormaps import guide_picture, half_depth, noise_picture
from viz.live_stream import LiveStream
from viz.log_entries import LogEntry, Scale, TimePoint, text_entry
from viz.logged_primitives import LoggedPrimitives
from viz.open_recording import OLDEST, open_recording
from viz.recorder import ChunkEvent, NullRecorder, StartEvent, UndoEvent
from viz.rerun_recorder import IDENTITY, RerunRecorder, _Added, new_recording_path, open_recorder
from viz.viewer_targets import LiveTarget, native_target, remote_target, web_target
from worldwarp import World
from worldwarp.cli import main

HEIGHT, WIDTH, FRAMES, CHUNKS = 24, 40, 4, 3


def toy_frames(first: int, count: int) -> Frame:
    """Frames of a textured wall at depth 2, camera moving right; the top rows are sky."""
    row, column = torch.meshgrid(torch.linspace(0, 1, HEIGHT), torch.linspace(0, 1, WIDTH), indexing="ij")
    rgb = torch.stack([row, column, 1 - row]).expand(count, 3, HEIGHT, WIDTH).contiguous()
    depth = torch.full((count, 1, HEIGHT, WIDTH), 2.0)
    sky = torch.zeros(count, 1, HEIGHT, WIDTH, dtype=torch.bool)
    sky[..., :4, :] = True
    depth[sky] = 200.0
    return Frame(rgb, depth, torch.ones_like(sky), sky, cameras_along(0.1, count, (HEIGHT, WIDTH), first))


def toy_gaussians(count: int, chunk: int, sky: int = 0) -> Gaussians:
    """Gaussians on a line at depth 2; the last ``sky`` of them are sky."""
    means = torch.stack([torch.linspace(-1, 1, count), torch.zeros(count), torch.full((count,), 2.0)], 1)
    return Gaussians(
        means + chunk,
        torch.tensor([0.5, 0.1, 0.7, -0.5]).expand(count, 4),
        torch.full((count, 3), 0.01),
        torch.full((count,), 0.5),
        torch.full((count, 3), 0.25),
        torch.full((count,), chunk, dtype=torch.int32),
        torch.full((count,), chunk == 0),
        torch.ones(count),
        torch.arange(count) >= count - sky,
        torch.zeros(count),
    )


def toy_ids(count: int, chunk: int) -> Tensor:
    """Ids: 100 per chunk."""
    return 100 * chunk + torch.arange(count)


def toy_event(index: int, added: Gaussians | Points, removed: tuple[int, ...] = ()) -> ChunkEvent:
    """Chunk ``index`` of the session; the left third is a hole."""
    frames = toy_frames(1 + (index - 1) * FRAMES, FRAMES)
    coverage = torch.ones(FRAMES, 1, HEIGHT, WIDTH)
    coverage[..., : WIDTH // 3] = 0.0
    guide = Guide(frames.rgb * coverage, frames.depth * coverage, coverage, coverage, frames.sky.float(), frames.camera)
    gauges = {"hole_ratio": 0.3, "seam_error": 0.1 * index, "primitives": 10.0 * index, "nonsense": float("nan")}
    return ChunkEvent(
        index,
        1 + (index - 1) * FRAMES,
        frames,
        guide,
        frames.rgb,
        1.0 - coverage,
        added,
        toy_ids(len(added), index),
        torch.tensor(removed, dtype=torch.int64),
        {"denoise": 0.5, "render": 0.1},
        gauges,
    )


def toy_start(world: Gaussians | Points) -> StartEvent:
    """The photo, at twice the frame size, with its primitives."""
    picture = torch.rand(3, 2 * HEIGHT, 2 * WIDTH, generator=torch.Generator().manual_seed(0))
    ids, planned = torch.arange(len(world)), toy_frames(1, CHUNKS * FRAMES).camera
    return StartEvent(toy_frames(0, 1), picture, world, ids, planned, "# Settings")


def record_session(recorder: RerunRecorder, chunks: int = CHUNKS) -> None:
    """Record a session: 30 primitives from the photo, 10 x index new ones (2 of them sky) per chunk."""
    recorder.begin(toy_start(toy_gaussians(30, 0, sky=5)))
    for index in range(1, chunks + 1):
        recorder.chunk(toy_event(index, toy_gaussians(10 * index, index, sky=2)))
        recorder.text(f"chunk {index} done")
    recorder.close()


def test_a_recording_has_every_entity(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    record_session(RerunRecorder(tmp_path / "recording.rrd"))
    recorded = Recorded.read(tmp_path / "recording.rrd")
    assert not caplog.messages
    assert recorded.application == "worldwarp"
    assert recorded.blueprints == 1
    generated = CHUNKS * FRAMES
    for entity in (entities.GUIDE, entities.NOISE, entities.PRIOR, entities.COVERAGE):
        assert recorded.rows[entity] == generated
    for entity in (entities.IMAGE, entities.DEPTH, entities.CAMERA):
        assert recorded.rows[entity] == generated + 1  # and the photo
    for entity in (
        entities.WORLD,
        entities.PHOTO,
        entities.PHOTO_CAMERA,
        entities.PATH_PLANNED,
        entities.HOW_TO_READ,
        entities.SETTINGS,
        *(entities.path_done(c) for c in (1, 2, 3)),
    ):
        assert recorded.rows[entity] == 1, entity
    assert recorded.rows[entities.LOG] == CHUNKS
    assert len(recorded.column(entities.timing("denoise"), "Scalars:scalars")) == CHUNKS
    assert recorded.column(entities.gauge("hole_ratio"), "Scalars:scalars") == [[0.3]] * CHUNKS
    assert recorded.column(entities.gauge("hole_ratio"), "SeriesLines:names") == [["hole ratio"]]
    assert recorded.rows[entities.gauge("nonsense")] == 0
    assert sorted(recorded.column(entities.IMAGE, "frame")) == list(range(generated + 1))
    assert set(recorded.column(entities.IMAGE, "chunk")) == {0, 1, 2, 3}


def test_a_chunk_logs_only_its_new_primitives_and_sky_as_its_own_entity(tmp_path: Path) -> None:
    record_session(RerunRecorder(tmp_path / "recording.rrd"))
    recorded = Recorded.read(tmp_path / "recording.rrd")
    near = {c: recorded.column(entities.cache(c), "GaussianSplats3D:centers") for c in range(4)}
    far = {c: recorded.column(entities.sky(c), "GaussianSplats3D:centers") for c in range(4)}
    assert {c: [len(rows) for rows in near[c]] for c in near} == {0: [25], 1: [8], 2: [18], 3: [28]}
    assert {c: [len(rows) for rows in far[c]] for c in far} == {0: [5], 1: [2], 2: [2], 3: [2]}
    np.testing.assert_allclose(near[2][0], toy_gaussians(20, 2).means[:18].numpy(), atol=1e-6)
    quaternions = recorded.column(entities.cache(1), "GaussianSplats3D:quaternions")
    np.testing.assert_allclose(quaternions[0][0], [0.1, 0.7, -0.5, 0.5], atol=1e-6)  # xyzw
    assert set(recorded.column(entities.cache(2), "frame")) == {2 * FRAMES}


def test_path_segments_of_chunks_join(tmp_path: Path) -> None:
    record_session(RerunRecorder(tmp_path / "recording.rrd"))
    recorded = Recorded.read(tmp_path / "recording.rrd")
    strips = [np.array(recorded.column(entities.path_done(c), "LineStrips3D:strips")[0][0]) for c in (1, 2, 3)]
    assert [len(s) for s in strips] == [FRAMES + 1] * 3
    np.testing.assert_allclose(strips[0][0], [0.0, 0.0, 0.0])
    np.testing.assert_allclose(strips[1][0], strips[0][-1])


def toy_points(count: int, chunk: int) -> Points:
    g = toy_gaussians(count, chunk)
    return Points(g.means, g.colors, torch.zeros(count, 3), torch.ones(count), g.chunk, g.observed, g.confidence, g.sky)


def test_points_are_logged_as_points3d() -> None:
    (entry,) = LoggedPrimitives(None).put(toy_points(6, 1), toy_ids(6, 1), TimePoint(4, 1))
    assert isinstance(entry.archetypes[0], rr.Points3D)
    assert entry.entity == entities.cache(1)


def test_a_live_update_is_subsampled_and_scales_grow() -> None:
    (entry,) = LoggedPrimitives(100).put(toy_gaussians(400, 1), toy_ids(400, 1), TimePoint(4, 1))
    splats = entry.archetypes[0]
    assert isinstance(splats, rr.GaussianSplats3D)
    assert splats.centers is not None
    assert splats.scales is not None
    assert len(splats.centers.as_arrow_array()) == 100
    np.testing.assert_allclose(splats.scales.as_arrow_array().to_pylist()[0], 0.02, rtol=1e-5)


@pytest.mark.parametrize("toy", [toy_gaussians, toy_points])
def test_retired_primitives_are_hidden_from_then_on(
    toy: Callable[[int, int], Gaussians | Points], tmp_path: Path
) -> None:
    recorder = RerunRecorder(tmp_path / "recording.rrd")
    recorder.begin(toy_start(toy(30, 0)))
    retired = {1: (3, 4), 2: (5, 100), 3: tuple(range(100, 110))}
    for index, ids in retired.items():
        recorder.chunk(toy_event(index, toy(10, index), ids))
    recorder.close()
    recorded = Recorded.read(tmp_path / "recording.rrd")
    shape, column = ("Points3D", "radii") if toy is toy_points else ("GaussianSplats3D", "colors")

    def hidden_by_update(chunk: int) -> list[list[int]]:
        """Indices of the hidden primitives after each update."""
        updates = [row for row in recorded.column(entities.cache(chunk), f"{shape}:{column}") if row]
        indices = [
            [i for i, v in enumerate(row) if (v == 0.0 if toy is toy_points else v & 255 == 0)] for row in updates
        ]
        return sorted(indices, key=len)

    assert hidden_by_update(0) == [[], [3, 4], [3, 4, 5]]
    assert hidden_by_update(1) == [[], [0]]
    assert recorded.column(entities.cache(1), "Clear:is_recursive").count([False]) == 1  # then the rest was retired
    assert hidden_by_update(2) == [[]]
    places = "positions" if toy is toy_points else "centers"
    assert (
        len([row for row in recorded.column(entities.cache(0), f"{shape}:{places}") if row]) == 1
    )  # no other column is logged again
    assert sorted(recorded.column(entities.cache(0), "frame")) == [0, FRAMES, 2 * FRAMES]


def test_retiring_primitives_that_a_subsampled_stream_lacks_logs_nothing() -> None:
    logged = LoggedPrimitives(100)
    logged.put(toy_gaussians(400, 1), toy_ids(400, 1), TimePoint(4, 1))
    (part,) = logged._parts.values()
    left_out = np.setdiff1d(toy_ids(400, 1).numpy(), part.ids)
    assert logged.retire(torch.from_numpy(left_out), TimePoint(8, 2)) == []
    assert logged.retire(torch.from_numpy(part.ids[:1].copy()), TimePoint(12, 3)) == []  # below 1 %
    (entry,) = logged.retire(torch.from_numpy(part.ids[1:7].copy()), TimePoint(12, 3))
    assert int(part.gone.sum()) == 7
    assert isinstance(entry.archetypes[0], rr.GaussianSplats3D)
    assert logged.retire(torch.arange(0), TimePoint(16, 4)) == []


def test_colormaps() -> None:
    event = toy_event(1, toy_gaussians(1, 1))
    assert event.guide is not None
    assert event.prior_rgb is not None
    assert event.sigma is not None
    guide = guide_picture(event.guide.rgb, event.guide.coverage)
    assert len(np.unique(guide[0, :, :10].reshape(-1, 3), axis=0)) == 2  # a checkerboard of two grays
    np.testing.assert_allclose(guide[0, 10, 30] / 255, event.frames.rgb[0, :, 10, 30], atol=0.01)
    noise = noise_picture(event.sigma, torch.ones_like(event.prior_rgb))
    assert noise[0, 0, 0, 0] > 200 > 60 > noise[0, 0, -1, 0]  # hole: pink, kept: blue
    valid = event.frames.valid.clone()
    valid[..., 0] = False
    depth = half_depth(torch.full_like(event.frames.depth, torch.nan).where(~valid, event.frames.depth), valid)
    assert (depth[..., 0] == 0).all()
    assert (depth[:, 4:, 1:] == 2.0).all()


def test_scale_ignores_sky_and_is_1_for_a_photo_of_sky() -> None:
    photo = toy_frames(0, 1)
    assert Scale.of(photo).median_depth == 2.0
    assert Scale.of(photo).depth_range[1] < 10.0
    nothing = Frame(photo.rgb, photo.depth, photo.valid, torch.ones_like(photo.sky), photo.camera)
    assert Scale.of(nothing).median_depth == 1.0


class FrozenViewer:
    """A viewer that accepts a connection only after ``gate`` is set."""

    def __init__(self) -> None:
        self.gate = threading.Event()

    def __call__(self) -> rr.RecordingStream:
        self.gate.wait()
        return rr.RecordingStream("worldwarp", recording_id="toy")


def test_a_full_live_queue_drops_updates_without_blocking(caplog: pytest.LogCaptureFixture) -> None:
    frozen = FrozenViewer()
    live = LiveStream(frozen, capacity=2)
    started = time.monotonic()
    taken = [live.offer([text_entry("x", "INFO", TimePoint(i, 0))]) for i in range(50)]
    assert time.monotonic() - started < 0.5
    assert taken.count(True) == 2
    assert live.dropped == 48
    assert caplog.messages == ["viewer: too slow for the session; it skips updates, the recording keeps them all"]
    assert not live.close(timeout_s=0.2)
    frozen.gate.set()
    assert live.close(timeout_s=5.0)


def test_a_failing_live_view_logs_one_warning_and_the_file_is_complete(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def no_window() -> subprocess.Popen[bytes]:
        raise OSError("no such program")

    target = LiveTarget(lambda: rr.GrpcServerSink(bind_ip="127.0.0.1", port=viewer.free_port()), no_window, "")
    record_session(RerunRecorder(tmp_path / "recording.rrd", target))
    assert caplog.messages == ["viewer: the live view stopped (no such program); exploration goes on"]
    assert Recorded.read(tmp_path / "recording.rrd").rows[entities.IMAGE] == CHUNKS * FRAMES + 1


def test_a_killed_viewer_logs_one_warning_and_the_file_is_complete(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port = viewer.free_port()
    program = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    target = LiveTarget(lambda: rr.GrpcServerSink(bind_ip="127.0.0.1", port=port), lambda: program, "")
    recorder = RerunRecorder(tmp_path / "recording.rrd", target)
    recorder.begin(toy_start(toy_gaussians(30, 0)))
    recorder.chunk(toy_event(1, toy_gaussians(10, 1)))
    while recorder._program is None:
        time.sleep(0.01)
    program.kill()
    program.wait()
    for index in (2, 3):
        recorder.chunk(toy_event(index, toy_gaussians(10, index)))
    recorder.close()
    (warning,) = caplog.messages
    assert warning == "viewer: it is gone (exit code -9); exploration goes on without it"
    assert Recorded.read(tmp_path / "recording.rrd").rows[entities.IMAGE] == CHUNKS * FRAMES + 1


def test_the_live_view_is_bounded_and_keeps_the_photo() -> None:
    recorder = RerunRecorder(None, live_update_limit=50, live_limit=100)
    cleared = []
    for index in range(6):
        recorder._now = TimePoint(index, index)
        entries = recorder._live_entries(_Added(toy_gaussians(40, index), toy_ids(40, index)), torch.arange(0))
        cleared += [entry.entity for entry in entries if isinstance(entry.archetypes[0], rr.Clear)]
        assert sum(count for _, count in recorder._shown) <= 100
    assert cleared == [path for c in (1, 2, 3, 4) for path in (entities.cache(c), entities.sky(c))]
    assert recorder._shown[0] == (0, 40)


def test_recorder_never_raises(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    recorder = RerunRecorder(tmp_path / "not there" / "recording.rrd")
    record_session(recorder)
    recorder.close()
    (warning,) = caplog.messages
    assert "exploration goes on, its recording has a gap" in warning


def run_python(code: str, timeout_s: float) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, env=program_environment())


def test_a_frozen_remote_viewer_does_not_block(tmp_path: Path) -> None:
    """A server that never answers blocks neither the session, nor the file, nor the exit of the program."""
    program = f"""
        import socket, time
        from tests.viz import test_recorder as toy
        from pathlib import Path
        silent = socket.socket(); silent.bind(("127.0.0.1", 0)); silent.listen()
        url = f"rerun+http://127.0.0.1:{{silent.getsockname()[1]}}/proxy"
        recorder = toy.open_recorder("remote", Path({str(tmp_path / "recording.rrd")!r}), url=url)
        start = time.monotonic()
        toy.record_session(recorder)
        print("seconds", time.monotonic() - start)
    """
    done = run_python(program, timeout_s=100.0)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) < 15.0
    assert Recorded.read(tmp_path / "recording.rrd").rows[entities.IMAGE] == CHUNKS * FRAMES + 1


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]


@pytest.mark.parametrize("mode", ["native", "web"])
def test_port_in_use_is_refused(mode: str, taken_port: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"viewer.port: want {taken_port} on 127.0.0.1 .*choose another viewer.port="):
        open_recorder(mode, tmp_path / "recording.rrd", port=taken_port)  # type: ignore[arg-type]  # a parameter is any text
    assert not (tmp_path / "recording.rrd").exists()


def test_web_data_port_in_use_is_refused(taken_port: int) -> None:
    with pytest.raises(ValueError, match=rf"want {taken_port} on 127.0.0.1 for the data"):
        web_target(taken_port - 1)


def test_viewer_of_another_version_is_refused(taken_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(viewer, "version_of_viewer", lambda _url: "0.33.1")
    with pytest.raises(
        ValueError, match=rf"want Rerun {rr.__version__}, got 0.33.1 \(the viewer on port {taken_port}\)"
    ):
        native_target(taken_port)
    with pytest.raises(ValueError, match="viewer=file"):
        remote_target(viewer.stream_url(taken_port))


def test_version_check() -> None:
    viewer.check_version(None, "")
    viewer.check_version(rr.__version__, "")
    with pytest.raises(ValueError, match="got unknown"):
        viewer.check_version("unknown", "an old one")


def test_viewer_program_is_of_our_version() -> None:
    assert viewer.viewer_executable().exists()


def test_viewer_program_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rr, "__version__", "0.99.0")
    with pytest.raises(ValueError, match=r"want Rerun 0\.99\.0, got 0\.41"):
        viewer.viewer_executable()


def test_an_absent_remote_viewer_logs_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    url = viewer.stream_url(viewer.free_port())
    started = time.monotonic()
    recorder = open_recorder("remote", tmp_path / "recording.rrd", url=url)
    assert isinstance(recorder, RerunRecorder)
    record_session(recorder)
    assert time.monotonic() - started < 4.0
    assert caplog.messages == [f"viewer: nobody listens at {url}; exploration goes on without a live view"]


@pytest.mark.parametrize("url", [None, "http://127.0.0.1:9876", "rerun+http://host:1/nowhere"])
def test_malformed_remote_address_is_refused(url: str | None) -> None:
    with pytest.raises(ValueError, match="viewer url: want rerun"):
        remote_target(url)


def test_auto_without_a_display_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(viewer, "has_display", lambda: False)
    recorder = open_recorder("auto", tmp_path / "recording.rrd")
    assert isinstance(recorder, RerunRecorder)
    assert recorder.how_to_look.endswith(f"look at it with `worldwarp view {tmp_path}`")


def test_none_records_nothing_and_existing_recordings_are_kept(tmp_path: Path) -> None:
    first = new_recording_path(tmp_path)
    assert first.name == "recording.rrd"
    first.write_bytes(b"precious")
    assert isinstance(open_recorder("none", first), NullRecorder)
    with pytest.raises(ValueError, match="want a new file"):
        open_recorder("file", first)
    assert first.read_bytes() == b"precious"
    assert new_recording_path(tmp_path).name == "recording-2.rrd"


def test_close_without_begin_and_twice(tmp_path: Path) -> None:
    recorder = RerunRecorder(tmp_path / "recording.rrd")
    recorder.close()
    recorder.close()
    assert not (tmp_path / "recording.rrd").exists()


def test_view_refuses_a_file_that_is_no_recording(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds none"):
        open_recording(tmp_path)
    (tmp_path / "recording.rrd").write_bytes(b"hello, world")
    with pytest.raises(ValueError, match="which is none or cut off"):
        open_recording(tmp_path)


def test_view_refuses_a_recording_of_a_newer_rerun(tmp_path: Path) -> None:
    record_session(RerunRecorder(tmp_path / "recording.rrd"), chunks=1)
    written = bytearray((tmp_path / "recording.rrd").read_bytes())
    written[5] += 1
    (tmp_path / "recording.rrd").write_bytes(written)
    with pytest.raises(ValueError, match=r"open it with `pip install rerun-sdk==0\.42\.\*`"):
        open_recording(tmp_path)


def test_view_serves_a_page_on_loopback_only(tmp_path: Path) -> None:
    record_session(RerunRecorder(tmp_path / "recording.rrd"), chunks=1)
    port = viewer.free_port()
    program, address = open_recording(tmp_path, "web", port)
    try:
        wait_until(lambda: viewer.is_listening("127.0.0.1", port) and viewer.is_listening("127.0.0.1", port + 1))
        assert address.splitlines()[1].startswith(
            f"http://127.0.0.1:{port}/?url=rerun%2Bhttp%3A%2F%2F127.0.0.1%3A{port + 1}%2Fproxy"
        )
        assert _listening_addresses({port, port + 1}) <= {"127.0.0.1"}
    finally:
        program.kill()
        program.wait()


def test_an_entry_without_time_is_static(tmp_path: Path) -> None:
    stream = rr.RecordingStream("worldwarp", recording_id="toy")
    stream.save(tmp_path / "one.rrd")
    LogEntry("a", (rr.TextDocument("x"),), None).log_to(stream)
    stream.disconnect()
    (chunk,) = Recorded.read(tmp_path / "one.rrd").chunks["a"]
    assert chunk.is_static


def _listening_addresses(ports: set[int]) -> set[str]:
    """Addresses with a listening socket on these ports (Linux; empty elsewhere)."""
    table = Path("/proc/net/tcp")
    if not table.exists():
        return set()
    rows = [line.split() for line in table.read_text().splitlines()[1:]]
    local = [row[1].split(":") for row in rows if row[3] == "0A"]
    return {socket.inet_ntoa(bytes.fromhex(host)[::-1]) for host, port in local if int(port, 16) in ports}


def test_an_undone_chunk_is_cleared_and_the_earlier_world_logged_again(tmp_path: Path) -> None:
    recorder = RerunRecorder(tmp_path / "recording.rrd")
    recorder.begin(toy_start(toy_gaussians(30, 0)))
    recorder.chunk(toy_event(1, toy_gaussians(10, 1)))
    recorder.chunk(toy_event(2, toy_gaussians(20, 2), removed=(3, 4, 5)))
    left, ids = toy_gaussians(40, 1, sky=4), torch.arange(40)
    here = toy_frames(FRAMES, 1).camera[0]
    recorder.undo(UndoEvent(2, 1 + FRAMES, FRAMES, here, left, ids))
    recorder.chunk(toy_event(2, toy_gaussians(10, 2)))
    recorder.close()
    recorded = Recorded.read(tmp_path / "recording.rrd")
    assert recorded.column(entities.IMAGE, "Clear:is_recursive").count([False]) == FRAMES
    places = recorded.column(entities.CAMERA, "Transform3D:translation")
    here_again = [place for place in places if place and np.allclose(place[0], here.position.numpy(), atol=1e-6)]
    assert len(here_again) == 1 + FRAMES  # its own frame, and the undone frames
    for entity in (entities.CACHE, entities.SKY):
        assert recorded.column(entity, "Clear:is_recursive") == [[True]]
        assert recorded.column(entity, "frame") == [FRAMES]
    assert [False] in recorded.column(entities.cache(2), "Clear:is_recursive")
    again = recorded.column(entities.cache(1, take=1), "GaussianSplats3D:centers")
    assert [len(rows) for rows in again] == [36]
    assert recorded.column(entities.cache(1, take=1), "frame") == [FRAMES]
    assert len(recorded.column(entities.sky(1, take=1), "GaussianSplats3D:centers")[0]) == 4
    assert recorded.column(entities.cache(2, take=1), "frame") == [2 * FRAMES]
    path = recorded.column(entities.path_done(2), "LineStrips3D:strips")[-1][0]
    np.testing.assert_allclose(path[0], here.position.numpy(), atol=1e-6)  # starts at the last camera that is left


def test_the_photo_is_recorded_at_full_resolution(tmp_path: Path) -> None:
    record_session(RerunRecorder(tmp_path / "recording.rrd"), chunks=0)
    (blob,) = Recorded.read(tmp_path / "recording.rrd").column(entities.PHOTO, "EncodedImage:blob")
    picture = Image.open(io.BytesIO(bytes(blob[0])))
    assert picture.size == (2 * WIDTH, 2 * HEIGHT)


def test_a_full_disk_ends_the_recording_and_not_the_session(tmp_path: Path) -> None:
    """The full disk is simulated by a limit on file size, beyond which every write fails."""
    program = f"""
        import resource, time
        from tests.viz import test_recorder as toy
        from pathlib import Path
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        start = time.monotonic()
        toy.record_session(toy.RerunRecorder(Path({str(tmp_path / "recording.rrd")!r})))
        print("seconds", time.monotonic() - start)
    """
    done = run_python(program, timeout_s=100.0)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) < 20.0
    assert 0 < (tmp_path / "recording.rrd").stat().st_size <= 20_000


def test_default_ports_that_are_taken_are_replaced_by_free_ones(
    taken_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(viewer, "WEB_PORT", taken_port)
    monkeypatch.setattr(viewer, "NATIVE_PORT", taken_port)
    monkeypatch.setattr(viewer, "has_display", lambda: True)
    page, data = viewer.page_ports(None, "port")
    assert taken_port not in (page, data)
    address = web_target(None).how_to_look.splitlines()[1]
    assert address.startswith("http://127.0.0.1:")
    assert f":{taken_port}/" not in address
    window = native_target(None)
    assert window is not None
    assert str(taken_port) not in window.how_to_look


def test_native_without_a_display_warns_and_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(viewer, "has_display", lambda: False)
    monkeypatch.setattr(viewer, "NATIVE_PORT", viewer.free_port())
    recorder = open_recorder("native", tmp_path / "recording.rrd")
    assert "no display for a window here" in caplog.messages[0]
    assert recorder.how_to_look == f"recording only; look at it with `worldwarp view {tmp_path}`"


def test_auto_reports_its_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(viewer, "NATIVE_PORT", viewer.free_port())
    for display, text in (
        (False, "auto, no display: recording only"),
        (True, "auto, there is a display: the Rerun wi"),
    ):
        monkeypatch.setattr(viewer, "has_display", lambda display=display: display)
        assert open_recorder("auto", tmp_path / "recording.rrd").how_to_look.startswith(text)
    assert open_recorder("none", None).how_to_look == "nothing is shown or recorded"


@pytest.mark.parametrize("browser", [True, False, None])
def test_a_browser_is_opened_after_the_page_answers(browser: bool | None, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[str, bool]] = []
    monkeypatch.setattr(viewer, "has_display", lambda: True)
    monkeypatch.setenv("CI", "1")  # so that None opens no browser
    target = web_target(None, browser)
    address = target.how_to_look.splitlines()[1]
    port = int(address.split(":")[2].split("/")[0])
    monkeypatch.setattr(
        viewer.webbrowser, "open", lambda url: opened.append((url, viewer.is_listening("127.0.0.1", port)))
    )
    program = target.show()
    assert program is not None
    program.kill()
    program.wait()
    assert opened == ([(address, True)] if browser else [])
    assert ("opened in your browser" in target.how_to_look) == bool(browser)


def test_is_interactive_needs_a_display_and_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(sys, "stdout", Terminal())
    for display in (True, False):
        monkeypatch.setattr(viewer, "has_display", lambda display=display: display)
        assert viewer.is_interactive() == display
    monkeypatch.setattr(viewer, "has_display", lambda: True)
    monkeypatch.setenv("CI", "1")
    assert not viewer.is_interactive()
    monkeypatch.delenv("CI")
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert not viewer.is_interactive()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux ends a program with its parent")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_no_page_is_left_behind_when_view_is_ended(how: signal.Signals, tmp_path: Path) -> None:
    record_session(RerunRecorder(tmp_path / "recording.rrd"), chunks=1)
    port = viewer.free_port()
    environment = program_environment(CI="1")
    words = ["view", str(tmp_path), "mode=web", f"port={port}"]
    program = subprocess.Popen(command_line(words), stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert program.stdout is not None
        assert program.stdout.readline() == "look at a page on this machine, for a browser:\n"
        assert program.stdout.readline().startswith(f"http://127.0.0.1:{port}/?url=")
        wait_until(lambda: not viewer.is_port_free(port) and not viewer.is_port_free(port + 1))
        program.send_signal(how)
        assert program.wait(20.0) == (-how if how == signal.SIGKILL else 128 + how)
        wait_until(lambda: viewer.is_port_free(port) and viewer.is_port_free(port + 1))
    finally:
        program.kill()
        program.communicate()


def test_started_viewers_collect_no_usage_statistics(tmp_path: Path) -> None:
    record_session(RerunRecorder(tmp_path / "recording.rrd"), chunks=1)
    environment = viewer._environment()
    environment["RUST_LOG"] = "re_analytics=debug"
    ports = ["--web-viewer-port", str(viewer.free_port()), "--port", str(viewer.free_port())]
    command = [str(viewer.viewer_executable()), "--bind", "127.0.0.1", "--serve-web", *ports]
    program = subprocess.Popen(
        [*command, str(tmp_path / "recording.rrd")], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
    )
    assert program.stdout is not None
    output = iter(program.stdout.readline, b"")
    timer = threading.Timer(20.0, program.kill)
    timer.start()
    assert any(b"Analytics disabled" in line for line in output)
    timer.cancel()
    program.kill()
    program.wait()
    program.stdout.close()


@pytest.mark.parametrize("head", [b"RRF2\x00\x16\x00\x00", b"RRF0\x00\x0a\x00\x00"])
def test_view_refuses_a_recording_that_is_too_old(head: bytes, tmp_path: Path) -> None:
    record_session(RerunRecorder(tmp_path / "recording.rrd"), chunks=1)
    whole = (tmp_path / "recording.rrd").read_bytes()
    (tmp_path / "recording.rrd").write_bytes(head + whole[8:])
    with pytest.raises(
        ValueError, match=rf"want one of Rerun 0\.23 to 0\.41, got .* `pip install rerun-sdk==0\.{head[5]}\."
    ):
        open_recording(tmp_path, "web")


def test_oldest_is_the_oldest_version_that_rerun_reads(tmp_path: Path) -> None:
    record_session(RerunRecorder(tmp_path / "recording.rrd"), chunks=1)
    whole = (tmp_path / "recording.rrd").read_bytes()
    readable = {}
    for minor in (OLDEST[1] - 1, OLDEST[1]):
        (tmp_path / "old.rrd").write_bytes(whole[:4] + bytes([0, minor, 0, 0]) + whole[8:])
        program = [viewer.viewer_executable(), "rrd", "verify", tmp_path / "old.rrd"]
        readable[minor] = subprocess.run(program, capture_output=True, timeout=60).returncode == 0
    assert readable == {OLDEST[1] - 1: False, OLDEST[1]: True}


def recording_ids(folder: Path) -> list[str]:
    """Ids of all recordings in a folder."""
    return [rerun_chunk.RrdReader(file).recordings()[0].recording_id for file in sorted(folder.glob("*.rrd"))]


def test_recordings_of_a_moved_world_share_an_id_and_other_worlds_have_others(
    tmp_path: Path, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["explore", f"image={photo}", "path=left", "frames=3", "out=w", "viewer=file"]
    words += ["size=[48,64]", "chunk=2", "detail=1", "depth=plane", "generator=passthrough", "prior=smooth"]
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        monkeypatch.chdir(tmp_path / place)
        assert main(words) == 0
    moved, branch = tmp_path / "here" / "v", tmp_path / "branch"
    (tmp_path / "here" / "w").rename(moved)
    World.load(moved).branch(branch, 1)
    for folder in (moved, branch):
        monkeypatch.chdir(folder)
        assert main(["explore", "resume=.", "path=up", "frames=3", "viewer=file"]) == 0
    ours, theirs, branched = (recording_ids(folder) for folder in (moved, tmp_path / "there" / "w", branch))
    assert len(ours) == 2
    assert len({ours[0], theirs[0], branched[0]}) == 3  # though the first chunks of all are the same to the bit
    assert ours[0] == ours[1]


def test_a_folder_where_no_id_can_be_stored_is_recorded(tmp_path: Path) -> None:
    (tmp_path / IDENTITY).mkdir()
    record_session(RerunRecorder(tmp_path / "recording.rrd"))
    assert Recorded.read(tmp_path / "recording.rrd").rows[entities.IMAGE] == CHUNKS * FRAMES + 1
