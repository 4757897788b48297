"""The tab in which a world of an uploaded photo is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import viser

from viz.studio.controls import Controls, plain
from viz.studio.events import Making

if TYPE_CHECKING:
    from viz.studio.page import Page


QUALITIES = ("draft", "good", "best")


class MakeTab(Controls):
    """Make: photo, settings, and what they cost."""

    def __init__(self, page: Page, client: viser.ClientHandle) -> None:
        super().__init__(page, client)
        gui, choices = client.gui, page.choices
        self._photo: tuple[str, bytes] | None = None
        gui.add_markdown("A world of a photo of yours. It stays on the machine that runs the studio.")
        photo = gui.add_upload_button("Choose a photo", icon=viser.Icon.PHOTO_UP, mime_type="image/*")
        name = gui.add_markdown("")

        def uploaded(_: Any) -> None:
            self._photo = (photo.value.name, photo.value.content)
            name.content = f"**{plain(photo.value.name)}**, {len(photo.value.content) / 2**20:.1f} MB"

        photo.on_upload(uploaded)
        at_first = dict(choices.settings)
        quality = gui.add_dropdown("quality", QUALITIES, initial_value=at_first.pop("quality", "good"))
        size = gui.add_text("size", at_first.pop("size", ""), hint="longer side, pixels, or 480x720; empty: by quality")
        parts = {part: gui.add_dropdown(part, options) for part, options in choices.groups.items()}
        with gui.add_folder("More", expand_by_default=False):
            detail = gui.add_slider(
                "detail",
                1.0,
                4.0,
                0.5,
                float(at_first.pop("detail", "2")),
                hint="the photo enters the world this much finer",
            )
            seed = gui.add_number("seed", int(at_first.pop("seed", "0")), min=0, max=2**31 - 1, step=1)
            prompt = gui.add_text("prompt", at_first.pop("prompt", ""), hint="for a generator that takes one")
            rest = " ".join(f"{key}={value}" for key, value in at_first.items())
            more = gui.add_text("more settings", rest, hint="as on the command line: depth.checkpoint=… fov_deg=60")

        def making() -> Making | None:
            if self._photo is None:
                self.tell("photo: want one first, got none; press Choose a photo", error=True)
                return None
            settings = {"quality": quality.value, "detail": f"{detail.value:g}", "seed": str(seed.value)}
            settings |= {"size": size.value.strip()} if size.value.strip() else {}
            settings |= {part: chosen.value for part, chosen in parts.items()}
            settings |= {"prompt": prompt.value} if prompt.value.strip() else {}
            settings |= _settings(more.value)
            return Making(self._photo[1], self._photo[0], settings)

        def ask(what: str) -> None:
            if (wanted := making()) is not None:
                self.ask(what, wanted)

        self.button("Plan it", lambda: ask("plan"), icon=viser.Icon.LIST_CHECK)
        self._plan = gui.add_markdown("")
        self.button("Make it", lambda: ask("make"), icon=viser.Icon.WAND, color="orange")

    def show_plan(self, text: str) -> None:
        """What a world that is to be made will cost."""
        self._plan.content = text


def _settings(text: str) -> dict[str, str]:
    """``key=value`` words as a dict."""
    words = (word.partition("=") for word in text.split())
    return {key: value for key, _, value in words}
