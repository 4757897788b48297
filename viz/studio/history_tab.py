"""The tab of what was made: look back, branch, forget, take back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import viser

from viz.studio.controls import Controls, by_hand
from viz.studio.scene import MEDIAN_DEPTH
from viz.studio.strip import history_page

if TYPE_CHECKING:
    from viz.studio.page import Page


class HistoryTab(Controls):
    """History: a picture of each chunk, and a box to forget."""

    def __init__(self, page: Page, client: viser.ClientHandle) -> None:
        super().__init__(page, client)
        gui = client.gui
        self._box: list[viser.SceneNodeHandle] = []
        self._strip = gui.add_html("")
        self._pick = gui.add_slider("chunk", 0, 1, 1, 0, disabled=True)
        self.buttons(
            "this chunk",
            {
                "look": lambda: self.jump(self._pick.value),
                "branch": lambda: self.ask("branch", self._pick.value),
                "forget": lambda: self.ask("forget_chunk", self._pick.value),
            },
        )
        gui.add_markdown("*branch*: a new world goes on from it · *forget*: what it added is removed")
        self.button("Take back the last chunk (U)", lambda: self.ask("undo"), icon=viser.Icon.ARROW_BACK_UP)
        with gui.add_folder("Forget a box"):
            self.button("Draw a box", self._draw_box, icon=viser.Icon.BOX)
            self._sides = gui.add_vector3("sides", (0.3, 0.3, 0.3), min=(0.05, 0.05, 0.05), step=0.05, visible=False)
            by_hand(self._sides, self._size_box)
            self._forget = self.button("Forget what is in it", self._forget_box, visible=False, color="red")

    def show_history(self) -> None:
        """The finished chunks."""
        thumbnails = self.page.thumbnails
        self._strip.content = history_page(thumbnails)
        last = max(len(thumbnails) - 1, 0)
        self._pick.max, self._pick.value = max(last, 1), last
        self._pick.disabled = last == 0

    def _draw_box(self) -> None:
        """A box before the eye, with a gizmo that moves it."""
        self._drop_box()
        look_at = self.page.scene.eye(self.page.way.camera_of(self.page.view_of(self.client.camera)))[1]
        gizmo = self.client.scene.add_transform_controls(
            "/forget", scale=1.0, disable_rotations=True, depth_test=False, position=look_at
        )
        self._box = [gizmo]
        self._sides.visible = self._forget.visible = True
        self._size_box()

    def _size_box(self) -> None:
        if not self._box:
            return
        for node in self._box[1:]:
            node.remove()
        sides = np.asarray(self._sides.value) * MEDIAN_DEPTH
        # Lines alone: a surface would hide the splats behind it.
        box = self.client.scene.add_box("/forget/box", color=(255, 60, 60), dimensions=sides, wireframe=True)
        self._box[1:] = [box]

    def _drop_box(self) -> None:
        for node in reversed(self._box):
            node.remove()
        self._box = []
        self._sides.visible = self._forget.visible = False

    def _forget_box(self) -> None:
        if not self._box:
            return
        scale = self.page.scene.scale
        center = np.asarray(self._box[0].position) / scale
        half = np.asarray(self._sides.value) * MEDIAN_DEPTH / scale / 2.0
        low, high = (tuple(float(v) for v in corner) for corner in (center - half, center + half))
        if self.ask("forget_box", low, high):
            self._drop_box()
