"""The tab in which the world grows, and how it is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import viser

from viz.studio.controls import Controls, by_hand
from viz.studio.events import Shape, Tint

if TYPE_CHECKING:
    from viz.studio.page import Page


SHAPES: dict[str, Shape] = {"splats": "splats", "points": "points"}
TINTS: dict[str, Tint] = {
    "as it is": "color",
    "how sure it is": "confidence",
    "photo or made up": "provenance",
    "by chunk": "chunk",
}
LEGENDS = {
    "color": "",
    "confidence": "green: sure · red: a guess",
    "provenance": "blue: the photo shows it · amber: made up",
    "chunk": "each chunk in a color of its own",
}
HINT = "**W A S D** walk · **Q E** down, up · **drag** turn · **right drag** shift · **wheel** nearer"


class GrowTab(Controls):
    """Grow: going on, growing by itself, looks."""

    def __init__(self, page: Page, client: viser.ClientHandle) -> None:
        super().__init__(page, client)
        gui = client.gui
        gui.add_markdown(f"{HINT}\n\n**G** grows the world from its last camera to what you see.")
        self._finish = self.button("Go on", lambda: self.ask("finish"), icon=viser.Icon.PLAYER_PLAY)
        self._follow = following = gui.add_checkbox("Grow as I look", False, hint="by itself, one chunk ahead of you")
        share = gui.add_slider("where unknown, %", 2, 80, 1, 20, hint="share of your view that is not known yet")

        def follow() -> None:
            self.ask("follow", share.value / 100.0 if following.value else None)

        by_hand(following, follow)
        by_hand(share, lambda: follow() if following.value else None)
        self._prompting = gui.add_folder("What comes next", visible=False)
        with self._prompting:
            text = gui.add_text("prompt", "", multiline=True)
            self.button("Describe it so", lambda: self.ask("prompt", text.value))
        with gui.add_folder("Look"):
            shape = gui.add_dropdown("drawn as", list(SHAPES))
            tint = gui.add_dropdown("colored", list(TINTS))
            legend = gui.add_markdown("", visible=False)
            marks = gui.add_checkbox("cameras and path", True)

            def look() -> None:
                chosen = TINTS[tint.value]
                legend.content, legend.visible = LEGENDS[chosen], bool(LEGENDS[chosen])
                self.page.look(SHAPES[shape.value], chosen)

            by_hand(shape, look)
            by_hand(tint, look)
            by_hand(marks, lambda: self.page.scene.show_marks(marks.value))
        self.buttons("look from", {"the photo": lambda: self.jump(0), "the last camera": lambda: self.jump(-1)})

    def show_following(self, following: bool) -> None:
        """Whether the world grows by itself."""
        if self._follow.value != following:
            self._follow.value = following

    def show_remaining(self) -> None:
        """How much of a planned path is unfinished."""
        count = self.page.remaining
        self._finish.visible = count > 0
        self._finish.label = f"Go on: {count} planned frames are left"
        self._prompting.visible = self.page.takes_prompts
