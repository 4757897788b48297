"""The page of the studio without a browser: its door, who steers, what is sent, and that nothing of it leaks."""

from __future__ import annotations

import asyncio
import gc
import http.client
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import cast

import msgspec
import numpy as np
import psutil
import pytest
import torch
import viser
import websockets.asyncio.client as ws
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin

from benchmarks.speed.studio import come
from geometry.camera import Camera
from geometry.primitives import Change, Gaussians
from tests.helpers import cameras_at, pose_at, wait_until
from viz.studio.controls import plain
from viz.studio.events import Actions, Choices, Forecast, Thumbnail, View
from viz.studio.gate import BURST, MESSAGES_PER_S, Brake, Gate, is_loopback
from viz.studio.page import Page
from viz.studio.scene import GROUP_ROWS, MEDIAN_DEPTH, SPARE, tinted
from viz.studio.strip import forecast_picture, history_page
from viz.studio.way import Key, Way


class Asked:
    """Notes what the page asks for."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __getattr__(self, name: str) -> object:
        def note(*_words: object) -> None:
            self.names.append(name)

        return note


def rows(count: int, chunk: int = 0, first: float = 0.0) -> Gaussians:
    place = torch.arange(count, dtype=torch.float32)[:, None] + first
    return Gaussians(
        means=place.expand(count, 3).clone(),
        quats=torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(count, 4).clone(),
        scales=torch.full((count, 3), 0.01),
        opacities=torch.full((count,), 0.9),
        colors=torch.full((count, 3), 0.5),
        chunk=torch.full((count,), chunk, dtype=torch.int32),
        observed=torch.full((count,), chunk == 0),
        confidence=torch.full((count,), 0.5),
        sky=torch.zeros(count, dtype=torch.bool),
        n_updates=torch.zeros(count),
    )


def change(index: list[int], content: Gaussians, removed: list[int], total: int) -> Change:
    return Change(total, torch.tensor(index, dtype=torch.int64), content, torch.tensor(removed, dtype=torch.int64))


def steered(page: Page) -> Asked:
    """Let people in; what they ask is noted alone."""
    asked = Asked()
    page.steered_by(cast(Actions, asked))
    return asked


@pytest.fixture
def page() -> Iterator[Page]:
    found = Page("127.0.0.1", None, None, Choices())
    yield found
    found.close()


def get(port: int, path: str = "/", **fields: str) -> tuple[int, str, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10.0)
    connection.request("GET", path, headers=fields)
    answer = connection.getresponse()
    return answer.status, answer.read().decode("latin-1"), answer.headers


async def gone(client: ws.ClientConnection) -> None:
    """The client's machine has lost its network."""
    client.transport.abort()
    await client.wait_closed()


def test_the_page_is_served_with_its_title_and_checks(page: Page) -> None:
    status, _, fields = get(page.gate.port)
    assert status == 200
    assert fields["Content-Encoding"] == "gzip"
    assert get(page.gate.port, "/etc/passwd")[0] == 404
    assert get(page.gate.port, "/../../pyproject.toml")[0] == 404


def test_pages_of_other_sites_are_refused(page: Page) -> None:
    port = page.gate.port
    assert get(port, Host="evil.example")[0] == 403  # a name that was pointed at this machine
    assert get(port, Origin="http://evil.example")[0] == 403
    assert get(port, Host=f"localhost:{port}", Origin=f"http://localhost:{port}")[0] == 200

    async def visit() -> None:
        with pytest.raises(InvalidStatus):
            await come(port, origin=Origin("http://evil.example"))

    asyncio.run(visit())


def test_a_link_without_its_token_opens_nothing() -> None:
    gate = Gate("127.0.0.1", None, "secret")
    backend = socket.create_server(("127.0.0.1", 0))
    gate.start(backend.getsockname()[1])
    try:
        assert gate.address.endswith("?token=secret")
        for path, fields in (("/", {}), ("/?token=wrong", {}), ("/", {"Cookie": "worldwarp_studio=wrong"})):
            status, text, _ = get(gate.port, path, **fields)
            assert status == 403
            assert "Open the whole link" in text
        status, _, fields = get(gate.port, "/?token=secret")
        assert status == 303
        assert get(gate.port, "/", Cookie=fields["Set-Cookie"].partition(";")[0])[0] == 200
        assert "HttpOnly" in fields["Set-Cookie"]

        async def visit() -> None:
            with pytest.raises(InvalidStatus):
                await come(gate.port)

        asyncio.run(visit())
    finally:
        gate.stop()
        backend.close()


def test_a_port_in_use_is_a_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ValueError, match="port: want a free port"):
        Gate("127.0.0.1", taken.getsockname()[1], None)
    with pytest.raises(ValueError, match="host: want an address of this machine"):
        Gate("192.0.2.1", None, None)
    assert is_loopback("127.0.0.1")
    assert is_loopback("localhost")
    assert not is_loopback("0.0.0.0")


def test_a_request_that_is_none_is_dropped(page: Page) -> None:
    for junk in (b"\x00" * 100 + b"\r\n\r\n", b"GET", b"A" * 200_000):
        # The rest of what is too long meets a closed connection.
        with socket.create_connection(("127.0.0.1", page.gate.port)) as client, suppress(OSError):
            client.sendall(junk)
            client.shutdown(socket.SHUT_WR)
            while client.recv(4096):
                pass
    assert get(page.gate.port)[0] == 200


def frame(payload: bytes) -> bytes:
    length = len(payload)
    if length < 126:
        head = bytes([0x82, 0x80 | length])
    elif length < 2**16:
        head = bytes([0x82, 0x80 | 126]) + length.to_bytes(2, "big")
    else:
        head = bytes([0x82, 0x80 | 127]) + length.to_bytes(8, "big")
    return head + b"mask" + payload


@pytest.mark.parametrize("piece", [1, 7, 4096])
def test_messages_are_counted_however_they_are_cut(piece: int) -> None:
    brake = Brake(clock=lambda: 0.0)
    stream = b"".join(frame(b"x" * length) for length in (0, 5, 125, 126, 300, 70_000)) * 3
    counted = sum(brake._frames(stream[i : i + piece]) for i in range(0, len(stream), piece))
    assert counted == 18


def test_who_sends_too_much_waits() -> None:
    now = [0.0]
    brake = Brake(clock=lambda: now[0])
    assert brake.spent(frame(b"x") * int(BURST)) == 0.0
    wait_s = brake.spent(frame(b"x") * 120)
    assert wait_s == pytest.approx(120 / MESSAGES_PER_S)
    now[0] = wait_s + 1.0
    assert brake.spent(frame(b"x")) == 0.0


def test_one_steers_and_the_others_look(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = steered(page)

    async def visit() -> None:
        first = await come(page.gate.port)
        await asyncio.to_thread(wait_until, lambda: len(page._panels) == 1)
        second = await come(page.gate.port)
        await asyncio.to_thread(wait_until, lambda: len(page._panels) == 2)
        await asyncio.to_thread(lambda: page.show_status(page.status))  # after the panels are complete
        one, other = (page._panels[i] for i in sorted(page._panels))
        assert one.is_steering
        assert not other.is_steering
        assert not other.ask("undo")
        assert asked.names.count("undo") == 0
        assert one.ask("undo")
        assert not page.steer(other.client)
        monkeypatch.setattr("viz.studio.page.REST_S", 0.0)
        assert page.steer(other.client)
        assert not one.ask("undo")
        assert page.steer(one.client)
        monkeypatch.undo()
        await gone(first)
        await asyncio.to_thread(wait_until, lambda: other.is_steering)
        assert other.ask("undo")
        await gone(second)
        await asyncio.to_thread(wait_until, lambda: not page._panels)

    asyncio.run(visit())
    assert page._steerer is None


def test_people_who_come_stall_and_leave_are_forgotten(page: Page) -> None:
    """50 of them, some of which never read what they are sent; others see the world meanwhile."""
    steered(page)
    page.begin(cameras_at((0.0, 0.0, 0.0))[0], np.zeros((48, 64, 3), np.uint8), 1.0)
    page.apply(change(list(range(1000)), rows(1000), [], 1000))

    async def read_all(client: ws.ClientConnection) -> None:
        async for _ in client:
            pass

    async def visit(rounds: int) -> None:
        for _ in range(rounds):
            clients = await asyncio.gather(*(come(page.gate.port) for _ in range(10)))
            readers = [asyncio.create_task(read_all(client)) for client in clients[::2]]
            await asyncio.to_thread(wait_until, lambda: len(page._panels) == 10)
            for step in range(20):
                page.apply(change([step], rows(1, 1, first=step), [], 1000))
            await asyncio.gather(*(client.close() for client in clients[::2]), *readers)
            for client in clients[1::2]:
                await gone(client)
            await asyncio.to_thread(wait_until, lambda: not page._panels)

    process = psutil.Process(os.getpid())
    asyncio.run(visit(1))
    gc.collect()
    before = process.memory_info().rss
    asyncio.run(visit(5))
    gc.collect()
    grown = process.memory_info().rss - before
    assert grown < 64 * 2**20, f"{grown / 2**20:.0f} MiB"
    assert page.gate.people == 0
    assert len(page._server._websock_server._broadcast_buffer.message_from_id) < 500


def test_a_dragged_gizmo_moves_its_key(page: Page) -> None:
    """As a browser sends it: while it is dragged, and when it is let go, which alone counts."""
    steered(page)
    page.begin(at(0.0), np.zeros((48, 64, 3), np.uint8), 2.0)

    async def drag_it() -> None:
        client = await come(page.gate.port)
        await asyncio.to_thread(wait_until, lambda: len(page._panels) == 1)
        (panel,) = page._panels.values()
        await asyncio.to_thread(lambda: page.change_way(lambda: page.way.add(at(0.5))))
        assert panel.tabs is not None
        which = {"name": "/gizmo", "owner": str(panel.client.client_id)}
        place = {"wxyz": (1.0, 0.0, 0.0, 0.0), "position": (4.0, 0.0, 1.0)}
        for kind, more in (("DragStart", {}), ("Update", place), ("DragEnd", {})):
            await client.send(msgspec.msgpack.encode({"type": f"TransformControls{kind}Message", **which, **more}))
        await asyncio.to_thread(wait_until, lambda: float(page.way.keys[0].camera.position[2]) > 0.0)
        await gone(client)

    asyncio.run(drag_it())
    (key,) = page.way.keys
    unit = MEDIAN_DEPTH / 2.0  # page units per scene unit
    torch.testing.assert_close(key.camera.position, torch.tensor([4.0, 0.0, 1.0]) / unit)
    assert key.camera.focal_px.equal(at(0.5).focal_px)


def test_too_many_people_are_told_so(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("viz.studio.gate.MOST_PEOPLE", 1)
    steered(page)

    async def visit() -> None:
        first = await come(page.gate.port)
        with pytest.raises(InvalidStatus) as refused:
            await come(page.gate.port)
        assert refused.value.response.status_code == 503
        await gone(first)

    asyncio.run(visit())


def test_a_large_upload_is_refused_before_it_comes(page: Page) -> None:
    steered(page)

    async def visit() -> None:
        client = await come(page.gate.port)
        await asyncio.to_thread(wait_until, lambda: len(page._panels) == 1)
        (panel,) = page._panels.values()
        gui = panel.client.gui
        # The lock is held until the panel is complete.
        await asyncio.to_thread(lambda: page.show_status(page.status))
        uuid = next(i for i, h in gui._gui_input_handle_from_uuid.items() if isinstance(h, viser.GuiUploadButtonHandle))
        for size, parts in ((100 * 2**20, 200), (10, 10**6)):
            start = {
                "type": "FileTransferStartUpload",
                "source_component_uuid": uuid,
                "transfer_uuid": f"t{size}",
                "filename": "x.jpg",
                "mime_type": "image/jpeg",
                "part_count": parts,
                "size_bytes": size,
            }
            await client.send(msgspec.msgpack.encode(start))
        await client.send(msgspec.msgpack.encode(start | {"transfer_uuid": "good", "size_bytes": 3, "part_count": 1}))
        await asyncio.to_thread(wait_until, lambda: "good" in gui._current_file_upload_states)
        assert list(gui._current_file_upload_states) == ["good"]
        await gone(client)

    asyncio.run(visit())


def test_only_groups_that_changed_are_sent_again(page: Page) -> None:
    count, group_bytes = 2 * GROUP_ROWS + 10, 32 * GROUP_ROWS
    scene = page.scene
    page.begin(cameras_at((0.0, 0.0, 0.0))[0], np.zeros((48, 64, 3), np.uint8), 2.0)
    assert page.apply(change(list(range(count)), rows(count), [], count)) == (3 + SPARE) * group_bytes
    groups = len(scene._handles)
    assert page.apply(change([5], rows(1), [7], count)) == group_bytes
    assert page.apply(change([count], rows(1, 1), [], count + 1)) == group_bytes  # into the last one
    new = list(range(count + 1, count + 1 + GROUP_ROWS))
    assert page.apply(change(new, rows(GROUP_ROWS, 2), [], new[-1] + 1)) == 2 * group_bytes
    assert page.apply(change([], rows(0), [], new[-1] + 1)) == 0
    assert len(scene._handles) == groups  # no number of splats changed: browsers do not blink
    known = np.concatenate([group.ids for group in scene._groups])
    assert sorted(known.tolist()) == [i for i in range(new[-1] + 1) if i != 7]
    last = scene._handles[groups - 1]
    assert isinstance(last, viser.GaussianSplatHandle)
    assert not last.opacities.any()


def test_room_is_made_before_it_is_needed(page: Page) -> None:
    page.begin(cameras_at((0.0, 0.0, 0.0))[0], np.zeros((48, 64, 3), np.uint8), 1.0)
    total = 0
    for _ in range(12):
        page.apply(change(list(range(total, total + GROUP_ROWS)), rows(GROUP_ROWS), [], total + GROUP_ROWS))
        total += GROUP_ROWS
        assert len(page.scene._handles) > total // GROUP_ROWS
    page.show_primitives(torch.arange(5), rows(5))
    assert len(page.scene._groups) == 1
    shown = [
        handle.opacities for handle in page.scene._handles.values() if isinstance(handle, viser.GaussianSplatHandle)
    ]
    assert sum(np.count_nonzero(opacities) for opacities in shown) == 5


def test_a_whole_world_is_shown_by_its_differences(page: Page) -> None:
    page.begin(cameras_at((0.0, 0.0, 0.0))[0], np.zeros((48, 64, 3), np.uint8), 1.0)
    count = GROUP_ROWS + 5000
    whole, ids = rows(count), torch.arange(count)
    page.show_primitives(ids, whole)
    assert page.scene.sent_bytes == 32 * GROUP_ROWS * (2 + SPARE)
    page.show_primitives(ids, whole)
    assert page.scene.sent_bytes == 0
    kept = torch.ones(count, dtype=torch.bool)
    kept[3] = kept[GROUP_ROWS + 1] = False
    page.show_primitives(ids[kept], whole[kept])
    assert sorted(i for group in page.scene._groups for i in group.ids.tolist()) == ids[kept].tolist()
    page.show_primitives(ids, whole)
    assert sorted(i for group in page.scene._groups for i in group.ids.tolist()) == ids.tolist()
    brighter = replace(whole, colors=whole.colors + 0.1)
    page.show_primitives(ids, brighter)
    shown = torch.cat([group.rows.colors for group in page.scene._groups])
    assert torch.allclose(shown, torch.full_like(shown, 0.6))


def test_splats_arrive_as_they_are(page: Page) -> None:
    """Center, covariance and color of a splat in the buffer that a browser gets, in page units."""
    page.begin(cameras_at((0.0, 0.0, 0.0))[0], np.zeros((48, 64, 3), np.uint8), 4.0)
    half = 0.5**0.5
    splat = replace(
        rows(1, first=3.0), quats=torch.tensor([[half, 0.0, 0.0, half]]), scales=torch.tensor([[0.3, 0.1, 0.02]])
    )
    page.apply(change([0], splat, [], 1))
    handle = page.scene._handles[0]
    assert isinstance(handle, viser.GaussianSplatHandle)
    scale = MEDIAN_DEPTH / 4.0
    assert handle.centers[0] == pytest.approx([3.0 * scale] * 3)
    deviations = np.sqrt(np.diag(handle.covariances[0]))
    # A quarter turn about z: what was along x is along y.
    assert deviations / deviations[0] == pytest.approx([1.0, 3.0, 0.2], rel=0.01)
    assert deviations[1] >= 0.3 * scale
    assert handle.rgbs[0].tolist() == [128, 128, 128]


def test_points_and_tints_are_other_drawings_of_the_same_rows(page: Page) -> None:
    page.begin(cameras_at((0.0, 0.0, 0.0))[0], np.zeros((48, 64, 3), np.uint8), 1.0)
    page.apply(change(list(range(10)), rows(10), [], 10))
    page.look("points", "color")
    assert isinstance(page.scene._handles[0], viser.PointCloudHandle)
    page.look("splats", "provenance")
    assert isinstance(page.scene._handles[0], viser.GaussianSplatHandle)
    both = Gaussians.concatenate([rows(1, 0), rows(1, 1)])
    seen, made = tinted(both, "provenance")
    assert seen[2] > seen[0]  # blue: observed
    assert made[0] > made[2]  # amber: generated
    sure, unsure = tinted(replace(both, confidence=torch.tensor([1.0, 0.0])), "confidence")
    assert sure[1] > sure[0]
    assert unsure[0] > unsure[1]
    assert not np.array_equal(*tinted(both, "chunk"))


def test_frustums_around_the_eye_are_hidden(page: Page) -> None:
    page.begin(cameras_at((0.0, 0.0, 0.0))[0], np.zeros((48, 64, 3), np.uint8), 1.0)
    photo, _ = page.scene._near["photo"]
    assert not photo.visible
    page.scene.look_from(np.array([0.0, 0.0, -3.0]))
    assert photo.visible


def test_a_line_that_begins_at_the_eye_is_hidden(page: Page) -> None:
    """Its end would stand before the whole view, as a disc."""
    page.begin(cameras_at((0.0, 0.0, 0.0))[0], np.zeros((48, 64, 3), np.uint8), 1.0)
    page.scene.show_path("walked", cameras_at((0.0, 0.0, 0.0), (0.0, 0.0, 0.5)), (255, 170, 40))
    walked, _ = page.scene._near["walked"]
    assert not walked.visible
    page.scene.look_from(np.array([0.0, 0.0, -3.0]))
    assert walked.visible
    page.scene.show_path("walked", cameras_at((0.0, 0.0, 0.0)), (255, 170, 40))  # one camera makes no line
    assert "walked" not in page.scene._near


def at(x: float, yaw_deg: float = 0.0) -> Camera:
    return cameras_at(pose_at(x, yaw_deg=yaw_deg))[0]


def test_a_way_passes_through_its_keys() -> None:
    way = Way()
    with pytest.raises(ValueError, match="no world yet"):
        way.add(at(1.0))
    way.start = at(0.0)
    assert way.sample(16.0) is None
    for camera in (at(0.3), at(0.3, 30.0)):
        way.add(camera)
    assert [key.seconds for key in way.keys] == [1.0, 2.0]  # by length, by angle
    cameras = way.sample(16.0)
    assert cameras is not None
    assert len(cameras) == 48
    assert torch.allclose(cameras.world_from_camera[15], at(0.3).world_from_camera, atol=1e-5)
    assert torch.allclose(cameras.world_from_camera[-1], at(0.3, 30.0).world_from_camera, atol=1e-5)
    way.chosen = 0
    way.add(at(0.4))  # after the chosen one
    assert [round(float(key.camera.position[0]), 2) for key in way.keys] == [0.3, 0.4, 0.3]
    way.replace(seconds=4.0)
    assert way.keys[1].seconds == 4.0
    way.replace(at(0.45))
    assert round(float(way.keys[1].camera.position[0]), 2) == 0.45
    way.replace(at(0.4))
    way.forecast = Forecast((0.0,), (False,), "")
    way.remove()
    assert len(way.keys) == 2
    assert way.forecast is None
    way.take(cameras_at(*((0.01 * k, 0.0, 0.0) for k in range(101))), 5.0)
    assert len(way.keys) == 16
    assert way.seconds == pytest.approx(5.0)
    assert way.keys[-1] == Key(way.keys[-1].camera, 5.0 / 16)


def test_a_key_keeps_the_lens_or_gets_its_own() -> None:
    way, view = Way(), View(np.eye(4), 40.0, 0.0)
    with pytest.raises(ValueError, match="no world yet"):
        way.camera_of(view)
    way.start = at(0.0)
    assert way.camera_of(view).focal_px.equal(way.start.focal_px)
    assert float(way.camera_of(view, 90.0).fov_deg[0]) == pytest.approx(90.0)


def test_the_strip_shows_every_chunk_and_no_markup() -> None:
    picture = np.full((8, 12, 3), 128, np.uint8)
    page = history_page([Thumbnail(k, picture, at(0.0), "<b>new</b>") for k in range(100)])
    assert page.count("<img") == 48
    assert "<b>" not in page
    bars = forecast_picture(Forecast((0.0, 1.0), (False, True), ""))
    assert (bars[0, 0] == bars[0, 0][0]).all()  # nothing unknown: background at the top
    assert bars[5, -1].tolist() == [225, 60, 60]
    assert plain("**<b>x</b>**[a](b).jpg") == "___b_x__b____a_(b).jpg"


def test_actions_are_what_the_walk_has() -> None:
    from worldwarp.studio.walker import Walker

    wanted = {name for name in vars(Actions) if not name.startswith("_")}
    assert wanted <= set(vars(Walker))
