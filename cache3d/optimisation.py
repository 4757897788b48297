"""Online refinement: colours are solved for through the rasterizer, so that frames are seen again as they were.

With the geometry fixed, a rendered image is linear in the colours: pixel ``p`` shows ``sum_i w_pi c_i / sum_i w_pi``.
One step of the simultaneous algebraic reconstruction technique (Andersen and Kak 1984) spreads the residual of one
frame back along the same weights, ``c_i += RELAXATION · sum_p w_pi r_p / sum_p w_pi``. That is gradient descent with
the step size that each primitive's own visibility asks for, so one or two looks at each frame are enough.

Frames disagree about texture finer than a pixel. Who follows each of them equally far ends up with the last ones; with
steps that fall like one over the root of the looks so far the differences average out (Robbins and Monro 1951), and a
long way back does not wash away what a few near looks have drawn. The photo is what a walk comes back to: looks at it
come last, and neither tire nor count.

Geometry stays as it was inserted: nothing that an observed frame has fixed ever moves, and no crack can open.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d

from cache3d.insertion import CLEARLY
from cache3d.rasterizer import Backend, Splats, rasterize
from geometry.frame import Frame

RELAXATION = 0.5  # 1 follows the last frame; measured: half of it is better for all of them together
FEW = 0.05  # pixels: what shows less than this hardly changes
SOLID = 0.5  # alpha from which a pixel shows a surface
LOOKS = 4  # at one frame, per chunk: more bring nothing
TIRING = 4.0  # looks after which a primitive learns less


def schedule(frames: int, steps: int) -> list[int]:
    """Which frame each step looks at: all in turn; of more frames than steps evenly spread ones, the last for sure."""
    if steps < frames:
        return [(i + 1) * frames // steps - 1 for i in range(steps)]
    return [i % frames for i in range(min(steps, LOOKS * frames))]


def gain(
    extent_px: Float[Tensor, "k"], looks: Float[Tensor, "k"], *, is_photo: bool
) -> tuple[Float[Tensor, "k"], Float[Tensor, "k"]]:
    """How much of its step each Gaussian makes at one look, and how many looks it counts afterwards.

    A farther look never coarsens a fine one: where many share a pixel, each learns little from it, and counts it as
    little.

    Args:
        extent_px: of the footprint, pixels of the frame.
        looks: those that each counts so far.
        is_photo: whether this is a look at the photo.
    """
    share = extent_px.clamp(max=1.0).square()
    if is_photo:
        return share, looks
    return share / torch.sqrt(1.0 + looks / TIRING), looks + share


def appearance_step(
    splats: Splats,
    frame: Frame,
    trust: Float[Tensor, "1 h w"],
    *,
    samples: int,
    footprint_floor: float,
    backend: Backend,
) -> Float[Tensor, "n 3"]:
    """How one look at a frame changes the colours of the Gaussians that it may change.

    Args:
        splats: Gaussians in view; their values are colours.
        frame: one frame, no batch axis.
        trust: in each of its pixels, 0..1; sky, invalid pixels and those that show another surface count for nothing.
        samples: per pixel and axis.
        footprint_floor: see ``eps2d`` of `rasterize`.
        backend: which rasterizer.
    """
    size = frame.camera.size
    fine = frame.camera.resized((size[0] * samples, size[1] * samples))[None]
    ones = torch.ones_like(splats.values[:, :1])
    values = torch.cat([splats.values, ones], dim=-1).requires_grad_(True)
    with torch.enable_grad():
        geometry = (splats.means, splats.quats, splats.scales, splats.opacities)
        raster = rasterize(Splats(*geometry, values), fine, backend, eps2d=footprint_floor)
        sums = avg_pool2d(raster.values, samples)
    alpha = sums.detach()[:, 3:].clamp_min(1e-3)
    depth = avg_pool2d(raster.depth.detach() * raster.alpha.detach(), samples) / alpha
    same = (depth[0] - frame.depth).abs() < CLEARLY * frame.depth
    # Along an edge the depth is a mixture and agrees with nothing, but the colours of both sides add up: it counts.
    near_same = max_pool2d(same.float(), 3, 1, 1) > 0
    counted = (frame.valid & ~frame.sky & near_same & (alpha[0] > SOLID)).float() / alpha[0]
    residual = frame.rgb - sums.detach()[0, :3] / alpha[0]
    cotangent = torch.cat([residual * counted * trust, counted])[None]
    (spread,) = torch.autograd.grad(sums, values, cotangent)
    return RELAXATION * spread[:, :3] / (spread[:, 3:] + FEW)
