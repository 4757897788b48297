"""The tab of the worlds that can be opened: the first page of a studio without a photo."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import viser

from viz.studio.controls import Controls
from viz.studio.events import Tile
from viz.studio.strip import tile_page

if TYPE_CHECKING:
    from viz.studio.page import Page


class WorldsTab(Controls):
    """Worlds: a picture of each, and buttons that open it and go on."""

    def __init__(self, page: Page, client: viser.ClientHandle, tab: viser.GuiTabHandle) -> None:
        super().__init__(page, client)
        self._tab, self._list = tab, client.gui.add_folder(None)

    def show_worlds(self) -> None:
        """The worlds that were found."""
        self._list.remove()
        with self._tab:
            self._list = self.client.gui.add_folder(None)
        with self._list:
            if not self.page.worlds:
                self.client.gui.add_markdown("No world is here yet. Choose a photo under **Make**.")
            for tile in self.page.worlds:
                self._show(tile)
            self.button("Look for worlds again", lambda: self.ask("list_worlds"), icon=viser.Icon.REFRESH)

    def _show(self, tile: Tile) -> None:
        self.client.gui.add_html(tile_page(tile))
        if tile.picture is None:
            return
        presses: dict[str, Callable[[], object]] = {"open": lambda: self.ask("open", tile.folder, False)}
        if tile.is_unfinished:
            presses["go on"] = lambda: self.ask("open", tile.folder, True)
        self.buttons("", presses)
