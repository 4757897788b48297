"""Values of a picture that hang together where its colors do: weighted least squares on two and more scales."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from geometry.depth.alignment_kernels import advance, multiply, refine, set_up, tie_neighbors, turn
from geometry.jit import for_blocks

BLOCK_ROWS = 120


@dataclass(frozen=True)
class Picture:
    """Colors and sides of a picture.

    Attributes:
        lab: CIELAB, ``[h w 3]``.
        side: pixels of different sides are not tied, ``[h w]``.
    """

    lab: Float[np.ndarray, "h w 3"]
    side: UInt8[np.ndarray, "h w"]

    def half(self) -> Picture:
        """At half the size."""
        return Picture(_half(self.lab), (_half(self.side.astype(np.float32)) > 0.5).astype(np.uint8))


@dataclass(frozen=True)
class Ties:
    """How neighbors hang together.

    Attributes:
        color_scale: CIELAB units within which two neighbors belong together.
        leak: weight between neighbors of any color; those of one color have 1.
        smoothness: weight of all ties over that of trusted values.
    """

    color_scale: float
    leak: float
    smoothness: float


def solve(
    picture: Picture,
    values: Float[np.ndarray, "h w"],
    trust: Float[np.ndarray, "h w"],
    sloping: Float[np.ndarray, "h w"],
    ties: Ties,
    iterations: int = 50,
    coarsest_px: int = 48,
) -> Float[np.ndarray, "h w"]:
    """Minimize ``trust (x - values)² + smoothness tie (x - neighbor - rise)²`` over all pairs of neighbors.

    The rise from a neighbor is that of the values as far as both are ``sloping``, 0..1. Conjugate gradients, started
    from the solution for the picture at half the size: what is far reaches a pixel on the coarse scales.

    Args:
        picture: what hangs together.
        values: of each pixel.
        trust: weight of a value; above 0.
        sloping: 0..1.
        ties: weights of neighbors.
        iterations: of each scale; ten times as many of the coarsest.
        coarsest_px: short side from which no coarser scale is solved.
    """
    start = values.astype(np.float32)
    if min(values.shape) < 2 * coarsest_px:
        return _conjugate_gradients(picture, start, trust, sloping, ties, start, 10 * iterations)
    small, weight, plain = picture.half(), _half(trust), _half(values)
    mean = (_half(values * trust) / weight).astype(np.float32)
    # Four pixels are as sure as their sum; the ties between blocks are as strong as those between pixels.
    coarse = solve(small, mean, 4.0 * weight, _half(sloping), ties, iterations, coarsest_px)
    change = np.empty_like(start)
    by_rows = (coarse - plain, small.lab, small.side, picture.lab, picture.side, ties.color_scale, change)
    _rows(len(start), refine, *by_rows)
    return _conjugate_gradients(picture, start, trust, sloping, ties, start + change, iterations)


def _conjugate_gradients(
    picture: Picture,
    values: np.ndarray,
    trust: np.ndarray,
    sloping: np.ndarray,
    ties: Ties,
    start: np.ndarray,
    iterations: int,
    tolerance: float = 1e-5,
) -> np.ndarray:
    """Jacobi-preconditioned conjugate gradients (Hestenes and Stiefel 1952)."""
    height, width = values.shape
    weights = np.empty((4, height, width), np.float32)
    diagonal, wanted, product = (np.empty((height, width), np.float32) for _ in range(3))
    dots = np.empty(height)
    trust, sloping = trust.astype(np.float32), sloping.astype(np.float32)
    _rows(height, tie_neighbors, picture.lab, picture.side, ties.color_scale, ties.leak, weights)
    _rows(height, set_up, weights, values, sloping, trust, ties.smoothness, diagonal, wanted)
    solution = start.copy()
    _rows(height, multiply, weights, diagonal, ties.smoothness, solution, product, dots)
    residual = wanted - product
    direction = np.zeros_like(residual)
    scale = float((wanted.astype(np.float64) ** 2 / diagonal).sum())
    square = float((residual.astype(np.float64) ** 2 / diagonal).sum())
    share = 0.0
    for _ in range(iterations):
        if square <= tolerance**2 * scale:
            break
        _rows(height, turn, share, residual, diagonal, direction)
        _rows(height, multiply, weights, diagonal, ties.smoothness, direction, product, dots)
        _rows(height, advance, square / dots.sum(), direction, product, diagonal, solution, residual, dots)
        share, square = dots.sum() / square, float(dots.sum())
    return solution


def _half(values: np.ndarray) -> np.ndarray:
    """Means over blocks of two by two pixels."""
    height, width = values.shape[:2]
    return cv2.resize(values, (width // 2, height // 2), interpolation=cv2.INTER_AREA)


def _rows(height: int, kernel: Any, *arguments: Any) -> None:
    for_blocks(height, BLOCK_ROWS, lambda first, last: kernel(first, last, *arguments))
