"""A world as one HTML file that draws itself: no server, no network, nothing installed.

The file holds the splats in 17 bytes each, as differences, deflated, in base64; the cameras of the path; the photo as a
poster; and a viewer of WebGL2 (``scenes/formats/viewer``), which draws as WorldWarp's rasterizer does: footprints that
grow on a closer look, colors blended in sRGB, and the sky behind everything, with firm outlines before it.
"""

from __future__ import annotations

import base64
import gzip
import html
import io
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from geometry.camera import Camera
from geometry.primitives import Gaussians
from geometry.se3 import quat_from_matrix
from scenes.io.atomic_files import write_bytes
from scenes.io.png import to_bytes

MIB = 2**20
FAINTEST_SCALE = 1e-7  # scene units; below it a scale is no extent
# How the cache renders, for a world that does not say; see `RenderingPolicy` of the cache.
RENDERING = {"kernel_px": 0.5, "close_kernel_px": 0.7, "close_from_px": 1.0, "close_to_px": 2.0}
RENDERING |= {"footprint_floor": 0.1, "outside_alpha": 0.6, "gapless_alpha": 0.9}
PHOTO_SIDE = 2048  # pixels, of the longer side; larger ones do not fit into the memory of a telephone
COLUMNS = 17  # bytes per splat
DEPTH_STEP = 0.001  # of the logarithm of the photo's depth


@dataclass(frozen=True)
class PhotoLayer:
    """The photo, which a page lays over what its splats show of the same surfaces.

    Attributes:
        rgb: colors in 0..1, at any resolution, ``[3 h2 w2]``.
        inverse: inverse depth, 0 where unknown, ``[h w]``.
        ground: where its pixels are pure surface, ``[h w]``.
        sky: where they are pure sky, ``[h w]``.
        same_depth: relative depth difference from which a point is not on the photo's surface.
        pure_sky: share of sky from which a pixel is sky alone.
    """

    rgb: Float[Tensor, "3 h2 w2"]
    inverse: Float[Tensor, "h w"]
    ground: Bool[Tensor, "h w"]
    sky: Bool[Tensor, "h w"]
    same_depth: float
    pure_sky: float


def write_html(
    path: str | Path,
    gaussians: Gaussians,
    cameras: Camera,
    *,
    photo: PhotoLayer,
    title: str,
    fps: float,
    pivot: float,
    rendering: Mapping[str, Any] = RENDERING,
    largest_bytes: float = math.inf,
    thinned: Callable[[int], Gaussians] | None = None,
) -> Gaussians:
    """Write a world as one HTML file; returns the Gaussians that it holds.

    Args:
        path: the file; replaced if it exists.
        gaussians: of the world; the sky is drawn behind everything else.
        cameras: of the path, ``[n]``; the page starts at the first.
        photo: shown until the page is ready, and laid over what it saw; taken by the first camera, at the origin.
        title: of the page.
        fps: cameras per second.
        pivot: distance straight ahead around which the view turns, scene units.
        rendering: the numbers of `RENDERING`, as the world's cache has them.
        largest_bytes: of the file.
        thinned: as many Gaussians as it is given, which look alike; asked for where all do not fit.

    Raises:
        ValueError: not even a page of few Gaussians fits.
    """
    around = _page(title, photo, cameras, fps, pivot, {**RENDERING, **rendering})
    spare = largest_bytes - len(around("", {}).encode())
    shown = gaussians
    packed, meta = pack(shown, photo)
    if len(packed) > spare:
        fixed, kept = len(pack(gaussians[:0], photo)[0]), float(len(gaussians))
        while len(packed) > spare:
            # Fewer take a little more each, because their neighbors are less alike.
            kept = min(0.99 * kept, 0.97 * kept * (spare - fixed) / (len(packed) - fixed))
            if thinned is None or kept < 1000.0:
                enough = math.ceil(2.0 * (len(packed) + largest_bytes - spare) / MIB) / 2.0
                raise ValueError(
                    f"html_mib: want more than {largest_bytes / MIB:.2f} MiB for a page of {len(gaussians)} Gaussians "
                    f"and its photo; set e.g. html_mib={enough:g}"
                )
            shown = thinned(int(kept))
            packed, meta = pack(shown, photo)
    write_bytes(Path(path), around(packed, meta).encode())
    return shown


def read_html(path: str | Path) -> Gaussians:
    """Read the Gaussians of an HTML file in world axes; fields that it lacks get the defaults of `read_gaussians_ply`.

    Raises:
        ValueError: no such file of ours.
    """
    text = Path(path).read_text("utf-8")
    parts = [re.search(rf'<script id="{name}"[^>]*>(.*?)</script>', text, re.DOTALL) for name in ("world", "splats")]
    if parts[0] is None or parts[1] is None:
        raise ValueError(f"{path}: want a page that `worldwarp export` wrote; it holds no world")
    return unpack(parts[1].group(1), json.loads(parts[0].group(1)))


def pack(gaussians: Gaussians, photo: PhotoLayer | None = None) -> tuple[str, dict[str, Any]]:
    """Gaussians as text, surfaces before sky, and the numbers that are needed to read it.

    Columns of bytes, each the difference to the row before: positions as signed logarithms in 16 bits (all low bytes,
    then all high ones), scales as logarithms in 8, the three smaller components of the quaternion in 8 and which is the
    largest, colors, opacity. Then what `PhotoLayer` knows: a logarithm of depth in 16 bits, and the kind of each pixel.
    """
    order = torch.cat([torch.nonzero(~gaussians.sky)[:, 0], torch.nonzero(gaussians.sky)[:, 0]])
    g = gaussians[order]
    means = g.means.double().numpy(force=True)
    coded = np.sign(means) * np.log1p(np.abs(means))
    low, high = (coded.min(0), coded.max(0)) if len(g) else (np.zeros(3), np.ones(3))
    spread = np.maximum(high - low, 1e-9)
    high = low + spread
    places = np.rint((coded - low) / spread * 65535.0).astype(np.uint16)
    scales = np.log(np.maximum(g.scales.double().numpy(force=True), FAINTEST_SCALE))
    scale_low, scale_high = (float(scales.min()), float(scales.max())) if len(g) else (0.0, 1.0)
    scale_high = max(scale_high, scale_low + 1e-9)
    quats = torch.nn.functional.normalize(g.quats.double(), dim=1).numpy(force=True)
    largest = np.abs(quats).argmax(1)
    rows = np.arange(len(g))
    quats *= np.where(quats[rows, largest] < 0.0, -1.0, 1.0)[:, None]
    rest = quats[np.arange(4)[None] != largest[:, None]].reshape(-1, 3)
    columns: list[NDArray[np.uint8]] = []
    for axis in range(3):
        columns += _wide(places[:, axis])
    bytes_of = [_bytes((scales - scale_low) / (scale_high - scale_low))]
    bytes_of += [_bytes(rest * math.sqrt(0.5) + 0.5), largest.astype(np.uint8)[:, None]]
    bytes_of += [_bytes(g.colors.numpy(force=True)), _bytes(g.opacities.numpy(force=True))[:, None]]
    for column in np.concatenate(bytes_of, 1).T:
        columns.append(np.diff(column, prepend=np.uint8(0)))
    about: dict[str, Any] = {}
    if photo is not None:
        inverse = photo.inverse.double().numpy(force=True)
        depth = -np.log(np.maximum(inverse, 1e-9))
        nearest = float(depth[inverse > 0.0].min()) if (inverse > 0.0).any() else 0.0
        counts = np.where(inverse > 0.0, np.minimum(np.rint((depth - nearest) / DEPTH_STEP), 65534.0), 65535.0)
        kind = np.where(photo.sky.numpy(force=True), 2, np.where(photo.ground.numpy(force=True), 1, 0)).astype(np.uint8)
        columns += [*_wide(counts.astype(np.uint16).reshape(-1)), np.diff(kind.reshape(-1), prepend=np.uint8(0))]
        about = {"photo": {"size": list(inverse.shape), "low": nearest, "step": DEPTH_STEP}}
    packed = gzip.compress(np.concatenate(columns).tobytes(), compresslevel=9, mtime=0)
    meta = {"count": len(g), "surfaces": int((~g.sky).sum()), "low": low.tolist(), "high": high.tolist()}
    return base64.b64encode(packed).decode(), meta | {"scale_low": scale_low, "scale_high": scale_high} | about


def unpack(text: str, meta: Mapping[str, Any]) -> Gaussians:
    """The Gaussians of `pack`; surfaces first, then sky."""
    count = int(meta["count"])
    columns = np.frombuffer(gzip.decompress(base64.b64decode(text)), np.uint8)[: COLUMNS * count]
    columns = columns.reshape(COLUMNS, count)
    wide = [np.cumsum(columns[2 * k] + 256 * columns[2 * k + 1].astype(np.uint16), dtype=np.uint16) for k in range(3)]
    low, high = np.array(meta["low"]), np.array(meta["high"])
    coded = low + (high - low) * np.stack(wide, 1) / 65535.0
    rest = np.cumsum(columns[6:], axis=1, dtype=np.uint8).T
    scale_low, scale_high = meta["scale_low"], meta["scale_high"]
    smaller, largest = (rest[:, 3:6] / 127.5 - 1.0) * math.sqrt(0.5), rest[:, 6]
    quats = np.empty((count, 4))
    quats[np.arange(4)[None] != largest[:, None]] = smaller.reshape(-1)
    quats[np.arange(count), largest] = np.sqrt(np.maximum(1.0 - (smaller**2).sum(1), 0.0))
    sky = torch.arange(count) >= int(meta["surfaces"])
    return Gaussians(
        means=torch.from_numpy(np.sign(coded) * np.expm1(np.abs(coded))).float(),
        quats=torch.nn.functional.normalize(torch.from_numpy(quats).float(), dim=1),
        scales=torch.from_numpy(np.exp(scale_low + (scale_high - scale_low) * rest[:, :3] / 255.0)).float(),
        opacities=torch.from_numpy(rest[:, 10] / 255.0).float(),
        colors=torch.from_numpy(rest[:, 7:10] / 255.0).float(),
        chunk=torch.zeros(count, dtype=torch.int32),
        observed=torch.ones(count, dtype=torch.bool),
        confidence=torch.ones(count),
        sky=sky,
        n_updates=torch.zeros(count),
    )


def _page(
    title: str,
    photo: PhotoLayer,
    cameras: Camera,
    fps: float,
    pivot: float,
    rendering: Mapping[str, Any],
) -> Callable[[str, Mapping[str, Any]], str]:
    """The page around packed splats and their numbers."""
    folder = resources.files("scenes.formats") / "viewer"
    template, script = ((folder / name).read_text("utf-8") for name in ("viewer.html", "viewer.js"))
    height, width = cameras.size
    quats = quat_from_matrix(cameras.world_from_camera[:, :3, :3].double())
    path = torch.cat([cameras.position.double(), quats, cameras.focal_px[:, :1].double() / width], 1)
    r = rendering
    growth = r["close_kernel_px"] / r["kernel_px"] - 1.0
    world = {
        "size": [height, width],
        "fps": fps,
        "pivot": pivot,
        "path": [[round(value, 6) for value in row] for row in path.tolist()],
        "kernel": [r["kernel_px"], r["close_from_px"], r["close_to_px"], growth],
        "footprint_floor": r["footprint_floor"],
        "alphas": [r["outside_alpha"], r["gapless_alpha"]],
    }
    picture = Image.fromarray(to_bytes(photo.rgb).permute(1, 2, 0).contiguous().numpy(force=True))
    picture.thumbnail((PHOTO_SIDE, PHOTO_SIDE), Image.Resampling.LANCZOS)
    jpeg = io.BytesIO()
    picture.save(jpeg, "JPEG", quality=92, subsampling=0)
    lens = torch.cat([cameras.focal_px[0], cameras.center_px[0]]).double() / torch.tensor([width, height] * 2)
    laid = {"lens": lens.tolist(), "limits": [photo.same_depth, photo.pure_sky]}
    source = f"data:image/jpeg;base64,{base64.b64encode(jpeg.getvalue()).decode()}"

    def page(splats: str, meta: Mapping[str, Any]) -> str:
        # A title may hold anything; nothing else comes from outside.
        values = {"TITLE": html.escape(title), "POSTER": source, "SCRIPT": script, "SPLATS": splats}
        values["WORLD"] = json.dumps({**world, **meta, "photo": {**meta.get("photo", {}), **laid}})
        return re.sub(r"@([A-Z]+)@", lambda found: values[found.group(1)], template)

    return page


def _wide(values: NDArray[np.uint16]) -> list[NDArray[np.uint8]]:
    """Differences of 16 bits as two columns: low bytes, high bytes."""
    steps = np.diff(values, prepend=np.uint16(0))
    return [(steps & 255).astype(np.uint8), (steps >> 8).astype(np.uint8)]


def _bytes(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    return np.rint(np.clip(values, 0.0, 1.0) * 255.0).astype(np.uint8)
