"""Plan of a session: its cost, holes and collisions, estimated before the first chunk."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from cache3d.cache import WorldCache
from cache3d.world_view import WorldView
from diffusion.generator import Generator
from geometry.camera import Camera
from geometry.frame import Frame
from geometry.project import project
from scenes.photos.framing import STEP
from scenes.photos.photo import Photo


@dataclass(frozen=True)
class Plan:
    """Frames, cost and expected problems of a session.

    Attributes:
        frames: frames to make (the photo not counted).
        chunks: chunks to make.
        size: frame size ``(H, W)``.
        fov_deg: horizontal field of view of the photo's frame.
        backends: class or kind of each component.
        seconds_per_chunk: estimate, from timing the cache and the generator here.
        hole_ratio: per chunk, the share of its last frame that the photo alone does not show.
        collisions: frames whose camera lies behind a surface of the photo.
        remedy: setting that avoids the collisions.
        notes: lines about changes to the photo and the path.
        photo: as it was read; None for a resumed world.
    """

    frames: int
    chunks: int
    size: tuple[int, int]
    fov_deg: float
    backends: dict[str, str]
    seconds_per_chunk: float
    hole_ratio: list[float]
    collisions: list[int]
    remedy: str
    notes: tuple[str, ...]
    photo: Photo | None

    def lines(self) -> list[str]:
        """The plan as a few lines of text."""
        height, width = self.size
        worst = max(self.hole_ratio, default=0.0)
        total = self.seconds_per_chunk * self.chunks
        lines = [] if self.photo is None else _photo_lines(self.photo, self.size)
        lines += self.notes
        lines += [
            f"plan     {self.frames} frames of {width}x{height}, {self.fov_deg:.0f}° wide, in {self.chunks} chunks, "
            f"about {self.seconds_per_chunk:.1f} s each ({total:.0f} s)",
            "with     " + ", ".join(f"{part} {name}" for part, name in self.backends.items()),
            f"path     new to the photo, chunk by chunk: [{bars(self.hole_ratio)}] at most {worst:.0%} of the view",
        ]
        if worst > 0.6:
            lines.append(
                "warning  most of some views was never photographed; expect invention there (try a shorter path)"
            )
        if self.collisions:
            first, last = self.collisions[0], self.collisions[-1]
            lines.append(
                f"warning  the camera passes through what the photo shows, frames {first} to {last}; "
                f"try {self.remedy} or another direction"
            )
        return lines


def bars(shares: Sequence[float]) -> str:
    """Shares 0..1 as one character each."""
    return "".join(" ▁▂▃▄▅▆▇█"[min(8, round(8 * share))] for share in shares)


def _photo_lines(photo: Photo, size: tuple[int, int]) -> list[str]:
    """Lines about the crop of the photo and its resolution."""
    height, width = photo.original_size
    left, top, right, bottom = photo.crop_box
    kept = (right - left) * (bottom - top) / (width * height)
    whole = 0.95  # share of a photo from which on it counts as uncropped
    part = "whole" if kept > whole else f"its middle {right - left:.0f}x{bottom - top:.0f} (leave out size to see all)"
    lines = [f"photo    {width}x{height}, {part}"]
    if photo.enlarged > 1.0:
        lines.append(f"warning  it is {photo.enlarged:.1f} times smaller than the frames: expect them soft")
    larger_side = 720  # longer side, pixels, proposed for photos that are much larger than the frames
    longer = min(larger_side, max(photo.original_size) // STEP * STEP)
    worth_enlarging = 1.5  # ratio of the proposed longer side to the frames' from which on it is proposed
    if (times := longer / max(size)) >= worth_enlarging:
        # Exponent: 49 frames at 192x320 took 20 s, at 480x832, 6.5 times the pixels, 30 s on two cores.
        time_per_pixels = 0.3
        lines.append(
            f"size     frames {size[1]}x{size[0]} of a {width}x{height} photo; size={longer} shows more, "
            f"about {times ** (2.0 * time_per_pixels):.0f} times the time"
        )
    return lines + [f"warning  {remark}" for remark in photo.remarks]


def predicted_holes(cache: WorldCache, chunks: list[Camera]) -> list[float]:
    """Share of each chunk's last view that ``cache`` does not cover."""
    ratios = []
    for cameras in chunks:
        height, width = cameras.size
        # The last camera of a chunk is the farthest; half size is enough for a share.
        guide = cache.render(cameras[-1:].resized((height // 2, width // 2)))
        ratios.append((guide.coverage < 0.5).float().mean().item())
    return ratios


def collisions(photo: Frame, cameras: Camera) -> list[int]:
    """Indices of cameras that are behind a surface of the photo.

    Args:
        photo: the photo with depth, ``[1]``.
        cameras: the whole path ``[n]``.
    """
    # The cameras are seen as points from the photo: behind its depth means inside or behind a surface.
    pixels, depth = project(cameras.position[None], photo.camera)
    height, width = photo.camera.size
    columns, rows = pixels[0].nan_to_num(-1.0).floor().long().unbind(-1)
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height) & (depth[0] > 1e-3)
    columns, rows = columns.clamp(0, width - 1), rows.clamp(0, height - 1)
    behind = depth[0] > photo.depth[0, 0, rows, columns]
    return (inside & behind & photo.valid[0, 0, rows, columns]).nonzero()[:, 0].tolist()


def time_render(view: WorldView, camera: Camera, samples: int | None) -> float:
    """Seconds to render one camera ``[1]`` as frames are, without compilation."""
    # The first call compiles kernels and builds tables.
    view.render(camera, samples)
    start = time.perf_counter()
    with torch.no_grad():
        view.render(camera, samples)
    return time.perf_counter() - start


def time_generator(generator: Generator, frames: int, size: tuple[int, int]) -> float:
    """Seconds in which a generator makes a chunk of ``frames`` frames of ``size = (H, W)``, without its warm-up.

    One that makes single wide views takes any number of frames, so one frame is made and the time multiplied: a whole
    chunk, twice, would be a third of the wait for the first frame.
    """
    made = 1 if generator.capabilities.wide else frames
    generator.rehearse(made, size)
    start = time.perf_counter()
    generator.rehearse(made, size)
    return (time.perf_counter() - start) * frames / made
