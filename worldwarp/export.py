"""Exports a world, and compares a rendering of each export with one of the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from cache3d.gaussian_cache import GaussianCache
from cache3d.point_cache import PointCache
from geometry.camera import Camera
from geometry.primitives import Gaussians, Points
from scenes.formats.export import README, discs
from scenes.formats.html import pack, read_html, unpack
from scenes.formats.ply import read_gaussians_ply, read_points_ply
from scenes.formats.spz import read_compressed_ply, read_spz
from worldwarp.api import World
from worldwarp.metrics import agreement_db

CHECKED_VIEWS = 5
# Of the formats that are read again, rendered and compared.
READERS: dict[str, Callable[[Path], Gaussians | Points]] = {
    "gaussians_ply": read_gaussians_ply,
    "points_ply": read_points_ply,
    "spz": read_spz,
    "compressed_ply": read_compressed_ply,
    "html": read_html,
}


def export_world(folder: Path, formats: list[str], out: Path | None = None, html_mib: float = 10.0) -> Iterator[str]:
    """Export, and yield a line per format with name, path, size and agreement, then the path of the notes.

    Args:
        folder: the world's folder.
        formats: names of `scenes.formats.export.FORMATS`.
        out: target folder; None is the world's ``exports`` folder.
        html_mib: largest size of ``html``, MiB.

    Raises:
        ValueError: no such world, or an unknown format.
    """
    world = World.load(folder)
    reports = world.export(formats, out, html_mib=html_mib)
    for report in reports:
        line = f"{report.format:<13} {report.path}  {report.bytes / 2**20:.1f} MiB"
        agreement = reexport_agreement_db(world, report.format, report.path)
        yield line if agreement is None else f"{line}  {agreement:.1f} dB against the live cache"
        if report.format == "html" and agreement is not None and (cost := _thinning(world, report.path, agreement)):
            yield cost
    yield f"{'read':<13} {reports[0].path.parent / README}: axes, units and limits of each"


def reexport_agreement_db(world: World, name: str, path: Path) -> float | None:
    """PSNR of the re-read export against the live cache, over views along the path; None for other formats."""
    if name not in READERS:
        return None
    # What other programs will show is judged from the file, not from what was written.
    primitives = READERS[name](path)
    reread = GaussianCache() if isinstance(primitives, Gaussians) else PointCache()
    reread.load(primitives)
    cameras = spread(world.cameras)
    live, exported = world.cache.render(cameras), reread.render(cameras)
    return agreement_db(exported.rgb, live.rgb, live.coverage > 0.5)


def _thinning(world: World, path: Path, agreement: float) -> str | None:
    """A line about what leaving Gaussians out of a page costs; None if it holds all."""
    primitives, kept = world.primitives, len(read_html(path))
    if kept == len(primitives):
        return None
    whole = GaussianCache()
    whole.load(unpack(*pack(primitives if isinstance(primitives, Gaussians) else discs(primitives))))
    cameras = spread(world.cameras)
    live, packed = world.cache.render(cameras), whole.render(cameras)
    lost = agreement_db(packed.rgb, live.rgb, live.coverage > 0.5) - agreement
    return f"{'':<13} {kept} Gaussians in place of {len(primitives)}, which costs {lost:.1f} dB; html_mib= is the limit"


def spread(cameras: Camera) -> Camera:
    """`CHECKED_VIEWS` cameras, evenly spaced from first to last."""
    index = torch.linspace(0, len(cameras) - 1, min(CHECKED_VIEWS, len(cameras))).round().long()
    return cameras[index]
