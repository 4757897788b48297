"""Confidence of a rendered pixel, 0..1: an estimate of the probability that it is right.

*Right* means: the color within 0.1 of the truth (root mean square over the channels) and the depth within 5 %. The
factors were fitted to that on walks through two worlds with ground truth and checked on a third
(`benchmarks.reliability.calibration`; curves in `docs/results.md`). Errors that no cache can know of remain: texture
finer than a pixel, and foreground that no frame has shown yet, make 5 to 15 % of the pixels of confidence 1 wrong.

`Guide.confidence` is a product of factors. Each is continuous in the camera, and 1 where a pixel of the photo is
rendered from the photo's own camera.

- *Provenance.* Each primitive carries a confidence: 1 if a camera observed it, the estimate of its chunk if it was
  generated.
- *Sampling density.* A primitive is one sample of the surface, and its footprint is the distance to the next. With
  ``m`` the larger extent of the footprint in pixels of the present camera, the factor is ``min(1, m^(-1/8))``: 0.92
  twice as close, 0.77 eight times as close, since blurred pixels are mostly right. Surfaces first seen at a grazing
  angle have long footprints, so that a frontal view of them has less confidence.
- *Viewing angle.* The aspect of the footprint is the cosine ``c0`` of the first view. With ``c`` the present cosine,
  the factor is a smooth step of ``c / c0`` from 0 (factor 0) to 0.45 (factor 1). Back sides have none.
- *Depth agreement.* Primitives in one pixel should share one depth. With ``v`` the relative standard deviation of their
  inverse depths and ``s`` the share of sky, the factor is ``(1 - 3 s (1 - s)) / (1 + (v (1 - s) / 0.125)^4)``. It falls
  at edges, veils and bleeding backgrounds. Inverse depth, because a trace of something very far would dominate a
  variance of depth; weighted with ``1 - s``, because a trace of foreground before the sky is harmless; the fourth
  power, because a few percent of background always show between the samples of a surface, and are harmless.
- *Coverage.* The share of the pixel that is covered.

The first three belong to a primitive and a camera and are composited like colors; the other two belong to the pixel.

A point owns a whole pixel, so that its coverage is 1 and no depths mix. But a photo's pixels along an outline hold two
surfaces, and half a pixel decides where their points fall. For points, agreement with the neighbors replaces agreement
inside the pixel: with ``s`` the share of 3x3 pixels at its depth (10 %), the factor is ``1 - 0.75 (1 - s)``; the loss
falls to 0 for points nearer than a quarter of a pixel to the center.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from cache3d.rendering.policy import DEFAULT_RENDERING, RenderingPolicy
from geometry.camera import Camera
from geometry.filters import windows_3x3
from geometry.project import to_camera


def pixel_gradients(
    positions: Float[Tensor, "n 3"], camera: Camera
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"], Float[Tensor, "n"]]:
    """Gradients of image x and y (pixels) with respect to the world position, and the depth, for one camera."""
    pose = camera.camera_from_world
    x, y, z = to_camera(positions, camera).unbind(-1)
    # Behind the camera the gradients mean nothing, but must stay finite.
    z = z.clamp_min(1e-6)
    right, down, forward = pose[0, :3], pose[1, :3], pose[2, :3]
    gradient_x = (right - (x / z)[:, None] * forward) * (camera.focal_px[0] / z)[:, None]
    gradient_y = (down - (y / z)[:, None] * forward) * (camera.focal_px[1] / z)[:, None]
    return gradient_x, gradient_y, z


def sampling_density(extent_px: Float[Tensor, "n"], policy: RenderingPolicy = DEFAULT_RENDERING) -> Float[Tensor, "n"]:
    """The density factor, from the larger extent of a footprint in pixels."""
    return extent_px.clamp_min(1.0) ** -policy.density_power


def viewing_angle(
    cosine: Float[Tensor, "n"], first_cosine: Float[Tensor, "n"], policy: RenderingPolicy = DEFAULT_RENDERING
) -> Float[Tensor, "n"]:
    """The angle factor, from the cosine between normal and direction to the camera, now and in the first view."""
    step = (cosine / first_cosine.clamp_min(1e-3) / policy.full_angle).clamp(0.0, 1.0)
    return step * step * (3.0 - 2.0 * step)


def facing(positions: Float[Tensor, "n 3"], normals: Float[Tensor, "n 3"], camera: Camera) -> Float[Tensor, "n"]:
    """Cosine between each normal and the direction to one camera; negative for back sides."""
    return (torch.nn.functional.normalize(camera.position - positions, dim=-1) * normals).sum(-1)


def depth_agreement(
    spread: Float[Tensor, "*b h w"], sky: Float[Tensor, "*b h w"], policy: RenderingPolicy = DEFAULT_RENDERING
) -> Float[Tensor, "*b h w"]:
    """The agreement factor, from the relative standard deviation of inverse depth in a pixel and its share of sky."""
    mixture = 1.0 - policy.mixed_sky * sky * (1.0 - sky)
    return mixture / (1.0 + (spread * (1.0 - sky) / policy.spread_tolerance) ** 4)


def neighbors_agreement(
    depth: Float[Tensor, "1 h w"],
    sky: Float[Tensor, "1 h w"],
    off_center_px: Float[Tensor, "1 h w"],
    policy: RenderingPolicy = DEFAULT_RENDERING,
) -> Float[Tensor, "1 h w"]:
    """The factor of points, from the agreement of each pixel with its eight neighbors; border pixels are repeated.

    Args:
        depth: 0 where nothing is rendered.
        sky: 1 for sky.
        off_center_px: distance of the point from the center of its pixel.
        policy: tolerance and loss.
    """
    # The sky, and nothing, are infinitely far.
    inverse = torch.where((sky > 0.5) | (depth <= 0), torch.zeros_like(depth), 1.0 / depth.clamp_min(1e-10))
    similar = (windows_3x3(inverse, None)[0] - inverse).abs() <= policy.neighbor_tolerance * inverse
    share = similar.float().mean(0, keepdim=True)
    return 1.0 - policy.isolation_loss * (1.0 - share) * (off_center_px / policy.off_center_px).clamp(max=1.0)
