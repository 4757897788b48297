"""Entity paths of a recording.

::

    world                    static, right-down-forward axes
      photo_camera           frustum of the photo, static
      camera                 the camera of the current frame
        image                the generated frame
      path/planned           static
      path/done/00003        camera path of chunk 3
      cache/00003            near primitives that chunk 3 added
      sky/00003              far primitives that chunk 3 added
    input/photo              static
    frame/guide  coverage  prior  noise  depth
    gauges/<panel>/<name>    one value per chunk
    timings/<stage>          seconds, one value per chunk
    log                      text lines
    help/how_to_read  settings
"""

from __future__ import annotations

from typing import Literal, NamedTuple

FRAME_TIMELINE = "frame"
CHUNK_TIMELINE = "chunk"

WORLD = "world"
PHOTO_CAMERA = "world/photo_camera"
CAMERA = "world/camera"
IMAGE = "world/camera/image"
PATH_PLANNED = "world/path/planned"
CACHE = "world/cache"
SKY = "world/sky"
PHOTO = "input/photo"
GUIDE = "frame/guide"
COVERAGE = "frame/coverage"
PRIOR = "frame/prior"
NOISE = "frame/noise"
DEPTH = "frame/depth"
GAUGES_ROOT = "gauges"
TIMINGS = "timings"
LOG = "log"
PICTURES = (IMAGE, GUIDE, COVERAGE, PRIOR, NOISE, DEPTH)  # of every frame
HOW_TO_READ = "help/how_to_read"
SETTINGS = "help/settings"

Panel = Literal["quality", "agreement", "size", "memory", "other"]


class Gauge(NamedTuple):
    """How a metric is plotted."""

    panel: Panel
    label: str
    color: tuple[int, int, int]


GAUGES: dict[str, Gauge] = {
    "hole_ratio": Gauge("quality", "hole ratio", (244, 63, 94)),
    "seam_error": Gauge("quality", "seam error", (250, 204, 21)),
    "depth_residual": Gauge("quality", "depth residual", (56, 189, 248)),
    "warp_agreement_db": Gauge("agreement", "warp agreement, dB", (74, 222, 128)),
    "primitives": Gauge("size", "primitives", (192, 132, 252)),
    "memory_mib": Gauge("memory", "memory, MiB", (251, 146, 60)),
}


def gauge(name: str) -> str:
    """Entity of the metric ``name``; metrics that are not in ``GAUGES`` go to the panel ``other``."""
    panel = GAUGES[name].panel if name in GAUGES else "other"
    return f"{GAUGES_ROOT}/{panel}/{name}"


def timing(stage: str) -> str:
    """Entity of the seconds of a stage."""
    return f"{TIMINGS}/{stage}"


def path_done(chunk: int) -> str:
    """Entity of the camera path of ``chunk``."""
    return f"world/path/done/{chunk:05d}"


def cache(chunk: int, take: int = 0) -> str:
    """Entity of the near primitives that ``chunk`` added; ``take`` is the number of undos before."""
    return f"{CACHE}/{_part(chunk, take)}"


def sky(chunk: int, take: int = 0) -> str:
    """Entity of the far primitives that ``chunk`` added; ``take`` as for ``cache``."""
    return f"{SKY}/{_part(chunk, take)}"


def _part(chunk: int, take: int) -> str:
    return f"{chunk:05d}_{take}" if take else f"{chunk:05d}"
