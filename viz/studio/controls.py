"""What the parts of a panel share: their browser, buttons, and how they ask the walk for something."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import viser

from geometry.camera import Camera

if TYPE_CHECKING:
    from viz.studio.page import Page


class Controls:
    """Buttons of one browser, and what they do.

    Args:
        page: what is shown to all.
        client: the browser.
    """

    def __init__(self, page: Page, client: viser.ClientHandle) -> None:
        self.page, self.client = page, client

    def tell(self, text: str, *, error: bool = False) -> None:
        """A sentence in the page; an error stays until it is closed."""
        name, _, rest = text.partition(": ")
        title, body = (name, rest) if error and rest and " " not in name else ("studio", text)
        color = "red" if error else "teal"
        self.client.add_notification(title, body, color=color, auto_close_seconds=None if error else 6.0)

    def go_to(self, camera: Camera) -> None:
        """Look from a camera, no batch axis."""
        position, look_at, up = self.page.scene.eye(camera)
        view = self.client.camera
        with self.client.atomic():
            view.up_direction, view.position, view.look_at = up, position, look_at
            view.fov = math.radians(float(camera.fov_deg[1]))

    def jump(self, chunk: int) -> None:
        """Look from the last camera of a finished chunk."""
        if self.page.thumbnails:
            self.go_to(self.page.thumbnails[chunk].camera)

    def send(self, name: str, content: bytes) -> None:
        """Let the browser download a file."""
        self.client.send_file_download(name, content, save_immediately=True)

    def button(self, label: str, press: Callable[[], object], **look: Any) -> viser.GuiButtonHandle:
        """A button; ``look`` as of viser."""
        button = self.client.gui.add_button(label, **look)

        @button.on_click
        def _(_event: object) -> None:
            press()

        return button

    def buttons(self, label: str, presses: Mapping[str, Callable[[], object]]) -> viser.GuiButtonGroupHandle:
        """Buttons beside each other, by label."""
        group = self.client.gui.add_button_group(label, list(presses))

        @group.on_click
        def _(_event: object) -> None:
            presses[group.value]()

        return group

    def ask(self, what: str, *words: Any) -> bool:
        """Ask the walk for something; a refusal is told. Returns whether it was accepted."""
        if not self.page.steers(self.client) or self.page.actions is None:
            self.tell("somebody else steers; you can look around")
            return False
        self.page.stays()
        refusal = getattr(self.page.actions, what)(*words)
        if refusal is not None:
            self.tell(refusal, error=True)
        return refusal is None


def by_hand(handle: Any, change: Callable[[], object]) -> None:
    """Call ``change`` when somebody in the page changes an input, not when the program does."""
    handle.on_update(lambda event: change() if event.client_id is not None else None)


def plain(name: str) -> str:
    """A file's name as text of a page: no Markdown, no markup, not endless."""
    kept = "".join(character if character.isalnum() or character in " ._-()" else "_" for character in name)
    return json.dumps(kept[-60:])[1:-1]
