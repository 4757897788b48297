"""Scale of camera positions in units of an estimated depth.

Camera files of reconstructed video hold positions up to one factor, and so does an estimated depth. The factor between
them is the one with which the first frame, moved by its depth into the other cameras, looks like the other frames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from jaxtyping import Bool, Float
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample

from geometry.camera import Camera
from geometry.frame import Frame
from geometry.project import project, unproject

# Distance of the farthest camera, in median depths of the first frame: bounds and step of the grid.
NEAREST, FARTHEST, STEP = 0.005, 2.0, 1.1
COARSE_PX, FINE_PX = 40, 80  # short side of the images on the grid, and near its best factor; at least so many pixels
OUTLIER = 0.25  # color difference from which on all are alike: what another surface hides
LEAST_SHOWN = 0.5  # share of the first frame's surface that the other frames must show on average


@dataclass(frozen=True)
class PoseScale:
    """The factor on camera positions, and how well it explains the frames.

    Attributes:
        factor: on the positions; in units of the depth.
        gain: share of the color differences without any translation that the translation removes, where the frames
            show the first one with and without it.
    """

    factor: float
    gain: float


def find_pose_scale(first: Frame, rgb: Float[Tensor, "t 3 h w"], camera: Camera) -> PoseScale | None:
    """Search the factor on the positions of cameras that brings a frame nearest to the colors they saw.

    A logarithmic grid on small images, then a search between two of its steps on larger ones. Rotations are trusted.

    Args:
        first: frame ``[1]`` with depth.
        rgb: colors in 0..1 of the other frames.
        camera: their cameras ``[t]``, in the axes of the first frame's camera, which is the identity.

    Returns:
        The factor and its gain; None if the cameras do not move, or no factor lets them see the first frame.
    """
    farthest = camera.position.norm(dim=-1).max().item()
    if not farthest > 0.0 or not first.surface.any():
        return None
    unit = first.median_depth() / farthest
    coarse = _Views(first, rgb, camera, COARSE_PX)
    steps = math.ceil(math.log(FARTHEST / NEAREST) / math.log(STEP))
    grid = [unit * NEAREST * STEP**step for step in range(steps + 1)]
    error, best = min((coarse.error(factor), factor) for factor in grid)
    if error >= OUTLIER:
        return None
    fine, near = _Views(first, rgb, camera, FINE_PX), math.log(best)
    bounds = (near - math.log(STEP), near + math.log(STEP))
    found = minimize_scalar(
        lambda log: fine.error(math.exp(log)), bounds=bounds, method="bounded", options={"xatol": 1e-3}
    )
    factor = math.exp(float(found.x))
    return PoseScale(factor, fine.gain(factor))


class _Views:
    """The first frame's surface points, and what the other frames show where they are, at about ``short_px``."""

    def __init__(self, first: Frame, rgb: Tensor, camera: Camera, short_px: int) -> None:
        common, short = math.gcd(*camera.size), min(camera.size)
        pooling = max(f for f in range(1, common + 1) if common % f == 0 and (f == 1 or short >= f * short_px))
        small = first.pooled(pooling)
        seen = small.surface[0, 0]
        self.points = unproject(small.depth, small.camera)[0][:, seen].T
        self.colors = small.rgb[0][:, seen]
        self.rgb = avg_pool2d(rgb, pooling)
        self.camera = camera.pooled(pooling)

    def error(self, factor: float) -> float:
        """Mean difference over all points that the other frames show; ``OUTLIER``, the largest, if they are too few."""
        difference, shown = self._compared(factor)
        return difference[shown].mean().item() if shown.float().mean() >= LEAST_SHOWN else OUTLIER

    def gain(self, factor: float) -> float:
        """Share of the differences at factor 0 that are removed, over the points that are shown at both."""
        (moved, moved_shown), (still, still_shown) = self._compared(factor), self._compared(0.0)
        both = moved_shown & still_shown
        return 1.0 - (moved[both].sum() / still[both].sum().clamp_min(1e-9)).item()

    def _compared(self, factor: float) -> tuple[Float[Tensor, "t n"], Bool[Tensor, "t n"]]:
        """Color differences of the points, at most ``OUTLIER``, and which points a frame shows."""
        pose = self.camera.world_from_camera.clone()
        pose[:, :3, 3] *= factor
        count = len(pose)
        pixels, depth = project(self.points.expand(count, -1, -1), replace(self.camera, world_from_camera=pose))
        height, width = self.camera.size
        place = 2.0 * pixels / pixels.new_tensor([width, height]) - 1.0
        shown = (depth > 0.0) & (place.abs() < 1.0).all(-1)
        colors = grid_sample(self.rgb, place[:, None], padding_mode="border", align_corners=False)[:, :, 0]
        return (colors - self.colors).abs().mean(1).clamp_max(OUTLIER), shown
