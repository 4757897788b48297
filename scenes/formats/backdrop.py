"""What a mesh shows where no image does: a background sheet behind near things, and a dome behind all.

The sheet continues each surface behind what hides it, as far as a moving eye could look, and beyond the photo's frame
(the second layer of a layered depth image; Shade et al. 1998, Shih et al. 2020 *3D photography using context-aware
layered depth inpainting*). The dome is a sphere with the sky, continued to all sides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, binary_erosion, binary_opening, distance_transform_edt, gaussian_filter

from geometry.camera import Camera
from geometry.fill import smooth_fill
from geometry.frame import Frame
from scenes.formats.relief import GROUND, NOTHING, SKY, Picture, Relief, only, settled, triangulate
from scenes.formats.shown import Layer, Shown, rays_of
from scenes.io.png import to_bytes


@dataclass(frozen=True)
class BackdropPolicy:
    """Numbers of the sheet and the dome.

    Attributes:
        turn_deg: the angle of a view around the photo's median depth up to which the sheet must be complete.
        farthest_px: reach of the sheet behind an outline, as a share of the photo's width.
        margin: around the photo's frame, as a share of its sides.
        behind: factor on the inverse depth of the sheet where it would otherwise touch what is before it.
        mixed_px: distance from an outline up to which pixels mix two surfaces.
        sampled_px: distance from an outline up to which the surface behind it gives the sheet depth and color.
        smoothing_px: standard deviation by which depth and color of the sheet are smoothed behind things.
        margin_smoothing_px: the same beyond the photo's frame.
        overlap_px: of the sheet with the surface that it continues.
        dome_px: width of the dome's picture, which goes all around.
        dome_blur_px: standard deviation by which what is not sky is blurred in it.
        dome_radius: over that of the sky's own pieces, which must be nearer even in the middle of a facet.
    """

    turn_deg: float = 20.0
    farthest_px: float = 0.35
    margin: float = 0.3
    behind: float = 0.98
    mixed_px: int = 2
    sampled_px: int = 10
    smoothing_px: float = 4.0
    margin_smoothing_px: float = 20.0
    overlap_px: int = 2
    dome_px: int = 1024
    dome_blur_px: float = 12.0
    dome_radius: float = 1.02


def background_sheet(
    shown: Shown,
    median_depth: float,
    farthest: float,
    policy: BackdropPolicy = BackdropPolicy(),
) -> Layer | None:
    """The background of what is shown, seen from the photo's camera; None where nothing hides anything.

    Args:
        shown: all surfaces so far.
        median_depth: of the photo, scene units.
        farthest: upper limit of the depth, scene units.
        policy: see there.
    """
    camera = with_margin(shown.camera, policy.margin)
    rays = rays_of(camera)
    look = shown.look(rays)
    # Slits between two triangles are no unknown region.
    unknown = binary_opening(look.kind == NOTHING, iterations=2)
    rgb = torch.from_numpy(look.rgb).permute(2, 0, 1).float()
    depth = torch.from_numpy(np.where(np.isfinite(look.reach), look.reach, farthest))[None].float()
    known = torch.from_numpy(look.kind != NOTHING)[None]
    front = settled(Frame(rgb, depth, known, torch.from_numpy(look.kind == SKY)[None], camera), farthest)
    if not (front.kind == GROUND).any():
        return None
    shift_px = math.sin(math.radians(policy.turn_deg)) * median_depth * float(camera.focal_px.mean())
    near, far_ground, far_sky = _outlines(front, shift_px, policy.farthest_px * shown.camera.size[1])
    covering = _spread(front, near) > 0.0
    # Where a surface behind the first one is known, the sheet lies behind it and takes its depth.
    second = _second(shown, rays, front, covering)
    is_second = np.isfinite(second)
    label = _nearest_label(is_second | far_ground, far_sky) | unknown
    wanted = (covering & label) | (unknown & (front.kind == GROUND))
    if not wanted.any():
        return None
    inverse, colors = _continued(front, look.rgb, unknown, covering, far_ground, second, policy)
    inverse = np.where(unknown, inverse, np.minimum(inverse, policy.behind * front.inverse))
    kind = np.where(wanted, GROUND, np.where(covering, NOTHING, np.where(front.kind == GROUND, GROUND, NOTHING)))
    sheet = replace(front, inverse=inverse, kind=kind)
    overlap = _spread(sheet, np.where(wanted, float(policy.overlap_px), 0.0)) > 0.0
    part = only(sheet, wanted | overlap)
    if not part.kind.any():
        return None
    frame = Frame(colors, depth, known, ~known, camera)
    return Layer(triangulate(part, frame), to_bytes(colors), behind=True)


def sky_dome(shown: Shown, policy: BackdropPolicy = BackdropPolicy()) -> Layer:
    """A sphere of radius `BackdropPolicy.dome_radius` with the sky, and below the horizon the colors of the ground."""
    width = policy.dome_px
    height = width // 2
    rows, columns = np.meshgrid(np.arange(height) + 0.5, np.arange(width) + 0.5, indexing="ij")
    toward = _directions(np.stack([columns, rows], -1), width)
    look = shown.look(toward)
    sky = np.asarray(binary_erosion(look.kind == SKY, iterations=policy.mixed_px), bool)
    down = toward[..., 1]
    # Above the horizon only sky may show beside a thing that hid it: the horizon is where the sky is seen lowest.
    # Houses may hide it: then it is at the height of the camera.
    horizon = max(0.0, float(np.quantile(down[sky], 0.98))) if sky.any() else -1.0
    ground = (look.kind == GROUND) & (down > horizon)
    wrapped = np.pad(np.arange(width), width // 2, mode="wrap")
    colors = torch.from_numpy(look.rgb).permute(2, 0, 1).float()
    above, below = (
        smooth_fill(colors[..., wrapped], torch.from_numpy(mask[:, wrapped])[None]).numpy()[..., width // 2 :][
            ..., :width
        ]
        for mask in (sky, ground)
    )
    above = above if sky.any() else below
    below = below if ground.any() else above
    haze = 0.05  # of the transition at the horizon, in sines of the elevation
    share = np.clip(0.5 + (down - horizon) / haze, 0.0, 1.0)
    # The left border is the right one.
    wide = ((1.0 - share) * above + share * below)[..., wrapped]
    blur = (0.0, policy.dome_blur_px, policy.dome_blur_px)
    made_up = gaussian_filter(wide, blur, mode="nearest")[..., width // 2 :][..., :width]
    # The sky itself stays, with a soft transition to what is made up.
    known = gaussian_filter(sky.astype(float), policy.dome_blur_px / 4.0) * sky
    image = torch.from_numpy(known * above + (1.0 - known) * made_up).float()
    across, around = 64, 32  # facets
    grid = np.stack(np.meshgrid(np.linspace(0, width, across + 1), np.linspace(0, height, around + 1)), -1)
    index = np.arange((across + 1) * (around + 1)).reshape(around + 1, across + 1)
    a, b, c, d = (part.ravel() for part in (index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]))
    # At a pole one of the two triangles of a facet has no area.
    triangles = np.concatenate([np.stack([a, c, b], 1)[across:], np.stack([b, c, d], 1)[:-across]])
    pixels = grid.reshape(-1, 2)
    positions = policy.dome_radius * _directions(pixels, width)
    return Layer(Relief(positions, pixels, triangles, np.ones(len(triangles), bool)), to_bytes(image))


def _directions(pixels: NDArray, width: int) -> NDArray:
    """Directions ``[.. 3]`` of places in a picture of the whole sphere, whose middle is ahead."""
    azimuth, elevation = (pixels[..., 0] / width - 0.5) * 2.0 * np.pi, (0.5 - 2.0 * pixels[..., 1] / width) * np.pi
    flat = np.cos(elevation)
    return np.stack([np.sin(azimuth) * flat, -np.sin(elevation), np.cos(azimuth) * flat], -1)


def with_margin(camera: Camera, margin: float) -> Camera:
    """The same camera with an image that is larger by a share of its sides on every side."""
    height, width = camera.size
    rows, columns = (round(margin * side) for side in (height, width))
    center = camera.center_px + camera.center_px.new_tensor([columns, rows])
    return replace(camera, center_px=center, size=(height + 2 * rows, width + 2 * columns))


def _outlines(picture: Picture, shift_px: float, most_px: float) -> tuple[NDArray, NDArray, NDArray]:
    """Reach of the sheet from pixels on the near side of outlines, and the pixels on their far side: ground, and sky.

    A camera that moves by some shift sees as far behind an outline as the inverse depths on its two sides differ.
    """
    near = np.zeros(picture.kind.shape)
    far_ground, far_sky = np.zeros(near.shape, bool), np.zeros(near.shape, bool)
    inverse = np.where(picture.kind == SKY, 0.0, picture.inverse)
    for cut, axis in zip(picture.cuts(), (1, 0), strict=True):
        rest = picture.kind.shape[axis] - 1
        low, high = (tuple(slice(k, k + rest) if axis == a else slice(None) for a in (0, 1)) for k in (0, 1))
        for front, back in ((low, high), (high, low)):
            is_front = cut & (inverse[front] > inverse[back]) & (picture.kind[front] == GROUND)
            reach = np.clip(shift_px * (inverse[front] - inverse[back]), 2.0, most_px)
            to_ground = is_front & (picture.kind[back] == GROUND)
            near[front] = np.maximum(near[front], np.where(to_ground, reach, 0.0))
            far_ground[back] |= to_ground
            far_sky[back] |= is_front & (picture.kind[back] == SKY)
    return near, far_ground, far_sky


def _spread(picture: Picture, budget: NDArray) -> NDArray:
    """Budgets, in pixels, that spread over their surfaces and lose one per pixel."""
    right, down = picture.cuts()
    out = budget.copy()
    for _ in range(math.ceil(out.max())):
        before = out
        out = before.copy()
        step = np.maximum(before - 1.0, 0.0)
        out[:, 1:] = np.maximum(out[:, 1:], np.where(right, 0.0, step[:, :-1]))
        out[:, :-1] = np.maximum(out[:, :-1], np.where(right, 0.0, step[:, 1:]))
        out[1:] = np.maximum(out[1:], np.where(down, 0.0, step[:-1]))
        out[:-1] = np.maximum(out[:-1], np.where(down, 0.0, step[1:]))
        if np.array_equal(out, before):
            break
    return out


def _second(shown: Shown, rays: NDArray, front: Picture, where: Bool[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    """Depth of the second surface along the rays of some pixels; infinite without one."""
    past = 1.05  # of the depth of the first: its own triangles must not be hit again
    origin = shown.camera.position.numpy(force=True)
    start = origin + rays * (past / front.inverse)[..., None]
    reach = past / front.inverse + shown.reach(start, rays)
    return np.where(where, reach, np.inf)


def _nearest_label(ground: NDArray, sky: NDArray) -> NDArray:
    """Which pixels have a pixel of the one mask nearer than any of the other."""
    if not ground.any():
        return np.zeros_like(ground)
    if not sky.any():
        return np.ones_like(ground)
    to_ground, to_sky = (np.asarray(distance_transform_edt(~mask)) for mask in (ground, sky))
    return to_ground <= to_sky


def _continued(
    front: Picture,
    rgb: NDArray,
    unknown: NDArray,
    covering: NDArray,
    far_ground: NDArray,
    second: NDArray,
    policy: BackdropPolicy,
) -> tuple[NDArray, torch.Tensor]:
    """Inverse depth and colors of the surfaces behind ``covering``, and of what goes on beyond the frame."""
    right, down = front.cuts()
    beside = np.zeros_like(unknown)
    beside[:, :-1] |= right
    beside[:, 1:] |= right
    beside[:-1] |= down
    beside[1:] |= down
    # Pixels at an outline mix both surfaces, in color and in depth.
    mixed = np.asarray(binary_dilation(beside, iterations=policy.mixed_px), bool)
    pure = ~mixed & ~unknown & (front.kind == GROUND)
    band = _spread(front, np.where(far_ground, float(policy.sampled_px), 0.0)) > 0.0
    sides = band & pure if (band & pure).any() else far_ground
    out = np.concatenate([front.inverse[..., None], rgb], -1)
    if covering.any():
        is_second = np.isfinite(second)
        given = np.concatenate([np.where(is_second, 1.0 / second, front.inverse)[..., None], rgb], -1)
        behind = np.concatenate([_filled(given[..., :1], sides | is_second), _filled(given[..., 1:], sides)], -1)
        # Outlines of foliage give depths and colors that differ from pixel to pixel.
        out[covering] = _smoothed(behind, covering, policy.smoothing_px)
    if unknown.any() and pure.any():
        nearest = np.asarray(distance_transform_edt(~pure, return_distances=False, return_indices=True))
        out[unknown] = _smoothed(out[tuple(nearest)], unknown, policy.margin_smoothing_px)
    return out[..., 0], torch.from_numpy(out[..., 1:]).permute(2, 0, 1).float()


def _filled(values: NDArray, given: NDArray) -> NDArray:
    filled = smooth_fill(torch.from_numpy(values).permute(2, 0, 1).float(), torch.from_numpy(given)[None])
    return filled.permute(1, 2, 0).double().numpy()


def _smoothed(values: NDArray, where: NDArray, sigma_px: float) -> NDArray:
    """Means ``[k c]`` of values ``[h w c]`` at the pixels of a mask, over pixels of the mask alone."""
    share = gaussian_filter(where.astype(float), sigma_px)[where]
    return gaussian_filter(values * where[..., None], (sigma_px, sigma_px, 0.0))[where] / share[:, None]
