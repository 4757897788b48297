"""How results look in a notebook: HTML with small pictures in it."""

from __future__ import annotations

import base64
import html
import io
from dataclasses import dataclass

from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from scenes.io.png import to_bytes


@dataclass(frozen=True)
class WorldPage:
    """A world that one walks through in a notebook: its page in an iframe that holds all of it, without a server.

    Attributes:
        page: as `scenes.formats.html.write_html` makes it.
        text: what is shown where there is no HTML.
        height_px: of the iframe.
    """

    page: str
    text: str
    height_px: int

    def __repr__(self) -> str:
        """What is shown where there is no HTML."""
        return f"{self.text}, to walk through in a notebook"

    def _repr_html_(self) -> str:
        # As `srcdoc` it needs no address, which a notebook on another machine would not reach.
        style = f"width: 100%; height: {self.height_px}px; border: 0"
        return f'<iframe srcdoc="{html.escape(self.page)}" style="{style}" allowfullscreen></iframe>'


def strip_html(rgb: Float[Tensor, "t 3 h w"], caption: str, height_px: int = 96) -> str:
    """Pictures beside each other above a caption.

    Args:
        rgb: colors in 0..1, ``[t 3 h w]``.
        caption: any text.
        height_px: height of the pictures, at most.
    """
    height, width = rgb.shape[2:]
    rows = min(height, height_px)
    small = interpolate(rgb, (rows, max(1, round(width * rows / height))), mode="bilinear", antialias=True)
    pixels = to_bytes(small.clamp(0.0, 1.0).permute(1, 2, 0, 3).flatten(2)).permute(1, 2, 0)
    file = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(file, format="JPEG", quality=85)
    source = f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
    return f'<img src="{source}" style="max-width: 100%"><br><code>{html.escape(caption)}</code>'
