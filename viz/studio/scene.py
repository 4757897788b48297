"""The world as scene nodes of a viser server: splats or points by group, cameras, paths.

Only groups that something came into or went from are sent again. The page's unit is not the world's: its keys move by
two units a second and half precision holds its covariances, so the photo's median depth is made `MEDIAN_DEPTH` long.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields

import numpy as np
import torch
import viser
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from geometry.camera import Camera
from geometry.primitives import Change, Gaussians
from geometry.se3 import matrix_from_quat, quat_from_matrix
from viz.studio.events import Forecast, Shape, Tile, Tint
from viz.studio.strip import way_color
from viz.studio.way import Way

MEDIAN_DEPTH = 8.0  # of the photo, in the page's units: W walks an eighth of it in half a second
GROUP_ROWS = 8192  # primitives that are sent together, 256 KiB: a change sends whole groups
SPARE = 4  # empty groups that wait for what comes, see `WorldScene`
WALL_EYE = Camera.from_fov(75.0, (3, 4))  # from which people see the worlds that they can open
WALL_COLUMNS = 4
WIDENED = 1.25  # of splats: their renderer does not close the gaps of a view that is larger than the frames

OBSERVED, GENERATED = (0.25, 0.55, 0.95), (0.98, 0.62, 0.10)  # tints of provenance
CHUNKS = np.array(
    [
        [0.30, 0.56, 0.96],
        [0.98, 0.62, 0.10],
        [0.27, 0.77, 0.42],
        [0.90, 0.30, 0.48],
        [0.62, 0.45, 0.92],
        [0.1, 0.7, 0.7],
    ]
)
UNSURE, SURE = np.array([0.92, 0.20, 0.28]), np.array([0.20, 0.75, 0.45])


@dataclass
class _Group:
    """Primitives that are sent together: their ids, ascending, and their content in the page's units."""

    ids: Int[np.ndarray, "n"]
    rows: Gaussians


class WorldScene:
    """The scene of a server, shared by all who look.

    A browser sorts all splats together, and shows none of them until that is done anew when their number changes. So
    every group has room for `GROUP_ROWS`, filled up with splats of no opacity, and empty groups wait for what comes.

    Args:
        server: of the page.
    """

    def __init__(self, server: viser.ViserServer) -> None:
        self._server = server
        self._groups: list[_Group] = []
        self._handles: dict[int, viser.SceneNodeHandle] = {}
        self._shape: Shape = "splats"
        self._tint: Tint = "color"
        self._keys = 0  # of the planned way
        self._near: dict[str, tuple[viser.SceneNodeHandle, np.ndarray]] = {}  # frustums and lines, with places [n 3]
        self._eye = np.zeros(3)
        self.scale = MEDIAN_DEPTH  # page units per scene unit
        self.sent_bytes = 0  # by the last change
        server.scene.set_up_direction("-y")  # OpenCV: y points down
        self._marks = server.scene.add_frame("/cameras", show_axes=False)
        self._wall = server.scene.add_frame("/wall", show_axes=False)
        self.wall: list[str] = []  # folders of the worlds that hang there

    def clear(self, unit: float) -> None:
        """Show nothing; ``unit`` is the photo's median depth, scene units."""
        self.scale = MEDIAN_DEPTH / unit
        for handle in self._handles.values():
            handle.remove()
        self._groups, self._handles, self._keys, self._near = [], {}, 0, {}
        self.wall = []
        for node in (self._marks, self._wall):
            node.remove()
        self._marks = self._server.scene.add_frame("/cameras", show_axes=False)
        self._wall = self._server.scene.add_frame("/wall", show_axes=False)

    def atomic(self) -> AbstractContextManager[None]:
        """What is shown in it appears at once."""
        return self._server.atomic()

    def apply(self, change: Change) -> None:
        """Show a change of the world; ``change.rows`` are Gaussians.

        Groups whose rows were rewritten or removed are sent again, and new rows make new groups.
        """
        assert isinstance(change.rows, Gaussians)
        self._change(change.index.numpy(), self._in_page_units(change.rows), change.removed.numpy())

    def show(self, ids: Int[Tensor, "n"], rows: Gaussians) -> None:
        """Show a whole world; what differs from what is shown is sent."""
        rows, index = self._in_page_units(rows), ids.numpy()
        shown = np.concatenate([np.zeros(0, np.int64), *(group.ids for group in self._groups)])
        changed = ~np.isin(index, shown)
        for group in self._groups:
            here = np.flatnonzero(np.isin(group.ids, index))
            place = np.searchsorted(index, group.ids[here])
            old, new = group.rows[torch.from_numpy(here)], rows[torch.from_numpy(place)]
            for f in fields(rows):
                differs = (getattr(old, f.name) != getattr(new, f.name)).numpy()
                changed[place] |= differs if differs.ndim == 1 else differs.any(1)
        self._change(index[changed], rows[torch.from_numpy(changed)], np.setdiff1d(shown, index))

    def look(self, shape: Shape, tint: Tint) -> None:
        """Choose how primitives are drawn; all of them are sent again if that differs."""
        if (shape, tint) == (self._shape, self._tint):
            return
        self._shape, self._tint, self.sent_bytes = shape, tint, 0
        with self._server.atomic():
            for handle in self._handles.values():
                handle.remove()
            self._handles = {}
            for number in range(len(self._groups)):
                self._send(number)
            self._make_room()

    def look_from(self, eye: Float[np.ndarray, "3"]) -> None:
        """Hide frustums and lines around an eye, in page units: from within they stand before the whole view."""
        self._eye = eye
        for handle, places in self._near.values():
            if handle.visible != (outside := _is_outside(places, eye)):
                handle.visible = outside

    def show_wall(self, tiles: Sequence[Tile], choose: Callable[[viser.SceneNodePointerEvent, Tile], None]) -> None:
        """Pictures of worlds before `WALL_EYE`; a click on one calls ``choose``."""
        self._wall.remove()
        self._wall = self._server.scene.add_frame("/wall", show_axes=False)
        self.wall = [tile.folder for tile in tiles if tile.picture is not None]
        shown = [(tile, tile.picture) for tile in tiles if tile.picture is not None]
        columns = min(WALL_COLUMNS, max(len(shown), 1))
        rows = max(1, math.ceil(len(shown) / columns))
        pitch = 1.05 * MEDIAN_DEPTH / max(columns, rows, 2)  # all are in view where the page is about square
        for number, (tile, picture) in enumerate(shown):
            row, column = divmod(number, columns)
            place = np.array([column - 0.5 * (columns - 1), row - 0.5 * (rows - 1), 0.0]) * pitch
            place[2] = MEDIAN_DEPTH
            height, width = picture.shape[:2]
            side = 0.8 * pitch / max(height, width)
            node = self._server.scene.add_image(
                f"/wall/{number}", picture, side * width, side * height, position=place, receive_shadow=False
            )
            node.on_click(lambda event, tile=tile: choose(event, tile))
            below = place + np.array([0.0, 0.5 * side * height + 0.02 * pitch, 0.0])
            name = textwrap.shorten(tile.name, 24, placeholder="…") or tile.name[:24]
            self._server.scene.add_label(f"/wall/name{number}", name, position=below, anchor="top-center")

    def show_photo(self, camera: Camera, picture: UInt8[np.ndarray, "h w 3"]) -> None:
        """The photo's frustum; ``camera`` has no batch axis."""
        self._frustum("photo", camera, picture, 0.35, (240, 240, 240))

    def show_marks(self, visible: bool) -> None:
        """Show or hide cameras and paths."""
        self._marks.visible = visible

    def show_way(self, way: Way, fps: float, choose: Callable[[viser.SceneNodePointerEvent, int], None]) -> None:
        """The planned way with its keys, colored by its forecast; a click on a key calls ``choose`` with its index."""
        with self._server.atomic():
            for number in range(len(way.keys), self._keys):
                self._near.pop(f"key{number}")[0].remove()
            self._keys = len(way.keys)
            for number, key in enumerate(way.keys):
                color = (255, 255, 255) if number == way.chosen else (90, 200, 255)
                node = self._frustum(f"key{number}", key.camera, None, 0.25, color)
                node.on_click(lambda event, number=number: choose(event, number))
            self._remove_line("way")
            cameras = way.sample(fps)
            if cameras is not None and way.start is not None:
                self._way_line(Camera.concatenate([way.start[None], cameras]), way.forecast)

    def _way_line(self, cameras: Camera, forecast: Forecast | None) -> None:
        points = (cameras.position * self.scale).cpu().double().numpy()
        colors = np.full((len(points) - 1, 3), (90, 200, 255), np.uint8)
        if forecast is not None:
            place = np.linspace(0, len(forecast.unknown) - 1, len(colors)).round().astype(int)
            colors = np.array([way_color(forecast.unknown[i], forecast.collides[i]) for i in place], np.uint8)
        self._line("way", points, np.repeat(colors[:, None], 2, 1), 0.04)

    def show_path(self, name: str, cameras: Camera, color: tuple[int, int, int]) -> None:
        """A line through cameras ``[t]``; nothing of fewer than two."""
        self._remove_line(name)
        if len(cameras) >= 2:
            self._line(name, (cameras.position * self.scale).cpu().double().numpy(), color, 0.02)

    def _line(
        self, name: str, points: Float[np.ndarray, "n 3"], colors: np.ndarray | tuple[int, int, int], thickness: float
    ) -> None:
        segments = np.stack([points[:-1], points[1:]], 1)
        handle = self._server.scene.add_line_segments(
            f"/cameras/{name}", segments, colors, thickness=thickness, visible=_is_outside(points, self._eye)
        )
        self._near[name] = (handle, points)

    def _remove_line(self, name: str) -> None:
        self._server.scene.remove_by_name(f"/cameras/{name}")
        self._near.pop(name, None)

    def show_here(self, camera: Camera) -> None:
        """The last finished camera, no batch axis: growing goes on from here."""
        self._frustum("here", camera, None, 0.2, (255, 170, 40))

    def initial_view(self, camera: Camera) -> None:
        """Where people come in: at a camera without batch axis."""
        position, look_at, up = self.eye(camera)
        view = self._server.initial_camera
        view.position, view.look_at, view.up = tuple(position), tuple(look_at), tuple(up)
        view.fov = float(torch.deg2rad(camera.fov_deg[1]))
        view.near, view.far = 0.02, 400.0 * MEDIAN_DEPTH  # the sky is at about 100 median depths

    def eye(self, camera: Camera) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3"], Float[np.ndarray, "3"]]:
        """Position, point to look at and up of a camera without batch axis, in page units."""
        pose = camera.world_from_camera.cpu().double().numpy()
        position = pose[:3, 3] * self.scale
        return position, position + pose[:3, 2] * MEDIAN_DEPTH, -pose[:3, 1]

    def _frustum(
        self,
        name: str,
        camera: Camera,
        picture: UInt8[np.ndarray, "h w 3"] | None,
        size: float,
        color: tuple[int, int, int],
    ) -> viser.CameraFrustumHandle:
        pose = camera.world_from_camera.cpu().double()
        height, width = camera.size
        place = (pose[:3, 3] * self.scale).numpy()
        handle = self._server.scene.add_camera_frustum(
            f"/cameras/{name}",
            float(torch.deg2rad(camera.fov_deg[1])),
            width / height,
            scale=size,
            thickness=0.008,
            color=color,
            image=picture,
            wxyz=quat_from_matrix(pose[None, :3, :3])[0].numpy(),
            position=place,
            visible=_is_outside(place[None], self._eye),
        )
        self._near[name] = (handle, place[None])
        return handle

    def _change(self, index: Int[np.ndarray, "m"], rows: Gaussians, removed: Int[np.ndarray, "r"]) -> None:
        touched, fresh = set(), np.ones(len(index), np.bool_)
        for number, group in enumerate(self._groups):
            low, high = (group.ids[0], group.ids[-1]) if len(group.ids) else (0, -1)
            part = slice(np.searchsorted(index, low), np.searchsorted(index, high, "right"))
            known = np.isin(index[part], group.ids)
            fresh[part] &= ~known
            gone = removed[np.searchsorted(removed, low) : np.searchsorted(removed, high, "right")]
            if self._rewrite(group, index[part][known], rows[part][torch.from_numpy(known)], gone):
                touched.add(number)
        touched |= set(self._add(index[fresh], rows[torch.from_numpy(fresh)]))
        while self._groups and not len(self._groups[-1].ids):
            self._groups.pop()
        self.sent_bytes = 0
        with self._server.atomic():
            for number in sorted(touched):
                self._send(number)
            self._make_room()

    def _in_page_units(self, rows: Gaussians) -> Gaussians:
        columns = {f.name: getattr(rows, f.name).detach().cpu() for f in fields(rows)}
        return Gaussians(**columns | {"means": columns["means"] * self.scale, "scales": columns["scales"] * self.scale})

    def _rewrite(
        self, group: _Group, index: Int[np.ndarray, "m"], rows: Gaussians, removed: Int[np.ndarray, "r"]
    ) -> bool:
        """Take over rows of a group that a change wrote and removed; returns whether there were any."""
        gone = np.isin(group.ids, removed)
        if not len(index) and not gone.any():
            return False
        place = torch.from_numpy(np.searchsorted(group.ids, index))
        columns = {f.name: getattr(group.rows, f.name).clone() for f in fields(rows)}
        for name, column in columns.items():
            column[place] = getattr(rows, name)
        group.ids, group.rows = group.ids[~gone], Gaussians(**columns)[torch.from_numpy(~gone)]
        return True

    def _add(self, ids: Int[np.ndarray, "n"], rows: Gaussians) -> Iterator[int]:
        """Put new rows into the last group as far as it has room, and into new ones; yields their numbers."""
        if self._groups and len(ids) > 0:
            last = self._groups.pop()
            ids, rows = np.concatenate([last.ids, ids]), Gaussians.concatenate([last.rows, rows])
            order = np.argsort(ids)  # ids return when something is taken back
            ids, rows = ids[order], rows[torch.from_numpy(order)]
        for start in range(0, len(ids), GROUP_ROWS):
            part = slice(start, start + GROUP_ROWS)
            self._groups.append(_Group(ids[part], rows[part]))
            yield len(self._groups) - 1

    def _send(self, number: int) -> None:
        """Send a group; one that is no more is empty."""
        rows = self._groups[number].rows if number < len(self._groups) else None
        if self._shape == "points":
            self._send_points(number, rows)
            return
        columns = _packed(rows, self._tint)
        handle = self._handles.get(number)
        if isinstance(handle, viser.GaussianSplatHandle):
            handle.set_gaussians(*columns)
        else:
            handle = self._handles[number] = self._server.scene.add_gaussian_splats(f"/world/{number}", *columns)
        self.sent_bytes += handle.buffer.nbytes

    def _send_points(self, number: int, rows: Gaussians | None) -> None:
        if (old := self._handles.pop(number, None)) is not None:
            old.remove()
        if rows is None:
            return
        places, colors = rows.means.numpy(), _bytes(tinted(rows, self._tint))
        self._handles[number] = self._server.scene.add_point_cloud(
            f"/world/{number}", places, colors, point_size=0.02, point_shape="circle", precision="float32"
        )
        self.sent_bytes += places.nbytes + colors.nbytes

    def _make_room(self) -> None:
        """Make empty groups when few are left; browsers blink, so rarely."""
        if self._shape == "splats" and self._groups and len(self._handles) < len(self._groups) + 1:
            for number in range(len(self._handles), len(self._groups) + SPARE):
                self._send(number)


def _packed(rows: Gaussians | None, tint: Tint) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Centers ``[n 3]``, covariances ``[n 3 3]``, colors ``[n 3]`` and opacities ``[n 1]`` of `GROUP_ROWS` splats."""
    centers, covariances = np.zeros((GROUP_ROWS, 3), np.float32), np.zeros((GROUP_ROWS, 3, 3), np.float32)
    colors, opacities = np.zeros((GROUP_ROWS, 3), np.uint8), np.zeros((GROUP_ROWS, 1), np.uint8)
    if rows is not None:
        spread = matrix_from_quat(rows.quats) * (WIDENED * rows.scales)[:, None, :]
        centers[: len(rows)] = rows.means.numpy()
        covariances[: len(rows)] = (spread @ spread.transpose(1, 2)).numpy()
        colors[: len(rows)] = _bytes(tinted(rows, tint))
        opacities[: len(rows)] = _bytes(rows.opacities[:, None].numpy())
    return centers, covariances, colors, opacities


def _is_outside(places: Float[np.ndarray, "n 3"], eye: Float[np.ndarray, "3"]) -> bool:
    """Whether an eye is farther from all places than a frustum is long, page units."""
    return float(np.linalg.norm(places - eye, axis=1).min()) > 0.6


def _bytes(values: Float[np.ndarray, "n c"]) -> UInt8[np.ndarray, "n c"]:
    return (values.clip(0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)  # rounded: viser cuts off


def tinted(rows: Gaussians, tint: Tint) -> Float[np.ndarray, "n 3"]:
    """Colors of primitives, 0..1: their own, or a tint over their luma."""
    colors = rows.colors.numpy().clip(0.0, 1.0)
    if tint == "color":
        return colors
    if tint == "confidence":
        share = rows.confidence.numpy()[:, None].clip(0.0, 1.0)
        over = (1.0 - share) * UNSURE + share * SURE
    elif tint == "provenance":
        over = np.where(rows.observed.numpy()[:, None], np.array(OBSERVED), np.array(GENERATED))
    else:
        over = CHUNKS[rows.chunk.numpy() % len(CHUNKS)]
    luma = colors.mean(1, keepdims=True)
    return ((0.35 + 0.65 * luma) * over).astype(np.float32)
