"""What a planned path would show, before it is walked: the world as it is now, seen along the path.

Nothing is generated and nothing is stored: what is not known yet is shown in magenta and counted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor

from cache3d.world_view import WorldView
from geometry.camera import Camera
from geometry.frame import Frame
from geometry.trajectory.expressions import leg_steps
from geometry.trajectory.path_text import begins_with_preset
from scenes.io.png import to_bytes
from scenes.io.video import write_gif
from worldwarp.plan import collisions
from worldwarp.renderer import MAGENTA

SIDE_PX = 320  # longer side of a view
COLUMNS, MARGIN_PX, CAPTION_PX = 4, 6, 16
SHEET_VIEWS, VIEWS_PER_PART, FLIGHT_VIEWS = 16, 3, 97  # of a sheet, at least of each part of a path, of a flight
SHEETS = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class Part:
    """A part of a path.

    Attributes:
        name: the moves, or which share of the path it is.
        first, last: its frames, counted from 1, that at which the path begins not counted.
    """

    name: str
    first: int
    last: int


@dataclass(frozen=True)
class Preview:
    """Views along a path.

    Attributes:
        rgb: the views, magenta where nothing is known, ``[k 3 h w]``.
        frames: which frame of the path each is.
        unknown: share of each that is not known, 0..1.
        collides: whether its camera lies behind a surface of the photo.
    """

    rgb: Float[Tensor, "k 3 h w"]
    frames: tuple[int, ...]
    unknown: tuple[float, ...]
    collides: tuple[bool, ...]

    def lines(self, parts: list[Part]) -> list[str]:
        """The unknown share of each part, as lines of text."""
        width = max(len(part.name) for part in parts)
        lines = []
        for part in parts:
            shares = [share for k, share in zip(self.frames, self.unknown, strict=True) if part.first <= k <= part.last]
            mean = sum(shares) / len(shares)
            frames = f"frames {part.first} to {part.last}:"
            lines.append(
                f"unknown  {part.name:<{width}}  {frames:<19} {mean:.0%} on average, {max(shares):.0%} at most"
            )
        return lines

    def write(self, file: Path, fps: float) -> None:
        """Write a sheet (`SHEETS`), or a flight of as many seconds as the path (``.gif``)."""
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix.lower() == ".gif":
            write_gif(file, self.rgb, fps * len(self.frames) / self.frames[-1])
        else:
            self.sheet().save(file, quality=88)

    def sheet(self, columns: int = COLUMNS) -> Image.Image:
        """The views beside each other, with their frames and unknown shares; those that collide have a red frame."""
        height, width = self.rgb.shape[2:]
        columns = min(columns, len(self.frames))
        pitch = width + MARGIN_PX, height + MARGIN_PX + CAPTION_PX
        size = columns * pitch[0] + MARGIN_PX, math.ceil(len(self.frames) / columns) * pitch[1] + MARGIN_PX
        sheet = Image.new("RGB", size, (24, 24, 24))
        pen = ImageDraw.Draw(sheet)
        for k, (frame, unknown, collides) in enumerate(zip(self.frames, self.unknown, self.collides, strict=True)):
            x, y = MARGIN_PX + k % columns * pitch[0], MARGIN_PX + k // columns * pitch[1]
            sheet.paste(Image.fromarray(_pixels(self.rgb[k])), (x, y))
            if collides:
                pen.rectangle((x, y, x + width - 1, y + height - 1), outline=(255, 40, 40), width=3)
            words = f"frame {frame}: {unknown:.0%} unknown" + (", behind what the photo shows" if collides else "")
            fits = pen.textlength(words) <= width - 4
            pen.text((x + 2, y + height + 2), words if fits else f"{frame}: {unknown:.0%}", fill=(220, 220, 220))
        return sheet


@torch.no_grad()
def look_along(view: WorldView, photo: Frame, cameras: Camera, count: int, side_px: int = SIDE_PX) -> Preview:
    """Render the world along a path.

    Args:
        view: the world as it is.
        photo: with its depth, ``[1]``.
        cameras: of the path, without that at which it begins, ``[t]``.
        count: number of views, evenly spaced, the last one included; fewer of a shorter path.
        side_px: longer side of a view, at most.
    """
    height, width = cameras.size
    scale = min(1.0, side_px / max(height, width))
    small = max(2, round(height * scale)), max(2, round(width * scale))
    number = min(count, len(cameras))
    places = torch.linspace(len(cameras) / number, len(cameras), number).round().long() - 1
    seen, behind = cameras[places], set(collisions(photo, cameras[places]))
    guides = view.show(seen.resized(small))
    rgb = torch.where(guides.hole, guides.rgb.new_tensor(MAGENTA)[:, None, None], guides.rgb)
    unknown = guides.hole.float().mean((1, 2, 3)).tolist()
    frames = tuple(int(place) + 1 for place in places)
    return Preview(rgb, frames, tuple(unknown), tuple(k in behind for k in range(number)))


def parts_of(path: str | None, frames: int) -> list[Part]:
    """The parts of a path: its legs, or quarters of one that has none.

    Args:
        path: setting ``path``; None where only the cameras are known.
        frames: of the path, that at which it begins not counted.
    """
    legs = path.split(",") if path is not None and begins_with_preset(path) else []
    if len(legs) > 1:
        assert path is not None
        ends = np.cumsum(leg_steps(path, frames + 1)).tolist()
        names = [leg.strip() for leg in legs]
    else:
        count = min(4, frames)
        ends = [round(frames * (k + 1) / count) for k in range(count)]
        names = [f"part {k + 1} of {count}" for k in range(count)]
    return [Part(name, begin + 1, end) for name, begin, end in zip(names, [0, *ends[:-1]], ends, strict=True)]


def views_for(file: Path, parts: list[Part], frames: int) -> int:
    """How many views are rendered: a sheet holds some of each part, a flight most frames."""
    if file.suffix.lower() == ".gif":
        return FLIGHT_VIEWS
    shortest = min(part.last - part.first + 1 for part in parts)
    return max(SHEET_VIEWS, min(FLIGHT_VIEWS, VIEWS_PER_PART * math.ceil(frames / shortest)))


def _pixels(rgb: Float[Tensor, "3 h w"]) -> np.ndarray:
    return to_bytes(rgb).permute(1, 2, 0).numpy(force=True)
