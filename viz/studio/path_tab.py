"""The tab in which a path is planned before it is walked."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import viser

from geometry.camera import Camera
from geometry.camera_io.read_write import continued, read_cameras, rebased, scaled, write_cameras
from geometry.se3 import matrix_from_quat, quat_from_matrix
from geometry.trajectory.expressions import parse_path_expression
from viz.studio.controls import Controls, by_hand, plain
from viz.studio.strip import forecast_picture

if TYPE_CHECKING:
    from viz.studio.page import Page


SAVED = {"keyframes": "path.json", "camera_path": "camera_path.json", "nerfstudio": "transforms.json"}


class PathTab(Controls):
    """Path: keys, presets and camera files, forecast, flight."""

    def __init__(self, page: Page, client: viser.ClientHandle) -> None:
        super().__init__(page, client)
        gui = client.gui
        self._gizmo: viser.TransformControlsHandle | None = None
        self._way = gui.add_markdown("")
        self.button("Add a key here (K)", self.add_key, icon=viser.Icon.CAMERA_PLUS, color="orange")
        self._seconds = gui.add_number("seconds to it", 1.0, min=0.1, max=60.0, step=0.1)
        self._fov = gui.add_number("field of view, °", 60.0, min=5.0, max=150.0, step=1.0)
        by_hand(self._seconds, lambda: self._edit(seconds=self._seconds.value))
        by_hand(self._fov, lambda: self._edit(fov_deg=self._fov.value))
        self._with_key = self.buttons(
            "this key",
            {"look": self._look_from_key, "move here": self._move_key, "remove": lambda: self._change(page.way.remove)},
        )
        self._forecast = gui.add_image(np.zeros((16, 64, 3), np.uint8), visible=False)
        self._sheet = gui.add_image(np.zeros((16, 64, 3), np.uint8), visible=False)
        self._before = self.buttons("before you walk", {"forecast": self._foresee, "fly": self._fly})
        self._walk = self.button("Walk it", self._walk_it, icon=viser.Icon.WALK, color="orange")
        with gui.add_folder("Presets and files", expand_by_default=False):
            names = list(page.choices.presets) or ["forward"]
            preset = gui.add_dropdown("preset", names)
            self.button("Use the preset", lambda: self._preset(preset.value))
            loaded = gui.add_upload_button("Load a camera file", icon=viser.Icon.UPLOAD)
            loaded.on_upload(lambda _: self._load(loaded.value.name, loaded.value.content))
            kind = gui.add_dropdown("format", list(SAVED))
            self._save = self.button("Save the path", lambda: self._download(kind.value), icon=viser.Icon.DOWNLOAD)
            self.button("Remove all keys", lambda: self._change(page.way.clear), icon=viser.Icon.TRASH)

    def show_way(self) -> None:
        """The keys of the planned way, with their gizmo, and the forecast."""
        way, page = self.page.way, self.page
        self._show_gizmo()
        key = None if way.chosen is None else way.keys[way.chosen]
        for handle in (self._seconds, self._fov, self._with_key):
            handle.visible = key is not None
        if key is not None:
            self._seconds.value = key.seconds
            self._fov.value = round(float(key.camera.fov_deg[0]), 1)
        for handle in (self._walk, self._before, self._save):
            handle.visible = bool(way.keys)
        frames = round(way.seconds * page.choices.fps)
        at = "" if way.chosen is None else f" · key {way.chosen + 1}"
        self._way.content = (
            f"{len(way.keys)} keys{at} · {way.seconds:.1f} s · {frames} frames"
            if way.keys
            else ("Look somewhere and press **K**: the path goes from the last camera through each key.")
        )
        self._forecast.visible = way.forecast is not None
        if way.forecast is not None:
            self._forecast.image = forecast_picture(way.forecast)
            self._way.content += f"\n\n{way.forecast.line}"
        sheet = None if way.forecast is None else way.forecast.sheet
        self._sheet.visible = sheet is not None
        if sheet is not None:
            self._sheet.image = sheet

    def add_key(self) -> None:
        way = self.page.way
        self._change(lambda: way.add(way.camera_of(self.page.view_of(self.client.camera))))

    def _move_key(self) -> None:
        way = self.page.way
        fov = self._fov.value
        self._change(lambda: way.replace(way.camera_of(self.page.view_of(self.client.camera), fov)))

    def _look_from_key(self) -> None:
        way = self.page.way
        if way.chosen is not None:
            self.go_to(way.keys[way.chosen].camera)

    def _edit(self, *, seconds: float | None = None, fov_deg: float | None = None) -> None:
        way = self.page.way
        if way.chosen is None:
            return
        key = way.keys[way.chosen]
        if fov_deg is not None and abs(fov_deg - float(key.camera.fov_deg[0])) > 0.06:
            camera = Camera.from_fov(fov_deg, key.camera.size, key.camera.world_from_camera)
            self._change(lambda: way.replace(camera))
        elif seconds is not None and seconds != key.seconds:
            self._change(lambda: way.replace(seconds=seconds))

    def _change(self, change: Callable[[], None]) -> None:
        """Change the way; what it cannot be is told."""
        try:
            self.page.change_way(change)
        except ValueError as error:
            self.tell(str(error), error=True)

    def _preset(self, name: str) -> None:
        way = self.page.way
        if way.start is None:
            self.tell("path: there is no world yet; make one first", error=True)
            return
        cameras = parse_path_expression(name, size=way.start.size, start=way.start)
        relative = scaled(rebased(cameras), way.unit)
        whole = continued(way.start[None], relative)
        self._change(lambda: way.take(whole, (len(whole) - 1) / self.page.choices.fps))

    def _load(self, name: str, content: bytes) -> None:
        way, fps = self.page.way, self.page.choices.fps

        def take() -> None:
            if way.start is None:
                raise ValueError("path: there is no world yet; make one first")
            # The name that the browser tells is not used: its extension tells nothing, and it may hold a path.
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "cameras"
                file.write_bytes(content)
                try:
                    cameras = read_cameras(file, size=way.start.size, fov_deg=float(way.start.fov_deg[0]))
                except ValueError as error:
                    reason = str(error).removeprefix(f"{file}: ")
                    raise ValueError(f"path: {plain(name)}: {reason}") from error
            whole = continued(way.start[None], rebased(cameras))
            way.take(whole, (len(whole) - 1) / fps)

        self._change(take)

    def _download(self, kind: str) -> None:
        way, fps = self.page.way, self.page.choices.fps
        cameras = way.sample(fps)
        if cameras is None or way.start is None:
            return
        whole = Camera.concatenate([way.start[None], cameras])
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / SAVED[kind]
            write_cameras(file, whole, kind, fps=fps)
            self.send(SAVED[kind], file.read_bytes())

    def _foresee(self) -> None:
        cameras = self.page.way.sample(self.page.choices.fps)
        if cameras is not None:
            self.ask("forecast", cameras)

    def _walk_it(self) -> None:
        cameras = self.page.way.sample(self.page.choices.fps)
        if cameras is not None and self.ask("walk", cameras):
            self._change(self.page.way.clear)

    def _fly(self) -> None:
        """Fly along the way as it will be walked, with what the world shows now."""
        way, fps = self.page.way, self.page.choices.fps
        cameras = way.sample(fps)
        if cameras is None:
            return
        start = time.monotonic()
        while (frame := int((time.monotonic() - start) * fps)) < len(cameras):
            self.go_to(cameras[frame])
            time.sleep(1.0 / 30.0)

    def _show_gizmo(self) -> None:
        """A gizmo at the chosen key, which moves it."""
        way, scene = self.page.way, self.page.scene
        if way.chosen is None:
            if self._gizmo is not None:
                self._gizmo.remove()
                self._gizmo = None
            return
        camera = way.keys[way.chosen].camera
        position = scene.eye(camera)[0]
        wxyz = quat_from_matrix(camera.world_from_camera[None, :3, :3].double())[0].numpy()
        if self._gizmo is None:
            self._gizmo = self.client.scene.add_transform_controls("/gizmo", scale=0.8, depth_test=False)

            @self._gizmo.on_update
            def _(event: viser.TransformControlsEvent) -> None:
                if event.phase == "end":
                    self._dragged(event.target)

        self._gizmo.position, self._gizmo.wxyz = position, wxyz

    def _dragged(self, gizmo: viser.TransformControlsHandle) -> None:
        way, scene = self.page.way, self.page.scene
        if way.chosen is None:
            return
        pose = torch.eye(4)
        pose[:3, :3] = matrix_from_quat(torch.from_numpy(np.asarray(gizmo.wxyz, np.float64))[None])[0].float()
        pose[:3, 3] = torch.from_numpy(np.asarray(gizmo.position) / scene.scale).float()
        camera = way.keys[way.chosen].camera
        moved = Camera(pose, camera.focal_px, camera.center_px, camera.size)
        self._change(lambda: way.replace(moved))
