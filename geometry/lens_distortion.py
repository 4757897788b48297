"""Lenses that bend straight lines, and photos resampled to the pinhole of the same focal length.

The models are OpenCV's: the rational one (``k1 k2 p1 p2 k3 k4 k5 k6``) and the fisheye of Kannala and Brandt
(``k1 k2 k3 k4``). Other programs' models are given as one of the two where they are a case of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from jaxtyping import Float, UInt8


@dataclass(frozen=True)
class DistortedLens:
    """A lens with distortion, in pixels of the images it belongs to.

    Attributes:
        model: what the file calls it; for messages.
        fisheye: which of OpenCV's models ``coefficients`` belong to.
        coefficients: ``k1 k2 p1 p2 k3 k4 k5 k6``, or of a fisheye ``k1 k2 k3 k4``.
        focal_px: ``(fx, fy)``.
        center_px: ``(cx, cy)``, pixel centers at +0.5.
        image_size: ``(H, W)``.
    """

    model: str
    fisheye: bool
    coefficients: tuple[float, ...]
    focal_px: tuple[float, float]
    center_px: tuple[float, float]
    image_size: tuple[float, float]

    @cached_property
    def kept(self) -> float:
        """Share of each side, about the middle, that the pinhole's image of the same focal length can show.

        Beyond it the pinhole looks past the border of the photo, or where the polynomial of the model folds back.

        Raises:
            ValueError: less than half of each side is left.
        """
        height, width = self.image_size
        least, points = 0.5, 129  # less than half of each side is not the same photo any more
        across = np.linspace(0.0, 1.0, points)
        u, v = np.meshgrid(across * width, across * height)
        seen_u, seen_v = self._distorted(u, v)
        inside = (seen_u >= -0.5) & (seen_u <= width + 0.5) & (seen_v >= -0.5) & (seen_v <= height + 0.5)
        (u_down, u_right), (v_down, v_right) = np.gradient(seen_u), np.gradient(seen_v)
        # A negative determinant: the polynomial has turned back.
        unfolded = u_right * v_down - u_down * v_right > 0.0
        reach = np.maximum(np.abs(u / width - 0.5), np.abs(v / height - 0.5)) * 2.0
        # Folding or leaving shows between two points of the grid: one step less is safe.
        share = float(reach[~(inside & unfolded)].min(initial=1.0 + 2.0 / (points - 1)) - 2.0 / (points - 1))
        if share < least:
            raise ValueError(
                f"distortion of {self.model}: want one that leaves {least:.0%} of the photo's sides to a pinhole "
                f"of the same focal length, got {max(share, 0.0):.0%}; undistort the photo and its cameras yourself"
            )
        return share

    def _distorted(
        self, u: Float[np.ndarray, "h w"], v: Float[np.ndarray, "h w"]
    ) -> tuple[Float[np.ndarray, "h w"], Float[np.ndarray, "h w"]]:
        """Where the photo shows what the pinhole shows at ``(u, v)``, in pixels."""
        fx, fy = self.focal_px
        cx, cy = self.center_px
        rays = np.stack([(u - cx) / fx, (v - cy) / fy, np.ones_like(u)], -1).reshape(-1, 1, 3)
        project = cv2.fisheye.projectPoints if self.fisheye else cv2.projectPoints
        camera = np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
        points = project(rays, np.zeros(3), np.zeros(3), camera, np.array(self.coefficients))[0].reshape(*u.shape, 2)
        return points[..., 0], points[..., 1]

    def straightened(self, rgb: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h2 w2 3"]:
        """The photo as the pinhole of the same focal length shows it, cut to the middle ``kept`` of each side.

        Args:
            rgb: the whole photo at any resolution, of the aspect of ``image_size``.
        """
        height, width = rgb.shape[:2]
        scale = np.array([width / self.image_size[1], height / self.image_size[0]])
        focal, center = np.array(self.focal_px) * scale, np.array(self.center_px) * scale - 0.5  # OpenCV's centers: +0
        out_width, out_height = round(width * self.kept), round(height * self.kept)
        corner = np.array([width - out_width, height - out_height]) / 2.0
        camera, shown = (
            np.array([[focal[0], 0.0, middle[0]], [0.0, focal[1], middle[1]], [0.0, 0.0, 1.0]])
            for middle in (center, center - corner)
        )
        undistort_map = cv2.fisheye.initUndistortRectifyMap if self.fisheye else cv2.initUndistortRectifyMap
        columns, rows = undistort_map(
            camera, np.array(self.coefficients), np.eye(3), shown, (out_width, out_height), cv2.CV_32FC1
        )
        return cv2.remap(rgb, columns, rows, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
