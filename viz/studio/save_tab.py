"""The tab from which a world is taken home."""

from __future__ import annotations

from typing import TYPE_CHECKING

import viser

from viz.studio.controls import Controls

if TYPE_CHECKING:
    from viz.studio.page import Page


class SaveTab(Controls):
    """Save: exports as downloads, and Rerun."""

    def __init__(self, page: Page, client: viser.ClientHandle) -> None:
        super().__init__(page, client)
        gui = client.gui
        gui.add_markdown("Each is written into the world's folder, and downloaded.")
        for name, label in page.choices.formats.items():
            self.button(label, lambda name=name: self.ask("export", (name,), self.send), icon=viser.Icon.DOWNLOAD)
        gui.add_divider()
        how = "how frames are made: guide, noise, result, gauges"
        self.button("Inspect in Rerun", lambda: self.ask("inspect"), icon=viser.Icon.EXTERNAL_LINK, hint=how)
