"""How far what the cache shows can be believed, per pixel, 0..1: about the probability that the pixel is right.

*Right* means: the color within 0.1 of the truth (root mean square over the channels) and the depth within 5 %. The
factors below were fitted to that on walks through two worlds with ground truth and checked on a third
(`benchmarks.reliability.calibration`; curves in `docs/results.md`). What no cache can know is left out: texture finer than a pixel,
and things in front that nobody has seen yet, make pixels of confidence 1 wrong 5 to 15 times in a hundred.

`Guide.confidence` is a product; each factor is continuous in the camera, and 1 where a photo's pixel is seen again from
the photo's own camera.

- *Provenance.* Each primitive carries a confidence: 1 for what a camera saw, the chunk's own estimate for what was
  generated.
- *Sampling density.* A primitive is one sample of the surface and knows how far the next one is (its footprint). With
  ``m`` the larger extent of that footprint in pixels of the camera that looks now, the factor is ``min(1, m^(-1/8))``:
  twice as close means 0.92, eight times 0.77; what is blurred is mostly still right. A surface first seen at a grazing
  angle has long footprints, so that looking at it frontally lowers the confidence by itself.
- *Viewing angle.* The footprint's aspect also tells the cosine under which the surface was seen first, ``c0``; with
  ``c`` the cosine now, the factor is a smooth step of ``c / c0`` from 0 (nothing) to 0.45 (everything). A surface seen
  from behind is worth nothing.
- *Depth agreement.* Primitives that meet in one pixel should lie at one depth. With ``v`` the relative standard
  deviation of their inverse depths and ``s`` the share of sky, the factor is ``1 / (1 + (v (1 - s) / 0.125)⁴)``, for a
  trace of something before the sky spoils nothing; where surface and sky mix, it loses ``3 s (1 - s)`` more. Edges,
  veils and bleeding backgrounds fall here. (Of the inverse depth, because a trace of something very far would outweigh
  all else in a variance of depth; to the fourth power, because a few percent of a background always pass between the
  samples of a surface, and are harmless.)
- *Coverage.* The share of the pixel that is covered at all.

The first three belong to a primitive and a camera and are composited like a color; the other two belong to the pixel.

Points own whole pixels, so that coverage says nothing and no depths meet in one. But a photo's pixels along an outline
hold two surfaces, and where the points of an outline fall next is a matter of half a pixel. Agreement with the pixel's
neighbors stands for that inside it: with ``s`` the share of 3×3 pixels at its depth (10 %), the factor is
``1 - 0.75 (1 - s)``; less is lost where the point falls within a quarter of a pixel of the center, and nothing at it.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from geometry.camera import Camera
from geometry.filters import windows_3x3
from geometry.project import to_camera

DENSITY_POWER = 0.125
DEPTH_TOLERANCE = 0.125
MIXED_SKY = 3.0  # 2 leaves half of the confidence to an even mixture, which is right one time in three
FULL_ANGLE = 0.45
ALONE = 0.75  # of its confidence: what a pixel without neighbors at its depth would lose
NEIGHBORS = 0.1  # relative depth within which they are
OFF_CENTER = 0.25  # pixels from which on a point is somewhere in its pixel, and not where the photo had it


def pixel_gradients(
    positions: Float[Tensor, "n 3"], camera: Camera
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"], Float[Tensor, "n"]]:
    """How image x and y (pixels) change with the world position, and the depth, for one camera."""
    pose = camera.camera_from_world
    x, y, z = to_camera(positions, camera).unbind(-1)
    z = z.clamp_min(1e-6)
    right, down, forward = pose[0, :3], pose[1, :3], pose[2, :3]
    gradient_x = (right - (x / z)[:, None] * forward) * (camera.focal_px[0] / z)[:, None]
    gradient_y = (down - (y / z)[:, None] * forward) * (camera.focal_px[1] / z)[:, None]
    return gradient_x, gradient_y, z


def sampling_density(extent_px: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """The density factor from the larger extent of a sample's footprint, pixels."""
    return extent_px.clamp_min(1.0) ** -DENSITY_POWER


def viewing_angle(cosine: Float[Tensor, "n"], first_cosine: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """The angle factor from the cosine between normal and direction to the camera, now and when first seen."""
    step = (cosine / first_cosine.clamp_min(1e-3) / FULL_ANGLE).clamp(0.0, 1.0)
    return step * step * (3.0 - 2.0 * step)


def facing(positions: Float[Tensor, "n 3"], normals: Float[Tensor, "n 3"], camera: Camera) -> Float[Tensor, "n"]:
    """Cosine between each normal and the direction to one camera; negative where a surface is seen from behind."""
    return (torch.nn.functional.normalize(camera.position - positions, dim=-1) * normals).sum(-1)


def depth_agreement(spread: Float[Tensor, "*b h w"], sky: Float[Tensor, "*b h w"]) -> Float[Tensor, "*b h w"]:
    """The agreement factor from the relative standard deviation of inverse depth in a pixel and its sky share."""
    return (1.0 - MIXED_SKY * sky * (1.0 - sky)) / (1.0 + (spread * (1.0 - sky) / DEPTH_TOLERANCE) ** 4)


def neighbors_agreement(
    depth: Float[Tensor, "1 h w"], sky: Float[Tensor, "1 h w"], off_center_px: Float[Tensor, "1 h w"]
) -> Float[Tensor, "1 h w"]:
    """The factor of points from the depth (0 where nothing is), whether it is sky, and how far from the pixel's center
    the point falls; beyond its border the image goes on as it ends.
    """
    inverse = torch.where((sky > 0.5) | (depth <= 0), torch.zeros_like(depth), 1.0 / depth.clamp_min(1e-10))
    share = ((windows_3x3(inverse, None)[0] - inverse).abs() <= NEIGHBORS * inverse).float().mean(0, keepdim=True)
    return 1.0 - ALONE * (1.0 - share) * (off_center_px / OFF_CENTER).clamp(max=1.0)
