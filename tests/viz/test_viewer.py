"""A session in the real Rerun viewer, headless: the screen shows what was logged."""

from __future__ import annotations

import ctypes.util
import io
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch
from PIL import Image
from rerun.experimental import ViewerClient

from geometry.frame import Frame, Guide
from geometry.primitives import Gaussians
from tests.helpers import cameras_along
from viz import viewer_process as viewer
from viz.recorder import ChunkEvent, StartEvent, UndoEvent
from viz.rerun_recorder import IDENTITY, RerunRecorder, open_recorder

T = TypeVar("T")
HEIGHT, WIDTH, FRAMES, CHUNKS = 48, 80, 4, 3

_DRIVERS = [f for d in ("/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d") for f in Path(d).glob("*.json")]
pytestmark = [
    pytest.mark.viewer,
    pytest.mark.skipif(
        not sys.platform.startswith("linux") or ctypes.util.find_library("vulkan") is None or not _DRIVERS,
        reason="the headless viewer needs Linux with libvulkan1 and a driver such as mesa-vulkan-drivers",
    ),
]


def numbered_frames(first: int, count: int) -> Frame:
    """Frames of a wall at depth 2; each frame has another red level."""
    number = torch.arange(first, first + count)[:, None, None].expand(count, HEIGHT, WIDTH) / (CHUNKS * FRAMES)
    row = torch.linspace(0, 1, HEIGHT)[:, None].expand(count, HEIGHT, WIDTH)
    column = torch.linspace(0, 1, WIDTH).expand(count, HEIGHT, WIDTH)
    depth = torch.full((count, 1, HEIGHT, WIDTH), 2.0)
    camera = cameras_along(0.05, count, (HEIGHT, WIDTH), first)
    return Frame(torch.stack([number, row, column], 1), depth, depth > 0, depth < 0, camera)


def green_patch(chunk: int) -> Gaussians:
    """A green patch of the wall, shifted by half a unit per chunk."""
    row, column = torch.meshgrid(torch.linspace(-0.6, 0.6, 20), torch.linspace(-0.5, 0.5, 20), indexing="ij")
    means = torch.stack([column.flatten() + 0.5 * chunk, row.flatten(), torch.full((400,), 2.0)], 1)
    return Gaussians(
        means,
        torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(400, 4),
        torch.full((400, 3), 0.04),
        torch.full((400,), 0.9),
        torch.tensor([0.1, 0.9, 0.2]).expand(400, 3),
        torch.full((400,), chunk, dtype=torch.int32),
        torch.zeros(400, dtype=torch.bool),
        torch.ones(400),
        torch.zeros(400, dtype=torch.bool),
        torch.zeros(400),
    )


def begin(recorder: RerunRecorder) -> None:
    """Record the photo."""
    photo, planned = numbered_frames(0, 1), numbered_frames(1, CHUNKS * FRAMES).camera
    recorder.begin(StartEvent(photo, photo.rgb[0], green_patch(0), torch.arange(400), planned, "# Settings"))


def chunk(recorder: RerunRecorder, index: int) -> None:
    """Record chunk ``index``."""
    frames = numbered_frames(1 + (index - 1) * FRAMES, FRAMES)
    one = torch.ones_like(frames.depth)
    guide = Guide(frames.rgb, frames.depth, one, one, 0.0 * one, frames.camera)
    first = 1 + (index - 1) * FRAMES
    gauges = {"hole_ratio": 0.1 * index}
    ids = 400 * index + torch.arange(400)
    recorder.chunk(
        ChunkEvent(
            index,
            first,
            frames,
            guide,
            frames.rgb,
            0.3 * one,
            green_patch(index),
            ids,
            torch.arange(0),
            {"all": 1.0},
            gauges,
        )
    )


def eventually(found: Callable[[], T | None], state: Callable[[], object] = str, timeout_s: float = 30.0) -> T:
    """Poll until ``found`` returns a value; the viewer raises ``NotFound`` for a view that it has not drawn yet."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        try:
            value = found()
        except (ConnectionError, LookupError, TimeoutError):  # the last one on a busy machine
            value = None
        if value is not None:
            return value
        time.sleep(0.2)
    raise AssertionError(f"the viewer did not get there in time: {state()}")


@pytest.fixture
def window() -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A headless viewer that listens on loopback, like a user's own window."""
    port = viewer.free_port()
    program = subprocess.Popen(
        [viewer.viewer_executable(), "--headless", "--bind", "127.0.0.1", "--port", str(port), "--memory-limit", "1GB"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        eventually(lambda: viewer.version_of_viewer(viewer.stream_url(port)))
        yield program, port
    finally:
        program.kill()
        program.wait()


def screenshot(client: ViewerClient, name: str) -> np.ndarray | None:
    """Screenshot of a view, ``[h w 3]`` bytes; None while it is blank, or not laid out yet."""
    named = [view for view in client.get_state().views if view.name == name]
    if not named:
        return None
    (view,) = named
    assert not view.reports
    pixels = np.asarray(Image.open(io.BytesIO(client.take_screenshot(view.view_id))).convert("RGB"))
    return pixels if pixels.std() > 8.0 else None


def difference(shown: np.ndarray, frame: Frame) -> float:
    """Mean absolute difference, 0..1, between a view and a frame fitted into it."""
    scale = min(shown.shape[0] / HEIGHT, shown.shape[1] / WIDTH)
    height, width = round(scale * HEIGHT), round(scale * WIDTH)
    top, left = (shown.shape[0] - height) // 2, (shown.shape[1] - width) // 2
    fitted = np.asarray(Image.fromarray(shown[top : top + height, left : left + width]).resize((WIDTH, HEIGHT)))
    return float(np.abs(fitted / 255.0 - frame.rgb[0].permute(1, 2, 0).numpy()).mean())


def test_a_session_in_the_real_viewer(
    window: tuple[subprocess.Popen[bytes], int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, port = window
    recorder = open_recorder("native", tmp_path / "recording.rrd", port=port)
    assert isinstance(recorder, RerunRecorder)
    begin(recorder)
    for index in range(1, CHUNKS + 1):
        chunk(recorder, index)
    recorder.close()
    client = ViewerClient.connect(viewer.stream_url(port))

    def arrived() -> bool | None:
        timelines = [t for r in client.get_state().recordings for t in r.timelines]
        return any(t.name == "frame" and t.end == CHUNKS * FRAMES for t in timelines) or None

    eventually(arrived, client.get_state)
    for number in (CHUNKS * FRAMES, 3):

        def shows_it(number: int = number) -> np.ndarray | None:
            # Repeated at every try, since a blueprint that arrives late sets the cursor back to following.
            client.set_time("frame", sequence=number, play_state="paused")
            shown = screenshot(client, "3  Result")
            return shown if shown is not None and difference(shown, numbered_frames(number, 1)) < 0.02 else None

        shown = eventually(shows_it, client.get_state)
        assert difference(shown, numbered_frames(number - 3, 1)) > 0.05  # and differs from another frame
    world = eventually(lambda: screenshot(client, "The world so far")).astype(int)
    assert ((world[..., 1] > 150) & (world[..., 0] < 130)).mean() > 0.01  # the green splats are there
    assert not [entry for entry in client.get_logs() if entry.level == "ERROR"]
    assert not caplog.messages


def test_the_3d_view_starts_at_the_photo_and_hides_an_undone_chunk(
    window: tuple[subprocess.Popen[bytes], int], tmp_path: Path
) -> None:
    _, port = window
    recorder = open_recorder("native", tmp_path / "recording.rrd", port=port)
    assert isinstance(recorder, RerunRecorder)
    begin(recorder)
    for index in (1, 2):
        chunk(recorder, index)
    client = ViewerClient.connect(viewer.stream_url(port))

    def green(columns: slice) -> float:
        """Share of the splats' green in some columns of the world, counted in tenths of the view."""
        shown = eventually(lambda: screenshot(client, "The world so far")).astype(int)
        tenth = shown.shape[1] // 10
        part = shown[:, columns.start * tenth : columns.stop * tenth]
        return float(((part[..., 1] > 150) & (part[..., 0] < 130)).mean())

    middle, right = slice(3, 7), slice(8, 10)
    # The patch of the photo is 1 wide at depth 2 and in the middle; those of the chunks are each half a unit further
    # right.
    eventually(lambda: (green(middle) > 0.25 and green(right) > 0.3) or None)
    frames, here = numbered_frames(1 + FRAMES, FRAMES), numbered_frames(FRAMES, 1).camera[0]
    ids = torch.arange(400)
    recorder.undo(UndoEvent(2, 1 + FRAMES, len(frames), here, green_patch(0), ids))
    eventually(lambda: (green(middle) > 0.25 and green(right) < 0.02) or None)
    recorder.close()


def test_real_viewer_killed_midway(
    window: tuple[subprocess.Popen[bytes], int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    program, port = window
    recorder = open_recorder("native", tmp_path / "recording.rrd", port=port)
    assert isinstance(recorder, RerunRecorder)
    begin(recorder)
    chunk(recorder, 1)
    client = ViewerClient.connect(viewer.stream_url(port))
    recording_id = (tmp_path / IDENTITY).read_text().strip()
    eventually(
        lambda: any(r.location.endswith(f"recording_id={recording_id}") for r in client.get_state().recordings) or None
    )
    program.kill()
    program.wait()
    started = time.monotonic()
    for index in (2, 3):
        chunk(recorder, index)
    recorder.close()
    assert time.monotonic() - started < 6.0
    assert not caplog.messages  # the session is the server, so a killed client is no error
