"""Weighted least squares along the colors of a picture, against a direct sparse solution."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse import coo_array
from scipy.sparse.linalg import spsolve

from geometry.depth.picture_solver import Picture, Ties, solve

TIES = Ties(color_scale=4.0, leak=1e-3, smoothness=20.0)


def problem(height: int, width: int) -> tuple[Picture, np.ndarray, np.ndarray, np.ndarray]:
    """Patches of color with noise, values with a soft step, trusted on two thirds of the picture."""
    rng = np.random.default_rng(height)
    lab = 30.0 * rng.random((height // 8 + 1, width // 8 + 1, 3)).repeat(8, 0).repeat(8, 1)[:height, :width]
    side = (np.indices((height, width)).sum(0) > height + 4).astype(np.uint8)
    values = np.tanh((np.arange(width) - width / 2) / 6.0)[None].repeat(height, 0) + 0.1 * rng.random((height, width))
    trust = np.where(rng.random((height, width)) > 0.35, 1.0, 5e-3)
    picture = Picture((lab + rng.random(lab.shape)).astype(np.float32), side)
    sloping = rng.random((height, width)).astype(np.float32)
    return picture, values.astype(np.float32), trust.astype(np.float32), sloping


def direct(
    picture: Picture, values: np.ndarray, trust: np.ndarray, sloping: np.ndarray, ties: Ties, **_: object
) -> np.ndarray:
    """The slow twin of `solve`: all pairs one by one, and a direct solver."""
    height, width = values.shape
    rows, columns, entries = [], [], []
    wanted = (trust.astype(np.float64) * values).ravel()
    for y in range(height):
        for x in range(width):
            rows.append(y * width + x)
            columns.append(y * width + x)
            entries.append(float(trust[y, x]))
            for v, u in ((y, x + 1), (y + 1, x - 1), (y + 1, x), (y + 1, x + 1)):
                if not (v < height and 0 <= u < width) or picture.side[y, x] != picture.side[v, u]:
                    continue
                step = picture.lab[y, x].astype(np.float64) - picture.lab[v, u]
                tie = ties.smoothness * (np.exp(-(step**2).sum() / ties.color_scale**2) + ties.leak)
                rise = float(min(sloping[y, x], sloping[v, u])) * (float(values[v, u]) - float(values[y, x]))
                here, there = y * width + x, v * width + u
                rows += [here, there, here, there]
                columns += [here, there, there, here]
                entries += [tie, tie, -tie, -tie]
                wanted[here] -= tie * rise
                wanted[there] += tie * rise
    system = coo_array((entries, (rows, columns)), shape=(height * width,) * 2).tocsc()
    return np.asarray(spsolve(system, wanted)).reshape(height, width)


@pytest.mark.parametrize(("height", "width"), [(9, 14), (30, 47), (61, 48)])
def test_scales_and_iterations_find_the_direct_solution(height: int, width: int) -> None:
    picture, values, trust, sloping = problem(height, width)
    wanted = direct(picture, values, trust, sloping, TIES)
    assert np.abs(wanted - values).max() > 0.1
    found = solve(picture, values, trust, sloping, TIES, iterations=200, coarsest_px=8)
    assert np.abs(found - wanted).max() < 1e-3


def test_coarser_scales_bring_what_is_far() -> None:
    height, width = 96, 128
    lab, trust = np.zeros((height, width, 3), np.float32), np.full((height, width), 1e-4, np.float32)
    values = np.zeros((height, width), np.float32)
    trust[:, 0], values[:, 0] = 1.0, 1.0  # known on the left only
    picture, flat = Picture(lab, np.zeros((height, width), np.uint8)), np.zeros_like(trust)
    wanted = direct(picture, values, trust, flat, TIES)
    few = solve(picture, values, trust, flat, TIES, iterations=10, coarsest_px=12)
    one_scale = solve(picture, values, trust, flat, TIES, iterations=1, coarsest_px=10_000)  # 10 iterations
    assert np.abs(few - wanted).mean() < 0.1 * np.abs(one_scale - wanted).mean()


def test_the_solution_does_not_depend_on_the_number_of_threads() -> None:
    problem_ = problem(70, 90)
    threads = torch.get_num_threads()
    try:
        found = []
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(solve(*problem_, TIES, coarsest_px=16))
    finally:
        torch.set_num_threads(threads)
    assert np.array_equal(*found)
