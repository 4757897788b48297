"""Take a world elsewhere, and check that what was written shows what the live cache shows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from cache3d.cache import WorldCache
from cache3d.gaussian_cache import GaussianCache
from cache3d.point_cache import PointCache
from geometry.camera import Camera
from scenes.formats.export import README, export
from scenes.formats.ply import read_gaussians_ply, read_points_ply
from scenes.formats.spz import read_spz
from worldwarp.api import World
from worldwarp.metrics import agreement_db

CHECKED_VIEWS = 5


def export_world(folder: Path, formats: list[str], out: Path | None = None) -> Iterator[str]:
    """Export and report: name, path, size and agreement of each format on a line, then where the rest is said.

    Args:
        folder: the world's folder.
        formats: names of `scenes.formats.export.FORMATS`.
        out: where to write; the world's ``exports`` folder when not given.

    Raises:
        ValueError: no such world, or an unknown format.
    """
    world = World.load(folder)
    reports = export(world.record, formats, out)
    for report in reports:
        line = f"{report.format:<13} {report.path}  {report.bytes / 2**20:.1f} MiB"
        agreement = reexport_agreement_db(world, report.format, report.path)
        yield line if agreement is None else f"{line}  {agreement:.1f} dB against the live cache"
    yield f"{'read':<13} {reports[0].path.parent / README}: axes, units and limits of each"


def reexport_agreement_db(world: World, name: str, path: Path) -> float | None:
    """PSNR of the re-read export against the live cache, over views along the walk; None for other formats."""
    again: WorldCache
    if name == "gaussians_ply":
        again = GaussianCache()
        again.load(read_gaussians_ply(path))
    elif name == "spz":
        again = GaussianCache()
        again.load(read_spz(path))
    elif name == "points_ply":
        again = PointCache()
        again.load(read_points_ply(path))
    else:
        return None
    cameras = spread(world.cameras)
    live, reread = world.cache.render(cameras), again.render(cameras)
    return agreement_db(reread.rgb, live.rgb, live.coverage > 0.5)


def spread(cameras: Camera) -> Camera:
    """A few cameras from first to last."""
    index = torch.linspace(0, len(cameras) - 1, min(CHECKED_VIEWS, len(cameras))).round().long()
    return cameras[index]
