"""The controls of one browser. Whoever steers has all of them; the others see what is done."""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import viser

from geometry.camera import Camera
from geometry.camera_io.read_write import continued, read_cameras, rebased, scaled, write_cameras
from geometry.se3 import matrix_from_quat, quat_from_matrix
from geometry.trajectory.expressions import parse_path_expression
from viz.studio.events import Making, Shape, Status, Tint
from viz.studio.scene import MEDIAN_DEPTH
from viz.studio.strip import forecast_picture, history_page

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
QUALITIES = ("draft", "good", "best")
SAVED = {"keyframes": "path.json", "camera_path": "camera_path.json", "nerfstudio": "transforms.json"}


class Panel:
    """The controls of one browser.

    Args:
        page: what is shown to all.
        client: the browser.
    """

    def __init__(self, page: Page, client: viser.ClientHandle) -> None:
        self._page, self._client = page, client
        self._steering = False
        self._photo: tuple[str, bytes] | None = None
        self._gizmo: viser.TransformControlsHandle | None = None
        self._box: list[viser.SceneNodeHandle] = []

    def renew(self) -> None:
        """Make all controls anew: somebody came to steer, or another world is shown."""
        gui = self._client.gui
        gui.reset()
        self._client.scene.reset()
        self._gizmo, self._box, self._chosen_chunk = None, [], 0
        self._head = gui.add_markdown("")
        self._bar = gui.add_progress_bar(0.0, visible=False, animated=True)
        self._people = gui.add_markdown("", visible=False)
        self._steering = self._page.steers(self._client)
        if not self._steering:
            gui.add_markdown(f"Somebody else steers; you look.\n\n{HINT}")
            self._button("Steer", self._steer, icon=viser.Icon.HAND_GRAB)
        else:
            with gui.add_folder(None):
                self._here = self._button("Grow here", self._grow, icon=viser.Icon.PLANT_2, color="orange")
                self._stop = self._button("Stop", lambda: self._ask("stop"), icon=viser.Icon.PLAYER_STOP)
            tabs = gui.add_tab_group()
            for label, build in (
                ("Grow", self._build_grow),
                ("Path", self._build_path),
                ("History", self._build_history),
                ("Make", self._build_make),
                ("Save", self._build_save),
            ):
                with tabs.add_tab(label):
                    build()
            gui.add_command("Grow here", hotkey="G").on_trigger(lambda _: self._grow())
            gui.add_command("Add a key here", hotkey="K").on_trigger(lambda _: self._add_key())
            gui.add_command("Take back the last chunk", hotkey="U").on_trigger(lambda _: self._undo())
            self.show_history()
            self.show_way()
            self.show_remaining()
        self.show_status(self._page.status)

    def show_status(self, status: Status) -> None:
        """What the walk does."""
        title = f"### {status.title or 'WorldWarp studio'}\n"
        self._head.content = f"{title}{status.doing}\n\n{status.figures}"
        self._bar.visible = status.share is not None
        if status.share is not None:
            self._bar.value = 100.0 * min(max(status.share, 0.0), 1.0)
        if self._steering:
            self._stop.disabled = status.share is None

    def show_following(self, following: bool) -> None:
        """Whether the world grows by itself."""
        if self._steering and self._follow.value != following:
            self._follow.value = following

    def show_people(self, count: int) -> None:
        """How many browsers are open."""
        self._people.visible = count > 1
        self._people.content = f"*{count} people are here*"

    def show_remaining(self) -> None:
        """How much of a planned path is unfinished."""
        if self._steering:
            count = self._page.remaining
            self._finish.visible = count > 0
            self._finish.label = f"Go on: {count} planned frames are left"
            self._prompting.visible = self._page.takes_prompts

    def show_history(self) -> None:
        """The finished chunks."""
        if not self._steering:
            return
        thumbnails = self._page.thumbnails
        self._strip.content = history_page(thumbnails)
        last = max(len(thumbnails) - 1, 0)
        self._pick.max, self._pick.value = max(last, 1), last
        self._pick.disabled = last == 0

    def show_way(self) -> None:
        """The keys of the planned way, with their gizmo, and the forecast."""
        way, page = self._page.way, self._page
        if not self._steering:
            return
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

    def show_plan(self, text: str) -> None:
        """What a world that is to be made will cost."""
        if self._steering:
            self._plan.content = text

    def tell(self, text: str, *, error: bool = False) -> None:
        """A sentence in the page; an error stays until it is closed."""
        name, _, rest = text.partition(": ")
        title, body = (name, rest) if error and rest and " " not in name else ("studio", text)
        color = "red" if error else "teal"
        self._client.add_notification(title, body, color=color, auto_close_seconds=None if error else 6.0)

    def go_to(self, camera: Camera) -> None:
        """Look from a camera, no batch axis."""
        position, look_at, up = self._page.scene.eye(camera)
        view = self._client.camera
        with self._client.atomic():
            view.up_direction, view.position, view.look_at = up, position, look_at
            view.fov = math.radians(float(camera.fov_deg[1]))

    def _build_grow(self) -> None:
        gui = self._client.gui
        gui.add_markdown(f"{HINT}\n\n**G** grows the world from its last camera to what you see.")
        self._finish = self._button("Go on", lambda: self._ask("finish"), icon=viser.Icon.PLAYER_PLAY)
        self._follow = following = gui.add_checkbox("Grow as I look", False, hint="by itself, one chunk ahead of you")
        share = gui.add_slider("where unknown, %", 2, 80, 1, 20, hint="share of your view that is not known yet")

        def follow() -> None:
            self._ask("follow", share.value / 100.0 if following.value else None)

        _by_hand(following, follow)
        _by_hand(share, lambda: follow() if following.value else None)
        self._prompting = gui.add_folder("What comes next", visible=False)
        with self._prompting:
            text = gui.add_text("prompt", "", multiline=True)
            self._button("Describe it so", lambda: self._ask("prompt", text.value))
        with gui.add_folder("Look"):
            shape = gui.add_dropdown("drawn as", list(SHAPES))
            tint = gui.add_dropdown("colored", list(TINTS))
            legend = gui.add_markdown("", visible=False)
            marks = gui.add_checkbox("cameras and path", True)

            def look() -> None:
                chosen = TINTS[tint.value]
                legend.content, legend.visible = LEGENDS[chosen], bool(LEGENDS[chosen])
                self._page.look(SHAPES[shape.value], chosen)

            _by_hand(shape, look)
            _by_hand(tint, look)
            _by_hand(marks, lambda: self._page.scene.show_marks(marks.value))
        self._buttons("look from", {"the photo": lambda: self._jump(0), "the last camera": lambda: self._jump(-1)})

    def _build_path(self) -> None:
        gui, page = self._client.gui, self._page
        self._way = gui.add_markdown("")
        self._button("Add a key here (K)", self._add_key, icon=viser.Icon.CAMERA_PLUS, color="orange")
        self._seconds = gui.add_number("seconds to it", 1.0, min=0.1, max=60.0, step=0.1)
        self._fov = gui.add_number("field of view, °", 60.0, min=5.0, max=150.0, step=1.0)
        _by_hand(self._seconds, lambda: self._edit(seconds=self._seconds.value))
        _by_hand(self._fov, lambda: self._edit(fov_deg=self._fov.value))
        self._with_key = self._buttons(
            "this key",
            {"look": self._look_from_key, "move here": self._move_key, "remove": lambda: self._change(page.way.remove)},
        )
        self._forecast = gui.add_image(np.zeros((16, 64, 3), np.uint8), visible=False)
        self._before = self._buttons("before you walk", {"forecast": self._foresee, "fly": self._fly})
        self._walk = self._button("Walk it", self._walk_it, icon=viser.Icon.WALK, color="orange")
        with gui.add_folder("Presets and files", expand_by_default=False):
            names = list(page.choices.presets) or ["forward"]
            preset = gui.add_dropdown("preset", names)
            self._button("Use the preset", lambda: self._preset(preset.value))
            loaded = gui.add_upload_button("Load a camera file", icon=viser.Icon.UPLOAD)
            loaded.on_upload(lambda _: self._load(loaded.value.name, loaded.value.content))
            kind = gui.add_dropdown("format", list(SAVED))
            self._save = self._button("Save the path", lambda: self._download(kind.value), icon=viser.Icon.DOWNLOAD)
            self._button("Remove all keys", lambda: self._change(page.way.clear), icon=viser.Icon.TRASH)

    def _build_history(self) -> None:
        gui = self._client.gui
        self._strip = gui.add_html("")
        self._pick = gui.add_slider("chunk", 0, 1, 1, 0, disabled=True)
        self._buttons(
            "this chunk",
            {
                "look": lambda: self._jump(self._pick.value),
                "branch": lambda: self._ask("branch", self._pick.value),
                "forget": lambda: self._ask("forget_chunk", self._pick.value),
            },
        )
        gui.add_markdown("*branch*: a new world goes on from it · *forget*: what it added is removed")
        self._button("Take back the last chunk (U)", lambda: self._ask("undo"), icon=viser.Icon.ARROW_BACK_UP)
        with gui.add_folder("Forget a box"):
            self._button("Draw a box", self._draw_box, icon=viser.Icon.BOX)
            self._sides = gui.add_vector3("sides", (0.3, 0.3, 0.3), min=(0.05, 0.05, 0.05), step=0.05, visible=False)
            _by_hand(self._sides, self._size_box)
            self._forget = self._button("Forget what is in it", self._forget_box, visible=False, color="red")

    def _build_make(self) -> None:
        gui, choices = self._client.gui, self._page.choices
        gui.add_markdown("A world of a photo of yours. It stays on the machine that runs the studio.")
        photo = gui.add_upload_button("Choose a photo", icon=viser.Icon.PHOTO_UP, mime_type="image/*")
        name = gui.add_markdown("")

        def uploaded(_: Any) -> None:
            self._photo = (photo.value.name, photo.value.content)
            name.content = f"**{_plain(photo.value.name)}**, {len(photo.value.content) / 2**20:.1f} MB"

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
                self._ask(what, wanted)

        self._button("Plan it", lambda: ask("plan"), icon=viser.Icon.LIST_CHECK)
        self._plan = gui.add_markdown("")
        self._button("Make it", lambda: ask("make"), icon=viser.Icon.WAND, color="orange")

    def _build_save(self) -> None:
        gui = self._client.gui
        gui.add_markdown("Each is written into the world's folder, and downloaded.")
        for name, label in self._page.choices.formats.items():
            self._button(label, lambda name=name: self._ask("export", (name,), self._send), icon=viser.Icon.DOWNLOAD)
        gui.add_divider()
        how = "how frames are made: guide, noise, result, gauges"
        self._button("Inspect in Rerun", lambda: self._ask("inspect"), icon=viser.Icon.EXTERNAL_LINK, hint=how)

    def _send(self, name: str, content: bytes) -> None:
        self._client.send_file_download(name, content, save_immediately=True)

    def _undo(self) -> None:
        self._ask("undo")

    def _steer(self) -> None:
        if not self._page.steer(self._client):
            self.tell("somebody steers just now; who rests for a minute can be relieved")

    def _grow(self) -> None:
        self._ask("grow", self._page.view_of(self._client.camera))

    def _jump(self, chunk: int) -> None:
        if self._page.thumbnails:
            self.go_to(self._page.thumbnails[chunk].camera)

    def _add_key(self) -> None:
        way = self._page.way
        self._change(lambda: way.add(way.camera_of(self._page.view_of(self._client.camera))))

    def _move_key(self) -> None:
        way = self._page.way
        fov = self._fov.value
        self._change(lambda: way.replace(way.camera_of(self._page.view_of(self._client.camera), fov)))

    def _look_from_key(self) -> None:
        way = self._page.way
        if way.chosen is not None:
            self.go_to(way.keys[way.chosen].camera)

    def _edit(self, *, seconds: float | None = None, fov_deg: float | None = None) -> None:
        way = self._page.way
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
            self._page.change_way(change)
        except ValueError as error:
            self.tell(str(error), error=True)

    def _preset(self, name: str) -> None:
        way = self._page.way
        if way.start is None:
            self.tell("path: there is no world yet; make one first", error=True)
            return
        cameras = parse_path_expression(name, size=way.start.size, start=way.start)
        relative = scaled(rebased(cameras), way.unit)
        whole = continued(way.start[None], relative)
        self._change(lambda: way.take(whole, (len(whole) - 1) / self._page.choices.fps))

    def _load(self, name: str, content: bytes) -> None:
        way, fps = self._page.way, self._page.choices.fps

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
                    raise ValueError(f"path: {_plain(name)}: {reason}") from error
            whole = continued(way.start[None], rebased(cameras))
            way.take(whole, (len(whole) - 1) / fps)

        self._change(take)

    def _download(self, kind: str) -> None:
        way, fps = self._page.way, self._page.choices.fps
        cameras = way.sample(fps)
        if cameras is None or way.start is None:
            return
        whole = Camera.concatenate([way.start[None], cameras])
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / SAVED[kind]
            write_cameras(file, whole, kind, fps=fps)
            self._send(SAVED[kind], file.read_bytes())

    def _foresee(self) -> None:
        cameras = self._page.way.sample(self._page.choices.fps)
        if cameras is not None:
            self._ask("forecast", cameras)

    def _walk_it(self) -> None:
        cameras = self._page.way.sample(self._page.choices.fps)
        if cameras is not None and self._ask("walk", cameras):
            self._change(self._page.way.clear)

    def _fly(self) -> None:
        """Fly along the way as it will be walked, with what the world shows now."""
        way, fps = self._page.way, self._page.choices.fps
        cameras = way.sample(fps)
        if cameras is None:
            return
        start = time.monotonic()
        while (frame := int((time.monotonic() - start) * fps)) < len(cameras):
            self.go_to(cameras[frame])
            time.sleep(1.0 / 30.0)

    def _show_gizmo(self) -> None:
        """A gizmo at the chosen key, which moves it."""
        way, scene = self._page.way, self._page.scene
        if way.chosen is None:
            if self._gizmo is not None:
                self._gizmo.remove()
                self._gizmo = None
            return
        camera = way.keys[way.chosen].camera
        position = scene.eye(camera)[0]
        wxyz = quat_from_matrix(camera.world_from_camera[None, :3, :3].double())[0].numpy()
        if self._gizmo is None:
            self._gizmo = self._client.scene.add_transform_controls("/gizmo", scale=0.8, depth_test=False)

            @self._gizmo.on_update
            def _(event: viser.TransformControlsEvent) -> None:
                if event.phase == "end":
                    self._dragged(event.target)

        self._gizmo.position, self._gizmo.wxyz = position, wxyz

    def _dragged(self, gizmo: viser.TransformControlsHandle) -> None:
        way, scene = self._page.way, self._page.scene
        if way.chosen is None:
            return
        pose = torch.eye(4)
        pose[:3, :3] = matrix_from_quat(torch.from_numpy(np.asarray(gizmo.wxyz, np.float64))[None])[0].float()
        pose[:3, 3] = torch.from_numpy(np.asarray(gizmo.position) / scene.scale).float()
        camera = way.keys[way.chosen].camera
        moved = Camera(pose, camera.focal_px, camera.center_px, camera.size)
        self._change(lambda: way.replace(moved))

    def _draw_box(self) -> None:
        """A box before the eye, with a gizmo that moves it."""
        self._drop_box()
        look_at = self._page.scene.eye(self._page.way.camera_of(self._page.view_of(self._client.camera)))[1]
        gizmo = self._client.scene.add_transform_controls(
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
        box = self._client.scene.add_box("/forget/box", color=(255, 60, 60), dimensions=sides, wireframe=True)
        self._box[1:] = [box]

    def _drop_box(self) -> None:
        for node in reversed(self._box):
            node.remove()
        self._box = []
        self._sides.visible = self._forget.visible = False

    def _forget_box(self) -> None:
        if not self._box:
            return
        scale = self._page.scene.scale
        center = np.asarray(self._box[0].position) / scale
        half = np.asarray(self._sides.value) * MEDIAN_DEPTH / scale / 2.0
        low, high = (tuple(float(v) for v in corner) for corner in (center - half, center + half))
        if self._ask("forget_box", low, high):
            self._drop_box()

    def _button(self, label: str, press: Callable[[], object], **look: Any) -> viser.GuiButtonHandle:
        button = self._client.gui.add_button(label, **look)

        @button.on_click
        def _(_event: object) -> None:
            press()

        return button

    def _buttons(self, label: str, presses: dict[str, Callable[[], object]]) -> viser.GuiButtonGroupHandle:
        group = self._client.gui.add_button_group(label, list(presses))

        @group.on_click
        def _(_event: object) -> None:
            presses[group.value]()

        return group

    def _ask(self, what: str, *words: Any) -> bool:
        """Ask the walk for something; a refusal is told. Returns whether it was accepted."""
        if not self._page.steers(self._client) or self._page.actions is None:
            self.tell("somebody else steers; you can look around")
            return False
        self._page.stays()
        refusal = getattr(self._page.actions, what)(*words)
        if refusal is not None:
            self.tell(refusal, error=True)
        return refusal is None


def _settings(text: str) -> dict[str, str]:
    """``key=value`` words as a dict."""
    words = (word.partition("=") for word in text.split())
    return {key: value for key, _, value in words}


def _by_hand(handle: Any, change: Callable[[], object]) -> None:
    """Call ``change`` when somebody in the page changes an input, not when the program does."""
    handle.on_update(lambda event: change() if event.client_id is not None else None)


def _plain(name: str) -> str:
    """A file's name as text of a page: no Markdown, no markup, not endless."""
    kept = "".join(character if character.isalnum() or character in " ._-()" else "_" for character in name)
    return json.dumps(kept[-60:])[1:-1]
