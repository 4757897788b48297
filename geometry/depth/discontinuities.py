"""Sharpening of depth edges, and removal of flying pixels."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad

from geometry.depth.policy import DEFAULT_DISCONTINUITIES, DiscontinuityPolicy, SnapPass
from geometry.filters import dilate, erode, mean


def clean_discontinuities(
    depth: Float[Tensor, "b 1 h w"],
    valid: Bool[Tensor, "b 1 h w"],
    policy: DiscontinuityPolicy = DEFAULT_DISCONTINUITIES,
) -> Bool[Tensor, "b 1 h w"]:
    """Mask of pixels that can be lifted to 3D without flying pixels.

    A mixed pixel has a depth *between* two surfaces: one neighbor is clearly nearer and the opposite one clearly
    farther. It is dropped; pixels of the two surfaces stay, so that thin structures are preserved.

    Args:
        depth: positive z.
        valid: mask of known depth.
        policy: what is an edge.
    """
    log_depth = depth.clamp_min(1e-8).log()
    step = torch.log(depth.new_tensor(policy.edge_ratio))
    flying = torch.zeros_like(valid)
    for axis in (-1, -2):
        before, after = _shifted(log_depth, 1, axis), _shifted(log_depth, -1, axis)
        down, up = log_depth - before, after - log_depth
        # Between two surfaces: the same sign on both sides, and together more than one surface can slope.
        flying |= (
            (down * up > 0) & (torch.minimum(down.abs(), up.abs()) > 0.5 * step) & ((down + up).abs() > 2.0 * step)
        )
    return valid & ~flying


def snap_depth_edges(
    depth: Float[Tensor, "b 1 h w"],
    rgb: Float[Tensor, "b 3 h w"],
    sky: Bool[Tensor, "b 1 h w"],
    policy: DiscontinuityPolicy = DEFAULT_DISCONTINUITIES,
) -> Float[Tensor, "b 1 h w"]:
    """Turn soft depth edges into steps that lie on color edges.

    Near a soft edge each pixel takes the near or the far extreme of the depth in its neighborhood, whichever belongs to
    pixels of more similar color. Other pixels and the sky do not change, and no pixel takes the depth of the sky.
    """
    # Estimates are softer at large steps: later, wider passes snap what the first leaves between two surfaces, which
    # would be floaters in 3D.
    for one in policy.snap_passes:
        depth = _snap(depth, rgb, sky, one, policy.vote_px)
    return depth


def _snap(
    depth: Float[Tensor, "b 1 h w"],
    rgb: Float[Tensor, "b 3 h w"],
    sky: Bool[Tensor, "b 1 h w"],
    one: SnapPass,
    vote_px: int,
) -> Float[Tensor, "b 1 h w"]:
    size = 2 * one.radius_px + 1
    inverse = 1.0 / depth.clamp_min(1e-8)
    near = dilate(inverse.masked_fill(sky, 0.0), one.radius_px)
    far = erode(inverse.masked_fill(sky, torch.inf), one.radius_px)
    soft = ~sky & (near / far > one.ratio)
    if not soft.any():
        return depth
    out = depth.clone()
    for index in range(len(depth)):
        where = soft[index, 0].flatten().nonzero()[:, 0]
        if not len(where):
            continue
        weight_of = _windows(torch.cat([inverse[index].masked_fill(sky[index], torch.nan), rgb[index]]), size, where)
        inverse_near, inverse_far = near[index].flatten()[where], far[index].flatten()[where]
        share = (weight_of[:, 0] - inverse_far[:, None]) / (inverse_near - inverse_far)[:, None]
        own = rgb[index].flatten(1)[:, where].T
        distance = (weight_of[:, 1:] - own[:, :, None]).square().sum(1)
        # Colors that differ by 0.1 weigh 1/e.
        like = torch.exp(-distance / 0.01)
        # What lies between is the softness itself and has no say.
        on_near, on_far = share > 0.8, share < 0.2
        near_like = (like * on_near).sum(1) / on_near.sum(1).clamp_min(1)
        far_like = (like * on_far).sum(1) / on_far.sum(1).clamp_min(1)
        present = inverse[index].flatten()[where]
        middle = (present - inverse_far) / (inverse_near - inverse_far)
        # Where colors do not tell, a pixel goes to the surface that it is nearer to.
        prefer_near = (near_like * (0.25 + middle) > far_like * (1.25 - middle)).float()
        # Leaves and the gaps between them are to become one surface.
        choose_near = _vote(prefer_near, soft[index], vote_px) > 0.5
        # Ground that rises to its horizon passes through all depths: it has no two surfaces.
        step = (on_near | on_far).sum(1) >= one.stepped * torch.isfinite(share).sum(1)
        chosen = torch.where(choose_near, inverse_near, inverse_far)
        out[index].view(-1)[where] = 1.0 / torch.where(step, chosen, present)
    # Only edges between two surfaces are snapped, not slopes.
    sharp = _curvature(inverse, one.radius_px)
    return torch.where(soft & sharp, out, depth)


def _vote(choice: Float[Tensor, "n"], where: Bool[Tensor, "1 h w"], radius_px: int) -> Float[Tensor, "n"]:
    """Mean choice among the pixels ``where`` around each pixel: joins leaves and the gaps between them."""
    chosen = torch.zeros_like(where, dtype=choice.dtype).masked_scatter(where, choice)
    chosen, share = mean(torch.stack([chosen, where.to(choice)]), radius_px)
    return (chosen / share)[where]


def _curvature(inverse: Tensor, radius_px: int) -> Tensor:
    """Mask of curved inverse depth; a sloping plane is linear in inverse depth and has no edge to snap."""
    bends = torch.zeros_like(inverse, dtype=torch.bool)
    for axis, inner in ((-1, (radius_px, radius_px)), (-2, (0, 0, radius_px, radius_px))):
        # Only where the whole window is inside: the repeated last row would look like a bend.
        length = inverse.shape[axis] - 2 * radius_px
        if length > 0:
            before, here, after = (inverse.narrow(axis, by, length) for by in (0, radius_px, 2 * radius_px))
            bends |= pad((before + after - 2.0 * here).abs() > 0.08 * here, inner)
    return dilate(bends.float(), radius_px) > 0.0


def _shifted(values: Tensor, by: int, axis: int) -> Tensor:
    """Shift values along an axis, repeating the border."""
    amount = abs(by)
    widths = (amount, amount, 0, 0) if axis == -1 else (0, 0, amount, amount)
    padded = pad(values, widths, mode="replicate")
    return padded.narrow(axis, amount - by, values.shape[axis])


def _windows(values: Float[Tensor, "c h w"], size: int, where: Tensor) -> Float[Tensor, "n c k"]:
    """The ``size x size`` neighborhoods of the pixels ``where`` (flat indices), repeating the border."""
    half = size // 2
    padded = pad(values[None], (half, half, half, half), mode="replicate")[0]
    width, padded_width = values.shape[2], padded.shape[2]
    corners = where.div(width, rounding_mode="floor") * padded_width + where % width
    steps = torch.arange(size, device=where.device)
    # Only of these pixels: unfolding the whole image takes ten times as long.
    window = (steps[:, None] * padded_width + steps).flatten()
    return padded.flatten(1)[:, window[:, None] + corners].permute(2, 0, 1)
