"""Mixed pixels at outlines, whose color blends foreground and background: detection and unmixing."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from geometry.depth.policy import DEFAULT_DISCONTINUITIES, DiscontinuityPolicy
from geometry.filters import dilate
from geometry.frame import Frame


def clear_far(
    frame: Frame,
    where: Bool[Tensor, "1 1 h w"] | None = None,
    policy: DiscontinuityPolicy = DEFAULT_DISCONTINUITIES,
) -> Frame:
    """Remove foreground colors from mixed background pixels of a frame ``[1]``.

    Background pixels beside a foreground surface are blended with its color and would show as a ghost of it when the
    camera moves. Their component along the line from background color to foreground color is removed.

    Args:
        frame: frame with depth.
        where: mask of the pixels to change; all when None.
        policy: what is mixed.
    """
    window = 2 * policy.mixed_search * _mixed_reach(frame, policy) + 1
    inverse, beside = _inverse(frame), mixed(frame, policy)[0, 0].numpy()
    clear = (frame.valid[0, 0].numpy() & ~beside).astype(np.float32)
    layer = _layers(inverse, policy.mixed_ratio)
    rgb = np.ascontiguousarray(frame.rgb[0].permute(1, 2, 0).numpy())
    cleared = rgb.copy()
    wanted = beside if where is None else beside & where[0, 0].numpy()
    # One layer at a time: each has its own background color.
    for own in np.unique(layer[wanted]):
        part = _around(wanted & (layer == own), window)
        colors, layers = rgb[part], layer[part]
        # A surface may straddle two neighboring layers; it takes two to tell surfaces apart.
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
        share = ((colors - back) * apart).sum(-1, keepdims=True) / (
            (apart**2).sum(-1, keepdims=True) + policy.unmix_noise**2
        )
        rest = colors - back - share.clip(0.0, 1.0) * apart
        # Without pure pixels of both sides nearby there is nothing to unmix by.
        mine &= (back_share > 0.0) & (fore_share > 0.0)
        # Held within the contrast of the surface, or halos of sharpening would stay as bright outlines.
        cleared[part][mine] = (back + rest.clip(-texture, texture))[mine]
    cleared = torch.from_numpy(cleared).permute(2, 0, 1)[None].to(frame.rgb)
    # 8 bits, like every frame that is stored.
    return replace(frame, rgb=(cleared.clamp(0.0, 1.0) * 255.0).round() / 255.0)


def without_gaps(frame: Frame, policy: DiscontinuityPolicy = DEFAULT_DISCONTINUITIES) -> Frame:
    """Close small gaps in foreground surfaces of a frame ``[1]``: they get the depth of the foreground.

    Between leaves every pixel is mixed with their colors. Without a pure background pixel nearby the background color
    is unknown, and the gap would become floating specks when the camera moves. Gaps that cover more area than the
    foreground, as in a fence, stay open.
    """
    inverse, beside = _inverse(frame), mixed(frame, policy)[0, 0].numpy()
    layer = _layers(inverse, policy.mixed_ratio)
    clear = frame.valid[0, 0].numpy() & ~beside
    window = (2 * policy.mixed_search * _mixed_reach(frame, policy) + 1,) * 2
    lost = np.zeros_like(beside)
    for own in np.unique(layer[beside]):
        known = cv2.dilate((clear & (np.abs(layer - own) <= 1)).astype(np.uint8), np.ones(window, np.uint8)) > 0
        before = cv2.blur((layer > own + 1).astype(np.float32), window) > policy.gap_share
        lost |= beside & (layer == own) & ~known & before
    gap = torch.from_numpy(lost)[None, None].to(frame.sky.device)
    front = 1.0 / dilate(inverse, _mixed_reach(frame, policy)).clamp_min(1e-8)
    return replace(frame, depth=torch.where(gap, front, frame.depth), sky=frame.sky & ~gap)


def mixed(frame: Frame, policy: DiscontinuityPolicy = DEFAULT_DISCONTINUITIES) -> Bool[Tensor, "b 1 h w"]:
    """Mask of pixels close to a clearly nearer surface, which may be mixed with its colors."""
    inverse = _inverse(frame)
    return dilate(inverse, _mixed_reach(frame, policy)) > policy.mixed_ratio * inverse


def _inverse(frame: Frame) -> Float[Tensor, "b 1 h w"]:
    """Inverse depth; 0 in the sky and at invalid pixels."""
    return torch.where(frame.sky | ~frame.valid, 0.0, 1.0 / frame.depth.clamp_min(1e-8))


def _layers(inverse: Float[Tensor, "1 1 h w"], ratio: float) -> Int[np.ndarray, "h w"]:
    """Index of the depth layer per pixel, in factors of ``ratio``; indices more than 1 apart are two surfaces."""
    return np.round(np.log(inverse[0, 0].numpy().clip(1e-6)) / np.log(ratio)).astype(np.int64)


def _mixed_reach(frame: Frame, policy: DiscontinuityPolicy) -> int:
    return max(1, round(policy.mixed_reach * min(frame.camera.size)))


def _around(where: Bool[np.ndarray, "h w"], reach_px: int) -> tuple[slice, slice]:
    """Bounding box of a nonempty mask, enlarged by ``reach_px``."""
    rows, columns = (np.flatnonzero(where.any(axis)) for axis in (1, 0))
    return slice(max(0, rows[0] - reach_px), rows[-1] + reach_px + 1), slice(
        max(0, columns[0] - reach_px), columns[-1] + reach_px + 1
    )


def _local_mean(
    rgb: Float[np.ndarray, "h w 3"], weight: Float[np.ndarray, "h w"], window_px: int
) -> tuple[np.ndarray, np.ndarray]:
    """Weighted mean color around each pixel, and the mean weight in the window."""
    window = (window_px, window_px)
    share = cv2.blur(weight, window)
    mean = cv2.blur(rgb * weight[..., None], window) / np.maximum(share, 1e-6)[..., None]
    return mean, share * (share > 1e-4)  # running sums leave rounding errors where there is nothing
