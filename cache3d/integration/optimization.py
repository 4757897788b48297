"""Online refinement: colors are solved for through the rasterizer, and geometry follows where frames agree about it.

With the geometry fixed, a rendered image is linear in the colors: pixel ``p`` shows ``sum_i w_pi c_i / sum_i w_pi``.
One step of the simultaneous algebraic reconstruction technique (Andersen and Kak 1984) spreads the residual of one
frame back along the same weights, ``c_i += RELAXATION · sum_p w_pi r_p / sum_p w_pi``. That is gradient descent with
the step size that each primitive's own visibility asks for, so one or two looks at each frame are enough.

Frames disagree about texture finer than a pixel. Who follows each of them equally far ends up with the last ones; with
steps that fall like one over the root of the looks so far the differences average out (Robbins and Monro 1951), and a
long way back does not wash away what a few near looks have drawn. The photo is what a walk comes back to: looks at it
come last, and neither tire nor count.

The same look tells by how much its error would fall if a Gaussian moved along its normal, and if it grew. One frame
alone would tear the surface open for its own sake. So a look counts only where the look before, at another frame, asked
for the same direction: what lowers the error of one frame lowers that of its neighbor too. (Rprop, Riedmiller and
Braun 1993, decides by consecutive signs as well; here they are those of different views.) In the end the photo is
asked: it moves nothing by itself, but nothing moves against it, and what it made moves only with it. What a camera
observed is moved only by frames that a camera observed. Each step is bounded, falls with the looks, and after `SETTLED`
looks geometry rests for good: all steps together move a Gaussian by less than `MOST_SHIFT` of its footprint, and make
it larger or smaller by less than `MOST_GROWTH`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import avg_pool2d

from cache3d.rasterizer.rasterize import rasterize
from cache3d.rasterizer.types import Backend, Splats
from cache3d.rendering.footprint import FOOTPRINT_FLOOR, KERNEL, SAMPLES, footprint_px, magnification_scale
from cache3d.rendering.rendered_view import RenderedView
from cache3d.rendering.splat_attributes import in_view
from cache3d.rendering.visibility import visible_from
from geometry.filters import dilate, erode
from geometry.frame import Frame, Observation
from geometry.primitives import Gaussians, Points
from geometry.project import project
from geometry.se3 import matrix_from_quat
from geometry.surfaces import DEPTH_TOLERANCE, same_surface

STEP = 0.25
GUESS_LIMIT = 0.9  # a guess that was confirmed again and again is still a guess

RELAXATION = 0.5  # 1 follows the last frame; measured: half of it is better for all of them together
FEW = 0.05  # pixels: what shows less than this hardly changes
SOLID = 0.5  # alpha from which a pixel shows a surface
LOOKS = 4  # at one frame, per chunk: more bring nothing
TIRING = 4.0  # looks after which a primitive learns less
REACH_PX = 2  # of an outline; what lies behind takes on no color that the frame does not have so near
PHOTO = 0  # the chunk that it is
SETTLED = 16.0  # looks after which its geometry rests
SHIFT, GROWTH = 0.07, 0.05  # longest step: along the normal, in footprints; of the logarithm of the size
PLAIN = 0.003  # squared color error per footprint, or per e-fold, that takes half of the longest step
# The steps of one look each, 1 / sqrt(1 + looks / TIRING), until it rests, and the one that passes it.
_ALL_STEPS = 2.0 * TIRING * (math.sqrt(1.0 + SETTLED / TIRING) - 1.0) + 1.0
MOST_GROWTH = math.exp(GROWTH * _ALL_STEPS)
MOST_SHIFT = SHIFT / GROWTH * (MOST_GROWTH - 1.0)  # footprints, while it grows all the time


@dataclass(frozen=True)
class TargetView:
    """One frame that the Gaussians are corrected by.

    Attributes:
        frame: no batch axis.
        trust: in each of its pixels, 0..1; sky, invalid pixels and those that show another surface count for nothing.
        is_photo: whether it is what the walk comes back to.
    """

    frame: Frame
    trust: Float[Tensor, "1 h w"]
    is_photo: bool


@dataclass(frozen=True)
class Correction:
    """What one look asks of ``n`` Gaussians.

    Attributes:
        colors: steps to make, ``[n 3]``.
        geometry: by how much the squared color error of the pixels that show it would fall per footprint that it moves
            along its normal, and per e-fold that it grows; ``[n 2]``.
    """

    colors: Float[Tensor, "n 3"]
    geometry: Float[Tensor, "n 2"]


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


def refine(
    rows: Gaussians, looks: list[TargetView], *, observed: bool, steps: int, backend: Backend
) -> Bool[Tensor, "n"]:
    """Correct Gaussians by a few looks at frames, in place.

    Args:
        rows: what the frames may see.
        looks: in this order.
        observed: whether a camera observed the frames; only then what a camera observed changes.
        steps: how many looks.
        backend: which rasterizer.

    Returns:
        Which of them changed, in colors, looks, means or scales.
    """
    changed = torch.zeros_like(rows.sky)
    # Of the geometry of each: asked by the last look that showed it, by the photo, and the steps to make in the end.
    asked, asked_by_photo, ways = (rows.means.new_zeros(len(rows), 2) for _ in range(3))
    for turn, k in enumerate(schedule(len(looks), steps)):
        frame, is_photo = looks[k].frame, looks[k].is_photo
        chosen = in_view(rows, frame.camera, sky=False)
        changeable = ~rows.observed[chosen] | observed
        if not changeable.any():
            continue
        extent_px = footprint_px(rows, chosen, frame.camera)
        parts = (rows.means, rows.quats, rows.scales, rows.opacities, rows.colors)
        splats = Splats(*(part.index_select(0, chosen) for part in parts))
        made = correction(replace(splats, scales=splats.scales * magnification_scale(extent_px)), looks[k], backend)
        before = rows.looks[chosen]
        share, after = gain(extent_px, before, is_photo=is_photo)
        step = within_reach(splats, made.colors * share[:, None], frame)
        moved = changeable & (step != 0).any(-1)
        changed[chosen[moved]] = True
        rows.looks[chosen[moved]] = after[moved]
        rows.colors[chosen[moved]] = (splats.values + step)[moved].clamp(0.0, 1.0)
        agreed = made.geometry * asked[chosen] > 0
        asked[chosen] = torch.where(made.geometry != 0, made.geometry, asked[chosen])
        if turn >= len(looks):  # a frame would agree with itself
            continue
        if is_photo:
            asked_by_photo[chosen] = made.geometry
        else:
            free = moved & (before < SETTLED)
            way = made.geometry / (made.geometry.abs() + PLAIN)
            ways[chosen] += way * (agreed & free[:, None]) * share[:, None]
    against = (ways * asked_by_photo < 0) | ((rows.chunk == PHOTO)[:, None] & (asked_by_photo == 0))
    ways = ways.masked_fill(against, 0.0)
    normals, width = matrix_from_quat(rows.quats)[:, :, 2], rows.scales[:, :2].amin(-1) / KERNEL
    rows.means.add_(normals * (SHIFT * ways[:, 0] * width)[:, None])
    rows.scales.mul_(torch.exp(GROWTH * ways[:, 1:]))
    return changed


def within_reach(splats: Splats, step: Float[Tensor, "k 3"], frame: Frame) -> Float[Tensor, "k 3"]:
    """Steps that, behind an outline, do not lead beyond the colors that the frame has around there.

    What lies there would make up for the share of its pixels that what is in front has, and be left behind glaring when
    the camera moves on.
    """
    height, width = frame.camera.size
    inverse = torch.where(frame.sky, 0.0, 1.0 / frame.depth)
    behind = (dilate(inverse, REACH_PX) > (1.0 + DEPTH_TOLERANCE) * inverse)[0]
    pixel = project(splats.means, frame.camera)[0].floor().long()
    x, y = pixel[:, 0].clamp(0, width - 1), pixel[:, 1].clamp(0, height - 1)
    held = torch.nonzero(behind[y, x])[:, 0]
    x, y, now = x[held], y[held], splats.values[held]
    least, most = erode(frame.rgb, REACH_PX)[:, y, x].T, dilate(frame.rgb, REACH_PX)[:, y, x].T
    return step.index_copy(0, held, (now + step[held]).clamp(torch.minimum(least, now), torch.maximum(most, now)) - now)


def correction(splats: Splats, look: TargetView, backend: Backend) -> Correction:
    """What one look asks of the Gaussians in view, whose values are colors and whose footprints are grown."""
    frame = look.frame
    size = frame.camera.size
    fine = frame.camera.resized((size[0] * SAMPLES, size[1] * SAMPLES))[None]
    ones = torch.ones_like(splats.values[:, :1])
    leaves = [torch.cat([splats.values, ones], dim=-1), splats.means.clone(), splats.scales.clone()]
    values, means, scales = (leaf.requires_grad_(True) for leaf in leaves)
    with torch.enable_grad():
        drawn = Splats(means, splats.quats, scales, splats.opacities, values)
        raster = rasterize(drawn, fine, backend, eps2d=FOOTPRINT_FLOOR)
        sums, covered = avg_pool2d(raster.values, SAMPLES), avg_pool2d(raster.alpha, SAMPLES)
    alpha = sums.detach()[:, 3:].clamp_min(1e-3)
    depth = avg_pool2d(raster.depth.detach() * raster.alpha.detach(), SAMPLES) / alpha
    same = same_surface(depth[0], frame.depth)
    # Along an edge the depth is a mixture and agrees with nothing, but the colors of both sides add up: it counts.
    near_same = dilate(same.float(), 1) > 0
    counted = (frame.surface & near_same & (alpha[0] > SOLID)).float() / alpha[0]
    rendered = sums.detach()[0, :3] / alpha[0]
    pull = (frame.rgb - rendered) * counted * look.trust
    # The last channel gathers the weights, for colors. Its sum is alpha: what it adds to the gradients of the geometry
    # is taken off there, where the division by alpha has its part.
    division = -(pull * rendered).sum(0, keepdim=True)
    spread, by_means, by_scales = torch.autograd.grad(
        [sums, covered], [values, means, scales], [torch.cat([pull, counted])[None], (division - counted)[None]]
    )
    weight = spread[:, 3:] + FEW
    along = (by_means * matrix_from_quat(splats.quats)[:, :, 2]).sum(-1) * splats.scales[:, :2].amin(-1) / KERNEL
    larger = (by_scales * splats.scales).sum(-1)
    return Correction(RELAXATION * spread[:, :3] / weight, torch.stack([along, larger], dim=-1) / weight)


def blend_generated(
    primitives: Gaussians | Points,
    positions: Float[Tensor, "n 3"],
    rendered: RenderedView,
    observation: Observation,
) -> Int[Tensor, "k"]:
    """Move colors and confidences of generated primitives towards a frame that knows better; in place.

    A primitive takes a quarter of the step between what is shown where it lies and the frame's pixel, when it is the
    surface shown there, the frame's depth agrees, and the frame is more confident than the primitive. (Not to the
    pixel's own color: what is stored is crisper than what it shows, and would get softer with each look that finds
    nothing wrong.) Its confidence takes a quarter step too, so that repeated looks converge. Observed primitives, sky
    and positions stay as they are.

    Args:
        primitives: views into a store.
        positions: where they are.
        rendered: the cache, rendered from the frame's camera.
        observation: the frame.

    Returns:
        Indices of the refined primitives.
    """
    frame = observation.frame
    visible = visible_from(frame.camera, positions, ~primitives.observed & ~primitives.sky, rendered)
    guesses, pixel, z = visible.index, visible.pixel, visible.z
    depth = frame.depth.reshape(-1)[pixel]
    limit = torch.full_like(z, GUESS_LIMIT)
    better = torch.minimum(observation.confidence.reshape(-1)[pixel], limit) - primitives.confidence[guesses]
    chosen = frame.surface.reshape(-1)[pixel] & (better > 0.01)
    chosen &= same_surface(depth, z)
    guesses, pixel, better = guesses[chosen], pixel[chosen], better[chosen]
    off = (frame.rgb - rendered.rgb).reshape(3, -1)[:, pixel].T
    primitives.colors[guesses] = (primitives.colors[guesses] + STEP * off).clamp(0.0, 1.0)
    primitives.confidence[guesses] += STEP * better
    return guesses
