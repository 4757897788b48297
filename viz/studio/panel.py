"""The panel of one browser. Whoever steers has all of its tabs; the others see what is done."""

from __future__ import annotations

from typing import TYPE_CHECKING

import viser

from viz.studio.controls import Controls
from viz.studio.events import Status
from viz.studio.grow_tab import HINT, GrowTab
from viz.studio.history_tab import HistoryTab
from viz.studio.make_tab import MakeTab
from viz.studio.path_tab import PathTab
from viz.studio.save_tab import SaveTab
from viz.studio.worlds_tab import WorldsTab

if TYPE_CHECKING:
    from viz.studio.page import Page


class Panel(Controls):
    """The panel of one browser.

    Args:
        page: what is shown to all.
        client: the browser.
    """

    def __init__(self, page: Page, client: viser.ClientHandle) -> None:
        super().__init__(page, client)
        self.tabs: Tabs | None = None

    @property
    def is_steering(self) -> bool:
        """Whether it has the controls of whoever steers."""
        return self.tabs is not None

    def renew(self) -> None:
        """Make all controls anew: somebody came to steer, or another world is shown."""
        gui = self.client.gui
        gui.reset()
        self.client.scene.reset()
        self._head = gui.add_markdown("")
        self._bar = gui.add_progress_bar(0.0, visible=False, animated=True)
        self._people = gui.add_markdown("", visible=False)
        self.tabs = None
        if self.page.steers(self.client):
            with gui.add_folder(None):
                grow = self.button("Grow here", self._grow, icon=viser.Icon.PLANT_2, color="orange")
                grow.disabled = self.page.way.start is None
                self._stop = self.button("Stop", lambda: self.ask("stop"), icon=viser.Icon.PLAYER_STOP)
            self.tabs = tabs = Tabs(self.page, self.client)
            gui.add_command("Grow here", hotkey="G").on_trigger(lambda _: self._grow())
            gui.add_command("Add a key here", hotkey="K").on_trigger(lambda _: tabs.path.add_key())
            gui.add_command("Take back the last chunk", hotkey="U").on_trigger(lambda _: self._undo())
        else:
            gui.add_markdown(f"Somebody else steers; you look.\n\n{HINT}")
            self.button("Steer", self._steer, icon=viser.Icon.HAND_GRAB)
        self.show_status(self.page.status)

    def show_status(self, status: Status) -> None:
        """What the walk does."""
        title = f"### {status.title or 'WorldWarp studio'}\n"
        self._head.content = f"{title}{status.doing}\n\n{status.figures}"
        self._bar.visible = status.share is not None
        if status.share is not None:
            self._bar.value = 100.0 * min(max(status.share, 0.0), 1.0)
        if self.is_steering:
            self._stop.disabled = status.share is None

    def show_people(self, count: int) -> None:
        """How many browsers are open."""
        self._people.visible = count > 1
        self._people.content = f"*{count} people are here*"

    def _steer(self) -> None:
        if not self.page.steer(self.client):
            self.tell("somebody steers just now; who rests for a minute can be relieved")

    def _undo(self) -> None:
        self.ask("undo")

    def _grow(self) -> None:
        self.ask("grow", self.page.view_of(self.client.camera))


class Tabs:
    """The tabs of whoever steers, filled with what the page shows; before there is a world, the worlds come first.

    Args:
        page: what is shown to all.
        client: the browser.
    """

    def __init__(self, page: Page, client: viser.ClientHandle) -> None:
        group = client.gui.add_tab_group()

        def home() -> tuple[WorldsTab, MakeTab]:
            with group.add_tab("Worlds") as tab:
                worlds = WorldsTab(page, client, tab)
            with group.add_tab("Make"):
                return worlds, MakeTab(page, client)

        first = home() if page.way.start is None else None
        with group.add_tab("Grow"):
            self.grow = GrowTab(page, client)
        with group.add_tab("Path"):
            self.path = PathTab(page, client)
        with group.add_tab("History"):
            self.history = HistoryTab(page, client)
        with group.add_tab("Save"):
            self.save = SaveTab(page, client)
        self.worlds, self.make = first or home()
        self.history.show_history()
        self.path.show_way()
        self.grow.show_remaining()
        self.worlds.show_worlds()
