"""Detail of copied pixels at a finer size than the one at which they were found.

Holes are filled at the size at which the generator works. Each copied pixel names its source, so that the fine detail
of the source (what an enlarged picture lacks) can be added once the result is enlarged to the size that is shown.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate


def enlarged(values: Float[Tensor, "b c h w"], factor: int) -> Float[Tensor, "b c h2 w2"]:
    """Images at ``factor`` times their size, by bicubic interpolation."""
    return values if factor == 1 else interpolate(values, scale_factor=factor, mode="bicubic", align_corners=False)


def enlarged_depth(
    depth: Float[Tensor, "b 1 h w"], factor: int, same_surface: float = 0.1
) -> Float[Tensor, "b 1 h2 w2"]:
    """Positive depth at ``factor`` times its size: inverse depth is interpolated, but never across an outline.

    Args:
        depth: z, scene units.
        factor: see above.
        same_surface: relative difference from which a pixel keeps the depth of the nearest one.
    """
    if factor == 1:
        return depth
    inverse = 1.0 / depth
    nearest = interpolate(inverse, scale_factor=factor, mode="nearest-exact")
    smooth = interpolate(inverse, scale_factor=factor, mode="bilinear", align_corners=False)
    return 1.0 / torch.where((smooth / nearest - 1.0).abs() < same_surface, smooth, nearest)


def copied_detail(
    source: Int[Tensor, "3 h w"], pictures: Float[Tensor, "p 3 h2 w2"], factor: int
) -> Float[Tensor, "3 h2 w2"]:
    """What `enlarged` lacks of the pixels that were copied; 0 elsewhere.

    Args:
        source: of each pixel: picture, row, column; -1 where it was not copied (`diffusion.condition.Prior.source`).
        pictures: complete, at ``factor`` times the size.
        factor: see above.
    """
    fine = pictures - enlarged(avg_pool2d(pictures, factor), factor)
    picture, row, column = (part.repeat_interleave(factor, 0).repeat_interleave(factor, 1) for part in source)
    height, width = picture.shape
    # A pixel of a square takes the same place in the square of its source.
    rows = row * factor + torch.arange(height)[:, None] % factor
    columns = column * factor + torch.arange(width) % factor
    detail = fine.movedim(1, 3)[picture.clamp_min(0), rows.clamp_min(0), columns.clamp_min(0)]
    return torch.where(picture >= 0, detail.movedim(2, 0), 0.0)
