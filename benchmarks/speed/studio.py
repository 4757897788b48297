"""The studio without a browser: `python -m benchmarks.speed.studio [--size 320] [--views 6] [--people 50]`.

The bundled photo in a studio of this machine, and a client that receives what a browser does. Looks ever further to the
right, and asks to grow there each time: seconds from the question to the first bytes of new splats and to the end,
bytes that a browser is sent per chunk, and seconds and bytes until somebody who comes late has the whole world. Then
``--people`` clients come, stall, and leave without a word: growth of memory. The last line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil
import viser
import websockets.asyncio.client as ws
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

import worldwarp
from viz.studio.events import Choices, View
from viz.studio.page import Page
from worldwarp.config import compose_config
from worldwarp.session import Session
from worldwarp.studio.making import begun
from worldwarp.studio.walker import Walker

PHOTO = Path(worldwarp.__file__).parent / "photos" / "pagoda.jpg"
LARGE = 100_000  # bytes of a message from which on it holds splats
CAMERA = {
    "type": "ViewerCameraMessage",
    "wxyz": (1.0, 0.0, 0.0, 0.0),
    "position": (0.0, 0.0, 0.0),
    "fov": 0.7,
    "near": 0.1,
    "far": 100.0,
    "image_height": 300,
    "image_width": 400,
    "look_at": (0.0, 0.0, 1.0),
    "up_direction": (0.0, -1.0, 0.0),
}


async def come(port: int, **more: Any) -> ws.ClientConnection:
    """A client that comes in as a browser does: it tells where it looks from.

    Args:
        port: of the page.
        **more: of the connection, as websockets takes it.
    """
    protocol = Subprotocol(f"viser-v{viser.__version__}")
    client = await ws.connect(f"ws://127.0.0.1:{port}/", subprotocols=[protocol], max_size=None, **more)
    await client.send(msgspec.msgpack.encode(CAMERA))
    return client


class Browser:
    """Receives what a browser does, and notes when and how much."""

    def __init__(self, port: int) -> None:
        self.arrived: list[tuple[float, int]] = []  # seconds, bytes
        self._client: ws.ClientConnection | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._receive(port),), daemon=True)
        self._thread.start()

    async def _receive(self, port: int) -> None:
        self._client = await come(port)
        try:
            async for message in self._client:
                self.arrived.append((time.perf_counter(), len(message)))
        except ConnectionClosed:
            pass

    def quiet(self, for_s: float = 1.0) -> None:
        """Wait until nothing comes any more."""
        while not self.arrived or time.perf_counter() - self.arrived[-1][0] < for_s:
            time.sleep(0.05)

    def leave(self) -> None:
        assert self._client is not None
        self._loop.call_soon_threadsafe(self._client.transport.abort)
        self._thread.join(10.0)


async def stall(port: int, people: int) -> None:
    """Clients that come, read nothing, and are gone."""
    clients = await asyncio.gather(*(come(port) for _ in range(people)))
    await asyncio.sleep(2.0)
    for client in clients:
        client.transport.abort()
    await asyncio.gather(*(client.wait_closed() for client in clients))


def view(yaw_deg: float) -> View:
    yaw, pose = np.radians(yaw_deg), np.eye(4)
    pose[0, 0], pose[0, 2], pose[2, 0], pose[2, 2] = np.cos(yaw), np.sin(yaw), -np.sin(yaw), np.cos(yaw)
    return View(pose, 45.0, time.monotonic())


def settle(walker: Walker) -> None:
    while not walker.is_idle:
        time.sleep(0.01)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--views", type=int, default=6)
    parser.add_argument("--people", type=int, default=50)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "world"

        def first(tell: object) -> Session:
            del tell
            words = [f"image={PHOTO}", f"size={given.size}", "path=keys", "viewer=none"]
            session = begun(compose_config("explore", words), folder, lambda _: None)
            session.store_in(folder)
            return session

        page = Page("127.0.0.1", None, None, Choices())
        walker = Walker(page, first)
        page.steered_by(walker)
        walker.start()
        settle(walker)
        browser = Browser(page.gate.port)
        browser.quiet()
        first_s, whole_s, sent = [], [], []
        for number in range(given.views):
            before, asked = len(browser.arrived), time.perf_counter()
            walker.grow(view(2.5 * 4 * (number + 1)))  # a chunk of four frames each
            settle(walker)
            whole_s.append(time.perf_counter() - asked)
            browser.quiet(0.5)
            came = browser.arrived[before:]
            splats = [at - asked for at, size in came if size > LARGE]
            first_s += splats[:1]
            sent.append(sum(size for _, size in came))
            first_text = f"{splats[0]:.2f} s" if splats else "none"
            mib = sent[-1] / 2**20
            print(f"view {number + 1}: first new splats {first_text}, done {whole_s[-1]:.2f} s, {mib:.2f} MiB")
        begun_s = time.perf_counter()
        late = Browser(page.gate.port)
        late.quiet()
        late_s, late_bytes = late.arrived[-1][0] - begun_s, sum(size for _, size in late.arrived)
        late.leave()
        rows = len(walker._there().state.view.cache)
        print(f"who comes late: {rows} splats, {late_bytes / 2**20:.1f} MiB in {late_s:.2f} s")
        process = psutil.Process()
        resident_mib = []
        for _ in range(1 + max(1, given.people // 10)):  # the first ten make the allocator's room
            asyncio.run(stall(page.gate.port, 10))
            while page.gate.people > 1:
                time.sleep(0.1)
            time.sleep(2.0)
            gc.collect()
            resident_mib.append(process.memory_info().rss / 2**20)
        grown_mib = resident_mib[-1] - resident_mib[0]
        print(f"{given.people} people who came, stalled and left: {grown_mib:+.1f} MiB")
        browser.leave()
        walker.close()
        walker.join()
        page.close()
    figures = {
        "size": given.size,
        "splats": rows,
        "first_splats_s": statistics.median(first_s) if first_s else None,
        "chunk_s": statistics.median(whole_s),
        "chunk_mib": statistics.median(sent) / 2**20,
        "largest_chunk_mib": max(sent) / 2**20,
        "late_s": late_s,
        "late_mib": late_bytes / 2**20,
        "grown_mib": grown_mib,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
