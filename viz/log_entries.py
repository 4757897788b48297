"""Converts the events of a run to entries of a Rerun recording; file and viewer get the same entries."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import rerun as rr
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from geometry.camera import Camera
from geometry.frame import Frame
from geometry.jit import for_each
from geometry.primitives import Gaussians, Points
from viz import entities
from viz.colormaps import guide_picture, half_depth, noise_picture, to_uint8
from viz.recorder import ChunkEvent, Level, StartEvent, UndoEvent

JPEG_QUALITY = 90


@dataclass(frozen=True)
class TimePoint:
    """Position of an entry on the two timelines."""

    frame: int
    chunk: int


@dataclass(frozen=True)
class LogEntry:
    """Archetypes of one entity at one time; ``when`` None makes the entry static."""

    entity: str
    archetypes: tuple[rr.AsComponents, ...]
    when: TimePoint | None

    def log_to(self, stream: rr.RecordingStream) -> None:
        """Log the entry. The timeline position of a stream is per thread."""
        if self.when is not None:
            stream.set_time(entities.FRAME_TIMELINE, sequence=self.when.frame)
            stream.set_time(entities.CHUNK_TIMELINE, sequence=self.when.chunk)
        stream.log(self.entity, *self.archetypes, static=self.when is None)


@dataclass(frozen=True)
class Scale:
    """Depth statistics of the photo, for sizes and color ranges in the viewer.

    Attributes:
        median_depth: of the photo without sky, scene units.
        depth_range: range of the depth colors, scene units.
    """

    median_depth: float
    depth_range: tuple[float, float]

    @staticmethod
    def of(photo: Frame) -> Scale:
        """Measure a photo, batch ``[1]``; a photo that is all sky gets a median depth of 1."""
        near = photo.depth[photo.valid & ~photo.sky].flatten()
        near = near[torch.isfinite(near) & (near > 0)]
        if near.numel() == 0:
            return Scale(1.0, (0.0, 2.0))
        # Quantiles: single outliers would stretch the colors of all depths.
        low, median, high = (float(v) for v in np.quantile(near.cpu().numpy(), [0.01, 0.5, 0.97]))
        return Scale(median, (0.8 * low, max(1.2 * high, 1.01 * low)))


def opening_entries(event: StartEvent, scale: Scale, how_to_read: str) -> Iterator[LogEntry]:
    """The static entries: photo, its camera, planned path, plot styles, texts."""
    yield LogEntry(entities.WORLD, (rr.ViewCoordinates.RDF,), None)
    picture = to_uint8(event.picture[None])[0]
    yield LogEntry(entities.PHOTO, (rr.Image(picture).compress(jpeg_quality=JPEG_QUALITY),), None)
    frustum = _frustum(event.photo.camera[0], 0.25 * scale.median_depth, (148, 163, 184))
    yield LogEntry(entities.PHOTO_CAMERA, frustum, None)
    strip = rr.LineStrips3D(
        [event.planned.position.cpu().numpy()], colors=(148, 163, 184), radii=rr.Radius.ui_points(0.75)
    )
    yield LogEntry(entities.PATH_PLANNED, (strip,), None)
    for name, (_, label, color) in entities.GAUGES.items():
        yield LogEntry(entities.gauge(name), (rr.SeriesLines(names=label, colors=color, widths=2.0),), None)
    for entity, text in ((entities.HOW_TO_READ, how_to_read), (entities.SETTINGS, event.settings_markdown)):
        yield LogEntry(entity, (rr.TextDocument(text, media_type=rr.MediaType.MARKDOWN),), None)


def photo_entries(photo: Frame, scale: Scale) -> Iterator[LogEntry]:
    """The photo as frame 0; it has no guide, since it is not generated."""
    yield from _frame_entries(photo, 0, 0, scale)


def chunk_entries(event: ChunkEvent, scale: Scale, start: Float[Tensor, "3"]) -> Iterator[LogEntry]:
    """All entries of a chunk except its primitives.

    Args:
        event: the chunk.
        scale: of the photo.
        start: camera position before the chunk, world.
    """
    yield from _frame_entries(event.frames, event.first_frame, event.index, scale)
    panels = []
    if event.guide is not None and event.prior_rgb is not None and event.sigma is not None:
        panels = [
            (entities.GUIDE, guide_picture(event.guide.rgb, event.guide.coverage)),
            (entities.NOISE, noise_picture(event.sigma, event.prior_rgb)),
            (entities.PRIOR, to_uint8(event.prior_rgb)),
            (entities.COVERAGE, to_uint8(event.guide.coverage)[..., 0]),
        ]
    for entity, pictures in panels:
        for t, picture in enumerate(_compressed(pictures)):
            yield LogEntry(entity, (picture,), TimePoint(event.first_frame + t, event.index))
    positions = torch.cat([start[None], event.frames.camera.position.cpu()]).numpy()
    strip = rr.LineStrips3D([positions], colors=(251, 146, 60), radii=rr.Radius.ui_points(1.5))
    end = TimePoint(event.first_frame + len(event.frames) - 1, event.index)
    yield LogEntry(entities.path_done(event.index), (strip,), end)
    yield from _metric_entries(event, end)


def undo_entries(event: UndoEvent, scale: Scale, take: int) -> Iterator[LogEntry]:
    """Entries that clear an undone chunk and all primitives logged so far.

    Entries cannot be deleted, but of two entries at one time the later one is shown.

    Args:
        event: the undone chunk.
        scale: of the photo.
        take: number of earlier undos.
    """
    end = TimePoint(event.first_frame + event.frames - 1, event.index)
    for t in range(event.frames):
        when = TimePoint(event.first_frame + t, event.index)
        for entity in entities.PICTURES:
            yield LogEntry(entity, (rr.Clear(recursive=False),), when)
        yield LogEntry(entities.CAMERA, _frustum(event.camera, 0.3 * scale.median_depth, (251, 146, 60)), when)
    for entity in (
        entities.path_done(event.index),
        entities.cache(event.index, take),
        entities.sky(event.index, take),
    ):
        yield LogEntry(entity, (rr.Clear(recursive=False),), end)
    for entity in (entities.CACHE, entities.SKY):
        yield LogEntry(entity, (rr.Clear(recursive=True),), TimePoint(event.first_frame - 1, event.index - 1))


def primitive_entry(entity: str, part: Points | Gaussians, when: TimePoint, grow: float) -> tuple[LogEntry, np.ndarray]:
    """The entry that adds primitives, and the column that `hidden` changes to hide some of them.

    Args:
        entity: entity path.
        part: the primitives.
        when: time from which they are shown.
        grow: factor on the drawn extent of each.
    """
    colors = _bytes(part.colors)
    if isinstance(part, Points):
        radii = (grow * part.radii).cpu().numpy()
        shape = rr.Points3D(part.positions.cpu().numpy(), colors=colors, radii=radii, point_shading="Flat")
        return LogEntry(entity, (shape,), when), radii
    colors = np.concatenate([colors, _bytes(part.opacities[:, None])], axis=1)
    shape = rr.GaussianSplats3D(
        part.means.cpu().numpy(),
        scales=grow * part.scales.cpu().numpy(),
        quaternions=part.quats[:, [1, 2, 3, 0]].cpu().numpy(),  # ours are wxyz, Rerun's xyzw
        colors=colors,
    )
    return LogEntry(entity, (shape,), when), colors


def hidden(column: np.ndarray, gone: np.ndarray) -> rr.AsComponents:
    """Update that hides the primitives ``gone`` (mask ``[n]``): colors ``[n 4]`` with alpha 0, or radii 0 ``[n]``."""
    column = column.copy()
    if column.ndim == 1:
        column[gone] = 0.0
        return rr.Points3D.from_fields(radii=column)
    column[gone, 3] = 0
    return rr.GaussianSplats3D.from_fields(colors=column)


def text_entry(message: str, level: Level, when: TimePoint) -> LogEntry:
    """A line of the log."""
    return LogEntry(entities.LOG, (rr.TextLog(message, level=level),), when)


def _frame_entries(frames: Frame, first_frame: int, chunk: int, scale: Scale) -> Iterator[LogEntry]:
    images = _compressed(to_uint8(frames.rgb))
    depths = half_depth(frames.depth, frames.valid)
    for t in range(len(frames)):
        when = TimePoint(first_frame + t, chunk)
        yield LogEntry(entities.CAMERA, _frustum(frames.camera[t], 0.3 * scale.median_depth, (251, 146, 60)), when)
        yield LogEntry(entities.IMAGE, (images[t],), when)
        depth = rr.DepthImage(depths[t], meter=1.0, depth_range=scale.depth_range, colormap="viridis")
        yield LogEntry(entities.DEPTH, (depth,), when)


def _compressed(pictures: UInt8[np.ndarray, "t h w *c"]) -> list[rr.EncodedImage | rr.Image]:
    """Pictures as JPEG, encoded in parallel."""
    return for_each(list(pictures), lambda picture: rr.Image(picture).compress(jpeg_quality=JPEG_QUALITY))


def _metric_entries(event: ChunkEvent, when: TimePoint) -> Iterator[LogEntry]:
    figures = {entities.gauge(name): value for name, value in event.gauges.items()}
    figures |= {entities.timing(stage): seconds for stage, seconds in event.timings_s.items()}
    for entity, value in figures.items():
        if math.isfinite(value):
            yield LogEntry(entity, (rr.Scalars(value),), when)


def _frustum(camera: Camera, display_distance: float, color: tuple[int, int, int]) -> tuple[rr.AsComponents, ...]:
    world_from_camera = camera.world_from_camera.cpu().numpy()
    height, width = camera.size
    pinhole = rr.Pinhole(
        image_from_camera=camera.intrinsics.cpu().numpy(),
        resolution=[width, height],
        camera_xyz=rr.ViewCoordinates.RDF,
        image_plane_distance=display_distance,
        color=color,
    )
    return (
        pinhole,
        rr.Transform3D(translation=world_from_camera[:3, 3], mat3x3=world_from_camera[:3, :3]),
    )


def _bytes(values: Float[Tensor, "n c"]) -> np.ndarray:
    return (values.detach().float().cpu().numpy().clip(0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
