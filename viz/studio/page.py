"""The studio's server: who looks, who steers, and what all of them are shown."""

from __future__ import annotations

import io
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout

import numpy as np
import viser
import viser.transforms
from jaxtyping import Int, UInt8
from torch import Tensor
from viser import _messages

from geometry.camera import Camera
from geometry.primitives import Change, Gaussians
from viz.studio.events import Actions, Choices, Forecast, Shape, Status, Thumbnail, Tile, Tint, View
from viz.studio.gate import Gate
from viz.studio.panel import Panel, Tabs
from viz.studio.scene import WALL_EYE, WorldScene
from viz.studio.way import Way

REST_S = 60.0  # without a move, after which somebody else may steer
PANEL_PX = 380  # wide enough for all tabs beside each other
MOST_UPLOADED = 64 * 2**20  # bytes of one file


class Page:
    """The page of one walk: any number of people look, the first of them steers.

    Methods may be called from any thread; none waits for a browser. Everything that is asked goes to ``actions`` once
    `steered_by` was called.

    Args:
        host: address to serve on.
        port: None for 8080, or a free one if that is in use.
        token: what the link must hold; None: no link is needed.
        choices: what the page offers.

    Raises:
        ValueError: the port is in use, or the address is not this machine's.
    """

    def __init__(self, host: str, port: int | None, token: str | None, choices: Choices) -> None:
        self.gate = Gate(host, port, token)
        # Somebody who is gone is told nothing; that is no defect.
        warnings.filterwarnings("ignore", "Queued a .* on a closed connection", UserWarning)
        with redirect_stdout(io.StringIO()):  # it prints the address that nobody shall use
            self._server = viser.ViserServer(host="127.0.0.1", port=self.gate.reserve(), verbose=False)
        self.gate.start(self._server.get_port())
        self._server.gui.configure_theme(dark_mode=True, show_logo=False, show_share_button=False)
        self._server.gui.set_panel_label("WorldWarp studio")
        self._server.gui.main_panel.dock_right()
        self._server.gui.main_panel.set_width(PANEL_PX)
        self.scene = WorldScene(self._server)
        self.choices, self.way = choices, Way()
        self.status, self.thumbnails, self.worlds = Status(), list[Thumbnail](), list[Tile]()
        self.takes_prompts, self.remaining = False, 0
        self.actions: Actions | None = None
        self._lock = threading.RLock()
        self._panels: dict[int, Panel] = {}
        self._steerer: int | None = None
        self._steered_s = time.monotonic()

    @property
    def address(self) -> str:
        """The link to open."""
        return self.gate.address

    def steered_by(self, actions: Actions) -> None:
        """Let people in; what they ask goes to ``actions``."""
        self.actions = actions
        self._server.on_client_connect(self._came)
        self._server.on_client_disconnect(self._left)

    def close(self) -> None:
        """End the server; open pages say that it is gone."""
        self.gate.stop()
        self._server.stop()

    def show_status(self, status: Status) -> None:
        """What the walk does now."""
        self.status = status
        self._each(lambda panel: panel.show_status(status))

    def show_following(self, following: bool) -> None:
        """Whether the world grows by itself where somebody looks."""
        self._each_steering(lambda tabs: tabs.grow.show_following(following))

    def tell(self, text: str, *, error: bool = False) -> None:
        """A sentence for everybody; errors stay until they are closed."""
        self._each(lambda panel: panel.tell(text, error=error))

    def begin(self, camera: Camera, photo: UInt8[np.ndarray, "h w 3"], unit: float) -> None:
        """Show another world, empty yet.

        Args:
            camera: of the photo, no batch axis.
            photo: its colors.
            unit: its median depth, scene units.
        """
        with self._lock:
            self.scene.clear(unit)
            self.scene.initial_view(camera)
            self.scene.show_photo(camera, photo)
            self.way.clear()
            self.way.start, self.way.unit = camera, unit
            self.thumbnails = []
            self._each(lambda panel: panel.renew())
            self._each(lambda panel: panel.go_to(camera))

    def apply(self, change: Change) -> int:
        """Show a change of the world; returns the bytes that one browser is sent."""
        with self._lock:
            self.scene.apply(change)
            return self.scene.sent_bytes

    def show_primitives(self, ids: Int[Tensor, "n"], rows: Gaussians) -> None:
        """Show a whole world; what differs from what is shown is sent."""
        with self._lock:
            self.scene.show(ids, rows)

    def show_walked(self, cameras: Camera, remaining: Camera) -> None:
        """The finished cameras ``[n]``, and those that are planned and not finished ``[t]``."""
        with self._lock:
            self.scene.show_path("walked", cameras, (255, 170, 40))
            self.scene.show_path("planned", Camera.concatenate([cameras[-1:], remaining]), (150, 150, 150))
            self.scene.show_here(cameras[-1])
            self.way.start = cameras[-1]
            self.remaining = len(remaining)
            self._each_steering(lambda tabs: tabs.grow.show_remaining())

    def show_history(self, thumbnails: Sequence[Thumbnail]) -> None:
        """The finished chunks."""
        with self._lock:
            self.thumbnails = list(thumbnails)
            self._each_steering(lambda tabs: tabs.history.show_history())

    def show_way(self) -> None:
        """The planned way, after it changed."""
        with self._lock:
            self.scene.show_way(self.way, self.choices.fps, self._choose)
            self._each_steering(lambda tabs: tabs.path.show_way())

    def change_way(self, change: Callable[[], None]) -> None:
        """Change the planned way, and show it.

        Raises:
            ValueError: from ``change``.
        """
        with self._lock:
            try:
                change()
            finally:
                self.show_way()

    def look(self, shape: Shape, tint: Tint) -> None:
        """How the world is drawn."""
        with self._lock:
            self.scene.look(shape, tint)

    def show_forecast(self, forecast: Forecast) -> None:
        """What the planned way would show."""
        with self._lock:
            self.way.forecast = forecast
            self.show_way()

    def show_worlds(self, tiles: Sequence[Tile]) -> None:
        """The worlds that can be opened."""
        with self._lock:
            self.worlds = list(tiles)
            self._each_steering(lambda tabs: tabs.worlds.show_worlds())
            if self.way.start is None:
                self.scene.show_wall(tiles, self._open)
                self.scene.initial_view(WALL_EYE)
                self._each(lambda panel: panel.go_to(WALL_EYE))

    def show_plan(self, text: str) -> None:
        """What a world that is to be made will cost, Markdown."""
        self._each_steering(lambda tabs: tabs.make.show_plan(text))

    def steers(self, client: viser.ClientHandle) -> bool:
        """Whether this browser steers."""
        return self._steerer == client.client_id

    def steer(self, client: viser.ClientHandle) -> bool:
        """Let a browser steer, if nobody does or who does has rested for a while; returns whether it does."""
        with self._lock:
            if self._steerer is None or time.monotonic() - self._steered_s > REST_S:
                self._steerer, self._steered_s = client.client_id, time.monotonic()
                self._each(lambda panel: panel.renew())
            return self.steers(client)

    def stays(self) -> None:
        """Whoever steers has just done something."""
        self._steered_s = time.monotonic()

    def _choose(self, event: viser.SceneNodePointerEvent, number: int) -> None:
        if self.steers(event.client):

            def choose() -> None:
                self.way.chosen = number

            self.change_way(choose)

    def _open(self, event: viser.SceneNodePointerEvent, tile: Tile) -> None:
        if (panel := self._panels.get(event.client.client_id)) is not None:
            panel.ask("open", tile.folder, False)

    def _each(self, show: Callable[[Panel], None]) -> None:
        with self._lock:
            for panel in list(self._panels.values()):
                show(panel)

    def _each_steering(self, show: Callable[[Tabs], None]) -> None:
        self._each(lambda panel: show(panel.tabs) if panel.tabs is not None else None)

    def _came(self, client: viser.ClientHandle) -> None:
        client.gui._websock_interface.register_handler(_messages.FileTransferStartUpload, self._limit_upload(client))
        with self._lock:
            self._panels[client.client_id] = Panel(self, client)
            if self._steerer is None:
                self._steerer = client.client_id
            if self.steers(client):
                self.scene.look_from(client.camera.position)
            self._panels[client.client_id].renew()
            self._each(lambda panel: panel.show_people(len(self._panels)))

        async def moved(camera: viser.CameraHandle) -> None:
            if self._steerer == client.client_id and self.actions is not None:
                self.stays()
                self.scene.look_from(camera.position)
                self.actions.looked(self.view_of(camera))

        client.camera.on_update(moved)

    def _left(self, client: viser.ClientHandle) -> None:
        with self._lock:
            self._panels.pop(client.client_id, None)
            if self._steerer == client.client_id:
                # The one who has looked longest goes on.
                self._steerer = min(self._panels, default=None)
                if self._steerer is not None:
                    self._panels[self._steerer].renew()
            self._each(lambda panel: panel.show_people(len(self._panels)))

    def view_of(self, camera: viser.CameraHandle) -> View:
        """A browser's camera in the world."""
        pose = np.eye(4)
        pose[:3, :3] = viser.transforms.SO3(camera.wxyz).as_matrix()
        pose[:3, 3] = camera.position / self.scene.scale
        return View(pose, float(np.degrees(camera.fov)), time.monotonic())

    def _limit_upload(self, client: viser.ClientHandle) -> Callable[[int, _messages.FileTransferStartUpload], None]:
        def check(_client_id: int, message: _messages.FileTransferStartUpload) -> None:
            if message.size_bytes > MOST_UPLOADED or message.part_count * 1024 > message.size_bytes + 2**20:
                # Parts of an unknown transfer are dropped as they come.
                client.gui._current_file_upload_states.pop(message.transfer_uuid, None)
                if (panel := self._panels.get(client.client_id)) is not None:
                    panel.tell(
                        f"upload: want a file of at most {MOST_UPLOADED >> 20} MB, got "
                        f"{message.size_bytes / 2**20:.0f} MB; make it smaller",
                        error=True,
                    )

        return check
