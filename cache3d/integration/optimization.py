"""Online optimization of stored Gaussians: colors through the rasterizer, geometry where two frames agree.

*Colors.* With the geometry fixed, a rendered image is linear in the colors: pixel ``p`` shows
``sum_i w_pi c_i / sum_i w_pi``. One update of the simultaneous algebraic reconstruction technique (Andersen and Kak
1984) spreads the residual of one frame back along the same weights,
``c_i += relaxation * sum_p w_pi r_p / sum_p w_pi``. This is gradient descent with a step size per primitive, given by
its visibility, so that one or two updates per frame are enough.

*Step sizes.* Frames disagree about texture finer than a pixel, and a constant step size converges to the last frames.
Steps that fall with the root of the number of updates average the differences (Robbins and Monro 1951), and keep what a
few close frames added from being undone by many far ones. The photo is the frame that the camera returns to: it comes
last, with full steps, and is not counted.

*Geometry.* The same backward pass gives the change of the error if a Gaussian moved along its normal, and if it grew.
One frame alone would tear surfaces open for its own sake, so a step is taken only where the update before, by another
frame, asked for the same direction: what lowers the error of one frame lowers that of its neighbor too. (Rprop,
Riedmiller and Braun 1993, decides by consecutive signs as well; here they are those of different views.) Finally the
photo has a veto: no Gaussian moves against it, and Gaussians made from the photo move only where it agrees. What a
camera observed is moved only by observed frames. Steps are bounded and fall with the updates, and geometry rests after
`IntegrationPolicy.settled_updates`, so that all updates together move a Gaussian by less than `max_total_shift` of its
footprint and scale it by less than `max_total_growth`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import avg_pool2d

from cache3d.integration.policy import DEFAULT_POLICY, IntegrationPolicy
from cache3d.rasterizer.rasterize import rasterize
from cache3d.rasterizer.types import Backend, Splats
from cache3d.rendering.footprint import footprint_px, magnification_scale
from cache3d.rendering.policy import DEFAULT_RENDERING, RenderingPolicy
from cache3d.rendering.rendered_view import RenderedView
from cache3d.rendering.splat_attributes import in_view, supersampled
from cache3d.rendering.visibility import visible_from
from geometry.filters import dilate, erode
from geometry.frame import Frame, Observation
from geometry.primitives import Gaussians, Points
from geometry.project import project
from geometry.se3 import matrix_from_quat
from geometry.surfaces import same_surface


@dataclass(frozen=True)
class TargetView:
    """One frame that the Gaussians are optimized towards.

    Attributes:
        frame: no batch axis.
        confidence: weight of each pixel, 0..1; sky, invalid pixels and those that show another surface have none.
        is_photo: whether it is the photo.
    """

    frame: Frame
    confidence: Float[Tensor, "1 h w"]
    is_photo: bool


@dataclass(frozen=True)
class Correction:
    """What one target view asks of ``n`` Gaussians.

    Attributes:
        colors: steps, ``[n 3]``.
        geometry: decrease of the squared color error of the pixels that show it, per footprint of movement along its
            normal and per e-fold of growth; ``[n 2]``.
    """

    colors: Float[Tensor, "n 3"]
    geometry: Float[Tensor, "n 2"]


def schedule(targets: int, steps: int, policy: IntegrationPolicy = DEFAULT_POLICY) -> list[int]:
    """The target of each step: all in turn; of more targets than steps evenly spread ones, the last one included."""
    if steps < targets:
        # The last target, the photo, must be among them.
        return [(i + 1) * targets // steps - 1 for i in range(steps)]
    return [i % targets for i in range(min(steps, policy.max_passes * targets))]


def gain(
    extent_px: Float[Tensor, "k"],
    n_updates: Float[Tensor, "k"],
    *,
    is_photo: bool,
    policy: IntegrationPolicy = DEFAULT_POLICY,
) -> tuple[Float[Tensor, "k"], Float[Tensor, "k"]]:
    """Share of its step that each Gaussian takes at one update, and its number of updates afterwards.

    A far frame never coarsens fine Gaussians: where many share a pixel, each takes a small step and counts it as small.

    Args:
        extent_px: larger extent of the footprint, pixels of the frame.
        n_updates: so far.
        is_photo: whether the target is the photo.
        policy: decay of the steps.
    """
    share = extent_px.clamp(max=1.0).square()
    if is_photo:
        return share, n_updates
    return share / torch.sqrt(1.0 + n_updates / policy.decay_updates), n_updates + share


def optimize(
    gaussians: Gaussians,
    targets: list[TargetView],
    *,
    observed: bool,
    steps: int,
    backend: Backend,
    policy: IntegrationPolicy = DEFAULT_POLICY,
    rendering: RenderingPolicy = DEFAULT_RENDERING,
) -> Bool[Tensor, "n"]:
    """Update Gaussians towards target views, in place.

    Args:
        gaussians: all that the targets may see.
        targets: in this order.
        observed: whether a camera observed the targets; only then observed Gaussians change.
        steps: number of updates.
        backend: which rasterizer.
        policy: step sizes.
        rendering: footprints, as they are rendered.

    Returns:
        Which of them changed, in colors, number of updates, means or scales.
    """
    changed = torch.zeros_like(gaussians.sky)
    # Of shift and growth of each: direction asked for by the last target that showed it, by the photo, and the step.
    last_asked, photo_asked, steps_to_take = (gaussians.means.new_zeros(len(gaussians), 2) for _ in range(3))
    for turn, k in enumerate(schedule(len(targets), steps, policy)):
        frame, is_photo = targets[k].frame, targets[k].is_photo
        index = in_view(gaussians, frame.camera, sky=False)
        changeable = ~gaussians.observed[index] | observed
        if not changeable.any():
            continue
        extent_px = footprint_px(gaussians, index, frame.camera, rendering)
        fields = (gaussians.means, gaussians.quats, gaussians.scales, gaussians.opacities, gaussians.colors)
        splats = Splats(*(field.index_select(0, index) for field in fields))
        drawn = replace(splats, scales=splats.scales * magnification_scale(extent_px, rendering))
        asked = correction(drawn, targets[k], backend, policy, rendering)
        before = gaussians.n_updates[index]
        share, after = gain(extent_px, before, is_photo=is_photo, policy=policy)
        step = within_reach(splats, asked.colors * share[:, None], frame, policy)
        moved = changeable & (step != 0).any(-1)
        changed[index[moved]] = True
        gaussians.n_updates[index[moved]] = after[moved]
        gaussians.colors[index[moved]] = (splats.values + step)[moved].clamp(0.0, 1.0)
        # What lowers the error of one frame alone would tear surfaces open for its sake.
        agreed = asked.geometry * last_asked[index] > 0
        # What a frame does not show keeps the wish of the last one that did.
        last_asked[index] = torch.where(asked.geometry != 0, asked.geometry, last_asked[index])
        if turn >= len(targets):  # in a second pass a frame would agree with itself
            continue
        if is_photo:
            photo_asked[index] = asked.geometry
        else:
            free = moved & (before < policy.settled_updates)
            # Saturates: the sign decides, and a large error moves no farther than the longest step.
            bounded = asked.geometry / (asked.geometry.abs() + policy.half_step_error)
            steps_to_take[index] += bounded * (agreed & free[:, None]) * share[:, None]
    # Chunk 0 is the photo.
    from_photo = (gaussians.chunk == 0)[:, None]
    # The photo has a veto, and what was made from it moves only where the photo agrees.
    vetoed = (steps_to_take * photo_asked < 0) | (from_photo & (photo_asked == 0))
    steps_to_take = steps_to_take.masked_fill(vetoed, 0.0)
    normals, width = matrix_from_quat(gaussians.quats)[:, :, 2], gaussians.scales[:, :2].amin(-1) / rendering.kernel_px
    gaussians.means.add_(normals * (policy.max_shift * steps_to_take[:, 0] * width)[:, None])
    gaussians.scales.mul_(torch.exp(policy.max_growth * steps_to_take[:, 1:]))
    return changed


def within_reach(
    splats: Splats, step: Float[Tensor, "k 3"], frame: Frame, policy: IntegrationPolicy = DEFAULT_POLICY
) -> Float[Tensor, "k 3"]:
    """Color steps limited, behind an outline, to the range of the frame's colors around there.

    A Gaussian behind an outline would otherwise make up for the share of its pixels that the foreground takes, and be
    left with a glaring color when the camera moves on.
    """
    height, width = frame.camera.size
    inverse = torch.where(frame.sky, 0.0, 1.0 / frame.depth)
    behind = (dilate(inverse, policy.outline_px) > (1.0 + policy.depth_tolerance) * inverse)[0]
    pixel = project(splats.means, frame.camera)[0].floor().long()
    x, y = pixel[:, 0].clamp(0, width - 1), pixel[:, 1].clamp(0, height - 1)
    held = torch.nonzero(behind[y, x])[:, 0]
    x, y, now = x[held], y[held], splats.values[held]
    least, most = (extreme(frame.rgb, policy.outline_px)[:, y, x].T for extreme in (erode, dilate))
    # A color that lies outside already may stay, but goes no farther.
    return step.index_copy(0, held, (now + step[held]).clamp(torch.minimum(least, now), torch.maximum(most, now)) - now)


def correction(
    splats: Splats,
    target: TargetView,
    backend: Backend,
    policy: IntegrationPolicy = DEFAULT_POLICY,
    rendering: RenderingPolicy = DEFAULT_RENDERING,
) -> Correction:
    """What one target view asks of the Gaussians in its view.

    Args:
        splats: with magnified footprints; their values are colors.
        target: one frame.
        backend: which rasterizer.
        policy: which pixels count, and step sizes.
        rendering: footprints, as they are rendered.
    """
    frame = target.frame
    samples, fine = rendering.samples, supersampled(frame.camera, rendering)[None]
    ones = torch.ones_like(splats.values[:, :1])
    leaves = [torch.cat([splats.values, ones], dim=-1), splats.means.clone(), splats.scales.clone()]
    values, means, scales = (leaf.requires_grad_(True) for leaf in leaves)
    with torch.enable_grad():
        drawn = Splats(means, splats.quats, scales, splats.opacities, values)
        raster = rasterize(drawn, fine, backend, eps2d=rendering.footprint_floor)
        sums, covered = avg_pool2d(raster.values, samples), avg_pool2d(raster.alpha, samples)
    # Where almost nothing shows, the quotient below would be noise.
    alpha = sums.detach()[:, 3:].clamp_min(1e-3)
    depth = avg_pool2d(raster.depth.detach() * raster.alpha.detach(), samples) / alpha
    same = same_surface(depth[0], frame.depth, policy.depth_tolerance)
    # Along an edge the depth is a mixture and agrees with nothing, but the colors of both sides add up: it counts.
    near_same = dilate(same.float(), 1) > 0
    counted = (frame.surface & near_same & (alpha[0] > policy.solid_alpha)).float() / alpha[0]
    rendered = sums.detach()[0, :3] / alpha[0]
    residual = (frame.rgb - rendered) * counted * target.confidence
    # The last channel gathers the weights, for colors. Its sum is alpha: its contribution to the gradients of the
    # geometry is subtracted there, where the division by alpha has its part.
    division = -(residual * rendered).sum(0, keepdim=True)
    with torch.enable_grad():
        asked = (sums * torch.cat([residual, counted])[None]).sum() + (covered * (division - counted)[None]).sum()
    # Of a scalar: to check the shape of given gradients, torch imports sympy, half a second of every start.
    by_values, by_means, by_scales = torch.autograd.grad(asked, [values, means, scales])
    weight = by_values[:, 3:] + policy.min_weight_px
    normals, width = matrix_from_quat(splats.quats)[:, :, 2], splats.scales[:, :2].amin(-1)
    shift = (by_means * normals).sum(-1) * width / rendering.kernel_px
    growth = (by_scales * splats.scales).sum(-1)
    return Correction(policy.relaxation * by_values[:, :3] / weight, torch.stack([shift, growth], dim=-1) / weight)


def blend_generated(
    primitives: Gaussians | Points,
    positions: Float[Tensor, "n 3"],
    rendered: RenderedView,
    observation: Observation,
    policy: IntegrationPolicy = DEFAULT_POLICY,
) -> Int[Tensor, "k"]:
    """Move colors and confidences of generated primitives towards a more confident frame, in place.

    A primitive that is the rendered surface, at the frame's depth, takes `IntegrationPolicy.blend_rate` of the
    difference between the frame's pixel and the rendered one. (Not of the difference to its own color: stored colors
    are sharpened, and each frame without any error would soften them.) Its confidence takes the same share, so that
    repeated frames converge. Observed primitives, sky and positions stay unchanged.

    Args:
        primitives: rows of a view of the store.
        positions: of each, world.
        rendered: the cache, rendered from the frame's camera.
        observation: the frame.
        policy: rates.

    Returns:
        Indices of the changed primitives.
    """
    frame = observation.frame
    candidates = ~primitives.observed & ~primitives.sky
    visible = visible_from(frame.camera, positions, candidates, rendered, policy.visible_tolerance)
    index, pixel, z = visible.index, visible.pixel, visible.z
    depth = frame.depth.reshape(-1)[pixel]
    # Generated primitives never become as certain as observed ones.
    limit = torch.full_like(z, policy.max_generated_confidence)
    gained = torch.minimum(observation.confidence.reshape(-1)[pixel], limit) - primitives.confidence[index]
    better = frame.surface.reshape(-1)[pixel] & (gained > policy.min_confidence_gain)
    better &= same_surface(depth, z, policy.depth_tolerance)
    index, pixel, gained = index[better], pixel[better], gained[better]
    difference = (frame.rgb - rendered.rgb).reshape(3, -1)[:, pixel].T
    primitives.colors[index] = (primitives.colors[index] + policy.blend_rate * difference).clamp(0.0, 1.0)
    primitives.confidence[index] += policy.blend_rate * gained
    return index
