"""Sharp depth edges and no flying pixels."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad, unfold

from geometry.frame import Frame
from geometry.windows import highest, lowest, mean

EDGE_RATIO = 1.08  # depths of neighbours further apart than this lie on two surfaces
# Reach in px, ratio of depths within it from which on an edge is snapped, and share of what is in reach that must lie
# on one of its two surfaces. An estimate is softer around tall steps: what the first reach leaves between two surfaces
# would hang in the air as specks; ground that rises to its horizon is no step.
SNAP = ((4, 1.15, 0.0), (7, 1.8, 0.65))
VOTE_PX = 1  # more rounds off what edges there are (2: edges off by 2.8 px and not 2.0)
MIXED_REACH = 0.015  # of the short side: so far into what is behind reach the colours of what is in front
MIXED_RATIO = 1.3  # of two depths, from which on one is in front of the other
MIXED_LOOK = 3  # how many times as far one looks for what the colours are unmixed
GAP_BEFORE = 0.5  # share of its surroundings that stands before a gap
MIXED_NOISE = 0.03  # surfaces whose colours differ less are not told apart


def clean_discontinuities(
    depth: Float[Tensor, "b 1 h w"], valid: Bool[Tensor, "b 1 h w"], ratio: float = EDGE_RATIO
) -> Bool[Tensor, "b 1 h w"]:
    """Where depth can be lifted into 3D without flying pixels.

    A mixed pixel lies *between* two surfaces: one neighbour is clearly nearer and the opposite one clearly farther. It
    is dropped; the pixels of the two surfaces themselves stay, so that thin structures survive.

    Args:
        depth: positive z.
        valid: where it is known.
        ratio: how far apart in depth, as a factor, two surfaces are.
    """
    log_depth = depth.clamp_min(1e-8).log()
    step = torch.log(depth.new_tensor(ratio))
    flying = torch.zeros_like(valid)
    for axis in (-1, -2):
        before, after = _shifted(log_depth, 1, axis), _shifted(log_depth, -1, axis)
        down, up = log_depth - before, after - log_depth
        # Between two surfaces: the same sign on both sides, and together more than one surface can slope.
        flying |= (
            (down * up > 0) & (torch.minimum(down.abs(), up.abs()) > 0.5 * step) & ((down + up).abs() > 2.0 * step)
        )
    return valid & ~flying


def clear_far(frame: Frame, where: Bool[Tensor, "1 1 h w"] | None = None) -> Frame:
    """A frame ``[1]`` whose far surfaces hold nothing of what stands before them.

    Pixels beside something nearer are mixed with its colours. They would stay behind as its ghost when the camera
    moves; so what they have of the colours in front, on the line from those of their own surface, is taken out.

    Args:
        frame: with depth.
        where: the pixels that matter; all when not given.
    """
    window = 2 * MIXED_LOOK * _mixed_reach(frame) + 1
    inverse, beside = _inverse(frame), mixed(frame)[0, 0].numpy()
    clear = (frame.valid[0, 0].numpy() & ~beside).astype(np.float32)
    layer = _layers(inverse)
    rgb = np.ascontiguousarray(frame.rgb[0].permute(1, 2, 0).numpy())
    cleared = rgb.copy()
    wanted = beside if where is None else beside & where[0, 0].numpy()
    for own in np.unique(layer[wanted]):
        part = _around(wanted & (layer == own), window)
        colors, layers = rgb[part], layer[part]
        mine, behind, front = (
            wanted[part] & (layers == own),
            clear[part] * (np.abs(layers - own) <= 1),
            layers > own + 1,
        )
        back, back_share = _local_mean(colors, behind, window)
        fore, fore_share = _local_mean(colors, front.astype(np.float32), window)
        square, _ = _local_mean(colors**2, behind, window)
        texture = np.sqrt(np.maximum(square - back**2, 0.0))
        apart = fore - back
        share = ((colors - back) * apart).sum(-1, keepdims=True) / ((apart**2).sum(-1, keepdims=True) + MIXED_NOISE**2)
        rest = colors - back - share.clip(0.0, 1.0) * apart
        mine &= (back_share > 0.0) & (fore_share > 0.0)
        cleared[part][mine] = (back + rest.clip(-texture, texture))[mine]
    cleared = torch.from_numpy(cleared).permute(2, 0, 1)[None].to(frame.rgb)
    return replace(frame, rgb=(cleared.clamp(0.0, 1.0) * 255.0).round() / 255.0)


def without_gaps(frame: Frame) -> Frame:
    """A frame ``[1]`` where what shows through the gaps of something nearer belongs to that.

    Between leaves all is mixed with their colours. Where no clear pixel of what lies behind is near, nothing tells what
    it would look like, and it would hang in the air as specks when the camera moves. A fence has more gap than wire,
    and stays one.
    """
    inverse, beside = _inverse(frame), mixed(frame)[0, 0].numpy()
    layer = _layers(inverse)
    clear = frame.valid[0, 0].numpy() & ~beside
    window = (2 * MIXED_LOOK * _mixed_reach(frame) + 1,) * 2
    lost = np.zeros_like(beside)
    for own in np.unique(layer[beside]):
        known = cv2.dilate((clear & (np.abs(layer - own) <= 1)).astype(np.uint8), np.ones(window, np.uint8)) > 0
        before = cv2.blur((layer > own + 1).astype(np.float32), window) > GAP_BEFORE
        lost |= beside & (layer == own) & ~known & before
    gap = torch.from_numpy(lost)[None, None].to(frame.sky.device)
    front = 1.0 / highest(inverse, _mixed_reach(frame)).clamp_min(1e-8)
    return replace(frame, depth=torch.where(gap, front, frame.depth), sky=frame.sky & ~gap)


def mixed(frame: Frame) -> Bool[Tensor, "b 1 h w"]:
    """Pixels so near to something clearly nearer that they may be mixed with its colours."""
    inverse = _inverse(frame)
    return highest(inverse, _mixed_reach(frame)) > MIXED_RATIO * inverse


def _inverse(frame: Frame) -> Float[Tensor, "b 1 h w"]:
    """0 where there is nothing near: in the sky, and where nothing is known."""
    return torch.where(frame.sky | ~frame.valid, 0.0, 1.0 / frame.depth.clamp_min(1e-8))


def _layers(inverse: Float[Tensor, "1 1 h w"]) -> Int[np.ndarray, "h w"]:
    """Numbers of depths: surfaces more than one apart are two."""
    return np.round(np.log(inverse[0, 0].numpy().clip(1e-6)) / np.log(MIXED_RATIO)).astype(np.int64)


def _mixed_reach(frame: Frame) -> int:
    return max(1, round(MIXED_REACH * min(frame.camera.size)))


def _around(where: Bool[np.ndarray, "h w"], reach_px: int) -> tuple[slice, slice]:
    """The rectangle that reaches so far around the chosen pixels, of which there are some."""
    rows, columns = (np.flatnonzero(where.any(axis)) for axis in (1, 0))
    return slice(max(0, rows[0] - reach_px), rows[-1] + reach_px + 1), slice(
        max(0, columns[0] - reach_px), columns[-1] + reach_px + 1
    )


def _local_mean(
    rgb: Float[np.ndarray, "h w 3"], weight: Float[np.ndarray, "h w"], window_px: int
) -> tuple[np.ndarray, np.ndarray]:
    """Weighted mean colour around each pixel, and the share of the window that it is from."""
    window = (window_px, window_px)
    share = cv2.blur(weight, window)
    mean = cv2.blur(rgb * weight[..., None], window) / np.maximum(share, 1e-6)[..., None]
    return mean, share * (share > 1e-4)  # running sums leave rounding errors where there is nothing


def snap_depth_edges(
    depth: Float[Tensor, "b 1 h w"],
    rgb: Float[Tensor, "b 3 h w"],
    sky: Bool[Tensor, "b 1 h w"],
) -> Float[Tensor, "b 1 h w"]:
    """Turn soft depth edges into steps that lie on colour edges.

    Near a soft edge each pixel takes the depth of whichever side it looks like: the near or the far extreme of its
    neighbourhood, by the colours of the pixels that have those depths. Elsewhere, and in the sky, nothing changes, and
    nothing on the ground takes the depth of the sky.
    """
    for radius_px, ratio, stepped in SNAP:
        depth = _snap(depth, rgb, sky, radius_px, ratio, stepped)
    return depth


def _snap(
    depth: Float[Tensor, "b 1 h w"],
    rgb: Float[Tensor, "b 3 h w"],
    sky: Bool[Tensor, "b 1 h w"],
    radius_px: int,
    ratio: float,
    stepped: float,
) -> Float[Tensor, "b 1 h w"]:
    size = 2 * radius_px + 1
    inverse = 1.0 / depth.clamp_min(1e-8)
    near = highest(inverse.masked_fill(sky, 0.0), radius_px)
    far = lowest(inverse.masked_fill(sky, torch.inf), radius_px)
    soft = ~sky & (near / far > ratio)
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
        like = torch.exp(-distance / 0.01)
        on_near, on_far = share > 0.8, share < 0.2
        near_like = (like * on_near).sum(1) / on_near.sum(1).clamp_min(1)
        far_like = (like * on_far).sum(1) / on_far.sum(1).clamp_min(1)
        present = inverse[index].flatten()[where]
        middle = (present - inverse_far) / (inverse_near - inverse_far)
        prefer_near = (near_like * (0.25 + middle) > far_like * (1.25 - middle)).float()
        choose_near = _vote(prefer_near, soft[index]) > 0.5
        step = (on_near | on_far).sum(1) >= stepped * torch.isfinite(share).sum(1)
        chosen = torch.where(choose_near, inverse_near, inverse_far)
        out[index].view(-1)[where] = 1.0 / torch.where(step, chosen, present)
    # A step changes only where the two extremes are two surfaces, not one that slopes.
    sharp = _curvature(inverse, radius_px)
    return torch.where(soft & sharp, out, depth)


def _vote(choice: Float[Tensor, "n"], where: Bool[Tensor, "1 h w"]) -> Float[Tensor, "n"]:
    """Mean choice among the pixels ``where`` around each: leaves and the gaps between them are one surface."""
    chosen = torch.zeros_like(where, dtype=choice.dtype).masked_scatter(where, choice)
    chosen, share = mean(torch.stack([chosen, where.to(choice)]), VOTE_PX)
    return (chosen / share)[where]


def _curvature(inverse: Tensor, radius_px: int) -> Tensor:
    """Where inverse depth bends: a sloping plane is linear in it, and has no edge to snap."""
    bends = torch.zeros_like(inverse, dtype=torch.bool)
    for axis, inner in ((-1, (radius_px, radius_px)), (-2, (0, 0, radius_px, radius_px))):
        length = inverse.shape[axis] - 2 * radius_px
        if length > 0:
            before, here, after = (inverse.narrow(axis, by, length) for by in (0, radius_px, 2 * radius_px))
            bends |= pad((before + after - 2.0 * here).abs() > 0.08 * here, inner)
    return highest(bends.float(), radius_px) > 0.0


def _shifted(values: Tensor, by: int, axis: int) -> Tensor:
    """Values moved along an axis, the border repeated."""
    amount = abs(by)
    widths = (amount, amount, 0, 0) if axis == -1 else (0, 0, amount, amount)
    padded = pad(values, widths, mode="replicate")
    return padded.narrow(axis, amount - by, values.shape[axis])


def _windows(values: Float[Tensor, "c h w"], size: int, where: Tensor) -> Float[Tensor, "n c k"]:
    """The ``size x size`` neighbourhood of some pixels, borders repeated."""
    half = size // 2
    padded = pad(values[None], (half, half, half, half), mode="replicate")
    columns = unfold(padded, size)[0].reshape(values.shape[0], size * size, -1)
    return columns[:, :, where].permute(2, 0, 1)
