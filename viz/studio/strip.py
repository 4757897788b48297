"""Pictures of the page: the history's thumbnails, and the forecast along a way."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from viz.studio.events import Forecast, Thumbnail, Tile

MOST = 48  # thumbnails in the page: the photo and the newest


def history_page(thumbnails: Sequence[Thumbnail]) -> str:
    """Thumbnails with their chunk numbers, HTML."""
    shown = list(thumbnails)
    if len(shown) > MOST:
        shown = [shown[0], *shown[-(MOST - 1) :]]
    tiles = "".join(
        f'<figure style="margin:0"><img alt="chunk {t.chunk}" style="width:100%;border-radius:4px;display:block" '
        f'src="data:image/jpeg;base64,{_jpeg(t.picture)}">'
        f'<figcaption style="font-size:11px;opacity:.8">{t.chunk}: {html.escape(t.caption)}</figcaption></figure>'
        for t in shown
    )
    return f'<div style="display:grid;grid-template-columns:repeat(3,1fr);gap:6px;padding:4px 10px">{tiles}</div>'


def tile_page(tile: Tile) -> str:
    """A world's picture beside its name and what it is, HTML."""
    picture = (
        ""
        if tile.picture is None
        else (
            f'<img alt="{html.escape(tile.name)}" style="width:110px;border-radius:4px;display:block" '
            f'src="data:image/jpeg;base64,{_jpeg(tile.picture)}">'
        )
    )
    return (
        f'<div style="padding:8px 10px 2px;display:flex;gap:10px">{picture}<div style="min-width:0">'
        f"<b>{html.escape(tile.name)}</b>"
        f'<div style="font-size:12px;opacity:.8;overflow-wrap:anywhere">{html.escape(tile.line)}</div></div></div>'
    )


def forecast_picture(forecast: Forecast) -> UInt8[np.ndarray, "h w 3"]:
    """Bars of the unknown share along the way, red where the camera is behind a surface."""
    height, width = 48, 300
    picture = np.full((height, width, 3), 32, np.uint8)
    for column in range(width):
        i = column * len(forecast.unknown) // width
        top = height - round(forecast.unknown[i] * (height - 2)) - 2
        picture[top:, column] = (225, 60, 60) if forecast.collides[i] else _amber(forecast.unknown[i])
    return picture


def way_color(unknown: float, collides: bool) -> tuple[int, int, int]:
    """Color of a piece of the way: green where all is known, amber where it must be made up, red behind a surface."""
    return (225, 60, 60) if collides else _amber(unknown)


def _amber(unknown: float) -> tuple[int, int, int]:
    share = min(max(unknown / 0.6, 0.0), 1.0)  # from 60 % on little but invention is to be expected
    known, new = np.array([70, 190, 110]), np.array([250, 165, 40])
    red, green, blue = (known + share * (new - known)).round().astype(int).tolist()
    return red, green, blue


def _jpeg(picture: UInt8[np.ndarray, "h w 3"]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=80)
    return base64.b64encode(buffer.getvalue()).decode()
